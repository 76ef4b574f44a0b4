//! What objects take of a resource quota: <https://kubernetes.io/docs/concepts/policy/resource-quotas/>.

use std::collections::BTreeMap;

use serde_json::Value;

use super::quantity::Quantity;

/// Amounts in thousandths, by the name that quotas give them.
pub(crate) type Usage = BTreeMap<String, i128>;

/// Compute resources that quotas name without `requests.` as well.
const PLAIN: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Whether a name stands for something that containers request.
pub(crate) fn is_compute(name: &str) -> bool {
    let name = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    PLAIN.contains(&name)
}

/// Whether a quota speaks of an object of this kind.
pub(crate) fn in_scope(quota: &Value, plural: &str, object: &Value) -> bool {
    let pods = plural == "pods";
    let scopes = quota["spec"]["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let selectors = quota["spec"]["scopeSelector"]["matchExpressions"].as_array().is_some_and(|list| !list.is_empty());
    !selectors
        && scopes.into_iter().all(|scope| {
            let ends = object["spec"]["activeDeadlineSeconds"].is_number();
            let best_effort = object["status"]["qosClass"] == "BestEffort";
            pods && match scope {
                "Terminating" => ends,
                "NotTerminating" => !ends,
                "BestEffort" => best_effort,
                "NotBestEffort" => !best_effort,
                _ => false,
            }
        })
}

/// What one object takes.
pub(crate) fn usage(group: &str, plural: &str, object: &Value) -> Usage {
    let mut usage = Usage::new();
    let counted = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    usage.insert(format!("count/{counted}"), 1000);
    match (group, plural) {
        ("", "pods") => {
            // A pod that has ended takes nothing.
            if matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
                return usage;
            }
            usage.insert("pods".to_owned(), 1000);
            pod_usage(object, &mut usage);
        }
        ("", "services") => {
            usage.insert("services".to_owned(), 1000);
            let ports = object["spec"]["ports"].as_array().map_or(0, Vec::len);
            let ports = i128::try_from(ports).unwrap_or_default() * 1000;
            match object["spec"]["type"].as_str() {
                Some("NodePort") => {
                    usage.insert("services.nodeports".to_owned(), ports);
                }
                Some("LoadBalancer") => {
                    usage.insert("services.loadbalancers".to_owned(), 1000);
                    usage.insert("services.nodeports".to_owned(), ports);
                }
                _ => {}
            }
        }
        ("", "persistentvolumeclaims") => {
            usage.insert("persistentvolumeclaims".to_owned(), 1000);
            let storage = thousandths(&object["spec"]["resources"]["requests"]["storage"]);
            usage.insert("requests.storage".to_owned(), storage);
            if let Some(class) = object["spec"]["storageClassName"].as_str() {
                let prefix = format!("{class}.storageclass.storage.k8s.io");
                usage.insert(format!("{prefix}/persistentvolumeclaims"), 1000);
                usage.insert(format!("{prefix}/requests.storage"), storage);
            }
        }
        ("", "configmaps" | "secrets" | "replicationcontrollers") => {
            usage.insert(plural.to_owned(), 1000);
        }
        _ => {}
    }
    usage
}

/// The containers together, or the largest of the containers that run before them.
fn pod_usage(pod: &Value, usage: &mut Usage) {
    for list in ["requests", "limits"] {
        let amounts = |containers: &str| -> Vec<BTreeMap<String, i128>> {
            let containers = pod["spec"][containers].as_array().into_iter().flatten();
            containers
                .map(|container| {
                    let resources = container["resources"][list].as_object().into_iter().flatten();
                    resources.map(|(name, amount)| (name.clone(), thousandths(amount))).collect()
                })
                .collect()
        };
        let mut total = Usage::new();
        for container in amounts("containers") {
            for (name, amount) in container {
                *total.entry(name).or_default() += amount;
            }
        }
        for container in amounts("initContainers") {
            for (name, amount) in container {
                let entry = total.entry(name).or_default();
                *entry = (*entry).max(amount);
            }
        }
        for (name, amount) in total {
            if list == "requests" && PLAIN.contains(&name.as_str()) {
                usage.insert(name.clone(), amount);
            }
            usage.insert(format!("{list}.{name}"), amount);
        }
    }
}

pub(crate) fn text(quantity: &Value) -> String {
    match quantity {
        Value::String(text) => text.clone(),
        Value::Null => "0".to_owned(),
        other => other.to_string(),
    }
}

pub(crate) fn thousandths(quantity: &Value) -> i128 {
    Quantity::parse(&text(quantity)).map(Quantity::millis).unwrap_or_default()
}

/// As Kubernetes would write a sum: binary units for what is a multiple of them, thousandths for what is not whole.
pub(crate) fn shown(thousandths: i128) -> String {
    if thousandths % 1000 != 0 {
        return format!("{thousandths}m");
    }
    let whole = thousandths / 1000;
    for (unit, size) in [("Ti", 1_i128 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
        if whole != 0 && whole % size == 0 {
            return format!("{}{unit}", whole / size);
        }
    }
    whole.to_string()
}

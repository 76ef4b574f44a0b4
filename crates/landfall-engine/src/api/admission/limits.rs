//! Limit ranges: defaults for containers that say nothing about resources, and bounds for those that do.

use serde_json::{Value, json};

use crate::api::Call;
use crate::api::failure::{Failure, Subject};
use crate::scheme::quantity::Quantity;
use crate::store::Collection;

/// Completes and checks a new pod or claim.
pub(crate) fn apply(call: &Call<'_>, object: &mut Value) -> Result<(), Failure> {
    let ranges = call.state.store.list(&Collection::new("", "limitranges"), Some(&call.target.namespace)).records;
    let limits: Vec<Value> = ranges
        .iter()
        .flat_map(|range| range.value()["spec"]["limits"].as_array().cloned().unwrap_or_default())
        .collect();
    if limits.is_empty() {
        return Ok(());
    }
    let pod = call.resource.plural == "pods";
    if pod {
        limits.iter().filter(|limit| limit["type"] == "Container").for_each(|limit| complete(object, limit));
    }
    let mut wrong = Vec::new();
    for limit in &limits {
        match limit["type"].as_str() {
            Some("Container") if pod => {
                for list in ["containers", "initContainers"] {
                    for container in object["spec"][list].as_array().into_iter().flatten() {
                        check(limit, "Container", &container["resources"], &mut wrong);
                    }
                }
            }
            Some("Pod") if pod => check(limit, "Pod", &total(object), &mut wrong),
            Some("PersistentVolumeClaim") if !pod => {
                check(limit, "PersistentVolumeClaim", &object["spec"]["resources"], &mut wrong);
            }
            _ => {}
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let why = if let [one] = wrong.as_slice() { one.clone() } else { format!("[{}]", wrong.join(", ")) };
    Err(Failure::forbidden(&Subject::resource(call.resource, name), &why))
}

/// Defaults of a range for every container that does not say otherwise.
fn complete(pod: &mut Value, limit: &Value) {
    let mut given = Vec::new();
    for list in ["initContainers", "containers"] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (kind, defaults) in [("requests", "defaultRequest"), ("limits", "default")] {
                let mut set = Vec::new();
                for (resource, amount) in limit[defaults].as_object().into_iter().flatten() {
                    // A limit that the container sets itself is its request as well; the scheme's defaults say so.
                    if container["resources"][kind].get(resource).is_none() {
                        container["resources"][kind][resource] = amount.clone();
                        set.push(resource.clone());
                    }
                }
                if !set.is_empty() {
                    set.sort();
                    let kind = kind.trim_end_matches('s');
                    let role = if list == "containers" { "container" } else { "init container" };
                    given.push(format!("{} {kind} for {role} {name}", set.join(", ")));
                }
            }
        }
    }
    if !given.is_empty() {
        let text = format!("LimitRanger plugin set: {}", given.join("; "));
        if pod["metadata"]["annotations"].is_null() {
            pod["metadata"]["annotations"] = json!({});
        }
        pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"] = text.into();
    }
}

fn amount(value: &Value) -> Option<i128> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    Quantity::parse(&text).map(Quantity::millis)
}

fn total(pod: &Value) -> Value {
    let mut total = json!({"requests": {}, "limits": {}});
    for kind in ["requests", "limits"] {
        for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
            for (resource, value) in container["resources"][kind].as_object().into_iter().flatten() {
                let sum = amount(&total[kind][resource]).unwrap_or(0) + amount(value).unwrap_or(0);
                total[kind][resource] = format!("{sum}m").into();
            }
        }
    }
    total
}

fn check(limit: &Value, kind: &str, resources: &Value, wrong: &mut Vec<String>) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for (resource, least) in limit["min"].as_object().into_iter().flatten() {
        match amount(&resources["requests"][resource]) {
            None => {
                wrong.push(format!("minimum {resource} usage per {kind} is {}.  No request is specified", text(least)));
            }
            Some(request) if Some(request) < amount(least) => wrong.push(format!(
                "minimum {resource} usage per {kind} is {}, but request is {}",
                text(least),
                text(&resources["requests"][resource])
            )),
            Some(_) => {}
        }
    }
    for (resource, most) in limit["max"].as_object().into_iter().flatten() {
        // Claims have requests only.
        let part = if kind == "PersistentVolumeClaim" { "requests" } else { "limits" };
        match amount(&resources[part][resource]) {
            None => {
                wrong.push(format!("maximum {resource} usage per {kind} is {}.  No limit is specified", text(most)));
            }
            Some(used) if Some(used) > amount(most) => wrong.push(format!(
                "maximum {resource} usage per {kind} is {}, but {} is {}",
                text(most),
                part.trim_end_matches('s'),
                text(&resources[part][resource])
            )),
            Some(_) => {}
        }
    }
}

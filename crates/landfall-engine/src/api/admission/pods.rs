//! New pods: their service account with its token, the time that they bear a lost node, their priority.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::Call;
use crate::api::failure::{Failure, Subject};
use crate::api::write::generated_name;
use crate::store::{Collection, Key};

/// Where programs look for the token of their pod.
const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How long the token in a pod lives: an hour, and seven seconds by which Kubernetes tells it from others.
const TOKEN_SECONDS: u32 = 3607;

/// How long a pod stays on a node that is lost, if it does not say so itself.
const LOST_NODE_SECONDS: u32 = 300;

/// The labels of a node that its pods get when they are bound to it.
const PLACES: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// A pod that a kubelet runs from a file of its own.
const MIRROR: &str = "kubernetes.io/config.mirror";

pub(crate) fn complete(call: &Call<'_>, pod: &mut Value) -> Result<(), Failure> {
    set_priority(call, pod)?;
    bear_lost_nodes(pod);
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    for (label, value) in place(call, &node) {
        pod["metadata"]["labels"][label] = value;
    }
    if pod["metadata"]["annotations"].get(MIRROR).is_none() {
        set_account(call, pod)?;
    }
    Ok(())
}

/// Where a node is, as labels that its pods get too.
pub(crate) fn place(call: &Call<'_>, node: &str) -> Vec<(&'static str, Value)> {
    let node = call.state.store.get(&Key::new(&Collection::new("", "nodes"), "", node)).map(|record| record.value());
    let labels = node.as_ref().map(|node| &node["metadata"]["labels"]);
    PLACES.into_iter().filter_map(|label| Some((label, labels?.get(label)?.clone()))).collect()
}

fn refuse(pod: &Value, why: &str) -> Failure {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    Failure::forbidden(&Subject { group: "", kind: "pods", name }, why)
}

fn set_account(call: &Call<'_>, pod: &mut Value) -> Result<(), Failure> {
    let name = match pod["spec"]["serviceAccountName"].as_str() {
        None | Some("") => "default".to_owned(),
        Some(name) => name.to_owned(),
    };
    pod["spec"]["serviceAccountName"] = name.as_str().into();
    pod["spec"]["serviceAccount"] = name.as_str().into();
    let namespace = &call.target.namespace;
    let key = Key::new(&Collection::new("", "serviceaccounts"), namespace, &name);
    let Some(account) = call.state.store.get(&key) else {
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        return Err(refuse(pod, &why));
    };
    let account = account.value();
    let wants = pod["spec"]["automountServiceAccountToken"]
        .as_bool()
        .or_else(|| account["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    if wants {
        mount_token(pod);
    }
    let named = pod["spec"]["imagePullSecrets"].as_array().is_some_and(|secrets| !secrets.is_empty());
    if !named && let Some(secrets) = account["imagePullSecrets"].as_array().filter(|secrets| !secrets.is_empty()) {
        pod["spec"]["imagePullSecrets"] = secrets.clone().into();
    }
    Ok(())
}

/// Every container that has nothing else at that place gets the token.
fn mount_token(pod: &mut Value) {
    let volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    let existing =
        volumes.iter().filter_map(|volume| volume["name"].as_str()).find(|name| name.starts_with("kube-api-access-"));
    let name = existing.map_or_else(|| generated_name("kube-api-access-"), str::to_owned);
    let mut used = false;
    for list in ["initContainers", "containers"] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            if mounts.iter().any(|mount| mount["mountPath"] == TOKEN_FOLDER) {
                continue;
            }
            used = true;
            let mount = json!({"name": name, "readOnly": true, "mountPath": TOKEN_FOLDER});
            container["volumeMounts"] = mounts.into_iter().chain([mount]).collect();
        }
    }
    if !used || existing.is_some() {
        return;
    }
    let volume = json!({
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
                ]}},
            ],
            "defaultMode": 0o644,
        },
    });
    pod["spec"]["volumes"] = volumes.into_iter().chain([volume]).collect();
}

fn bear_lost_nodes(pod: &mut Value) {
    let mut tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    for taint in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let borne = tolerations.iter().any(|toleration| {
            let key = toleration["key"].as_str().unwrap_or_default();
            let effect = toleration["effect"].as_str().unwrap_or_default();
            (key == taint || key.is_empty()) && matches!(effect, "NoExecute" | "")
        });
        if !borne {
            tolerations.push(json!({
                "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": LOST_NODE_SECONDS,
            }));
        }
    }
    pod["spec"]["tolerations"] = tolerations.into();
}

fn set_priority(call: &Call<'_>, pod: &mut Value) -> Result<(), Failure> {
    let collection = Collection::new("scheduling.k8s.io", "priorityclasses");
    let name = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    let class: Option<Arc<Value>> = if name.is_empty() {
        let classes = call.state.store.list(&collection, None).records;
        let defaults = classes.iter().map(|record| record.value()).filter(|class| class["globalDefault"] == true);
        defaults.min_by_key(|class| class["value"].as_i64())
    } else {
        let class = call.state.store.get(&Key::new(&collection, "", &name)).map(|record| record.value());
        if class.is_none() {
            return Err(refuse(pod, &format!("no PriorityClass with name {name} was found")));
        }
        class
    };
    let value = class.as_ref().and_then(|class| class["value"].as_i64()).unwrap_or(0);
    if let Some(given) = pod["spec"]["priority"].as_i64().filter(|given| *given != value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name"
        );
        return Err(refuse(pod, &why));
    }
    pod["spec"]["priority"] = value.into();
    let policy = class.as_ref().and_then(|class| class["preemptionPolicy"].as_str()).unwrap_or("PreemptLowerPriority");
    if let Some(given) = pod["spec"]["preemptionPolicy"].as_str().filter(|given| *given != policy) {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        );
        return Err(refuse(pod, &why));
    }
    pod["spec"]["preemptionPolicy"] = policy.into();
    if let Some(class) = class {
        pod["spec"]["priorityClassName"] = class["metadata"]["name"].clone();
    }
    Ok(())
}

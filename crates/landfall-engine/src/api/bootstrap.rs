//! What a cluster has before anybody creates anything: namespaces, priority classes, roles, the API server's service.

use std::sync::Arc;

use serde_json::{Value, json};

use super::State;
use super::failure::Failure;
use super::write::storage;
use crate::scheme::apply;
use crate::store::{Collection, CommitError, Draft, Expect, Key};

mod roles;

/// Creates what is missing. What is there is left as it is.
pub(crate) async fn ensure(state: &Arc<State>) -> Result<(), Failure> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        });
        ensure_object(state, "", "v1", "namespaces", namespace).await?;
    }
    let classes = [
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ];
    for (name, value, description) in classes {
        let class = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
            "description": description, "preemptionPolicy": "PreemptLowerPriority",
        });
        ensure_object(state, "scheduling.k8s.io", "v1", "priorityclasses", class).await?;
    }
    for (plural, object) in roles::objects() {
        ensure_object(state, "rbac.authorization.k8s.io", "v1", plural, object).await?;
    }
    let address = state.ranges.first_address().to_string();
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": 6443}],
        },
    });
    ensure_object(state, "", "v1", "services", service).await
}

async fn ensure_object(
    state: &Arc<State>,
    group: &str,
    version: &str,
    plural: &str,
    mut object: Value,
) -> Result<(), Failure> {
    let scheme = state.scheme.load_full();
    let resource = scheme.resource(group, version, plural).expect("the built-in kinds are served");
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    let key = Key::new(&Collection::new(group, plural), &text("namespace"), &text("name"));
    if state.store.get(&key).is_some() {
        return Ok(());
    }
    let now = super::time_text(state.clock.now());
    object["metadata"]["uid"] = uuid::Uuid::new_v4().to_string().into();
    object["metadata"]["creationTimestamp"] = now.as_str().into();
    scheme.default(resource, &mut object);
    apply::track_update(resource, None, &mut object, "kube-apiserver", "", &now);
    match state.store.put(key, Expect::Absent, Draft::new(object)).await {
        Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(error) => Err(storage(&error)),
    }
}

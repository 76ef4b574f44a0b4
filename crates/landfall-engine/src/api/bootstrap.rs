//! What a cluster has before anybody creates anything: namespaces, priority classes, roles, the API server's service.

use std::sync::Arc;

use serde_json::{Value, json};

use super::State;
use super::failure::Failure;
use super::own_service;
use super::write::storage;
use crate::scheme::apply;
use crate::store::{Collection, Draft, Expect, Key, Write};

mod roles;

/// Creates what is missing, in one write. What is there is left as it is.
pub(crate) async fn ensure(state: &Arc<State>) -> Result<(), Failure> {
    let missing: Vec<Write> =
        objects(state).into_iter().filter_map(|(group, plural, object)| absent(state, group, plural, object)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    state.store.commit(missing).await.map(drop).map_err(|error| storage(&error))
}

/// Each with the group and the plural of its resource.
fn objects(state: &State) -> Vec<(&'static str, &'static str, Value)> {
    let mut objects = Vec::new();
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        });
        objects.push(("", "namespaces", namespace));
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
        objects.push(("scheduling.k8s.io", "priorityclasses", class));
    }
    objects.extend(roles::objects().into_iter().map(|(plural, object)| ("rbac.authorization.k8s.io", plural, object)));
    objects.push(("", "services", own_service::service(&state.ranges)));
    objects
}

/// The key of an object.
pub(super) fn key_of(group: &str, plural: &str, object: &Value) -> Key {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    Key::new(&Collection::new(group, plural), text("namespace"), text("name"))
}

/// The write that creates an object, unless it is there.
pub(super) fn absent(state: &State, group: &str, plural: &str, mut object: Value) -> Option<Write> {
    let scheme = state.scheme.load_full();
    let resource = scheme.resource(group, "v1", plural).expect("the built-in kinds are served");
    let key = key_of(group, plural, &object);
    if state.store.get(&key).is_some() {
        return None;
    }
    let now = super::time_text(state.clock.now());
    object["metadata"]["uid"] = uuid::Uuid::new_v4().to_string().into();
    object["metadata"]["creationTimestamp"] = now.as_str().into();
    scheme.default(resource, &mut object);
    apply::track_update(resource, None, &mut object, "kube-apiserver", "", &now);
    Some(Write::Put { key, expect: Expect::Absent, draft: Draft::new(&object) })
}

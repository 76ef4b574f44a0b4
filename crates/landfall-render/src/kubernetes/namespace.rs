//! The namespaces of the platform.

use std::collections::BTreeMap;

use crate::json::json;
use landfall_model::{Architecture, MeshKind, Span};

use super::metadata::Subject;
use crate::object::Object;

/// The namespaces in which the platform has something, each with the place that names it first: the platform's own,
/// and those of services and stores that name another.
pub(super) fn all(architecture: &Architecture) -> BTreeMap<&str, Span> {
    let document = &architecture.document;
    let mut namespaces = BTreeMap::from([(architecture.namespace().as_str(), document.name.span)]);
    let services = document.services.values().filter_map(|service| service.namespace.as_ref());
    let stores = document.stores.values().filter_map(|store| store.namespace.as_ref());
    for namespace in services.chain(stores) {
        let first = namespaces.entry(namespace.as_str()).or_insert(namespace.span);
        *first = (*first).min(namespace.span);
    }
    namespaces
}

/// The `Namespace` objects.
///
/// Pods that do not keep to the restricted Pod Security Standard are refused. With Istio this needs its CNI plug-in,
/// because the init container that it uses otherwise changes the network as root.
pub(super) fn objects(architecture: &Architecture) -> Vec<Object> {
    let istio = architecture.document.platform.mesh.as_ref().is_some_and(|mesh| mesh.kind.value == MeshKind::Istio);
    let object = |(namespace, span): (&str, _)| {
        let subject = Subject::platform(architecture, "", "namespace", "platform", span);
        let mut labels = subject.labels();
        labels["pod-security.kubernetes.io/enforce"] = json!("restricted");
        labels["pod-security.kubernetes.io/warn"] = json!("restricted");
        if istio {
            labels["istio-injection"] = json!("enabled");
        }
        let value = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": { "name": namespace, "labels": labels },
        });
        subject.object("namespace", value)
    };
    all(architecture).into_iter().map(object).collect()
}

//! The objects of Istio: who must speak TLS, and how long a call may take.
//!
//! With strict mutual TLS everybody who reaches a pod needs a sidecar. That holds for the ingress controller and for
//! Prometheus too: their namespaces must be part of the mesh. Prometheus alone can also scrape the merged metrics of the
//! sidecar, which are not encrypted.

use std::collections::BTreeMap;

use crate::json::json;
use landfall_model::{Architecture, Connection, Duration, Element, MutualTls, Name, Service, Spanned};
use serde_json::Value;

use super::edges::Edges;
use super::metadata::{self, Subject};
use super::namespace;
use super::ports::{self, ServedPort};
use crate::object::Object;

/// What every namespace of the mesh has.
pub(super) fn of_namespaces(architecture: &Architecture) -> Vec<Object> {
    let Some(mesh) = &architecture.document.platform.mesh else { return Vec::new() };
    let mode = match mesh.mtls.value {
        MutualTls::Strict => "STRICT",
        MutualTls::Permissive => "PERMISSIVE",
    };
    let object = |namespace| {
        let subject = Subject::platform(architecture, namespace, "mesh", "platform.mesh", mesh.kind.span);
        // The name `default` without a selector is the policy of the namespace.
        let value = json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": subject.metadata("default"),
            "spec": { "mtls": { "mode": mode } },
        });
        subject.object("peerauthentication", value)
    };
    namespace::all(architecture).into_keys().map(object).collect()
}

/// The timeouts and retries with which a service is called, by caller, as its edges declare them. They are rules for
/// HTTP and gRPC; a connection of another protocol has neither.
pub(super) fn of_service(
    architecture: &Architecture,
    edges: &Edges<'_>,
    subject: &Subject<'_>,
    name: &Spanned<Name>,
    service: &Service,
) -> Option<Object> {
    architecture.document.platform.mesh.as_ref()?;
    let ports: Vec<ServedPort> = ports::served(service).into_iter().filter(ServedPort::is_http).collect();
    // A caller with two edges keeps the more patient one: the sidecar cannot tell their requests apart.
    let mut callers: BTreeMap<(u16, &Element), &Connection> = BTreeMap::new();
    for edge in edges.to(&Element::Service(name.value.clone())) {
        let declares = edge.edge.timeout.is_some() || edge.edge.retries.is_some();
        let port = ports.iter().find(|port| port.container == edge.port);
        if let (true, Element::Service(_), Some(port)) = (declares, &edge.from, port) {
            let kept = callers.entry((port.service, &edge.from)).or_insert(edge);
            if patience(edge) > patience(kept) {
                *kept = edge;
            }
        }
    }
    if callers.is_empty() {
        return None;
    }
    let host = format!("{name}.{}.svc.cluster.local", subject.namespace);
    let route = |port: u16| json!([{ "destination": { "host": &host, "port": { "number": port } } }]);
    let mut rules: Vec<Value> =
        callers.iter().map(|((port, from), edge)| rule(architecture, *port, from, edge, &route(*port))).collect();
    // Whoever declares nothing is routed as without this object.
    rules.extend(ports.iter().map(|port| json!({ "match": [{ "port": port.service }], "route": route(port.service) })));
    let value = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": subject.metadata(subject.name),
        "spec": { "hosts": [&host], "http": rules },
    });
    Some(subject.object("virtualservice", value))
}

/// How long a caller is ready to wait: without a timeout, for ever.
fn patience(edge: &Connection) -> (bool, Option<Duration>, u32) {
    let timeout = edge.edge.timeout.as_ref().map(|timeout| timeout.value);
    (timeout.is_none(), timeout, retries(edge).unwrap_or(0))
}

fn retries(edge: &Connection) -> Option<u32> {
    edge.edge.retries.as_ref().map(|retries| retries.value)
}

/// The rule for one caller. The timeout of an edge is that of one attempt, and Istio's that of all together.
fn rule(architecture: &Architecture, port: u16, from: &Element, edge: &Connection, route: &Value) -> Value {
    let timeout = edge.edge.timeout.as_ref().map(|timeout| timeout.value);
    let attempts = u64::from(retries(edge).unwrap_or(0)) + 1;
    let again = retries(edge).map(|retries| {
        json!({
            "attempts": retries,
            "perTryTimeout": timeout.filter(|_| retries > 0).map(written),
            "retryOn": (retries > 0).then_some("connect-failure,refused-stream,unavailable,gateway-error"),
        })
    });
    json!({
        "match": [{ "port": port, "sourceLabels": metadata::selector(architecture, from) }],
        "route": route,
        "timeout": timeout.map(|timeout| written(timeout * attempts)),
        "retries": again,
    })
}

/// A duration as Go reads it, which knows no days.
fn written(duration: Duration) -> String {
    let millis = duration.millis();
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}

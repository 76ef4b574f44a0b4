//! The service `kubernetes`: by which name and address pods find the API server, and where it leads.
//!
//! As Kubernetes' own API server does, this one keeps its Service, its Endpoints and its EndpointSlice itself: the service has no
//! selector, so that no controller acts on it.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::bootstrap::{absent, key_of};
use super::{Ranges, Server, State};
use crate::scheme::apply;
use crate::store::{CommitError, Draft, Expect, Write};

/// How often it is looked whether all of it is as it should be: Kubernetes' `DefaultEndpointReconcilerInterval`.
const PERIOD: Duration = Duration::from_secs(10);

/// The name of all three objects, and their namespace.
const NAME: &str = "kubernetes";
const NAMESPACE: &str = "default";

/// The port of the service, and its name there and in what it leads to.
const PORT: u16 = 443;
const PORT_NAME: &str = "https";

impl Ranges {
    /// The address and the port of the service.
    pub(crate) fn api_server(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.first_address(), PORT)
    }
}

impl Server {
    /// Keeps the service until cancelled. `at` is where the API server itself is reached; none: nowhere that the service could
    /// lead to.
    pub(crate) async fn keep_own_service(self, at: Option<SocketAddrV4>, cancel: CancellationToken) {
        loop {
            match write(&self.state, at).await {
                // Somebody has written one of them meanwhile: that is looked at next time.
                Ok(()) | Err(CommitError::Conflict { .. }) => {}
                Err(error) => warn!(%error, "failed to say where the API server is"),
            }
            // Both arms may be dropped half-way: a timer and a token lose nothing.
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }
}

/// The Service, which is there from the beginning.
pub(super) fn service(ranges: &Ranges) -> Value {
    let address = ranges.api_server();
    let ip = address.ip().to_string();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": NAME, "namespace": NAMESPACE, "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": PORT_NAME, "protocol": "TCP", "port": address.port(), "targetPort": 6443}],
        },
    })
}

/// Where it leads, in the old way and in the new.
fn endpoints(at: Option<SocketAddrV4>) -> [(&'static str, &'static str, Value); 2] {
    let port = |at: SocketAddrV4| json!([{"name": PORT_NAME, "port": at.port(), "protocol": "TCP"}]);
    let mut old = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        // Controllers that make slices of Endpoints leave these alone.
        "metadata": {
            "name": NAME, "namespace": NAMESPACE, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
    });
    let mut new = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": NAME, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": NAME}, "generation": 1,
        },
        "addressType": "IPv4", "endpoints": [], "ports": [],
    });
    if let Some(at) = at {
        let ip = at.ip().to_string();
        old["subsets"] = json!([{"addresses": [{"ip": ip}], "ports": port(at)}]);
        new["endpoints"] = json!([{"addresses": [ip], "conditions": {"ready": true}}]);
        new["ports"] = port(at);
    }
    [("", "endpoints", old), ("discovery.k8s.io", "endpointslices", new)]
}

/// Writes what is missing, and what is not as it should be.
async fn write(state: &Arc<State>, at: Option<SocketAddrV4>) -> Result<(), CommitError> {
    let service = absent(state, "", "services", service(&state.ranges));
    let endpoints =
        endpoints(at).into_iter().filter_map(|(group, plural, object)| outdated(state, group, plural, object));
    let writes: Vec<Write> = service.into_iter().chain(endpoints).collect();
    if writes.is_empty() {
        return Ok(());
    }
    state.store.commit(writes).await.map(drop)
}

/// The write that makes an object as it should be: its labels, and all but its metadata. What others have added to its metadata
/// stays.
fn outdated(state: &State, group: &str, plural: &str, wanted: Value) -> Option<Write> {
    let key = key_of(group, plural, &wanted);
    let Some(record) = state.store.get(&key) else { return absent(state, group, plural, wanted) };
    let scheme = state.scheme.load_full();
    let resource = scheme.resource(group, "v1", plural).expect("the built-in kinds are served");
    let old = record.value();
    let mut new = wanted;
    let labels = new["metadata"]["labels"].take();
    new["metadata"] = old["metadata"].clone();
    json_patch::merge(&mut new["metadata"], &json!({"labels": labels}));
    scheme.default(resource, &mut new);
    if new == *old {
        return None;
    }
    // Of slices changes are counted, of Endpoints they are not.
    if let Some(generation) = new["metadata"]["generation"].as_i64() {
        new["metadata"]["generation"] = json!(generation + 1);
    }
    apply::track_update(resource, Some(&old), &mut new, "kube-apiserver", "", &super::time_text(state.clock.now()));
    Some(Write::Put { key, expect: Expect::Exactly(record.revision()), draft: Draft::new(&new) })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{send, server};
    use super::*;

    const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints/kubernetes";
    const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";

    async fn leads_to(server: &Server) -> (Value, Value) {
        let (_, endpoints) = send(server, "GET", ENDPOINTS, Value::Null).await;
        let (_, slice) = send(server, "GET", SLICE, Value::Null).await;
        assert_eq!(slice["metadata"]["labels"], json!({"kubernetes.io/service-name": "kubernetes"}), "{slice}");
        (endpoints["subsets"].clone(), json!([slice["endpoints"], slice["ports"], slice["addressType"]]))
    }

    fn expected(ip: &str, port: u16) -> (Value, Value) {
        let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
        (
            json!([{"addresses": [{"ip": ip}], "ports": ports}]),
            json!([[{"addresses": [ip], "conditions": {"ready": true}}], ports, "IPv4"]),
        )
    }

    fn at(ip: [u8; 4], port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(ip.into(), port)
    }

    #[tokio::test]
    async fn the_service_leads_to_where_the_server_is_now_whatever_became_of_its_objects() {
        let server = server().await;
        let (_, service) = send(&server, "GET", "/api/v1/namespaces/default/services/kubernetes", Value::Null).await;
        assert_eq!(service["spec"]["ports"][0]["port"], 443);
        assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
        write(&server.state, Some(at([10, 96, 0, 1], 443))).await.expect("a store in memory takes everything");
        assert_eq!(leads_to(&server).await, expected("10.96.0.1", 443));

        let revision = server.state.store.revision();
        write(&server.state, Some(at([10, 96, 0, 1], 443))).await.expect("a store in memory takes everything");
        assert_eq!(server.state.store.revision(), revision, "nothing has changed, and nothing is written");

        write(&server.state, Some(at([192, 0, 2, 7], 6443))).await.expect("a store in memory takes everything");
        assert_eq!(leads_to(&server).await, expected("192.0.2.7", 6443));

        send(&server, "PATCH", SLICE, json!({"endpoints": [], "metadata": {"annotations": {"by": "hand"}}})).await;
        for path in [ENDPOINTS, "/api/v1/namespaces/default/services/kubernetes"] {
            send(&server, "DELETE", path, Value::Null).await;
        }
        write(&server.state, Some(at([192, 0, 2, 7], 6443))).await.expect("a store in memory takes everything");
        assert_eq!(leads_to(&server).await, expected("192.0.2.7", 6443));
        let (_, slice) = send(&server, "GET", SLICE, Value::Null).await;
        assert_eq!(slice["metadata"]["annotations"]["by"], "hand");
        assert_eq!(slice["metadata"]["generation"], 4, "it was changed three times");
        let (code, _) = send(&server, "GET", "/api/v1/namespaces/default/services/kubernetes", Value::Null).await;
        assert_eq!(code, http::StatusCode::OK);
    }
}

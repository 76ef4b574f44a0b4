//! The gateway on an API server: from applied objects to answers and statuses.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::rig::{Upstream, ask, get};
use crate::clock::Clock;
use crate::context::{Caches, Context};
use crate::event::Lost;
use crate::gateway::{Gateway, GatewayConfig};
use crate::network::Loopback;

fn api(client: &Client, version: &str, kind: &str) -> Api<DynamicObject> {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match kind {
        "CustomResourceDefinition" => Api::all_with(client.clone(), &resource),
        _ => Api::namespaced_with(client.clone(), "default", &resource),
    }
}

async fn apply(client: &Client, object: Value) {
    let (version, kind) = (object["apiVersion"].as_str().expect("a version"), object["kind"].as_str().expect("a kind"));
    let name = object["metadata"]["name"].as_str().expect("a name");
    let applied =
        api(client, version, kind).patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await;
    applied.expect("it is applied");
}

fn definition(kind: &str, plural: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.gateway.networking.k8s.io"),
            "annotations": { "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api" },
        },
        "spec": {
            "group": "gateway.networking.k8s.io",
            "names": { "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase() },
            "scope": "Namespaced",
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            }],
        },
    })
}

/// Asks again and again until it is so.
async fn until<F: Future<Output = Option<T>>, T>(what: &str, look: impl Fn() -> F) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looking).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

#[tokio::test]
async fn applied_objects_are_served_and_told_so() {
    let client = crate::api::tests::client().await;
    let (cancel, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let context = Context {
        client: client.clone(),
        caches: Caches::new(),
        clock: Clock::wall(),
        lost: Lost::default(),
        authority: "".into(),
    };
    context.caches.fill(&client, &cancel, &mut tasks).await;
    let gateway = Gateway::bind(&GatewayConfig { threads: Some(1), ..GatewayConfig::default() }).expect("free ports");
    let (http, admin) = (gateway.http(), gateway.admin());
    tasks.spawn(gateway.run(context, Arc::new(Loopback), cancel.clone()));

    let upstream = Upstream::start("web").await;
    apply(
        &client,
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" }, "spec": { "ports": [{ "port": 80 }] },
        }),
    )
    .await;
    apply(
        &client,
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": "web-1", "labels": { "kubernetes.io/service-name": "web" } },
            "ports": [{ "port": upstream.address.port(), "protocol": "TCP" }],
            "endpoints": [{ "addresses": ["127.0.0.1"], "conditions": { "ready": true } }],
        }),
    )
    .await;
    apply(&client, json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": { "name": "web" },
        "spec": { "ingressClassName": "traefik", "rules": [{ "host": "ingress.example.com", "http": { "paths": [
            { "path": "/", "pathType": "Prefix", "backend": { "service": { "name": "web", "port": { "number": 80 } } } },
        ] } }] },
    }))
    .await;
    apply(&client, definition("Gateway", "gateways")).await;
    apply(&client, definition("HTTPRoute", "httproutes")).await;
    let served = |host: &'static str| async move {
        let got = ask(http, get(&format!("http://{host}/"))).await;
        (got.status == StatusCode::OK).then_some(())
    };
    until("the ingress", || served("ingress.example.com")).await;

    let version = "gateway.networking.k8s.io/v1";
    let exists = |kind: &'static str| {
        let client = client.clone();
        async move { api(&client, version, kind).list(&kube::api::ListParams::default()).await.ok() }
    };
    until("gateways", || exists("Gateway")).await;
    until("routes", || exists("HTTPRoute")).await;
    apply(&client, json!({
        "apiVersion": version, "kind": "Gateway", "metadata": { "name": "edge" },
        "spec": { "gatewayClassName": "traefik", "listeners": [{ "name": "http", "port": 80, "protocol": "HTTP" }] },
    }))
    .await;
    apply(
        &client,
        json!({
            "apiVersion": version, "kind": "HTTPRoute", "metadata": { "name": "web" },
            "spec": {
                "parentRefs": [{ "name": "edge" }], "hostnames": ["route.example.com"],
                "rules": [{ "backendRefs": [{ "name": "web", "port": 80 }] }],
            },
        }),
    )
    .await;
    until("the route", || served("route.example.com")).await;

    let status = |version: &'static str, kind: &'static str, name: &'static str, pointer: &'static str| {
        let client = client.clone();
        async move {
            let object = api(&client, version, kind).get(name).await.expect("it is there");
            object.data.pointer(pointer).cloned()
        }
    };
    let ingress =
        until("an address", || status("networking.k8s.io/v1", "Ingress", "web", "/status/loadBalancer/ingress/0/ip"));
    assert_eq!(ingress.await, "127.0.0.1");
    let programmed = until("a gateway's condition", || status(version, "Gateway", "edge", "/status/conditions/1"));
    let programmed = programmed.await;
    assert_eq!((&programmed["type"], &programmed["status"]), (&json!("Programmed"), &json!("True")), "{programmed}");
    let accepted =
        until("a route's condition", || status(version, "HTTPRoute", "web", "/status/parents/0/conditions/0"));
    let accepted = accepted.await;
    assert_eq!((&accepted["type"], &accepted["status"]), (&json!("Accepted"), &json!("True")), "{accepted}");

    let figures = ask(admin, get("http://admin/metrics")).await.text;
    assert!(figures.contains("route=\"HTTPRoute/default/web\",backend=\"default/web:80\",class=\"2xx\""), "{figures}");

    api(&client, "discovery.k8s.io/v1", "EndpointSlice")
        .delete("web-1", &kube::api::DeleteParams::default())
        .await
        .expect("it is deleted");
    until("503", || async move {
        let got = ask(http, get("http://route.example.com/")).await;
        (got.status == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    cancel.cancel();
    tasks.join_all().await;
}

//! The gateway as a whole: what a world of objects makes of a request, and what real clients and servers see.

mod cluster;
mod rig;
mod routing;
mod serving;
mod speed;
mod statuses;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::table::World;

/// Adds an object to a world by its kind.
fn put(world: &mut World, object: Value) {
    fn read<K: DeserializeOwned>(object: Value) -> Arc<K> {
        Arc::new(serde_json::from_value(object).expect("an object of its kind"))
    }
    let mut object = object;
    if object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = json!("shop");
    }
    match object["kind"].as_str().expect("a kind") {
        "Ingress" => world.ingresses.push(read(object)),
        "IngressClass" => world.ingress_classes.push(read(object)),
        "GatewayClass" => world.gateway_classes.push(read(object)),
        "Gateway" => world.gateways.push(read(object)),
        "HTTPRoute" => world.routes.push(read(object)),
        "ReferenceGrant" => world.grants.push(read(object)),
        "Middleware" => world.middlewares.push(read(object)),
        "Certificate" => world.certificates.push(read(object)),
        "Namespace" => world.namespaces.push(read(object)),
        "Service" => world.services.push(read(object)),
        "EndpointSlice" => world.slices.push(read(object)),
        "Secret" => world.secrets.push(read(object)),
        other => panic!("a world has no {other}"),
    }
}

/// A world of these objects, written as YAML.
fn world(objects: &str) -> World {
    let mut world = World::default();
    for text in objects.split("\n---\n").filter(|text| !text.trim().is_empty()) {
        put(&mut world, serde_saphyr::from_str(text).expect("YAML"));
    }
    world
}

/// A service with one port, and the addresses that are ready behind it.
fn service(world: &mut World, name: &str, endpoints: &[std::net::SocketAddr]) {
    service_speaking(world, name, endpoints, None);
}

fn service_speaking(world: &mut World, name: &str, endpoints: &[std::net::SocketAddr], protocol: Option<&str>) {
    put(
        world,
        json!({ "kind": "Service", "metadata": { "name": name }, "spec": { "ports": [{ "port": 80, "appProtocol": protocol }] } }),
    );
    for (number, endpoint) in endpoints.iter().enumerate() {
        put(
            world,
            json!({
                "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("{name}-{number}"),
                    "labels": { "kubernetes.io/service-name": name },
                },
                "addressType": "IPv4",
                "ports": [{ "port": endpoint.port(), "protocol": "TCP" }],
                "endpoints": [{ "addresses": [endpoint.ip().to_string()], "conditions": { "ready": true } }],
            }),
        );
    }
}

/// A gateway with a listener for plain HTTP, whose routes are those of its namespace.
const GATEWAY: &str = "
kind: Gateway
metadata: { name: edge }
spec:
  gatewayClassName: traefik
  listeners: [{ name: http, port: 80, protocol: HTTP }]
";

/// A route of that gateway with these rules.
fn route(world: &mut World, name: &str, hostnames: &[&str], rules: Value) {
    put(
        world,
        json!({
            "kind": "HTTPRoute",
            "metadata": { "name": name },
            "spec": { "parentRefs": [{ "name": "edge" }], "hostnames": hostnames, "rules": rules },
        }),
    );
}

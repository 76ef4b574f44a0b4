//! What the gateway says of objects that are right, and of those that are not.

use serde_json::json;

use super::{GATEWAY, put, route, service, world};
use crate::cache::ObjectKey;
use crate::gateway::registry::Registry;
use crate::gateway::report::{Report, Verdict};
use crate::gateway::table::{RouteTable, World};

fn report(world: &World) -> Report {
    RouteTable::build(world, &Registry::default()).1
}

fn said(verdicts: &[Verdict]) -> String {
    let said = verdicts.iter().map(|verdict| format!("{}={}:{}", verdict.type_, verdict.status, verdict.reason));
    said.collect::<Vec<_>>().join(" ")
}

/// What is said of the route `web`.
fn of_route(world: &World) -> String {
    let report = report(world);
    let parents = report.routes.get(&ObjectKey::new("shop", "web")).map(Vec::as_slice).unwrap_or_default();
    parents.iter().map(|parent| said(&parent.conditions)).collect::<Vec<_>>().join(" | ")
}

/// What is said of the listeners of the gateway `edge`.
fn of_listeners(world: &World) -> String {
    let report = report(world);
    let listeners = report.gateways[&ObjectKey::new("shop", "edge")].listeners.iter();
    let said =
        listeners.map(|listener| format!("{}({}) {}", listener.name, listener.attached, said(&listener.conditions)));
    said.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_route_with_all_it_needs_is_accepted_and_counted() {
    let mut world = world(GATEWAY);
    service(&mut world, "web", &[]);
    route(&mut world, "web", &[], json!([{ "backendRefs": [{ "name": "web", "port": 80 }] }]));
    insta::assert_snapshot!(of_route(&world), @"Accepted=true:Accepted ResolvedRefs=true:ResolvedRefs");
    insta::assert_snapshot!(
        of_listeners(&world),
        @"http(1) Accepted=true:Accepted Conflicted=false:NoConflicts ResolvedRefs=true:ResolvedRefs Programmed=true:Programmed"
    );
}

#[test]
fn a_reference_that_leads_nowhere_is_named() {
    let mut world = world(GATEWAY);
    service(&mut world, "web", &[]);
    let case = |reference: serde_json::Value| {
        let mut world =
            World { gateways: world.gateways.clone(), services: world.services.clone(), ..World::default() };
        route(&mut world, "web", &[], json!([{ "backendRefs": [reference] }]));
        of_route(&world)
    };
    insta::assert_snapshot!(case(json!({ "name": "no", "port": 80 })), @"Accepted=true:Accepted ResolvedRefs=false:BackendNotFound");
    insta::assert_snapshot!(case(json!({ "name": "web", "port": 81 })), @"Accepted=true:Accepted ResolvedRefs=false:BackendNotFound");
    insta::assert_snapshot!(case(json!({ "kind": "Bucket", "name": "web", "port": 80 })), @"Accepted=true:Accepted ResolvedRefs=false:InvalidKind");
    insta::assert_snapshot!(case(json!({ "name": "web", "namespace": "other", "port": 80 })), @"Accepted=true:Accepted ResolvedRefs=false:RefNotPermitted");
}

#[test]
fn another_namespace_is_reached_with_a_grant_only() {
    let mut world = world(GATEWAY);
    put(
        &mut world,
        json!({
            "kind": "Service",
            "metadata": { "name": "web", "namespace": "other" },
            "spec": { "ports": [{ "port": 80 }] },
        }),
    );
    let reference = json!({ "name": "web", "namespace": "other", "port": 80 });
    route(&mut world, "web", &[], json!([{ "backendRefs": [reference] }]));
    put(
        &mut world,
        json!({
            "kind": "ReferenceGrant",
            "metadata": { "name": "shop", "namespace": "other" },
            "spec": {
                "from": [{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop" }],
                "to": [{ "group": "", "kind": "Service" }],
            },
        }),
    );
    insta::assert_snapshot!(of_route(&world), @"Accepted=true:Accepted ResolvedRefs=true:ResolvedRefs");
}

#[test]
fn a_route_is_told_why_it_does_not_attach() {
    let mut world = world(GATEWAY);
    let refused = |world: &mut World, parent: serde_json::Value, hostnames: &[&str]| {
        world.routes.clear();
        put(
            world,
            json!({
                "kind": "HTTPRoute",
                "metadata": { "name": "web" },
                "spec": { "parentRefs": [parent], "hostnames": hostnames },
            }),
        );
        of_route(world)
    };
    insta::assert_snapshot!(refused(&mut world, json!({ "name": "edge", "sectionName": "no" }), &[]), @"Accepted=false:NoMatchingParent ResolvedRefs=true:ResolvedRefs");
    insta::assert_snapshot!(refused(&mut world, json!({ "name": "another" }), &[]), @"");
    world.gateways.clear();
    put(
        &mut world,
        json!({
            "kind": "Gateway",
            "metadata": { "name": "edge" },
            "spec": { "gatewayClassName": "any", "listeners": [
                { "name": "own", "port": 80, "protocol": "HTTP", "hostname": "a.example.com" },
                { "name": "other", "port": 80, "protocol": "HTTP", "hostname": "b.example.com", "allowedRoutes": {
                    "namespaces": { "from": "Selector", "selector": { "matchLabels": { "a": "b" } } },
                } },
            ] },
        }),
    );
    insta::assert_snapshot!(refused(&mut world, json!({ "name": "edge" }), &["c.example.com"]), @"Accepted=false:NoMatchingListenerHostname ResolvedRefs=true:ResolvedRefs");
    insta::assert_snapshot!(refused(&mut world, json!({ "name": "edge", "sectionName": "other" }), &[]), @"Accepted=false:NotAllowedByListeners ResolvedRefs=true:ResolvedRefs");
}

#[test]
fn a_filter_that_is_not_served_refuses_the_route() {
    let mut world = world(GATEWAY);
    let filters = json!([{ "type": "RequestMirror", "requestMirror": {} }]);
    route(&mut world, "web", &[], json!([{ "filters": filters }]));
    insta::assert_snapshot!(of_route(&world), @"Accepted=false:UnsupportedValue ResolvedRefs=true:ResolvedRefs");
}

#[test]
fn a_listener_without_a_certificate_is_not_served_unless_cert_manager_has_promised_one() {
    let mut world = world(
        "
kind: Gateway
metadata: { name: edge }
spec:
  gatewayClassName: traefik
  listeners:
  - name: https
    port: 443
    protocol: HTTPS
    hostname: a.example.com
    tls: { certificateRefs: [{ name: web-tls }] }
  - { name: udp, port: 53, protocol: UDP }
  - { name: clash, port: 443, protocol: HTTP }
",
    );
    insta::assert_snapshot!(of_listeners(&world), @"
    https(0) Accepted=true:Accepted Conflicted=false:NoConflicts ResolvedRefs=false:InvalidCertificateRef Programmed=false:Invalid
    udp(0) Accepted=false:UnsupportedProtocol Conflicted=false:NoConflicts ResolvedRefs=true:ResolvedRefs Programmed=false:Invalid
    clash(0) Accepted=true:Accepted Conflicted=true:ProtocolConflict ResolvedRefs=true:ResolvedRefs Programmed=false:Invalid
    ");
    put(
        &mut world,
        json!({ "kind": "Certificate", "metadata": { "name": "web" }, "spec": { "secretName": "web-tls", "dnsNames": ["a.example.com"] } }),
    );
    let said = of_listeners(&world);
    insta::assert_snapshot!(said.lines().next().unwrap_or_default(), @"https(0) Accepted=true:Accepted Conflicted=false:NoConflicts ResolvedRefs=true:ResolvedRefs Programmed=true:Programmed");
}

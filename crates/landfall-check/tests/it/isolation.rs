//! Isolation from outside: a file and the objects rendered from it go in, findings and a verdict come out.

use landfall_check::{Rendering, Report, Verdict, check};
use landfall_model::File;
use serde_json::{Value, json};

/// A shop whose orders go to a ledger, an event log and a carrier.
const SHOP: &str = "
landfall: v1
name: shop
observability: { metrics: prometheus }
services:
  web:
    image: \"web:1.0\"
    port: 8080
    expose: { host: shop.example, tls: letsencrypt }
    uses: [{ call: orders }]
  orders:
    image: \"orders:1.0\"
    port: 9000
    uses: [{ write: ledger }, { publish: events/order.placed }, { call: carrier }]
stores:
  ledger: { engine: postgres, members: 2 }
  events: { engine: kafka, members: 3 }
externals:
  carrier: { addresses: [203.0.113.0/24] }
";

fn report(objects: &[Value]) -> Report {
    let file = File::read("landfall.yaml", SHOP.as_bytes(), &mut |path| Err(path.to_owned()));
    let architecture = file.architecture(None).expect("the file of the test can be read");
    check(&architecture, Rendering { objects, findings: &[] }, "2026-11-21".parse().expect("the date is a date"))
}

/// What the rule finds in these objects, each as its subject and message.
#[track_caller]
fn check_found(objects: &[Value], expected: &[&str]) {
    let report = report(objects);
    let about = |finding: &&landfall_model::Finding| ["isolation", "dangling-reference"].contains(&finding.rule);
    let found: Vec<String> = report.findings.iter().filter(about).map(|finding| finding.message.clone()).collect();
    assert_eq!(found, expected);
    let proof = report.proofs.iter().find(|proof| proof.rule == "isolation").expect("a proof for the namespace");
    let holds = if expected.is_empty() { Verdict::Proved } else { Verdict::Refuted };
    assert_eq!((proof.subject.as_str(), proof.verdict), ("namespace.shop", holds));
}

fn deployment(name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": "shop" },
        "spec": { "template": {
            "metadata": { "labels": { "app.kubernetes.io/name": name } },
            "spec": { "containers": [{ "name": name, "ports": [{ "containerPort": port }] }] },
        } },
    })
}

fn policy(name: &str, selector: &Value, ingress: &Value, egress: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": name, "namespace": "shop" },
        "spec": {
            "podSelector": selector, "policyTypes": ["Ingress", "Egress"], "ingress": ingress, "egress": egress,
        },
    })
}

fn named(name: &str) -> Value {
    json!({ "matchLabels": { "app.kubernetes.io/name": name } })
}

fn namespace(name: &str) -> Value {
    json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": name } } })
}

/// The policies as they should be, with the objects that they are about.
fn sound() -> Vec<Value> {
    let dns = json!({
        "to": [{
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } },
            "podSelector": { "matchLabels": { "k8s-app": "kube-dns" } },
        }],
        "ports": [{ "port": 53, "protocol": "UDP" }, { "port": 53, "protocol": "TCP" }],
    });
    let labels = json!({ "app.kubernetes.io/name": "ledger" });
    let cluster = json!({ "matchLabels": { "cnpg.io/cluster": "ledger" } });
    let brokers = json!({ "matchLabels": { "strimzi.io/cluster": "events" } });
    let from_orders = json!([{ "from": [{ "podSelector": named("orders") }], "ports": [{ "port": 5432 }] }]);
    let scrape = |port: u16| json!({ "from": [namespace("monitoring")], "ports": [{ "port": port }] });
    vec![
        deployment("web", 8080),
        deployment("orders", 9000),
        json!({
            "apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster",
            "metadata": { "name": "ledger", "namespace": "shop", "labels": labels }, "spec": { "instances": 2 },
        }),
        json!({
            "apiVersion": "kafka.strimzi.io/v1", "kind": "Kafka",
            "metadata": { "name": "events", "namespace": "shop", "labels": { "app.kubernetes.io/name": "events" } },
            "spec": { "kafka": { "listeners": [{
                "name": "plain", "port": 9092, "type": "internal", "tls": false,
                "networkPolicyPeers": [{ "podSelector": named("orders") }],
            }] } },
        }),
        policy("default-deny", &json!({}), &json!([]), &json!([])),
        policy(
            "web",
            &named("web"),
            &json!([{ "from": [namespace("ingress")], "ports": [{ "port": 8080 }] }, scrape(8080)]),
            &json!([dns, { "to": [{ "podSelector": named("orders") }], "ports": [{ "port": 9000 }] }]),
        ),
        policy(
            "orders",
            &named("orders"),
            &json!([{ "from": [{ "podSelector": named("web") }], "ports": [{ "port": 9000 }] }, scrape(9000)]),
            &json!([
                dns,
                { "to": [{ "podSelector": cluster }], "ports": [{ "port": 5432 }] },
                { "to": [{ "podSelector": brokers }], "ports": [{ "port": 9092 }] },
                { "to": [{ "ipBlock": { "cidr": "203.0.113.0/24" } }], "ports": [{ "port": 443 }] },
            ]),
        ),
        policy("ledger", &cluster, &from_orders, &json!([])),
    ]
}

/// The sound objects with one change.
fn changed(kind: &str, name: &str, pointer: &str, value: Value) -> Vec<Value> {
    let mut objects = sound();
    let object = objects.iter_mut().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    *object.and_then(|object| object.pointer_mut(pointer)).expect("the object of the test has the field") = value;
    objects
}

#[test]
fn sound_policies_are_proved_with_operators_and_an_external() {
    check_found(&sound(), &[]);
}

#[test]
fn nothing_is_said_without_rendering() {
    let report = report(&[]);
    assert!(!report.findings.iter().any(|finding| finding.rule == "isolation"));
    assert!(!report.proofs.iter().any(|proof| proof.rule == "isolation"));
}

#[test]
fn without_policies_anybody_reaches_everything() {
    let objects: Vec<Value> = sound().into_iter().filter(|object| object["kind"] != "NetworkPolicy").collect();
    check_found(
        &objects,
        &[
            "`service.web` can connect to every address outside, on every port",
            "anybody in the cluster can connect to `service.web` on `8080/TCP`, which no edge declares",
            "`service.orders` can connect to every address outside, on every port",
            "anybody in the cluster can connect to `service.orders` on `9000/TCP`, which no edge declares",
            "anybody in the cluster can connect to `store.ledger` on `5432/TCP`, `8000/TCP` and `9187/TCP`, which no edge declares",
        ],
    );
}

#[test]
fn strimzi_opens_a_listener_without_peers_to_everybody() {
    check_found(
        &changed("Kafka", "events", "/spec/kafka/listeners/0/networkPolicyPeers", json!(null)),
        &["anybody in the cluster can connect to `store.events` on `9092/TCP`, which no edge declares"],
    );
}

#[test]
fn an_edge_that_the_store_does_not_admit_is_blocked() {
    check_found(
        &changed("NetworkPolicy", "ledger", "/spec/ingress/0/ports/0/port", json!(5433)),
        &["`service.orders` cannot connect to `store.ledger` on 5432/TCP, though the file declares it"],
    );
}

#[test]
fn an_exposed_service_must_admit_the_ingress_controller() {
    check_found(
        &changed("NetworkPolicy", "web", "/spec/ingress/0/from/0", namespace("edge")),
        &["the ingress controller cannot connect to `service.web` on 8080/TCP, though it is exposed"],
    );
}

#[test]
fn a_scrape_that_is_blocked_is_told() {
    check_found(
        &changed("NetworkPolicy", "orders", "/spec/ingress/1/ports/0/port", json!(9100)),
        &["Prometheus cannot scrape `service.orders` on 9000/TCP"],
    );
}

#[test]
fn a_way_out_is_as_narrow_as_the_externals() {
    let to = "/spec/egress/3/to/0/ipBlock/cidr";
    check_found(
        &changed("NetworkPolicy", "orders", to, json!("0.0.0.0/0")),
        &["`service.orders` can leave the cluster to `0.0.0.0/0`, though all that it uses lists its addresses"],
    );
    check_found(
        &changed("NetworkPolicy", "orders", to, json!("198.51.100.0/24")),
        &["`service.orders` cannot connect to `external.carrier` on 443/TCP, though the file declares it"],
    );
    check_found(
        &changed("NetworkPolicy", "orders", "/spec/egress/3/ports", json!([])),
        &["`service.orders` can leave the cluster to `203.0.113.0/24` on more ports than it uses"],
    );
}

#[test]
fn a_policy_that_selects_nobody_is_a_dangling_reference_too() {
    check_found(
        &changed("NetworkPolicy", "ledger", "/spec/podSelector/matchLabels", json!({ "cnpg.io/cluster": "leger" })),
        &[
            "`service.orders` cannot connect to `store.ledger` on 5432/TCP, though the file declares it",
            "`NetworkPolicy shop/ledger` selects no pod, so it protects nothing",
        ],
    );
}

//! Policies that cannot be meant, and objects that cannot be read.

use serde_json::{Value, json};

use super::*;

/// The problems of the world with these objects, in their debug form without the noise.
#[track_caller]
fn check(objects: &[Value], expected: &[Problem]) {
    let cluster = cluster(objects, Surroundings::default());
    assert_consistent(&cluster);
    assert_eq!(cluster.problems(), expected);
}

/// A policy whose only problem is that it cannot be read.
#[track_caller]
fn check_malformed(spec: &Value, path: &str, reason: &str) {
    let malformed = Malformed { path: path.to_owned(), reason: reason.to_owned() };
    check(&[policy("p", spec)], &[Problem::Malformed { object: key("p"), malformed }]);
}

#[track_caller]
fn check_malformed_peer(peer: &Value, path: &str, reason: &str) {
    let path = format!("spec.ingress[0].from[0]{path}");
    check_malformed(&json!({ "ingress": [{ "from": [peer] }] }), &path, reason);
}

#[track_caller]
fn check_malformed_port(port: &Value, path: &str, reason: &str) {
    let path = format!("spec.egress[0].ports[0]{path}");
    check_malformed(&json!({ "egress": [{ "ports": [port] }] }), &path, reason);
}

fn key(policy: &str) -> ObjectKey {
    ObjectKey::new("NetworkPolicy", "shop", policy)
}

fn rule(direction: Direction, index: usize) -> RuleRef {
    RuleRef { policy: key("p"), direction, index }
}

#[test]
fn a_set_without_mistakes_has_no_problems() {
    check(&[policy("p", &json!({ "podSelector": {} }))], &[]);
}

#[test]
fn a_policy_that_selects_nothing_is_told() {
    let spec = json!({ "podSelector": { "matchLabels": { "app": "wbe" } } });
    check(&[policy("p", &spec)], &[Problem::PolicySelectsNothing { policy: key("p") }]);
}

#[test]
fn a_peer_that_matches_nothing_is_told() {
    let peers = json!([{ "podSelector": {} }, { "namespaceSelector": { "matchLabels": { "team": "dev" } } }]);
    check(
        &[policy("p", &json!({ "ingress": [{}, { "from": peers }] }))],
        &[Problem::PeerMatchesNothing { rule: rule(Direction::Ingress, 1), peer: 1 }],
    );
}

#[test]
fn the_dns_server_of_the_cluster_is_no_mistake() {
    let peer = json!({
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } },
        "podSelector": { "matchLabels": { "k8s-app": "kube-dns" } },
    });
    check(
        &[policy("p", &json!({ "egress": [{ "to": [peer], "ports": [{ "port": "dns", "protocol": "UDP" }] }] }))],
        &[],
    );
}

#[test]
fn a_port_name_that_no_destination_declares_is_told() {
    let problem = |direction| Problem::NamedPortUnknown {
        rule: rule(direction, 0),
        name: "sql".to_owned(),
        protocol: Protocol::Tcp,
    };
    let ports = json!([{ "port": "sql" }]);
    let web = json!({ "matchLabels": { "app": "web" } });
    check(
        &[policy("p", &json!({ "podSelector": web, "ingress": [{ "ports": ports }] }))],
        &[problem(Direction::Ingress)],
    );
    check(
        &[policy("p", &json!({ "egress": [{ "to": [{ "podSelector": web }], "ports": ports }] }))],
        &[problem(Direction::Egress)],
    );
    check(&[policy("p", &json!({ "egress": [{ "ports": ports }] }))], &[]);
    check(&[policy("p", &json!({ "ingress": [{ "ports": ports }] }))], &[]);
}

#[test]
fn rules_without_effect_are_told() {
    check(
        &[policy("p", &json!({ "policyTypes": ["Ingress"], "egress": [{}] }))],
        &[Problem::RulesIgnored { policy: key("p"), direction: Direction::Egress }],
    );
}

#[test]
fn pods_on_the_network_of_their_node_are_told() {
    let mut agent = deployment("shop", "agent", &json!({}), &json!([]));
    agent["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    check(&[agent], &[Problem::HostNetwork { workload: ObjectKey::new("Deployment", "shop", "agent") }]);
}

#[test]
fn other_policy_languages_are_told() {
    let metadata = json!({ "name": "p", "namespace": "shop" });
    let object = json!({ "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata });
    let key = ObjectKey::new("CiliumNetworkPolicy", "shop", "p");
    check(&[object], &[Problem::OtherPolicyLanguage { object: key }]);
}

#[test]
fn of_two_objects_with_one_name_the_later_counts() {
    let policies = [policy("p", &json!({})), policy("p", &json!({ "ingress": [{}] }))];
    check(&policies, &[Problem::Duplicate { object: key("p") }]);
    let cluster = cluster(&policies, Surroundings::default());
    let to = Endpoint::Workload(named(&cluster, "db"));
    assert!(cluster.reaches(Endpoint::Outside, to, Port::tcp(5432)).is_allowed());
}

#[test]
fn lists_are_taken_apart() {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [policy("p", &json!({}))] });
    let cluster = cluster(&[list], Surroundings::default());
    let to = Endpoint::Workload(named(&cluster, "db"));
    assert!(!cluster.reaches(Endpoint::Outside, to, Port::tcp(5432)).is_allowed());
}

#[test]
fn what_is_no_object_is_told() {
    let problem = |path: &str, reason: &str| Problem::MalformedHeader {
        index: 6,
        malformed: Malformed { path: path.to_owned(), reason: reason.to_owned() },
    };
    check(&[json!("text")], &[problem(".", "must be a mapping")]);
    check(&[Value::Null], &[problem("kind", "is required")]);
    check(&[json!({ "kind": 3 })], &[problem("kind", "must be a string")]);
    check(&[json!({ "kind": "Pod", "apiVersion": "v1", "metadata": {} })], &[problem("metadata.name", "is required")]);
}

#[test]
fn a_malformed_policy_takes_no_part() {
    let cluster = cluster(&[policy("p", &json!({ "podSelector": 3 }))], Surroundings::default());
    let to = Endpoint::Workload(named(&cluster, "db"));
    assert!(cluster.reaches(Endpoint::Outside, to, Port::tcp(5432)).is_allowed());
}

#[test]
fn a_misspelt_field_is_refused() {
    check_malformed(&json!({ "ingress": [{ "form": [] }] }), "spec.ingress[0].form", "is not a known field");
    check_malformed(&json!({ "egres": [] }), "spec.egres", "is not a known field");
    check_malformed_peer(&json!({ "podselector": {} }), ".podselector", "is not a known field");
}

#[test]
fn a_rule_that_is_null_is_refused() {
    check_malformed(&json!({ "ingress": [null] }), "spec.ingress[0]", "must be a mapping");
}

#[test]
fn unknown_types_are_refused() {
    check_malformed(&json!({ "policyTypes": ["Both"] }), "spec.policyTypes[0]", "must be `Ingress` or `Egress`");
}

#[test]
fn peers_have_to_say_who() {
    let reason = "must have a `podSelector`, a `namespaceSelector` or an `ipBlock`";
    check_malformed_peer(&json!({}), "", reason);
    check_malformed_peer(&json!({ "podSelector": null }), "", reason);
}

#[test]
fn an_address_block_stands_alone() {
    let peer = json!({ "ipBlock": { "cidr": "10.0.0.0/8" }, "podSelector": {} });
    check_malformed_peer(&peer, "", "must not have an `ipBlock` beside a selector");
}

#[test]
fn address_blocks_are_ranges_with_smaller_exceptions() {
    let cidr = "must be an address range such as `10.0.0.0/8`";
    check_malformed_peer(&json!({ "ipBlock": { "cidr": "10.0.0.1" } }), ".ipBlock.cidr", cidr);
    check_malformed_peer(&json!({ "ipBlock": {} }), ".ipBlock.cidr", "is required");
    for except in ["10.0.0.0/8", "11.0.0.0/16", "0.0.0.0/0", "::/64"] {
        let peer = json!({ "ipBlock": { "cidr": "10.0.0.0/8", "except": [except] } });
        check_malformed_peer(&peer, ".ipBlock.except[0]", "must be a smaller range inside `10.0.0.0/8`");
    }
}

#[test]
fn selectors_keep_to_their_operators() {
    let check = |expression: &Value, field: &str, reason: &str| {
        let path = format!(".podSelector.matchExpressions[0].{field}");
        check_malformed_peer(&json!({ "podSelector": { "matchExpressions": [expression] } }), &path, reason);
    };
    check(&json!({ "key": "a", "operator": "In" }), "values", "must hold at least one value");
    let exists = json!({ "key": "a", "operator": "Exists", "values": ["b"] });
    check(&exists, "values", "must be empty with `Exists` and `DoesNotExist`");
    let gt = json!({ "key": "a", "operator": "Gt", "values": ["1"] });
    check(&gt, "operator", "must be `In`, `NotIn`, `Exists` or `DoesNotExist`");
    check(&json!({ "operator": "Exists" }), "key", "is required");
}

#[test]
fn label_values_are_strings() {
    let peer = json!({ "podSelector": { "matchLabels": { "version": 1 } } });
    check_malformed_peer(&peer, ".podSelector.matchLabels.version", "must be a string");
}

#[test]
fn ports_are_numbers_or_names() {
    let name = "must be a number, or a name of at most 15 letters, digits and hyphens";
    for port in ["8080", "HTTP", "much-too-long-name", "a--b", "-a"] {
        check_malformed_port(&json!({ "port": port }), ".port", name);
    }
    for port in [json!(0), json!(65536), json!(-1), json!(80.5), json!(true), json!([])] {
        check_malformed_port(&json!({ "port": port }), ".port", "must be a port number from 1 to 65535");
    }
    check_malformed_port(&json!({ "protocol": "ICMP" }), ".protocol", "must be `TCP`, `UDP` or `SCTP`");
}

#[test]
fn a_range_has_a_numeric_first_port_and_is_not_reversed() {
    check_malformed_port(&json!({ "endPort": 90 }), ".endPort", "needs a numeric `port`");
    check_malformed_port(&json!({ "port": "http", "endPort": 90 }), ".endPort", "needs a numeric `port`");
    check_malformed_port(&json!({ "port": 91, "endPort": 90 }), ".endPort", "must not be smaller than `port`");
}

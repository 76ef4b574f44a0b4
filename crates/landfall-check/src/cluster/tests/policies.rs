//! One test for each rule of the `NetworkPolicy` semantics.

use serde_json::{Value, json};

use super::*;

/// Who reaches a port of a workload under these policies, in alphabetical order.
#[track_caller]
fn check(policies: &[Value], to: &str, port: Port, expected: &str) {
    check_with(policies, Surroundings::default(), to, port, expected);
}

#[track_caller]
fn check_with(policies: &[Value], surroundings: Surroundings, to: &str, port: Port, expected: &str) {
    let cluster = cluster(policies, surroundings);
    assert_consistent(&cluster);
    let to = Endpoint::Workload(named(&cluster, to));
    let mut sources: Vec<&str> = cluster
        .workloads()
        .filter(|(from, _)| cluster.reaches(Endpoint::Workload(*from), to, port).is_allowed())
        .map(|(_, workload)| workload.key.name.as_str())
        .collect();
    sources.sort_unstable();
    if cluster.reaches(Endpoint::Outside, to, port).is_allowed() {
        sources.push("outside");
    }
    assert_eq!(sources.join(" "), expected, "{:?}", cluster.problems());
}

/// Which workloads and ports a workload reaches under these policies.
#[track_caller]
fn check_from(policies: &[Value], from: &str, expected: &str) {
    let cluster = cluster(policies, Surroundings::default());
    assert_consistent(&cluster);
    let from = named(&cluster, from);
    let relation = cluster.relation();
    let mut reached: Vec<String> = relation
        .pairs()
        .into_iter()
        .filter(|pair| pair.0 == from)
        .map(|(_, to, port)| format!("{}:{port}", cluster.workload(to).key.name))
        .collect();
    reached.sort_unstable();
    if cluster.reaches(Endpoint::Workload(from), Endpoint::Outside, HTTPS).is_allowed() {
        reached.push("outside".to_owned());
    }
    assert_eq!(reached.join(" "), expected, "{:?}", cluster.problems());
}

/// An ingress policy for `db` with these rules.
fn into_db(rules: &Value) -> [Value; 1] {
    [policy("db", &json!({ "podSelector": { "matchLabels": { "app": "db" } }, "ingress": rules }))]
}

/// An egress policy for `web` with these rules.
fn out_of_web(rules: &Value) -> [Value; 1] {
    let pods = json!({ "matchLabels": { "app": "web" } });
    [policy("web", &json!({ "podSelector": pods, "policyTypes": ["Egress"], "egress": rules }))]
}

const EVERYBODY: &str = "api db probe web outside";
const EVERYTHING: &str = "api:9090/TCP api:9125/UDP db:5432/TCP probe:80/TCP web:8080/TCP outside";
const SQL: Port = Port { number: 5432, protocol: Protocol::Tcp };
const HTTPS: Port = Port { number: 443, protocol: Protocol::Tcp };

#[test]
fn without_policies_everybody_reaches_everything() {
    check(&[], "db", SQL, EVERYBODY);
    check_from(&[], "web", EVERYTHING);
}

#[test]
fn a_selected_pod_without_rules_is_reached_by_nobody() {
    check(&into_db(&json!([])), "db", SQL, "");
}

#[test]
fn a_pod_that_is_not_selected_stays_open() {
    check(&into_db(&json!([])), "web", Port::tcp(8080), EVERYBODY);
}

#[test]
fn ingress_policies_leave_egress_alone() {
    check_from(&into_db(&json!([])), "db", "api:9090/TCP api:9125/UDP probe:80/TCP web:8080/TCP outside");
}

#[test]
fn egress_policies_leave_ingress_alone() {
    check(&out_of_web(&json!([])), "web", Port::tcp(8080), "api db probe outside");
}

#[test]
fn an_empty_rule_admits_everybody() {
    check(&into_db(&json!([{}])), "db", SQL, EVERYBODY);
}

#[test]
fn an_empty_and_an_absent_from_are_the_same() {
    check(&into_db(&json!([{ "from": [] }])), "db", SQL, EVERYBODY);
    check(&into_db(&json!([{ "from": null, "ports": [] }])), "db", SQL, EVERYBODY);
}

#[test]
fn an_empty_pod_selector_as_peer_is_the_own_namespace() {
    check(&into_db(&json!([{ "from": [{ "podSelector": {} }] }])), "db", SQL, "api db web");
}

#[test]
fn an_empty_namespace_selector_is_every_pod_but_nobody_outside() {
    check(&into_db(&json!([{ "from": [{ "namespaceSelector": {} }] }])), "db", SQL, "api db probe web");
}

#[test]
fn a_pod_selector_alone_stays_in_the_namespace_of_the_policy() {
    let web = json!({ "matchLabels": { "app": "web" } });
    check(&into_db(&json!([{ "from": [{ "podSelector": web }] }])), "db", SQL, "web");
}

#[test]
fn selectors_in_one_peer_both_have_to_match() {
    let peer = json!({
        "namespaceSelector": { "matchLabels": { "team": "ops" } }, "podSelector": { "matchLabels": { "app": "web" } },
    });
    check(&into_db(&json!([{ "from": [peer] }])), "db", SQL, "probe");
}

#[test]
fn selectors_in_two_peers_are_alternatives() {
    let peers = json!([
        { "namespaceSelector": { "matchLabels": { "team": "ops" } } },
        { "podSelector": { "matchLabels": { "app": "web" } } },
    ]);
    check(&into_db(&json!([{ "from": peers }])), "db", SQL, "probe web");
}

#[test]
fn several_match_labels_all_have_to_match() {
    let labels = json!({ "app": "db", "tier": "back" });
    check(&into_db(&json!([{ "from": [{ "podSelector": { "matchLabels": labels } }] }])), "db", SQL, "db");
}

#[test]
fn namespaces_have_a_label_with_their_name() {
    let by_name = |name| {
        let namespaces = json!({ "matchLabels": { "kubernetes.io/metadata.name": name } });
        json!([{ "from": [{ "namespaceSelector": namespaces }] }])
    };
    check(&into_db(&by_name("ops")), "db", SQL, "probe");
    check(&into_db(&by_name("nowhere")), "db", SQL, "");
}

#[track_caller]
fn check_expression(expression: &Value, expected: &str) {
    let peer = json!({ "podSelector": { "matchExpressions": [expression] } });
    check(&into_db(&json!([{ "from": [peer] }])), "db", SQL, expected);
}

#[test]
fn in_matches_one_of_the_values() {
    check_expression(&json!({ "key": "app", "operator": "In", "values": ["web", "api"] }), "api web");
}

#[test]
fn not_in_also_matches_pods_without_the_label() {
    check_expression(&json!({ "key": "tier", "operator": "NotIn", "values": ["front"] }), "api db web");
    check_expression(&json!({ "key": "tier", "operator": "NotIn", "values": ["back"] }), "web");
}

#[test]
fn exists_and_does_not_exist_look_at_the_key_only() {
    check_expression(&json!({ "key": "tier", "operator": "Exists" }), "api db");
    check_expression(&json!({ "key": "tier", "operator": "DoesNotExist" }), "web");
}

#[test]
fn labels_and_expressions_all_have_to_match() {
    let peer = json!({ "podSelector": {
        "matchLabels": { "tier": "back" },
        "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": ["db"] }],
    } });
    check(&into_db(&json!([{ "from": [peer] }])), "db", SQL, "api");
}

#[test]
fn policies_add_up() {
    let from = |app| json!([{ "from": [{ "podSelector": { "matchLabels": { "app": app } } }] }]);
    let pods = json!({ "matchLabels": { "app": "db" } });
    let policies = [
        policy("deny", &json!({ "podSelector": {} })),
        policy("web", &json!({ "podSelector": pods, "ingress": from("web") })),
        policy("api", &json!({ "podSelector": pods, "ingress": from("api") })),
    ];
    check(&policies, "db", SQL, "api web");
}

#[test]
fn both_ends_have_to_allow() {
    let db_peer = json!([{ "to": [{ "podSelector": { "matchLabels": { "app": "db" } } }] }]);
    let api_only = json!([{ "from": [{ "podSelector": { "matchLabels": { "app": "api" } } }] }]);
    let [egress] = out_of_web(&db_peer);
    let [ingress] = into_db(&api_only);
    check(&[egress.clone(), ingress.clone()], "db", SQL, "api");
    check_from(&[egress.clone(), ingress], "web", "");
    check_from(&[egress], "web", "db:5432/TCP");
}

#[test]
fn a_policy_works_in_its_own_namespace_only() {
    let policies = [policy_in("ops", "deny", &json!({ "podSelector": {} }))];
    check(&policies, "db", SQL, EVERYBODY);
    check(&policies, "probe", Port::tcp(80), "");
}

#[test]
fn an_absent_pod_selector_selects_the_namespace() {
    check(&[policy("deny", &json!({}))], "db", SQL, "");
    check(&[policy("deny", &Value::Null)], "db", SQL, "");
}

#[test]
fn without_types_a_policy_is_always_for_ingress() {
    let policies = [policy("p", &json!({ "podSelector": {}, "egress": [{}] }))];
    check(&policies, "db", SQL, "");
}

#[test]
fn without_types_a_policy_with_egress_rules_is_also_for_egress() {
    let rules = json!([{ "to": [{ "podSelector": { "matchLabels": { "app": "db" } } }] }]);
    let pods = json!({ "matchLabels": { "app": "web" } });
    check_from(&[policy("p", &json!({ "podSelector": pods, "egress": rules }))], "web", "db:5432/TCP");
}

#[test]
fn without_types_an_empty_egress_list_isolates_nothing() {
    let pods = json!({ "matchLabels": { "app": "web" } });
    let reached = "api:9090/TCP api:9125/UDP db:5432/TCP probe:80/TCP outside";
    check_from(&[policy("p", &json!({ "podSelector": pods, "egress": [] }))], "web", reached);
    check_from(&[policy("p", &json!({ "podSelector": pods, "egress": [], "policyTypes": [] }))], "web", reached);
}

#[test]
fn rules_for_a_direction_that_the_types_leave_out_have_no_effect() {
    let policies =
        [policy("p", &json!({ "podSelector": {}, "policyTypes": ["Egress"], "ingress": [], "egress": [{}] }))];
    check(&policies, "db", SQL, EVERYBODY);
    let policies = [policy("p", &json!({ "podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}] }))];
    check(&policies, "db", SQL, "");
}

#[track_caller]
fn check_ports(ports: &Value, to: &str, port: Port, allowed: bool) {
    let policies = [policy("p", &json!({ "podSelector": {}, "ingress": [{ "ports": ports }] }))];
    check(&policies, to, port, if allowed { EVERYBODY } else { "" });
}

#[test]
fn a_port_number_admits_that_port_over_tcp() {
    check_ports(&json!([{ "port": 5432 }]), "db", SQL, true);
    check_ports(&json!([{ "port": 5433 }]), "db", SQL, false);
    check_ports(&json!([{ "port": 9125 }]), "api", Port::udp(9125), false);
}

#[test]
fn a_protocol_is_part_of_the_port() {
    check_ports(&json!([{ "port": 9125, "protocol": "UDP" }]), "api", Port::udp(9125), true);
    check_ports(&json!([{ "port": 5432, "protocol": "SCTP" }]), "db", SQL, false);
}

#[test]
fn a_protocol_without_port_is_every_port_of_it() {
    check_ports(&json!([{ "protocol": "UDP" }]), "api", Port::udp(9125), true);
    check_ports(&json!([{ "protocol": "UDP" }]), "api", Port::tcp(9090), false);
}

#[test]
fn no_ports_are_all_ports_of_all_protocols() {
    check_ports(&json!([]), "api", Port::udp(9125), true);
    check_ports(&Value::Null, "db", SQL, true);
}

#[test]
fn a_range_includes_both_ends() {
    for (first, last, allowed) in [(5432, 5440, true), (5400, 5432, true), (5433, 5440, false), (5432, 5432, true)] {
        check_ports(&json!([{ "port": first, "endPort": last }]), "db", SQL, allowed);
    }
}

#[test]
fn a_port_name_is_the_one_of_the_destination() {
    check_ports(&json!([{ "port": "http" }]), "web", Port::tcp(8080), true);
    check_ports(&json!([{ "port": "http" }]), "api", Port::tcp(9090), true);
    check_ports(&json!([{ "port": "http" }]), "db", SQL, false);
    let to_http = json!([{ "ports": [{ "port": "http" }] }]);
    check_from(&out_of_web(&to_http), "web", "api:9090/TCP probe:80/TCP web:8080/TCP");
}

#[test]
fn a_port_name_goes_with_its_protocol() {
    check_ports(&json!([{ "port": "stats" }]), "api", Port::udp(9125), false);
    check_ports(&json!([{ "port": "stats", "protocol": "UDP" }]), "api", Port::udp(9125), true);
}

#[test]
fn a_rule_limits_peers_and_ports_together() {
    let rules = json!([
        { "from": [{ "podSelector": { "matchLabels": { "app": "web" } } }], "ports": [{ "port": 1 }] },
        { "from": [{ "podSelector": { "matchLabels": { "app": "api" } } }], "ports": [{ "port": 5432 }] },
    ]);
    check(&into_db(&rules), "db", SQL, "api");
}

#[test]
fn a_public_block_admits_no_pods() {
    check(&into_db(&json!([{ "from": [{ "ipBlock": { "cidr": "203.0.113.0/24" } }] }])), "db", SQL, "outside");
}

#[test]
fn the_block_of_all_addresses_may_hold_pods() {
    check(&into_db(&json!([{ "from": [{ "ipBlock": { "cidr": "0.0.0.0/0" } }] }])), "db", SQL, EVERYBODY);
}

#[test]
fn exceptions_can_take_all_pods_out_of_a_block() {
    let block = json!({ "cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"] });
    check(&into_db(&json!([{ "from": [{ "ipBlock": block }] }])), "db", SQL, "outside");
}

#[test]
fn known_pod_addresses_sharpen_blocks() {
    let ranges =
        || Surroundings { pod_ranges: vec!["10.244.0.0/16".parse().expect("a range")], ..Surroundings::default() };
    let block = |cidr| into_db(&json!([{ "from": [{ "ipBlock": { "cidr": cidr } }] }]));
    check_with(&block("10.20.0.0/16"), ranges(), "db", SQL, "outside");
    check_with(&block("10.244.3.0/24"), ranges(), "db", SQL, "api db probe web");
    check_with(&block("10.0.0.0/8"), ranges(), "db", SQL, EVERYBODY);
}

#[track_caller]
fn check_address(block: &Value, address: &str, expected: bool) {
    let cluster = cluster(&out_of_web(&json!([{ "to": [{ "ipBlock": block }] }])), Surroundings::default());
    let web = Endpoint::Workload(named(&cluster, "web"));
    let address = Endpoint::Address(address.parse().expect("an address"));
    assert_eq!(cluster.reaches(web, address, HTTPS).is_allowed(), expected);
}

#[test]
fn a_block_admits_its_addresses_without_the_exceptions() {
    let block = json!({ "cidr": "203.0.113.0/24", "except": ["203.0.113.128/25"] });
    check_address(&block, "203.0.113.7", true);
    check_address(&block, "203.0.113.200", false);
    check_address(&block, "203.0.114.7", false);
    check_address(&block, "2001:db8::1", false);
    check_address(&json!({ "cidr": "2001:db8::/32" }), "2001:db8::1", true);
}

#[test]
fn a_port_name_leads_nowhere_outside() {
    check_from(
        &out_of_web(&json!([{ "to": [{ "ipBlock": { "cidr": "203.0.113.0/24" } }], "ports": [{ "port": "http" }] }])),
        "web",
        "",
    );
}

#[test]
fn a_selector_admits_no_address_outside() {
    check_from(
        &out_of_web(&json!([{ "to": [{ "namespaceSelector": {} }] }])),
        "web",
        "api:9090/TCP api:9125/UDP db:5432/TCP probe:80/TCP web:8080/TCP",
    );
}

#[test]
fn pods_of_one_workload_need_a_rule_for_each_other() {
    let policies = [policy("deny", &json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }))];
    check_from(&policies, "db", "");
}

#[test]
fn no_policy_selects_pods_on_the_network_of_their_node() {
    let mut agent = deployment("shop", "agent", &json!({ "app": "agent" }), &json!([{ "containerPort": 9100 }]));
    agent["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    let policies = [agent, policy("deny", &json!({ "ingress": [{ "from": [{ "podSelector": {} }] }] }))];
    check(&policies, "agent", Port::tcp(9100), "agent api db probe web outside");
    check(&policies, "db", SQL, "api db web");
}

#[test]
fn pods_of_operators_are_workloads() {
    let key = ObjectKey::new("Cluster", "shop", "ledger");
    let labels = Labels::from([("cnpg.io/cluster".to_owned(), "ledger".to_owned())]);
    let ports = vec![ContainerPort { name: None, port: SQL }];
    let workloads = vec![Workload::new(key, Origin::Operator, labels, ports)];
    let spec = json!({
        "podSelector": { "matchLabels": { "cnpg.io/cluster": "ledger" } },
        "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "api" } } }] }],
    });
    let surroundings = Surroundings { workloads, ..Surroundings::default() };
    check_with(&[policy("ledger", &spec)], surroundings, "ledger", SQL, "api");
}

#[test]
fn strangers_are_found_by_the_labels_of_their_namespace() {
    let key = ObjectKey::new("Deployment", "ingress", "gateway");
    let workloads = vec![Workload::new(key, Origin::Stranger, Labels::new(), Vec::new()), Workload::kube_dns()];
    let namespaces = BTreeMap::from([("ingress".to_owned(), Labels::from([("entry".to_owned(), "yes".to_owned())]))]);
    let surroundings = Surroundings { workloads, namespaces, ..Surroundings::default() };
    let peer = json!({ "namespaceSelector": { "matchLabels": { "entry": "yes" } } });
    check_with(&into_db(&json!([{ "from": [peer] }])), surroundings, "db", SQL, "gateway");
}

#[test]
fn the_answer_names_the_rules_and_the_policies() {
    let [egress] = out_of_web(&json!([]));
    let [ingress] = into_db(&json!([{ "ports": [{ "port": 1 }] }, { "from": [{ "podSelector": {} }] }]));
    let cluster = cluster(&[egress, ingress], Surroundings::default());
    let (web, db) = (Endpoint::Workload(named(&cluster, "web")), Endpoint::Workload(named(&cluster, "db")));
    let rule =
        RuleRef { policy: ObjectKey::new("NetworkPolicy", "shop", "db"), direction: Direction::Ingress, index: 1 };
    assert_eq!(
        cluster.reaches(web, db, SQL),
        Reachability {
            egress: Verdict::Denied(vec![ObjectKey::new("NetworkPolicy", "shop", "web")]),
            ingress: Verdict::Allowed(vec![Grant { rule, by: GrantedBy::Selector }]),
        }
    );
    assert_eq!(cluster.reaches(Endpoint::Outside, web, HTTPS).egress, Verdict::NotAPod);
    assert_eq!(cluster.reaches(db, web, Port::tcp(8080)).ingress, Verdict::Unisolated);
}

#[track_caller]
fn check_dns(policies: &[Value], udp: bool, tcp: bool) {
    let cluster = cluster(policies, Surroundings::default());
    let dns = cluster.dns(named(&cluster, "web"));
    assert_eq!((dns.udp.is_allowed(), dns.tcp.is_allowed()), (udp, tcp));
    assert_eq!(dns.is_allowed(), udp && tcp);
}

#[test]
fn dns_is_open_without_egress_policies() {
    check_dns(&[], true, true);
    check_dns(&into_db(&json!([])), true, true);
}

#[test]
fn an_egress_policy_without_rules_blocks_dns() {
    check_dns(&out_of_web(&json!([])), false, false);
}

#[test]
fn a_rule_for_the_dns_server_opens_dns() {
    let peer = json!({
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } },
        "podSelector": { "matchLabels": { "k8s-app": "kube-dns" } },
    });
    let udp = json!({ "port": 53, "protocol": "UDP" });
    check_dns(&out_of_web(&json!([{ "to": [peer], "ports": [udp] }])), true, false);
    check_dns(&out_of_web(&json!([{ "to": [peer], "ports": [udp, { "port": "dns-tcp" }] }])), true, true);
    check_dns(&out_of_web(&json!([{ "ports": [udp, { "port": 53 }] }])), true, true);
}

#[test]
fn a_policy_of_the_dns_server_counts() {
    let policies = [policy_in("kube-system", "deny", &json!({ "podSelector": {} }))];
    check_dns(&policies, false, false);
}

#[test]
fn exits_are_the_rules_that_lead_outside() {
    let rules = json!([
        { "to": [{ "podSelector": {} }] },
        { "to": [{ "ipBlock": { "cidr": "203.0.113.0/24" } }], "ports": [{ "port": 443 }] },
        { "ports": [{ "port": 53, "protocol": "UDP" }] },
    ]);
    let cluster = cluster(&out_of_web(&rules), Surroundings::default());
    let exits = cluster.exits(named(&cluster, "web")).expect("an egress policy selects `web`");
    let written: Vec<String> = exits
        .iter()
        .map(|exit| {
            let to = exit.to.as_ref().map_or("anywhere".to_owned(), |block| block.range.to_string());
            format!("{} {to} {:?}", exit.rule.index, exit.ports.iter().map(|ports| &ports.ports).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(written, ["1 203.0.113.0/24 [Range(443, 443)]", "2 anywhere [Range(53, 53)]"]);
    assert_eq!(cluster.exits(named(&cluster, "db")), None);
}

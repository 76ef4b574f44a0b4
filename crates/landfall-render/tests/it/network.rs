//! Network policies, one line for each thing that they open.

use serde_json::Value;

use crate::architecture::{find, names, render};

/// What a policy opens, one line each: `from web 8080`, `to monitoring:* 4317`.
fn opened(text: &str, policy: &str) -> Vec<String> {
    let rendered = render(text);
    let spec = &find(&rendered, &format!("NetworkPolicy/{policy}"))["spec"];
    let mut lines = Vec::new();
    for (rules, direction) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec[rules].as_array().into_iter().flatten() {
            let ports: Vec<String> = rule["ports"].as_array().into_iter().flatten().map(port).collect();
            let peers = rule[direction].as_array().into_iter().flatten();
            lines.extend(peers.map(|found| format!("{direction} {} {}", peer(found), ports.join(" "))));
        }
    }
    lines
}

fn port(port: &Value) -> String {
    let suffix = if port["protocol"] == "UDP" { "/udp" } else { "" };
    format!("{}{suffix}", port["port"])
}

fn peer(peer: &Value) -> String {
    if let Some(block) = peer["ipBlock"]["cidr"].as_str() {
        let except = peer["ipBlock"]["except"].as_array().map_or(0, Vec::len);
        return if except == 0 { block.to_owned() } else { format!("{block} except {except}") };
    }
    let namespace = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"].as_str();
    let labels = &peer["podSelector"]["matchLabels"];
    let pods = ["app.kubernetes.io/name", "cnpg.io/cluster", "k8s-app"].iter().find_map(|label| labels[label].as_str());
    let prefix = namespace.map_or_else(String::new, |namespace| format!("{namespace}:"));
    format!("{prefix}{}", pods.unwrap_or("*"))
}

#[test]
fn every_namespace_is_closed_but_for_names() {
    let text = "services: { web: {}, fake: { kind: mock, namespace: mocks } }";
    let policies = names(&render(text), &["NetworkPolicy"]);
    assert_eq!(
        policies,
        [
            "NetworkPolicy/allow-dns",
            "NetworkPolicy/default-deny",
            "NetworkPolicy/fake",
            "NetworkPolicy/allow-dns",
            "NetworkPolicy/default-deny",
            "NetworkPolicy/web",
        ]
    );
    assert_eq!(opened(text, "default-deny"), [""; 0]);
    assert_eq!(opened(text, "allow-dns"), ["to kube-system:kube-dns 53/udp 53"]);
    assert_eq!(opened(text, "web"), [""; 0]);
}

#[test]
fn an_edge_opens_the_port_of_the_container_at_both_ends() {
    let text = "
services:
  web: { uses: [{ call: api }, { call: api, port: grpc }, { query: api }] }
  api: { ports: { grpc: { port: 9000, protocol: grpc }, http: { port: 8080, service: 80 } } }
";
    assert_eq!(opened(text, "web"), ["to api 9000"]);
    assert_eq!(opened(text, "api"), ["from web 9000"]);
}

#[test]
fn a_call_into_another_namespace_names_it() {
    let text = "services: { web: { uses: [{ call: fake }] }, fake: { port: 8080, namespace: mocks } }";
    assert_eq!(opened(text, "web"), ["to mocks:fake 8080"]);
    assert_eq!(opened(text, "fake"), ["from shop:web 8080"]);
}

#[test]
fn what_is_exposed_is_open_to_the_ingress_controller() {
    let text = "services: { web: { port: 8080, expose: shop.example } }";
    assert_eq!(opened(text, "web"), ["from ingress:* 8080"]);
    let elsewhere = format!("platform: {{ ingress: {{ namespace: edge }} }}\n{text}");
    assert_eq!(opened(&elsewhere, "web"), ["from edge:* 8080"]);
}

#[test]
fn what_is_scraped_is_open_to_prometheus() {
    let text = "services: { web: { port: 8080 }, quiet: { port: 8080, metrics: { scrape: false } } }\nobservability: { metrics: prometheus }";
    assert_eq!(opened(text, "web"), ["from monitoring:prometheus 8080"]);
    assert_eq!(opened(text, "quiet"), [""; 0]);
}

#[test]
fn traces_go_to_the_collector() {
    let with = |stack: &str| opened(&format!("services: {{ web: {{}} }}\nobservability: {{ traces: {stack} }}"), "web");
    assert_eq!(with("jaeger"), ["to monitoring:* 4317 4318"]);
    assert_eq!(with("zipkin"), ["to monitoring:* 9411"]);
}

#[test]
fn an_external_is_at_its_addresses_or_anywhere_public() {
    let text = "
services: { web: { uses: [{ call: bank }, { call: carrier }] } }
externals: { bank: { addresses: [203.0.113.0/24, 198.51.100.7/32], port: 8443 }, carrier: {} }
";
    assert_eq!(opened(text, "web"), ["to 198.51.100.7/32 8443", "to 203.0.113.0/24 8443", "to 0.0.0.0/0 except 4 443"]);
}

#[test]
fn a_store_is_open_to_those_that_use_it() {
    let text = "
services: { web: { uses: [{ write: ledger }] }, other: {} }
stores: { ledger: { engine: redis, provider: statefulset, members: 2 } }
";
    assert_eq!(opened(text, "web"), ["to ledger 6379"]);
    assert_eq!(opened(text, "other"), [""; 0]);
    assert_eq!(opened(text, "ledger"), ["from ledger 6379", "from web 6379", "to ledger 6379"]);
}

#[test]
fn a_managed_store_is_outside_the_cluster() {
    let text = "
services: { web: { uses: [{ write: ledger }, { store: files }] } }
stores: { ledger: { engine: postgres, provider: aws }, files: { engine: s3, provider: aws } }
";
    assert_eq!(opened(text, "web"), ["to 0.0.0.0/0 except 4 443", "to 0.0.0.0/0 except 1 5432"]);
    assert!(!names(&render(text), &["NetworkPolicy"]).contains(&"NetworkPolicy/ledger".to_owned()));
}

#[test]
fn a_store_reaches_the_bucket_of_its_backups() {
    let text = "
stores:
  ledger: { engine: postgres, provider: statefulset, backup: { full: 1d, to: archive } }
  archive: { engine: s3, provider: statefulset }
";
    assert_eq!(opened(text, "ledger"), ["to archive 8333"]);
    assert_eq!(opened(text, "archive"), ["from ledger 8333"]);
}

#[test]
fn sidecars_reach_the_control_plane_of_the_mesh() {
    let text = "platform: { mesh: { kind: istio } }\nservices: { web: { port: 8080 } }\nobservability: { metrics: prometheus }";
    assert_eq!(opened(text, "allow-istiod"), ["to istio-system:* 15012"]);
    assert_eq!(opened(text, "web"), ["from monitoring:prometheus 8080 15020"]);
}

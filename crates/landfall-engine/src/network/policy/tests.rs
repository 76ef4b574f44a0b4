//! What policies become; the real `nft` reads every case.

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::*;
use crate::network::reader::accepted_by_nft;

/// Compiles the policies over the pods `name namespace address labels ports`.
fn compile(pods: &[(&str, &str, &str, Value, Value)], policies: &[Value]) -> String {
    let pods: Vec<Pod> = pods
        .iter()
        .map(|(name, namespace, address, labels, ports)| {
            read(json!({
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                "spec": {"containers": [{"name": "main", "ports": ports}]},
                "status": {"phase": "Running", "podIP": address},
            }))
        })
        .collect();
    let namespaces: Vec<Namespace> = ["shop", "bank"]
        .into_iter()
        .map(|name| read(json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}})))
        .collect();
    let policies: Vec<NetworkPolicy> = policies.iter().cloned().map(read).collect();
    let rules = ruleset(&View {
        pods: &pods.iter().collect::<Vec<_>>(),
        namespaces: &namespaces.iter().collect::<Vec<_>>(),
        policies: &policies.iter().collect::<Vec<_>>(),
    });
    accepted_by_nft(&rules);
    rules
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the test's object has the kind's shape")
}

fn policy(spec: Value) -> Value {
    json!({"metadata": {"name": "policy", "namespace": "shop"}, "spec": spec})
}

fn web(address: &'static str) -> (&'static str, &'static str, &'static str, Value, Value) {
    ("web", "shop", address, json!({"app": "web"}), json!([{"containerPort": 8080, "name": "http"}]))
}

#[test]
fn without_policies_nothing_is_isolated() {
    assert_snapshot!(compile(&[web("10.244.0.2")], &[]), @"
    table ip landfall_policy
    delete table ip landfall_policy
    table ip landfall_policy {
      map ingress_isolated { type ipv4_addr : verdict; }
      map egress_isolated { type ipv4_addr : verdict; }
      set itself { type ipv4_addr . ipv4_addr; }
      chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        ip saddr . ip daddr @itself accept
        ip saddr vmap @egress_isolated
        ip daddr vmap @ingress_isolated
      }
    }
    ");
}

#[test]
fn a_policy_without_rules_closes_its_direction() {
    let deny = policy(json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    assert_snapshot!(compile(&[web("10.244.0.2")], &[deny]), @"
    table ip landfall_policy
    delete table ip landfall_policy
    table ip landfall_policy {
      chain egress_0 {
        meta l4proto tcp reject with tcp reset
        reject
      }
      chain ingress_0 {
        meta l4proto tcp reject with tcp reset
        reject
      }
      map ingress_isolated { type ipv4_addr : verdict; elements = { 10.244.0.2 : jump ingress_0 }; }
      map egress_isolated { type ipv4_addr : verdict; elements = { 10.244.0.2 : jump egress_0 }; }
      set itself { type ipv4_addr . ipv4_addr; elements = { 10.244.0.2 . 10.244.0.2 }; }
      chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        ip saddr . ip daddr @itself accept
        ip saddr vmap @egress_isolated
        ip daddr vmap @ingress_isolated
      }
    }
    ");
}

#[test]
fn pods_with_the_same_policies_share_a_chain() {
    let allow = policy(json!({
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 8080}]}],
    }));
    let client = ("client", "shop", "10.244.0.9", json!({"app": "client"}), json!([]));
    let elsewhere = ("client", "bank", "10.244.0.8", json!({"app": "client"}), json!([]));
    assert_snapshot!(compile(&[web("10.244.0.2"), web("10.244.0.3"), client, elsewhere], &[allow]), @"
    table ip landfall_policy
    delete table ip landfall_policy
    table ip landfall_policy {
      set ingress_0_0_0 { type ipv4_addr; elements = { 10.244.0.9 }; }
      chain ingress_0 {
        ip saddr @ingress_0_0_0 tcp dport 8080 return
        meta l4proto tcp reject with tcp reset
        reject
      }
      map ingress_isolated { type ipv4_addr : verdict; elements = { 10.244.0.2 : jump ingress_0, 10.244.0.3 : jump ingress_0 }; }
      map egress_isolated { type ipv4_addr : verdict; }
      set itself { type ipv4_addr . ipv4_addr; elements = { 10.244.0.2 . 10.244.0.2, 10.244.0.3 . 10.244.0.3 }; }
      chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        ip saddr . ip daddr @itself accept
        ip saddr vmap @egress_isolated
        ip daddr vmap @ingress_isolated
      }
    }
    ");
}

#[test]
fn a_name_of_a_port_means_what_the_selected_pod_says() {
    let allow = policy(json!({
        "podSelector": {},
        "ingress": [{"ports": [{"port": "http"}, {"port": "absent"}, {"port": 9000, "endPort": 9010, "protocol": "UDP"}]}],
    }));
    assert_snapshot!(compile(&[web("10.244.0.2")], &[allow]), @"
    table ip landfall_policy
    delete table ip landfall_policy
    table ip landfall_policy {
      chain ingress_0 {
        tcp dport 8080 return
        udp dport 9000-9010 return
        meta l4proto tcp reject with tcp reset
        reject
      }
      map ingress_isolated { type ipv4_addr : verdict; elements = { 10.244.0.2 : jump ingress_0 }; }
      map egress_isolated { type ipv4_addr : verdict; }
      set itself { type ipv4_addr . ipv4_addr; elements = { 10.244.0.2 . 10.244.0.2 }; }
      chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        ip saddr . ip daddr @itself accept
        ip saddr vmap @egress_isolated
        ip daddr vmap @ingress_isolated
      }
    }
    ");
}

#[test]
fn a_name_of_a_port_in_egress_means_what_the_far_pod_says() {
    let allow = policy(json!({
        "podSelector": {"matchLabels": {"app": "client"}},
        "policyTypes": ["Egress"],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "http"}]}],
    }));
    let client = ("client", "shop", "10.244.0.9", json!({"app": "client"}), json!([]));
    assert_snapshot!(compile(&[web("10.244.0.2"), client], &[allow]), @"
    table ip landfall_policy
    delete table ip landfall_policy
    table ip landfall_policy {
      set egress_0_0_0_8080 { type ipv4_addr; elements = { 10.244.0.2 }; }
      chain egress_0 {
        ip daddr @egress_0_0_0_8080 tcp dport 8080 return
        meta l4proto tcp reject with tcp reset
        reject
      }
      map ingress_isolated { type ipv4_addr : verdict; }
      map egress_isolated { type ipv4_addr : verdict; elements = { 10.244.0.9 : jump egress_0 }; }
      set itself { type ipv4_addr . ipv4_addr; elements = { 10.244.0.9 . 10.244.0.9 }; }
      chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        ip saddr . ip daddr @itself accept
        ip saddr vmap @egress_isolated
        ip daddr vmap @ingress_isolated
      }
    }
    ");
}

#[test]
fn blocks_keep_their_exceptions_and_namespaces_are_selected_by_label() {
    let allow = policy(json!({
        "podSelector": {},
        "policyTypes": ["Egress"],
        "egress": [{"to": [
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "bank"}}},
        ]}],
    }));
    let far = ("ledger", "bank", "10.244.0.8", json!({}), json!([]));
    assert_snapshot!(compile(&[web("10.244.0.2"), far], &[allow]), @"
    table ip landfall_policy
    delete table ip landfall_policy
    table ip landfall_policy {
      set egress_0_0_1 { type ipv4_addr; elements = { 10.244.0.8 }; }
      chain egress_0 {
        ip daddr 10.0.0.0/8 ip daddr != { 10.1.0.0/16 } return
        ip daddr @egress_0_0_1 return
        meta l4proto tcp reject with tcp reset
        reject
      }
      map ingress_isolated { type ipv4_addr : verdict; }
      map egress_isolated { type ipv4_addr : verdict; elements = { 10.244.0.2 : jump egress_0 }; }
      set itself { type ipv4_addr . ipv4_addr; elements = { 10.244.0.2 . 10.244.0.2 }; }
      chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        ip saddr . ip daddr @itself accept
        ip saddr vmap @egress_isolated
        ip daddr vmap @ingress_isolated
      }
    }
    ");
}

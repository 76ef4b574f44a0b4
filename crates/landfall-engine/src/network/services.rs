//! Service addresses as packet filter rules: a pure function from what the caches hold to one transaction for `nft`.
//!
//! <https://kubernetes.io/docs/reference/networking/virtual-ips/> says what a service address does. A new connection to it is
//! led to one of the ready endpoints at random; with `sessionAffinity: ClientIP` by a hash of the client's address, so that a
//! client stays with its endpoint for as long as the ready endpoints are the same. An address without endpoints refuses:
//! the outer namespace has a route to all of them, and nobody listens there.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::endpoints;

/// The table that holds everything of ours; the transaction replaces it whole.
const TABLE: &str = "landfall_services";

/// The text of the rules, for `nft -f -`.
pub(crate) fn ruleset(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> String {
    let by_service = endpoints::by_service(slices);
    let mut rules = BTreeSet::new();
    let mut hairpin: BTreeSet<Ipv4Addr> = BTreeSet::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let Some(address) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok()) else { continue };
        let slices = endpoints::of(service, &by_service);
        let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
        for port in spec.ports.iter().flatten() {
            let mut ready = endpoints::for_port(slices, port);
            // Where an address is its own endpoint somebody listens on it, as the API server does.
            ready.retain(|end| *end.ip() != address || i32::from(end.port()) != port.port);
            if let Some(rule) = rule(address, port, &ready, sticky) {
                hairpin.extend(ready.iter().map(SocketAddrV4::ip));
                rules.insert(rule);
            }
        }
    }
    write_table(&rules, &hairpin)
}

fn rule(address: Ipv4Addr, port: &ServicePort, ready: &BTreeSet<SocketAddrV4>, sticky: bool) -> Option<String> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase();
    let number = u16::try_from(port.port).ok()?;
    let matching = format!("ip daddr {address} {protocol} dport {number}");
    match (ready.len(), ready.first()) {
        (0, _) | (_, None) => None,
        (1, Some(only)) => Some(format!("{matching} dnat to {}:{}", only.ip(), only.port())),
        (count, _) => {
            let choice =
                if sticky { format!("jhash ip saddr mod {count}") } else { format!("numgen random mod {count}") };
            let targets: Vec<String> = ready
                .iter()
                .enumerate()
                .map(|(at, target)| format!("{at} : {} . {}", target.ip(), target.port()))
                .collect();
            Some(format!("{matching} dnat ip addr . port to {choice} map {{ {} }}", targets.join(", ")))
        }
    }
}

fn write_table(rules: &BTreeSet<String>, hairpin: &BTreeSet<Ipv4Addr>) -> String {
    // Added first, so that deleting it cannot fail; the transaction as a whole replaces it.
    let mut text = format!("table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n  chain services {{\n");
    for rule in rules {
        let _ = writeln!(text, "    {rule}");
    }
    text += "  }\n";
    // A pod that is led to itself would get an answer from an address that it did not ask.
    let pairs: Vec<String> = hairpin.iter().map(|address| format!("{address} . {address}")).collect();
    let elements = if pairs.is_empty() { String::new() } else { format!(" elements = {{ {} }};", pairs.join(", ")) };
    let _ = writeln!(text, "  set hairpin {{ type ipv4_addr . ipv4_addr;{elements} }}");
    text += "  chain from_pods { type nat hook prerouting priority dstnat; jump services; }\n";
    text += "  chain from_engine { type nat hook output priority -100; jump services; }\n";
    let _ = writeln!(
        text,
        "  chain to_itself {{ type nat hook postrouting priority srcnat; ip saddr . ip daddr @hairpin snat to {}; }}",
        super::GATEWAY
    );
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::{Value, json};

    use super::*;
    use crate::network::reader::accepted_by_nft;

    fn compile(service: Value, endpoints: Value) -> String {
        let service = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": service});
        let slice = json!({
            "metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints,
        });
        let service = Arc::new(serde_json::from_value(service).expect("a service"));
        let slice = Arc::new(serde_json::from_value(slice).expect("a slice"));
        let rules = ruleset(&[service], &[slice]);
        accepted_by_nft(&rules);
        rules
    }

    #[test]
    fn a_connection_goes_to_any_of_the_ready_endpoints() {
        let service = json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]});
        let ends = json!([
            {"addresses": ["10.244.0.2"], "conditions": {"ready": true}},
            {"addresses": ["10.244.0.3"], "conditions": {"ready": true}},
            {"addresses": ["10.244.0.4"], "conditions": {"ready": false}},
        ]);
        assert_snapshot!(compile(service, ends), @"
        table ip landfall_services
        delete table ip landfall_services
        table ip landfall_services {
          chain services {
            ip daddr 10.96.0.5 tcp dport 80 dnat ip addr . port to numgen random mod 2 map { 0 : 10.244.0.2 . 8080, 1 : 10.244.0.3 . 8080 }
          }
          set hairpin { type ipv4_addr . ipv4_addr; elements = { 10.244.0.2 . 10.244.0.2, 10.244.0.3 . 10.244.0.3 }; }
          chain from_pods { type nat hook prerouting priority dstnat; jump services; }
          chain from_engine { type nat hook output priority -100; jump services; }
          chain to_itself { type nat hook postrouting priority srcnat; ip saddr . ip daddr @hairpin snat to 169.254.1.1; }
        }
        ");
    }

    #[test]
    fn a_client_stays_with_its_endpoint_when_the_service_says_so() {
        let service =
            json!({"clusterIP": "10.96.0.5", "sessionAffinity": "ClientIP", "ports": [{"name": "http", "port": 80}]});
        let ends = json!([{"addresses": ["10.244.0.2"]}, {"addresses": ["10.244.0.3"]}]);
        assert_snapshot!(compile(service, ends), @"
        table ip landfall_services
        delete table ip landfall_services
        table ip landfall_services {
          chain services {
            ip daddr 10.96.0.5 tcp dport 80 dnat ip addr . port to jhash ip saddr mod 2 map { 0 : 10.244.0.2 . 8080, 1 : 10.244.0.3 . 8080 }
          }
          set hairpin { type ipv4_addr . ipv4_addr; elements = { 10.244.0.2 . 10.244.0.2, 10.244.0.3 . 10.244.0.3 }; }
          chain from_pods { type nat hook prerouting priority dstnat; jump services; }
          chain from_engine { type nat hook output priority -100; jump services; }
          chain to_itself { type nat hook postrouting priority srcnat; ip saddr . ip daddr @hairpin snat to 169.254.1.1; }
        }
        ");
    }

    #[test]
    fn nothing_leads_on_from_a_service_without_endpoints_or_address() {
        let service = json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]});
        let without = compile(service, json!([]));
        assert_snapshot!(without, @"
        table ip landfall_services
        delete table ip landfall_services
        table ip landfall_services {
          chain services {
          }
          set hairpin { type ipv4_addr . ipv4_addr; }
          chain from_pods { type nat hook prerouting priority dstnat; jump services; }
          chain from_engine { type nat hook output priority -100; jump services; }
          chain to_itself { type nat hook postrouting priority srcnat; ip saddr . ip daddr @hairpin snat to 169.254.1.1; }
        }
        ");
        let headless = json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]});
        assert_eq!(compile(headless, json!([{"addresses": ["10.244.0.2"]}])), without);
        let its_own = json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 8080}]});
        assert_eq!(compile(its_own, json!([{"addresses": ["10.96.0.5"]}])), without);
    }
}

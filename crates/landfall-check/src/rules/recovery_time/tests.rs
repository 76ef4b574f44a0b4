//! Recovery times as sums, with exact numbers.

use crate::report::Verdict;
use crate::rules::testing::proof;

fn shop(recovery: &str, rest: &str) -> String {
    format!("landfall: v1\nname: shop\nobjectives: {{ recovery: {{ {recovery} }} }}\n{rest}")
}

#[test]
fn a_hundred_gibibytes_take_1074_seconds() {
    let text = shop(
        "corruption: { rto: 1h }",
        "stores: { orders: { engine: postgres, members: 3, size: 100Gi, backup: { full: 24h, log: 5m } } }",
    );
    let (verdict, derivation) = proof("recovery-time", "recovery.corruption", &text);
    assert_eq!(verdict, Verdict::Proved);
    // 900 + 1074 + 30 + 300.
    assert_eq!(
        derivation,
        [
            "store.orders = 2304s (38m24s): 15m (people notice and decide) + 17m54s (restore 100Gi ÷ 100MB/s) + 30s (it starts) + 5m (people verify)",
            "2304s (38m24s) ≤ 1h",
        ]
    );
}

#[test]
fn five_hundred_gibibytes_break_an_hour() {
    let text = shop(
        "corruption: { rto: 1h }",
        "stores: { orders: { engine: postgres, members: 3, size: 500Gi, backup: { full: 24h, log: 5m } } }",
    );
    let (verdict, derivation) = proof("recovery-time", "recovery.corruption", &text);
    assert_eq!(verdict, Verdict::Refuted);
    assert_eq!(derivation[1], "6599s (1h49m59s) > 1h");
}

#[test]
fn a_plain_stateful_set_has_no_bound_when_its_node_dies() {
    let text = shop("node: { rto: 1h }", "stores: { orders: { engine: postgres, provider: statefulset, size: 10Gi } }");
    let (verdict, derivation) = proof("recovery-time", "recovery.node", &text);
    assert_eq!(verdict, Verdict::Refuted);
    assert_eq!(derivation[1], "no bound, but 1h is promised");
}

#[test]
fn copies_in_other_zones_serve_when_the_nodes_are_silent() {
    let text = shop(
        "zone: { rto: 60s }",
        "platform: { regions: { primary: { zones: [a, b, c] } }, nodes: { count: 6, cpu: 4, memory: 16Gi } }
services: { checkout: { replicas: 3 } }
stores: { orders: { engine: postgres, members: 3, size: 10Gi } }",
    );
    let (verdict, derivation) = proof("recovery-time", "recovery.zone", &text);
    assert_eq!(verdict, Verdict::Proved);
    assert_eq!(
        derivation,
        [
            "service.checkout = 50s: 50s (the node is silent)",
            "store.orders = 30s: 30s (another member takes over)",
            "50s ≤ 1m",
        ]
    );
}

#[test]
fn one_copy_in_a_lost_zone_waits_for_evictions() {
    let text = shop(
        "zone: { rto: 5m }",
        "platform: { regions: { primary: { zones: [a, b, c] } }, nodes: { count: 9, cpu: 4, memory: 16Gi } }
services: { report: { replicas: 1 } }",
    );
    let (_, derivation) = proof("recovery-time", "recovery.zone", &text);
    // Three nodes a zone: two more evictions of 10 s.
    assert_eq!(
        derivation[0],
        "service.report = 400s (6m40s): 50s (the node is silent) + 5m (tolerated) + 20s (one node after the other is evicted) + 30s (start)"
    );
}

#[test]
fn a_region_takes_people_data_start_and_names() {
    let text = shop(
        "region: { rto: 1h }",
        "platform: { regions: { mumbai: { zones: [a] }, hyderabad: { zones: [a], role: standby } } }
services: { checkout: { uses: [{ write: orders }] } }
stores: { orders: { engine: postgres, members: 3, size: 10Gi } }
recovery: { standby: { region: hyderabad }, replication: [{ store: orders, to: hyderabad }] }",
    );
    let (verdict, derivation) = proof("recovery-time", "recovery.region", &text);
    assert_eq!(verdict, Verdict::Proved);
    // 900 + 30 + 600 + 300 + 300.
    assert!(
        derivation[0]
            .starts_with("store.orders = 2130s (35m30s): 15m (people notice and decide) + 30s (the copy is promoted)"),
        "{derivation:?}"
    );
}

#[test]
fn without_a_standby_nothing_bounds_the_loss_of_a_region() {
    let text = shop("region: { rto: 1h }", "stores: { orders: { engine: postgres } }");
    assert_eq!(proof("recovery-time", "recovery.region", &text).0, Verdict::Refuted);
}

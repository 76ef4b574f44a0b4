//! The loss of a zone, on the example of five nodes in three zones.

use crate::report::Verdict;
use crate::rules::testing::{messages, proof};

/// Production of an interview platform as its document writes it: 32 CPU and 128 GiB on five nodes of 8 and 32.
const INTERVIEWS: &str = "
landfall: v1
name: interviews
objectives: { recovery: { zone: { rto: 4h } } }
platform:
  regions: { mumbai: { zones: [a, b, c] } }
  nodes: { count: 5, cpu: 8, memory: 32Gi }
stores:
  profiles: { engine: mongodb, members: 3, size: 50Gi, resources: { cpu: 4, memory: 16Gi } }
  events: { engine: kafka, members: 5, replication: 3, in-sync: 2, size: 50Gi, resources: { cpu: 4, memory: 16Gi } }
";

#[test]
fn losing_a_zone_of_two_nodes_leaves_24_cpu_and_96_gib() {
    let (verdict, derivation) = proof("zone-loss", "zone.a", INTERVIEWS);
    assert_eq!(verdict, Verdict::Refuted);
    assert!(
        derivation.contains(
            &"without zone `a`, 3 nodes with 24 CPU and 96 GiB are left; 23.73 CPU and 85.02 GiB can be requested"
                .to_owned()
        ),
        "{derivation:#?}"
    );
    assert!(derivation.contains(&"everything at its fewest copies requests 32 CPU and 128 GiB".to_owned()));
    // One member on each node: five of eight have a place, with all zones there.
    assert!(derivation.iter().any(|line| {
        line.starts_with("with all zones there, store.profiles: 3 copies of 4 CPU and 16 GiB find no node with room")
    }));
}

#[test]
fn members_without_a_place_leave_a_majority_undecided() {
    let (verdict, derivation) = proof("zone-loss", "store.profiles", INTERVIEWS);
    assert_eq!(verdict, Verdict::Undecided);
    assert_eq!(derivation[0], "without zone `a`: 2 of 3 members are left, a majority (2 needed)");
    assert_eq!(derivation[3], "but 3 members of 3 have no place at all: see `capacity`");
}

#[test]
fn five_brokers_in_three_zones_keep_a_majority_and_two_replicas() {
    let (verdict, derivation) = proof("zone-loss", "store.events", INTERVIEWS);
    assert_eq!(verdict, Verdict::Proved);
    assert_eq!(
        derivation[0],
        "without zone `a`: 3 of 5 members are left, a majority (3 needed); each partition keeps 2 of 3 replicas, 2 must be in sync"
    );
}

#[test]
fn one_zone_cannot_be_lost() {
    let text = "
landfall: v1
name: shop
objectives: { recovery: { zone: { rto: 60s } } }
platform: { regions: { primary: { zones: [a] } }, nodes: { count: 3, cpu: 2, memory: 8Gi } }
services: { checkout: {} }
";
    let all = messages("zone-loss", text);
    assert_eq!(all, ["error: the loss of a zone is promised to be survived, but there is no other zone"]);
}

#[test]
fn a_member_alone_is_away_with_its_zone() {
    let text = "
landfall: v1
name: shop
platform: { regions: { primary: { zones: [a, b, c] } }, nodes: { count: 3, cpu: 2, memory: 8Gi } }
stores: { orders: { engine: postgres, size: 10Gi, resources: { cpu: 1, memory: 1Gi } } }
";
    let all = messages("zone-loss", text);
    assert_eq!(all, ["warning: `orders` stops when zone `a` is lost: its only member is lost"]);
}

#[test]
fn without_nodes_nothing_is_decided() {
    let text = "
landfall: v1
name: shop
platform: { regions: { primary: { zones: [a, b, c] } } }
services: { checkout: { replicas: 3 } }
";
    assert_eq!(proof("zone-loss", "zone.b", text).0, Verdict::Undecided);
}

#[test]
fn a_promise_on_zones_without_nodes_is_told() {
    let text = "
landfall: v1
name: shop
objectives: { recovery: { zone: { rto: 5m } } }
platform: { regions: { primary: { zones: [a, b, c] } } }
services: { checkout: { replicas: 3 } }
";
    assert_eq!(
        messages("zone-loss", text),
        ["warning: nobody can say whether the loss of a zone leaves room: no nodes are declared"]
    );
}

#[test]
fn without_another_zone_the_cause_is_told_and_not_each_consequence() {
    let text = "
landfall: v1
name: shop
objectives: { recovery: { zone: { rto: 5m, rpo: 0s } } }
platform: { regions: { primary: { zones: [a] } }, nodes: { count: 3, cpu: 2, memory: 8Gi } }
services: { checkout: { replicas: 3, uses: [{ write: orders }] } }
stores: { orders: { engine: mongodb, members: 3, size: 10Gi } }
";
    for rule in ["recovery-time", "recovery-point", "quorum"] {
        assert_eq!(messages(rule, text), [""; 0], "{rule}");
    }
    let refuted = [("recovery-time", "recovery.zone"), ("recovery-point", "recovery.zone"), ("quorum", "store.orders")];
    for (rule, subject) in refuted {
        assert_eq!(proof(rule, subject, text).0, Verdict::Refuted, "{rule}");
    }
}

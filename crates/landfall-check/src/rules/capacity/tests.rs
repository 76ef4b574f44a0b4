//! Capacity, on the two environments of an interview platform as its document writes them.

use crate::report::Verdict;
use crate::rules::testing::{messages, proof};

const DEVELOPMENT: &str = "
landfall: v1
name: interviews
platform: { nodes: { count: 3, cpu: 4, memory: 16Gi } }
stores:
  profiles: { engine: mongodb, members: 3, resources: { cpu: 2, memory: 8Gi } }
  events: { engine: kafka, members: 3, resources: { cpu: 2, memory: 8Gi } }
";

#[test]
fn all_that_is_bought_is_requested_and_half_of_the_pods_fit() {
    assert_eq!(messages("capacity", DEVELOPMENT), ["error: 3 pods of 6 fit nowhere: `store.profiles`"]);
    let (verdict, derivation) = proof("capacity", "platform.nodes", DEVELOPMENT);
    assert_eq!(verdict, Verdict::Refuted);
    assert_eq!(
        derivation[1],
        "requested: 12 CPU and 48 GiB, of 12 CPU and 48 GiB bought (100 % and 100 %), \
         of 11.76 CPU and 39.9 GiB that can be requested (102 % and 120 %)"
    );
}

#[test]
fn machines_of_their_own_take_the_stores_off_the_nodes() {
    let text = DEVELOPMENT.replace("members: 3,", "members: 3, own-machines: true,");
    assert_eq!(messages("capacity", &text), [""; 0]);
}

#[test]
fn one_node_lost_leaves_nothing() {
    let text = "
landfall: v1
name: interviews
platform: { nodes: { count: 5, cpu: 8, memory: 32Gi } }
services: { interviews: { replicas: 32, resources: { cpu: 1, memory: 3Gi } } }
";
    let (_, derivation) = proof("capacity", "platform.nodes", text);
    assert!(
        derivation.contains(
            &"without one node, 32 CPU and 128 GiB are left, of which 0 CPU and 32 GiB is not requested; 31.64 CPU and 113.36 GiB can be requested".to_owned()
        ),
        "{derivation:#?}"
    );
    assert_eq!(
        messages("capacity", text),
        ["warning: losing one node leaves too little room: 32 CPU and 96 GiB is requested of 31.64 CPU and 113.36 GiB"]
    );
}

#[test]
fn what_requests_nothing_leaves_it_open() {
    let text = "
landfall: v1
name: shop
platform: { nodes: { count: 2, cpu: 2, memory: 8Gi } }
services: { checkout: { replicas: 2 } }
";
    let (verdict, derivation) = proof("capacity", "platform.nodes", text);
    assert_eq!(verdict, Verdict::Undecided);
    assert!(derivation.contains(&"not counted, because they request nothing: `service.checkout`".to_owned()));
}

#[test]
fn a_pod_that_no_node_can_hold_is_named() {
    let text = "
landfall: v1
name: shop
platform: { nodes: { count: 2, cpu: 2, memory: 8Gi } }
services: { checkout: { replicas: 2, resources: { cpu: 4, memory: 1Gi } } }
";
    let found = crate::rules::testing::report("capacity", text).findings;
    let help = found[0].help.as_deref();
    assert_eq!(help, Some("no node is large enough for service.checkout: take larger nodes, or request less"));
}

#[test]
fn the_most_copies_may_not_fit() {
    let text = "
landfall: v1
name: shop
platform: { nodes: { count: 3, cpu: 2, memory: 8Gi } }
services: { checkout: { replicas: { min: 2, max: 10, cpu: 50% }, resources: { cpu: 900m, memory: 256Mi } } }
";
    assert_eq!(
        messages("capacity", text),
        ["warning: service.checkout can grow to 6 copies only, not 10, when all are at their most"]
    );
}

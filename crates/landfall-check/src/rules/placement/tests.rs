//! The packing, on small clusters with exact numbers.

use super::{Amount, Obstacle, Placement, Unplaced};
use crate::rules::testing::architecture;

const GIB: u64 = 1 << 30;

/// Three zones with two nodes each, 1 CPU and 4 GiB of each node usable.
const NODES: &str = "
landfall: v1
name: shop
platform:
  regions: { primary: { zones: [a, b, c] } }
  nodes: { count: 6, cpu: 1, memory: 4196Mi, reserved: { cpu: 0, memory: 0 } }
";

fn with<T>(text: &str, ask: impl FnOnce(&Placement<'_>) -> T) -> T {
    let text = if text.contains("platform:") { text.to_owned() } else { format!("{NODES}{text}") };
    let architecture = architecture(&text);
    let objects: Vec<_> = architecture.document.objects.iter().map(|object| object.value.clone()).collect();
    ask(&Placement::new(&architecture, &objects).expect("there are nodes"))
}

/// The copies of the first group by zone, and what is not placed.
fn first_group(text: &str) -> (Vec<u32>, Vec<Unplaced>) {
    with(text, |placement| {
        let (packing, unplaced) = placement.at_floors();
        (packing.by_zone(0), unplaced)
    })
}

#[test]
fn nodes_are_dealt_out_to_zones_and_the_first_zones_get_the_rest() {
    let text = "
landfall: v1
name: interviews
platform:
  regions: { primary: { zones: [a, b, c] } }
  nodes: { count: 5, cpu: 8, memory: 32Gi }
";
    with(text, |placement| {
        assert_eq!(placement.nodes.count_by_zone(&placement.nodes.pools[0]), [2, 2, 1]);
        let (nodes, bought, room) = placement.nodes.left_without(Some(0));
        assert_eq!((nodes, bought), (3, Amount::new(24_000, 96 * GIB)));
        assert_eq!(room.cpu, 3 * 7_910);
        assert_eq!(placement.nodes.left_without(Some(2)).0, 4);
        assert_eq!(bought.to_string(), "24 CPU and 96 GiB");
    });
}

#[test]
fn copies_are_spread_over_zones_and_nodes() {
    let services = "services: { checkout: { replicas: 4, resources: { cpu: 250m, memory: 1Gi } } }";
    assert_eq!(first_group(services), (vec![2, 1, 1], vec![]));
}

#[test]
fn copies_that_nothing_keeps_apart_fill_one_node_first() {
    let services = "
services:
  checkout: { replicas: 4, resources: { cpu: 250m, memory: 1Gi }, placement: { zones: none, nodes: none } }";
    assert_eq!(first_group(services).0, [4, 0, 0]);
}

#[test]
fn more_copies_than_nodes_do_not_keep_apart() {
    let services = "
services:
  checkout: { replicas: 7, resources: { cpu: 100m, memory: 64Mi }, placement: { nodes: required } }";
    assert_eq!(first_group(services), (vec![2, 2, 2], vec![Unplaced { group: 0, copies: 1, why: Obstacle::Nodes }]));
}

#[test]
fn what_is_larger_is_placed_first() {
    // The small ones would leave no node for the large one.
    let services = "
services:
  a-small: { replicas: 6, resources: { cpu: 500m, memory: 64Mi } }
  b-large: { replicas: 3, resources: { cpu: 1, memory: 64Mi } }";
    with(services, |placement| {
        let (packing, unplaced) = placement.at_floors();
        assert_eq!((packing.copies(0), packing.copies(1), unplaced), (6, 3, vec![]));
    });
}

#[test]
fn what_is_more_important_is_placed_before_what_is_larger() {
    let services = "
services:
  a-large: { replicas: 6, resources: { cpu: 1, memory: 64Mi } }
  b-small: { replicas: 1, resources: { cpu: 100m, memory: 64Mi }, priority: 1000 }";
    with(services, |placement| {
        let most_free = Amount::new(900, 4 * GIB - (64 << 20));
        let missing = Unplaced { group: 0, copies: 1, why: Obstacle::Room { most_free } };
        assert_eq!(placement.at_floors().1, [missing]);
    });
}

#[test]
fn a_dedicated_pool_takes_only_those_that_ask_for_it() {
    let text = "
landfall: v1
name: shop
platform:
  pools:
    data: { count: 1, cpu: 4, memory: 16Gi, dedicated: true }
    general: { count: 1, cpu: 1, memory: 4Gi }
services:
  checkout: { replicas: 1, resources: { cpu: 2, memory: 1Gi } }
stores:
  orders: { engine: postgres, resources: { cpu: 2, memory: 1Gi }, placement: { pool: data } }
";
    with(text, |placement| {
        let (packing, unplaced) = placement.at_floors();
        assert_eq!((packing.copies(0), packing.copies(1), unplaced.len()), (0, 1, 1));
    });
}

#[test]
fn members_wait_for_their_volumes_and_services_move() {
    let text = "
services: { checkout: { replicas: 3, resources: { cpu: 100m, memory: 64Mi } } }
stores: { orders: { engine: postgres, members: 3, size: 1Gi, resources: { cpu: 100m, memory: 64Mi } } }";
    with(text, |placement| {
        let loss = placement.at_floors().0.lose_zone(&placement.nodes, 1);
        assert_eq!((loss.lost, loss.pinned, loss.unplaced), (vec![1, 1], vec![0, 1], vec![]));
    });
}

#[test]
fn a_volume_that_can_leave_its_zone_moves() {
    let text = "
landfall: v1
name: shop
platform:
  regions: { primary: { zones: [a, b] } }
  nodes: { count: 2, cpu: 2, memory: 8Gi }
  storage: { zonal: false }
stores: { orders: { engine: postgres, members: 2, size: 1Gi, resources: { cpu: 1500m, memory: 1Gi } } }
";
    with(text, |placement| {
        let loss = placement.at_floors().0.lose_zone(&placement.nodes, 0);
        assert_eq!(loss.pinned, [0]);
        assert_eq!(loss.unplaced.len(), 1, "the other node has no room for a second member");
    });
}

#[test]
fn a_required_spread_counts_the_lost_zone_unless_it_honours_taints() {
    let services = "
services: { checkout: { replicas: 3, resources: { cpu: 100m, memory: 64Mi }, placement: { zones: required } } }";
    let honours = "
objects:
  - apiVersion: apps/v1
    kind: Deployment
    metadata: { name: checkout }
    spec:
      template:
        spec:
          topologySpreadConstraints:
            - { topologyKey: topology.kubernetes.io/zone, nodeTaintsPolicy: Honor }";
    let unplaced = |text: &str| with(text, |placement| placement.at_floors().0.lose_zone(&placement.nodes, 0).unplaced);
    assert_eq!(unplaced(services), [Unplaced { group: 0, copies: 1, why: Obstacle::Zones }]);
    assert_eq!(unplaced(&format!("{services}{honours}")), []);
}

#[test]
fn a_sidecar_is_added_to_each_pod() {
    let text = "
landfall: v1
name: shop
platform:
  nodes: { count: 1, cpu: 2, memory: 8Gi }
  mesh: { kind: istio }
services: { checkout: { replicas: 2, resources: { cpu: 400m, memory: 512Mi } } }
";
    with(text, |placement| {
        assert_eq!(placement.pods.total(|group| group.floor), Amount::new(1_000, 2 * (640 << 20)));
    });
}

#[test]
fn taking_copies_back_frees_their_room() {
    let services = "services: { checkout: { replicas: 3, resources: { cpu: 1, memory: 64Mi } } }";
    with(services, |placement| {
        let (mut packing, _) = placement.at_floors();
        assert_eq!(packing.add(0, 3), None);
        assert!(packing.add(0, 1).is_some());
        packing.take_back(0, 3);
        assert_eq!(packing.add(0, 3), None);
    });
}

#[test]
fn more_copies_than_any_cluster_has_are_refused_at_once() {
    let services = "services: { checkout: { replicas: 4000000000, resources: { cpu: 1, memory: 64Mi } } }";
    assert_eq!(first_group(services).0, [2, 2, 2]);
}

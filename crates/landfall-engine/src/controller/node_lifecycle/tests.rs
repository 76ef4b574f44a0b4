//! Silence, zones and patience.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Taint, Toleration};
use serde_json::json;
use tokio::time::Instant;

use super::eviction::{Patience, patience};
use super::monitor::{Monitor, Step, condition_taints};
use super::{NOT_READY, Timing, UNREACHABLE};

fn node(name: &str, zone: &str, heartbeat: i64, tainted: bool) -> Arc<Node> {
    let time = jiff::Timestamp::from_second(heartbeat).expect("a time");
    let taints = if tainted { json!([{ "key": UNREACHABLE, "effect": "NoExecute" }]) } else { json!([]) };
    let node = json!({
        "metadata": { "name": name, "labels": { "topology.kubernetes.io/zone": zone } },
        "spec": { "taints": taints },
        "status": { "conditions": [{ "type": "Ready", "status": "True", "lastHeartbeatTime": time }] },
    });
    Arc::new(serde_json::from_value(node).expect("a node"))
}

fn told(steps: &[Step]) -> Vec<String> {
    let name = |node: &Node| node.metadata.name.clone().unwrap_or_default();
    let tell = |step: &Step| match step {
        Step::Registered(_) => None,
        Step::Silent(node) => Some(format!("{} silent", name(node))),
        Step::PodsNotReady(node) => Some(format!("{} pods", name(node))),
        Step::Taint { node, key } => Some(format!("{} {key}", name(node))),
        Step::Untaint(node) => Some(format!("{} stay", name(node))),
    };
    steps.iter().filter_map(tell).collect()
}

/// Nodes of a zone `silent`, of which the others go on; what happens `after` so many seconds.
fn check(silent: &[(&str, &str)], alive: &[(&str, &str)], after: &[(u64, &[&str])]) {
    let start = Instant::now();
    let mut monitor = Monitor::new(Timing::DEFAULT);
    let look = |monitor: &mut Monitor, seconds: u64| {
        let beat = i64::try_from(seconds).expect("a small number");
        let silent = silent.iter().map(|(name, zone)| node(name, zone, 0, false));
        let nodes: Vec<_> = silent.chain(alive.iter().map(|(name, zone)| node(name, zone, beat, false))).collect();
        told(&monitor.look(start + Duration::from_secs(seconds), &nodes, |_| None))
    };
    assert_eq!(look(&mut monitor, 0), Vec::<String>::new());
    for (seconds, expected) in after {
        assert_eq!(look(&mut monitor, *seconds), *expected, "after {seconds} s");
    }
}

#[test]
fn a_silent_node_is_given_up_after_its_grace() {
    check(
        &[("a", "x")],
        &[("b", "x")],
        &[(50, &[]), (51, &["a silent", "a pods", "a node.kubernetes.io/unreachable"])],
    );
}

#[test]
fn nodes_of_a_zone_are_given_up_one_by_one() {
    let silent = ["a silent", "a pods", "b silent", "b pods"];
    let first: Vec<&str> = silent.into_iter().chain(["a node.kubernetes.io/unreachable"]).collect();
    // The test never writes the taint, so that the first in line stays the first.
    check(&[("a", "x"), ("b", "x")], &[("c", "x")], &[(51, &first), (60, &silent), (61, &first)]);
}

#[test]
fn nobody_is_given_up_when_most_of_a_zone_is_silent_or_when_everybody_is() {
    let zone = [("a", "x"), ("b", "x"), ("c", "x")];
    let silent = ["a silent", "a pods", "b silent", "b pods", "c silent", "c pods"];
    check(&zone, &[("d", "x"), ("e", "x")], &[(51, &silent)]);
    check(&zone, &[], &[(51, &silent)]);
}

#[test]
fn a_zone_that_is_gone_is_given_up_when_another_answers() {
    check(&[("a", "x")], &[("b", "y")], &[(51, &["a silent", "a pods", "a node.kubernetes.io/unreachable"])]);
}

#[test]
fn a_node_that_is_back_keeps_its_pods() {
    let mut monitor = Monitor::new(Timing::DEFAULT);
    let nodes = [node("a", "x", 0, true), node("b", "x", 0, false)];
    assert_eq!(told(&monitor.look(Instant::now(), &nodes, |_| None)), ["a stay"]);
}

#[test]
fn a_renewed_lease_is_a_sign_of_life() {
    let start = Instant::now();
    let mut monitor = Monitor::new(Timing::DEFAULT);
    let nodes = [node("a", "x", 0, false)];
    let renewed = |second| move |_: &str| jiff::Timestamp::from_second(second).ok();
    monitor.look(start, &nodes, renewed(0));
    monitor.look(start + Duration::from_secs(40), &nodes, renewed(40));
    assert_eq!(told(&monitor.look(start + Duration::from_secs(80), &nodes, renewed(40))), Vec::<String>::new());
    assert_eq!(told(&monitor.look(start + Duration::from_secs(91), &nodes, renewed(40))), ["a silent", "a pods"]);
}

#[test]
fn cordoning_and_pressure_keep_new_pods_away() {
    let node = json!({
        "metadata": { "name": "a" }, "spec": { "unschedulable": true },
        "status": { "conditions": [
            { "type": "Ready", "status": "False" }, { "type": "MemoryPressure", "status": "True" },
        ] },
    });
    let node: Node = serde_json::from_value(node).expect("a node");
    let expected = [NOT_READY, "node.kubernetes.io/memory-pressure", "node.kubernetes.io/unschedulable"];
    assert_eq!(condition_taints(&node), expected);
}

#[test]
fn a_pod_stays_as_long_as_its_shortest_toleration() {
    let taint = |key: &str, effect: &str| Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() };
    let toleration = |key: &str, seconds: Option<i64>| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        toleration_seconds: seconds,
        ..Toleration::default()
    };
    let both = [taint("a", "NoExecute"), taint("b", "NoExecute"), taint("c", "NoSchedule")];
    let seconds = |seconds| Patience::Limited(Duration::from_secs(seconds));
    assert_eq!(patience(&both, &[toleration("a", Some(300)), toleration("b", Some(20))]), seconds(20));
    assert_eq!(patience(&both, &[toleration("a", Some(300)), toleration("b", None)]), seconds(300));
    assert_eq!(patience(&both, &[toleration("a", Some(300))]), seconds(0));
    assert_eq!(patience(&both[2..], &[]), Patience::Unlimited);
    assert_eq!(patience(&both, &[toleration("a", Some(-5)), toleration("b", None)]), seconds(0));
}

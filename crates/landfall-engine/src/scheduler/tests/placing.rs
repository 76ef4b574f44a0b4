//! Placing as a function.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::scheduler::cluster::ClusterView;
use crate::scheduler::filter::Candidate;
use crate::scheduler::pod::PodInfo;
use crate::scheduler::volumes::VolumeDemand;
use crate::scheduler::{place, preemption};

pub(super) fn node(name: &str, zone: &str, cpu: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": {
            "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone,
        } },
        "status": { "allocatable": { "cpu": cpu, "memory": "8Gi", "pods": "10" } },
    })
}

pub(super) fn pod(name: &str, app: &str, spec: Value) -> Value {
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "default", "uid": name, "labels": { "app": app } },
        "spec": { "containers": [{ "name": "main", "image": "main" }] },
    });
    let Value::Object(spec) = spec else { panic!("no spec: {spec}") };
    for (key, value) in spec {
        pod["spec"][key] = value;
    }
    pod
}

fn requesting(cpu: &str) -> Value {
    json!([{ "name": "main", "image": "main", "resources": { "requests": { "cpu": cpu } } }])
}

fn info(pod: &Value) -> Arc<PodInfo> {
    let pod: Pod = serde_json::from_value(pod.clone()).expect("a pod");
    Arc::new(PodInfo::read(&Arc::new(pod)))
}

fn cluster(nodes: &[Value], placed: &[(Value, &str)]) -> ClusterView {
    let mut view = ClusterView::default();
    for node in nodes {
        let node: Node = serde_json::from_value(node.clone()).expect("a node");
        view.set_node(&Arc::new(node));
    }
    for (pod, node) in placed {
        view.place(info(pod), node);
    }
    view
}

/// Where the pod goes, or the message, with what preemption says.
fn check(view: &mut ClusterView, pod: &Value, expected: &str) {
    let info = info(pod);
    let volumes = VolumeDemand::default();
    let candidate = Candidate { pod: &info, volumes: &volumes };
    let found = match place::place(&candidate, view) {
        Ok(node) => node,
        Err(unschedulable) => match preemption::preempt(&candidate, &unschedulable, view, &[]) {
            Ok(eviction) => {
                let victims: Vec<_> = eviction.victims.iter().map(|victim| victim.key.name.to_string()).collect();
                format!("{} without {}", eviction.node, victims.join(", "))
            }
            Err(reason) => format!("{} preemption: {reason}", unschedulable.message()),
        },
    };
    assert_eq!(found, expected);
}

#[test]
fn pods_that_are_alike_share_their_class() {
    let mut view = ClusterView::default();
    let [one, two, other] = [("one", "web"), ("two", "web"), ("three", "db")].map(|(name, app)| {
        let pod: Pod = serde_json::from_value(pod(name, app, json!({}))).expect("a pod");
        view.read(&Arc::new(pod))
    });
    assert!(Arc::ptr_eq(&one.class, &two.class));
    assert!(!Arc::ptr_eq(&one.class, &other.class));
}

#[test]
fn a_pod_goes_where_most_is_free() {
    let nodes = [node("a", "x", "4"), node("b", "x", "4")];
    let busy = pod("busy", "busy", json!({ "containers": requesting("2") }));
    check(&mut cluster(&nodes, &[(busy, "a")]), &pod("new", "new", json!({ "containers": requesting("1") })), "b");
}

#[test]
fn each_node_says_by_its_first_refusing_rule_why_it_cannot() {
    let mut tainted = node("c", "x", "4");
    tainted["spec"] = json!({ "taints": [{ "key": "dedicated", "value": "db", "effect": "NoSchedule" }] });
    let mut cordoned = node("d", "x", "4");
    cordoned["spec"] = json!({ "unschedulable": true });
    let nodes = [node("a", "x", "1"), node("b", "x", "1"), tainted, cordoned];
    check(
        &mut cluster(&nodes, &[]),
        &pod("new", "new", json!({ "containers": requesting("2") })),
        "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient cpu. \
         preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling.",
    );
}

#[test]
fn a_full_node_could_be_helped_but_nobody_is_less_important() {
    let busy = pod("busy", "busy", json!({ "containers": requesting("3") }));
    check(
        &mut cluster(&[node("a", "x", "4")], &[(busy, "a")]),
        &pod("new", "new", json!({ "containers": requesting("2") })),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found \
         for incoming pod.",
    );
}

#[test]
fn the_least_important_pods_make_room_and_no_more_than_needed() {
    let with = |name: &str, cpu: &str, priority: i32| {
        pod(name, name, json!({ "containers": requesting(cpu), "priority": priority }))
    };
    let nodes = [node("a", "x", "4"), node("b", "x", "4")];
    let placed =
        [(with("a1", "2", 5), "a"), (with("a2", "2", 1), "a"), (with("b1", "2", 5), "b"), (with("b2", "2", 3), "b")];
    check(&mut cluster(&nodes, &placed), &with("new", "2", 10), "a without a2");
    check(&mut cluster(&nodes, &placed), &with("new", "4", 10), "a without a1, a2");
    check(
        &mut cluster(&nodes, &placed),
        &with("new", "2", 1),
        "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims \
         found for incoming pod.",
    );
}

#[test]
fn asking_what_preemption_would_do_changes_nothing() {
    let placed = [(pod("low", "low", json!({ "containers": requesting("4"), "priority": 1 })), "a")];
    let mut view = cluster(&[node("a", "x", "4")], &placed);
    let before = format!("{view:?}").len();
    check(&mut view, &pod("new", "new", json!({ "containers": requesting("4"), "priority": 2 })), "a without low");
    assert_eq!(format!("{view:?}").len(), before);
}

#[test]
fn pods_that_must_not_meet_stay_apart_in_both_directions() {
    let apart = json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
        { "labelSelector": { "matchLabels": { "app": "db" } }, "topologyKey": "topology.kubernetes.io/zone" },
    ] } } });
    let nodes = [node("a", "x", "4"), node("b", "x", "4")];
    let lone = pod("lone", "lone", apart.clone());
    check(
        &mut cluster(&nodes, &[(lone.clone(), "a")]),
        &pod("new", "db", json!({})),
        "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules. preemption: 0/2 nodes are \
         available: 2 No preemption victims found for incoming pod.",
    );
    check(
        &mut cluster(&nodes, &[(pod("db", "db", json!({})), "a")]),
        &lone,
        "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules. preemption: 0/2 nodes are available: 2 \
         No preemption victims found for incoming pod.",
    );
}

#[test]
fn the_first_of_a_group_that_wants_to_be_together_may_go_anywhere() {
    let together = |name: &str| {
        pod(
            name,
            "group",
            json!({ "affinity": { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
            { "labelSelector": { "matchLabels": { "app": "group" } }, "topologyKey": "kubernetes.io/hostname" },
        ] } } }),
        )
    };
    let nodes = [node("a", "x", "4"), node("b", "x", "4")];
    check(&mut cluster(&nodes, &[]), &together("first"), "a");
    check(&mut cluster(&nodes, &[(together("first"), "b")]), &together("second"), "b");
}

#[test]
fn a_spread_counts_domains_and_waits_for_those_that_are_missing() {
    let spread = |name: &str, min: Option<i32>| {
        pod(
            name,
            "web",
            json!({ "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": { "matchLabels": { "app": "web" } }, "minDomains": min,
        }] }),
        )
    };
    let nodes = [node("a", "x", "4"), node("b", "y", "4")];
    check(&mut cluster(&nodes, &[(spread("one", None), "a")]), &spread("two", None), "b");
    let both = [(spread("one", None), "a"), (spread("two", None), "b")];
    check(&mut cluster(&nodes, &both), &spread("three", None), "a");
    check(
        &mut cluster(&nodes, &both),
        &spread("three", Some(3)),
        "0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints. preemption: 0/2 nodes are \
         available: 2 No preemption victims found for incoming pod.",
    );
}

#[test]
fn a_pod_of_a_daemon_set_is_asked_of_its_own_node_only() {
    let named = json!({ "containers": requesting("9"), "affinity": { "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [{ "matchFields": [
            { "key": "metadata.name", "operator": "In", "values": ["b"] },
        ] }] },
    } } });
    check(
        &mut cluster(&[node("a", "x", "4"), node("b", "x", "4")], &[]),
        &pod("agent", "agent", named),
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't satisfy plugin(s) [NodeAffinity]. preemption: 0/2 \
         nodes are available: 2 Preemption is not helpful for scheduling.",
    );
}

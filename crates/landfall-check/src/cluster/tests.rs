//! The analysis from its outside: objects in, connections and problems out.

mod policies;
mod problems;
mod properties;
mod references;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

/// A deployment whose pods have these labels and ports.
fn deployment(namespace: &str, name: &str, labels: &Value, ports: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": namespace },
        "spec": { "template": {
            "metadata": { "labels": labels },
            "spec": { "containers": [{ "name": "main", "ports": ports }] },
        } },
    })
}

/// A namespace whose `team` is its own name.
fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": { "team": name } } })
}

/// A policy in the namespace `shop`.
fn policy(name: &str, spec: &Value) -> Value {
    policy_in("shop", name, spec)
}

fn policy_in(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": name, "namespace": namespace }, "spec": spec,
    })
}

/// Three workloads in the namespace `shop`, and `probe` in `ops`, which has the label that `web` has.
fn world() -> Vec<Value> {
    vec![
        namespace("shop"),
        namespace("ops"),
        deployment("shop", "web", &json!({ "app": "web" }), &json!([{ "name": "http", "containerPort": 8080 }])),
        deployment(
            "shop",
            "api",
            &json!({ "app": "api", "tier": "back" }),
            &json!([
                { "name": "http", "containerPort": 9090 },
                { "name": "stats", "containerPort": 9125, "protocol": "UDP" },
            ]),
        ),
        deployment(
            "shop",
            "db",
            &json!({ "app": "db", "tier": "back" }),
            &json!([{ "name": "sql", "containerPort": 5432 }]),
        ),
        deployment(
            "ops",
            "probe",
            &json!({ "app": "web", "role": "probe" }),
            &json!([{ "name": "http", "containerPort": 80 }]),
        ),
    ]
}

fn cluster(policies: &[Value], surroundings: Surroundings) -> Cluster {
    let objects: Vec<Value> = world().into_iter().chain(policies.iter().cloned()).collect();
    Cluster::new(&objects, surroundings)
}

fn named(cluster: &Cluster, name: &str) -> WorkloadId {
    cluster.workloads().find(|(_, workload)| workload.key.name == name).expect("a workload of the test").0
}

/// Every pair that single questions allow, between workloads that are not both strangers.
fn pairs_one_by_one(cluster: &Cluster) -> BTreeSet<(WorkloadId, WorkloadId, Port)> {
    let mut pairs = BTreeSet::new();
    for (from, source) in cluster.workloads() {
        for (to, destination) in cluster.workloads() {
            if source.origin == Origin::Stranger && destination.origin == Origin::Stranger {
                continue;
            }
            for port in destination.ports.iter().map(|port| port.port) {
                if cluster.reaches(Endpoint::Workload(from), Endpoint::Workload(to), port).is_allowed() {
                    pairs.insert((from, to, port));
                }
            }
        }
    }
    pairs
}

/// Asserts that the relation and single questions agree, for pods and for addresses outside.
#[track_caller]
fn assert_consistent(cluster: &Cluster) {
    let relation = cluster.relation();
    let pairs = pairs_one_by_one(cluster);
    assert_eq!(relation.pairs(), pairs);
    for (to, workload) in cluster.workloads() {
        for port in workload.ports.iter().map(|port| port.port) {
            for (from, _) in cluster.workloads() {
                assert_eq!(relation.contains(from, to, port), pairs.contains(&(from, to, port)));
            }
            let from_outside = Connection { from: Source::Outside, to, port };
            let allowed = cluster.reaches(Endpoint::Outside, Endpoint::Workload(to), port).is_allowed();
            let told = allowed && workload.origin != Origin::Stranger;
            assert_eq!(relation.connections.contains(&from_outside), told);
        }
    }
}

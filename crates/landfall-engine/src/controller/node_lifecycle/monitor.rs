//! What the silence of nodes means, for each and for its zone. A function of what is seen and when.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{NOT_READY, Timing, UNREACHABLE};
use crate::scheduler::matching;

/// A zone is disrupted when this share of its nodes is silent, in percent (`--unhealthy-zone-threshold`, 0.55), and more
/// than two nodes are.
const DISRUPTED_PERCENT: usize = 55;

/// A disrupted zone with no more nodes than this is left alone (`--large-cluster-size-threshold`).
const LARGE_ZONE: usize = 50;

/// The taints that follow from conditions and from cordoning.
pub(super) const CONDITION_TAINTS: [&str; 7] = [
    NOT_READY,
    UNREACHABLE,
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/network-unavailable",
    "node.kubernetes.io/unschedulable",
];

/// What is to be done about a node.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Registered(Arc<Node>),
    /// Its conditions become unknown.
    Silent(Arc<Node>),
    /// Its pods are not ready any more.
    PodsNotReady(Arc<Node>),
    /// Its pods are to leave, each as soon as it tolerates no longer.
    Taint {
        node: Arc<Node>,
        key: &'static str,
    },
    /// Its pods may stay.
    Untaint(Arc<Node>),
}

/// When a node was last heard of, by this machine's clock: those of the nodes are not compared.
#[derive(Debug, Clone)]
struct Health {
    heard: Instant,
    heartbeat: Option<Timestamp>,
    renewed: Option<Timestamp>,
    was_ready: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ZoneState {
    Normal,
    /// Most of its nodes are silent.
    Disrupted,
    /// All of its nodes are silent.
    Gone,
}

#[derive(Debug)]
pub(super) struct Monitor {
    timing: Timing,
    health: HashMap<String, Health>,
    /// When the next node of a zone may be given up.
    next: BTreeMap<String, Instant>,
    all_gone: bool,
}

impl Monitor {
    pub(super) fn new(timing: Timing) -> Self {
        Self { timing, health: HashMap::new(), next: BTreeMap::new(), all_gone: false }
    }

    /// Looks at all nodes. `renewed` says when a node renewed its lease.
    pub(super) fn look(
        &mut self,
        now: Instant,
        nodes: &[Arc<Node>],
        renewed: impl Fn(&str) -> Option<Timestamp>,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        self.health.retain(|name, _| nodes.iter().any(|node| node.metadata.name.as_ref() == Some(name)));
        let mut zones: BTreeMap<String, Vec<(Arc<Node>, &'static str)>> = BTreeMap::new();
        for node in nodes {
            let status = self.look_at(now, node, renewed(&node.name_any()), &mut steps);
            if !node.labels().contains_key("node.kubernetes.io/exclude-disruption") {
                zones.entry(zone(node)).or_default().push((Arc::clone(node), status));
            }
        }
        self.look_at_zones(now, &zones, nodes, &mut steps);
        steps
    }

    /// The status of the node's readiness from now on: `True`, `False` or `Unknown`.
    fn look_at(
        &mut self,
        now: Instant,
        node: &Arc<Node>,
        renewed: Option<Timestamp>,
        steps: &mut Vec<Step>,
    ) -> &'static str {
        let name = node.name_any();
        let ready = condition(node, "Ready");
        let heartbeat = ready.and_then(|ready| ready.last_heartbeat_time.as_ref()).map(|time| time.0);
        let status = match ready.map(|ready| ready.status.as_str()) {
            Some("True") => "True",
            Some("False") => "False",
            _ => "Unknown",
        };
        let health = self.health.entry(name).or_insert_with(|| {
            steps.push(Step::Registered(Arc::clone(node)));
            Health { heard: now, heartbeat, renewed, was_ready: false }
        });
        if heartbeat != health.heartbeat || renewed > health.renewed {
            health.heard = now;
            (health.heartbeat, health.renewed) = (heartbeat, renewed);
        }
        let grace = if ready.is_some() { self.timing.grace } else { self.timing.startup_grace };
        let silent = now.duration_since(health.heard) > grace;
        let was_ready = std::mem::replace(&mut health.was_ready, status == "True" && !silent);
        if !silent {
            return status;
        }
        if ready.is_none() || status != "Unknown" {
            steps.push(Step::Silent(Arc::clone(node)));
        }
        if status == "True" || was_ready {
            steps.push(Step::PodsNotReady(Arc::clone(node)));
        }
        "Unknown"
    }

    fn look_at_zones(
        &mut self,
        now: Instant,
        zones: &BTreeMap<String, Vec<(Arc<Node>, &'static str)>>,
        nodes: &[Arc<Node>],
        steps: &mut Vec<Step>,
    ) {
        let states: BTreeMap<&String, ZoneState> = zones.iter().map(|(zone, nodes)| (zone, state(nodes))).collect();
        let all_gone = !states.is_empty() && states.values().all(|state| *state == ZoneState::Gone);
        let was_gone = std::mem::replace(&mut self.all_gone, all_gone);
        if all_gone {
            // When nobody answers, the fault is likely to be here: no pod is driven away.
            let tainted = nodes.iter().filter(|node| taint_of(node).is_some());
            steps.extend(tainted.map(|node| Step::Untaint(Arc::clone(node))));
            return;
        }
        if was_gone {
            // Others may still be on their way back: their time starts anew.
            for health in self.health.values_mut() {
                health.heard = now;
            }
            self.next.clear();
        }
        for (zone, nodes) in zones {
            let between = match states[zone] {
                ZoneState::Disrupted if nodes.len() > LARGE_ZONE => Some(self.timing.between_nodes_of_disrupted_zone),
                ZoneState::Disrupted => None,
                ZoneState::Normal | ZoneState::Gone => Some(self.timing.between_nodes),
            };
            for (node, status) in nodes {
                let wanted = match *status {
                    "True" => None,
                    "False" => Some(NOT_READY),
                    _ => Some(UNREACHABLE),
                };
                match (taint_of(node), wanted) {
                    (Some(_), None) => steps.push(Step::Untaint(Arc::clone(node))),
                    (Some(present), Some(key)) if present != key => {
                        steps.push(Step::Taint { node: Arc::clone(node), key });
                    }
                    (None, Some(key)) => {
                        let due = self.next.get(zone).is_none_or(|next| *next <= now);
                        if let Some(between) = between.filter(|_| due) {
                            self.next.insert(zone.clone(), now + between);
                            steps.push(Step::Taint { node: Arc::clone(node), key });
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

fn state(nodes: &[(Arc<Node>, &'static str)]) -> ZoneState {
    let silent = nodes.iter().filter(|(_, status)| *status != "True").count();
    if silent == nodes.len() {
        ZoneState::Gone
    } else if silent > 2 && silent * 100 >= nodes.len() * DISRUPTED_PERCENT {
        ZoneState::Disrupted
    } else {
        ZoneState::Normal
    }
}

fn zone(node: &Node) -> String {
    let label = |key: &str| node.labels().get(key).map_or("", String::as_str);
    format!("{}/{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

/// Which of the two taints that drive pods away a node has.
fn taint_of(node: &Node) -> Option<&'static str> {
    let has = |key: &str| matching::taints(node).iter().any(|taint| taint.effect == "NoExecute" && taint.key == key);
    [NOT_READY, UNREACHABLE].into_iter().find(|key| has(key))
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// What the conditions of a silent node become.
pub(super) fn unknown_conditions(node: &Node, now: &str) -> Vec<Value> {
    let kinds = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
    let unknown = kinds.into_iter().filter_map(|kind| match condition(node, kind) {
        None => Some(json!({
            "type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
            "message": "Kubelet never posted node status.",
            "lastHeartbeatTime": node.metadata.creation_timestamp, "lastTransitionTime": now,
        })),
        Some(condition) if condition.status != "Unknown" => Some(json!({
            "type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.", "lastTransitionTime": now,
        })),
        Some(_) => None,
    });
    unknown.collect()
}

/// The `NoSchedule` taints that a node's conditions ask for.
pub(super) fn condition_taints(node: &Node) -> Vec<&'static str> {
    let is = |kind: &str, status: &str| condition(node, kind).is_some_and(|condition| condition.status == status);
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let asked = [
        is("Ready", "False"),
        is("Ready", "Unknown"),
        is("MemoryPressure", "True"),
        is("DiskPressure", "True"),
        is("PIDPressure", "True"),
        is("NetworkUnavailable", "True"),
        cordoned,
    ];
    CONDITION_TAINTS.into_iter().zip(asked).filter_map(|(key, asked)| asked.then_some(key)).collect()
}

//! Which nodes a pod may run on, and Kubernetes' words for why it may not.
//!
//! A node is asked by one rule after the other, in Kubernetes' order; the first that refuses gives the reasons.

use k8s_openapi::api::core::v1::Taint;

use super::cluster::{ClusterView, NodeView};
use super::matching;
use super::pod::PodInfo;
use super::topology::Topology;
use super::volumes::VolumeDemand;

/// Why a node cannot take a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) reasons: Vec<String>,
    /// Fewer pods on the node could help.
    pub(crate) resolvable: bool,
}

impl Rejection {
    fn because(reason: &str) -> Self {
        Self { reasons: vec![reason.to_owned()], resolvable: true }
    }

    fn for_good(reason: &str) -> Self {
        Self { reasons: vec![reason.to_owned()], resolvable: false }
    }
}

/// A pod to be placed, with what the view of the cluster does not hold: its volumes.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) pod: &'a PodInfo,
    pub(crate) volumes: &'a VolumeDemand,
}

/// Whether `node` can take the pod, with the pods that room was made for counted as if they were there already.
///
/// Not handled: of those pods, only what they take of the node counts, not their affinities.
pub(crate) fn check(
    candidate: &Candidate<'_>,
    node: &NodeView,
    view: &ClusterView,
    topology: &Topology,
) -> Result<(), Rejection> {
    let Candidate { pod, volumes } = candidate;
    unschedulable(pod, node)?;
    taints(pod, node)?;
    node_affinity(pod, node)?;
    ports(pod, node, view)?;
    resources(pod, node, view)?;
    if volumes.in_use_elsewhere {
        return Err(Rejection::because(
            "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
        ));
    }
    volumes.check(&node.node).map_err(|reasons| Rejection { reasons, resolvable: false })?;
    topology.check_spread(pod, node)?;
    topology.check_affinity(pod, node)
}

fn unschedulable(pod: &PodInfo, node: &NodeView) -> Result<(), Rejection> {
    if node.node.spec.as_ref().and_then(|spec| spec.unschedulable) != Some(true) {
        return Ok(());
    }
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    if pod.tolerations.iter().any(|toleration| matching::tolerates(toleration, &taint)) {
        return Ok(());
    }
    Err(Rejection::for_good("node(s) were unschedulable"))
}

fn taints(pod: &PodInfo, node: &NodeView) -> Result<(), Rejection> {
    match matching::untolerated(matching::taints(&node.node), &pod.tolerations, &["NoSchedule", "NoExecute"]) {
        Some(_) => Err(Rejection::for_good("node(s) had untolerated taint(s)")),
        None => Ok(()),
    }
}

/// Whether the node is one that the pod's selector and required affinity name.
pub(crate) fn affinity_matches(pod: &PodInfo, node: &NodeView) -> bool {
    pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && pod.node_affinity.as_ref().is_none_or(|affinity| matching::node_matches(affinity, &node.node))
}

fn node_affinity(pod: &PodInfo, node: &NodeView) -> Result<(), Rejection> {
    if affinity_matches(pod, node) {
        return Ok(());
    }
    Err(Rejection::for_good("node(s) didn't match Pod's node affinity/selector"))
}

fn ports(pod: &PodInfo, node: &NodeView, view: &ClusterView) -> Result<(), Rejection> {
    if pod.host_ports.is_empty() {
        return Ok(());
    }
    let mut taken = node.pods.values().chain(rivals(pod, node, view)).flat_map(|other| &other.host_ports);
    if taken.any(|taken| pod.host_ports.iter().any(|wanted| wanted.conflicts_with(taken))) {
        return Err(Rejection::because("node(s) didn't have free ports for the requested pod ports"));
    }
    Ok(())
}

/// The pods that the node is kept for and that this pod must not push aside.
fn rivals<'a>(
    pod: &'a PodInfo,
    node: &NodeView,
    view: &'a ClusterView,
) -> impl Iterator<Item = &'a std::sync::Arc<PodInfo>> {
    view.nominated(node.name()).filter(move |other| other.key != pod.key && other.priority >= pod.priority)
}

fn resources(pod: &PodInfo, node: &NodeView, view: &ClusterView) -> Result<(), Rejection> {
    let mut reasons = Vec::new();
    let mut resolvable = true;
    let rivals: Vec<_> = rivals(pod, node, view).collect();
    let pods = i64::try_from(node.pods.len() + rivals.len()).unwrap_or(i64::MAX);
    if pods + 1 > node.allocatable.get("pods") {
        reasons.push("Too many pods".to_owned());
    }
    for (name, wanted) in pod.requests.iter().filter(|(_, wanted)| *wanted > 0) {
        let allocatable = node.allocatable.get(name);
        let kept: i64 = rivals.iter().map(|rival| rival.requests.get(name)).sum();
        if wanted > allocatable - node.requested.get(name) - kept {
            reasons.push(format!("Insufficient {name}"));
            resolvable &= wanted <= allocatable;
        }
    }
    if reasons.is_empty() { Ok(()) } else { Err(Rejection { reasons, resolvable }) }
}

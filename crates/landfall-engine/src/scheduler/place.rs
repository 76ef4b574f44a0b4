//! Where a pod goes, as a function of what is known.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::NodeSelectorTerm;

use super::cluster::{ClusterView, NodeView};
use super::filter::{self, Candidate, Rejection};
use super::pod::PodInfo;
use super::score;
use super::topology::Topology;

/// Why no node can take a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unschedulable {
    /// How many nodes there are.
    nodes: usize,
    /// What rules every node out at once.
    refusal: Option<String>,
    /// Why each node that was asked cannot.
    pub(crate) rejections: BTreeMap<String, Rejection>,
    /// Why the nodes that were not asked were not.
    unasked: &'static str,
}

impl Unschedulable {
    /// In Kubernetes' words, without what preemption has to say.
    pub(crate) fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        if let Some(refusal) = &self.refusal {
            return format!("0/{} nodes are available: {refusal}.", self.nodes);
        }
        histogram(self.nodes, self.rejections.values().flat_map(|r| r.reasons.iter().map(String::as_str)), {
            (self.nodes - self.rejections.len(), self.unasked)
        })
    }

    pub(crate) fn has_nodes(&self) -> bool {
        self.nodes > 0
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 Too many pods.`
pub(crate) fn histogram<'a>(nodes: usize, reasons: impl Iterator<Item = &'a str>, others: (usize, &'a str)) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    if others.0 > 0 {
        *counts.entry(others.1).or_default() += others.0;
    }
    let mut parts: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    let list = if parts.is_empty() { String::new() } else { format!(" {}.", parts.join(", ")) };
    format!("0/{nodes} nodes are available:{list}")
}

/// The best node for a pod.
///
/// Among equals the first by name wins, so that the same cluster places the same way; Kubernetes draws lots.
pub(crate) fn place(candidate: &Candidate<'_>, view: &ClusterView) -> Result<String, Unschedulable> {
    let nodes = feasible(candidate, view)?;
    if let [only] = nodes[..] {
        return Ok(only.name().to_owned());
    }
    // A node on which room was made is taken as soon as it can be.
    if let Some(nominated) = &candidate.pod.nominated
        && nodes.iter().any(|node| node.name() == nominated)
    {
        return Ok(nominated.clone());
    }
    let scores = score::score(candidate.pod, &nodes, view);
    let best = scores.iter().zip(&nodes).rev().max_by_key(|(score, _)| **score).expect("a feasible set is not empty");
    Ok(best.1.name().to_owned())
}

/// The nodes that can take a pod; never none.
pub(crate) fn feasible<'a>(
    candidate: &Candidate<'_>,
    view: &'a ClusterView,
) -> Result<Vec<&'a NodeView>, Unschedulable> {
    let mut unschedulable = Unschedulable {
        nodes: view.nodes().len(),
        unasked: "node(s) didn't satisfy plugin(s) [NodeAffinity]",
        ..Unschedulable::default()
    };
    let named = match named_nodes(candidate.pod) {
        Ok(named) => named,
        Err(refusal) => return Err(Unschedulable { refusal: Some(refusal), ..unschedulable }),
    };
    if let Some(refusal) = &candidate.volumes.refusal {
        return Err(Unschedulable { refusal: Some(refusal.clone()), ..unschedulable });
    }
    let topology = Topology::count(candidate.pod, view);
    let mut feasible = Vec::new();
    for node in view.nodes().filter(|node| named.as_ref().is_none_or(|named| named.contains(node.name()))) {
        match filter::check(candidate, node, view, &topology) {
            Ok(()) => feasible.push(node),
            Err(rejection) => {
                unschedulable.rejections.insert(node.name().to_owned(), rejection);
            }
        }
    }
    if feasible.is_empty() { Err(unschedulable) } else { Ok(feasible) }
}

/// The nodes that a pod's affinity names by name, when every term does: the pods of a `DaemonSet`, say.
fn named_nodes(pod: &PodInfo) -> Result<Option<BTreeSet<String>>, String> {
    let Some(affinity) = &pod.node_affinity else { return Ok(None) };
    let mut named = BTreeSet::new();
    for term in &affinity.node_selector_terms {
        match named_by(term) {
            None => return Ok(None),
            Some(nodes) => named.extend(nodes),
        }
    }
    if affinity.node_selector_terms.is_empty() {
        return Ok(None);
    }
    if named.is_empty() {
        return Err("pod affinity terms conflict".to_owned());
    }
    Ok(Some(named))
}

fn named_by(term: &NodeSelectorTerm) -> Option<BTreeSet<String>> {
    let fields = term.match_fields.iter().flatten();
    let names = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
    names
        .map(|field| field.values.iter().flatten().cloned().collect::<BTreeSet<_>>())
        .reduce(|a, b| a.intersection(&b).cloned().collect())
}

//! Rules that look beyond one node: topology spread, and affinity between pods.
//!
//! What they count is counted once for a pod to be placed, and then asked for each node.

use std::collections::HashMap;

use super::cluster::{ClusterView, NodeView};
use super::filter::{self, Rejection};
use super::matching::{self, Labels};
use super::pod::{AffinityTerm, PodInfo, Spread};

/// How many pods match, by the key and the value of a node's label.
type Counts = HashMap<(String, String), i64>;

#[derive(Debug)]
pub(crate) struct Topology {
    /// For each required constraint: the matching pods by domain, and the fewest in any.
    spread: Vec<(HashMap<String, i64>, i64)>,
    affinity: Counts,
    anti_affinity: Counts,
    /// Domains that pods already placed want to have without this one.
    existing_anti_affinity: Counts,
}

impl Topology {
    pub(crate) fn count(pod: &PodInfo, view: &ClusterView) -> Self {
        let mut topology = Self {
            spread: count_spread(pod, view),
            affinity: Counts::new(),
            anti_affinity: Counts::new(),
            existing_anti_affinity: Counts::new(),
        };
        let own_namespace = view.namespace_labels(&pod.class.namespace);
        for node in view.nodes() {
            for mates in node.classes.values() {
                let class = &mates.class;
                for term in &class.anti_affinity {
                    if term.matches(&pod.class, own_namespace) {
                        tally(&mut topology.existing_anti_affinity, &node.labels, term, mates.pods);
                    }
                }
                if pod.class.affinity.is_empty() && pod.class.anti_affinity.is_empty() {
                    continue;
                }
                let namespace = view.namespace_labels(&class.namespace);
                if !pod.class.affinity.is_empty() && pod.class.affinity.iter().all(|t| t.matches(class, namespace)) {
                    for term in &pod.class.affinity {
                        tally(&mut topology.affinity, &node.labels, term, mates.pods);
                    }
                }
                for term in pod.class.anti_affinity.iter().filter(|term| term.matches(class, namespace)) {
                    tally(&mut topology.anti_affinity, &node.labels, term, mates.pods);
                }
            }
        }
        topology
    }

    pub(crate) fn check_spread(&self, pod: &PodInfo, node: &NodeView) -> Result<(), Rejection> {
        for (constraint, (domains, fewest)) in pod.spread.iter().zip(&self.spread) {
            let Some(domain) = node.labels.get(&constraint.topology_key) else {
                let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Rejection { reasons: vec![reason.to_owned()], resolvable: false });
            };
            let matching = domains.get(domain).copied().unwrap_or_default();
            let itself = i64::from(constraint.selector.matches(&pod.class.labels));
            if matching + itself - fewest > constraint.max_skew {
                let reason = "node(s) didn't match pod topology spread constraints";
                return Err(Rejection { reasons: vec![reason.to_owned()], resolvable: true });
            }
        }
        Ok(())
    }

    pub(crate) fn check_affinity(&self, pod: &PodInfo, node: &NodeView) -> Result<(), Rejection> {
        let refused = |reason: &str, resolvable| Err(Rejection { reasons: vec![reason.to_owned()], resolvable });
        if !self.satisfies_affinity(pod, node) {
            return refused("node(s) didn't match pod affinity rules", false);
        }
        let occupied = |term: &AffinityTerm| count(&self.anti_affinity, &node.labels, &term.topology_key) > 0;
        if pod.class.anti_affinity.iter().any(occupied) {
            return refused("node(s) didn't match pod anti-affinity rules", true);
        }
        if !self.existing_anti_affinity.is_empty()
            && node.labels.keys().any(|key| count(&self.existing_anti_affinity, &node.labels, key) > 0)
        {
            return refused("node(s) didn't satisfy existing pods anti-affinity rules", true);
        }
        Ok(())
    }

    fn satisfies_affinity(&self, pod: &PodInfo, node: &NodeView) -> bool {
        let terms = &pod.class.affinity;
        if terms.iter().any(|term| !node.labels.contains_key(&term.topology_key)) {
            return false;
        }
        if terms.iter().all(|term| count(&self.affinity, &node.labels, &term.topology_key) > 0) {
            return true;
        }
        // The first of a group that wants to be together has nobody to join.
        self.affinity.is_empty() && terms.iter().all(|term| term.matches(&pod.class, &Labels::new()))
    }
}

fn tally(counts: &mut Counts, labels: &Labels, term: &AffinityTerm, pods: i64) {
    if let Some(value) = labels.get(&term.topology_key) {
        *counts.entry((term.topology_key.clone(), value.clone())).or_default() += pods;
    }
}

fn count(counts: &Counts, labels: &Labels, key: &str) -> i64 {
    if counts.is_empty() {
        return 0;
    }
    labels.get(key).and_then(|value| counts.get(&(key.to_owned(), value.clone()))).copied().unwrap_or_default()
}

fn count_spread(pod: &PodInfo, view: &ClusterView) -> Vec<(HashMap<String, i64>, i64)> {
    let mut domains = vec![HashMap::<String, i64>::new(); pod.spread.len()];
    for node in view.nodes().filter(|node| has_labels(node, &pod.spread)) {
        for (constraint, domains) in pod.spread.iter().zip(&mut domains) {
            if counts_for(constraint, pod, node) {
                let domain = node.labels[&constraint.topology_key].clone();
                *domains.entry(domain).or_default() += matching_pods(constraint, pod, node);
            }
        }
    }
    let with_fewest = |(domains, constraint): (HashMap<String, i64>, &Spread)| {
        // With too few domains, an empty one is still to come.
        let enough = domains.len() >= constraint.min_domains;
        let fewest = if enough { domains.values().copied().min().unwrap_or(i64::MAX) } else { 0 };
        (domains, fewest)
    };
    domains.into_iter().zip(&pod.spread).map(with_fewest).collect()
}

pub(crate) fn has_labels(node: &NodeView, constraints: &[Spread]) -> bool {
    constraints.iter().all(|constraint| node.labels.contains_key(&constraint.topology_key))
}

/// Whether a node's domain is one that the constraint compares.
pub(crate) fn counts_for(constraint: &Spread, pod: &PodInfo, node: &NodeView) -> bool {
    (!constraint.honors_affinity || filter::affinity_matches(pod, node))
        && (!constraint.honors_taints
            || matching::untolerated(matching::taints(&node.node), &pod.tolerations, &["NoSchedule", "NoExecute"])
                .is_none())
}

/// The pods on a node that a constraint counts: of the same namespace, selected, and not about to go.
pub(crate) fn matching_pods(constraint: &Spread, pod: &PodInfo, node: &NodeView) -> i64 {
    let counted = node.classes.values().filter(|mates| {
        let class = &mates.class;
        class.namespace == pod.class.namespace && constraint.selector.matches(&class.labels)
    });
    counted.map(|mates| mates.pods - mates.terminating).sum()
}

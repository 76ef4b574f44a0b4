//! Which of the nodes that can take a pod is the best, near to Kubernetes' default weights.
//!
//! Not handled: image locality. Images are programs of this machine, and equally near everywhere.

use std::collections::{BTreeSet, HashMap};

use super::cluster::{ClusterView, NodeView};
use super::matching;
use super::pod::PodInfo;
use super::requests::Resources;
use super::topology;

/// The best score of one rule.
const BEST: i64 = 100;

/// The weights of Kubernetes' default profile.
const TAINTS: i64 = 3;
const NODE_AFFINITY: i64 = 2;
const SPREAD: i64 = 2;
const POD_AFFINITY: i64 = 2;

/// The score of each node, in the order of `nodes`.
pub(crate) fn score(pod: &PodInfo, nodes: &[&NodeView], view: &ClusterView) -> Vec<i64> {
    let mut total = vec![0; nodes.len()];
    let mut add = |weight: i64, scores: Vec<i64>| {
        for (total, score) in total.iter_mut().zip(scores) {
            *total += weight * score;
        }
    };
    add(TAINTS, taints(pod, nodes));
    if !pod.preferred_nodes.is_empty() {
        add(NODE_AFFINITY, node_affinity(pod, nodes));
    }
    add(1, nodes.iter().map(|node| least_allocated(pod, node)).collect());
    if pod.requests.get("cpu") > 0 || pod.requests.get("memory") > 0 {
        add(1, nodes.iter().map(|node| balanced_allocation(pod, node)).collect());
    }
    if !pod.soft_spread.constraints.is_empty() {
        add(SPREAD, spread(pod, nodes, view));
    }
    if let Some(scores) = pod_affinity(pod, nodes, view) {
        add(POD_AFFINITY, scores);
    }
    total
}

fn taints(pod: &PodInfo, nodes: &[&NodeView]) -> Vec<i64> {
    let tolerated = |taint| pod.tolerations.iter().any(|toleration| matching::tolerates(toleration, taint));
    let disliked = nodes.iter().map(|node| {
        let taints = matching::taints(&node.node).iter();
        let count = taints.filter(|taint| taint.effect == "PreferNoSchedule" && !tolerated(taint)).count();
        i64::try_from(count).unwrap_or(BEST)
    });
    let disliked: Vec<i64> = disliked.collect();
    relative_to_most(&disliked).into_iter().map(|score| BEST - score).collect()
}

fn node_affinity(pod: &PodInfo, nodes: &[&NodeView]) -> Vec<i64> {
    let weights = nodes.iter().map(|node| {
        let terms = pod.preferred_nodes.iter().filter(|term| matching::term_matches(&term.preference, &node.node));
        terms.map(|term| i64::from(term.weight)).sum()
    });
    relative_to_most(&weights.collect::<Vec<i64>>())
}

fn relative_to_most(scores: &[i64]) -> Vec<i64> {
    let most = scores.iter().copied().max().unwrap_or_default();
    scores.iter().map(|score| if most == 0 { 0 } else { BEST * score / most }).collect()
}

fn least_allocated(pod: &PodInfo, node: &NodeView) -> i64 {
    let (mut sum, mut counted) = (0, 0);
    for name in ["cpu", "memory"] {
        let allocatable = node.allocatable.get(name);
        if allocatable > 0 {
            let left = (allocatable - node.scoring.get(name) - pod.scoring.get(name)).max(0);
            sum += i64::try_from(i128::from(left) * i128::from(BEST) / i128::from(allocatable)).unwrap_or(BEST);
            counted += 1;
        }
    }
    if counted == 0 { 0 } else { sum / counted }
}

/// Better the more the pod evens out how much of CPU and of memory is taken.
fn balanced_allocation(pod: &PodInfo, node: &NodeView) -> i64 {
    let mut with = node.requested.clone();
    with.add(&pod.requests);
    BEST / 2 + (BEST / 2 + balance(&with, node) - balance(&node.requested, node)) / 2
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a score between 0 and 100")]
fn balance(requested: &Resources, node: &NodeView) -> i64 {
    let fractions = ["cpu", "memory"].into_iter().filter_map(|name| {
        let allocatable = node.allocatable.get(name);
        (allocatable > 0).then(|| (requested.get(name) as f64 / allocatable as f64).min(1.0))
    });
    let fractions: Vec<f64> = fractions.collect();
    let deviation = if let [a, b] = fractions[..] { ((a - b) / 2.0).abs() } else { 0.0 };
    ((1.0 - deviation) * BEST as f64) as i64
}

/// Better the fewer pods of the same kind are in the node's domains; a key with many domains weighs more.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "counts of pods and nodes are small")]
fn spread(pod: &PodInfo, nodes: &[&NodeView], view: &ClusterView) -> Vec<i64> {
    let constraints = &pod.soft_spread.constraints;
    let counts = |node: &NodeView| !pod.soft_spread.all_labels_required || topology::has_labels(node, constraints);
    let mut scores = vec![0.0_f64; nodes.len()];
    for constraint in constraints {
        let per_node = constraint.topology_key == "kubernetes.io/hostname";
        let domain = |node: &NodeView| node.labels.get(&constraint.topology_key).cloned();
        let candidates: BTreeSet<Option<String>> = nodes.iter().filter(|n| counts(n)).map(|n| domain(n)).collect();
        let domains = if per_node { nodes.iter().filter(|n| counts(n)).count() } else { candidates.len() };
        let weight = ((domains + 2) as f64).ln();
        let mut pods: HashMap<Option<String>, i64> = HashMap::new();
        if !per_node {
            let counted = view.nodes().filter(|n| counts(n) && topology::counts_for(constraint, pod, n));
            for node in counted.filter(|node| candidates.contains(&domain(node))) {
                *pods.entry(domain(node)).or_default() += topology::matching_pods(constraint, pod, node);
            }
        }
        for (node, score) in nodes.iter().zip(&mut scores) {
            let Some(domain) = domain(node) else { continue };
            let count = if per_node {
                topology::matching_pods(constraint, pod, node)
            } else {
                pods.get(&Some(domain)).copied().unwrap_or_default()
            };
            *score += count as f64 * weight + (constraint.max_skew - 1) as f64;
        }
    }
    let scores: Vec<Option<i64>> =
        nodes.iter().zip(scores).map(|(node, score)| counts(node).then_some(score.round() as i64)).collect();
    let most = scores.iter().flatten().copied().max().unwrap_or_default();
    let fewest = scores.iter().flatten().copied().min().unwrap_or_default();
    let normalize = |score: Option<i64>| match score {
        None => 0,
        Some(_) if most == 0 => BEST,
        Some(score) => BEST * (most + fewest - score) / most,
    };
    scores.into_iter().map(normalize).collect()
}

/// What the pod prefers of others and others of it. None when nobody says anything.
fn pod_affinity(pod: &PodInfo, nodes: &[&NodeView], view: &ClusterView) -> Option<Vec<i64>> {
    let own_namespace = view.namespace_labels(&pod.class.namespace);
    let mut weights: HashMap<(&str, &str), i64> = HashMap::new();
    for node in view.nodes() {
        for mates in node.classes.values() {
            let class = &mates.class;
            let namespace = view.namespace_labels(&class.namespace);
            let of_pod = [(&pod.class.preferred_affinity, 1), (&pod.class.preferred_anti_affinity, -1)];
            let own = of_pod.into_iter().flat_map(|(terms, sign)| {
                terms.iter().filter(|term| term.matches(class, namespace)).map(move |term| (term, sign))
            });
            // A required affinity of a pod that is there attracts too, with weight one (Kubernetes' default).
            let of_mates = [(&class.affinity, 1), (&class.preferred_affinity, 1), (&class.preferred_anti_affinity, -1)];
            let theirs = of_mates.into_iter().flat_map(|(terms, sign)| {
                terms.iter().filter(|term| term.matches(&pod.class, own_namespace)).map(move |term| (term, sign))
            });
            for (term, sign) in own.chain(theirs) {
                if let Some(value) = node.labels.get(&term.topology_key) {
                    *weights.entry((&term.topology_key, value)).or_default() += sign * term.weight * mates.pods;
                }
            }
        }
    }
    if weights.is_empty() {
        return None;
    }
    let scores = nodes.iter().map(|node| {
        let of_labels = node.labels.iter().filter_map(|(key, value)| weights.get(&(key.as_str(), value.as_str())));
        of_labels.sum::<i64>()
    });
    let scores: Vec<i64> = scores.collect();
    let (least, most) = (scores.iter().min().copied()?, scores.iter().max().copied()?);
    Some(
        scores
            .into_iter()
            .map(|score| if most == least { 0 } else { BEST * (score - least) / (most - least) })
            .collect(),
    )
}

//! Making room: which pods of lower priority have to go so that a pod fits.

use std::cmp::Reverse;
use std::sync::Arc;

use super::cluster::ClusterView;
use super::filter::{self, Candidate};
use super::matching::LabelMatcher;
use super::place::{self, Unschedulable};
use super::pod::PodInfo;
use super::topology::Topology;

/// A disruption budget, as far as preemption tries to respect it.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    pub(crate) namespace: String,
    pub(crate) selector: LabelMatcher,
    pub(crate) allowed: i32,
}

/// What to do so that a pod can be placed later.
#[derive(Debug)]
pub(crate) struct Eviction {
    pub(crate) node: String,
    /// The most important first.
    pub(crate) victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

/// Finds the node on which making room does the least harm. `Err` says, in Kubernetes' words, why it would not help.
///
/// The view is the same afterwards; it is changed meanwhile to ask what would be.
pub(crate) fn preempt(
    candidate: &Candidate<'_>,
    unschedulable: &Unschedulable,
    view: &mut ClusterView,
    budgets: &[Budget],
) -> Result<Eviction, String> {
    let pod = candidate.pod;
    if !pod.preempts {
        return Err("not eligible due to preemptionPolicy=Never.".to_owned());
    }
    if let Some(nominated) = &pod.nominated
        && unschedulable.rejections.get(nominated).is_none_or(|rejection| rejection.resolvable)
        && let Some(node) = view.node(nominated)
        && node.pods.values().any(|other| other.priority < pod.priority && other.terminating && other.preempted)
    {
        return Err("not eligible due to a terminating pod on the nominated node.".to_owned());
    }
    let mut reasons = Vec::new();
    let mut best: Option<Eviction> = None;
    let possible = unschedulable.rejections.iter().filter(|(_, rejection)| rejection.resolvable);
    let possible: Vec<&String> = possible.map(|(node, _)| node).collect();
    for node in &possible {
        match select_victims(candidate, node, view, budgets) {
            Ok(eviction) => {
                if best.as_ref().is_none_or(|best| harm(&eviction) < harm(best)) {
                    best = Some(eviction);
                }
            }
            Err(refused) => reasons.extend(refused),
        }
    }
    best.ok_or_else(|| {
        let nodes = view.nodes().len();
        let others = (nodes - possible.len(), "Preemption is not helpful for scheduling");
        place::histogram(nodes, reasons.iter().map(String::as_str), others)
    })
}

/// What is compared between nodes, the less the better: budgets violated, the highest priority that must go, all their
/// priorities, how many go, and how long the most important ones have been running.
fn harm(eviction: &Eviction) -> (usize, i32, i64, usize, Reverse<Option<jiff::Timestamp>>) {
    let highest = eviction.victims.first().map_or(i32::MIN, |victim| victim.priority);
    // Shifted so that more victims of negative priority are still more harm than fewer.
    let sum = eviction.victims.iter().map(|victim| i64::from(victim.priority) + i64::from(i32::MAX) + 1).sum();
    let important = eviction.victims.iter().filter(|victim| victim.priority == highest);
    let earliest = important.filter_map(|victim| victim.started).min();
    (eviction.violations, highest, sum, eviction.victims.len(), Reverse(earliest))
}

/// Removes every pod of lower priority, then puts back as many as can stay, the most important first.
fn select_victims(
    candidate: &Candidate<'_>,
    node: &str,
    view: &mut ClusterView,
    budgets: &[Budget],
) -> Result<Eviction, Vec<String>> {
    let lower = |pod: &&Arc<PodInfo>| pod.priority < candidate.pod.priority;
    let mut lesser: Vec<_> = view.node(node).into_iter().flat_map(|n| n.pods.values()).filter(lower).cloned().collect();
    if lesser.is_empty() {
        return Err(vec!["No preemption victims found for incoming pod".to_owned()]);
    }
    let fits = |view: &ClusterView| {
        let topology = Topology::count(candidate.pod, view);
        let node = view.node(node).expect("a node that rejected the pod is in the view");
        filter::check(candidate, node, view, &topology).map_err(|rejection| rejection.reasons)
    };
    for pod in &lesser {
        set_present(view, node, pod, false);
    }
    let without_them = fits(view);
    let mut victims = Vec::new();
    let mut violations = 0;
    if without_them.is_ok() {
        lesser.sort_by_key(|pod| (Reverse(pod.priority), pod.started.unwrap_or(jiff::Timestamp::MAX)));
        let (violating, harmless) = by_budget(lesser.clone(), budgets);
        let count = violating.len();
        for (index, pod) in violating.into_iter().chain(harmless).enumerate() {
            set_present(view, node, &pod, true);
            if fits(view).is_err() {
                set_present(view, node, &pod, false);
                violations += usize::from(index < count);
                victims.push(pod);
            }
        }
        victims.sort_by_key(|pod| (Reverse(pod.priority), pod.started.unwrap_or(jiff::Timestamp::MAX)));
    }
    for pod in if without_them.is_ok() { &victims } else { &lesser } {
        set_present(view, node, pod, true);
    }
    without_them.map(|()| Eviction { node: node.to_owned(), victims, violations })
}

fn set_present(view: &mut ClusterView, node: &str, pod: &Arc<PodInfo>, present: bool) {
    let node = view.node_mut(node).expect("a node that rejected the pod is in the view");
    if present {
        node.add(Arc::clone(pod));
    } else {
        node.remove(&pod.key);
    }
}

/// The pods whose going would violate a budget, and the others. Each pod that may go uses its budgets up.
fn by_budget(pods: Vec<Arc<PodInfo>>, budgets: &[Budget]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut left: Vec<i32> = budgets.iter().map(|budget| budget.allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            if budget.namespace == pod.class.namespace && budget.selector.matches(&pod.class.labels) {
                *left -= 1;
                violates |= *left < 0;
            }
        }
        violates
    })
}

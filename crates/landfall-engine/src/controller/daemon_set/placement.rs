//! On which nodes a pod of a daemon set belongs, and how it is pinned to one. Pure.

use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use kube::ResourceExt as _;

use crate::scheduler::matching::{node_matches, taints, untolerated};

/// Whether a node is one for a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A pod belongs here.
    Run,
    /// A pod that is here stays, but no new one comes: the node has a taint against new pods.
    Stay,
    /// No pod belongs here.
    Leave,
}

/// What pods of daemon sets tolerate: their node's bad days are what they are there for
/// (<https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#taints-and-tolerations>).
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// Tolerated by pods that bring the network.
const NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// Adds the tolerations of daemon sets.
pub(super) fn tolerate(spec: &mut PodSpec) {
    let host_network = spec.host_network == Some(true);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(host_network.then_some(NETWORK)) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

/// `spec` is the pod's with its tolerations.
pub(super) fn place(spec: &PodSpec, node: &Node) -> Place {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let named = spec.node_name.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == name);
    if !named || !selected(spec, node) {
        return Place::Leave;
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let untolerated = |effect| untolerated(taints(node), tolerations, &[effect]).is_some();
    if untolerated("NoExecute") {
        Place::Leave
    } else if untolerated("NoSchedule") {
        Place::Stay
    } else {
        Place::Run
    }
}

fn selected(spec: &PodSpec, node: &Node) -> bool {
    let wanted = spec.node_selector.iter().flatten();
    let has_labels = wanted.into_iter().all(|(key, value)| node.labels().get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    has_labels && required.is_none_or(|required| node_matches(required, node))
}

/// Pins a pod to a node in place of what its template requires of nodes; the scheduler binds it, so that its taints,
/// priority and resources count.
pub(super) fn pin(spec: &mut PodSpec, node: &str) {
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let required = NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            }]),
            match_expressions: None,
        }],
    };
    affinity.node_affinity.get_or_insert_default().required_during_scheduling_ignored_during_execution = Some(required);
}

/// The node of a pod: where it is, or where it is pinned to.
pub(super) fn target(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    let bound = spec.node_name.as_deref().filter(|name| !name.is_empty());
    bound.or_else(|| {
        let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        let fields = required.node_selector_terms.iter().filter_map(|term| term.match_fields.as_ref()).flatten();
        let mut names = fields.filter(|field| field.key == "metadata.name");
        names.next()?.values.as_ref()?.first().map(String::as_str)
    })
}

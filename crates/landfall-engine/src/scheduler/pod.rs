//! A pod as the scheduler sees it: everything that placing asks for, read once.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    NodeSelector, Pod, PodAffinityTerm, PodSpec, PreferredSchedulingTerm, Toleration, TopologySpreadConstraint,
};
use kube::core::Expression;

use super::matching::{LabelMatcher, Labels};
use super::requests::{self, Resources};
use crate::cache::ObjectKey;

/// A port of the node that a container wants for itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HostPort {
    ip: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    /// Two ports that cannot be had at the same time: the wildcard address covers every other.
    pub(crate) fn conflicts_with(&self, other: &Self) -> bool {
        let same_address = self.ip == other.ip || self.ip == "0.0.0.0" || other.ip == "0.0.0.0";
        self.port == other.port && self.protocol == other.protocol && same_address
    }
}

/// A term of pod affinity or anti-affinity.
#[derive(Debug, Clone)]
pub(crate) struct AffinityTerm {
    namespaces: BTreeSet<String>,
    namespace_selector: LabelMatcher,
    selector: LabelMatcher,
    pub(crate) topology_key: String,
    /// How much a preferred term counts.
    pub(crate) weight: i64,
}

impl AffinityTerm {
    fn read(term: &PodAffinityTerm, weight: i64, pod: &Pod) -> Self {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(pod.metadata.namespace.clone().unwrap_or_default());
        }
        let of_pod = |keys: &Option<Vec<String>>| -> Vec<(String, String)> {
            keys.iter().flatten().filter_map(|key| Some((key.clone(), labels.get(key)?.clone()))).collect()
        };
        // The API server has added these already; added twice they mean the same.
        let same = of_pod(&term.match_label_keys).into_iter().map(|(key, value)| Expression::Equal(key, value));
        let others = of_pod(&term.mismatch_label_keys).into_iter().map(|(key, value)| Expression::NotEqual(key, value));
        Self {
            namespaces,
            namespace_selector: LabelMatcher::read(term.namespace_selector.as_ref()),
            selector: LabelMatcher::read(term.label_selector.as_ref()).and(same.chain(others)),
            topology_key: term.topology_key.clone(),
            weight,
        }
    }

    pub(crate) fn matches(&self, class: &PodClass, namespace_labels: &Labels) -> bool {
        (self.namespaces.contains(&class.namespace) || self.namespace_selector.matches(namespace_labels))
            && self.selector.matches(&class.labels)
    }
}

/// What pods have in common that are the same to other pods: the replicas of a workload, mostly.
///
/// Affinity and spread count classes rather than pods, so that ten thousand replicas cost what one costs.
#[derive(Debug)]
pub(crate) struct PodClass {
    pub(crate) identity: Arc<str>,
    pub(crate) namespace: String,
    pub(crate) labels: Labels,
    pub(crate) affinity: Vec<AffinityTerm>,
    pub(crate) anti_affinity: Vec<AffinityTerm>,
    pub(crate) preferred_affinity: Vec<AffinityTerm>,
    pub(crate) preferred_anti_affinity: Vec<AffinityTerm>,
}

impl PodClass {
    fn read(pod: &Pod, spec: &PodSpec) -> Self {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let affinity = spec.affinity.as_ref();
        let (pods, anti) =
            (affinity.and_then(|a| a.pod_affinity.as_ref()), affinity.and_then(|a| a.pod_anti_affinity.as_ref()));
        let identity = serde_json::json!([namespace, labels, pods, anti]).to_string().into();
        let read = |term: &PodAffinityTerm| AffinityTerm::read(term, 1, pod);
        let weighted = |term: &k8s_openapi::api::core::v1::WeightedPodAffinityTerm| {
            AffinityTerm::read(&term.pod_affinity_term, term.weight.into(), pod)
        };
        Self {
            identity,
            affinity: pods
                .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
                .map_or_else(Vec::new, |terms| terms.iter().map(read).collect()),
            anti_affinity: anti
                .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
                .map_or_else(Vec::new, |terms| terms.iter().map(read).collect()),
            preferred_affinity: pods
                .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())
                .map_or_else(Vec::new, |terms| terms.iter().map(weighted).collect()),
            preferred_anti_affinity: anti
                .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())
                .map_or_else(Vec::new, |terms| terms.iter().map(weighted).collect()),
            namespace,
            labels,
        }
    }
}

/// A topology spread constraint.
#[derive(Debug, Clone)]
pub(crate) struct Spread {
    pub(crate) max_skew: i64,
    pub(crate) topology_key: String,
    pub(crate) selector: LabelMatcher,
    pub(crate) min_domains: usize,
    /// Nodes that the pod's node affinity excludes do not count.
    pub(crate) honors_affinity: bool,
    /// Nodes whose taints the pod does not tolerate do not count.
    pub(crate) honors_taints: bool,
}

impl Spread {
    fn read(constraint: &TopologySpreadConstraint, labels: &Labels) -> Self {
        let same = constraint.match_label_keys.iter().flatten();
        let same = same.filter_map(|key| Some(Expression::Equal(key.clone(), labels.get(key)?.clone())));
        Self {
            max_skew: constraint.max_skew.into(),
            topology_key: constraint.topology_key.clone(),
            selector: LabelMatcher::read(constraint.label_selector.as_ref()).and(same),
            min_domains: constraint.min_domains.and_then(|domains| domains.try_into().ok()).unwrap_or(1),
            honors_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honors_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    /// A preference that every workload has without saying so (Kubernetes: the built-in default constraints).
    fn default(topology_key: &str, max_skew: i64, selector: &LabelMatcher) -> Self {
        Self {
            max_skew,
            topology_key: topology_key.to_owned(),
            selector: selector.clone(),
            min_domains: 1,
            honors_affinity: true,
            honors_taints: false,
        }
    }
}

/// The preferences for spreading and whether a node must have all of their labels to count.
#[derive(Debug, Clone, Default)]
pub(crate) struct SoftSpread {
    pub(crate) constraints: Vec<Spread>,
    pub(crate) all_labels_required: bool,
}

#[derive(Debug)]
pub(crate) struct PodInfo {
    pub(crate) key: ObjectKey,
    pub(crate) class: Arc<PodClass>,
    pub(crate) requests: Resources,
    pub(crate) scoring: Resources,
    pub(crate) host_ports: Vec<HostPort>,
    pub(crate) priority: i32,
    pub(crate) node: Option<String>,
    pub(crate) nominated: Option<String>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) terminating: bool,
    /// The scheduler has chosen it to make room for another pod.
    pub(crate) preempted: bool,
    pub(crate) preempts: bool,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) node_selector: Labels,
    pub(crate) node_affinity: Option<NodeSelector>,
    pub(crate) preferred_nodes: Vec<PreferredSchedulingTerm>,
    pub(crate) spread: Vec<Spread>,
    pub(crate) soft_spread: SoftSpread,
    pub(crate) pod: Arc<Pod>,
}

impl PodInfo {
    pub(crate) fn read(pod: &Arc<Pod>) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let class = Arc::new(PodClass::read(pod, spec));
        let nodes = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let constraints = |when: &str| -> Vec<Spread> {
            let of_kind = spec.topology_spread_constraints.iter().flatten().filter(|c| c.when_unsatisfiable == when);
            of_kind.map(|constraint| Spread::read(constraint, &class.labels)).collect()
        };
        let status = pod.status.as_ref();
        let preempted = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten().any(|condition| {
            condition.type_ == "DisruptionTarget"
                && condition.status == "True"
                && condition.reason.as_deref() == Some("PreemptionByScheduler")
        });
        Self {
            key: ObjectKey::of(&**pod),
            requests: requests::of_pod(spec),
            scoring: requests::for_scoring(spec),
            host_ports: host_ports(spec),
            priority: spec.priority.unwrap_or_default(),
            node: spec.node_name.clone().filter(|name| !name.is_empty()),
            nominated: status.and_then(|status| status.nominated_node_name.clone()).filter(|name| !name.is_empty()),
            started: status.and_then(|status| status.start_time.as_ref()).map(|time| time.0),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            preempted,
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            node_affinity: nodes.and_then(|n| n.required_during_scheduling_ignored_during_execution.clone()),
            preferred_nodes: nodes
                .and_then(|n| n.preferred_during_scheduling_ignored_during_execution.clone())
                .unwrap_or_default(),
            spread: constraints("DoNotSchedule"),
            soft_spread: SoftSpread { constraints: constraints("ScheduleAnyway"), all_labels_required: true },
            class,
            pod: Arc::clone(pod),
        }
    }

    /// Gives a pod without constraints of its own the built-in ones, for the pods that its workload's `selector` selects.
    pub(crate) fn spread_by_default(&mut self, selector: &LabelMatcher) {
        let own = self.pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_ref());
        if own.is_none_or(Vec::is_empty) {
            let constraints = vec![
                Spread::default("kubernetes.io/hostname", 3, selector),
                Spread::default("topology.kubernetes.io/zone", 5, selector),
            ];
            self.soft_spread = SoftSpread { constraints, all_labels_required: false };
        }
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let non_empty = |text: &Option<String>, default: &str| match text.as_deref() {
                None | Some("") => default.to_owned(),
                Some(text) => text.to_owned(),
            };
            Some(HostPort {
                ip: non_empty(&port.host_ip, "0.0.0.0"),
                protocol: non_empty(&port.protocol, "TCP"),
                port: port.host_port.filter(|port| *port > 0)?,
            })
        })
        .collect()
}

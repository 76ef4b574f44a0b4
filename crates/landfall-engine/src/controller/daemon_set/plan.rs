//! Which pods a daemon set creates and deletes next, and what its status says. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use kube::ResourceExt as _;

use super::placement::{self, Place};
use crate::controller::claim::owner_reference;
use crate::controller::fraction::{Round, of_total};
use crate::controller::pod::{self, is_available, is_ready, is_terminal, phase};
use crate::controller::pod_control::BURST;
use crate::controller::status::{count, nonzero};

/// Which revision a pod, and a revision, is of.
pub(super) const HASH: &str = "controller-revision-hash";
const GENERATION: &str = "pod-template-generation";
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) create: Vec<Pod>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Type, reason and message.
    pub(super) events: Vec<(&'static str, &'static str, String)>,
    /// When a failed pod may be replaced that may not yet.
    pub(super) retry: Option<Duration>,
}

struct Planner<'a> {
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    hash: &'a str,
    /// The pods of each node, oldest first.
    pods: BTreeMap<&'a str, Vec<&'a Arc<Pod>>>,
    surge: i32,
    unavailable: i32,
    now: Timestamp,
    needy: Vec<&'a str>,
    delete: Vec<&'a Arc<Pod>>,
    changes: Changes,
}

/// `backoff` is asked for each node on which a pod has failed: how long it must wait for another.
pub(super) fn plan(
    set: &DaemonSet,
    hash: &str,
    nodes: &[Arc<Node>],
    pods: &[Arc<Pod>],
    backoff: impl Fn(&str) -> Option<Duration>,
    now: Timestamp,
) -> Changes {
    let Some(spec) = &set.spec else { return Changes::default() };
    let template = pod_spec(set);
    let places: Vec<_> = nodes.iter().map(|node| (name(node), placement::place(&template, node))).collect();
    let desired = count(places.iter().filter(|(_, place)| *place == Place::Run));
    let bounds = spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let part = |part| of_total(part, desired, Round::Up);
    let surge = bounds.and_then(|bounds| part(bounds.max_surge.as_ref())).unwrap_or_default();
    let unavailable = bounds.and_then(|bounds| part(bounds.max_unavailable.as_ref())).unwrap_or_default();
    let mut planner = Planner {
        set,
        spec,
        hash,
        pods: by_node(pods),
        surge,
        // With neither, nothing could ever move.
        unavailable: if surge == 0 { unavailable.max(1) } else { unavailable },
        now,
        needy: Vec::new(),
        delete: Vec::new(),
        changes: Changes::default(),
    };
    for (node, place) in &places {
        planner.keep(node, *place, &backoff);
    }
    planner.leave_lost_nodes(&places);
    let settled = planner.needy.is_empty() && planner.delete.is_empty();
    let rolls = spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
    if settled && rolls {
        if surge == 0 {
            planner.replace();
        } else {
            planner.surge(&places);
        }
    }
    planner.end(&template)
}

/// The updated and the outdated pod of a node.
type Pair<'a> = (Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>);

impl<'a> Planner<'a> {
    /// One pod where one belongs, none elsewhere.
    fn keep(&mut self, node: &'a str, place: Place, backoff: impl Fn(&str) -> Option<Duration>) {
        let pods = self.pods.get(node).cloned().unwrap_or_default();
        if place == Place::Leave {
            self.delete.extend(pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()));
            return;
        }
        if pods.is_empty() {
            self.needy.extend((place == Place::Run).then_some(node));
            return;
        }
        let mut running = Vec::new();
        for pod in pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            let what = || {
                format!(
                    "daemon pod {}/{} on node {node}, will try to",
                    pod.namespace().unwrap_or_default(),
                    pod.name_any()
                )
            };
            match phase(pod) {
                "Failed" => match backoff(node) {
                    Some(wait) => self.changes.retry = self.changes.retry.into_iter().chain([wait]).min(),
                    None => {
                        let message = format!("Found failed {} kill it", what());
                        self.changes.events.push(("Warning", "FailedDaemonPod", message));
                        self.delete.push(pod);
                    }
                },
                "Succeeded" => {
                    let message = format!("Found succeeded {} delete it", what());
                    self.changes.events.push(("Normal", "SucceededDaemonPod", message));
                    self.delete.push(pod);
                }
                _ => running.push(pod),
            }
        }
        if self.surge == 0 {
            self.delete.extend(running.into_iter().skip(1));
            return;
        }
        if running.is_empty() && place == Place::Run {
            self.needy.push(node);
        }
        if running.len() > 1 {
            self.hand_over(&running);
        }
    }

    /// With a surge, an old and a new pod may be there together, until the new one is available.
    fn hand_over(&mut self, running: &[&'a Arc<Pod>]) {
        let (new, old): (Vec<&'a Arc<Pod>>, Vec<&'a Arc<Pod>>) =
            running.iter().copied().partition(|pod| self.is_updated(pod));
        self.delete.extend(new.iter().skip(1).chain(old.iter().skip(1)).copied());
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!is_ready(old) || self.is_available(new))
        {
            self.delete.push(old);
        }
    }

    /// Pods that wait for a node that is gone.
    fn leave_lost_nodes(&mut self, places: &[(&str, Place)]) {
        let lost = self.pods.iter().filter(|(node, _)| places.iter().all(|(name, _)| name != *node));
        let unbound = lost.flat_map(|(_, pods)| pods.iter()).filter(|pod| pod::node(pod).is_empty());
        self.delete.extend(unbound.filter(|pod| pod.metadata.deletion_timestamp.is_none()));
    }

    /// The updated and the outdated pod of a node; `None` when there are more, which [`Planner::keep`] sorts out.
    fn pair(&self, pods: &[&'a Arc<Pod>]) -> Option<Pair<'a>> {
        let alive = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let (new, old): (Vec<&'a Arc<Pod>>, Vec<&'a Arc<Pod>>) = alive.copied().partition(|pod| self.is_updated(pod));
        (new.len() <= 1 && old.len() <= 1).then(|| (new.first().copied(), old.first().copied()))
    }

    /// Deletes outdated pods: those that do not serve, and as many others as may be unavailable.
    fn replace(&mut self) {
        let mut unavailable = 0;
        let (mut idle, mut serving) = (Vec::new(), Vec::new());
        for pods in self.pods.values() {
            match self.pair(pods) {
                Some((Some(new), None)) => unavailable += i32::from(!self.is_available(new)),
                Some((None, Some(old))) if !self.is_available(old) => {
                    idle.push(old);
                    unavailable += 1;
                }
                Some((None, Some(old))) => serving.push(old),
                _ => unavailable += 1,
            }
        }
        let room = usize::try_from(self.unavailable - unavailable).unwrap_or_default();
        self.delete.extend(idle.into_iter().chain(serving.into_iter().take(room)));
    }

    /// Creates new pods beside outdated ones: beside those that do not serve, and as many others as may be added.
    fn surge(&mut self, places: &[(&'a str, Place)]) {
        let mut added = 0;
        let (mut idle, mut serving) = (Vec::new(), Vec::new());
        for (node, pods) in &self.pods {
            let runs = places.iter().any(|(name, place)| name == node && *place == Place::Run);
            match self.pair(pods) {
                None => added += 1,
                Some((None, Some(old))) if !self.is_available(old) => {
                    if runs {
                        idle.push(*node);
                    } else {
                        self.delete.push(old);
                    }
                }
                Some((None, Some(_))) if runs => serving.push(*node),
                Some((Some(new), Some(old))) => {
                    if self.is_available(new) {
                        self.delete.push(old);
                    } else {
                        added += 1;
                    }
                }
                _ => {}
            }
        }
        let room = usize::try_from(self.surge - added).unwrap_or_default();
        self.needy.extend(idle.into_iter().chain(serving.into_iter().take(room)));
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        pod.labels().get(HASH).is_some_and(|hash| hash == self.hash)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_available(pod, self.spec.min_ready_seconds.unwrap_or_default(), self.now)
    }

    fn end(self, template: &PodSpec) -> Changes {
        let pod = |node: &&str| {
            let reference = owner_reference(self.set);
            let mut pod = pod::from_template(&self.set.name_any(), reference, Some(&self.spec.template));
            let labels = pod.metadata.labels.get_or_insert_default();
            labels.insert(HASH.to_owned(), self.hash.to_owned());
            if let Some(generation) = self.set.annotations().get(TEMPLATE_GENERATION) {
                labels.insert(GENERATION.to_owned(), generation.clone());
            }
            let mut spec = template.clone();
            placement::pin(&mut spec, node);
            pod.spec = Some(spec);
            pod
        };
        Changes {
            create: self.needy.iter().take(BURST).map(pod).collect(),
            delete: self.delete.into_iter().take(BURST).cloned().collect(),
            ..self.changes
        }
    }
}

fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

/// The spec of the set's pods, with the tolerations of daemon sets.
fn pod_spec(set: &DaemonSet) -> PodSpec {
    let mut spec = set.spec.as_ref().and_then(|spec| spec.template.spec.clone()).unwrap_or_default();
    placement::tolerate(&mut spec);
    spec
}

/// The pods of each node, those on it first, then the oldest. A pod that has ended and is being deleted is none.
fn by_node(pods: &[Arc<Pod>]) -> BTreeMap<&str, Vec<&Arc<Pod>>> {
    let mut nodes: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !(is_terminal(pod) && pod.metadata.deletion_timestamp.is_some())) {
        if let Some(node) = placement::target(pod) {
            nodes.entry(node).or_default().push(pod);
        }
    }
    for pods in nodes.values_mut() {
        pods.sort_by_key(|pod| (pod::node(pod).is_empty(), pod.creation_timestamp(), pod.name_any()));
    }
    nodes
}

pub(super) fn status(
    set: &DaemonSet,
    hash: &str,
    nodes: &[Arc<Node>],
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> DaemonSetStatus {
    let template = pod_spec(set);
    let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default();
    let pods = by_node(pods);
    let (wanted, unwanted): (Vec<_>, Vec<_>) =
        nodes.iter().partition(|node| placement::place(&template, node) == Place::Run);
    let first: Vec<_> = wanted.iter().filter_map(|node| pods.get(name(node))?.first().copied()).collect();
    let desired = count(&wanted);
    let available = count(first.iter().filter(|pod| is_available(pod, min_ready, now)));
    DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: count(&first),
        number_misscheduled: count(unwanted.iter().filter(|node| pods.contains_key(name(node)))),
        number_ready: count(first.iter().filter(|pod| is_ready(pod))),
        number_available: nonzero(available),
        number_unavailable: nonzero(desired - available),
        updated_number_scheduled: nonzero(count(
            first.iter().filter(|pod| pod.labels().get(HASH).is_some_and(|of| of == hash)),
        )),
        observed_generation: set.metadata.generation,
        collision_count: set.status.as_ref().and_then(|status| status.collision_count),
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    }
}

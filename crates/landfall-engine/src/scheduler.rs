//! The scheduler: gives each pod that has no node the best one that can take it.
//!
//! One loop owns the view of the cluster and the queue. Placing is a function of the view (`place`); what it decides is
//! written by tasks beside the loop, and counts from the moment it is decided: the next pod sees the node as taken.
//!
//! Not handled: several profiles, extenders, and dynamic resource allocation.

mod cluster;
mod effects;
mod filter;
pub(crate) mod matching;
mod place;
mod pod;
mod preemption;
pub(crate) mod quantity;
mod queue;
pub(crate) mod requests;
mod score;
mod topology;
mod volumes;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::cluster::ClusterView;
use self::effects::{Done, Effects};
use self::filter::Candidate;
use self::matching::{LabelMatcher, Labels};
use self::pod::PodInfo;
use self::preemption::Budget;
use self::queue::Queue;
use self::volumes::VolumeDemand;
use crate::cache::{Change, ObjectKey, controller_of};
use crate::context::Context;
use crate::event::Recorder;
use crate::tasks;

/// The name under which pods ask for this scheduler.
const NAME: &str = "default-scheduler";

/// What Kubernetes' scheduler says of dynamic resources, of which no pod here claims any, before it speaks of preemption.
const NO_CLAIMS: &str = "no new claims to deallocate";

/// How many decisions may be on their way to the API server.
const IN_FLIGHT: usize = 128;

/// How many pods are placed before changes are looked at again.
const BATCH: usize = 64;

/// How often pods are looked for that have waited very long.
const SWEEP: Duration = Duration::from_secs(30);

/// Whether a pod has come to its end and takes nothing any more.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Places pods until cancelled; what has been decided is written first. The caches must be synced.
pub(crate) async fn run(context: Context, recorder: &Recorder, cancel: CancellationToken) {
    let effects = Effects::new(&context, recorder.component(NAME));
    let mut scheduler = Scheduler {
        context,
        effects,
        view: ClusterView::default(),
        queue: Queue::default(),
        binding: HashMap::new(),
        tasks: JoinSet::new(),
    };
    scheduler.run(&cancel).await;
    scheduler.tasks.join_all().await;
}

struct Scheduler {
    context: Context,
    effects: Effects,
    view: ClusterView,
    queue: Queue,
    /// Where pods are about to go.
    binding: HashMap<ObjectKey, (Arc<PodInfo>, String)>,
    tasks: JoinSet<Done>,
}

impl Scheduler {
    async fn run(&mut self, cancel: &CancellationToken) {
        let caches = self.context.caches.clone();
        let mut pods = caches.pods.subscribe();
        let mut nodes = caches.nodes.subscribe();
        let mut namespaces = caches.namespaces.subscribe();
        let mut claims = caches.persistent_volume_claims.subscribe();
        let mut volumes = caches.persistent_volumes.subscribe();
        let mut classes = caches.storage_classes.subscribe();
        let mut sweep = tokio::time::interval(SWEEP);
        self.look_again();
        loop {
            self.place_some();
            let next = self.queue.next(Instant::now()).filter(|_| self.tasks.len() < IN_FLIGHT);
            let wake = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // Every arm may be dropped half-way: receiving from channels and join sets loses nothing.
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                change = nodes.recv() => match change {
                    Ok(change) => self.node_changed(&change),
                    Err(RecvError::Lagged(_)) => self.look_again(),
                    Err(RecvError::Closed) => return,
                },
                change = pods.recv() => {
                    let mut change = match change {
                        Ok(change) => Ok(change),
                        Err(RecvError::Lagged(lagged)) => Err(TryRecvError::Lagged(lagged)),
                        Err(RecvError::Closed) => return,
                    };
                    // All that have come, so that a burst of pods is ordered by priority.
                    loop {
                        match change {
                            Ok(ref change) => self.pod_changed(change),
                            Err(TryRecvError::Lagged(_)) => self.look_again(),
                            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                        }
                        change = pods.try_recv();
                    }
                }
                change = namespaces.recv() => match change {
                    Ok(change) => self.namespace_changed(&change),
                    Err(_) => self.look_again(),
                },
                Some(ended) = self.tasks.join_next() => if let Some(done) = tasks::result(ended) {
                    self.finish(&done);
                },
                _ = claims.recv() => self.queue.wake_all(),
                _ = volumes.recv() => self.queue.wake_all(),
                _ = classes.recv() => self.queue.wake_all(),
                _ = sweep.tick() => self.queue.wake_old(Instant::now()),
                () = wake => {}
            }
        }
    }

    /// Forgets what it thinks and reads everything: at the start, and when it could not follow.
    fn look_again(&mut self) {
        self.view = ClusterView::default();
        for namespace in self.context.caches.namespaces.list() {
            self.namespace_changed(&Change::Applied { old: None, new: namespace });
        }
        for node in self.context.caches.nodes.list() {
            self.view.set_node(&node);
        }
        for (pod, node) in self.binding.values() {
            self.view.place(Arc::clone(pod), node);
        }
        for pod in self.context.caches.pods.list() {
            self.pod_changed(&Change::Applied { old: None, new: pod });
        }
        self.queue.wake_all();
    }

    fn namespace_changed(&mut self, change: &Change<Namespace>) {
        let namespace = change.object();
        let labels = namespace.metadata.labels.clone().unwrap_or_default();
        let labels = matches!(change, Change::Applied { .. }).then_some(labels);
        self.view.set_namespace(namespace.metadata.name.as_deref().unwrap_or_default(), labels);
        let same =
            matches!(change, Change::Applied { old: Some(old), new } if old.metadata.labels == new.metadata.labels);
        if !same {
            self.queue.wake_sociable();
        }
    }

    fn node_changed(&mut self, change: &Change<Node>) {
        match change {
            Change::Applied { old, new } => {
                self.view.set_node(new);
                let of = |node: &Node| {
                    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.clone());
                    (node.metadata.labels.clone(), node.spec.clone(), allocatable)
                };
                if old.as_ref().is_none_or(|old| of(old) != of(new)) {
                    self.queue.wake_all();
                }
            }
            Change::Deleted { old } => {
                self.view.remove_node(old.metadata.name.as_deref().unwrap_or_default());
                self.queue.wake_sociable();
            }
        }
    }

    fn pod_changed(&mut self, change: &Change<Pod>) {
        let pod = change.object();
        let key = ObjectKey::of(&**pod);
        let gone = matches!(change, Change::Deleted { .. }) || is_finished(pod);
        if gone {
            self.queue.remove(&key);
            let held = self.view.is_placed(&key) || self.view.has_nominated(&key);
            if held && !self.binding.contains_key(&key) {
                self.view.remove_pod(&key);
                self.queue.wake_all();
            }
            return;
        }
        let info = self.view.read(pod);
        if let Some(node) = info.node.clone() {
            self.queue.remove(&key);
            let (Change::Applied { new, .. } | Change::Deleted { old: new }) = change;
            let news = match change {
                Change::Applied { old: Some(old), .. } => old.metadata.labels != new.metadata.labels,
                _ => true,
            };
            let arrived = !self.view.is_placed(&key);
            self.view.place(Arc::new(info), &node);
            if news || arrived {
                self.queue.wake_sociable();
            }
            return;
        }
        if !is_ours(pod) {
            self.queue.remove(&key);
            self.view.remove_pod(&key);
            return;
        }
        let asks_the_same = match change {
            Change::Applied { old: Some(old), new } => {
                old.spec == new.spec
                    && old.metadata.labels == new.metadata.labels
                    && old.metadata.uid == new.metadata.uid
            }
            _ => false,
        };
        if self.binding.contains_key(&key) || (asks_the_same && self.queue.contains(&key)) {
            return;
        }
        let sociable = !info.class.affinity.is_empty() || !info.spread.is_empty();
        let nominated = info.nominated.clone();
        self.queue.add(key.clone(), info.priority, sociable);
        if let Some(node) = nominated {
            self.view.nominate(&key, Some((&node, Arc::new(info))));
        }
    }

    fn place_some(&mut self) {
        for _ in 0..BATCH {
            if self.tasks.len() >= IN_FLIGHT {
                return;
            }
            let Some(key) = self.queue.pop(Instant::now()) else { return };
            match self.context.caches.pods.get(&key).filter(|pod| is_ours(pod)) {
                Some(pod) => self.place_one(key, &pod),
                None => self.queue.remove(&key),
            }
        }
    }

    fn place_one(&mut self, key: ObjectKey, pod: &Arc<Pod>) {
        let mut info = self.view.read(pod);
        if let Some(selector) = self.workload_selector(pod) {
            info.spread_by_default(&selector);
        }
        let info = Arc::new(info);
        let volumes = VolumeDemand::of(pod, &self.context.caches);
        let candidate = Candidate { pod: &info, volumes: &volumes };
        match place::place(&candidate, &self.view) {
            Ok(node) => {
                let view = self.view.node(&node).expect("placing chooses among the nodes of the view");
                let bindings = volumes.choose(&view.node).unwrap_or_default();
                self.view.place(Arc::clone(&info), &node);
                self.queue.wake_sociable();
                self.tasks.spawn(self.effects.clone().bind(Arc::clone(pod), node.clone(), bindings));
                self.binding.insert(key, (info, node));
            }
            Err(unschedulable) => {
                let mut message = unschedulable.message();
                let mut nominated = None;
                if unschedulable.has_nodes() {
                    let budgets = self.budgets();
                    match preemption::preempt(&candidate, &unschedulable, &mut self.view, &budgets) {
                        Ok(eviction) => {
                            self.view.nominate(&key, Some((&eviction.node, Arc::clone(&info))));
                            nominated = Some(eviction.node.clone());
                            self.tasks.spawn(self.effects.clone().evict(Arc::clone(pod), eviction));
                        }
                        Err(reason) => message = format!("{message} {NO_CLAIMS}, preemption: {reason}"),
                    }
                }
                self.queue.put_back(&key, Instant::now());
                self.tasks.spawn(self.effects.clone().tell(Arc::clone(pod), message, nominated));
            }
        }
    }

    fn finish(&mut self, done: &Done) {
        let Done::Bound { key, succeeded } = done else { return };
        let Some((info, _)) = self.binding.remove(key) else { return };
        if *succeeded {
            self.queue.remove(key);
            // Gone while it was being bound: what the cache said then was not listened to.
            if self.context.caches.pods.get(key).is_none_or(|pod| is_finished(&pod)) {
                self.view.remove_pod(key);
                self.queue.wake_all();
            }
            return;
        }
        let current = self.context.caches.pods.get(key);
        if current.as_ref().is_some_and(|pod| is_ours(pod)) {
            self.view.remove_pod(key);
            if !self.queue.contains(key) {
                self.queue.add(key.clone(), info.priority, false);
                self.queue.pop(Instant::now());
            }
            self.queue.put_back(key, Instant::now());
            self.queue.wake_all();
        } else if current.is_none() {
            self.view.remove_pod(key);
            self.queue.remove(key);
        }
    }

    fn budgets(&self) -> Vec<Budget> {
        let budgets = self.context.caches.pod_disruption_budgets.list();
        let budget = |budget: &Arc<k8s_openapi::api::policy::v1::PodDisruptionBudget>| Budget {
            namespace: budget.metadata.namespace.clone().unwrap_or_default(),
            selector: LabelMatcher::read(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref())),
            allowed: budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or_default(),
        };
        budgets.iter().map(budget).collect()
    }

    /// Which pods are of the same workload: those that the pod's services and its controller select.
    fn workload_selector(&self, pod: &Pod) -> Option<LabelMatcher> {
        let caches = &self.context.caches;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let mut of_services = Labels::new();
        for service in caches.services.in_namespace(namespace) {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            if let Some(selector) = selector.filter(|selector| !selector.is_empty())
                && LabelMatcher::exactly(selector).matches(&labels)
            {
                of_services.extend(selector.clone());
            }
        }
        let owner = controller_of(pod).and_then(|owner| {
            let key = ObjectKey::new(namespace, &owner.name);
            match owner.kind.as_str() {
                "ReplicaSet" => Some(caches.replica_sets.get(&key)?.spec.as_ref()?.selector.clone()),
                "StatefulSet" => Some(caches.stateful_sets.get(&key)?.spec.as_ref()?.selector.clone()),
                _ => None,
            }
        });
        if of_services.is_empty() && owner.is_none() {
            return None;
        }
        let matcher = LabelMatcher::exactly(&of_services);
        Some(match owner {
            Some(selector) => matcher.and_selector(&selector),
            None => matcher,
        })
    }
}

/// Whether a pod waits for this scheduler.
fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.node_name.as_deref().unwrap_or_default().is_empty()
        && spec.scheduler_name.as_deref().is_none_or(|name| name == NAME)
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
        && pod.metadata.deletion_timestamp.is_none()
        && !is_finished(pod)
}

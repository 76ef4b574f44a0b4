//! Nodes that stop answering: their conditions, their taints, and the pods that must leave them.
//!
//! What is decided about all nodes together, zone by zone, is `monitor`; which pods a taint drives away and when is
//! `eviction`. Pods of a lost node are only *marked* for deletion: as long as its node agent does not confirm their end,
//! they stay, so that no StatefulSet ever runs one of its pods twice.

mod eviction;
mod monitor;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;

use self::monitor::{Monitor, Step};
use super::{Action, ReconcileError, Reconciler, Triggers};
use crate::cache::ObjectKey;
use crate::context::Context;
use crate::event::Recorder;
use crate::scheduler::{is_finished, matching};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// How long things take. The defaults are those of kube-controller-manager
/// (<https://kubernetes.io/docs/reference/command-line-tools-reference/kube-controller-manager/>).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// How often nodes are looked at (`--node-monitor-period`).
    pub(crate) period: Duration,
    /// How long a node may be silent (`--node-monitor-grace-period`; 40 s before Kubernetes 1.32).
    pub(crate) grace: Duration,
    /// How long a new node may take to speak (`--node-startup-grace-period`).
    pub(crate) startup_grace: Duration,
    /// The time between two nodes of a zone whose pods are driven away (`--node-eviction-rate`, 0.1 a second).
    pub(crate) between_nodes: Duration,
    /// The same when most of a large zone is silent (`--secondary-node-eviction-rate`, 0.01 a second).
    pub(crate) between_nodes_of_disrupted_zone: Duration,
}

impl Timing {
    pub(crate) const DEFAULT: Self = Self {
        period: Duration::from_secs(5),
        grace: Duration::from_secs(50),
        startup_grace: Duration::from_mins(1),
        between_nodes: Duration::from_secs(10),
        between_nodes_of_disrupted_zone: Duration::from_secs(100),
    };
}

pub(crate) struct NodeLifecycleController {
    context: Context,
    recorder: Recorder,
    timing: Timing,
    monitor: Mutex<Monitor>,
    /// Since when each pod has been under a taint that it tolerates for a while, by uid.
    tolerating: Mutex<HashMap<String, Instant>>,
}

impl NodeLifecycleController {
    pub(crate) fn new(context: Context, recorder: &Recorder, timing: Timing) -> Self {
        Self {
            context,
            recorder: recorder.component("node-controller"),
            timing,
            monitor: Mutex::new(Monitor::new(timing)),
            tolerating: Mutex::default(),
        }
    }

    async fn look_at_all(&self) -> Result<(), ReconcileError> {
        let caches = &self.context.caches;
        let nodes = caches.nodes.list();
        let renewed = |name: &str| {
            let lease = caches.leases.get(&ObjectKey::new("kube-node-lease", name))?;
            lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0)
        };
        let steps = {
            let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
            monitor.look(Instant::now(), &nodes, renewed)
        };
        let mut result = Ok(());
        for step in steps {
            // One node that cannot be written does not hold up the others; what failed is seen again next time.
            result = result.and(self.perform(&step).await);
        }
        result
    }

    async fn perform(&self, step: &Step) -> Result<(), ReconcileError> {
        match step {
            Step::Registered(node) => {
                let text = format!("Node {0} event: Registered Node {0} in Controller", node.name_any());
                self.recorder.normal(&**node, "RegisteredNode", text);
                Ok(())
            }
            Step::Silent(node) => self.mark_unknown(node).await,
            Step::PodsNotReady(node) => {
                let text = format!("Node {} status is now: NodeNotReady", node.name_any());
                self.recorder.normal(&**node, "NodeNotReady", text);
                for pod in self.context.caches.pods.indexed_by(&node.name_any()) {
                    self.mark_not_ready(&pod).await?;
                }
                Ok(())
            }
            Step::Taint { node, key } => {
                let other = if *key == NOT_READY { UNREACHABLE } else { NOT_READY };
                self.retaint(node, "NoExecute", &[key], &[other]).await
            }
            Step::Untaint(node) => self.retaint(node, "NoExecute", &[], &[NOT_READY, UNREACHABLE]).await,
        }
    }

    async fn mark_unknown(&self, node: &Node) -> Result<(), ReconcileError> {
        let now = seconds(self.context.clock.now());
        let conditions = monitor::unknown_conditions(node, &now);
        let patch = json!({ "status": { "conditions": conditions } });
        let nodes: Api<Node> = Api::all(self.context.client.clone());
        let answer = nodes.patch_status(&node.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await;
        let answer = answer.map_err(ReconcileError::request("mark a node as unknown"))?;
        if self.context.caches.nodes.reached(&answer).await { Ok(()) } else { Err(ReconcileError::Behind) }
    }

    async fn mark_not_ready(&self, pod: &Pod) -> Result<(), ReconcileError> {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        if !conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
            return Ok(());
        }
        // Since when a pod is ready, or is not, is told by the clock of the machine, whoever writes it: see `crate::clock`.
        let now = seconds(jiff::Timestamp::now());
        let condition = json!({ "type": "Ready", "status": "False", "lastTransitionTime": now });
        let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
        match self.pods_of(pod).patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
            Err(error) if !is_gone(&error) => Err(ReconcileError::request("mark a pod as not ready")(error)),
            Err(_) => Ok(()),
            Ok(_) => {
                self.recorder.warning(pod, "NodeNotReady", "Node is not ready");
                Ok(())
            }
        }
    }

    /// Sets the taints `add` and takes `remove` away, all of one effect.
    async fn retaint(&self, node: &Node, effect: &str, add: &[&str], remove: &[&str]) -> Result<(), ReconcileError> {
        // Written just before, perhaps: the newest state decides.
        let Some(node) = self.context.caches.nodes.get(&ObjectKey::of(node)) else { return Ok(()) };
        let old = matching::taints(&node);
        let mut taints: Vec<Taint> = old.to_vec();
        taints.retain(|taint| taint.effect != effect || !remove.contains(&taint.key.as_str()));
        for key in add {
            if !taints.iter().any(|taint| taint.effect == effect && taint.key == *key) {
                taints.push(Taint {
                    key: (*key).to_owned(),
                    effect: effect.to_owned(),
                    time_added: Some(Time(self.context.clock.now().round(jiff::Unit::Second).unwrap_or_default())),
                    value: None,
                });
            }
        }
        if taints == old {
            return Ok(());
        }
        let patch = json!({
            "metadata": { "resourceVersion": node.metadata.resource_version },
            "spec": { "taints": taints },
        });
        let nodes: Api<Node> = Api::all(self.context.client.clone());
        let answer = nodes.patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
        let answer = answer.map_err(ReconcileError::request("change the taints of a node"))?;
        if self.context.caches.nodes.reached(&answer).await { Ok(()) } else { Err(ReconcileError::Behind) }
    }

    /// Keeps new pods away from a node by its conditions, and ends those that its taints drive away. Says when to look
    /// again.
    async fn look_at_one(&self, node: &Arc<Node>) -> Result<Action, ReconcileError> {
        let wanted = monitor::condition_taints(node);
        let unwanted: Vec<&str> =
            monitor::CONDITION_TAINTS.iter().copied().filter(|key| !wanted.contains(key)).collect();
        self.retaint(node, "NoSchedule", &wanted, &unwanted).await?;
        // Each pod of a large node comes by here several times: mostly there is nothing to look for.
        let drives_away = matching::taints(node).iter().any(|taint| taint.effect == "NoExecute");
        if !drives_away && self.tolerating.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return Ok(Action::AwaitChange);
        }
        let mut next: Option<Duration> = None;
        for pod in self.context.caches.pods.indexed_by(&node.name_any()) {
            if pod.metadata.deletion_timestamp.is_some() || is_finished(&pod) {
                continue;
            }
            match self.time_left(&pod, node) {
                None => {}
                Some(Duration::ZERO) => self.drive_away(&pod).await?,
                Some(left) => next = Some(next.map_or(left, |next| next.min(left))),
            }
        }
        Ok(next.map_or(Action::AwaitChange, Action::RequeueAfter))
    }

    /// How long a pod may stay under the taints of its node; None: as long as it likes.
    fn time_left(&self, pod: &Pod, node: &Node) -> Option<Duration> {
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut tolerating = self.tolerating.lock().unwrap_or_else(PoisonError::into_inner);
        match eviction::patience(matching::taints(node), tolerations) {
            eviction::Patience::Unlimited => {
                if tolerating.remove(&uid).is_some() {
                    let text = format!("Cancelling deletion of Pod {}", ObjectKey::of(pod));
                    self.recorder.normal(pod, "TaintManagerEviction", text);
                }
                None
            }
            eviction::Patience::Limited(patience) => {
                let since = *tolerating.entry(uid).or_insert_with(Instant::now);
                Some((since + patience).saturating_duration_since(Instant::now()))
            }
        }
    }

    async fn drive_away(&self, pod: &Pod) -> Result<(), ReconcileError> {
        self.recorder.normal(pod, "TaintManagerEviction", format!("Marking for deletion Pod {}", ObjectKey::of(pod)));
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": seconds(self.context.clock.now()), "observedGeneration": pod.metadata.generation,
        });
        let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
        let pods = self.pods_of(pod);
        let same = kube::api::Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let delete = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
        let ended = async {
            pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await?;
            pods.delete(&pod.name_any(), &delete).await
        };
        match ended.await {
            Err(error) if !is_gone(&error) => Err(ReconcileError::request("delete a pod of a tainted node")(error)),
            _ => {
                let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                self.tolerating.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
                Ok(())
            }
        }
    }

    fn pods_of(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.context.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default())
    }
}

impl Reconciler for NodeLifecycleController {
    /// A node; without a name, all of them together.
    type Key = ObjectKey;

    const NAME: &'static str = "node-lifecycle";

    fn watch(&self, triggers: &mut Triggers<Self::Key>) {
        triggers.on_each(&self.context.caches.nodes);
        triggers.on(&self.context.caches.pods, |pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            node.map(|node| ObjectKey::new("", node)).into_iter().collect()
        });
        triggers.every(self.timing.period, ObjectKey::new("", ""));
    }

    async fn reconcile(&self, key: &Self::Key) -> Result<Action, ReconcileError> {
        if key.name.is_empty() {
            self.look_at_all().await?;
            return Ok(Action::AwaitChange);
        }
        match self.context.caches.nodes.get(key) {
            Some(node) => self.look_at_one(&node).await,
            None => Ok(Action::AwaitChange),
        }
    }
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}

/// A time, to the second, as the API has it.
fn seconds(time: jiff::Timestamp) -> String {
    time.round(jiff::Unit::Second).unwrap_or(time).to_string()
}

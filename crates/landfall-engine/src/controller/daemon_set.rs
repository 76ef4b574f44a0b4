//! Runs one pod of a `DaemonSet` on each node that it wants and tolerates.

mod placement;
mod plan;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt as _};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::claim::{claim, selector, selects};
use super::pod_control::{PodControl, api};
use super::revision::{Present, Synced};
use super::{Action, ReconcileError, Reconciler, Triggers, pod, status};
use crate::cache::{ObjectKey, controller_of};
use crate::context::{Caches, Context};
use crate::event::{EventType, Recorder, reference_to};

/// The first and the longest wait before a failed pod is replaced, as in Kubernetes.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_mins(15);

pub(super) fn start(context: &Context, recorder: &Recorder, cancel: &CancellationToken, tasks: &mut JoinSet<()>) {
    let recorder = recorder.component("daemonset-controller");
    let pods = PodControl { context: context.clone(), recorder };
    super::spawn(DaemonSets { pods, failures: Mutex::default() }, cancel, tasks);
}

struct DaemonSets {
    pods: PodControl,
    failures: Mutex<HashMap<String, Failure>>,
}

/// When a pod of a set was last replaced on a node because it had failed, and how long until the next time.
struct Failure {
    at: Instant,
    wait: Duration,
}

impl Reconciler for DaemonSets {
    type Key = ObjectKey;
    const NAME: &'static str = "daemonset";

    fn watch(&self, triggers: &mut Triggers<ObjectKey>) {
        let caches = &self.pods.context.caches;
        triggers.on_each(&caches.daemon_sets);
        let of_pods = caches.clone();
        triggers.on(&caches.pods, move |pod| owners(&of_pods, pod));
        triggers.on(&caches.controller_revisions, |revision| {
            let owner = controller_of(revision).filter(|owner| owner.kind == "DaemonSet");
            owner
                .map(|owner| ObjectKey::new(&revision.namespace().unwrap_or_default(), &owner.name))
                .into_iter()
                .collect()
        });
        let of_nodes = caches.clone();
        triggers.on_change(&caches.nodes, move |old, new| {
            // Nodes report their status all the time, and placing does not ask for it.
            let asked = |node: &Node| (node.metadata.labels.clone(), node.spec.clone());
            if old.map(asked) == new.map(asked) {
                return Vec::new();
            }
            of_nodes.daemon_sets.list().iter().map(|set| ObjectKey::of(&**set)).collect()
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let context = &self.pods.context;
        let caches = &context.caches;
        let Some(set) = caches.daemon_sets.get(key) else { return Ok(Action::AwaitChange) };
        let Some(spec) = &set.spec else { return Ok(Action::AwaitChange) };
        let Some(selector) = selector(Some(&spec.selector)) else { return Ok(Action::AwaitChange) };

        let mut pods = claim(context, &*set, &selector, &caches.pods, &|_| true).await?;
        let present = Present {
            owner: &*set,
            selector: &selector,
            template: &spec.template,
            hash_label: plan::HASH,
            collisions: set.status.as_ref().and_then(|status| status.collision_count),
        };
        let history = match present.sync(context).await? {
            Synced::History(history) => history,
            Synced::Collision(collisions) => {
                let new =
                    DaemonSetStatus { collision_count: Some(collisions), ..set.status.clone().unwrap_or_default() };
                self.write_status(&set, &new).await?;
                return Err(ReconcileError::Behind);
            }
        };
        let hash = history.update.labels().get(plan::HASH).cloned().unwrap_or_default();
        let nodes = caches.nodes.list();
        let mut managed = Ok(());
        let mut retry = None;
        if set.metadata.deletion_timestamp.is_none() {
            let uid = set.uid().unwrap_or_default();
            let changes = plan::plan(&set, &hash, &nodes, &pods, |node| self.backoff(&uid, node), Timestamp::now());
            retry = changes.retry;
            for (type_, reason, message) in changes.events {
                let type_ = if type_ == "Warning" { EventType::Warning } else { EventType::Normal };
                self.pods.recorder.record(reference_to(&*set), type_, reason, message);
            }
            managed = self.pods.create(&*set, changes.create).await;
            if managed.is_ok() {
                managed = self.pods.delete(&*set, &changes.delete).await;
            }
            pods = caches.pods.owned_by(&uid);
            pods.retain(|pod| selects(&selector, &**pod));
        }
        let now = Timestamp::now();
        self.write_status(&set, &plan::status(&set, &hash, &nodes, &pods, now)).await?;
        managed?;
        let in_use = |revision: &ControllerRevision| {
            let hash = revision.labels().get(plan::HASH);
            pods.iter().any(|pod| pod.labels().get(plan::HASH) == hash)
        };
        history.truncate(context, &*set, spec.revision_history_limit, in_use).await?;
        let next = pod::next_available(&pods, spec.min_ready_seconds.unwrap_or_default(), now);
        let next = next.into_iter().chain(retry).min();
        Ok(next.map_or(Action::AwaitChange, Action::RequeueAfter))
    }
}

impl DaemonSets {
    /// How long to wait before a failed pod on this node is replaced; asking for a replacement that may be counts as one.
    fn backoff(&self, set: &str, node: &str) -> Option<Duration> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        failures.retain(|_, failure| now - failure.at < 2 * MAX_BACKOFF);
        let key = format!("{set}/{node}");
        let Some(failure) = failures.get_mut(&key) else {
            failures.insert(key, Failure { at: now, wait: MIN_BACKOFF });
            return None;
        };
        let left = failure.wait.saturating_sub(now - failure.at);
        if !left.is_zero() {
            return Some(left);
        }
        *failure = Failure { at: now, wait: (2 * failure.wait).min(MAX_BACKOFF) };
        None
    }

    async fn write_status(&self, set: &DaemonSet, new: &DaemonSetStatus) -> Result<(), ReconcileError> {
        let sets: Api<DaemonSet> = api(&self.pods.context, set);
        let operation = "write the status of a daemon set";
        let written = status::write(&sets, &set.name_any(), set.status.as_ref(), new, operation).await?;
        match written {
            Some(written) if !self.pods.context.caches.daemon_sets.reached(&written).await => {
                Err(ReconcileError::Behind)
            }
            _ => Ok(()),
        }
    }
}

/// The daemon set that a pod belongs to, or those that might adopt it.
fn owners(caches: &Caches, pod: &Pod) -> Vec<ObjectKey> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(owner) = controller_of(pod) {
        return (owner.kind == "DaemonSet").then(|| ObjectKey::new(namespace, &owner.name)).into_iter().collect();
    }
    let sets = caches.daemon_sets.in_namespace(namespace);
    let might = sets.iter().filter(|set| {
        let selector = set.spec.as_ref().and_then(|spec| selector(Some(&spec.selector)));
        selector.is_some_and(|selector| selects(&selector, pod))
    });
    might.map(|set| ObjectKey::of(&**set)).collect()
}

//! Keeps as many pods of a template alive as a `ReplicaSet` asks for.

mod plan;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::claim::{claim, selector, selects};
use super::pod_control::{PodControl, api, message};
use super::{Action, ReconcileError, Reconciler, Triggers, pod, status};
use crate::cache::{ObjectKey, controller_of};
use crate::context::{Caches, Context};
use crate::event::Recorder;

pub(super) fn start(context: &Context, recorder: &Recorder, cancel: &CancellationToken, tasks: &mut JoinSet<()>) {
    let recorder = recorder.component("replicaset-controller");
    let pods = PodControl { context: context.clone(), recorder };
    super::spawn(ReplicaSets { pods }, cancel, tasks);
}

struct ReplicaSets {
    pods: PodControl,
}

impl Reconciler for ReplicaSets {
    type Key = ObjectKey;
    const NAME: &'static str = "replicaset";

    fn watch(&self, triggers: &mut Triggers<ObjectKey>) {
        let caches = self.pods.context.caches.clone();
        triggers.on_each(&caches.replica_sets);
        triggers.on(&caches.pods.clone(), move |pod| owners(&caches, pod));
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let context = &self.pods.context;
        let Some(set) = context.caches.replica_sets.get(key) else { return Ok(Action::AwaitChange) };
        let Some(spec) = &set.spec else { return Ok(Action::AwaitChange) };
        let Some(selector) = selector(Some(&spec.selector)) else { return Ok(Action::AwaitChange) };
        let uid = set.uid().unwrap_or_default();

        let mut owned = claim(context, &*set, &selector, &context.caches.pods, &pod::is_active).await?;
        let mut managed = Ok(());
        if set.metadata.deletion_timestamp.is_none() {
            let related = || self.siblings(&set);
            let changes = plan::plan(&set, &owned, related, Timestamp::now());
            managed = self.pods.create(&*set, changes.create).await;
            if managed.is_ok() {
                managed = self.pods.delete(&*set, &changes.delete).await;
            }
            owned = context.caches.pods.owned_by(&uid);
            owned.retain(|pod| selects(&selector, &**pod));
        }

        let failure = managed.as_ref().err().and_then(|error| match error {
            ReconcileError::Request { source, .. } => Some(message(source)),
            _ => None,
        });
        let now = Timestamp::now();
        let new = plan::status(&set, &owned, failure.as_deref(), now);
        let sets: Api<ReplicaSet> = api(context, &*set);
        let operation = "write the status of a replica set";
        if let Some(written) = status::write(&sets, &key.name, set.status.as_ref(), &new, operation).await?
            && !context.caches.replica_sets.reached(&written).await
        {
            return Err(ReconcileError::Behind);
        }
        managed?;
        let next = pod::next_available(&owned, spec.min_ready_seconds.unwrap_or_default(), now);
        Ok(next.map_or(Action::AwaitChange, Action::RequeueAfter))
    }
}

impl ReplicaSets {
    /// The pods of all replica sets of the same owner: what crowds a node.
    fn siblings(&self, set: &ReplicaSet) -> Vec<std::sync::Arc<Pod>> {
        let caches = &self.pods.context.caches;
        let sets = match controller_of(set) {
            Some(owner) => caches.replica_sets.owned_by(&owner.uid),
            None => Vec::new(),
        };
        let own = set.uid().unwrap_or_default();
        let uids = sets.iter().filter_map(|set| set.uid()).filter(|uid| *uid != own);
        std::iter::once(own.clone()).chain(uids).flat_map(|uid| caches.pods.owned_by(&uid)).collect()
    }
}

/// The replica set that a pod belongs to, or those that might adopt it.
fn owners(caches: &Caches, pod: &Pod) -> Vec<ObjectKey> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(owner) = controller_of(pod) {
        return (owner.kind == "ReplicaSet").then(|| ObjectKey::new(namespace, &owner.name)).into_iter().collect();
    }
    let sets = caches.replica_sets.in_namespace(namespace);
    let might = sets.iter().filter(|set| {
        let selector = set.spec.as_ref().and_then(|spec| selector(Some(&spec.selector)));
        selector.is_some_and(|selector| selects(&selector, pod))
    });
    might.map(|set| ObjectKey::of(&**set)).collect()
}

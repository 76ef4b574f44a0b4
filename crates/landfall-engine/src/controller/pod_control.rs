//! Creates and deletes pods for a controller, says so in events, and waits until the cache knows.

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Resource, ResourceExt as _};

use super::{FIELD_MANAGER, ReconcileError};
use crate::cache::{Kind, ObjectKey};
use crate::context::Context;
use crate::event::Recorder;

/// How many pods a controller creates or deletes before it looks at the world again.
pub(super) const BURST: usize = 500;

/// Writes pods on behalf of one controller.
pub(super) struct PodControl {
    pub(super) context: Context,
    pub(super) recorder: Recorder,
}

impl PodControl {
    /// Creates pods in batches of 1, 2, 4, …; after a failure no more, so that a quota that refuses one pod is not asked a
    /// thousand times.
    pub(super) async fn create<K>(&self, owner: &K, pods: Vec<Pod>) -> Result<(), ReconcileError>
    where
        K: Resource<DynamicType = ()> + Sync,
    {
        let mut pods = pods.into_iter();
        let mut size = 1;
        loop {
            let batch: Vec<_> = pods.by_ref().take(size).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let created = join_all(batch.iter().map(|pod| self.create_one(owner, pod))).await;
            for result in created {
                result?;
            }
            size *= 2;
        }
    }

    /// Creates one pod. That its namespace is going away is not a failure: nothing can be created there any more.
    pub(super) async fn create_one<K>(&self, owner: &K, pod: &Pod) -> Result<(), ReconcileError>
    where
        K: Resource<DynamicType = ()>,
    {
        match self.pods(owner).create(&post_params(), pod).await {
            Ok(created) => {
                self.recorder.normal(owner, "SuccessfulCreate", format!("Created pod: {}", created.name_any()));
                if self.context.caches.pods.reached(&created).await { Ok(()) } else { Err(ReconcileError::Behind) }
            }
            Err(error) if namespace_is_terminating(&error) => Ok(()),
            Err(error) => {
                self.recorder.warning(owner, "FailedCreate", format!("Error creating: {}", message(&error)));
                Err(ReconcileError::Request { operation: "create a pod", source: error })
            }
        }
    }

    /// Deletes pods, all at once. One that is gone already is not a failure.
    pub(super) async fn delete<K>(&self, owner: &K, pods: &[Arc<Pod>]) -> Result<(), ReconcileError>
    where
        K: Resource<DynamicType = ()> + Sync,
    {
        let deleted = join_all(pods.iter().map(|pod| self.delete_one(owner, pod))).await;
        deleted.into_iter().collect()
    }

    async fn delete_one<K>(&self, owner: &K, pod: &Pod) -> Result<(), ReconcileError>
    where
        K: Resource<DynamicType = ()>,
    {
        let name = pod.name_any();
        match self.pods(owner).delete(&name, &delete_params(pod)).await {
            Ok(_) => self.recorder.normal(owner, "SuccessfulDelete", format!("Deleted pod: {name}")),
            // Gone, or another pod of this name is there.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            Err(error) => {
                self.recorder.warning(owner, "FailedDelete", format!("Error deleting: {}", message(&error)));
                return Err(ReconcileError::Request { operation: "delete a pod", source: error });
            }
        }
        if self.context.caches.pods.seen_deleted(&ObjectKey::of(pod), pod).await {
            Ok(())
        } else {
            Err(ReconcileError::Behind)
        }
    }

    fn pods<K: Resource<DynamicType = ()>>(&self, owner: &K) -> Api<Pod> {
        api(&self.context, owner)
    }
}

/// The API for objects of a kind in the namespace of `neighbour`.
pub(super) fn api<K, N>(context: &Context, neighbour: &N) -> Api<K>
where
    K: Kind + Resource<Scope = kube::core::NamespaceResourceScope>,
    N: Resource,
{
    let namespace = neighbour.meta().namespace.as_deref().unwrap_or("default");
    Api::namespaced(context.client.clone(), namespace)
}

pub(super) fn post_params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

/// What the API server said, as it goes into events and conditions.
pub(super) fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

pub(super) fn namespace_is_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.as_ref().map(|details| &details.causes);
    causes.into_iter().flatten().any(|cause| cause.reason == "NamespaceTerminating")
}

/// Deletes this very pod, not another that has its name by now.
pub(super) fn delete_params(pod: &Pod) -> DeleteParams {
    let preconditions = kube::api::Preconditions { uid: pod.uid(), resource_version: None };
    DeleteParams::default().preconditions(preconditions)
}

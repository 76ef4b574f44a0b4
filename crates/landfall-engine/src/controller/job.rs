//! Runs the pods of a Job until enough of them succeed or too many fail, counts each exactly once, and deletes the Job
//! when its time is over.
//!
//! A pod keeps the finalizer `batch.kubernetes.io/job-tracking` until its end is written down as uncounted in the Job's status; it is counted when the
//! finalizer is gone. So nothing is lost or counted twice when pods are deleted or this controller is restarted between two steps.

mod failure_policy;
mod indexes;
mod per_index;
mod plan;
mod status;
mod success_policy;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, Preconditions, PropagationPolicy};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::claim::{claim, selector, selects};
use super::pod_control::{PodControl, api};
use super::status::patch_params;
use super::{Action, ReconcileError, Reconciler, Triggers, pod};
use crate::cache::{ObjectKey, controller_of};
use crate::context::Context;
use crate::event::Recorder;

/// Keeps a pod until its end is counted.
const FINALIZER: &str = "batch.kubernetes.io/job-tracking";

pub(super) fn start(context: &Context, recorder: &Recorder, cancel: &CancellationToken, tasks: &mut JoinSet<()>) {
    let recorder = recorder.component("job-controller");
    let pods = PodControl { context: context.clone(), recorder };
    super::spawn(Jobs { pods, ends: Mutex::default() }, cancel, tasks);
}

struct Jobs {
    pods: PodControl,
    /// By job: when its pods ended, as it was last looked at. Back-off is reckoned from it, which begins anew for a pod that does
    /// not tell its end when the engine does.
    ends: Mutex<HashMap<ObjectKey, plan::Ends>>,
}

impl Reconciler for Jobs {
    type Key = ObjectKey;
    const NAME: &'static str = "job";

    fn watch(&self, triggers: &mut Triggers<ObjectKey>) {
        let caches = &self.pods.context.caches;
        triggers.on_each(&caches.jobs);
        triggers.on(&caches.pods, |pod| owner(pod).into_iter().collect());
        triggers.on_clock(&self.pods.context.clock, &caches.jobs);
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let context = &self.pods.context;
        let job = context.caches.jobs.get(key);
        let managed_here = |job: &&Arc<Job>| {
            let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
            manager.is_none_or(|manager| manager == "kubernetes.io/job-controller")
        };
        let Some(job) = job.as_ref() else {
            self.forget_ends(key);
            self.release_strays(key).await?;
            return Ok(Action::AwaitChange);
        };
        if !managed_here(&job) {
            return Ok(Action::AwaitChange);
        }
        if let Some(finished) = status::finished_at(job) {
            self.forget_ends(key);
            self.release_strays(key).await?;
            return self.expire(job, finished).await;
        }
        let Some(spec) = &job.spec else { return Ok(Action::AwaitChange) };
        let Some(selector) = selector(spec.selector.as_ref()) else { return Ok(Action::AwaitChange) };
        let pods_now = || {
            let mut pods = context.caches.pods.owned_by(&job.uid().unwrap_or_default());
            pods.retain(|pod| selects(&selector, &**pod));
            pods
        };

        let pods = claim(context, &**job, &selector, &context.caches.pods, &|_| true).await?;
        let (now, real_now) = (context.clock.now(), Timestamp::now());
        let verdict = plan::verdict(job, &pods, now);
        let ends = self.ends(key, job, &pods, real_now);
        let step = plan::step(job, &pods, verdict.as_ref(), &ends, real_now);
        let mut managed = Ok(());
        if step.release_deleted {
            managed = self.release(&step.delete).await;
        }
        if managed.is_ok() {
            managed = self.pods.delete(&**job, &step.delete).await;
        }
        if managed.is_ok() {
            managed = self.pods.create(&**job, step.create).await;
        }

        let (counted, release) = status::account(job, &pods_now(), verdict, now);
        let suspension = status::suspension_changed(job, &counted);
        let job = self.write_status(job, &counted).await?;
        if let Some((reason, message)) = suspension {
            self.pods.recorder.normal(&*job, reason, message);
        }
        self.release(&release).await?;
        let concluded = status::conclude(&job, &pods_now(), context.clock.now());
        let job = self.write_status(&job, &concluded).await?;
        self.tell_end(&job);
        managed?;

        let deadline = plan::deadline(&job).map(|deadline| context.clock.until(deadline));
        let next = step.retry.into_iter().chain(deadline).min();
        Ok(next.map_or(Action::AwaitChange, Action::RequeueAfter))
    }
}

impl Jobs {
    /// When the pods of a job ended, by the clock of the machine, which shows `now`.
    fn ends(&self, key: &ObjectKey, job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> plan::Ends {
        let mut known = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = plan::ends(job, pods, known.get(key).unwrap_or(&plan::Ends::new()), now);
        known.insert(key.clone(), ends.clone());
        ends
    }

    fn forget_ends(&self, key: &ObjectKey) {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Lets pods go whose job is gone, or is finished and has counted them.
    async fn release_strays(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        self.release(&self.pods.context.caches.pods.indexed_by(&key.to_string())).await
    }

    /// Removes the finalizer of these pods.
    async fn release(&self, pods: &[Arc<Pod>]) -> Result<(), ReconcileError> {
        let held = pods.iter().filter(|pod| is_tracked(pod));
        let released = join_all(held.map(|pod| async {
            let context = &self.pods.context;
            let api: Api<Pod> = api(context, &**pod);
            let finalizers = json!({ "$deleteFromPrimitiveList/finalizers": [FINALIZER], "uid": pod.uid() });
            let patch = Patch::Strategic(json!({ "metadata": finalizers }));
            match api.patch(&pod.name_any(), &patch_params(), &patch).await {
                // A pod that only waited for this is gone with it.
                Ok(patched) if patched.metadata.deletion_timestamp.is_some() => Ok(()),
                Ok(patched) if context.caches.pods.reached(&patched).await => Ok(()),
                Ok(_) => Err(ReconcileError::Behind),
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
                Err(source) => Err(ReconcileError::Request { operation: "release a pod of a job", source }),
            }
        }));
        released.await.into_iter().collect()
    }

    async fn write_status(&self, job: &Job, new: &JobStatus) -> Result<Arc<Job>, ReconcileError> {
        let jobs: Api<Job> = api(&self.pods.context, job);
        let operation = "write the status of a job";
        match super::status::write(&jobs, &job.name_any(), job.status.as_ref(), new, operation).await? {
            None => Ok(Arc::new(job.clone())),
            Some(written) if self.pods.context.caches.jobs.reached(&written).await => Ok(Arc::new(written)),
            Some(_) => Err(ReconcileError::Behind),
        }
    }

    fn tell_end(&self, job: &Job) {
        let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let Some(end) = conditions.into_iter().find(|condition| status::is_end(condition)) else { return };
        if end.type_ == "Complete" {
            self.pods.recorder.normal(job, "Completed", "Job completed");
        } else {
            let message = end.message.clone().unwrap_or_default();
            self.pods.recorder.warning(job, end.reason.as_deref().unwrap_or_default(), message);
        }
    }

    /// Deletes a finished job when its time to live is over.
    async fn expire(&self, job: &Job, finished: Timestamp) -> Result<Action, ReconcileError> {
        let seconds = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
        let (Some(seconds), None) = (seconds, &job.metadata.deletion_timestamp) else { return Ok(Action::AwaitChange) };
        let clock = &self.pods.context.clock;
        let end = finished + SignedDuration::from_secs(seconds.into());
        if clock.now() < end {
            return Ok(Action::RequeueAfter(clock.until(end)));
        }
        let preconditions = Preconditions { uid: job.uid(), resource_version: job.resource_version() };
        let params =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
        let jobs: Api<Job> = api(&self.pods.context, job);
        match jobs.delete(&job.name_any(), &params.preconditions(preconditions)).await {
            Ok(_) => Ok(Action::AwaitChange),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Action::AwaitChange),
            Err(source) => Err(ReconcileError::Request { operation: "delete an expired job", source }),
        }
    }
}

fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// The job that has to let a pod go before it can end.
pub(crate) fn holder(pod: &Pod) -> Option<ObjectKey> {
    owner(pod).filter(|_| is_tracked(pod))
}

/// The job that a pod belongs to; a pod that was orphaned still carries the name of the one that must let it go.
fn owner(pod: &Pod) -> Option<ObjectKey> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    match controller_of(pod) {
        Some(owner) => (owner.kind == "Job").then(|| ObjectKey::new(namespace, &owner.name)),
        None => {
            let name = pod.labels().get("batch.kubernetes.io/job-name").filter(|_| is_tracked(pod));
            name.map(|name| ObjectKey::new(namespace, name))
        }
    }
}

/// The end of a pod that does not count as a success. With a replacement policy of `Failed`, and with failure policies, a pod
/// that is being deleted has not failed yet.
fn is_failed(job: &Job, pod: &Pod) -> bool {
    let phase = pod::phase(pod);
    phase == "Failed"
        || (!only_replaces_failed(job) && pod.metadata.deletion_timestamp.is_some() && phase != "Succeeded")
}

fn only_replaces_failed(job: &Job) -> bool {
    let spec = job.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.pod_failure_policy.is_some() || spec.pod_replacement_policy.as_deref() == Some("Failed")
    })
}

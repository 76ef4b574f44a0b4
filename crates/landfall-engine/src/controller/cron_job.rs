//! Starts the Jobs of a `CronJob` at their times on the engine's clock, and keeps as many finished ones as it asks for.

mod plan;
mod schedule;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::api::{DeleteParams, PropagationPolicy};
use kube::{Api, ResourceExt as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::pod_control::{api, message, namespace_is_terminating, post_params};
use super::{Action, ReconcileError, Reconciler, Triggers, status};
use crate::cache::{ObjectKey, controller_of};
use crate::context::Context;
use crate::event::{Recorder, reference_to};

pub(super) fn start(context: &Context, recorder: &Recorder, cancel: &CancellationToken, tasks: &mut JoinSet<()>) {
    let recorder = recorder.component("cronjob-controller");
    super::spawn(CronJobs { context: context.clone(), recorder }, cancel, tasks);
}

struct CronJobs {
    context: Context,
    recorder: Recorder,
}

impl Reconciler for CronJobs {
    type Key = ObjectKey;
    const NAME: &'static str = "cronjob";

    fn watch(&self, triggers: &mut Triggers<ObjectKey>) {
        let caches = &self.context.caches;
        triggers.on_each(&caches.cron_jobs);
        triggers.on(&caches.jobs, |job| {
            let owner = controller_of(job).filter(|owner| owner.kind == "CronJob");
            owner.map(|owner| ObjectKey::new(&job.namespace().unwrap_or_default(), &owner.name)).into_iter().collect()
        });
        triggers.on_clock(&self.context.clock, &caches.cron_jobs);
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let caches = &self.context.caches;
        let Some(cron) = caches.cron_jobs.get(key) else { return Ok(Action::AwaitChange) };
        let jobs = caches.jobs.owned_by(&cron.uid().unwrap_or_default());
        let clock = &self.context.clock;
        let plan = plan::plan(&cron, &jobs, clock.now());
        for (type_, reason, message) in &plan.events {
            self.recorder.record(reference_to(&*cron), *type_, reason, message.clone());
        }
        let mut status = plan.status;
        for job in &plan.delete {
            self.delete(&cron, job).await?;
        }
        if let Some((job, time)) = &plan.create {
            let created = self.create(&cron, job).await?;
            plan::note_start(&mut status, reference_to(&created), *time);
        }
        let operation = "write the status of a cron job";
        let cron_jobs: Api<CronJob> = api(&self.context, &*cron);
        let written = status::write(&cron_jobs, &key.name, cron.status.as_ref(), &status, operation).await?;
        if let Some(written) = written
            && !caches.cron_jobs.reached(&written).await
        {
            return Err(ReconcileError::Behind);
        }
        Ok(plan.next.map_or(Action::AwaitChange, |next| Action::RequeueAfter(clock.until(next))))
    }
}

impl CronJobs {
    /// A job that is there already is one that was started before this controller could note it.
    async fn create(&self, cron: &CronJob, job: &Job) -> Result<Job, ReconcileError> {
        let jobs: Api<Job> = api(&self.context, cron);
        let name = job.name_any();
        let created = match jobs.create(&post_params(), job).await {
            Ok(created) => {
                self.recorder.normal(cron, "SuccessfulCreate", format!("Created job {name}"));
                created
            }
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let present = jobs.get(&name).await.map_err(ReconcileError::request("read a job"))?;
                if controller_of(&present).map(|owner| &owner.uid) != cron.uid().as_ref() {
                    return Err(ReconcileError::Invalid(format!("job {name} belongs to somebody else")));
                }
                present
            }
            Err(source) => {
                if !namespace_is_terminating(&source) {
                    let text = format!("Error creating job: {}", message(&source));
                    self.recorder.warning(cron, "FailedCreate", text);
                }
                return Err(ReconcileError::Request { operation: "create a job", source });
            }
        };
        if self.context.caches.jobs.reached(&created).await { Ok(created) } else { Err(ReconcileError::Behind) }
    }

    async fn delete(&self, cron: &CronJob, job: &Job) -> Result<(), ReconcileError> {
        let jobs: Api<Job> = api(&self.context, cron);
        let name = job.name_any();
        let params =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
        match jobs.delete(&name, &params).await {
            Ok(_) => self.recorder.normal(cron, "SuccessfulDelete", format!("Deleted job {name}")),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(source) => {
                self.recorder.warning(cron, "FailedDelete", format!("Deleted job: {}", message(&source)));
                return Err(ReconcileError::Request { operation: "delete a job", source });
            }
        }
        let seen = self.context.caches.jobs.seen_deleted(&ObjectKey::of(job), job).await;
        if seen { Ok(()) } else { Err(ReconcileError::Behind) }
    }
}

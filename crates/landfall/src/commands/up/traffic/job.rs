//! Runs of a scheduled job at once, as `kubectl create job --from=cronjob/NAME` starts them.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::api::PostParams;
use kube::runtime::wait::{await_condition, conditions::Condition};
use kube::{Api, Client};
use landfall_standin::{BEGIN_VARIABLE, Message};
use serde_json::{Value, json};

use super::super::plan::Plan;

/// How long a run may take that is waited for.
const PATIENCE: Duration = Duration::from_mins(2);

/// Starts runs of one job.
#[derive(Clone)]
pub(super) struct JobRuns {
    client: Client,
    namespace: String,
    name: String,
}

impl JobRuns {
    pub(super) fn new(client: Client, plan: &Plan, name: &str) -> anyhow::Result<Self> {
        let rendered =
            plan.objects.iter().find(|object| object["kind"] == "CronJob" && object["metadata"]["name"] == name);
        let namespace = rendered.and_then(|object| object["metadata"]["namespace"].as_str());
        let namespace = namespace.with_context(|| format!("no CronJob `{name}` was rendered"))?.to_owned();
        Ok(Self { client, namespace, name: name.to_owned() })
    }

    /// Starts a run that begins these messages, and waits for its end. In any case it uses each of its edges.
    pub(super) async fn run(&self, messages: &[Message]) -> anyhow::Result<()> {
        let schedules = Api::<CronJob>::namespaced(self.client.clone(), &self.namespace);
        let schedule =
            schedules.get(&self.name).await.with_context(|| format!("failed to read CronJob `{}`", self.name))?;
        let job = self.job(&schedule, messages)?;
        let jobs = Api::<Job>::namespaced(self.client.clone(), &self.namespace);
        let created = jobs.create(&PostParams::default(), &job).await.context("failed to create a job")?;
        let name = created.metadata.name.context("a job that was created has a name")?;
        // The watch is large, and every message of every flow would carry it along.
        let ended = tokio::time::timeout(PATIENCE, Box::pin(await_condition(jobs, &name, Ended))).await;
        let job = ended.with_context(|| format!("job `{name}` has not ended after {PATIENCE:?}"))??;
        let status = job.and_then(|job| job.status).unwrap_or_default();
        anyhow::ensure!(
            status.succeeded.unwrap_or_default() > 0,
            "job `{name}` failed; `kubectl logs job/{name}` says why"
        );
        Ok(())
    }

    fn job(&self, schedule: &CronJob, messages: &[Message]) -> anyhow::Result<Job> {
        let template = &schedule.spec.job_template;
        let mut spec = serde_json::to_value(&template.spec)?;
        let variable = json!({ "name": BEGIN_VARIABLE, "value": serde_json::to_string(messages)? });
        let containers = spec.pointer_mut("/template/spec/containers").and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            match container["env"].as_array_mut() {
                Some(variables) => variables.push(variable.clone()),
                None => container["env"] = json!([variable]),
            }
        }
        let metadata = template.metadata.as_ref();
        Ok(serde_json::from_value(json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {
                "generateName": format!("{}-", self.name),
                "labels": metadata.and_then(|metadata| metadata.labels.clone()),
                "annotations": { "cronjob.kubernetes.io/instantiate": "manual" },
                // The schedule's limits on the history remove them.
                "ownerReferences": [{
                    "apiVersion": "batch/v1", "kind": "CronJob", "name": self.name, "uid": schedule.metadata.uid,
                    "controller": true,
                }],
            },
            "spec": spec,
        }))?)
    }
}

/// A job that has succeeded or failed.
struct Ended;

impl Condition<Job> for Ended {
    fn matches_object(&self, job: Option<&Job>) -> bool {
        let conditions = job.and_then(|job| job.status.as_ref()).and_then(|status| status.conditions.as_ref());
        conditions
            .into_iter()
            .flatten()
            .any(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True")
    }
}

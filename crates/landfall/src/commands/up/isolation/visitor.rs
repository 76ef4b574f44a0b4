//! A pod that comes only to look whom it gets to: in the place of a scheduled job, whose own pods are there while they run, or in a
//! namespace that is no part of the platform.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::runtime::wait::{await_condition, conditions::Condition};
use kube::{Api, Client};
use landfall_standin::{LOOK_VARIABLE, Looked, NOBODY, container_security, pod_security};
use serde_json::{Value, json};

use super::super::plan::{LOOK_IMAGE, Plan};

/// How long it may take until the pod has looked around.
const PATIENCE: Duration = Duration::from_mins(2);

/// Says in whose place its pods are, so that those are known that an earlier run has left.
const LABEL: &str = "landfall.dev/looks-around";

/// The value of that label where it is in nobody's place.
const OF_NOBODY: &str = "nobody";

/// Such a pod, before it is made.
#[derive(Debug)]
pub(super) struct Visitor {
    namespace: String,
    /// The job in whose place it is, or nobody.
    place: String,
    pod: Value,
    /// An address that it gets to as soon as it has a network.
    open: Option<String>,
}

impl Visitor {
    /// One that policies take for a pod of this job, as it is made from its template; its program is told to look around and does
    /// nothing else.
    pub(super) fn of_job(plan: &Plan, job: &str, open: Option<&String>) -> Option<Self> {
        let is_it = |object: &&Value| object["kind"] == "CronJob" && object["metadata"]["name"] == job;
        let rendered = plan.objects.iter().find(is_it)?;
        let template = rendered.pointer("/spec/jobTemplate/spec/template")?;
        let (mut labels, mut spec) = (template["metadata"]["labels"].clone(), template["spec"].clone());
        labels[LABEL] = json!(job);
        spec["restartPolicy"] = json!("Never");
        Some(Self {
            namespace: rendered["metadata"]["namespace"].as_str()?.to_owned(),
            place: job.to_owned(),
            pod: json!({ "metadata": { "generateName": format!("{job}-look-"), "labels": labels }, "spec": spec }),
            open: open.cloned(),
        })
    }

    /// One in a namespace without labels, that nothing declares anything for.
    pub(super) fn of_nobody(plan: &Plan, open: Option<&String>) -> Self {
        let container = json!({ "name": "look", "image": LOOK_IMAGE, "securityContext": container_security() });
        Self {
            namespace: plan.foreign.clone(),
            place: OF_NOBODY.to_owned(),
            pod: json!({
                "metadata": { "generateName": "look-", "labels": { LABEL: OF_NOBODY } },
                "spec": {
                    "automountServiceAccountToken": false,
                    "restartPolicy": "Never",
                    "securityContext": pod_security(),
                    "containers": [container],
                },
            }),
            open: open.cloned(),
        }
    }

    /// Makes the pod, and says for each address whether it accepts a connection from there.
    pub(super) async fn look(&self, client: &Client, targets: &[String]) -> anyhow::Result<Vec<bool>> {
        let pods = Api::<Pod>::namespaced(client.clone(), &self.namespace);
        let own = ListParams::default().labels(&format!("{LABEL}={}", self.place));
        let earlier = pods.list(&own).await.context("failed to list pods")?;
        for name in earlier.items.into_iter().filter_map(|pod| pod.metadata.name) {
            remove(&pods, &name).await?;
        }
        let pod: Pod = serde_json::from_value(self.pod(targets)).context("the template of its pod is none")?;
        let made = pods.create(&PostParams::default(), &pod).await.context("failed to make a pod that looks around")?;
        let name = made.metadata.name.context("a pod that was made has a name")?;
        let looked = look(&pods, &name).await;
        remove(&pods, &name).await?;
        Ok(looked?.open)
    }

    fn pod(&self, targets: &[String]) -> Value {
        let mut pod = self.pod.clone();
        let open = self.open.as_deref().unwrap_or(NOBODY);
        let told: Value = [open].into_iter().chain(targets.iter().map(String::as_str)).collect();
        let variable = json!({ "name": LOOK_VARIABLE, "value": told.to_string() });
        for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten() {
            match container["env"].as_array_mut() {
                Some(variables) => variables.push(variable.clone()),
                None => container["env"] = json!([variable]),
            }
        }
        pod
    }
}

/// What the pod has seen when it has ended.
async fn look(pods: &Api<Pod>, name: &str) -> anyhow::Result<Looked> {
    let ended = tokio::time::timeout(PATIENCE, Box::pin(await_condition(pods.clone(), name, Ended))).await;
    ended.with_context(|| format!("the pod `{name}` has not looked around after {PATIENCE:?}"))??;
    let log = pods.logs(name, &LogParams::default()).await;
    let log = log.with_context(|| format!("failed to read the log of pod `{name}`"))?;
    let looked = log.lines().find_map(|line| serde_json::from_str::<Looked>(line).ok());
    looked.with_context(|| format!("the pod `{name}` does not say what it sees: {}", log.trim()))
}

async fn remove(pods: &Api<Pod>, name: &str) -> anyhow::Result<()> {
    match pods.delete(name, &DeleteParams::default().grace_period(0)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        removed => removed.map(drop).with_context(|| format!("failed to remove the pod `{name}`")),
    }
}

/// A pod whose containers have all ended.
struct Ended;

impl Condition<Pod> for Ended {
    fn matches_object(&self, pod: Option<&Pod>) -> bool {
        let phase = pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_told_whom_to_try_and_whom_to_wait_for() {
        let pod = json!({
            "metadata": { "labels": { "app.kubernetes.io/name": "nightly" } },
            "spec": { "containers": [{ "name": "nightly", "image": "nightly", "env": [{ "name": "A", "value": "b" }] }] },
        });
        let visitor = |open: Option<&str>| Visitor {
            namespace: "shop".to_owned(),
            place: "nightly".to_owned(),
            pod: pod.clone(),
            open: open.map(ToOwned::to_owned),
        };
        let told = |open| {
            let pod = visitor(open).pod(&["10.0.0.2:80".to_owned()]);
            let pod: Pod = serde_json::from_value(pod).expect("it is one");
            let variables = pod.spec.expect("it has one").containers[0].env.clone().expect("it has some");
            let variables = variables.into_iter().map(|variable| variable.value.unwrap_or_default());
            variables.collect::<Vec<_>>()
        };
        assert_eq!(told(Some("10.0.0.1:5432")), ["b", r#"["10.0.0.1:5432","10.0.0.2:80"]"#]);
        assert_eq!(told(None), ["b", r#"["nobody","10.0.0.2:80"]"#]);
    }
}

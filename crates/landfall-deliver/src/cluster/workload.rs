//! What a workload is doing, read off its `Deployment` and its pods. The judging functions are pure.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use super::{ClusterError, During as _, if_there};
use crate::observe::Workload;
use crate::release::{RELEASE, image_of};

/// Reasons for which a container does not run, and never will without a change.
const HOPELESS: [&str; 6] = [
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// How often a container may crash before it counts as a crash loop: once, for what it waits for at its start.
const CRASHES: i32 = 2;

/// A `Deployment` with its pods of a release; `None` when it is gone.
pub(crate) async fn look(
    client: &Client,
    namespace: &str,
    name: &str,
    release: &str,
) -> Result<Option<Workload>, ClusterError> {
    let Some(deployment) = deployment(client, namespace, name).await? else { return Ok(None) };
    let pods = pods_of(client, &deployment, release).await?;
    let Progress { done, ready, wanted, .. } = progress(&deployment);
    Ok(Some(Workload {
        name: name.to_owned(),
        done,
        ready,
        wanted,
        hopeless: hopeless(&pods),
        crashes: crashes(&pods),
        troubles: troubles(&pods),
    }))
}

/// How far a workload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Every copy is of the wanted version and ready, and no other is there.
    pub(crate) done: bool,
    /// No copy of another version is there.
    pub(crate) settled: bool,
    /// How many copies of the wanted version are ready for long enough.
    pub(crate) ready: i32,
    /// How many are wanted.
    pub(crate) wanted: i32,
}

/// How far a `Deployment` is with its current template.
pub(crate) fn progress(deployment: &Deployment) -> Progress {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let Some(status) = &deployment.status else { return Progress { done: false, settled: false, ready: 0, wanted } };
    let seen = status.observed_generation >= deployment.metadata.generation;
    let (all, updated) = (status.replicas.unwrap_or(0), status.updated_replicas.unwrap_or(0));
    let available = status.available_replicas.unwrap_or(0);
    // While old copies are there, those that are available may be old.
    let ready = if seen { (available - (all - updated)).clamp(0, updated) } else { 0 };
    let done = seen && updated == wanted && all == wanted && available == wanted;
    Progress { done, settled: seen && updated == all, ready, wanted }
}

/// Why pods of a release will never run, if one of them says so.
pub(crate) fn hopeless(pods: &[Pod]) -> Option<String> {
    pods.iter().find_map(|pod| {
        let status = pod.status.as_ref()?;
        let containers =
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
        containers.into_iter().find_map(|container| {
            let waiting = container.state.as_ref()?.waiting.as_ref()?;
            let reason = waiting.reason.as_deref()?;
            let loops = reason == "CrashLoopBackOff" && container.restart_count >= CRASHES;
            (loops || HOPELESS.contains(&reason)).then(|| {
                let message = waiting.message.as_deref().map(|text| format!(": {text}")).unwrap_or_default();
                format!("pod `{}`: {reason}{message}", pod.name_any())
            })
        })
    })
}

/// How often containers of pods have crashed: as often as they were started again, and once more for those that wait for it.
pub(crate) fn crashes(pods: &[Pod]) -> i32 {
    let statuses =
        pods.iter().flat_map(|pod| pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()));
    let of = |status: &ContainerStatus| {
        let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref()?.reason.as_deref());
        status.restart_count + i32::from(waiting == Some("CrashLoopBackOff"))
    };
    statuses.map(of).sum()
}

/// What pods that are not ready say of themselves.
pub(crate) fn troubles(pods: &[Pod]) -> String {
    let troubles = pods.iter().filter_map(|pod| {
        let status = pod.status.as_ref()?;
        let conditions = status.conditions.iter().flatten();
        let unready = conditions.into_iter().find(|condition| condition.type_ == "Ready" && condition.status != "True");
        let unscheduled = status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
        let waiting = status.container_statuses.iter().flatten().find_map(|container| {
            let waiting = container.state.as_ref()?.waiting.as_ref()?;
            Some(format!("{}: {}", waiting.reason.as_deref()?, waiting.message.as_deref().unwrap_or_default()))
        });
        unready?;
        let why = waiting
            .or_else(|| unscheduled.and_then(|condition| condition.message.clone()))
            .unwrap_or_else(|| "it runs, and its readiness probe does not pass".to_owned());
        Some(format!("pod `{}`: {why}", pod.name_any()))
    });
    troubles.collect::<Vec<_>>().join("; ")
}

pub(crate) async fn deployment(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<Deployment>, ClusterError> {
    let found = Api::<Deployment>::namespaced(client.clone(), namespace).get(name).await;
    if_there(found).during(|| format!("read the Deployment `{name}`"))
}

/// The pod template of a `Deployment`, whole.
pub(crate) fn template_of(deployment: &Deployment) -> Value {
    deployment.spec.as_ref().map(|spec| json!(spec.template)).unwrap_or_default()
}

/// The image of a service, as its `Deployment` has it.
pub(crate) fn image(deployment: &Deployment, service: &str) -> Option<String> {
    image_of(&template_of(deployment), service).map(ToOwned::to_owned)
}

/// The pods of a `Deployment` that belong to a release.
pub(crate) async fn pods_of(client: &Client, deployment: &Deployment, release: &str) -> Result<Vec<Pod>, ClusterError> {
    let selector = selector(deployment);
    let namespace = deployment.namespace().unwrap_or_default();
    let list = ListParams::default().labels(&selector);
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace).list(&list).await;
    let pods = pods.during(|| format!("list the pods of `{}`", deployment.name_any()))?;
    let own = pods.items.into_iter().filter(|pod| {
        pod.annotations().get(RELEASE).is_some_and(|own| own == release) && pod.metadata.deletion_timestamp.is_none()
    });
    Ok(own.collect())
}

/// The hash by which Kubernetes tells the pods of the current template from others.
pub(crate) async fn template_hash(client: &Client, deployment: &Deployment) -> Result<Option<String>, ClusterError> {
    const REVISION: &str = "deployment.kubernetes.io/revision";
    let namespace = deployment.namespace().unwrap_or_default();
    let list = ListParams::default().labels(&selector(deployment));
    let sets = Api::<ReplicaSet>::namespaced(client.clone(), &namespace).list(&list).await;
    let sets = sets.during(|| format!("list the ReplicaSets of `{}`", deployment.name_any()))?;
    let revision = deployment.annotations().get(REVISION);
    let current = sets.items.into_iter().find(|set| {
        set.owner_references().iter().any(|owner| Some(&owner.uid) == deployment.metadata.uid.as_ref())
            && revision.is_some()
            && set.annotations().get(REVISION) == revision
    });
    Ok(current.and_then(|set| set.labels().get("pod-template-hash").cloned()))
}

fn selector(deployment: &Deployment) -> String {
    let labels = deployment.spec.iter().flat_map(|spec| spec.selector.match_labels.iter().flatten());
    labels.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("it is one")
    }

    fn of(generation: i64, status: Value) -> Progress {
        progress(&read(
            json!({ "metadata": { "generation": generation }, "spec": { "replicas": 3, "selector": {}, "template": {} }, "status": status }),
        ))
    }

    #[test]
    fn a_workload_is_done_when_only_ready_copies_of_the_new_version_are_there() {
        let status = |observed, all, updated, available| json!({ "observedGeneration": observed, "replicas": all, "updatedReplicas": updated, "availableReplicas": available });
        assert!(of(2, status(2, 3, 3, 3)).done);
        for (case, other) in [
            ("not seen yet", status(1, 3, 3, 3)),
            ("an old one is left", status(2, 4, 3, 4)),
            ("one is not ready", status(2, 3, 3, 2)),
            ("one is not new", status(2, 3, 2, 3)),
        ] {
            assert!(!of(2, other).done, "{case}");
        }
        assert_eq!(of(2, status(2, 4, 1, 3)).ready, 0, "the three that are available may be the old ones");
        assert_eq!(of(2, status(2, 4, 2, 3)).ready, 1);
    }

    #[test]
    fn one_crash_is_no_loop() {
        let pod = |reason: &str, restarts: i32| -> Vec<Pod> {
            let waiting = json!({ "waiting": { "reason": reason, "message": "why" } });
            let status = json!({ "name": "web", "image": "", "imageID": "", "ready": false, "restartCount": restarts, "state": waiting });
            vec![read(json!({ "metadata": { "name": "web-1" }, "status": { "containerStatuses": [status] } }))]
        };
        assert_eq!(hopeless(&pod("CrashLoopBackOff", 1)), None);
        assert_eq!(crashes(&pod("CrashLoopBackOff", 1)), 2, "it waits to be started for the third time");
        assert_eq!(hopeless(&pod("ContainerCreating", 0)), None);
        assert_eq!(crashes(&pod("ContainerCreating", 0)), 0);
        assert_eq!(hopeless(&pod("CrashLoopBackOff", 2)).as_deref(), Some("pod `web-1`: CrashLoopBackOff: why"));
        assert_eq!(hopeless(&pod("InvalidImageName", 0)).as_deref(), Some("pod `web-1`: InvalidImageName: why"));
    }
}

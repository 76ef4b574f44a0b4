//! What controllers see in a pod: whether it counts, and which one can best be spared.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodSpec, PodStatus, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Raises or lowers the chance of a pod to be deleted when its set shrinks.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A pod as a controller makes it; the API gives it the rest of its name.
pub(super) fn from_template(owner: &str, reference: OwnerReference, template: Option<&PodTemplateSpec>) -> Pod {
    let metadata = template.and_then(|template| template.metadata.clone()).unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{owner}-")),
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: Some(vec![reference]),
            ..ObjectMeta::default()
        },
        spec: template.and_then(|template| template.spec.clone()),
        status: None,
    }
}

pub(super) fn spec(pod: &Pod) -> &PodSpec {
    static NONE: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&NONE)
}

fn status(pod: &Pod) -> &PodStatus {
    static NONE: std::sync::LazyLock<PodStatus> = std::sync::LazyLock::new(PodStatus::default);
    pod.status.as_ref().unwrap_or(&NONE)
}

pub(super) fn phase(pod: &Pod) -> &str {
    status(pod).phase.as_deref().unwrap_or_default()
}

/// Its containers have ended for good.
pub(super) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// It has not ended and nobody has asked it to.
pub(super) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// It has been asked to end and has not yet.
pub(super) fn is_terminating(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_some()
}

pub(super) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    status(pod).conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// Ready for at least `min_ready` seconds.
pub(super) fn is_available(pod: &Pod, min_ready: i32, now: Timestamp) -> bool {
    is_ready(pod)
        && (min_ready <= 0
            || ready_since(pod)
                .is_some_and(|since| now.duration_since(since) >= SignedDuration::from_secs(min_ready.into())))
}

/// When the next of these pods becomes available, if it only needs time.
pub(super) fn next_available<'a>(
    pods: impl IntoIterator<Item = &'a Arc<Pod>>,
    min_ready: i32,
    now: Timestamp,
) -> Option<Duration> {
    let waits = pods.into_iter().filter(|pod| !is_available(pod, min_ready, now)).filter_map(|pod| {
        let left = SignedDuration::from_secs(min_ready.into()) - now.duration_since(ready_since(pod)?);
        Duration::try_from(left).ok()
    });
    waits.min()
}

/// Puts those first that can best be spared: not scheduled, pending, not ready, cheap, crowded on their node, ready for a
/// short time, restarted often, young.
///
/// `related` are all active pods of the same owner, over which crowding is counted. Ages count by their order of magnitude, so that
/// not always the same pods are the youngest (KEP-2185: random pod selection on replica set downscaling).
pub(super) fn by_dispensability(mut pods: Vec<Arc<Pod>>, related: &[Arc<Pod>], now: Timestamp) -> Vec<Arc<Pod>> {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| is_active(pod)) {
        *on_node.entry(node(pod)).or_default() += 1;
    }
    pods.sort_by_cached_key(|pod| {
        let ready = is_ready(pod);
        let phase = match phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let crowd = on_node.get(node(pod)).copied().unwrap_or_default();
        let ready_for = ready.then(|| magnitude(ready_since(pod), now));
        let age = magnitude(pod.metadata.creation_timestamp.as_ref().map(|time| time.0), now);
        (
            !node(pod).is_empty(),
            phase,
            ready,
            deletion_cost(pod),
            Reverse(crowd),
            ready_for,
            Reverse(restarts(pod)),
            age,
            pod.metadata.uid.clone(),
        )
    });
    pods
}

pub(super) fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// Not a number: as if it were not there (the API refuses it, but an older object may have it).
fn deletion_cost(pod: &Pod) -> i32 {
    let cost = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DELETION_COST));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or_default()
}

/// The logarithm of an age in nanoseconds, -1 for none.
fn magnitude(since: Option<Timestamp>, now: Timestamp) -> i32 {
    let age = since.map(|since| now.duration_since(since).as_nanos());
    let age = age.and_then(|age| u128::try_from(age).ok()).and_then(u128::checked_ilog2);
    age.and_then(|age| i32::try_from(age).ok()).unwrap_or(-1)
}

/// The most restarts of any container, and of any sidecar.
fn restarts(pod: &Pod) -> (i32, i32) {
    let sidecars: Vec<_> = spec(pod)
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"))
        .map(|container| &container.name)
        .collect();
    let containers = status(pod).container_statuses.iter().flatten().map(|status| status.restart_count);
    let of_sidecars = status(pod)
        .init_container_statuses
        .iter()
        .flatten()
        .filter(|status| sidecars.contains(&&status.name))
        .map(|status| status.restart_count);
    (containers.max().unwrap_or_default(), of_sidecars.max().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, spec: &serde_json::Value, status: &serde_json::Value, cost: Option<&str>) -> Arc<Pod> {
        let annotations = cost.map(|cost| json!({ DELETION_COST: cost })).unwrap_or_default();
        let pod = json!({
            "metadata": { "name": name, "uid": name, "creationTimestamp": "2027-01-01T00:00:00Z", "annotations": annotations },
            "spec": spec,
            "status": status,
        });
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn ready(since: &str) -> serde_json::Value {
        json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": since }] })
    }

    fn now() -> Timestamp {
        "2027-01-01T01:00:00Z".parse().expect("a time")
    }

    #[test]
    fn the_pods_that_serve_least_go_first() {
        let on = |node: &str| json!({ "nodeName": node, "containers": [] });
        let pods = vec![
            pod("old", &on("a"), &ready("2027-01-01T00:00:10Z"), None),
            pod("dear", &on("a"), &ready("2027-01-01T00:59:59Z"), Some("10")),
            pod("crowded-2", &on("b"), &ready("2027-01-01T00:00:10Z"), None),
            pod("crowded-1", &on("b"), &ready("2027-01-01T00:59:50Z"), None),
            pod("unready", &on("c"), &json!({ "phase": "Running" }), None),
            pod("cheap", &on("a"), &ready("2027-01-01T00:00:10Z"), Some("-1")),
            pod("pending", &on("c"), &json!({ "phase": "Pending" }), None),
            pod("unscheduled", &json!({ "containers": [] }), &json!({ "phase": "Pending" }), None),
            pod("crowded-3", &on("b"), &ready("2027-01-01T00:00:10Z"), None),
            pod("crowded-4", &on("b"), &ready("2027-01-01T00:00:10Z"), None),
        ];
        let ranked = by_dispensability(pods.clone(), &pods, now());
        let names: Vec<_> = ranked.iter().map(|pod| pod.metadata.name.as_deref().unwrap_or_default()).collect();
        let expected = [
            "unscheduled",
            "pending",
            "unready",
            "cheap",
            "crowded-1",
            "crowded-2",
            "crowded-3",
            "crowded-4",
            "old",
            "dear",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_pod_is_available_when_it_was_ready_long_enough() {
        let pod = pod("web", &json!({ "containers": [] }), &ready("2027-01-01T00:59:50Z"), None);
        assert!(is_available(&pod, 10, now()));
        assert!(!is_available(&pod, 11, now()));
        assert_eq!(next_available([&pod], 12, now()), Some(Duration::from_secs(2)));
        assert_eq!(next_available([&pod], 10, now()), None);
    }
}

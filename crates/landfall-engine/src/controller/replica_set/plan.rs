//! Which pods a replica set creates or deletes next, and what its status says. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::controller::claim::owner_reference;
use crate::controller::pod::{self, is_active, is_available, is_ready, is_terminating};
use crate::controller::pod_control::BURST;
use crate::controller::status::{count, nonzero, whole_seconds};

/// The pods to create, or else those to delete.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    pub(super) create: Vec<Pod>,
    pub(super) delete: Vec<Arc<Pod>>,
}

/// `related` are the pods of all replica sets of the same owner; it is asked only when pods must be chosen.
pub(super) fn plan(
    set: &ReplicaSet,
    owned: &[Arc<Pod>],
    related: impl FnOnce() -> Vec<Arc<Pod>>,
    now: Timestamp,
) -> Changes {
    let wanted = usize::try_from(replicas(set)).unwrap_or_default();
    let active: Vec<_> = owned.iter().filter(|pod| is_active(pod)).cloned().collect();
    let missing = wanted.saturating_sub(active.len()).min(BURST);
    let surplus = active.len().saturating_sub(wanted).min(BURST);
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let pod = || pod::from_template(&set.name_any(), owner_reference(set), template);
    let mut delete = if surplus == 0 { Vec::new() } else { pod::by_dispensability(active, &related(), now) };
    delete.truncate(surplus);
    Changes { create: std::iter::repeat_with(pod).take(missing).collect(), delete }
}

pub(super) fn status(set: &ReplicaSet, owned: &[Arc<Pod>], failure: Option<&str>, now: Timestamp) -> ReplicaSetStatus {
    let active: Vec<_> = owned.iter().filter(|pod| is_active(pod)).collect();
    let spec = set.spec.as_ref();
    let labels = spec.and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.clone()).unwrap_or_default();
    let labelled = |pod: &&&Arc<Pod>| labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value));
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or_default();

    let mut conditions = set.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let failed = conditions.iter().any(|condition| condition.type_ == REPLICA_FAILURE);
    match failure {
        // The first failure stays until all is well again.
        Some(message) if !failed => conditions.push(ReplicaSetCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(whole_seconds(now)),
            reason: Some(if count(&active) < replicas(set) { "FailedCreate" } else { "FailedDelete" }.to_owned()),
            message: Some(message.to_owned()),
        }),
        Some(_) => {}
        None => conditions.retain(|condition| condition.type_ != REPLICA_FAILURE),
    }

    ReplicaSetStatus {
        replicas: count(&active),
        fully_labeled_replicas: nonzero(count(active.iter().filter(labelled))),
        ready_replicas: nonzero(count(active.iter().filter(|pod| is_ready(pod)))),
        available_replicas: nonzero(count(active.iter().filter(|pod| is_available(pod, min_ready, now)))),
        terminating_replicas: Some(count(owned.iter().filter(|pod| is_terminating(pod)))),
        observed_generation: set.metadata.generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}

/// The condition that says why pods could not be created or deleted.
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The API sets a default of one.
fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(replicas: i32) -> ReplicaSet {
        let set = json!({
            "metadata": { "name": "web-1", "namespace": "shop", "uid": "u", "generation": 4 },
            "spec": {
                "replicas": replicas,
                "selector": { "matchLabels": { "app": "web" } },
                "template": { "metadata": { "labels": { "app": "web", "tier": "front" } }, "spec": { "containers": [] } },
            },
        });
        serde_json::from_value(set).expect("a replica set")
    }

    fn pod(name: &str, phase: &str, deleting: bool) -> Arc<Pod> {
        let deleted = deleting.then_some("2027-01-01T00:00:00Z");
        let ready = if phase == "Running" { "True" } else { "False" };
        let pod = json!({
            "metadata": { "name": name, "uid": name, "labels": { "app": "web" }, "deletionTimestamp": deleted },
            "spec": { "nodeName": "a", "containers": [] },
            "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready }] },
        });
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn check(replicas: i32, owned: &[Arc<Pod>], created: usize, deleted: &[&str]) {
        let changes = plan(&set(replicas), owned, || owned.to_vec(), Timestamp::UNIX_EPOCH);
        let names: Vec<_> = changes.delete.iter().map(|pod| pod.name_any()).collect();
        assert_eq!(
            (changes.create.len(), names.iter().map(String::as_str).collect::<Vec<_>>()),
            (created, deleted.into())
        );
    }

    #[test]
    fn missing_pods_are_created_from_the_template() {
        check(3, &[pod("a", "Running", false)], 2, &[]);
        let changes = plan(&set(1), &[], Vec::new, Timestamp::UNIX_EPOCH);
        let pod = changes.create.first().expect("one pod");
        assert_eq!(pod.metadata.generate_name.as_deref(), Some("web-1-"));
        assert_eq!(pod.labels().get("tier").map(String::as_str), Some("front"));
        assert_eq!(pod.owner_references(), [owner_reference(&set(1))]);
    }

    #[test]
    fn pods_that_end_or_have_ended_do_not_count() {
        check(1, &[pod("a", "Failed", false), pod("b", "Running", true)], 1, &[]);
    }

    #[test]
    fn of_too_many_pods_the_pending_ones_go_first() {
        let owned = [pod("a", "Running", false), pod("b", "Pending", false), pod("c", "Running", false)];
        check(2, &owned, 0, &["b"]);
    }

    #[test]
    fn no_more_than_a_burst_at_once() {
        check(2_000, &[], BURST, &[]);
    }

    #[test]
    fn the_status_counts_active_and_terminating_pods() {
        let owned = [pod("a", "Running", false), pod("b", "Pending", false), pod("c", "Running", true)];
        let status = status(&set(2), &owned, None, Timestamp::UNIX_EPOCH);
        let expected = ReplicaSetStatus {
            replicas: 2,
            ready_replicas: Some(1),
            available_replicas: Some(1),
            terminating_replicas: Some(1),
            observed_generation: Some(4),
            ..ReplicaSetStatus::default()
        };
        assert_eq!(status, expected);
    }

    #[test]
    fn the_first_failure_stays_until_all_is_well() {
        let mut set = set(2);
        set.status = Some(status(&set, &[], Some("quota"), Timestamp::UNIX_EPOCH));
        set.status = Some(status(&set, &[], Some("something else"), Timestamp::UNIX_EPOCH));
        let conditions = set.status.clone().and_then(|status| status.conditions).expect("a condition");
        assert_eq!(conditions[0].reason.as_deref(), Some("FailedCreate"));
        assert_eq!(conditions[0].message.as_deref(), Some("quota"));
        assert_eq!(status(&set, &[], None, Timestamp::UNIX_EPOCH).conditions, None);
    }
}

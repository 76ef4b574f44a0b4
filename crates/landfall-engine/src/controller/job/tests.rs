//! Indexed jobs, step by step and without a cluster.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::plan::{self, Ending, Ends, Step};
use super::status;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn job(spec: &Value) -> Job {
    let mut job = json!({
        "metadata": { "name": "sum", "namespace": "default", "uid": "0" },
        "spec": { "completions": 3, "parallelism": 3, "completionMode": "Indexed", "template": { "spec": { "containers": [] } } },
    });
    json_patch::merge(&mut job["spec"], spec);
    serde_json::from_value(job).expect("a job")
}

/// A pod that ended just now, or runs.
fn pod(name: &str, index: i32, phase: &str, failures: i32) -> Arc<Pod> {
    let state = match phase {
        "Failed" => json!({ "terminated": { "exitCode": 7, "finishedAt": NOW.to_string() } }),
        _ => json!({}),
    };
    let pod = json!({
        "metadata": {
            "name": name, "namespace": "default", "uid": name, "finalizers": [super::FINALIZER],
            "annotations": {
                "batch.kubernetes.io/job-completion-index": index.to_string(),
                "batch.kubernetes.io/job-index-failure-count": failures.to_string(),
            },
        },
        "status": {
            "phase": phase,
            "containerStatuses": [{ "name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state }],
        },
    });
    Arc::new(serde_json::from_value(pod).expect("a pod"))
}

fn indexes(pods: &[Pod]) -> Vec<i32> {
    pods.iter().filter_map(super::indexes::of_pod).collect()
}

fn step_at(job: &Job, pods: &[Arc<Pod>], seconds: i64) -> Step {
    let now = NOW + SignedDuration::from_secs(seconds);
    let ends = plan::ends(job, pods, &Ends::new(), now);
    plan::step(job, pods, plan::verdict(job, pods, now).as_ref(), &ends, now)
}

fn failure(reason: &str, message: &str) -> Ending {
    Ending::Failure { reason: reason.to_owned(), message: message.to_owned() }
}

#[test]
fn an_index_that_failed_waits_alone_and_its_next_pod_counts_the_failure() {
    let job = job(&json!({ "backoffLimitPerIndex": 2 }));
    let pods = [pod("a", 0, "Failed", 1), pod("b", 1, "Running", 0)];
    let step = step_at(&job, &pods, 5);
    assert_eq!(
        (indexes(&step.create), step.delete.len()),
        (vec![2], 0),
        "the failed index waits for twice ten seconds"
    );
    assert_eq!(step.retry.map(|wait| wait.as_secs()), Some(15));
    let step = step_at(&job, &pods, 20);
    assert_eq!(indexes(&step.create), [0, 2]);
    let annotations = step.create[0].annotations();
    assert_eq!(annotations["batch.kubernetes.io/job-index-failure-count"], "2");
}

#[test]
fn a_pod_that_tells_no_end_is_waited_for_since_that_was_seen_whatever_the_clock_of_the_api_says() {
    let job = job(&json!({ "completionMode": "NonIndexed", "completions": 1, "parallelism": 1 }));
    // The API's clock is a year ahead of the machine's, and says when the pod was made and deleted.
    let deleted = |status: Value| {
        let pod = json!({
            "metadata": {
                "name": "a", "uid": "a", "finalizers": [super::FINALIZER], "creationTimestamp": "1971-01-01T00:00:00Z",
                "deletionTimestamp": "1971-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30,
            },
            "status": status,
        });
        [Arc::new(serde_json::from_value::<Pod>(pod).expect("a pod"))]
    };
    let at = |seconds: i64| NOW + SignedDuration::from_secs(seconds);
    let untold = deleted(json!({ "phase": "Pending" }));
    let first = plan::ends(&job, &untold, &Ends::new(), at(100));
    let then = plan::ends(&job, &untold, &first, at(104));
    let step = plan::step(&job, &untold, None, &then, at(104));
    assert_eq!(
        (step.create.len(), step.retry.map(|wait| wait.as_secs())),
        (0, Some(6)),
        "ten seconds after it was seen"
    );
    let told = deleted(json!({
        "phase": "Failed",
        "conditions": [{ "type": "Ready", "status": "False", "lastTransitionTime": at(95).to_string() }],
    }));
    let ends = plan::ends(&job, &told, &then, at(104));
    assert_eq!(ends.get("a"), Some(&at(95)), "the node agent knows better");
    assert_eq!(plan::step(&job, &told, None, &ends, at(105)).create.len(), 1);
    let going = deleted(json!({ "phase": "Running" }));
    assert_eq!(plan::ends(&job, &going, &Ends::new(), NOW).len(), 1, "who is being deleted has failed");
}

#[test]
fn a_failed_pod_is_kept_until_its_index_has_another() {
    let job = job(&json!({ "backoffLimitPerIndex": 2 }));
    let failed = pod("a", 0, "Failed", 0);
    let (status, released) = status::account(&job, &[Arc::clone(&failed)], None, NOW);
    assert_eq!((released.len(), status.failed_indexes.as_deref()), (0, Some("")));
    let (status, released) = status::account(&job, &[failed, pod("b", 0, "Running", 1)], None, NOW);
    assert_eq!(released.iter().map(|pod| pod.name_any()).collect::<Vec<_>>(), ["a"]);
    let noted = status.uncounted_terminated_pods.expect("it is noted").failed;
    assert_eq!(noted.as_deref(), Some(["a".to_owned()].as_slice()));
}

#[test]
fn a_job_fails_when_each_index_has_succeeded_or_failed() {
    let job = job(&json!({ "backoffLimitPerIndex": 0 }));
    let two = [pod("a", 0, "Failed", 0), pod("b", 1, "Succeeded", 0)];
    assert_eq!(plan::verdict(&job, &two, NOW), None);
    assert_eq!(indexes(&step_at(&job, &two, 0).create), [2], "an index that failed for good is not tried again");
    let all = [two[0].clone(), two[1].clone(), pod("c", 2, "Succeeded", 0)];
    assert_eq!(plan::verdict(&job, &all, NOW), Some(failure("FailedIndexes", "Job has failed indexes")));
    let (status, _) = status::account(&job, &all, plan::verdict(&job, &all, NOW), NOW);
    assert_eq!(status.failed_indexes.as_deref(), Some("0"));
    assert_eq!(status.completed_indexes.as_deref(), Some("1,2"));
}

#[test]
fn too_many_failed_indexes_end_a_job_at_once() {
    let job = job(&json!({ "backoffLimitPerIndex": 0, "maxFailedIndexes": 1 }));
    let pods = [pod("a", 0, "Failed", 0), pod("b", 1, "Failed", 0), pod("c", 2, "Running", 0)];
    let message = "Job has exceeded the specified maximal number of failed indexes";
    assert_eq!(plan::verdict(&job, &pods, NOW), Some(failure("MaxFailedIndexesExceeded", message)));
    assert_eq!(step_at(&job, &pods, 0).delete.len(), 1, "the index that runs is stopped");
}

#[test]
fn a_rule_may_fail_an_index_before_its_limit() {
    let rule = json!({ "action": "FailIndex", "onExitCodes": { "operator": "In", "values": [7] } });
    let job = job(&json!({ "completions": 1, "backoffLimitPerIndex": 5, "podFailurePolicy": { "rules": [rule] } }));
    let ending = plan::verdict(&job, &[pod("a", 0, "Failed", 0)], NOW);
    assert_eq!(ending, Some(failure("FailedIndexes", "Job has failed indexes")));
}

#[test]
fn what_a_rule_ignores_delays_an_index_and_does_not_count() {
    let rule = json!({ "action": "Ignore", "onExitCodes": { "operator": "In", "values": [7] } });
    let job = job(&json!({ "completions": 1, "backoffLimitPerIndex": 0, "podFailurePolicy": { "rules": [rule] } }));
    let pods = [pod("a", 0, "Failed", 0)];
    assert_eq!(plan::verdict(&job, &pods, NOW), None);
    let step = step_at(&job, &pods, 10);
    let annotations = step.create[0].annotations();
    assert_eq!(annotations["batch.kubernetes.io/job-index-failure-count"], "0");
    assert_eq!(annotations["batch.kubernetes.io/job-index-ignored-failure-count"], "1");
}

#[test]
fn a_success_policy_ends_a_job_by_indexes_by_number_or_by_both() {
    let met = |rule: Value, succeeded: &[i32]| {
        let job = job(&json!({ "successPolicy": { "rules": [rule] } }));
        let pods: Vec<_> = succeeded.iter().map(|index| pod(&format!("p{index}"), *index, "Succeeded", 0)).collect();
        plan::verdict(&job, &pods, NOW).is_some()
    };
    assert!(met(json!({ "succeededIndexes": "0,2" }), &[0, 2]));
    assert!(!met(json!({ "succeededIndexes": "0,2" }), &[0, 1]));
    assert!(met(json!({ "succeededCount": 1 }), &[2]));
    assert!(met(json!({ "succeededIndexes": "0-1", "succeededCount": 1 }), &[1]));
    assert!(!met(json!({ "succeededIndexes": "0-1", "succeededCount": 1 }), &[2]));
    assert!(!met(json!({ "succeededCount": 0 }), &[]), "a job without a success has not succeeded");
}

#[test]
fn a_second_pod_of_an_index_and_one_beyond_the_last_are_superfluous() {
    let job = job(&json!({}));
    let pods = [pod("a", 0, "Running", 0), pod("b", 0, "Pending", 0), pod("c", 7, "Running", 0)];
    let mut names: Vec<_> = step_at(&job, &pods, 0).delete.iter().map(|pod| pod.name_any()).collect();
    names.sort();
    assert_eq!(names, ["b", "c"]);
}

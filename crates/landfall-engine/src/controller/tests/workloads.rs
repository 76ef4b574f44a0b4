//! Scenarios.

use serde_json::{Value, json};

use super::world::World;

fn workload(kind: &str, name: &str, image: &str, spec: &Value) -> Value {
    let group = if kind == "Job" { "batch/v1" } else { "apps/v1" };
    let mut object = json!({
        "apiVersion": group,
        "kind": kind,
        "metadata": { "name": name },
        "spec": {
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "main", "image": image }] },
            },
        },
    });
    json_patch::merge(&mut object["spec"], spec);
    object
}

fn available(count: i64) -> impl Fn(&Value) -> bool {
    move |object| {
        let status = &object["status"];
        status["observedGeneration"] == object["metadata"]["generation"]
            && status["availableReplicas"].as_i64().unwrap_or_default() == count
            && status["updatedReplicas"].as_i64().unwrap_or_default() == count
            && status["replicas"].as_i64().unwrap_or_default() == count
            && status["terminatingReplicas"].as_i64().unwrap_or_default() == 0
            && (object["kind"] != "Deployment" || complete(object))
    }
}

fn complete(object: &Value) -> bool {
    object["status"]["conditions"]
        .as_array()
        .is_some_and(|conditions| conditions.iter().any(|condition| condition["reason"] == "NewReplicaSetAvailable"))
}

macro_rules! world {
    ($name:expr) => {
        match World::new($name).await {
            Some(world) => world,
            None => return,
        }
    };
}

const ALL: &[&str] = &["Deployment", "ReplicaSet", "Pod", "Event"];

#[tokio::test]
async fn a_deployment_becomes_available() {
    let world = world!("available");
    world.apply(workload("Deployment", "web", "one", &json!({ "replicas": 3 }))).await;
    world.wait("Deployment", "web", available(3)).await;
    world.wait_event("SuccessfulCreate", 3).await;
    insta::assert_snapshot!(world.seen(ALL).await);
    world.end().await;
}

#[tokio::test]
async fn a_rollout_and_its_undo_keep_revisions() {
    let world = world!("undo");
    world.apply(workload("Deployment", "web", "one", &json!({ "replicas": 2 }))).await;
    world.wait("Deployment", "web", available(2)).await;
    for image in ["two", "one"] {
        world.apply(workload("Deployment", "web", image, &json!({ "replicas": 2 }))).await;
        world.wait("Deployment", "web", available(2)).await;
    }
    world.wait_event("SuccessfulCreate", 6).await;
    world.wait_event("SuccessfulDelete", 4).await;
    insta::assert_snapshot!(world.seen(ALL).await);
    world.end().await;
}

#[tokio::test]
async fn recreate_ends_old_pods_before_it_begins_new_ones() {
    let world = world!("recreate");
    let spec = || json!({ "replicas": 2, "strategy": { "type": "Recreate" } });
    world.apply(workload("Deployment", "web", "one", &spec())).await;
    world.wait("Deployment", "web", available(2)).await;
    world.apply(workload("Deployment", "web", "two", &spec())).await;
    world.wait("Deployment", "web", available(2)).await;
    world.wait_event("SuccessfulDelete", 2).await;
    world.wait_event("SuccessfulCreate", 4).await;
    insta::assert_snapshot!(world.seen(ALL).await);
    world.end().await;
}

#[tokio::test]
async fn a_broken_template_stops_the_rollout_at_its_bounds() {
    let world = world!("broken");
    let spec = || json!({ "replicas": 4, "progressDeadlineSeconds": 2, "minReadySeconds": 1 });
    world.apply(workload("Deployment", "web", "one", &spec())).await;
    world.wait("Deployment", "web", available(4)).await;
    world.apply(workload("Deployment", "web", "broken", &spec())).await;
    let timed_out = |object: &Value| {
        object["status"]["conditions"].as_array().is_some_and(|conditions| {
            conditions.iter().any(|condition| condition["reason"] == "ProgressDeadlineExceeded")
        }) && object["status"]["terminatingReplicas"] == 0
    };
    world.wait("Deployment", "web", timed_out).await;
    world.wait_event("SuccessfulCreate", 6).await;
    world.wait_event("SuccessfulDelete", 1).await;
    insta::assert_snapshot!(world.seen(ALL).await);
    world.end().await;
}

#[tokio::test]
async fn a_quota_is_a_replica_failure() {
    let world = world!("quota");
    let mut object = workload("Deployment", "web", "one", &json!({ "replicas": 1 }));
    object["spec"]["template"]["spec"]["serviceAccountName"] = "nobody".into();
    object["spec"]["template"]["spec"]["priorityClassName"] = "missing".into();
    world.apply(object).await;
    let failed = |object: &Value| {
        object["status"]["conditions"]
            .as_array()
            .is_some_and(|conditions| conditions.iter().any(|condition| condition["type"] == "ReplicaFailure"))
    };
    world.wait("Deployment", "web", failed).await;
    world.wait_event("FailedCreate", 1).await;
    insta::assert_snapshot!(world.seen(ALL).await);
    world.end().await;
}

const SETS: &[&str] = &["StatefulSet", "ControllerRevision", "Pod", "PersistentVolumeClaim", "Event"];

fn stateful(image: &str, mut spec: Value) -> Value {
    json_patch::merge(&mut spec, &json!({ "serviceName": "db" }));
    workload("StatefulSet", "db", image, &spec)
}

/// Every pod is of the update revision and ready, and none is too many.
fn updated(count: i64) -> impl Fn(&Value) -> bool {
    move |object| available(count)(object) && object["status"]["currentRevision"] == object["status"]["updateRevision"]
}

#[tokio::test]
async fn a_stateful_set_starts_and_updates_in_order_with_its_claims() {
    let world = world!("stateful");
    let claim = json!({
        "metadata": { "name": "data" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
    });
    let spec = || json!({ "replicas": 3, "volumeClaimTemplates": [claim] });
    world.apply(stateful("one", spec())).await;
    world.wait("StatefulSet", "db", updated(3)).await;
    world.apply(stateful("two", spec())).await;
    world.wait("StatefulSet", "db", updated(3)).await;
    world.wait_event("SuccessfulDelete", 3).await;
    world.wait_event("SuccessfulCreate", 9).await;
    world.wait("StatefulSet", "db", updated(3)).await;
    insta::assert_snapshot!(world.seen(SETS).await);
    world.end().await;
}

#[tokio::test]
async fn a_partition_keeps_the_pods_below_it_as_they_are() {
    let world = world!("partition");
    let spec = || json!({ "replicas": 3, "updateStrategy": { "rollingUpdate": { "partition": 1 } } });
    world.apply(stateful("one", spec())).await;
    world.wait("StatefulSet", "db", updated(3)).await;
    world.apply(stateful("two", spec())).await;
    let partly = |object: &Value| {
        object["status"]["updatedReplicas"] == 2
            && object["status"]["readyReplicas"] == 3
            && object["status"]["observedGeneration"] == 2
    };
    world.wait("StatefulSet", "db", partly).await;
    world.wait_event("SuccessfulDelete", 2).await;
    world.wait_event("SuccessfulCreate", 5).await;
    world.wait("StatefulSet", "db", partly).await;
    insta::assert_snapshot!(world.seen(SETS).await);
    world.end().await;
}

#[tokio::test]
async fn a_parallel_stateful_set_shrinks_at_once_and_its_claims_go_with_their_pods() {
    let world = world!("parallel");
    let claim = json!({
        "metadata": { "name": "data" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
    });
    let spec = |replicas: i32| {
        json!({
            "replicas": replicas,
            "podManagementPolicy": "Parallel",
            "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Delete", "whenScaled": "Delete" },
            "volumeClaimTemplates": [claim],
        })
    };
    world.apply(stateful("one", spec(4))).await;
    world.wait("StatefulSet", "db", updated(4)).await;
    world.apply(stateful("one", spec(1))).await;
    world.wait("StatefulSet", "db", updated(1)).await;
    for index in 1..4 {
        // The finalizer of Kubernetes' volume protection holds a claim while a pod uses it.
        let gone = |object: &Value| object.is_null() || !object["metadata"]["deletionTimestamp"].is_null();
        world.wait("PersistentVolumeClaim", &format!("data-db-{index}"), gone).await;
    }
    world.wait_event("SuccessfulDelete", 3).await;
    world.wait_event("SuccessfulCreate", 8).await;
    insta::assert_snapshot!(world.seen(&["StatefulSet", "ControllerRevision", "Pod", "Event"]).await);
    world.end().await;
}

#[tokio::test]
async fn a_daemon_set_runs_on_the_nodes_that_it_tolerates_and_rolls_over_them() {
    let world = world!("daemon");
    for (name, taint) in [("node-a", None), ("node-b", None), ("node-c", Some("dedicated"))] {
        world.node(name, taint).await;
    }
    let selector = json!({ "pool": world.namespace });
    let spec = || json!({ "template": { "spec": { "nodeSelector": selector } } });
    let settled = |generation: i64| {
        move |object: &Value| {
            let status = &object["status"];
            status["observedGeneration"] == generation
                && status["numberAvailable"] == 2
                && status["updatedNumberScheduled"] == 2
        }
    };
    world.apply(workload("DaemonSet", "agent", "one", &spec())).await;
    world.wait("DaemonSet", "agent", settled(1)).await;
    world.apply(workload("DaemonSet", "agent", "two", &spec())).await;
    world.wait("DaemonSet", "agent", settled(2)).await;
    world.wait_event("SuccessfulDelete", 2).await;
    world.wait_event("SuccessfulCreate", 4).await;
    insta::assert_snapshot!(world.seen(&["DaemonSet", "ControllerRevision", "Pod", "Event"]).await);
    world.end().await;
}

const JOBS: &[&str] = &["Job", "Pod", "Event"];

fn job(name: &str, exit: Option<&str>, spec: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": { "name": name },
        "spec": {
            "template": {
                "metadata": { "annotations": { "testing.landfall.dev/exit": exit } },
                "spec": { "restartPolicy": "Never", "containers": [{ "name": "main", "image": "one" }] },
            },
        },
    });
    json_patch::merge(&mut object["spec"], spec);
    object
}

fn ended(type_: &'static str) -> impl Fn(&Value) -> bool {
    move |object| {
        object["status"]["conditions"]
            .as_array()
            .is_some_and(|conditions| conditions.iter().any(|one| one["type"] == type_ && one["status"] == "True"))
    }
}

#[tokio::test]
async fn a_job_completes_when_enough_pods_succeeded() {
    let world = world!("job");
    world.apply(job("sum", Some("0"), &json!({ "completions": 3, "parallelism": 2 }))).await;
    world.wait("Job", "sum", ended("Complete")).await;
    world.wait_event("Completed", 1).await;
    insta::assert_snapshot!(world.seen(JOBS).await);
    world.end().await;
}

#[tokio::test]
async fn an_indexed_job_gives_each_pod_its_index() {
    let world = world!("indexed");
    let spec = json!({ "completions": 4, "parallelism": 4, "completionMode": "Indexed" });
    world.apply(job("sum", Some("0"), &spec)).await;
    world.wait("Job", "sum", ended("Complete")).await;
    world.wait_event("Completed", 1).await;
    insta::assert_snapshot!(world.seen(JOBS).await);
    world.end().await;
}

#[tokio::test]
async fn a_job_fails_when_its_pods_failed_too_often() {
    let world = world!("failing");
    world.apply(job("sum", Some("7"), &json!({ "backoffLimit": 0 }))).await;
    world.wait("Job", "sum", ended("Failed")).await;
    world.wait_event("BackoffLimitExceeded", 1).await;
    insta::assert_snapshot!(world.seen(JOBS).await);
    world.end().await;
}

#[tokio::test]
async fn a_failure_policy_ends_a_job_at_once() {
    let world = world!("policy");
    let codes = json!({ "operator": "In", "values": [7] });
    let policy = json!({ "rules": [{ "action": "FailJob", "onExitCodes": codes }] });
    world.apply(job("sum", Some("7"), &json!({ "podFailurePolicy": policy }))).await;
    world.wait("Job", "sum", ended("Failed")).await;
    world.wait_event("PodFailurePolicy", 1).await;
    insta::assert_snapshot!(world.seen(JOBS).await);
    world.end().await;
}

#[tokio::test]
async fn a_job_past_its_deadline_ends_its_pods() {
    let world = world!("deadline");
    world.apply(job("sum", None, &json!({ "activeDeadlineSeconds": 1 }))).await;
    world.wait("Job", "sum", ended("Failed")).await;
    world.wait_event("DeadlineExceeded", 1).await;
    insta::assert_snapshot!(world.seen(JOBS).await);
    world.end().await;
}

#[tokio::test]
async fn a_suspended_job_has_no_pods_until_it_goes_on() {
    let world = world!("suspended");
    world.apply(job("sum", None, &json!({}))).await;
    world.wait("Job", "sum", |object| object["status"]["ready"] == 1).await;
    world.patch("Job", "sum", json!({ "spec": { "suspend": true } })).await;
    world.wait("Job", "sum", |object| ended("Suspended")(object) && object["status"]["terminating"] == 0).await;
    world.wait_event("Suspended", 1).await;
    insta::assert_snapshot!("suspended", world.seen(JOBS).await);
    world.patch("Job", "sum", json!({ "spec": { "suspend": false } })).await;
    world.wait("Job", "sum", |object| object["status"]["ready"] == 1).await;
    world.wait_event("Resumed", 1).await;
    insta::assert_snapshot!("resumed", world.seen(JOBS).await);
    world.end().await;
}

#[tokio::test]
async fn a_finished_job_is_deleted_when_its_time_is_over() {
    let world = world!("ttl");
    world.apply(job("sum", Some("0"), &json!({ "ttlSecondsAfterFinished": 0 }))).await;
    world.wait_event("Completed", 1).await;
    world.wait("Job", "sum", Value::is_null).await;
    insta::assert_snapshot!(world.seen(JOBS).await);
    world.end().await;
}

#[tokio::test]
async fn a_cron_job_starts_a_job_when_its_minute_comes() {
    let world = world!("cron");
    let mut object = job("tick", Some("0"), &json!({}));
    object = json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": { "name": "tick" },
        "spec": { "schedule": "* * * * *", "timeZone": "Europe/Berlin", "jobTemplate": { "spec": object["spec"] } },
    });
    world.apply(object).await;
    // Kubernetes' own controller takes the minute that it takes; ours is told that it is over.
    let seconds = world.clock.now().as_second();
    let minute = jiff::Timestamp::from_second(seconds - seconds % 60 + 59).expect("a time");
    world.clock.set(minute, 1.0);
    world.wait("CronJob", "tick", |object| !object["status"]["lastSuccessfulTime"].is_null()).await;
    world.patch("CronJob", "tick", json!({ "spec": { "suspend": true } })).await;
    world.wait_event("SawCompletedJob", 1).await;
    insta::assert_snapshot!(world.seen(&["CronJob", "Job", "Event"]).await);
    world.end().await;
}

#[tokio::test]
async fn a_paused_deployment_scales_in_proportion_and_goes_on() {
    let world = world!("paused");
    let spec = |replicas: i32, paused: bool| json!({ "replicas": replicas, "paused": paused });
    world.apply(workload("Deployment", "web", "one", &spec(8, false))).await;
    world.wait("Deployment", "web", available(8)).await;
    world.apply(workload("Deployment", "web", "broken", &spec(8, false))).await;
    let stuck = |object: &Value| {
        let status = &object["status"];
        status["observedGeneration"] == 2
            && status["updatedReplicas"] == 4
            && status["replicas"] == 10
            && status["terminatingReplicas"] == 0
    };
    world.wait("Deployment", "web", stuck).await;
    world.apply(workload("Deployment", "web", "broken", &spec(16, true))).await;
    let scaled = |object: &Value| object["status"]["observedGeneration"] == 3 && object["status"]["replicas"] == 20;
    world.wait("Deployment", "web", scaled).await;
    world.wait("Deployment", "web", |object| object["status"]["readyReplicas"] == 12).await;
    insta::assert_snapshot!("paused", world.seen(&["Deployment", "ReplicaSet"]).await);
    world.apply(workload("Deployment", "web", "one", &spec(16, false))).await;
    world.wait("Deployment", "web", available(16)).await;
    insta::assert_snapshot!("unpaused", world.seen(&["Deployment", "ReplicaSet"]).await);
    world.end().await;
}

#[tokio::test]
async fn old_revisions_are_forgotten_past_the_limit() {
    let world = world!("history");
    for image in ["one", "two", "three", "four"] {
        world.apply(workload("Deployment", "web", image, &json!({ "replicas": 1, "revisionHistoryLimit": 1 }))).await;
        world.wait("Deployment", "web", available(1)).await;
    }
    let left = super::world::eventually(async || (world.list("ReplicaSet").await.len() == 2).then_some(())).await;
    assert!(left.is_some(), "{}", world.seen(&["ReplicaSet"]).await);
    world.wait("Deployment", "web", available(1)).await;
    insta::assert_snapshot!(world.seen(&["Deployment", "ReplicaSet"]).await);
    world.end().await;
}

#[tokio::test]
async fn a_replica_set_lets_a_relabelled_pod_go_and_takes_it_back() {
    let world = world!("adoption");
    world.apply(workload("ReplicaSet", "web", "one", &json!({ "replicas": 2 }))).await;
    world.wait("ReplicaSet", "web", |object| object["status"]["readyReplicas"] == 2).await;
    let pod = super::world::pods(&world).await.remove(0).metadata.name.expect("a name");
    world.patch("Pod", &pod, json!({ "metadata": { "labels": { "app": "other" } } })).await;
    world.wait("Pod", &pod, |pod| pod["metadata"]["ownerReferences"].is_null()).await;
    let three = super::world::eventually(async || (super::world::pods(&world).await.len() == 3).then_some(())).await;
    assert!(three.is_some(), "{}", world.seen(&["Pod"]).await);
    world.patch("Pod", &pod, json!({ "metadata": { "labels": { "app": "web" } } })).await;
    let two = super::world::eventually(async || (super::world::pods(&world).await.len() == 2).then_some(())).await;
    assert!(two.is_some(), "{}", world.seen(&["Pod"]).await);
    world
        .wait("ReplicaSet", "web", |object| {
            object["status"]["readyReplicas"] == 2
                && object["status"]["replicas"] == 2
                && object["status"]["terminatingReplicas"] == 0
        })
        .await;
    world.wait_event("SuccessfulCreate", 3).await;
    world.wait_event("SuccessfulDelete", 1).await;
    insta::assert_snapshot!(world.seen(&["ReplicaSet", "Pod", "Event"]).await);
    world.end().await;
}

#[tokio::test]
async fn a_daemon_set_with_a_surge_never_leaves_a_node_without_a_pod() {
    let world = world!("surge");
    for name in ["node-a", "node-b"] {
        world.node(name, None).await;
    }
    let spec = json!({
        "template": { "spec": { "nodeSelector": { "pool": world.namespace } } },
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
    });
    let settled = |generation: i64| {
        move |object: &Value| {
            let status = &object["status"];
            status["observedGeneration"] == generation
                && status["numberAvailable"] == 2
                && status["updatedNumberScheduled"] == 2
        }
    };
    world.apply(workload("DaemonSet", "agent", "one", &spec)).await;
    world.wait("DaemonSet", "agent", settled(1)).await;
    world.apply(workload("DaemonSet", "agent", "two", &spec)).await;
    world.wait("DaemonSet", "agent", settled(2)).await;
    world.wait_event("SuccessfulDelete", 2).await;
    insta::assert_snapshot!(world.seen(&["DaemonSet", "ControllerRevision", "Pod", "Event"]).await);
    world.end().await;
}

/// What a hundred small deployments take, so that nothing grows with the square of their number unnoticed.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_deployments_become_available() {
    let world = world!("hundred");
    let begun = std::time::Instant::now();
    for index in 0..100 {
        let name = format!("web-{index}");
        world.apply(workload("Deployment", &name, "one", &json!({ "replicas": 3 }))).await;
    }
    for index in 0..100 {
        world.wait("Deployment", &format!("web-{index}"), available(3)).await;
    }
    tracing::info!(took = ?begun.elapsed(), "100 deployments of 3 pods");
    assert_eq!(super::world::pods(&world).await.len(), 300);
    world.end().await;
}

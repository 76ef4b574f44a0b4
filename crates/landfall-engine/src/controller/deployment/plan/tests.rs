//! Steps of rollouts, each from a picture of the replica sets: `image replicas/available`.

use serde_json::json;

use super::*;

struct Picture {
    deployment: Deployment,
    sets: Vec<Arc<ReplicaSet>>,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time of this century")
}

fn deployment(replicas: i32, surge: &str, unavailable: &str) -> Deployment {
    let deployment = json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "d", "generation": 1 },
        "spec": {
            "replicas": replicas,
            "progressDeadlineSeconds": 60,
            "revisionHistoryLimit": 1,
            "selector": { "matchLabels": { "app": "web" } },
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "main", "image": "new" }] } },
        },
    });
    serde_json::from_value(deployment).expect("a deployment")
}

/// Sets of these images, oldest first, with how many replicas each has and how many of them are available.
fn picture(deployment: Deployment, sets: &[(&str, i32, i32)]) -> Picture {
    let spec = deployment.spec.clone().expect("a spec");
    let most = spec.replicas.unwrap_or(1);
    let sets = sets.iter().zip(1..).map(|((image, replicas, available), revision)| {
        let mut template = serde_json::to_value(&spec.template).expect("JSON");
        template["spec"]["containers"][0]["image"] = json!(image);
        let set = json!({
            "metadata": {
                "name": image, "uid": image, "generation": 1,
                "creationTimestamp": at(revision).to_string(),
                "annotations": {
                    REVISION: revision.to_string(),
                    "deployment.kubernetes.io/desired-replicas": most.to_string(),
                    "deployment.kubernetes.io/max-replicas": most.to_string(),
                },
            },
            "spec": { "replicas": replicas, "selector": {}, "template": template },
            "status": { "replicas": replicas, "availableReplicas": available, "observedGeneration": 1 },
        });
        Arc::new(serde_json::from_value(set).expect("a replica set"))
    });
    Picture { sets: sets.collect(), deployment }
}

fn step(picture: &Picture) -> Plan {
    plan(&picture.deployment, &picture.sets, |_| false, at(100)).expect("a plan")
}

/// The new sizes, as `image replicas`; a new set is `+`, a deleted one `-`.
fn sizes(plan: &Plan) -> Vec<String> {
    let changes = plan.changes.iter().filter_map(|change| match change {
        Change::Create(set) => Some(format!("+{}", set.spec.as_ref()?.replicas?)),
        Change::Update { name, scaled, .. } => scaled.map(|(_, to)| format!("{name} {to}")),
        Change::Delete { name } => Some(format!("-{name}")),
    });
    changes.collect()
}

fn check(replicas: i32, surge: &str, unavailable: &str, sets: &[(&str, i32, i32)], expected: &[&str]) {
    assert_eq!(sizes(&step(&picture(deployment(replicas, surge, unavailable), sets))), expected);
}

#[test]
fn the_first_set_gets_all_replicas() {
    check(3, "25%", "25%", &[], &["+3"]);
}

#[test]
fn a_new_set_begins_with_the_surge_while_the_old_one_gives_what_it_may() {
    check(10, "25%", "25%", &[("old", 10, 10)], &["+3", "old 8"]);
}

#[test]
fn a_surge_is_rounded_up_and_what_may_be_unavailable_down() {
    check(3, "10%", "50%", &[("old", 3, 3)], &["+1", "old 2"]);
}

#[test]
fn with_neither_surge_nor_unavailable_one_pod_may_be_missing() {
    check(2, "0%", "10%", &[("old", 2, 2)], &["+0", "old 1"]);
}

#[test]
fn without_availability_nothing_is_taken() {
    check(4, "25%", "0%", &[("old", 4, 4), ("new", 1, 0)], &[]);
}

#[test]
fn what_is_not_available_anyway_goes_first() {
    check(4, "0%", "25%", &[("older", 2, 0), ("old", 2, 2), ("new", 0, 0)], &["older 1"]);
}

#[test]
fn the_new_set_grows_into_what_the_old_one_has_left() {
    check(4, "25%", "25%", &[("old", 2, 2), ("new", 2, 2)], &["new 3"]);
}

#[test]
fn several_sets_share_a_change_of_scale_in_proportion() {
    let mut picture = picture(deployment(10, "0%", "50%"), &[("old", 6, 6), ("new", 4, 0)]);
    picture.deployment.spec.as_mut().expect("a spec").replicas = Some(20);
    assert_eq!(sizes(&step(&picture)), ["new 8", "old 12"]);
    picture.deployment.spec.as_mut().expect("a spec").replicas = Some(5);
    assert_eq!(sizes(&step(&picture)), ["new 2", "old 3"]);
}

#[test]
fn a_paused_deployment_makes_no_new_set() {
    let mut picture = picture(deployment(3, "25%", "25%"), &[("old", 3, 3)]);
    picture.deployment.spec.as_mut().expect("a spec").paused = Some(true);
    let plan = step(&picture);
    assert_eq!(sizes(&plan), <[String; 0]>::default());
    let reasons: Vec<_> = plan.status.conditions.iter().flatten().filter_map(|one| one.reason.clone()).collect();
    assert_eq!(reasons, ["DeploymentPaused", "MinimumReplicasAvailable"]);
}

#[test]
fn a_set_that_comes_back_gets_the_next_revision_and_remembers_its_old_one() {
    let picture = picture(deployment(1, "100%", "0%"), &[("new", 0, 0), ("old", 1, 1)]);
    let plan = step(&picture);
    let Some(Change::Update { name, patch, scaled }) = plan.changes.first() else { panic!("no update") };
    assert_eq!((name.as_str(), scaled), ("new", &Some((0, 1))));
    let annotations = &patch["metadata"]["annotations"];
    assert_eq!(annotations[REVISION], "3");
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
    assert_eq!(plan.revision.as_deref(), Some("3"));
}

#[test]
fn revisions_past_the_limit_are_deleted_when_the_rollout_is_done() {
    let mut picture = picture(deployment(1, "100%", "0%"), &[("one", 0, 0), ("two", 0, 0), ("new", 1, 1)]);
    assert_eq!(sizes(&step(&picture)), <[String; 0]>::default());
    picture.deployment.status = Some(step(&picture).status);
    assert_eq!(sizes(&step(&picture)), ["-one"]);
}

#[test]
fn recreate_waits_for_pods_that_still_run() {
    let mut deployment = deployment(2, "0", "0");
    deployment.spec.as_mut().and_then(|spec| spec.strategy.as_mut()).expect("a strategy").type_ =
        Some("Recreate".to_owned());
    let picture = picture(deployment, &[("old", 0, 0)]);
    let waiting = plan(&picture.deployment, &picture.sets, |uid| uid == "old", at(100)).expect("a plan");
    assert_eq!(sizes(&waiting), <[String; 0]>::default());
    assert_eq!(sizes(&step(&picture)), ["+2"]);
}

#[test]
fn a_rollout_that_stands_still_past_its_deadline_has_failed() {
    let mut picture = picture(deployment(2, "50%", "0%"), &[("old", 2, 2), ("new", 1, 0)]);
    let first = step(&picture);
    assert_eq!(first.recheck, Some(Duration::from_secs(61)));
    picture.deployment.status = Some(first.status);
    let reason = |second: i64| {
        let plan = plan(&picture.deployment, &picture.sets, |_| false, at(second)).expect("a plan");
        let conditions = plan.status.conditions.unwrap_or_default();
        conditions.into_iter().find(|one| one.type_ == "Progressing").and_then(|one| one.reason)
    };
    assert_eq!(reason(160).as_deref(), Some("ReplicaSetUpdated"));
    assert_eq!(reason(161).as_deref(), Some("ProgressDeadlineExceeded"));
}

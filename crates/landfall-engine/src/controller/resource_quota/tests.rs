//! What a quota counts, and what it gives back.

use super::*;

fn quota(hard: &Value, used: &Value) -> ResourceQuota {
    let quota = json!({ "metadata": { "name": "all" }, "spec": { "hard": hard }, "status": { "used": used } });
    serde_json::from_value(quota).expect("it is a quota")
}

fn pods(objects: Vec<Value>) -> Counted {
    Counted { group: "", plural: "pods", objects }
}

fn pod(phase: &str) -> Value {
    let container = json!({ "name": "a", "resources": { "requests": { "cpu": "200m", "memory": "1Gi" } } });
    json!({ "spec": { "containers": [container] }, "status": { "phase": phase } })
}

fn used(quota: &ResourceQuota, kinds: &[Counted]) -> Value {
    json!(plan(quota, kinds).used)
}

#[test]
fn pods_that_have_ended_take_nothing() {
    let quota = quota(&json!({ "pods": "3", "requests.cpu": "1", "memory": "4Gi" }), &json!({}));
    let kinds = [pods(vec![pod("Running"), pod("Pending"), pod("Succeeded")])];
    assert_eq!(used(&quota, &kinds), json!({ "pods": "2", "requests.cpu": "400m", "memory": "2Gi" }));
}

#[test]
fn what_is_not_there_is_counted_as_nothing() {
    let quota = quota(&json!({ "services": "1", "count/pods": "1" }), &json!({ "services": "1", "count/pods": "1" }));
    assert_eq!(used(&quota, &[pods(Vec::new())]), json!({ "services": "0", "count/pods": "0" }));
}

#[test]
fn the_charges_of_kinds_that_are_not_counted_here_stay() {
    let quota = quota(&json!({ "count/widgets.example.com": "5" }), &json!({ "count/widgets.example.com": "2" }));
    assert_eq!(used(&quota, &[pods(vec![pod("Running")])]), json!({ "count/widgets.example.com": "2" }));
}

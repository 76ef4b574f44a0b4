//! What metrics ask for and how fast it is followed.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{StatusCode, Uri};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscalerBehavior, MetricIdentifier};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use proptest::prelude::*;
use serde_json::json;

use super::behavior::{History, Range};
use super::metrics::{self, Metric};
use super::replicas::{Sample, Samples, Target, Tolerance, propose, propose_for_share, propose_for_value};

const TOLERANCE: Tolerance = Tolerance { up: 0.1, down: 0.1 };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a time")
}

/// Old enough that its CPU counts.
const NOW: i64 = 10_000;

fn pod(name: &str, phase: &str) -> Pod {
    let pod = json!({
        "metadata": { "name": name },
        "status": { "phase": phase, "startTime": at(0), "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": at(10) },
        ] },
    });
    serde_json::from_value(pod).expect("a pod")
}

/// Each pod requests one core; `used` has its usage in thousandths, None for no sample.
fn check(percent: i64, used: &[Option<i64>], pending: usize, expected: i32) {
    let running = used.len();
    let mut pods: Vec<_> = (0..running).map(|number| pod(&format!("p{number}"), "Running")).collect();
    pods.extend((0..pending).map(|number| pod(&format!("new{number}"), "Pending")));
    let requests: BTreeMap<_, _> =
        pods.iter().map(|pod| (pod.metadata.name.clone().unwrap_or_default(), 1000)).collect();
    let current = i32::try_from(pods.len()).expect("few pods");
    let target = Target::Utilization { percent, requests: &requests };
    let proposal = propose(&pods, samples(used), target, true, current, TOLERANCE, at(NOW)).expect("a proposal");
    assert_eq!(proposal.replicas, expected);
}

fn samples(used: &[Option<i64>]) -> Samples {
    let sample = |value| Sample { value, at: at(NOW), window: Duration::from_secs(30) };
    let samples = used.iter().enumerate();
    samples.filter_map(|(number, value)| Some((format!("p{number}"), sample((*value)?)))).collect()
}

#[test]
fn replicas_follow_the_ratio_of_usage_to_target() {
    check(50, &[Some(1000), Some(1000)], 0, 4);
    check(50, &[Some(100), Some(100), Some(100)], 0, 1);
    check(50, &[Some(540), Some(540)], 0, 2);
    check(50, &[Some(551), Some(551)], 0, 2);
    check(50, &[Some(560), Some(560)], 0, 3);
}

#[test]
fn what_is_not_known_makes_no_change_larger() {
    // One at 100 % and one unknown, counted as idle: half is the target.
    check(50, &[Some(1000), None], 0, 2);
    // One idle and one unknown, counted as busy.
    check(50, &[Some(0), None], 0, 2);
    check(50, &[Some(900), Some(900)], 2, 4);
    check(20, &[Some(900), Some(900)], 2, 9);
}

/// The same of a metric that pods tell, of which each is to have 10.
fn check_average(used: &[Option<i64>], pending: usize, expected: i32) {
    let mut pods: Vec<_> = (0..used.len()).map(|number| pod(&format!("p{number}"), "Running")).collect();
    pods.extend((0..pending).map(|number| pod(&format!("new{number}"), "Pending")));
    let current = i32::try_from(pods.len()).expect("few pods");
    let used: Vec<_> = used.iter().map(|value| value.map(|value| value * 1000)).collect();
    let proposal = propose(&pods, samples(&used), Target::Average(10_000), false, current, TOLERANCE, at(NOW));
    assert_eq!(proposal.expect("a proposal").replicas, expected);
}

#[test]
fn replicas_follow_what_pods_tell_on_average() {
    check_average(&[Some(30)], 0, 3);
    check_average(&[Some(30), Some(0), Some(0)], 0, 3);
    check_average(&[Some(10), Some(0), Some(0)], 0, 1);
    check_average(&[Some(11), Some(10)], 0, 2);
}

#[test]
fn pods_that_tell_nothing_count_as_idle_or_as_busy_as_they_should_be() {
    // 30 and nothing are 15 on average.
    check_average(&[Some(30), None], 0, 3);
    // 1, 1 and 10 are 4 on average.
    check_average(&[Some(1), Some(1), None], 0, 2);
    // Pods that do not run yet are idle.
    check_average(&[Some(30), Some(30)], 2, 6);
    check_average(&[Some(5), Some(5)], 2, 1);
}

/// An API with one answer, in which `PATH` is what it was asked for.
fn api(code: StatusCode, body: &'static str) -> Client {
    let answer = move |uri: Uri| async move { (code, body.replace("PATH", &uri.to_string())) };
    Client::new(axum::Router::new().fallback(answer), "default")
}

async fn ask(code: StatusCode, body: &'static str) -> Result<Samples, String> {
    let metric = json!({ "name": "waiting", "selector": { "matchLabels": { "queue": "a" } } });
    let metric: MetricIdentifier = serde_json::from_value(metric).expect("a metric");
    metrics::pods(&api(code, body), "shop", "app=web", &Metric::of(&metric)).await
}

#[tokio::test]
async fn pods_are_asked_for_by_their_labels_and_those_of_the_metric() {
    let list = r#"{ "kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta2", "metadata": {}, "items": [{
        "describedObject": { "kind": "Pod", "namespace": "shop", "name": "web-1", "apiVersion": "v1" },
        "metric": { "name": "waiting", "selector": null },
        "timestamp": "1970-01-01T00:00:10Z", "windowSeconds": 15, "value": "2500m"
    }] }"#;
    let sample = Sample { value: 2500, at: at(10), window: Duration::from_secs(15) };
    assert_eq!(ask(StatusCode::OK, list).await, Ok(Samples::from([("web-1".to_owned(), sample)])));
    let status = r#"{ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "NotFound",
        "code": 404, "message": "the server could not find the metric PATH for pods" }"#;
    let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/*/waiting?labelSelector=app%3Dweb\
                &metricLabelSelector=queue%3Da";
    let expected = format!(
        "unable to fetch metrics from custom metrics API: the server could not find the metric {path} for pods"
    );
    assert_eq!(ask(StatusCode::NOT_FOUND, status).await, Err(expected));
}

#[tokio::test]
async fn an_api_that_is_not_there_is_told_from_a_metric_that_is_not() {
    let failed = |why: &str| Err(format!("unable to fetch metrics from custom metrics API: {why}"));
    let missing = failed("no custom metric API (custom.metrics.k8s.io) registered");
    assert_eq!(ask(StatusCode::NOT_FOUND, "404 page not found\n").await, missing);
    let away = r#"{ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": "ServiceUnavailable", "code": 503, "message": "the server is away" }"#;
    assert_eq!(ask(StatusCode::SERVICE_UNAVAILABLE, away).await, failed("the server is away"));
    let empty = r#"{ "items": [] }"#;
    assert_eq!(ask(StatusCode::OK, empty).await, Err("no metrics returned from custom metrics API".to_owned()));
}

#[test]
fn one_value_for_all_is_divided_among_the_ready_or_by_the_target() {
    assert_eq!(propose_for_value(200, 100, 3, 3, TOLERANCE), 6);
    assert_eq!(propose_for_value(105, 100, 3, 3, TOLERANCE), 3);
    assert_eq!(propose_for_value(200, 100, 0, 0, TOLERANCE), 2);
    assert_eq!(propose_for_share(1000, 100, 5, TOLERANCE), (10, 200));
    assert_eq!(propose_for_share(0, 100, 5, TOLERANCE), (0, 0));
}

fn behavior(value: serde_json::Value) -> Option<HorizontalPodAutoscalerBehavior> {
    serde_json::from_value(value).expect("a behavior")
}

/// The replicas after proposals `(second, proposed, expected)`, each acted on.
fn follow(behavior: Option<&HorizontalPodAutoscalerBehavior>, start: i32, steps: &[(i64, i32, i32, &str)]) {
    let mut history = History::default();
    let mut current = start;
    history.begin(at(0), current);
    for (second, proposed, expected, limit) in steps {
        let range = Range { min: 1, max: 100, current };
        let decision = history.decide(at(*second), *proposed, range, behavior);
        assert_eq!((decision.replicas, decision.limit.0), (*expected, *limit), "after {second} s");
        if decision.replicas != current {
            history.changed(at(*second), decision.replicas - current, behavior);
            current = decision.replicas;
        }
    }
}

#[test]
fn replicas_come_at_once_and_go_after_five_minutes() {
    let within = "DesiredWithinRange";
    follow(None, 2, &[(15, 4, 4, within), (30, 1, 4, within), (314, 1, 4, within), (316, 1, 1, within)]);
}

#[test]
fn a_clock_that_is_set_back_has_seen_nothing_of_what_is_ahead_of_it() {
    let mut history = History::default();
    let mut decide = |second: i64, proposed: i32, current: i32| {
        history.begin(at(second), current);
        history.decide(at(second), proposed, Range { min: 1, max: 100, current }, None).replicas
    };
    assert_eq!(decide(50_000, 4, 2), 4);
    assert_eq!(decide(60, 1, 4), 4, "as one that begins here");
    assert_eq!(decide(361, 1, 4), 1);
}

#[test]
fn without_rules_replicas_double_at_most() {
    follow(None, 3, &[(15, 50, 6, "ScaleUpLimit"), (30, 50, 12, "ScaleUpLimit")]);
    follow(None, 1, &[(15, 50, 4, "ScaleUpLimit"), (30, 500, 8, "ScaleUpLimit")]);
    follow(None, 90, &[(15, 500, 100, "TooManyReplicas"), (310, 0, 100, "TooManyReplicas")]);
}

#[test]
fn policies_bound_what_changes_in_their_period() {
    let slowly = behavior(json!({
        "scaleUp": { "stabilizationWindowSeconds": 0, "selectPolicy": "Max",
            "policies": [{ "type": "Pods", "value": 2, "periodSeconds": 60 }] },
        "scaleDown": { "stabilizationWindowSeconds": 0, "selectPolicy": "Min", "policies": [
            { "type": "Percent", "value": 50, "periodSeconds": 60 }, { "type": "Pods", "value": 1, "periodSeconds": 60 },
        ] },
    }));
    follow(
        slowly.as_ref(),
        4,
        &[
            (15, 10, 6, "ScaleUpLimit"),
            (30, 10, 6, "ScaleUpLimit"),
            (76, 10, 8, "ScaleUpLimit"),
            (200, 1, 7, "ScaleDownLimit"),
            (210, 1, 7, "ScaleDownLimit"),
            (261, 1, 6, "ScaleDownLimit"),
        ],
    );
}

#[test]
fn a_disabled_direction_changes_nothing() {
    let rules = behavior(json!({
        "scaleUp": { "stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [] },
        "scaleDown": { "stabilizationWindowSeconds": 0, "selectPolicy": "Disabled", "policies": [] },
    }));
    follow(rules.as_ref(), 4, &[(15, 1, 4, "ScaleDownLimit")]);
}

proptest! {
    #[test]
    fn decisions_stay_between_the_bounds_and_between_present_and_past(
        proposals in prop::collection::vec((1_i64..120, 0_i32..200), 1..40),
        start in 2_i32..20,
    ) {
        let mut history = History::default();
        let (mut current, mut now) = (start, at(0));
        history.begin(now, current);
        let mut highest = start;
        for (pause, proposed) in proposals {
            now += SignedDuration::from_secs(pause);
            highest = highest.max(proposed);
            let decision = history.decide(now, proposed, Range { min: 2, max: 20, current }, None);
            prop_assert!((2..=20).contains(&decision.replicas));
            prop_assert!(decision.replicas <= highest.max(current).max(2));
            prop_assert!(proposed < current || decision.replicas >= current);
            current = decision.replicas;
        }
    }

    #[test]
    fn a_busier_pod_never_asks_for_fewer_replicas(used in prop::collection::vec(0_i64..2000, 1..10), more in 1_i64..2000) {
        let ask = |used: &[i64]| {
            let pods: Vec<_> = (0..used.len()).map(|number| pod(&format!("p{number}"), "Running")).collect();
            let used: Vec<_> = used.iter().copied().map(Some).collect();
            let current = i32::try_from(pods.len()).expect("few pods");
            propose(&pods, samples(&used), Target::Average(500), false, current, TOLERANCE, at(NOW)).map(|p| p.replicas)
        };
        let mut busier = used.clone();
        busier[0] += more;
        prop_assert!(ask(&busier).expect("a proposal") >= ask(&used).expect("a proposal"));
    }
}

//! Metrics of pods, told by a source that knows one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::tests::{send, send_as, server};
use super::super::{Identity, Server};
use crate::api::node_agent::{Labels, MetricsSource, NodeUsage, PodSeries, PodUsage};

const METRICS: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default";

/// The first pod that it is asked of has messages in two queues, the second in one, and no other answers.
struct Queues;

impl MetricsSource for Queues {
    fn nodes(&self) -> Vec<NodeUsage> {
        Vec::new()
    }

    fn pods(&self) -> Vec<PodUsage> {
        Vec::new()
    }

    fn series<'a>(&'a self, pods: &'a [Arc<str>], metric: &'a str) -> BoxFuture<'a, Vec<Result<PodSeries, String>>> {
        let queue = |name: &str, value: f64| (Labels::from([("queue".to_owned(), name.to_owned())]), value);
        let told = |place: usize| {
            let (window, series) = match (metric, place) {
                ("waiting", 0) => (None, vec![queue("a", 1.5), queue("b", 3.0)]),
                ("waiting", 1) => (None, vec![queue("a", 12_000.0)]),
                ("handled_total", 0) => (Some(Duration::from_secs(15)), vec![queue("a", 0.2)]),
                ("broken", 0) => (None, vec![queue("a", f64::NAN)]),
                ("waiting", _) => return Err("connect: connection refused".to_owned()),
                _ => return Err("it tells no such metric".to_owned()),
            };
            Ok(PodSeries { at: Timestamp::UNIX_EPOCH, window, series })
        };
        let told: Vec<_> = (0..pods.len()).map(told).collect();
        std::future::ready(told).boxed()
    }

    fn metric_names(&self) -> BTreeSet<String> {
        BTreeSet::from(["waiting".to_owned(), "handled_total".to_owned()])
    }
}

/// A server with three pods `web-0` to `web-2`.
async fn with_pods() -> Server {
    let server = server().await;
    server.set_metrics(Arc::new(Queues));
    let account = json!({"metadata": {"name": "default"}});
    send(&server, "POST", "/api/v1/namespaces/default/serviceaccounts", account).await;
    for number in 0..3 {
        let pod = json!({
            "metadata": {"name": format!("web-{number}"), "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        });
        let (code, answer) = send(&server, "POST", "/api/v1/namespaces/default/pods", pod).await;
        assert_eq!(code, StatusCode::CREATED, "{answer}");
    }
    server
}

async fn get(server: &Server, path: &str) -> (StatusCode, Value) {
    send(server, "GET", &format!("{METRICS}/{path}"), Value::Null).await
}

#[tokio::test]
async fn a_metric_of_all_pods_that_are_selected_is_summed_for_each() {
    let server = with_pods().await;
    let (code, list) = get(&server, "pods/*/waiting?labelSelector=app%3Dweb").await;
    assert_eq!(code, StatusCode::OK);
    let item = |name: &str, value: &str| {
        json!({
            "describedObject": {"kind": "Pod", "namespace": "default", "name": name, "apiVersion": "v1"},
            "metric": {"name": "waiting", "selector": null},
            "timestamp": "1970-01-01T00:00:00Z",
            "value": value,
        })
    };
    let expected = json!({
        "kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta2", "metadata": {},
        "items": [item("web-0", "4500m"), item("web-1", "12k")],
    });
    assert_eq!(list, expected);
    let (_, none) = get(&server, "pods/*/waiting?labelSelector=app%3Dother").await;
    assert_eq!(none["items"], json!([]));
}

#[tokio::test]
async fn a_selector_of_the_metric_takes_some_of_its_series() {
    let server = with_pods().await;
    let (_, list) = get(&server, "pods/*/waiting?metricLabelSelector=queue%3Db").await;
    let items = list["items"].as_array().expect("a list");
    assert_eq!(items.len(), 1);
    assert_eq!((&items[0]["describedObject"]["name"], &items[0]["value"]), (&json!("web-0"), &json!("3")));
    let said = json!({"matchExpressions": [{"key": "queue", "operator": "In", "values": ["b"]}]});
    assert_eq!(items[0]["metric"]["selector"], said);
}

#[tokio::test]
async fn a_rate_says_over_which_time() {
    let server = with_pods().await;
    let (_, list) = get(&server, "pods/web-0/handled_total").await;
    let items = list["items"].as_array().expect("a list");
    assert_eq!((&items[0]["value"], &items[0]["windowSeconds"]), (&json!("200m"), &json!(15)));
}

#[tokio::test]
async fn what_is_not_known_is_refused_with_the_words_of_adapters_and_the_reason() {
    let server = with_pods().await;
    for (path, code, message) in [
        ("pods/*/lost", 404, "the server could not find the metric lost for pods: pod web-0: it tells no such metric"),
        ("pods/web-0/lost", 404, "the server could not find the metric lost for pods web-0: it tells no such metric"),
        (
            "pods/web-9/waiting",
            404,
            "the server could not find the metric waiting for pods web-9: there is no such pod",
        ),
        (
            "pods/web-0/broken",
            404,
            "the server could not find the metric broken for pods web-0: its value is no finite number",
        ),
        (
            "services/web/waiting",
            404,
            "the server could not find the metric waiting for services web: only metrics of pods are served",
        ),
        (
            "metrics/waiting",
            404,
            "the server could not find the metric waiting for namespaces default: only metrics of pods are served",
        ),
        ("pods", 404, "the server could not find the requested resource"),
    ] {
        let (answered, status) = get(&server, path).await;
        assert_eq!((answered.as_u16(), &status["message"]), (code, &json!(message)), "{path}");
    }
    let (code, _) = send(&server, "DELETE", &format!("{METRICS}/pods/web-0/waiting"), Value::Null).await;
    assert_eq!(code, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn discovery_names_the_metrics_that_are_known() {
    let server = with_pods().await;
    let (_, list) = send(&server, "GET", "/apis/custom.metrics.k8s.io/v1beta2", Value::Null).await;
    let metric = |name: &str| json!({"name": name, "singularName": "", "namespaced": true, "kind": "MetricValueList", "verbs": ["get"]});
    assert_eq!(list["resources"], json!([metric("pods/handled_total"), metric("pods/waiting")]));
}

#[tokio::test]
async fn a_group_of_which_no_metric_is_known_is_not_named() {
    for (server, expected) in [(server().await, false), (with_pods().await, true)] {
        let (_, list) = send(&server, "GET", "/apis", Value::Null).await;
        let groups = list["groups"].as_array().expect("a list");
        assert_eq!(groups.iter().any(|group| group["name"] == "custom.metrics.k8s.io"), expected);
        let (code, _) = send(&server, "GET", "/apis/custom.metrics.k8s.io/v1beta2", Value::Null).await;
        assert_eq!(code, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_metric_is_read_by_who_may_get_it_and_no_other() {
    let server = with_pods().await;
    let alice = || Identity::new("alice", Vec::<String>::new());
    let path = |metric: &str| format!("{METRICS}/pods/*/{metric}");
    let (code, status) = send_as(&server, alice(), "GET", &path("waiting"), Value::Null).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        status["message"],
        "pods.custom.metrics.k8s.io \"*\" is forbidden: User \"alice\" cannot get resource \"pods/waiting\" in API group \
         \"custom.metrics.k8s.io\" in the namespace \"default\""
    );
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({
        "metadata": {"name": "waiting"},
        "rules": [{"verbs": ["get"], "apiGroups": ["custom.metrics.k8s.io"], "resources": ["pods/waiting"]}],
    });
    let binding = json!({
        "metadata": {"name": "waiting"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "waiting"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "alice"}],
    });
    for (plural, object) in [("roles", role), ("rolebindings", binding)] {
        let (code, answer) = send(&server, "POST", &format!("{rbac}/{plural}"), object).await;
        assert_eq!(code, StatusCode::CREATED, "{answer}");
    }
    let (code, _) = send_as(&server, alice(), "GET", &path("waiting"), Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    let (code, _) = send_as(&server, alice(), "GET", &path("handled_total"), Value::Null).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
}

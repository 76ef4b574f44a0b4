//! The endpoint with a machine that only remembers.

use std::sync::Mutex;

use futures::FutureExt as _;
use serde_json::{Value, json};

use super::super::tests::{send, send_as, server};
use super::super::{Identity, Server};
use super::*;

struct Remembering {
    nodes: Mutex<Vec<PlayedNode>>,
    mock: bool,
}

impl Machine for Remembering {
    fn nodes(&self) -> Vec<PlayedNode> {
        self.nodes.lock().expect("no test panics here").clone()
    }

    fn set_faults(&self, nodes: BTreeSet<String>, fault: NodeFault) -> BoxFuture<'_, Result<(), String>> {
        for node in self.nodes.lock().expect("no test panics here").iter_mut() {
            if nodes.contains(&node.name) {
                node.state = fault;
            }
        }
        std::future::ready(Ok(())).boxed()
    }

    fn stops_traffic(&self) -> bool {
        true
    }

    fn set_images(&self, _images: Catalogue) {}

    fn is_mock(&self) -> bool {
        self.mock
    }
}

async fn machine(mock: bool) -> Server {
    let server = server().await;
    let node = |name: &str, zone: &str| PlayedNode {
        name: name.to_owned(),
        zone: Some(zone.to_owned()),
        state: NodeFault::None,
        pods: 0,
    };
    let nodes = Mutex::new(vec![node("a-1", "a"), node("a-2", "a"), node("b-1", "b")]);
    server.set_machine(Arc::new(Remembering { nodes, mock }));
    server
}

fn states(answer: &Value) -> Vec<(&str, &str)> {
    let nodes = answer["nodes"].as_array().into_iter().flatten();
    nodes.filter_map(|node| Some((node["name"].as_str()?, node["state"].as_str()?))).collect()
}

const NODES: &str = "/landfall.dev/v1/nodes";

#[tokio::test]
async fn a_node_or_a_zone_is_made_faulty_and_well_again() {
    let server = machine(false).await;
    let (code, answer) = send(&server, "PUT", &format!("{NODES}/b-1"), json!({"state": "cut"})).await;
    assert_eq!((code, states(&answer)), (StatusCode::OK, vec![("b-1", "cut")]));
    let (_, answer) = send(&server, "PUT", "/landfall.dev/v1/zones/a", json!({"state": "killed"})).await;
    assert_eq!(states(&answer), [("a-1", "killed"), ("a-2", "killed")]);
    send(&server, "PUT", &format!("{NODES}/a-1"), json!({"state": "running"})).await;
    let (_, answer) = send(&server, "GET", NODES, Value::Null).await;
    assert_eq!(states(&answer), [("a-1", "running"), ("a-2", "killed"), ("b-1", "cut")]);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let server = machine(false).await;
    send(&server, "PUT", &format!("{NODES}/a-1"), json!({"state": "killed"})).await;
    for (method, path, body, code, message) in [
        ("PUT", "nodes/c", json!({"state": "cut"}), 404, "nodes \"c\" not found"),
        ("PUT", "zones/c", json!({"state": "cut"}), 404, "zones \"c\" not found"),
        (
            "PUT",
            "zones/a",
            json!({"state": "cut"}),
            409,
            "Operation cannot be fulfilled on nodes \"a-1\": the node is killed, and only one that runs can be cut off",
        ),
        (
            "PUT",
            "nodes/a-2",
            json!({"state": "slow"}),
            400,
            "the body is not understood: unknown variant `slow`, expected one of `running`, `cut`, `killed` at line 1 column 15",
        ),
        ("DELETE", "nodes/a-2", Value::Null, 405, "the server does not allow this method on the requested resource"),
        (
            "PUT",
            "clock",
            json!({"speed": 0}),
            400,
            "`speed` is 0, and the clock stands still only where pods are a mock: real processes would go on",
        ),
        ("PUT", "clock", json!({"speed": -1}), 400, "`speed` is -1, and must be between 0.001 and 100000"),
        ("PUT", "clock", json!({"offsetSeconds": 1e300}), 400, "`offsetSeconds` leads to no time"),
        (
            "PUT",
            "clock",
            json!({"time": "2030-01-01T00:00:00Z", "offsetSeconds": 1}),
            400,
            "`time` and `offsetSeconds` exclude each other",
        ),
    ] {
        let (answered, status) = send(&server, method, &format!("/landfall.dev/v1/{path}"), body).await;
        assert_eq!((answered.as_u16(), status["message"].as_str()), (code, Some(message)), "{method} {path}");
    }
    let (_, answer) = send(&server, "GET", NODES, Value::Null).await;
    assert_eq!(states(&answer), [("a-1", "killed"), ("a-2", "running"), ("b-1", "running")]);
}

#[tokio::test]
async fn the_clock_is_offset_and_sped_up_and_what_is_left_out_stays() {
    let server = machine(false).await;
    let (_, reading) = send(&server, "PUT", CLOCK_PATH, json!({"offsetSeconds": 86400.0})).await;
    assert_eq!(reading["speed"], 1.0);
    let offset = |reading: &Value| reading["offsetSeconds"].as_f64().expect("a number");
    assert!((offset(&reading) - 86400.0).abs() < 60.0, "{reading}");
    let (_, reading) = send(&server, "PUT", CLOCK_PATH, json!({"speed": 2.0})).await;
    assert!((offset(&reading) - 86400.0).abs() < 60.0, "{reading}");
    let (_, object) = send(
        &server,
        "POST",
        "/api/v1/namespaces/default/configmaps",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dated"}}),
    )
    .await;
    let created: Timestamp =
        object["metadata"]["creationTimestamp"].as_str().and_then(|time| time.parse().ok()).expect("a time");
    assert!(created > Timestamp::now() + SignedDuration::from_hours(23), "{created}");
}

#[tokio::test]
async fn the_clock_stands_still_where_pods_are_a_mock() {
    let server = machine(true).await;
    let wanted = json!({"time": "2030-01-01T00:00:00Z", "speed": 0.0});
    let (code, _) = send(&server, "PUT", CLOCK_PATH, wanted).await;
    assert_eq!(code, StatusCode::OK);
    let (_, reading) = send(&server, "GET", CLOCK_PATH, Value::Null).await;
    assert_eq!(reading["time"], "2030-01-01T00:00:00Z");
}

#[tokio::test]
async fn only_administrators_and_those_whose_role_names_the_path_may_do_it() {
    let server = machine(false).await;
    let operator = || Identity::new("operator", Vec::<String>::new());
    let put = || send_as(&server, operator(), "PUT", "/landfall.dev/v1/nodes/b-1", json!({"state": "cut"}));
    let (code, status) = put().await;
    assert_eq!(
        (code, status["message"].as_str()),
        (StatusCode::FORBIDDEN, Some("forbidden: User \"operator\" cannot put path \"/landfall.dev/v1/nodes/b-1\""))
    );
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "operator"},
        "rules": [{"nonResourceURLs": ["/landfall.dev/v1/nodes/*"], "verbs": ["put"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "operator"},
        "subjects": [{"kind": "User", "name": "operator", "apiGroup": "rbac.authorization.k8s.io"}],
    });
    let (code, answer) = send(&server, "POST", &format!("{rbac}/clusterroles"), role).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let (code, answer) = send(&server, "POST", &format!("{rbac}/clusterrolebindings"), binding).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    assert_eq!(put().await.0, StatusCode::OK);
    let (code, _) = send_as(&server, operator(), "GET", NODES, Value::Null).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
}

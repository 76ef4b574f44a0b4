//! How values are printed, and what a client is told of fields that nobody acts on.

use axum::body::Body;
use http::{Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::printed;
use crate::api::tests::server;
use crate::api::{Identity, Server};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Sends a request and answers its status, the texts of its warnings, and its body.
async fn send(server: &Server, user: &str, method: &str, path: &str, body: Value) -> (StatusCode, Vec<String>, Value) {
    let media_type = if method == "PATCH" { "application/strategic-merge-patch+json" } else { "application/json" };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, media_type)
        .body(Body::from(body.to_string()))
        .expect("a request");
    request.extensions_mut().insert(Identity::component(user));
    let response = server.router().oneshot(request).await.expect("the router does not fail");
    let texts = response.headers().get_all(header::WARNING).iter();
    let texts = texts.map(|text| text.to_str().expect("warnings are text").to_owned()).collect();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a whole body");
    (status, texts, serde_json::from_slice(&body).expect("an answer is JSON"))
}

/// A pod whose containers ask for a security context each.
fn pod(name: &str, containers: &[&str]) -> Value {
    let context = json!({ "seLinuxOptions": { "level": "s0" } });
    let container = |name: &&str| json!({ "name": name, "image": "web", "securityContext": context });
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "containers": containers.iter().map(container).collect::<Vec<_>>() },
    })
}

async fn with_account() -> Server {
    let server = server().await;
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    send(&server, "jane", "POST", accounts, account).await;
    server
}

#[tokio::test]
async fn a_user_is_told_once_what_is_ignored() {
    let server = with_account().await;
    let (status, texts, _) = send(&server, "jane", "POST", PODS, pod("a", &["web"])).await;
    assert_eq!(status, StatusCode::CREATED);
    insta::assert_snapshot!(texts.join("\n"), @r#"299 - "spec.containers[0].securityContext.seLinuxOptions: accepted and ignored: programs run under the security modules of the machine as the engine does""#);
    let labels = json!({ "metadata": { "labels": { "a": "b" } } });
    let (status, texts, _) = send(&server, "jane", "PATCH", &format!("{PODS}/a"), labels).await;
    assert_eq!((status, texts), (StatusCode::OK, Vec::new()));
}

#[tokio::test]
async fn a_part_of_the_control_plane_is_told_nothing() {
    let server = with_account().await;
    let (status, texts, _) = send(&server, "system:engine", "POST", PODS, pod("a", &["web"])).await;
    assert_eq!((status, texts), (StatusCode::CREATED, Vec::new()));
    let account = "system:serviceaccount:default:default";
    let (_, texts, _) = send(&server, account, "POST", PODS, pod("b", &["web"])).await;
    assert_eq!(texts.len(), 1);
}

#[tokio::test]
async fn many_ignored_fields_are_named_in_part() {
    let server = with_account().await;
    let names: Vec<String> = (0..13).map(|number| format!("web-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (_, texts, _) = send(&server, "jane", "POST", PODS, pod("a", &names)).await;
    assert_eq!(texts.len(), 11);
    assert_eq!(texts.last().map(String::as_str), Some("299 - \"3 more fields are accepted and ignored\""));
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_with_its_path() {
    let server = with_account().await;
    let mut object = pod("a", &["web"]);
    object["spec"]["volumes"] = json!([{ "name": "v", "nfs": { "server": "s", "path": "/" } }]);
    let (status, _, body) = send(&server, "jane", "POST", PODS, object).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    insta::assert_snapshot!(body["details"]["causes"], @r#"[{"reason":"FieldValueForbidden","message":"Forbidden: volumes of this kind cannot be mounted here; a claim can stand in for it","field":"spec.volumes[0].nfs"}]"#);
}

#[test]
fn a_value_is_printed_with_its_keys_in_order() {
    let value = json!({ "x": { "y": [1, "b", null, true, 1.5] }, "data": { "a-b": "3", "a": "2" } });
    assert_eq!(printed(&value), "map[data:map[a:2 a-b:3] x:map[y:[1 b <nil> true 1.5]]]");
}

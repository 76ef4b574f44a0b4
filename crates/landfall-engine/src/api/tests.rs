//! The API server through `kube::Client` and through bare requests.

use std::time::Duration;

use axum::body::Body;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Request, StatusCode};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{Config, Identity, Server};

/// A server in memory.
pub(crate) async fn server() -> Server {
    Server::start(Config::in_memory()).await.expect("a server in memory starts")
}

/// A client of a server of its own: what tests of other parts of the engine run on.
pub(crate) async fn client() -> Client {
    server().await.client("test")
}

/// Sends a request as somebody who may do everything.
pub(crate) async fn send(server: &Server, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
    send_as(server, Identity::component("test"), method, path, body).await
}

pub(crate) async fn send_as(
    server: &Server,
    who: Identity,
    method: &str,
    path: &str,
    body: Value,
) -> (StatusCode, Value) {
    let media_type = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let mut request =
        Request::builder().method(method).uri(path).header("Content-Type", media_type).body(body).expect("a request");
    request.extensions_mut().insert(who);
    let response = server.router().oneshot(request).await.expect("the router does not fail");
    let code = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a whole body");
    (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into()))
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"n": name}}, "data": {"a": "1"}})
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let maps: Api<ConfigMap> = Api::namespaced(client().await, "default");
    let object: ConfigMap = serde_json::from_value(config_map("one")).expect("a config map");
    let created = maps.create(&PostParams::default(), &object).await.expect("created");
    assert!(created.metadata.uid.is_some() && created.metadata.resource_version.is_some());
    let patch = json!({"data": {"b": "2"}});
    let patched = maps.patch("one", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patched");
    assert_ne!(patched.metadata.resource_version, created.metadata.resource_version);
    let read = maps.get("one").await.expect("read");
    assert_eq!(read, patched);
    maps.delete("one", &DeleteParams::default()).await.expect("deleted");
    let gone = maps.get_opt("one").await.expect("answered");
    assert_eq!(gone, None);
}

#[tokio::test]
async fn a_write_based_on_an_old_version_is_a_conflict() {
    let server = server().await;
    let (_, mut object) = send(&server, "POST", MAPS, config_map("one")).await;
    object["data"]["a"] = "2".into();
    let path = format!("{MAPS}/one");
    let (code, _) = send(&server, "PUT", &path, object.clone()).await;
    assert_eq!(code, StatusCode::OK);
    object["data"]["a"] = "3".into();
    let (code, status) = send(&server, "PUT", &path, object).await;
    assert_eq!(code, StatusCode::CONFLICT);
    assert_eq!(
        status["message"],
        "Operation cannot be fulfilled on configmaps \"one\": the object has been modified; please apply your changes \
         to the latest version and try again"
    );
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing() {
    let server = server().await;
    let (_, object) = send(&server, "POST", MAPS, config_map("one")).await;
    let (code, again) = send(&server, "PUT", &format!("{MAPS}/one"), object.clone()).await;
    assert_eq!((code, again), (StatusCode::OK, object));
}

#[tokio::test]
async fn a_long_list_comes_in_pages_of_one_moment() {
    let server = server().await;
    for name in ["a", "b", "c"] {
        send(&server, "POST", MAPS, config_map(name)).await;
    }
    let (_, first) = send(&server, "GET", &format!("{MAPS}?limit=2"), Value::Null).await;
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    send(&server, "POST", MAPS, config_map("bb")).await;
    let token = first["metadata"]["continue"].as_str().expect("there is more");
    let (_, rest) = send(&server, "GET", &format!("{MAPS}?limit=2&continue={token}"), Value::Null).await;
    let names: Vec<&Value> =
        rest["items"].as_array().expect("a list").iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["c"]);
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_watch_tells_what_comes_to_match_its_selector_and_what_ceases_to() {
    let client = client().await;
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let version =
        maps.list(&ListParams::default()).await.expect("a list").metadata.resource_version.expect("a version");
    let mut watch =
        maps.watch(&WatchParams::default().labels("on=yes").timeout(10), &version).await.expect("a watch").boxed();
    let object: ConfigMap = serde_json::from_value(config_map("one")).expect("a config map");
    maps.create(&PostParams::default(), &object).await.expect("created");
    for value in ["yes", "no"] {
        let patch = json!({"metadata": {"labels": {"on": value}}});
        maps.patch("one", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("patched");
    }
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let event = tokio::time::timeout(Duration::from_secs(10), watch.try_next()).await.expect("in time");
        seen.push(match event.expect("an event").expect("the watch goes on") {
            WatchEvent::Added(_) => "added",
            WatchEvent::Deleted(_) => "deleted",
            _ => "something else",
        });
    }
    assert_eq!(seen, ["added", "deleted"]);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_tells_how_far_the_store_has_come() {
    let server = server().await;
    let (_, list) = send(&server, "GET", MAPS, Value::Null).await;
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version");
    let path = format!("{MAPS}?watch=1&allowWatchBookmarks=1&resourceVersion={version}");
    let mut request = Request::builder().uri(path).body(Body::empty()).expect("a request");
    request.extensions_mut().insert(Identity::component("test"));
    let watch = server.router().oneshot(request).await.expect("the router does not fail");
    let secret = json!({"metadata": {"name": "elsewhere"}});
    let (_, secret) = send(&server, "POST", "/api/v1/namespaces/default/secrets", secret).await;
    let piece = watch.into_body().into_data_stream().next().await.expect("a bookmark").expect("the body goes on");
    let event: Value = serde_json::from_slice(&piece).expect("one line of JSON");
    assert_eq!(event["type"], "BOOKMARK");
    assert_eq!(event["object"]["metadata"]["resourceVersion"], secret["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_right_to_one_name_is_a_right_to_list_and_watch_that_name() {
    let server = server().await;
    let role = json!({
        "metadata": {"name": "one"},
        "rules": [{
            "verbs": ["list", "deletecollection"], "apiGroups": [""], "resources": ["configmaps"],
            "resourceNames": ["one"],
        }],
    });
    let (code, _) = send(&server, "POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await;
    assert_eq!(code, StatusCode::CREATED);
    bind(&server, "alice", "one").await;
    let alice = || Identity::new("alice", Vec::<String>::new());
    for (method, query, expected) in [
        ("GET", "?fieldSelector=metadata.name%3Done", StatusCode::OK),
        ("GET", "?fieldSelector=metadata.name%3D%3Done,metadata.namespace%3Ddefault", StatusCode::OK),
        ("GET", "?fieldSelector=metadata.name%3Dtwo", StatusCode::FORBIDDEN),
        ("GET", "?fieldSelector=metadata.name%21%3Done", StatusCode::FORBIDDEN),
        ("GET", "", StatusCode::FORBIDDEN),
        // As in Kubernetes, whoever may delete a collection may delete all of it.
        ("DELETE", "?fieldSelector=metadata.name%3Done", StatusCode::FORBIDDEN),
    ] {
        let (code, _) = send_as(&server, alice(), method, &format!("{MAPS}{query}"), Value::Null).await;
        assert_eq!(code, expected, "{method} {query}");
    }
}

/// Deletes an object; answers its warnings too.
async fn delete(server: &Server, path: &str, body: Value) -> (Value, Vec<String>) {
    let mut request = Request::builder()
        .method("DELETE")
        .uri(path)
        .header("Content-Type", "application/json")
        .body(Body::from(body.to_string()))
        .expect("a request");
    request.extensions_mut().insert(Identity::component("test"));
    let response = server.router().oneshot(request).await.expect("the router does not fail");
    let warnings = response.headers().get_all("Warning").iter();
    let warnings = warnings.map(|value| value.to_str().expect("a text").to_owned()).collect();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a whole body");
    (serde_json::from_slice(&bytes).expect("an object"), warnings)
}

#[tokio::test]
async fn a_job_leaves_its_pods_behind_unless_the_client_says_otherwise() {
    let server = server().await;
    let path = "/apis/batch/v1/namespaces/default/jobs";
    let job = |name: &str| {
        let container = json!({"name": "c", "image": "i"});
        let pod = json!({"spec": {"restartPolicy": "Never", "containers": [container]}});
        json!({"metadata": {"name": name}, "spec": {"template": pod}})
    };
    send(&server, "POST", path, job("silent")).await;
    send(&server, "POST", path, job("explicit")).await;
    let (deleted, warnings) = delete(&server, &format!("{path}/silent"), json!({})).await;
    assert_eq!(deleted["metadata"]["finalizers"], json!(["orphan"]));
    assert_eq!(
        warnings,
        ["299 - \"child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to \
             remove them or set propagationPolicy=Orphan to suppress this warning\""]
    );
    let (deleted, warnings) =
        delete(&server, &format!("{path}/explicit"), json!({"propagationPolicy": "Background"})).await;
    assert_eq!((deleted["status"].clone(), warnings), (json!("Success"), Vec::new()));
}

#[tokio::test]
async fn a_policy_that_warns_of_a_deletion_is_heard() {
    let server = server().await;
    let policies = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({
        "metadata": {"name": "kept"},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["configmaps"],
            }]},
            "validations": [{"expression": "oldObject.data.a != '1'", "message": "it is the one"}],
        },
    });
    send(&server, "POST", &format!("{policies}/validatingadmissionpolicies"), policy).await;
    let binding = json!({"metadata": {"name": "bound"}, "spec": {"policyName": "kept", "validationActions": ["Warn"]}});
    send(&server, "POST", &format!("{policies}/validatingadmissionpolicybindings"), binding).await;
    send(&server, "POST", MAPS, config_map("one")).await;
    let (_, warnings) = delete(&server, &format!("{MAPS}/one"), json!({})).await;
    assert_eq!(
        warnings,
        ["299 - \"Validation failed for ValidatingAdmissionPolicy 'kept' with binding 'bound': it is the one\""]
    );
}

#[tokio::test]
async fn an_object_with_a_finalizer_stays_until_it_is_taken_away() {
    let server = server().await;
    let mut object = config_map("one");
    object["metadata"]["finalizers"] = json!(["example.com/wait"]);
    send(&server, "POST", MAPS, object).await;
    let path = format!("{MAPS}/one");
    let (code, deleted) = send(&server, "DELETE", &path, Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    assert!(deleted["metadata"]["deletionTimestamp"].is_string());
    send(&server, "PATCH", &path, json!({"metadata": {"finalizers": null}})).await;
    let (code, _) = send(&server, "GET", &path, Value::Null).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_that_is_not_there_or_goes_away() {
    let server = server().await;
    let (code, status) = send(&server, "POST", "/api/v1/namespaces/nowhere/configmaps", config_map("one")).await;
    assert_eq!((code, &status["message"]), (StatusCode::NOT_FOUND, &json!("namespaces \"nowhere\" not found")));
    let namespaces: Api<Namespace> = Api::all(server.client("test"));
    let namespace = json!({"metadata": {"name": "going"}});
    let namespace = serde_json::from_value(namespace).expect("a namespace");
    namespaces.create(&PostParams::default(), &namespace).await.expect("created");
    namespaces.delete("going", &DeleteParams::default()).await.expect("marked");
    let (code, status) = send(&server, "POST", "/api/v1/namespaces/going/configmaps", config_map("one")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(status["details"]["causes"][0]["reason"], "NamespaceTerminating");
}

#[tokio::test]
async fn a_service_gets_an_address_and_gives_it_back() {
    let server = server().await;
    let path = "/api/v1/namespaces/default/services";
    let service =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": "10.96.0.77", "ports": [{"port": 80}]}});
    let (code, _) = send(&server, "POST", path, service("one")).await;
    assert_eq!(code, StatusCode::CREATED);
    let (code, _) = send(&server, "POST", path, service("two")).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    send(&server, "DELETE", &format!("{path}/one"), Value::Null).await;
    let (code, _) = send(&server, "POST", path, service("two")).await;
    assert_eq!(code, StatusCode::CREATED);
}

#[tokio::test]
async fn somebody_without_a_role_may_ask_what_is_served_and_nothing_else() {
    let server = server().await;
    let alice = || Identity::new("alice", ["devs"]);
    let (code, status) = send_as(&server, alice(), "GET", "/api/v1/namespaces/default/pods", Value::Null).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        status["message"],
        "pods is forbidden: User \"alice\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let (code, _) = send_as(&server, alice(), "GET", "/apis", Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    let binding = json!({
        "metadata": {"name": "alice"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "devs"}],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let (code, _) = send(&server, "POST", bindings, binding).await;
    assert_eq!(code, StatusCode::CREATED);
    let (code, _) = send_as(&server, alice(), "GET", "/api/v1/namespaces/default/pods", Value::Null).await;
    assert_eq!(code, StatusCode::OK);
}

#[tokio::test]
async fn a_request_from_nobody_is_refused_except_for_what_is_public() {
    let server = server().await;
    for (path, token, expected) in [
        ("/api/v1/pods", None, StatusCode::FORBIDDEN),
        ("/api/v1/pods", Some("Bearer wrong"), StatusCode::UNAUTHORIZED),
        ("/apis", None, StatusCode::FORBIDDEN),
        ("/readyz", None, StatusCode::OK),
        ("/version", None, StatusCode::OK),
    ] {
        let mut request = Request::builder().uri(path);
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let request = request.body(Body::empty()).expect("a request");
        let response = server.router().oneshot(request).await.expect("the router does not fail");
        assert_eq!(response.status(), expected, "{path}");
    }
}

/// Binds a user to a cluster role in the namespace `default`.
async fn bind(server: &Server, user: &str, role: &str) {
    let binding = json!({
        "metadata": {"generateName": "some-"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}],
    });
    let (code, _) = send(server, "POST", ROLE_BINDINGS, binding).await;
    assert_eq!(code, StatusCode::CREATED);
}

const ROLE_BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";

#[tokio::test]
async fn a_refusal_names_the_role_that_is_not_there() {
    let server = server().await;
    bind(&server, "alice", "lost").await;
    let alice = || Identity::new("alice", Vec::<String>::new());
    let (_, status) = send_as(&server, alice(), "GET", "/api/v1/namespaces/default/pods", Value::Null).await;
    assert_eq!(
        status["message"],
        "pods is forbidden: User \"alice\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\": \
         RBAC: clusterrole.rbac.authorization.k8s.io \"lost\" not found"
    );
}

#[tokio::test]
async fn nobody_gives_away_what_a_role_collects_from_others() {
    let server = server().await;
    let granter = json!({
        "metadata": {"name": "granter"},
        "rules": [{"verbs": ["create"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["rolebindings"]}],
    });
    let (code, _) = send(&server, "POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", granter).await;
    assert_eq!(code, StatusCode::CREATED);
    bind(&server, "alice", "granter").await;
    let binding = json!({
        "metadata": {"name": "more"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "alice"}],
    });
    let alice = Identity::new("alice", Vec::<String>::new());
    let (code, status) = send_as(&server, alice, "POST", ROLE_BINDINGS, binding).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "{status}");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let server = server().await;
    let mut object = config_map("one");
    object["data"]["a"] = "x".repeat(4 * 1024 * 1024).into();
    let (code, _) = send(&server, "POST", MAPS, object).await;
    assert_eq!(code, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_quota_is_charged_with_the_write_and_refuses_what_is_too_much() {
    let server = server().await;
    let quota = json!({"metadata": {"name": "few"}, "spec": {"hard": {"count/configmaps": "1"}}});
    let (code, _) = send(&server, "POST", "/api/v1/namespaces/default/resourcequotas", quota).await;
    assert_eq!(code, StatusCode::CREATED);
    let (code, _) = send(&server, "POST", MAPS, config_map("one")).await;
    assert_eq!(code, StatusCode::CREATED);
    let (code, status) = send(&server, "POST", MAPS, config_map("two")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        status["message"],
        "configmaps \"two\" is forbidden: exceeded quota: few, requested: count/configmaps=1, used: \
         count/configmaps=1, limited: count/configmaps=1"
    );
    let (code, tried) = send(&server, "POST", &format!("{MAPS}?dryRun=All"), config_map("two")).await;
    assert_eq!((code, &tried["message"]), (StatusCode::FORBIDDEN, &status["message"]));
}

#[tokio::test]
async fn a_policy_refuses_what_its_expression_does_not_hold_for() {
    let server = server().await;
    let policies = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({
        "metadata": {"name": "named"},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"],
            }]},
            "variables": [{"name": "a", "expression": "object.data.a"}],
            "validations": [{"expression": "variables.a != '1'", "message": "not one"}],
        },
    });
    let (code, _) = send(&server, "POST", &format!("{policies}/validatingadmissionpolicies"), policy).await;
    assert_eq!(code, StatusCode::CREATED);
    let binding =
        json!({"metadata": {"name": "bound"}, "spec": {"policyName": "named", "validationActions": ["Deny"]}});
    let (code, _) = send(&server, "POST", &format!("{policies}/validatingadmissionpolicybindings"), binding).await;
    assert_eq!(code, StatusCode::CREATED);
    let (code, status) = send(&server, "POST", MAPS, config_map("one")).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        status["message"],
        "configmaps \"one\" is forbidden: ValidatingAdmissionPolicy 'named' with binding 'bound' denied request: not one"
    );
    let mut other = config_map("two");
    other["data"]["a"] = "2".into();
    let (code, _) = send(&server, "POST", MAPS, other).await;
    assert_eq!(code, StatusCode::CREATED);
}

#[tokio::test]
async fn a_custom_resource_is_served_as_soon_as_it_is_defined_and_goes_with_its_definition() {
    let server = server().await;
    let definition = json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 3}}},
                }}},
            }],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (code, _) = send(&server, "POST", definitions, definition).await;
    assert_eq!(code, StatusCode::CREATED);
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": {}});
    let (code, created) = send(&server, "POST", widgets, widget).await;
    assert_eq!((code, &created["spec"]["size"]), (StatusCode::CREATED, &json!(3)));
    let (code, _) = send(&server, "DELETE", &format!("{definitions}/widgets.example.com"), Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    let (code, _) = send(&server, "GET", widgets, Value::Null).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_eviction_that_its_budget_does_not_allow_is_to_be_tried_later() {
    let server = server().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    send(&server, "POST", accounts, json!({"metadata": {"name": "default"}})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]},
    });
    let (code, _) = send(&server, "POST", pods, pod).await;
    assert_eq!(code, StatusCode::CREATED);
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    send(&server, "PATCH", &format!("{pods}/web/status"), ready).await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({
        "metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    });
    send(&server, "POST", budgets, budget).await;
    let status = |allowed: u32| {
        json!({"status": {
            "observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1,
            "expectedPods": 1,
        }})
    };
    send(&server, "PATCH", &format!("{budgets}/web/status"), status(0)).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"}});
    let (code, refused) = send(&server, "POST", &format!("{pods}/web/eviction"), eviction.clone()).await;
    assert_eq!(code, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused["details"]["causes"][0]["reason"], "DisruptionBudget");
    send(&server, "PATCH", &format!("{budgets}/web/status"), status(1)).await;
    let (code, _) = send(&server, "POST", &format!("{pods}/web/eviction"), eviction).await;
    assert_eq!(code, StatusCode::CREATED);
    let (_, going) = send(&server, "GET", &format!("{pods}/web"), Value::Null).await;
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
}

#[tokio::test]
async fn a_token_ends_by_the_clock_of_the_machine_as_whoever_holds_it_has_no_other() {
    let config = Config::in_memory();
    let clock = config.clock.clone();
    let server = Server::start(config).await.expect("a server in memory starts");
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    send(&server, "POST", accounts, json!({"metadata": {"name": "default"}})).await;
    let hour = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600},
    });
    let (code, issued) = send(&server, "POST", &format!("{accounts}/default/token"), hour).await;
    assert_eq!(code, StatusCode::CREATED, "{issued}");
    let ends: jiff::Timestamp =
        issued["status"]["expirationTimestamp"].as_str().and_then(|time| time.parse().ok()).expect("a time");
    let token = issued["status"]["token"].as_str().expect("a token");
    let day = jiff::SignedDuration::from_hours(24);
    for moved in [day, -day] {
        clock.set(jiff::Timestamp::now() + moved, 1.0);
        let request = Request::builder().uri("/api/v1/pods").header("authorization", format!("Bearer {token}"));
        let request = request.body(Body::empty()).expect("a request");
        let response = server.router().oneshot(request).await.expect("the router does not fail");
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "the account is known, and may not do that");
    }
    let left = ends.duration_since(jiff::Timestamp::now());
    assert!(left <= jiff::SignedDuration::from_hours(1) && left > jiff::SignedDuration::from_mins(50), "{left:?}");
}

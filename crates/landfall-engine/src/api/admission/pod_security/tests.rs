//! Each check by itself, the labels of namespaces, and what a server makes of them.

use axum::body::Body;
use http::{Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::checks::violations;
use super::{Policy, Standard, Version, existing, in_detail, is_stricter, runs_something_else};
use crate::api::tests::server;
use crate::api::{Identity, Server};
use crate::scheme::merge;

const NAMESPACE: &str = "/api/v1/namespaces/default";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A container that meets every standard.
fn container(name: &str) -> Value {
    let context = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    json!({"name": name, "image": "web", "securityContext": context})
}

/// A pod that meets every standard, where the patches do not say otherwise. A container is named by its patch.
fn pod(spec: &Value, containers: &Value) -> Value {
    let patched = containers.as_array().expect("a list").iter().map(|patch| {
        let mut container = container("a");
        merge::json(&mut container, patch);
        container
    });
    let context = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"securityContext": context, "containers": patched.collect::<Vec<_>>()},
    });
    merge::json(&mut pod["spec"], spec);
    pod
}

fn standard(text: &str) -> Standard {
    let (level, version) = text.split_once(':').expect("a level and a version");
    Standard { level: level.parse().expect("a level"), version: version.parse().expect("a version") }
}

/// Holds a pod against a standard, such as `baseline:v1.30`.
fn check(against: &str, pod: &Value, expected: &str) {
    assert_eq!(in_detail(&violations(standard(against), pod)), expected, "{against}: {pod}");
}

/// Holds a pod whose containers have these security contexts against a standard.
fn check_contexts(against: &str, spec: Value, contexts: &[(&str, Value)], expected: &str) {
    let containers =
        contexts.iter().map(|(name, context)| json!({"name": name, "securityContext": context})).collect::<Value>();
    check(against, &pod(&spec, &containers), expected);
}

fn in_context(context: Value) -> Value {
    json!({"securityContext": context})
}

#[test]
fn a_pod_that_does_all_that_is_asked_meets_every_standard() {
    let good = pod(&json!({}), &json!([{"name": "a"}, {"name": "b"}]));
    for standard in ["privileged:latest", "baseline:latest", "restricted:v1.0", "restricted:v1.36", "restricted:latest"]
    {
        check(standard, &good, "");
    }
}

#[test]
fn a_pod_that_says_nothing_meets_all_but_the_strictest_standard() {
    let silent = json!({"spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}});
    check("baseline:latest", &silent, "");
    check(
        "restricted:latest",
        &silent,
        r#"allowPrivilegeEscalation != false (containers "i", "a" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers "i", "a" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or containers "i", "a" must set securityContext.runAsNonRoot=true), seccompProfile (pod or containers "i", "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
    );
    check(
        "restricted:v1.7",
        &silent,
        r#"runAsNonRoot != true (pod or containers "i", "a" must set securityContext.runAsNonRoot=true)"#,
    );
}

#[test]
fn a_profile_of_app_armor_confines() {
    let unconfined = json!({"appArmorProfile": {"type": "Unconfined"}});
    let local = json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "x"}});
    check_contexts("baseline:latest", in_context(local), &[("a", json!({}))], "");
    check_contexts(
        "baseline:latest",
        in_context(unconfined.clone()),
        &[("a", unconfined.clone()), ("b", unconfined.clone())],
        r#"forbidden AppArmor profile (pod and containers "a", "b" must not set AppArmor profile type to "Unconfined")"#,
    );
    let mut annotated = pod(&json!({}), &json!([{"name": "a", "securityContext": unconfined}]));
    annotated["metadata"]["annotations"] = json!({
        "container.apparmor.security.beta.kubernetes.io/a": "unconfined",
        "container.apparmor.security.beta.kubernetes.io/b": "runtime/default",
        "container.apparmor.security.beta.kubernetes.io/c": "localhost/x",
    });
    check(
        "baseline:latest",
        &annotated,
        r#"forbidden AppArmor profiles (container "a" and annotation must not set AppArmor profile type to "Unconfined", "container.apparmor.security.beta.kubernetes.io/a="unconfined"")"#,
    );
}

#[test]
fn capabilities_are_few_in_baseline_and_one_in_restricted() {
    let adding = |names: &[&str]| json!({"capabilities": {"add": names}});
    let contexts = [("a", adding(&["SYS_TIME", "CHOWN"])), ("b", adding(&["NET_RAW"])), ("c", adding(&["KILL"]))];
    check_contexts(
        "baseline:latest",
        json!({}),
        &contexts,
        r#"non-default capabilities (containers "a", "b" must not include "NET_RAW", "SYS_TIME" in securityContext.capabilities.add)"#,
    );
    check_contexts(
        "restricted:v1.21",
        json!({}),
        &contexts,
        r#"non-default capabilities (containers "a", "b" must not include "NET_RAW", "SYS_TIME" in securityContext.capabilities.add)"#,
    );
    check_contexts(
        "restricted:latest",
        json!({}),
        &contexts,
        r#"unrestricted capabilities (containers "a", "b", "c" must not include "CHOWN", "KILL", "NET_RAW", "SYS_TIME" in securityContext.capabilities.add)"#,
    );
    check_contexts("restricted:latest", json!({}), &[("a", adding(&["NET_BIND_SERVICE"]))], "");
    let keeping = json!({"capabilities": {"drop": ["KILL"], "add": ["KILL"]}});
    check_contexts(
        "restricted:latest",
        json!({}),
        &[("a", keeping)],
        r#"unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"]; container "a" must not include "KILL" in securityContext.capabilities.add)"#,
    );
}

#[test]
fn namespaces_and_folders_of_the_host_are_its_own() {
    let shared = json!({"hostIPC": true, "hostNetwork": true, "hostPID": true});
    check_contexts(
        "baseline:latest",
        shared,
        &[("a", json!({}))],
        "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
    );
    let volumes = json!({"volumes": [
        {"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "emptyDir": {}}, {"name": "x", "hostPath": {"path": "/"}},
    ]});
    check_contexts("baseline:latest", volumes.clone(), &[("a", json!({}))], r#"hostPath volumes (volumes "v", "x")"#);
    check_contexts(
        "restricted:latest",
        volumes,
        &[("a", json!({}))],
        r#"restricted volume types (volumes "v", "x" use restricted volume type "hostPath")"#,
    );
}

#[test]
fn ports_of_the_host_are_its_own() {
    let one = json!([{"name": "a", "ports": [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81}]}]);
    check("baseline:latest", &pod(&json!({}), &one), r#"hostPort (container "a" uses hostPort 80)"#);
    let more = json!([
        {"name": "a", "ports": [{"containerPort": 80, "hostPort": 80}]},
        {"name": "b", "ports": [{"containerPort": 443, "hostPort": 443}]},
        {"name": "c", "ports": [{"containerPort": 443, "hostPort": 0}]},
    ]);
    check("baseline:latest", &pod(&json!({}), &more), r#"hostPort (containers "a", "b" use hostPorts 443, 80)"#);
}

#[test]
fn probes_and_hooks_go_to_their_own_pod() {
    let containers = json!([
        {"name": "b", "livenessProbe": {"httpGet": {"host": "y", "port": 1}}, "startupProbe": {"httpGet": {"port": 1}}},
        {"name": "a", "readinessProbe": {"tcpSocket": {"host": "x", "port": 1}}},
        {"name": "c", "lifecycle": {"preStop": {"httpGet": {"host": "x", "port": 1}}}},
    ]);
    let candidate = pod(&json!({}), &containers);
    let expected = r#"probe or lifecycle host (containers "a", "b", "c" use probe or lifecycle hosts "x", "y")"#;
    check("baseline:latest", &candidate, expected);
    check("restricted:v1.34", &candidate, expected);
    check("baseline:v1.33", &candidate, "");
    let one = json!([{"name": "a", "lifecycle": {"postStart": {"tcpSocket": {"host": "x", "port": 1}}}}]);
    let expected = r#"probe or lifecycle host (container "a" uses probe or lifecycle host "x")"#;
    check("baseline:latest", &pod(&json!({}), &one), expected);
}

#[test]
fn nobody_is_privileged() {
    let privileged = json!({"privileged": true, "allowPrivilegeEscalation": false});
    check_contexts(
        "baseline:latest",
        json!({}),
        &[("a", privileged), ("b", json!({"privileged": false}))],
        r#"privileged (container "a" must not set securityContext.privileged=true)"#,
    );
}

#[test]
fn proc_is_masked_except_for_pods_with_users_of_their_own() {
    let unmasked = [("a", json!({"procMount": "Unmasked"})), ("b", json!({"procMount": "Default"}))];
    let expected = r#"procMount (container "a" must not set securityContext.procMount to "Unmasked")"#;
    let own = json!({"hostUsers": false});
    check_contexts("baseline:latest", json!({}), &unmasked, expected);
    check_contexts("baseline:v1.34", own.clone(), &unmasked, expected);
    check_contexts("baseline:v1.35", own.clone(), &unmasked, "");
    check_contexts("restricted:v1.34", own.clone(), &unmasked, expected);
    check_contexts("restricted:latest", own, &unmasked, expected);
}

#[test]
fn selinux_keeps_its_user_its_role_and_a_type_of_containers() {
    let options = |options: Value| json!({"seLinuxOptions": options});
    check_contexts(
        "baseline:latest",
        in_context(options(json!({"type": "spc_t", "user": "u"}))),
        &[("a", options(json!({"role": "r"}))), ("b", options(json!({"type": "container_t", "level": "s0"})))],
        r#"seLinuxOptions (pod and container "a" set forbidden securityContext.seLinuxOptions: type "spc_t"; user may not be set; role may not be set)"#,
    );
    let engine = [("a", options(json!({"type": "container_engine_t"}))), ("b", options(json!({"type": "x"})))];
    check_contexts(
        "baseline:latest",
        json!({}),
        &engine,
        r#"seLinuxOptions (container "b" set forbidden securityContext.seLinuxOptions: type "x")"#,
    );
    check_contexts(
        "baseline:v1.30",
        json!({}),
        &engine,
        r#"seLinuxOptions (containers "a", "b" set forbidden securityContext.seLinuxOptions: types "container_engine_t", "x")"#,
    );
}

#[test]
fn seccomp_confines() {
    let unconfined = json!({"seccompProfile": {"type": "Unconfined"}});
    let expected =
        r#"seccompProfile (pod and container "a" must not set securityContext.seccompProfile.type to "Unconfined")"#;
    let contexts = [("a", unconfined.clone()), ("b", json!({"seccompProfile": {"type": "RuntimeDefault"}}))];
    for standard in ["baseline:v1.19", "baseline:latest", "restricted:v1.19", "restricted:latest"] {
        check_contexts(standard, in_context(unconfined.clone()), &contexts, expected);
    }
    check_contexts("baseline:v1.18", in_context(unconfined), &contexts, "");
    let none = json!({"seccompProfile": null});
    let contexts = [("a", json!({})), ("b", json!({"seccompProfile": {"type": "RuntimeDefault"}}))];
    check_contexts("baseline:latest", in_context(none.clone()), &contexts, "");
    check_contexts(
        "restricted:latest",
        in_context(none),
        &contexts,
        r#"seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
    );
    let mut annotated = pod(&json!({}), &json!([{"name": "a"}]));
    annotated["metadata"]["annotations"] = json!({
        "seccomp.security.alpha.kubernetes.io/pod": "unconfined",
        "container.seccomp.security.alpha.kubernetes.io/a": "docker/default",
        "container.seccomp.security.alpha.kubernetes.io/another": "unconfined",
    });
    check("baseline:latest", &annotated, "");
    check(
        "restricted:v1.18",
        &annotated,
        r#"seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod="unconfined")"#,
    );
}

#[test]
fn kernel_parameters_are_those_of_a_pod() {
    let names = ["net.ipv4.tcp_wmem", "kernel.msgmax", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_syncookies"];
    let sysctls: Value = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
    for (standard, expected) in [
        ("baseline:latest", "forbidden sysctls (kernel.msgmax)"),
        ("baseline:v1.31", "forbidden sysctls (net.ipv4.tcp_wmem, kernel.msgmax)"),
        ("restricted:v1.28", "forbidden sysctls (net.ipv4.tcp_wmem, kernel.msgmax, net.ipv4.tcp_fin_timeout)"),
    ] {
        check_contexts(standard, in_context(json!({"sysctls": sysctls})), &[("a", json!({}))], expected);
    }
}

#[test]
fn windows_has_no_host_processes_and_none_of_the_settings_of_linux() {
    let process = json!({"windowsOptions": {"hostProcess": true}});
    check_contexts(
        "baseline:latest",
        in_context(process.clone()),
        &[("a", process)],
        r#"hostProcess (pod and container "a" must not set securityContext.windowsOptions.hostProcess=true)"#,
    );
    let windows = json!({"spec": {
        "os": {"name": "windows"}, "containers": [{"name": "a", "securityContext": {"runAsNonRoot": true}}],
    }});
    check("restricted:v1.25", &windows, "");
    check(
        "restricted:v1.24",
        &windows,
        r#"allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"]), seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
    );
}

#[test]
fn privileges_do_not_grow() {
    let contexts = [("a", json!({"allowPrivilegeEscalation": true})), ("b", json!({"allowPrivilegeEscalation": null}))];
    check_contexts(
        "restricted:latest",
        json!({}),
        &contexts,
        r#"allowPrivilegeEscalation != false (containers "a", "b" must set securityContext.allowPrivilegeEscalation=false)"#,
    );
    check_contexts("baseline:latest", json!({}), &contexts, "");
}

#[test]
fn volumes_are_of_types_that_need_no_rights() {
    let volumes = json!({"volumes": [
        {"name": "a", "configMap": {}}, {"name": "b", "csi": {}}, {"name": "c", "downwardAPI": {}},
        {"name": "d", "emptyDir": {}}, {"name": "e", "ephemeral": {}}, {"name": "f", "image": {}},
        {"name": "g", "persistentVolumeClaim": {}}, {"name": "h", "projected": {}}, {"name": "i", "secret": {}},
        {"name": "j", "nfs": {}}, {"name": "k", "gitRepo": {}}, {"name": "l", "nfs": {}},
    ]});
    check_contexts(
        "restricted:v1.0",
        volumes,
        &[("a", json!({}))],
        r#"restricted volume types (volumes "j", "k", "l" use restricted volume types "gitRepo", "nfs")"#,
    );
}

#[test]
fn nobody_is_root_except_in_pods_with_users_of_their_own() {
    let root = json!({"runAsNonRoot": false, "runAsUser": 0});
    let expected = r#"runAsNonRoot != true (pod and container "a" must not set securityContext.runAsNonRoot=false), runAsUser=0 (pod and container "a" must not set runAsUser=0)"#;
    let contexts = [("a", root.clone()), ("b", json!({"runAsNonRoot": true, "runAsUser": 1}))];
    let mut spec = in_context(root);
    check_contexts("restricted:latest", spec.clone(), &contexts, expected);
    check_contexts("baseline:latest", spec.clone(), &contexts, "");
    spec["hostUsers"] = false.into();
    check_contexts("restricted:v1.34", spec.clone(), &contexts, expected);
    check_contexts("restricted:latest", spec, &contexts, "");
    check_contexts(
        "restricted:latest",
        in_context(json!({"runAsNonRoot": null})),
        &[("a", json!({})), ("b", json!({"runAsNonRoot": true})), ("c", json!({}))],
        r#"runAsNonRoot != true (pod or containers "a", "c" must set securityContext.runAsNonRoot=true)"#,
    );
    let user = [("a", json!({"runAsUser": 0}))];
    check_contexts("restricted:v1.22", json!({}), &user, "");
    check_contexts("restricted:v1.23", json!({}), &user, r#"runAsUser=0 (container "a" must not set runAsUser=0)"#);
}

#[test]
fn a_version_is_latest_or_a_minor_one() {
    for (text, expected) in [
        ("latest", Ok(Version::Latest)),
        ("v1.0", Ok(Version::Minor(0))),
        ("v1.36", Ok(Version::Minor(36))),
        ("v1.01", Err("must be \"latest\" or \"v1.x\"")),
        ("v1.", Err("must be \"latest\" or \"v1.x\"")),
        ("v1.+1", Err("must be \"latest\" or \"v1.x\"")),
        ("v2.0", Err("must be \"latest\" or \"v1.x\"")),
        ("1.36", Err("must be \"latest\" or \"v1.x\"")),
        ("v1.99999999999999999999", Err("must be \"latest\" or \"v1.x\"")),
    ] {
        assert_eq!(text.parse::<Version>(), expected, "{text}");
    }
}

#[test]
fn what_is_enforced_is_warned_of_unless_the_labels_say_otherwise() {
    let read = |labels: &[(&str, &str)]| {
        let labels: Vec<_> =
            labels.iter().map(|(name, value)| (format!("pod-security.kubernetes.io/{name}"), json!(value))).collect();
        let (policy, problems) = Policy::read(&Value::Object(labels.into_iter().collect()));
        format!("{} {} {}", policy.enforce, policy.warn, problems.len())
    };
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[], "privileged:latest privileged:latest 0"),
        (&[("enforce", "baseline")], "baseline:latest baseline:latest 0"),
        (&[("enforce", "baseline"), ("enforce-version", "v1.20")], "baseline:v1.20 baseline:v1.20 0"),
        (
            &[("enforce", "baseline"), ("enforce-version", "v1.20"), ("warn-version", "v1.30")],
            "baseline:v1.20 baseline:v1.30 0",
        ),
        (&[("enforce", "restricted"), ("warn", "privileged")], "restricted:latest privileged:latest 0"),
        (&[("warn", "restricted"), ("warn-version", "v1.30")], "privileged:latest restricted:v1.30 0"),
        (&[("enforce", "strict"), ("warn", "strict")], "restricted:latest privileged:latest 2"),
        (&[("enforce", "baseline"), ("enforce-version", "1")], "baseline:latest baseline:latest 1"),
        (&[("audit", "strict"), ("audit-version", "")], "privileged:latest privileged:latest 2"),
    ];
    for (labels, expected) in cases {
        assert_eq!(read(labels), expected, "{labels:?}");
    }
}

#[test]
fn pods_are_looked_at_again_when_their_standard_changes_for_the_worse() {
    for (before, now, expected) in [
        ("privileged:latest", "baseline:latest", true),
        ("restricted:latest", "baseline:latest", false),
        ("restricted:latest", "baseline:v1.20", true),
        ("baseline:latest", "baseline:latest", false),
        ("baseline:latest", "privileged:v1.20", false),
    ] {
        assert_eq!(is_stricter(standard(now), standard(before)), expected, "{before} to {now}");
    }
}

#[test]
fn an_update_matters_if_it_brings_another_container_or_image() {
    let old = pod(&json!({"initContainers": [{"name": "i", "image": "i"}]}), &json!([{"name": "a"}]));
    let changed = |change: fn(&mut Value)| {
        let mut new = old.clone();
        change(&mut new);
        runs_something_else(&new, &old)
    };
    assert!(!changed(|new| new["metadata"]["labels"] = json!({"a": "b"})));
    assert!(!changed(|new| new["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1"}})));
    assert!(changed(|new| new["spec"]["containers"][0]["image"] = "other".into()));
    assert!(changed(|new| new["spec"]["initContainers"][0]["image"] = "other".into()));
    assert!(changed(|new| new["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "e"}])));
}

#[test]
fn existing_pods_with_the_same_violations_are_told_together() {
    let bare = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let pods = [
        bare("c", json!({"containers": [{"name": "a"}]})),
        bare("b", json!({"containers": [{"name": "a"}]})),
        bare("d", json!({"containers": [{"name": "a"}]})),
        bare("f", json!({"hostPID": true, "containers": [container("a")]})),
        bare("a", json!({"hostPID": true, "containers": [container("a")]})),
        pod(&json!({}), &json!([{"name": "a"}])),
        pod(&json!({"hostPID": true}), &json!([{"name": "a"}])),
    ];
    insta::assert_snapshot!(existing("shop", standard("restricted:latest"), pods.iter()).join("\n"), @r#"
    existing pods in namespace "shop" violate the new PodSecurity enforce level "restricted:latest"
    a (and 1 other pod): host namespaces, runAsNonRoot != true, seccompProfile
    b (and 2 other pods): allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile
    web: host namespaces
    "#);
    assert!(existing("shop", standard("baseline:latest"), pods[..3].iter()).is_empty());
}

/// Sends a request, of which nothing is told but warnings of admission, and answers its status, those, and its body.
async fn send(server: &Server, method: &str, path: &str, body: Value) -> (StatusCode, Vec<String>, Value) {
    let media_type = if method == "PATCH" { "application/strategic-merge-patch+json" } else { "application/json" };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, media_type)
        .body(Body::from(body.to_string()))
        .expect("a request");
    request.extensions_mut().insert(Identity::component("system:engine"));
    let response = server.router().oneshot(request).await.expect("the router does not fail");
    let texts = response.headers().get_all(header::WARNING).iter();
    let texts = texts.map(|text| text.to_str().expect("warnings are text").to_owned()).collect();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a whole body");
    (status, texts, serde_json::from_slice(&body).expect("an answer is JSON"))
}

/// A server whose namespace `default` can have pods.
async fn with_account() -> Server {
    let server = server().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    send(&server, "POST", "/api/v1/namespaces/default/serviceaccounts", account).await;
    server
}

async fn label(server: &Server, labels: Value) -> (StatusCode, Vec<String>, Value) {
    send(server, "PATCH", NAMESPACE, json!({"metadata": {"labels": labels}})).await
}

fn silent(name: &str) -> Value {
    let containers = json!([{"name": "a", "image": "web"}]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers}})
}

#[tokio::test]
async fn a_pod_that_violates_what_its_namespace_enforces_is_refused() {
    let server = with_account().await;
    label(&server, json!({"pod-security.kubernetes.io/enforce": "restricted"})).await;
    let (code, texts, status) = send(&server, "POST", PODS, silent("x")).await;
    assert_eq!((code, texts), (StatusCode::FORBIDDEN, Vec::new()));
    assert_eq!(
        status["message"],
        r#"pods "x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#
    );
    assert_eq!(status["details"], json!({"name": "x", "kind": "pods"}));
    let (code, texts, status) = send(&server, "POST", PODS, pod(&json!({}), &json!([{"name": "a"}]))).await;
    assert_eq!((code, texts), (StatusCode::CREATED, Vec::new()), "{status}");
}

#[tokio::test]
async fn a_pod_may_go_on_in_a_namespace_that_becomes_stricter_but_run_nothing_else() {
    let server = with_account().await;
    let (code, _, status) = send(&server, "POST", PODS, silent("x")).await;
    assert_eq!(code, StatusCode::CREATED, "{status}");
    let (code, texts, _) = label(&server, json!({"pod-security.kubernetes.io/enforce": "restricted"})).await;
    assert_eq!(code, StatusCode::OK);
    insta::assert_snapshot!(texts.join("\n"), @r#"
    299 - "existing pods in namespace \"default\" violate the new PodSecurity enforce level \"restricted:latest\""
    299 - "x: allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile"
    "#);
    let path = format!("{PODS}/x");
    let (code, texts, _) = send(&server, "PATCH", &path, json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!((code, texts), (StatusCode::OK, Vec::new()));
    let status = json!({"status": {"phase": "Running"}});
    let (code, _, _) = send(&server, "PATCH", &format!("{path}/status"), status).await;
    assert_eq!(code, StatusCode::OK);
    let image = json!({"spec": {"containers": [{"name": "a", "image": "other"}]}});
    let (code, _, _) = send(&server, "PATCH", &path, image).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_template_of_a_workload_is_only_warned_of() {
    let server = with_account().await;
    label(&server, json!({"pod-security.kubernetes.io/enforce": "baseline"})).await;
    let template = |spec: Value| json!({"metadata": {"labels": {"app": "web"}}, "spec": spec});
    let containers = json!([{"name": "a", "image": "web"}]);
    let host = json!({"hostPID": true, "containers": containers});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template(host.clone())},
    });
    let expected = r#"299 - "would violate PodSecurity \"baseline:latest\": host namespaces (hostPID=true)""#;
    let (code, texts, status) = send(&server, "POST", deployments, deployment).await;
    assert_eq!((code, texts), (StatusCode::CREATED, vec![expected.to_owned()]), "{status}");
    // A scale is no template.
    let scale = json!({"spec": {"replicas": 2}});
    let (code, texts, status) = send(&server, "PATCH", &format!("{deployments}/web/scale"), scale).await;
    assert_eq!((code, texts), (StatusCode::OK, Vec::new()), "{status}");
    let mut never = host;
    never["restartPolicy"] = "Never".into();
    let job = json!({"spec": {"template": {"spec": never}}});
    let job = json!({"metadata": {"name": "web"}, "spec": {"schedule": "* * * * *", "jobTemplate": job}});
    let (code, texts, status) = send(&server, "POST", "/apis/batch/v1/namespaces/default/cronjobs", job).await;
    assert_eq!((code, texts), (StatusCode::CREATED, vec![expected.to_owned()]), "{status}");
}

#[tokio::test]
async fn labels_that_cannot_be_read_are_refused() {
    let server = with_account().await;
    let labels =
        json!({"pod-security.kubernetes.io/enforce": "strict", "pod-security.kubernetes.io/audit-version": "1"});
    let (code, _, status) = label(&server, labels.clone()).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        status["message"],
        r#"Namespace "default" is invalid: [metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, baseline, restricted, metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: "1": must be "latest" or "v1.x"]"#
    );
    let namespace = json!({"metadata": {"name": "shop", "labels": labels}});
    let (code, _, _) = send(&server, "POST", "/api/v1/namespaces", namespace).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
}

//! References that lead nowhere, and those that only seem to.

use serde_json::{Value, json};

use super::*;

#[track_caller]
fn check(objects: &[Value], expected: &[Problem]) {
    assert_eq!(cluster(objects, Surroundings::default()).problems(), expected);
}

fn object(version: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name, "namespace": "shop" }, "spec": spec })
}

fn key(kind: &str, name: &str) -> ObjectKey {
    ObjectKey::new(kind, "shop", name)
}

fn missing(by: (&str, &str), path: &str, object: (&str, &str)) -> Problem {
    Problem::Missing { by: key(by.0, by.1), path: path.to_owned(), object: key(object.0, object.1) }
}

fn service(selector: &Value, ports: &Value) -> Value {
    object("v1", "Service", "web", &json!({ "selector": selector, "ports": ports }))
}

fn web_service() -> Value {
    service(&json!({ "app": "web" }), &json!([{ "name": "http", "port": 80, "targetPort": "http" }]))
}

/// The workload `reader`, whose pods have this specification.
fn reader(spec: &Value) -> Value {
    object("apps/v1", "Deployment", "reader", &json!({ "template": { "spec": spec } }))
}

fn ingress(port: &Value) -> Value {
    let backend = json!({ "service": { "name": "web", "port": port } });
    object(
        "networking.k8s.io/v1",
        "Ingress",
        "entry",
        &json!({ "rules": [{ "http": { "paths": [{ "backend": backend }] } }] }),
    )
}

const INGRESS_PATH: &str = "spec.rules[0].http.paths[0].backend.service.name";

fn no_port(kind: &str, name: &str, path: &str, port: &str) -> Problem {
    let (route, service) = (key(kind, name), key("Service", "web"));
    Problem::BackendPortMissing { route, path: path.to_owned(), service, port: port.to_owned() }
}

#[test]
fn an_ingress_backend_has_to_exist() {
    check(&[ingress(&json!({ "number": 80 }))], &[missing(("Ingress", "entry"), INGRESS_PATH, ("Service", "web"))]);
    check(&[ingress(&json!({ "number": 80 })), web_service()], &[]);
}

#[test]
fn an_ingress_backend_has_to_have_the_port() {
    check(&[ingress(&json!({ "name": "http" })), web_service()], &[]);
    for (port, written) in [(json!({ "number": 8080 }), "8080"), (json!({ "name": "web" }), "web")] {
        check(&[ingress(&port), web_service()], &[no_port("Ingress", "entry", INGRESS_PATH, written)]);
    }
}

#[test]
fn the_default_backend_of_an_ingress_has_to_exist() {
    let spec = json!({ "defaultBackend": { "service": { "name": "web", "port": { "number": 80 } } } });
    check(
        &[object("networking.k8s.io/v1", "Ingress", "entry", &spec)],
        &[missing(("Ingress", "entry"), "spec.defaultBackend.service.name", ("Service", "web"))],
    );
}

#[test]
fn a_route_backend_has_to_exist_with_its_port() {
    let route = |port: u16| {
        let rules =
            json!([{ "backendRefs": [{ "name": "web", "port": port }, { "group": "x", "kind": "Y", "name": "z" }] }]);
        object("gateway.networking.k8s.io/v1", "HTTPRoute", "entry", &json!({ "rules": rules }))
    };
    let path = "spec.rules[0].backendRefs[0].name";
    check(&[route(80)], &[missing(("HTTPRoute", "entry"), path, ("Service", "web"))]);
    check(&[route(81), web_service()], &[no_port("HTTPRoute", "entry", path, "81")]);
    check(&[route(80), web_service()], &[]);
}

#[test]
fn a_service_has_to_select_something() {
    let object = service(&json!({ "app": "wbe" }), &json!([{ "port": 80 }]));
    check(&[object], &[Problem::ServiceSelectsNothing { service: key("Service", "web") }]);
    check(&[service(&Value::Null, &json!([{ "port": 80 }]))], &[]);
}

#[test]
fn a_target_port_has_to_be_declared() {
    let problem = |port: &str| Problem::TargetPortUndeclared {
        service: key("Service", "web"),
        port: port.to_owned(),
        protocol: Protocol::Tcp,
    };
    let check_target = |target: &Value, expected: &[Problem]| {
        check(&[service(&json!({ "app": "web" }), &json!([{ "port": 80, "targetPort": target }]))], expected);
    };
    check_target(&json!(8080), &[]);
    check_target(&json!("http"), &[]);
    check_target(&json!("grpc"), &[problem("grpc")]);
    check_target(&Value::Null, &[problem("80")]);
}

#[test]
fn a_service_leads_to_its_workloads() {
    let cluster = cluster(&[web_service()], Surroundings::default());
    let (service, behind) = cluster.service("shop", "web").expect("the service of the test");
    assert_eq!(behind, [named(&cluster, "web")]);
    assert_eq!(service.ports[0].on(cluster.workload(behind[0])), Some(Port::tcp(8080)));
}

#[test]
fn the_target_of_an_autoscaler_has_to_exist() {
    let scaler = |name: &str| {
        let target = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": name });
        object("autoscaling/v2", "HorizontalPodAutoscaler", "scaler", &json!({ "scaleTargetRef": target }))
    };
    check(&[scaler("web")], &[]);
    let by = ("HorizontalPodAutoscaler", "scaler");
    check(&[scaler("wbe")], &[missing(by, "spec.scaleTargetRef.name", ("Deployment", "wbe"))]);
}

#[test]
fn a_budget_has_to_select_something() {
    let budget =
        |selector: &Value| object("policy/v1", "PodDisruptionBudget", "budget", &json!({ "selector": selector }));
    let problem = || Problem::BudgetSelectsNothing { budget: key("PodDisruptionBudget", "budget") };
    check(&[budget(&json!({ "matchLabels": { "app": "web" } }))], &[]);
    check(&[budget(&json!({}))], &[]);
    check(&[budget(&json!({ "matchLabels": { "app": "wbe" } }))], &[problem()]);
    check(&[budget(&Value::Null)], &[problem()]);
}

#[test]
fn secrets_and_config_maps_have_to_exist() {
    let spec = json!({
        "containers": [{
            "env": [
                { "name": "A", "valueFrom": { "secretKeyRef": { "name": "one", "key": "a" } } },
                { "name": "B", "valueFrom": { "configMapKeyRef": { "name": "two", "key": "b" } } },
            ],
            "envFrom": [{ "secretRef": { "name": "three" } }, { "configMapRef": { "name": "four" } }],
        }],
        "volumes": [
            { "name": "v", "secret": { "secretName": "five" } },
            { "name": "w", "projected": { "sources": [{ "configMap": { "name": "six" } }] } },
        ],
        "imagePullSecrets": [{ "name": "seven" }],
    });
    let by = ("Deployment", "reader");
    let path = |rest: &str| format!("spec.template.spec.{rest}");
    check(
        &[reader(&spec)],
        &[
            missing(by, &path("containers[0].envFrom[0].secretRef.name"), ("Secret", "three")),
            missing(by, &path("containers[0].envFrom[1].configMapRef.name"), ("ConfigMap", "four")),
            missing(by, &path("containers[0].env[0].valueFrom.secretKeyRef.name"), ("Secret", "one")),
            missing(by, &path("containers[0].env[1].valueFrom.configMapKeyRef.name"), ("ConfigMap", "two")),
            missing(by, &path("imagePullSecrets[0].name"), ("Secret", "seven")),
            missing(by, &path("volumes[0].secret.secretName"), ("Secret", "five")),
            missing(by, &path("volumes[1].projected.sources[0].configMap.name"), ("ConfigMap", "six")),
        ],
    );
}

/// A workload that reads the Secret `one`.
fn secret_reader() -> Value {
    reader(&json!({ "containers": [{ "envFrom": [{ "secretRef": { "name": "one" } }] }] }))
}

#[test]
fn secrets_that_controllers_make_exist() {
    check(&[secret_reader(), object("external-secrets.io/v1", "ExternalSecret", "one", &json!({}))], &[]);
    let named = json!({ "target": { "name": "one" } });
    check(&[secret_reader(), object("external-secrets.io/v1", "ExternalSecret", "other", &named)], &[]);
    check(&[secret_reader(), object("cert-manager.io/v1", "Certificate", "c", &json!({ "secretName": "one" }))], &[]);
}

#[test]
fn the_caller_can_name_secrets() {
    let objects = BTreeSet::from([key("Secret", "one")]);
    let cluster = cluster(&[secret_reader()], Surroundings { objects, ..Surroundings::default() });
    assert_eq!(cluster.problems(), []);
}

#[test]
fn a_certificate_of_an_ingress_is_made_by_its_issuer() {
    let mut entry = object("networking.k8s.io/v1", "Ingress", "entry", &json!({ "tls": [{ "secretName": "tls" }] }));
    check(&[entry.clone()], &[missing(("Ingress", "entry"), "spec.tls[0].secretName", ("Secret", "tls"))]);
    entry["metadata"]["annotations"] = json!({ "cert-manager.io/cluster-issuer": "letsencrypt" });
    check(&[entry], &[]);
}

#[test]
fn optional_references_may_lead_nowhere() {
    check(
        &[reader(&json!({ "containers": [{ "envFrom": [{ "secretRef": { "name": "one", "optional": true } }] }] }))],
        &[],
    );
}

#[test]
fn a_secret_of_another_namespace_does_not_count() {
    let metadata = json!({ "name": "one", "namespace": "ops" });
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata });
    let path = "spec.template.spec.containers[0].envFrom[0].secretRef.name";
    check(&[secret_reader(), secret], &[missing(("Deployment", "reader"), path, ("Secret", "one"))]);
}

#[test]
fn a_key_has_to_be_in_its_secret() {
    let mut secret = object("v1", "Secret", "one", &Value::Null);
    secret["stringData"] = json!({ "a": "1" });
    let read = |name: &str| {
        let source = json!({ "secretKeyRef": { "name": "one", "key": name } });
        reader(&json!({ "containers": [{ "env": [{ "name": "A", "valueFrom": source }] }] }))
    };
    check(&[secret.clone(), read("a")], &[]);
    let problem = Problem::MissingKey {
        by: key("Deployment", "reader"),
        path: "spec.template.spec.containers[0].env[0].valueFrom.secretKeyRef.key".to_owned(),
        object: key("Secret", "one"),
        key: "b".to_owned(),
    };
    check(&[secret, read("b")], &[problem]);
}

#[test]
fn what_every_namespace_has_exists() {
    let volumes = json!([{ "name": "v", "configMap": { "name": "kube-root-ca.crt" } }]);
    check(&[reader(&json!({ "serviceAccountName": "default", "volumes": volumes }))], &[]);
    let path = "spec.template.spec.serviceAccountName";
    let account = reader(&json!({ "serviceAccountName": "reader" }));
    check(&[account], &[missing(("Deployment", "reader"), path, ("ServiceAccount", "reader"))]);
}

#[test]
fn an_object_that_cannot_be_read_is_told_once() {
    let malformed = Malformed { path: "spec.template.spec.containers".to_owned(), reason: "must be a list".to_owned() };
    let problem = Problem::Malformed { object: key("Deployment", "reader"), malformed };
    check(&[reader(&json!({ "containers": 3 }))], &[problem]);
}

#[test]
fn cron_jobs_hold_their_pods_one_level_deeper() {
    let pods = json!({ "metadata": { "labels": { "app": "night" } }, "spec": { "containers": [] } });
    let spec = json!({ "jobTemplate": { "spec": { "template": pods } } });
    let cluster = cluster(&[object("batch/v1", "CronJob", "night", &spec)], Surroundings::default());
    let id = cluster.find(&key("CronJob", "night")).expect("the job is a workload");
    assert_eq!(cluster.workload(id).labels["app"], "night");
}

//! The plan, by itself.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::plan::{Change, Placed, plan};
use super::{legacy, plan as planning};

fn parse<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of its kind")
}

fn service(spec: &Value) -> Service {
    let mut all = json!({ "selector": { "app": "web" }, "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"],
        "ports": [{ "port": 80, "targetPort": "http", "protocol": "TCP" }] });
    json_patch::merge(&mut all, spec);
    parse(json!({ "metadata": { "name": "web", "namespace": "n", "uid": "s", "labels": { "a": "b" } }, "spec": all }))
}

fn pod(number: usize, port: u16, ready: &str) -> Placed {
    let pod: Pod = parse(json!({
        "metadata": { "name": format!("web-{number:03}"), "namespace": "n", "uid": format!("p{number}") },
        "spec": {
            "nodeName": "one", "hostname": format!("web-{number}"), "subdomain": "web",
            "containers": [{ "name": "c", "ports": [{ "name": "http", "containerPort": port }] }],
        },
        "status": {
            "phase": "Running", "podIP": format!("10.1.0.{number}"), "podIPs": [{ "ip": format!("10.1.0.{number}") }],
            "conditions": [{ "type": "Ready", "status": ready }],
        },
    }));
    let node: Node = parse(json!({ "metadata": { "name": "one", "labels": { "topology.kubernetes.io/zone": "a" } } }));
    Placed { pod: Arc::new(pod), node: Some(Arc::new(node)) }
}

/// The slices after the changes, and how many writes that took.
fn perform(changes: Vec<Change>, mut slices: Vec<Arc<EndpointSlice>>) -> (Vec<Arc<EndpointSlice>>, usize) {
    let writes = changes.len();
    for change in changes {
        match change {
            Change::Create(mut slice) => {
                slice.metadata.name = Some(format!("web-{}", slices.len()));
                slices.push(Arc::new(slice));
            }
            Change::Update { old, new } => {
                let place = slices.iter().position(|slice| slice.metadata.name == old.metadata.name);
                slices[place.expect("only what exists is updated")] = Arc::new(new);
            }
            Change::Delete(old) => slices.retain(|slice| slice.metadata.name != old.metadata.name),
        }
    }
    (slices, writes)
}

fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
    slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).collect()
}

#[test]
fn an_endpoint_says_where_its_pod_is_and_how_it_is() {
    let service = service(&json!({ "trafficDistribution": "PreferClose" }));
    let (slices, _) = perform(plan(&service, &[pod(1, 8080, "True"), pod(2, 8080, "False")], &[]), Vec::new());
    insta::assert_snapshot!(serde_saphyr::to_string(&*slices[0]).expect("YAML"));
}

#[test]
fn endpoints_list_the_ready_and_the_others_apart() {
    let endpoints = legacy::endpoints(&service(&json!({})), &[pod(1, 8080, "True"), pod(2, 8080, "False")]);
    insta::assert_snapshot!(serde_saphyr::to_string(&endpoints).expect("YAML"));
    assert_eq!(legacy::changes(&endpoints, &endpoints), None);
}

#[test]
fn pods_with_another_number_for_a_named_port_get_a_slice_of_their_own() {
    let pods = [pod(1, 8080, "True"), pod(2, 9090, "True"), pod(3, 8080, "True")];
    let (slices, _) = perform(plan(&service(&json!({})), &pods, &[]), Vec::new());
    assert_eq!(sizes(&slices), [2, 1]);
}

#[test]
fn a_service_without_pods_has_one_empty_slice() {
    let service = service(&json!({}));
    let (slices, _) = perform(plan(&service, &[], &[]), Vec::new());
    assert_eq!(sizes(&slices), [0]);
    assert!(plan(&service, &[], &slices).is_empty());
}

#[test]
fn slices_hold_a_hundred_and_endpoints_stay_where_they_are() {
    let service = service(&json!({}));
    let mut pods: Vec<_> = (1..=250).map(|number| pod(number, 8080, "True")).collect();
    let (slices, _) = perform(plan(&service, &pods, &[]), Vec::new());
    assert_eq!(sizes(&slices), [100, 100, 50]);
    pods.remove(10);
    pods.push(pod(251, 8080, "True"));
    let (slices, writes) = perform(plan(&service, &pods, &slices), slices);
    assert_eq!((sizes(&slices), writes), (vec![100, 100, 50], 1), "one slice loses a pod and takes the new one");
    let (slices, _) = perform(plan(&service, &pods[..1], &slices), slices);
    assert_eq!(sizes(&slices), [1]);
}

#[test]
fn a_pod_that_is_going_serves_but_is_not_ready() {
    let mut going = pod(1, 8080, "True");
    let mut object = (*going.pod).clone();
    object.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time");
    going.pod = Arc::new(object);
    let conditions = |service: &Service| {
        let changes = planning::plan(service, std::slice::from_ref(&going), &[]);
        let (slices, _) = perform(changes, Vec::new());
        let endpoint = slices[0].endpoints.as_ref().expect("endpoints")[0].clone();
        let conditions = endpoint.conditions.expect("conditions");
        [conditions.ready, conditions.serving, conditions.terminating].map(|condition| condition == Some(true))
    };
    assert_eq!(conditions(&service(&json!({}))), [false, true, true]);
    assert_eq!(conditions(&service(&json!({ "publishNotReadyAddresses": true }))), [true, true, true]);
    let legacy = legacy::endpoints(&service(&json!({})), std::slice::from_ref(&going));
    assert_eq!(legacy.subsets, None);
}

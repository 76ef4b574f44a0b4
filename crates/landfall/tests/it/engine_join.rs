//! This machine as the nodes of a real Kubernetes: the pods that its scheduler binds are processes here, and they find each other
//! by the services and the names that its controllers and API server made.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt as _};
use landfall_testing::{ControlPlane, Pieces, require_or_skip};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::engine_controllers::{until, within};
use crate::running_engine::RunningEngine;

const IMAGES: &str = "images:
- image: server
  program: /usr/bin/python3
  args: [-m, http.server, \"8080\", --bind, \"{{pod_ip}}\", --directory, /data]
- image: client
  program: /usr/bin/python3
";

/// Asks the service by its name, and ends well when the answer is what a server's own folder has.
const ASK: &str =
    "import urllib.request as u; assert u.urlopen('http://web.default.svc.cluster.local/', timeout=10).status == 200";

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("it is of its kind")
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_real_kubernetes_run_here_and_find_each_other_by_name() {
    let python = Path::new("/usr/bin/python3").exists();
    let Some(()) = require_or_skip("python3", if python { Ok(()) } else { Err("it is not in /usr/bin") }) else {
        return;
    };
    let Some(plane) = ControlPlane::start_or_skip(Pieces::default()).await else { return };
    let client = plane.client().await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is our folder");
    let machine = RunningEngine::joined(folder.path(), IMAGES, plane.kubeconfig());

    let pods = Api::<Pod>::default_namespaced(client.clone());
    let deployments = Api::<Deployment>::default_namespaced(client.clone());
    let services = Api::<Service>::default_namespaced(client.clone());
    let container = json!({ "name": "web", "image": "server", "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
        "volumeMounts": [{ "name": "data", "mountPath": "/data" }] });
    let spread = json!({ "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchLabels": { "app": "web" } } });
    let deployment = object(json!({ "metadata": { "name": "web" }, "spec": {
        "replicas": 3, "selector": { "matchLabels": { "app": "web" } },
        "template": { "metadata": { "labels": { "app": "web" } }, "spec": {
            "containers": [container], "volumes": [{ "name": "data", "emptyDir": {} }], "topologySpreadConstraints": [spread] } },
    } }));
    let service = object(json!({ "metadata": { "name": "web" }, "spec": {
        "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] } }));
    deployments.create(&PostParams::default(), &deployment).await.expect("it is valid");
    services.create(&PostParams::default(), &service).await.expect("it is valid");
    within("a rollout", await_condition(deployments.clone(), "web", conditions::is_deployment_completed())).await;
    let zones = zones_of(&client, &pods).await;
    assert_eq!(zones.len(), 3, "Kubernetes' scheduler spreads by the zones that the nodes say: {zones:?}");

    let jobs = Api::<Job>::default_namespaced(client.clone());
    let container = json!({ "name": "ask", "image": "client", "args": ["-c", ASK] });
    let job = object(json!({ "metadata": { "name": "ask" }, "spec": { "backoffLimit": 3,
        "template": { "spec": { "restartPolicy": "Never", "containers": [container] } } } }));
    jobs.create(&PostParams::default(), &job).await.expect("it is valid");
    within("a job", await_condition(jobs, "ask", conditions::is_job_completed())).await;

    // What is deleted there ends here, and another takes its place.
    let gone = pods.list(&ListParams::default().labels("app=web")).await.expect("pods can be listed").items.remove(0);
    pods.delete(&gone.name_any(), &DeleteParams::default()).await.expect("it can be deleted");
    let uid = gone.uid().expect("it has one");
    within("an end", await_condition(pods, &gone.name_any(), conditions::is_deleted(&uid))).await;
    until("three copies again", async || {
        let status = deployments.get("web").await.expect("it is there").status.unwrap_or_default();
        status.ready_replicas == Some(3)
    })
    .await;
    drop(machine);
}

/// In which zones the pods of the service run.
async fn zones_of(client: &Client, pods: &Api<Pod>) -> std::collections::BTreeSet<String> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.expect("nodes can be listed");
    let pods = pods.list(&ListParams::default().labels("app=web")).await.expect("pods can be listed");
    let zone = |pod: &Pod| {
        let name = pod.spec.as_ref()?.node_name.clone()?;
        let node = nodes.iter().find(|node| node.name_any() == name)?;
        node.labels().get("topology.kubernetes.io/zone").cloned()
    };
    pods.iter().filter_map(zone).collect()
}

//! The API server of the engine under the controllers and the scheduler of Kubernetes: they know nothing of it, so all that
//! they need of an API server is what it must give.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt as _};
use landfall_testing::{ControlPlane, FakeKubelet, FakeNode, Pieces};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::running_engine::RunningEngine;

/// How long anything may take. Debug builds on a busy machine are slow.
const PATIENCE: Duration = Duration::from_mins(2);

/// How often something is looked at that tells nobody when it changes.
const POLL: Duration = Duration::from_millis(50);

/// The engine's API server, the real controllers and scheduler, and nodes that run nothing. They end in this order.
struct World {
    client: Client,
    _kubelet: FakeKubelet,
    _plane: ControlPlane,
    _engine: RunningEngine,
    _folder: tempfile::TempDir,
}

impl World {
    /// None: the programs of Kubernetes are not on this machine.
    async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let engine = RunningEngine::api_only(folder.path());
        let plane = ControlPlane::start_or_skip(Pieces::default().beside(&engine.kubeconfig())).await?;
        let client = plane.client().await;
        let nodes = ["a", "b"].map(|zone| FakeNode::new(&format!("node-{zone}"), zone));
        let kubelet = FakeKubelet::start(client.clone(), nodes).await.expect("the nodes register");
        Some(Self { client, _kubelet: kubelet, _plane: plane, _engine: engine, _folder: folder })
    }

    fn of<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::default_namespaced(self.client.clone())
    }
}

/// Waits for something, and says what did not happen in time.
pub(crate) async fn within<T, E: Debug>(what: &str, future: impl Future<Output = Result<T, E>>) -> T {
    let result = tokio::time::timeout(PATIENCE, Box::pin(future)).await;
    let result = result.unwrap_or_else(|late| panic!("{what}: {late} ({} s)", PATIENCE.as_secs()));
    result.unwrap_or_else(|error| panic!("{what}: {error:?}"))
}

/// Asks until the answer holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !holds().await {
            tokio::time::sleep(POLL).await;
        }
        Ok::<_, std::convert::Infallible>(())
    };
    within(what, asking).await;
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: Clone + Debug + DeserializeOwned + serde::Serialize,
{
    let object = serde_json::from_value(object).expect("it is an object of its kind");
    api.create(&PostParams::default(), &object).await.expect("it is valid")
}

/// A pod template; annotations tell the nodes what its programs do.
fn template(app: &str, annotations: &Value, restart_policy: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": app }, "annotations": annotations },
        "spec": {
            "restartPolicy": restart_policy,
            "containers": [{ "name": "main", "image": "example:1", "ports": [{ "name": "http", "containerPort": 80 }] }],
        },
    })
}

fn deployment(name: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": 3, "selector": { "matchLabels": { "app": name } },
            "template": template(name, &json!({}), "Always"),
        },
    })
}

async fn is_gone<K>(api: &Api<K>, name: &str) -> bool
where
    K: Clone + Debug + DeserializeOwned,
{
    api.get_opt(name).await.expect("it can be asked for").is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_rolls_out_and_back_and_its_service_finds_the_pods() {
    let Some(world) = World::start().await else { return };
    let deployments: Api<Deployment> = world.of();
    let services: Api<Service> = world.of();
    create(&deployments, deployment("web")).await;
    let ports = json!([{ "port": 80, "targetPort": "http" }]);
    create(
        &services,
        json!({ "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" }, "ports": ports } }),
    )
    .await;
    let complete = || await_condition(deployments.clone(), "web", conditions::is_deployment_completed());
    within("the first rollout", complete()).await;

    let slices: Api<EndpointSlice> = world.of();
    let of_service = ListParams::default().labels("kubernetes.io/service-name=web");
    until("three endpoints are ready", async || {
        let slices = slices.list(&of_service).await.expect("slices can be listed");
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        endpoints.filter_map(|endpoint| endpoint.conditions.as_ref()?.ready).filter(|ready| *ready).count() == 3
    })
    .await;

    let pods = world.of::<Pod>().list(&ListParams::default()).await.expect("pods can be listed");
    let mut zones: Vec<_> =
        pods.iter().filter_map(|pod| pod.labels().get("topology.kubernetes.io/zone").cloned()).collect();
    assert_eq!(zones.len(), 3, "each pod has been told its zone");
    zones.sort();
    zones.dedup();
    assert_eq!(zones, ["a", "b"], "the scheduler spreads them");

    for (image, revision) in [("example:2", "2"), ("example:1", "3")] {
        let patch =
            json!({ "spec": { "template": { "spec": { "containers": [{ "name": "main", "image": image }] } } } });
        let patched = deployments.patch("web", &PatchParams::default(), &Patch::Strategic(patch)).await;
        let generation = patched.expect("it can be patched").metadata.generation;
        until("the rollout ends", async || {
            let now = deployments.get("web").await.expect("it is there");
            let status = now.status.as_ref().expect("it has a status");
            let counts = [status.updated_replicas, status.available_replicas, status.replicas];
            status.observed_generation == generation && counts == [Some(3); 3]
        })
        .await;
        let now = deployments.get("web").await.expect("it is there");
        let told = now.annotations().get("deployment.kubernetes.io/revision").map(String::as_str);
        assert_eq!(told, Some(revision));
    }
    let sets = world.of::<ReplicaSet>().list(&ListParams::default()).await.expect("sets can be listed");
    let mut replicas: Vec<_> = sets.iter().filter_map(|set| set.spec.as_ref()?.replicas).collect();
    replicas.sort_unstable();
    assert_eq!(replicas, [0, 3], "going back takes the first set again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_comes_up_in_order_and_a_job_completes() {
    let Some(world) = World::start().await else { return };
    let sets: Api<StatefulSet> = world.of();
    let pods: Api<Pod> = world.of();
    let waiting = json!({ "testing.landfall.dev/ready": "false" });
    create(
        &sets,
        json!({
            "metadata": { "name": "db" },
            "spec": {
                "replicas": 2, "serviceName": "db", "selector": { "matchLabels": { "app": "db" } },
                "template": template("db", &waiting, "Always"),
                "volumeClaimTemplates": [{
                    "metadata": { "name": "data" },
                    "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
                }],
            },
        }),
    )
    .await;
    within("the first pod runs", await_condition(pods.clone(), "db-0", conditions::is_pod_running())).await;
    assert!(is_gone(&pods, "db-1").await, "the second waits until the first is ready");
    for name in ["db-0", "db-1"] {
        within(name, await_condition(pods.clone(), name, conditions::is_pod_running())).await;
        let ready = json!({ "metadata": { "annotations": { "testing.landfall.dev/ready": null } } });
        pods.patch(name, &PatchParams::default(), &Patch::Merge(ready)).await.expect("it can be patched");
    }
    until("both are ready", async || {
        let set = sets.get("db").await.expect("it is there");
        set.status.is_some_and(|status| status.ready_replicas == Some(2))
    })
    .await;

    let jobs: Api<Job> = world.of();
    let ends = json!({ "testing.landfall.dev/exit": "0" });
    create(
        &jobs,
        json!({
            "metadata": { "name": "once" },
            "spec": { "completions": 2, "template": template("once", &ends, "Never") },
        }),
    )
    .await;
    within("the job completes", await_condition(jobs.clone(), "once", conditions::is_job_completed())).await;
    let status = jobs.get("once").await.expect("it is there").status.expect("it has a status");
    assert_eq!((status.succeeded, status.failed), (Some(2), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owned_goes_with_its_owner_and_a_namespace_takes_all_with_it() {
    let Some(world) = World::start().await else { return };
    let maps: Api<ConfigMap> = world.of();
    let owner = create(&maps, json!({ "metadata": { "name": "owner" } })).await;
    let reference =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid().expect("it has a uid") });
    create(&maps, json!({ "metadata": { "name": "owned", "ownerReferences": [reference] } })).await;
    maps.delete("owner", &DeleteParams::background()).await.expect("it can be deleted");
    until("the garbage is collected", async || is_gone(&maps, "owned").await).await;

    let deployments: Api<Deployment> = world.of();
    create(&deployments, deployment("web")).await;
    within("it is complete", await_condition(deployments.clone(), "web", conditions::is_deployment_completed())).await;
    deployments.delete("web", &DeleteParams::foreground()).await.expect("it can be deleted");
    until("it is gone", async || is_gone(&deployments, "web").await).await;
    let sets = world.of::<ReplicaSet>().list(&ListParams::default()).await.expect("sets can be listed");
    assert!(sets.items.is_empty(), "the owner waited for its set: {:?}", sets.items);

    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    create(&namespaces, json!({ "metadata": { "name": "team" } })).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), "team");
    until("its account is there", async || !is_gone(&accounts, "default").await).await;
    let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), "team");
    create(&deployments, deployment("web")).await;
    within("it is complete", await_condition(deployments, "web", conditions::is_deployment_completed())).await;
    namespaces.delete("team", &DeleteParams::default()).await.expect("it can be deleted");
    until("the namespace is gone", async || is_gone(&namespaces, "team").await).await;
    let pods = Api::<Pod>::all(world.client.clone()).list(&ListParams::default()).await.expect("pods can be listed");
    assert!(pods.items.is_empty(), "nothing of it is left");
}

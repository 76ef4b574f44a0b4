//! The harness itself: it starts, real controllers work in it, and nothing of it stays.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, ResourceExt as _};
use landfall_testing::{
    Applied, Applier, Apply, ApplyError, ControlPlane, FakeKubelet, FakeNode, Pieces, Schemas, require_or_skip,
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);

/// How often something is looked at that tells nobody when it changes.
const POLL: Duration = Duration::from_millis(20);

/// Waits for something, and says what did not happen in time. Boxed, as a watch is a large future.
fn within<'a, T: 'a, E: std::fmt::Debug + 'a>(
    what: &'a str,
    future: impl Future<Output = Result<T, E>> + 'a,
) -> Pin<Box<dyn Future<Output = T> + 'a>> {
    Box::pin(async move {
        let result = tokio::time::timeout(PATIENCE, future).await;
        let result = result.unwrap_or_else(|late| panic!("{what}: {late} ({} s)", PATIENCE.as_secs()));
        result.unwrap_or_else(|error| panic!("{what}: {error:?}"))
    })
}

fn typed<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).expect("it is an object of its kind")
}

fn template(annotations: &Value, restart_policy: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "web" }, "annotations": annotations },
        "spec": { "restartPolicy": restart_policy, "containers": [{ "name": "web", "image": "web:1" }] },
    })
}

fn deployment() -> Deployment {
    typed(json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": 3,
            "selector": { "matchLabels": { "app": "web" } },
            "template": template(&json!({}), "Always"),
        },
    }))
}

/// A process that ended but was not reaped is no longer running either.
fn runs(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn wait_until_gone(processes: &[u32], folder: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while folder.exists() || processes.iter().any(|process| runs(*process)) {
        assert!(Instant::now() < deadline, "{} or one of {processes:?} is still there", folder.display());
        std::thread::sleep(POLL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_becomes_ready_under_the_real_controllers() {
    let Some(plane) = ControlPlane::start_or_skip(Pieces::default()).await else { return };
    let client = plane.client().await;
    let nodes = ["a", "b", "c"].map(|zone| FakeNode::new(&format!("node-{zone}"), zone));
    let _kubelet = FakeKubelet::start(client.clone(), nodes).await.expect("the nodes register");

    let deployments = Api::<Deployment>::default_namespaced(client.clone());
    deployments.create(&PostParams::default(), &deployment()).await.expect("it is valid");
    within("available", await_condition(deployments, "web", conditions::is_deployment_completed())).await;

    let pods = Api::<Pod>::default_namespaced(client).list(&ListParams::default()).await.expect("pods can be listed");
    let mut addresses: Vec<_> =
        pods.iter().filter_map(|pod| pod.status.as_ref().and_then(|status| status.pod_ip.clone())).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 3, "each pod has its own address: {addresses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_gets_its_volumes_and_a_job_its_exit_codes() {
    let Some(plane) = ControlPlane::start_or_skip(Pieces::default()).await else { return };
    let client = plane.client().await;
    let _kubelet = FakeKubelet::start(client.clone(), [FakeNode::new("only", "a")]).await.expect("the node registers");

    let sets = Api::<StatefulSet>::default_namespaced(client.clone());
    let set = typed(json!({
        "metadata": { "name": "store" },
        "spec": {
            "replicas": 2, "serviceName": "store",
            "selector": { "matchLabels": { "app": "web" } },
            "template": template(&json!({}), "Always"),
            "volumeClaimTemplates": [{
                "metadata": { "name": "data" },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
            }],
        },
    }));
    sets.create(&PostParams::default(), &set).await.expect("it is valid");

    let jobs = Api::<Job>::default_namespaced(client);
    for (name, code) in [("good", "0"), ("bad", "3")] {
        let job = typed(json!({
            "metadata": { "name": name },
            "spec": { "backoffLimit": 0, "template": template(&json!({ "testing.landfall.dev/exit": code }), "Never") },
        }));
        jobs.create(&PostParams::default(), &job).await.expect("it is valid");
    }
    within("completed", await_condition(jobs.clone(), "good", conditions::is_job_completed())).await;
    let failed = |job: Option<&Job>| {
        let conditions = job.and_then(|job| job.status.as_ref()?.conditions.as_ref());
        conditions.into_iter().flatten().any(|condition| condition.type_ == "Failed" && condition.status == "True")
    };
    within("failed", await_condition(jobs, "bad", failed)).await;
    let ready = |set: Option<&StatefulSet>| {
        set.and_then(|set| set.status.as_ref()).is_some_and(|status| status.ready_replicas == Some(2))
    };
    within("ready", await_condition(sets, "store", ready)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_follows_its_annotations_until_its_grace_is_over() {
    let Some(plane) = ControlPlane::start_or_skip(Pieces::default()).await else { return };
    let client = plane.client().await;
    let _kubelet = FakeKubelet::start(client.clone(), [FakeNode::new("only", "a")]).await.expect("the node registers");

    let pods = Api::<Pod>::default_namespaced(client);
    let annotations = json!({ "testing.landfall.dev/ready": "false", "testing.landfall.dev/stops-after": "600" });
    let mut pod = template(&annotations, "Always");
    pod["metadata"]["name"] = "slow".into();
    pod["spec"]["terminationGracePeriodSeconds"] = 2.into();
    let pod: Pod = typed(pod);
    pods.create(&PostParams::default(), &pod).await.expect("it is valid");
    within("running", await_condition(pods.clone(), "slow", conditions::is_pod_running())).await;
    let ready = |pod: Option<&Pod>| {
        let conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.as_ref());
        conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    assert!(!ready(pods.get("slow").await.ok().as_ref()), "it says that it is not ready");

    let no_longer = json!({ "metadata": { "annotations": { "testing.landfall.dev/ready": null } } });
    pods.patch("slow", &PatchParams::default(), &Patch::Merge(no_longer)).await.expect("it is there");
    within("ready", await_condition(pods.clone(), "slow", ready)).await;

    let asked = Instant::now();
    let pod = pods.delete("slow", &DeleteParams::default()).await.expect("it is there").left();
    let uid = pod.and_then(|pod| pod.uid()).expect("a pod with a grace is not gone at once");
    within("gone", await_condition(pods, "slow", conditions::is_deleted(&uid))).await;
    assert!(asked.elapsed() >= Duration::from_secs(2), "its programs use all of their grace: {:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_fails_keeps_its_pods_and_a_recovered_one_takes_new_ones() {
    // The node lifecycle controller would take 40 s to notice, and is not what is tested here.
    let Some(plane) = ControlPlane::start_or_skip(Pieces::default()).await else { return };
    let client = plane.client().await;
    let node = [FakeNode::new("only", "a")];
    let kubelet = FakeKubelet::start(client.clone(), node).await.expect("the node registers");
    kubelet.fail("only");

    let pods = Api::<Pod>::default_namespaced(client.clone());
    let mut pod = template(&json!({}), "Always");
    pod["metadata"]["name"] = "waiting".into();
    let pod: Pod = typed(pod);
    pods.create(&PostParams::default(), &pod).await.expect("it is valid");
    let bound = |pod: Option<&Pod>| pod.and_then(|pod| pod.spec.as_ref()?.node_name.as_ref()).is_some();
    within("bound", await_condition(pods.clone(), "waiting", bound)).await;
    let phase = pods.get("waiting").await.expect("it is there").status.and_then(|status| status.phase);
    assert_eq!(phase.as_deref(), Some("Pending"), "nobody is there to run it");

    kubelet.recover("only").await.expect("the node registers again");
    within("running", await_condition(pods, "waiting", conditions::is_pod_running())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_are_left_out_and_join_another_api_server() {
    let Some(first) = ControlPlane::start_or_skip(Pieces::api_server_only()).await else { return };
    assert_eq!(first.process_ids().len(), 2, "etcd and the API server");
    let client = first.client().await;
    let deployments = Api::<Deployment>::default_namespaced(client.clone());
    deployments.create(&PostParams::default(), &deployment()).await.expect("it is valid");

    let second = Pieces::default().beside(first.kubeconfig());
    let second = ControlPlane::start_or_skip(second).await.expect("the tools are there");
    assert_eq!(second.process_ids().len(), 2, "the controller-manager and the scheduler");
    let _kubelet = FakeKubelet::start(client.clone(), [FakeNode::new("only", "a")]).await.expect("the node registers");
    within("available", await_condition(deployments, "web", conditions::is_deployment_completed())).await;
    let nodes =
        Api::<Node>::all(second.client().await).list(&ListParams::default()).await.expect("it is the same server");
    assert_eq!(nodes.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>(), ["only"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stays_after_stop() {
    let Some(plane) = ControlPlane::start_or_skip(Pieces::default()).await else { return };
    let (processes, folder) = (plane.process_ids(), plane.folder().to_owned());
    assert!(processes.len() == 4 && processes.iter().all(|process| runs(*process)), "all pieces run: {processes:?}");
    plane.stop();
    assert!(!folder.exists() && !processes.iter().any(|process| runs(*process)), "stop has waited for the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stays_after_a_panic() {
    let Some(plane) = ControlPlane::start_or_skip(Pieces::api_server_only()).await else { return };
    let (processes, folder) = (plane.process_ids(), plane.folder().to_owned());
    let failed = tokio::spawn(async move {
        let _plane = plane;
        panic!("a test fails here, on purpose");
    });
    assert!(failed.await.is_err_and(|error| error.is_panic()));
    wait_until_gone(&processes, &folder);
}

/// The other end of the next test: a test program that is killed.
#[tokio::test(flavor = "multi_thread")]
async fn started_to_be_killed() {
    let Some(report) = std::env::var_os("LANDFALL_TEST_REPORT").map(PathBuf::from) else { return };
    let plane = ControlPlane::start_or_skip(Pieces::api_server_only()).await.expect("the caller has found the tools");
    let text = json!({ "processes": plane.process_ids(), "folder": plane.folder() }).to_string();
    let draft = report.with_extension("draft");
    std::fs::write(&draft, text).expect("the folder of the report is there");
    std::fs::rename(draft, report).expect("it is beside the draft");
    std::future::pending::<()>().await;
}

#[test]
fn nothing_stays_after_a_kill() {
    if require_or_skip("a control plane", landfall_testing::Tool::ApiServer.locate()).is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let report = folder.path().join("report.json");
    let mut program = std::process::Command::new(std::env::current_exe().expect("this is a program"))
        .args(["--exact", "control_plane::started_to_be_killed"])
        .env("LANDFALL_TEST_REPORT", &report)
        .spawn()
        .expect("this program can be run again");
    let deadline = Instant::now() + 2 * PATIENCE;
    while !report.exists() {
        assert!(program.try_wait().expect("it is a child").is_none(), "it ended before it was killed");
        assert!(Instant::now() < deadline, "it did not start");
        std::thread::sleep(POLL);
    }
    program.kill().expect("it runs");
    program.wait().expect("it was killed");

    let report: Value = serde_json::from_slice(&std::fs::read(report).expect("it exists")).expect("it is JSON");
    let processes: Vec<u32> = serde_json::from_value(report["processes"].clone()).expect("they are numbers");
    wait_until_gone(&processes, Path::new(report["folder"].as_str().expect("it is a path")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_object_is_told_before_it_is_kept() {
    let Some(schemas) = require_or_skip("the schemas of Kubernetes", Schemas::locate()) else { return };
    let Some(plane) = ControlPlane::start_or_skip(Pieces::api_server_only()).await else { return };
    let client = plane.client().await;
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": "web", "namespace": "default" },
        "spec": { "hostnames": ["web.example.com"], "host": "web.example.com" },
    });
    let old = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "namespace": "default" },
        "spec": { "ports": [{ "port": 80 }], "externalIPs": ["192.0.2.7"] },
    });
    let lost = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "lost" } });
    let objects = [route.clone(), old.clone(), lost.clone()];
    let applier = Applier::prepare(client.clone(), &schemas, &objects).await.expect("all kinds are known");
    assert!(applier.loose().is_empty(), "{:?}", applier.loose());

    let refused = |result: Result<Applied, ApplyError>| result.expect_err("it is wrong").to_string();
    let message = refused(applier.apply(&route, Apply::DryRun).await);
    assert!(message.contains(".spec.host: field not declared in schema"), "{message}");
    assert_eq!(refused(applier.apply(&lost, Apply::ForReal).await), "ConfigMap lost: it needs a namespace");
    let taken = applier.apply(&old, Apply::DryRun).await.expect("it is only unwise");
    let deprecated = "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
    assert_eq!(taken.warnings, [format!("299 - \"{deprecated}\"")]);
    let services = Api::<k8s_openapi::api::core::v1::Service>::default_namespaced(client);
    assert!(services.get_opt("web").await.expect("the server answers").is_none(), "a dry run keeps nothing");
}

//! What `landfall protect` makes, on a real API server: there its expressions are compiled, its list is read, and images are refused.

use std::process::Stdio;
use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::CronJob;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use landfall_testing::{ControlPlane, FakeKubelet, FakeNode, Pieces, Schemas, require_or_skip};
use serde_json::{Value, json};

use super::super::{PATIENCE, architecture};
use crate::Folder;
use crate::examples::read;
use crate::kubernetes::set_up;
use crate::running_engine::POLL;

/// How a real API server hands on what the policy says.
const REFUSED: &str =
    "no release has let this image through: shop/web:evil; `landfall ship` or `landfall promote` brings it";

/// A control plane with the platform on it, whose pods are said to run.
struct World {
    client: Client,
    _kubelet: FakeKubelet,
    plane: ControlPlane,
    folder: Folder,
}

impl World {
    async fn start() -> Option<Self> {
        let schemas = require_or_skip("the schemas of Kubernetes", Schemas::locate())?;
        let plane = ControlPlane::start_or_skip(Pieces::default()).await?;
        let client = plane.client().await;
        let nodes = ["a", "b", "c"].map(|zone| FakeNode::new(&format!("{zone}-1"), zone).with_capacity("64", "256Gi"));
        let kubelet = FakeKubelet::start(client.clone(), nodes).await.expect("the nodes register");
        let folder = Folder::with(&architecture("{ rolling: { max-surge: 1, max-unavailable: 0 } }"));
        set_up(&client, &schemas, &read(folder.path()), "development").await;
        Some(Self { client, _kubelet: kubelet, plane, folder })
    }

    /// Runs a command that has to succeed; its document.
    async fn done(&self, arguments: &[&str]) -> Value {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_landfall"));
        command.args(arguments).args(["--env", "development", "--output", "json"]);
        command.arg("--kubeconfig").arg(self.plane.kubeconfig()).current_dir(self.folder.path()).stdin(Stdio::null());
        let output = command.output().await.expect("the program can be started");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("{arguments:?}: {:?}\n{said}", output.status.code());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Changes `web` as an administrator does.
    async fn patch(&self, patch: &Value) -> Result<(), String> {
        let deployments = Api::<Deployment>::namespaced(self.client.clone(), "shop");
        let patched = deployments.patch("web", &PatchParams::default(), &Patch::Strategic(patch)).await;
        patched.map(drop).map_err(|error| error.to_string())
    }

    /// Waits until an image that nobody let through is refused, in these words: a policy takes a moment until it is in force. It is
    /// tried with a Deployment that has no copies, so that no pod ever has the image.
    async fn policy_is_in_force(&self) {
        let labels = json!({ "app": "probe" });
        let template = json!({ "metadata": { "labels": labels }, "spec": evil() });
        let probe = json!({ "metadata": { "name": "probe" }, "spec": {
            "replicas": 0, "selector": { "matchLabels": labels }, "template": template } });
        let probe: Deployment = serde_json::from_value(probe).expect("it is one");
        let deployments = Api::<Deployment>::namespaced(self.client.clone(), "shop");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let tried = deployments.create(&PostParams::default(), &probe).await;
            let tried = tried.map(drop).map_err(|error| error.to_string());
            if tried.as_ref().is_err_and(|refused| refused.contains(REFUSED)) {
                return;
            }
            assert!(Instant::now() < deadline, "the image is admitted, or refused otherwise: {tried:?}");
            if tried.is_ok() {
                deployments.delete("probe", &DeleteParams::default()).await.expect("it can be deleted");
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A pod with an image that nobody let through.
fn evil() -> Value {
    json!({ "containers": [{ "name": "web", "image": "shop/web:evil" }] })
}

fn with_pod(pod: &Value) -> Value {
    json!({ "spec": { "template": { "spec": pod } } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_admits_what_a_release_brings_and_no_other_image() {
    let Some(world) = World::start().await else { return };
    let protected = world.done(&["protect"]).await;
    assert_eq!(protected["images"], json!(["shop/web:1"]), "{protected:#}");
    world.policy_is_in_force().await;
    let refused = world.patch(&with_pod(&evil())).await.expect_err("nobody let it through");
    assert!(refused.contains(REFUSED), "{refused}");

    // Wherever an image stands that is to be started.
    let first = json!({ "initContainers": [{ "name": "first", "image": "shop/web:evil" }] });
    let refused = world.patch(&with_pod(&first)).await.expect_err("it starts an image that nobody let through");
    assert!(refused.contains(REFUSED), "{refused}");
    let job = json!({ "metadata": { "name": "nightly" }, "spec": { "schedule": "0 2 * * *", "jobTemplate": { "spec": {
        "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "job", "image": "shop/web:evil" }] } } } } } });
    let job: CronJob = serde_json::from_value(job).expect("it is one");
    let jobs = Api::<CronJob>::namespaced(world.client.clone(), "shop");
    let refused = jobs.create(&PostParams::default(), &job).await.expect_err("it would start that image each night");
    assert!(refused.to_string().contains(REFUSED), "{refused}");

    // Copies and variables are nobody's business.
    world.patch(&json!({ "spec": { "replicas": 1 } })).await.expect("no image is another");
    let fix = json!({ "containers": [{ "name": "web", "env": [{ "name": "FIX", "value": "1" }] }] });
    world.patch(&with_pod(&fix)).await.expect("no image is another");

    let release = world.done(&["ship", "--allow-tags", "--image", "web=shop/web:2"]).await;
    assert_eq!(release["state"], "Succeeded", "{release:#}");
    let web = Api::<Deployment>::namespaced(world.client.clone(), "shop").get("web").await.expect("it is there");
    assert_eq!(json!(web)["spec"]["template"]["spec"]["containers"][0]["image"], "shop/web:2");
    let refused = world.patch(&with_pod(&evil())).await.expect_err("the release has brought another one");
    assert!(refused.contains(REFUSED), "{refused}");

    // What the API server has added to the policy is no drift.
    let releases = world.done(&["releases"]).await;
    assert_eq!(releases["drift"], json!([]), "{releases:#}");
}

//! A platform that follows a Git repository while releases are shipped to it.

use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt as _};
use landfall_testing::{Tool, require_or_skip};
use serde_json::{Value, json};

use crate::Folder;
use crate::platform::{Platform, Running, until};
use crate::up::{ask, list, room};

const SHOP: &str = r#"
landfall: v1
name: shop
platform:
  regions: { here: { zones: [a] } }
  nodes: { count: 2, cpu: 4, memory: 16Gi }
  ingress: { api: gateway }
services:
  web:
    image: hub.example/web:1
    port: 8080
    startup: 5s
    replicas: { min: 2, max: 4, cpu: 80% }
    resources: { cpu: 50m..200m, memory: 32Mi..128Mi }
    probes: { ready: { http: /ready, period: 1s } }
    expose: { host: shop.example }
    rollout: { canary: { steps: [50%], judge: { success: 99% }, baseline: stable, decide-within: 5m } }
flows:
  buy: { rate: 100/s, within: 1s, steps: [client -> web] }
environments:
  here: { deploy: automatic }
  by-hand: { deploy: manual }
delivery:
  rollback: { automatic: true }
  gitops: { tool: argocd, repository: "https://git.example/shop.git" }
claims:
  - { id: A1, says: Git brings it into the cluster, shown-by: [ship: gitops] }
"#;

/// `landfall …` for the platform, with a `kubectl` that builds kustomizations.
fn command(platform: &Platform, arguments: &[&str]) -> Command {
    let kubectl = Tool::Kubectl.locate().expect("each test asks for it");
    let beside = kubectl.parent().expect("a program stands in a folder").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = platform.command(arguments);
    command.env("PATH", format!("{beside}:{path}")).stdin(Stdio::null());
    command
}

/// What it has answered, and in words.
fn run(platform: &Platform, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let output = command(platform, arguments).output().expect("the program can be started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
}

fn applications(client: &Client) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Application"));
    Api::namespaced_with(client.clone(), "argocd", &kind)
}

fn route(client: &Client) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute"));
    Api::namespaced_with(client.clone(), "shop", &kind)
}

async fn image(client: &Client) -> String {
    let web = Api::<Deployment>::namespaced(client.clone(), "shop").get("web").await.expect("it is there");
    let template = web.spec.expect("it has one").template;
    template.spec.and_then(|spec| spec.containers[0].image.clone()).expect("it has an image")
}

/// Whether it is as the repository says, but for what releases bring.
async fn is_synced(client: &Client) -> bool {
    let all = applications(client).list(&ListParams::default()).await.expect("they can be listed");
    all.items.iter().all(|one| one.data["status"]["sync"]["status"] == "Synced") && !all.items.is_empty()
}

#[test]
fn what_is_in_git_arrives_and_neither_a_release_nor_its_way_back_is_undone() {
    let Some(_) = require_or_skip("kubectl", Tool::Kubectl.locate()) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let (_room, folder) = (room(), Folder::with(SHOP));
    let mut platform = Platform::start(folder.path(), "shop", Some("here"), &["--duration", "1s"]);
    let report = platform.reported();
    assert_eq!(report["broken"], json!([]), "{report:#}");
    let client = runtime.block_on(platform.client());

    let (code, seen, said) = run(&platform, &["gitops", "--output", "json"]);
    assert_eq!((code, &seen["automatic"]), (Some(0), &json!(true)), "{seen:#}\n{said}");
    let problems: Vec<_> = list(&seen["steps"]).map(|step| &step["problem"]).collect();
    assert_eq!(problems, [&Value::Null; 5], "{seen:#}");
    let marked = runtime.block_on(async {
        let all = Api::<Deployment>::namespaced(client.clone(), "shop").list(&ListParams::default()).await;
        let web = all.expect("they can be listed").items.remove(0);
        let writers = web.managed_fields().iter().filter_map(|entry| entry.manager.clone());
        let argocd = |text: &String| text.contains("argocd");
        writers.chain(web.annotations().keys().cloned()).filter(argocd).collect::<Vec<_>>()
    });
    assert_eq!(marked, Vec::<String>::new(), "nothing of it is left");
    let (code, claims) = ask(&platform, &["claims"]);
    assert_eq!((code, &claims["claims"][0]["measured_here"][0]["held"]), (Some(0), &json!(true)), "{claims:#}");

    // A canary by weights, and its way back, beside somebody who puts everything else back at once.
    let quiet = |arguments: &[&str]| {
        let mut command = command(&platform, arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Running::start(command)
    };
    let mut following = quiet(&["gitops", "--follow"]);
    let is_followed = || async { is_synced(&client).await.then_some(()) };
    runtime.block_on(until("the repository is followed", is_followed));
    let flows = quiet(&["flows", "--duration", "90s"]);
    let (code, release, said) = run(&platform, &["ship", "--image", "web=hub.example/web:2", "--output", "json"]);
    assert_eq!((code, &release["state"]), (Some(0), &json!("Succeeded")), "{release:#}\n{said}");
    let settled = |version: &str| {
        // Some rounds of whoever follows the repository later it still runs.
        std::thread::sleep(Duration::from_secs(6));
        assert_eq!(runtime.block_on(image(&client)), format!("hub.example/web:{version}"));
        assert!(runtime.block_on(is_synced(&client)), "what a release brings is no difference");
    };
    settled("2");
    let writers = runtime.block_on(async { route(&client).get("web").await.expect("it is there") });
    let writers: Vec<_> = writers.managed_fields().iter().filter_map(|entry| entry.manager.clone()).collect();
    assert!(!writers.contains(&"landfall-ship".to_owned()), "the repository says again where requests go: {writers:?}");
    let (code, release, said) = run(&platform, &["rollback", "--output", "json"]);
    assert_eq!((code, &release["state"]), (Some(0), &json!("Succeeded")), "{release:#}\n{said}");
    settled("1");
    drop(flows);

    // One that does not leave releases alone is told before anything begins.
    runtime.block_on(async {
        let all = applications(&client).list(&ListParams::default()).await.expect("they can be listed");
        let patch = Patch::Merge(json!({ "spec": { "ignoreDifferences": null } }));
        let patched = applications(&client).patch(&all.items[0].name_any(), &PatchParams::default(), &patch).await;
        patched.expect("it can be changed");
    });
    let (code, _, said) = run(&platform, &["ship", "--plan", "--image", "web=hub.example/web:2", "--output", "json"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("the Argo CD application `shop-here-here` puts back what a release brings to `web`"),
        "{said}"
    );
    assert_eq!(following.interrupt().status.code(), Some(0));
}

#[test]
fn where_nothing_is_deployed_by_itself_what_differs_is_seen_and_waits_for_a_sync() {
    let Some(_) = require_or_skip("kubectl", Tool::Kubectl.locate()) else { return };
    let (_room, folder) = (room(), Folder::with(SHOP));
    let mut platform = Platform::start(folder.path(), "shop", Some("by-hand"), &["--duration", "1s"]);
    let report = platform.reported();
    assert_eq!(report["broken"], json!([]), "{report:#}");
    let (code, seen, said) = run(&platform, &["gitops", "--output", "json"]);
    assert_eq!((code, &seen["automatic"]), (Some(0), &json!(false)), "{seen:#}\n{said}");
    let says: Vec<_> = list(&seen["steps"]).map(|step| &step["says"]).collect();
    assert_eq!(says[2], "what is changed by hand is seen, and put back by a sync", "{seen:#}");
    assert!(list(&seen["steps"]).all(|step| step["problem"].is_null()), "{seen:#}");
}

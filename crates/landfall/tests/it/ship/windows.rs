//! Time windows without KEDA: copies are ready when a window begins, by a clock that runs faster, and a canary beside them has its
//! room while the window ends. With KEDA the canary has it, too.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{PATIENCE, Platform, architecture};
use crate::running_engine::POLL;

/// The office hours of an example, for a service that is shipped by canary. Copies are said to start for a minute, so that a slow
/// machine has as long.
fn file() -> String {
    let rollout = "{ canary: { steps: [20%], judge: { success: 99% }, decide-within: 5m } }";
    let text = architecture(rollout).replace("    replicas: 2\n", "    replicas: { min: 2, max: 12, cpu: 70% }\n");
    let windows = "    startup: 60s
    windows:
      - { name: office-hours, days: [mon, tue, wed, thu, fri], from: \"09:00\", to: \"19:00\", time-zone: Asia/Kolkata, min: 6, max: 10 }
";
    let text = text.replace("    startup: 5s\n", windows);
    text.replace("  ingress: { api: gateway }\n", "  ingress: { api: gateway }\n  windows: landfall\n")
}

/// `landfall windows` as a process; it ends when dropped.
struct Keeper(Child);

impl Drop for Keeper {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn clock(platform: &Platform, arguments: &[&str]) -> Timestamp {
    let mut command = platform.command(&["engine", "clock"]);
    command.args(arguments).args(["--output", "json", "--kubeconfig"]).arg(platform.engine.kubeconfig());
    let output = command.output().expect("the program can be started");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    told["time"].as_str().and_then(|time| time.parse().ok()).expect("the clock shows a time")
}

async fn bounds(client: &Client) -> (i32, i32) {
    let autoscalers = Api::<HorizontalPodAutoscaler>::namespaced(client.clone(), "shop");
    let spec = autoscalers.get("web").await.expect("it has an autoscaler").spec;
    (spec.min_replicas.unwrap_or(1), spec.max_replicas)
}

/// The bounds that there were until it is over, each once in a row.
async fn all_seen(over: Arc<AtomicBool>, bounds: impl AsyncFn() -> (i32, i32)) -> Vec<(i32, i32)> {
    let mut seen = vec![bounds().await];
    while !over.load(Ordering::Relaxed) {
        let now = bounds().await;
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        tokio::time::sleep(POLL).await;
    }
    seen
}

/// Copies of both, stable and canary, that are ready.
async fn ready(client: &Client) -> i32 {
    let deployments = Api::<Deployment>::namespaced(client.clone(), "shop");
    let web = deployments.get("web").await.expect("it is there");
    web.status.and_then(|status| status.ready_replicas).unwrap_or(0)
}

#[test]
fn copies_are_ready_when_a_window_begins_and_a_canary_has_its_room_when_it_ends() {
    let Some(platform) = Platform::start_with(&file()) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let client = runtime.block_on(platform.engine.client());
    // India is 5:30 h ahead: the window begins at 03:30. Copies start for 60 s, autoscalers look every now and then (30 s), and the
    // clock is ten times as fast: what is to be ready then is started at 03:15.
    clock(&platform, &["set", "--time", "2026-11-27T03:14:00Z", "--speed", "10"]);
    let mut keeper = platform.command(&["windows", "--env", "development", "--kubeconfig"]);
    let keeper = keeper.arg(platform.engine.kubeconfig()).stderr(Stdio::piped()).spawn();
    let mut keeper = Keeper(keeper.expect("the program can be started"));

    let begins: Timestamp = "2026-11-27T03:30:00Z".parse().expect("a time");
    let deadline = Instant::now() + PATIENCE;
    let when = loop {
        let (ready, now) = (runtime.block_on(ready(&client)), clock(&platform, &["show"]));
        if ready >= 6 {
            break now;
        }
        assert!(
            Instant::now() < deadline,
            "{ready} copies are ready at {now}, {:?}",
            runtime.block_on(bounds(&client))
        );
        std::thread::sleep(POLL);
    };
    assert!(when <= begins, "six copies are ready at {when}");
    clock(&platform, &["set", "--time", "2026-11-27T06:00:00Z"]);
    let settled = |wanted: (i32, i32)| {
        let deadline = Instant::now() + PATIENCE;
        while runtime.block_on(bounds(&client)) != wanted {
            assert!(Instant::now() < deadline, "{:?} and not {wanted:?}", runtime.block_on(bounds(&client)));
            std::thread::sleep(POLL);
        }
    };
    settled((6, 10));

    // A canary of two and a baseline come beside them, the window ends while it is judged, and they go.
    let (watched, over) = (client.clone(), Arc::new(AtomicBool::new(false)));
    let seen = runtime.spawn(all_seen(Arc::clone(&over), async move || bounds(&watched).await));
    let clients = platform.clients();
    let mut shipper = platform.command(&["ship", "--image", "web=shop/web:2", "--env", "development", "--kubeconfig"]);
    let mut shipper = shipper.arg(platform.engine.kubeconfig()).spawn().expect("the program can be started");
    let deadline = Instant::now() + PATIENCE;
    while clients.so_far().of("2 200") == 0 {
        assert!(Instant::now() < deadline, "the canary gets no request: {:?}", clients.so_far());
        std::thread::sleep(POLL);
    }
    clock(&platform, &["set", "--time", "2026-11-27T13:30:00Z"]);
    let status = shipper.wait().expect("a child can be waited for");
    assert!(status.success(), "{status}");
    settled((2, 12));
    over.store(true, Ordering::Relaxed);
    let seen = runtime.block_on(seen).expect("it does not panic");
    assert_eq!(seen, [(6, 10), (6, 6), (2, 8), (2, 12)], "neither undoes what the other does");
    let answers = clients.stop();
    assert_eq!(answers.failed(&[]), std::collections::BTreeMap::new(), "of {} requests", answers.total());

    keeper.0.kill().expect("it runs");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut keeper.0.stderr.take().expect("it has one"), &mut said).expect("it is text");
    assert!(said.contains("shop/web: 6..12 copies, before 2..12"), "{said}");
    let (code, release, _) = platform.run(&["release", "show", "shop-1"]);
    assert_eq!((code, &release["state"]), (Some(0), &json!("Succeeded")));

    // Without a keeper, a schedule of one's own sets the bounds of the moment.
    clock(&platform, &["set", "--time", "2026-11-30T06:00:00Z"]);
    let (code, kept, _) = platform.run(&["windows", "--once"]);
    let bounds = |min: u32, max: u32| json!({ "min": min, "max": max });
    assert_eq!((code, &kept["set"][0]["name"]), (Some(0), &json!("web")), "{kept:#}");
    assert_eq!((&kept["set"][0]["before"], &kept["set"][0]["now"]), (&bounds(2, 12), &bounds(6, 10)), "{kept:#}");
}

/// The bounds of KEDA's object for `web`.
async fn bounds_of_keda(client: &Client) -> (i32, i32) {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject"));
    let scaled = Api::<DynamicObject>::namespaced_with(client.clone(), "shop", &kind).get("web").await;
    let spec = scaled.expect("it is there").data["spec"].clone();
    let number =
        |field: &str| spec[field].as_i64().and_then(|number| i32::try_from(number).ok()).expect("it is a number");
    (number("minReplicaCount"), number("maxReplicaCount"))
}

#[test]
fn where_keda_scales_a_canary_has_its_room_in_the_bounds_of_keda() {
    let Some(platform) = Platform::start_with(&file().replace("  windows: landfall\n", "")) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let client = runtime.block_on(platform.engine.client());
    let over = Arc::new(AtomicBool::new(false));
    let seen = runtime.spawn(all_seen(Arc::clone(&over), async move || bounds_of_keda(&client).await));
    let clients = platform.clients();
    let (code, release, _) = platform.run(&["ship", "--image", "web=shop/web:2"]);
    assert_eq!((code, &release["state"]), (Some(0), &json!("Succeeded")), "{release:#}");
    over.store(true, Ordering::Relaxed);
    let seen = runtime.block_on(seen).expect("it does not panic");
    assert_eq!(seen, [(2, 12), (2, 10), (2, 12)], "a canary of one, and its baseline");
    let answers = clients.stop();
    assert_eq!(answers.failed(&[]), std::collections::BTreeMap::new(), "of {} requests", answers.total());
}

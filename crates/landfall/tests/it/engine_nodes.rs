//! Nodes that are killed, cut off and brought back, and the clock, by the commands for a running engine.

mod cut;
mod killed;

use std::fmt::Debug;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;

use crate::running_engine::{POLL, RunningEngine};

/// How long anything may take beyond the times that are set; the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(2);

/// The shortest grace period that the engine takes leaves room for one late heartbeat.
const GRACE: [&str; 2] = ["--node-monitor-grace-period", "15s"];

/// Pods name their commands themselves.
const CATALOGUE: &str = "images: [{ image: any }]";

/// What a command for a running engine says: the exit code, stdout, stderr.
fn command(engine: &RunningEngine, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_landfall"))
        .arg("engine")
        .args(arguments)
        .arg("--kubeconfig")
        .arg(engine.kubeconfig())
        .output()
        .expect("the program can be started");
    let text = |bytes| String::from_utf8(bytes).expect("it says text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Waits for a condition; what it last saw is in the message when it does not come.
async fn eventually<T: Debug>(what: &str, mut look: impl AsyncFnMut() -> Result<(), T>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(()) => return,
            Err(seen) => assert!(Instant::now() < deadline, "{what}: {seen:?}"),
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn create<K>(client: &Client, object: Value)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let object: K = serde_json::from_value(object).expect("the object is one of its kind");
    let api: Api<K> = Api::default_namespaced(client.clone());
    // A pod is refused until its namespace has its account, as by Kubernetes.
    eventually("the object is taken", async || {
        api.create(&kube::api::PostParams::default(), &object).await.map(drop).map_err(|refused| refused.to_string())
    })
    .await;
}

/// The pods with a label that are not being deleted, and those that are.
async fn pods_of(client: &Client, selector: &str) -> (Vec<Pod>, Vec<Pod>) {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let all = pods.list(&ListParams::default().labels(selector)).await.expect("pods are listed");
    all.items.into_iter().partition(|pod| pod.metadata.deletion_timestamp.is_none())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}

/// The status of a node's readiness, and the keys of its taints that drive pods away.
async fn node(client: &Client, name: &str) -> (String, Vec<String>) {
    let node = Api::<Node>::all(client.clone()).get(name).await.expect("the node is there");
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let taints = taints.filter(|taint| taint.effect == "NoExecute").map(|taint| taint.key.clone());
    (ready.map(|ready| ready.status.clone()).unwrap_or_default(), taints.collect())
}

/// Waits until a node counts as lost, or as well again.
async fn node_becomes(client: &Client, name: &str, status: &str, taints: &[&str]) {
    eventually(&format!("{name} becomes {status}"), async || {
        let seen = node(client, name).await;
        if seen.0 == status && seen.1 == taints { Ok(()) } else { Err(seen) }
    })
    .await;
}

/// What pods write to a file of their own, a line at a time.
fn lines(folder: &Path, file: &str) -> Vec<String> {
    std::fs::read_to_string(folder.join(file)).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The processes that have written themselves down, once there are so many.
async fn starts(folder: &Path, file: &str, count: usize) -> Vec<String> {
    eventually(&format!("{file} is started {count} times"), async || {
        let processes = lines(folder, file);
        if processes.len() == count { Ok(()) } else { Err(processes) }
    })
    .await;
    lines(folder, file)
}

/// What a container asks for so that it gets its turn on a busy machine: without a request it has next to no share.
fn share() -> Value {
    serde_json::json!({ "requests": { "cpu": "500m" } })
}

#[tokio::test]
async fn an_hour_of_a_schedule_passes_in_seconds() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let engine = RunningEngine::start(folder.path(), CATALOGUE, &["--runtime", "mock", "--network", "loopback"]);
    let client = engine.client().await;
    create::<k8s_openapi::api::batch::v1::CronJob>(
        &client,
        serde_json::json!({
            "metadata": { "name": "hourly" },
            "spec": { "schedule": "0 * * * *", "jobTemplate": { "spec": { "template": { "spec": {
                "restartPolicy": "Never", "containers": [{ "name": "c", "image": "any", "command": ["true"] }],
            } } } } },
        }),
    )
    .await;
    let (code, shown, said) = command(&engine, &["clock", "set", "--speed", "1800"]);
    assert_eq!((code, said.as_str()), (Some(0), ""), "{shown}");
    assert!(shown.contains("speed    1800\n"), "{shown}");
    eventually("two jobs are made", async || {
        let jobs = Api::<Job>::default_namespaced(client.clone()).list(&ListParams::default()).await;
        let jobs: Vec<_> = jobs.expect("jobs are listed").items.iter().map(kube::ResourceExt::name_any).collect();
        if jobs.len() >= 2 { Ok(()) } else { Err(jobs) }
    })
    .await;
    let (code, shown, _) = command(&engine, &["clock", "set", "--offset", "-36h", "--speed", "0", "--output", "json"]);
    assert_eq!(code, Some(0), "with mock pods the clock may stand still");
    let still: Value = serde_json::from_str(&shown).expect("it is JSON");
    let (_, shown, _) = command(&engine, &["clock", "--output", "json"]);
    let later: Value = serde_json::from_str(&shown).expect("it is JSON");
    assert_eq!((&still["time"], &later["speed"]), (&later["time"], &0.0.into()));
    let offset = still["offset_seconds"].as_f64().expect("a number");
    assert!((offset + 36.0 * 3600.0).abs() < 60.0, "{offset}");
}

#[tokio::test]
async fn a_command_that_makes_no_sense_changes_nothing_and_says_why() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let engine = RunningEngine::start(folder.path(), CATALOGUE, &["--network", "loopback"]);
    let (code, shown, said) = command(&engine, &["node", "kill", "node-a", "nobody"]);
    assert_eq!((code, shown.as_str()), (Some(2), ""));
    insta::assert_snapshot!(said, @r"
    error: no node is called `nobody`
    hint: the engine has `node-a`, `node-b`, `node-c`
    ");
    let (code, _, said) = command(&engine, &["clock", "set", "--speed", "0"]);
    assert_eq!(code, Some(2));
    insta::assert_snapshot!(said, @"error: `speed` is 0, and the clock stands still only where pods are a mock: real processes would go on");
    let (code, _, said) = command(&engine, &["node", "cut", "--zone", "b"]);
    assert_eq!(code, Some(0));
    insta::assert_snapshot!(said, @"warning: pods have loopback addresses here; only the node agent is cut off, their traffic is not");
    let (_, _, _) = command(&engine, &["node", "kill", "node-c"]);
    let (code, _, said) = command(&engine, &["node", "cut", "node-c"]);
    assert_eq!(code, Some(1));
    insta::assert_snapshot!(said, @r#"error: Operation cannot be fulfilled on nodes "node-c": the node is killed, and only one that runs can be cut off"#);
    let (_, shown, _) = command(&engine, &["node", "list"]);
    insta::assert_snapshot!(shown, @"
    NODE    ZONE  STATE    PODS
    node-a  a     running  0
    node-b  b     cut      0
    node-c  c     killed   0
    ");
}

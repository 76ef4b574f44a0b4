//! On a real API server: the whole scheduler beside it, and its decisions compared with the real scheduler's.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::placing::{node, pod};
use crate::clock::Clock;
use crate::context::{Caches, Context};
use crate::event::{self, Lost};

/// How long a condition may take to come about.
const DEADLINE: Duration = Duration::from_mins(1);

/// A client of the control plane that the environment names.
async fn control_plane() -> Option<Client> {
    let path = std::env::var_os("LANDFALL_CONTROL_PLANE")?;
    let kubeconfig = Kubeconfig::read_from(path).expect("the kubeconfig that the environment names");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Some(Client::try_from(config.expect("a usable kubeconfig")).expect("a client"))
}

/// Runs our scheduler until dropped.
async fn start(client: &Client) -> (JoinSet<()>, CancellationToken) {
    let (cancel, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let caches = Caches::new();
    caches.fill(client, &cancel, &mut tasks).await;
    let context =
        Context { client: client.clone(), caches, clock: Clock::wall(), lost: Lost::default(), authority: "".into() };
    let (recorder, writer) = event::queue(client.clone(), Clock::wall(), &Lost::default(), "test");
    tasks.spawn(writer.run());
    let until = cancel.clone();
    tasks.spawn(async move { crate::scheduler::run(context, &recorder, until).await });
    (tasks, cancel)
}

async fn create_node(client: &Client, value: Value) {
    let nodes: Api<Node> = Api::all(client.clone());
    let name = value["metadata"]["name"].as_str().expect("a name").to_owned();
    let object: Node = serde_json::from_value(value.clone()).expect("a node");
    nodes.create(&PostParams::default(), &object).await.expect("the node is new");
    let status = Patch::Merge(json!({ "status": value["status"] }));
    nodes.patch_status(&name, &PatchParams::default(), &status).await.expect("its status");
    // Admission has marked it as not ready; nobody here will.
    let taints = Patch::Merge(json!({ "spec": { "taints": value["spec"]["taints"] } }));
    nodes.patch(&name, &PatchParams::default(), &taints).await.expect("its taints");
}

/// The outcome of every pod of a namespace, when each has one: its node, or why it has none.
async fn outcomes(client: &Client, namespace: &str, count: usize) -> BTreeMap<String, Result<String, String>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let deadline = Instant::now() + DEADLINE;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    loop {
        ticks.tick().await;
        let list = pods.list(&ListParams::default()).await.expect("a list of pods");
        let outcome = |pod: &Pod| {
            let name = pod.metadata.name.clone()?;
            if let Some(node) = pod.spec.as_ref()?.node_name.clone() {
                return Some((name, Ok(node)));
            }
            let conditions = pod.status.as_ref()?.conditions.as_ref()?;
            let refused = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
            Some((name, Err(refused.message.clone().unwrap_or_default())))
        };
        let found: BTreeMap<_, _> = list.iter().filter_map(outcome).collect();
        if found.len() == count {
            return found;
        }
        assert!(Instant::now() < deadline, "only {found:?} of {count}");
    }
}

async fn fresh_namespace(client: &Client, name: &str) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": name } })).expect("a namespace");
    namespaces.create(&PostParams::default(), &namespace).await.expect("a fresh control plane");
    // With or without a controller for them, pods need an account.
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
    let account: ServiceAccount = serde_json::from_value(json!({ "metadata": { "name": "default" } })).expect("one");
    match accounts.create(&PostParams::default(), &account).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        answer => drop(answer.expect("an account")),
    }
}

async fn create_pod(client: &Client, namespace: &str, mut value: Value) {
    value["metadata"]["namespace"] = namespace.into();
    value["metadata"]["uid"] = Value::Null;
    value["spec"]["automountServiceAccountToken"] = false.into();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let object: Pod = serde_json::from_value(value).expect("a pod");
    pods.create(&PostParams::default(), &object).await.expect("the pod is new");
}

/// Random pods on random nodes: the real scheduler's answer is ours, pod by pod, unless both found a node.
#[tokio::test]
async fn our_answers_are_those_of_the_real_scheduler() {
    let Some(client) = control_plane().await else {
        return;
    };
    let seed = std::env::var("LANDFALL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    let mut random = StdRng::seed_from_u64(seed);
    let (_tasks, cancel) = start(&client).await;
    for number in 0..random.random_range(3..7) {
        create_node(&client, random_node(&mut random, number)).await;
    }
    let mut different = Vec::new();
    for round in 0..40 {
        let (ours, theirs) = (format!("ours-{round}"), format!("theirs-{round}"));
        let spec = random_pod(&mut random);
        let mut outcome = Vec::new();
        for (namespace, scheduler) in [(&ours, "default-scheduler"), (&theirs, "reference-scheduler")] {
            fresh_namespace(&client, namespace).await;
            let mut value = pod("probe", "probe", spec.clone());
            value["spec"]["schedulerName"] = scheduler.into();
            create_pod(&client, namespace, value).await;
            outcome.push(outcomes(&client, namespace, 1).await.remove("probe").expect("one outcome"));
            let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
            let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            // The last third stays, so that the nodes fill up and pods have neighbours.
            if scheduler == "default-scheduler" || round % 3 != 0 {
                pods.delete("probe", &now).await.expect("the pod is there");
            }
        }
        let same = match (&outcome[0], &outcome[1]) {
            (Ok(_), Ok(_)) => true,
            (ours, theirs) => ours == theirs,
        };
        if !same {
            different.push(format!("{spec}\n  ours:   {:?}\n  theirs: {:?}", outcome[0], outcome[1]));
        }
    }
    cancel.cancel();
    assert!(different.is_empty(), "seed {seed}:\n{}", different.join("\n"));
}

fn random_node(random: &mut StdRng, number: i32) -> Value {
    let zone = ["x", "y", "z"][random.random_range(0..3)];
    let mut node = node(&format!("node-{number}"), zone, &random.random_range(1..5).to_string());
    node["metadata"]["labels"]["disk"] = ["ssd", "hdd"][random.random_range(0..2)].into();
    if random.random_ratio(1, 4) {
        let effect = ["NoSchedule", "NoExecute", "PreferNoSchedule"][random.random_range(0..3)];
        node["spec"] = json!({ "taints": [{ "key": "dedicated", "value": "db", "effect": effect }] });
    }
    node["status"]["allocatable"]["pods"] = random.random_range(2..8).to_string().into();
    node["status"]["capacity"] = node["status"]["allocatable"].clone();
    node
}

fn random_pod(random: &mut StdRng) -> Value {
    let mut spec = json!({});
    let cpu = format!("{}m", random.random_range(1..30) * 100);
    spec["containers"] = json!([{ "name": "main", "image": "main", "resources": { "requests": { "cpu": cpu } } }]);
    if random.random_ratio(1, 4) {
        spec["nodeSelector"] = json!({ "disk": "ssd" });
    }
    if random.random_ratio(1, 3) {
        spec["tolerations"] = json!([{ "key": "dedicated", "operator": "Exists" }]);
    }
    if random.random_ratio(1, 5) {
        spec["containers"][0]["ports"] = json!([{ "containerPort": 80, "hostPort": 80 }]);
    }
    let (all, key) = (json!({}), ["kubernetes.io/hostname", "topology.kubernetes.io/zone", "rack"]);
    let key = key[random.random_range(0..3)];
    match random.random_range(0..6) {
        0 => {
            let min_domains = [Value::Null, json!(3)][random.random_range(0..2)].clone();
            let taints = ["Honor", "Ignore"][random.random_range(0..2)];
            spec["topologySpreadConstraints"] = json!([{
                "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": { "matchLabels": { "app": "probe" } },
                "minDomains": min_domains, "nodeTaintsPolicy": taints,
            }]);
        }
        1 | 2 => {
            let kind = ["podAffinity", "podAntiAffinity"][random.random_range(0..2)];
            let everywhere = if random.random_ratio(1, 2) { all } else { Value::Null };
            spec["affinity"] = json!({ (kind): { "requiredDuringSchedulingIgnoredDuringExecution": [{
                "labelSelector": { "matchLabels": { "app": "probe" } }, "topologyKey": key,
                "namespaceSelector": everywhere,
            }] } });
        }
        3 => {
            let name = format!("node-{}", random.random_range(0..7));
            spec["affinity"] = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{ "matchFields": [
                    { "key": "metadata.name", "operator": "In", "values": [name] },
                ] }],
            } } });
        }
        _ => {}
    }
    spec
}

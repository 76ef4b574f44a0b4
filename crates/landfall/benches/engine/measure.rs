//! What is asked of a server, and how long it takes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::side::Side;

/// How long a server has nothing to do before it is called idle.
pub(crate) const SETTLE: Duration = Duration::from_secs(5);

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_mins(10);

/// How often a condition is looked at that takes long.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// How many objects are written and read in all: by one client, and by several together.
const BY_ONE: usize = 300;
const BY_MANY: usize = 1600;

/// How many writes the watches see.
const WRITES: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Create,
    Patch,
    Apply,
    Get,
}

/// Requests a second, by all clients together. `Create` comes first.
pub(crate) async fn rate(clients: &[Client], request: Request) -> f64 {
    let total = if clients.len() == 1 { BY_ONE } else { BY_MANY };
    let began = Instant::now();
    join_all(clients.iter().enumerate().map(|(number, client)| {
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        async move {
            for turn in 0..total / clients.len() {
                let name = format!("map-{}-{number}-{turn}", clients.len());
                ask(&maps, &name, request).await.expect("the server does what it is asked");
            }
        }
    }))
    .await;
    #[expect(clippy::cast_precision_loss, reason = "there are not so many requests")]
    let total = total as f64;
    total / began.elapsed().as_secs_f64()
}

async fn ask(maps: &Api<ConfigMap>, name: &str, request: Request) -> kube::Result<ConfigMap> {
    let value = "a value of some length, as configuration has it; ".repeat(4);
    match request {
        Request::Create => {
            let map = json!({ "metadata": { "name": name, "labels": { "app": "bench" } }, "data": { "key": value } });
            maps.create(&PostParams::default(), &serde_json::from_value(map).expect("a config map")).await
        }
        Request::Patch => {
            let patch = Patch::Merge(json!({ "data": { "patched": value } }));
            maps.patch(name, &PatchParams::default(), &patch).await
        }
        Request::Apply => {
            let map = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "applied": value },
            });
            maps.patch(name, &PatchParams::apply("bench"), &Patch::Apply(map)).await
        }
        Request::Get => maps.get(name).await,
    }
}

/// Milliseconds for a list of a thousand of the objects that were written.
pub(crate) async fn list(client: &Client) -> f64 {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let mut times = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let listed = maps.list(&ListParams::default().limit(1000)).await.expect("a list");
        times.push(milliseconds(began));
        assert_eq!(listed.items.len(), 1000, "enough objects were written");
    }
    median(times)
}

/// Milliseconds from the begin of a write until the last of so many watches, each with a connection of its own, has seen it.
pub(crate) async fn fan_out(side: &Side, watches: usize) -> f64 {
    let client = side.client().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let map = ask(&maps, &format!("watched-{watches}"), Request::Create).await.expect("the server takes a write");
    let params = WatchParams::default().fields(&format!("metadata.name={}", map.name_any()));
    let version = map.resource_version().expect("an answer has a version");
    let streams = futures::stream::iter(0..watches).map(|_| {
        let (params, version) = (&params, &version);
        async move {
            let maps: Api<ConfigMap> = Api::default_namespaced(side.client().await);
            maps.watch(params, version).await.expect("a watch").boxed()
        }
    });
    let mut streams: Vec<_> = streams.buffer_unordered(16).collect().await;
    let mut times = Vec::new();
    for turn in 0..WRITES {
        let began = Instant::now();
        let patch = Patch::Merge(json!({ "data": { "turn": turn.to_string() } }));
        let write = async {
            maps.patch(&map.name_any(), &PatchParams::default(), &patch).await.expect("the server takes a write");
        };
        let seen = join_all(streams.iter_mut().map(|stream| async {
            loop {
                match stream.try_next().await.expect("a watch goes on") {
                    Some(WatchEvent::Modified(_)) => return,
                    Some(_) => {}
                    None => panic!("a watch ended"),
                }
            }
        }));
        futures::join!(write, seen);
        times.push(milliseconds(began));
    }
    median(times)
}

/// Milliseconds until so many Deployments have all of their replicas ready.
pub(crate) async fn deployments(client: &Client, name: &str, count: usize, replicas: i32) -> f64 {
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    let began = Instant::now();
    let creates = futures::stream::iter(0..count).map(|number| {
        let api = &api;
        async move { create_deployment(api, &format!("{name}-{number}"), name, replicas).await }
    });
    creates.buffer_unordered(16).collect::<Vec<_>>().await;
    let of_group = ListParams::default().labels(&format!("group={name}"));
    until(async || {
        let deployments = api.list(&of_group).await.expect("a list");
        deployments.iter().all(|deployment| is_rolled_out(deployment, replicas))
    })
    .await;
    milliseconds(began)
}

/// Milliseconds to replace all replicas of one Deployment.
pub(crate) async fn rolling(client: &Client, replicas: i32) -> f64 {
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    create_deployment(&api, "rolling", "rolling", replicas).await;
    let rolled_out = async || is_rolled_out(&api.get("rolling").await.expect("it was created"), replicas);
    until(rolled_out).await;
    let began = Instant::now();
    let patch = json!({ "spec": { "template": { "metadata": { "annotations": { "restarted": "once" } } } } });
    api.patch("rolling", &PatchParams::default(), &Patch::Merge(patch)).await.expect("the server takes a write");
    until(rolled_out).await;
    milliseconds(began)
}

async fn create_deployment(api: &Api<Deployment>, name: &str, group: &str, replicas: i32) {
    let labels = json!({ "app": name, "group": group });
    let deployment = json!({
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": labels }, "spec": spec(&json!({})) },
        },
    });
    let deployment = serde_json::from_value(deployment).expect("a deployment");
    api.create(&PostParams::default(), &deployment).await.expect("the server takes a write");
}

/// A container of this program, with more of it.
fn spec(more: &Value) -> Value {
    let mut container = json!({
        "name": "main", "image": "served", "ports": [{ "containerPort": 8080 }],
        "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        container[key] = value.clone();
    }
    json!({ "terminationGracePeriodSeconds": 1, "containers": [container] })
}

fn is_rolled_out(deployment: &Deployment, replicas: i32) -> bool {
    let Some(status) = &deployment.status else { return false };
    status.observed_generation == deployment.metadata.generation
        && status.replicas == Some(replicas)
        && status.updated_replicas == Some(replicas)
        && status.ready_replicas == Some(replicas)
}

/// How long pods took to become ready, in milliseconds.
pub(crate) struct PodTimes {
    /// From the first create to the last that was ready.
    pub(crate) all: f64,
    /// Of each, from its create; sorted.
    each: Vec<f64>,
}

impl PodTimes {
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        self.each[(self.each.len() * percent).div_ceil(100) - 1]
    }
}

/// Creates so many pods at once, which listen, and waits until their first probe has found each of them ready.
pub(crate) async fn pods(client: &Client, count: usize) -> PodTimes {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let version = api.list(&ListParams::default()).await.expect("a list").metadata.resource_version;
    let version = version.expect("a list has a version");
    let mut watch = api.watch(&WatchParams::default(), &version).await.expect("a watch").boxed();
    let began = Instant::now();
    let requests = join_all((0..count).map(|number| {
        let api = &api;
        async move {
            let name = format!("pod-{count}-{number}");
            let probe = json!({ "readinessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1 } });
            let pod = json!({ "metadata": { "name": name }, "spec": spec(&probe) });
            let pod = serde_json::from_value(pod).expect("a pod");
            let created = Instant::now();
            api.create(&PostParams::default(), &pod).await.expect("the server takes a write");
            (name, created)
        }
    }));
    let ready = async {
        let mut ready = HashMap::new();
        while ready.len() < count {
            match watch.try_next().await.expect("a watch goes on") {
                Some(WatchEvent::Modified(pod)) if is_ready(&pod) => {
                    ready.entry(pod.name_any()).or_insert_with(Instant::now);
                }
                Some(_) => {}
                None => panic!("the watch ended"),
            }
        }
        ready
    };
    let both = async { futures::join!(requests, ready) };
    let (created, ready) = tokio::time::timeout(PATIENCE, both).await.expect("the pods become ready");
    let mut each: Vec<_> = created.iter().map(|(name, at)| (ready[name] - *at).as_secs_f64() * 1e3).collect();
    each.sort_by(f64::total_cmp);
    let last = ready.values().max().expect("there is a pod");
    let times = PodTimes { all: (*last - began).as_secs_f64() * 1e3, each };
    for (name, _) in &created {
        api.delete(name, &DeleteParams::default()).await.expect("a pod can be deleted");
    }
    until(async || api.list(&ListParams::default()).await.expect("a list").items.is_empty()).await;
    times
}

/// Milliseconds from the create of a pod until it is ready, when nothing else happens: the median of so many.
pub(crate) async fn one_by_one(client: &Client, count: usize) -> f64 {
    let mut times = Vec::new();
    for _ in 0..count {
        times.push(pods(client, 1).await.all);
    }
    median(times)
}

/// Pods can be created from now on.
pub(crate) async fn wait_for_default_account(client: &Client) {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    until(async || accounts.get("default").await.is_ok()).await;
}

pub(crate) async fn wait_for_nodes(client: &Client, count: usize) {
    let nodes: Api<Node> = Api::all(client.clone());
    until(async || {
        let nodes = nodes.list(&ListParams::default()).await.expect("a list");
        let is_ready = |node: &&Node| {
            let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        };
        nodes.iter().filter(is_ready).count() == count
    })
    .await;
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub(crate) async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "it never comes about");
        tokio::time::sleep(POLL).await;
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

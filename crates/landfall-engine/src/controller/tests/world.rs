//! A namespace of a control plane with our controllers, and what is seen in it in the end.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt as _};
use landfall_testing::{ControlPlane, Pieces};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::kubelet;
use crate::clock::Clock;
use crate::context::{Caches, Context};
use crate::event::Lost;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(90);

pub(super) struct World {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) clock: Clock,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
    _turn: MutexGuard<'static, ()>,
}

/// Controllers reconcile all namespaces, so that only one world at a time may use an API server.
static TURN: Mutex<()> = Mutex::const_new(());

/// A real API server for all tests of this program. It ends with the program.
static API_SERVER: OnceCell<Option<ControlPlane>> = OnceCell::const_new();

/// Whether Kubernetes' own controllers run in place of ours.
fn controllers_are_real() -> bool {
    std::env::var("LANDFALL_TEST_CONTROLLERS").as_deref() == Ok("real")
}

/// A client of the API server; `None` when its programs are not on this machine.
async fn client() -> Option<Client> {
    let start = async || {
        let pieces =
            if controllers_are_real() { Pieces::default().without_scheduler() } else { Pieces::api_server_only() };
        ControlPlane::start_or_skip(pieces).await
    };
    let server = API_SERVER.get_or_init(start).await.as_ref()?;
    Some(server.client().await)
}

impl World {
    /// `None`: there is no API server to test with.
    pub(super) async fn new(name: &str) -> Option<Self> {
        let client = client().await?;
        let turn = TURN.lock().await;
        let namespaces = Api::<Namespace>::all(client.clone());
        let namespace: Namespace =
            serde_json::from_value(json!({ "metadata": { "generateName": format!("{name}-") } })).expect("a namespace");
        let namespace = namespaces.create(&PostParams::default(), &namespace).await.expect("a namespace").name_any();
        let (cancel, clock, mut tasks) = (CancellationToken::new(), Clock::wall(), JoinSet::new());
        if !controllers_are_real() {
            let context = Context {
                client: client.clone(),
                caches: Caches::new(),
                clock: clock.clone(),
                lost: Lost::default(),
                authority: "".into(),
            };
            context.caches.fill(&client, &cancel, &mut tasks).await;
            tasks.spawn(crate::controller::run_all(context, crate::controller::NodeTiming::DEFAULT, cancel.clone()));
        }
        kubelet::register(&client).await;
        tasks.spawn(kubelet::beat(client.clone()));
        tasks.spawn(kubelet::run(client.clone(), namespace.clone()));
        Some(Self { client, namespace, clock, cancel, tasks, _turn: turn })
    }

    pub(super) async fn end(mut self) {
        self.cancel.cancel();
        self.tasks.shutdown().await;
    }

    pub(super) fn api(&self, kind: &str) -> Api<DynamicObject> {
        let group = match kind {
            "Job" | "CronJob" => "batch",
            "Pod" | "Event" | "PersistentVolumeClaim" => "",
            _ => "apps",
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// Applies an object as `kubectl apply --server-side` does.
    pub(super) async fn apply(&self, object: Value) {
        let kind = object["kind"].as_str().expect("a kind").to_owned();
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let params = PatchParams::apply("test").force();
        self.api(&kind).patch(&name, &params, &Patch::Apply(object)).await.expect("the object is accepted");
    }

    pub(super) async fn patch(&self, kind: &str, name: &str, patch: Value) {
        let patched = self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.expect("the patch is accepted");
    }

    /// A node of this world, named and labelled after it, with a taint or without.
    pub(super) async fn node(&self, name: &str, taint: Option<&str>) {
        let taints: Vec<_> = taint.iter().map(|key| json!({ "key": key, "effect": "NoSchedule" })).collect();
        let node = json!({
            "metadata": { "name": format!("{}-{name}", self.namespace), "labels": { "pool": self.namespace } },
            "spec": { "taints": taints },
        });
        let node = serde_json::from_value(node).expect("a node");
        let nodes = Api::<k8s_openapi::api::core::v1::Node>::all(self.client.clone());
        let node = nodes.create(&PostParams::default(), &node).await.expect("a node");
        // Admission taints new nodes until their node agent is ready.
        let patch = Patch::Merge(json!({ "spec": { "taints": taints } }));
        nodes.patch(&node.name_any(), &PatchParams::default(), &patch).await.expect("a node");
    }

    /// An object, or null.
    pub(super) async fn get(&self, kind: &str, name: &str) -> Value {
        let object = self.api(kind).get_opt(name).await.expect("an answer");
        serde_json::to_value(object).expect("JSON")
    }

    pub(super) async fn list(&self, kind: &str) -> Vec<Value> {
        let list = self.api(kind).list(&ListParams::default()).await.expect("a list");
        list.items.into_iter().map(|object| serde_json::to_value(object).expect("JSON")).collect()
    }

    /// Waits until an object is as wanted.
    pub(super) async fn wait(&self, kind: &str, name: &str, wanted: impl Fn(&Value) -> bool) {
        let seen = eventually(async || {
            let object = self.get(kind, name).await;
            wanted(&object).then_some(())
        });
        if seen.await.is_none() {
            let object = self.get(kind, name).await;
            panic!("{kind} {name} is not as wanted: {:#}\n{}", object["status"], self.seen(&["Pod"]).await);
        }
    }

    /// Waits until events with this reason were recorded so many times.
    pub(super) async fn wait_event(&self, reason: &str, count: i32) {
        let events = Api::<Event>::namespaced(self.client.clone(), &self.namespace);
        let seen = eventually(async || {
            let events = events.list(&ListParams::default()).await.expect("events");
            let of_reason = events.items.iter().filter(|event| event.reason.as_deref() == Some(reason));
            (of_reason.map(|event| event.count.unwrap_or(1)).sum::<i32>() >= count).then_some(())
        });
        assert!(seen.await.is_some(), "no {count} events {reason}: {}", self.seen(&["Event"]).await);
    }

    /// Everything of these kinds, without what differs from run to run.
    pub(super) async fn seen(&self, kinds: &[&str]) -> String {
        let masks = self.masks().await;
        let mut text = String::new();
        for kind in kinds {
            let mut lines: Vec<String> = Vec::new();
            for object in self.list(kind).await {
                // Other components' events, and retries after a race that not every run has.
                if object["reason"] == "FailedUpdate" || object["source"]["component"] == "persistentvolume-controller"
                {
                    continue;
                }
                let line = match *kind {
                    "Event" => event_line(&object),
                    _ => {
                        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                        format!("{kind} {name}\n{}", body(object))
                    }
                };
                lines.push(line.map_masks(&masks));
            }
            lines.sort();
            text += &lines.join("\n");
            text += "\n";
        }
        text
    }

    /// Hashes and random suffixes, and what is shown for them: hashes get numbers by revision.
    async fn masks(&self) -> BTreeMap<String, String> {
        let mut masks = BTreeMap::new();
        masks.insert(self.namespace.clone(), "NAMESPACE".to_owned());
        let revision = |object: &Value| {
            let annotated = object["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str();
            annotated.and_then(|text| text.parse().ok()).or(object["revision"].as_i64()).unwrap_or_default()
        };
        for job in self.list("Job").await {
            let name = job["metadata"]["name"].as_str().unwrap_or_default();
            if let Some((_, minute)) = name.rsplit_once('-') {
                masks.insert(minute.to_owned(), "MINUTE".to_owned());
            }
            let scheduled = &job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"];
            masks.extend(scheduled.as_str().map(|time| (time.to_owned(), "SCHEDULED".to_owned())));
        }
        for (kind, label) in
            [("ReplicaSet", "pod-template-hash"), ("ControllerRevision", "controller.kubernetes.io/hash")]
        {
            let mut sets = self.list(kind).await;
            sets.sort_by_key(revision);
            for set in sets {
                if let Some(hash) = set["metadata"]["labels"][label].as_str() {
                    masks.insert(hash.to_owned(), format!("HASH{}", revision(&set)));
                }
                if let Some(name) = set["metadata"]["name"].as_str()
                    && let Some((_, hash)) = name.rsplit_once('-')
                {
                    masks.insert(hash.to_owned(), format!("HASH{}", revision(&set)));
                }
            }
        }
        masks
    }
}

trait Masked {
    fn map_masks(self, masks: &BTreeMap<String, String>) -> String;
}

impl Masked for String {
    fn map_masks(self, masks: &BTreeMap<String, String>) -> String {
        let mut text = self;
        for (secret, mask) in masks {
            text = text.replace(secret, mask);
        }
        // What follows a masked hash with a hyphen is a random suffix of five characters.
        let mut out = String::new();
        for word in text.split_inclusive([' ', '\n', '"']) {
            let (body, end) = word.split_at(word.trim_end_matches([' ', '\n', '"']).len());
            match body.rsplit_once('-') {
                Some((stem, suffix)) if is_random(suffix) => out += &format!("{stem}-RANDOM{end}"),
                _ => out += word,
            }
        }
        out
    }
}

/// As the API server makes names: five characters of its alphabet.
fn is_random(suffix: &str) -> bool {
    suffix.len() == 5 && suffix.chars().all(|char| "bcdfghjklmnpqrstvwxz2456789".contains(char))
}

fn event_line(event: &Value) -> String {
    let object = &event["involvedObject"];
    format!(
        "{} {}/{} {} {}: {}",
        event["type"].as_str().unwrap_or_default(),
        object["kind"].as_str().unwrap_or_default(),
        object["name"].as_str().unwrap_or_default(),
        event["source"]["component"].as_str().unwrap_or_default(),
        event["reason"].as_str().unwrap_or_default(),
        event["message"].as_str().unwrap_or_default(),
    )
}

fn body(mut object: Value) -> String {
    mask_times(&mut object);
    let metadata = &object["metadata"];
    let kept = json!({
        "labels": metadata["labels"],
        "annotations": metadata["annotations"],
        "finalizers": metadata["finalizers"],
        "owners": metadata["ownerReferences"].as_array().map(|owners| {
            owners.iter().map(|owner| format!("{}/{} {}", owner["kind"], owner["name"], owner["controller"])).collect::<Vec<_>>()
        }),
        "replicas": object["spec"]["replicas"],
        "status": object["status"],
    });
    let text = serde_saphyr::to_string(&kept).expect("YAML");
    let lines = text.lines().filter(|line| !line.ends_with(": null"));
    lines.map(|line| format!("  {line}\n")).collect()
}

fn mask_times(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let time = key.ends_with("Time") || key.ends_with("At") || key.ends_with("Timestamp");
                if (time
                    || key == "uid"
                    || key == "resourceVersion"
                    || key == "batch.kubernetes.io/controller-uid"
                    || key == "controller-uid")
                    && value.is_string()
                {
                    *value = Value::from("MASKED");
                } else {
                    mask_times(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask_times),
        _ => {}
    }
}

/// Asks again and again until there is an answer or time is up.
pub(super) async fn eventually<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> Option<T> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while tokio::time::Instant::now() < deadline {
        ticks.tick().await;
        if let Some(answer) = ask().await {
            return Some(answer);
        }
    }
    None
}

/// Pods by name, for tests that look closer.
pub(super) async fn pods(world: &World) -> Vec<Pod> {
    let pods = Api::<Pod>::namespaced(world.client.clone(), &world.namespace);
    pods.list(&ListParams::default()).await.expect("pods").items
}

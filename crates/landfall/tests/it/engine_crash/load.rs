//! Clients that know what the engine has promised them: writers with a model of their objects, and one that watches.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::TryStreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt as _};
use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::time::timeout;

/// How many objects a writer has at most.
const OBJECTS: u32 = 5;

/// How long the engine may take to pass an event on after a restart.
const PATIENCE: Duration = Duration::from_secs(30);

/// A workload that asks for pods; the load changes how many.
pub(super) fn deployment() -> Value {
    let container = json!({ "name": "web", "image": "web" });
    json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [container] } },
        },
    })
}

pub(super) fn name(map: &ConfigMap) -> String {
    map.name_any()
}

/// A client that writes objects of its own, one write at a time.
pub(super) struct Writer {
    number: u64,
    random: StdRng,
    /// How many values were ever written: each is new.
    values: u64,
    /// What the engine has acknowledged: a value, or that the object is gone.
    acknowledged: BTreeMap<String, Option<String>>,
    /// Acknowledged writes since the last comparison.
    writes: u64,
    /// What was asked for and not answered: it may have happened.
    pending: Option<(String, Option<String>)>,
}

impl Writer {
    pub(super) fn new(number: u64, random: StdRng) -> Self {
        Self { number, random, values: 0, acknowledged: BTreeMap::new(), writes: 0, pending: None }
    }

    /// Creates, patches and deletes until the engine does not answer any more.
    pub(super) async fn write_until_it_fails(mut self, client: Client) -> Self {
        let maps = Api::<ConfigMap>::default_namespaced(client.clone());
        let deployments = Api::<Deployment>::default_namespaced(client);
        loop {
            // Now and then something that controllers answer to.
            if self.random.random_ratio(1, 20) {
                let patch = json!({ "spec": { "replicas": self.random.random_range(1..=5) } });
                if deployments.patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.is_err() {
                    return self;
                }
            }
            let name = format!("writer-{}-{}", self.number, self.random.random_range(0..OBJECTS));
            self.values += 1;
            let value = format!("{}-{}", self.number, self.values);
            // Each value is in three places, so that half of a write shows.
            let labels = json!({ "value": value });
            let data = json!({ "first": value, "second": value });
            let exists = self.acknowledged.get(&name).is_some_and(Option::is_some);
            let (target, result) = if !exists {
                let map = json!({ "metadata": { "name": name, "labels": labels }, "data": data });
                let map = serde_json::from_value(map).expect("it is one");
                self.pending = Some((name.clone(), Some(value.clone())));
                (Some(value), maps.create(&PostParams::default(), &map).await.map(drop))
            } else if self.random.random_ratio(1, 5) {
                self.pending = Some((name.clone(), None));
                (None, maps.delete(&name, &DeleteParams::default()).await.map(drop))
            } else {
                let patch = json!({ "metadata": { "labels": labels }, "data": data });
                self.pending = Some((name.clone(), Some(value.clone())));
                (Some(value), maps.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop))
            };
            match result {
                Ok(()) => {
                    self.pending = None;
                    self.writes += 1;
                    self.acknowledged.insert(name, target);
                }
                // An answer is about an object that is not as the engine said it was.
                Err(kube::Error::Api(status)) => panic!("{name}: {}", status.message),
                Err(_) => return self,
            }
        }
    }

    /// Compares the objects with what was acknowledged, takes over what may have happened, and returns how many writes
    /// that were acknowledged since the last time.
    pub(super) fn compare(&mut self, found: &BTreeMap<String, ConfigMap>) -> Result<u64, String> {
        let pending = self.pending.take();
        if let Some((name, _)) = &pending {
            self.acknowledged.entry(name.clone()).or_default();
        }
        for (name, acknowledged) in &mut self.acknowledged {
            let value = found.get(name).map(whole).transpose()?;
            let may_be = pending.as_ref().filter(|(pending, _)| pending == name).map(|(_, value)| value);
            if value != *acknowledged && Some(&value) != may_be {
                return Err(format!("`{name}` is {value:?}; {acknowledged:?} was acknowledged, {may_be:?} asked for"));
            }
            *acknowledged = value;
        }
        Ok(std::mem::take(&mut self.writes))
    }
}

/// The value of an object, if it is the same everywhere.
fn whole(map: &ConfigMap) -> Result<String, String> {
    let data = map.data.clone().unwrap_or_default();
    let value = map.labels().get("value").cloned().unwrap_or_default();
    if data.get("first") == Some(&value) && data.get("second") == Some(&value) {
        Ok(value)
    } else {
        Err(format!("`{}` is written by half: {data:?}, {:?}", name(map), map.labels()))
    }
}

/// A client that knows the objects from a list and from the events since.
pub(super) struct Follower {
    maps: Api<ConfigMap>,
    known: BTreeMap<String, ConfigMap>,
    version: String,
}

impl Follower {
    pub(super) async fn start(client: &Client) -> Self {
        let maps = Api::<ConfigMap>::default_namespaced(client.clone());
        let list = maps.list(&ListParams::default()).await.expect("they can be listed");
        let version = list.metadata.resource_version.unwrap_or_default();
        let known = list.items.into_iter().map(|map| (name(&map), map)).collect();
        Self { maps, known, version }
    }

    /// Watches until the engine is gone. Cancel-safe: an event is either known or was not seen.
    pub(super) async fn follow(&mut self) {
        let Ok(events) = self.maps.watch(&WatchParams::default(), &self.version).await else { return };
        let mut events = pin!(events);
        while let Ok(Some(event)) = events.try_next().await {
            self.take(event);
        }
    }

    /// Goes on from the last event that was seen before the restart; what is known then must be what is there.
    pub(super) async fn catch_up(&mut self, client: &Client, round: u64) -> Result<(), String> {
        self.maps = Api::default_namespaced(client.clone());
        let fence = format!("fence-{round}");
        let map = serde_json::from_value(json!({ "metadata": { "name": fence } })).expect("it is one");
        self.maps.create(&PostParams::default(), &map).await.expect("it is made");
        let events = self.maps.watch(&WatchParams::default(), &self.version).await;
        let mut events = pin!(events.map_err(|error| format!("the watch from {} failed: {error}", self.version))?);
        while !self.known.contains_key(&fence) {
            match timeout(PATIENCE, events.try_next()).await {
                Ok(Ok(Some(WatchEvent::Error(status)))) if status.code == 410 => {
                    *self = Self::start(client).await;
                    return Ok(());
                }
                Ok(Ok(Some(event))) => self.take(event),
                other => return Err(format!("the watch from {} does not go on: {other:?}", self.version)),
            }
        }
        let list = self.maps.list(&ListParams::default()).await.expect("they can be listed");
        let there: BTreeMap<_, _> = list.items.into_iter().map(|map| (name(&map), map)).collect();
        if there != self.known {
            return Err(format!("the watch says\n{:#?}\nthe list says\n{there:#?}", self.known));
        }
        Ok(())
    }

    fn take(&mut self, event: WatchEvent<ConfigMap>) {
        match event {
            WatchEvent::Added(map) | WatchEvent::Modified(map) => {
                self.version = map.resource_version().unwrap_or_default();
                self.known.insert(name(&map), map);
            }
            WatchEvent::Deleted(map) => {
                self.version = map.resource_version().unwrap_or_default();
                self.known.remove(&name(&map));
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => panic!("the watch says: {}", status.message),
        }
    }
}

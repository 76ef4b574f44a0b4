//! One watch of metadata for each kind that can be deleted; kinds come and go with their definitions.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::graph::{Graph, Node};
use super::kind_of;
use crate::tasks;

/// How often the kinds are asked for when no definition of one has changed.
const REDISCOVER: Duration = Duration::from_secs(30);

/// A definition is served some time after it has changed, so that the kinds are asked for soon, and again after twice the
/// time, and so on.
const SETTLE: Duration = Duration::from_millis(500);

/// How long the first lists of all kinds may take before those that came are worked with.
const FIRST_LISTS: Duration = Duration::from_secs(30);

/// Every kind that is served, and whether it is namespaced. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Kinds(Arc<RwLock<ByName>>);

/// By group and kind.
type ByName = BTreeMap<(String, String), Vec<(ApiResource, bool)>>;

impl Kinds {
    /// A kind in any of its versions: an owner may be named in an older one.
    pub(super) fn find(&self, api_version: &str, kind: &str) -> Option<(ApiResource, bool)> {
        let wanted = kind_of(api_version, kind);
        let kinds = self.0.read().unwrap_or_else(PoisonError::into_inner);
        kinds.get(&(wanted.group, wanted.kind))?.first().cloned()
    }

    fn replace(&self, discovery: &Discovery) {
        let mut kinds: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (kind, capabilities) in discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources) {
            let key = (kind.group.clone(), kind.kind.clone());
            kinds.entry(key).or_default().push((kind, capabilities.scope == Scope::Namespaced));
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = kinds;
    }
}

pub(super) struct Monitors {
    client: Client,
    graph: Arc<Mutex<Graph>>,
    changed: mpsc::UnboundedSender<String>,
    kinds: Kinds,
    cancel: CancellationToken,
    /// By group, version and kind.
    running: HashMap<GroupVersionKind, Running>,
    tasks: JoinSet<()>,
    /// Marked when a definition of a custom resource has changed.
    definitions: watch::Sender<()>,
}

struct Running {
    cancel: CancellationToken,
    listed: watch::Receiver<bool>,
}

impl Monitors {
    pub(super) fn new(
        client: Client,
        graph: Arc<Mutex<Graph>>,
        changed: mpsc::UnboundedSender<String>,
        kinds: Kinds,
        cancel: CancellationToken,
    ) -> Self {
        let definitions = watch::Sender::new(());
        Self { client, graph, changed, kinds, cancel, running: HashMap::new(), tasks: JoinSet::new(), definitions }
    }

    /// Waits until every kind has been listed once.
    pub(super) async fn start(&mut self) {
        self.discover().await;
        let listed = self.running.values().map(|running| {
            let mut listed = running.listed.clone();
            async move { listed.wait_for(|listed| *listed).await.is_ok() }
        });
        if tokio::time::timeout(FIRST_LISTS, futures::future::join_all(listed)).await.is_err() {
            tracing::warn!("not every kind could be listed; what it owns is looked after later");
        }
    }

    /// Starts and ends watches as kinds come and go, until cancelled.
    pub(super) async fn keep_up(mut self) {
        let mut definitions = self.definitions.subscribe();
        let cancel = self.cancel.clone();
        let mut wait = SETTLE;
        loop {
            // Each arm may be dropped half-way: a wait that is cut short begins again.
            tokio::select! {
                () = cancel.cancelled() => break,
                _ = definitions.changed() => wait = SETTLE,
                () = tokio::time::sleep(wait) => {
                    self.discover().await;
                    wait = REDISCOVER.min(wait * 2);
                }
            }
        }
        tasks::supervise(&mut self.tasks).await;
    }

    async fn discover(&mut self) {
        let discovery = match Discovery::new(self.client.clone()).run_aggregated().await {
            Ok(discovery) => discovery,
            Err(error) => return tracing::warn!(%error, "the kinds could not be discovered, trying again"),
        };
        self.kinds.replace(&discovery);
        let mut served = HashSet::new();
        for (kind, capabilities) in discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources) {
            let can = [verbs::LIST, verbs::WATCH, verbs::DELETE];
            // Events own nothing, are owned by nobody, and there are many of them.
            if kind.kind == "Event" || !can.iter().all(|verb| capabilities.supports_operation(verb)) {
                continue;
            }
            let gvk = GroupVersionKind::gvk(&kind.group, &kind.version, &kind.kind);
            served.insert(gvk.clone());
            if !self.running.contains_key(&gvk) {
                let running = self.watch(Arc::new(kind));
                self.running.insert(gvk, running);
            }
        }
        self.running.retain(|kind, running| {
            let stays = served.contains(kind);
            if !stays {
                running.cancel.cancel();
            }
            stays
        });
    }

    fn watch(&mut self, kind: Arc<ApiResource>) -> Running {
        let (done, listed) = watch::channel(false);
        let cancel = self.cancel.child_token();
        let monitor = Monitor {
            api: Api::all_with(self.client.clone(), &*kind),
            is_definition: kind.kind == "CustomResourceDefinition",
            kind,
            graph: Arc::clone(&self.graph),
            changed: self.changed.clone(),
            definitions: self.definitions.clone(),
            listed: done,
            engine: self.cancel.clone(),
        };
        self.tasks.spawn(monitor.run(cancel.clone()));
        Running { cancel, listed }
    }
}

/// The watch of one kind.
struct Monitor {
    api: Api<DynamicObject>,
    kind: Arc<ApiResource>,
    is_definition: bool,
    graph: Arc<Mutex<Graph>>,
    changed: mpsc::UnboundedSender<String>,
    definitions: watch::Sender<()>,
    listed: watch::Sender<bool>,
    /// The whole engine ends.
    engine: CancellationToken,
}

impl Monitor {
    async fn run(self, cancel: CancellationToken) {
        #[expect(deprecated, reason = "its successor wants the kind at compile time")]
        let mut events =
            pin!(kube::runtime::metadata_watcher(self.api.clone(), watcher::Config::default()).default_backoff());
        let mut seen = BTreeSet::new();
        while let Some(Some(event)) = cancel.run_until_cancelled(events.next()).await {
            match event {
                Ok(watcher::Event::Init) => seen.clear(),
                Ok(watcher::Event::InitApply(object)) => {
                    seen.extend(object.metadata.uid.clone());
                    self.insert(object.metadata);
                }
                Ok(watcher::Event::InitDone) => {
                    let known = self.graph().of_kind(&self.kind);
                    known.difference(&seen).for_each(|gone| self.remove(gone));
                    self.listed.send_replace(true);
                }
                Ok(watcher::Event::Apply(object)) => self.insert(object.metadata),
                Ok(watcher::Event::Delete(object)) => {
                    object.metadata.uid.iter().for_each(|uid| self.remove(uid));
                    self.definition_changed();
                }
                Err(error) => tracing::debug!(kind = self.kind.kind, %error, "watch failed, trying again"),
            }
        }
        if self.engine.is_cancelled() {
            return;
        }
        // The kind is gone, and so are its objects.
        let known = self.graph().of_kind(&self.kind);
        for gone in &known {
            self.remove(gone);
        }
    }

    fn insert(&self, metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) {
        let Some(node) = Node::new(&self.kind, metadata) else { return };
        let concerned = self.graph().insert(node);
        self.tell(concerned);
        self.definition_changed();
    }

    fn remove(&self, uid: &str) {
        let concerned = self.graph().remove(uid);
        self.tell(concerned);
    }

    fn tell(&self, concerned: Vec<String>) {
        // Nobody listens any more when the engine ends.
        concerned.into_iter().all(|uid| self.changed.send(uid).is_ok());
    }

    fn definition_changed(&self) {
        if self.is_definition {
            self.definitions.send_replace(());
        }
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

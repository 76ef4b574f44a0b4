//! The node agent: it registers simulated nodes, and runs the pods that are bound to them.
//!
//! Each pod has a worker, a task that compares what the pod says with what its containers do ([`plan`]), performs the
//! difference, and writes the status. The worker owns all that is about its pod; nothing is shared between workers but the
//! caches.

mod environment;
mod fault;
mod launch;
mod node;
mod plan;
mod probe;
mod reclaim;
mod scrape;
mod status;
mod stream;
#[cfg(test)]
mod tests;
mod usage;
mod volumes;
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use tokio::sync::{Notify, Semaphore, broadcast, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, info_span};

use crate::api::machine::NodeFault;
use crate::cache::{Change, ObjectKey};
use crate::context::Context;
use crate::event::Recorder;
use crate::images::Catalogue;
use crate::network::{Attachment, PodNetwork};
use crate::runtime::{PodSandbox, Runtime, RuntimeError, Sandbox};
use crate::tasks;

pub use node::NodeSpec;

/// How many pods are written about at the same time: each write holds its object several times over until the store has it, and
/// thousands of pods that are scheduled in one go would all begin theirs at once.
const WRITES: usize = 64;

/// How restarts are delayed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BackOff {
    /// Before the second restart.
    pub(crate) first: Duration,
    /// It doubles up to here. A container that has run for twice as long begins anew.
    pub(crate) most: Duration,
}

impl Default for BackOff {
    /// Kubernetes, "Pod lifecycle": 10 s, doubled up to 300 s, reset after 10 minutes.
    fn default() -> Self {
        Self { first: Duration::from_secs(10), most: Duration::from_mins(5) }
    }
}

/// What a node agent is made of.
pub(crate) struct Parts {
    pub(crate) context: Context,
    pub(crate) recorder: Recorder,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) network: Arc<PodNetwork>,
    pub(crate) images: Catalogue,
    pub(crate) nodes: Vec<NodeSpec>,
    /// Where persistent volumes lie.
    pub(crate) persistent: PathBuf,
    pub(crate) back_off: BackOff,
}

/// The node agent of all simulated nodes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Agent {
    shared: Arc<Shared>,
}

struct Shared {
    context: Context,
    recorder: Recorder,
    runtime: Arc<dyn Runtime>,
    network: Arc<PodNetwork>,
    images: ArcSwap<Catalogue>,
    nodes: BTreeMap<String, NodeState>,
    persistent: PathBuf,
    back_off: BackOff,
    /// Who may write about a pod now.
    writes: Semaphore,
    pods: Mutex<Pods>,
    usage: usage::Samples,
    scrapes: scrape::Scrapes,
    /// One change at a time, from the rules of the network to the pods.
    changing_faults: tokio::sync::Mutex<()>,
}

/// The pods that have a worker.
#[derive(Default)]
struct Pods {
    by_uid: HashMap<String, Arc<Handle>>,
    /// The uids of those of one name: while one still ends, the next may be there already.
    by_name: HashMap<ObjectKey, Vec<String>>,
}

impl Pods {
    fn insert(&mut self, name: ObjectKey, uid: String, handle: Arc<Handle>) {
        self.by_name.entry(name).or_default().push(uid.clone());
        self.by_uid.insert(uid, handle);
    }

    fn remove(&mut self, name: &ObjectKey, uid: &str) {
        self.by_uid.remove(uid);
        if let Some(uids) = self.by_name.get_mut(name) {
            uids.retain(|known| known != uid);
            if uids.is_empty() {
                self.by_name.remove(name);
            }
        }
    }

    fn of_name(&self, name: &ObjectKey) -> impl Iterator<Item = &Arc<Handle>> {
        self.by_name.get(name).into_iter().flatten().filter_map(|uid| self.by_uid.get(uid))
    }
}

struct NodeState {
    spec: NodeSpec,
    fault: watch::Sender<NodeFault>,
    /// Whether it has any fault. Set before the fault is told to the pods, and taken back before they are told that it is
    /// over, so that nothing gets out in between.
    away: Arc<AtomicBool>,
    /// How often its power was cut: a worker may see it again only when it is back.
    boots: AtomicU64,
}

/// What others may ask of a pod that has a worker.
struct Handle {
    /// The newest state; None: it is gone from the API.
    pod: watch::Sender<Option<Arc<Pod>>>,
    sandbox: RwLock<Option<Arc<dyn Sandbox>>>,
    /// Something that the pod refers to may have changed.
    poke: Notify,
    ended: watch::Sender<bool>,
}

impl Handle {
    fn sandbox(&self) -> Option<Arc<dyn Sandbox>> {
        self.sandbox.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Agent {
    pub(crate) fn new(parts: Parts) -> Self {
        let nodes = parts.nodes.into_iter().map(|spec| {
            let state = NodeState {
                fault: watch::Sender::new(NodeFault::None),
                away: Arc::default(),
                boots: AtomicU64::new(0),
                spec,
            };
            (state.spec.name.clone(), state)
        });
        Self {
            shared: Arc::new(Shared {
                context: parts.context,
                recorder: parts.recorder,
                runtime: parts.runtime,
                network: parts.network,
                images: ArcSwap::from_pointee(parts.images),
                nodes: nodes.collect(),
                persistent: parts.persistent,
                back_off: parts.back_off,
                writes: Semaphore::new(WRITES),
                pods: Mutex::default(),
                usage: usage::Samples::default(),
                scrapes: scrape::Scrapes::default(),
                changing_faults: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// Runs nodes and pods until cancelled. The pods then run on: a next agent with the same data folder finds them.
    pub(crate) async fn run(&self, cancel: CancellationToken) -> Result<(), RuntimeError> {
        let shared = &self.shared;
        let mut changes = shared.context.caches.pods.subscribe();
        let mut tasks = JoinSet::new();
        for name in shared.nodes.keys() {
            let (shared, cancel, name) = (Arc::clone(shared), cancel.clone(), name.clone());
            tasks.spawn(async move {
                let state = &shared.nodes[&name];
                node::keep(&state.spec, &shared.context, state.fault.subscribe(), &cancel).await;
            });
        }
        {
            let (shared, cancel) = (Arc::clone(shared), cancel.clone());
            tasks.spawn(async move { shared.refresh_on_change(&cancel).await });
        }
        {
            let (shared, cancel) = (Arc::clone(shared), cancel.clone());
            tasks.spawn(async move { usage::sample(&shared, &cancel).await });
        }
        {
            let (shared, cancel) = (Arc::clone(shared), cancel.clone());
            tasks.spawn(async move { scrape::scrape(&shared, &cancel).await });
        }
        {
            let (shared, cancel) = (Arc::clone(shared), cancel.clone());
            tasks.spawn(async move { reclaim::reclaim(&shared, &cancel).await });
        }
        self.adopt().await?;
        for pod in shared.context.caches.pods.list() {
            shared.observe(&pod, &cancel, &mut tasks);
        }
        loop {
            // Receiving loses nothing when it is dropped.
            tokio::select! {
                () = cancel.cancelled() => break,
                change = changes.recv() => match change {
                    Ok(Change::Applied { new, .. }) => shared.observe(&new, &cancel, &mut tasks),
                    Ok(Change::Deleted { old }) => shared.forget(&old),
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        let all = shared.context.caches.pods.list();
                        for pod in &all {
                            shared.observe(pod, &cancel, &mut tasks);
                        }
                        for handle in shared.handles() {
                            let known = handle.pod.borrow().clone();
                            if let Some(known) = known && !all.iter().any(|pod| pod.uid() == known.uid()) {
                                shared.forget(&known);
                            }
                        }
                    }
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                Some(ended) = tasks.join_next() => { tasks::result(ended); }
            }
        }
        tasks::supervise(&mut tasks).await;
        Ok(())
    }

    /// Keeps the addresses of the pods that an earlier agent has left running, and ends those that are no longer wanted.
    async fn adopt(&self) -> Result<(), RuntimeError> {
        let shared = &self.shared;
        for sandbox in shared.runtime.left_behind()? {
            let wanted =
                shared.context.caches.pods.list().into_iter().any(|pod| pod.uid().as_ref() == Some(&sandbox.uid));
            if wanted {
                shared.network.keep(&sandbox.uid, sandbox.ip);
            } else {
                info!(pod = %format!("{}/{}", sandbox.namespace, sandbox.name), "the pod was deleted meanwhile");
                let opened = shared.runtime.open(sandbox).await?;
                opened.close().await;
                opened.remove().await?;
            }
        }
        Ok(())
    }
}

impl Shared {
    fn handles(&self) -> Vec<Arc<Handle>> {
        self.pods().by_uid.values().cloned().collect()
    }

    fn handle(&self, uid: &str) -> Option<Arc<Handle>> {
        self.pods().by_uid.get(uid).cloned()
    }

    fn pods(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn observe(self: &Arc<Self>, pod: &Arc<Pod>, cancel: &CancellationToken, tasks: &mut JoinSet<()>) {
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) else { return };
        let (Some(uid), true) = (pod.uid(), self.nodes.contains_key(node)) else { return };
        let mut pods = self.pods();
        if let Some(handle) = pods.by_uid.get(&uid) {
            handle.pod.send_replace(Some(Arc::clone(pod)));
            return;
        }
        // A pod of the same name that still ends must have ended first: never do two run.
        let name = ObjectKey::of(&**pod);
        let before: Vec<_> = pods.of_name(&name).map(|handle| handle.ended.subscribe()).collect();
        let handle = Arc::new(Handle {
            pod: watch::Sender::new(Some(Arc::clone(pod))),
            sandbox: RwLock::default(),
            poke: Notify::new(),
            ended: watch::Sender::new(false),
        });
        pods.insert(name.clone(), uid.clone(), Arc::clone(&handle));
        let span = info_span!("pod", pod = %name);
        let (shared, cancel, pod) = (Arc::clone(self), cancel.clone(), Arc::clone(pod));
        tasks.spawn(
            async move {
                for mut other in before {
                    // Its sender lives until it has ended.
                    let _ = other.wait_for(|ended| *ended).await;
                }
                worker::run(Arc::clone(&shared), Arc::clone(&handle), pod, cancel).await;
                handle.ended.send_replace(true);
                shared.pods().remove(&name, &uid);
            }
            .instrument(span),
        );
    }

    fn forget(&self, pod: &Pod) {
        if let Some(handle) = pod.uid().and_then(|uid| self.handle(&uid)) {
            handle.pod.send_replace(None);
        }
    }

    /// Wakes the pods of a namespace when something changes that their volumes may show.
    async fn refresh_on_change(&self, cancel: &CancellationToken) {
        let mut maps = self.context.caches.config_maps.subscribe();
        let mut secrets = self.context.caches.secrets.subscribe();
        loop {
            let namespace = tokio::select! {
                () = cancel.cancelled() => return,
                change = maps.recv() => change.map(|change| change.object().namespace()),
                change = secrets.recv() => change.map(|change| change.object().namespace()),
            };
            match namespace {
                Ok(namespace) => self.poke(|pod| pod.namespace() == namespace),
                Err(broadcast::error::RecvError::Lagged(_)) => self.poke(|_| true),
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    fn poke(&self, which: impl Fn(&Pod) -> bool) {
        for handle in self.handles() {
            if handle.pod.borrow().as_deref().is_some_and(&which) {
                handle.poke.notify_one();
            }
        }
    }
}

/// A container's host name: what the pod says, or its name.
fn hostname(pod: &Pod) -> String {
    let named = pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).filter(|name| !name.is_empty());
    let mut name = named.unwrap_or_else(|| pod.name_any());
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// The sandbox of a pod at its place.
fn sandbox(pod: &Pod, attachment: &Attachment) -> PodSandbox {
    let spec = pod.spec.as_ref();
    let hostname = hostname(pod);
    let domain = spec.and_then(|spec| spec.subdomain.as_deref()).filter(|domain| !domain.is_empty());
    let namespace = pod.namespace().unwrap_or_default();
    let mut hosts = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    );
    let full = domain.map(|domain| format!("\t{hostname}.{domain}.{namespace}.svc.cluster.local")).unwrap_or_default();
    hosts.push_str(&format!("{}{full}\t{hostname}\n", attachment.ip));
    let aliases = spec.and_then(|spec| spec.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        hosts.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        hosts.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t")));
    }
    PodSandbox {
        uid: pod.uid().unwrap_or_default(),
        namespace,
        name: pod.name_any(),
        node: spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        hostname,
        ip: attachment.ip,
        netns: attachment.netns.clone(),
        hosts: Some(hosts),
        names: None,
        resolv_conf: attachment.resolv_conf.clone(),
    }
}

/// The log files and volumes of a pod lie here.
fn pod_folder(shared: &Shared, uid: &str) -> PathBuf {
    let folder: &Path = &shared.runtime.directory(uid);
    folder.to_path_buf()
}

//! A kubelet that runs nothing: it registers nodes, renews their leases, and says of every pod bound to them what a real
//! one would say if its programs did as the pod's annotations ask.
//!
//! | annotation of a pod | meaning |
//! |---|---|
//! | `testing.landfall.dev/exit: "0"` | its containers exit with this code as soon as they run |
//! | `testing.landfall.dev/ready: "false"` | its containers run and are not ready, for as long as it says so |
//! | `testing.landfall.dev/stops-after: "5"` | they need this many seconds to end when asked to, at most the pod's grace; without it, none |
//!
//! It is the cluster's storage too: every claim without a volume gets one.
//!
//! Not handled: events, probes, volumes' contents, the kubelet's own admission, restarts after a crash (a pod whose containers
//! exit and must run again stays in `CrashLoopBackOff`).

mod node;
mod status;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::task::JoinSet;

pub use crate::kubelet::node::FakeNode;
use crate::kubelet::status::{Programs, stop_after};

/// How often a lease is renewed, as the real one does it.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Nodes on which every pod runs. Ends when it is dropped; its nodes stay, as those of a machine that went away.
#[derive(Debug)]
pub struct FakeKubelet {
    shared: Arc<Shared>,
    // Aborted when dropped.
    _tasks: JoinSet<()>,
}

struct Shared {
    client: Client,
    nodes: BTreeMap<String, FakeNode>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("nodes", &self.nodes.keys()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    /// Nodes that are cut off.
    failed: BTreeSet<String>,
    /// By uid: what was last said of a pod.
    said: BTreeMap<String, Said>,
    addresses: u32,
}

struct Said {
    address: Ipv4Addr,
    programs: Option<Programs>,
    stopping: bool,
}

impl FakeKubelet {
    /// Registers the nodes and takes care of their pods from now on. Returns when the nodes are ready.
    pub async fn start(client: Client, nodes: impl IntoIterator<Item = FakeNode>) -> kube::Result<Self> {
        let nodes: BTreeMap<_, _> = nodes.into_iter().map(|node| (node.name().to_owned(), node)).collect();
        for node in nodes.values() {
            node.register(&client).await?;
        }
        let shared = Arc::new(Shared { client, nodes, state: Mutex::default() });
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&shared).renew_leases());
        tasks.spawn(Arc::clone(&shared).run_pods());
        tasks.spawn(volumes::provision(shared.client.clone()));
        Ok(Self { shared, _tasks: tasks })
    }

    /// Cuts a node off: its lease is no longer renewed, and nothing is said of its pods.
    ///
    /// # Panics
    ///
    /// If it is no node of this kubelet.
    pub fn fail(&self, node: &str) {
        assert!(self.shared.nodes.contains_key(node), "`{node}` is none of {:?}", self.shared.nodes.keys());
        self.shared.lock(|state| state.failed.insert(node.to_owned()));
    }

    /// Brings a node back that was cut off, and its pods.
    pub async fn recover(&self, node: &str) -> kube::Result<()> {
        self.shared.lock(|state| state.failed.remove(node));
        if let Some(node) = self.shared.nodes.get(node) {
            node.register(&self.shared.client).await?;
        }
        let its_pods = ListParams::default().fields(&format!("spec.nodeName={node}"));
        for pod in Api::<Pod>::all(self.shared.client.clone()).list(&its_pods).await? {
            self.shared.run(&pod, &mut JoinSet::new()).await;
        }
        Ok(())
    }
}

impl Shared {
    fn lock<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        // Each change is one assignment; a panic leaves none half done.
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn alive(&self, node: &str) -> bool {
        self.lock(|state| !state.failed.contains(node))
    }

    async fn renew_leases(self: Arc<Self>) {
        let mut beat = tokio::time::interval(HEARTBEAT);
        loop {
            beat.tick().await;
            for node in self.nodes.values().filter(|node| self.alive(node.name())) {
                report("renew the lease of", node.name(), node.renew_lease(&self.client).await);
            }
        }
    }

    async fn run_pods(self: Arc<Self>) {
        let pods = watcher(Api::<Pod>::all(self.client.clone()), watcher::Config::default()).default_backoff();
        let mut pods = pin!(pods);
        let mut stopping = JoinSet::new();
        loop {
            // Dropping either half-way loses nothing: both are streams.
            tokio::select! {
                event = pods.try_next() => match event {
                    Ok(Some(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod))) => {
                        self.run(&pod, &mut stopping).await;
                    }
                    Ok(Some(watcher::Event::Delete(pod))) => {
                        self.lock(|state| state.said.remove(&pod.uid().unwrap_or_default()));
                    }
                    Ok(Some(watcher::Event::Init | watcher::Event::InitDone)) => {}
                    Ok(None) => return,
                    Err(error) => report::<()>("watch", "pods", Err(error)),
                },
                Some(()) = next(&mut stopping) => {}
            }
        }
    }

    /// Says what is new about a pod of a living node.
    async fn run(self: &Arc<Self>, pod: &Pod, stopping: &mut JoinSet<()>) {
        let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let Some(node) = bound.and_then(|name| self.nodes.get(name)).filter(|node| self.alive(node.name())) else {
            return;
        };
        let uid = pod.uid().unwrap_or_default();
        let programs = Programs::of(pod);
        let (address, is_new, stops) = self.lock(|state| {
            let fresh = address(state.addresses);
            let said = state.said.entry(uid.clone()).or_insert_with(|| {
                state.addresses += 1;
                Said { address: fresh, programs: None, stopping: false }
            });
            let is_new = said.programs.as_ref().is_none_or(|said| *said != programs && !said.is_final());
            let stops = pod.metadata.deletion_timestamp.is_some() && !said.stopping;
            said.stopping |= stops;
            if is_new && !stops {
                said.programs = Some(programs.clone());
            }
            (said.address, is_new, stops)
        });
        if stops {
            let (this, pod, node) = (Arc::clone(self), pod.clone(), node.clone());
            stopping.spawn(async move {
                tokio::time::sleep(stop_after(&pod)).await;
                if this.alive(node.name()) {
                    this.end(&pod, &node, address).await;
                }
            });
        } else if is_new && pod.metadata.deletion_timestamp.is_none() {
            self.say(pod, &programs.status(pod, node, address, Timestamp::now())).await;
        }
    }

    /// The last words of a pod whose containers were asked to end and did, and then its removal.
    async fn end(&self, pod: &Pod, node: &FakeNode, address: Ipv4Addr) {
        let programs = Programs::of(pod);
        if !programs.is_final() {
            self.say(pod, &Programs::stopped().status(pod, node, address, Timestamp::now())).await;
        }
        let now = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        report("delete pod", &pod.name_any(), self.pods_of(pod).delete(&pod.name_any(), &now).await);
    }

    async fn say(&self, pod: &Pod, status: &serde_json::Value) {
        let patch = Patch::Strategic(status);
        let said = self.pods_of(pod).patch_status(&pod.name_any(), &PatchParams::default(), &patch).await;
        report("tell the status of pod", &pod.name_any(), said);
    }

    fn pods_of(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }
}

/// Pods get addresses of 10.200.0.0/16, each its own.
fn address(count: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 200, 0, 1)) + count)
}

/// The next task that ends; never, as long as there is none.
async fn next(tasks: &mut JoinSet<()>) -> Option<()> {
    match tasks.join_next().await {
        Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Some(_) => Some(()),
        None => std::future::pending().await,
    }
}

/// An object that is gone or has changed meanwhile is no news; whatever else fails is told, as a test may wait for it.
#[expect(clippy::print_stderr, reason = "a task of a test has no other way to say so")]
fn report<T>(action: &str, name: &str, result: Result<T, impl Display + ExpectedFailure>) {
    if let Err(error) = result
        && !error.is_expected()
    {
        eprintln!("fake kubelet: failed to {action} `{name}`: {error}");
    }
}

trait ExpectedFailure {
    fn is_expected(&self) -> bool;
}

impl ExpectedFailure for kube::Error {
    fn is_expected(&self) -> bool {
        matches!(self, Self::Api(status) if matches!(status.code, 404 | 409))
    }
}

impl ExpectedFailure for watcher::Error {
    /// A watch ends when its server does, and is begun again.
    fn is_expected(&self) -> bool {
        true
    }
}

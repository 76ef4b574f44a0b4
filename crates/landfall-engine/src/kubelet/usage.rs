//! What containers and nodes use, measured over a window, for `metrics.k8s.io`.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use kube::ResourceExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Agent, Shared};
use crate::api::machine::NodeFault;
use crate::api::node_agent::{MetricsSource, NodeUsage, PodSeries, PodUsage, Usage};

/// How often is measured: metrics-server's `--metric-resolution`.
const WINDOW: Duration = Duration::from_secs(15);

/// The newest measurements.
#[derive(Debug, Default)]
pub(super) struct Samples(Mutex<HashMap<String, Sample>>);

/// Of one container, by its id.
#[derive(Debug, Clone)]
struct Sample {
    node: Arc<str>,
    namespace: Arc<str>,
    pod: Arc<str>,
    container: Arc<str>,
    cpu: Duration,
    measured: Instant,
    at: Timestamp,
    window: Duration,
    /// None before the second measurement.
    usage: Option<Usage>,
}

/// Measures until cancelled.
pub(super) async fn sample(shared: &Arc<Shared>, cancel: &CancellationToken) {
    let mut ticks = tokio::time::interval(WINDOW);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticks.tick() => measure(shared),
        }
    }
}

fn measure(shared: &Shared) {
    let mut old = std::mem::take(&mut *shared.usage.0.lock().unwrap_or_else(PoisonError::into_inner));
    let mut new = HashMap::new();
    for handle in shared.handles() {
        let (Some(sandbox), Some(pod)) = (handle.sandbox(), handle.pod.borrow().clone()) else { continue };
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        for record in sandbox.records().borrow().iter() {
            let Some(used) = sandbox.usage(&record.id) else { continue };
            let now = Instant::now();
            let before = old.remove(&record.id);
            let window = before.as_ref().map(|before| now - before.measured).filter(|window| !window.is_zero());
            let usage = before.zip(window).map(|(before, window)| {
                let spent = used.cpu.saturating_sub(before.cpu).as_nanos() * 1_000_000_000;
                let nanocores = u64::try_from(spent / window.as_nanos()).unwrap_or(u64::MAX);
                Usage { nanocores, memory_bytes: used.memory_bytes }
            });
            new.insert(
                record.id.clone(),
                Sample {
                    node: node.into(),
                    namespace: pod.namespace().unwrap_or_default().into(),
                    pod: pod.name_any().into(),
                    container: record.name.as_str().into(),
                    cpu: used.cpu,
                    measured: now,
                    at: Timestamp::now(),
                    window: window.unwrap_or_default(),
                    usage,
                },
            );
        }
    }
    *shared.usage.0.lock().unwrap_or_else(PoisonError::into_inner) = new;
}

impl Agent {
    fn samples(&self) -> Vec<Sample> {
        let samples = self.shared.usage.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |sample: &&Sample| sample.usage.is_some() && self.is_measured(&sample.node);
        samples.values().filter(known).cloned().collect()
    }

    /// Nobody can ask a node that is not there.
    fn is_measured(&self, node: &str) -> bool {
        self.shared.fault(node) == NodeFault::None
    }
}

impl MetricsSource for Agent {
    /// A simulated node uses what its pods use: the machine's own use belongs to none of them.
    fn nodes(&self) -> Vec<NodeUsage> {
        let samples = self.samples();
        let of = |name: &str| {
            let of_node: Vec<_> = samples.iter().filter(|sample| *sample.node == *name).collect();
            let sum = of_node.iter().filter_map(|sample| sample.usage).fold(Usage::default(), |sum, usage| Usage {
                nanocores: sum.nanocores + usage.nanocores,
                memory_bytes: sum.memory_bytes + usage.memory_bytes,
            });
            NodeUsage {
                node: name.into(),
                at: of_node.iter().map(|sample| sample.at).max().unwrap_or_else(Timestamp::now),
                window: of_node.iter().map(|sample| sample.window).max().unwrap_or(WINDOW),
                usage: sum,
            }
        };
        self.shared.nodes.keys().filter(|name| self.is_measured(name)).map(|name| of(name)).collect()
    }

    fn pods(&self) -> Vec<PodUsage> {
        let mut pods: std::collections::BTreeMap<_, PodUsage> = std::collections::BTreeMap::new();
        for sample in self.samples() {
            let Some(usage) = sample.usage else { continue };
            let pod = pods.entry((sample.namespace.clone(), sample.pod.clone())).or_insert_with(|| PodUsage {
                namespace: sample.namespace.clone(),
                name: sample.pod.clone(),
                at: sample.at,
                window: sample.window,
                containers: Vec::new(),
            });
            pod.containers.push((sample.container.clone(), usage));
        }
        pods.into_values().collect()
    }

    fn series<'a>(&'a self, pods: &'a [Arc<str>], metric: &'a str) -> BoxFuture<'a, Vec<Result<PodSeries, String>>> {
        self.shared.series(pods, metric).boxed()
    }

    fn metric_names(&self) -> BTreeSet<String> {
        self.shared.scrapes.names()
    }
}

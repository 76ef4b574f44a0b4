//! One loop, many reconcilers: a queue of keys, one reconcile per key at a time, back-off per key.
//!
//! A reconciler looks at the level, not at the edge: it is told that something about a key may have changed, reads the
//! caches, plans (a pure function), and performs the plan with writes that may be repeated.

pub(crate) mod cron_job;
pub(crate) mod daemon_set;
pub(crate) mod deployment;
pub(crate) mod disruption;
pub(crate) mod endpoint_slice;
pub(crate) mod garbage_collector;
pub(crate) mod horizontal_pod_autoscaler;
pub(crate) mod job;
pub(crate) mod namespace;
pub(crate) mod node_lifecycle;
pub(crate) mod persistent_volume;
pub(crate) mod pod_garbage;
pub(crate) mod replica_set;
pub(crate) mod resource_quota;
pub(crate) mod service_account;
pub(crate) mod stateful_set;

mod claim;
mod fraction;
mod hash;
mod pod;
mod pod_control;
mod revision;
mod status;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, info_span, warn};

use crate::cache::{Cache, Change, Kind, ObjectKey};
use crate::clock::Clock;
use crate::context::Context;
use crate::{event, tasks};

pub(crate) use self::node_lifecycle::Timing as NodeTiming;

/// In whose name controllers write; Kubernetes' own write in the same, so that field managers stay when one takes over
/// from the other.
const FIELD_MANAGER: &str = "kube-controller-manager";

/// The first wait after a failed reconcile; it doubles with each failure in a row up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(5);

/// The longest wait after failures in a row. Kubernetes waits up to 1,000 s (client-go's default rate limiter); on one
/// machine somebody is looking.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// How many keys one controller reconciles at the same time.
const CONCURRENCY: usize = 16;

/// What follows a reconcile that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing until something changes.
    AwaitChange,
    /// The same key again after a while, or at its next change.
    RequeueAfter(Duration),
}

/// Why a reconcile failed; it is tried again after a back-off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// A request to the API server failed.
    #[error("failed to {operation}")]
    Request { operation: &'static str, source: kube::Error },
    /// The cache has not caught up with what was written.
    #[error("the cache is behind")]
    Behind,
    /// The object says something that cannot be acted on; an event told its owner.
    #[error("{0}")]
    Invalid(String),
}

impl ReconcileError {
    /// For `map_err`: names the operation that failed.
    pub(crate) fn request(operation: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Request { operation, source }
    }
}

/// One kind of controller.
pub(crate) trait Reconciler: Send + Sync + 'static {
    /// What a key names; an object, mostly.
    type Key: Clone + Eq + Hash + Display + Send + Sync + 'static;

    /// As it appears in logs: `deployment`, `endpointslice`.
    const NAME: &'static str;

    /// Says which changes concern which keys.
    fn watch(&self, triggers: &mut Triggers<Self::Key>);

    /// Brings the world one step nearer to what the object with this key says. Idempotent.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<Action, ReconcileError>> + Send;
}

/// The changes that wake a controller up.
pub(crate) struct Triggers<Key> {
    queue: mpsc::UnboundedSender<Key>,
    tasks: JoinSet<()>,
}

impl<Key: Send + 'static> Triggers<Key> {
    /// Each change of an object in `cache` concerns the keys that `keys` says. Both the old and the new state are asked,
    /// so that what an object has left is looked at as well.
    pub(crate) fn on<K: Kind>(&mut self, cache: &Cache<K>, keys: impl Fn(&K) -> Vec<Key> + Send + Sync + 'static) {
        self.on_change(cache, move |old, new| old.into_iter().chain(new).flat_map(&keys).collect());
    }

    /// The same for those who compare the old and the new state: only one of them is there when an object comes or goes.
    pub(crate) fn on_change<K: Kind>(
        &mut self,
        cache: &Cache<K>,
        keys: impl Fn(Option<&K>, Option<&K>) -> Vec<Key> + Send + Sync + 'static,
    ) {
        let mut changes = cache.subscribe();
        let cache = cache.clone();
        // Unbounded: keys are small, equal ones fall together in the queue, and a full queue must not hold up a watch.
        let queue = self.queue.clone();
        self.tasks.spawn(async move {
            let enqueue =
                |old: Option<&K>, new: Option<&K>| keys(old, new).into_iter().all(|key| queue.send(key).is_ok());
            let enqueue_all = || cache.list().iter().all(|object| enqueue(None, Some(object)));
            let mut open = enqueue_all();
            while open {
                open = match changes.recv().await {
                    Ok(Change::Applied { old, new }) => enqueue(old.as_deref(), Some(&new)),
                    Ok(Change::Deleted { old }) => enqueue(Some(&old), None),
                    Err(broadcast::error::RecvError::Lagged(_)) => enqueue_all(),
                    Err(broadcast::error::RecvError::Closed) => false,
                };
            }
        });
    }

    /// Each object in `cache` is a key itself.
    pub(crate) fn on_each<K: Kind>(&mut self, cache: &Cache<K>)
    where
        Key: From<ObjectKey>,
    {
        self.on(cache, |object| vec![ObjectKey::of(object).into()]);
    }

    /// Each object in `cache` when the clock was set: what waits for a time on it may be due.
    pub(crate) fn on_clock<K: Kind>(&mut self, clock: &Clock, cache: &Cache<K>)
    where
        Key: From<ObjectKey>,
    {
        let (mut set, cache, queue) = (clock.set_times(), cache.clone(), self.queue.clone());
        self.tasks.spawn(async move {
            while set.changed().await.is_ok() {
                for object in cache.list() {
                    if queue.send(ObjectKey::of(&*object).into()).is_err() {
                        return;
                    }
                }
            }
        });
    }

    /// Keys that somebody else finds out about.
    pub(crate) fn from(&mut self, mut keys: mpsc::UnboundedReceiver<Key>) {
        let queue = self.queue.clone();
        self.tasks.spawn(async move {
            while let Some(key) = keys.recv().await
                && queue.send(key).is_ok()
            {}
        });
    }

    /// `key` now, and again each `period`.
    pub(crate) fn every(&mut self, period: Duration, key: Key)
    where
        Key: Clone + Sync,
    {
        let queue = self.queue.clone();
        self.tasks.spawn(async move {
            let mut ticks = tokio::time::interval(period);
            while queue.send(key.clone()).is_ok() {
                ticks.tick().await;
            }
        });
    }
}

/// Where a key stands. Absent: nobody has asked for it.
enum Standing {
    /// A reconcile is under way; `again` when something changed meanwhile.
    Running { again: bool },
    /// To be reconciled at this time.
    Waiting { until: Instant },
}

/// Runs every controller until cancelled. The caches must be synced.
pub(crate) async fn run_all(context: Context, nodes: NodeTiming, cancel: CancellationToken) {
    let (recorder, events) =
        event::queue(context.client.clone(), context.clock.clone(), &context.lost, "controllermanager");
    let mut tasks = JoinSet::new();
    cron_job::start(&context, &recorder, &cancel, &mut tasks);
    daemon_set::start(&context, &recorder, &cancel, &mut tasks);
    endpoint_slice::start(&context, &cancel, &mut tasks);
    garbage_collector::start(&context, &cancel, &mut tasks);
    namespace::start(&context, &cancel, &mut tasks);
    persistent_volume::start(&context, &recorder, &cancel, &mut tasks);
    service_account::start(&context, &context.authority, &cancel, &mut tasks);
    deployment::start(&context, &recorder, &cancel, &mut tasks);
    spawn(disruption::DisruptionController::new(context.clone(), &recorder), &cancel, &mut tasks);
    let autoscaler = horizontal_pod_autoscaler::HorizontalPodAutoscalerController::new(context.clone(), &recorder);
    spawn(autoscaler, &cancel, &mut tasks);
    spawn(node_lifecycle::NodeLifecycleController::new(context.clone(), &recorder, nodes), &cancel, &mut tasks);
    spawn(pod_garbage::PodGarbageController::new(context.clone()), &cancel, &mut tasks);
    job::start(&context, &recorder, &cancel, &mut tasks);
    replica_set::start(&context, &recorder, &cancel, &mut tasks);
    resource_quota::start(&context, &cancel, &mut tasks);
    stateful_set::start(&context, &recorder, &cancel, &mut tasks);

    // The writer ends when the last controller has dropped its recorder and every event is written.
    drop(recorder);
    futures::future::join(tasks::supervise(&mut tasks), events.run()).await;
}

/// Starts one controller in a task of its own.
fn spawn<R: Reconciler>(reconciler: R, cancel: &CancellationToken, tasks: &mut JoinSet<()>) {
    tasks.spawn(run(Arc::new(reconciler), cancel.clone()));
}

/// Runs a controller until cancelled; a reconcile that is under way is finished. The caches must be synced.
pub(crate) async fn run<R: Reconciler>(reconciler: Arc<R>, cancel: CancellationToken) {
    let (queue, mut changed) = mpsc::unbounded_channel();
    let mut triggers = Triggers { queue, tasks: JoinSet::new() };
    reconciler.watch(&mut triggers);

    let mut standing: HashMap<R::Key, Standing> = HashMap::new();
    let mut failures: HashMap<R::Key, u32> = HashMap::new();
    // Keys that are ready but found no place yet.
    let mut ready: std::collections::VecDeque<R::Key> = std::collections::VecDeque::new();
    let mut timers = FuturesUnordered::new();
    let mut running = JoinSet::new();

    loop {
        while running.len() < CONCURRENCY
            && let Some(key) = ready.pop_front()
        {
            standing.insert(key.clone(), Standing::Running { again: false });
            let reconciler = Arc::clone(&reconciler);
            let span = info_span!("reconcile", controller = R::NAME, %key);
            running.spawn(
                async move {
                    let result = reconciler.reconcile(&key).await;
                    (key, result)
                }
                .instrument(span),
            );
        }
        // Every arm may be dropped half-way: receiving from a channel, a join set and a set of timers loses nothing.
        tokio::select! {
            () = cancel.cancelled() => break,
            Some(key) = changed.recv() => match standing.get_mut(&key) {
                Some(Standing::Running { again }) => *again = true,
                // A change is a reason to look before the time, but not to go round a back-off.
                Some(Standing::Waiting { .. }) if failures.contains_key(&key) => {}
                Some(Standing::Waiting { until }) if *until <= Instant::now() => {}
                _ => {
                    standing.insert(key.clone(), Standing::Waiting { until: Instant::now() });
                    ready.push_back(key);
                }
            },
            Some(key) = timers.next(), if !timers.is_empty() => {
                let key: R::Key = key;
                // A timer that was overtaken by a change means nothing any more.
                if let Some(Standing::Waiting { until }) = standing.get(&key)
                    && *until <= Instant::now()
                    && !ready.contains(&key)
                {
                    ready.push_back(key);
                }
            }
            Some(done) = running.join_next() => {
                let Some((key, result)) = tasks::result(done) else { continue };
                let again = matches!(standing.remove(&key), Some(Standing::Running { again: true }));
                let delay = match result {
                    Ok(action) => {
                        failures.remove(&key);
                        match action {
                            _ if again => Some(Duration::ZERO),
                            Action::AwaitChange => None,
                            Action::RequeueAfter(delay) => Some(delay),
                        }
                    }
                    Err(error) => {
                        let failed = failures.entry(key.clone()).or_default();
                        *failed += 1;
                        let delay = backoff(*failed);
                        report(R::NAME, &key, &error, *failed);
                        Some(delay)
                    }
                };
                match delay {
                    None => {}
                    Some(Duration::ZERO) => {
                        standing.insert(key.clone(), Standing::Waiting { until: Instant::now() });
                        ready.push_back(key);
                    }
                    Some(delay) => {
                        let until = Instant::now() + delay;
                        standing.insert(key.clone(), Standing::Waiting { until });
                        timers.push(async move {
                            tokio::time::sleep_until(until).await;
                            key
                        });
                    }
                }
            }
        }
    }
    running.join_all().await;
    triggers.tasks.shutdown().await;
}

fn backoff(failures: u32) -> Duration {
    MIN_BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MAX_BACKOFF)
}

/// A conflict is the usual way to learn that somebody else was quicker, so it is told in a low voice.
fn report(controller: &str, key: &impl Display, error: &ReconcileError, failures: u32) {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let expected = match error {
        // Refused: what an object needs, such as its service account, often comes after it, and an event says so.
        ReconcileError::Request { source: kube::Error::Api(status), .. } => matches!(status.code, 403 | 404 | 409),
        ReconcileError::Behind => true,
        _ => false,
    };
    if expected && failures < 5 {
        debug!(controller, %key, %error, source, "trying again");
    } else {
        warn!(controller, %key, %error, source, failures, "trying again");
    }
}

impl<Key> fmt::Debug for Triggers<Key> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Triggers").finish_non_exhaustive()
    }
}

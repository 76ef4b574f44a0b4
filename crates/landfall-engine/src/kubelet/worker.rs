//! The worker of one pod.

mod away;
mod report;
mod retry;
mod start;
mod stop;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::ResourceExt as _;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::retry::{RETRY, Retry};
use super::environment::Place;
use super::launch::{self, Refusal, tell};
use super::plan::{Standing, plan};
use super::probe::{self, News, Question, Target};
use super::status::Known;
use super::volumes::{Maker, VolumeError, Volumes};
use super::{Handle, Shared, pod_folder};
use crate::event::{EventType, Recorder};
use crate::network::Attachment;
use crate::runtime::{ContainerState, Records, Sandbox, latest};
use crate::scheme::quantity::Quantity;
use crate::tasks;

/// The least time that a container is given to end (the kubelet's `minimumGracePeriodInSeconds`).
const MIN_GRACE: Duration = Duration::from_secs(2);

/// How long nothing is said of what will mostly have changed again by then: a pod that is getting its place, a container whose
/// probes have not answered yet. A status is a write that everybody sees, and of those of a pod that starts it is every other one.
/// A kubelet looks at its containers once a second.
const SETTLE: Duration = Duration::from_millis(500);

/// How often files that come from objects and tokens are looked at when nothing seems to change.
const REFRESH: Duration = Duration::from_mins(1);

/// Runs a pod until it is gone, or until cancelled: the pod then runs on.
pub(super) async fn run(shared: Arc<Shared>, handle: Arc<Handle>, pod: Arc<Pod>, cancel: CancellationToken) {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let played = shared.nodes.get(&node);
    let boot = played.map(|node| node.boots.load(Ordering::Acquire)).unwrap_or_default();
    let host_ip = played.map(|node| node.spec.address.clone()).unwrap_or_default();
    // Unbounded: probers say little, and must not wait for a worker that waits for the API. Boxed: a channel has room for many
    // from the beginning, and hardly ever has one.
    let (tell, news) = mpsc::unbounded_channel();
    let mut recorder = shared.recorder.component("kubelet").host(&node);
    if let Some(played) = played {
        recorder = recorder.muted_by(Arc::clone(&played.away));
    }
    let worker = Worker {
        recorder,
        node,
        host_ip,
        known_by_api: pod,
        shared,
        handle,
        sandbox: None,
        ip: None,
        volumes: None,
        slots: BTreeMap::new(),
        jobs: JoinSet::new(),
        making: false,
        opening: false,
        retry: Retry::default(),
        written: None,
        ending: None,
        failed: None,
        gone: false,
        closed: false,
        heard_of: false,
        away: false,
        boot,
        next: None,
        begun: Instant::now(),
        refreshed: Instant::now(),
        tell,
    };
    // Moved once, and not into each of the futures that hold one another.
    Box::new(worker).work(news, cancel).await;
}

struct Worker {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
    recorder: Recorder,
    node: String,
    host_ip: String,
    /// The newest state that is known.
    known_by_api: Arc<Pod>,
    sandbox: Option<Arc<dyn Sandbox>>,
    ip: Option<String>,
    volumes: Option<Volumes>,
    slots: BTreeMap<String, Slot>,
    jobs: JoinSet<Done>,
    making: bool,
    opening: bool,
    retry: Retry,
    /// The digest of the status that was written last: there are many pods, and a status is large.
    written: Option<report::Digest>,
    ending: Option<Ending>,
    failed: Option<(String, String)>,
    /// The API has it no more.
    gone: bool,
    /// Its shim has ended, as nothing will run again.
    closed: bool,
    /// The node agent knew the pod before its node was last cut off.
    heard_of: bool,
    /// The node was not there when last looked at.
    away: bool,
    /// Since which of its starts the node has run the pod.
    boot: u64,
    /// When to look again although nothing has changed.
    next: Option<Instant>,
    /// Since when there is a worker.
    begun: Instant,
    refreshed: Instant,
    tell: mpsc::UnboundedSender<Box<Told>>,
}

/// What a prober has found out.
struct Told {
    container: String,
    /// Of the container that was asked: by the time this is heard, it may be another one.
    id: String,
    question: Question,
    news: News,
}

/// What the worker remembers of a container.
#[derive(Default)]
struct Slot {
    known: Known,
    busy: Option<Busy>,
    /// The container that the rest is about.
    id: String,
    probers: Vec<AbortHandle>,
    back_off: Option<Duration>,
    restarts_at: Option<Instant>,
    image_back_off: Option<(Duration, Instant)>,
    image_error: String,
    /// It must end, and why: a failed probe.
    doomed: Option<Question>,
    /// By when its first probe has mostly answered.
    answers_by: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    Starting,
    Stopping,
}

#[derive(Debug, Clone, Copy)]
struct Ending {
    since: Instant,
    grace: Duration,
}

/// What a job of a worker has come to.
enum Done {
    Opened(Result<(Arc<dyn Sandbox>, String), String>),
    Volumes(Result<Volumes, VolumeError>),
    Started(String, Result<(), Refusal>),
    Stopped(String, Result<(), String>),
    Probed,
}

impl Worker {
    async fn work(mut self: Box<Self>, mut news: mpsc::UnboundedReceiver<Box<Told>>, cancel: CancellationToken) {
        let mut pod = self.handle.pod.subscribe();
        let handle = Arc::clone(&self.handle);
        let mut records: Option<watch::Receiver<Records>> = None;
        loop {
            self.observe(pod.borrow_and_update().clone());
            self.next = None;
            // Boxed: what a step holds while it waits is many times what a worker has that waits for the next one.
            if !Box::pin(self.step()).await {
                break;
            }
            if records.is_none() {
                records = self.sandbox.as_ref().map(|sandbox| sandbox.records());
                if records.is_some() {
                    continue;
                }
            } else if self.sandbox.is_none() {
                records = None;
            }
            let next = self.next;
            // Channels, watches, join sets and timers lose nothing when dropped.
            tokio::select! {
                () = cancel.cancelled() => break,
                changed = pod.changed() => if changed.is_err() { break },
                Some(ended) = self.jobs.join_next() => if let Some(done) = tasks::result(ended) {
                    self.finish(done);
                },
                Some(told) = news.recv() => self.hear(*told),
                () = changed(&mut records) => {}
                () = handle.poke.notified() => self.refreshed = Instant::now().checked_sub(REFRESH).unwrap_or_else(Instant::now),
                () = until(next) => {}
            }
        }
        self.jobs.shutdown().await;
    }

    fn observe(&mut self, pod: Option<Arc<Pod>>) {
        match pod {
            _ if self.is_cut_off() => {}
            // Of one version, this is the copy that everybody shares.
            Some(pod) if version(&pod) >= version(&self.known_by_api) => self.known_by_api = pod,
            Some(_) => {}
            None => self.gone = true,
        }
    }

    /// Takes in what a write was answered with: it is there before the cache has it.
    fn answered(&mut self, mut pod: Pod) {
        if version(&pod) > version(&self.known_by_api) {
            pod.metadata.managed_fields = None;
            self.observe(Some(Arc::new(pod)));
        }
    }

    /// Does what can be done now, and starts what takes time. False: nothing is left to do, ever.
    async fn step(&mut self) -> bool {
        if !self.node_acts().await {
            return true;
        }
        let pod = Arc::clone(&self.known_by_api);
        let Some(spec) = pod.spec.as_ref() else { return true };
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let terminal = matches!(phase, Some("Succeeded" | "Failed"));
        self.begin_ending(&pod, spec, terminal);
        if self.sandbox.is_none() && !self.closed && !self.open(&pod) {
            // Of one that ran before nothing is known yet; what the API says of it stays until then.
            if !has_run(&pod) && !self.waits(Some(self.begun + SETTLE).filter(|_| self.retry.wait.is_none())) {
                self.write(&pod, false).await;
            }
            return true;
        }
        let records = self.sandbox.as_ref().map(|sandbox| sandbox.records().borrow().clone()).unwrap_or_default();
        self.follow(&pod, spec, &records);
        let busy = self.slots.values().any(|slot| slot.busy.is_some());
        let plan = plan(spec, self.ending.is_some() || terminal, |name| self.standing(&records, name));
        let over = (plan.over && !busy) || self.closed;
        if !over {
            if self.ending.is_none() {
                self.volumes(&pod);
            }
            for name in &plan.stop {
                self.stop(&pod, &records, name, None);
            }
            let doomed: Vec<_> =
                self.slots.iter().filter_map(|(name, slot)| Some((name.clone(), slot.doomed?))).collect();
            for (name, question) in doomed {
                self.stop(&pod, &records, &name, Some(question));
            }
            if self.volumes.is_some() && self.ending.is_none() {
                for name in &plan.start {
                    self.start(&pod, spec, &records, name);
                }
            }
        }
        let answers_by = self.slots.values().filter_map(|slot| slot.answers_by).max();
        if !over && self.ending.is_none() && self.waits(answers_by) {
            return true;
        }
        let written = self.write(&pod, over).await;
        if !over {
            return true;
        }
        if !self.closed {
            // Nothing may write files for the pod any more.
            self.jobs.shutdown().await;
            if let Some(sandbox) = &self.sandbox {
                sandbox.close().await;
            }
            self.closed = true;
        }
        let deleted = pod.metadata.deletion_timestamp.is_some();
        if self.gone || (deleted && written && self.delete(&pod).await) {
            self.remove().await;
            return false;
        }
        if deleted {
            self.wake(Instant::now() + RETRY);
        }
        true
    }

    fn begin_ending(&mut self, pod: &Pod, spec: &PodSpec, terminal: bool) {
        let seconds =
            |seconds: Option<i64>| Duration::from_secs(seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(30));
        if pod.metadata.deletion_timestamp.is_some() || self.gone || terminal {
            let grace = if self.gone {
                MIN_GRACE
            } else {
                seconds(pod.metadata.deletion_grace_period_seconds.or(spec.termination_grace_period_seconds))
            };
            match &mut self.ending {
                None => self.ending = Some(Ending { since: Instant::now(), grace }),
                // It may be shortened while it runs.
                Some(ending) if grace < ending.grace => {
                    ending.grace = grace;
                    let left = (ending.since + grace).saturating_duration_since(Instant::now()).max(MIN_GRACE);
                    self.hasten(left);
                }
                Some(_) => {}
            }
            return;
        }
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let deadline = spec.active_deadline_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        if let (Some(started), Some(deadline), None) = (started, deadline, &self.ending) {
            let age = Duration::try_from(Timestamp::now().duration_since(started.0)).unwrap_or_default();
            let left = Duration::from_secs(deadline).saturating_sub(age);
            if left.is_zero() {
                let (reason, message) =
                    ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline");
                self.recorder.normal(pod, reason, message);
                self.failed = Some((reason.to_owned(), message.to_owned()));
                let grace = seconds(spec.termination_grace_period_seconds);
                self.ending = Some(Ending { since: Instant::now(), grace });
            } else {
                self.wake(Instant::now() + left);
            }
        }
    }

    /// Containers that are being stopped get less time than they were promised.
    fn hasten(&mut self, left: Duration) {
        let Some(sandbox) = &self.sandbox else { return };
        for (name, slot) in &self.slots {
            if slot.busy == Some(Busy::Stopping) {
                let (sandbox, id, name) = (Arc::clone(sandbox), slot.id.clone(), name.clone());
                self.jobs.spawn(async move {
                    let stopped = sandbox.stop(&id, "SIGTERM", left).await;
                    Done::Stopped(name, stopped.map_err(|error| error.to_string()))
                });
            }
        }
    }

    /// Whether there is a sandbox; if not, and one is needed, it is being opened.
    fn open(&mut self, pod: &Arc<Pod>) -> bool {
        if self.opening || self.retry.waits() {
            if let Some(at) = self.retry.at {
                self.wake(at);
            }
            return false;
        }
        self.opening = true;
        let (shared, pod, host_ip) = (Arc::clone(&self.shared), Arc::clone(pod), self.host_ip.clone());
        self.jobs.spawn(async move {
            let uid = pod.uid().unwrap_or_default();
            let attachment = if pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
                let ip = host_ip.parse().map_err(|error| format!("the node's address {host_ip}: {error}"));
                ip.map(|ip| Attachment { ip, netns: None, resolv_conf: None })
            } else {
                shared.attach(&uid, &pod).await
            };
            let opened = async {
                let attachment = attachment?;
                let mut sandbox = super::sandbox(&pod, &attachment);
                let names = shared.network.introduce(&sandbox);
                sandbox.names = names.map_err(|error| format!("failed to write the hosts file of the pod: {error}"))?;
                let sandbox = shared.runtime.open(sandbox).await;
                Ok((sandbox.map_err(|error| error.to_string())?, attachment.ip.to_string()))
            };
            Done::Opened(opened.await)
        });
        false
    }

    fn volumes(&mut self, pod: &Arc<Pod>) {
        // What they show comes from the API.
        if self.away {
            return;
        }
        let due = self.volumes.is_none() || self.refreshed.elapsed() >= REFRESH;
        self.wake(self.refreshed + REFRESH);
        if self.making || !due {
            return;
        }
        if self.retry.waits() {
            if let Some(at) = self.retry.at {
                self.wake(at);
            }
            return;
        }
        self.making = true;
        self.refreshed = Instant::now();
        let (shared, pod, place) = (Arc::clone(&self.shared), Arc::clone(pod), self.place());
        self.jobs.spawn(async move {
            let uid = pod.uid().unwrap_or_default();
            let folder = pod_folder(&shared, &uid);
            let maker = Maker {
                context: &shared.context,
                pod: &pod,
                place: &place,
                folder: &folder,
                run: &shared.runtime.run_directory(&uid),
                persistent: &shared.persistent,
            };
            Done::Volumes(maker.make().await)
        });
    }

    fn place(&self) -> Place {
        let spec = self.shared.nodes.get(&self.node).map(|node| &node.spec);
        Place {
            pod_ip: self.ip.clone().unwrap_or_default(),
            host_ip: self.host_ip.clone(),
            node_cpu: spec.and_then(|spec| Quantity::parse(&spec.cpu)).map(Quantity::millis).unwrap_or_default(),
            node_memory: spec.and_then(|spec| Quantity::parse(&spec.memory)).map(Quantity::units).unwrap_or_default(),
        }
    }

    fn standing(&self, records: &Records, name: &str) -> Standing {
        let Some(record) = latest(records, name) else {
            return match self.ended_before(name) {
                Some(code) => Standing::Exited { code, earlier: true },
                None => Standing::New,
            };
        };
        match &record.state {
            ContainerState::Running { .. } => {
                let slot = self.slots.get(name);
                Standing::Running { started: slot.is_some_and(|slot| slot.known.started) }
            }
            ContainerState::Exited(exit) => Standing::Exited { code: exit.code, earlier: record.earlier },
        }
    }

    /// What the API says of a container of which no record is left.
    fn ended_before(&self, name: &str) -> Option<i32> {
        let status = self.known_by_api.status.as_ref()?;
        let mut all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let state = all.find(|status| status.name == name)?.state.as_ref()?;
        state.terminated.as_ref().map(|ended| ended.exit_code)
    }

    /// Notices containers that have started or ended.
    fn follow(&mut self, pod: &Arc<Pod>, spec: &PodSpec, records: &Records) {
        let Some(sandbox) = self.sandbox.clone() else { return };
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            let Some(record) = latest(records, &container.name) else { continue };
            let slot = self.slots.entry(container.name.clone()).or_default();
            match &record.state {
                ContainerState::Running { started_at, .. } => {
                    if slot.id != record.id {
                        // Found after a restart of the agent: it has not changed because we have.
                        let statuses = pod.status.iter().flat_map(|status| {
                            status.container_statuses.iter().chain(&status.init_container_statuses).flatten()
                        });
                        let id = super::status::container_id(&record.id);
                        let before = statuses.into_iter().find(|status| status.container_id.as_ref() == Some(&id));
                        slot.id.clone_from(&record.id);
                        slot.known.started = before.is_some_and(|status| status.started == Some(true));
                        slot.known.ready = before.is_some_and(|status| status.ready);
                        slot.known.image_id = launch::image_id(container.image.as_deref().unwrap_or_default());
                        slot.doomed = None;
                    }
                    if slot.known.starting || slot.busy == Some(Busy::Stopping) {
                        continue;
                    }
                    slot.known.waiting = None;
                    if container.startup_probe.is_none() {
                        slot.known.started = true;
                    }
                    if slot.known.started && container.readiness_probe.is_none() {
                        slot.known.ready = true;
                    }
                    let age = Duration::try_from(Timestamp::now().duration_since(*started_at)).unwrap_or_default();
                    let since = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
                    let questions: &[Question] = if slot.known.started {
                        &[Question::Liveness, Question::Readiness]
                    } else {
                        &[Question::Startup]
                    };
                    // One prober each; the startup prober makes room for the others.
                    if slot.probers.is_empty() {
                        for question in questions.iter().copied().filter(|question| question.of(container).is_some()) {
                            let target = Target {
                                sandbox: Arc::clone(&sandbox),
                                id: record.id.clone(),
                                pod_ip: self.ip.clone().unwrap_or_default(),
                                container: container.clone(),
                                dialer: self.shared.network.node_dialer(),
                            };
                            let (tell, container, id) = (self.tell.clone(), container.name.clone(), record.id.clone());
                            slot.probers.push(self.jobs.spawn(async move {
                                probe::ask(question, target, since, |news| {
                                    let (container, id) = (container.clone(), id.clone());
                                    // The worker that does not listen has ended.
                                    let _ = tell.send(Box::new(Told { container, id, question, news }));
                                })
                                .await;
                                Done::Probed
                            }));
                        }
                    }
                }
                // The one before, while the next is being started.
                ContainerState::Exited(_) if slot.busy == Some(Busy::Starting) && slot.id != record.id => {}
                ContainerState::Exited(_) => {
                    slot.stop_probing();
                    slot.known.started = false;
                    slot.known.ready = false;
                    slot.doomed = None;
                    slot.answers_by = None;
                    slot.id.clone_from(&record.id);
                }
            }
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Opened(result) => {
                self.opening = false;
                match result {
                    Ok((sandbox, ip)) => {
                        self.retry = Retry::default();
                        *self.handle.sandbox.write().unwrap_or_else(std::sync::PoisonError::into_inner) =
                            Some(Arc::clone(&sandbox));
                        self.sandbox = Some(sandbox);
                        self.ip = Some(ip);
                    }
                    Err(error) => {
                        self.retry.fail();
                        let text = format!("Failed to create pod sandbox: {error}");
                        self.recorder.warning(&*self.known_by_api, "FailedCreatePodSandBox", text);
                    }
                }
            }
            Done::Volumes(result) => {
                self.making = false;
                match result {
                    Ok(volumes) => {
                        self.retry = Retry::default();
                        self.volumes = Some(volumes);
                    }
                    Err(error) => {
                        self.retry.fail();
                        self.recorder.warning(&*self.known_by_api, "FailedMount", error.message);
                    }
                }
            }
            Done::Started(name, result) => {
                let container = self.known_by_api.spec.as_ref().and_then(|spec| start::find(spec, &name));
                let is_probed = container.is_some_and(|(container, _)| {
                    container.startup_probe.is_some() || container.readiness_probe.is_some()
                });
                let slot = self.slots.entry(name).or_default();
                // It may be being stopped already.
                slot.busy = slot.busy.filter(|busy| *busy != Busy::Starting);
                slot.known.starting = false;
                match result {
                    Ok(()) => {
                        slot.image_back_off = None;
                        slot.answers_by = Some(Instant::now() + SETTLE).filter(|_| is_probed);
                    }
                    Err(refusal) => {
                        let records = self.sandbox.as_ref().map(|sandbox| sandbox.records().borrow().clone());
                        let is_recorded = records.is_some_and(|all| all.iter().any(|record| record.id == slot.id));
                        let wait = if refusal.reason == "ErrImagePull" {
                            let wait = slot.image_back_off.map_or(self.shared.back_off.first, |(wait, _)| {
                                (wait * 2).min(self.shared.back_off.most)
                            });
                            slot.image_back_off = Some((wait, Instant::now() + wait));
                            slot.image_error.clone_from(&refusal.message);
                            wait
                        } else if is_recorded {
                            // As with any container that has ended.
                            Duration::ZERO
                        } else {
                            // The kubelet looks again at its next round.
                            slot.restarts_at = Some(Instant::now() + self.shared.back_off.first);
                            self.shared.back_off.first
                        };
                        slot.known.waiting = Some((refusal.reason.to_owned(), refusal.message));
                        self.wake(Instant::now() + wait);
                    }
                }
            }
            Done::Stopped(name, result) => {
                let slot = self.slots.entry(name.clone()).or_default();
                if let Err(error) = result {
                    warn!(container = name, error, "the container cannot be stopped, trying again");
                    // Its shim is gone: a new one ends what is left and says so.
                    self.sandbox = None;
                }
                slot.busy = None;
            }
            Done::Probed => {}
        }
    }

    fn hear(&mut self, Told { container, id, question, news }: Told) {
        let name = container.as_str();
        let pod = Arc::clone(&self.known_by_api);
        let is_init = !pod.spec.iter().flat_map(|spec| &spec.containers).any(|container| container.name == name);
        let Some(slot) = self.slots.get_mut(name) else { return };
        if slot.probers.is_empty() || slot.id != id {
            return;
        }
        slot.answers_by = None;
        match (question, news) {
            (_, News::Failed(why)) => {
                let text = format!("{} probe failed: {why}", question.name());
                tell(&self.recorder, &pod, name, is_init, EventType::Warning, "Unhealthy", &text);
            }
            (Question::Startup, News::Is(true)) => {
                slot.known.started = true;
                slot.stop_probing();
            }
            (Question::Readiness, News::Is(ready)) => slot.known.ready = ready,
            (Question::Startup | Question::Liveness, News::Is(false)) => slot.doomed = Some(question),
            (Question::Liveness, News::Is(true)) => {}
        }
    }

    /// Whether this is still to come; the worker looks again then.
    fn waits(&mut self, until: Option<Instant>) -> bool {
        let until = until.filter(|until| *until > Instant::now());
        if let Some(until) = until {
            self.wake(until);
        }
        until.is_some()
    }

    fn wake(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

impl Slot {
    fn stop_probing(&mut self) {
        for prober in self.probers.drain(..) {
            prober.abort();
        }
    }
}

fn version(pod: &Pod) -> Option<u64> {
    pod.metadata.resource_version.as_ref()?.parse().ok()
}

/// Whether the API knows of a container of the pod that was started.
fn has_run(pod: &Pod) -> bool {
    let statuses = pod.status.iter();
    let mut all =
        statuses.flat_map(|status| status.container_statuses.iter().chain(&status.init_container_statuses).flatten());
    all.any(|status| status.container_id.is_some())
}

async fn changed(records: &mut Option<watch::Receiver<Records>>) {
    match records {
        Some(records) => {
            if records.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

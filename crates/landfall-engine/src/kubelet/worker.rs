//! The worker of one pod.

mod report;
mod retry;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use kube::ResourceExt as _;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::retry::{RETRY, Retry, go_duration};
use super::environment::Place;
use super::launch::{self, Launch, Refusal, run_hook, tell};
use super::node::NodeFault;
use super::plan::{Standing, is_sidecar, plan};
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

/// How often files that come from objects and tokens are looked at when nothing seems to change.
const REFRESH: Duration = Duration::from_mins(1);

/// Runs a pod until it is gone, or until cancelled: the pod then runs on.
pub(super) async fn run(shared: Arc<Shared>, handle: Arc<Handle>, pod: Arc<Pod>, cancel: CancellationToken) {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let host_ip = shared.nodes.get(&node).map(|node| node.spec.address.clone()).unwrap_or_default();
    // Unbounded: probers say little, and must not wait for a worker that waits for the API.
    let (tell, news) = mpsc::unbounded_channel();
    let recorder = shared.recorder.component("kubelet").host(&node);
    Worker {
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
        next: None,
        refreshed: Instant::now(),
        tell,
    }
    .work(news, cancel)
    .await;
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
    written: Option<PodStatus>,
    ending: Option<Ending>,
    failed: Option<(String, String)>,
    /// The API has it no more.
    gone: bool,
    /// Its shim has ended, as nothing will run again.
    closed: bool,
    /// When to look again although nothing has changed.
    next: Option<Instant>,
    refreshed: Instant,
    tell: mpsc::UnboundedSender<(String, Question, News)>,
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
    hook_done: bool,
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
    async fn work(mut self, mut news: mpsc::UnboundedReceiver<(String, Question, News)>, cancel: CancellationToken) {
        let mut pod = self.handle.pod.subscribe();
        let handle = Arc::clone(&self.handle);
        let mut records: Option<watch::Receiver<Records>> = None;
        loop {
            self.observe(pod.borrow_and_update().clone());
            self.next = None;
            if !self.step().await {
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
                Some((container, question, news)) = news.recv() => self.hear(&container, question, news),
                () = changed(&mut records) => {}
                () = handle.poke.notified() => self.refreshed = Instant::now().checked_sub(REFRESH).unwrap_or_else(Instant::now),
                () = until(next) => {}
            }
        }
        self.jobs.shutdown().await;
    }

    fn observe(&mut self, pod: Option<Arc<Pod>>) {
        match pod {
            Some(pod) => {
                let version = |pod: &Pod| pod.resource_version().and_then(|version| version.parse::<u64>().ok());
                if version(&pod) >= version(&self.known_by_api) {
                    self.known_by_api = pod;
                }
            }
            None => self.gone = true,
        }
    }

    /// Does what can be done now, and starts what takes time. False: nothing is left to do, ever.
    async fn step(&mut self) -> bool {
        match self.shared.fault(&self.node) {
            // It hears nothing and says nothing.
            NodeFault::Cut => return true,
            NodeFault::Killed => {
                self.power_off().await;
                return true;
            }
            NodeFault::None => {}
        }
        let pod = Arc::clone(&self.known_by_api);
        let Some(spec) = pod.spec.as_ref() else { return true };
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let terminal = matches!(phase, Some("Succeeded" | "Failed"));
        self.begin_ending(&pod, spec, terminal);
        if self.sandbox.is_none() && !self.closed && !self.open(&pod) {
            self.write(&pod, false).await;
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
        let written = self.write(&pod, over).await;
        if !over {
            return true;
        }
        if !self.closed {
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
                shared.network.attach(&uid, &pod.namespace().unwrap_or_default()).await
            };
            let opened = async {
                let attachment = attachment?;
                let sandbox = shared.runtime.open(super::sandbox(&pod, &attachment)).await;
                Ok((sandbox.map_err(|error| error.to_string())?, attachment.ip.to_string()))
            };
            Done::Opened(opened.await)
        });
        false
    }

    fn volumes(&mut self, pod: &Arc<Pod>) {
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
            let folder = pod_folder(&shared, &pod.uid().unwrap_or_default());
            let maker = Maker {
                context: &shared.context,
                pod: &pod,
                place: &place,
                folder: &folder,
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
        match latest(records, name).map(|record| &record.state) {
            None => match self.ended_before(name) {
                Some(code) => Standing::Exited { code },
                None => Standing::New,
            },
            Some(ContainerState::Running { .. }) => {
                let slot = self.slots.get(name);
                Standing::Running { started: slot.is_some_and(|slot| slot.known.started) }
            }
            Some(ContainerState::Exited(exit)) => Standing::Exited { code: exit.code },
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
                        slot.hook_done = true;
                        slot.known.started = before.is_some_and(|status| status.started == Some(true));
                        slot.known.ready = before.is_some_and(|status| status.ready);
                        slot.known.image_id = launch::image_id(container.image.as_deref().unwrap_or_default());
                        slot.doomed = None;
                    }
                    slot.known.waiting = None;
                    if !slot.hook_done || slot.busy == Some(Busy::Stopping) {
                        continue;
                    }
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
                                dialer: self.shared.network.dialer(),
                            };
                            let (tell, name) = (self.tell.clone(), container.name.clone());
                            slot.probers.push(self.jobs.spawn(async move {
                                probe::ask(question, target, since, |news| {
                                    // The worker that does not listen has ended.
                                    let _ = tell.send((name.clone(), question, news));
                                })
                                .await;
                                Done::Probed
                            }));
                        }
                    }
                }
                ContainerState::Exited(_) => {
                    slot.stop_probing();
                    slot.known.started = false;
                    slot.known.ready = false;
                    slot.doomed = None;
                    slot.id.clone_from(&record.id);
                }
            }
        }
    }

    fn start(&mut self, pod: &Arc<Pod>, spec: &PodSpec, records: &Records, name: &str) {
        let init = spec.init_containers.iter().flatten();
        let Some(container) = spec.containers.iter().chain(init).find(|container| container.name == name) else {
            return;
        };
        let is_init = !spec.containers.iter().any(|container| container.name == name);
        let Some(sandbox) = self.sandbox.clone() else { return };
        let (back_off, place) = (self.shared.back_off, self.place());
        let slot = self.slots.entry(name.to_owned()).or_default();
        if slot.busy.is_some() {
            return;
        }
        let now = Instant::now();
        let record = latest(records, name);
        if let Some((wait, until)) = slot.image_back_off
            && until > now
        {
            let image = container.image.as_deref().unwrap_or_default();
            let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {}", slot.image_error);
            if slot.known.waiting.as_ref().is_some_and(|(reason, _)| reason == "ErrImagePull")
                && until - now < wait.saturating_sub(RETRY)
            {
                tell(
                    &self.recorder,
                    pod,
                    name,
                    is_init,
                    EventType::Normal,
                    "BackOff",
                    &format!("Back-off pulling image \"{image}\""),
                );
                tell(&self.recorder, pod, name, is_init, EventType::Warning, "Failed", "Error: ImagePullBackOff");
                slot.known.waiting = Some(("ImagePullBackOff".to_owned(), message));
            }
            // Told as an error for a moment first, as Kubernetes does.
            let wake = if slot.known.waiting.as_ref().is_some_and(|(reason, _)| reason == "ErrImagePull") {
                now + RETRY + RETRY
            } else {
                until
            };
            self.wake(wake.min(until));
            return;
        }
        if let Some(exit) = record.and_then(|record| record.exit()) {
            let since = Duration::try_from(Timestamp::now().duration_since(exit.finished_at)).unwrap_or_default();
            let ran = Duration::try_from(exit.finished_at.duration_since(exit.started_at)).unwrap_or_default();
            if ran >= back_off.most * 2 {
                slot.back_off = None;
            }
            if slot.restarts_at.is_none() {
                slot.restarts_at = Some(now + slot.back_off.unwrap_or_default().saturating_sub(since));
            }
            if let (Some(at), Some(wait)) = (slot.restarts_at.filter(|at| *at > now), slot.back_off) {
                if slot.known.waiting.as_ref().is_none_or(|(reason, _)| reason != "CrashLoopBackOff") {
                    let full = format!(
                        "{}_{}({})",
                        pod.name_any(),
                        pod.namespace().unwrap_or_default(),
                        pod.uid().unwrap_or_default()
                    );
                    let text = format!("Back-off restarting failed container {name} in pod {full}");
                    tell(&self.recorder, pod, name, is_init, EventType::Warning, "BackOff", &text);
                    let text = format!("back-off {} restarting failed container={name} pod={full}", go_duration(wait));
                    slot.known.waiting = Some(("CrashLoopBackOff".to_owned(), text));
                }
                self.wake(at);
                return;
            }
            slot.back_off = Some(slot.back_off.map_or(back_off.first, |wait| (wait * 2).min(back_off.most)));
        } else if slot.restarts_at.is_some_and(|at| at > now) {
            // It could not be started for another reason.
            if let Some(at) = slot.restarts_at {
                self.wake(at);
            }
            return;
        }
        slot.restarts_at = None;
        slot.busy = Some(Busy::Starting);
        let before = self.known_by_api.status.as_ref().and_then(|status| {
            let mut all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
            all.find(|status| status.name == name && status.container_id.is_some())
                .map(|status| status.restart_count + 1)
        });
        let attempt = record.map(|record| record.attempt + 1).or(before.and_then(|count| u32::try_from(count).ok()));
        slot.id = uuid::Uuid::new_v4().simple().to_string();
        slot.hook_done = false;
        slot.stop_probing();
        slot.doomed = None;
        slot.known = Known {
            waiting: slot.known.waiting.take(),
            image_id: launch::image_id(container.image.as_deref().unwrap_or_default()),
            ..Known::default()
        };
        let launch = Launch {
            shared: Arc::clone(&self.shared),
            recorder: self.recorder.clone(),
            pod: Arc::clone(pod),
            container: container.clone(),
            is_init,
            sandbox,
            volumes: self.volumes.clone().unwrap_or_default(),
            place,
            attempt: attempt.unwrap_or_default(),
            id: slot.id.clone(),
        };
        let name = name.to_owned();
        self.jobs.spawn(async move {
            let started = match launch.image() {
                Ok(entry) => launch.run(entry).await,
                Err(refusal) => Err(refusal),
            };
            Done::Started(name, started)
        });
    }

    fn stop(&mut self, pod: &Arc<Pod>, records: &Records, name: &str, question: Option<Question>) {
        let Some(sandbox) = self.sandbox.clone() else { return };
        let Some(record) = latest(records, name).filter(|record| record.is_running()) else { return };
        let spec = pod.spec.clone().unwrap_or_default();
        let init = spec.init_containers.iter().flatten();
        let Some(container) = spec.containers.iter().chain(init).find(|container| container.name == name).cloned()
        else {
            return;
        };
        let is_init = !spec.containers.iter().any(|container| container.name == name);
        let ending = self.ending;
        let slot = self.slots.entry(name.to_owned()).or_default();
        if slot.busy == Some(Busy::Stopping) {
            return;
        }
        slot.busy = Some(Busy::Stopping);
        slot.stop_probing();
        slot.known.ready = slot.known.ready && question.is_none();
        let grace = grace(&spec, &container, question, ending);
        let text = match question {
            None => format!("Stopping container {name}"),
            Some(question) => {
                let probe = question.name().to_lowercase();
                format!("Container {name} failed {probe} probe, will be restarted")
            }
        };
        tell(&self.recorder, pod, name, is_init, EventType::Normal, "Killing", &text);
        let target = Target {
            sandbox: Arc::clone(&sandbox),
            id: record.id.clone(),
            pod_ip: self.ip.clone().unwrap_or_default(),
            container: container.clone(),
            dialer: self.shared.network.dialer(),
        };
        let lifecycle = container.lifecycle.as_ref();
        let signal = lifecycle.and_then(|lifecycle| lifecycle.stop_signal.clone()).or_else(|| {
            let images = self.shared.images.load();
            images.find(container.image.as_deref().unwrap_or_default())?.stop_signal.clone()
        });
        let signal = signal.unwrap_or_else(|| "SIGTERM".to_owned());
        let hook = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.clone());
        let (recorder, pod, id, name) = (self.recorder.clone(), Arc::clone(pod), record.id.clone(), name.to_owned());
        let mut records = sandbox.records();
        self.jobs.spawn(async move {
            let begun = Instant::now();
            if let Some(hook) = hook.filter(|_| !grace.is_zero()) {
                let ended = records.wait_for(|records| records.iter().any(|record| record.id == id && !record.is_running()));
                tokio::select! {
                    result = tokio::time::timeout(grace, run_hook(&hook, &target)) => if let Ok(Err(error)) = result {
                        info!(container = name, %error, "the preStop hook failed");
                        tell(&recorder, &pod, &name, is_init, EventType::Warning, "FailedPreStopHook", "PreStopHook failed");
                    },
                    _ = ended => {}
                }
            }
            let left = grace.saturating_sub(begun.elapsed()).max(MIN_GRACE);
            let stopped = sandbox.stop(&id, &signal, left).await;
            Done::Stopped(name, stopped.map_err(|error| error.to_string()))
        });
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
                let slot = self.slots.entry(name).or_default();
                slot.busy = None;
                slot.hook_done = true;
                match result {
                    Ok(()) => slot.image_back_off = None,
                    Err(refusal) => {
                        let wait = if refusal.reason == "ErrImagePull" {
                            let wait = slot.image_back_off.map_or(self.shared.back_off.first, |(wait, _)| {
                                (wait * 2).min(self.shared.back_off.most)
                            });
                            slot.image_back_off = Some((wait, Instant::now() + wait));
                            slot.image_error.clone_from(&refusal.message);
                            wait
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

    fn hear(&mut self, name: &str, question: Question, news: News) {
        let pod = Arc::clone(&self.known_by_api);
        let is_init = !pod.spec.iter().flat_map(|spec| &spec.containers).any(|container| container.name == name);
        let Some(slot) = self.slots.get_mut(name) else { return };
        if slot.probers.is_empty() {
            return;
        }
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

    /// The machine of this node is off: everything is dead, nobody says so.
    async fn power_off(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            sandbox.close().await;
        }
        for slot in self.slots.values_mut() {
            slot.stop_probing();
        }
        self.jobs.abort_all();
        while self.jobs.join_next().await.is_some() {}
        self.slots.clear();
        self.opening = false;
        self.making = false;
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

/// How long a container may take to end.
fn grace(spec: &PodSpec, container: &Container, question: Option<Question>, ending: Option<Ending>) -> Duration {
    if let Some(ending) = ending {
        return (ending.since + ending.grace).saturating_duration_since(Instant::now());
    }
    let own = question.and_then(|question| question.of(container)?.termination_grace_period_seconds);
    let seconds = own.or(spec.termination_grace_period_seconds).and_then(|seconds| u64::try_from(seconds).ok());
    // A sidecar that is no longer needed gets what the pod gets.
    Duration::from_secs(seconds.unwrap_or(30)).max(if is_sidecar(container) { MIN_GRACE } else { Duration::ZERO })
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

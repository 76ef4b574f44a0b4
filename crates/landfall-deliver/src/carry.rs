//! Carries a release to its end: looks at the cluster, asks the state machine, writes down what follows, and does it.
//!
//! The phase and its effects are written before the first of them is done, by compare-and-swap: whoever is stopped anywhere can be
//! followed by somebody else on another machine, who does the effects again and goes on.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::analysis::{Analysis, Work};
use crate::audit::{Action, AuditLog, Author, Fact};
use crate::cluster::courier::Courier;
use crate::cluster::figures::Counters;
use crate::cluster::lock::{Lock, LockError};
use crate::cluster::perform::{PerformError, keep_room, perform};
use crate::cluster::{ClusterError, During as _, MANAGER, if_there, route_resource, workload};
use crate::gate::{self, Standing};
use crate::metric::Sample;
use crate::notify::{self, Notice};
use crate::observe::{Seen, Workload, allowed_seconds, observe};
use crate::plan::{CanaryPlan, Strategy, Track};
use crate::release::{REQUEST, Release, ReleaseSpec, ReleaseStatus, ServiceRelease, Window};
use crate::rollout::{Event, Phase, Return, Stage};
use crate::{admission, begin};

/// How often the cluster is looked at.
const TICK: Duration = Duration::from_millis(500);

/// How long it is waited between two looks at gates.
const GATES: Duration = Duration::from_secs(1);

/// How often what is only for people is written: nobody who goes on with the release needs it.
const WORDS: Duration = Duration::from_secs(2);

/// How long a cluster may give no answer before it is given up.
const PATIENCE: Duration = Duration::from_mins(2);

/// Why a release was not carried to its end. It can be carried on.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// Somebody else has the lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The cluster refuses, or does not answer for long.
    #[error(transparent)]
    Perform(#[from] PerformError),
    /// Somebody has written down that it is under way, or what it brings, past its gates.
    #[error("release `{name}` is not what was let through: {why}; look who wrote it, and delete it")]
    NotLetThrough {
        /// The release.
        name: String,
        /// What does not fit.
        why: String,
    },
}

impl From<ClusterError> for CarryError {
    fn from(error: ClusterError) -> Self {
        Self::Perform(PerformError::Cluster(error))
    }
}

impl CarryError {
    fn may_pass(&self) -> bool {
        match self {
            // What a release brings is admitted before it is brought, and an API server knows a policy's list a moment later.
            Self::Perform(PerformError::Cluster(error)) if error.says(admission::REFUSAL) => true,
            Self::Perform(PerformError::Cluster(error)) | Self::Lock(LockError::Cluster(error)) => error.may_pass(),
            // Until somebody else has it, it may be renewed.
            Self::Lock(LockError::NotRenewed) => true,
            Self::Lock(LockError::Held { .. }) => false,
            // Something may be put back by whoever took it away.
            Self::Perform(PerformError::Missing(_)) => true,
            Self::NotLetThrough { .. } => false,
        }
    }
}

/// What a person wants of a release that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// It goes no further.
    Abort,
    /// It is taken back.
    RollBack,
}

/// Tells whoever carries the release what a person wants.
pub async fn demand(client: &Client, release: &Release, demand: Demand, author: &Author) -> Result<(), ClusterError> {
    let word = match demand {
        Demand::Abort => "abort",
        Demand::RollBack => "rollback",
    };
    let (namespace, name) = (release.namespace().unwrap_or_default(), release.name_any());
    author
        .write(Fact {
            action: Action::Demand,
            subject: name.clone(),
            digest: Some(release.spec.digest.clone()),
            says: word.to_owned(),
            evidence: Vec::new(),
        })
        .await?;
    let api = Api::<Release>::namespaced(client.clone(), &namespace);
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { REQUEST: word } } }));
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    api.patch(&name, &parameters, &patch).await.during(|| format!("change the release `{name}`")).map(drop)
}

/// The release of that name.
pub async fn read(client: &Client, namespace: &str, name: &str) -> Result<Option<Release>, ClusterError> {
    let found = Api::<Release>::namespaced(client.clone(), namespace).get(name).await;
    if_there(found).during(|| format!("read the release `{name}`"))
}

/// How long what the release is doing may still take, if it may not take for ever: then it is taken back, or held.
pub fn time_left(release: &Release, now: Timestamp) -> Option<Duration> {
    let status = release.status.as_ref()?;
    let allowed = allowed_seconds(&release.spec, &status.phase)?;
    Some(Duration::from_secs(allowed.saturating_sub(status.age_seconds(now))))
}

/// How people are told of a release.
#[derive(Debug, Clone)]
pub struct Telling {
    /// From where on files are meant: the folder of the architecture's file.
    pub folder: PathBuf,
    /// How long it is tried to send what is left when the release has ended. What is not sent then is sent by whoever comes next.
    pub linger: Duration,
}

/// Carries a release until it has ended or is held, and tells those who are to be told. `tell` sees it after each change.
///
/// May be dropped anywhere: what was written down is done by whoever comes next.
pub async fn carry(
    client: &Client,
    namespace: &str,
    name: &str,
    lock: &Lock,
    telling: Telling,
    tell: impl FnMut(&Release),
) -> Result<Release, CarryError> {
    Box::pin(run(client, namespace, name, lock, (Task::Whole, telling), tell)).await
}

/// Tells those who are to be told that a release waits, if it does, and leaves it as it is. For one that is written down for
/// somebody else: whoever is to approve it must know.
pub async fn tell_waiting(
    client: &Client,
    namespace: &str,
    name: &str,
    lock: &Lock,
    telling: Telling,
) -> Result<Release, CarryError> {
    Box::pin(run(client, namespace, name, lock, (Task::Tell, telling), |_| ())).await
}

/// How far a release is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// To its end.
    Whole,
    /// Nowhere: only messages are sent.
    Tell,
}

async fn run(
    client: &Client,
    namespace: &str,
    name: &str,
    lock: &Lock,
    (task, telling): (Task, Telling),
    mut tell: impl FnMut(&Release),
) -> Result<Release, CarryError> {
    let api = Api::namespaced(client.clone(), namespace);
    let mut carrier = Carrier {
        client,
        api,
        namespace,
        machine: lock.holder().to_owned(),
        author: OnceCell::new(),
        counters: Counters::new(client.clone()),
        courier: Courier::new(client.clone(), namespace, telling.folder),
        task,
        linger: telling.linger,
        let_through: false,
        ended: None,
        said: None,
    };
    let mut trouble: Option<Instant> = None;
    loop {
        match carrier.step(name, lock, &mut tell).await {
            Ok(Step::Ended(release)) => return Ok(*release),
            Ok(Step::Moved) => trouble = None,
            Ok(Step::Waits) => {
                trouble = None;
                tokio::time::sleep(TICK).await;
            }
            Err(error) => {
                let since = *trouble.get_or_insert_with(Instant::now);
                if !error.may_pass() || since.elapsed() >= PATIENCE {
                    return Err(error);
                }
                debug!(%error, "it is tried again");
                tokio::time::sleep(TICK).await;
            }
        }
    }
}

/// How a step went.
enum Step {
    Moved,
    Waits,
    Ended(Box<Release>),
}

struct Carrier<'a> {
    client: &'a Client,
    api: Api<Release>,
    namespace: &'a str,
    machine: String,
    author: OnceCell<Author>,
    counters: Counters,
    courier: Courier,
    task: Task,
    linger: Duration,
    /// Whether the audit log was seen to say that the gates of the release were open.
    let_through: bool,
    /// When it was seen first that nothing but messages is left to do.
    ended: Option<Instant>,
    /// When the release was written last.
    said: Option<Instant>,
}

impl Carrier<'_> {
    async fn step(&mut self, name: &str, lock: &Lock, tell: &mut impl FnMut(&Release)) -> Result<Step, CarryError> {
        lock.check()?;
        let mut release = self.api.get(name).await.during(|| format!("read the release `{name}`"))?;
        tell(&release);
        let mut status = release.status.clone().unwrap_or_default();
        self.was_let_through(&release, &status).await?;
        let carried = release.carried();
        if !status.pending.is_empty() {
            for effect in status.pending.clone() {
                lock.check()?;
                debug!(?effect, "an effect is done");
                tokio::select! {
                    done = perform(self.client, &carried, effect) => done?,
                    // Whoever has the lock does it again.
                    lost = lock.lost() => return Err(lost.into()),
                }
            }
            status.pending.clear();
            status.since = Some(Timestamp::now().to_string());
            self.write(&mut release, status).await?;
            return Ok(Step::Moved);
        }
        let demanded = release.annotations().get(REQUEST).map(String::as_str);
        let demanded = match demanded {
            Some("abort") => Some(Event::Abort("somebody stopped it".to_owned())),
            Some("rollback") => Some(Event::RollBack("somebody wants the old version back".to_owned())),
            Some(other) => {
                warn!(other, "a request that nobody understands");
                None
            }
            None => None,
        };
        let before = status.clone();
        self.receipts(&release, &mut status).await?;
        self.courier.send(&status.notices);
        let follow = |status: &mut ReleaseStatus, event: Option<Event>| {
            event.is_some_and(|event| status.follow(&carried, &event, Timestamp::now()))
        };
        let mut moved = follow(&mut status, demanded);
        if !moved {
            if status.phase.is_terminal() || matches!(status.phase, Phase::Held { .. }) {
                return self.last_words(release, &before, status).await;
            }
            let seen = self.look(&release, &status).await?;
            let event = observe(&carried, &mut status, &seen, Timestamp::now());
            moved = self.task == Task::Whole && follow(&mut status, event);
        }
        if moved {
            self.record(&release, &before.phase, &status).await?;
        }
        let (name, uid) = (release.name_any(), release.uid().unwrap_or_default());
        let subject = notify::Subject { name: &name, namespace: self.namespace, uid: &uid, spec: &release.spec };
        notify::announce(subject, &before, &mut status, Timestamp::now());
        if self.task == Task::Tell {
            return self.last_words(release, &before, status).await;
        }
        if moved {
            self.ended = None;
        }
        let is_news = status != before && (moved || !status.differs_in_words_only(&before));
        if is_news || status != before && self.said.is_none_or(|said| said.elapsed() >= WORDS) {
            self.write(&mut release, status).await?;
            self.said = Some(Instant::now());
        }
        Ok(if moved { Step::Moved } else { Step::Waits })
    }

    /// Looks whether what is under way was let through, and is what was let through: a phase and what is to be done can be written
    /// down by whoever may write releases.
    async fn was_let_through(&mut self, release: &Release, status: &ReleaseStatus) -> Result<(), CarryError> {
        let stands_still = status.phase == Phase::Pending || status.phase.is_terminal();
        if stands_still && status.pending.is_empty() {
            return Ok(());
        }
        let (name, spec) = (release.name_any(), &release.spec);
        if let Some(why) = spec.contradiction() {
            return Err(CarryError::NotLetThrough { name, why });
        }
        if !self.let_through {
            let log = AuditLog::read(self.client, self.namespace, &spec.architecture).await?;
            if !log.says(Action::Begin, &name, &spec.digest) {
                let why = "the audit log does not say that its gates were open".to_owned();
                return Err(CarryError::NotLetThrough { name, why });
            }
            self.let_through = true;
        }
        Ok(())
    }

    /// Tells the audit log of what changes where a release is, and lets its images in when it begins. Done again after a crash, it
    /// is told again.
    async fn record(&self, release: &Release, before: &Phase, status: &ReleaseStatus) -> Result<(), ClusterError> {
        let action = match &status.phase {
            phase if phase.name() == before.name() => return Ok(()),
            Phase::Pending => return Ok(()),
            Phase::Progressing { .. } => Action::Begin,
            Phase::Held { .. } => Action::Hold,
            Phase::RollingBack { .. } => Action::TakeBack,
            Phase::Succeeded => Action::Succeed,
            Phase::RolledBack { .. } => Action::Return,
            Phase::Failed { .. } => Action::Fail,
        };
        let (name, spec) = (release.name_any(), &release.spec);
        let evidence = match action {
            Action::Begin => status.gates.iter().map(|gate| format!("{}: {}", gate.gate, gate.shown())).collect(),
            _ => status.analysis.iter().map(Analysis::summary).collect(),
        };
        let says = status.message.clone();
        let author = self.author(spec).await?;
        let fact = Fact { action, subject: name.clone(), digest: Some(spec.digest.clone()), says, evidence };
        author.write(fact).await?;
        if action == Action::Begin {
            admission::admit(self.client, self.namespace, &name, spec, author).await?;
        }
        Ok(())
    }

    async fn author(&self, spec: &ReleaseSpec) -> Result<&Author, ClusterError> {
        self.author.get_or_try_init(|| Author::of(self.client, self.namespace, &spec.architecture, &self.machine)).await
    }

    /// Puts into `status` how attempts to tell somebody went, and into the audit log who was told, and who will not be.
    async fn receipts(&mut self, release: &Release, status: &mut ReleaseStatus) -> Result<(), ClusterError> {
        for (id, outcome) in self.courier.arrived().to_vec() {
            let Some(notice) = status.notices.iter_mut().find(|notice| notice.message.id == id) else { continue };
            if !notice.is_open() {
                continue;
            }
            notice.settle(&outcome, Timestamp::now());
            debug!(id, ?outcome, "an attempt to tell somebody");
            if notice.is_open() {
                continue;
            }
            let fact = Fact {
                action: Action::Tell,
                subject: release.name_any(),
                digest: Some(release.spec.digest.clone()),
                says: notice.summary(),
                evidence: vec![format!("message {id}")],
            };
            self.author(&release.spec).await?.write(fact).await?;
        }
        Ok(())
    }

    /// Nothing but messages is left to do, for a while.
    async fn last_words(
        &mut self,
        mut release: Release,
        before: &ReleaseStatus,
        status: ReleaseStatus,
    ) -> Result<Step, CarryError> {
        let since = *self.ended.get_or_insert_with(Instant::now);
        let is_left = status.notices.iter().any(Notice::is_open);
        if status != *before {
            self.write(&mut release, status).await?;
        }
        Ok(if is_left && since.elapsed() < self.linger { Step::Waits } else { Step::Ended(Box::new(release)) })
    }

    /// Writes the status, unless somebody has changed the release since it was read.
    async fn write(&mut self, release: &mut Release, status: ReleaseStatus) -> Result<(), ClusterError> {
        release.status = Some(status);
        let name = release.name_any();
        let written = self.api.replace_status(&name, &PostParams::default(), release).await;
        *release = written.during(|| format!("write the status of the release `{name}`"))?;
        let notices = release.status.as_ref().map(|status| status.notices.as_slice()).unwrap_or_default();
        self.courier.forget(notices);
        Ok(())
    }

    /// What the phase is about.
    async fn look(&self, release: &Release, status: &ReleaseStatus) -> Result<Seen, CarryError> {
        let name = release.name_any();
        let look = async |service: &ServiceRelease, workload: &str| {
            workload::look(self.client, &service.namespace, workload, &name).await
        };
        let look_beside = async |service: &ServiceRelease| {
            let mut workloads = Vec::new();
            for track in service.tracks() {
                workloads.push(look(service, &track.name(&service.name)).await?);
            }
            Ok::<_, ClusterError>(workloads)
        };
        let spec = &release.carried();
        let mut seen = Seen::default();
        match &status.phase {
            Phase::Pending => {
                seen.gates = gate::look(self.client, self.namespace, Some(&name), spec).await?;
                if seen.gates.iter().all(|gate| gate.standing == Standing::Open) {
                    let ground = begin::look(self.client, &release.spec).await?;
                    seen.gates.extend(ground.gates);
                    seen.replanned = ground.replanned;
                }
                if seen.gates.iter().any(|gate| gate.standing != Standing::Open) {
                    tokio::time::sleep(GATES).await;
                } else if spec.verification.is_some() {
                    seen.counted = self.counted_of_all(spec).await?;
                }
            }
            Phase::Progressing { service, stage: Stage::Updating | Stage::Promoting }
            | Phase::RollingBack { service, stage: Return::Restoring, .. } => {
                let service = &spec.services[*service];
                seen.workloads.push(look(service, &service.name).await?);
            }
            Phase::Progressing { service, stage: Stage::Starting } => {
                let service = &spec.services[*service];
                keep_room(self.client, service).await?;
                seen.workloads = look_beside(service).await?;
            }
            Phase::Progressing { service, stage: Stage::Judging { .. } } => {
                let service = &spec.services[*service];
                keep_room(self.client, service).await?;
                seen.workloads = look_beside(service).await?;
                if let Strategy::Canary(plan) = &service.strategy {
                    let counted = self.counters.window(&plan.counted_by, plan.work(), service).await?;
                    seen.counted = counted.map(|window| vec![window]);
                    seen.samples = self.samples(plan, service, status).await;
                    let is_done = |workload: &Workload| workload.done;
                    let started = seen.workloads.iter().all(|workload| workload.as_ref().is_some_and(is_done));
                    seen.understood = started && self.is_understood(service).await?;
                }
            }
            Phase::Progressing { stage: Stage::Verifying, .. } => {
                for service in &spec.services {
                    seen.workloads.push(look(service, &service.name).await?);
                }
                seen.counted = self.counted_of_all(spec).await?;
            }
            Phase::Progressing { service, stage: Stage::Draining } => {
                let service = &spec.services[*service];
                keep_room(self.client, service).await?;
                seen.understood = self.is_understood(service).await?;
            }
            // On the way back the canary may be gone already, and its room given back.
            Phase::RollingBack { service, stage: Return::Draining, .. } => {
                seen.understood = self.is_understood(&spec.services[*service]).await?;
            }
            Phase::Held { .. } | Phase::Succeeded | Phase::RolledBack { .. } | Phase::Failed { .. } => {}
        }
        Ok(seen)
    }

    /// What each service has answered since ever; nothing for those whose answers are not judged. `None` when one that is judged
    /// is not counted.
    async fn counted_of_all(&self, spec: &ReleaseSpec) -> Result<Option<Vec<Window>>, ClusterError> {
        let mut all = Vec::new();
        for service in &spec.services {
            let window = match &service.verified {
                None => Some(Window::default()),
                Some((_, counted_by)) => self.counters.window(counted_by, Work::Requests, service).await?,
            };
            let Some(window) = window else { return Ok(None) };
            all.push(window);
        }
        Ok(Some(all))
    }

    /// The samples of its own metrics that are due of the canary of a service.
    async fn samples(&self, plan: &CanaryPlan, service: &ServiceRelease, status: &ReleaseStatus) -> Vec<Sample> {
        let Some(at) = &plan.metrics_at else { return Vec::new() };
        let (now, canary) = (Timestamp::now(), Track::Canary.name(&service.name));
        let mut samples = Vec::new();
        for place in status.due(&plan.judge.metrics, now) {
            let (metric, window) = (&plan.judge.metrics[place], status.age_seconds(now));
            let ask =
                async |deployment: &str| self.counters.sample(at, metric, &service.namespace, deployment, window).await;
            let answer = ask(&canary).await;
            let stable =
                if metric.bound.is_relative() { Some(ask(&plan.compared_with(&service.name)).await) } else { None };
            samples.push(Sample { metric: place, answer, stable });
        }
        samples
    }

    /// Whether requests go where the route says now. Not all who serve routes say so.
    async fn is_understood(&self, service: &ServiceRelease) -> Result<bool, ClusterError> {
        if service.route_rules.is_none() {
            return Ok(true);
        }
        let routes = Api::<DynamicObject>::namespaced_with(self.client.clone(), &service.namespace, &route_resource());
        let found =
            if_there(routes.get(&service.name).await).during(|| format!("read the HTTPRoute `{}`", service.name))?;
        let Some(route) = found else { return Ok(true) };
        let parents = route.data["status"]["parents"].as_array().cloned().unwrap_or_default();
        let mut conditions = parents.iter().flat_map(|parent| parent["conditions"].as_array().into_iter().flatten());
        Ok(conditions.any(|condition| {
            condition["type"] == "Accepted" && condition["observedGeneration"].as_i64() >= route.metadata.generation
        }))
    }
}

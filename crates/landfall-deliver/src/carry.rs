//! Carries a release to its end: looks at the cluster, asks the state machine, writes down what follows, and does it.
//!
//! The phase and its effects are written before the first of them is done, by compare-and-swap: whoever is stopped anywhere can be
//! followed by somebody else on another machine, who does the effects again and goes on.

use std::time::Duration;

use jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::admission;
use crate::analysis::{Analysis, Verdict, analyse};
use crate::audit::{Action, Author, Fact};
use crate::cluster::lock::{Lock, LockError};
use crate::cluster::perform::{PerformError, canary_name, perform};
use crate::cluster::workload::{self, hopeless, pods_of, progress, troubles};
use crate::cluster::{ClusterError, During as _, MANAGER, figures, if_there, route_resource};
use crate::gate::{self, Standing, WAITING};
use crate::plan::Strategy;
use crate::release::{REQUEST, Release, ReleaseSpec, ReleaseStatus, ServiceRelease, Window};
use crate::rollout::{Event, Phase, Return, Stage, Version};

/// How often the cluster is looked at.
const TICK: Duration = Duration::from_millis(500);

/// How long it is waited between two looks at gates.
const GATES: Duration = Duration::from_secs(1);

/// How long a cluster may give no answer before it is given up.
const PATIENCE: Duration = Duration::from_mins(2);

/// How long the last requests to a canary may take to arrive, after its route has changed.
const SETTLE_SECONDS: u64 = 2;

/// How long whoever serves a route may take to say that it has understood a change. Not all say it.
const UNDERSTOOD_SECONDS: u64 = 10;

/// Why a release was not carried to its end. It can be carried on.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// Somebody else has the lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The cluster refuses, or does not answer for long.
    #[error(transparent)]
    Perform(#[from] PerformError),
}

impl From<ClusterError> for CarryError {
    fn from(error: ClusterError) -> Self {
        Self::Perform(PerformError::Cluster(error))
    }
}

impl CarryError {
    fn may_pass(&self) -> bool {
        match self {
            Self::Perform(PerformError::Cluster(error)) | Self::Lock(LockError::Cluster(error)) => error.may_pass(),
            Self::Lock(LockError::Held { .. }) => false,
            // Something may be put back by whoever took it away.
            Self::Perform(PerformError::Missing(_)) => true,
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

/// Carries a release until it has ended or is held. `tell` sees it after each change.
///
/// May be dropped anywhere: what was written down is done by whoever comes next.
pub async fn carry(
    client: &Client,
    namespace: &str,
    name: &str,
    lock: &mut Lock,
    mut tell: impl FnMut(&Release),
) -> Result<Release, CarryError> {
    let api = Api::namespaced(client.clone(), namespace);
    let carrier = Carrier { client, api, namespace, machine: lock.holder().to_owned(), author: OnceCell::new() };
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
}

impl Carrier<'_> {
    async fn step(&self, name: &str, lock: &mut Lock, tell: &mut impl FnMut(&Release)) -> Result<Step, CarryError> {
        lock.keep().await?;
        let mut release = self.api.get(name).await.during(|| format!("read the release `{name}`"))?;
        tell(&release);
        let mut status = release.status.clone().unwrap_or_default();
        if !status.pending.is_empty() {
            for effect in status.pending.clone() {
                lock.keep().await?;
                debug!(?effect, "an effect is done");
                perform(self.client, &release.spec, effect).await?;
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
        let plan = release.spec.plan();
        let before = status.clone();
        let follows = |event: Option<&Event>| event.and_then(|event| before.phase.next(event, &plan));
        let (event, follows) = match follows(demanded.as_ref()) {
            Some(follows) => (demanded, Some(follows)),
            None if before.phase.is_terminal() || matches!(before.phase, Phase::Held { .. }) => {
                return Ok(Step::Ended(Box::new(release)));
            }
            None => {
                let event = self.observe(&release, &mut status).await?;
                let follows = follows(event.as_ref());
                (event, follows)
            }
        };
        match (event, follows) {
            (Some(event), Some((phase, effects))) => {
                let what = describe(&release.spec, &event, &phase);
                status.enter(phase, effects, what, Timestamp::now());
                self.record(&release, &before.phase, &status).await?;
                self.write(&mut release, status).await?;
                Ok(Step::Moved)
            }
            _ if status != before => {
                self.write(&mut release, status).await?;
                Ok(Step::Waits)
            }
            _ => Ok(Step::Waits),
        }
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
            _ => status.analysis.iter().map(summary).collect(),
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

    /// Whether its gates let it begin.
    async fn gates(&self, release: &Release, status: &mut ReleaseStatus) -> Result<Option<Event>, ClusterError> {
        let gates = gate::look(self.client, self.namespace, Some(&release.name_any()), &release.spec).await?;
        let rejected = gates.iter().find(|gate| gate.standing == Standing::Rejected).map(|gate| gate.why.clone());
        let open = gates.iter().all(|gate| gate.standing == Standing::Open);
        if !open {
            WAITING.clone_into(&mut status.state);
            status.message = gate::waits_for(&gates);
        }
        status.gates = gates;
        Ok(match rejected {
            Some(why) => Some(Event::Abort(why)),
            None if open => Some(Event::Begin),
            None => {
                tokio::time::sleep(GATES).await;
                None
            }
        })
    }

    /// Writes the status, unless somebody has changed the release since it was read.
    async fn write(&self, release: &mut Release, status: ReleaseStatus) -> Result<(), ClusterError> {
        release.status = Some(status);
        let name = release.name_any();
        let written = self.api.replace_status(&name, &PostParams::default(), release).await;
        *release = written.during(|| format!("write the status of the release `{name}`"))?;
        Ok(())
    }

    /// What has happened, seen from the phase. Notes in `status` what the next look needs to know.
    async fn observe(&self, release: &Release, status: &mut ReleaseStatus) -> Result<Option<Event>, ClusterError> {
        let service = |service: usize| &release.spec.services[service];
        match status.phase.clone() {
            Phase::Pending => self.gates(release, status).await,
            Phase::Progressing { service: place, stage: Stage::Updating | Stage::Promoting } => {
                self.workload(release, &service(place).name, service(place), Version::New, status).await
            }
            Phase::Progressing { service: place, stage: Stage::Starting } => {
                let name = canary_name(&service(place).name);
                self.workload(release, &name, service(place), Version::New, status).await
            }
            Phase::Progressing { service: place, stage: Stage::Judging { step } } => {
                self.judge(release, place, step, status).await
            }
            Phase::RollingBack { service: place, stage: Return::Restoring, .. } => {
                self.workload(release, &service(place).name, service(place), Version::Old, status).await
            }
            Phase::Progressing { service: place, stage: Stage::Draining }
            | Phase::RollingBack { service: place, stage: Return::Draining, .. } => {
                Ok(self.is_understood(service(place), status).await?.then_some(Event::Ready))
            }
            Phase::Held { .. } | Phase::Succeeded | Phase::RolledBack { .. } | Phase::Failed { .. } => Ok(None),
        }
    }

    /// Whether a workload has got where it should.
    async fn workload(
        &self,
        release: &Release,
        name: &str,
        service: &ServiceRelease,
        version: Version,
        status: &mut ReleaseStatus,
    ) -> Result<Option<Event>, ClusterError> {
        let Some(deployment) = workload::deployment(self.client, &service.namespace, name).await? else {
            return Ok(Some(Event::Broken(format!("the Deployment `{name}` is gone"))));
        };
        let state = progress(&deployment);
        if state.done {
            return Ok(Some(Event::Ready));
        }
        status.message = format!("`{name}`: {} of {} new copies are ready", state.ready, state.wanted);
        let pods = match version {
            Version::New => pods_of(self.client, &deployment, &release.name_any()).await?,
            Version::Old => Vec::new(),
        };
        if let Some(why) = hopeless(&pods) {
            return Ok(Some(Event::Broken(why)));
        }
        if state.ready > status.ready_copies {
            status.ready_copies = state.ready;
            status.since = Some(Timestamp::now().to_string());
        }
        let minimum = deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        let allowed = service.ready_within_seconds + u64::try_from(minimum).unwrap_or_default();
        // The way back waits as long again: it is the last thing that can be done.
        let allowed = if version == Version::Old { 2 * allowed } else { allowed };
        if status.age_seconds(Timestamp::now()) < allowed {
            return Ok(None);
        }
        let why = format!(
            "`{name}`: {} of {} copies are ready, and none more within {allowed} s; {}",
            state.ready,
            state.wanted,
            troubles(&pods)
        );
        Ok(Some(Event::DeadlinePassed(why.trim_end_matches([';', ' ']).to_owned())))
    }

    async fn judge(
        &self,
        release: &Release,
        place: usize,
        step: usize,
        status: &mut ReleaseStatus,
    ) -> Result<Option<Event>, ClusterError> {
        let service = &release.spec.services[place];
        let Strategy::Canary(plan) = &service.strategy else { return Ok(None) };
        let name = canary_name(&service.name);
        let Some(deployment) = workload::deployment(self.client, &service.namespace, &name).await? else {
            return Ok(Some(Event::Broken(format!("the Deployment `{name}` is gone"))));
        };
        let pods = pods_of(self.client, &deployment, &release.name_any()).await?;
        if let Some(why) = hopeless(&pods) {
            return Ok(Some(Event::Broken(why)));
        }
        let figures = figures::read(self.client).await?;
        let figures = figures.map(|figures| Window {
            canary: figures::counts(&figures, &service.namespace, &name),
            stable: figures::counts(&figures, &service.namespace, &service.name),
        });
        let counted = match (&figures, &status.window) {
            (Some(now), Some(then)) => now.canary.since(&then.canary).zip(now.stable.since(&then.stable)),
            _ => None,
        };
        let late = status.age_seconds(Timestamp::now()) >= plan.decide_within_seconds;
        let Some((canary, stable)) = counted else {
            // Requests that came before the canary had this share say nothing about it; nor do counters that began anew.
            if figures.is_some() && (status.window.is_some() || self.is_understood(service, status).await?) {
                status.window = figures;
            }
            let why = format!("nobody has counted requests to `{name}`");
            return Ok(late.then_some(Event::DeadlinePassed(why)));
        };
        let analysis = analyse(&plan.judge, &canary, &stable);
        let text = summary(&analysis);
        status.message = format!("`{}` step {} of {}: {text}", service.name, step + 1, plan.steps.len());
        let verdict = analysis.verdict;
        status.analysis = Some(analysis);
        Ok(Some(match verdict {
            Verdict::Inconclusive | Verdict::NoData if late => {
                Event::DeadlinePassed(format!("not decided within {} s: {text}", plan.decide_within_seconds))
            }
            verdict => Event::Judged(verdict, text),
        }))
    }

    /// Whether requests go where the route says now.
    async fn is_understood(&self, service: &ServiceRelease, status: &ReleaseStatus) -> Result<bool, ClusterError> {
        let age = status.age_seconds(Timestamp::now());
        if age < SETTLE_SECONDS {
            return Ok(false);
        }
        let routes = Api::<DynamicObject>::namespaced_with(self.client.clone(), &service.namespace, &route_resource());
        let found =
            if_there(routes.get(&service.name).await).during(|| format!("read the HTTPRoute `{}`", service.name))?;
        let Some(route) = found else { return Ok(true) };
        let parents = route.data["status"]["parents"].as_array().cloned().unwrap_or_default();
        let understood =
            parents.iter().flat_map(|parent| parent["conditions"].as_array().into_iter().flatten()).any(|condition| {
                condition["type"] == "Accepted" && condition["observedGeneration"].as_i64() >= route.metadata.generation
            });
        Ok(understood || age >= UNDERSTOOD_SECONDS)
    }
}

fn summary(analysis: &Analysis) -> String {
    format!("{}: {}", analysis.verdict.as_str(), analysis.lines.join("; "))
}

/// What has happened, and what is done about it.
fn describe(spec: &ReleaseSpec, event: &Event, phase: &Phase) -> String {
    let seen = match event {
        Event::Begin | Event::Ready => String::new(),
        Event::Judged(_, why)
        | Event::Broken(why)
        | Event::DeadlinePassed(why)
        | Event::Abort(why)
        | Event::RollBack(why) => format!("{why}; "),
    };
    let name = |service: &usize| spec.services.get(*service).map(|service| service.name.as_str()).unwrap_or_default();
    let follows = match phase {
        Phase::Pending => String::new(),
        Phase::Progressing { service, stage } => {
            let of = &spec.services[*service];
            match (stage, &of.strategy) {
                (Stage::Updating, _) => format!("`{}` gets `{}`", of.name, of.new_image),
                (Stage::Starting, _) => format!("a canary of `{}` starts with `{}`", of.name, of.new_image),
                (Stage::Judging { step }, Strategy::Canary(canary)) => {
                    let share = canary.steps.get(*step).copied().unwrap_or_default();
                    format!("the canary of `{}` gets {}% of the requests", of.name, f64::from(share) / 10_000.0)
                }
                (Stage::Judging { .. }, _) => String::new(),
                (Stage::Promoting, _) => format!("all copies of `{}` get `{}`", of.name, of.new_image),
                (Stage::Draining, _) => format!("the canary of `{}` gets no more requests", of.name),
            }
        }
        Phase::Held { service, .. } => format!("held at `{}` until somebody takes it back", name(service)),
        Phase::RollingBack { service, stage: Return::Draining, .. } => {
            format!("the canary of `{}` gets no more requests", name(service))
        }
        Phase::RollingBack { service, stage: Return::Restoring, .. } => {
            let image = spec.services.get(*service).map(|service| service.old_image.as_str()).unwrap_or_default();
            format!("`{}` goes back to `{image}`", name(service))
        }
        Phase::Succeeded => "every service runs the new version".to_owned(),
        Phase::RolledBack { cause } => format!("every service runs the old version again, because: {}", cause.why),
        Phase::Failed { cause, why } => {
            format!("it could not be taken back: {why}; it was to go back because: {}", cause.why)
        }
    };
    format!("{seen}{follows}")
}

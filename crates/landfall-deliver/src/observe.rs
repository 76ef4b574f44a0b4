//! What has happened, from what is seen of the cluster: pure, so that a whole release can be played in a time of its own.
//!
//! [`crate::carry()`] looks, and hands over what it saw as [`Seen`]; what is to be looked at depends on the phase alone.

use jiff::Timestamp;

use crate::analysis::{Analysis, Verdict, Work, analyse};
use crate::gate::{self, GateState, Standing, WAITING};
use crate::metric::Sample;
use crate::plan::{CanaryPlan, CountedBy, Strategy};
use crate::release::{ReleaseSpec, ReleaseStatus, Replanned, ServiceRelease, Verification, Window};
use crate::rollout::{Event, Phase, Return, Stage, Version};

/// How often containers that were ready may crash before the version counts as broken: once may be the machine's fault.
const CRASHES: i32 = 2;

/// How long the last requests to a canary may take to arrive, after its route has changed.
pub(crate) const SETTLE_SECONDS: u64 = 2;

/// How long whoever serves a route may take to say that it has understood a change. Not all say it.
const UNDERSTOOD_SECONDS: u64 = 10;

/// What is seen of the cluster, as far as the phase is about it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// What must hold before the release begins, and whether it does.
    pub(crate) gates: Vec<GateState>,
    /// The canaries that were planned again, as copies beside them are others than when they were planned.
    pub(crate) replanned: Vec<Replanned>,
    /// The workloads that the stage is about: one, and its baseline beside a canary that has one; of each service when all are
    /// verified. `None` for one that is gone.
    pub(crate) workloads: Vec<Option<Workload>>,
    /// What has been counted since ever: of the service that is judged, or of each. `None` where nobody counts.
    pub(crate) counted: Option<Vec<Window>>,
    /// The samples that were taken of the own metrics of the canary that is judged.
    pub(crate) samples: Vec<Sample>,
    /// Whether whoever sends requests says that it has understood the last change.
    pub(crate) understood: bool,
}

/// A workload with the pods of the version that the stage is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Workload {
    /// Its name.
    pub(crate) name: String,
    /// Every copy is of the wanted version and ready, and no other is there.
    pub(crate) done: bool,
    /// How many copies of the wanted version are ready.
    pub(crate) ready: i32,
    /// How many are wanted.
    pub(crate) wanted: i32,
    /// Why its pods will never run, if one of them says so.
    pub(crate) hopeless: Option<String>,
    /// How often their containers have crashed.
    pub(crate) crashes: i32,
    /// What those say of themselves that are not ready.
    pub(crate) troubles: String,
}

/// What has happened, seen from the phase. Notes in `status` what the next look needs to know.
///
/// # Panics
///
/// When `seen` has not as many workloads as the phase is about.
pub(crate) fn observe(spec: &ReleaseSpec, status: &mut ReleaseStatus, seen: &Seen, now: Timestamp) -> Option<Event> {
    let service = |place: usize| &spec.services[place];
    match status.phase.clone() {
        Phase::Pending => beginning(status, seen),
        Phase::Progressing { service: place, stage: Stage::Updating | Stage::Promoting | Stage::Starting } => {
            replacing(service(place), Version::New, status, seen, now)
        }
        Phase::RollingBack { service: place, stage: Return::Restoring, .. } => {
            replacing(service(place), Version::Old, status, seen, now)
        }
        Phase::Progressing { service: place, stage: Stage::Judging { step } } => match &service(place).strategy {
            Strategy::Canary(plan) => judging(service(place), plan, step, status, seen, now),
            Strategy::Rolling | Strategy::Recreate => None,
        },
        Phase::Progressing { stage: Stage::Verifying, .. } => {
            spec.verification.and_then(|verification| verifying(spec, verification, status, seen, now))
        }
        Phase::Progressing { stage: Stage::Draining, .. } | Phase::RollingBack { stage: Return::Draining, .. } => {
            is_understood(status, seen, now).then_some(Event::Ready)
        }
        Phase::Held { .. } | Phase::Succeeded | Phase::RolledBack { .. } | Phase::Failed { .. } => None,
    }
}

/// Whether the gates let a release begin.
fn beginning(status: &mut ReleaseStatus, seen: &Seen) -> Option<Event> {
    status.gates.clone_from(&seen.gates);
    if let Some(rejected) = seen.gates.iter().find(|gate| gate.standing == Standing::Rejected) {
        return Some(Event::Abort(rejected.why.clone()));
    }
    if seen.gates.iter().any(|gate| gate.standing != Standing::Open) {
        WAITING.clone_into(&mut status.state);
        status.message = gate::waits_for(&seen.gates);
        return None;
    }
    status.replanned.clone_from(&seen.replanned);
    if let Some(counted) = &seen.counted {
        status.before = counted.iter().map(|window| window.stable.clone()).collect();
    }
    Some(Event::Begin)
}

/// How long the stage may take from its last progress on, if it may not take for ever.
pub(crate) fn allowed_seconds(spec: &ReleaseSpec, phase: &Phase) -> Option<u64> {
    match phase {
        Phase::Progressing { service, stage } => match stage {
            Stage::Updating | Stage::Promoting | Stage::Starting => {
                Some(spec.services.get(*service)?.ready_within_seconds)
            }
            Stage::Judging { .. } => match &spec.services.get(*service)?.strategy {
                Strategy::Canary(plan) => Some(plan.decide_within_seconds),
                Strategy::Rolling | Strategy::Recreate => None,
            },
            Stage::Verifying => Some(spec.verification?.within_seconds),
            Stage::Draining => Some(UNDERSTOOD_SECONDS),
        },
        // The way back waits as long again: it is the last thing that can be done.
        Phase::RollingBack { service, stage: Return::Restoring, .. } => {
            Some(2 * spec.services.get(*service)?.ready_within_seconds)
        }
        Phase::RollingBack { stage: Return::Draining, .. } => Some(UNDERSTOOD_SECONDS),
        Phase::Pending | Phase::Held { .. } | Phase::Succeeded | Phase::RolledBack { .. } | Phase::Failed { .. } => {
            None
        }
    }
}

/// The workloads that a stage is about; otherwise, which of them is gone.
fn there<'a>(service: &ServiceRelease, seen: &'a Seen) -> Result<Vec<&'a Workload>, Event> {
    assert!(!seen.workloads.is_empty(), "the stage is about a workload");
    let tracks = service.tracks();
    seen.workloads
        .iter()
        .enumerate()
        .map(|(place, own)| {
            let name = if seen.workloads.len() == 1 { service.name.clone() } else { tracks[place].name(&service.name) };
            own.as_ref().ok_or_else(|| gone(&name))
        })
        .collect()
}

/// Whether a workload has got where it should.
fn replacing(
    service: &ServiceRelease,
    version: Version,
    status: &mut ReleaseStatus,
    seen: &Seen,
    now: Timestamp,
) -> Option<Event> {
    let workloads = match there(service, seen) {
        Ok(workloads) => workloads,
        Err(gone) => return Some(gone),
    };
    // What is told is of the first that is not where it should be.
    let Some(Workload { name, ready, wanted, troubles, .. }) = workloads.iter().find(|own| !own.done) else {
        return Some(Event::Ready);
    };
    status.message = format!("`{name}`: {ready} of {wanted} new copies are ready");
    if version == Version::New
        && let Some(why) = workloads.iter().find_map(|own| own.hopeless.clone())
    {
        return Some(Event::Broken(why));
    }
    let all = workloads.iter().map(|own| own.ready).sum();
    if all > status.ready_copies {
        status.ready_copies = all;
        status.since = Some(now.to_string());
    }
    let patience = if version == Version::Old { 2 } else { 1 };
    let allowed = patience * service.ready_within_seconds;
    if status.age_seconds(now) < allowed {
        return None;
    }
    let why = format!("`{name}`: {ready} of {wanted} copies are ready, and none more within {allowed} s; {troubles}");
    Some(Event::DeadlinePassed(why.trim_end_matches([';', ' ']).to_owned()))
}

/// What a canary has shown so far.
fn judging(
    service: &ServiceRelease,
    plan: &CanaryPlan,
    step: usize,
    status: &mut ReleaseStatus,
    seen: &Seen,
    now: Timestamp,
) -> Option<Event> {
    let workloads = match there(service, seen) {
        Ok(workloads) => workloads,
        Err(gone) => return Some(gone),
    };
    if let Some(why) = broken(workloads.iter().copied(), status) {
        return Some(Event::Broken(why));
    }
    let late = status.age_seconds(now) >= plan.decide_within_seconds;
    let counted = seen.counted.as_ref().and_then(|counted| counted.first());
    let Some(evidence) = since(counted, status.windows.first()) else {
        // Requests that came before the canary had this share say nothing about it; nor do counters that began anew.
        let settled = !status.windows.is_empty() || is_understood(status, seen, now);
        if let Some(counted) = counted
            && settled
        {
            status.windows = vec![counted.clone()];
        }
        let many = plan.work().many();
        return late.then(|| Event::DeadlinePassed(format!("nobody has counted {many} to `{}`", workloads[0].name)));
    };
    if plan.counted_by != CountedBy::Nobody {
        status.note_answers(&service.name, Some(step), &evidence.canary);
    }
    let metrics = &plan.judge.metrics;
    for sample in &seen.samples {
        status.note_sample(&metrics[sample.metric], sample, now);
    }
    let own: Vec<_> = metrics.iter().map(|metric| metric.judged(status.samples_of(metric))).collect();
    let analysis = analyse(&plan.judge, plan.work(), &evidence.canary, &evidence.stable).beside(own);
    let text = analysis.summary();
    status.message = format!("`{}` step {} of {}: {text}", service.name, step + 1, plan.steps.len());
    let verdict = analysis.verdict;
    status.analysis = Some(analysis);
    Some(match verdict {
        Verdict::Inconclusive | Verdict::NoData if late => {
            Event::DeadlinePassed(format!("not decided within {} s: {text}", plan.decide_within_seconds))
        }
        verdict => Event::Judged(verdict, text),
    })
}

/// What all services have shown since the last of them has its new version.
fn verifying(
    spec: &ReleaseSpec,
    verification: Verification,
    status: &mut ReleaseStatus,
    seen: &Seen,
    now: Timestamp,
) -> Option<Event> {
    assert_eq!(seen.workloads.len(), spec.services.len(), "all services are verified");
    if let Some(place) = seen.workloads.iter().position(Option::is_none) {
        return Some(gone(&spec.services[place].name));
    }
    if let Some(why) = broken(seen.workloads.iter().flatten(), status) {
        return Some(Event::Broken(why));
    }
    let age = status.age_seconds(now);
    let late = age >= verification.within_seconds;
    let unready: Vec<&str> =
        seen.workloads.iter().flatten().filter(|own| !own.done).map(|own| own.name.as_str()).collect();
    let judged = judge_all(spec, status, seen);
    let verdict = judged.as_ref().map_or(Verdict::NoData, |judged| judged.whole.verdict);
    let text = judged.as_ref().map_or_else(|| "nobody has counted requests".to_owned(), Judged::text);
    status.message = format!("verified: {text}");
    status.analysis = judged.map(|judged| judged.whole).or(status.analysis.take());
    if verdict == Verdict::Fail {
        return Some(Event::Judged(Verdict::Fail, text));
    }
    if verdict == Verdict::Pass && unready.is_empty() && age >= verification.at_least_seconds {
        return Some(Event::Ready);
    }
    late.then(|| {
        let unready = if unready.is_empty() {
            String::new()
        } else {
            format!("; not all copies are ready of {}", unready.join(", "))
        };
        Event::DeadlinePassed(format!("not decided within {} s: {text}{unready}", verification.within_seconds))
    })
}

/// The verdict on all services whose answers are judged, and the lines that are about those on which it depends.
struct Judged {
    whole: Analysis,
    decisive: Vec<String>,
}

impl Judged {
    fn text(&self) -> String {
        format!("{}: {}", self.whole.verdict.as_str(), self.decisive.join("; "))
    }
}

/// Judges all services whose answers are judged, beside what their versions before have answered. Without such services it is a
/// pass: nobody crashes.
fn judge_all(spec: &ReleaseSpec, status: &mut ReleaseStatus, seen: &Seen) -> Option<Judged> {
    let judges =
        || spec.services.iter().enumerate().filter_map(|(place, own)| Some((place, own, own.verified.as_ref()?)));
    if judges().next().is_none() {
        let lines = vec!["nothing has crashed, and no answers are judged".to_owned()];
        let whole = Analysis { verdict: Verdict::Pass, requests: 0, lines: lines.clone() };
        return Some(Judged { whole, decisive: lines });
    }
    let counted = seen.counted.as_ref()?;
    let mut analyses = Vec::new();
    for (place, service, (judge, _)) in judges() {
        let now = counted.get(place)?;
        let evidence = status.windows.get(place).and_then(|then| now.stable.since(&then.stable));
        let Some(evidence) = evidence else {
            status.windows.clone_from(counted);
            return None;
        };
        status.note_answers(&service.name, None, &evidence);
        let before = status.before.get(place).cloned().unwrap_or_default();
        let mut own = analyse(judge, Work::Requests, &evidence, &before);
        own.lines.iter_mut().for_each(|line| *line = format!("`{}` {line}", service.name));
        analyses.push(own);
    }
    let verdict = analyses.iter().map(|own| own.verdict).max_by_key(|verdict| gravity(*verdict))?;
    let decisive = analyses.iter().filter(|own| own.verdict == verdict).flat_map(|own| own.lines.clone()).collect();
    let requests = analyses.iter().map(|own| own.requests).sum();
    let lines = analyses.into_iter().flat_map(|own| own.lines).collect();
    Some(Judged { whole: Analysis { verdict, requests, lines }, decisive })
}

fn gravity(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pass => 0,
        Verdict::Inconclusive => 1,
        Verdict::NoData => 2,
        Verdict::Fail => 3,
    }
}

/// Why a version that was ready is broken, if it is. The first look at which all copies are ready notes how often they had crashed
/// before.
fn broken<'a>(workloads: impl Iterator<Item = &'a Workload> + Clone, status: &mut ReleaseStatus) -> Option<String> {
    if let Some(why) = workloads.clone().find_map(|workload| workload.hopeless.clone()) {
        return Some(why);
    }
    let now: i32 = workloads.clone().map(|workload| workload.crashes).sum();
    if status.crashes.is_none() && !workloads.clone().all(|workload| workload.done) {
        // What copies do before they are ready is another matter.
        return None;
    }
    let before = status.crashes.get_or_insert(now);
    // Pods that are gone take their crashes with them.
    *before = now.min(*before);
    let crashes = now - *before;
    (crashes >= CRASHES).then(|| {
        let of: Vec<String> = workloads.filter(|own| own.crashes > 0).map(|own| format!("`{}`", own.name)).collect();
        format!("containers of {} crashed {crashes} times after they had been ready", of.join(", "))
    })
}

/// What was counted between two looks. `None` when the counters of the canary began anew.
fn since(now: Option<&Window>, then: Option<&Window>) -> Option<Window> {
    let (now, then) = (now?, then?);
    // Stable copies that are fewer have counted less; then there is nothing to compare with.
    let stable = now.stable.since(&then.stable).unwrap_or_default();
    Some(Window { canary: now.canary.since(&then.canary)?, stable })
}

/// Whether requests go where they are sent now.
fn is_understood(status: &ReleaseStatus, seen: &Seen, now: Timestamp) -> bool {
    let age = status.age_seconds(now);
    age >= SETTLE_SECONDS && (seen.understood || age >= UNDERSTOOD_SECONDS)
}

fn gone(name: &str) -> Event {
    Event::Broken(format!("the Deployment of `{name}` is gone"))
}

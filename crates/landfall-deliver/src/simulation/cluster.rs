//! A cluster that is played: Deployments that replace their copies, clients that call, whoever counts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::SignedDuration;
use landfall_model::{Architecture, Rollout};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::analysis::{Counts, Work, float};
use crate::observe::{Seen, Workload};
use crate::plan::{Callers, CountedBy, Split, Strategy, Track, Weights, requests_per_second};
use crate::release::{ReleaseSpec, ServiceRelease, Window};
use crate::rollout::{Effect, Phase, Return, Stage, Version};

/// How a new version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Good,
    NeverReady,
    Errors,
    Slow,
    Leaks,
    Silence,
    NoMetric,
    MetricVanishes,
    Cold,
}

impl Fault {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::NeverReady => "never-ready",
            Self::Errors => "errors",
            Self::Slow => "slow",
            Self::Leaks => "leaks",
            Self::Silence => "silence",
            Self::NoMetric => "no-metric",
            Self::MetricVanishes => "metric-vanishes",
            Self::Cold => "cold",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Good => "a good version",
            Self::NeverReady => "a version that never becomes ready",
            Self::Errors => "a version that fails 5% of its requests",
            Self::Slow => "a version that is three times as slow",
            Self::Leaks => "a version that leaks, and crashes after a minute",
            Self::Silence => "a version that nobody calls",
            Self::NoMetric => "a version whose requests nobody counts",
            Self::MetricVanishes => "a version whose metric vanishes on the way",
            Self::Cold => {
                "a good version of a service whose copies answer one in ten slowly for their first two minutes"
            }
        }
    }
}

/// How long a copy takes from its start to its first passed probe, in seconds.
const STARTS: f64 = 4.0;

/// How long it must be ready before it counts.
const SETTLES: f64 = 5.0;

/// After so many seconds a leaking copy is out of memory.
const LEAKS_FOR: f64 = 60.0;

/// So long a copy fills its caches, in seconds, where that takes long.
const COLD_FOR: f64 = 120.0;

/// What the p99 of a good version is of the limit.
const OF_THE_LIMIT: f64 = 0.45;

/// Upper bounds of the latency histogram, in seconds: those of the engine's gateway.
const BOUNDS: [f64; 24] = [
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4,
    0.5, 0.75, 1.0, 2.0, 5.0, 10.0,
];

#[derive(Debug, Clone)]
struct Pod {
    version: Version,
    /// When it began, or begins again after a crash.
    begins: f64,
    restarts: i32,
    waits_for_a_restart: bool,
}

/// A Deployment.
#[derive(Debug, Clone)]
struct Copies {
    wanted: usize,
    version: Version,
    surge: usize,
    unavailable: usize,
    pods: Vec<Pod>,
}

struct Service {
    release: ServiceRelease,
    stable: Copies,
    canary: Option<Copies>,
    baseline: Option<Copies>,
    work: Work,
    /// The shares of the canary and its baseline.
    weights: Weights,
    requests_per_second: f64,
    /// Parts of requests that are still to come.
    owed: f64,
    /// What the p99 may be, in seconds.
    limit: f64,
    counted: Window,
    /// Requests by version: all, and those that failed.
    accounts: BTreeMap<&'static str, (u64, u64)>,
}

pub(super) struct Cluster {
    now: f64,
    services: Vec<Service>,
    culprit: String,
    fault: Fault,
    random: StdRng,
    begun: bool,
}

impl Cluster {
    pub(super) fn new(architecture: &Architecture, spec: &ReleaseSpec, culprit: &str, fault: Fault) -> Self {
        let services = spec.services.iter().map(|release| Service::new(architecture, release)).collect();
        let random = StdRng::seed_from_u64(6);
        Self { now: 0.0, services, culprit: culprit.to_owned(), fault, random, begun: false }
    }

    /// What the phase is about, as a look at a cluster would show it.
    pub(super) fn look(&self, phase: &Phase) -> Seen {
        let mut seen = Seen { understood: true, ..Seen::default() };
        let one = |place: usize| self.services[place].look(self);
        let (workloads, counted): (Vec<_>, Vec<&Service>) = match phase {
            Phase::Pending => (Vec::new(), self.services.iter().collect()),
            Phase::Progressing { stage: Stage::Verifying, .. } => {
                (self.services.iter().map(|own| Some(own.look(self))).collect(), self.services.iter().collect())
            }
            Phase::Progressing { service, stage: Stage::Updating | Stage::Promoting }
            | Phase::RollingBack { service, stage: Return::Restoring, .. } => (vec![Some(one(*service))], Vec::new()),
            Phase::Progressing { service, stage: Stage::Starting | Stage::Judging { .. } } => {
                let own = &self.services[*service];
                let workload = |track: &Track| {
                    let copies = match track {
                        Track::Canary => &own.canary,
                        Track::Baseline => &own.baseline,
                    };
                    copies.as_ref().map(|copies| own.workload(copies, Some(*track), self))
                };
                (own.release.tracks().iter().map(workload).collect(), vec![own])
            }
            _ => (Vec::new(), Vec::new()),
        };
        seen.workloads = workloads;
        let vanished = self.begun && self.fault == Fault::MetricVanishes;
        if self.fault != Fault::NoMetric && !vanished {
            seen.counted = Some(counted.into_iter().map(|own| own.counted.clone()).collect());
        }
        seen
    }

    pub(super) fn perform(&mut self, effect: Effect) {
        self.begun = true;
        let now = self.now;
        match effect {
            Effect::SetTemplate { service, version } => self.services[service].stable.version = version,
            Effect::StartCanary { service } => {
                let own = &mut self.services[service];
                let Strategy::Canary(plan) = &own.release.strategy else { panic!("no canary is planned") };
                let wanted = usize::try_from(plan.copies_at(0)).expect("a few");
                let started = |version| {
                    let mut copies = Copies { wanted, version, surge: 1, unavailable: 0, pods: Vec::new() };
                    copies.fill(now);
                    copies
                };
                own.baseline = plan.has_baseline.then(|| started(Version::Old));
                own.canary = Some(started(Version::New));
            }
            Effect::Weigh { service, step } => {
                let own = &mut self.services[service];
                let Strategy::Canary(plan) = &own.release.strategy else { panic!("no canary is planned") };
                let copies = step.map(|step| usize::try_from(plan.copies_at(step)).expect("a few"));
                match (&plan.split, &mut own.canary) {
                    // Nothing but their number says what they get.
                    (Split::Consumers(_), Some(canary)) => {
                        canary.wanted = copies.unwrap_or(0);
                        canary.pods.truncate(canary.wanted);
                        return;
                    }
                    (Split::Copies(_), Some(canary)) => canary.wanted = copies.unwrap_or(canary.wanted),
                    _ => {}
                }
                own.weights = step.and_then(|step| plan.weights_at(step)).unwrap_or_default();
            }
            Effect::RemoveCanary { service } => {
                let own = &mut self.services[service];
                assert_eq!(own.weights, Weights::default(), "a canary goes while requests are sent to it");
                (own.canary, own.baseline) = (None, None);
            }
        }
    }

    pub(super) fn pass(&mut self, time: SignedDuration) {
        let seconds = time.as_secs_f64();
        self.now += seconds;
        let (now, fault) = (self.now, self.fault);
        for service in &mut self.services {
            let bad = (service.release.name == self.culprit).then_some(fault);
            service.stable.turn(now, bad);
            service.canary.iter_mut().chain(&mut service.baseline).for_each(|copies| copies.turn(now, bad));
            let silent = self.begun && bad == Some(Fault::Silence);
            let rate = if silent { 0.0 } else { service.requests_per_second };
            service.owed += rate * seconds;
            while service.owed >= 1.0 {
                service.owed -= 1.0;
                service.answer(now, bad, &mut self.random);
            }
        }
    }

    /// How many requests each version has got.
    pub(super) fn accounts(&self) -> String {
        let mut text = String::new();
        for service in self.services.iter().filter(|own| !own.accounts.is_empty()) {
            let parts = service.accounts.iter().map(|(version, (all, failed))| {
                let failed = if *failed > 0 { format!(", {failed} failed") } else { String::new() };
                format!("{version} {all}{failed}")
            });
            let (many, name) = (service.work.many(), &service.release.name);
            let _ = writeln!(text, "  {many} to {name}: {}", parts.collect::<Vec<_>>().join("; "));
        }
        text
    }

    /// Whether what runs is what the end says.
    pub(super) fn is_tidy(&self, end: &Phase) -> bool {
        let version = if *end == Phase::Succeeded { Version::New } else { Version::Old };
        self.services.iter().all(|own| {
            own.canary.is_none()
                && own.baseline.is_none()
                && own.weights == Weights::default()
                && own.stable.pods.iter().all(|pod| pod.version == version)
        })
    }
}

impl Service {
    fn new(architecture: &Architecture, release: &ServiceRelease) -> Self {
        let declared = architecture.service(&release.name).expect("it is declared");
        let (surge, unavailable) = match &architecture.rollout(declared).value {
            Rollout::Rolling(rolling) => (rolling.max_surge.value, rolling.max_unavailable.value),
            Rollout::Canary(_) | Rollout::Recreate => (1, 0),
        };
        let few = |count: u32| usize::try_from(count).expect("a few");
        let mut stable = Copies {
            wanted: few(declared.replicas.floor()),
            version: Version::Old,
            surge: few(surge),
            unavailable: few(unavailable),
            pods: Vec::new(),
        };
        stable.fill(-100.0);
        let (judge, counted_by, split) = match (&release.strategy, &release.verified) {
            (Strategy::Canary(plan), _) => (Some(&plan.judge), Some(&plan.counted_by), Some(&plan.split)),
            (_, Some((judge, counted_by))) => (Some(judge), Some(counted_by), None),
            _ => (None, None, None),
        };
        let by_gateway = counted_by == Some(&CountedBy::Gateway);
        let (work, callers) = match split {
            Some(Split::Consumers(_)) => (Work::Messages, Callers::Queues),
            Some(Split::Route) => (Work::Requests, Callers::Outside),
            _ if by_gateway => (Work::Requests, Callers::Outside),
            _ => (Work::Requests, Callers::All),
        };
        Self {
            work,
            stable,
            canary: None,
            baseline: None,
            weights: Weights::default(),
            requests_per_second: requests_per_second(architecture, &release.name, callers).unwrap_or(0.0),
            owed: 0.0,
            limit: judge.and_then(|judge| judge.p99_ms).map_or(0.5, |limit| float(limit) / 1000.0),
            counted: Window::default(),
            accounts: BTreeMap::new(),
            release: release.clone(),
        }
    }

    fn look(&self, cluster: &Cluster) -> Workload {
        self.workload(&self.stable, None, cluster)
    }

    fn workload(&self, copies: &Copies, track: Option<Track>, cluster: &Cluster) -> Workload {
        let bad = (self.release.name == cluster.culprit).then_some(cluster.fault);
        let name = track.map_or_else(|| self.release.name.clone(), |track| track.name(&self.release.name));
        let own = || copies.pods.iter().filter(|pod| pod.version == copies.version);
        let ready = own().filter(|pod| pod.settled(cluster.now, bad)).count();
        let is_new = copies.version == Version::New;
        let hopeless = own().find(|pod| is_new && pod.waits_for_a_restart && pod.restarts >= 2);
        let crashes: i32 = own().map(|pod| pod.restarts + i32::from(pod.waits_for_a_restart)).sum();
        let few = |count: usize| i32::try_from(count).expect("a few");
        Workload {
            done: ready == copies.wanted && copies.pods.len() == copies.wanted,
            ready: few(ready),
            wanted: few(copies.wanted),
            hopeless: hopeless.map(|_| format!("pod `{name}-1`: CrashLoopBackOff: out of memory")),
            crashes: if is_new { crashes } else { 0 },
            troubles: format!("pod `{name}-1`: it runs, and its readiness probe does not pass"),
            name,
        }
    }

    /// One request, to one of the copies that are ready, or one message, which any of them takes.
    fn answer(&mut self, now: f64, bad: Option<Fault>, random: &mut StdRng) {
        let canary = self.canary.as_ref().map_or(0, |canary| canary.answering(now, bad));
        let track = match self.work {
            Work::Requests if self.canary.is_none() => None,
            Work::Requests => {
                let (at, Weights { canary, baseline }) = (random.random_range(0..1_000_000), self.weights);
                match at {
                    at if at < canary => Some(Track::Canary),
                    at if at < canary + baseline => Some(Track::Baseline),
                    _ => None,
                }
            }
            Work::Messages => {
                let is_canary = canary > 0 && random.random_range(0..canary + self.stable.answering(now, bad)) < canary;
                is_canary.then_some(Track::Canary)
            }
        };
        let copies = match track {
            Some(Track::Canary) => self.canary.as_ref(),
            Some(Track::Baseline) => self.baseline.as_ref(),
            None => None,
        };
        let copies = copies.unwrap_or(&self.stable);
        let ready: Vec<&Pod> = copies.pods.iter().filter(|pod| pod.answers(now, bad)).collect();
        let pod = match ready.len() {
            0 => None,
            some => Some(ready[random.random_range(0..some)]),
        };
        let is_cold = bad == Some(Fault::Cold) && pod.is_some_and(|pod| now < pod.begins + COLD_FOR);
        let version = pod.map(|pod| pod.version);
        let bad = bad.filter(|_| version == Some(Version::New));
        let failed = version.is_none() || bad == Some(Fault::Errors) && random.random_bool(0.05);
        let slowness = if bad == Some(Fault::Slow) { 3.0 } else { 1.0 };
        // Most are fast, and few are near the slowest.
        let warm = self.limit * OF_THE_LIMIT * slowness * (0.3 + 0.7 * random.random::<f64>().powi(8));
        let taken = if is_cold && random.random_bool(0.1) { 2.0 * self.limit } else { warm };
        // The old version is counted in the copies that the new one is compared with; after the canary nothing is compared.
        let counts = match track {
            Some(Track::Canary) => Some(&mut self.counted.canary),
            Some(Track::Baseline) => Some(&mut self.counted.stable),
            None => self.baseline.is_none().then_some(&mut self.counted.stable),
        };
        if let Some(counts) = counts {
            count(counts, failed, taken);
        }
        let name = match version {
            Some(Version::Old) => "old",
            Some(Version::New) => "new",
            None => "nobody",
        };
        let account = self.accounts.entry(name).or_default();
        account.0 += 1;
        account.1 += u64::from(failed);
    }
}

fn count(counts: &mut Counts, failed: bool, taken: f64) {
    if counts.buckets.is_empty() {
        counts.buckets = BOUNDS.iter().map(|bound| (*bound, 0)).collect();
    }
    *(if failed { &mut counts.bad } else { &mut counts.good }) += 1;
    counts.timed += 1;
    for (bound, count) in &mut counts.buckets {
        *count += u64::from(taken <= *bound);
    }
}

impl Pod {
    fn new(version: Version, now: f64) -> Self {
        Self { version, begins: now, restarts: 0, waits_for_a_restart: false }
    }

    fn answers(&self, now: f64, bad: Option<Fault>) -> bool {
        let never = self.version == Version::New && bad == Some(Fault::NeverReady);
        !never && !self.waits_for_a_restart && now >= self.begins + STARTS
    }

    fn settled(&self, now: f64, bad: Option<Fault>) -> bool {
        self.answers(now, bad) && now >= self.begins + STARTS + SETTLES
    }
}

impl Copies {
    fn answering(&self, now: f64, bad: Option<Fault>) -> usize {
        self.pods.iter().filter(|pod| pod.answers(now, bad)).count()
    }

    fn fill(&mut self, now: f64) {
        while self.pods.len() < self.wanted {
            self.pods.push(Pod::new(self.version, now));
        }
    }

    /// What the controllers and the machine do in a moment.
    fn turn(&mut self, now: f64, bad: Option<Fault>) {
        for pod in &mut self.pods {
            if pod.waits_for_a_restart && now >= pod.begins {
                (pod.waits_for_a_restart, pod.restarts) = (false, pod.restarts + 1);
            }
            let leaks = pod.version == Version::New && bad == Some(Fault::Leaks);
            if leaks && !pod.waits_for_a_restart && now >= pod.begins + LEAKS_FOR {
                // Kubernetes waits 10 s before the first restart, and doubles it.
                pod.waits_for_a_restart = true;
                pod.begins = now + 10.0 * 2_f64.powi(pod.restarts);
            }
        }
        let version = self.version;
        let settled = |pods: &[Pod]| pods.iter().filter(|pod| pod.settled(now, bad)).count();
        while self.pods.iter().filter(|pod| pod.version == version).count() < self.wanted
            && self.pods.len() < self.wanted + self.surge
        {
            self.pods.push(Pod::new(version, now));
        }
        while let Some(place) = self.pods.iter().position(|pod| pod.version != version) {
            let can_go = !self.pods[place].settled(now, bad) || settled(&self.pods) + self.unavailable > self.wanted;
            if !can_go {
                break;
            }
            self.pods.remove(place);
        }
    }
}

#[test]
fn a_played_deployment_is_never_below_the_wanted_copies() {
    let mut copies = Copies { wanted: 3, version: Version::Old, surge: 1, unavailable: 0, pods: Vec::new() };
    copies.fill(-100.0);
    copies.version = Version::New;
    for tick in 0..60_u32 {
        copies.turn(f64::from(tick), None);
        assert!(copies.pods.iter().filter(|pod| pod.settled(f64::from(tick), None)).count() >= 3);
    }
    assert!(copies.pods.iter().all(|pod| pod.version == Version::New) && copies.pods.len() == 3);
}

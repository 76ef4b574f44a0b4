//! Whole releases in a time of their own: the examples' own strategies, as planned for their production, on a cluster that is played,
//! with versions that are good or bad in each of the ways in which versions are bad.
//!
//! What is real is everything that decides: the plan, the state machine, what is made of a look at the cluster, the analysis. The
//! stories are files that people read, in `src/simulation/stories`.

mod cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use landfall_model::{Architecture, Baseline, DeployPolicy, File, IngressApi, Rollout};

use self::cluster::{Cluster, Fault};
use crate::metric::Asked;
use crate::observe::{allowed_seconds, observe};
use crate::plan::{self, Bounds, Counted, Live, PrometheusAt};
use crate::release::{ReleaseSpec, ReleaseStatus, ServiceRelease, Verification};
use crate::rollout::{Phase, Reason};

/// How often the cluster is looked at, as [`crate::carry()`] does.
const TICK: SignedDuration = SignedDuration::from_millis(500);

/// When people approve of a release that needs it.
const APPROVED_AFTER: SignedDuration = SignedDuration::from_secs(120);

/// No release takes as long.
const NEVER: SignedDuration = SignedDuration::from_hours(6);

const FAULTS: [Fault; 8] = [
    Fault::Good,
    Fault::NeverReady,
    Fault::Errors,
    Fault::Slow,
    Fault::Leaks,
    Fault::Silence,
    Fault::NoMetric,
    Fault::MetricVanishes,
];

/// An example, what is shipped of it, and which of these has the bad version.
struct Subject<'a> {
    example: &'static str,
    /// The folder of its stories.
    stories: &'static str,
    services: &'a [&'static str],
    culprit: &'static str,
    counted: Count,
    /// Which copies its canaries are compared with, if not those that its file says.
    baseline: Option<Baseline>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Count {
    Gateway,
    Prometheus,
}

fn architecture(example: &str) -> Architecture {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(example);
    let read = |path: &str| std::fs::read(folder.join(path)).map_err(|error| error.to_string());
    let bytes = read("landfall.yaml").expect("the example is there");
    let file = File::read("landfall.yaml", &bytes, &mut |path| read(path));
    file.architecture(Some("production")).unwrap_or_else(|findings| panic!("{findings:?}"))
}

/// What would be in the cluster if it were as the file says.
fn live(architecture: &Architecture, name: &str, count: Count, fault: Fault) -> Live {
    let service = architecture.service(name).expect("it is declared");
    let platform = &architecture.document.platform;
    let copies = service.replicas.floor();
    let at = PrometheusAt::Service { namespace: "monitoring".to_owned(), name: "prometheus-operated:9090".to_owned() };
    let is_counted = fault != Fault::NoMetric;
    let at = (is_counted && count == Count::Prometheus).then_some(at);
    let counted = Counted {
        by_gateway: is_counted && count == Count::Gateway,
        by_prometheus: at.clone(),
        why_not: "no Prometheus is found".to_owned(),
    };
    Live {
        copies,
        ready: copies,
        settled: true,
        autoscaler: service.replicas.scales().then(|| Bounds { floor: copies, ceiling: service.replicas.ceiling() }),
        routed: service.expose.is_some() && platform.ingress.api.value == IngressApi::Gateway,
        meshed: platform.mesh.is_some(),
        processed: Counted { by_gateway: false, ..counted.clone() },
        counted,
        asked: Asked::default(),
        settles_seconds: 5,
    }
}

/// The release, and what the plan says of it; what speaks against it otherwise.
fn propose(subject: &Subject<'_>, architecture: &Architecture, fault: Fault) -> (Result<ReleaseSpec, ()>, String) {
    let names: BTreeSet<String> = subject.services.iter().map(|name| (*name).to_owned()).collect();
    let declared = || names.iter().filter_map(|name| architecture.service(name));
    let verdicts = plan::verdicts(architecture, declared());
    let (mut services, mut text, mut refused) = (Vec::new(), String::new(), false);
    for name in plan::order(architecture, &names) {
        let service = architecture.service(&name).expect("it is declared");
        let live = live(architecture, &name, subject.counted, fault);
        match plan::plan(architecture, &name, service, &live, verdicts) {
            Ok(planned) => {
                let _ = writeln!(text, "  {name}: {}", planned.strategy.as_str());
                for line in &planned.lines {
                    let _ = writeln!(text, "    {line}");
                }
                services.push(ServiceRelease {
                    namespace: architecture.namespace().to_string(),
                    old_image: format!("{name}:1"),
                    new_image: format!("{name}:2"),
                    strategy: planned.strategy,
                    ready_within_seconds: planned.ready_within_seconds,
                    verified: planned.verified,
                    ..ServiceRelease::sample(&name)
                });
            }
            Err(why) => {
                refused = true;
                let _ = writeln!(text, "  {name}: refused: {why}");
            }
        }
    }
    let spec = ReleaseSpec {
        architecture: architecture.document.name.to_string(),
        automatic: architecture.document.delivery.rollback.automatic.value,
        verification: plan::is_verified(architecture).then_some(Verification {
            at_least_seconds: plan::VERIFY_AT_LEAST_SECONDS,
            within_seconds: plan::VERIFY_WITHIN_SECONDS,
        }),
        ..ReleaseSpec::sample(services)
    };
    (if refused { Err(()) } else { Ok(spec) }, text)
}

/// How a release ended, and its story.
struct Played {
    end: Option<Phase>,
    story: String,
}

fn play(subject: &Subject<'_>, fault: Fault) -> Played {
    let mut architecture = architecture(subject.example);
    let rollout = architecture.document.delivery.rollout.as_mut().map(|rollout| &mut rollout.value);
    if let (Some(baseline), Some(Rollout::Canary(canary))) = (subject.baseline, rollout) {
        canary.baseline.value = baseline;
    }
    let mut story = format!("{}, production: {} (`{}`)\n\nplanned\n", subject.example, fault.title(), subject.culprit);
    let (spec, planned) = propose(subject, &architecture, fault);
    story += &planned;
    let Ok(spec) = spec else {
        story += "\nrefused before anything changed\n";
        return Played { end: None, story };
    };
    story += "\nhappened\n";
    let begin: Timestamp = "2026-11-28T12:00:00Z".parse().expect("a time");
    let (mut now, mut status) = (begin, ReleaseStatus::default());
    let mut cluster = Cluster::new(&architecture, &spec, subject.culprit, fault);
    if architecture.environment().is_some_and(|own| own.deploy.value == DeployPolicy::Approval) {
        let _ = writeln!(story, "  00:00  it waits for an approval");
        while now.duration_since(begin) < APPROVED_AFTER {
            cluster.pass(TICK);
            now += TICK;
        }
        let _ = writeln!(story, "  {}  it is approved", clock(begin, now));
    }
    let approved = now;
    while !status.phase.is_terminal() {
        assert!(now.duration_since(approved) < NEVER, "it never ends:\n{story}{status:?}");
        for effect in std::mem::take(&mut status.pending) {
            cluster.perform(effect);
            status.since = Some(now.to_string());
        }
        let seen = cluster.look(&status.phase);
        if let Some(event) = observe(&spec, &mut status, &seen, now) {
            let (phase, since) = (status.phase.clone(), status.since.clone());
            if status.follow(&spec, &event, now) {
                let _ = writeln!(story, "  {}  {}", clock(begin, now), status.message);
                let since = since.map_or(approved, |since| since.parse().expect("it was written as a time"));
                let took = u64::try_from(now.duration_since(since).as_secs()).expect("time goes on");
                let allowed = allowed_seconds(&spec, &phase).unwrap_or(0);
                assert!(took <= allowed + 1, "{phase:?} took {took} s, and {allowed} s are declared:\n{story}");
            }
        }
        cluster.pass(TICK);
        now += TICK;
    }
    let _ = writeln!(story, "\nended\n  {} after {}", status.phase.name(), clock(approved, now));
    story += &cluster.accounts();
    assert!(cluster.is_tidy(&status.phase), "what runs is not what {:?} says:\n{story}", status.phase);
    Played { end: Some(status.phase), story }
}

fn clock(begin: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(begin).as_secs();
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}

/// The end that is right: of what is judged by its answers, and of what is only watched.
fn check(subject: &Subject<'_>, right: impl Fn(Fault) -> Option<Result<(), Reason>>) {
    let mut stories = BTreeMap::new();
    for fault in FAULTS {
        let played = play(subject, fault);
        let end = played.end.as_ref().map(|phase| match phase {
            Phase::Succeeded => Ok(()),
            Phase::RolledBack { cause } => Err(cause.reason),
            other => panic!("it ended as {other:?}:\n{}", played.story),
        });
        assert_eq!(end, right(fault), "{}:\n{}", fault.title(), played.story);
        stories.insert(format!("{}.txt", fault.name()), played.story);
    }
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/simulation/stories").join(subject.stories);
    landfall_testing::check_tree(&folder, &stories);
}

/// How a version ends that is judged by its answers and watched for crashes, as a canary or after it has replaced the other; `None`
/// is one that is never begun.
fn verified(fault: Fault) -> Option<Result<(), Reason>> {
    Some(match fault {
        Fault::Good | Fault::Cold => Ok(()),
        // What nobody counts can never be judged: refused before anything changes.
        Fault::NoMetric => return None,
        Fault::NeverReady => Err(Reason::NotReady),
        Fault::Errors | Fault::Slow => Err(Reason::Worse),
        Fault::Leaks => Err(Reason::Broken),
        Fault::Silence | Fault::MetricVanishes => Err(Reason::Undecided),
    })
}

#[test]
fn attendance_monitoring_replaces_copies_and_verifies_them() {
    let services = ["auth", "attendance", "geo", "notification", "report", "fraud-engine"];
    let subject = Subject {
        example: "attendance-monitoring",
        stories: "attendance-monitoring",
        services: &services,
        culprit: "geo",
        counted: Count::Gateway,
        baseline: None,
    };
    check(&subject, verified);
}

#[test]
fn composerp_replaces_three_services_and_verifies_them() {
    let services = ["inventory-ledger", "forecasting", "replenishment"];
    let subject = Subject {
        example: "composerp",
        stories: "composerp",
        services: &services,
        culprit: "inventory-ledger",
        counted: Count::Gateway,
        baseline: None,
    };
    check(&subject, verified);
}

#[test]
fn mindcompute_ships_by_canary_through_its_mesh_and_its_gateway() {
    let services = ["interview", "api-gateway", "notification"];
    let subject = Subject {
        example: "mindcompute",
        stories: "mindcompute",
        services: &services,
        culprit: "interview",
        counted: Count::Prometheus,
        baseline: None,
    };
    check(&subject, verified);
}

#[test]
fn a_good_version_whose_fresh_copies_are_slow_passes_beside_a_baseline_that_is_as_fresh() {
    let subject = |stories, baseline| Subject {
        example: "mindcompute",
        stories,
        services: &["interview"],
        culprit: "interview",
        counted: Count::Prometheus,
        baseline,
    };
    let story = |subject: &Subject<'_>| {
        let played = play(subject, Fault::Cold);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/simulation/stories").join(subject.stories);
        landfall_testing::check_tree(&folder, &BTreeMap::from([("cold.txt".to_owned(), played.story)]));
        played.end
    };
    assert_eq!(story(&subject("baseline-fresh", Some(Baseline::Auto))), Some(Phase::Succeeded));
    let end = story(&subject("baseline-stable", Some(Baseline::Stable)));
    assert!(matches!(&end, Some(Phase::RolledBack { cause }) if cause.reason == Reason::Worse), "{end:?}");
}

#[test]
fn mindcompute_judges_a_worker_by_the_messages_that_it_takes_from_its_queue() {
    let subject = Subject {
        example: "mindcompute",
        stories: "mindcompute-worker",
        services: &["evaluation"],
        culprit: "evaluation",
        counted: Count::Prometheus,
        baseline: None,
    };
    check(&subject, verified);
}

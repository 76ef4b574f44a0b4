//! How long each service and store is away, with the sum that says why.
//!
//! Not handled: the replay of the log after a restore, warming of caches, and a store that several restores share.

use std::fmt;

use landfall_model::{Duration, Engine, FailureKind, Name, Service, Span, Spanned, Spread, StandbyMode, Store};

use crate::facts;
use crate::rule::Context;
use crate::rules::derivation::{Derivation, Section, time, written};
use crate::rules::placement::Nodes;
use crate::rules::probes;
use crate::rules::recovery_point::{Keepers, backup_leaves_region};
use crate::rules::redundancy;

/// How long something is away; the worse, the greater.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bound {
    /// So long.
    AtMost(Duration),
    /// The file leaves out a number.
    Unknown,
    /// Nothing bounds it.
    Never,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(duration) => f.write_str(&time(*duration)),
            Self::Unknown => f.write_str("not known"),
            Self::Never => f.write_str("no bound"),
        }
    }
}

/// How long one thing is away.
pub(super) struct Part {
    pub(super) subject: String,
    pub(super) bound: Bound,
    /// The sum with its terms named.
    pub(super) sum: String,
    /// The value to change.
    pub(super) span: Span,
    pub(super) help: &'static str,
    /// Whether it is a bucket, whose versions may bring back what is corrupted; the file has no word for them.
    pub(super) may_keep_versions: bool,
}

/// A sum in the making: `50s (silent) + 300s (tolerated)`.
#[derive(Default)]
struct Sum {
    total: Duration,
    terms: Vec<String>,
}

impl Sum {
    fn add(mut self, duration: Duration, what: &str) -> Self {
        self.total = self.total + duration;
        self.terms.push(format!("{duration} ({what})"));
        self
    }

    fn part(self, subject: String, span: Span, help: &'static str) -> Part {
        Part {
            subject,
            bound: Bound::AtMost(self.total),
            sum: self.terms.join(" + "),
            span,
            help,
            may_keep_versions: false,
        }
    }
}

fn never(subject: String, why: &str, span: Span, help: &'static str) -> Part {
    Part { subject, bound: Bound::Never, sum: why.to_owned(), span, help, may_keep_versions: false }
}

/// A pod, a node or a zone: every service and every store.
pub(super) fn local(context: &Context<'_>, kind: FailureKind, derivation: &mut Derivation) -> Vec<Part> {
    let document = &context.architecture.document;
    let version = document.platform.kubernetes.as_ref();
    let surroundings = Surroundings {
        detect: facts::node_monitor_grace(version.map(|version| version.as_str())),
        zones: context.architecture.zones().len(),
        fullest: Nodes::of(context.architecture)
            .map_or(1, |nodes| (0..nodes.zones.len()).map(|zone| nodes.in_zone(zone)).max().unwrap_or(1).max(1)),
    };
    let services = document.services.iter().filter(|(_, service)| service.must_be_available());
    let services: Vec<Part> =
        services.map(|(name, service)| service_part(kind, name, service, &surroundings, derivation)).collect();
    let primary = context.architecture.primary_region().map(|(name, _)| name.as_str());
    let here = |store: &Store| store.region.as_ref().is_none_or(|region| Some(region.as_str()) == primary);
    let stores = document.stores.iter().filter(|(_, store)| here(store));
    let stores: Vec<Part> = stores.map(|(name, store)| store_part(context, kind, name, store, derivation)).collect();
    services.into_iter().chain(stores).collect()
}

struct Surroundings {
    detect: Duration,
    zones: usize,
    /// How many nodes the fullest zone has.
    fullest: u32,
}

/// No number in the file is faster than the node monitor of the cluster.
const UNNOTICED: &str =
    "promise more time: until then nobody knows that a node is dead, and copies on it still get requests";

fn service_part(
    kind: FailureKind,
    name: &Spanned<Name>,
    service: &Service,
    around: &Surroundings,
    derivation: &mut Derivation,
) -> Part {
    let subject = format!("service.{name}");
    let floor = service.replicas.floor();
    let bound = service.replicas.min.or(service.replicas.count).map_or(name.span, |count| count.span);
    let second = "run two copies at least";
    let silent = Sum::default().add(around.detect, "the node is silent");
    let apart = |spread: Spread| floor >= 2 && spread != Spread::None;
    let start = |sum: Sum, derivation: &mut Derivation| {
        derivation.uses(&format!("services.{name}.startup"), &service.startup, Section::Given);
        sum.add(service.startup.value, "start")
    };
    match kind {
        FailureKind::Pod if floor >= 2 => match &service.probes.ready {
            Some(ready) => {
                let sum = Sum::default().add(probes::notices_after(ready), "the readiness probe gives up");
                sum.part(
                    subject,
                    written([ready.period.span, ready.failures.span, name.span]),
                    "ask more often, or give up earlier",
                )
            }
            None => Sum::default().add(Duration::ZERO, "a crash is seen at once").part(subject, name.span, second),
        },
        FailureKind::Pod => {
            let sum = match &service.probes.live {
                Some(live) => {
                    derivation.uses(&format!("services.{name}.grace"), &service.grace, Section::Given);
                    Sum::default()
                        .add(probes::notices_after(live), "the liveness probe gives up")
                        .add(service.grace.value, "grace")
                }
                None => Sum::default().add(Duration::ZERO, "a crash is seen at once"),
            };
            start(sum, derivation).part(subject, bound, second)
        }
        FailureKind::Node if apart(service.placement.nodes.value) => silent.part(subject, name.span, UNNOTICED),
        FailureKind::Node => {
            let span = if floor >= 2 { service.placement.nodes.span } else { bound };
            let help = if floor >= 2 { "keep copies apart: `placement.nodes: preferred`" } else { second };
            start(silent.add(facts::UNREACHABLE_TOLERATION, "tolerated"), derivation).part(
                subject,
                written([span, name.span]),
                help,
            )
        }
        _ if around.zones < 2 => never(subject, "there is no other zone", name.span, "declare three zones"),
        _ if apart(service.placement.zones.value) => silent.part(subject, name.span, UNNOTICED),
        _ => {
            let queue = facts::NODE_EVICTION_INTERVAL * u64::from(around.fullest - 1);
            let sum = silent
                .add(facts::UNREACHABLE_TOLERATION, "tolerated")
                .add(queue, "one node after the other is evicted");
            let span = if floor >= 2 { service.placement.zones.span } else { bound };
            let help = if floor >= 2 { "spread copies: `placement.zones: preferred`" } else { second };
            start(sum, derivation).part(subject, written([span, name.span]), help)
        }
    }
}

fn store_part(
    context: &Context<'_>,
    kind: FailureKind,
    name: &Spanned<Name>,
    store: &Store,
    derivation: &mut Derivation,
) -> Part {
    let subject = format!("store.{name}");
    let members = written([store.members.span, name.span]);
    let third = "give it members in other zones: `members: 3`";
    derivation.uses(&format!("stores.{name}.failover"), &store.failover, Section::Given);
    let takes_over = || Sum::default().add(store.failover.value, "another member takes over");
    let faster = written([store.failover.span, name.span]);
    match kind {
        FailureKind::Pod | FailureKind::Node if redundancy::fails_over(store) => {
            takes_over().part(subject, faster, "measure `failover`, and declare it")
        }
        FailureKind::Pod => {
            let sum = Sum::default().add(store.failover.value, "it starts again; `failover` stands for that");
            sum.part(subject, faster, third)
        }
        FailureKind::Node if store.provider.is_managed() => {
            Sum::default().add(store.failover.value, "the provider replaces the machine").part(subject, faster, third)
        }
        FailureKind::Node if store.own_machines.value => {
            never(subject, "a machine of its own has to be replaced", members, third)
        }
        FailureKind::Node => {
            let span = if store.members.value == 1 { members } else { written([store.provider.span, name.span]) };
            let help = if store.members.value == 1 { third } else { "let an operator run it: `provider: operator`" };
            never(subject, "its pod stays Terminating on the dead node and keeps its volume", span, help)
        }
        _ => {
            let zones = redundancy::zones_used(context.architecture, store);
            let lost = redundancy::most_in_one_zone(context.architecture, store);
            let survives = redundancy::after_losing(store, lost, zones);
            if zones >= 2 && redundancy::fails_over(store) && (survives.serves || store.provider.is_managed()) {
                return takes_over().part(subject, faster, "measure `failover`, and declare it");
            }
            let help = if zones < 2 || store.members.value < 3 {
                third
            } else if zones < 3 {
                "spread its members over three zones"
            } else {
                "let the members that are left serve on: `zone-loss` says what they lack"
            };
            let why = if redundancy::fails_over(store) {
                survives.why
            } else {
                "nobody takes over in another zone".to_owned()
            };
            match restore(context, name, store, derivation) {
                Some(part) if store.backup.is_some() => {
                    Part { sum: format!("{why}, so it is restored: {}", part.sum), span: members, help, ..part }
                }
                _ => never(subject, &format!("{why}, and it waits until the zone is back"), members, help),
            }
        }
    }
}

/// The region is lost: people decide, data is promoted or restored, copies start, names move, people verify.
pub(super) fn region(context: &Context<'_>, keepers: &Keepers<'_>, derivation: &mut Derivation) -> Vec<Part> {
    let document = &context.architecture.document;
    let recovery = &document.recovery;
    let Some(standby) = &recovery.standby else {
        let span = context.architecture.primary_region().map_or(document.name.span, |(name, _)| name.span);
        let why = "no standby region is declared: nobody knows where the platform would start";
        return vec![never("recovery.region".to_owned(), why, span, "declare `recovery.standby: { region: … }`")];
    };
    let section = Section::from(standby.assumed);
    derivation.uses("recovery.decide", &recovery.decide, Section::Given);
    derivation.uses("recovery.verify", &recovery.verify, Section::Given);
    derivation.uses("recovery.standby.dns-ttl", &standby.dns_ttl, section);
    let start = if standby.mode.value == StandbyMode::Hot { Duration::ZERO } else { standby.start.value };
    if standby.mode.value != StandbyMode::Hot {
        derivation.uses("recovery.standby.start", &standby.start, section);
    }
    let around = |data: Duration, how: &str| {
        Sum::default()
            .add(recovery.decide.value, "people notice and decide")
            .add(data, how)
            .add(start, "the standby starts")
            .add(standby.dns_ttl.value, "clients keep the old address")
            .add(recovery.verify.value, "people verify")
    };
    let primary = context.architecture.primary_region().map(|(name, _)| name.as_str());
    let here =
        keepers.iter().filter(|(_, store)| store.region.as_ref().is_none_or(|region| Some(region.as_str()) == primary));
    let mut parts: Vec<Part> = here
        .map(|(name, store)| {
            let subject = format!("store.{name}");
            let replicated = recovery.replication.iter().any(|replication| replication.store.as_str() == name.as_str());
            if replicated || store.engine.value.is_broker() {
                let how = if replicated { "the copy is promoted" } else { "it starts empty" };
                derivation.uses(&format!("stores.{name}.failover"), &store.failover, Section::Given);
                return around(store.failover.value, how).part(
                    subject,
                    standby.region.span,
                    "keep more of the platform warm",
                );
            }
            if !backup_leaves_region(context.architecture, store) {
                return never(
                    subject,
                    "neither a copy nor a backup of it is outside the region",
                    name.span,
                    "replicate it, or keep a backup in another region",
                );
            }
            let Some((took, how, span)) = restoring(name, store, derivation) else {
                return unknown_size(subject, name);
            };
            around(took, &how).part(subject, span, "keep a replica in the other region instead of restoring")
        })
        .collect();
    if parts.is_empty() {
        parts.push(around(Duration::ZERO, "no data").part(
            "recovery.region".to_owned(),
            standby.region.span,
            "keep more of the platform warm",
        ));
    }
    parts
}

/// Data is corrupted: people decide, the store is restored to a point in time, people verify.
pub(super) fn corruption(context: &Context<'_>, keepers: &Keepers<'_>, derivation: &mut Derivation) -> Vec<Part> {
    let judged = keepers.iter().filter(|(_, store)| store.backup.is_some() || !store.engine.value.is_broker());
    judged
        .map(|(name, store)| {
            let subject = format!("store.{name}");
            if store.backup.is_none() {
                let help = "back it up: `backup: { full: 24h, log: 5m }`";
                let part = never(subject, "there is no backup to go back to", name.span, help);
                return Part { may_keep_versions: store.engine.value == Engine::S3, ..part };
            }
            restore(context, name, store, derivation).unwrap_or_else(|| unknown_size(subject, name))
        })
        .collect()
}

/// People decide, the store is restored from a backup and started, people verify. `None` without a size.
fn restore(context: &Context<'_>, name: &Spanned<Name>, store: &Store, derivation: &mut Derivation) -> Option<Part> {
    let recovery = &context.architecture.document.recovery;
    let (took, how, span) = restoring(name, store, derivation)?;
    derivation.uses("recovery.decide", &recovery.decide, Section::Given);
    derivation.uses("recovery.verify", &recovery.verify, Section::Given);
    derivation.uses(&format!("stores.{name}.failover"), &store.failover, Section::Given);
    derivation.assumes("replaying the log after a restore takes no time of its own");
    let sum = Sum::default()
        .add(recovery.decide.value, "people notice and decide")
        .add(took, &how)
        .add(store.failover.value, "it starts")
        .add(recovery.verify.value, "people verify");
    Some(sum.part(format!("store.{name}"), span, "restore faster, hold less data, or promise more time"))
}

/// How long the data takes: `100Gi ÷ 100MB/s`.
fn restoring(name: &Spanned<Name>, store: &Store, derivation: &mut Derivation) -> Option<(Duration, String, Span)> {
    let data = store.data.or(store.size)?;
    if store.data.is_none() {
        derivation.assumes(format!("`stores.{name}.data` is the whole volume, {data} (default)"));
    }
    derivation.uses(&format!("stores.{name}.restore"), &store.restore, Section::Given);
    let took = Duration::from(store.restore.time_for(data.value));
    Some((took, format!("restore {data} ÷ {}", store.restore), written([data.span, store.restore.span, name.span])))
}

fn unknown_size(subject: String, name: &Spanned<Name>) -> Part {
    let sum = "neither `data` nor `size` says how much there is to restore".to_owned();
    let help = "say how much it holds: `data: 100Gi`";
    Part { subject, bound: Bound::Unknown, sum, span: name.span, help, may_keep_versions: false }
}

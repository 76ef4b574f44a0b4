//! How much of a year each service, store and external is away by itself.
//!
//! Not handled: failure rates of one's own, for which the language has no word; software that fails; pools of one node
//! that several single copies share.

use landfall_model::{Element, External, Percent, Service, Span, Spread, Store};

use crate::facts;
use crate::rule::Context;
use crate::rules::derivation::{Derivation, Section, float, written};
use crate::rules::{redundancy, single_replica};

/// One part of a series.
pub(super) struct Part {
    /// The share of time in which it is away.
    pub(super) away: f64,
    /// Whether it is away with one zone, which it shares with others.
    pub(super) in_one_zone: bool,
    /// Whether nobody knows.
    pub(super) is_unknown: bool,
    pub(super) why: String,
    pub(super) assumed: Derivation,
    /// The value to change.
    pub(super) span: Span,
    pub(super) help: &'static str,
}

/// Assesses elements of one architecture.
pub(super) struct Assessor<'a> {
    context: &'a Context<'a>,
    /// Seconds until a dead node counts as silent.
    detect: f64,
    zones: usize,
}

impl<'a> Assessor<'a> {
    pub(super) fn new(context: &'a Context<'a>) -> Self {
        let version = context.architecture.document.platform.kubernetes.as_ref();
        let detect = facts::node_monitor_grace(version.map(|version| version.as_str())).as_secs_f64();
        Self { context, detect, zones: context.architecture.zones().len() }
    }

    /// The share of time that so many parts, each in one zone, lose with their zones: in the worst case each has its own.
    pub(super) fn zone_fate(&self, parts: usize) -> f64 {
        let outages = u32::try_from(parts.min(self.zones.max(1))).unwrap_or(u32::MAX);
        f64::from(outages) * facts::ZONE_OUTAGE_PER_YEAR.as_secs_f64() / facts::YEAR_SECONDS
    }

    pub(super) fn assess(&self, element: &Element) -> Part {
        let architecture = self.context.architecture;
        let span = architecture.span_of(element);
        let name = element.name();
        match element {
            Element::Service(_) => architecture.service(name).map(|service| self.service(name, service, span)),
            Element::Store(_) => architecture.store(name).map(|store| self.store(name, store, span)),
            Element::External(_) => architecture.external(name).map(|external| Self::external(name, external, span)),
            Element::Client => None,
        }
        .unwrap_or_else(|| Part::new(0.0, "outside", span))
    }

    fn service(&self, name: &str, service: &Service, span: Span) -> Part {
        let floor = service.replicas.floor();
        let failures = f64::from(facts::NODE_FAILURES_PER_YEAR);
        let exposure = single_replica::exposure(self.context, service).as_secs_f64();
        let drained = (service.grace.value + service.startup.value).as_secs_f64();
        let alone = (failures * exposure + f64::from(facts::NODE_UPGRADES_PER_YEAR) * drained) / facts::YEAR_SECONDS;
        let over_zones = self.zones >= 2 && service.placement.zones.value != Spread::None;
        let mut part = if floor == 0 {
            Part::new(1.0, "no copy needs to run", span)
        } else if floor == 1 || service.placement.nodes.value == Spread::None {
            // With several zones a copy starts again in another one.
            let zone = if self.zones >= 2 { exposure / facts::YEAR_SECONDS } else { 0.0 };
            let why = if floor == 1 {
                "one copy: started elsewhere when its node dies or is drained"
            } else {
                "copies may share a node"
            };
            Part::new(alone + zone, why, span)
        } else {
            // A dead node swallows 1/n of the requests, and there are n copies whose nodes may die: n cancels out.
            let swallowed = failures * self.detect / facts::YEAR_SECONDS;
            let zone = if over_zones { self.detect / facts::YEAR_SECONDS } else { 0.0 };
            let all = (failures * exposure / facts::YEAR_SECONDS).powi(i32::try_from(floor).unwrap_or(i32::MAX));
            Part::new(swallowed + zone + all, format!("{floor} copies in parallel"), span)
        };
        part.in_one_zone = self.zones < 2 || (floor >= 2 && !over_zones);
        part.assumed.uses(&format!("services.{name}.startup"), &service.startup, Section::Given);
        part.span = written([service.replicas.min.or(service.replicas.count).map_or(span, |count| count.span), span]);
        part.help = "run more copies, or make the edge to it `optional`";
        part
    }

    fn store(&self, name: &str, store: &Store, span: Span) -> Part {
        if let Some(declared) = store.availability {
            let mut part = Part::new(away(declared.value), format!("{declared} declared"), declared.span);
            part.help = "take a better class of the store, or make the edge to it `optional`";
            return part;
        }
        let members = store.members.value;
        let failures = f64::from(facts::NODE_FAILURES_PER_YEAR);
        let failover = store.failover.value.as_secs_f64();
        let zones = redundancy::zones_used(self.context.architecture, store);
        let lost = redundancy::most_in_one_zone(self.context.architecture, store);
        let takes_over = redundancy::fails_over(store);
        let survives_zone = takes_over && zones >= 2 && redundancy::after_losing(store, lost, zones).serves;
        let mut part = if store.provider.is_managed() {
            let (promised, which) = if redundancy::is_regional(store) {
                (facts::MANAGED_BUCKET_AVAILABILITY_MILLIONTHS, "a managed bucket")
            } else if members >= 2 {
                (facts::MANAGED_AVAILABILITY_MILLIONTHS, "a managed store with a standby")
            } else {
                (facts::MANAGED_SINGLE_AVAILABILITY_MILLIONTHS, "a managed store alone")
            };
            let mut part = Part::new(1.0 - f64::from(promised) / 1e6, which, span);
            part.assumed.assumes(format!("`stores.{name}.availability` is that of common agreements (default)"));
            part
        } else if takes_over {
            let zone = if survives_zone { failover } else { 0.0 };
            let why = format!("{members} members, another takes over in {}", store.failover);
            let mut part = Part::new((failures * failover + zone) / facts::YEAR_SECONDS, why, span);
            part.in_one_zone = !survives_zone;
            part
        } else {
            let decide = self.context.architecture.document.recovery.decide;
            let by_hand = decide.as_secs_f64() + failover;
            let upgrades = f64::from(facts::NODE_UPGRADES_PER_YEAR) * failover;
            let why = format!(
                "a person brings it back after {decide}, and each drained node stops it for {}",
                store.failover
            );
            let mut part = Part::new((failures * by_hand + upgrades) / facts::YEAR_SECONDS, why, span);
            part.in_one_zone = true;
            part.assumed.uses("recovery.decide", &decide, Section::Given);
            part
        };
        part.assumed.uses(&format!("stores.{name}.failover"), &store.failover, Section::Given);
        part.span = written([store.members.span, span]);
        part.help = "give it members to fail over to, in other zones: `members: 3`";
        part
    }

    fn external(name: &str, external: &External, span: Span) -> Part {
        let help = "make the edge to it `optional`, or agree on more with its owner";
        let section = Section::from(external.assumed || external.profile.assumed);
        let mut part = if let Some(declared) = external.availability {
            let mut part = Part::new(away(declared.value), format!("{declared} declared"), declared.span);
            part.assumed.uses(&format!("externals.{name}.availability"), &declared, section);
            part
        } else if let Some(errors) = external.profile.errors {
            let mut part = Part::new(errors.fraction(), format!("{errors} of its answers are errors"), errors.span);
            part.assumed.uses(&format!("externals.{name}.profile.errors"), &errors, section);
            part
        } else {
            let mut part = Part::new(0.0, "declares no availability", span);
            part.is_unknown = true;
            part
        };
        part.span = written([part.span, span]);
        part.help = help;
        part
    }
}

impl Part {
    fn new(away: f64, why: impl Into<String>, span: Span) -> Self {
        Self {
            away: away.clamp(0.0, 1.0),
            in_one_zone: false,
            is_unknown: false,
            why: why.into(),
            assumed: Derivation::default(),
            span,
            help: "",
        }
    }
}

fn away(available: Percent) -> f64 {
    1.0 - float(u64::from(available.millionths())) / 1e6
}

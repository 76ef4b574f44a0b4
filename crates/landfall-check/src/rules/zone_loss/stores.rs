//! Whether each store serves on without the members of a zone.

use landfall_model::{Element, Finding, Span, Spanned, Store};

use super::NAME;
use crate::report::{Report, Verdict};
use crate::rule::Context;
use crate::rules::derivation::{Derivation, Section, Stake, count};
use crate::rules::placement::{Packing, Placement};
use crate::rules::redundancy;

/// One proof for each store in the primary region; a finding where a zone takes too many members with it.
pub(super) fn check(
    context: &Context<'_>,
    packed: Option<(&Placement<'_>, &Packing<'_>)>,
    (stake, promised): (Stake, Option<Span>),
    report: &mut Report,
) {
    let architecture = context.architecture;
    let primary = architecture.primary_region().map(|(name, _)| name.as_str());
    for (name, store) in &architecture.document.stores {
        let elsewhere = store.region.as_ref().is_some_and(|region| Some(region.as_str()) != primary);
        if elsewhere || redundancy::is_regional(store) {
            continue;
        }
        let element = Element::Store(name.value.clone());
        let group = packed.and_then(|(placement, packing)| Some((placement.pods.position(&element)?, packing)));
        let placed = group.map(|(group, packing)| packing.by_zone(group));
        // Members that have no place stand in the zones one after the other once `capacity` is satisfied.
        let by_zone = placed
            .filter(|placed| placed.iter().sum::<u32>() == store.members.value)
            .unwrap_or_else(|| members_by_zone(context, store));
        let missing = group.map_or(0, |(group, packing)| u64::from(store.members.value) - packing.copies(group) as u64);
        // A member without a volume starts again elsewhere.
        let comes_back =
            packed.zip(group).is_some_and(|((placement, _), (group, _))| !placement.pods.groups[group].is_pinned);
        let zones = u32::try_from(by_zone.iter().filter(|members| **members > 0).count()).unwrap_or(u32::MAX);
        let mut derivation = Derivation::default();
        derivation.uses(&format!("stores.{name}.members"), &store.members, Section::from(store.assumed));
        let mut failing = Vec::new();
        for (zone, lost) in architecture.zones().iter().zip(&by_zone) {
            let survival = redundancy::after_losing(store, *lost, zones);
            let serves = survival.serves || comes_back;
            let back =
                if comes_back && *lost > 0 { "; without a zonal volume the lost ones start elsewhere" } else { "" };
            derivation.line(format!("without zone `{zone}`: {}{back}", survival.why));
            if !serves {
                failing.push((zone, survival.why));
            }
        }
        let verdict = match (failing.is_empty(), missing) {
            (false, 0) => Verdict::Refuted,
            (true, 0) => Verdict::Proved,
            // Where the members would stand is not known: the cause is the room, which `capacity` tells of.
            (_, _) => {
                failing.clear();
                derivation.line(format!(
                    "but {} of {} have no place at all: see `capacity`",
                    count(missing, "member"),
                    store.members
                ));
                Verdict::Undecided
            }
        };
        if let Some((zone, why)) = failing.first() {
            let at = if store.members.span.is_written() { store.members.span } else { name.span };
            let message = format!("`{name}` stops when zone `{zone}` is lost: {why}");
            let mut finding = Finding::new(NAME, stake.severity(context), at, message).on(element.to_string());
            finding.why = derivation.lines().to_vec();
            finding = finding.also(zone.span, "this zone is lost");
            if let Some(promised) = promised {
                finding = finding.also(promised, "the promise");
            }
            report.findings.push(finding.help(advice(store, architecture.zones().len())));
        }
        let statement = format!("`{name}` serves on without any one zone");
        report.proofs.push(derivation.proof(NAME, element.to_string(), statement, verdict, name.span));
    }
}

fn advice(store: &Store, zones: usize) -> &'static str {
    if store.members.value == 1 {
        "give it members in other zones: `members: 3`"
    } else if zones < 3 && redundancy::elects_by_majority(store.engine.value) {
        "a majority survives any one zone only with three zones: declare a third"
    } else if store.replication.is_some_and(|replication| Some(replication.value) <= store.in_sync.map(|n| n.value)) {
        "keep more replicas than must be in sync: `replication: 3`, `in-sync: 2`"
    } else {
        "add members, one in each zone at least"
    }
}

/// Members that are not placed by the scheduler stand in the zones one after the other.
fn members_by_zone(context: &Context<'_>, store: &Store) -> Vec<u32> {
    let zones = context.architecture.zones();
    let own: Vec<usize> = if store.zones.is_empty() {
        (0..zones.len()).collect()
    } else {
        let position = |zone: &Spanned<landfall_model::Name>| zones.iter().position(|known| known.value == zone.value);
        store.zones.iter().filter_map(position).collect()
    };
    let mut counts = vec![0; zones.len()];
    let among = u32::try_from(own.len().max(1)).unwrap_or(u32::MAX);
    for (position, zone) in (0..).zip(own) {
        counts[zone] += store.members.value / among + u32::from(position < store.members.value % among);
    }
    counts
}

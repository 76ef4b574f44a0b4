//! `zone-loss`: takes each zone away and packs what was in it again.

mod stores;

use std::collections::{BTreeMap, BTreeSet};

use landfall_model::{Finding, Name, Service, Span, Spanned};

use super::derivation::{Derivation, Stake, count, len, list};
use super::placement::{Amount, Obstacle, Packing, Placement, Unplaced};
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};

const NAME: &str = "zone-loss";

pub(super) const RULE: Rule = Rule {
    name: NAME,
    subject: Subject::Capacity,
    severity: landfall_model::Severity::Error,
    summary: "Losing any zone leaves room for every pod, and every store keeps serving.",
    explanation: "\
A zone fails as a whole: its nodes, and the volumes that cannot leave it. The rule spreads the nodes of each pool over \
its zones one by one, places every pod at its fewest copies, takes each zone away in turn, and packs what was in it on \
the nodes that are left. It obeys what the scheduler must obey: requests against what a node has after reservations, \
dedicated pools, copies that must keep apart, spread over zones with `maxSkew: 1`, and a member's volume that stays in \
its zone. Reservations are as declared, else by the formula that GKE or EKS publishes \
(https://cloud.google.com/kubernetes-engine/docs/concepts/plan-node-sizes). What is placed first is what is larger: a \
success shows one placement that the scheduler may choose.

A required spread over zones counts the nodes of a lost zone as long as they are registered, unless the constraint \
says `nodeTaintsPolicy: Honor` \
(https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/): copies may then wait although \
there is room. A preferred spread is honoured when pods are placed and never again (kubernetes/kubernetes#98215).

A store serves on if its engine's rule is met by the members that are left: a majority for MongoDB, RabbitMQ, \
Elasticsearch and Kafka's controllers, `in-sync` replicas of each of Kafka's partitions, a copy of each shard of Redis, \
a member of PostgreSQL, and one more to wait for if commits are synchronous.",
    passing: include_str!("../../tests/it/rules/zone-loss/ok.yaml"),
    failing: include_str!("../../tests/it/rules/zone-loss/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    let architecture = context.architecture;
    let promise = architecture.document.objectives.recovery.zone.as_ref();
    let promised = promise.and_then(|promise| promise.rto.map(|rto| rto.span).or(promise.rpo.map(|rpo| rpo.span)));
    let stake = Stake::of(promised);
    if architecture.zones().len() < 2 {
        if let Some(promised) = promised {
            one_zone(context, promised, report);
        }
        return;
    }
    let placement = context.placement.as_ref();
    let at_rest = placement.map(|placement| (placement, placement.at_floors()));
    let mut waiting = Waiting::new();
    for zone in architecture.zones() {
        lose(context, zone, at_rest.as_ref(), (stake, promised), &mut waiting, report);
    }
    if let (None, Some(promised)) = (&at_rest, promised) {
        no_nodes(context, promised, report);
    }
    if let Some((placement, _)) = &at_rest {
        wait(context, placement, &waiting, report);
    }
    stores::check(
        context,
        at_rest.as_ref().map(|(placement, (packing, _))| (*placement, packing)),
        (stake, promised),
        report,
    );
}

/// The copies that wait although there is room, by group: after the loss of which zone, how many copies run on, and what
/// keeps the others out.
type Waiting<'a> = BTreeMap<usize, Vec<(&'a Spanned<Name>, u64, Unplaced)>>;

/// Says once for each group that some of its copies wait until the zone is back.
fn wait(context: &Context<'_>, placement: &Placement<'_>, waiting: &Waiting<'_>, report: &mut Report) {
    for (group, losses) in waiting {
        let group = &placement.pods.groups[*group];
        let (_, fewest, unplaced) =
            losses.iter().min_by_key(|(_, survivors, _)| *survivors).expect("a group waits for a zone");
        let zones: BTreeSet<&Spanned<Name>> = losses.iter().map(|(zone, ..)| *zone).collect();
        let any = zones.len() == context.architecture.zones().len();
        let which = if any { "any zone".to_owned() } else { format!("zone {}", list(zones)) };
        let message =
            format!("{} runs with {fewest} of {} copies after the loss of {which}", group.element, group.floor);
        let finding = Finding::new(NAME, Stake::Risk.severity(context), group.span, message)
            .because(describe(placement, unplaced));
        report.findings.push(finding.on(group.element.to_string()).help(match unplaced.why {
            Obstacle::Zones => {
                "spread with `placement.zones: preferred`, or let the constraint honour taints by a patch"
            }
            _ => "keep copies apart with `placement.nodes: preferred`, or add nodes to the other zones",
        }));
    }
}

fn one_zone(context: &Context<'_>, promised: Span, report: &mut Report) {
    let zones = context.architecture.zones();
    let region = context.architecture.primary_region().map_or(Span::NONE, |(name, _)| name.span);
    let message = "the loss of a zone is promised to be survived, but there is no other zone";
    let finding = Finding::new(NAME, Stake::Promised.severity(context), promised, message);
    report.findings.push(
        finding
            .on("recovery.zone")
            .also(region, format!("{} declared", count(len(zones), "zone")))
            .help("declare three zones: `platform.regions.<region>.zones: [a, b, c]`"),
    );
    let mut derivation = Derivation::default();
    derivation.line(format!("the primary region has {}", count(len(zones), "zone")));
    let statement = "losing a zone leaves another one";
    report.proofs.push(derivation.proof(NAME, "recovery.zone", statement, Verdict::Refuted, promised));
}

/// A promise that nothing can be said about, because nobody says what there is to run on.
fn no_nodes(context: &Context<'_>, promised: Span, report: &mut Report) {
    let platform = &context.architecture.document.platform;
    let runs_here = context.architecture.document.services.values().any(Service::must_be_available);
    if !runs_here || platform.nodes.is_some() || !platform.pools.is_empty() {
        return;
    }
    let message = "nobody can say whether the loss of a zone leaves room: no nodes are declared";
    let finding = Finding::new(NAME, Stake::Risk.severity(context), promised, message).on("recovery.zone");
    report.findings.push(
        finding
            .label("the promise")
            .help("declare what the platform runs on: `platform.nodes: { count: 6, cpu: 4, memory: 16Gi }`"),
    );
}

fn lose<'a>(
    context: &Context<'_>,
    zone: &'a Spanned<Name>,
    at_rest: Option<&(&Placement<'_>, (Packing<'_>, Vec<Unplaced>))>,
    (stake, promised): (Stake, Option<Span>),
    waiting_copies: &mut Waiting<'a>,
    report: &mut Report,
) {
    let subject = format!("zone.{zone}");
    let statement = format!("losing zone `{zone}` leaves room for everything");
    let mut derivation = Derivation::default();
    let Some((placement, (packing, before))) = at_rest else {
        derivation.line("no node pool is declared, or more zones than any region has");
        report.proofs.push(derivation.proof(NAME, subject, statement, Verdict::Undecided, zone.span));
        return;
    };
    let groups = &placement.pods.groups;
    let index = placement.nodes.zones.iter().position(|known| *known == zone.as_str());
    let index = index.expect("the zones of the nodes are those of the region");
    let loss = packing.lose_zone(&placement.nodes, index);

    placement.describe(&mut derivation);
    let (nodes, bought, room) = placement.nodes.left_without(Some(index));
    let wanted = placement.pods.total(|group| group.floor);
    let nodes_left = count(nodes, "node");
    derivation.line(format!("without zone `{zone}`, {nodes_left} with {bought} are left; {room} can be requested"));
    derivation.line(format!("everything at its fewest copies requests {wanted}"));
    let waiting: Amount = groups.iter().zip(&loss.pinned).map(|(group, copies)| group.request * *copies).sum();
    if !waiting.is_nothing() {
        let names = groups.iter().zip(&loss.pinned).filter(|(_, copies)| **copies > 0);
        let names = list(names.map(|(group, copies)| format!("{} ({copies})", group.element)));
        derivation.line(format!("{waiting} of it waits for volumes that cannot leave the zone: {names}"));
    }
    let moved = groups.iter().zip(loss.lost.iter().zip(&loss.pinned)).filter(|(_, (lost, pinned))| lost > pinned);
    let moved = list(moved.map(|(group, (lost, pinned))| format!("{} ({})", group.element, lost - pinned)));
    if !moved.is_empty() {
        derivation.line(format!("to be placed again: {moved}"));
    }
    derivation.assumes("a preferred spread was honoured when the pods were placed");

    let mut missing = Amount::default();
    let mut refuted = false;
    let before = before.iter().map(|unplaced| ("with all zones there, ", unplaced));
    for (when, unplaced) in before.chain(loss.unplaced.iter().map(|unplaced| ("", unplaced))) {
        let group = &groups[unplaced.group];
        let survivors = packing.copies(unplaced.group) as u64 - u64::from(loss.lost[unplaced.group]);
        derivation.line(format!("{when}{}", describe(placement, unplaced)));
        let by_rule = matches!(unplaced.why, Obstacle::Nodes | Obstacle::Zones);
        if by_rule && survivors > 0 {
            waiting_copies.entry(unplaced.group).or_default().push((zone, survivors, unplaced.clone()));
        } else {
            refuted = true;
            missing += group.request * unplaced.copies;
        }
    }
    if refuted {
        let pool = placement.nodes.pools.iter().max_by_key(|pool| pool.count).expect("there is a pool");
        let message = format!("losing zone `{zone}` leaves too little room: {missing} find no place");
        let mut finding = Finding::new(NAME, stake.severity(context), pool.declared.count.span, message).on(&subject);
        finding = finding.label(format!("{nodes_left} left, with {room}"));
        finding = finding.also(zone.span, "this zone is lost");
        if let Some(promised) = promised {
            finding = finding.also(promised, "the promise");
        }
        finding.why = derivation.lines().to_vec();
        let per_node = pool.allocatable;
        let more =
            missing.cpu.div_ceil(per_node.cpu.max(1)).max(missing.memory.div_ceil(per_node.memory.max(1))).max(1);
        report
            .findings
            .push(finding.help(format!("add at least {} to the other zones, or request less", count(more, "node"))));
    }
    let verdict = if refuted {
        Verdict::Refuted
    } else if placement.pods.unknown.is_empty() {
        derivation.line("everything finds a place");
        Verdict::Proved
    } else {
        Verdict::Undecided
    };
    report.proofs.push(derivation.proof(NAME, subject, statement, verdict, zone.span));
}

/// `store.events: 2 of 5 copies of 4 CPU and 16 GiB find no node with room; …`.
pub(super) fn describe(placement: &Placement<'_>, unplaced: &Unplaced) -> String {
    let group = &placement.pods.groups[unplaced.group];
    let copies = match unplaced.copies {
        1 => format!("{}: a copy of {} finds", group.element, group.request),
        many => format!("{}: {many} copies of {} find", group.element, group.request),
    };
    match &unplaced.why {
        Obstacle::Room { most_free } => format!("{copies} no node with room; at most {most_free} are free on one"),
        Obstacle::Nodes => format!("{copies} room only on nodes that have a copy already, and copies must keep apart"),
        Obstacle::Zones => {
            format!("{copies} room only in zones that have more copies than others, and they must be spread evenly")
        }
        Obstacle::TooMany => format!("{copies} no cluster: none is tested with more than 150,000 pods"),
        Obstacle::Nowhere => format!("{copies} no node that they may run on"),
    }
}

#[cfg(test)]
mod tests;

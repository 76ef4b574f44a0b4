//! `capacity`: every pod fits on the nodes, at the fewest copies, during a rollout, and at the most.

use landfall_model::{Finding, Severity};

use super::derivation::{Derivation, Stake, count, len, list, percent};
use super::placement::{Amount, Obstacle, Packing, Placement, Unplaced};
use super::{rollout, zone_loss};
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};

const NAME: &str = "capacity";

/// From how many percent on the nodes count as full.
const FULL: u64 = 90;

pub(super) const RULE: Rule = Rule {
    name: NAME,
    subject: Subject::Capacity,
    severity: Severity::Error,
    summary: "Every pod fits on the nodes: at the fewest copies, during a rollout, at the most copies.",
    explanation: "\
The scheduler places a pod where its requests fit into what a node has after reservations; a pod that fits nowhere stays \
Pending. The rule sums requests and packs them, pool by pool, under the same rules as `zone-loss`: at the fewest copies \
of everything, with one service's rollout under way, and at the most copies of everything, scheduled jobs included. It \
compares with what is bought and with what can be requested: the difference is what the kubelet, the system and the \
eviction threshold keep (https://kubernetes.io/docs/tasks/administer-cluster/reserve-compute-resources/). A service that \
requests nothing is named, because nothing can be said about it.",
    passing: include_str!("../../tests/it/rules/capacity/ok.yaml"),
    failing: include_str!("../../tests/it/rules/capacity/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    let Some(placement) = context.placement.as_ref() else { return };
    let at_floors = placement.at_floors();
    floors(context, placement, &at_floors, report);
    if at_floors.1.is_empty() {
        during_rollouts(context, placement, at_floors.0, report);
        ceilings(context, placement, report);
    }
}

fn floors(
    context: &Context<'_>,
    placement: &Placement<'_>,
    (packing, unplaced): &(Packing<'_>, Vec<Unplaced>),
    report: &mut Report,
) {
    let statement = "everything fits at its fewest copies";
    let mut derivation = Derivation::default();
    placement.describe(&mut derivation);
    let wanted = placement.pods.total(|group| group.floor);
    let used = utilisation(placement, wanted, &mut derivation);
    for (pool, requested) in placement.nodes.pools.iter().zip(packing.requested_by_pool()) {
        if placement.nodes.pools.len() > 1 {
            let room = pool.allocatable * pool.count;
            derivation.line(format!(
                "placed on pool `{}`: {requested}, {} % and {} % of what can be requested",
                pool.name,
                percent(requested.cpu, room.cpu),
                percent(requested.memory, room.memory),
            ));
        }
    }
    for group in unplaced {
        derivation.line(zone_loss::describe(placement, group));
    }
    let largest = placement.nodes.pools.iter().max_by_key(|pool| pool.count).expect("there is a pool");
    let span = largest.declared.count.span;
    let node = placement.nodes.pools.iter().max_by_key(|pool| pool.allocatable.cpu).expect("there is a pool");
    let (_, bought, room) = placement.nodes.left_without(None);
    let (bought, room) = (bought - node.bought, room - node.allocatable);
    derivation.line(format!(
        "without one node, {bought} are left, of which {} is not requested; {room} can be requested",
        bought - wanted
    ));
    if let Some(message) = overflow(placement, unplaced) {
        let mut finding = Finding::error(NAME, span, message).on("platform.nodes");
        finding.why = derivation.lines().to_vec();
        finding = finding.label(format!("{} of {}", count(largest.count, "node"), largest.bought));
        for group in unplaced.iter().take(4) {
            let group = &placement.pods.groups[group.group];
            finding = finding.also(group.span, format!("requests {} {}", group.request, copies(group.floor)));
        }
        report.findings.push(finding.help(advice(placement, unplaced)));
    } else if !room.covers(wanted) && placement.nodes.left_without(None).0 > 1 {
        let message = format!("losing one node leaves too little room: {wanted} is requested of {room}");
        let promise =
            context.architecture.document.objectives.recovery.node.as_ref().and_then(|node| node.rto.or(node.rpo));
        let mut finding = Finding::new(NAME, Stake::of(promise).severity(context), span, message).on("platform.nodes");
        finding.why = derivation.lines().to_vec();
        if let Some(promise) = promise {
            finding = finding.also(promise.span, "the promise");
        }
        report.findings.push(finding.help("add a node, or request less"));
    } else if used >= FULL {
        let message = format!("{used} % of the nodes is requested: nothing is left for what the file does not name");
        let mut finding = Finding::new(NAME, Stake::Risk.severity(context), span, message).on("platform.nodes");
        finding.why = derivation.lines().to_vec();
        report.findings.push(finding.help("add a node, or request less"));
    }
    let verdict = verdict(placement, unplaced.is_empty());
    report.proofs.push(derivation.proof(NAME, "platform.nodes", statement, verdict, span));
}

fn copies(floor: u32) -> String {
    if floor == 1 { "once".to_owned() } else { format!("{floor} times") }
}

/// Adds what is requested of what there is; returns the fuller resource in percent of what can be requested.
fn utilisation(placement: &Placement<'_>, wanted: Amount, derivation: &mut Derivation) -> u64 {
    let (_, bought, room) = placement.nodes.left_without(None);
    derivation.line(format!(
        "requested: {wanted}, of {bought} bought ({} % and {} %), of {room} that can be requested ({} % and {} %)",
        percent(wanted.cpu, bought.cpu),
        percent(wanted.memory, bought.memory),
        percent(wanted.cpu, room.cpu),
        percent(wanted.memory, room.memory),
    ));
    percent(wanted.cpu, room.cpu).max(percent(wanted.memory, room.memory))
}

fn overflow(placement: &Placement<'_>, unplaced: &[Unplaced]) -> Option<String> {
    let missing: u64 = unplaced.iter().map(|unplaced| u64::from(unplaced.copies)).sum();
    let all: u64 = placement.pods.groups.iter().map(|group| u64::from(group.floor)).sum();
    (missing > 0).then(|| {
        format!("{} of {all} fit nowhere: {}", count(missing, "pod"), {
            list(unplaced.iter().map(|unplaced| &placement.pods.groups[unplaced.group].element))
        })
    })
}

fn advice(placement: &Placement<'_>, unplaced: &[Unplaced]) -> String {
    let of = |unplaced: &Unplaced| &placement.pods.groups[unplaced.group];
    let too_large = unplaced.iter().find(|unplaced| {
        let group = of(unplaced);
        !group.pools.iter().any(|pool| placement.nodes.pools[*pool].allocatable.covers(group.request))
    });
    if let Some(unplaced) = too_large {
        return format!("no node is large enough for {}: take larger nodes, or request less", of(unplaced).element);
    }
    if unplaced.iter().all(|unplaced| unplaced.why == Obstacle::Nodes) {
        return "add nodes, or let copies share one: `placement.nodes: preferred`".to_owned();
    }
    if unplaced.iter().any(|unplaced| of(unplaced).store.is_some()) {
        return "add nodes, or say that the stores have machines of their own: `own-machines: true`".to_owned();
    }
    "add nodes, or request less".to_owned()
}

fn during_rollouts(context: &Context<'_>, placement: &Placement<'_>, mut packing: Packing<'_>, report: &mut Report) {
    let mut derivation = Derivation::default();
    let mut stuck = Vec::new();
    let mut most = (Amount::default(), None);
    for (group, surge) in rollout::surges(context, placement) {
        let before = packing.copies(group);
        let unplaced = packing.add(group, surge);
        packing.take_back(group, before);
        let group = &placement.pods.groups[group];
        let extra = group.request * surge;
        if most.1.is_none() || extra.cpu > most.0.cpu {
            most = (extra, Some((&group.element, surge)));
        }
        if let Some(unplaced) = unplaced {
            derivation.line(zone_loss::describe(placement, &unplaced));
            stuck.push(&group.element);
        }
    }
    let Some((largest, surge)) = most.1 else { return };
    derivation.line(format!(
        "one service at a time; the largest surge is {largest}: {} of {}",
        count(surge, "copy"),
        most.0
    ));
    if !stuck.is_empty() {
        derivation.line(format!("no room for a new copy of {}: see `rollout-cannot-progress`", list(&stuck)));
    }
    let statement = "everything fits while one service is rolled out";
    let span = placement.nodes.pools[0].declared.count.span;
    let verdict = verdict(placement, stuck.is_empty());
    report.proofs.push(derivation.proof(NAME, "platform.nodes", statement, verdict, span));
}

fn ceilings(context: &Context<'_>, placement: &Placement<'_>, report: &mut Report) {
    let groups = &placement.pods.groups;
    if groups.iter().all(|group| group.ceiling == group.floor) {
        return;
    }
    let (_, unplaced) = placement.at_ceilings();
    let mut derivation = Derivation::default();
    utilisation(placement, placement.pods.total(|group| group.ceiling), &mut derivation);
    for unplaced in &unplaced {
        derivation.line(zone_loss::describe(placement, unplaced));
    }
    let growing: Vec<&Unplaced> = unplaced.iter().filter(|unplaced| groups[unplaced.group].store.is_none()).collect();
    for unplaced in growing {
        let group = &groups[unplaced.group];
        let service = context.architecture.service(group.element.name()).expect("a group without a store is a service");
        let ceiling = service.replicas.max.or(service.replicas.count).map_or(group.span, |most| most.span);
        // Everything at its fewest copies is placed first on a cluster that grows, so a group never falls below them.
        let reached = (group.ceiling - unplaced.copies).max(group.floor);
        let message = format!(
            "{} can grow to {reached} copies only, not {}, when all are at their most",
            group.element, group.ceiling
        );
        let finding = Finding::new(NAME, Stake::Risk.severity(context), ceiling, message).on(group.element.to_string());
        report.findings.push(
            finding
                .because(zone_loss::describe(placement, unplaced))
                .help("add nodes, lower `max`, or let the nodes scale too"),
        );
    }
    let statement = format!("everything fits at its most copies, {} at once", count(len(groups), "group"));
    let span = placement.nodes.pools[0].declared.count.span;
    let verdict = verdict(placement, unplaced.is_empty());
    report.proofs.push(derivation.proof(NAME, "platform.nodes", statement, verdict, span));
}

fn verdict(placement: &Placement<'_>, fits: bool) -> Verdict {
    match (fits, placement.pods.unknown.is_empty()) {
        (false, _) => Verdict::Refuted,
        (true, false) => Verdict::Undecided,
        (true, true) => Verdict::Proved,
    }
}

#[cfg(test)]
mod tests;

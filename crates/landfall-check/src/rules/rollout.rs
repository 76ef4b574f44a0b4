//! `rollout-cannot-progress`: rollouts that wait forever, outages that a rollout causes, canaries that cannot decide.

mod canary;
mod disruption;

use std::collections::BTreeMap;

use landfall_model::{Element, Finding, IngressApi, Name, Rolling, Rollout, Service, ServiceKind, Severity, Spanned};

use super::derivation::{Derivation, Stake, both, count, percent, written};
use super::placement::{Obstacle, Placement};
use super::zone_loss;
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};

const NAME: &str = "rollout-cannot-progress";

pub(super) const RULE: Rule = Rule {
    name: NAME,
    subject: Subject::Rollout,
    severity: Severity::Error,
    summary: "Every rollout can go forward, keeps copies serving, and every canary can be decided.",
    explanation: "\
A rolling update adds at most `max-surge` copies and removes at most `max-unavailable`; with both 0 it does nothing for \
ever, and Kubernetes never gives it up (kubernetes/kubernetes#23211). A new copy needs a node: with no room, or with \
copies that must keep apart on nodes that all have one, the rollout waits. Taking all copies away at once, or stopping \
the old before the new starts, is an outage of grace and start. A PodDisruptionBudget that allows no disruption does not \
stop a rollout, but no node can be drained any more \
(https://kubernetes.io/docs/concepts/workloads/pods/disruptions/).

A canary's shares must grow and stay below the whole. Without weights of a gateway or a mesh the share is that of the \
copies: one of n + 1 at least; so it always is that of a worker, which takes messages from queues. To believe a success of 99.5 % with an error of 5 %, 1194 requests must pass in a row, as \
`landfall ship` judges by a sequential test between the limit and half of it; to believe a p99, 595. If the declared \
traffic brings fewer to the canary before `decide-within`, it can never be decided, and every release is rolled back.",
    passing: include_str!("../../tests/it/rules/rollout-cannot-progress/ok.yaml"),
    failing: include_str!("../../tests/it/rules/rollout-cannot-progress/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    let traffic = canary::Traffic::of(context.architecture);
    let mut said = std::collections::BTreeSet::new();
    for (name, service) in &context.architecture.document.services {
        if service.kind.value == ServiceKind::ScheduledJob {
            continue;
        }
        let rollout = context.architecture.rollout(service);
        let subject = format!("service.{name}");
        let mut found = Vec::new();
        let mut derivation = Derivation::default();
        let goes_forward = match &rollout.value {
            Rollout::Rolling(rolling) => {
                let verdict = rolling_update(context, (name, service), rolling, &mut derivation, &mut found);
                // A strategy of the platform stands once in the file, however many services it stops.
                if never_moves(rolling) && !said.insert(rollout.span) {
                    found.clear();
                }
                verdict
            }
            Rollout::Canary(declared) => {
                // The shares stand once in the file, however many services use them.
                let first = said.insert(rollout.span);
                let verdict = canary::shares(context, service, declared, rollout.span, first, &mut found);
                let decided =
                    canary::decides(context, (name, service), declared, &traffic, &mut derivation, &mut found);
                both(verdict, decided)
            }
            Rollout::Recreate => {
                outage(context, (name, service), rollout.span, &mut derivation, &mut found);
                Verdict::Proved
            }
        };
        let refuted = found.iter().any(|finding| finding.severity == Severity::Error);
        let verdict = match goes_forward {
            Verdict::Proved | Verdict::Undecided if refuted => Verdict::Refuted,
            verdict => verdict,
        };
        report.findings.extend(found.into_iter().map(|finding| finding.on(&subject)));
        let span = written([rollout.span, name.span]);
        let statement = format!("a rollout of `{name}` goes forward");
        report.proofs.push(derivation.proof(NAME, subject, statement, verdict, span));
    }
    if let Some(placement) = context.placement.as_ref() {
        room(context, placement, report);
    }
    disruption::check(context, report);
}

/// The services that are rolled out with additional copies, by their groups, and how many copies at once.
pub(super) fn surges(context: &Context<'_>, placement: &Placement<'_>) -> Vec<(usize, u32)> {
    let platform = &context.architecture.document.platform;
    let routed = platform.ingress.api.value == IngressApi::Gateway;
    let by_weights = |service: &Service| {
        !canary::is_worker(service) && (platform.mesh.is_some() || (routed && service.expose.is_some()))
    };
    let surge = |(name, service): (&Spanned<Name>, &Service)| {
        if service.kind.value == ServiceKind::ScheduledJob {
            return None;
        }
        let floor = service.replicas.floor();
        let surge = match context.architecture.rollout(service).value {
            Rollout::Rolling(rolling) => rolling.max_surge.value.min(floor),
            Rollout::Canary(canary) if by_weights(service) => canary::copies(&canary, &service.replicas),
            Rollout::Canary(canary) => canary.most_copies(floor),
            Rollout::Recreate => 0,
        };
        let group = placement.pods.position(&Element::Service(name.value.clone()))?;
        (surge > 0).then_some((group, surge))
    };
    context.architecture.document.services.iter().filter_map(surge).collect()
}

/// Whether no new copy may be added and no old one removed.
fn never_moves(rolling: &Rolling) -> bool {
    rolling.max_surge.value == 0 && rolling.max_unavailable.value == 0
}

fn rolling_update(
    context: &Context<'_>,
    (name, service): (&Spanned<Name>, &Service),
    rolling: &Rolling,
    derivation: &mut Derivation,
    found: &mut Vec<Finding>,
) -> Verdict {
    let floor = service.replicas.floor();
    let (surge, unavailable) = (rolling.max_surge.value, rolling.max_unavailable.value);
    derivation.line(format!("{} at least; {surge} more at once, {unavailable} fewer at once", count(floor, "copy")));
    if never_moves(rolling) {
        let at = written([rolling.max_surge.span, rolling.max_unavailable.span, name.span]);
        let finding = Finding::error(NAME, at, format!("the rollout of `{name}` can never make progress"));
        let finding = finding
            .label("no new copy may be added")
            .also(rolling.max_unavailable.span, "and no old copy may be removed");
        found.push(finding.help("set `max-surge` to at least 1"));
        return Verdict::Refuted;
    }
    if floor > 0 && unavailable >= floor && service.kind.serves() {
        outage(context, (name, service), rolling.max_unavailable.span, derivation, found);
    }
    Verdict::Proved
}

/// All copies are away at once.
fn outage(
    context: &Context<'_>,
    (name, service): (&Spanned<Name>, &Service),
    span: landfall_model::Span,
    derivation: &mut Derivation,
    found: &mut Vec<Finding>,
) {
    let section = super::derivation::Section::Given;
    derivation.uses(&format!("services.{name}.grace"), &service.grace, section);
    derivation.uses(&format!("services.{name}.startup"), &service.startup, section);
    let line = format!(
        "outage of each release = grace {} + start {} = {}",
        service.grace,
        service.startup,
        service.grace.value + service.startup.value
    );
    derivation.line(line.clone());
    if service.kind.serves() {
        let message = format!("every release of `{name}` is an outage: no copy serves while it is replaced");
        let at = written([span, service.replicas.count.map_or(landfall_model::Span::NONE, |n| n.span), name.span]);
        let finding = Finding::new(NAME, Stake::Risk.severity(context), at, message).because(line);
        found.push(finding.help("roll copy by copy: `rolling: { max-surge: 1, max-unavailable: 0 }`"));
    }
}

/// Whether the nodes have room for each service's new copies.
fn room(context: &Context<'_>, placement: &Placement<'_>, report: &mut Report) {
    let (mut packing, unplaced) = placement.at_floors();
    if !unplaced.is_empty() {
        // `capacity` says so already; nothing is to be learnt about one more copy.
        return;
    }
    let mut stuck = BTreeMap::new();
    for (group, surge) in surges(context, placement) {
        let before = packing.copies(group);
        if let Some(unplaced) = packing.add(group, surge) {
            stuck.insert(group, (unplaced, surge));
        }
        packing.take_back(group, before);
    }
    let (_, _, all) = placement.nodes.left_without(None);
    for (group, (unplaced, surge)) in stuck {
        let place = &placement.pods.groups[group];
        let service = context.architecture.service(place.element.name()).expect("only services are rolled out");
        let rollout = context.architecture.rollout(service);
        let frees = matches!(&rollout.value, Rollout::Rolling(rolling) if rolling.max_unavailable.value > 0);
        if unplaced.copies < surge || frees {
            // Slower than declared, but some copies can be replaced at a time.
            continue;
        }
        let at = written([rollout.span, place.span]);
        let message = format!("the rollout of `{}` has no node for a new copy", place.element.name());
        let wanted = placement.pods.total(|group| group.floor);
        let finding = Finding::error(NAME, at, message)
            .on(place.element.to_string())
            .also(place.span, format!("{} of {}", count(place.floor, "copy"), place.request))
            .because(zone_loss::describe(placement, &unplaced))
            .because(format!(
                "{} % of the CPU and {} % of the memory is requested before",
                percent(wanted.cpu, all.cpu),
                percent(wanted.memory, all.memory)
            ));
        let help = match unplaced.why {
            Obstacle::Nodes => {
                "add a node, let copies share one, or free one first: `max-surge: 0`, `max-unavailable: 1`"
            }
            _ => "add a node, or free a copy's room first: `max-surge: 0`, `max-unavailable: 1`",
        };
        report.findings.push(finding.help(help));
    }
}

#[cfg(test)]
mod tests;

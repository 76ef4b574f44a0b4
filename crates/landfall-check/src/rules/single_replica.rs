//! `single-replica`: how long one copy is away when its node dies, and how much of a year that is.

use landfall_model::{Duration, Finding, Name, Service, Severity, Spanned, Store};

use super::derivation::{Derivation, Section, Share, Stake, float, time, written};
use super::{redundancy, stateful_node_loss};
use crate::facts;
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};

const NAME: &str = "single-replica";

pub(super) const RULE: Rule = Rule {
    name: NAME,
    subject: Subject::Recovery,
    severity: Severity::Warning,
    summary: "Nothing that users need runs in one copy only.",
    explanation: "\
When the node of the only copy dies, Kubernetes waits until the node is silent for `--node-monitor-grace-period` (50 s; \
40 s before 1.32), then the pod tolerates that for 300 s, then a new one starts elsewhere \
(https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-based-evictions): about 380 s \
without service. Draining a node stops it too, for its grace and start. The loss in a year is the sum over one failure of \
the node and twelve upgrades; both are assumed. A store with one member waits for its volume, too; see \
`stateful-node-loss`. Jobs and mocks are exempt, and outside production one copy is proved to be one, and no finding.",
    passing: include_str!("../../tests/it/rules/single-replica/ok.yaml"),
    failing: include_str!("../../tests/it/rules/single-replica/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    let document = &context.architecture.document;
    for (name, service) in &document.services {
        if service.must_be_available() {
            judge_service(context, name, service, report);
        }
    }
    for (name, store) in &document.stores {
        judge_store(context, name, store, report);
    }
}

/// How long the only copy of a service is away when its node dies.
pub(super) fn exposure(context: &Context<'_>, service: &Service) -> Duration {
    let detect =
        facts::node_monitor_grace(context.architecture.document.platform.kubernetes.as_ref().map(|v| v.as_str()));
    detect + facts::UNREACHABLE_TOLERATION + service.startup.value
}

fn judge_service(context: &Context<'_>, name: &Spanned<Name>, service: &Service, report: &mut Report) {
    let subject = format!("service.{name}");
    let statement = format!("`{name}` has a second copy when a node dies");
    let floor = service.replicas.floor();
    let mut derivation = Derivation::default();
    if floor != 1 {
        derivation.line(format!("{floor} copies at least"));
        let verdict = if floor == 0 { Verdict::Refuted } else { Verdict::Proved };
        report.proofs.push(derivation.proof(NAME, subject, statement, verdict, name.span));
        return;
    }
    let version = context.architecture.document.platform.kubernetes.as_ref();
    let detect = facts::node_monitor_grace(version.map(|version| version.as_str()));
    let away = exposure(context, service);
    derivation.uses(&format!("services.{name}.startup"), &service.startup, Section::Given);
    derivation.uses(&format!("services.{name}.grace"), &service.grace, Section::Given);
    derivation.line(format!(
        "node dies: {detect} (silent) + {}s (tolerated) + {} (start) = {}",
        facts::UNREACHABLE_TOLERATION.seconds(),
        service.startup,
        time(away)
    ));
    let drained = service.grace.value + service.startup.value;
    derivation.line(format!(
        "node drained: {} (grace) + {} (start) = {}",
        service.grace,
        service.startup,
        time(drained)
    ));
    let loss = away * u64::from(facts::NODE_FAILURES_PER_YEAR) + drained * u64::from(facts::NODE_UPGRADES_PER_YEAR);
    derivation.line(format!(
        "in a year: {} × {away} + {} × {drained} = {}, so {} at best",
        facts::NODE_FAILURES_PER_YEAR,
        facts::NODE_UPGRADES_PER_YEAR,
        time(loss),
        Share(1.0 - float(loss.seconds()) / facts::YEAR_SECONDS)
    ));
    assume_rates(&mut derivation);
    let message = format!("`{name}` runs in one copy: {} without it when its node dies", time(away));
    let bound = service.replicas.min.or(service.replicas.count).map_or(name.span, |count| count.span);
    let mut finding =
        Finding::new(NAME, Stake::Risk.severity(context), written([bound, name.span]), message).on(&subject);
    finding.why = derivation.lines().to_vec();
    let promise = context.architecture.document.objectives.availability;
    if let Some(promise) = promise {
        finding = finding.also(promise.span, "the promise");
    }
    let field = if service.replicas.scales() { "replicas.min" } else { "replicas" };
    tell(context, finding.help(format!("run two copies at least: `{field}: 2`")), report);
    report.proofs.push(derivation.proof(NAME, subject, statement, Verdict::Refuted, written([bound, name.span])));
}

fn judge_store(context: &Context<'_>, name: &Spanned<Name>, store: &Store, report: &mut Report) {
    let subject = format!("store.{name}");
    let statement = format!("`{name}` has a second member when a node dies");
    let mut derivation = Derivation::default();
    if store.members.value != 1 || redundancy::is_regional(store) {
        let regional = "the provider keeps it in several zones".to_owned();
        derivation.line(if redundancy::is_regional(store) { regional } else { format!("{} members", store.members) });
        report.proofs.push(derivation.proof(NAME, subject, statement, Verdict::Proved, name.span));
        return;
    }
    derivation.uses(&format!("stores.{name}.members"), &store.members, Section::from(store.assumed));
    let message = match stateful_node_loss::alone(context, name, store, &mut derivation) {
        Some(away) => format!("`{name}` has one member: about {} without it when its machine dies", time(away)),
        None => format!("`{name}` has one member: nobody can say how long it is away when its node dies"),
    };
    let at = written([store.members.span, name.span]);
    let mut finding = Finding::new(NAME, Stake::Risk.severity(context), at, message).on(&subject);
    finding.why = derivation.lines().to_vec();
    tell(context, finding.help("give it a member to fail over to: `members: 3`"), report);
    report.proofs.push(derivation.proof(NAME, subject, statement, Verdict::Refuted, at));
}

/// One copy is the usual economy of an environment without users: there only the proof says so.
fn tell(context: &Context<'_>, finding: Finding, report: &mut Report) {
    if context.architecture.is_production() {
        report.findings.push(finding);
    }
}

pub(super) fn assume_rates(derivation: &mut Derivation) {
    derivation.assumes(format!("a node fails {} a year (assumed)", times(facts::NODE_FAILURES_PER_YEAR)));
    derivation.assumes(format!("a node is drained {} a year (assumed)", times(facts::NODE_UPGRADES_PER_YEAR)));
}

fn times(number: u32) -> String {
    if number == 1 { "once".to_owned() } else { format!("{number} times") }
}

#[cfg(test)]
mod tests;

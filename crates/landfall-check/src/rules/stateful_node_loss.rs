//! `stateful-node-loss`: plain `StatefulSet`s that never come back from a dead node by themselves.

use landfall_model::{Duration, Finding, Name, Severity, Spanned, Store, StoreProvider};

use super::derivation::{Derivation, Section, Stake, count, written};
use super::redundancy;
use crate::facts;
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};

const NAME: &str = "stateful-node-loss";

pub(super) const RULE: Rule = Rule {
    name: NAME,
    subject: Subject::Recovery,
    severity: Severity::Error,
    summary: "A store comes back by itself when the node of a member dies.",
    explanation: "\
A StatefulSet promises that a pod of a name runs at most once. When a node falls silent, nobody can know that its pod has \
stopped, so the pod stays Terminating and no other is made: for ever, unless the Node object is removed, somebody forces \
the deletion, or sets the taint `node.kubernetes.io/out-of-service` \
(https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/#non-graceful-node-shutdown, \
kubernetes/kubernetes#64869, #74689). A recovery time on node loss then has no bound. Engines that elect a leader by a \
majority (MongoDB, Kafka, RabbitMQ, Elasticsearch) serve on with the other members but stay short of one; a plain \
PostgreSQL or Redis does not, because nobody makes a replica the primary.",
    passing: include_str!("../../tests/it/rules/stateful-node-loss/ok.yaml"),
    failing: include_str!("../../tests/it/rules/stateful-node-loss/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    let recovery = &context.architecture.document.objectives.recovery;
    let rto = [&recovery.node, &recovery.zone].into_iter().flatten().find_map(|objective| objective.rto);
    for (name, store) in &context.architecture.document.stores {
        let mut derivation = Derivation::default();
        let subject = format!("store.{name}");
        let statement = format!("`{name}` comes back by itself when a node dies");
        if store.own_machines.value || store.provider.value != StoreProvider::Statefulset {
            let verdict = elsewhere(context, name, store, &mut derivation);
            report.proofs.push(derivation.proof(NAME, subject, statement, verdict, name.span));
            continue;
        }
        derivation.line(format!(
            "{} in a plain StatefulSet: the pod of a dead node is never made again",
            count(store.members.value, "member")
        ));
        let at = written([store.provider.span, name.span]);
        let serves_on = redundancy::fails_over(store);
        let (stake, message) = if serves_on {
            derivation.line("the other members elect a leader and serve on; the lost one waits for a person");
            (Stake::Risk, format!("`{name}` stays short of a member after a node dies, until a person acts"))
        } else {
            derivation.line("nobody makes another member the primary");
            (Stake::of(rto), format!("`{name}` never comes back by itself when its node dies"))
        };
        let mut finding = Finding::new(NAME, stake.severity(context), at, message).on(&subject);
        finding.why = derivation.lines().to_vec();
        if let Some(rto) = rto {
            finding = finding.also(rto.span, "the promise");
        }
        report.findings.push(finding.help("let an operator run it (`provider: operator`), or a provider"));
        report.proofs.push(derivation.proof(NAME, subject, statement, Verdict::Refuted, at));
    }
}

/// Whether a store that is no plain `StatefulSet` of the cluster comes back; `single-replica` tells of those that do not.
fn elsewhere(context: &Context<'_>, name: &Spanned<Name>, store: &Store, derivation: &mut Derivation) -> Verdict {
    if redundancy::is_regional(store) {
        derivation.line("the provider keeps it in several zones");
        return Verdict::Proved;
    }
    if redundancy::fails_over(store) {
        derivation.uses(&format!("stores.{name}.failover"), &store.failover, Section::Given);
        let members = count(store.members.value, "member");
        derivation.line(format!("{members}: another one takes over in {}", store.failover));
        return Verdict::Proved;
    }
    if store.own_machines.value && !store.provider.value.is_managed() {
        derivation.line("it has machines of its own, and nothing says who replaces one");
        return Verdict::Undecided;
    }
    if alone(context, name, store, derivation).is_some() { Verdict::Proved } else { Verdict::Refuted }
}

/// How long a store with one member is away when its machine dies; `None` when nothing bounds it. Says why.
pub(super) fn alone(
    context: &Context<'_>,
    name: &Spanned<Name>,
    store: &Store,
    derivation: &mut Derivation,
) -> Option<Duration> {
    derivation.uses(&format!("stores.{name}.failover"), &store.failover, Section::Given);
    if store.provider.value.is_managed() {
        derivation.line(format!("the provider replaces the machine: {}", store.failover));
        return Some(store.failover.value);
    }
    let version = context.architecture.document.platform.kubernetes.as_ref();
    let detect = facts::node_monitor_grace(version.map(|version| version.as_str()));
    derivation.line(format!("node silent after {detect}, pod evicted after {} more", facts::UNREACHABLE_TOLERATION));
    derivation.line("the pod stays Terminating and keeps its volume until the node comes back, is removed, or is tainted out-of-service");
    None
}

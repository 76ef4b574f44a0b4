//! `recovery-point`: how much data each kind of failure costs each store, against what is promised.

mod loss;

use std::collections::BTreeSet;

use landfall_model::{Architecture, Element, Engine, FailureKind, Finding, Name, Severity, Span, Spanned, Store, Verb};

use super::derivation::{Derivation, Stake, both, list, written};
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};
pub(super) use loss::backup_leaves_region;
use loss::{Loss, Lost};

const NAME: &str = "recovery-point";

pub(super) const RULE: Rule = Rule {
    name: NAME,
    subject: Subject::Recovery,
    severity: Severity::Error,
    summary: "No failure costs more data than its recovery point objective allows.",
    explanation: "\
What a failure costs depends on what is left. A dead pod or node leaves the volume, or a replica that is promoted: \
nothing is lost if the commit waited for it, else what had not been shipped, the `lag`. A lost zone takes its volumes \
away: only members in other zones count, then backups. A lost region leaves what is replicated to another one, or the \
last log or full backup that is kept there. Corruption is replicated like anything else: only a backup helps, and the \
cost is the time between two shipments of the log, or between two full backups when no log is shipped. A Redis loses \
what its persistence had not written: a second with a log, an hour with snapshots \
(https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/). A message that Kafka acknowledged survives \
if more replicas had to be in sync than are lost. MongoDB acknowledges by majority since 5.0; a managed standby in \
another zone is synchronous; PostgreSQL streams asynchronously unless told otherwise.

Messages in transit are kept nowhere else: what a broker loses with a region or by corruption is said, but not judged. A \
cache that is only filled by `cache` and read holds nothing that cannot be made again.",
    passing: include_str!("../../tests/it/rules/recovery-point/ok.yaml"),
    failing: include_str!("../../tests/it/rules/recovery-point/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    let document = &context.architecture.document;
    let keepers = keepers(context.architecture);
    for (kind, objective) in document.objectives.recovery.declared() {
        if let Some(rpo) = objective.rpo {
            judge(context, kind, rpo, &keepers, report);
        }
    }
    if document.objectives.recovery.corruption.as_ref().is_none_or(|corruption| corruption.rpo.is_none()) {
        for (name, store) in &keepers {
            no_log(context, name, store, report);
        }
    }
}

pub(super) type Keepers<'a> = Vec<(&'a Spanned<Name>, &'a Store)>;

/// The stores that hold what cannot be made again: those that are written to, and databases and brokers that no edge
/// mentions and no backup goes to.
pub(super) fn keepers(architecture: &Architecture) -> Keepers<'_> {
    let mut written_to = BTreeSet::new();
    let mut mentioned = BTreeSet::new();
    for connection in &architecture.connections {
        if let Element::Store(name) = &connection.to {
            mentioned.insert(name);
            if matches!(connection.verb, Verb::Write | Verb::Store | Verb::Publish) {
                written_to.insert(name);
            }
        }
    }
    let stores = architecture.document.stores.iter();
    stores
        .filter(|(name, store)| {
            let durable = !matches!(store.engine.value, Engine::S3 | Engine::Redis | Engine::Mqtt);
            written_to.contains(&name.value) || (durable && !mentioned.contains(&name.value))
        })
        .collect()
}

fn judge(
    context: &Context<'_>,
    kind: FailureKind,
    rpo: Spanned<landfall_model::Duration>,
    keepers: &Keepers<'_>,
    report: &mut Report,
) {
    let subject = format!("recovery.{}", kind.as_str());
    let mut derivation = Derivation::default();
    let mut verdict = Verdict::Proved;
    let mut unknown = Vec::new();
    for (name, store) in keepers {
        let lost = loss::of(context.architecture, name, store, kind);
        let Lost { loss, why, assumed } = lost;
        let (holds, shown) = match &loss {
            Loss::AtMost(time) if *time <= rpo.value => (Verdict::Proved, format!("{time} ≤ {rpo}")),
            Loss::AtMost(time) => (Verdict::Refuted, format!("{time} > {rpo}")),
            Loss::Everything => (Verdict::Refuted, "everything".to_owned()),
            Loss::Transit => (Verdict::Proved, "what is in transit".to_owned()),
            Loss::Unknown(_) => {
                unknown.push(name);
                (Verdict::Undecided, "not known".to_owned())
            }
        };
        let line = format!("{name}: {shown}: {why}");
        derivation.line(line.clone());
        derivation.append(assumed);
        verdict = both(verdict, holds);
        if holds == Verdict::Refuted && !told_elsewhere(context, kind) {
            let (at, help) = remedy(name, store, kind, &loss);
            let what = match loss {
                Loss::AtMost(time) => format!("up to {time}"),
                _ => "everything".to_owned(),
            };
            let message = format!("the failure `{}` may cost {what} of `{name}`, but {rpo} is promised", kind.as_str());
            // Buckets keep versions, which the file has no word for: they may be what makes the promise hold.
            let may_keep_versions = store.engine.value == Engine::S3 && kind == FailureKind::Corruption;
            let stake = if may_keep_versions { Stake::Risk } else { Stake::Promised };
            let finding = Finding::new(NAME, stake.severity(context), written([at, name.span]), message);
            report
                .findings
                .push(finding.on(format!("store.{name}")).also(rpo.span, "the promise").because(line).help(help));
        }
    }
    if keepers.is_empty() {
        derivation.line("no store holds anything that cannot be made again");
    }
    if !unknown.is_empty() {
        derivation.line(format!("not decided: {}", list(unknown)));
    }
    let statement = format!("the failure `{}` costs at most {rpo} of data", kind.as_str());
    report.proofs.push(derivation.proof(NAME, subject, statement, verdict, rpo.span));
}

/// Whether another rule names the cause: `zone-loss` that there is no other zone.
fn told_elsewhere(context: &Context<'_>, kind: FailureKind) -> bool {
    kind == FailureKind::Zone && context.architecture.zones().len() < 2
}

/// The value to change, and how.
fn remedy(name: &Spanned<Name>, store: &Store, kind: FailureKind, loss: &Loss) -> (Span, String) {
    let backup = store.backup.as_ref();
    let full = backup.map_or(name.span, |backup| backup.full.span);
    match kind {
        FailureKind::Corruption | FailureKind::Region if backup.is_some() && !matches!(loss, Loss::Everything) => {
            match backup.and_then(|backup| backup.log) {
                Some(log) => (log.span, "ship the log more often, or promise less".to_owned()),
                None => (full, "ship the log between full backups: `log: 5m`".to_owned()),
            }
        }
        FailureKind::Corruption => {
            (name.span, "back it up: `backup: { full: 24h, log: 5m, to: <a bucket> }`".to_owned())
        }
        FailureKind::Region => {
            let help = "replicate it (`recovery.replication: [{ store: …, to: … }]`), or keep copies of its backups in another region";
            (backup.and_then(|backup| backup.copies.first()).map_or(full, |copy| copy.span), help.to_owned())
        }
        FailureKind::Pod | FailureKind::Node | FailureKind::Zone if store.members.value == 1 => {
            if store.engine.value == Engine::Redis {
                let at = store.persistence.map_or(name.span, |persistence| persistence.span);
                return (at, "keep more: `persistence: durable`, or `log` for a second".to_owned());
            }
            (store.members.span, "give it members in other zones: `members: 3`".to_owned())
        }
        FailureKind::Pod | FailureKind::Node | FailureKind::Zone => match store.engine.value {
            Engine::Kafka | Engine::Rabbitmq => {
                let at = store.in_sync.or(store.replication).map_or(store.members.span, |number| number.span);
                (at, "keep more copies before a message is acknowledged: `replication: 3`, `in-sync: 2`".to_owned())
            }
            Engine::Postgres | Engine::Mongodb => {
                let at = store.commit.map_or(store.members.span, |commit| commit.span);
                (at, "let a commit wait for a replica: `commit: synchronous`".to_owned())
            }
            _ => (store.members.span, "a replica lags: promise less, or write through to a database".to_owned()),
        },
    }
}

/// A full backup without a log, where nobody promised anything: worth a number.
fn no_log(context: &Context<'_>, name: &Spanned<Name>, store: &Store, report: &mut Report) {
    let Some(backup) = store.backup.as_ref().filter(|backup| backup.log.is_none()) else { return };
    if store.engine.value == Engine::S3 || !context.architecture.is_production() {
        return;
    }
    let message =
        format!("corruption may cost up to {} of `{name}`: it is backed up that often, and ships no log", backup.full);
    let finding = Finding::warning(NAME, written([backup.full.span, name.span]), message).on(format!("store.{name}"));
    report.findings.push(
        finding.help("ship the log between full backups: `log: 5m`, and promise `objectives.recovery.corruption.rpo`"),
    );
}

#[cfg(test)]
mod tests;

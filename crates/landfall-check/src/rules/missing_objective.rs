//! `missing-objective`: means without an end: standbys, backups and replicas for which no number is promised.

use landfall_model::{Finding, RecoveryObjective, Severity, Span};

use super::derivation::{Derivation, count, len, list};
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};

const NAME: &str = "missing-objective";

pub(super) const RULE: Rule = Rule {
    name: NAME,
    subject: Subject::Recovery,
    severity: Severity::Warning,
    summary: "What is built for availability and recovery has a number that it must reach.",
    explanation: "\
Nobody can say whether a backup is frequent enough, a standby warm enough, or three replicas too many, without a number: \
the share of time in which users are served, how soon the platform recovers (RTO) and how much it may lose (RPO), for each \
kind of failure. The rule asks for an objective where a standby region, backups, or members in several zones are \
declared, and for any objective at all in production. Without them the other recovery rules have nothing to refute.",
    passing: include_str!("../../tests/it/rules/missing-objective/ok.yaml"),
    failing: include_str!("../../tests/it/rules/missing-objective/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    let architecture = context.architecture;
    let document = &architecture.document;
    if !architecture.is_production() || (document.services.is_empty() && document.stores.is_empty()) {
        return;
    }
    let recovery = &document.objectives.recovery;
    let mut found = Vec::new();
    let mut derivation = Derivation::default();
    if document.objectives.availability.is_none() && recovery.declared().next().is_none() {
        let message = format!("`{}` promises nothing: neither availability nor recovery", document.name);
        let finding = Finding::warning(NAME, document.name.span, message).on("objectives");
        let what = format!(
            "{} and {} are declared",
            count(document.services.len() as u64, "service"),
            count(document.stores.len() as u64, "store")
        );
        found.push(
            finding
                .because(what)
                .help("add `objectives: { availability: 99.9%, recovery: { zone: { rto: 60s, rpo: 0s } } }`"),
        );
    }
    if let Some(standby) = &document.recovery.standby {
        incomplete("region", recovery.region.as_ref(), standby.region.span, "a standby region is declared", &mut found);
    }
    let backed_up: Vec<_> = document.stores.iter().filter(|(_, store)| store.backup.is_some()).collect();
    if let Some((_, store)) = backed_up.first() {
        let span = store.backup.as_ref().map_or(Span::NONE, |backup| backup.full.span);
        let what = format!(
            "{} {} backed up",
            list(backed_up.iter().map(|(name, _)| name)),
            if backed_up.len() == 1 { "is" } else { "are" }
        );
        incomplete("corruption", recovery.corruption.as_ref(), span, &what, &mut found);
    }
    let zones = architecture.zones();
    let several = document.stores.iter().any(|(_, store)| store.members.value > 1)
        || document.services.values().any(|service| service.replicas.floor() > 1);
    if zones.len() > 1 && several && recovery.zone.is_none() {
        let message =
            format!("{} are declared, but nothing is promised for the loss of one", count(len(zones), "zone"));
        let finding = Finding::note(NAME, zones[0].span, message).on("recovery.zone");
        found.push(finding.help("add `objectives.recovery.zone: { rto: 60s, rpo: 0s }`"));
    }
    for (kind, objective) in recovery.declared() {
        let shown = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        derivation.line(format!(
            "{}: RTO {}, RPO {}",
            kind.as_str(),
            shown(objective.rto.map(|rto| rto.to_string())),
            shown(objective.rpo.map(|rpo| rpo.to_string()))
        ));
    }
    if let Some(availability) = document.objectives.availability {
        derivation.line(format!("availability {availability} over {}", document.objectives.window));
    }
    let complete = found.iter().all(|finding| finding.severity == Severity::Note);
    let verdict = if complete { Verdict::Proved } else { Verdict::Refuted };
    report.findings.append(&mut found);
    let statement = "whatever is built for availability and recovery has a number to reach";
    report.proofs.push(derivation.proof(NAME, "objectives", statement, verdict, document.name.span));
}

/// Asks for the recovery time and point of a kind of failure that something was built for.
fn incomplete(kind: &str, objective: Option<&RecoveryObjective>, span: Span, what: &str, found: &mut Vec<Finding>) {
    let missing = match objective {
        None => "neither RTO nor RPO",
        Some(objective) if objective.rto.is_none() => "no RTO",
        Some(objective) if objective.rpo.is_none() => "no RPO",
        Some(_) => return,
    };
    let message = format!("{what}, but {missing} is promised for the failure `{kind}`");
    let finding = Finding::warning(NAME, span, message).on(format!("recovery.{kind}"));
    found.push(finding.help(format!("add `objectives.recovery.{kind}: {{ rto: 1h, rpo: 15m }}` with your numbers")));
}

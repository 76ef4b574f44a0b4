//! `recovery-time`: how long each kind of failure lasts, as a sum of its parts, against what is promised.

mod parts;

use landfall_model::{Duration, FailureKind, Finding, Severity, Spanned};

use super::derivation::{Derivation, Stake, time};
use super::recovery_point::{Keepers, keepers};
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};
use parts::{Bound, Part};

const NAME: &str = "recovery-time";

/// How many of the slowest parts a derivation shows.
const SHOWN: usize = 12;

pub(super) const RULE: Rule = Rule {
    name: NAME,
    subject: Subject::Recovery,
    severity: Severity::Error,
    summary: "Every failure is over within its recovery time objective.",
    explanation: "\
A recovery is a sum: until it is noticed, until somebody or something decides, until data is restored, until copies \
start, until clients find the new address, and until it is verified. The platform has recovered when its slowest part \
has. Facts: a hung copy is noticed after failures × period + timeout of its probe; a silent node after 50 s (40 s before \
Kubernetes 1.32), when its pods leave the EndpointSlices; one copy is started elsewhere 300 s later; in a lost zone nodes \
are evicted one each 10 s. A store whose members fail over takes its `failover`; one that has to be restored takes its \
`data` (or `size`) ÷ its `restore` speed: 100Gi at 100MB/s are 1074 s. People take `recovery.decide` to notice and decide, \
and `recovery.verify` to be sure. A plain StatefulSet on a dead node is never made again (kubernetes/kubernetes#74689), \
so nothing bounds it. Services that start do so side by side.",
    passing: include_str!("../../tests/it/rules/recovery-time/ok.yaml"),
    failing: include_str!("../../tests/it/rules/recovery-time/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    let recovery = &context.architecture.document.objectives.recovery;
    if recovery.declared().next().is_none() {
        return;
    }
    let keepers = keepers(context.architecture);
    for (kind, objective) in recovery.declared() {
        if let Some(rto) = objective.rto {
            judge(context, kind, rto, &keepers, report);
        }
    }
}

fn judge(context: &Context<'_>, kind: FailureKind, rto: Spanned<Duration>, keepers: &Keepers<'_>, report: &mut Report) {
    let mut derivation = Derivation::default();
    let mut parts = match kind {
        FailureKind::Pod | FailureKind::Node | FailureKind::Zone => parts::local(context, kind, &mut derivation),
        FailureKind::Region => parts::region(context, keepers, &mut derivation),
        FailureKind::Corruption => parts::corruption(context, keepers, &mut derivation),
    };
    // Stable: parts that take as long stay in the order of their names.
    parts.sort_by_key(|part| std::cmp::Reverse(part.bound.clone()));
    for part in parts.iter().take(SHOWN) {
        derivation.line(format!("{} = {}: {}", part.subject, part.bound, part.sum));
    }
    if parts.len() > SHOWN {
        derivation.line(format!("and {} faster ones", parts.len() - SHOWN));
    }
    let slowest = parts.first().map_or(Bound::AtMost(Duration::ZERO), |part| part.bound.clone());
    derivation.line(match &slowest {
        Bound::AtMost(slowest) if *slowest <= rto.value => format!("{} ≤ {rto}", time(*slowest)),
        Bound::AtMost(slowest) => format!("{} > {rto}", time(*slowest)),
        Bound::Unknown => "not decided: a number is missing".to_owned(),
        Bound::Never => format!("no bound, but {rto} is promised"),
    });
    // Without another zone everything is away for one reason, which `zone-loss` tells of once.
    let one_zone = kind == FailureKind::Zone && context.architecture.zones().len() < 2;
    for part in parts.iter().filter(|_| !one_zone) {
        finding(context, kind, rto, part, report);
    }
    let within = |part: &Part| matches!(part.bound, Bound::AtMost(time) if time <= rto.value);
    let refuted = |part: &Part| {
        matches!(part.bound, Bound::Never) || matches!(part.bound, Bound::AtMost(time) if time > rto.value)
    };
    let verdict = if parts.iter().any(refuted) {
        Verdict::Refuted
    } else if parts.iter().all(within) {
        Verdict::Proved
    } else {
        Verdict::Undecided
    };
    let statement = format!("the failure `{}` is over within {rto}", kind.as_str());
    let subject = format!("recovery.{}", kind.as_str());
    report.proofs.push(derivation.proof(NAME, subject, statement, verdict, rto.span));
}

fn finding(context: &Context<'_>, kind: FailureKind, rto: Spanned<Duration>, part: &Part, report: &mut Report) {
    let message = match part.bound {
        Bound::AtMost(took) if took > rto.value => {
            format!(
                "{} is away for {} after the failure `{}`, but {rto} is promised",
                part.subject,
                time(took),
                kind.as_str()
            )
        }
        Bound::Never => format!(
            "nothing bounds how long {} is away after the failure `{}`, but {rto} is promised",
            part.subject,
            kind.as_str()
        ),
        Bound::AtMost(_) | Bound::Unknown => return,
    };
    let stake = if part.may_keep_versions { Stake::Risk } else { Stake::Promised };
    let finding = Finding::new(NAME, stake.severity(context), part.span, message);
    report.findings.push(finding.on(&part.subject).also(rto.span, "the promise").because(&part.sum).help(part.help));
}

#[cfg(test)]
mod tests;

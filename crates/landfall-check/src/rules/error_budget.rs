//! `error-budget`: one recovery that takes as long as it may against the downtime that the availability allows.

use landfall_model::{Duration, FailureKind, Finding, Percent, Severity};

use super::derivation::{Derivation, Section, Stake, percent};
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};

const NAME: &str = "error-budget";

pub(super) const RULE: Rule = Rule {
    name: NAME,
    subject: Subject::Recovery,
    severity: Severity::Error,
    summary: "One recovery within its objective leaves something of the error budget.",
    explanation: "\
An availability over a window allows so much downtime and no more: 99.5 % over 30 days are 3.6 hours. A recovery time \
objective allows one failure to last so long. If the second is longer than the first, one failure that is handled exactly \
as promised breaks the other promise: an error for pods, nodes and zones, a warning for regions and corruption, which \
fail once in years. Site reliability engineering calls the allowance an error budget \
(https://sre.google/workbook/implementing-slos/).",
    passing: include_str!("../../tests/it/rules/error-budget/ok.yaml"),
    failing: include_str!("../../tests/it/rules/error-budget/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    let objectives = &context.architecture.document.objectives;
    let Some(availability) = objectives.availability else { return };
    let window = objectives.window;
    let budget = allowance(window.value, availability.value);
    for (kind, objective) in objectives.recovery.declared() {
        let Some(rto) = objective.rto else { continue };
        let subject = format!("recovery.{}", kind.as_str());
        let mut derivation = Derivation::default();
        derivation.uses("objectives.window", &window, Section::Given);
        derivation.line(format!("budget = {window} × (100% - {availability}) = {budget}"));
        let spent = percent(rto.millis(), budget.millis());
        derivation.line(format!("one recovery of {rto} spends {spent} % of it"));
        let holds = rto.value <= budget;
        if !holds {
            let message = format!(
                "one recovery within its objective breaks the availability of {availability}: it spends {spent} % of the budget"
            );
            // A region is lost, and data corrupted, once in years: that a budget breaks then may be accepted.
            let rare = matches!(kind, FailureKind::Region | FailureKind::Corruption);
            let stake = if rare { Stake::Risk } else { Stake::Promised };
            let mut finding = Finding::new(NAME, stake.severity(context), rto.span, message).on(&subject);
            finding = finding
                .label(format!("may last {rto}"))
                .also(availability.span, format!("allows {budget} in {window}"));
            finding.why = derivation.lines().to_vec();
            let days = rto
                .millis()
                .saturating_mul(1_000_000)
                .div_ceil(u64::from(1_000_000 - availability.millionths().min(999_999)))
                .div_ceil(86_400_000);
            let window = if days <= 366 { format!(", count over `window: {days}d`") } else { String::new() };
            report
                .findings
                .push(finding.help(format!("recover within {budget}{window}, or promise less availability")));
        }
        let verdict = if holds { Verdict::Proved } else { Verdict::Refuted };
        let statement = format!("one recovery from the failure `{}` stays within the error budget", kind.as_str());
        report.proofs.push(derivation.proof(NAME, subject, statement, verdict, rto.span));
    }
}

/// How long the platform may be away in a window.
fn allowance(window: Duration, availability: Percent) -> Duration {
    let allowed = u64::from(1_000_000 - availability.millionths().min(1_000_000));
    let millis = u128::from(window.millis()) * u128::from(allowed) / 1_000_000;
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_the_window_times_what_is_not_promised() {
        let month = Duration::from_secs(30 * 86_400);
        let budget = |share: &str| allowance(month, share.parse().expect("a share")).to_string();
        assert_eq!(
            [budget("99.5%"), budget("99.9%"), budget("99.99%"), budget("100%")],
            ["3h36m", "43m12s", "4m19s200ms", "0s"]
        );
    }
}

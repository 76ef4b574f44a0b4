//! Disruption budgets that never allow a disruption.

use landfall_model::Finding;
use serde_json::Value;

use super::NAME;
use crate::report::Report;
use crate::rule::Context;
use crate::rules::derivation::{Stake, count};
use crate::rules::rendered::{self, number_or_share, span_of, subject_of};

pub(super) fn check(context: &Context<'_>, report: &mut Report) {
    let rendered = &context.rendered;
    for (budget, workload) in rendered.budgeted() {
        let declared =
            context.architecture.service(rendered::name(workload)).map(|service| u64::from(service.replicas.floor()));
        let copies = workload.pointer("/spec/replicas").and_then(Value::as_u64).or(declared).unwrap_or(1);
        if copies == 0 {
            continue;
        }
        let rule = |field: &str| Some((field.to_owned(), budget.pointer(&format!("/spec/{field}"))?.clone()));
        let Some((field, value)) = rule("minAvailable").or_else(|| rule("maxUnavailable")) else { continue };
        let Some(number) = number_or_share(&value, copies) else { continue };
        let allowed = if field == "minAvailable" { copies.saturating_sub(number) } else { number };
        if allowed > 0 {
            continue;
        }
        let shown = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        let message = format!(
            "no node with `{}` on it can ever be drained: its disruption budget allows nothing",
            rendered::name(workload)
        );
        let span = span_of(context, budget);
        let at = if rendered::name(budget) == rendered::name(workload) { span_of(context, workload) } else { span };
        let finding = Finding::new(NAME, Stake::Risk.severity(context), at, message);
        let finding = finding.because(format!("{}, `{field}: {shown}`: 0 may be away", count(copies, "copy")));
        let help =
            if copies == 1 { "run a second copy, or set `maxUnavailable: 1`" } else { "set `maxUnavailable: 1`" };
        report.findings.push(finding.on(subject_of(context, workload)).help(help));
    }
}

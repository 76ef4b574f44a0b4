//! `autoscaling`: autoscalers that cannot work, or that something else undoes.

use landfall_model::{Finding, Name, Percent, Range, Service, Severity, Span, Spanned};
use serde_json::Value;

use super::derivation::{Derivation, Section, Stake, list, written};
use super::rendered::{self, span_of, subject_of};
use crate::facts;
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};

const NAME: &str = "autoscaling";

pub(super) const RULE: Rule = Rule {
    name: NAME,
    subject: Subject::Rollout,
    severity: Severity::Error,
    summary: "Every autoscaler has something to measure, room to move, and nobody who undoes it.",
    explanation: "\
A HorizontalPodAutoscaler compares what copies use with what they request: without a request it does nothing. It acts \
when the ratio is more than 10 % off its target; a copy cannot use more than its limit, so a target whose 110 % lies above \
limit ÷ request is never exceeded, and the service never grows. Memory is a poor measure: most runtimes keep what they \
once had, so that a service that grew does not shrink. Custom metrics need an adapter for `custom.metrics.k8s.io`, which \
Kubernetes does not bring. A Deployment that says `replicas` and is scaled too is set back on every apply. \
Sources: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/ (algorithm, tolerance, migration of \
Deployments).",
    passing: include_str!("../../tests/it/rules/autoscaling/ok.yaml"),
    failing: include_str!("../../tests/it/rules/autoscaling/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    for (name, service) in &context.architecture.document.services {
        if service.replicas.scales() {
            autoscaled(context, name, service, report);
        }
    }
    for (autoscaler, workload) in context.rendered.autoscaled() {
        let Some(replicas) = workload.pointer("/spec/replicas").and_then(Value::as_u64) else { continue };
        let name = rendered::name(workload);
        let message = format!("`{name}` is scaled, but says `replicas: {replicas}`: every apply sets it back");
        let bound = |field: &str| autoscaler.pointer(field).map_or("?".to_owned(), ToString::to_string);
        let finding = Finding::new(NAME, Stake::Risk.severity(context), span_of(context, workload), message);
        let line = format!(
            "{} wants {} to {} copies",
            subject_of(context, autoscaler),
            bound("/spec/minReplicas"),
            bound("/spec/maxReplicas")
        );
        report
            .findings
            .push(finding.because(line).on(subject_of(context, workload)).help("leave `replicas` out of the workload"));
    }
}

fn autoscaled(context: &Context<'_>, name: &Spanned<Name>, service: &Service, report: &mut Report) {
    let replicas = &service.replicas;
    let subject = format!("service.{name}");
    let mut derivation = Derivation::default();
    let mut found = Vec::new();
    let max = replicas.max.as_ref().expect("a service scales when it has a maximum");
    let ranges = [
        (
            "cpu",
            replicas.cpu,
            service.resources.cpu.map(|range| ratio(range.value.low.millicores(), range.value.high.millicores())),
        ),
        (
            "memory",
            replicas.memory,
            service.resources.memory.map(|Spanned { value: Range { low, high }, .. }| ratio(low.get(), high.get())),
        ),
    ];
    for (what, target, reach) in ranges {
        let Some(target) = target else { continue };
        match reach {
            None | Some(None) => {
                let message = format!("`{name}` scales by {what}, but requests none: its autoscaler does nothing");
                found.push(
                    Finding::error(NAME, target.span, message)
                        .help(format!("request it: `resources: {{ {what}: … }}`")),
                );
            }
            Some(Some(reach)) => reachable(name, what, target, reach, &mut derivation, &mut found),
        }
    }
    if replicas.memory.is_some() {
        let at = replicas.memory.map_or(Span::NONE, |target| target.span);
        let finding =
            Finding::note(NAME, at, format!("`{name}` scales by memory: most runtimes do not give memory back"));
        found.push(
            finding
                .because("a service that grew for a moment keeps its copies")
                .help("scale by what arrives: CPU, requests or lag"),
        );
    }
    if !replicas.custom.is_empty() {
        let names = list(replicas.custom.keys());
        let at = replicas.custom.keys().next().map_or(Span::NONE, |key| key.span);
        let finding =
            Finding::note(NAME, at, format!("`{name}` scales by {names}, which Kubernetes does not measure by itself"));
        found.push(finding.help("install an adapter for `custom.metrics.k8s.io`, such as prometheus-adapter or KEDA"));
    }
    let floor = replicas.floor();
    let measured = replicas.cpu.is_some() || replicas.memory.is_some() || !replicas.custom.is_empty();
    if !measured && service.windows.is_empty() && floor < max.value {
        let message = format!("`{name}` may have up to {max} copies, but nothing says when");
        found.push(
            Finding::new(NAME, Stake::Risk.severity(context), max.span, message).help("give it a metric: `cpu: 70%`"),
        );
    }
    if floor == max.value {
        let message = format!("`{name}` has at least and at most {max} copies: it cannot scale");
        let at = replicas.min.map_or(Span::NONE, |min| min.span);
        let finding = Finding::new(NAME, Stake::Risk.severity(context), max.span, message).also(at, "the same");
        found.push(finding.help(format!("raise `max`, or write `replicas: {max}`")));
    }
    if replicas.min.is_none() {
        derivation.uses(&format!("services.{name}.replicas.min"), &Spanned::unwritten(1), Section::Given);
    }
    let reaction = facts::AUTOSCALER_PERIOD + facts::METRICS_RESOLUTION + service.startup.value;
    derivation.uses(&format!("services.{name}.startup"), &service.startup, Section::Given);
    derivation.line(format!(
        "{floor} to {max} copies; a new one serves after {} (look) + {} (metrics) + {} (start) = {reaction}",
        facts::AUTOSCALER_PERIOD,
        facts::METRICS_RESOLUTION,
        service.startup
    ));
    let works = found.iter().all(|finding| finding.severity == Severity::Note);
    let verdict = if works { Verdict::Proved } else { Verdict::Refuted };
    report.findings.extend(found.into_iter().map(|finding| finding.on(&subject)));
    let statement = format!("`{name}` can scale between {floor} and {max} copies");
    report.proofs.push(derivation.proof(NAME, subject, statement, verdict, written([max.span, name.span])));
}

/// The most that a copy can use, in percent of its request; `None` when it requests nothing.
fn ratio(request: u64, limit: u64) -> Option<u64> {
    (request > 0).then(|| limit.saturating_mul(100) / request)
}

fn reachable(
    name: &Spanned<Name>,
    what: &str,
    target: Spanned<Percent>,
    reach: u64,
    derivation: &mut Derivation,
    found: &mut Vec<Finding>,
) {
    let acts_at = u64::from(target.whole()) * (100 + facts::AUTOSCALER_TOLERANCE_PERCENT) / 100;
    let line = format!("{what}: grows above {target} + 10 % = {acts_at} % of the request; a copy can use {reach} %");
    derivation.line(line.clone());
    if acts_at >= reach {
        let message = format!("`{name}` can never use more than its {what} target, so it never grows");
        let finding = Finding::error(NAME, target.span, message).because(line);
        found.push(finding.help(format!(
            "aim lower than {} %, or raise the limit",
            reach * 100 / (100 + facts::AUTOSCALER_TOLERANCE_PERCENT)
        )));
    }
}

#[cfg(test)]
mod tests;

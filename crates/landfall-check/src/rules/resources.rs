//! `resources`: requests and limits that are missing or far apart.

use landfall_model::{Finding, Resources, ServiceKind, Severity, Span, Spanned};

use super::derivation::{Derivation, Section, Stake};
use super::placement::runs_on_nodes;
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};

const NAME: &str = "resources";

/// From how many times its request on a memory limit is a bet that not all copies need it at once.
const FAR_APART: u64 = 4;

pub(super) const RULE: Rule = Rule {
    name: NAME,
    subject: Subject::Capacity,
    severity: Severity::Warning,
    summary: "Every pod says what it needs, and no store is the first to be killed.",
    explanation: "\
The scheduler places by requests. A pod that requests nothing is placed anywhere, gets what is left, and is the first to \
be killed when a node's memory runs out; without a memory limit it can take a node down with it. Under pressure the \
kernel kills by quality of service: pods without requests first, then those above their request; a pod whose requests \
equal its limits last, which is what one wants of a database \
(https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/). A memory limit of four times the request or more is a bet \
that copies do not need it at once: nodes are filled by requests.",
    passing: include_str!("../../tests/it/rules/resources/ok.yaml"),
    failing: include_str!("../../tests/it/rules/resources/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    let document = &context.architecture.document;
    for (name, service) in &document.services {
        if service.kind.value != ServiceKind::Mock {
            judge(context, ("service", "services"), name, &service.resources, report);
        }
    }
    for (name, store) in &document.stores {
        if runs_on_nodes(context.architecture, store) {
            judge(context, ("store", "stores"), name, &store.resources, report);
            guaranteed(context, name, &store.resources, report);
        }
    }
}

fn judge(
    context: &Context<'_>,
    (kind, section): (&str, &str),
    name: &Spanned<landfall_model::Name>,
    resources: &Resources,
    report: &mut Report,
) {
    let subject = format!("{kind}.{name}");
    let mut derivation = Derivation::default();
    let missing: Vec<&str> = [("CPU", resources.cpu.is_none()), ("memory", resources.memory.is_none())]
        .into_iter()
        .filter_map(|(what, missing)| missing.then_some(what))
        .collect();
    let requests_something = resources.memory.is_some_and(|memory| memory.value.low.get() > 0);
    if let Some(cpu) = &resources.cpu {
        derivation.line(format!("cpu {cpu}"));
        derivation.uses(&format!("{section}.{name}.resources.cpu"), cpu, Section::from(resources.assumed));
    }
    if let Some(memory) = &resources.memory {
        derivation.line(format!("memory {memory}"));
        derivation.uses(&format!("{section}.{name}.resources.memory"), memory, Section::from(resources.assumed));
    }
    if !missing.is_empty() {
        let missing = missing.join(" and no ");
        derivation.line(format!("no {missing}"));
        let message = format!("`{name}` requests no {missing}: it is placed anywhere and killed first");
        let at = resources.cpu.map(|cpu| cpu.span).or(resources.memory.map(|memory| memory.span)).unwrap_or(name.span);
        let finding = Finding::new(NAME, Stake::Risk.severity(context), at, message).on(&subject);
        report
            .findings
            .push(finding.help("say what a copy needs: `resources: { cpu: 250m..500m, memory: 256Mi..512Mi }`"));
    } else if let Some(memory) = resources.memory.filter(|_| requests_something)
        && memory.value.high.get() >= memory.value.low.get().saturating_mul(FAR_APART)
    {
        let message = format!(
            "`{name}` may use {} times the memory that it requests",
            memory.value.high.get() / memory.value.low.get()
        );
        let finding = Finding::note(NAME, memory.span, message).on(&subject);
        report.findings.push(
            finding
                .because("nodes are filled by requests: when copies use it at once, some are killed")
                .help("request what it uses at its peak"),
        );
    }
    let verdict = if missing.is_empty() { Verdict::Proved } else { Verdict::Refuted };
    report.proofs.push(derivation.proof(NAME, subject, format!("`{name}` says what it needs"), verdict, name.span));
}

/// A store whose requests are its limits is killed last.
fn guaranteed(context: &Context<'_>, name: &Spanned<landfall_model::Name>, resources: &Resources, report: &mut Report) {
    let Some(memory) = resources.memory.filter(|memory| memory.value.high > memory.value.low) else { return };
    if !context.architecture.is_production() {
        return;
    }
    let message = format!("`{name}` is killed before others when memory runs out: it may use more than it requests");
    let cpu = resources.cpu.map_or(Span::NONE, |cpu| cpu.span);
    let finding =
        Finding::note(NAME, memory.span, message).on(format!("store.{name}")).also(cpu, "the same should hold here");
    report.findings.push(finding.help(format!("request what it may use: `memory: {}`", memory.value.high)));
}

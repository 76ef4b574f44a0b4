//! `probes`: probes that are missing, that restart what works, and copies that are killed before they finish.

use landfall_model::{Architecture, Connection, Duration, Element, Finding, Name, Probe, Service, Severity, Spanned};
use serde_json::Value;

use super::derivation::{Derivation, Section, Stake, written};
use super::rendered::{span_of, subject_of};
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};

const NAME: &str = "probes";

pub(super) const RULE: Rule = Rule {
    name: NAME,
    subject: Subject::Rollout,
    severity: Severity::Error,
    summary: "Copies get requests when they are ready, are restarted only when they hang, and may finish what they began.",
    explanation: "\
Without a readiness probe a copy gets requests from the moment its process exists, and a rollout goes on although the new \
version does not work. A liveness probe that asks the same question as the readiness probe, and gives up no later, \
restarts copies because something behind them is slow; Kubernetes' own advice is the same endpoint with a higher \
`failures`. A liveness probe that gives up before the declared start is over kills every copy before it serves, for \
ever: it gives up after delay + failures × period. A copy that is stopped has `grace` to finish; a call that may take \
longer is cut off, and a `preStop` hook counts as part of it. \
Sources: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/ and \
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination.",
    passing: include_str!("../../tests/it/rules/probes/ok.yaml"),
    failing: include_str!("../../tests/it/rules/probes/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    let calls = longest_calls(context.architecture);
    for (name, service) in &context.architecture.document.services {
        if !service.must_be_available() || service.all_ports().is_empty() {
            continue;
        }
        let mut derivation = Derivation::default();
        let mut found = Vec::new();
        readiness(context, name, service, &mut derivation, &mut found);
        liveness(context, name, service, &mut derivation, &mut found);
        grace(context, name, service, calls.get(name.as_str()), &mut derivation, &mut found);
        let verdict = if found.is_empty() { Verdict::Proved } else { Verdict::Refuted };
        let subject = format!("service.{name}");
        report.findings.extend(found.into_iter().map(|finding| finding.on(&subject)));
        let statement = format!("`{name}` gets requests when it is ready, and is restarted when it hangs");
        report.proofs.push(derivation.proof(NAME, subject, statement, verdict, name.span));
    }
    hooks(context, report);
}

/// How long a probe takes to give up, counted from the start of the container.
pub(super) fn gives_up_after(probe: &Probe) -> Duration {
    probe.delay.value + probe.period.value * u64::from(probe.failures.value)
}

/// How long a copy hangs until a probe has given up: it may have passed just before.
pub(super) fn notices_after(probe: &Probe) -> Duration {
    probe.period.value * u64::from(probe.failures.value) + probe.timeout.value
}

fn readiness(
    context: &Context<'_>,
    name: &Spanned<Name>,
    service: &Service,
    derivation: &mut Derivation,
    found: &mut Vec<Finding>,
) {
    if let Some(ready) = &service.probes.ready {
        derivation.line(format!(
            "not ready after {} × {} + {} = {}",
            ready.failures,
            ready.period,
            ready.timeout,
            notices_after(ready)
        ));
        return;
    }
    derivation.line("no readiness probe");
    if service.kind.serves() {
        let message = format!("`{name}` has no readiness probe: it gets requests before it can answer");
        let finding = Finding::new(NAME, Stake::Risk.severity(context), name.span, message);
        found.push(finding.help("add one: `probes: { ready: { http: /ready, period: 5s } }`"));
    }
}

fn liveness(
    context: &Context<'_>,
    name: &Spanned<Name>,
    service: &Service,
    derivation: &mut Derivation,
    found: &mut Vec<Finding>,
) {
    let probes = &service.probes;
    let starter =
        probes.startup.as_ref().map(|probe| ("startup", probe)).or(probes.live.as_ref().map(|probe| ("live", probe)));
    if let Some((which, probe)) = starter {
        let section = Section::Given;
        derivation.uses(&format!("services.{name}.startup"), &service.startup, section);
        let line = format!(
            "the `{which}` probe gives up after {} + {} × {} = {}; a start takes {}",
            probe.delay,
            probe.failures,
            probe.period,
            gives_up_after(probe),
            service.startup
        );
        derivation.line(line.clone());
        if gives_up_after(probe) < service.startup.value {
            let message = format!("`{name}` is killed before it has started, again and again");
            let at =
                written([probe.delay.span, probe.failures.span, probe.period.span, service.startup.span, name.span]);
            let mut finding =
                Finding::error(NAME, at, message).because(line).also(service.startup.span, "the start takes so long");
            // A start that nobody declared is a guess, and a guess refutes nothing.
            if !service.startup.span.is_written() {
                finding.severity = Stake::Risk.severity(context);
            }
            found.push(finding.help(format!("add a startup probe that waits longer than {}", service.startup)));
        }
    } else {
        derivation.line("no liveness probe: a copy that hangs stays");
    }
    if let (Some(live), Some(ready)) = (&probes.live, &probes.ready) {
        let patience = |probe: &Probe| probe.period.value * u64::from(probe.failures.value);
        if same_question(live, ready) && patience(live) <= patience(ready) {
            let message =
                format!("the liveness probe of `{name}` asks what the readiness probe asks, and gives up no later");
            let at = written([
                live.http.as_ref().or(live.tcp.as_ref()).or(live.grpc.as_ref()).map_or(name.span, |text| text.span),
                name.span,
            ]);
            let other =
                ready.http.as_ref().or(ready.tcp.as_ref()).or(ready.grpc.as_ref()).map_or(name.span, |text| text.span);
            let finding = Finding::new(NAME, Stake::Risk.severity(context), at, message)
                .also(other, "the same question")
                .because(format!("live gives up after {}, ready after {}", patience(live), patience(ready)))
                .because("a copy that is only busy is restarted, and its load falls on the others");
            found.push(finding.help("ask only whether the process lives, or give the liveness probe more `failures`"));
        }
    }
}

fn same_question(a: &Probe, b: &Probe) -> bool {
    a.http == b.http && a.tcp == b.tcp && a.grpc == b.grpc && a.exec == b.exec && a.port == b.port
}

type LongestCalls<'a> = std::collections::BTreeMap<&'a str, &'a Connection>;

/// For each service the call to it that may take longest.
fn longest_calls(architecture: &Architecture) -> LongestCalls<'_> {
    let mut longest = LongestCalls::new();
    for connection in &architecture.connections {
        let (Element::Service(to), Some(timeout)) = (&connection.to, connection.edge.timeout) else { continue };
        let known = longest.entry(to.as_str()).or_insert(connection);
        if known.edge.timeout.is_none_or(|known| known.value < timeout.value) {
            *known = connection;
        }
    }
    longest
}

fn grace(
    context: &Context<'_>,
    name: &Spanned<Name>,
    service: &Service,
    longest: Option<&&Connection>,
    derivation: &mut Derivation,
    found: &mut Vec<Finding>,
) {
    derivation.uses(&format!("services.{name}.grace"), &service.grace, Section::Given);
    let Some((connection, timeout)) = longest.and_then(|connection| Some((connection, connection.edge.timeout?)))
    else {
        return;
    };
    derivation.line(format!(
        "{} may wait {timeout} for an answer; a copy that is stopped has {}",
        connection.from, service.grace
    ));
    if timeout.value > service.grace.value {
        let message = format!("a copy of `{name}` that is stopped cuts off calls of {}", connection.from);
        let at = written([service.grace.span, timeout.span, name.span]);
        let finding = Finding::new(NAME, Stake::Risk.severity(context), at, message)
            .also(timeout.span, "a call may take so long");
        found.push(
            finding
                .because(format!("grace {} < timeout {timeout}", service.grace))
                .help(format!("set `grace: {timeout}` or more")),
        );
    }
}

/// `preStop` hooks that use up the whole grace period.
fn hooks(context: &Context<'_>, report: &mut Report) {
    for workload in context.rendered.workloads() {
        let pod = workload.pointer("/spec/template/spec");
        let grace = pod.and_then(|pod| pod.pointer("/terminationGracePeriodSeconds")?.as_u64()).unwrap_or(30);
        let containers = pod.and_then(|pod| pod.pointer("/containers")?.as_array());
        for container in containers.into_iter().flatten() {
            let Some(hook) = container.pointer("/lifecycle/preStop").and_then(hook_seconds) else { continue };
            if hook >= grace {
                let subject = subject_of(context, workload);
                let message = format!("{subject} is killed during its `preStop` hook, before it may finish a request");
                let finding = Finding::new(NAME, Stake::Risk.severity(context), span_of(context, workload), message);
                let finding = finding.because(format!("the hook takes {hook} s of {grace} s of grace"));
                report.findings.push(finding.on(subject).help(format!("set `grace` to {} s or more", hook + 30)));
            }
        }
    }
}

/// How long a hook sleeps: `sleep: { seconds: 5 }`, or a `sleep 5` among the words of a command.
fn hook_seconds(hook: &Value) -> Option<u64> {
    if let Some(seconds) = hook.pointer("/sleep/seconds").and_then(Value::as_u64) {
        return Some(seconds);
    }
    let command = hook.pointer("/exec/command").and_then(Value::as_array)?;
    let words = command.iter().filter_map(Value::as_str).flat_map(str::split_whitespace);
    let words: Vec<&str> = words.collect();
    words
        .windows(2)
        .find(|pair| pair[0].ends_with("sleep"))
        .and_then(|pair| pair[1].trim_end_matches([';', 's']).parse().ok())
}

#[cfg(test)]
mod tests;

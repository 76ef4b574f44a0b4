//! Assurance: checklists with evidence, data that may be where it is, alerts that reach a person.

use landfall_model::{
    AlertSource, DataPolicy, Duration, Finding, LogSoftware, Name, Predicate, ReceiverMeans, Route, Severity, Span,
    Spanned, TimeOfDay,
};

use super::wording::{count, names, proof, verdict};
use crate::report::Report;
use crate::rule::{Context, Rule, Subject};

pub(super) const CHECKLIST: Rule = Rule {
    name: "checklist",
    subject: Subject::Delivery,
    severity: Severity::Warning,
    summary: "Each item of the checklist has a predicate, evidence that ages, and an environment that it comes from.",
    explanation: "A checklist of sentences is ticked, not checked. Each item names the predicate that shows it (`shown-by`) and \
        how old the evidence may be (`fresh`); without freshness a restore that was drilled three years ago passes for ever. \
        Tests and scans are of certain digests, so they name the environment in which they ran. `attested` means that a \
        person says so, which is told as a note.",
    passing: include_str!("../../tests/it/rules/checklist/ok.yaml"),
    failing: include_str!("../../tests/it/rules/checklist/bad.yaml"),
    run: Some(checklist),
};

pub(super) const DATA_POLICY: Rule = Rule {
    name: "data-policy",
    subject: Subject::Security,
    severity: Severity::Error,
    summary: "Real data stays in production, and anonymised data has masking rules.",
    explanation: "An environment for tests has more people, weaker access and no alarms, so real data in it is an incident that \
        has not been noticed yet. Anonymised data is only as anonymous as its masking: `security.masking` must name the \
        fields of at least one store. Production that holds synthetic data is no production, which is told as a note.",
    passing: include_str!("../../tests/it/rules/data-policy/ok.yaml"),
    failing: include_str!("../../tests/it/rules/data-policy/bad.yaml"),
    run: Some(data_policy),
};

pub(super) const ON_CALL: Rule = Rule {
    name: "on-call",
    subject: Subject::Delivery,
    severity: Severity::Warning,
    summary: "Every critical alert reaches a person, and the next one in time when nobody answers.",
    explanation: "The rule follows the routes: each severity has one, critical alerts do not end in a mail box or a chat alone, \
        each step of the escalation comes later than the one before and goes to somebody else, and people are on call around \
        the clock or the hours are known. Alertmanager has no escalation of its own, so the chain must be stated to be \
        rendered (https://prometheus.io/docs/alerting/latest/alertmanager/). The time until a person knows is compared with \
        the shortest recovery time that is promised.",
    passing: include_str!("../../tests/it/rules/on-call/ok.yaml"),
    failing: include_str!("../../tests/it/rules/on-call/bad.yaml"),
    run: Some(on_call),
};

pub(super) const ALERT_PATH: Rule = Rule {
    name: "alert-path",
    subject: Subject::Delivery,
    severity: Severity::Error,
    summary: "What raises alerts has a way to Alertmanager.",
    explanation: "Prometheus and Loki's ruler send alerts to Alertmanager by themselves. Elasticsearch does not: its own alerting \
        is a paid feature of Kibana and knows no Alertmanager \
        (https://www.elastic.co/docs/explore-analyze/alerts-cases/alerts/rule-types). Alerts from logs then need a bridge such \
        as ElastAlert 2, or, better, a metric that is counted from the logs. The rule also finds alerts from metrics without a \
        metrics stack, and routes without anything that raises an alert.",
    passing: include_str!("../../tests/it/rules/alert-path/ok.yaml"),
    failing: include_str!("../../tests/it/rules/alert-path/bad.yaml"),
    run: Some(alert_path),
};

fn prove(report: &mut Report, rule: &'static str, subject: &str, statement: &str, span: Span, derivation: Vec<String>) {
    let against =
        report.findings.iter().filter(|finding| finding.rule == rule && finding.severity < Severity::Note).count();
    report.proofs.push(proof(rule, subject, statement, verdict(against), span, derivation));
}

fn checklist(context: &Context<'_>, report: &mut Report) {
    let items = &context.architecture.document.delivery.checklist;
    let mut lines = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let subject = format!("checklist.{}", index + 1);
        let Some(predicate) = &item.shown_by else {
            let finding =
                Finding::warning(CHECKLIST.name, item.says.span, format!("nothing shows that \"{}\"", item.says))
                    .on(subject);
            report.findings.push(
                finding.help(
                    "add `shown-by:` with a predicate such as `tests-passed` or `restore-drilled`, or `attested`",
                ),
            );
            continue;
        };
        lines.push(format!("{}: {}", item.says, word(predicate.value)));
        if item.fresh.is_none() && predicate.value != Predicate::CapacityFits {
            let finding = Finding::warning(
                CHECKLIST.name,
                predicate.span,
                format!("the evidence for \"{}\" never gets too old", item.says),
            )
            .on(subject.clone());
            report.findings.push(finding.help("add `fresh:`, such as `24h` for tests and `30d` for a drill"));
        }
        if matches!(predicate.value, Predicate::TestsPassed | Predicate::NoVulnerabilities | Predicate::CapacityFits)
            && item.environment.is_none()
        {
            let finding = Finding::note(
                CHECKLIST.name,
                predicate.span,
                format!("\"{}\" does not say in which environment", item.says),
            )
            .on(subject.clone());
            report.findings.push(finding.help("add `environment:`"));
        }
        if predicate.value == Predicate::Attested {
            let finding = Finding::note(
                CHECKLIST.name,
                predicate.span,
                format!("\"{}\" is shown by somebody's word only", item.says),
            )
            .on(subject);
            report.findings.push(finding.help("choose a predicate if one fits"));
        }
    }
    if let Some(first) = items.first() {
        prove(
            report,
            CHECKLIST.name,
            "delivery.checklist",
            "each item of the checklist is shown by evidence",
            first.says.span,
            lines,
        );
    }
}

fn word(predicate: Predicate) -> &'static str {
    match predicate {
        Predicate::TestsPassed => "tests-passed",
        Predicate::NoVulnerabilities => "no-vulnerabilities",
        Predicate::CapacityFits => "capacity-fits",
        Predicate::RestoreDrilled => "restore-drilled",
        Predicate::OnCallConfirmed => "on-call-confirmed",
        Predicate::Attested => "attested",
    }
}

fn data_policy(context: &Context<'_>, report: &mut Report) {
    let document = &context.architecture.document;
    let masked: usize = document.security.masking.values().map(std::collections::BTreeMap::len).sum();
    let mut lines = Vec::new();
    for (name, environment) in &document.environments {
        let subject = format!("environment.{name}");
        let data = &environment.data;
        let policy = match data.value {
            DataPolicy::Synthetic => "synthetic",
            DataPolicy::AnonymisedSubset => "anonymised-subset",
            DataPolicy::AnonymisedFull => "anonymised-full",
            DataPolicy::Real => "real",
        };
        lines.push(format!("{name}: {policy}"));
        match (data.value, environment.production.value) {
            (DataPolicy::Real, false) => {
                let finding = Finding::error(
                    DATA_POLICY.name,
                    data.span,
                    format!("`{name}` holds real data and is not production"),
                )
                .on(subject);
                report
                    .findings
                    .push(finding.help("say `data: anonymised-subset` and declare `security.masking`, or `synthetic`"));
            }
            (DataPolicy::AnonymisedSubset | DataPolicy::AnonymisedFull, _) if masked == 0 => {
                let message = format!("`{name}` holds anonymised data, but no field is masked");
                let finding = Finding::error(DATA_POLICY.name, data.span, message).on(subject);
                report.findings.push(
                    finding
                        .because("`security.masking` is empty")
                        .help("name the fields: `security.masking: { ledger: { customers.email: fake } }`"),
                );
            }
            (DataPolicy::Synthetic, true) if data.span.is_written() => {
                let finding = Finding::note(
                    DATA_POLICY.name,
                    data.span,
                    format!("`{name}` is production and holds made-up data"),
                )
                .on(subject);
                report.findings.push(finding.help("say `data: real`"));
            }
            _ => {}
        }
    }
    if !document.environments.is_empty() {
        lines.push(format!("{} masked", count(masked, "field")));
        let span = document.environments.keys().next().map_or(Span::NONE, |name| name.span);
        prove(report, DATA_POLICY.name, "environments", "real data stays in production", span, lines);
    }
}

fn on_call(context: &Context<'_>, report: &mut Report) {
    let document = &context.architecture.document;
    let observability = &document.observability;
    let routes = &observability.alerts.routes;
    let all = [("critical", &routes.critical), ("warning", &routes.warning), ("info", &routes.info)];
    let any = all.iter().any(|(_, route)| route.is_some());
    if !any && observability.on_call.is_none() {
        return;
    }
    let span = observability.alerts.receivers.keys().next().map_or(document.name.span, |name| name.span);
    let mut lines = Vec::new();
    for (severity, route) in all {
        let subject = format!("alerts.{severity}");
        let Some(route) = route else {
            if severity != "info" {
                let finding =
                    Finding::warning(ON_CALL.name, span, format!("{severity} alerts reach nobody")).on(subject);
                report
                    .findings
                    .push(finding.help(format!("add `{severity}: {{ to: … }}` to `observability.alerts.routes`")));
            }
            continue;
        };
        let chain = std::iter::once(format!("{} at once", route.to))
            .chain(route.escalate.iter().map(|step| format!("{} after {}", step.to, step.after)));
        lines.push(format!("{severity}: {}", chain.collect::<Vec<_>>().join(", then ")));
        escalation(&subject, route, report);
        if severity == "critical" {
            critical(context, route, report);
        }
    }
    hours(context, report);
    prove(report, ON_CALL.name, "alerts", "every critical alert reaches a person in time", span, lines);
}

fn escalation(subject: &str, route: &Route, report: &mut Report) {
    let mut last = Duration::ZERO;
    let mut before: &Spanned<Name> = &route.to;
    for step in &route.escalate {
        if step.after.value <= last {
            let message = format!(
                "the escalation to `{}` after {} comes no later than the one before, after {last}",
                step.to, step.after
            );
            let finding = Finding::error(ON_CALL.name, step.after.span, message).on(subject);
            report.findings.push(finding.help("times count from the alert, so each is longer than the one before"));
        }
        if step.to.value == before.value {
            let finding = Finding::warning(
                ON_CALL.name,
                step.to.span,
                format!("`{}` is told again instead of somebody else", step.to),
            )
            .on(subject);
            report.findings.push(finding.also(before.span, "already told").help("escalate to another receiver"));
        }
        last = step.after.value;
        before = &step.to;
    }
}

fn critical(context: &Context<'_>, route: &Route, report: &mut Report) {
    let document = &context.architecture.document;
    let receivers = &document.observability.alerts.receivers;
    let wakes = |name: &Spanned<Name>| {
        receivers
            .get(name.as_str())
            .is_some_and(|receiver| matches!(receiver.by.value, ReceiverMeans::Pager | ReceiverMeans::Webhook))
    };
    if route.escalate.is_empty() {
        let finding =
            Finding::warning(ON_CALL.name, route.to.span, "a critical alert that nobody answers goes no further")
                .on("alerts.critical");
        report.findings.push(finding.help("add `escalate: [{ after: 10m, to: … }]`"));
    }
    let times = std::iter::once((Duration::ZERO, &route.to))
        .chain(route.escalate.iter().map(|step| (step.after.value, &step.to)));
    let Some((woken, _)) = times.into_iter().find(|(_, to)| wakes(to)) else {
        let means = names(std::iter::once(&route.to).chain(route.escalate.iter().map(|step| &step.to)));
        let finding =
            Finding::warning(ON_CALL.name, route.to.span, "a critical alert wakes nobody").on("alerts.critical");
        report.findings.push(
            finding
                .because(format!("{means} are told by mail or chat, which nobody reads at night"))
                .help("add a receiver `by: pager`"),
        );
        return;
    };
    let shortest = document
        .objectives
        .recovery
        .declared()
        .filter_map(|(kind, objective)| Some((kind, objective.rto.as_ref()?)))
        .min_by_key(|(_, rto)| rto.value);
    if let Some((kind, rto)) = shortest.filter(|(_, rto)| rto.value <= woken) {
        let message = format!(
            "a person is woken after {woken}, but recovery from the loss of a {} is promised within {rto}",
            kind.as_str()
        );
        let finding =
            Finding::warning(ON_CALL.name, route.to.span, message).also(rto.span, "the promise").on("alerts.critical");
        report.findings.push(finding.help("page first, and mail besides"));
    }
}

fn hours(context: &Context<'_>, report: &mut Report) {
    let document = &context.architecture.document;
    let Some(on_call) = &document.observability.on_call else {
        if context.architecture.is_production() && document.observability.alerts.routes.critical.is_some() {
            let span = document.observability.alerts.routes.critical.as_ref().map_or(Span::NONE, |route| route.to.span);
            let finding = Finding::note(ON_CALL.name, span, "nobody is named who is on call").on("on-call");
            report.findings.push(finding.help("add `observability.on-call: { rotation: [...] }`"));
        }
        return;
    };
    let time = |time: &Option<Spanned<TimeOfDay>>| time.as_ref().map(|time| (time.value.minutes(), time.span));
    if let (Some((from, span)), Some((to, _))) = (time(&on_call.from), time(&on_call.to)) {
        let minutes = if to > from { to - from } else { to + 24 * 60 - from };
        if minutes < 24 * 60 {
            let message = format!("nobody is on call for {} hours of a day", (24 * 60 - minutes) / 60);
            let mut finding = Finding::note(ON_CALL.name, span, message).on("on-call");
            if let Some(availability) = &document.objectives.availability {
                finding = finding.also(availability.span, "this promise counts around the clock");
            }
            report.findings.push(finding.help("leave out `from` and `to`, or count only these hours in the objective"));
        }
    }
    if on_call.rotation.len() == 1 {
        let finding = Finding::warning(
            ON_CALL.name,
            on_call.rotation[0].span,
            format!("`{}` is always on call", on_call.rotation[0]),
        )
        .on("on-call");
        report.findings.push(finding.help("a rotation needs at least two, best three or more"));
    } else if on_call.rotation.is_empty() {
        let finding = Finding::warning(ON_CALL.name, on_call.turn.span, "the rotation is empty").on("on-call");
        report.findings.push(finding.help("name the people: `rotation: [...]`"));
    }
}

fn alert_path(context: &Context<'_>, report: &mut Report) {
    let observability = &context.architecture.document.observability;
    let alerts = &observability.alerts;
    let mut lines = Vec::new();
    for source in &alerts.from {
        match source.value {
            AlertSource::Metrics if observability.metrics.is_none() => {
                let finding = Finding::error(
                    ALERT_PATH.name,
                    source.span,
                    "alerts are raised from metrics, but nothing collects them",
                )
                .on("alerts.metrics");
                report.findings.push(finding.help("add `observability.metrics: prometheus`"));
            }
            AlertSource::Metrics => lines.push("metrics: Prometheus -> Alertmanager".to_owned()),
            AlertSource::Logs => match observability.logs.as_ref().map(|logs| (&logs.stack, logs.stack.value)) {
                None => {
                    let finding = Finding::error(
                        ALERT_PATH.name,
                        source.span,
                        "alerts are raised from logs, but nothing collects them",
                    )
                    .on("alerts.logs");
                    report.findings.push(finding.help("add `observability.logs:` with a stack"));
                }
                Some((stack, LogSoftware::Elasticsearch)) => {
                    let finding = Finding::error(
                        ALERT_PATH.name,
                        source.span,
                        "alerts from logs have no way from Elasticsearch to Alertmanager",
                    )
                    .also(stack.span, "it sends nothing to Alertmanager by itself")
                    .on("alerts.logs");
                    report.findings.push(finding.help("count the log lines as a metric and alert from metrics, or use the stack `loki`, whose ruler sends to Alertmanager"));
                }
                Some((_, LogSoftware::Loki)) => lines.push("logs: Loki's ruler -> Alertmanager".to_owned()),
            },
        }
    }
    let routed = [&alerts.routes.critical, &alerts.routes.warning, &alerts.routes.info].into_iter().flatten().next();
    if let Some(route) = routed
        && observability.metrics.is_none()
        && alerts.from.is_empty()
    {
        let finding = Finding::error(ALERT_PATH.name, route.to.span, "alerts have routes, but nothing raises them")
            .on("alerts.metrics");
        report.findings.push(finding.help("add `observability.metrics: prometheus`"));
    }
    if routed.is_some() || !alerts.from.is_empty() {
        if observability.metrics.is_some() && lines.is_empty() {
            lines.push("metrics: Prometheus -> Alertmanager".to_owned());
        }
        let span = alerts.from.first().map_or(Span::NONE, |source| source.span);
        prove(report, ALERT_PATH.name, "alerts", "what raises alerts has a way to Alertmanager", span, lines);
    }
}

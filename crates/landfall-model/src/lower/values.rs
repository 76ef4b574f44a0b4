//! Values that contradict their neighbours, or that only a library can judge: cron, time zones.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::diagnostic::Finding;
use crate::document::{
    CanaryMetric, Document, EnvironmentValue, Expose, Notify, Probe, Probes, Replicas, Rollout, Service,
};
use crate::span::{Span, Spanned};
use crate::units::{Name, Reference};

pub(super) fn check(document: &Document, findings: &mut Vec<Finding>) {
    for (name, service) in &document.services {
        service_values(name, service, findings);
    }
    for (name, flow) in &document.flows {
        if flow.steps.is_empty() {
            findings.push(
                Finding::error("empty-flow", name.span, format!("flow `{name}` has no steps"))
                    .help("add `steps: [client -> …]`"),
            );
        }
    }
    for (name, store) in &document.stores {
        if store.members.value == 0 {
            findings.push(
                Finding::error("no-members", store.members.span, format!("store `{name}` has no members"))
                    .help("set `members` to at least 1"),
            );
        }
    }
    if let Some(pipeline) = &document.delivery.pipeline
        && let Some(schedule) = &pipeline.scan_schedule
    {
        cron(schedule, findings);
    }
    document.told().for_each(|notify| means(notify, findings));
    if let Some(rollout) = &document.delivery.rollout {
        metrics(rollout, findings);
    }
    shares(document, findings);
    environments_in_a_circle(document, findings);
    let windows = document.environments.values().flat_map(|environment| &environment.deploy_windows);
    windows.for_each(|window| time_zone(&window.time_zone, findings));
    if let Some(zone) = document.observability.on_call.as_ref().and_then(|on_call| on_call.time_zone.as_ref()) {
        time_zone(zone, findings);
    }
    let mut ids = BTreeMap::new();
    for claim in &document.claims {
        if let Some(first) = ids.insert(claim.id.as_str(), claim.id.span) {
            let finding =
                Finding::error("duplicate-name", claim.id.span, format!("two claims have the id `{}`", claim.id));
            findings.push(finding.also(first, "the other one").help("ids are unique, so that evidence can name them"));
        }
    }
    for patch in &document.patches {
        if patch.merge.is_none() == patch.operations.is_none() {
            let finding =
                Finding::error("patch", patch.target.kind.span, "a patch needs either `merge` or `operations`");
            findings.push(finding.help("`merge` takes a fragment of the object, `operations` a JSON Patch"));
        }
    }
    for object in &document.objects {
        let named = |pointer: &str| object.pointer(pointer).is_some_and(serde_json::Value::is_string);
        if !(named("/apiVersion") && named("/kind") && named("/metadata/name")) {
            let finding =
                Finding::error("object", object.span, "an object needs `apiVersion`, `kind` and `metadata.name`");
            findings.push(finding.help("write it as one would for `kubectl apply`"));
        }
    }
}

/// Somebody is told by one means, and it is an address or names where one is kept.
fn means(notify: &Notify, findings: &mut Vec<Finding>) {
    let to = &notify.to;
    if to.trim().is_empty() {
        let finding = Finding::error("notify", to.span, "nobody is named who is told");
        findings.push(finding.help("name a person or a team: `to: release-managers`"));
    }
    let (webhook, file) = (notify.webhook.as_ref(), notify.file.as_ref());
    let written = [webhook, file].into_iter().flatten();
    match (webhook, file) {
        (Some(webhook), None) => address(to, webhook, findings),
        (None, Some(file)) if file.trim().is_empty() || file.ends_with('/') => {
            let finding = Finding::error("notify", file.span, format!("`{file}` is no file"));
            findings.push(finding.help("write a path from the folder of this file on, such as `releases.jsonl`"));
        }
        (None, Some(_)) => {}
        _ => {
            let at = written.last().map_or(to.span, |second| second.span);
            let finding = Finding::error("notify", at, format!("`{to}` is told by exactly one means"));
            findings.push(finding.help("write either `webhook: https://…`, `webhook: secret/key` or `file: releases.jsonl`; for two means, two items"));
        }
    }
}

/// A URL that anybody may read, or the place of one.
fn address(to: &Spanned<String>, webhook: &Spanned<String>, findings: &mut Vec<Finding>) {
    if !webhook.contains("://") {
        if webhook.parse::<Reference>().is_err() {
            let finding = Finding::error("notify", webhook.span, format!("`{webhook}` is neither a URL nor a secret"));
            findings
                .push(finding.help("write `https://host/path`, or the secret that holds the URL: `release-mail/url`"));
        }
        return;
    }
    let scheme = ["https://", "http://"].iter().find_map(|scheme| webhook.strip_prefix(scheme));
    let Some(rest) = scheme else {
        let finding = Finding::error("notify", webhook.span, format!("`{webhook}` is not reached by HTTP"));
        findings.push(finding.help("write a URL that begins with `https://`"));
        return;
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or_default();
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '[' | ']' | ':');
    let is_bad = name.is_empty()
        || !name.chars().all(fits)
        || port.is_some_and(|port| port.parse::<u16>().is_err())
        || path.chars().any(|c| c.is_whitespace() || c.is_control())
        || path.contains('#');
    // Whoever has the URL of a webhook may send to it: a secret in it is never repeated.
    if authority.contains('@') || holds_secret(path) {
        let finding = Finding::error("notify", webhook.span, format!("the URL by which `{to}` is told holds a secret"));
        findings.push(
            finding
                .because("what stands in the file is in every clone, and whoever has the URL can send to it")
                .help("put the URL into the secret back end, declare it as `security.secrets.items: { release-mail: { keys: [url] } }`, and write `webhook: release-mail/url`"),
        );
    } else if is_bad {
        let finding = Finding::error("notify", webhook.span, format!("`{webhook}` is no URL"));
        findings.push(finding.help("write `https://host/path`"));
    }
}

/// Whether the path or the query of a URL lets in who has it: a parameter named for it, or a part that looks random.
fn holds_secret(path: &str) -> bool {
    /// Parts of paths that people choose are shorter, or have no digits among their letters.
    const RANDOM: usize = 16;
    const NAMES: [&str; 9] =
        ["token", "key", "secret", "password", "sig", "signature", "auth", "access_token", "api_key"];
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let is_random = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        part.len() >= RANDOM
            && part.chars().all(plain)
            && part.contains(|c: char| c.is_ascii_digit())
            && part.contains(|c: char| c.is_ascii_alphabetic())
    };
    let parameters = || query.split('&').filter_map(|parameter| parameter.split_once('='));
    path.split('/').any(is_random)
        || parameters().any(|(name, value)| {
            is_random(value)
                || !value.is_empty() && NAMES.contains(&name.to_ascii_lowercase().replace('-', "_").as_str())
        })
}

/// The own metrics of a canary: each has a name, a query with nothing unknown in it, and one bound.
fn metrics(rollout: &Rollout, findings: &mut Vec<Finding>) {
    let Rollout::Canary(canary) = rollout else { return };
    let mut names = BTreeMap::new();
    for metric in &canary.judge.metrics {
        let name = &metric.name;
        if let Some(first) = names.insert(name.as_str(), name.span) {
            let finding =
                Finding::error("duplicate-name", name.span, format!("two metrics of the canary are called `{name}`"));
            findings.push(finding.also(first, "the other one").help("give one of them another name"));
        }
        bound(metric, findings);
        if metric.every.seconds() == 0 {
            let finding =
                Finding::error("wrong-value", metric.every.span, format!("`{name}` is asked for all the time"));
            findings.push(finding.help("give it the time between two scrapes at least, such as `every: 15s`"));
        }
        if metric.query.trim().is_empty() {
            let finding = Finding::error("wrong-value", metric.query.span, format!("`{name}` asks nothing"));
            findings.push(finding.help(
                "write an expression of PromQL, such as `max(queue_length{namespace=\"{{namespace}}\",pod=~\"{{pods}}\"})`",
            ));
        }
        let known = CanaryMetric::PLACES.iter();
        let rest = known.fold(metric.query.value.clone(), |text, place| text.replace(place, ""));
        if let Some((_, unknown)) = rest.split_once("{{") {
            let unknown = unknown.split_once("}}").map_or("", |(unknown, _)| unknown);
            let message = format!("`{{{{{unknown}}}}}` in the query of `{name}` stands for nothing");
            let finding = Finding::error("wrong-value", metric.query.span, message);
            findings.push(finding.help(format!("a query has {}", CanaryMetric::PLACES.join(", "))));
        }
    }
}

fn bound(metric: &CanaryMetric, findings: &mut Vec<Finding>) {
    let name = &metric.name;
    let of_stable = || [&metric.at_most_of_stable, &metric.at_least_of_stable].into_iter().flatten();
    let given: Vec<_> = [&metric.at_most, &metric.at_least].into_iter().flatten().chain(of_stable()).collect();
    let [bound] = given[..] else {
        let at = given.last().map_or(name.span, |bound| bound.span);
        let finding = Finding::error("wrong-value", at, format!("`{name}` needs exactly one bound"));
        findings.push(finding.help(
            "write one of `at-most`, `at-least`, `at-most-of-stable` and `at-least-of-stable`; for two bounds, two metrics",
        ));
        return;
    };
    if !bound.is_finite() {
        let finding = Finding::error("wrong-value", bound.span, format!("`{bound}` is no bound of `{name}`"));
        findings.push(finding.help("write a number"));
    } else if bound.value <= 0.0 && of_stable().next().is_some() {
        let message = format!("`{bound}` is no multiple of what the stable copies have of `{name}`");
        let finding = Finding::error("wrong-value", bound.span, message);
        findings.push(finding.help(
            "write a ratio above 0, such as `at-most-of-stable: 1.2` or `at-least-of-stable: 0.9`; a bound that stays is `at-most` or `at-least`",
        ));
    }
}

/// Shares of something that cannot be more than all of it.
fn shares(document: &Document, findings: &mut Vec<Finding>) {
    let promised = document.objectives.availability.iter();
    let services = document.services.values().filter_map(|service| service.objective.as_ref()?.availability.as_ref());
    let stores = document.stores.values().filter_map(|store| store.availability.as_ref());
    let externals = document.externals.values();
    let externals = externals.flat_map(|external| external.availability.iter().chain(&external.profile.errors));
    for share in promised.chain(services).chain(stores).chain(externals) {
        if share.fraction() > 1.0 {
            let finding = Finding::error("wrong-value", share.span, format!("`{share}` is more than all of it"));
            findings.push(finding.help("write a share of at most `100%`"));
        }
    }
}

/// A release that waits for itself never comes.
fn environments_in_a_circle(document: &Document, findings: &mut Vec<Finding>) {
    for (name, environment) in &document.environments {
        let Some(first) = &environment.after else { continue };
        let mut way = vec![name.as_str()];
        let mut next = Some(first);
        while let Some(after) = next.filter(|after| !way.contains(&after.as_str())) {
            way.push(after.as_str());
            next = document.environments.get(after.as_str()).and_then(|environment| environment.after.as_ref());
        }
        // The circle is told once, at the first of its names.
        if next.is_some_and(|last| last.as_str() == name.as_str()) && way.iter().min() == Some(&name.as_str()) {
            let finding = Finding::error("wrong-value", first.span, format!("`{name}` comes after itself"));
            let way = way.iter().rev().copied().collect::<Vec<_>>().join(" -> ");
            findings.push(
                finding
                    .because(format!("{name} -> {way}"))
                    .help("promotion begins somewhere: remove `after` from one of them"),
            );
        }
    }
}

/// A host is a DNS name and nothing more: `Ingress` and `HTTPRoute` refuse a URL.
fn exposure(expose: &Expose, findings: &mut Vec<Finding>) {
    let host = expose.host.as_str();
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    if !host.strip_prefix("*.").unwrap_or(host).split('.').all(label) {
        let finding = Finding::error("wrong-value", expose.host.span, format!("`{host}` is not a DNS name"));
        findings.push(finding.help("write the name alone, such as `api.example.com`; the path goes into `path`"));
    }
    if !expose.path.starts_with('/') {
        let path = &expose.path;
        let finding = Finding::error("wrong-value", path.span, format!("the path `{path}` must begin with `/`"));
        findings.push(finding.help(format!("write `/{path}`")));
    }
}

fn service_values(name: &Spanned<Name>, service: &Service, findings: &mut Vec<Finding>) {
    let subject = format!("service.{name}");
    let mut found = Vec::new();
    replicas(name, &service.replicas, &mut found);
    probes(name, &service.probes, &mut found);
    for (variable, value) in &service.env {
        environment_value(variable, value, &mut found);
    }
    if let Some(expose) = &service.expose {
        exposure(expose, &mut found);
    }
    for window in &service.windows {
        time_zone(&window.time_zone, &mut found);
    }
    if let Some(rollout) = &service.rollout {
        metrics(rollout, &mut found);
    }
    if let Some(schedule) = &service.schedule {
        cron(&schedule.cron, &mut found);
        schedule.time_zone.iter().for_each(|zone| time_zone(zone, &mut found));
    }
    if let Some(run) = &service.run
        && run.command.first().is_none_or(|program| program.is_empty())
    {
        let at = run.command.first().map(|program| program.span).or(run.build.as_ref().map(|build| build.span));
        let finding = Finding::error("run", at.unwrap_or(name.span), format!("the `run` of `{name}` names no program"));
        found.push(
            finding.help("write the program and its arguments, such as `command: [target/debug/web, --verbose]`"),
        );
    }
    let is_job = service.kind.value == crate::document::ServiceKind::ScheduledJob;
    if is_job != service.schedule.is_some() {
        let finding = if is_job {
            Finding::error("schedule", service.kind.span, format!("`{name}` is a scheduled job without a schedule"))
                .help("add `schedule: \"0 2 * * *\"`, or choose another kind")
        } else {
            let at = service.schedule.as_ref().map_or(name.span, |schedule| schedule.cron.span);
            Finding::error("schedule", at, format!("`{name}` has a schedule but is not a scheduled job"))
                .help("add `kind: scheduled-job`")
        };
        found.push(finding);
    }
    if let Some(port) = &service.port
        && let Some((other, _)) = service.ports.get_key_value("http")
    {
        found.push(
            Finding::error("duplicate-name", other.span, format!("`{name}` has two ports named `http`"))
                .also(port.span, "`port` is the port `http`")
                .help("keep one of them"),
        );
    }
    findings.extend(found.into_iter().map(|finding| finding.on(subject.clone())));
}

fn replicas(name: &Spanned<Name>, replicas: &Replicas, findings: &mut Vec<Finding>) {
    if let (Some(count), Some(bound)) = (&replicas.count, replicas.min.as_ref().or(replicas.max.as_ref())) {
        findings.push(
            Finding::error("replicas", count.span, format!("`{name}` has both a fixed number of replicas and bounds"))
                .also(bound.span, "a bound")
                .because("an autoscaler and a fixed number undo each other on every apply")
                .help(format!(
                    "keep one of them; in an environment, `replicas: {count}` replaces all of it, while `{{ count: {count} }}` is added to it"
                )),
        );
    }
    if let (Some(min), Some(max)) = (&replicas.min, &replicas.max)
        && min.value > max.value
    {
        let finding =
            Finding::error("replicas", min.span, format!("`{name}` has at least {min} and at most {max} replicas"));
        findings.push(finding.also(max.span, "less than the minimum").help("exchange them"));
    }
    let metric = replicas.cpu.as_ref().map(|metric| metric.span).or(replicas.memory.as_ref().map(|metric| metric.span));
    let metric = metric.or(replicas.custom.values().next().map(|metric| metric.span));
    if let (Some(span), None) = (metric, &replicas.max) {
        let finding = Finding::error("replicas", span, format!("`{name}` scales by a metric, but has no `max`"));
        findings.push(finding.help("add `min` and `max`"));
    }
}

fn probes(name: &Spanned<Name>, probes: &Probes, findings: &mut Vec<Finding>) {
    for (which, probe) in [("live", &probes.live), ("ready", &probes.ready), ("startup", &probes.startup)] {
        let Some(probe) = probe else { continue };
        let forms = forms(probe);
        if forms.len() != 1 {
            let at = forms.get(1).or(forms.first()).copied().unwrap_or(name.span);
            findings.push(
                Finding::error(
                    "probe",
                    at,
                    format!("the `{which}` probe of `{name}` needs exactly one of `http`, `tcp`, `grpc` and `exec`"),
                )
                .help("for example `{ http: /health }`"),
            );
        }
        if probe.timeout.value > probe.period.value {
            findings.push(
                Finding::error(
                    "probe",
                    probe.timeout.span,
                    format!("the `{which}` probe of `{name}` may wait longer than its period"),
                )
                .also(probe.period.span, "the period")
                .help("keep `timeout` below `period`"),
            );
        }
        if let Some(path) = &probe.http
            && !path.starts_with('/')
        {
            let finding = Finding::error("probe", path.span, format!("the path `{path}` must begin with `/`"));
            findings.push(finding.help(format!("write `/{path}`")));
        }
    }
}

fn forms(probe: &Probe) -> Vec<Span> {
    let texts = [&probe.http, &probe.tcp, &probe.grpc];
    texts.into_iter().flatten().map(|text| text.span).chain(probe.exec.first().map(|word| word.span)).collect()
}

fn environment_value(variable: &Spanned<String>, value: &EnvironmentValue, findings: &mut Vec<Finding>) {
    let sources = [
        value.value.as_ref().map(|value| value.span),
        value.secret.as_ref().map(|value| value.span),
        value.store.as_ref().map(|value| value.span),
        value.field.as_ref().map(|value| value.span),
    ];
    if sources.into_iter().flatten().count() != 1 {
        let finding =
            Finding::error("environment-variable", variable.span, format!("`{variable}` needs exactly one source"));
        findings.push(finding.help("give it a plain value, or one of `secret`, `store` and `field`"));
    }
    if let Some(store) = &value.store
        && !["host", "port", "address", "url", "username", "password"].contains(&store.key.as_str())
    {
        let finding = Finding::error("environment-variable", store.span, format!("a store has no `{}`", store.key));
        findings.push(finding.help("a store has `host`, `port`, `address`, `url`, `username` and `password`"));
    }
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if variable.is_empty() || variable.starts_with(|c: char| c.is_ascii_digit()) || !variable.chars().all(valid) {
        let finding = Finding::error(
            "environment-variable",
            variable.span,
            format!("`{variable}` is not the name of a variable"),
        );
        findings.push(finding.help("use letters, digits and `_`"));
    }
}

fn time_zone(zone: &Spanned<String>, findings: &mut Vec<Finding>) {
    if jiff::tz::TimeZone::get(zone).is_err() {
        let finding = Finding::error("time-zone", zone.span, format!("there is no time zone `{zone}`"));
        findings.push(finding.help("use a name of the IANA database, such as `Europe/Berlin` or `Asia/Kolkata`"));
    }
}

fn cron(schedule: &Spanned<String>, findings: &mut Vec<Finding>) {
    let parsed = croner::Cron::from_str(schedule);
    let five = schedule.split_whitespace().count() == 5 || schedule.starts_with('@');
    if parsed.is_err() || !five {
        let mut finding = Finding::error("schedule", schedule.span, format!("`{schedule}` is not a schedule"));
        if let Err(error) = parsed
            && five
        {
            finding = finding.because(error.to_string().trim_end_matches('.').to_lowercase());
        }
        findings
            .push(finding.help(
                "write five fields: minute, hour, day of the month, month, day of the week, such as `0 2 * * *`",
            ));
    }
}

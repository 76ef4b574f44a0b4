//! Exposure: what stands on the internet is meant to, and is protected as the file promises.

use std::collections::{BTreeMap, BTreeSet};

use landfall_model::{
    Access, Architecture, EdgeLayer, Element, Expose, Finding, Name, Service, ServiceKind, Severity, Span, Spanned,
};

use super::mutable_tag::Image;
use super::wording::{count, names, proof, verdict};
use crate::report::Report;
use crate::rule::{Context, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    name: "exposure",
    subject: Subject::Security,
    severity: Severity::Error,
    summary: "What is exposed has TLS and the promised protection, and what must be exposed is.",
    explanation: "Every host on the internet needs a certificate: without `tls` the rendered route serves plain HTTP. A webhook \
        takes calls from strangers, so it needs a rate limit. When some public hosts are behind a web application firewall, \
        the others are the way around it; one at the edge (`platform.edge`) looks at all of them. Jobs and stores are never \
        exposed. A frontend or webhook that is neither exposed nor called, over any number of services, by one that is, or that \
        an external calls and cannot reach, does not work. Two \
        services with one host and path get each other's requests, by a rule of the controller that nobody knows by heart. \
        A name that sounds internal is asked about as a note.",
    passing: include_str!("../../tests/it/rules/exposure/ok.yaml"),
    failing: include_str!("../../tests/it/rules/exposure/bad.yaml"),
    run: Some(run),
};

/// Words in names of what is normally not for the public.
const INTERNAL_WORDS: [&str; 9] =
    ["fraud", "risk", "admin", "internal", "backoffice", "debug", "metrics", "audit", "engine"];

/// The last part of image names of stores and their consoles.
const STORE_IMAGES: [&str; 16] = [
    "postgres",
    "postgresql",
    "mysql",
    "mariadb",
    "mongo",
    "mongodb",
    "redis",
    "valkey",
    "kafka",
    "rabbitmq",
    "elasticsearch",
    "opensearch",
    "etcd",
    "memcached",
    "pgadmin4",
    "adminer",
];

fn run(context: &Context<'_>, report: &mut Report) {
    let architecture = context.architecture;
    let before = report.findings.len();
    let exposed: Vec<_> = architecture.exposed().collect();
    for (name, service, expose) in &exposed {
        tls(context, name, expose, report);
        protection(name, service, expose, report);
        audience(name, service, expose, report);
    }
    firewall(context, &exposed, report);
    routes(&exposed, report);
    missing(context, report);
    let errors = report.findings[before..].iter().filter(|finding| finding.severity == Severity::Error).count();
    if !exposed.is_empty() {
        let statement = "every exposed host has TLS, a route of its own and the promised protection";
        let line = |(name, _, expose): &(&Spanned<Name>, &Service, &Expose)| {
            let tls = expose.tls.as_ref().map_or("no TLS".to_owned(), |issuer| format!("TLS by {issuer}"));
            let limit = expose.rate_limit.map_or(String::new(), |limit| format!(", at most {limit} for each client"));
            format!("{}{} -> service.{name}: {tls}{limit}", expose.host, expose.path)
        };
        let derivation = exposed.iter().map(line).collect();
        report.proofs.push(proof(
            RULE.name,
            "exposure",
            statement,
            verdict(errors),
            exposed[0].2.host.span,
            derivation,
        ));
    }
}

fn tls(context: &Context<'_>, name: &Name, expose: &Expose, report: &mut Report) {
    if expose.tls.is_some() {
        return;
    }
    let severity = if context.architecture.is_production() { Severity::Error } else { Severity::Warning };
    let promise = &context.architecture.document.security.encryption.in_transit;
    let mut finding = Finding::new(RULE.name, severity, expose.host.span, format!("`{name}` is exposed without TLS"))
        .label("served as plain HTTP")
        .on(format!("service.{name}"));
    if promise.value {
        finding = finding.also(promise.span, "every connection is promised to be encrypted");
    }
    report.findings.push(
        finding.help("add `tls:` with the cert-manager ClusterIssuer of the certificate, such as `letsencrypt-prod`"),
    );
}

fn protection(name: &Name, service: &Service, expose: &Expose, report: &mut Report) {
    if service.kind.value == ServiceKind::Webhook && expose.rate_limit.is_none() {
        let message = format!("the webhook `{name}` has no rate limit");
        let finding = Finding::warning(RULE.name, expose.host.span, message).on(format!("service.{name}"));
        let finding =
            finding.because("callers are strangers, and retries of a provider after an outage come all at once");
        report.findings.push(finding.help("add `rate-limit: 100/s`, above what the provider sends at most"));
    }
}

/// Whether it is meant for whoever stands outside.
fn audience(name: &Name, service: &Service, expose: &Expose, report: &mut Report) {
    let subject = format!("service.{name}");
    if service.kind.value == ServiceKind::ScheduledJob {
        let finding =
            Finding::error(RULE.name, expose.host.span, format!("the scheduled job `{name}` is exposed")).on(subject);
        report.findings.push(
            finding
                .also(service.kind.span, "it only runs at certain times")
                .help("remove `expose`, or choose another kind"),
        );
        return;
    }
    if service.kind.value == ServiceKind::Worker {
        let finding =
            Finding::warning(RULE.name, expose.host.span, format!("the worker `{name}` is exposed")).on(subject);
        report.findings.push(
            finding
                .also(service.kind.span, "a worker takes its work from a broker")
                .help("remove `expose`, or make it `kind: web`"),
        );
        return;
    }
    let image = service
        .image
        .as_ref()
        .map(|image| Image::parse(image).repository.rsplit('/').next().unwrap_or_default().to_owned());
    if let Some(image) = image.filter(|image| STORE_IMAGES.contains(&image.as_str())) {
        let finding =
            Finding::error(RULE.name, expose.host.span, format!("`{name}` runs `{image}` and is exposed")).on(subject);
        report.findings.push(finding.help("declare it under `stores`, where nothing can be exposed"));
        return;
    }
    let title = service.title.as_ref().map(|title| title.to_lowercase()).unwrap_or_default();
    let word = INTERNAL_WORDS.iter().find(|word| {
        name.as_str().split('-').any(|part| part == **word)
            || title.split(|c: char| !c.is_alphanumeric()).any(|part| part == **word)
    });
    if let (Some(word), Access::Public) = (word, expose.access.value) {
        let message = format!("is `{name}` meant to be public? its name says `{word}`");
        let finding = Finding::note(RULE.name, expose.host.span, message).on(subject);
        report
            .findings
            .push(finding.help("remove `expose` if only other services call it, or add `access: authenticated`"));
    }
}

fn firewall(context: &Context<'_>, exposed: &[(&Spanned<Name>, &Service, &Expose)], report: &mut Report) {
    let edge = &context.architecture.document.platform.edge;
    if edge.iter().any(|layer| layer.value == EdgeLayer::Waf) {
        return;
    }
    let public = || exposed.iter().filter(|(_, _, expose)| expose.access.value == Access::Public);
    let Some((first, _, protected)) = public().find(|(_, _, expose)| expose.waf.value) else { return };
    for (name, _, expose) in public().filter(|(_, _, expose)| !expose.waf.value) {
        let span = if expose.waf.span.is_written() { expose.waf.span } else { expose.host.span };
        let message = format!("`{name}` is public without a web application firewall, though `{first}` has one");
        let finding = Finding::warning(RULE.name, span, message)
            .also(protected.waf.span, "behind a firewall")
            .on(format!("service.{name}"));
        report.findings.push(finding.help("add `waf: true`, or put `waf` into `platform.edge` for all of them"));
    }
}

/// Two services never share a host and a path.
fn routes(exposed: &[(&Spanned<Name>, &Service, &Expose)], report: &mut Report) {
    let mut taken: BTreeMap<(String, String), (&Name, Span)> = BTreeMap::new();
    for (name, _, expose) in exposed {
        let path = expose.path.trim_end_matches('/').to_owned();
        let key = (expose.host.to_ascii_lowercase(), path);
        if let Some((other, span)) = taken.get(&key) {
            let message =
                format!("`{name}` and `{other}` are exposed at the same address, `{}{}`", expose.host, expose.path);
            let span_here = if expose.path.span.is_written() { expose.path.span } else { expose.host.span };
            let finding = Finding::error(RULE.name, span_here, message)
                .also(*span, "the other one")
                .on(format!("service.{name}"));
            report.findings.push(finding.help("give one of them another host or path"));
            continue;
        }
        taken.insert(key, (&name.value, expose.host.span));
    }
}

/// The services that requests from outside reach through one that is exposed, over any number of calls.
fn behind_exposed(architecture: &Architecture) -> BTreeSet<&str> {
    let mut calls: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for connection in &architecture.connections {
        if let (Element::Service(from), Element::Service(to)) = (&connection.from, &connection.to) {
            calls.entry(from.as_str()).or_default().push(to.as_str());
        }
    }
    let mut open: Vec<&str> = architecture.exposed().map(|(name, ..)| name.as_str()).collect();
    let mut reached = BTreeSet::new();
    while let Some(service) = open.pop() {
        open.extend(calls.get(service).into_iter().flatten().filter(|called| reached.insert(**called)));
    }
    reached
}

/// What has to be exposed and is not.
fn missing(context: &Context<'_>, report: &mut Report) {
    let architecture = context.architecture;
    let mut callers: BTreeMap<&Element, Vec<&Element>> = BTreeMap::new();
    for connection in &architecture.connections {
        if let (Element::External(_), Element::Service(_)) = (&connection.from, &connection.to) {
            callers.entry(&connection.to).or_default().push(&connection.from);
        }
    }
    let behind = behind_exposed(architecture);
    for (name, service) in architecture.document.services.iter().filter(|(_, service)| service.expose.is_none()) {
        let element = Element::Service(name.value.clone());
        let subject = element.to_string();
        if let Some(externals) = callers.get(&element) {
            let message = format!("{} cannot call `{name}`, which is not exposed", names(externals));
            let span = architecture
                .to(&element)
                .find(|connection| matches!(connection.from, Element::External(_)))
                .map_or(name.span, |connection| connection.span);
            let finding = Finding::error(RULE.name, span, message).also(name.span, "declared here").on(subject);
            report.findings.push(
                finding
                    .because(format!("{} from outside", count(externals.len(), "edge")))
                    .help("add `expose:` with a host and TLS"),
            );
            continue;
        }
        if behind.contains(name.as_str()) {
            continue;
        }
        let why = match service.kind.value {
            ServiceKind::Frontend => "no browser reaches it",
            ServiceKind::Webhook => "no provider reaches it",
            _ => continue,
        };
        let kind = if service.kind.value == ServiceKind::Frontend { "frontend" } else { "webhook" };
        let finding =
            Finding::warning(RULE.name, service.kind.span, format!("the {kind} `{name}` is not exposed, so {why}"))
                .on(subject);
        report.findings.push(finding.help("add `expose:` with a host and TLS, or choose another kind"));
    }
}

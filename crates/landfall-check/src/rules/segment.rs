//! Segments: edges cross from one network segment to another only where the file lets them.

use landfall_model::{Architecture, Element, Finding, Name, NetworkSegment, Severity, Spanned};

use super::wording::{count, either, names, proof, verdict};
use crate::report::Report;
use crate::rule::{Context, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    name: "segment",
    subject: Subject::Isolation,
    severity: Severity::Error,
    summary: "Edges cross network segments only where `segments` lets them, and stores stand in no public one.",
    explanation: "A segment such as a DMZ or a data zone is a promise about who may reach whom. The rule compares every edge \
        with `segments.<from>.reaches`; an edge inside a segment is always allowed. What is exposed must stand in a public \
        segment or in one that a public segment reaches, because requests come through there. A store in a public segment \
        can be reached from the internet as far as the segments say, and one that a public segment reaches directly is one \
        mistake away from it. An edge that a segment forbids is not rendered away: it is an error, because the file \
        contradicts itself.",
    passing: include_str!("../../tests/it/rules/segment/ok.yaml"),
    failing: include_str!("../../tests/it/rules/segment/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    let architecture = context.architecture;
    let segments = &architecture.document.segments;
    if segments.is_empty() {
        return;
    }
    let mut crossing = Vec::new();
    let mut inside = 0;
    for connection in &architecture.connections {
        let (Some(from), Some(to)) =
            (segment_of(architecture, &connection.from), segment_of(architecture, &connection.to))
        else {
            continue;
        };
        if from.value == to.value {
            inside += 1;
            continue;
        }
        let Some(declared) = segments.get(from.as_str()) else { continue };
        if declared.reaches.iter().any(|reached| reached.value == to.value) {
            crossing.push(format!("{} -> {}: {from} reaches {to}", connection.from, connection.to));
            continue;
        }
        let reached = if declared.reaches.is_empty() { "nothing".to_owned() } else { names(&declared.reaches) };
        let message = format!(
            "`{}` may not {} `{}`: the segment `{from}` does not reach `{to}`",
            connection.from, connection.verb, connection.to
        );
        report.findings.push(
            Finding::error(RULE.name, connection.span, message)
                .label("crosses segments")
                .also(from.span, "the source stands here")
                .also(to.span, "the target stands here")
                .on(connection.from.to_string())
                .because(format!("`segments.{from}.reaches` lists {reached}"))
                .help(format!(
                    "add `{to}` to `segments.{from}.reaches`, or go through a service of a segment in between"
                )),
        );
    }
    homeless(architecture, report);
    exposed(architecture, report);
    stores(architecture, report);
    let against = report
        .findings
        .iter()
        .filter(|finding| finding.rule == RULE.name && finding.severity == Severity::Error)
        .count();
    let mut derivation =
        vec![format!("{} inside a segment, {} across segments", count(inside, "edge"), count(crossing.len(), "edge"))];
    derivation.extend(crossing);
    let statement = "every edge stays inside its segment or goes where the segment reaches";
    let span = segments.keys().next().map_or(landfall_model::Span::NONE, |name| name.span);
    report.proofs.push(proof(RULE.name, "segments", statement, verdict(against), span, derivation));
}

fn segment_of<'a>(architecture: &'a Architecture, element: &Element) -> Option<&'a Spanned<Name>> {
    match element {
        Element::Service(name) => architecture.service(name.as_str())?.segment.as_ref(),
        Element::Store(name) => architecture.store(name.as_str())?.segment.as_ref(),
        Element::Client | Element::External(_) => None,
    }
}

/// Elements that stand nowhere cannot be judged; managed stores stand outside the cluster.
fn homeless(architecture: &Architecture, report: &mut Report) {
    let document = &architecture.document;
    let services = document.services.iter().filter(|(_, service)| service.segment.is_none());
    let services = services.map(|(name, _)| (format!("service.{name}"), name.span));
    let stores = document.stores.iter().filter(|(_, store)| store.segment.is_none() && !store.provider.is_managed());
    let stores = stores.map(|(name, _)| (format!("store.{name}"), name.span));
    for (element, span) in services.chain(stores) {
        let message = format!("`{element}` stands in no segment, so nothing says who may reach it");
        let help = format!("add `segment:` with one of {}", either(document.segments.keys()));
        report.findings.push(Finding::warning(RULE.name, span, message).on(element).help(help));
    }
}

fn is_public(segment: Option<&NetworkSegment>) -> bool {
    segment.is_some_and(|segment| segment.public.value)
}

fn public_reaching<'a>(architecture: &'a Architecture, target: &'a Name) -> Option<&'a Spanned<Name>> {
    let reaching = |segment: &NetworkSegment| {
        segment.public.value && segment.reaches.iter().any(|reached| reached.value == *target)
    };
    architecture.document.segments.iter().find(|(_, segment)| reaching(segment)).map(|(name, _)| name)
}

fn exposed(architecture: &Architecture, report: &mut Report) {
    for (name, service, expose) in architecture.exposed() {
        let Some(segment) = &service.segment else { continue };
        let public = is_public(architecture.document.segments.get(segment.as_str()));
        if public || public_reaching(architecture, segment).is_some() {
            continue;
        }
        report.findings.push(
            Finding::error(
                RULE.name,
                segment.span,
                format!("`{name}` is exposed, but no public segment reaches `{segment}`"),
            )
            .also(expose.host.span, "exposed here")
            .on(format!("service.{name}"))
            .help(format!("stop exposing it, or let a public segment reach `{segment}`")),
        );
    }
}

fn stores(architecture: &Architecture, report: &mut Report) {
    for (name, store) in &architecture.document.stores {
        let Some(segment) = &store.segment else { continue };
        let subject = format!("store.{name}");
        if let Some((declared, own)) =
            architecture.document.segments.get_key_value(segment.as_str()).filter(|(_, own)| own.public.value)
        {
            report.findings.push(
                Finding::error(
                    RULE.name,
                    segment.span,
                    format!("the store `{name}` stands in the public segment `{declared}`"),
                )
                .also(own.public.span, "the internet may reach it")
                .on(subject)
                .help("move it to a segment that is not public"),
            );
        } else if let Some(public) = public_reaching(architecture, segment) {
            report.findings.push(
                Finding::warning(
                    RULE.name,
                    segment.span,
                    format!("the public segment `{public}` reaches the store `{name}` directly"),
                )
                .also(public.span, "the internet may reach this segment")
                .on(subject)
                .help("put a segment for the services between them"),
            );
        }
    }
}

//! Claims: each promise of the document says what would show it, and that exists.

use std::collections::BTreeSet;

use landfall_model::{Architecture, Document, Finding, RenderTarget, Severity, ShownBy, Span, Spanned, suggestion};
use serde_json::Value;

use super::RULES;
use super::wording::{count, proof, verdict};
use crate::claims::rendered::target_of;
use crate::report::Report;
use crate::rule::{Context, Rule, Subject};

pub(super) const CLAIM: Rule = Rule {
    name: "claim",
    subject: Subject::Delivery,
    severity: Severity::Error,
    summary: "Each claim names evidence that can exist.",
    explanation: "A claim is a sentence of the document that promises something, with what shows it under `shown-by`. A claim \
        without any is only repeated. One that names a rule or a target which does not exist, a path that the file does not \
        have, or a kind of object that is not rendered can never be shown, and would look unproved for the wrong reason. Paths into \
        `environments`, and paths to elements that this environment does not have, are judged in the ledger only, which reads \
        the file as it was written.",
    passing: include_str!("../../tests/it/rules/claim/ok.yaml"),
    failing: include_str!("../../tests/it/rules/claim/bad.yaml"),
    run: Some(claim),
};

pub(super) const UNRESOLVED_DOCUMENT: Rule = Rule {
    name: "unresolved-document",
    subject: Subject::Delivery,
    severity: Severity::Note,
    summary: "When the file names a document, its claims say where in it they stand.",
    explanation: "`document` names the prose that this file makes executable. A claim without a `line` cannot be found in it by \
        whoever audits the ledger, and a document without claims is not covered at all. A document that is a link is outside \
        of the repository, where it changes without notice.",
    passing: include_str!("../../tests/it/rules/unresolved-document/ok.yaml"),
    failing: include_str!("../../tests/it/rules/unresolved-document/bad.yaml"),
    run: Some(unresolved_document),
};

pub(super) const WAIVER: Rule = Rule {
    name: "waiver",
    subject: Subject::Delivery,
    severity: Severity::Error,
    summary: "Each waiver names a rule, has not expired, and silences something.",
    explanation: "A waiver accepts what one rule finds on one thing until a date, with a reason. It is checked itself: one that \
        has expired is an error, because somebody has to decide again; one that names no rule silences nothing although \
        somebody believes it does; one that silences nothing in any environment can go. Rules of the language cannot be \
        waived, and a waiver does not make a promise hold: the ledger still shows it as refuted.",
    passing: include_str!("../../tests/it/rules/waiver/ok.yaml"),
    failing: include_str!("../../tests/it/rules/waiver/bad.yaml"),
    // Waivers are applied after all rules.
    run: None,
};

/// The sections whose elements differ between environments.
const PER_ENVIRONMENT: [&str; 3] = ["services", "stores", "externals"];

fn claim(context: &Context<'_>, report: &mut Report) {
    let claims = &context.architecture.document.claims;
    let Some(first) = claims.first() else { return };
    let kinds: BTreeSet<&str> =
        context.objects.iter().filter_map(|object| object.get("kind").and_then(Value::as_str)).collect();
    let any_path =
        claims.iter().flat_map(|claim| &claim.shown_by).any(|shown| matches!(shown.value, ShownBy::Declared(_)));
    let document = if any_path { written(&context.architecture.document) } else { Value::Null };
    let mut findings = Vec::new();
    let mut evidence = 0;
    for claim in claims {
        let subject = format!("claim.{}", claim.id);
        if claim.shown_by.is_empty() {
            let finding =
                Finding::warning(CLAIM.name, claim.id.span, format!("nothing would show the claim `{}`", claim.id))
                    .on(subject);
            findings.push(
                finding.help("add `shown-by:`, such as `[check: zone-loss]` or `[declared: stores.ledger.backup]`"),
            );
            continue;
        }
        for shown in &claim.shown_by {
            evidence += 1;
            findings.extend(judge(context, &kinds, &document, shown).map(|finding| finding.on(subject.clone())));
        }
    }
    let against = findings.iter().filter(|finding: &&Finding| finding.severity == Severity::Error).count();
    let derivation = vec![format!(
        "{} with {}",
        count(claims.len(), "claim"),
        count(evidence, "item of evidence").replace("item of evidences", "items of evidence")
    )];
    report.proofs.push(proof(
        CLAIM.name,
        "claims",
        "each claim names evidence that can exist",
        verdict(against),
        first.id.span,
        derivation,
    ));
    report.findings.extend(findings);
}

/// The document as a tree of what it holds, defaults included.
fn written(document: &Document) -> Value {
    serde_json::to_value(document).unwrap_or_default()
}

fn judge(context: &Context<'_>, kinds: &BTreeSet<&str>, document: &Value, shown: &Spanned<ShownBy>) -> Option<Finding> {
    match &shown.value {
        ShownBy::Check(what) => check(context.architecture, what, shown.span),
        ShownBy::Declared(path) => {
            let missing = missing_segment(context.architecture, document, path)?;
            let finding = Finding::error(CLAIM.name, shown.span, format!("the file has no `{path}`"));
            Some(
                finding
                    .because(format!("`{missing}` is not there"))
                    .help("`landfall explain` shows a path with its value"),
            )
        }
        ShownBy::Object(what) => {
            let kind = what.split_once('/').map_or(what.as_str(), |(kind, _)| kind);
            if kinds.is_empty() || kinds.contains(kind) || !context.architecture.is_production() {
                return None;
            }
            let finding =
                Finding::warning(CLAIM.name, shown.span, format!("no object of the kind `{kind}` is rendered"));
            Some(finding.help(
                suggestion(kind, kinds.iter().copied()).map_or_else(
                    || "name a kind that is rendered".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                ),
            ))
        }
        ShownBy::Render(what) => {
            let target = target_of(what);
            let why = serde_json::from_value::<RenderTarget>(target.into()).err()?;
            let what = format!("`{target}` is no target of `landfall render`");
            Some(
                Finding::error(CLAIM.name, shown.span, what)
                    .because(why.to_string())
                    .help("mend the first word of the evidence"),
            )
        }
        ShownBy::Up(_) | ShownBy::Ship(_) | ShownBy::Drill(_) => None,
    }
}

/// The rule exists, and so does the element that it is asked about.
fn check(architecture: &Architecture, what: &str, span: Span) -> Option<Finding> {
    let (rule, subject) = what.split_once(' ').unwrap_or((what, ""));
    if !RULES.iter().any(|known| known.name == rule) {
        let finding = Finding::error(CLAIM.name, span, format!("there is no rule `{rule}`"));
        let near = suggestion(rule, RULES.iter().map(|known| known.name));
        return Some(finding.help(near.map_or_else(
            || "`landfall explain rules` lists them".to_owned(),
            |near| format!("did you mean `{near}`?"),
        )));
    }
    let (section, name) = subject.split_once('.')?;
    let exists = match section {
        "service" => architecture.service(name).is_some(),
        "store" => architecture.store(name).is_some(),
        "external" => architecture.external(name).is_some(),
        "flow" => architecture.document.flows.contains_key(name),
        _ => true,
    };
    // In one environment the element may be missing on purpose.
    (!exists && architecture.environment.is_none()).then(|| {
        let finding =
            Finding::error(CLAIM.name, span, format!("there is no `{subject}` for the rule `{rule}` to look at"));
        finding.help("mend the name")
    })
}

/// The first part of the path that is not in the file.
fn missing_segment(architecture: &Architecture, document: &Value, path: &str) -> Option<String> {
    let segments: Vec<&str> = path.split('.').filter(|segment| !segment.is_empty()).collect();
    if segments.first() == Some(&"environments") && segments.len() > 2 {
        return None;
    }
    let mut at = document;
    for (index, segment) in segments.iter().enumerate() {
        let next = match at {
            Value::Object(members) => members.get(*segment),
            Value::Array(items) => segment.parse::<usize>().ok().and_then(|index| items.get(index)),
            // A short form: `replicas: 3` is also `replicas.count`; anything deeper does not exist.
            _ => None,
        };
        match next {
            Some(Value::Null) | None => {
                let elsewhere =
                    index == 1 && architecture.environment.is_some() && PER_ENVIRONMENT.contains(&segments[0]);
                return (!elsewhere).then(|| segments[..=index].join("."));
            }
            Some(value) => at = value,
        }
    }
    None
}

fn unresolved_document(context: &Context<'_>, report: &mut Report) {
    let document = &context.architecture.document;
    let Some(prose) = &document.document else { return };
    let rule = UNRESOLVED_DOCUMENT.name;
    if prose.contains("://") {
        let finding = Finding::note(rule, prose.span, "the document is outside of the repository").on("document");
        report.findings.push(
            finding
                .because("it changes without notice, and lines mean something else then")
                .help("keep a copy beside this file"),
        );
    }
    if document.claims.is_empty() {
        let finding = Finding::note(rule, prose.span, format!("no claim covers `{prose}`")).on("document");
        report.findings.push(finding.help("add a claim for each sentence of it that promises something"));
        return;
    }
    let claims: Vec<_> = document.claims.iter().filter(|claim| !claim.assumed).collect();
    let without: Vec<_> = claims.iter().filter(|claim| claim.line.is_none()).collect();
    if let Some(first) = without.first() {
        let some: Vec<String> = without.iter().take(5).map(|claim| format!("`{}`", claim.id)).collect();
        let more = if without.len() > some.len() {
            format!(" and {} more", without.len() - some.len())
        } else {
            String::new()
        };
        let finding = Finding::note(
            rule,
            first.id.span,
            format!("{} cannot be found in `{prose}`", count(without.len(), "claim")),
        )
        .on("document");
        let finding = finding.because(format!("no line: {}{more}", some.join(", ")));
        report.findings.push(
            finding
                .help("add `line:` with the line, or `12..15`, of the sentence; `assumed: true` where there is none"),
        );
    }
    let found = claims.len() - without.len();
    let derivation = vec![format!("{found} of {} have a line", count(claims.len(), "claim"))];
    report.proofs.push(proof(
        rule,
        "document",
        format!("each claim can be found in `{prose}`"),
        verdict(without.len()),
        prose.span,
        derivation,
    ));
}

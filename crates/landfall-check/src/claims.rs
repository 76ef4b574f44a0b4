//! The ledger of promises: what the document claims, and how far that is shown.

pub(crate) mod rendered;

use std::collections::{BTreeMap, BTreeSet};

use landfall_model::{Architecture, Severity, ShownBy, Span, Spanned};

use crate::report::{Report, Verdict};
use crate::rule::Subject;
use crate::rules::RULES;
use rendered::{Seen, Trees};

/// How far a claim is shown, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimState {
    /// The contrary follows from the file.
    Refuted,
    /// Nothing that would show it has been run or built yet, or a number is missing that it would take.
    NotYetShown,
    /// The file says it, and that is all the evidence.
    Claimed,
    /// It follows from the file or from the objects rendered from it.
    Proved,
}

impl ClaimState {
    /// The words that are printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refuted => "refuted",
            Self::NotYetShown => "not yet shown",
            Self::Claimed => "claimed",
            Self::Proved => "proved",
        }
    }
}

/// One row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRow {
    /// The claim's id.
    pub id: String,
    /// The promise.
    pub says: String,
    /// The line or lines of the document.
    pub line: Option<String>,
    /// The state, before anything was measured.
    pub state: ClaimState,
    /// What shows it without a run, an item each, with the state that it gives. What is missing in rendered files is said.
    pub evidence: Vec<(String, ClaimState)>,
    /// What has to be run to measure it; nothing here has been.
    pub to_measure: Vec<String>,
    /// Where the claim stands.
    pub span: Span,
}

/// The ledger of an architecture, from the report on it and the objects rendered from it.
///
/// `declared` says whether a path of the file was written; it comes from [`landfall_model::File::written`]. `trees` holds what
/// `landfall render` writes for each of [`targets_of_claims`]; that its real reader takes it is what the tests of the
/// renderer show.
pub fn ledger(
    architecture: &Architecture,
    objects: &[serde_json::Value],
    report: &Report,
    declared: &dyn Fn(&str) -> bool,
    trees: &Trees,
) -> Vec<LedgerRow> {
    let judge =
        Judge { architecture, rendered: Rendered::new(objects), report, rules: by_rule(report), declared, trees };
    let row = |claim: &landfall_model::Claim| {
        let (runs, rest): (Vec<&Spanned<ShownBy>>, _) = claim.shown_by.iter().partition(|shown| needs_run(shown));
        let evidence: Vec<(String, ClaimState)> =
            rest.into_iter().map(|shown: &Spanned<ShownBy>| judge.evidence(shown)).collect();
        LedgerRow {
            id: claim.id.value.clone(),
            says: claim.says.value.clone(),
            line: claim.line.as_ref().map(ToString::to_string),
            state: state(&evidence, runs.is_empty()),
            evidence,
            to_measure: runs.into_iter().map(|shown| describe(shown)).collect(),
            span: claim.id.span,
        }
    };
    architecture.document.claims.iter().map(row).collect()
}

/// The targets of `landfall render` that a claim names as its evidence.
pub fn targets_of_claims(architecture: &Architecture) -> BTreeSet<&str> {
    let evidence = architecture.document.claims.iter().flat_map(|claim| &claim.shown_by);
    let targets = evidence.filter_map(|shown| match &shown.value {
        ShownBy::Render(what) => Some(rendered::target_of(what)),
        _ => None,
    });
    targets.collect()
}

/// Whether a run has to show it.
fn needs_run(shown: &ShownBy) -> bool {
    matches!(shown, ShownBy::Up(_) | ShownBy::Ship(_) | ShownBy::Drill(_))
}

/// What the evidence amounts to: whatever refutes it or is missing decides, a proof is worth more than the word of the
/// file that stands beside it, and a claim that only a run can show is not shown yet.
fn state(evidence: &[(String, ClaimState)], nothing_to_run: bool) -> ClaimState {
    let states = || evidence.iter().map(|(_, state)| *state);
    match states().min() {
        Some(weakest) if weakest < ClaimState::Claimed => weakest,
        Some(_) => states().max().expect("what has a least has a greatest"),
        None if nothing_to_run => ClaimState::Claimed,
        None => ClaimState::NotYetShown,
    }
}

fn describe(shown: &ShownBy) -> String {
    let (verb, what) = match shown {
        ShownBy::Check(what) => ("check", what),
        ShownBy::Object(what) => ("object", what),
        ShownBy::Declared(what) => ("declared", what),
        ShownBy::Render(what) => ("render", what),
        ShownBy::Up(what) => ("up", what),
        ShownBy::Ship(what) => ("ship", what),
        ShownBy::Drill(what) => ("drill", what),
    };
    format!("{verb}: {what}")
}

/// The kinds and names of the rendered objects.
struct Rendered<'a> {
    by_kind: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Rendered<'a> {
    fn new(objects: &'a [serde_json::Value]) -> Self {
        let mut by_kind: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for object in objects {
            let text = |pointer: &str| object.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default();
            by_kind.entry(text("/kind")).or_default().insert(text("/metadata/name"));
        }
        Self { by_kind }
    }

    fn has(&self, kind: &str, name: &str) -> bool {
        self.by_kind.get(kind).is_some_and(|names| name.is_empty() || names.contains(name))
    }
}

/// Whether a proof or finding is about one element.
fn is_element(about: &str) -> bool {
    about.split_once('.').is_some_and(|(section, _)| matches!(section, "service" | "store" | "external" | "flow"))
}

/// What a verdict shows.
fn shown(verdict: Verdict) -> ClaimState {
    match verdict {
        Verdict::Proved => ClaimState::Proved,
        Verdict::Refuted => ClaimState::Refuted,
        Verdict::Undecided => ClaimState::NotYetShown,
    }
}

/// The weakest that each rule said, by thing.
///
/// A waived finding counts like any other: a waiver accepts that a promise does not hold, it does not make it hold.
fn by_rule(report: &Report) -> BTreeMap<&str, BTreeMap<&str, ClaimState>> {
    let findings = report.findings.iter().chain(&report.waived).filter_map(|finding| {
        let state = match finding.severity {
            Severity::Error => ClaimState::Refuted,
            // The rule does not confirm it, so the word of the file is all there is.
            Severity::Warning => ClaimState::Claimed,
            Severity::Note => return None,
        };
        Some((finding.rule, finding.subject.as_deref().unwrap_or_default(), state))
    });
    let proofs = report.proofs.iter().map(|proof| (proof.rule, proof.subject.as_str(), shown(proof.verdict)));
    let mut rules: BTreeMap<&str, BTreeMap<&str, ClaimState>> = BTreeMap::new();
    for (rule, subject, state) in findings.chain(proofs) {
        let weakest = rules.entry(rule).or_default().entry(subject).or_insert(state);
        *weakest = state.min(*weakest);
    }
    rules
}

struct Judge<'a> {
    architecture: &'a Architecture,
    rendered: Rendered<'a>,
    report: &'a Report,
    rules: BTreeMap<&'a str, BTreeMap<&'a str, ClaimState>>,
    declared: &'a dyn Fn(&str) -> bool,
    trees: &'a Trees,
}

impl Judge<'_> {
    /// A piece of evidence in words, and how far it shows the claim.
    fn evidence(&self, shown: &ShownBy) -> (String, ClaimState) {
        let ShownBy::Render(what) = shown else { return (describe(shown), self.judge(shown)) };
        match rendered::look(self.trees, what) {
            Seen::There => (describe(shown), ClaimState::Proved),
            Seen::Missing(missing) => (format!("{}: {missing}", describe(shown)), ClaimState::Refuted),
            Seen::NothingRendered => (describe(shown), self.judge(shown)),
        }
    }

    fn judge(&self, shown: &ShownBy) -> ClaimState {
        let nothing_rendered = self.rendered.by_kind.is_empty();
        match shown {
            ShownBy::Check(what) => self.check(what),
            ShownBy::Object(_) if nothing_rendered => ClaimState::NotYetShown,
            ShownBy::Object(what) => {
                let (kind, name) = what.split_once('/').unwrap_or((what, ""));
                if self.rendered.has(kind, name) { ClaimState::Proved } else { ClaimState::Refuted }
            }
            ShownBy::Declared(path) if (self.declared)(path) => ClaimState::Claimed,
            ShownBy::Declared(_) => ClaimState::Refuted,
            ShownBy::Render(target) if target == "kubernetes" && !nothing_rendered => ClaimState::Proved,
            ShownBy::Render(_) | ShownBy::Up(_) | ShownBy::Ship(_) | ShownBy::Drill(_) => ClaimState::NotYetShown,
        }
    }

    /// `zone-loss`, or on one thing: `zone-loss service.checkout`.
    ///
    /// An error or a refuted proof refutes, a warning leaves the word of the file, and a proof proves. A rule that had
    /// nothing to look at shows nothing.
    fn check(&self, what: &str) -> ClaimState {
        let (rule, subject) = what.split_once(' ').unwrap_or((what, ""));
        let Some(known) = RULES.iter().find(|known| known.name == rule) else { return ClaimState::NotYetShown };
        let said = self.rules.get(rule).into_iter().flatten();
        let on_it = |(about, _): &(&&str, &ClaimState)| subject.is_empty() || **about == subject;
        if let Some(state) = said.filter(on_it).map(|(_, state)| *state).min() {
            return state;
        }
        if known.subject == Subject::Language {
            // The file was read, or nothing would have been checked.
            return ClaimState::Proved;
        }
        self.as_part(rule, subject).unwrap_or(ClaimState::NotYetShown)
    }

    /// What a rule that only speaks of the whole said about one element of it, on which it found nothing wrong.
    ///
    /// A rule that proves something of each store says nothing of a store that it did not look at.
    fn as_part(&self, rule: &str, subject: &str) -> Option<ClaimState> {
        let (section, name) = subject.split_once('.')?;
        let exists = match section {
            "service" => self.architecture.service(name).is_some(),
            "store" => self.architecture.store(name).is_some(),
            "external" => self.architecture.external(name).is_some(),
            "flow" => self.architecture.document.flows.contains_key(name),
            _ => false,
        };
        let proofs = || self.report.proofs.iter().filter(|proof| proof.rule == rule);
        let of_section = |about: &str| about.split_once('.').is_some_and(|(of, _)| of == section);
        if !exists || proofs().any(|proof| of_section(&proof.subject)) {
            return None;
        }
        let wholes = proofs().filter(|proof| !is_element(&proof.subject));
        // What refutes the whole is a finding about another element.
        let part = |verdict| if verdict == Verdict::Undecided { ClaimState::NotYetShown } else { ClaimState::Proved };
        wholes.map(|proof| part(proof.verdict)).min()
    }
}

#[cfg(test)]
mod tests {
    use landfall_model::{File, Finding};
    use serde_json::{Value, json};

    use super::*;
    use crate::report::Proof;

    const HEAD: &str = "landfall: v1\nname: shop\nservices:\n  web: { image: \"web:1.0\", port: 80 }\nclaims:\n";

    /// The states of a claim with this evidence, after a report with these findings and proofs.
    fn states(shown_by: &str, objects: &[Value], report: &Report) -> (ClaimState, Vec<ClaimState>) {
        let text = format!("{HEAD}  - {{ id: A1, says: it holds, line: 7..9, shown-by: [{shown_by}] }}\n");
        let file = File::read("landfall.yaml", text.as_bytes(), &mut |path| Err(path.to_owned()));
        let architecture = file.architecture(None).expect("the file of the test can be read");
        let document = [("architecture.md".to_owned(), "# Shop\n".to_owned())];
        let trees = Trees::from([("docs".to_owned(), document.into())]);
        let rows = ledger(&architecture, objects, report, &|path| file.written(path).is_some(), &trees);
        assert_eq!((rows.len(), rows[0].id.as_str(), rows[0].line.as_deref()), (1, "A1", Some("7..9")));
        (rows[0].state, rows[0].evidence.iter().map(|(_, state)| *state).collect())
    }

    fn proof(rule: &'static str, subject: &str, verdict: Verdict) -> Proof {
        Proof {
            rule,
            subject: subject.to_owned(),
            statement: String::new(),
            verdict,
            derivation: Vec::new(),
            assumed: Vec::new(),
            span: Span::NONE,
            environments: Vec::new(),
        }
    }

    fn deployment() -> Value {
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" } })
    }

    #[track_caller]
    fn check_rule(report: &Report, shown_by: &str, expected: ClaimState) {
        assert_eq!(states(shown_by, &[], report).0, expected);
    }

    #[test]
    fn a_proof_is_worth_more_than_the_word_of_the_file_and_less_than_a_gap() {
        let of = |shown_by| states(shown_by, &[deployment()], &Report::default());
        let (state, evidence) = of("declared: services.web, object: Deployment/web, up: flow order");
        assert_eq!(evidence, [ClaimState::Claimed, ClaimState::Proved]);
        assert_eq!(state, ClaimState::Proved);
        assert_eq!(of("declared: services.web").0, ClaimState::Claimed);
        assert_eq!(of("object: Deployment/web, render: terraform").0, ClaimState::NotYetShown);
        assert_eq!(of("object: Deployment/api, render: terraform").0, ClaimState::Refuted);
        assert_eq!(of("up: flow order").0, ClaimState::NotYetShown);
    }

    #[test]
    fn a_claim_without_evidence_is_only_claimed() {
        assert_eq!(states("", &[], &Report::default()).0, ClaimState::Claimed);
    }

    #[test]
    fn a_path_that_is_not_written_refutes_even_if_it_has_a_default() {
        assert_eq!(states("declared: services.web.grace", &[], &Report::default()).0, ClaimState::Refuted);
    }

    #[test]
    fn an_object_is_judged_only_after_rendering() {
        assert_eq!(states("object: Deployment/web", &[], &Report::default()).0, ClaimState::NotYetShown);
        assert_eq!(states("object: Deployment", &[deployment()], &Report::default()).0, ClaimState::Proved);
        assert_eq!(states("object: Deployment/api", &[deployment()], &Report::default()).0, ClaimState::Refuted);
        assert_eq!(states("render: kubernetes", &[], &Report::default()).0, ClaimState::NotYetShown);
        assert_eq!(states("render: kubernetes", &[deployment()], &Report::default()).0, ClaimState::Proved);
    }

    #[test]
    fn another_target_shows_something_when_it_is_rendered() {
        let of = |shown_by| states(shown_by, &[], &Report::default()).0;
        assert_eq!(of("render: docs"), ClaimState::Proved);
        assert_eq!(of("render: 'docs *.md > # Shop'"), ClaimState::Proved);
        assert_eq!(of("render: terraform"), ClaimState::NotYetShown);
        assert_eq!(of("render: terraform main.tf > x"), ClaimState::NotYetShown);
    }

    #[test]
    fn a_line_that_is_not_rendered_refutes() {
        assert_eq!(states("render: 'docs *.md > # Bank'", &[], &Report::default()).0, ClaimState::Refuted);
        assert_eq!(states("render: docs *.svg", &[], &Report::default()).0, ClaimState::Refuted);
    }

    #[test]
    fn a_proof_proves_what_it_is_about_and_nothing_else() {
        let report = Report { proofs: vec![proof("residency", "store.ledger", Verdict::Proved)], ..Report::default() };
        check_rule(&report, "check: residency", ClaimState::Proved);
        check_rule(&report, "check: residency store.ledger", ClaimState::Proved);
        check_rule(&report, "check: residency store.other", ClaimState::NotYetShown);
    }

    #[test]
    fn a_proof_of_the_whole_covers_each_element_without_a_finding() {
        let findings = vec![Finding::error("exposure", Span::NONE, "no TLS").on("service.api")];
        let report =
            Report { findings, proofs: vec![proof("exposure", "exposure", Verdict::Refuted)], ..Report::default() };
        check_rule(&report, "check: exposure", ClaimState::Refuted);
        check_rule(&report, "check: exposure service.web", ClaimState::Proved);
        check_rule(&report, "check: exposure service.api", ClaimState::Refuted);
        check_rule(&report, "check: exposure service.nobody", ClaimState::NotYetShown);
    }

    #[test]
    fn a_rule_that_had_nothing_to_look_at_shows_nothing() {
        check_rule(&Report::default(), "check: isolation", ClaimState::NotYetShown);
        check_rule(&Report::default(), "check: no-such-rule", ClaimState::NotYetShown);
    }

    #[test]
    fn what_the_language_demands_holds_in_every_file_that_was_read() {
        check_rule(&Report::default(), "check: unknown-name", ClaimState::Proved);
    }

    #[test]
    fn an_error_refutes_and_a_warning_leaves_the_word_of_the_file() {
        let found = |finding: Finding| Report {
            findings: vec![finding.on("store.ledger")],
            proofs: vec![
                proof("residency", "store.ledger", Verdict::Proved),
                proof("residency", "store.other", Verdict::Proved),
            ],
            ..Report::default()
        };
        let error = found(Finding::error("residency", Span::NONE, "outside"));
        check_rule(&error, "check: residency", ClaimState::Refuted);
        check_rule(&error, "check: residency store.other", ClaimState::Proved);
        let warning = found(Finding::warning("residency", Span::NONE, "unknown"));
        check_rule(&warning, "check: residency", ClaimState::Claimed);
        let note = found(Finding::note("residency", Span::NONE, "by the way"));
        check_rule(&note, "check: residency", ClaimState::Proved);
    }

    #[test]
    fn an_undecided_proof_shows_nothing_and_a_refuted_one_refutes() {
        let proofs =
            vec![proof("residency", "store.a", Verdict::Undecided), proof("residency", "store.b", Verdict::Proved)];
        let mut report = Report { proofs, ..Report::default() };
        check_rule(&report, "check: residency", ClaimState::NotYetShown);
        report.proofs.push(proof("residency", "store.c", Verdict::Refuted));
        check_rule(&report, "check: residency", ClaimState::Refuted);
    }

    #[test]
    fn a_waiver_does_not_make_a_promise_hold() {
        let waived = vec![Finding::error("residency", Span::NONE, "outside").on("store.ledger")];
        check_rule(&Report { waived, ..Report::default() }, "check: residency", ClaimState::Refuted);
    }
}

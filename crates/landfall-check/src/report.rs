//! What `check` returns: findings and proofs.

use std::collections::HashMap;

use landfall_model::{Finding, Severity, Span};

use crate::waivers::WAIVER;

/// The outcome of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It follows from the file.
    Proved,
    /// The contrary follows from the file.
    Refuted,
    /// The file leaves out a number that it would take.
    Undecided,
}

/// A statement about the architecture with its derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The rule.
    pub rule: &'static str,
    /// What it is about, such as `service.checkout`, `zone.a` or `recovery.zone`.
    pub subject: String,
    /// What is stated, such as "losing zone `a` leaves room for everything".
    pub statement: String,
    /// Whether it holds.
    pub verdict: Verdict,
    /// The derivation, a line each, with its numbers.
    pub derivation: Vec<String>,
    /// The numbers in it that are assumed, such as "`stores.ledger.restore` is 100MB/s (default)".
    pub assumed: Vec<String>,
    /// The value that the statement is about.
    pub span: Span,
    /// The environments in which it was derived; empty for the file as it stands.
    pub environments: Vec<String>,
}

/// Findings and proofs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What the user should know, sorted by place.
    pub findings: Vec<Finding>,
    /// What was proved or refuted, sorted by rule and subject.
    pub proofs: Vec<Proof>,
    /// The findings that a waiver silences.
    pub waived: Vec<Finding>,
}

impl Report {
    pub(crate) fn sort(&mut self) {
        let place = |span: Span| (!span.is_written(), span);
        let by_place = |finding: &Finding| (place(finding.primary.span), finding.rule, finding.message.clone());
        self.findings.sort_by_cached_key(by_place);
        self.waived.sort_by_cached_key(by_place);
        self.proofs.sort_by(|a, b| (a.rule, &a.subject, &a.statement).cmp(&(b.rule, &b.subject, &b.statement)));
    }

    /// How many findings have this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// Joins the reports of several environments: what is the same in some of them is said once, with their names.
pub fn merge(reports: Vec<(String, Report)>) -> Report {
    let (mut findings, mut waived, mut proofs) = (Joined::default(), Joined::default(), Joined::default());
    let all = reports.len();
    for (environment, report) in reports {
        for finding in report.findings {
            findings.add(finding, &environment);
        }
        for finding in report.waived {
            waived.add(finding, &environment);
        }
        for proof in report.proofs {
            proofs.add(proof, &environment);
        }
    }
    let mut merged = Report { findings: findings.items, proofs: proofs.items, waived: waived.items };
    // A waiver is written once for all environments: it is only useless when no environment needs it.
    let is_unused_waiver = |finding: &Finding| finding.rule == WAIVER && finding.severity == Severity::Note;
    merged.findings.retain(|finding| !is_unused_waiver(finding) || finding.environments.len() == all);
    merged.sort();
    merged
}

/// Something that may hold in several environments.
trait PerEnvironment: Sized {
    fn environments(&mut self) -> &mut Vec<String>;
    /// Takes in `other` if it says the same of another environment, or gives it back.
    fn absorb(&mut self, other: Self) -> Option<Self>;
    /// What most unequal things differ in.
    fn key(&self) -> (&'static str, String);
}

/// A finding is the same wherever it says the same of the same place. Where it weighs differently, as a promise counts
/// in full in production only, the gravest one is told, with its own derivation.
impl PerEnvironment for Finding {
    fn environments(&mut self) -> &mut Vec<String> {
        &mut self.environments
    }
    fn absorb(&mut self, mut other: Self) -> Option<Self> {
        if self.rule != other.rule || self.message != other.message || self.primary.span != other.primary.span {
            return Some(other);
        }
        let mut environments = std::mem::take(&mut self.environments);
        environments.append(&mut other.environments);
        if other.severity < self.severity {
            *self = other;
        }
        self.environments = environments;
        None
    }
    fn key(&self) -> (&'static str, String) {
        (self.rule, self.message.clone())
    }
}

impl PerEnvironment for Proof {
    fn environments(&mut self) -> &mut Vec<String> {
        &mut self.environments
    }
    fn absorb(&mut self, mut other: Self) -> Option<Self> {
        let mut environments = std::mem::take(&mut self.environments);
        let mut added = std::mem::take(&mut other.environments);
        let same = *self == other;
        if same {
            environments.append(&mut added);
        } else {
            other.environments = added;
        }
        self.environments = environments;
        (!same).then_some(other)
    }
    fn key(&self) -> (&'static str, String) {
        (self.rule, self.statement.clone())
    }
}

/// Things that are the same but for their environments, once each, in the order in which they came.
struct Joined<T> {
    items: Vec<T>,
    by_key: HashMap<(&'static str, String), Vec<usize>>,
}

impl<T> Default for Joined<T> {
    fn default() -> Self {
        Self { items: Vec::new(), by_key: HashMap::new() }
    }
}

impl<T: PerEnvironment> Joined<T> {
    fn add(&mut self, mut item: T, environment: &str) {
        item.environments().push(environment.to_owned());
        let candidates = self.by_key.entry(item.key()).or_default();
        for index in candidates.iter() {
            match self.items[*index].absorb(item) {
                None => return,
                Some(other) => item = other,
            }
        }
        candidates.push(self.items.len());
        self.items.push(item);
    }
}

//! How the quantitative rules write down what they derive: lines, assumed numbers, amounts in words.

use std::fmt::{self, Display};

use landfall_model::{Duration, Severity, Span, Spanned};

use crate::report::{Proof, Verdict};
use crate::rule::Context;

/// A derivation in the making: its lines, and the numbers in it that nobody has measured.
#[derive(Debug, Clone, Default)]
pub(super) struct Derivation {
    lines: Vec<String>,
    assumed: Vec<String>,
}

/// Whether the section in which a number stands says `assumed: true`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// The document gives its numbers.
    Given,
    /// The file assumes them.
    Assumed,
}

impl From<bool> for Section {
    fn from(assumed: bool) -> Self {
        if assumed { Self::Assumed } else { Self::Given }
    }
}

impl Derivation {
    pub(super) fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Names a number of the file that nobody wrote, or that its section calls assumed; a given one is left out.
    pub(super) fn uses<T: Display>(&mut self, path: &str, value: &Spanned<T>, section: Section) {
        if !value.span.is_written() {
            self.assumes(format!("`{path}` is {value} (default)"));
        } else if section == Section::Assumed {
            self.assumes(format!("`{path}` is {value} (assumed)"));
        }
    }

    /// Names an assumption, once.
    pub(super) fn assumes(&mut self, assumption: impl Into<String>) {
        let assumption = assumption.into();
        if !self.assumed.contains(&assumption) {
            self.assumed.push(assumption);
        }
    }

    /// Adds what another derivation found.
    pub(super) fn append(&mut self, other: Self) {
        self.lines.extend(other.lines);
        other.assumed.into_iter().for_each(|assumption| self.assumes(assumption));
    }

    /// The proof that it makes.
    pub(super) fn proof(
        mut self,
        rule: &'static str,
        subject: impl Into<String>,
        statement: impl Into<String>,
        verdict: Verdict,
        span: Span,
    ) -> Proof {
        self.assumed.sort();
        Proof {
            rule,
            subject: subject.into(),
            statement: statement.into(),
            verdict,
            derivation: self.lines,
            assumed: self.assumed,
            span,
            environments: Vec::new(),
        }
    }
}

/// Whether the file promises the thing that is at stake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stake {
    /// An objective says so.
    Promised,
    /// Nothing says so, but it will hurt.
    Risk,
}

impl Stake {
    pub(super) fn of<T: Copy>(objective: Option<T>) -> Self {
        if objective.is_some() { Self::Promised } else { Self::Risk }
    }

    /// A refuted promise is an error where it counts, a risk a warning; both weigh one less elsewhere.
    pub(super) fn severity(self, context: &Context<'_>) -> Severity {
        match (self, context.architecture.is_production()) {
            (Self::Promised, true) => Severity::Error,
            (Self::Promised, false) | (Self::Risk, true) => Severity::Warning,
            (Self::Risk, false) => Severity::Note,
        }
    }
}

/// What follows from two verdicts together: a refutation beats what is undecided, and that beats a proof.
pub(super) fn both(a: Verdict, b: Verdict) -> Verdict {
    match (a, b) {
        (Verdict::Refuted, _) | (_, Verdict::Refuted) => Verdict::Refuted,
        (Verdict::Undecided, _) | (_, Verdict::Undecided) => Verdict::Undecided,
        (Verdict::Proved, Verdict::Proved) => Verdict::Proved,
    }
}

/// The first of the spans that somebody wrote.
pub(super) fn written(spans: impl IntoIterator<Item = Span>) -> Span {
    spans.into_iter().find(|span| span.is_written()).unwrap_or(Span::NONE)
}

/// `1 node`, `3 nodes`.
pub(super) fn count(number: impl Into<u64>, what: &str) -> String {
    match number.into() {
        1 => format!("1 {what}"),
        number if what.ends_with('y') => format!("{number} {}ies", &what[..what.len() - 1]),
        number => format!("{number} {what}s"),
    }
}

/// A length as `u64`: there are no more things in a file than that.
pub(super) fn len<T>(things: &[T]) -> u64 {
    things.len() as u64
}

/// Names, the first few of many: `a, b, c and 9 more`.
pub(super) fn list<T: Display>(names: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    if more > 0 { format!("{} and {more} more", names.join(", ")) } else { names.join(", ") }
}

/// `1074s`, and in larger units where that helps: `1074s (17m54s)`.
pub(super) fn time(duration: Duration) -> String {
    let seconds = duration.seconds();
    if !duration.millis().is_multiple_of(1000) || seconds < 120 {
        duration.to_string()
    } else {
        format!("{seconds}s ({duration})")
    }
}

/// A share, with as many digits as an availability needs: `99.9871 %`.
pub(super) struct Share(pub(super) f64);

impl Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.4}", self.0 * 100.0);
        write!(f, "{} %", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// A part of a whole in whole percent; nothing of nothing is 0.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return if part == 0 { 0 } else { 100 };
    }
    u64::try_from((u128::from(part) * 100 + u128::from(whole) / 2) / u128::from(whole)).unwrap_or(u64::MAX)
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts and times of an architecture stay far below 2^53")]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}

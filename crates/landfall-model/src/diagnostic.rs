//! Findings: what is wrong with the user's file, where, why, and what to do.

use crate::span::{Span, Spanned};

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file cannot be used, or a promise is refuted.
    Error,
    /// Something that will hurt, and that the user may accept.
    Warning,
    /// Worth knowing; nothing has to change.
    Note,
}

impl Severity {
    /// The word that is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// A place in the file with a few words about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// What is to be seen there; may be empty.
    pub text: String,
}

/// One thing that the user should know about the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule's kebab-case name.
    pub rule: &'static str,
    /// The weight.
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What the finding is about, such as `service.checkout`; waivers name it.
    pub subject: Option<String>,
    /// The value to change.
    pub primary: Label,
    /// Other places that matter.
    pub secondary: Vec<Label>,
    /// The derivation, a line each.
    pub why: Vec<String>,
    /// What to do.
    pub help: Option<String>,
    /// The environments in which it holds; empty for all.
    pub environments: Vec<String>,
}

impl Finding {
    /// A finding of `rule` at `span`.
    pub fn new(rule: &'static str, severity: Severity, span: Span, message: impl Into<String>) -> Self {
        Self {
            rule,
            severity,
            message: message.into(),
            subject: None,
            primary: Label { span, text: String::new() },
            secondary: Vec::new(),
            why: Vec::new(),
            help: None,
            environments: Vec::new(),
        }
    }

    /// An error of `rule` at `span`.
    pub fn error(rule: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self::new(rule, Severity::Error, span, message)
    }

    /// A warning of `rule` at `span`.
    pub fn warning(rule: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self::new(rule, Severity::Warning, span, message)
    }

    /// A note of `rule` at `span`.
    pub fn note(rule: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self::new(rule, Severity::Note, span, message)
    }

    /// Words beside the primary place.
    #[must_use]
    pub fn label(mut self, text: impl Into<String>) -> Self {
        self.primary.text = text.into();
        self
    }

    /// Another place; one that nobody wrote is left out.
    #[must_use]
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        if span.is_written() {
            self.secondary.push(Label { span, text: text.into() });
        }
        self
    }

    /// What the finding is about.
    #[must_use]
    pub fn on(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// One more line of the derivation.
    #[must_use]
    pub fn because(mut self, line: impl Into<String>) -> Self {
        self.why.push(line.into());
        self
    }

    /// What to do.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }
}

/// The candidate that `word` was probably meant to be.
pub fn suggestion<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| {
            *distance <= candidate.len().max(3) / 3 && *distance < candidate.len().min(word.len())
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// A reference to a name that does not exist: says so, and offers the nearest one.
pub fn unknown_name<'a>(
    what: &str,
    name: &Spanned<String>,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> Finding {
    let finding = Finding::error("unknown-name", name.span, format!("there is no {what} `{name}`"));
    let help = if let Some(near) = suggestion(name, known.clone()) {
        format!("did you mean `{near}`?")
    } else {
        let known: Vec<&str> = known.into_iter().take(12).collect();
        if known.is_empty() { "none is declared".to_owned() } else { format!("declared: {}", known.join(", ")) }
    };
    finding.label("not declared").help(help)
}

//! How rules say things alike: lists of names, counts, and proofs.

use std::fmt::Display;

use landfall_model::Span;

use crate::report::{Proof, Verdict};

/// `` `a`, `b` and `c` ``.
pub(super) fn names<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    joined(items.into_iter().map(|item| format!("`{item}`")).collect(), "and")
}

/// `` `a`, `b` or `c` ``.
pub(super) fn either<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    joined(items.into_iter().map(|item| format!("`{item}`")).collect(), "or")
}

fn joined(mut items: Vec<String>, word: &str) -> String {
    match items.pop() {
        None => "none".to_owned(),
        Some(only) if items.is_empty() => only,
        Some(last) => format!("{} {word} {last}", items.join(", ")),
    }
}

/// `1 edge`, `3 edges`.
pub(super) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A statement with its derivation and without assumed numbers: structural rules need none.
pub(super) fn proof(
    rule: &'static str,
    subject: impl Into<String>,
    statement: impl Into<String>,
    verdict: Verdict,
    span: Span,
    derivation: Vec<String>,
) -> Proof {
    Proof {
        rule,
        subject: subject.into(),
        statement: statement.into(),
        verdict,
        derivation,
        assumed: Vec::new(),
        span,
        environments: Vec::new(),
    }
}

/// Proved when nothing speaks against it.
pub(super) fn verdict(against: usize) -> Verdict {
    if against == 0 { Verdict::Proved } else { Verdict::Refuted }
}

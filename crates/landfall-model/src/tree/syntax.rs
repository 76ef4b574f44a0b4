//! What is wrong with a text that is not YAML, in the words of somebody who wrote it.
//!
//! The scanner says what it expected, at the place where it gave up; that is often a line after the mistake. For the
//! commonest mistakes this file finds the place itself.

use crate::diagnostic::Finding;
use crate::span::{SourceId, Span};

/// What the scanner refused with the words `info` at the byte `at`.
pub(super) fn refused(source: SourceId, text: &str, info: &str, at: usize) -> Finding {
    let at = (0..=at.min(text.len())).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0);
    let mistake = mistake(text, info, at);
    let width = text.get(mistake.at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8);
    Finding::error("yaml-syntax", Span::new(source, mistake.at, mistake.at + width), mistake.message).help(mistake.help)
}

struct Mistake {
    at: usize,
    message: String,
    help: &'static str,
}

impl Mistake {
    fn new(at: usize, message: impl Into<String>, help: &'static str) -> Self {
        Self { at, message: message.into(), help }
    }
}

fn mistake(text: &str, info: &str, at: usize) -> Mistake {
    if let Some(tab) = tab(text, info, at) {
        return Mistake::new(tab, "a tab is used for indentation, which YAML does not allow", "indent with spaces");
    }
    if info.contains("quoted scalar") || matches!(text[at..].chars().next(), Some('"' | '\'')) {
        return Mistake::new(at, "the quote that opens here does not close", "close it on its line");
    }
    if let Some(open) = open_bracket(text, at) {
        let bracket = &text[open..=open];
        if text[open..at].contains('\n') {
            return Mistake::new(open, format!("this `{bracket}` is not closed"), "close it on its line");
        }
        let close = if bracket == "{" { '}' } else { ']' };
        return Mistake::new(
            at,
            format!("this is not YAML: expected `,` or `{close}`"),
            "separate values with `,`; put a text that holds `: `, `, ` or a bracket in quotes",
        );
    }
    if let Some(at) =
        line_without_colon(text, at).or_else(|| info.contains("simple key").then(|| line_before(text, at)))
    {
        let line = text[at..].lines().next().unwrap_or("");
        return if line.contains(':') {
            Mistake::new(at, "this is not YAML: the `:` after the key has no space behind it", "write `key: value`")
        } else {
            Mistake::new(at, "this is not YAML: expected a `:` after the key", "write `key: value`")
        };
    }
    if info.contains("mapping values are not allowed") {
        return Mistake::new(
            at,
            "this is not YAML: no key can stand here",
            "indent it like the keys beside it; put a text that holds `: ` in quotes",
        );
    }
    if info.contains("did not find expected key") {
        return Mistake::new(
            at,
            "this is not YAML: expected a key of the mapping that is open here",
            "indent it like the keys beside it; a mapping has no `- `",
        );
    }
    if info.contains("expected '-' indicator") {
        return Mistake::new(
            at,
            "this is not YAML: expected the next item of the list that is open here",
            "begin each item with `- `, or write a mapping without any",
        );
    }
    Mistake::new(
        at,
        format!("this is not YAML: {}", info.trim_end_matches('.')),
        "look at the indentation and at brackets and quotes that do not close, here and in the lines before",
    )
}

/// The first tab that indents a line: the one at `at`, or, when the scanner names a tab, one after it.
fn tab(text: &str, info: &str, at: usize) -> Option<usize> {
    let start = text[..at].rfind('\n').map_or(0, |index| index + 1);
    let mut begins = start;
    for line in text[start..].split_inclusive('\n') {
        let content = line.trim_start_matches(' ');
        if content.starts_with('\t') {
            return Some(begins + line.len() - content.len());
        }
        if !info.contains("tab") {
            return None;
        }
        begins += line.len();
    }
    None
}

/// The line before the one of `at`, when it stands beside it and is no `key: value`: the scanner takes such a line for
/// a text that goes on, and complains about what follows.
fn line_without_colon(text: &str, at: usize) -> Option<usize> {
    let column = |index: usize| index - text[..index].rfind('\n').map_or(0, |newline| newline + 1);
    let start = at - column(at);
    let indentation = text[start..].len() - text[start..].trim_start_matches(' ').len();
    let before = line_before(text, at);
    let line = text[before..].lines().next().unwrap_or("");
    let line = line.split(" #").next().unwrap_or(line).trim_end();
    let is_word = line.starts_with(|c: char| c.is_ascii_alphanumeric()) && !line.contains(": ") && !line.ends_with(':');
    (before < start && column(before) == indentation && is_word).then_some(before)
}

/// Where the content of the last line before `at` begins that has some.
fn line_before(text: &str, at: usize) -> usize {
    let mut end = text[..at].rfind('\n').unwrap_or(at);
    loop {
        let start = text[..end].rfind('\n').map_or(0, |index| index + 1);
        let line = &text[start..end];
        let content = line.trim_start();
        if start == 0 || !(content.is_empty() || content.starts_with('#')) {
            return start + line.len() - content.len();
        }
        end = start - 1;
    }
}

/// The innermost bracket before `at` that is not closed.
fn open_bracket(text: &str, at: usize) -> Option<usize> {
    let mut open = Vec::new();
    let mut quote = None;
    // Whether a value can begin here: a bracket or a quote inside a word is a part of the word.
    let mut begins = true;
    let mut previous = '\n';
    let mut comment = false;
    for (index, character) in text[..at].char_indices() {
        match (quote, character) {
            (_, '\n') => comment = false,
            _ if comment => {}
            (Some(opened), _) if character == opened && previous != '\\' => quote = None,
            (None, '"' | '\'') if begins => quote = Some(character),
            (None, '#') if previous.is_whitespace() => comment = true,
            (None, '{' | '[') if begins => open.push(index),
            (None, '}' | ']') if !open.is_empty() => {
                open.pop();
            }
            _ => {}
        }
        begins = match character {
            '\n' | '{' | '[' | ',' | ':' | '-' => true,
            _ => begins && character.is_whitespace(),
        };
        previous = character;
    }
    open.pop()
}

//! Values as YAML that every reader takes alike.
//!
//! Readers of YAML 1.1 are still everywhere (`PyYAML`, older Go programs): to them `yes` is a boolean, `0777` an octal
//! number and `12:30` a number to base 60. Strings that look so are quoted. A text of several lines is a literal
//! block, and long lines are never folded, so that a diff shows the line that changed.
//!
//! `serde-saphyr` says how each scalar is written. The same few hundred keys and labels stand in thousands of objects,
//! and asking it once for each of them is most of what writing costs: so the answers are kept, and the lay-out of
//! mappings and lists, which needs no thought, is made here. A test holds both to be the same.

use std::collections::HashMap;

use serde::ser::{Serialize, Serializer};
use serde_json::Value;
use serde_saphyr::LitStr;

/// Writes values, and remembers how scalars are written.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    keys: HashMap<String, String>,
    texts: HashMap<String, String>,
}

impl Writer {
    /// The value as a block of YAML with a line break at its end, and no blanks at the end of a line.
    pub(crate) fn write(&mut self, value: &Value) -> String {
        if has_list_in_list(value) {
            return by_library(value);
        }
        let mut out = String::new();
        match value {
            Value::Object(fields) if !fields.is_empty() => self.fields(fields, 0, &mut out),
            Value::Array(items) if !items.is_empty() => self.items(items, 0, &mut out),
            scalar => out = by_library(scalar),
        }
        out
    }

    /// A mapping whose first line is already indented.
    fn fields(&mut self, fields: &serde_json::Map<String, Value>, indent: usize, out: &mut String) {
        for (index, (key, value)) in fields.iter().enumerate() {
            if index > 0 {
                blanks(indent, out);
            }
            self.key(key, out);
            match value {
                Value::Object(fields) if !fields.is_empty() => {
                    out.push('\n');
                    blanks(indent + 2, out);
                    self.fields(fields, indent + 2, out);
                }
                Value::Array(items) if !items.is_empty() => {
                    out.push('\n');
                    blanks(indent, out);
                    self.items(items, indent, out);
                }
                scalar => {
                    out.push(' ');
                    self.scalar(scalar, indent, out);
                }
            }
        }
    }

    /// A list whose first line is already indented; its items stand under the key that it belongs to.
    fn items(&mut self, items: &[Value], indent: usize, out: &mut String) {
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                blanks(indent, out);
            }
            out.push_str("- ");
            match item {
                Value::Object(fields) if !fields.is_empty() => self.fields(fields, indent + 2, out),
                scalar => self.scalar(scalar, indent, out),
            }
        }
    }

    fn key(&mut self, key: &str, out: &mut String) {
        if let Some(known) = self.keys.get(key) {
            out.push_str(known);
            return;
        }
        let line = by_library(&Value::Object([(key.to_owned(), Value::Null)].into_iter().collect()));
        let written = line.trim_end().trim_end_matches("null").trim_end().to_owned();
        out.push_str(&written);
        self.keys.insert(key.to_owned(), written);
    }

    /// A scalar or an empty collection, with the line break behind it.
    fn scalar(&mut self, value: &Value, indent: usize, out: &mut String) {
        match value {
            Value::String(text) if text.contains('\n') => {
                let lines = value_of_key(value);
                for (index, line) in lines.split_inclusive('\n').enumerate() {
                    if index > 0 && line != "\n" {
                        blanks(indent, out);
                    }
                    out.push_str(line);
                }
            }
            Value::String(text) if is_plain_word(text) => {
                out.push_str(text);
                out.push('\n');
            }
            Value::String(text) => {
                if let Some(known) = self.texts.get(text) {
                    out.push_str(known);
                    return;
                }
                let written = value_of_key(value);
                out.push_str(&written);
                self.texts.insert(text.clone(), written);
            }
            Value::Bool(true) => out.push_str("true\n"),
            Value::Bool(false) => out.push_str("false\n"),
            Value::Number(number) if !number.is_f64() => {
                out.push_str(&number.to_string());
                out.push('\n');
            }
            other => out.push_str(&value_of_key(other)),
        }
    }
}

/// Whether the text is a lower-case word or name that no reader takes for anything else: every boolean, null and
/// special number of YAML 1.1 is shorter.
fn is_plain_word(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.' | b'/');
    text.len() > 5 && text.as_bytes()[0].is_ascii_lowercase() && text.bytes().all(plain)
}

fn blanks(count: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', count));
}

/// How the library writes a value behind a key.
fn value_of_key(value: &Value) -> String {
    let text = by_library(&Value::Object([("k".to_owned(), value.clone())].into_iter().collect()));
    text.strip_prefix("k:").map(|rest| rest.trim_start_matches(' ').to_owned()).expect("a mapping begins with its key")
}

/// Lists directly in lists are laid out by the library; Kubernetes has next to none.
fn has_list_in_list(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.values().any(has_list_in_list),
        Value::Array(items) => items.iter().any(|item| item.is_array() || has_list_in_list(item)),
        _ => false,
    }
}

/// The value as the library writes it.
fn by_library(value: &Value) -> String {
    let options = serde_saphyr::ser_options! {
        indent_step: 2,
        compact_list_indent: true,
        prefer_block_scalars: false,
    };
    let text = serde_saphyr::to_string_with_options(&Styled(value), options)
        .expect("a JSON value has no part that YAML cannot say");
    if !text.contains(" \n") {
        return text;
    }
    // Empty lines of a block come with its indentation. No block has a line of blanks that mean something.
    let lines = text.lines().map(|line| if line.trim_matches(' ').is_empty() { "" } else { line });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// A value whose texts of several lines are literal blocks where a block says them exactly.
struct Styled<'a>(&'a Value);

impl Serialize for Styled<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::String(text) if is_block(text) => LitStr(text).serialize(serializer),
            Value::Array(items) => serializer.collect_seq(items.iter().map(Styled)),
            Value::Object(fields) => serializer.collect_map(fields.iter().map(|(key, field)| (key, Styled(field)))),
            other => other.serialize(serializer),
        }
    }
}

/// Whether a reader sees the text in a literal block as it is: blanks at the ends of lines or of the text are easily
/// lost on the way, and characters that cannot be seen have no place in a block.
fn is_block(text: &str) -> bool {
    let tidy = |line: &str| !line.ends_with([' ', '\t']) && !line.starts_with('\t') && !line.chars().any(invisible);
    text.contains('\n') && !text.starts_with(['\n', ' ']) && !text.ends_with("\n\n") && text.split('\n').all(tidy)
}

fn invisible(c: char) -> bool {
    c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use crate::json::json;
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(value: &Value) {
        assert_eq!(Writer::default().write(value), by_library(value));
    }

    #[test]
    fn the_layout_is_that_of_the_library() {
        check(
            &json!({ "a": { "b": [1, "two", { "c": {}, "d": [] , "e": "yes" }, null], "f": 1.5 }, "yes": true, "k: v": "a: b" }),
        );
        check(&json!({ "script": "one\n\n  two\n", "list": ["three\nfour", { "run": "five\nsix\n", "then": "-" }] }));
        check(&json!({ "lists": [["in", "lists"], []], "~": "", "0777": "12:30" }));
        check(&json!([{ "a": [{ "b": [{ "c": 1 }, 2] }] }]));
        check(&json!("alone"));
        check(&json!({}));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[a-z0-9 :#\\n'\"-]{0,12}",
            "[a-z][a-z0-9./-]{0,9}",
            Just("yes".to_owned()),
            Just("1e3".to_owned())
        ];
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        scalar.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-zA-Z0-9./: -]{1,8}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_the_value_the_layout_is_that_of_the_library(value in any_value()) {
            prop_assert_eq!(Writer::default().write(&value), by_library(&value));
        }
    }
}

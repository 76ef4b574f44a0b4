//! Paths into JSON: `metadata.labels["app"]`, `items[*].metadata.name`, `status.conditions[type=Ready].status`.
//!
//! A small part of `JSONPath`, as `kubectl` users write it. `[*]` goes through all elements and gives a list; `[key=value]`
//! takes the first element that has it, `[a.b=value]` too; `#` is the number of elements; an empty path is the whole document.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::Value;

/// A path, read once and followed often.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Path {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Key(String),
    Index(usize),
    All,
    First { key: String, value: String },
    Count,
}

/// A text that is not a path.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not a path: {problem}")]
pub(crate) struct PathError {
    text: String,
    problem: &'static str,
}

impl Path {
    /// Whether it is the whole document.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The value there, or `null`.
    pub(crate) fn of(&self, document: &Value) -> Value {
        follow(document, &self.segments)
    }

    /// Calls `change` with every value that the path leads to.
    pub(crate) fn change(&self, document: &mut Value, change: &mut impl FnMut(&mut Value)) {
        walk(document, &self.segments, change);
    }

    /// Removes what the path leads to.
    pub(crate) fn remove(&self, document: &mut Value) {
        let Some((end, parents)) = self.segments.split_last() else { return };
        walk(document, parents, &mut |parent| match (parent, end) {
            (Value::Object(map), Segment::Key(key)) => {
                map.shift_remove(key);
            }
            (Value::Array(list), Segment::Index(index)) if *index < list.len() => {
                list.remove(*index);
            }
            (Value::Array(list), Segment::First { key, value }) => {
                list.retain(|element| !has(element, key, value));
            }
            (Value::Array(list), Segment::All) => list.clear(),
            _ => {}
        });
    }
}

fn follow(value: &Value, segments: &[Segment]) -> Value {
    let Some((first, rest)) = segments.split_first() else { return value.clone() };
    match (first, value) {
        (Segment::All, Value::Array(list)) => Value::Array(list.iter().map(|element| follow(element, rest)).collect()),
        (Segment::All, Value::Object(map)) => Value::Array(map.values().map(|element| follow(element, rest)).collect()),
        (Segment::Count, Value::Array(list)) => list.len().into(),
        (Segment::Count, Value::Object(map)) => map.len().into(),
        _ => step(value, first).map_or(Value::Null, |next| follow(next, rest)),
    }
}

fn step<'a>(value: &'a Value, segment: &Segment) -> Option<&'a Value> {
    match segment {
        Segment::Key(key) => value.get(key),
        Segment::Index(index) => value.get(index),
        Segment::First { key, value: wanted } => value.as_array()?.iter().find(|element| has(element, key, wanted)),
        Segment::All | Segment::Count => None,
    }
}

fn walk(value: &mut Value, segments: &[Segment], change: &mut impl FnMut(&mut Value)) {
    let Some((first, rest)) = segments.split_first() else { return change(value) };
    match (first, value) {
        (Segment::All, Value::Array(list)) => list.iter_mut().for_each(|element| walk(element, rest, change)),
        (Segment::Key(key), value) => {
            if let Some(next) = value.get_mut(key) {
                walk(next, rest, change);
            }
        }
        (Segment::Index(index), value) => {
            if let Some(next) = value.get_mut(*index) {
                walk(next, rest, change);
            }
        }
        (Segment::First { key, value: wanted }, Value::Array(list)) => {
            if let Some(next) = list.iter_mut().find(|element| has(element, key, wanted)) {
                walk(next, rest, change);
            }
        }
        _ => {}
    }
}

fn has(element: &Value, key: &str, wanted: &str) -> bool {
    match key.split('.').try_fold(element, |element, key| element.get(key)) {
        Some(Value::String(text)) => text == wanted,
        Some(other) => wanted.parse().is_ok_and(|wanted: Value| *other == wanted),
        None => false,
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let error = |problem| PathError { text: text.to_owned(), problem };
        let mut segments = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(inside) = rest.strip_prefix('[') {
                let (segment, after) = bracket(inside).map_err(error)?;
                segments.push(segment);
                rest = after;
            } else {
                let key = if segments.is_empty() { Some(rest) } else { rest.strip_prefix('.') };
                let key = key.ok_or_else(|| error("a key follows a `.`"))?;
                let end = key.find(['.', '[']).unwrap_or(key.len());
                let (key, after) = key.split_at(end);
                segments.push(match key {
                    "" => return Err(error("an empty key")),
                    "#" => Segment::Count,
                    key => Segment::Key(key.to_owned()),
                });
                rest = after;
            }
        }
        Ok(Self { text: text.to_owned(), segments })
    }
}

/// Reads what follows a `[`.
fn bracket(inside: &str) -> Result<(Segment, &str), &'static str> {
    if let Some(quoted) = inside.strip_prefix('"') {
        let (key, after) = quoted.split_once("\"]").ok_or("a `[\"` without its `\"]`")?;
        return Ok((Segment::Key(key.to_owned()), after));
    }
    let (content, after) = inside.split_once(']').ok_or("a `[` without its `]`")?;
    let segment = if content == "*" {
        Segment::All
    } else if let Some((key, value)) = content.split_once('=') {
        Segment::First { key: key.to_owned(), value: value.to_owned() }
    } else {
        Segment::Index(content.parse().map_err(|_| "brackets hold a number, `*`, `key=value` or a quoted key")?)
    };
    Ok((segment, after))
}

impl TryFrom<String> for Path {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        text.parse()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(path: &str) -> Value {
        let document = json!({
            "metadata": {"labels": {"app.kubernetes.io/name": "web"}},
            "items": [{"type": "A", "n": 1}, {"type": "B", "n": 2}],
        });
        path.parse::<Path>().expect("the test writes paths").of(&document)
    }

    #[test]
    fn keys_may_be_quoted() {
        assert_eq!(at("metadata.labels[\"app.kubernetes.io/name\"]"), json!("web"));
    }

    #[test]
    fn elements_are_found_by_place_by_value_and_all_at_once() {
        assert_eq!(at("items[1].n"), json!(2));
        assert_eq!(at("items[type=B].n"), json!(2));
        assert_eq!(at("items[n=1].type"), json!("A"));
        assert_eq!(at("items[*].n"), json!([1, 2]));
        assert_eq!(at("items.#"), json!(2));
    }

    #[test]
    fn what_is_not_there_is_null() {
        assert_eq!(at("items[7].n"), Value::Null);
        assert_eq!(at("spec.replicas"), Value::Null);
    }

    #[test]
    fn a_text_that_is_no_path_is_refused() {
        for text in ["a..b", "a[b", "a[x]", "[0]b"] {
            assert!(text.parse::<Path>().is_err(), "{text}");
        }
    }
}

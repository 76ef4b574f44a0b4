//! The file as a tree in which every key and value knows its place.
//!
//! `load` makes it from YAML, `overlay` lays one environment's overrides over it, `de` turns it into the typed
//! document. What the values mean is left to `document`.

mod de;
mod load;
mod overlay;
mod syntax;

pub(crate) use de::{DeserializeError, Problem, SPANNED, Segment, deserialize};
pub(crate) use load::load;
pub(crate) use overlay::overlay;

use crate::span::Span;

/// A value of the file.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// The text as written: `1.20` stays `1.20`, whatever type the document wants.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Node>),
    /// In the order of the file; keys are unique.
    Mapping(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Node,
}

impl Node {
    /// Whether the value is absent: `key:`, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// The entry of `key`, when this is a mapping that has it.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// Removes the node at `path`; says whether there was one.
    pub(crate) fn remove(&mut self, path: &[Segment]) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        match (&mut self.value, first) {
            (Value::Mapping(entries), Segment::Key(key)) => {
                let Some(index) = entries.iter().position(|entry| entry.key == *key) else { return false };
                if rest.is_empty() {
                    entries.remove(index);
                    return true;
                }
                entries[index].value.remove(rest)
            }
            (Value::Sequence(items), Segment::Index(index)) => {
                if rest.is_empty() {
                    let exists = *index < items.len();
                    if exists {
                        items.remove(*index);
                    }
                    return exists;
                }
                items.get_mut(*index).is_some_and(|item| item.remove(rest))
            }
            _ => false,
        }
    }

    /// What kind of value this is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }
}

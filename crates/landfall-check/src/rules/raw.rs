//! The raw objects of the file by their names, so that a finding about an object points at where the user wrote it.

use std::collections::BTreeMap;

use landfall_model::{Architecture, Span};
use serde_json::Value;

/// Kind, namespace and name.
type Key<'a> = (&'a str, &'a str, &'a str);

/// The places of raw objects. Patches may have changed an object since, but not its name.
pub(super) struct RawObjects<'a> {
    spans: BTreeMap<Key<'a>, Span>,
}

impl<'a> RawObjects<'a> {
    pub(super) fn new(architecture: &'a Architecture) -> Self {
        let objects = architecture.document.objects.iter();
        Self { spans: objects.map(|object| (key(&object.value), object.span)).collect() }
    }

    /// Where the object was written, if the user wrote it.
    pub(super) fn written(&self, object: &Value) -> Option<Span> {
        if self.spans.is_empty() { None } else { self.spans.get(&key(object)).copied() }
    }

    /// The place to point at, or none.
    pub(super) fn span(&self, object: &Value) -> Span {
        self.written(object).unwrap_or(Span::NONE)
    }

    pub(super) fn span_of(&self, kind: &str, namespace: &str, name: &str) -> Option<Span> {
        self.spans.get(&(kind, namespace, name)).copied()
    }
}

fn key(object: &Value) -> Key<'_> {
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    let namespace = text(metadata, "namespace");
    (text(object, "kind"), if namespace.is_empty() { "default" } else { namespace }, text(metadata, "name"))
}

/// The text of a member, or an empty one. Quicker than a JSON pointer, which matters with thousands of objects.
pub(in crate::rules) fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

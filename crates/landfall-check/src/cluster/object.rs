//! Rendered objects and their names, before anything of their content is read.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use serde_json::Value;

use super::field::{Field, Malformed};
use super::problem::Problem;

/// The namespace of a namespaced object that names none.
const DEFAULT_NAMESPACE: &str = "default";

/// Names one object.
///
/// The API group is left out: within one rendered set a kind is unambiguous, and people name objects this way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// `Deployment`.
    pub kind: String,
    /// Empty for a namespace itself.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

/// One object of the set.
#[derive(Debug, Clone)]
pub(super) struct Object<'a> {
    pub(super) key: ObjectKey,
    /// `apps` of `apps/v1`; empty for the core group.
    pub(super) group: &'a str,
    pub(super) root: Field<'a>,
}

impl ObjectKey {
    /// A key from its parts.
    pub fn new(kind: impl Into<String>, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        ObjectKey { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

impl Object<'_> {
    pub(super) fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.key.kind == kind
    }

    /// The key of an object of another kind in the same namespace.
    pub(super) fn neighbour(&self, kind: &str, name: &str) -> ObjectKey {
        ObjectKey::new(kind, self.key.namespace.as_str(), name)
    }
}

/// The objects in their order, lists taken apart.
///
/// Of two objects with one key the later stays, as after `kubectl apply`.
pub(super) fn read<'a>(values: impl IntoIterator<Item = &'a Value>, problems: &mut Vec<Problem>) -> Vec<Object<'a>> {
    let mut objects: Vec<Object<'a>> = Vec::new();
    let mut positions = HashMap::new();
    let items = values.into_iter().flat_map(|value| match (value.get("kind"), value.get("items")) {
        (Some(Value::String(kind)), Some(Value::Array(items))) if kind == "List" => items.as_slice(),
        _ => std::slice::from_ref(value),
    });
    for (index, value) in items.enumerate() {
        match header(value) {
            Err(malformed) => problems.push(Problem::MalformedHeader { index, malformed }),
            Ok(object) => match positions.entry((object.group, object.key.clone())) {
                Entry::Vacant(entry) => {
                    entry.insert(objects.len());
                    objects.push(object);
                }
                Entry::Occupied(entry) => {
                    problems.push(Problem::Duplicate { object: object.key.clone() });
                    objects[*entry.get()] = object;
                }
            },
        }
    }
    objects
}

fn header(value: &Value) -> Result<Object<'_>, Malformed> {
    let root = Field::root(value);
    let kind = root.member("kind")?.required_text()?;
    let version = root.member("apiVersion")?.required_text()?;
    let metadata = root.member("metadata")?;
    let name = metadata.member("name")?.required_text()?;
    let namespace = match metadata.member("namespace")?.text()? {
        _ if kind == "Namespace" => "",
        None | Some("") => DEFAULT_NAMESPACE,
        Some(namespace) => namespace,
    };
    let group = version.split_once('/').map_or("", |(group, _)| group);
    Ok(Object { key: ObjectKey::new(kind, namespace, name), group, root })
}

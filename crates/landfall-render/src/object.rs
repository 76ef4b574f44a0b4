//! A rendered object and the tree of files that objects make.

use std::collections::BTreeMap;

use landfall_model::{Sources, Span};
use serde_json::Value;

use crate::yaml;

/// Files by their path, relative and with `/`.
pub type FileTree = BTreeMap<String, String>;

/// A rendered Kubernetes object.
#[derive(Debug, Clone)]
pub struct Object {
    /// The object, its fields in the order in which Kubernetes' documentation writes them.
    pub value: Value,
    /// The part of `landfall.yaml` that it comes from, such as `services.checkout`.
    pub origin: String,
    /// Where that part stands.
    pub span: Span,
    /// The folder it is written to below the namespace's: the service or store it belongs to, or what it is about.
    pub folder: String,
    /// The file's name without `.yaml`; unique in the folder.
    pub file: String,
}

impl Object {
    /// `apps/v1`; empty when a patch took it away.
    pub fn api_version(&self) -> &str {
        self.value["apiVersion"].as_str().unwrap_or_default()
    }

    /// `Deployment`.
    pub fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Its namespace; `None` for an object of the whole cluster.
    pub fn namespace(&self) -> Option<&str> {
        self.value["metadata"]["namespace"].as_str()
    }

    /// `composerp/checkout/deployment.yaml`. A `Namespace` stands with what is in it.
    pub fn path(&self) -> String {
        let namespace = if self.kind() == "Namespace" { Some(self.name()) } else { self.namespace() };
        let file = format!("{}.yaml", plain(&self.file));
        let parts = [plain(namespace.unwrap_or("cluster")), plain(&self.folder), file];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }

    /// Which part of the file it comes from, with the line.
    pub(crate) fn origin_line(&self, sources: &Sources) -> String {
        match sources.line_reference(self.span) {
            Some(line) => format!("{line}, {}", self.origin),
            None => self.origin.clone(),
        }
    }

    /// The object as a file, whose first line says where it comes from.
    pub(crate) fn file_text(&self, sources: &Sources, writer: &mut yaml::Writer) -> String {
        format!("# From {}\n{}", self.origin_line(sources), writer.write(&self.value))
    }
}

/// A name as one plain part of a path: raw objects carry names that nobody has checked, such as `../x` or `system:y`.
fn plain(name: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let name: String = name.chars().map(keep).collect();
    if name.starts_with('.') { format!("_{name}") } else { name }
}

/// Takes out every field that is null, at any depth, so that optional fields can stand in `json!` at their place.
///
/// Empty objects and lists stay: `podSelector: {}` and `emptyDir: {}` mean something. See [`unless_empty`].
pub(crate) fn compact(mut value: Value) -> Value {
    without_nulls(&mut value);
    value
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.retain(|_, field| {
            without_nulls(field);
            !field.is_null()
        }),
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The list, or null when there is nothing in it.
pub(crate) fn unless_empty(items: Vec<Value>) -> Value {
    if items.is_empty() { Value::Null } else { Value::Array(items) }
}

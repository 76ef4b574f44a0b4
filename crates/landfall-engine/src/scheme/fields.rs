//! What becomes of each field that a client may set: somebody acts on it, it is accepted and ignored, or it is refused.
//!
//! The tables in `fields/*.yaml` are the truth. They speak of types, so that what holds for a container is said once for
//! every kind that has containers. `"*"` stands for what all kinds have; below a field that is ignored, refused or `status`
//! nothing more is said.
//!
//! ```yaml
//! core.v1.PodSpec:
//!   acted:                          # somebody reads the field: see `Actor`
//!     kubelet: [containers]
//!   ignored:                        # the client is told so by a warning
//!   - fields: [dnsPolicy]
//!     unless: [ClusterFirst]        # values that ask for what is done anyway
//!     why: pods ask the DNS of the cluster
//!   refused: …                      # likewise, but such an object is not accepted
//!   status: …                       # the server's own
//! ```
//!
//! False, an empty text, an empty list and an empty object count as not set; false does not when `unless` names a bool.
//!
//! Not handled: keys of maps, such as single resources of `limits`; and the schemas below `items` and
//! `additionalProperties` of a definition, which have no type in the published schemas either.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Resource;
use super::types::{Field, Shape, Table, Type, Types};
use super::validate::{Cause, Reason};

#[cfg(test)]
mod document;
#[cfg(test)]
mod tests;

/// The tables, each with the title of its chapter in the documentation.
const TABLES: [(&str, &str); 7] = [
    ("Pods", include_str!("fields/pods.yaml")),
    ("Volumes", include_str!("fields/volumes.yaml")),
    ("Workloads", include_str!("fields/workloads.yaml")),
    ("Network", include_str!("fields/network.yaml")),
    ("Access and admission", include_str!("fields/access.yaml")),
    ("Definitions of custom resources", include_str!("fields/definitions.yaml")),
    ("Everything else", include_str!("fields/objects.yaml")),
];

/// What a client has asked for and does not get.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unheeded {
    /// As the client is told: `spec.dnsPolicy: accepted and ignored: …`.
    pub(crate) ignored: Vec<String>,
    pub(crate) refused: Vec<Cause>,
}

/// What is not heeded in an object of a built-in kind, whose defaults are filled in. What `old` has as well is not told
/// again.
pub(super) fn unheeded(resource: &Resource, new: &Value, old: Option<&Value>) -> Unheeded {
    let mut walk =
        Walk { types: &resource.types, fates: Fates::get(), path: String::new(), found: Unheeded::default() };
    if let Some(new) = new.as_object() {
        walk.object(resource.root, new, old);
    }
    walk.found
}

/// Who acts on a field. Each name but `Clients` is a part of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Actor {
    Api,
    Kubelet,
    Scheduler,
    Network,
    Gateway,
    Autoscaler,
    CronJobController,
    DaemonSetController,
    DeploymentController,
    DisruptionController,
    EndpointSliceController,
    GarbageCollector,
    JobController,
    NamespaceController,
    NodeLifecycleController,
    QuotaController,
    ReplicaSetController,
    StatefulSetController,
    VolumeController,
    /// It is kept for those who read it, and Kubernetes itself does no more.
    Clients,
}

/// What is said of a type.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    acted: BTreeMap<Actor, Vec<String>>,
    #[serde(default)]
    ignored: Vec<Exception>,
    #[serde(default)]
    refused: Vec<Exception>,
    #[serde(default)]
    #[cfg_attr(not(test), expect(dead_code, reason = "nothing below is looked at, as nobody is said to act on it"))]
    status: Vec<String>,
}

/// Fields that nobody acts on, for one reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    fields: Vec<String>,
    /// Values that ask for what is done anyway.
    #[serde(default)]
    unless: Vec<Value>,
    why: String,
}

impl Entry {
    fn acts_on(&self, field: &str) -> bool {
        self.acted.values().flatten().any(|name| name == field)
    }

    fn exception(&self, field: &str) -> Option<(Outcome, &Exception)> {
        let of = |list: &'_ [Exception]| list.iter().position(|one| one.fields.iter().any(|name| name == field));
        let refused = of(&self.refused).map(|index| (Outcome::Refused, &self.refused[index]));
        refused.or_else(|| of(&self.ignored).map(|index| (Outcome::Ignored, &self.ignored[index])))
    }
}

impl Exception {
    /// Whether the value asks for nothing, or for what is done anyway.
    fn is_met_by(&self, value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Bool(false) if !self.unless.iter().any(Value::is_boolean) => true,
            Value::String(text) if text.is_empty() => true,
            Value::Object(object) if object.is_empty() => true,
            Value::Array(list) => list.iter().all(|item| self.unless.contains(item)),
            value => self.unless.contains(value),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ignored,
    Refused,
}

/// A chapter: its title, and what is said of each type in the order of its file.
type Chapter = (&'static str, IndexMap<String, Entry>);

fn chapters() -> &'static [Chapter] {
    static CHAPTERS: OnceLock<Vec<Chapter>> = OnceLock::new();
    CHAPTERS.get_or_init(|| {
        let read = |(title, text)| (title, serde_saphyr::from_str(text).expect("the tables are part of the program"));
        TABLES.into_iter().map(read).collect()
    })
}

/// What is said of a type, by its short name.
fn entry(name: &str) -> Option<&'static Entry> {
    chapters().iter().find_map(|(_, chapter)| chapter.get(name))
}

/// `core.v1.Pod` for `io.k8s.api.core.v1.Pod`.
fn short(name: &str) -> &str {
    ["io.k8s.api.", "io.k8s.apimachinery.pkg.apis.", "io.k8s.apiextensions-apiserver.pkg.apis."]
        .iter()
        .find_map(|package| name.strip_prefix(package))
        .unwrap_or(name)
}

/// What has its own kind in the body of a request: it has the fields of `"*"` too.
fn is_kind(of: &Type) -> bool {
    ["apiVersion", "kind", "metadata"].iter().all(|name| of.field(name).is_some())
}

/// The type of the objects in a value of this shape.
fn objects_in(shape: &Shape) -> Option<usize> {
    match shape {
        Shape::Struct(index) => Some(*index),
        Shape::List(item) | Shape::Map(item) => objects_in(item),
        _ => None,
    }
}

/// The tables, laid beside the types of the built-in kinds.
struct Fates {
    /// By type and field. A type in which nothing is to be looked at has an empty list.
    watched: Vec<Vec<Option<Watched>>>,
}

/// A field to look at: because it may not be heeded, or because something in it may not.
struct Watched {
    exception: Option<(Outcome, &'static Exception)>,
    goes_on: bool,
}

impl Fates {
    fn get() -> &'static Self {
        static FATES: OnceLock<Fates> = OnceLock::new();
        FATES.get_or_init(|| Self::of(&Table::get().types))
    }

    fn of(types: &Types) -> Self {
        static SILENCE: OnceLock<Entry> = OnceLock::new();
        let (every, silence) = (entry("*"), SILENCE.get_or_init(Entry::default));
        let entries: Vec<_> = types.list.iter().map(|of| entry(short(&of.name)).unwrap_or(silence)).collect();
        // A type is loud when something in it, at whatever depth, may not be heeded.
        let mut loud: Vec<bool> =
            entries.iter().map(|entry| !entry.ignored.is_empty() || !entry.refused.is_empty()).collect();
        let leads = |of: usize, field: &Field, loud: &[bool]| {
            let acted = |entry: &Entry| entry.acts_on(&field.name);
            objects_in(&field.shape).is_some_and(|below| loud[below])
                && (acted(entries[of]) || is_kind(&types.list[of]) && every.is_some_and(acted))
        };
        loop {
            let more: Vec<_> = (0..types.list.len())
                .filter(|of| !loud[*of] && types.list[*of].fields.iter().any(|field| leads(*of, field, &loud)))
                .collect();
            if more.is_empty() {
                break;
            }
            for of in more {
                loud[of] = true;
            }
        }
        let watched = |of: usize, field: &Field| {
            let exception = entries[of].exception(&field.name);
            let goes_on = leads(of, field, &loud);
            (exception.is_some() || goes_on).then_some(Watched { exception, goes_on })
        };
        let fields = |of: usize| types.list[of].fields.iter().map(|field| watched(of, field)).collect();
        Self { watched: (0..types.list.len()).map(|of| if loud[of] { fields(of) } else { Vec::new() }).collect() }
    }
}

struct Walk<'a> {
    types: &'a Types,
    fates: &'a Fates,
    path: String,
    found: Unheeded,
}

impl Walk<'_> {
    fn object(&mut self, index: usize, new: &Map<String, Value>, old: Option<&Value>) {
        let (of, fates) = (self.types.get(index), self.fates);
        let watched = &fates.watched[index];
        if watched.is_empty() {
            return;
        }
        // Fields that are ignored for one reason are told of together.
        let mut ignored: Vec<(&Exception, Vec<&str>)> = Vec::new();
        for (name, value) in new {
            let Some(index) = of.by_name.get(name) else { continue };
            let Some(watched) = &watched[*index] else { continue };
            let old = old.and_then(|old| old.get(name));
            if old == Some(value) {
                continue;
            }
            let length = self.path.len();
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(name);
            match watched.exception.filter(|(_, exception)| !exception.is_met_by(value)) {
                Some((Outcome::Refused, exception)) => self.refuse(exception),
                Some((Outcome::Ignored, exception)) => {
                    match ignored.iter_mut().find(|(known, _)| std::ptr::eq(*known, exception)) {
                        Some((_, names)) => names.push(name),
                        None => ignored.push((exception, vec![name])),
                    }
                }
                None if watched.goes_on => self.value(&of.fields[*index], &of.fields[*index].shape, value, old),
                None => {}
            }
            self.path.truncate(length);
        }
        for (exception, names) in ignored {
            self.ignore(&names, exception);
        }
    }

    fn value(&mut self, field: &Field, shape: &Shape, new: &Value, old: Option<&Value>) {
        let length = self.path.len();
        match (shape, new) {
            (Shape::Struct(index), Value::Object(object)) => self.object(*index, object, old),
            (Shape::List(item), Value::Array(list)) => {
                for (position, value) in list.iter().enumerate() {
                    self.path.push_str(&format!("[{position}]"));
                    self.value(field, item, value, counterpart(field, position, value, old));
                    self.path.truncate(length);
                }
            }
            (Shape::Map(item), Value::Object(map)) => {
                for (key, value) in map {
                    self.path.push_str(&format!("[{key}]"));
                    self.value(field, item, value, old.and_then(|old| old.get(key)));
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn refuse(&mut self, exception: &Exception) {
        let (field, message) = (self.path.clone(), format!("Forbidden: {}", exception.why));
        self.found.refused.push(Cause { reason: Reason::Forbidden, field, message });
    }

    fn ignore(&mut self, names: &[&str], exception: &Exception) {
        let dot = if self.path.is_empty() { "" } else { "." };
        let names = match names {
            [one] => (*one).to_owned(),
            several => format!("{{{}}}", several.join(",")),
        };
        self.found.ignored.push(format!("{}{dot}{names}: accepted and ignored: {}", self.path, exception.why));
    }
}

/// What stood in the list before in the place of an item: the one with the same key, or else at the same position.
fn counterpart<'a>(field: &Field, position: usize, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    let old = old?.as_array()?;
    match field.merge_key.as_ref().or(field.keys.first()) {
        Some(key) => old.iter().find(|one| one.get(key) == item.get(key)),
        None => old.get(position),
    }
}

//! An architecture as Kubernetes objects.
//!
//! [`kubernetes()`] walks the architecture once and asks each part for its objects: what runs a service, what scales it,
//! who reaches it, what a namespace allows. Then it lays the patches of the file over them, and sorts.

mod access_control;
mod certificates;
mod configuration;
mod edges;
mod environment;
mod exposure;
mod mesh;
mod metadata;
pub(crate) mod monitoring;
mod namespace;
mod network;
mod patches;
mod placement;
mod pod;
mod ports;
mod priority;
mod probe;
mod quota;
mod scaling;
mod secrets;
mod stores;
mod workload;

use std::collections::BTreeMap;

use landfall_model::{Architecture, Finding, Sources};
use serde_json::Value;

use crate::object::{FileTree, Object};
use crate::yaml;
use edges::Edges;
use exposure::Gateways;
use metadata::Subject;
pub(crate) use scaling::day_of_week;
pub(crate) use secrets::{STORE as SECRET_STORE, namespaces as secret_namespaces};
pub(crate) use stores::private_zone;

/// What was rendered, and what could not be.
#[derive(Debug, Clone, Default)]
pub struct Rendered {
    /// The objects, sorted by their paths.
    pub objects: Vec<Object>,
    /// Patches that do not apply, objects that collide, and declarations that no object can say.
    pub findings: Vec<Finding>,
}

/// The kinds that are applied before all others: without a namespace nothing in it is taken, and a pod that is made before
/// the rest is refused, or is made without what they add to it or forbid it.
pub(crate) const FIRST: [&str; 6] =
    ["Namespace", "PriorityClass", "LimitRange", "ResourceQuota", "ServiceAccount", "NetworkPolicy"];

/// The place of a kind in the order in which objects are applied.
fn rank(kind: &str) -> usize {
    FIRST.iter().position(|first| *first == kind).unwrap_or(FIRST.len())
}

impl Rendered {
    /// Each object as a file whose first line says which part of the file it comes from.
    pub fn files(&self, sources: &Sources) -> FileTree {
        let mut writer = yaml::Writer::default();
        let file = |object: &Object| (object.path(), object.file_text(sources, &mut writer));
        self.objects.iter().map(file).collect()
    }

    /// The paths of [`Self::files`] in an order in which they can be applied one after the other.
    pub fn apply_order(&self) -> Vec<String> {
        let mut ranked: Vec<_> = self.objects.iter().map(|object| (rank(object.kind()), object.path())).collect();
        ranked.sort();
        ranked.into_iter().map(|(_, path)| path).collect()
    }

    /// The objects as plain values, without a copy: a large architecture has tens of thousands of them.
    pub fn into_values(self) -> Vec<Value> {
        self.objects.into_iter().map(|object| object.value).collect()
    }
}

/// Renders the architecture.
pub fn kubernetes(architecture: &Architecture) -> Rendered {
    let mut findings = Vec::new();
    let mut objects = all(architecture, &mut findings);
    patches::apply(architecture, &mut objects, &mut findings);
    let objects = without_collisions(objects, &mut findings);
    Rendered { objects, findings }
}

/// Every object before the patches.
fn all(architecture: &Architecture, findings: &mut Vec<Finding>) -> Vec<Object> {
    let edges = Edges::of(architecture);
    let gateways = Gateways::of(architecture);
    let mut objects = namespace::objects(architecture);
    objects.extend(network::of_namespaces(architecture));
    objects.extend(quota::objects(architecture));
    objects.extend(access_control::objects(architecture));
    objects.extend(mesh::of_namespaces(architecture));
    objects.extend(priority::objects(architecture, findings));
    objects.extend(exposure::gateways(architecture, &gateways, findings));
    for (name, service) in &architecture.document.services {
        let subject = Subject::service(architecture, name, service);
        objects.extend(workload::objects(architecture, &edges, &subject, name, service, findings));
        objects.extend(scaling::object(architecture, &subject, service, findings));
        objects.extend(exposure::objects(architecture, &gateways, &subject, name, service, findings));
        objects.push(network::of_service(architecture, &edges, &subject, name, service));
        objects.extend(mesh::of_service(architecture, &edges, &subject, name, service));
    }
    for (name, store) in &architecture.document.stores {
        let subject = Subject::store(architecture, name, store);
        objects.extend(network::of_store(architecture, &edges, &subject, name, store));
    }
    objects.extend(stores::objects(architecture));
    objects.extend(secrets::objects(architecture));
    objects.extend(certificates::objects(architecture));
    objects.extend(monitoring::objects(architecture));
    for part in [stores::findings, secrets::findings, monitoring::findings] {
        findings.extend(part(architecture));
    }
    objects.extend(patches::raw(architecture));
    objects
}

/// The objects sorted by path, each once: of two with one path, or with one kind, namespace and name, the first stays
/// and the other is a finding. Objects of the file come after rendered ones.
fn without_collisions(objects: Vec<Object>, findings: &mut Vec<Finding>) -> Vec<Object> {
    let mut names: BTreeMap<[String; 4], String> = BTreeMap::new();
    let mut kept: BTreeMap<String, Object> = BTreeMap::new();
    for object in objects {
        let group = object.api_version().split_once('/').map_or("", |(group, _)| group);
        let parts = [group, object.kind(), object.namespace().unwrap_or_default(), object.name()];
        let (path, origin) = (object.path(), object.origin.clone());
        let name_taken = names.insert(parts.map(str::to_owned), origin);
        match name_taken.or_else(|| kept.get(&path).map(|other| other.origin.clone())) {
            None => drop(kept.insert(path, object)),
            Some(other) => findings.push(
                Finding::error("object", object.span, format!("{} `{}` is there twice", object.kind(), object.name()))
                    .because(format!("one comes from `{other}`, one from `{}`", object.origin))
                    .help("give one of them another name, or change the rendered one by `patches`"),
            ),
        }
    }
    kept.into_values().collect()
}

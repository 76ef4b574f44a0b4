//! The same object in several environments, side by side.
//!
//! Helm and Kustomize say once what environments share. Both need to know which object of one environment is which of
//! another, although namespaces have other names there. A *group* is a namespace under one name for all environments: the
//! name that it has in the environment that the others differ from.

use std::collections::{BTreeMap, BTreeSet};

use crate::object::Object;
use crate::target::Variant;

/// The group of objects that are in no namespace.
pub(crate) const CLUSTER: &str = "cluster";

/// Everything that is in any environment.
pub(crate) struct Layers<'a> {
    /// The environments.
    pub(crate) variants: &'a [Variant],
    /// Which of them the others are told from: the first that serves real users, or the last.
    pub(crate) base: usize,
    /// For each environment, the namespaces of the groups that it has.
    pub(crate) namespaces: Vec<BTreeMap<String, String>>,
    /// The objects, by group and by path in the group.
    pub(crate) objects: Vec<Layered<'a>>,
}

/// One object, as it is in each environment.
pub(crate) struct Layered<'a> {
    /// The group it is in.
    pub(crate) group: String,
    /// Its path below the group's folder, such as `checkout/deployment.yaml`.
    pub(crate) path: String,
    /// One for each environment; `None` where it is not.
    pub(crate) variants: Vec<Option<&'a Object>>,
}

impl<'a> Layered<'a> {
    /// The object as it is in `preferred`, or in the first environment that has it.
    pub(crate) fn model(&self, preferred: usize) -> (usize, &'a Object) {
        let first = self.variants.iter().position(Option::is_some).expect("an object is in some environment");
        let index = if self.variants[preferred].is_some() { preferred } else { first };
        (index, self.variants[index].expect("it is in that environment"))
    }

    /// The environments that have it.
    pub(crate) fn places(&self) -> Vec<usize> {
        (0..self.variants.len()).filter(|index| self.variants[*index].is_some()).collect()
    }
}

/// What makes objects of two environments the same one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    group: String,
    path: String,
    api_version: String,
    kind: String,
    name: String,
}

impl<'a> Layers<'a> {
    /// Lays the environments over each other.
    pub(crate) fn of(variants: &'a [Variant]) -> Self {
        let production = variants.iter().position(|variant| variant.architecture.is_production());
        let base = production.unwrap_or(variants.len() - 1);
        let main = variants[base].architecture.namespace().as_str();
        // What the base does not have is told from the first environment that has it.
        let mut known = parts(&variants[base]);
        let groups: Vec<_> = variants
            .iter()
            .map(|variant| {
                let own = parts(variant);
                let groups = groups(main, &known, variant, &own);
                for (namespace, group) in &groups {
                    if let Some(holds) = own.get(namespace) {
                        known.entry(group.clone()).or_insert_with(|| holds.clone());
                    }
                }
                groups
            })
            .collect();
        let mut paired: BTreeMap<Key, Vec<Option<&Object>>> = BTreeMap::new();
        for (index, variant) in variants.iter().enumerate() {
            for object in &variant.rendered.objects {
                let path = object.path();
                let (namespace, path) = path.split_once('/').expect("an object's path begins with its namespace");
                let group = groups[index].get(namespace).cloned().unwrap_or_else(|| namespace.to_owned());
                let own_name = if object.kind() == "Namespace" { &group } else { object.name() };
                let key = Key {
                    path: path.to_owned(),
                    api_version: object.api_version().to_owned(),
                    kind: object.kind().to_owned(),
                    name: own_name.to_owned(),
                    group,
                };
                paired.entry(key).or_insert_with(|| vec![None; variants.len()])[index] = Some(object);
            }
        }
        let namespaces = groups
            .into_iter()
            .map(|groups| groups.into_iter().filter(|(_, group)| group != CLUSTER).map(|(a, b)| (b, a)).collect())
            .collect();
        Self { variants, base, namespaces, objects: with_paths(paired) }
    }
}

/// One path may lead to different objects in different environments; the second of them gets another path.
fn with_paths(paired: BTreeMap<Key, Vec<Option<&Object>>>) -> Vec<Layered<'_>> {
    let mut taken = BTreeSet::new();
    let mut objects = Vec::new();
    for (key, variants) in paired {
        let stem = key.path.strip_suffix(".yaml").unwrap_or(&key.path).to_owned();
        let numbered = (2..).map(|number| format!("{stem}-{number}.yaml"));
        let path = std::iter::once(key.path.clone())
            .chain(numbered)
            .find(|path| taken.insert((key.group.clone(), path.clone())))
            .expect("there is always another number");
        objects.push(Layered { group: key.group, path, variants });
    }
    objects
}

/// What is in each namespace: the folders of its services and stores.
type Parts = BTreeMap<String, BTreeSet<String>>;

/// The group of each namespace of an environment. No two namespaces of one environment are in one group. `main` is the
/// group of its own namespace; what is known of others is in `wanted`.
fn groups(main: &str, wanted: &Parts, variant: &Variant, own: &Parts) -> BTreeMap<String, String> {
    let mut groups = BTreeMap::from([(CLUSTER.to_owned(), CLUSTER.to_owned())]);
    let mut taken = BTreeSet::from([CLUSTER.to_owned()]);
    let own_main = variant.architecture.namespace().to_string();
    if own.contains_key(&own_main) {
        taken.insert(main.to_owned());
        groups.insert(own_main, main.to_owned());
    }
    // Namespaces of one name are one; then those that hold most of the same services.
    for namespace in own.keys() {
        if !groups.contains_key(namespace) && wanted.contains_key(namespace) && taken.insert(namespace.clone()) {
            groups.insert(namespace.clone(), namespace.clone());
        }
    }
    for (namespace, holds) in own {
        if groups.contains_key(namespace) {
            continue;
        }
        let shared = |other: &BTreeSet<String>| holds.intersection(other).count();
        let best = wanted.iter().filter(|(name, other)| !taken.contains(*name) && shared(other) > 0);
        let best = best.max_by_key(|(_, other)| shared(other)).map(|(name, _)| name.clone());
        let fallback = std::iter::once(namespace.clone()).chain((2..).map(|number| format!("{namespace}-{number}")));
        let group = best.into_iter().chain(fallback).find(|name| !taken.contains(name)).expect("a name is free");
        taken.insert(group.clone());
        groups.insert(namespace.clone(), group);
    }
    groups
}

fn parts(variant: &Variant) -> Parts {
    let mut parts = Parts::new();
    for object in &variant.rendered.objects {
        let path = object.path();
        let namespace = path.split('/').next().unwrap_or_default().to_owned();
        let folders = parts.entry(namespace).or_default();
        if !object.folder.is_empty() {
            folders.insert(object.folder.clone());
        }
    }
    parts
}

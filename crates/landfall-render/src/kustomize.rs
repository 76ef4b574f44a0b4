//! Kustomize: what all environments have stands in a base, what some share in components, and an overlay for each
//! environment says in JSON patches what differs there.
//!
//! Each group (a namespace, or what is of the whole cluster) is a base of its own, because `namespace:` names one
//! namespace for everything that it meets.

use std::collections::{BTreeMap, BTreeSet};

use landfall_model::Sources;
use serde_json::Value;

use crate::json::json;
use crate::layers::{CLUSTER, Layered, Layers};
use crate::object::{FileTree, Object, compact, unless_empty};
use crate::target::Variant;
use crate::yaml;

/// The base, the components and the overlays.
pub(crate) fn tree(variants: &[Variant], sources: &Sources) -> FileTree {
    let layers = Layers::of(variants);
    let mut tree = Tree { layers: &layers, sources, files: FileTree::new(), writer: yaml::Writer::default() };
    let groups: BTreeSet<&str> = layers.objects.iter().map(|object| object.group.as_str()).collect();
    for group in &groups {
        tree.group(group);
    }
    for (index, variant) in variants.iter().enumerate() {
        let has = |group: &&&str| layers.objects.iter().any(|o| o.group == **group && o.variants[index].is_some());
        let resources: Vec<Value> = groups.iter().filter(has).map(|group| json!(*group)).collect();
        tree.kustomization(&format!("overlays/{}", variant.name), "Kustomization", json!({ "resources": resources }));
    }
    tree.files
}

struct Tree<'a> {
    layers: &'a Layers<'a>,
    sources: &'a Sources,
    files: FileTree,
    writer: yaml::Writer,
}

impl Tree<'_> {
    /// One group: its base, its components, and its part of each overlay.
    fn group(&mut self, group: &str) {
        let layers = self.layers;
        let count = layers.variants.len();
        let mut of: BTreeMap<Vec<usize>, Vec<&Layered<'_>>> = BTreeMap::new();
        for object in layers.objects.iter().filter(|object| object.group == group) {
            of.entry(object.places()).or_default().push(object);
        }
        let mut names = BTreeSet::new();
        let mut components = Vec::new();
        for (places, objects) in &of {
            let folder = if places.len() == count {
                format!("base/{group}")
            } else if places.len() > 1 {
                let name = component_name(objects, places, layers.variants, &mut names);
                components.push((places.clone(), format!("{group}/{name}")));
                format!("components/{group}/{name}")
            } else {
                format!("overlays/{}/{group}", layers.variants[places[0]].name)
            };
            for object in objects {
                let (_, model) = object.model(layers.base);
                let text = self.object(model);
                self.files.insert(format!("{folder}/{}", object.path), text);
            }
            let resources: Vec<Value> = objects.iter().map(|object| json!(object.path.as_str())).collect();
            if places.len() == count {
                self.kustomization(&folder, "Kustomization", json!({ "resources": resources }));
            } else if places.len() > 1 {
                self.kustomization(&folder, "Component", json!({ "resources": resources }));
            }
        }
        for index in 0..count {
            let objects = || of.iter().filter(|(places, _)| places.contains(&index)).flat_map(|(_, objects)| objects);
            if objects().next().is_none() {
                continue;
            }
            let folder = format!("overlays/{}/{group}", layers.variants[index].name);
            let namespace = layers.namespaces[index].get(group).filter(|_| group != CLUSTER);
            let renamed = namespace.filter(|namespace| {
                objects().any(|object| namespace_of(object.model(layers.base).1) != Some(namespace.as_str()))
            });
            let mut resources = Vec::new();
            if of.contains_key(&(0..count).collect::<Vec<_>>()) {
                resources.push(json!(format!("../../../base/{group}")));
            }
            let only_here = of.get(&vec![index]).filter(|_| count > 1).into_iter().flatten();
            resources.extend(only_here.map(|object| json!(object.path.as_str())));
            let shared = components.iter().filter(|(places, _)| places.contains(&index));
            let shared = shared.map(|(_, name)| json!(format!("../../../components/{name}"))).collect();
            let patches = objects().filter_map(|object| self.patch(&folder, object, index)).collect();
            self.kustomization(
                &folder,
                "Kustomization",
                json!({
                    "namespace": renamed,
                    "resources": unless_empty(resources),
                    "components": unless_empty(shared),
                    "patches": unless_empty(patches),
                }),
            );
        }
    }

    /// What makes of an object the one of an environment, written beside the overlay; `None` when nothing does.
    fn patch(&mut self, folder: &str, object: &Layered<'_>, index: usize) -> Option<Value> {
        let (from, model) = object.model(self.layers.base);
        let here = object.variants[index]?;
        if from == index {
            return None;
        }
        let mut before = model.value.clone();
        // `namespace:` of the overlay has its say after the patches.
        if object.group != CLUSTER {
            let field = if model.kind() == "Namespace" { "name" } else { "namespace" };
            before["metadata"][field] = here.value["metadata"][field].clone();
        }
        let operations = json_patch::diff(&before, &here.value);
        if operations.is_empty() {
            return None;
        }
        let operations = serde_json::to_value(&operations).expect("a patch is plain data");
        let path = format!("patches/{}", object.path);
        let text = self.writer.write(&operations);
        self.files.insert(format!("{folder}/{path}"), text);
        let (group, version) = model.api_version().split_once('/').unwrap_or(("", model.api_version()));
        let target = json!({
            "group": (!group.is_empty()).then_some(group),
            "version": version,
            "kind": model.kind(),
            // A regular expression, to Kustomize.
            "name": model.name().replace('.', "\\."),
        });
        Some(json!({ "path": path, "target": compact(target) }))
    }

    fn object(&mut self, object: &Object) -> String {
        object.file_text(self.sources, &mut self.writer)
    }

    fn kustomization(&mut self, folder: &str, kind: &str, fields: Value) {
        let version = if kind == "Component" { "v1alpha1" } else { "v1beta1" };
        let mut value = json!({ "apiVersion": format!("kustomize.config.k8s.io/{version}"), "kind": kind });
        if let (Value::Object(value), Value::Object(fields)) = (&mut value, compact(fields)) {
            value.extend(fields);
        }
        let text = self.writer.write(&value);
        self.files.insert(format!("{folder}/kustomization.yaml"), text);
    }
}

fn namespace_of(object: &Object) -> Option<&str> {
    if object.kind() == "Namespace" { Some(object.name()) } else { object.namespace() }
}

/// A name for what some environments share: what it is when it is all of a kind, otherwise who has it.
fn component_name(
    objects: &[&Layered<'_>],
    places: &[usize],
    variants: &[Variant],
    taken: &mut BTreeSet<String>,
) -> String {
    let file = |object: &&Layered<'_>| object.path.rsplit('/').next().unwrap_or_default().replace(".yaml", "");
    let files: BTreeSet<String> = objects.iter().map(file).collect();
    let who: Vec<&str> = places.iter().map(|index| variants[*index].name.as_str()).collect();
    let who = who.join("-and-");
    let what = if files.len() == 1 { files.into_iter().next().unwrap_or_default() } else { format!("only-{who}") };
    let names = [what.clone(), format!("{what}-of-{who}")].into_iter();
    let name =
        names.chain((2..u32::MAX).map(|number| format!("{what}-{number}"))).find(|name| taken.insert(name.clone()));
    name.expect("there is always another number")
}

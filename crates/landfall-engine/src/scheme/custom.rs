//! Kinds that a `CustomResourceDefinition` adds: types from its schema, pruning and defaults.
//!
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/>

use std::cmp::Reverse;
use std::sync::Arc;

use serde_json::{Value, json};

use super::types::{Field, ListKind, Shape, Table, Type, Types};
use super::{Resource, ScalePaths, Subresource};

/// One resource for each served version of a definition.
pub(super) fn resources(definition: &Value) -> Vec<Resource> {
    let Some(spec) = definition.get("spec") else { return Vec::new() };
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let texts = |value: Option<&Value>| {
        let list = value.and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let (group, names) = (text(spec, "group"), &spec["names"]);
    let versions = || spec.get("versions").and_then(Value::as_array).into_iter().flatten();
    let storage = versions().find(|version| version["storage"] == json!(true)).map(|version| text(version, "name"));
    let resource = |version: &Value| {
        let (kind, plural) = (text(names, "kind"), text(names, "plural"));
        let schema = version.pointer("/schema/openAPIV3Schema").cloned();
        let (types, root) = types_of(schema.as_ref(), &group, &text(version, "name"), &kind);
        Resource {
            collection: format!("{plural}.{group}"),
            storage: (group.clone(), storage.clone().unwrap_or_default()),
            group: group.clone(),
            version: text(version, "name"),
            list_kind: match text(names, "listKind") {
                name if name.is_empty() => format!("{kind}List"),
                name => name,
            },
            singular: match text(names, "singular") {
                name if name.is_empty() => kind.to_lowercase(),
                name => name,
            },
            short_names: texts(names.get("shortNames")),
            categories: texts(names.get("categories")),
            namespaced: text(spec, "scope") == "Namespaced",
            verbs: ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]
                .map(ToOwned::to_owned)
                .to_vec(),
            subresources: subresources(version, &group, &kind),
            custom: true,
            printer_columns: version
                .get("additionalPrinterColumns")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
            selectable_fields: version
                .get("selectableFields")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .map(|field| text(field, "jsonPath").trim_start_matches('.').to_owned())
                .collect(),
            deprecation: deprecation(spec, version),
            schema,
            types: Arc::new(types),
            root,
            kind,
            plural,
        }
    };
    versions().filter(|version| version["served"] == json!(true)).map(resource).collect()
}

/// What is said of a deprecated version: its own words, or which version to use.
fn deprecation(spec: &Value, version: &Value) -> Option<String> {
    if version["deprecated"] != json!(true) {
        return None;
    }
    if let Some(warning) = version["deprecationWarning"].as_str() {
        return Some(warning.to_owned());
    }
    let (group, kind) = (spec["group"].as_str()?, spec["names"]["kind"].as_str()?);
    let name = version["name"].as_str()?;
    let fit = |other: &&Value| other["served"] == json!(true) && other["deprecated"] != json!(true);
    let better = spec["versions"].as_array()?.iter().filter(fit).filter_map(|other| other["name"].as_str());
    let best =
        better.filter(|other| version_order(other) < version_order(name)).min_by_key(|other| version_order(other));
    let advice = best.map(|best| format!("; use {group}/{best} {kind}")).unwrap_or_default();
    Some(format!("{group}/{name} {kind} is deprecated{advice}"))
}

fn subresources(version: &Value, group: &str, kind: &str) -> Vec<Subresource> {
    let verbs = || ["get", "patch", "update"].map(ToOwned::to_owned).to_vec();
    let mut found = Vec::new();
    if version.pointer("/subresources/status").is_some() {
        found.push(Subresource {
            name: "status".to_owned(),
            verbs: verbs(),
            group: group.to_owned(),
            version: version["name"].as_str().unwrap_or_default().to_owned(),
            kind: kind.to_owned(),
            scale: None,
        });
    }
    if let Some(scale) = version.pointer("/subresources/scale") {
        let path = |name: &str| {
            let text = scale.get(name).and_then(Value::as_str)?;
            Some(text.trim_start_matches('.').split('.').map(ToOwned::to_owned).collect::<Vec<_>>())
        };
        found.push(Subresource {
            name: "scale".to_owned(),
            verbs: verbs(),
            group: "autoscaling".to_owned(),
            version: "v1".to_owned(),
            kind: "Scale".to_owned(),
            scale: Some(ScalePaths {
                spec_replicas: path("specReplicasPath").unwrap_or_default(),
                status_replicas: path("statusReplicasPath").unwrap_or_default(),
                selector: path("labelSelectorPath"),
            }),
        });
    }
    found
}

/// Sorts versions as Kubernetes does: stable before beta before alpha, newer first, others last by name.
pub(super) fn version_order(version: &str) -> (u8, Reverse<u32>, Reverse<u32>, String) {
    let parsed = || {
        let rest = version.strip_prefix('v')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (major, rest) = rest.split_at(end);
        let major = major.parse::<u32>().ok()?;
        let (stage, minor) = if rest.is_empty() {
            (0, 0)
        } else if let Some(minor) = rest.strip_prefix("beta") {
            (1, minor.parse().ok()?)
        } else {
            (2, rest.strip_prefix("alpha")?.parse().ok()?)
        };
        Some((stage, Reverse(major), Reverse(minor), String::new()))
    };
    parsed().unwrap_or((3, Reverse(0), Reverse(0), version.to_owned()))
}

/// The types of a schema; the metadata of objects is the built-in one.
fn types_of(schema: Option<&Value>, group: &str, version: &str, kind: &str) -> (Types, usize) {
    let mut types = Types::default();
    let metadata = metadata_type(&mut types);
    let reversed = group.rsplit('.').collect::<Vec<_>>().join(".");
    let name = format!("{reversed}.{version}.{kind}");
    let root = schema.map(|schema| build(&mut types, schema, metadata, &name));
    let root = if let Some(Shape::Struct(index)) = root {
        index
    } else {
        types.list.push(Type { preserve: true, ..Type::new(name.clone(), Vec::new()) });
        types.list.len() - 1
    };
    embed(&mut types, root, metadata);
    (types, root)
}

/// Gives a type the fields that every object has.
fn embed(types: &mut Types, index: usize, metadata: usize) {
    let of = types.list[index].clone();
    let own = of.fields.iter().filter(|field| !matches!(field.name.as_str(), "apiVersion" | "kind" | "metadata"));
    let mut fields = vec![
        Field::plain("apiVersion", Shape::String),
        Field::plain("kind", Shape::String),
        Field::plain("metadata", Shape::Struct(metadata)),
    ];
    fields.extend(own.cloned());
    types.list[index] = Type { atomic: of.atomic, preserve: of.preserve, ..Type::new(of.name, fields) };
}

/// Copies `ObjectMeta` and what it needs from the built-in types.
fn metadata_type(types: &mut Types) -> usize {
    let builtin = &Table::get().types;
    let prefix = "io.k8s.apimachinery.pkg.apis.meta.v1.";
    let names = ["ManagedFieldsEntry", "OwnerReference", "ObjectMeta"];
    let old: Vec<_> = names.iter().map(|name| builtin.index_of(&format!("{prefix}{name}"))).collect();
    for index in &old {
        let mut copy = builtin.get(index.expect("the metadata of objects is built in")).clone();
        for field in &mut copy.fields {
            if let Shape::List(item) = &mut field.shape
                && let Shape::Struct(index) = &mut **item
            {
                *index = old.iter().position(|one| *one == Some(*index)).expect("metadata refers to these types only");
            }
        }
        types.list.push(copy);
    }
    names.len() - 1
}

fn build(types: &mut Types, schema: &Value, metadata: usize, name: &str) -> Shape {
    let is = |name: &str| schema.get(name) == Some(&json!(true));
    if is("x-kubernetes-int-or-string") {
        return Shape::IntOrString;
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("array") => {
            let item = schema.get("items").map_or(Shape::Json, |items| build(types, items, metadata, name));
            Shape::List(Box::new(item))
        }
        Some("object") if schema.get("properties").is_none() && schema["additionalProperties"].is_object() => {
            Shape::Map(Box::new(build(types, &schema["additionalProperties"], metadata, name)))
        }
        Some("object") => {
            let index = types.list.len();
            types.list.push(Type::new(name.to_owned(), Vec::new()));
            let required: Vec<_> =
                schema.get("required").and_then(Value::as_array).into_iter().flatten().cloned().collect();
            let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
            let fields = properties.map(|(field, inner)| {
                let shape = build(types, inner, metadata, &format!("{name}.{field}"));
                Field { required: required.contains(&json!(field)), ..field_of(field, shape, inner) }
            });
            let fields = fields.collect();
            types.list[index] = Type {
                atomic: schema.get("x-kubernetes-map-type") == Some(&json!("atomic")),
                preserve: is("x-kubernetes-preserve-unknown-fields") || schema["additionalProperties"] == json!(true),
                ..Type::new(name.to_owned(), fields)
            };
            if is("x-kubernetes-embedded-resource") {
                embed(types, index, metadata);
            }
            Shape::Struct(index)
        }
        Some("string") => Shape::String,
        Some("boolean") => Shape::Boolean,
        Some("integer") => Shape::Int64,
        Some("number") => Shape::Number,
        _ => Shape::Json,
    }
}

fn field_of(name: &str, shape: Shape, schema: &Value) -> Field {
    let text = |name: &str| schema.get(name).and_then(Value::as_str);
    let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
    Field {
        list: match text("x-kubernetes-list-type") {
            Some("map") => ListKind::Map,
            Some("set") => ListKind::Set,
            _ => ListKind::Atomic,
        },
        keys: keys.filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
        atomic: text("x-kubernetes-map-type") == Some("atomic"),
        default: schema.get("default").cloned(),
        choices: schema.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        nullable: schema.get("nullable") == Some(&json!(true)),
        preserve: schema.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true)),
        ..Field::plain(name, shape)
    }
}

/// Removes what the schema does not know, and brings the metadata into its canonical form.
pub(super) fn prune(resource: &Resource, object: &mut Value) {
    prune_in(&resource.types, &Shape::Struct(resource.root), object, false);
    let metadata = resource.root().field("metadata").map(|field| field.shape.clone());
    if let (Some(shape), Some(metadata)) = (metadata, object.get_mut("metadata")) {
        super::decode::normalize_in(&resource.types, &shape, metadata);
    }
}

fn prune_in(types: &Types, shape: &Shape, value: &mut Value, preserve: bool) {
    match (shape, value) {
        (Shape::Struct(index), Value::Object(object)) => {
            let of = types.get(*index);
            object.retain(|name, _| of.preserve || preserve || of.field(name).is_some());
            for (name, value) in object.iter_mut() {
                if let Some(field) = of.field(name) {
                    prune_in(types, &field.shape, value, field.preserve);
                }
            }
        }
        (Shape::List(item), Value::Array(list)) => {
            for value in list {
                prune_in(types, item, value, preserve);
            }
        }
        (Shape::Map(item), Value::Object(map)) => {
            for value in map.values_mut() {
                prune_in(types, item, value, preserve);
            }
        }
        _ => {}
    }
}

/// Fills in the defaults of the schema. A null where none is allowed counts as absent when there is a default.
pub(super) fn default(resource: &Resource, object: &mut Value) {
    default_in(&resource.types, &Shape::Struct(resource.root), object);
}

fn default_in(types: &Types, shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Struct(index), Value::Object(object)) => {
            for field in &types.get(*index).fields {
                if let Some(default) = &field.default {
                    let absent = object.get(&field.name).is_none_or(|value| value.is_null() && !field.nullable);
                    if absent {
                        object.insert(field.name.clone(), default.clone());
                    }
                }
                if let Some(value) = object.get_mut(&field.name) {
                    default_in(types, &field.shape, value);
                }
            }
        }
        (Shape::List(item), Value::Array(list)) => list.iter_mut().for_each(|value| default_in(types, item, value)),
        (Shape::Map(item), Value::Object(map)) => map.values_mut().for_each(|value| default_in(types, item, value)),
        _ => {}
    }
}

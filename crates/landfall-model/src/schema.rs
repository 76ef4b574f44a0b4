//! The JSON Schema of the language, for editors.

use serde_json::{Value, json};

use crate::document::Document;

/// The sections of an environment that override the file's, and the schema of each.
const OVERRIDES: [(&str, &str); 8] = [
    ("objectives", "Objectives"),
    ("platform", "Platform"),
    ("services", "Service"),
    ("stores", "Store"),
    ("externals", "External"),
    ("flows", "Flow"),
    ("observability", "Observability"),
    ("security", "Security"),
];

/// The JSON Schema (draft 2020-12) of `landfall.yaml`.
pub fn json_schema() -> Value {
    let schema = schemars::schema_for!(Document);
    let mut schema = schema.to_value();
    schema["$id"] = json!("https://landfall.dev/schema/v1.json");
    schema["title"] = json!("landfall.yaml");
    let Some(definitions) = schema["$defs"].as_object().cloned() else { return schema };
    let mut completed = serde_json::Map::new();
    for (name, definition) in &definitions {
        completed.insert(name.clone(), with_short_form(definition.clone()));
        completed.insert(format!("{name}Override"), with_short_form(overriding(definition.clone())));
    }
    for (section, name) in OVERRIDES {
        let reference = json!({ "$ref": format!("#/$defs/{name}Override") });
        let is_map = matches!(section, "services" | "stores" | "externals" | "flows");
        let property = &mut completed["Environment"]["properties"][section];
        let description = property["description"].take();
        *property = if is_map {
            json!({ "description": description, "type": "object", "additionalProperties": { "anyOf": [reference, { "type": "null" }] } })
        } else {
            json!({ "description": description, "anyOf": [reference, { "type": "null" }] })
        };
    }
    completed.sort_keys();
    schema["$defs"] = Value::Object(completed);
    keep_reachable(&mut schema);
    schema
}

/// A struct that may be written short takes the value of its first field too.
fn with_short_form(mut definition: Value) -> Value {
    let Some(field) = definition.as_object_mut().and_then(|object| object.remove("x-short")) else { return definition };
    let field = field.as_str().unwrap_or_default().to_owned();
    let mut short = definition["properties"][&field].clone();
    if let Some(short) = short.as_object_mut() {
        short.insert("description".to_owned(), json!(format!("Short for `{{ {field}: … }}`.")));
    }
    let description = definition["description"].clone();
    json!({ "description": description, "anyOf": [short, definition] })
}

/// In an override nothing is required, and `~` removes any key.
fn overriding(mut definition: Value) -> Value {
    if let Some(object) = definition.as_object_mut() {
        object.remove("required");
    }
    nullable_below(&mut definition);
    point_to_overrides(&mut definition);
    definition
}

/// Lets every key of every mapping be `~`; the items of a list are no keys.
fn nullable_below(value: &mut Value) {
    let Some(object) = value.as_object_mut() else { return };
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(|property| {
            nullable_below(property);
            nullable(property);
        });
    }
    if let Some(additional) = object.get_mut("additionalProperties").filter(|schema| schema.is_object()) {
        nullable_below(additional);
        nullable(additional);
    }
    for alternatives in ["anyOf", "oneOf", "allOf"] {
        if let Some(Value::Array(options)) = object.get_mut(alternatives) {
            options.iter_mut().for_each(nullable_below);
        }
    }
}

fn nullable(schema: &mut Value) {
    let nothing = json!({ "type": "null" });
    let Some(object) = schema.as_object_mut() else { return };
    match object.get_mut("type") {
        Some(Value::String(kind)) if kind == "null" => return,
        Some(Value::Array(kinds)) if kinds.iter().any(|kind| kind == "null") => return,
        _ => {}
    }
    match object.get_mut("anyOf") {
        Some(Value::Array(options)) if options.contains(&nothing) => {}
        Some(Value::Array(options)) => options.push(nothing),
        _ => {
            let description = object.remove("description");
            let own = std::mem::take(object);
            if let Some(description) = description {
                object.insert("description".to_owned(), description);
            }
            object.insert("anyOf".to_owned(), json!([own, nothing]));
        }
    }
}

fn point_to_overrides(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get_mut("$ref") {
                *reference = format!("{reference}Override");
            }
            object.values_mut().for_each(point_to_overrides);
        }
        Value::Array(items) => items.iter_mut().for_each(point_to_overrides),
        _ => {}
    }
}

/// Removes the definitions that nothing refers to.
fn keep_reachable(schema: &mut Value) {
    let mut reachable = std::collections::BTreeSet::new();
    let mut open = Vec::new();
    let mut root = schema.clone();
    if let Some(root) = root.as_object_mut() {
        root.remove("$defs");
    }
    references(&root, &mut open);
    while let Some(name) = open.pop() {
        if reachable.insert(name.clone()) {
            references(&schema["$defs"][&name], &mut open);
        }
    }
    if let Some(definitions) = schema["$defs"].as_object_mut() {
        definitions.retain(|name, _| reachable.contains(name));
    }
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            if let Some(name) = object.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/")) {
                found.push(name.to_owned());
            }
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

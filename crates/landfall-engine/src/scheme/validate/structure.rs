//! Rules that the types themselves state: choices of a field.

use serde_json::Value;

use super::Findings;
use crate::scheme::Resource;
use crate::scheme::types::{Shape, Types};

/// Each value that is none of the choices of its field, unless a rule of the kind has said so already.
pub(super) fn check(resource: &Resource, object: &Value, findings: &mut Findings) {
    walk(&resource.types, &Shape::Struct(resource.root), object, "", findings);
}

fn walk(types: &Types, shape: &Shape, value: &Value, path: &str, findings: &mut Findings) {
    match (shape, value) {
        (Shape::Struct(index), Value::Object(object)) => {
            for (name, value) in object {
                let Some(field) = types.get(*index).field(name) else { continue };
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                if path == "status" {
                    continue;
                }
                let choices: Vec<_> = field.choices.iter().filter_map(Value::as_str).collect();
                if !choices.is_empty() {
                    for (value, path) in scalars(value, &path) {
                        let known = value.as_str().is_some_and(|text| choices.contains(&text));
                        let told = findings.causes.iter().any(|cause| path.starts_with(&cause.field));
                        if !known && !told && value.as_str() != Some("") {
                            findings.not_supported(&path, value, &choices);
                        }
                    }
                }
                walk(types, &field.shape, value, &path, findings);
            }
        }
        (Shape::List(item), Value::Array(list)) => {
            for (index, value) in list.iter().enumerate() {
                walk(types, item, value, &format!("{path}[{index}]"), findings);
            }
        }
        (Shape::Map(item), Value::Object(map)) => {
            for (name, value) in map {
                walk(types, item, value, &format!("{path}[{name}]"), findings);
            }
        }
        _ => {}
    }
}

fn scalars<'a>(value: &'a Value, path: &str) -> Vec<(&'a Value, String)> {
    match value {
        Value::Array(list) => {
            list.iter().enumerate().map(|(index, value)| (value, format!("{path}[{index}]"))).collect()
        }
        Value::String(_) => vec![(value, path.to_owned())],
        _ => Vec::new(),
    }
}

//! What keeps an applied configuration from being read as an object of its kind.

use std::collections::BTreeSet;

use serde_json::Value;

use super::fields::{item_of, key_of};
use crate::scheme::Resource;
use crate::scheme::types::{Field, ListKind, Shape, Types};

/// Fields that the kind does not have, values of other types and keys that stand twice, in Kubernetes' words.
/// `None`: the configuration is one of this kind.
pub(crate) fn untyped(resource: &Resource, applied: &Value) -> Option<String> {
    let mut found = Vec::new();
    walk(&resource.types, &Shape::Struct(resource.root), None, applied, "", &mut found);
    match &found[..] {
        [] => None,
        [one] => Some(one.clone()),
        _ => Some(format!("errors:\n  {}", found.join("\n  "))),
    }
}

fn walk(types: &Types, shape: &Shape, field: Option<&Field>, value: &Value, path: &str, found: &mut Vec<String>) {
    let mut wrong = |expected: &str| found.push(format!("{path}: expected {expected}, got {}", go_text(value)));
    match (shape, value) {
        (_, Value::Null) => {}
        (Shape::Struct(index), Value::Object(object)) => {
            let of = types.get(*index);
            for (name, value) in object {
                match of.field(name) {
                    Some(field) => walk(types, &field.shape, Some(field), value, &format!("{path}.{name}"), found),
                    None if of.preserve || field.is_some_and(|field| field.preserve) => {}
                    None => found.push(format!("{path}.{name}: field not declared in schema")),
                }
            }
        }
        (Shape::Map(item), Value::Object(object)) => {
            for (name, value) in object {
                walk(types, item, None, value, &format!("{path}.{name}"), found);
            }
        }
        (Shape::List(item), Value::Array(list)) => {
            let mut seen = BTreeSet::new();
            for (index, value) in list.iter().enumerate() {
                let step = match field {
                    Some(field) if field.list == ListKind::Map => Some(key_of(types, field, item, value)),
                    Some(field) if field.list == ListKind::Set => Some(item_of(value)),
                    _ => None,
                };
                let text = step.as_ref().map_or_else(|| format!("[{index}]"), super::fields::Step::text);
                if step.is_some_and(|step| !seen.insert(step)) {
                    found.push(format!("{path}: duplicate entries for key {text}"));
                }
                walk(types, item, None, value, &format!("{path}{text}"), found);
            }
        }
        (Shape::Struct(_) | Shape::Map(_), _) => wrong("map"),
        (Shape::List(_), _) => wrong("list"),
        (Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime | Shape::Duration, value) => {
            if !value.is_string() {
                wrong("string");
            }
        }
        (Shape::Boolean, value) => {
            if !value.is_boolean() {
                wrong("boolean");
            }
        }
        (Shape::Int32 | Shape::Int64 | Shape::Number, value) => {
            if !value.is_number() {
                found.push(format!("{path}: expected numeric (int or float), got {}", go_type(value)));
            }
        }
        (Shape::Quantity | Shape::IntOrString, Value::Array(_) | Value::Object(_)) => wrong("any scalar"),
        (Shape::Quantity | Shape::IntOrString | Shape::Raw | Shape::FieldSet | Shape::Json, _) => {}
    }
}

/// A value as Go prints it inside its wrapper.
fn go_text(value: &Value) -> String {
    format!("&{{{}}}", go_value(value))
}

fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(object) => {
            let mut parts: Vec<_> = object.iter().map(|(key, value)| format!("{key}:{}", go_value(value))).collect();
            parts.sort();
            format!("map[{}]", parts.join(" "))
        }
        other => other.to_string(),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scheme::Scheme;

    fn check(applied: &Value, expected: &str) {
        let service = Scheme::builtin();
        let service = service.resource("", "v1", "services").expect("it is served");
        assert_eq!(untyped(service, applied).unwrap_or_default(), expected);
    }

    #[test]
    fn a_configuration_of_its_kind_is_typed() {
        check(&json!({"spec": {"ports": [{"port": 80}, {"port": 80, "protocol": "UDP"}], "selector": {"a": "b"}}}), "");
    }

    #[test]
    fn everything_that_does_not_fit_is_named_by_its_path() {
        check(&json!({"spec": {"prots": []}}), ".spec.prots: field not declared in schema");
        check(&json!({"spec": {"selector": ["a"]}}), ".spec.selector: expected map, got &{[a]}");
        check(
            &json!({"spec": {"ports": [{"port": 80, "protocol": "TCP"}, {"port": 80}], "x": 1}}),
            "errors:\n  .spec.ports: duplicate entries for key [port=80,protocol=\"TCP\"]\n  .spec.x: field not declared in \
             schema",
        );
    }
}

//! The rules of a schema in the expression language, when an object is written.
//!
//! Not handled: `messageExpression`, `reason` and `optionalOldSelf`.

use std::collections::HashMap;

use serde_json::Value;

use super::super::{Fields as _, Findings};
use super::schema::escaped;
use crate::scheme::expression;

/// Whether a schema has rules anywhere.
pub(super) fn exist(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => {
            fields.get("x-kubernetes-validations").is_some_and(|rules| !rules.as_array().is_none_or(Vec::is_empty))
                || fields.values().any(exist)
        }
        Value::Array(list) => list.iter().any(exist),
        _ => false,
    }
}

/// The rules in the expression language, from the leaves up. Rules that speak of the old value hold on creation.
pub(super) fn check(schema: &Value, value: &Value, old: Option<&Value>, path: &str, findings: &mut Findings) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let declared = schema.at("properties").get(name);
                let inner = declared.unwrap_or(schema.at("additionalProperties"));
                if inner.is_object() {
                    let path = match declared {
                        None => format!("{path}[{name}]"),
                        Some(_) if path.is_empty() => name.clone(),
                        Some(_) => format!("{path}.{name}"),
                    };
                    check(inner, value, old.and_then(|old| old.get(name)), &path, findings);
                }
            }
        }
        Value::Array(list) => {
            let before = old.and_then(Value::as_array);
            for (index, value) in list.iter().enumerate() {
                let old = before.and_then(|before| counterpart(schema, before, value));
                check(schema.at("items"), value, old, &format!("{path}[{index}]"), findings);
            }
        }
        _ => {}
    }
    for rule in schema.items("x-kubernetes-validations") {
        let expression = rule.text("rule");
        if old.is_none() && expression.contains("oldSelf") {
            continue;
        }
        // What is large is not repeated.
        let mut failed = |field: &str, detail: &str| match value {
            Value::Object(_) | Value::Array(_) => findings.invalid_as_whole(field, detail),
            scalar => findings.invalid(field, scalar, detail),
        };
        match holds(schema, expression, value, old) {
            Ok(true) => {}
            Ok(false) => {
                let message = match rule.text("message") {
                    "" => format!("failed rule: {}", expression.trim()),
                    message => message.to_owned(),
                };
                let field = match rule.text("fieldPath") {
                    "" => path.to_owned(),
                    inner => format!("{path}{inner}"),
                };
                failed(field.trim_start_matches('.'), &message);
            }
            Err(error) => {
                failed(path, &format!("rule evaluation error: {error}"));
            }
        }
    }
}

/// The item that an item of a list was before: in a list that is a map, that with the same keys.
fn counterpart<'a>(schema: &Value, before: &'a [Value], item: &Value) -> Option<&'a Value> {
    let keys = schema.items("x-kubernetes-list-map-keys");
    if schema.text("x-kubernetes-list-type") != "map" || keys.is_empty() {
        return None;
    }
    before.iter().find(|old| keys.iter().filter_map(Value::as_str).all(|key| old.at(key) == item.at(key)))
}

fn holds(schema: &Value, rule: &str, value: &Value, old: Option<&Value>) -> Result<bool, String> {
    let mut context = expression::context();
    context.add_variable_from_value("self", typed(schema, value));
    if let Some(old) = old {
        context.add_variable_from_value("oldSelf", typed(schema, old));
    }
    match expression::evaluate(rule, &context)? {
        cel::Value::Bool(holds) => Ok(holds),
        _ => Err("the rule is no condition".to_owned()),
    }
}

/// A value as its schema types it: numbers and times are of the types by which the rules were checked, and properties
/// have the names by which expressions call them.
fn typed(schema: &Value, value: &Value) -> cel::Value {
    match value {
        Value::Array(list) => list.iter().map(|item| typed(schema.at("items"), item)).collect::<Vec<_>>().into(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| match schema.at("properties").get(name) {
                Some(inner) => (escaped(name), typed(inner, value)),
                None => (name.clone(), typed(schema.at("additionalProperties"), value)),
            });
            fields.collect::<HashMap<_, _>>().into()
        }
        Value::Number(number) if schema.text("type") == "number" => number.as_f64().unwrap_or(f64::NAN).into(),
        Value::String(text) if schema.text("type") == "string" => of_format(schema.text("format"), text),
        _ => expression::from_json(value),
    }
}

/// A text, or the time or the bytes that it stands for by its format.
fn of_format(format: &str, text: &str) -> cel::Value {
    let special = match format {
        "date" => expression::read("timestamp", &format!("{text}T00:00:00Z")),
        "date-time" => expression::read("timestamp", text),
        "duration" => expression::read("duration", text),
        _ => return text.into(),
    };
    special.unwrap_or_else(|_| text.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(schema: &Value, old: &Value, new: &Value) -> Vec<String> {
        let mut findings = Findings::default();
        check(schema, new, Some(old), "", &mut findings);
        findings.causes.into_iter().map(|cause| cause.field).collect()
    }

    fn never_less() -> Value {
        json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]})
    }

    #[test]
    fn items_of_a_list_that_is_a_map_are_what_they_were_by_their_keys() {
        let item = json!({"type": "object", "properties": {"name": {"type": "string"}, "size": never_less()}});
        let schema = json!({"type": "object", "properties": {"disks": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": item,
        }}});
        let old = json!({"disks": [{"name": "a", "size": 1}, {"name": "b", "size": 5}]});
        let new = json!({"disks": [{"name": "b", "size": 4}, {"name": "c", "size": 1}, {"name": "a", "size": 2}]});
        assert_eq!(told(&schema, &old, &new), ["disks[0].size"]);
    }

    #[test]
    fn values_of_a_map_are_what_they_were_by_their_names() {
        let sizes = json!({"type": "object", "additionalProperties": never_less()});
        let schema = json!({"type": "object", "properties": {"sizes": sizes}});
        let (old, new) = (json!({"sizes": {"a": 1, "b": 5}}), json!({"sizes": {"a": 2, "b": 4, "c": 0}}));
        assert_eq!(told(&schema, &old, &new), ["sizes[b]"]);
    }

    #[test]
    fn a_rule_sees_the_types_of_its_schema() {
        let rule = |text: &str| json!([{"rule": text}]);
        let schema = json!({"type": "object", "properties": {
            "share": {"type": "number", "x-kubernetes-validations": rule("self * 2.0 == 2.0")},
            "count": {"type": "integer", "x-kubernetes-validations": rule("self + 1 == 2")},
            "since": {"type": "string", "format": "date", "x-kubernetes-validations": rule("self.getFullYear() == 2026")},
            "of-it": {"type": "string"},
        }, "x-kubernetes-validations": rule("self.of__dash__it == 'a'")});
        let value = json!({"share": 1, "count": 1, "since": "2026-01-01", "of-it": "a"});
        assert!(told(&schema, &value, &value).is_empty());
    }
}

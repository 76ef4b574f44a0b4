//! Custom resources against their schema, and definitions themselves.

mod definition;
mod rules;
mod schema;

use serde_json::{Value, json};

pub(super) use self::definition::check as check_definition;
use super::{Cause, Fields as _, Findings, Reason, format};
use crate::scheme::{Part, Resource, ScalePaths};

pub(super) fn check(resource: &Resource, new: &Value, old: Option<&Value>, part: Part, findings: &mut Findings) {
    let Some(schema) = &resource.schema else { return };
    // The part that a request cannot change is not looked at.
    let hidden = match part {
        Part::Status => "spec",
        Part::Main | Part::Other if resource.has_status() => "status",
        Part::Main | Part::Other => "",
    };
    let empty = serde_json::Map::new();
    let object = new.as_object().unwrap_or(&empty);
    for name in schema.items("required").iter().filter_map(Value::as_str) {
        if !object.contains_key(name) {
            findings.required(name, "");
        }
    }
    for (name, inner) in schema.at("properties").as_object().into_iter().flatten() {
        if matches!(name.as_str(), "apiVersion" | "kind" | "metadata") || name == hidden {
            continue;
        }
        if let Some(value) = object.get(name) {
            check_value(inner, value, name, findings);
        }
    }
    if let Some(paths) = resource.subresource("scale").and_then(|scale| scale.scale.as_ref()) {
        scale(paths, new, findings);
    }
    if !rules::exist(schema) {
        return;
    }
    // Rules are not asked about values that their expressions cannot read.
    let blocks = |cause: &Cause| !matches!(cause.reason, Reason::Invalid | Reason::Forbidden | Reason::Duplicate);
    if findings.causes.iter().any(blocks) {
        let detail = "some validation rules were not checked because the object was invalid; correct the existing \
                      errors to complete validation";
        findings.invalid("<nil>", &Value::Null, detail);
    } else {
        rules::check(schema, new, old, "", findings);
    }
}

/// The fields that the subresource `scale` reads.
fn scale(paths: &ScalePaths, object: &Value, findings: &mut Findings) {
    for path in [&paths.spec_replicas, &paths.status_replicas] {
        let field = format!(".{}", path.join("."));
        match reached(object, path, "int64", Value::is_i64) {
            Err(why) => findings.invalid(&field, &json!(0), &why),
            Ok(count) => {
                let count = count.and_then(Value::as_i64).unwrap_or(0);
                if count < 0 {
                    findings.invalid(&field, &json!(count), "should be a non-negative integer");
                } else if count > i64::from(i32::MAX) {
                    findings.invalid(&field, &json!(count), "should be less than or equal to 2147483647");
                }
            }
        }
    }
    if let Some(path) = &paths.selector
        && let Err(why) = reached(object, path, "string", Value::is_string)
    {
        findings.invalid(&format!(".{}", path.join(".")), &json!(""), &why);
    }
}

/// The value at a path, which must be of a type.
fn reached<'a>(
    object: &'a Value,
    path: &[String],
    wanted: &str,
    fits: fn(&Value) -> bool,
) -> Result<Option<&'a Value>, String> {
    let wrong = |value: &Value, wanted: &str| {
        let found = match value {
            Value::Null => "<nil>",
            Value::Bool(_) => "bool",
            Value::Number(number) if number.is_f64() => "float64",
            Value::Number(_) => "int64",
            Value::String(_) => "string",
            Value::Array(_) => "[]interface {}",
            Value::Object(_) => "map[string]interface {}",
        };
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let path = path.join(".");
        format!(".{path} accessor error: {shown} is of the type {found}, expected {wanted}")
    };
    let mut value = object;
    for step in path {
        let Some(fields) = value.as_object() else { return Err(wrong(value, "map[string]interface{}")) };
        let Some(inner) = fields.get(step) else { return Ok(None) };
        value = inner;
    }
    if fits(value) { Ok(Some(value)) } else { Err(wrong(value, wanted)) }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_value(schema: &Value, value: &Value, path: &str, findings: &mut Findings) {
    if value.is_null() {
        if schema.at("nullable") != &json!(true) && !schema.text("type").is_empty() {
            type_error(schema.text("type"), value, path, findings);
        }
        return;
    }
    if schema.at("x-kubernetes-int-or-string") == &json!(true) {
        if !value.is_string() && value.as_i64().is_none() {
            type_error("integer,string", value, path, findings);
        }
        return;
    }
    let wanted = schema.text("type");
    let fits = match wanted {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_i64().is_some() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    };
    if !fits {
        type_error(wanted, value, path, findings);
    }
    let choices = schema.items("enum");
    if !choices.is_empty() && !choices.contains(value) {
        let text = |choice: &Value| choice.as_str().map_or_else(|| choice.to_string(), str::to_owned);
        let texts: Vec<_> = choices.iter().map(|choice| format!("{:?}", text(choice))).collect();
        let detail = format!("supported values: {}", texts.join(", "));
        findings.with_value(Reason::NotSupported, path, value, &detail);
    }
    if !fits {
        return;
    }
    match value {
        Value::String(text) => check_text(schema, text, path, findings),
        Value::Number(number) => check_number(schema, value, number.as_f64().unwrap_or(0.0), path, findings),
        Value::Array(list) => check_list(schema, list, path, findings),
        Value::Object(object) => {
            for name in schema.items("required").iter().filter_map(Value::as_str) {
                if !object.contains_key(name) {
                    findings.required(&format!("{path}.{name}"), "");
                }
            }
            for (bound, few) in [("minProperties", true), ("maxProperties", false)] {
                if let Some(bound) = schema.integer(bound) {
                    let count = i64::try_from(object.len()).unwrap_or(i64::MAX);
                    if few && count < bound {
                        findings.invalid(
                            path,
                            value,
                            &format!("{path} in body should have at least {bound} properties"),
                        );
                    } else if !few && count > bound {
                        let text = format!("Too many: {count}: must have at most {bound} items");
                        findings.add(Reason::TooMany, path, text);
                    }
                }
            }
            for (name, value) in object {
                match schema.at("properties").get(name) {
                    Some(inner) => check_value(inner, value, &format!("{path}.{name}"), findings),
                    None if schema.at("additionalProperties").is_object() => {
                        check_value(schema.at("additionalProperties"), value, &format!("{path}.{name}"), findings);
                    }
                    None => {}
                }
            }
        }
        _ => {}
    }
    combined(schema, value, path, findings);
}

/// `allOf`, `anyOf`, `oneOf` and `not`.
fn combined(schema: &Value, value: &Value, path: &str, findings: &mut Findings) {
    let fits = |schema: &Value| {
        let mut inner = Findings::default();
        check_value(schema, value, path, &mut inner);
        inner.causes.is_empty()
    };
    for inner in schema.items("allOf") {
        check_value(inner, value, path, findings);
    }
    let any = schema.items("anyOf");
    if !any.is_empty() && !any.iter().any(fits) {
        findings.add(
            Reason::Invalid,
            path,
            format!("Invalid value: {value}: {path:?} must validate at least one schema (anyOf)"),
        );
    }
    let one = schema.items("oneOf");
    if !one.is_empty() {
        let found = one.iter().filter(|schema| fits(schema)).count();
        if found != 1 {
            let detail =
                if found == 0 { "Found none valid".to_owned() } else { format!("Found {found} valid alternatives") };
            findings.add(
                Reason::Invalid,
                path,
                format!("Invalid value: {value}: {path:?} must validate one and only one schema (oneOf). {detail}"),
            );
        }
    }
    let not = schema.at("not");
    if not.is_object() && fits(not) {
        findings.add(
            Reason::Invalid,
            path,
            format!("Invalid value: {value}: {path:?} must not validate the schema (not)"),
        );
    }
}

fn type_error(wanted: &str, value: &Value, path: &str, findings: &mut Findings) {
    let found = go_type(value);
    let detail = format!("{path} in body must be of type {wanted}: {found:?}");
    findings.add(Reason::TypeInvalid, path, format!("Invalid value: {found:?}: {detail}"));
}

/// The first thing that is wrong with a text; Kubernetes looks no further.
fn check_text(schema: &Value, text: &str, path: &str, findings: &mut Findings) {
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let value = json!(text);
    if let Some(bound) = schema.integer("maxLength").filter(|bound| length > *bound) {
        findings.add(Reason::TooLong, path, format!("Too long: may not be more than {bound} bytes"));
        return;
    }
    if let Some(bound) = schema.integer("minLength").filter(|bound| length < *bound) {
        findings.invalid(path, &value, &format!("{path} in body should be at least {bound} chars long"));
        return;
    }
    let pattern = schema.text("pattern");
    if !pattern.is_empty() && !matches_pattern(pattern, text) {
        findings.invalid(path, &value, &format!("{path} in body should match '{pattern}'"));
    }
    let wanted = schema.text("format");
    if !format::fits(wanted, text) {
        let detail = format!("{path} in body must be of type {wanted}: {text:?}");
        findings.add(Reason::TypeInvalid, path, format!("Invalid value: {text:?}: {detail}"));
    }
}

/// Asks the expression language, which brings a regular expression engine; a pattern that it cannot read matches.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let Ok(program) = cel::Program::compile("text.matches(pattern)") else { return true };
    let mut context = cel::Context::default();
    context.add_variable_from_value("text", text.to_owned());
    context.add_variable_from_value("pattern", pattern.to_owned());
    !matches!(program.execute(&context), Ok(cel::Value::Bool(false)))
}

fn check_number(schema: &Value, value: &Value, number: f64, path: &str, findings: &mut Findings) {
    if let Some(step) = schema.at("multipleOf").as_f64().filter(|step| !is_multiple(number, *step)) {
        findings.invalid(path, value, &format!("{path} in body should be a multiple of {step}"));
    }
    if let Some(bound) = schema.at("minimum").as_f64() {
        if schema.at("exclusiveMinimum") == &json!(true) && number <= bound {
            findings.invalid(path, value, &format!("{path} in body should be greater than {bound}"));
        } else if number < bound {
            findings.invalid(path, value, &format!("{path} in body should be greater than or equal to {bound}"));
        }
    }
    if let Some(bound) = schema.at("maximum").as_f64() {
        if schema.at("exclusiveMaximum") == &json!(true) && number >= bound {
            findings.invalid(path, value, &format!("{path} in body should be less than {bound}"));
        } else if number > bound {
            findings.invalid(path, value, &format!("{path} in body should be less than or equal to {bound}"));
        }
    }
}

/// Whether a number is some whole number of steps; a step that is none says nothing.
fn is_multiple(number: f64, step: f64) -> bool {
    step <= 0.0 || (number / step).fract() == 0.0
}

fn check_list(schema: &Value, list: &[Value], path: &str, findings: &mut Findings) {
    let count = i64::try_from(list.len()).unwrap_or(i64::MAX);
    if let Some(bound) = schema.integer("maxItems").filter(|bound| count > *bound) {
        findings.add(Reason::TooMany, path, format!("Too many: {count}: must have at most {bound} items"));
    }
    if let Some(bound) = schema.integer("minItems").filter(|bound| count < *bound) {
        findings.invalid(path, &json!(list), &format!("{path} in body should have at least {bound} items"));
    }
    let keys: Vec<_> = schema.items("x-kubernetes-list-map-keys").iter().filter_map(Value::as_str).collect();
    let identity = |item: &Value| match schema.text("x-kubernetes-list-type") {
        "set" => Some(item.clone()),
        "map" => Some(keys.iter().map(|key| ((*key).to_owned(), item.at(key).clone())).collect()),
        _ => None,
    };
    for (index, item) in list.iter().enumerate() {
        let field = format!("{path}[{index}]");
        if let Some(key) = identity(item)
            && list[..index].iter().any(|other| identity(other).as_ref() == Some(&key))
        {
            findings.duplicate(&field, &key);
        }
        if let Some(inner) = schema.get("items") {
            check_value(inner, item, &field, findings);
        }
    }
}

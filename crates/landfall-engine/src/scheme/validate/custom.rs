//! Custom resources against their schema, and definitions themselves.

use serde_json::{Value, json};

use super::{Fields as _, Findings, Reason, names};
use crate::scheme::{Part, Resource};

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
    if findings.causes.is_empty() {
        rules(schema, new, old, "", findings);
    }
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
        return;
    }
    let choices = schema.items("enum");
    if !choices.is_empty() && !choices.contains(value) {
        let texts: Vec<_> = choices.iter().map(ToString::to_string).collect();
        let detail = format!("supported values: {}", texts.join(", "));
        findings.with_value(Reason::NotSupported, path, value, &detail);
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

fn check_text(schema: &Value, text: &str, path: &str, findings: &mut Findings) {
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let value = json!(text);
    if let Some(bound) = schema.integer("maxLength").filter(|bound| length > *bound) {
        findings.add(Reason::TooLong, path, format!("Too long: may not be more than {bound} bytes"));
    }
    if let Some(bound) = schema.integer("minLength").filter(|bound| length < *bound) {
        findings.invalid(path, &value, &format!("{path} in body should be at least {bound} chars long"));
    }
    let pattern = schema.text("pattern");
    if !pattern.is_empty() && !matches_pattern(pattern, text) {
        findings.invalid(path, &value, &format!("{path} in body should match '{pattern}'"));
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

/// The rules in the expression language, from the leaves up. Rules that speak of the old value hold on creation.
fn rules(schema: &Value, value: &Value, old: Option<&Value>, path: &str, findings: &mut Findings) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let inner = schema.at("properties").get(name).unwrap_or(schema.at("additionalProperties"));
                if inner.is_object() {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    rules(inner, value, old.and_then(|old| old.get(name)), &path, findings);
                }
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                rules(schema.at("items"), value, None, &format!("{path}[{index}]"), findings);
            }
        }
        _ => {}
    }
    for rule in schema.items("x-kubernetes-validations") {
        let expression = rule.text("rule");
        if old.is_none() && expression.contains("oldSelf") {
            continue;
        }
        let failed = |detail: &str| format!("Invalid value: {detail}");
        match holds(expression, value, old) {
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
                findings.add(Reason::Invalid, field.trim_start_matches('.'), failed(&message));
            }
            Err(error) => {
                findings.add(Reason::Invalid, path, failed(&format!("rule evaluation error: {error}")));
            }
        }
    }
}

fn holds(expression: &str, value: &Value, old: Option<&Value>) -> Result<bool, String> {
    let program = cel::Program::compile(expression).map_err(|error| error.to_string())?;
    let mut context = cel::Context::default();
    context.add_variable("self", value).map_err(|error| error.to_string())?;
    if let Some(old) = old {
        context.add_variable("oldSelf", old).map_err(|error| error.to_string())?;
    }
    match program.execute(&context) {
        Ok(cel::Value::Bool(holds)) => Ok(holds),
        Ok(_) => Err("the rule is no condition".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A `CustomResourceDefinition` itself.
pub(super) fn check_definition(definition: &Value, findings: &mut Findings) {
    let spec = definition.at("spec");
    let (group, plural) = (spec.text("group"), spec.text("names.plural"));
    let name = definition.text("metadata.name");
    if name != format!("{plural}.{group}") {
        findings.invalid("metadata.name", &json!(name), "must be spec.names.plural+\".\"+spec.group");
    }
    if group.is_empty() {
        findings.required("spec.group", "");
    } else {
        findings.names("spec.group", group, names::subdomain(group));
        if !group.contains('.') {
            findings.invalid("spec.group", &json!(group), "should be a domain with at least one dot");
        }
    }
    match spec.text("scope") {
        "" => findings.required("spec.scope", ""),
        "Cluster" | "Namespaced" => {}
        _ => findings.not_supported("spec.scope", spec.at("scope"), &["Cluster", "Namespaced"]),
    }
    for field in ["plural", "singular", "kind", "listKind"] {
        let path = format!("spec.names.{field}");
        let text = spec.at("names").text(field);
        if text.is_empty() {
            findings.required(&path, "");
        } else {
            findings.names(&path, text, names::label_1035(&text.to_lowercase()));
        }
    }
    let versions = spec.items("versions");
    if versions.iter().filter(|version| version.at("storage") == &json!(true)).count() != 1 {
        findings.invalid(
            "spec.versions",
            spec.at("versions"),
            "must have exactly one version marked as storage version",
        );
    }
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        findings.names(&format!("{path}.name"), version.text("name"), names::label_1035(version.text("name")));
        let schema = version.at("schema.openAPIV3Schema");
        let path = format!("{path}.schema.openAPIV3Schema");
        if schema.is_null() {
            findings.required(&path, "schemas are required");
        } else {
            if schema.text("type") != "object" {
                findings.invalid(&format!("{path}.type"), schema.at("type"), "must be object at the root");
            }
            structural(schema, &path, findings);
        }
    }
}

/// Each level of a schema says its type.
fn structural(schema: &Value, path: &str, findings: &mut Findings) {
    let free = schema.at("x-kubernetes-int-or-string") == &json!(true)
        || schema.at("x-kubernetes-preserve-unknown-fields") == &json!(true);
    if schema.text("type").is_empty() && !free {
        findings.required(&format!("{path}.type"), "must not be empty for specified object fields");
    }
    if schema.text("type") == "array" && schema.at("items").is_null() {
        findings.required(&format!("{path}.items"), "must be specified");
    }
    for (name, inner) in schema.at("properties").as_object().into_iter().flatten() {
        structural(inner, &format!("{path}.properties[{name}]"), findings);
    }
    for name in ["items", "additionalProperties"] {
        if schema.at(name).is_object() {
            structural(schema.at(name), &format!("{path}.{name}"), findings);
        }
    }
}

//! The schema of a definition: it says the type of everything, its extensions fit, its defaults are valid, and its rules
//! compile.
//!
//! Not handled: the words of Go about a pattern that cannot be read, what `allOf`, `anyOf`, `oneOf` and `not` may say inside, and the cost of rules.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::{Fields as _, Findings, Reason};
use crate::scheme::expression::{self, Type};

const YES: Value = Value::Bool(true);

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// The schema of a version. Rules are compiled only when nothing else is wrong.
pub(super) fn check(version: &Value, field: &str, findings: &mut Findings) {
    let schema = version.at("schema.openAPIV3Schema");
    if schema.is_null() {
        return;
    }
    let field = format!("{field}.openAPIV3Schema");
    let before = findings.causes.len();
    if schema.at("nullable") == &YES {
        findings.forbidden(&format!("{field}.nullable"), "nullable cannot be true at the root");
    }
    structure(schema, Level::Root, &field, findings);
    if findings.causes.len() == before {
        defaults(schema, &field, findings);
    }
    values(schema, &field, findings);
    if findings.causes.len() == before {
        compile(schema, Level::Root, None, &field, findings);
    }
}

/// The schemas below a schema, with their paths.
fn below<'a>(schema: &'a Value, field: &str) -> Vec<(&'a Value, Level, String)> {
    let mut found = Vec::new();
    if schema.at("items").is_object() {
        found.push((schema.at("items"), Level::Item, format!("{field}.items")));
    }
    for (name, inner) in schema.at("properties").as_object().into_iter().flatten() {
        found.push((inner, Level::Field, format!("{field}.properties[{name}]")));
    }
    if schema.at("additionalProperties").is_object() {
        found.push((schema.at("additionalProperties"), Level::Field, format!("{field}.additionalProperties")));
    }
    found
}

/// Each level of a schema says its type.
fn structure(schema: &Value, level: Level, field: &str, findings: &mut Findings) {
    let kind = schema.text("type");
    let of_type = format!("{field}.type");
    if kind == "array" && schema.at("items").is_null() {
        findings.required(&format!("{field}.items"), "must be specified");
    }
    for (inner, level, field) in below(schema, field) {
        structure(inner, level, &field, findings);
    }
    let additional = schema.at("additionalProperties");
    if level == Level::Root && !additional.is_null() {
        findings.forbidden(&format!("{field}.additionalProperties"), "must not be used at the root");
    }
    if additional.is_object() && schema.at("properties").as_object().is_some_and(|of| !of.is_empty()) {
        let detail = "additionalProperties and properties are mutual exclusive";
        findings.forbidden(&format!("{field}.additionalProperties"), detail);
    }
    let preserve = schema.at("x-kubernetes-preserve-unknown-fields");
    if preserve == &json!(false) {
        let field = format!("{field}.x-kubernetes-preserve-unknown-fields");
        findings.invalid(&field, preserve, "must be true or undefined");
    }
    let embedded = schema.at("x-kubernetes-embedded-resource") == &YES;
    if embedded && preserve != &YES && schema.at("properties").is_null() {
        let detail =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        findings.required(&format!("{field}.properties"), detail);
    }
    let both = schema.at("x-kubernetes-int-or-string") == &YES;
    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        if kind.is_empty() {
            findings.required(&of_type, detail);
        } else {
            findings.invalid(&of_type, &json!(kind), detail);
        }
    } else if kind.is_empty() && !both && preserve != &YES {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        findings.required(&of_type, detail);
    }
    lists(schema, field, findings);
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        findings.invalid(&of_type, &json!(kind), "must be object at the root");
    }
    if level == Level::Root || embedded {
        implied(schema, field, findings);
    }
}

/// How lists and maps are merged.
fn lists(schema: &Value, field: &str, findings: &mut Findings) {
    let (kind, list, map) =
        (schema.text("type"), schema.at("x-kubernetes-list-type"), schema.at("x-kubernetes-map-type"));
    let of_list = format!("{field}.x-kubernetes-list-type");
    let keys = schema.items("x-kubernetes-list-map-keys");
    let of_keys = format!("{field}.x-kubernetes-list-map-keys");
    if !list.is_null() && kind != "array" {
        let detail = "must be array if x-kubernetes-list-type is specified";
        findings.invalid(&format!("{field}.type"), &json!(kind), detail);
    }
    findings.choice(&of_list, list, &["atomic", "set", "map"]);
    if !keys.is_empty() && list != &json!("map") {
        findings.required(&of_list, "must be map if x-kubernetes-list-map-keys is non-empty");
    }
    let (items, of_items) = (schema.at("items"), format!("{field}.items"));
    match list.as_str() {
        Some("map") if keys.is_empty() => {
            findings.required(&of_keys, "must not be empty if x-kubernetes-list-type is map");
        }
        Some("map") if items.text("type") != "object" => {
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            findings.invalid(&format!("{of_items}.type"), &json!(items.text("type")), detail);
        }
        Some("map") => {
            let known = |key: &str| items.at("properties").get(key);
            let names: Vec<_> = keys.iter().filter_map(Value::as_str).collect();
            if names.iter().any(|key| known(key).is_none()) {
                let detail = "entries must all be names of item properties";
                findings.invalid(&of_keys, schema.at("x-kubernetes-list-map-keys"), detail);
            }
            for key in names {
                let required = items.items("required").contains(&json!(key));
                if known(key).is_some_and(|of| of.at("default").is_null()) && !required {
                    let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a \
                                  required property";
                    findings.required(&format!("{of_items}.properties[{key}].default"), detail);
                }
            }
        }
        Some("set") if items.text("type") == "object" && items.text("x-kubernetes-map-type") != "atomic" => {
            let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
            let value = items.at("x-kubernetes-map-type");
            findings.invalid(&format!("{of_items}.x-kubernetes-map-type"), value, detail);
        }
        _ => {}
    }
    if !map.is_null() && kind != "object" {
        let detail = "must be object if x-kubernetes-map-type is specified";
        findings.invalid(&format!("{field}.type"), &json!(kind), detail);
    }
    findings.choice(&format!("{field}.x-kubernetes-map-type"), map, &["atomic", "granular"]);
}

/// What every object has, and a schema may repeat but not change.
fn implied(schema: &Value, field: &str, findings: &mut Findings) {
    let property = |name: &str| schema.at("properties").get(name);
    for name in ["kind", "apiVersion"] {
        if let Some(kind) = property(name).map(|of| of.at("type")).filter(|kind| *kind != &json!("string")) {
            findings.invalid(&format!("{field}.properties[{name}].type"), kind, "must be string");
        }
    }
    let Some(metadata) = property("metadata") else { return };
    let only_names = metadata.at("properties").as_object().into_iter().flatten();
    let known = ["type", "properties", "description"];
    let more = metadata.as_object().into_iter().flatten().any(|(name, _)| !known.contains(&name.as_str()))
        || only_names.into_iter().any(|(name, _)| !matches!(name.as_str(), "name" | "generateName"));
    if more {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        findings.forbidden(&format!("{field}.properties[metadata]"), detail);
    }
}

/// Defaults are values of their schema.
fn defaults(schema: &Value, field: &str, findings: &mut Findings) {
    let default = schema.at("default");
    if !default.is_null() {
        let of_default = format!("{field}.default");
        let before = findings.causes.len();
        super::check_value(schema, default, "", findings);
        // A default has no name of its own inside.
        for cause in &mut findings.causes[before..] {
            cause.field = format!("{of_default}{}", cause.field);
        }
        if findings.causes.len() == before && has_unknown(schema, default) {
            findings.invalid(&of_default, default, "must not have unknown fields");
        }
    }
    for (inner, _, field) in below(schema, field) {
        defaults(inner, &field, findings);
    }
}

/// Whether pruning would take something away.
fn has_unknown(schema: &Value, value: &Value) -> bool {
    if schema.at("x-kubernetes-preserve-unknown-fields") == &YES {
        return false;
    }
    match value {
        Value::Array(list) => list.iter().any(|item| has_unknown(schema.at("items"), item)),
        Value::Object(object) => object.iter().any(|(name, value)| {
            let additional = schema.at("additionalProperties");
            match schema.at("properties").get(name) {
                Some(inner) => has_unknown(inner, value),
                None if additional.is_object() => has_unknown(additional, value),
                None => additional != &YES,
            }
        }),
        _ => false,
    }
}

/// What a schema says of values, and what its rules say beside their expressions.
fn values(schema: &Value, field: &str, findings: &mut Findings) {
    let kind = schema.at("type");
    findings.choice(&format!("{field}.type"), kind, &["array", "boolean", "integer", "number", "object", "string"]);
    if schema.at("uniqueItems") == &YES {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        findings.forbidden(&format!("{field}.uniqueItems"), detail);
    }
    if !schema.text("$ref").is_empty() {
        findings.forbidden(&format!("{field}.$ref"), "$ref is not supported");
    }
    let pattern = schema.text("pattern");
    if let Err(error) = regex::Regex::new(pattern) {
        // The last line says what is wrong; the lines before show where.
        let text = error.to_string();
        let why = text.lines().last().unwrap_or_default();
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        findings.invalid(&format!("{field}.pattern"), &json!(pattern), &detail);
    }
    for (index, rule) in schema.items("x-kubernetes-validations").iter().enumerate() {
        rule_texts(rule, schema, &format!("{field}.x-kubernetes-validations[{index}]"), findings);
    }
    for (inner, _, field) in below(schema, field) {
        values(inner, &field, findings);
    }
}

fn rule_texts(rule: &Value, schema: &Value, field: &str, findings: &mut Findings) {
    let blank = |name: &str| rule.at(name).as_str().is_some_and(|text| !text.is_empty() && text.trim().is_empty());
    let (text, message) = (rule.text("rule"), rule.text("message"));
    if text.trim().is_empty() {
        findings.required(&format!("{field}.rule"), "rule is not specified");
    }
    if blank("message") {
        findings.invalid(&format!("{field}.message"), &json!(message), "must be non-empty if specified");
    } else if message.contains('\n') {
        findings.invalid(&format!("{field}.message"), &json!(message), "must not contain line breaks");
    } else if text.contains('\n') && message.is_empty() {
        findings.required(&format!("{field}.message"), "message must be specified if rule contains line breaks");
    }
    if blank("messageExpression") {
        let detail = "messageExpression must be non-empty if specified";
        findings.required(&format!("{field}.messageExpression"), detail);
    }
    let path = rule.text("fieldPath");
    if blank("fieldPath") {
        findings.invalid(&format!("{field}.fieldPath"), &json!(path), "must be non-empty if specified");
    }
    if !path.is_empty() && !leads_somewhere(path, schema) {
        findings.invalid(&format!("{field}.fieldPath"), &json!(path), "must be a valid path");
    }
    let reasons = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    findings.choice(&format!("{field}.reason"), rule.at("reason"), &reasons);
}

/// Whether a path such as `.a.b` or `['a']` names a property of a schema.
fn leads_somewhere(path: &str, schema: &Value) -> bool {
    let (name, rest) = if let Some(rest) = path.strip_prefix("['") {
        let Some((name, rest)) = rest.split_once("']") else { return false };
        (name, rest)
    } else {
        let Some(rest) = path.strip_prefix('.') else { return false };
        rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()))
    };
    let inner = schema.at("properties").get(name).unwrap_or(schema.at("additionalProperties"));
    inner.is_object() && (rest.is_empty() || leads_somewhere(rest, inner))
}

/// The expressions of the rules, with what `self` is. `unrelated`: the list whose items are not the same before and
/// after a change, so that no rule below it can speak of the old value.
fn compile(schema: &Value, level: Level, unrelated: Option<&str>, field: &str, findings: &mut Findings) {
    let mut variables = None;
    for (index, rule) in schema.items("x-kubernetes-validations").iter().enumerate() {
        let field = format!("{field}.x-kubernetes-validations[{index}]");
        let variables = variables.get_or_insert_with(|| {
            let itself = type_of(schema, level == Level::Root);
            BTreeMap::from([("self".to_owned(), itself.clone()), ("oldSelf".to_owned(), itself)])
        });
        compile_rule(rule, variables, unrelated, &field, findings);
    }
    for (inner, level, inner_field) in below(schema, field) {
        let loses = level == Level::Item && schema.text("x-kubernetes-list-type") != "map";
        let unrelated = unrelated.or(loses.then_some(field));
        compile(inner, level, unrelated, &inner_field, findings);
    }
}

fn compile_rule(
    rule: &Value,
    variables: &BTreeMap<String, Type>,
    unrelated: Option<&str>,
    field: &str,
    findings: &mut Findings,
) {
    let expression = rule.text("rule");
    let mut refuse = |part: &str, why: &str| {
        findings.add(Reason::Invalid, &format!("{field}.{part}"), format!("Invalid value: {}: {why}", shown(rule)));
    };
    match expression::check(expression, variables) {
        Err(why) => refuse("rule", &why),
        Ok(Type::Bool | Type::Any) => {}
        Ok(_) => refuse("rule", "cel expression must evaluate to a bool"),
    }
    let message = rule.text("messageExpression");
    if !message.is_empty() {
        match expression::check(message, variables) {
            Err(why) => refuse("messageExpression", &format!("messageExpression {why}")),
            Ok(Type::String | Type::Any) => {}
            Ok(_) => refuse("messageExpression", "messageExpression must evaluate to a string"),
        }
    }
    if expression::mentions(expression, "oldSelf") {
        if let Some(list) = unrelated {
            let detail = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
            findings.invalid(&format!("{field}.rule"), &json!(expression), &detail);
        }
    } else if !rule.at("optionalOldSelf").is_null() {
        let detail = "may not be set if oldSelf is not used in rule";
        findings.invalid(&format!("{field}.optionalOldSelf"), rule.at("optionalOldSelf"), detail);
    }
}

/// A rule as Kubernetes prints it in messages.
fn shown(rule: &Value) -> String {
    let value = json!({
        "Rule": rule.text("rule"),
        "Message": rule.text("message"),
        "MessageExpression": rule.text("messageExpression"),
        "Reason": rule.at("reason"),
        "FieldPath": rule.text("fieldPath"),
        "OptionalOldSelf": rule.at("optionalOldSelf"),
    });
    value.to_string().replace('>', "\\u003e").replace('<', "\\u003c").replace('&', "\\u0026")
}

/// What a value of a schema is to an expression.
fn type_of(schema: &Value, is_object: bool) -> Type {
    if schema.at("x-kubernetes-int-or-string") == &YES {
        return Type::Any;
    }
    match schema.text("type") {
        "boolean" => Type::Bool,
        "integer" => Type::Int,
        "number" => Type::Double,
        // Times and durations have types of their own.
        "string" if schema.at("format").is_null() => Type::String,
        "array" => Type::List(Box::new(type_of(schema.at("items"), false))),
        "object" if schema.at("additionalProperties").is_object() => {
            Type::Map(Box::new(type_of(schema.at("additionalProperties"), false)))
        }
        "object" => {
            let properties = schema.at("properties").as_object();
            let open =
                schema.at("x-kubernetes-preserve-unknown-fields") == &YES || schema.at("additionalProperties") == &YES;
            if open && properties.is_none() {
                return Type::Any;
            }
            let mut fields = BTreeMap::new();
            if is_object || schema.at("x-kubernetes-embedded-resource") == &YES {
                let metadata = Type::object([("name", Type::String), ("generateName", Type::String)]);
                fields.insert("metadata".to_owned(), metadata);
                fields.insert("apiVersion".to_owned(), Type::String);
                fields.insert("kind".to_owned(), Type::String);
            }
            for (name, inner) in properties.into_iter().flatten().filter(|(name, _)| *name != "metadata") {
                fields.insert(escaped(name), type_of(inner, false));
            }
            Type::Object(fields)
        }
        _ => Type::Any,
    }
}

/// How an expression writes the name of a property.
pub(super) fn escaped(name: &str) -> String {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

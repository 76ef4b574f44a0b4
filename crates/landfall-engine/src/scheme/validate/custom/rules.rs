//! The rules of a schema in the expression language, when an object is written.
//!
//! Not handled: `messageExpression`, `reason` and `optionalOldSelf`, and properties whose names an expression escapes.

use serde_json::Value;

use super::super::{Fields as _, Findings, Reason};

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
                let inner = schema.at("properties").get(name).unwrap_or(schema.at("additionalProperties"));
                if inner.is_object() {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    check(inner, value, old.and_then(|old| old.get(name)), &path, findings);
                }
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                check(schema.at("items"), value, None, &format!("{path}[{index}]"), findings);
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

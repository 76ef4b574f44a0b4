//! Admission policies and what binds them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Fields as _, Findings, metadata, names};
use crate::scheme::expression::{self, Type};

const MAX_AUDIT_ANNOTATIONS: usize = 20;

pub(super) fn policy(policy: &Value, findings: &mut Findings) {
    let spec = policy.at("spec");
    findings.choice("spec.failurePolicy", spec.at("failurePolicy"), &["Fail", "Ignore"]);
    if spec.at("paramKind").is_object() {
        parameters(spec.at("paramKind"), findings);
    }
    let constraints = spec.at("matchConstraints");
    if constraints.is_null() {
        findings.required("spec.matchConstraints", "");
    } else {
        matching(constraints, "spec.matchConstraints", findings);
        if constraints.items("resourceRules").is_empty() {
            findings.required("spec.matchConstraints.resourceRules", "");
        }
    }
    let mut known = variables(!spec.at("paramKind").is_null());
    conditions(spec, "spec.matchConditions", &known, findings);
    let mut defined = BTreeMap::new();
    // Without variables there is nothing of that name.
    let define = |known: &mut BTreeMap<String, Type>, defined: &BTreeMap<String, Type>| {
        known.insert("variables".to_owned(), Type::Object(defined.clone()));
    };
    if !spec.items("variables").is_empty() {
        define(&mut known, &defined);
    }
    for (index, variable) in spec.items("variables").iter().enumerate() {
        let field = format!("spec.variables[{index}]");
        let name = variable.text("name");
        if name.trim().is_empty() {
            findings.required(&format!("{field}.name"), "name is not specified");
        } else if !is_identifier(name) {
            findings.invalid(&format!("{field}.name"), &json!(name), "must be a valid CEL identifier");
        }
        let of = given(variable, "expression", &known, &field, findings);
        defined.insert(name.to_owned(), of.unwrap_or(Type::Any));
        define(&mut known, &defined);
    }
    let (validations, annotations) = (spec.items("validations"), spec.items("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        for list in ["validations", "auditAnnotations"] {
            let detail = "validations or auditAnnotations must contain at least one item";
            findings.required(&format!("spec.{list}"), detail);
        }
    }
    for (index, one) in validations.iter().enumerate() {
        validation(one, &known, &format!("spec.validations[{index}]"), findings);
    }
    audit(policy.text("metadata.name"), annotations, &known, findings);
}

/// What expressions of a policy may name.
pub(super) fn variables(has_parameters: bool) -> BTreeMap<String, Type> {
    let kind = || Type::object([("group", Type::String), ("version", Type::String), ("kind", Type::String)]);
    let resource = || Type::object([("group", Type::String), ("version", Type::String), ("resource", Type::String)]);
    let user = Type::object([
        ("username", Type::String),
        ("uid", Type::String),
        ("groups", Type::List(Box::new(Type::String))),
        ("extra", Type::Any),
    ]);
    let request = Type::object([
        ("kind", kind()),
        ("resource", resource()),
        ("subResource", Type::String),
        ("requestKind", kind()),
        ("requestResource", resource()),
        ("requestSubResource", Type::String),
        ("name", Type::String),
        ("namespace", Type::String),
        ("operation", Type::String),
        ("userInfo", user),
        ("dryRun", Type::Bool),
        ("options", Type::Any),
    ]);
    let mut known = BTreeMap::from([("request".to_owned(), request)]);
    let objects = ["object", "oldObject", "namespaceObject", "authorizer"];
    known.extend(objects.map(|name| (name.to_owned(), Type::Any)));
    if has_parameters {
        known.insert("params".to_owned(), Type::Any);
    }
    known
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// What an expression gives, if it compiles.
fn given(
    holder: &Value,
    name: &str,
    known: &BTreeMap<String, Type>,
    field: &str,
    findings: &mut Findings,
) -> Option<Type> {
    let (text, field) = (holder.text(name), format!("{field}.{name}"));
    if text.trim().is_empty() {
        findings.required(&field, &format!("{name} is not specified"));
        return None;
    }
    match expression::check(text, known) {
        Ok(of) => Some(of),
        Err(why) => {
            findings.invalid(&field, &json!(text), &why);
            None
        }
    }
}

/// Refuses an expression that can be something else than is wanted only.
fn must_be(wanted: &Type, of: Option<&Type>, field: &str, text: &str, findings: &mut Findings) {
    if let Some(of) = of.filter(|of| *of != wanted && **of != Type::Any) {
        let detail = format!("must evaluate to {} but got {}", wanted.name(), of.name());
        findings.invalid(field, &json!(text), &detail);
    }
}

/// The conditions in `matchConditions` of `holder`, which are at `field`.
pub(super) fn conditions(holder: &Value, field: &str, known: &BTreeMap<String, Type>, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, condition) in holder.items("matchConditions").iter().enumerate() {
        let field = format!("{field}[{index}]");
        let text = condition.text("expression");
        if text.trim().is_empty() {
            findings.required(&format!("{field}.expression"), "");
        } else {
            let of = given(condition, "expression", known, &field, findings);
            must_be(&Type::Bool, of.as_ref(), &format!("{field}.expression"), text, findings);
        }
        let name = condition.text("name");
        if name.is_empty() {
            findings.required(&format!("{field}.name"), "");
            continue;
        }
        findings.names(&format!("{field}.name"), name, names::qualified(name));
        if !seen.insert(name) {
            findings.duplicate(&format!("{field}.name"), &json!(name));
        }
    }
}

fn validation(validation: &Value, known: &BTreeMap<String, Type>, field: &str, findings: &mut Findings) {
    let of = given(validation, "expression", known, field, findings);
    must_be(&Type::Bool, of.as_ref(), &format!("{field}.expression"), validation.text("expression"), findings);
    let (text, inner) = (validation.text("messageExpression"), format!("{field}.messageExpression"));
    if !text.is_empty() && text.trim().is_empty() {
        findings.invalid(&inner, &json!(text), "must be non-empty if specified");
    } else if !text.is_empty() {
        // Rights are not asked for the sake of a message.
        let mut known = known.clone();
        known.remove("authorizer");
        let of = given(validation, "messageExpression", &known, field, findings);
        must_be(&Type::String, of.as_ref(), &inner, text, findings);
    }
    let (message, inner) = (validation.text("message"), format!("{field}.message"));
    if !message.is_empty() && message.trim().is_empty() {
        findings.invalid(&inner, &json!(message), "must be non-empty if specified");
    } else if message.trim().contains('\n') {
        findings.invalid(&inner, &json!(message), "must not contain line breaks");
    }
    let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
    findings.choice(&format!("{field}.reason"), validation.at("reason"), &reasons);
}

fn audit(policy: &str, annotations: &[Value], known: &BTreeMap<String, Type>, findings: &mut Findings) {
    if annotations.len() > MAX_AUDIT_ANNOTATIONS {
        let detail = format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations");
        findings.invalid("spec.auditAnnotations", &json!(annotations), &detail);
    }
    let mut seen = BTreeSet::new();
    for (index, annotation) in annotations.iter().enumerate() {
        let field = format!("spec.auditAnnotations[{index}]");
        let key = annotation.text("key");
        let full = format!("{policy}/{key}");
        findings.names(&format!("{field}.key"), &full, names::qualified(&full));
        given(annotation, "valueExpression", known, &field, findings);
        if !seen.insert(key) {
            findings.duplicate(&format!("{field}.key"), &json!(key));
        }
    }
}

fn parameters(kind: &Value, findings: &mut Findings) {
    let (version, field) = (kind.text("apiVersion"), "spec.paramKind.apiVersion");
    let (group, short) = version.rsplit_once('/').unwrap_or(("", version));
    if version.is_empty() {
        findings.required(field, "");
    } else {
        if !group.is_empty() && !names::subdomain(group).is_empty() {
            findings.invalid(field, &json!(group), &names::subdomain(group).join(","));
        }
        if short.is_empty() {
            findings.invalid(field, &json!(version), "version must be specified");
        } else if !names::label_1035(short).is_empty() {
            findings.invalid(field, &json!(short), &names::label_1035(short).join(","));
        }
    }
    let (kind, field) = (kind.text("kind"), "spec.paramKind.kind");
    let reasons = names::label_1035(&kind.to_lowercase());
    if kind.is_empty() {
        findings.required(field, "");
    } else if !reasons.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", reasons.join(","));
        findings.invalid(field, &json!(kind), &detail);
    }
}

fn matching(constraints: &Value, field: &str, findings: &mut Findings) {
    findings.choice(&format!("{field}.matchPolicy"), constraints.at("matchPolicy"), &["Equivalent", "Exact"]);
    for name in ["namespaceSelector", "objectSelector"] {
        metadata::selector(constraints.at(name), &format!("{field}.{name}"), findings);
    }
}

pub(super) fn binding(binding: &Value, findings: &mut Findings) {
    let spec = binding.at("spec");
    let policy = spec.text("policyName");
    if policy.is_empty() {
        findings.required("spec.policyName", "");
    } else {
        findings.names("spec.policyName", policy, names::subdomain(policy));
    }
    let reference = spec.at("paramRef");
    if reference.is_object() {
        let (name, selector) = (reference.text("name"), reference.at("selector"));
        let both = "name and selector are mutually exclusive";
        if !name.is_empty() {
            findings.names("spec.paramRef.name", name, names::path_segment(name));
            if !selector.is_null() {
                findings.forbidden("spec.paramRef.name", both);
            }
        }
        metadata::selector(selector, "spec.paramRef.selector", findings);
        match (name.is_empty(), selector.is_null()) {
            (false, false) => findings.forbidden("spec.paramRef.selector", both),
            (true, true) => findings.required("spec.paramRef", "one of name or selector must be specified"),
            _ => {}
        }
        let (action, field) = (reference.at("parameterNotFoundAction"), "spec.paramRef.parameterNotFoundAction");
        if action.as_str().unwrap_or_default().is_empty() {
            findings.required(field, "");
        }
        findings.choice(field, action, &["Deny", "Allow"]);
    }
    if spec.at("matchResources").is_object() {
        matching(spec.at("matchResources"), "spec.matchResources", findings);
    }
    actions(spec, findings);
}

fn actions(spec: &Value, findings: &mut Findings) {
    let (actions, field) = (spec.items("validationActions"), "spec.validationActions");
    for (index, action) in actions.iter().enumerate() {
        let inner = format!("{field}[{index}]");
        findings.choice(&inner, action, &["Audit", "Deny", "Warn"]);
        if actions[..index].contains(action) {
            findings.duplicate(&inner, action);
        }
    }
    if ["Deny", "Warn"].iter().all(|one| actions.contains(&json!(one))) {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the \
                      API response and headers serves no purpose)";
        findings.invalid(field, spec.at("validationActions"), detail);
    }
    if actions.is_empty() {
        findings.required(field, "at least one validation action is required");
    }
}

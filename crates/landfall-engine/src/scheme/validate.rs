//! What objects must be: same reason, same field, same words as Kubernetes.

mod admission;
mod autoscaler;
mod custom;
pub(super) mod format;
mod immutable;
mod job;
mod metadata;
pub(crate) mod names;
mod network;
mod pod;
mod policy;
mod quota;
mod service;
mod storage;
mod structure;
mod webhook;
mod workload;

use serde_json::Value;

use super::{Part, Resource};

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) reason: Reason,
    /// `spec.template.spec.containers[0].name`
    pub(crate) field: String,
    /// Without the field: `Invalid value: "A": a lowercase …`.
    pub(crate) message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Required,
    Invalid,
    Forbidden,
    NotSupported,
    Duplicate,
    TooLong,
    TooMany,
    TypeInvalid,
    NotFound,
}

impl Reason {
    /// As `Status.details.causes[].reason` names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotFound => "FieldValueNotFound",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::Forbidden => "Forbidden",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
        }
    }
}

impl Cause {
    /// The text that a status message is made of: `field: message`.
    pub(crate) fn text(&self) -> String {
        format!("{}: {}", self.field, self.message)
    }
}

/// The message of a status for these causes: one alone, several in brackets, repeated ones once.
pub(crate) fn joined(causes: &[Cause]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in causes {
        let text = cause.text();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match &texts[..] {
        [one] => one.clone(),
        _ => format!("[{}]", texts.join(", ")),
    }
}

/// Collects causes.
#[derive(Default)]
pub(super) struct Findings {
    causes: Vec<Cause>,
}

impl Findings {
    fn add(&mut self, reason: Reason, field: &str, message: String) {
        self.causes.push(Cause { reason, field: field.to_owned(), message });
    }

    fn with_value(&mut self, reason: Reason, field: &str, value: &Value, detail: &str) {
        let mut message = format!("{}: {value}", reason.text());
        if !detail.is_empty() {
            message.push_str(": ");
            message.push_str(detail);
        }
        self.add(reason, field, message);
    }

    pub(super) fn required(&mut self, field: &str, detail: &str) {
        let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        self.add(Reason::Required, field, message);
    }

    pub(super) fn invalid(&mut self, field: &str, value: &Value, detail: &str) {
        self.with_value(Reason::Invalid, field, value, detail);
    }

    /// As [`Self::invalid`], of something that is too large to be repeated.
    pub(super) fn invalid_as_whole(&mut self, field: &str, detail: &str) {
        self.add(Reason::Invalid, field, format!("Invalid value: {detail}"));
    }

    pub(super) fn forbidden(&mut self, field: &str, detail: &str) {
        self.add(Reason::Forbidden, field, format!("Forbidden: {detail}"));
    }

    pub(super) fn duplicate(&mut self, field: &str, value: &Value) {
        self.with_value(Reason::Duplicate, field, value, "");
    }

    pub(super) fn not_found(&mut self, field: &str, value: &Value) {
        self.with_value(Reason::NotFound, field, value, "");
    }

    /// A value that is there must be one of these.
    pub(super) fn choice(&mut self, field: &str, value: &Value, choices: &[&str]) {
        if value.as_str().is_some_and(|text| !text.is_empty() && !choices.contains(&text)) {
            self.not_supported(field, value, choices);
        }
    }

    pub(super) fn not_negative(&mut self, field: &str, value: &Value) {
        if value.as_i64().is_some_and(|number| number < 0) {
            self.invalid(field, value, "must be greater than or equal to 0");
        }
    }

    /// The number of a port.
    pub(super) fn port(&mut self, field: &str, value: &Value) {
        if !value.as_i64().is_some_and(|number| (1..=65535).contains(&number)) {
            self.invalid(field, value, "must be between 1 and 65535, inclusive");
        }
    }

    pub(super) fn address(&mut self, field: &str, text: &str) {
        if text.parse::<std::net::IpAddr>().is_err() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            self.invalid(field, &Value::from(text), detail);
        }
    }

    pub(super) fn not_supported(&mut self, field: &str, value: &Value, choices: &[&str]) {
        let choices: Vec<_> = choices.iter().map(|one| format!("{one:?}")).collect();
        self.with_value(Reason::NotSupported, field, value, &format!("supported values: {}", choices.join(", ")));
    }

    pub(super) fn too_long(&mut self, field: &str, limit: usize) {
        self.add(Reason::TooLong, field, format!("Too long: may not be more than {limit} bytes"));
    }

    pub(super) fn too_many(&mut self, field: &str, number: usize, limit: usize) {
        self.add(Reason::TooMany, field, format!("Too many: {number}: must have at most {limit} items"));
    }

    /// Each reason why `value` is no name of its kind.
    pub(super) fn names(&mut self, field: &str, value: &str, reasons: Vec<String>) {
        for reason in reasons {
            self.invalid(field, &Value::from(value), &reason);
        }
    }
}

/// Reads fields of an object, which may be absent.
pub(super) trait Fields {
    fn at(&self, path: &str) -> &Value;
    fn text(&self, name: &str) -> &str;
    fn items(&self, name: &str) -> &[Value];
    fn integer(&self, name: &str) -> Option<i64>;
}

impl Fields for Value {
    /// The value at `a.b.c`, or null.
    fn at(&self, path: &str) -> &Value {
        path.split('.').fold(self, |value, name| value.get(name).unwrap_or(&Value::Null))
    }

    fn text(&self, name: &str) -> &str {
        self.at(name).as_str().unwrap_or_default()
    }

    fn items(&self, name: &str) -> &[Value] {
        self.at(name).as_array().map(Vec::as_slice).unwrap_or_default()
    }

    fn integer(&self, name: &str) -> Option<i64> {
        self.at(name).as_i64()
    }
}

pub(super) fn validate(resource: &Resource, new: &Value, old: Option<&Value>, part: Part) -> Vec<Cause> {
    let mut findings = Findings::default();
    metadata::check(resource, new, old, &mut findings);
    if resource.custom {
        custom::check(resource, new, old, part, &mut findings);
        return findings.causes;
    }
    if part == Part::Status {
        return findings.causes;
    }
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pod::check_pod(new, &mut findings),
        ("", "PodTemplate") => pod::check_template(new.at("template"), "template", &mut findings),
        ("", "Event") => policy::event(new, &mut findings),
        ("apps" | "batch", _) => workload::check(resource, new, &mut findings),
        ("" | "networking.k8s.io", _) => service::check(resource, new, &mut findings),
        ("apiextensions.k8s.io", _) => custom::check_definition(new, &mut findings),
        _ => policy::check(resource, new, &mut findings),
    }
    match old {
        Some(old) => immutable::check(resource, new, old, &mut findings),
        None if resource.kind == "Ingress" => network::ingress_class(new, &mut findings),
        None => {}
    }
    // What is in the schemas of a definition is told by where Kubernetes keeps them.
    if resource.group != "apiextensions.k8s.io" {
        structure::check(resource, new, &mut findings);
    }
    findings.causes
}

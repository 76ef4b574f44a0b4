//! Causes of refusals that the server itself finds, in the words of Kubernetes' validation.

use serde_json::Value;

use crate::scheme::{Cause, Reason};

pub(crate) fn invalid(field: &str, value: &Value, why: &str) -> Cause {
    Cause { reason: Reason::Invalid, field: field.to_owned(), message: format!("Invalid value: {value}: {why}") }
}

pub(crate) fn required(field: &str, why: &str) -> Cause {
    let message = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
    Cause { reason: Reason::Required, field: field.to_owned(), message }
}

pub(crate) fn forbidden(field: &str, why: &str) -> Cause {
    Cause { reason: Reason::Forbidden, field: field.to_owned(), message: format!("Forbidden: {why}") }
}

pub(crate) fn not_supported(field: &str, value: &str, supported: &[&str]) -> Cause {
    let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
    let message = format!("Unsupported value: {value:?}: supported values: {}", supported.join(", "));
    Cause { reason: Reason::NotSupported, field: field.to_owned(), message }
}

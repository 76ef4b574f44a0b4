//! Names, labels, annotations, owners: what every object has.

use serde_json::{Value, json};

use super::{Fields as _, Findings, names};
use crate::scheme::Resource;

/// All annotations together: keys and values.
const MAX_ANNOTATIONS: usize = 256 * 1024;

pub(super) fn check(resource: &Resource, new: &Value, old: Option<&Value>, findings: &mut Findings) {
    let metadata = new.at("metadata");
    let (name, prefix) = (metadata.text("name"), metadata.text("generateName"));
    if !prefix.is_empty() {
        findings.names("metadata.generateName", prefix, check_name(resource, &names::as_prefix(prefix)));
    }
    if name.is_empty() {
        findings.required("metadata.name", "name or generateName is required");
    } else if old.is_none() {
        findings.names("metadata.name", name, check_name(resource, name));
    }
    let namespace = metadata.text("namespace");
    if resource.namespaced {
        if namespace.is_empty() {
            findings.required("metadata.namespace", "");
        } else {
            findings.names("metadata.namespace", namespace, names::label(namespace));
        }
    } else if !namespace.is_empty() {
        findings.forbidden("metadata.namespace", "not allowed on this type");
    }
    labels(metadata.at("labels"), "metadata.labels", findings);
    annotations(metadata.at("annotations"), "metadata.annotations", findings);
    owners(metadata, findings);
    for (index, finalizer) in metadata.items("finalizers").iter().enumerate() {
        let text = finalizer.as_str().unwrap_or_default();
        findings.names("metadata.finalizers", text, names::qualified(text));
        if old.is_none() && !text.contains('/') && !matches!(text, "foregroundDeletion" | "orphan" | "kubernetes") {
            findings.invalid(
                &format!("metadata.finalizers[{index}]"),
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
    if let Some(old) = old {
        late_finalizers(metadata, old.at("metadata"), findings);
        for field in ["name", "namespace", "uid"] {
            let (was, is) = (old.at("metadata").at(field), metadata.at(field));
            // Kubernetes finds it twice.
            for _ in 0..2 {
                if was != is && !is.is_null() {
                    findings.invalid(&format!("metadata.{field}"), is, "field is immutable");
                }
            }
        }
    }
}

/// What a name of the kind must be.
fn check_name(resource: &Resource, name: &str) -> Vec<String> {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Service" | "Namespace") => names::label(name),
        ("rbac.authorization.k8s.io", _) => names::path_segment(name),
        _ => names::subdomain(name),
    }
}

/// Labels, wherever they stand.
pub(super) fn labels(labels: &Value, field: &str, findings: &mut Findings) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        findings.names(field, key, names::qualified(key));
        let value = value.as_str().unwrap_or_default();
        findings.names(field, value, names::label_value(value));
    }
}

pub(super) fn annotations(annotations: &Value, field: &str, findings: &mut Findings) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        findings.names(field, key, names::qualified(&key.to_lowercase()));
        size += key.len() + value.as_str().unwrap_or_default().len();
    }
    if size > MAX_ANNOTATIONS {
        findings.too_long(field, MAX_ANNOTATIONS);
    }
}

/// What is being deleted only loses finalizers. Kubernetes finds it twice.
fn late_finalizers(new: &Value, old: &Value, findings: &mut Findings) {
    if old.text("deletionTimestamp").is_empty() {
        return;
    }
    let known = old.items("finalizers");
    let late: Vec<_> =
        new.items("finalizers").iter().filter(|one| !known.contains(one)).map(Value::to_string).collect();
    if late.is_empty() {
        return;
    }
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        late.join(", ")
    );
    findings.forbidden("metadata.finalizers", &why);
    findings.forbidden("metadata.finalizers", &why);
}

fn owners(metadata: &Value, findings: &mut Findings) {
    let mut controller: Option<String> = None;
    for owner in metadata.items("ownerReferences") {
        // Kubernetes does not say which of them.
        let field = "metadata.ownerReferences";
        let version = owner.text("apiVersion");
        if version.rsplit('/').next().is_none_or(str::is_empty) || version.matches('/').count() > 1 {
            findings.invalid(&format!("{field}.apiVersion"), &json!(version), "version must not be empty");
        }
        for name in ["kind", "name", "uid"] {
            if owner.text(name).is_empty() {
                findings.invalid(&format!("{field}.{name}"), &json!(""), "must not be empty");
            }
        }
        if owner.at("controller") == &json!(true) {
            let text = format!("{}/{}", owner.text("kind"), owner.text("name"));
            if let Some(first) = &controller {
                findings.invalid(
                    "metadata.ownerReferences",
                    metadata.at("ownerReferences"),
                    &format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {text}"),
                );
            }
            controller.get_or_insert(text);
        }
    }
}

/// A label selector object, wherever it stands.
pub(super) fn selector(selector: &Value, field: &str, findings: &mut Findings) {
    labels(selector.at("matchLabels"), &format!("{field}.matchLabels"), findings);
    for (index, one) in selector.items("matchExpressions").iter().enumerate() {
        let field = format!("{field}.matchExpressions[{index}]");
        let values = one.items("values");
        match one.text("operator") {
            "In" | "NotIn" if values.is_empty() => {
                findings.required(&format!("{field}.values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => findings.forbidden(
                &format!("{field}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => findings.invalid(&format!("{field}.operator"), one.at("operator"), "not a valid selector operator"),
        }
        findings.names(&format!("{field}.key"), one.text("key"), names::qualified(one.text("key")));
        for (index, value) in values.iter().enumerate() {
            let text = value.as_str().unwrap_or_default();
            findings.names(&format!("{field}.values[{index}]"), text, names::label_value(text));
        }
    }
}

//! A `CustomResourceDefinition` itself: its names and versions.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::{Fields as _, Findings, names};
use super::schema;

pub(in super::super) fn check(definition: &Value, findings: &mut Findings) {
    let spec = definition.at("spec");
    let (group, plural) = (spec.text("group"), spec.text("names.plural"));
    let name = definition.text("metadata.name");
    if name != format!("{plural}.{group}") {
        findings.invalid("metadata.name", &json!(name), "must be spec.names.plural+\".\"+spec.group");
    }
    let reasons = names::subdomain(group);
    if group.is_empty() {
        findings.required("spec.group", "");
    } else if !reasons.is_empty() {
        findings.invalid("spec.group", &json!(group), &reasons.join(","));
    } else if !group.contains('.') {
        findings.invalid("spec.group", &json!(group), "should be a domain with at least one dot");
    }
    match spec.text("scope") {
        "" => findings.required("spec.scope", ""),
        "Cluster" | "Namespaced" => {}
        _ => findings.not_supported("spec.scope", spec.at("scope"), &["Cluster", "Namespaced"]),
    }
    let versions = spec.items("versions");
    for (index, version) in versions.iter().enumerate() {
        if version.at("schema.openAPIV3Schema").is_null() {
            findings.required(&format!("spec.versions[{index}].schema.openAPIV3Schema"), "");
        }
    }
    check_versions(versions, findings);
    check_names(spec.at("names"), findings);
    // Kubernetes keeps what all versions share in one place, and tells it as if it were written there.
    if let Some(first) = versions.first() {
        if is_shared(versions, "schema") {
            schema::check(first, "spec.validation", findings);
        }
        if is_shared(versions, "subresources") {
            subresources(first, "spec", findings);
        }
        if is_shared(versions, "additionalPrinterColumns") {
            columns(first, "spec", findings);
        }
    }
    let stored = definition.items("status.storedVersions");
    for version in versions.iter().filter(|version| version.at("storage") == &json!(true)) {
        if !stored.contains(version.at("name")) && definition.at("status").is_object() {
            let detail = format!("must have the storage version {}", version.text("name"));
            findings.invalid("status.storedVersions", definition.at("status.storedVersions"), &detail);
        }
    }
}

fn is_shared(versions: &[Value], part: &str) -> bool {
    versions.windows(2).all(|two| two[0].at(part) == two[1].at(part))
}

fn label(text: &str, field: &str, prefix: &str, findings: &mut Findings) {
    let reasons = names::label_1035(text);
    if !text.is_empty() && !reasons.is_empty() {
        findings.invalid(field, &json!(text), &format!("{prefix}{}", reasons.join(",")));
    }
}

fn check_versions(versions: &[Value], findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        let field = format!("spec.versions[{index}]");
        let name = version.text("name");
        seen.insert(name);
        let reasons = names::label_1035(name);
        if !reasons.is_empty() {
            findings.invalid(&format!("{field}.name"), &json!(name), &reasons.join(","));
        }
        if let Some(warning) = version.at("deprecationWarning").as_str() {
            let detail = match (version.at("deprecated") == &json!(true), warning) {
                (false, _) => "can only be set for deprecated versions",
                (true, "") => "must not be an empty string",
                (true, _) => "",
            };
            if !detail.is_empty() {
                findings.invalid(&format!("{field}.deprecationWarning"), &json!(warning), detail);
            }
        }
        if !is_shared(versions, "schema") {
            schema::check(version, &format!("{field}.schema"), findings);
        }
        if !is_shared(versions, "subresources") {
            subresources(version, &field, findings);
        }
        if !is_shared(versions, "additionalPrinterColumns") {
            columns(version, &field, findings);
        }
    }
    if seen.len() != versions.len() {
        findings.invalid("spec.versions", &json!(versions), "must contain unique version names");
    }
    if versions.iter().filter(|version| version.at("storage") == &json!(true)).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        findings.invalid("spec.versions", &json!(versions), detail);
    }
    // The first version has a second name, from the time when there was one.
    label(versions.first().map_or("", |version| version.text("name")), "spec.version", "", findings);
}

fn check_names(names: &Value, findings: &mut Findings) {
    const MIXED: &str = "may have mixed case, but should otherwise match: ";
    for name in ["plural", "singular", "kind", "listKind"] {
        if names.text(name).is_empty() {
            findings.required(&format!("spec.names.{name}"), "");
        }
    }
    for name in ["plural", "singular"] {
        label(names.text(name), &format!("spec.names.{name}"), "", findings);
    }
    for name in ["kind", "listKind"] {
        let (text, field) = (names.text(name), format!("spec.names.{name}"));
        let reasons = names::label_1035(&text.to_lowercase());
        if !text.is_empty() && !reasons.is_empty() {
            findings.invalid(&field, &json!(text), &format!("{MIXED}{}", reasons.join(",")));
        }
    }
    let list = |list: &str, findings: &mut Findings| {
        for (index, name) in names.items(list).iter().filter_map(Value::as_str).enumerate() {
            label(name, &format!("spec.names.{list}[{index}]"), "", findings);
        }
    };
    list("shortNames", findings);
    if !names.text("kind").is_empty() && names.text("kind") == names.text("listKind") {
        let detail = "kind and listKind may not be the same";
        findings.invalid("spec.names.listKind", names.at("listKind"), detail);
    }
    list("categories", findings);
}

/// A path such as `.spec.replicas`.
fn is_simple_path(path: &str) -> bool {
    path.strip_prefix('.').is_some_and(|rest| rest.split('.').all(|step| !step.is_empty()))
        && !path.contains(['[', ']', '(', ')', '*', '@', ' '])
}

fn subresources(version: &Value, field: &str, findings: &mut Findings) {
    let scale = version.at("subresources.scale");
    if !scale.is_object() {
        return;
    }
    let rules: [(&str, &[&str], &str); 3] = [
        ("specReplicasPath", &[".spec."], "should be a json path under .spec"),
        ("statusReplicasPath", &[".status."], "should be a json path under .status"),
        ("labelSelectorPath", &[".spec.", ".status."], "should be a json path under either .spec or .status"),
    ];
    for (name, starts, detail) in rules {
        let (path, field) = (scale.text(name), format!("{field}.subresources.scale.{name}"));
        if path.is_empty() {
            if name != "labelSelectorPath" {
                findings.required(&field, "");
            }
        } else if !is_simple_path(path) {
            findings.invalid(&field, &json!(path), "must be a simple json path starting with .");
        } else if !starts.iter().any(|start| path.starts_with(start)) {
            findings.invalid(&field, &json!(path), detail);
        }
    }
}

fn columns(version: &Value, field: &str, findings: &mut Findings) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    for (index, column) in version.items("additionalPrinterColumns").iter().enumerate() {
        let field = format!("{field}.additionalPrinterColumns[{index}]");
        if column.text("name").is_empty() {
            findings.required(&format!("{field}.name"), "");
        }
        if column.text("type").is_empty() {
            let detail = format!("must be one of {}", TYPES.join(","));
            findings.required(&format!("{field}.type"), &detail);
        }
        let mut one_of = |name: &str, choices: &[&str]| {
            let text = column.text(name);
            if !text.is_empty() && !choices.contains(&text) {
                let detail = format!("must be one of {}", choices.join(","));
                findings.invalid(&format!("{field}.{name}"), &json!(text), &detail);
            }
        };
        one_of("type", &TYPES);
        one_of("format", &FORMATS);
        // Kubernetes writes the field like this.
        let (path, field) = (column.text("jsonPath"), format!("{field}.JSONPath"));
        if path.is_empty() {
            findings.required(&field, "");
        } else if !path.starts_with('.') {
            findings.invalid(&field, &json!(path), "must be a simple json path starting with .");
        }
    }
}

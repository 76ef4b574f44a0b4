//! Configurations of admission webhooks.
//!
//! Not handled: the rules' own fields beyond operations, whose types are checked as those of every field.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Fields as _, Findings, admission, metadata, names};

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

pub(super) fn configuration(configuration: &Value, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, webhook) in configuration.items("webhooks").iter().enumerate() {
        let field = format!("webhooks[{index}]");
        check(webhook, &field, findings);
        versions(webhook.items("admissionReviewVersions"), &format!("{field}.admissionReviewVersions"), findings);
        let name = webhook.text("name");
        if !name.is_empty() && !seen.insert(name) {
            findings.duplicate(&format!("{field}.name"), &json!(name));
        }
    }
}

fn check(webhook: &Value, field: &str, findings: &mut Findings) {
    let at = |name: &str| format!("{field}.{name}");
    let name = webhook.text("name");
    if name.is_empty() {
        findings.required(&at("name"), "");
    } else {
        let reasons = names::subdomain(name);
        if reasons.is_empty() && name.split('.').count() < 3 {
            let detail = "should be a domain with at least three segments separated by dots";
            findings.invalid(&at("name"), &json!(name), detail);
        }
        findings.names(&at("name"), name, reasons);
    }
    for (index, rule) in webhook.items("rules").iter().enumerate() {
        operations(rule, &format!("{field}.rules[{index}].operations"), findings);
    }
    findings.choice(&at("failurePolicy"), webhook.at("failurePolicy"), &["Fail", "Ignore"]);
    findings.choice(&at("matchPolicy"), webhook.at("matchPolicy"), &["Equivalent", "Exact"]);
    match webhook.text("sideEffects") {
        "" => findings.required(&at("sideEffects"), "must specify one of None, NoneOnDryRun"),
        "None" | "NoneOnDryRun" => {}
        _ => findings.not_supported(&at("sideEffects"), webhook.at("sideEffects"), &["None", "NoneOnDryRun"]),
    }
    if webhook.integer("timeoutSeconds").is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        findings.invalid(&at("timeoutSeconds"), webhook.at("timeoutSeconds"), detail);
    }
    for name in ["namespaceSelector", "objectSelector"] {
        metadata::selector(webhook.at(name), &at(name), findings);
    }
    client(webhook.at("clientConfig"), &at("clientConfig"), findings);
    admission::conditions(webhook, &at("matchConditions"), &admission::variables(false), findings);
}

fn client(client: &Value, field: &str, findings: &mut Findings) {
    let (url, service) = (client.at("url"), client.at("service"));
    match (url.as_str(), service.is_object()) {
        (None, true) => {
            for name in ["name", "namespace"] {
                if service.text(name).is_empty() {
                    findings.required(&format!("{field}.service.{name}"), &format!("service {name} is required"));
                }
            }
            findings.port(&format!("{field}.service.port"), service.at("port"));
        }
        (Some(text), false) => {
            let parsed = text.parse::<http::Uri>();
            let field = format!("{field}.url");
            match parsed {
                Err(error) => {
                    let detail = format!("url must be a valid URL: {error}; desired format: https://host[/path]");
                    findings.required(&field, &detail);
                }
                Ok(uri) if uri.scheme_str() != Some("https") => {
                    let detail = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
                    findings.invalid(&field, &json!(uri.scheme_str().unwrap_or_default()), detail);
                }
                Ok(_) => {}
            }
        }
        _ => findings.required(field, "exactly one of url or service is required"),
    }
}

fn operations(rule: &Value, field: &str, findings: &mut Findings) {
    let operations = rule.items("operations");
    if operations.is_empty() {
        findings.required(field, "");
    }
    if operations.len() > 1 && operations.iter().any(|one| one == "*") {
        findings.invalid(field, rule.at("operations"), "if '*' is present, must not specify other operations");
    }
    for (index, operation) in operations.iter().enumerate() {
        findings.choice(&format!("{field}[{index}]"), operation, &OPERATIONS);
    }
}

fn versions(versions: &[Value], field: &str, findings: &mut Findings) {
    if versions.is_empty() {
        findings.required(field, "must specify one of v1, v1beta1");
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        let (text, field) = (version.as_str().unwrap_or_default(), format!("{field}[{index}]"));
        if versions[..index].contains(version) {
            findings.invalid(&field, version, "duplicate version");
            continue;
        }
        findings.names(&field, text, names::label_1035(text));
    }
    if !versions.iter().any(|version| version == "v1" || version == "v1beta1") {
        findings.invalid(field, &json!(versions), "must include at least one of v1, v1beta1");
    }
}

//! Pods and pod templates.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Fields as _, Findings, metadata, names};
use crate::scheme::quantity::Quantity;

pub(super) fn check_pod(pod: &Value, _old: Option<&Value>, findings: &mut Findings) {
    check_spec(pod.at("spec"), "spec", findings);
}

/// A template: labels, annotations and the spec.
pub(super) fn check_template(template: &Value, field: &str, findings: &mut Findings) {
    metadata::labels(template.at("metadata.labels"), &format!("{field}.labels"), findings);
    metadata::annotations(template.at("metadata.annotations"), &format!("{field}.annotations"), findings);
    check_spec(template.at("spec"), &format!("{field}.spec"), findings);
}

fn check_spec(spec: &Value, field: &str, findings: &mut Findings) {
    let volumes = volumes(spec, field, findings);
    let mut seen = BTreeSet::new();
    let containers = spec.items("containers");
    if containers.is_empty() {
        findings.required(&format!("{field}.containers"), "");
    }
    for kind in ["containers", "initContainers"] {
        for (index, container) in spec.items(kind).iter().enumerate() {
            let field = format!("{field}.{kind}[{index}]");
            check_container(container, &field, &volumes, findings);
            let name = container.text("name");
            if !name.is_empty() && !seen.insert(name.to_owned()) {
                findings.duplicate(&format!("{field}.name"), &json!(name));
            }
        }
    }
    for (name, least) in [("terminationGracePeriodSeconds", 0), ("activeDeadlineSeconds", 1)] {
        if let Some(number) = spec.integer(name).filter(|number| *number < least) {
            let detail = match name {
                "activeDeadlineSeconds" => "must be between 1 and 2147483647, inclusive",
                _ => "must be greater than or equal to 0",
            };
            findings.invalid(&format!("{field}.{name}"), &json!(number), detail);
        }
    }
    metadata::labels(spec.at("nodeSelector"), &format!("{field}.nodeSelector"), findings);
    let account = spec.text("serviceAccountName");
    if !account.is_empty() {
        findings.names(&format!("{field}.serviceAccountName"), account, names::subdomain(account));
    }
    for (index, constraint) in spec.items("topologySpreadConstraints").iter().enumerate() {
        let field = format!("{field}.topologySpreadConstraints[{index}]");
        if constraint.integer("maxSkew").unwrap_or(0) <= 0 {
            findings.invalid(&format!("{field}.maxSkew"), constraint.at("maxSkew"), "must be greater than zero");
        }
        if constraint.text("topologyKey").is_empty() {
            findings.required(&format!("{field}.topologyKey"), "can not be empty");
        }
    }
}

/// The names of the volumes.
fn volumes(spec: &Value, field: &str, findings: &mut Findings) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for (index, volume) in spec.items("volumes").iter().enumerate() {
        let field = format!("{field}.volumes[{index}]");
        let name = volume.text("name");
        if name.is_empty() {
            findings.required(&format!("{field}.name"), "");
        } else {
            findings.names(&format!("{field}.name"), name, names::label(name));
        }
        let sources: Vec<_> =
            volume.as_object().into_iter().flatten().filter(|(name, _)| name.as_str() != "name").collect();
        match &sources[..] {
            [] => findings.required(&field, "must specify a volume type"),
            [_] => {}
            [_, rest @ ..] => {
                for (kind, _) in rest {
                    findings.forbidden(&format!("{field}.{kind}"), "may not specify more than 1 volume type");
                }
            }
        }
        for (kind, required) in [
            ("configMap", "name"),
            ("secret", "secretName"),
            ("persistentVolumeClaim", "claimName"),
            ("hostPath", "path"),
        ] {
            let source = volume.at(kind);
            if source.is_object() && source.text(required).is_empty() {
                findings.required(&format!("{field}.{kind}.{required}"), "");
            }
        }
        if !seen.insert(name.to_owned()) && !name.is_empty() {
            findings.duplicate(&format!("{field}.name"), &json!(name));
        }
    }
    seen
}

fn check_container(container: &Value, field: &str, volumes: &BTreeSet<String>, findings: &mut Findings) {
    let name = container.text("name");
    if name.is_empty() {
        findings.required(&format!("{field}.name"), "");
    } else {
        findings.names(&format!("{field}.name"), name, names::label(name));
    }
    let image = container.text("image");
    if image.is_empty() {
        findings.required(&format!("{field}.image"), "");
    } else if image.trim() != image {
        findings.invalid(&format!("{field}.image"), &json!(image), "must not have leading or trailing whitespace");
    }
    if !matches!(container.text("imagePullPolicy"), "" | "Always" | "IfNotPresent" | "Never") {
        let policy = container.at("imagePullPolicy");
        findings.not_supported(&format!("{field}.imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
    }
    ports(container, field, findings);
    for (index, variable) in container.items("env").iter().enumerate() {
        let field = format!("{field}.env[{index}]");
        let name = variable.text("name");
        if name.is_empty() {
            findings.required(&format!("{field}.name"), "");
        } else {
            findings.names(&format!("{field}.name"), name, names::environment(name));
        }
        let from = variable.at("valueFrom");
        if from.is_object() {
            if !variable.text("value").is_empty() {
                findings.invalid(
                    &format!("{field}.valueFrom"),
                    &json!(""),
                    "may not be specified when `value` is not empty",
                );
            }
            if from.as_object().is_some_and(serde_json::Map::is_empty) {
                findings.invalid(
                    &format!("{field}.valueFrom"),
                    &json!(""),
                    "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
                );
            }
            for kind in ["configMapKeyRef", "secretKeyRef"] {
                let source = from.at(kind);
                if source.is_object() && source.text("key").is_empty() {
                    findings.required(&format!("{field}.valueFrom.{kind}.key"), "");
                }
            }
        }
    }
    let mut paths = BTreeSet::new();
    for (index, mount) in container.items("volumeMounts").iter().enumerate() {
        let field = format!("{field}.volumeMounts[{index}]");
        let name = mount.text("name");
        if name.is_empty() {
            findings.required(&format!("{field}.name"), "");
        }
        if !volumes.contains(name) {
            findings.with_value(super::Reason::NotFound, &format!("{field}.name"), &json!(name), "");
        }
        let path = mount.text("mountPath");
        if path.is_empty() {
            findings.required(&format!("{field}.mountPath"), "");
        } else if !paths.insert(path.to_owned()) {
            findings.invalid(&format!("{field}.mountPath"), &json!(path), "must be unique");
        }
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        probe(container.at(kind), &format!("{field}.{kind}"), kind, findings);
    }
    resources(container.at("resources"), &format!("{field}.resources"), findings);
}

fn in_range(number: Option<i64>) -> bool {
    number.is_some_and(|number| (1..=65535).contains(&number))
}

const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";

fn ports(container: &Value, field: &str, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, port) in container.items("ports").iter().enumerate() {
        let field = format!("{field}.ports[{index}]");
        let name = port.text("name");
        if !name.is_empty() {
            findings.names(&format!("{field}.name"), name, names::port_name(name));
            if !seen.insert(name.to_owned()) {
                findings.duplicate(&format!("{field}.name"), &json!(name));
            }
        }
        match port.integer("containerPort") {
            None | Some(0) => findings.required(&format!("{field}.containerPort"), ""),
            number if !in_range(number) => {
                findings.invalid(&format!("{field}.containerPort"), port.at("containerPort"), PORT_RANGE);
            }
            _ => {}
        }
        if port.at("hostPort").is_number() && !in_range(port.integer("hostPort")) {
            findings.invalid(&format!("{field}.hostPort"), port.at("hostPort"), PORT_RANGE);
        }
    }
}

fn probe(probe: &Value, field: &str, kind: &str, findings: &mut Findings) {
    if probe.is_null() {
        return;
    }
    let handlers: Vec<_> =
        ["exec", "httpGet", "tcpSocket", "grpc"].into_iter().filter(|name| probe.at(name).is_object()).collect();
    match &handlers[..] {
        [] => findings.required(field, "must specify a handler type"),
        [_] => {}
        [_, rest @ ..] => {
            for name in rest {
                findings.forbidden(&format!("{field}.{name}"), "may not specify more than 1 handler type");
            }
        }
    }
    for name in ["httpGet", "tcpSocket"] {
        let port = probe.at(name).at("port");
        let field = format!("{field}.{name}.port");
        match port {
            Value::Number(number) if !in_range(number.as_i64()) => findings.invalid(&field, port, PORT_RANGE),
            Value::String(text) => findings.names(&field, text, names::port_name(text)),
            _ => {}
        }
    }
    for name in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if let Some(number) = probe.integer(name).filter(|number| *number < 0) {
            findings.invalid(&format!("{field}.{name}"), &json!(number), "must be greater than or equal to 0");
        }
    }
    if kind != "readinessProbe" && probe.integer("successThreshold").is_some_and(|number| number != 1) {
        findings.invalid(&format!("{field}.successThreshold"), probe.at("successThreshold"), "must be 1");
    }
}

/// Requests and limits.
pub(super) fn resources(resources: &Value, field: &str, findings: &mut Findings) {
    let amount = |value: &Value| value.as_str().and_then(Quantity::parse);
    for kind in ["limits", "requests"] {
        for (name, value) in resources.at(kind).as_object().into_iter().flatten() {
            let field = format!("{field}.{kind}[{name}]");
            let standard = name.contains('/')
                || matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage" | "storage")
                || name.starts_with("hugepages-");
            if !standard {
                findings.invalid(&field, &json!(name), "must be a standard resource type or fully qualified");
                findings.invalid(&field, &json!(name), "must be a standard resource for containers");
            }
            if amount(value).is_some_and(Quantity::is_negative) {
                findings.invalid(&field, value, "must be greater than or equal to 0");
            }
        }
    }
    for (name, request) in resources.at("requests").as_object().into_iter().flatten() {
        if let Some(limit) = resources.at("limits").get(name)
            && let (Some(most), Some(least)) = (amount(limit), amount(request))
            && least > most
        {
            let text = limit.as_str().unwrap_or_default();
            findings.invalid(
                &format!("{field}.requests"),
                request,
                &format!("must be less than or equal to {name} limit of {text}"),
            );
        }
    }
}

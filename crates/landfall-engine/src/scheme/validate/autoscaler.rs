//! Autoscalers: their bounds, what they scale, and by which metrics.

use serde_json::{Value, json};

use super::{Fields as _, Findings, names, pod};
use crate::scheme::quantity::Quantity;

/// The longest time that a scaling rule looks back, in seconds.
const LONGEST_WINDOW: i64 = 3600;

/// The longest period of a scaling policy, in seconds.
const LONGEST_PERIOD: i64 = 1800;

/// Where each type of metric keeps what it needs.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

pub(super) fn check(spec: &Value, findings: &mut Findings) {
    let (least, most) = (spec.integer("minReplicas"), spec.integer("maxReplicas").unwrap_or(0));
    if let Some(least) = least.filter(|least| *least < 1) {
        findings.invalid("spec.minReplicas", &json!(least), "must be greater than or equal to 1");
    }
    match most {
        0 => findings.required("spec.maxReplicas", "must be set and greater than 0"),
        ..0 => findings.invalid("spec.maxReplicas", &json!(most), "must be greater than or equal to 1"),
        _ => {}
    }
    if least.is_some_and(|least| most < least) {
        findings.invalid("spec.maxReplicas", &json!(most), "must be greater than or equal to `minReplicas`");
    }
    reference(spec.at("scaleTargetRef"), "spec.scaleTargetRef", Group::Required, findings);
    for (index, one) in spec.items("metrics").iter().enumerate() {
        metric(one, &format!("spec.metrics[{index}]"), findings);
    }
    let from_outside = |one: &Value| matches!(one.text("type"), "Object" | "External");
    if least == Some(0) && !spec.items("metrics").iter().any(from_outside) {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        findings.forbidden("spec.metrics", detail);
    }
    for direction in ["scaleUp", "scaleDown"] {
        let rules = spec.at("behavior").at(direction);
        if rules.is_object() {
            scaling(rules, &format!("spec.behavior.{direction}"), findings);
        }
    }
}

/// Whether a reference may be to the core group.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Required,
    Optional,
}

fn reference(reference: &Value, field: &str, group: Group, findings: &mut Findings) {
    for name in ["kind", "name"] {
        let text = reference.text(name);
        let field = format!("{field}.{name}");
        if text.is_empty() {
            findings.required(&field, "");
        } else {
            findings.names(&field, text, names::path_segment(text));
        }
    }
    let version = reference.text("apiVersion");
    let detail = if version.matches('/').count() > 1 {
        format!("unexpected GroupVersion string: {version}")
    } else if group == Group::Required && !version.contains('/') && reference.text("kind") != "ReplicationController" {
        "apiVersion must specify API group".to_owned()
    } else {
        return;
    };
    findings.invalid(&format!("{field}.apiVersion"), &json!(version), &detail);
}

fn metric(metric: &Value, field: &str, findings: &mut Findings) {
    let kind = metric.text("type");
    let choices = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    if kind.is_empty() {
        findings.required(&format!("{field}.type"), "must specify a metric source type");
    }
    let known = choices.contains(&kind);
    // Kubernetes says it twice.
    let unknown = |findings: &mut Findings| {
        if !known {
            findings.not_supported(&format!("{field}.type"), &json!(kind), &choices);
        }
    };
    unknown(findings);
    let given: Vec<_> = SOURCES.iter().filter(|(_, source)| metric.at(source).is_object()).collect();
    if let Some((_, first)) = given.first() {
        source(first, metric.at(first), &format!("{field}.{first}"), findings);
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind).map(|(_, source)| *source);
    if let Some(source) = expected.filter(|source| !metric.at(source).is_object()) {
        let detail = "must populate information for the given metric source";
        findings.required(&format!("{field}.{source}"), detail);
    }
    unknown(findings);
    if given.len() > 1 || expected.is_none() {
        for (_, other) in given.iter().filter(|(_, source)| Some(*source) != expected) {
            findings.forbidden(&format!("{field}.{other}"), "must populate the given metric source only");
        }
    }
}

fn source(kind: &str, source: &Value, field: &str, findings: &mut Findings) {
    let target = source.at("target");
    let (value, average, share) = (target.at("value"), target.at("averageValue"), target.at("averageUtilization"));
    let field_of = |name: &str| format!("{field}.target.{name}");
    let identify = |findings: &mut Findings| {
        let (name, field) = (source.text("metric.name"), format!("{field}.metric.name"));
        if name.is_empty() {
            findings.required(&field, "must specify a metric name");
        } else {
            findings.names(&field, name, names::path_segment(name));
        }
    };
    match kind {
        "resource" | "containerResource" => {
            let name = source.text("name");
            if name.is_empty() {
                findings.required(&format!("{field}.name"), "must specify a resource name");
            } else if kind == "containerResource" {
                pod::container_resource(name, &format!("{field}.name"), findings);
            }
            if kind == "containerResource" {
                let (container, field) = (source.text("container"), format!("{field}.container"));
                if container.is_empty() {
                    findings.required(&field, "must specify a container");
                } else {
                    findings.names(&field, container, names::label(container));
                }
            }
            check_target(target, &format!("{field}.target"), findings);
            if share.is_null() && average.is_null() {
                let detail = "must set either a target raw value or a target utilization";
                findings.required(&field_of("averageUtilization"), detail);
            } else if !share.is_null() && !average.is_null() {
                let detail = "may not set both a target raw value and a target utilization";
                findings.forbidden(&field_of("averageValue"), detail);
            }
        }
        "pods" => {
            identify(findings);
            check_target(target, &format!("{field}.target"), findings);
            if average.is_null() {
                findings.required(&field_of("averageValue"), "must specify a positive target averageValue");
            }
        }
        "object" => {
            reference(source.at("describedObject"), &format!("{field}.describedObject"), Group::Optional, findings);
            identify(findings);
            check_target(target, &format!("{field}.target"), findings);
            if value.is_null() && average.is_null() {
                findings.required(&field_of("averageValue"), "must set either a target value or averageValue");
            }
        }
        _ => {
            identify(findings);
            check_target(target, &format!("{field}.target"), findings);
            if value.is_null() && average.is_null() {
                let detail = "must set either a target value for metric or a per-pod target";
                findings.required(&field_of("averageValue"), detail);
            } else if !value.is_null() && !average.is_null() {
                let detail = "may not set both a target value for metric and a per-pod target";
                findings.forbidden(&field_of("value"), detail);
            }
        }
    }
}

fn check_target(target: &Value, field: &str, findings: &mut Findings) {
    let kind = target.text("type");
    if kind.is_empty() {
        findings.required(&format!("{field}.type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        findings.invalid(&format!("{field}.type"), &json!(kind), detail);
    }
    for name in ["value", "averageValue"] {
        let amount = target.at(name).as_str().and_then(Quantity::parse);
        if amount.is_some_and(|amount| amount.nanos() <= 0) {
            findings.invalid(&format!("{field}.{name}"), target.at(name), "must be positive");
        }
    }
    if target.integer("averageUtilization").is_some_and(|percent| percent < 1) {
        let value = target.at("averageUtilization");
        findings.invalid(&format!("{field}.averageUtilization"), value, "must be greater than 0");
    }
}

fn scaling(rules: &Value, field: &str, findings: &mut Findings) {
    let (window, inner) = (rules.at("stabilizationWindowSeconds"), format!("{field}.stabilizationWindowSeconds"));
    if window.as_i64().is_some_and(|seconds| seconds < 0) {
        findings.invalid(&inner, window, "must be greater than or equal to zero");
    }
    if window.as_i64().is_some_and(|seconds| seconds > LONGEST_WINDOW) {
        findings.invalid(&inner, window, &format!("must be less than or equal to {LONGEST_WINDOW}"));
    }
    findings.choice(&format!("{field}.selectPolicy"), rules.at("selectPolicy"), &["Disabled", "Max", "Min"]);
    let policies = rules.items("policies");
    if policies.is_empty() {
        findings.required(&format!("{field}.policies"), "must specify at least one Policy");
    }
    for (index, policy) in policies.iter().enumerate() {
        let field = format!("{field}.policies[{index}]");
        let kind = policy.text("type");
        if !matches!(kind, "Percent" | "Pods") {
            findings.not_supported(&format!("{field}.type"), &json!(kind), &["Percent", "Pods"]);
        }
        for name in ["value", "periodSeconds"] {
            let number = policy.integer(name).unwrap_or(0);
            if number <= 0 {
                findings.invalid(&format!("{field}.{name}"), &json!(number), "must be greater than zero");
            }
        }
        let period = policy.at("periodSeconds");
        if period.as_i64().is_some_and(|seconds| seconds > LONGEST_PERIOD) {
            let detail = format!("must be less than or equal to {LONGEST_PERIOD}");
            findings.invalid(&format!("{field}.periodSeconds"), period, &detail);
        }
    }
    let tolerance = rules.at("tolerance");
    if tolerance.as_str().and_then(Quantity::parse).is_some_and(Quantity::is_negative) {
        findings.invalid(&format!("{field}.tolerance"), tolerance, "must be greater than or equal to 0");
    }
}

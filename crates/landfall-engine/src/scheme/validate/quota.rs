//! Quotas of a namespace, and the limits of what is in it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Fields as _, Findings, names, pod};
use crate::scheme::quantity::Quantity;

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "VolumeAttributesClass",
    "CrossNamespacePodAffinity",
];

/// Not handled: the expressions of `scopeSelector`.
pub(super) fn quota(spec: &Value, findings: &mut Findings) {
    for (name, value) in spec.at("hard").as_object().into_iter().flatten() {
        let field = format!("spec.hard[{name}]");
        pod::resource_name(name, &field, findings);
        if !name.contains('/') && !pod::is_quota_resource(name) {
            findings.invalid(&field, &json!(name), "must be a standard resource for quota");
        }
        pod::quantity(name, value, &field, findings);
    }
    let scopes: Vec<_> = spec.items("scopes").iter().filter_map(Value::as_str).collect();
    let mut refuse = |detail: &str| findings.invalid("spec.scopes", spec.at("scopes"), detail);
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            refuse("unsupported scope");
        }
        let limited = spec.at("hard").as_object().into_iter().flatten().map(|(name, _)| name);
        for name in limited.filter(|name| pod::is_quota_resource(name)) {
            if !covers(scope, name) {
                refuse("unsupported scope applied to resource");
            }
        }
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|one| scopes.contains(one)) {
            refuse("conflicting scopes");
        }
    }
}

/// Whether what a scope selects uses a resource.
fn covers(scope: &str, resource: &str) -> bool {
    let of_pods = ["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => !SCOPES.contains(&scope) || of_pods.contains(&resource),
    }
}

pub(super) fn limit_range(spec: &Value, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, limit) in spec.items("limits").iter().enumerate() {
        let field = format!("spec.limits[{index}]");
        let kind = limit.text("type");
        let reasons = names::qualified(kind);
        if !reasons.is_empty() {
            findings.names(&format!("{field}.type"), kind, reasons);
        } else if !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") {
            let detail = "must be a standard limit type or fully qualified";
            findings.invalid(&format!("{field}.type"), &json!(kind), detail);
        }
        if !seen.insert(kind) {
            findings.duplicate(&format!("{field}.type"), &json!(kind));
        }
        let mut resources = BTreeSet::new();
        for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            let values = limit.at(list).as_object();
            if kind == "Pod" && list.starts_with("default") {
                if values.is_some_and(|values| !values.is_empty()) {
                    findings.forbidden(&format!("{field}.{list}"), "may not be specified when `type` is 'Pod'");
                }
                continue;
            }
            for (name, _) in values.into_iter().flatten() {
                let field = format!("{field}.{list}[{name}]");
                if matches!(kind, "Pod" | "Container") {
                    pod::container_resource(name, &field, findings);
                } else {
                    pod::resource_name(name, &field, findings);
                }
                resources.insert(name.as_str());
            }
        }
        if kind == "PersistentVolumeClaim" && ["min", "max"].iter().all(|list| limit.at(list).get("storage").is_none())
        {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            findings.required(&format!("{field}.limits"), detail);
        }
        for name in resources {
            order(limit, name, &field, findings);
        }
    }
}

/// The amounts of one resource are in order: least, default request, default limit, most.
///
/// Not handled: a ratio that is larger than the most divided by the least.
fn order(limit: &Value, name: &str, field: &str, findings: &mut Findings) {
    let amount = |list: &str| {
        let value = limit.at(list).get(name)?;
        Some((value, Quantity::parse(value.as_str()?)?))
    };
    // What must not be more than what, what is shown of it, and how both are called.
    let rules = [
        ("min", "max", "min", "min", "min value", "max value"),
        ("min", "defaultRequest", "defaultRequest", "defaultRequest", "min value", "default request value"),
        ("defaultRequest", "max", "defaultRequest", "defaultRequest", "default request value", "max value"),
        (
            "defaultRequest",
            "default",
            "defaultRequest",
            "defaultRequest",
            "default request value",
            "default limit value",
        ),
        ("min", "default", "default", "min", "min value", "default value"),
        ("default", "max", "default", "max", "default value", "max value"),
    ];
    for (less, more, at, shown, less_name, more_name) in rules {
        if let (Some((less, smaller)), Some((more, larger)), Some((shown, _))) =
            (amount(less), amount(more), amount(shown))
            && smaller > larger
            && (kind_has_defaults(limit) || !at.starts_with("default"))
        {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let detail = format!("{less_name} {} is greater than {more_name} {}", text(less), text(more));
            findings.invalid(&format!("{field}.{at}[{name}]"), shown, &detail);
        }
    }
    if let Some((ratio, amount)) = amount("maxLimitRequestRatio")
        && amount.nanos() < 1_000_000_000
    {
        let detail = format!("ratio {} is less than 1", ratio.as_str().unwrap_or_default());
        findings.invalid(&format!("{field}.maxLimitRequestRatio[{name}]"), ratio, &detail);
    }
}

/// Defaults of pods are refused as a whole.
fn kind_has_defaults(limit: &Value) -> bool {
    limit.text("type") != "Pod"
}

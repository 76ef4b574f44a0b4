//! Autoscalers, disruption budgets, roles, storage and priority classes.

use serde_json::{Value, json};

use super::{Fields as _, Findings, metadata, workload};
use crate::scheme::Resource;

pub(super) fn check(resource: &Resource, new: &Value, findings: &mut Findings) {
    match resource.kind.as_str() {
        "HorizontalPodAutoscaler" => autoscaler(new.at("spec"), findings),
        "PodDisruptionBudget" => budget(new.at("spec"), findings),
        "Role" | "ClusterRole" => rules(new, resource.namespaced, findings),
        "RoleBinding" | "ClusterRoleBinding" => binding(resource, new, findings),
        "StorageClass" if new.text("provisioner").is_empty() => findings.required("provisioner", ""),
        "PriorityClass" => {
            let name = new.text("metadata.name");
            let value = new.integer("value").unwrap_or(0);
            if name.starts_with("system-") && !matches!(name, "system-node-critical" | "system-cluster-critical") {
                let detail = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {name} is not a \
                     known system priority class"
                );
                findings.forbidden("metadata.name", &detail);
            } else if value > 1_000_000_000 && !name.starts_with("system-") {
                findings.forbidden("value", "maximum allowed value of a user defined priority is 1000000000");
            }
        }
        _ => {}
    }
}

fn autoscaler(spec: &Value, findings: &mut Findings) {
    let (least, most) = (spec.integer("minReplicas").unwrap_or(1), spec.integer("maxReplicas").unwrap_or(0));
    if least < 1 {
        findings.invalid("spec.minReplicas", &json!(least), "must be greater than or equal to 1");
    }
    if most < 1 {
        if most == 0 {
            findings.required("spec.maxReplicas", "must be set and greater than 0");
        } else {
            findings.invalid("spec.maxReplicas", &json!(most), "must be greater than 0");
        }
    }
    if most < least {
        findings.invalid("spec.maxReplicas", &json!(most), "must be greater than or equal to `minReplicas`");
    }
    for name in ["kind", "name"] {
        if spec.at("scaleTargetRef").text(name).is_empty() {
            findings.required(&format!("spec.scaleTargetRef.{name}"), "");
        }
    }
    let target = spec.at("scaleTargetRef");
    if !target.text("apiVersion").contains('/') && target.text("kind") != "ReplicationController" {
        let version = json!(target.text("apiVersion"));
        findings.invalid("spec.scaleTargetRef.apiVersion", &version, "apiVersion must specify API group");
    }
    for (index, metric) in spec.items("metrics").iter().enumerate() {
        let field = format!("spec.metrics[{index}]");
        if metric.text("type").is_empty() {
            findings.required(&format!("{field}.type"), "must specify a metric source type");
        }
        let resource = metric.at("resource");
        if resource.is_object() {
            if resource.text("name").is_empty() {
                findings.required(&format!("{field}.resource.name"), "must specify a resource name");
            }
            if let Some(percent) = resource.integer("target.averageUtilization").filter(|percent| *percent < 1) {
                findings.invalid(
                    &format!("{field}.resource.target.averageUtilization"),
                    &json!(percent),
                    "must be greater than 0",
                );
            }
        }
    }
}

fn budget(spec: &Value, findings: &mut Findings) {
    if !spec.at("minAvailable").is_null() && !spec.at("maxUnavailable").is_null() {
        let value = json!({
            "MinAvailable": spec.at("minAvailable"),
            "Selector": spec.at("selector"),
            "MaxUnavailable": spec.at("maxUnavailable"),
            "UnhealthyPodEvictionPolicy": spec.at("unhealthyPodEvictionPolicy"),
        });
        findings.invalid("spec", &value, "minAvailable and maxUnavailable cannot be both set");
    }
    for name in ["minAvailable", "maxUnavailable"] {
        workload::number_or_percent(spec.at(name), &format!("spec.{name}"), findings);
    }
    metadata::selector(spec.at("selector"), "spec.selector", findings);
}

fn rules(role: &Value, namespaced: bool, findings: &mut Findings) {
    for (index, rule) in role.items("rules").iter().enumerate() {
        let field = format!("rules[{index}]");
        if rule.items("verbs").is_empty() {
            findings.required(&format!("{field}.verbs"), "verbs must contain at least one value");
        }
        if !rule.items("nonResourceURLs").is_empty() {
            if namespaced {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                findings.invalid(&format!("{field}.nonResourceURLs"), rule.at("nonResourceURLs"), detail);
            }
            continue;
        }
        if rule.items("apiGroups").is_empty() {
            findings.required(&format!("{field}.apiGroups"), "resource rules must supply at least one api group");
        }
        if rule.items("resources").is_empty() {
            findings.required(&format!("{field}.resources"), "resource rules must supply at least one resource");
        }
    }
}

fn binding(resource: &Resource, binding: &Value, findings: &mut Findings) {
    let role = binding.at("roleRef");
    let kinds: &[&str] = if resource.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.text("kind")) {
        findings.not_supported("roleRef.kind", role.at("kind"), kinds);
    }
    if role.text("name").is_empty() {
        findings.required("roleRef.name", "");
    }
    for (index, subject) in binding.items("subjects").iter().enumerate() {
        let field = format!("subjects[{index}]");
        if subject.text("name").is_empty() {
            findings.required(&format!("{field}.name"), "");
        }
        match subject.text("kind") {
            "ServiceAccount" if subject.text("namespace").is_empty() => {
                findings.required(&format!("{field}.namespace"), "");
            }
            "ServiceAccount" | "User" | "Group" => {}
            _ => findings.not_supported(
                &format!("{field}.kind"),
                subject.at("kind"),
                &["ServiceAccount", "User", "Group"],
            ),
        }
    }
}

/// An event lies beside the object that it is about; one about a cluster-scoped object in `default`.
pub(super) fn event(event: &Value, findings: &mut Findings) {
    let about = event.at("involvedObject").at("namespace");
    let namespace = event.at("metadata").text("namespace");
    let wanted = if about.as_str().unwrap_or_default().is_empty() { "default" } else { namespace };
    if namespace != wanted || !about.is_null() && about != namespace {
        findings.invalid("involvedObject.namespace", about, "does not match event.namespace");
    }
}

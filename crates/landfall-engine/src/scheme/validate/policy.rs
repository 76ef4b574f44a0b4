//! Disruption budgets, roles, storage and priority classes.

use serde_json::{Value, json};

use super::{Fields as _, Findings, admission, autoscaler, metadata, names, webhook, workload};
use crate::scheme::Resource;

/// The group of roles and of those who have them.
const RIGHTS: &str = "rbac.authorization.k8s.io";

pub(super) fn check(resource: &Resource, new: &Value, findings: &mut Findings) {
    match resource.kind.as_str() {
        "HorizontalPodAutoscaler" => autoscaler::check(new.at("spec"), findings),
        "ValidatingAdmissionPolicy" => admission::policy(new, findings),
        "ValidatingAdmissionPolicyBinding" => admission::binding(new, findings),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => webhook::configuration(new, findings),
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
        let field = format!("spec.{name}");
        workload::number_or_percent(spec.at(name), &field, findings);
        workload::at_most_all(spec.at(name), &field, findings);
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
    if role.text("apiGroup") != RIGHTS {
        findings.not_supported("roleRef.apiGroup", role.at("apiGroup"), &[RIGHTS]);
    }
    let kinds: &[&str] = if resource.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.text("kind")) {
        findings.not_supported("roleRef.kind", role.at("kind"), kinds);
    }
    if role.text("name").is_empty() {
        findings.required("roleRef.name", "");
    } else {
        findings.names("roleRef.name", role.text("name"), names::path_segment(role.text("name")));
    }
    for (index, subject) in binding.items("subjects").iter().enumerate() {
        let field = format!("subjects[{index}]");
        let (name, group) = (subject.text("name"), subject.text("apiGroup"));
        if name.is_empty() {
            findings.required(&format!("{field}.name"), "");
        }
        let wanted = match subject.text("kind") {
            "ServiceAccount" => {
                if !name.is_empty() {
                    findings.names(&format!("{field}.name"), name, names::subdomain(name));
                }
                // In a namespace, an account without one is of that namespace.
                if !resource.namespaced && subject.text("namespace").is_empty() {
                    findings.required(&format!("{field}.namespace"), "");
                }
                ""
            }
            "User" | "Group" => RIGHTS,
            _ => {
                let choices = ["ServiceAccount", "User", "Group"];
                findings.not_supported(&format!("{field}.kind"), subject.at("kind"), &choices);
                continue;
            }
        };
        if group != wanted {
            findings.not_supported(&format!("{field}.apiGroup"), &json!(group), &[wanted]);
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

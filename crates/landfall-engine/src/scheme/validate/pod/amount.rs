//! Requests and limits: names of resources, and how much of them.

use serde_json::{Value, json};

use super::super::{Fields as _, Findings, names};
use crate::scheme::quantity::Quantity;

/// Resources of containers.
const OF_CONTAINERS: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Resources that are counted and not measured.
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Resources of containers, as a quota names them.
const MEASURED: [&str; 7] = [
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "requests.storage",
];

/// A resource that Kubernetes itself knows.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified(&format!("requests.{name}")).is_empty()
}

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// More of it may be promised than there is.
fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// A resource that a quota may count.
pub(in super::super) fn is_quota_resource(name: &str) -> bool {
    OF_CONTAINERS.contains(&name)
        || MEASURED.contains(&name)
        || COUNTED.contains(&name)
        || is_huge_pages(name)
        || name.starts_with("requests.hugepages-")
}

/// The name of any resource. Answers whether it was one.
pub(in super::super) fn resource_name(name: &str, field: &str, findings: &mut Findings) -> bool {
    let reasons = names::qualified(name);
    if !reasons.is_empty() {
        findings.names(field, name, reasons);
        return false;
    }
    if !name.contains('/') && name != "storage" && !is_quota_resource(name) {
        findings.invalid(field, &json!(name), "must be a standard resource type or fully qualified");
        return false;
    }
    true
}

/// The name of a resource that a container may have.
pub(in super::super) fn container_resource(name: &str, field: &str, findings: &mut Findings) {
    resource_name(name, field, findings);
    if name.contains('/') {
        if !is_native(name) && !is_extended(name) {
            findings.invalid(field, &json!(name), "doesn't follow extended resource name standard");
        }
    } else if !OF_CONTAINERS.contains(&name) && !is_huge_pages(name) {
        findings.invalid(field, &json!(name), "must be a standard resource for containers");
    }
}

/// How much there is of a resource: nothing negative, and whole numbers of what is counted.
pub(in super::super) fn quantity(name: &str, value: &Value, field: &str, findings: &mut Findings) {
    let Some(amount) = parsed(value) else { return };
    if amount.is_negative() {
        findings.invalid(field, value, "must be greater than or equal to 0");
    }
    if (COUNTED.contains(&name) || is_extended(name)) && !amount.is_whole() {
        findings.invalid(field, value, "must be an integer");
    }
}

pub(in super::super) fn parsed(value: &Value) -> Option<Quantity> {
    value.as_str().and_then(Quantity::parse)
}

/// The requests and limits of a container.
pub(in super::super) fn resources(resources: &Value, field: &str, findings: &mut Findings) {
    let limits = resources.at("limits");
    for (name, value) in limits.as_object().into_iter().flatten() {
        let field = format!("{field}.limits[{name}]");
        container_resource(name, &field, findings);
        quantity(name, value, &field, findings);
    }
    for (name, value) in resources.at("requests").as_object().into_iter().flatten() {
        let inner = format!("{field}.requests[{name}]");
        container_resource(name, &inner, findings);
        quantity(name, value, &inner, findings);
        match limits.get(name) {
            Some(limit) => {
                let (Some(most), Some(wanted)) = (parsed(limit), parsed(value)) else { continue };
                let text = limit.as_str().unwrap_or_default();
                let detail = match wanted.cmp(&most) {
                    std::cmp::Ordering::Equal => continue,
                    _ if !may_overcommit(name) => format!("must be equal to {name} limit of {text}"),
                    std::cmp::Ordering::Greater => format!("must be less than or equal to {name} limit of {text}"),
                    std::cmp::Ordering::Less => continue,
                };
                findings.invalid(&format!("{field}.requests"), value, &detail);
            }
            None if !may_overcommit(name) => {
                findings.required(&format!("{field}.limits"), "Limit must be set for non overcommitable resources");
            }
            None => {}
        }
    }
    let has = |wanted: &dyn Fn(&str) -> bool| {
        let lists = ["limits", "requests"].into_iter().filter_map(|list| resources.at(list).as_object());
        lists.flatten().any(|(name, _)| wanted(name))
    };
    if has(&is_huge_pages) && !has(&|name| matches!(name, "cpu" | "memory")) {
        findings.forbidden(field, "HugePages require cpu or memory");
    }
}

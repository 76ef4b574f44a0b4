//! Priorities: which pods are placed first, and which make room, when nodes are full.

use std::collections::BTreeMap;

use crate::json::json;
use landfall_model::{Architecture, Finding, Name, Spanned};

use super::metadata::Subject;
use crate::object::Object;

/// The highest priority that Kubernetes leaves to its users.
const HIGHEST: i32 = 1_000_000_000;

/// The name of the class of a priority. Classes belong to the cluster, so it has the platform's name in it.
pub(super) fn class(architecture: &Architecture, priority: i32) -> String {
    let platform = &architecture.document.name;
    let sign = if priority < 0 { "minus-" } else { "" };
    format!("{platform}-{sign}{}", priority.unsigned_abs())
}

/// One class for each priority that a service has.
pub(super) fn objects(architecture: &Architecture, findings: &mut Vec<Finding>) -> Vec<Object> {
    let mut classes: BTreeMap<i32, Vec<&Spanned<Name>>> = BTreeMap::new();
    for (name, service) in &architecture.document.services {
        let Some(priority) = &service.priority else { continue };
        if priority.value > HIGHEST {
            findings.push(
                Finding::error("not-rendered", priority.span, format!("`{name}` has a priority above {HIGHEST}"))
                    .on(format!("service.{name}"))
                    .because("Kubernetes keeps higher ones for itself and refuses the class")
                    .help(format!("choose one of at most {HIGHEST}")),
            );
        } else {
            classes.entry(priority.value).or_default().push(name);
        }
    }
    let object = |(priority, services): (i32, Vec<&Spanned<Name>>)| {
        let names: Vec<&str> = services.iter().map(|name| name.as_str()).collect();
        let name = class(architecture, priority);
        let origin = format!("services.{}.priority", names[0]);
        let subject = Subject::platform(architecture, "", "priority", origin, services[0].span).in_folder("priority");
        let value = json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": subject.metadata(&name),
            "value": priority,
            "description": format!("For {}.", names.join(", ")),
        });
        subject.object(&name, value)
    };
    classes.into_iter().map(object).collect()
}

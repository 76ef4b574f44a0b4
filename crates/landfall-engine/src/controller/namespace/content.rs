//! What is left in a namespace, in the words of Kubernetes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::NamespaceCondition;
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};

/// What is left in a namespace that is being deleted, and what went wrong.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// By `plural.group`.
    objects: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
    pub(super) failures: Vec<String>,
    /// Why the kinds are not known.
    pub(super) undiscovered: Option<String>,
}

impl Left {
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.failures.is_empty() && self.undiscovered.is_none()
    }

    pub(super) fn add(&mut self, kind: &ApiResource, objects: &[PartialObjectMeta<DynamicObject>]) {
        if objects.is_empty() {
            return;
        }
        self.objects.insert(format!("{}.{}", kind.plural, kind.group), objects.len());
        for finalizer in objects.iter().flat_map(|object| object.metadata.finalizers.iter().flatten()) {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }
}

/// The conditions of a namespace that is being deleted, all five of them.
pub(super) fn conditions(left: &Left) -> Vec<NamespaceCondition> {
    let list = |counts: &BTreeMap<String, usize>, verb: &str| {
        let each = counts.iter().map(|(what, count)| format!("{what} {verb} {count} resource instances"));
        (!counts.is_empty()).then(|| each.collect::<Vec<_>>().join(", "))
    };
    let failed = (!left.failures.is_empty()).then(|| {
        let mut failures = left.failures.clone();
        failures.sort();
        let (count, all) = (failures.len(), failures.join(", "));
        format!("Failed to delete all resource types, {count} remaining: {all}")
    });
    let remaining = list(&left.objects, "has").map(|list| format!("Some resources are remaining: {list}"));
    let finalizers = list(&left.finalizers, "in")
        .map(|list| format!("Some content in the namespace has finalizers remaining: {list}"));
    vec![
        condition(
            "NamespaceDeletionDiscoveryFailure",
            ("DiscoveryFailed", left.undiscovered.clone()),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        condition(
            "NamespaceDeletionGroupVersionParsingFailure",
            ("GroupVersionParsingFailed", None),
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        condition(
            "NamespaceDeletionContentFailure",
            ("ContentDeletionFailed", failed),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        condition(
            "NamespaceContentRemaining",
            ("SomeResourcesRemain", remaining),
            ("ContentRemoved", "All content successfully removed"),
        ),
        condition(
            "NamespaceFinalizersRemaining",
            ("SomeFinalizersRemain", finalizers),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ]
}

/// A condition that is true when there is something to say.
fn condition(type_: &str, (bad, message): (&str, Option<String>), (good, fine): (&str, &str)) -> NamespaceCondition {
    NamespaceCondition {
        type_: type_.to_owned(),
        status: if message.is_some() { "True" } else { "False" }.to_owned(),
        reason: Some(if message.is_some() { bad } else { good }.to_owned()),
        message: Some(message.unwrap_or_else(|| fine.to_owned())),
        last_transition_time: None,
    }
}

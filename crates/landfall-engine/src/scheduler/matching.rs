//! Whether labels, nodes and taints match what a pod says of them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Expression, Selector, SelectorExt as _};

pub(crate) type Labels = BTreeMap<String, String>;

/// A label selector, read once. One that is absent or cannot be read selects nothing.
#[derive(Debug, Clone)]
pub(crate) struct LabelMatcher(Option<Selector>);

impl LabelMatcher {
    pub(crate) fn read(selector: Option<&LabelSelector>) -> Self {
        Self(selector.and_then(|selector| selector.clone().try_into().ok()))
    }

    /// All of these labels.
    pub(crate) fn exactly(labels: &Labels) -> Self {
        Self(Some(labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()))
    }

    /// The same, and also what `with` selects.
    pub(crate) fn and<E: IntoIterator<Item = Expression>>(self, expressions: E) -> Self {
        Self(self.0.map(|mut selector| {
            selector.extend(expressions);
            selector
        }))
    }

    /// The same, and also what `selector` selects.
    pub(crate) fn and_selector(self, selector: &LabelSelector) -> Self {
        match selector.clone().try_into() {
            Ok(selector) => self.and::<Selector>(selector),
            Err(_) => Self(None),
        }
    }

    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.0.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}

/// Whether a node matches one of the terms. A term that says nothing matches nothing.
pub(crate) fn node_matches(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

pub(crate) fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |key: &str| node.metadata.labels.as_ref()?.get(key).map(String::as_str);
    // The name is the only field of a node that can be selected.
    let field = |key: &str| (key == "metadata.name").then_some(node.metadata.name.as_deref()?);
    expressions.iter().all(|expression| requirement_holds(expression, label(&expression.key)))
        && fields.iter().all(|expression| requirement_holds(expression, field(&expression.key)))
}

fn requirement_holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|listed| listed == value));
    let compared = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(|(value, bound)| value > bound),
        "Lt" => compared().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let any_or = |expected: Option<&str>, actual: &str| expected.is_none_or(|e| e.is_empty() || e == actual);
    if !any_or(toleration.effect.as_deref(), &taint.effect) || !any_or(toleration.key.as_deref(), &taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
        _ => false,
    }
}

/// The first taint with one of these effects that no toleration covers.
pub(crate) fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    taints.iter().find(|taint| {
        effects.contains(&taint.effect.as_str()) && !tolerations.iter().any(|toleration| tolerates(toleration, taint))
    })
}

pub(crate) fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

//! What the quantitative rules read from the rendered objects: workloads, their autoscalers, their disruption budgets.
//!
//! A shape that is not Kubernetes' is taken as left out; other rules report it.

use std::collections::BTreeMap;

use landfall_model::Span;
use serde_json::Value;

use crate::rule::Context;

/// The rendered objects by what rules ask for.
pub(crate) struct Rendered<'a> {
    workloads: Vec<&'a Value>,
    by_name: BTreeMap<(&'a str, &'a str, &'a str), usize>,
    /// Workloads by a label of their pods.
    by_label: BTreeMap<(&'a str, &'a str, &'a str), Vec<usize>>,
    autoscalers: Vec<&'a Value>,
    budgets: Vec<&'a Value>,
}

impl<'a> Rendered<'a> {
    pub(crate) fn of(objects: &'a [Value]) -> Self {
        let mut rendered = Self {
            workloads: Vec::new(),
            by_name: BTreeMap::new(),
            by_label: BTreeMap::new(),
            autoscalers: Vec::new(),
            budgets: Vec::new(),
        };
        for object in objects {
            match text(object, "/kind") {
                "Deployment" | "StatefulSet" => rendered.workload(object),
                "HorizontalPodAutoscaler" => rendered.autoscalers.push(object),
                "PodDisruptionBudget" => rendered.budgets.push(object),
                _ => {}
            }
        }
        rendered
    }

    fn workload(&mut self, object: &'a Value) {
        let index = self.workloads.len();
        let namespace = namespace(object);
        self.workloads.push(object);
        self.by_name.insert((namespace, text(object, "/kind"), name(object)), index);
        let labels = object.pointer("/spec/template/metadata/labels").and_then(Value::as_object);
        for (key, value) in labels.into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            self.by_label.entry((namespace, key, value)).or_default().push(index);
        }
    }

    pub(super) fn workloads(&self) -> impl Iterator<Item = &'a Value> {
        self.workloads.iter().copied()
    }

    /// Each autoscaler with the workload that it scales.
    pub(super) fn autoscaled(&self) -> impl Iterator<Item = (&'a Value, &'a Value)> {
        self.autoscalers.iter().filter_map(|autoscaler| {
            let target = (text(autoscaler, "/spec/scaleTargetRef/kind"), text(autoscaler, "/spec/scaleTargetRef/name"));
            let workload = self.by_name.get(&(namespace(autoscaler), target.0, target.1))?;
            Some((*autoscaler, self.workloads[*workload]))
        })
    }

    /// Each disruption budget with the workloads whose pods it selects by labels.
    pub(super) fn budgeted(&self) -> impl Iterator<Item = (&'a Value, &'a Value)> {
        self.budgets.iter().flat_map(|budget| {
            let labels = budget.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
            let found = labels.into_iter().flatten().map(|(key, value)| {
                let key = (namespace(budget), key.as_str(), value.as_str().unwrap_or_default());
                self.by_label.get(&key).map_or(&[][..], Vec::as_slice)
            });
            let found: Vec<&[usize]> = found.collect();
            let fewest = found.iter().copied().min_by_key(|workloads| workloads.len()).unwrap_or_default();
            let in_all = |workload: &&usize| found.iter().all(|workloads| workloads.binary_search(workload).is_ok());
            let selected: Vec<_> =
                fewest.iter().filter(in_all).map(|workload| (*budget, self.workloads[*workload])).collect();
            selected
        })
    }
}

/// Where a rendered object comes from: the service or store of its name, or the raw object of the file.
pub(super) fn span_of(context: &Context<'_>, object: &Value) -> Span {
    let document = &context.architecture.document;
    let name = name(object);
    let raw = document
        .objects
        .iter()
        .find(|raw| text(raw, "/metadata/name") == name && text(raw, "/kind") == text(object, "/kind"));
    let service = || document.services.get_key_value(name).map(|(key, _)| key.span);
    let store = || document.stores.get_key_value(name).map(|(key, _)| key.span);
    raw.map(|raw| raw.span).or_else(service).or_else(store).unwrap_or(document.name.span)
}

/// How findings name it: the service or store of its name, or its kind and name.
pub(super) fn subject_of(context: &Context<'_>, object: &Value) -> String {
    let name = name(object);
    if context.architecture.service(name).is_some() {
        format!("service.{name}")
    } else if context.architecture.store(name).is_some() {
        format!("store.{name}")
    } else {
        format!("{}/{name}", text(object, "/kind"))
    }
}

pub(super) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

fn namespace(object: &Value) -> &str {
    object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("default")
}

/// The text at the end of a path of members, such as `/metadata/name`; empty if it is not there.
///
/// [`Value::pointer`] writes a new string for each step, as a member may have an escaped `/` in its name. None has that
/// is asked for here, and rules ask for some of every object.
pub(super) fn text<'v>(object: &'v Value, path: &str) -> &'v str {
    let end = path.split('/').skip(1).try_fold(object, |value, member| value.get(member));
    end.and_then(Value::as_str).unwrap_or_default()
}

/// A number of copies, or a share of `whole` rounded up, as disruption budgets count.
/// <https://kubernetes.io/docs/tasks/run-application/configure-pdb/#rounding-logic-when-specifying-percentages>
pub(super) fn number_or_share(value: &Value, whole: u64) -> Option<u64> {
    if let Some(number) = value.as_u64() {
        return Some(number);
    }
    let share: u64 = value.as_str()?.strip_suffix('%')?.parse().ok()?;
    Some((whole * share).div_ceil(100))
}

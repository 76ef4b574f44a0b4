//! Which change of a service or its pods a slice reflects: whoever measures how long endpoints take to arrive reads it from
//! an annotation.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt as _;
use serde_json::Value;

const ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// When a service was made, and when each of its pods became ready or unready.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    service: Option<Timestamp>,
    pods: HashMap<String, Timestamp>,
}

impl Seen {
    pub(super) fn of<'a>(service: &Service, pods: impl Iterator<Item = &'a Pod>) -> Self {
        let pods = pods.filter_map(|pod| Some((pod.name_any(), turned(pod)?)));
        Self { service: service.creation_timestamp().map(|time| time.0), pods: pods.collect() }
    }

    /// The earliest change that `before` did not see. For a service that nobody has seen, the time at which it was made.
    pub(super) fn since(&self, before: Option<&Self>) -> Option<Timestamp> {
        let Some(before) = before else { return self.service };
        let pods = self.pods.iter().filter(|(name, time)| before.pods.get(*name).is_none_or(|known| known < time));
        let service = self.service.filter(|time| before.service.is_none_or(|known| known < *time));
        pods.map(|(_, time)| *time).chain(service).min()
    }
}

fn turned(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// Puts the annotation on an object, or takes it away.
pub(super) fn marked<K: kube::Resource>(object: &mut K, trigger: Option<Timestamp>) -> &K {
    let annotations = &mut object.meta_mut().annotations;
    match trigger {
        Some(time) => {
            annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), time.to_string());
        }
        None => {
            if let Some(annotations) = annotations {
                annotations.remove(ANNOTATION);
            }
        }
    }
    object
}

/// The same for a merge patch.
pub(super) fn mark(patch: &mut Value, trigger: Option<Timestamp>) {
    patch["metadata"]["annotations"][ANNOTATION] = trigger.map(|time| time.to_string()).into();
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::Seen;

    fn seen(service: &str, pods: &[(&str, &str)]) -> Seen {
        let time = |text: &str| text.parse::<Timestamp>().expect("a time");
        let pods = pods.iter().map(|(name, at)| ((*name).to_owned(), time(at))).collect();
        Seen { service: Some(time(service)), pods }
    }

    const NOON: &str = "2026-01-01T12:00:00Z";
    const LATER: &str = "2026-01-01T12:00:05Z";
    const LAST: &str = "2026-01-01T12:00:09Z";

    #[test]
    fn the_first_slices_of_a_service_reflect_that_it_was_made() {
        let text = seen(NOON, &[("a", LATER)]).since(None).map(|time| time.to_string());
        assert_eq!(text.as_deref(), Some(NOON));
    }

    #[test]
    fn later_ones_reflect_the_earliest_change_that_is_new() {
        let before = seen(NOON, &[("a", NOON)]);
        let now = seen(NOON, &[("a", LAST), ("b", LATER)]);
        assert_eq!(now.since(Some(&before)).map(|time| time.to_string()).as_deref(), Some(LATER));
        assert_eq!(now.since(Some(&now)), None);
    }
}

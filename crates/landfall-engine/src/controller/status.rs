//! How a reconciler writes a status: only what changed, as a merge patch.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{FIELD_MANAGER, ReconcileError};

/// Kubernetes leaves a count of zero out of most statuses.
pub(super) fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

/// A count of things in memory, as the API counts.
pub(super) fn count<T>(items: impl IntoIterator<Item = T>) -> i32 {
    i32::try_from(items.into_iter().count()).unwrap_or(i32::MAX)
}

/// The API's times have no fraction: a time that was written equals the one that is read back.
pub(super) fn whole_seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// The merge patch (RFC 7386) that makes `new` of `old`; `None` when they are equal.
pub(super) fn difference<T: Serialize>(old: Option<&T>, new: &T) -> Option<Value> {
    let json = |value| serde_json::to_value(value).expect("types of the API are JSON");
    let old = old.map_or(Value::Null, json);
    merge_difference(&old, &json(new))
}

fn merge_difference(old: &Value, new: &Value) -> Option<Value> {
    let Value::Object(new) = new else { return (old != new).then(|| new.clone()) };
    let empty = Map::new();
    let old = old.as_object().unwrap_or(&empty);
    let removed = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = new.iter().filter_map(|(key, new)| {
        let change = match old.get(key) {
            None => Some(new.clone()),
            Some(old) => merge_difference(old, new),
        };
        change.map(|change| (key.clone(), change))
    });
    let difference: Map<_, _> = removed.chain(changed).collect();
    (!difference.is_empty()).then_some(Value::Object(difference))
}

/// Writes a status if it changed, and gives the answer.
///
/// The patch names no version: its object may have changed meanwhile, and what was observed is then still true.
pub(super) async fn write<K, S>(
    api: &Api<K>,
    name: &str,
    old: Option<&S>,
    new: &S,
    operation: &'static str,
) -> Result<Option<K>, ReconcileError>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
    S: Serialize,
{
    let Some(difference) = difference(old, new) else { return Ok(None) };
    let patch = json!({ "status": difference });
    let written = api.patch_status(name, &patch_params(), &Patch::Merge(patch)).await;
    Ok(Some(written.map_err(ReconcileError::request(operation))?))
}

/// Patches are made in the name of Kubernetes' controllers.
pub(super) fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_what_changed_and_takes_away_what_is_gone() {
        let old = json!({ "replicas": 3, "readyReplicas": 1, "inner": { "a": 1, "b": 2 }, "list": [1, 2] });
        let new = json!({ "replicas": 3, "inner": { "a": 1, "b": 3 }, "list": [2] });
        let expected = json!({ "readyReplicas": null, "inner": { "b": 3 }, "list": [2] });
        assert_eq!(difference(Some(&old), &new), Some(expected));
        assert_eq!(difference(Some(&new), &new), None);
    }
}

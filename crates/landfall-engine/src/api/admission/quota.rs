//! Resource quotas: what a namespace may have in all. A write and its charge are one commit, so that two writes at the
//! same time cannot both have the last piece.
//!
//! Not handled: quotas with scopes other than `NotTerminating`, `Terminating`, `BestEffort` and `NotBestEffort` (they
//! are not charged here), and charges for updates that make an object larger other than pods', claims' and services'.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::api::Call;
use crate::api::failure::{Failure, Subject};
use crate::scheme::quota::{Usage, in_scope, is_compute, shown, text, thousandths, usage};
use crate::store::{Collection, Draft, Expect, Record, Write};

/// The writes that charge the quotas of the namespace for `new`, or why it is too much. `old` is what an update
/// replaces, and has been charged for already.
pub(crate) fn charge(call: &Call<'_>, new: &Value, old: Option<&Value>) -> Result<Vec<Write>, Failure> {
    let mut writes = Vec::new();
    if !call.resource.namespaced || !call.target.subresource.is_empty() || call.resource.plural == "resourcequotas" {
        return Ok(writes);
    }
    let quotas = call.state.store.list(&Collection::new("", "resourcequotas"), Some(&call.target.namespace)).records;
    if quotas.is_empty() {
        return Ok(writes);
    }
    let mut more = usage(&call.resource.group, &call.resource.plural, new);
    for (name, amount) in old.map(|old| usage(&call.resource.group, &call.resource.plural, old)).unwrap_or_default() {
        *more.entry(name).or_default() -= amount;
    }
    for quota in &quotas {
        if let Some(write) = charge_one(call, new, old.is_some(), quota, &more)? {
            writes.push(write);
        }
    }
    Ok(writes)
}

fn charge_one(
    call: &Call<'_>,
    object: &Value,
    update: bool,
    quota: &Arc<Record>,
    more: &Usage,
) -> Result<Option<Write>, Failure> {
    let value = quota.value();
    if !in_scope(&value, &call.resource.plural, object) {
        return Ok(None);
    }
    let quota_name = value["metadata"]["name"].as_str().unwrap_or_default();
    let object_name = object["metadata"]["name"].as_str().unwrap_or_default();
    let refuse = |why: String| Failure::forbidden(&Subject::resource(call.resource, object_name), &why);
    let Some(hard) = value["spec"]["hard"].as_object() else { return Ok(None) };
    // A pod that says nothing about a resource that is limited would escape the limit.
    if call.resource.plural == "pods" && !update {
        let missing: Vec<String> = hard.keys().filter_map(|name| omitted(object, name)).collect();
        if !missing.is_empty() {
            return Err(refuse(format!("failed quota: {quota_name}: must specify {}", missing.join("; "))));
        }
    }
    let used = &value["status"]["used"];
    let (mut changed, mut exceeded) = (value.clone(), Vec::new());
    for (name, limit) in hard {
        let Some(amount) = more.get(name).copied().filter(|amount| *amount > 0) else { continue };
        let limit_text = text(limit);
        let limit = thousandths(limit);
        let before = thousandths(&used[name]);
        if before + amount > limit {
            exceeded.push((name.clone(), shown(amount), shown(before), limit_text));
        }
        Arc::make_mut(&mut changed)["status"]["used"][name] = shown(before + amount).into();
    }
    if !exceeded.is_empty() {
        let join = |pick: fn(&(String, String, String, String)) -> &String| {
            exceeded.iter().map(|one| format!("{}={}", one.0, pick(one))).collect::<Vec<_>>().join(",")
        };
        return Err(refuse(format!(
            "exceeded quota: {quota_name}, requested: {}, used: {}, limited: {}",
            join(|one| &one.1),
            join(|one| &one.2),
            join(|one| &one.3)
        )));
    }
    if *changed == *value {
        return Ok(None);
    }
    if !changed["status"]["hard"].is_object() {
        Arc::make_mut(&mut changed)["status"]["hard"] = value["spec"]["hard"].clone();
    }
    Ok(Some(Write::Put {
        key: quota.key().clone(),
        expect: Expect::Exactly(quota.revision()),
        draft: Draft::new(&changed),
    }))
}

/// The containers of a pod that do not say how much they want of what a quota limits: `requests.cpu for: a,b`.
fn omitted(pod: &Value, name: &str) -> Option<String> {
    if !is_compute(name) {
        return None;
    }
    let (list, resource) = name.split_once('.').unwrap_or(("requests", name));
    let containers = ["initContainers", "containers"].into_iter().filter_map(|kind| pod["spec"][kind].as_array());
    let silent = containers.flatten().filter(|container| container["resources"][list][resource].is_null());
    let names: BTreeSet<&str> = silent.filter_map(|container| container["name"].as_str()).collect();
    let names = names.into_iter().collect::<Vec<_>>().join(",");
    (!names.is_empty()).then(|| format!("{name} for: {names}"))
}

//! Custom resources: a definition is accepted and served at once; with it go the objects of its kind.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::State;
use super::failure::Failure;
use super::write::{is_finished, storage};
use crate::scheme::Scheme;
use crate::store::{Collection, CommitError, Draft, Expect, Key, Record};

/// Keeps a definition as long as objects of its kind are there.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

const ATTEMPTS: usize = 20;

pub(crate) fn definitions() -> Collection {
    Collection::new("apiextensions.k8s.io", "customresourcedefinitions")
}

/// The built-in kinds and those of the established definitions.
pub(crate) fn scheme(state: &State) -> Scheme {
    let definitions: Vec<Arc<Value>> =
        state.store.list(&definitions(), None).records.iter().map(|record| record.value()).collect();
    let established = definitions.iter().filter(|definition| condition(definition, "Established") == Some("True"));
    state.builtin.with_custom(established.map(AsRef::as_ref))
}

/// Serves what is established by now. Of two definitions at a time, the later one sees the earlier one's.
fn serve(state: &State) {
    state.scheme.rcu(|_| Arc::new(scheme(state)));
}

fn condition<'a>(definition: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = definition["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)?["status"].as_str()
}

/// Follows a write of a definition: accepts its names, serves it, or removes its objects.
pub(crate) async fn follow(state: &Arc<State>, key: &Key) -> Result<(), Failure> {
    for _ in 0..ATTEMPTS {
        let Some(record) = state.store.get(key) else { break };
        let definition = record.value();
        if definition["metadata"]["deletionTimestamp"].is_string() {
            remove_objects(state, &definition).await?;
            finish(state, key).await?;
            break;
        }
        let accepted = accept(state, &definition);
        if accepted == *definition {
            break;
        }
        match state.store.put(key.clone(), Expect::Exactly(record.revision()), Draft::new(&accepted)).await {
            Ok(_) => break,
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(storage(&error)),
        }
    }
    serve(state);
    Ok(())
}

/// The definition with the status that it gets.
fn accept(state: &State, definition: &Value) -> Value {
    let mut accepted = definition.clone();
    let names = &definition["spec"]["names"];
    let group = definition["spec"]["group"].as_str().unwrap_or_default();
    let taken = conflict(state, definition);
    let mut list = json!({});
    for key in ["plural", "singular", "shortNames", "kind", "listKind", "categories"] {
        if let Some(value) = names.get(key).filter(|value| !value.is_null()) {
            list[key] = value.clone();
        }
    }
    let stored: Vec<&Value> = definition["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|version| version["storage"] == true)
        .map(|version| &version["name"])
        .collect();
    let mut versions = definition["status"]["storedVersions"].as_array().cloned().unwrap_or_default();
    for version in stored {
        if !versions.contains(version) {
            versions.push(version.clone());
        }
    }
    accepted["status"]["storedVersions"] = versions.into();
    let now = super::time_text(state.clock.now());
    let mut set = |kind: &str, status: &str, reason: &str, message: &str| {
        set_condition(&mut accepted, kind, status, reason, message, &now);
    };
    match taken {
        Some(message) => set("NamesAccepted", "False", "Conflict", &message),
        None => {
            set("NamesAccepted", "True", "NoConflicts", "no conflicts found");
            set("Established", "True", "InitialNamesAccepted", "the initial names have been accepted");
            accepted["status"]["acceptedNames"] = list;
            let finalizers = &mut accepted["metadata"]["finalizers"];
            let known = finalizers.as_array().is_some_and(|list| list.iter().any(|finalizer| finalizer == CLEANUP));
            if !known && !group.is_empty() {
                match finalizers.as_array_mut() {
                    Some(list) => list.push(CLEANUP.into()),
                    None => *finalizers = json!([CLEANUP]),
                }
            }
        }
    }
    accepted
}

/// Sets a condition of a definition, unless it has that status already.
fn set_condition(definition: &mut Value, kind: &str, status: &str, reason: &str, message: &str, now: &str) {
    let conditions = &mut definition["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let wanted = json!({
        "type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message,
    });
    let conditions = conditions.as_array_mut().expect("it was made a list");
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(condition) if condition["status"] == status => {}
        Some(condition) => *condition = wanted,
        None => conditions.push(wanted),
    }
}

/// Says of a definition that it goes, and its objects with it.
pub(crate) fn mark_terminating(definition: &mut Value, now: Timestamp) {
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    let now = super::time_text(now);
    set_condition(definition, "Terminating", "True", "InstanceDeletionPending", message, &now);
}

/// Why the names of a definition are not to be had.
fn conflict(state: &State, definition: &Value) -> Option<String> {
    let (group, names) = (&definition["spec"]["group"], &definition["spec"]["names"]);
    let others = state.store.list(&definitions(), None).records;
    let others = others.iter().map(|record| record.value()).filter(|other| {
        other["metadata"]["name"] != definition["metadata"]["name"]
            && other["spec"]["group"] == *group
            && condition(other, "Established") == Some("True")
    });
    for other in others {
        let taken = &other["spec"]["names"];
        for key in ["plural", "singular", "kind", "listKind"] {
            if names[key].is_string() && names[key] == taken[key] {
                return Some(format!("{} is already in use", names[key]));
            }
        }
    }
    None
}

fn collection_of(definition: &Value) -> Collection {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Collection::new(&text(&definition["spec"]["group"]), &text(&definition["spec"]["names"]["plural"]))
}

async fn remove_objects(state: &Arc<State>, definition: &Value) -> Result<(), Failure> {
    for record in state.store.list(&collection_of(definition), None).records {
        remove(state, record).await?;
    }
    Ok(())
}

/// Deletes one object; one with finalizers is marked and stays until they are gone.
async fn remove(state: &Arc<State>, record: Arc<Record>) -> Result<(), Failure> {
    let mut record = Some(record);
    while let Some(present) = record {
        let mut object = Value::clone(&present.value());
        if !object["metadata"]["deletionTimestamp"].is_string() {
            object["metadata"]["deletionTimestamp"] = super::time_text(state.clock.now()).into();
            object["metadata"]["deletionGracePeriodSeconds"] = 0.into();
        }
        let expect = Expect::Exactly(present.revision());
        let done = if is_finished(&object) {
            state.store.delete(present.key(), expect, Draft::new(&object)).await
        } else if object == *present.value() {
            return Ok(());
        } else {
            state.store.put(present.key().clone(), expect, Draft::new(&object)).await
        };
        record = match done {
            Ok(_) => None,
            Err(CommitError::Conflict { current }) => current,
            Err(error) => return Err(storage(&error)),
        };
    }
    Ok(())
}

/// Lets a deleted definition go when the last object of its kind has gone.
pub(crate) async fn finish(state: &Arc<State>, key: &Key) -> Result<(), Failure> {
    while let Some(record) = state.store.get(key) {
        let mut definition = Value::clone(&record.value());
        let deleted = definition["metadata"]["deletionTimestamp"].is_string();
        if !deleted || !state.store.list(&collection_of(&definition), None).records.is_empty() {
            return Ok(());
        }
        if let Some(finalizers) = definition["metadata"].get_mut("finalizers").and_then(Value::as_array_mut) {
            finalizers.retain(|finalizer| finalizer != CLEANUP);
        }
        let expect = Expect::Exactly(record.revision());
        let done = if is_finished(&definition) {
            state.store.delete(key, expect, Draft::new(&definition)).await
        } else if definition == *record.value() {
            return Ok(());
        } else {
            state.store.put(key.clone(), expect, Draft::new(&definition)).await
        };
        match done {
            Ok(_) => break,
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(storage(&error)),
        }
    }
    serve(state);
    Ok(())
}

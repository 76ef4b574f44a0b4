//! What happens to a write between its defaults and its commit: the server completes objects, asks webhooks, refuses some,
//! and takes addresses and quota for others.

mod limits;
mod pod_security;
pub(crate) mod pods;
mod policy;
mod quota;
pub(crate) mod services;
mod webhook;

use std::sync::Arc;

use serde_json::{Value, json};

use self::services::Reservation;
pub(crate) use self::webhook::mutate as mutate_by_webhooks;
use super::failure::{Failure, Subject};
use super::write::{draft, storage};
use super::{Call, Warnings, rbac};
use crate::store::{Collection, CommitError, Expect, Key, Record, Write};

/// Namespaces that the cluster cannot do without.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

/// What a write is about to do, and whether it is only tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    pub(crate) operation: Operation,
    pub(crate) dry_run: bool,
}

/// What a write has been given; it goes back if the write is not made.
#[derive(Default)]
pub(crate) struct Admitted {
    addresses: Option<Reservation>,
}

impl Admitted {
    /// Commits the write of `new`, which replaces `old`, together with what it takes of the quotas.
    pub(crate) async fn commit(
        &self,
        call: &Call<'_>,
        key: Key,
        expect: Expect,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<Arc<Record>, Refused> {
        let draft = draft(call, new);
        loop {
            let charges = quota::charge(call, new, old).map_err(Refused::Failure)?;
            let charged = !charges.is_empty();
            let write = Write::Put { key: key.clone(), expect, draft: draft.clone() };
            let done = call.state.store.commit(std::iter::once(write).chain(charges).collect()).await;
            match done {
                Ok(mut records) => return Ok(records.swap_remove(0)),
                Err(CommitError::Conflict { .. }) if charged && still(call, &key, expect) => {}
                Err(CommitError::Conflict { .. }) => return Err(Refused::Conflict),
                Err(error) => return Err(Refused::Failure(storage(&error))),
            }
        }
    }

    /// The write is made: what it has been given is its own.
    pub(crate) fn keep(self) {
        if let Some(addresses) = self.addresses {
            addresses.keep();
        }
    }
}

/// Whether the quotas have room for a write that is only tried.
pub(crate) fn affords(call: &Call<'_>, new: &Value, old: Option<&Value>) -> Result<(), Failure> {
    quota::charge(call, new, old).map(drop)
}

/// Why a write was not made.
pub(crate) enum Refused {
    /// The object has changed meanwhile.
    Conflict,
    Failure(Failure),
}

/// Whether the object is as the write expects it: then it was a quota that has changed.
fn still(call: &Call<'_>, key: &Key, expect: Expect) -> bool {
    match (call.state.store.get(key), expect) {
        (None, Expect::Absent) => true,
        (Some(record), Expect::Exactly(revision)) => record.revision() == revision,
        _ => false,
    }
}

/// Completes an object, or refuses it. `old` is the object before an update.
pub(crate) fn mutate(call: &Call<'_>, new: &mut Value, old: Option<&Value>) -> Result<(), Failure> {
    if old.is_none() {
        check_namespace(call, new)?;
    }
    match (call.resource.group.as_str(), call.resource.plural.as_str()) {
        ("", "pods") if old.is_none() => {
            pods::complete(call, new)?;
            limits::apply(call, new)?;
        }
        ("", "persistentvolumeclaims") if old.is_none() => {
            protect(new, "kubernetes.io/pvc-protection");
            default_storage_class(call, new);
            limits::apply(call, new)?;
        }
        ("", "persistentvolumes") if old.is_none() => protect(new, "kubernetes.io/pv-protection"),
        ("rbac.authorization.k8s.io", resource) if old.is_none_or(|old| changes_rights(new, old)) => {
            rbac::check_escalation(call.state, call.identity, resource, new)?;
        }
        _ => {}
    }
    Ok(())
}

/// Gives an object what there is only so much of. It comes after the managed fields are written down: what the server hands
/// out belongs to no manager.
pub(crate) fn allocate(call: &Call<'_>, new: &mut Value, old: Option<&Value>) -> Result<Admitted, Failure> {
    let mut admitted = Admitted::default();
    if call.resource.group.is_empty() && call.resource.plural == "services" {
        admitted.addresses = services::assign(call, new, old)?;
    }
    Ok(admitted)
}

fn changes_rights(new: &Value, old: &Value) -> bool {
    ["rules", "aggregationRule", "subjects", "roleRef"].iter().any(|key| new.get(key) != old.get(key))
}

/// Refuses a write for what it is, when it is complete.
pub(crate) async fn check(
    call: &Call<'_>,
    intent: Intent,
    new: Option<&Value>,
    old: Option<&Value>,
    warnings: &mut Warnings,
) -> Result<(), Failure> {
    let namespaces = call.resource.group.is_empty() && call.resource.plural == "namespaces";
    if intent.operation == Operation::Delete && namespaces && IMMORTAL.contains(&call.target.name.as_str()) {
        let subject = Subject::resource(call.resource, &call.target.name);
        return Err(Failure::forbidden(&subject, "this namespace may not be deleted"));
    }
    pod_security::check(call, new, old, warnings)?;
    policy::check(call, intent, new, old, warnings)?;
    webhook::validate(call, intent, new, old, warnings).await
}

/// Gives back what a deleted object had.
pub(crate) fn released(call: &Call<'_>, record: &Record) {
    if call.resource.group.is_empty() && call.resource.plural == "services" {
        services::release(call.state, &record.value());
    }
}

/// Nothing is created in a namespace that is not there, or that goes away.
fn check_namespace(call: &Call<'_>, new: &Value) -> Result<(), Failure> {
    let name = &call.target.namespace;
    if !call.resource.namespaced || is_review(call) {
        return Ok(());
    }
    let key = Key::new(&Collection::new("", "namespaces"), "", name);
    let Some(namespace) = call.state.store.get(&key) else {
        return Err(Failure::not_found(&Subject { group: "", kind: "namespaces", name }));
    };
    let namespace = namespace.value();
    if !namespace["metadata"]["deletionTimestamp"].is_string() {
        return Ok(());
    }
    let object = new["metadata"]["name"].as_str().unwrap_or_default();
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    Err(Failure::forbidden(&Subject::resource(call.resource, object), &why).because(
        "NamespaceTerminating",
        format!("namespace {name} is being terminated"),
        "metadata.namespace",
    ))
}

fn is_review(call: &Call<'_>) -> bool {
    call.resource.group == "authorization.k8s.io"
}

fn protect(object: &mut Value, finalizer: &str) {
    let finalizers = &mut object["metadata"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(list) if list.iter().any(|known| known == finalizer) => {}
        Some(list) => list.push(finalizer.into()),
        None => *finalizers = json!([finalizer]),
    }
}

/// A claim that names no class gets the newest one that is marked as the default.
fn default_storage_class(call: &Call<'_>, claim: &mut Value) {
    const DEFAULT: [&str; 2] =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    if claim["spec"]["storageClassName"].is_string()
        || !claim["spec"]["volumeName"].as_str().unwrap_or_default().is_empty()
    {
        return;
    }
    let classes = call.state.store.list(&Collection::new("storage.k8s.io", "storageclasses"), None).records;
    let newest = classes
        .iter()
        .map(|record| record.value())
        .filter(|class| DEFAULT.iter().any(|key| class["metadata"]["annotations"][key] == "true"))
        .max_by_key(|class| class["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned());
    if let Some(class) = newest {
        claim["spec"]["storageClassName"] = class["metadata"]["name"].clone();
    }
}

//! `create`, `update` and `patch`: from the body of a request to a commit.
//!
//! Merging, defaulting, admission and validation happen outside any lock; the commit asks for the version that all of
//! it was based on, and starts over when somebody else was quicker.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use rand::Rng as _;
use serde_json::{Map, Value, json};

use super::admission::Refused;
use super::decode::{self, Decoded, Duplicates};
use super::failure::{Failure, Subject};
use super::negotiate::{self, BodyType, body_type};
use super::request::{FieldValidation, field_manager};
use super::view::stored_as;
use super::{Call, Warnings, admission, cause, read, subresource};
use crate::scheme::{Cause, Part, Unheeded, apply, merge};
use crate::store::{CommitError, Draft, Expect, Record, StorageError};

#[cfg(test)]
mod tests;

/// How often a write starts over when its object changes under it.
const ATTEMPTS: usize = 10;

/// How often another name is tried when a generated one is taken.
const GENERATED_NAMES: usize = 8;

/// How many ignored fields a client is warned of by name.
const IGNORED_NAMED: usize = 10;

/// Letters of generated names: no vowels, so that no words come out, and none that look alike.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// What a write has led to.
pub(crate) enum Outcome {
    /// The object as it is stored now.
    Stored { record: Arc<Record>, created: bool },
    /// The object as it would be: the write was only tried.
    Tried { object: Value, created: bool },
}

impl Outcome {
    pub(crate) fn respond(&self, call: &Call<'_>) -> Result<Response, Failure> {
        let view = call.view()?;
        let (body, created) = match self {
            Self::Stored { record, created } => (view.one(record), *created),
            Self::Tried { object, created } => (view.one_value(object), *created),
        };
        let code = if created { StatusCode::CREATED } else { StatusCode::OK };
        negotiate::object(code, call.accepted, body)
    }
}

pub(crate) async fn create(call: &Call<'_>, body: &Bytes, warnings: &mut Warnings) -> Result<Response, Failure> {
    if !call.target.subresource.is_empty() {
        return subresource::create(call, body, warnings).await;
    }
    if !call.target.name.is_empty() || !call.can("create") {
        return Err(Failure::method_not_allowed());
    }
    let object = read_object(call, body, warnings)?;
    created(call, object, Tracking::Update, warnings).await?.respond(call)
}

/// Who has set the managed fields of an object that is about to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tracking {
    /// Nobody yet: everything in it belongs to the manager of the request.
    Update,
    /// Server-side apply.
    Applied,
}

/// Creates an object that is written in the version of the request.
pub(crate) async fn created(
    call: &Call<'_>,
    mut object: Value,
    tracking: Tracking,
    warnings: &mut Warnings,
) -> Result<Outcome, Failure> {
    let dry_run = call.query.dry_run("CreateOptions")?;
    check_namespace(call, &mut object)?;
    let metadata = metadata_mut(&mut object)?;
    for key in
        ["resourceVersion", "selfLink", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        if key == "resourceVersion"
            && metadata.get(key).and_then(Value::as_str).is_some_and(|version| !version.is_empty())
        {
            return Err(Failure::plain_internal("resourceVersion should not be set on objects to be created"));
        }
        metadata.remove(key);
    }
    if tracking == Tracking::Update {
        metadata.remove("managedFields");
    }
    let prefix = text(metadata, "generateName");
    let generated = text(metadata, "name").is_empty() && !prefix.is_empty();
    if generated {
        metadata.insert("name".to_owned(), generated_name(&prefix).into());
    }
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), call.now().into());

    let scheme = call.scheme;
    scheme.default(call.resource, &mut object);
    let unheeded = unheeded(call, &object, None);
    scheme.prepare_create(call.resource, &mut object);
    admission::mutate(call, &mut object, None)?;
    if tracking == Tracking::Update {
        let manager = field_manager(call.query, call.headers);
        apply::track_update(call.resource, None, &mut object, &manager, "", &call.now());
    }
    let create = admission::Intent { operation: admission::Operation::Create, dry_run };
    admission::mutate_by_webhooks(call, create, Some(&mut object), None, warnings).await?;
    let admitted = admission::allocate(call, &mut object, None)?;
    let attempts = if generated { GENERATED_NAMES } else { 1 };
    for attempt in 1..=attempts {
        let name = text(metadata_mut(&mut object)?, "name");
        let mut causes = scheme.validate(call.resource, &object, None, Part::Main);
        add_refusals(&unheeded, &mut causes);
        if !causes.is_empty() {
            return Err(Failure::invalid(&call.resource.group, &call.resource.kind, &name, &causes));
        }
        warn_of_ignored(&unheeded, warnings);
        admission::check(call, create, Some(&object), None, warnings).await?;
        let key = call.key_of(&call.target.namespace, &name);
        if dry_run {
            admission::affords(call, &object, None)?;
            if call.state.store.get(&key).is_some() {
                return Err(Failure::already_exists(&Subject::resource(call.resource, &name)));
            }
            return Ok(Outcome::Tried { object, created: true });
        }
        match admitted.commit(call, key, Expect::Absent, &object, None).await {
            Ok(record) => {
                admitted.keep();
                let record = call.state.settled(call.resource, record).await?;
                return Ok(Outcome::Stored { record, created: true });
            }
            Err(Refused::Conflict) if generated && attempt < attempts => {
                metadata_mut(&mut object)?.insert("name".to_owned(), generated_name(&prefix).into());
            }
            Err(Refused::Conflict) => {
                return Err(Failure::already_exists(&Subject::resource(call.resource, &name)));
            }
            Err(Refused::Failure(failure)) => return Err(failure),
        }
    }
    Err(Failure::internal("every generated name was taken"))
}

/// What a user asks for that nobody acts on.
fn unheeded(call: &Call<'_>, new: &Value, old: Option<&Value>) -> Unheeded {
    if call.identity.is_component() || call.part() == Part::Status {
        return Unheeded::default();
    }
    call.scheme.unheeded(call.resource, new, old)
}

/// Refuses what nobody can act on, unless the field is refused already.
fn add_refusals(unheeded: &Unheeded, causes: &mut Vec<Cause>) {
    for refused in &unheeded.refused {
        if !causes.iter().any(|cause| refused.field.starts_with(&cause.field)) {
            causes.push(refused.clone());
        }
    }
}

fn warn_of_ignored(unheeded: &Unheeded, warnings: &mut Warnings) {
    let ignored = &unheeded.ignored;
    ignored.iter().take(IGNORED_NAMED).for_each(|text| warnings.add(text));
    if let Some(more) = ignored.len().checked_sub(IGNORED_NAMED).filter(|more| *more > 0) {
        warnings.add(format!("{more} more fields are accepted and ignored"));
    }
}

/// The object as it is stored.
pub(crate) fn draft(call: &Call<'_>, object: &Value) -> Draft {
    let stored = stored_as(call.scheme, call.resource);
    if std::ptr::eq(stored, call.resource.as_ref()) {
        return Draft::new(object);
    }
    let mut object = object.clone();
    call.scheme.convert(call.resource, stored, &mut object);
    Draft::new(&object)
}

/// Why nothing can be written: most often because the disk is full, which somebody can do something about.
pub(crate) fn storage(error: &CommitError) -> Failure {
    match error {
        CommitError::Storage(storage @ StorageError::Io { source, .. }) if is_full(source.kind()) => {
            Failure::insufficient_storage(format!("the disk of the engine is full: {storage}: {source}"))
        }
        CommitError::Storage(storage @ StorageError::Io { source, .. }) => {
            Failure::internal(format!("{error}: {storage}: {source}"))
        }
        CommitError::Storage(storage @ StorageError::Closed) => Failure::internal(format!("{error}: {storage}")),
        CommitError::Conflict { .. } => Failure::internal(error),
    }
}

fn is_full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

pub(crate) async fn update(call: &Call<'_>, body: &Bytes, warnings: &mut Warnings) -> Result<Response, Failure> {
    if call.target.name.is_empty() {
        return Err(Failure::method_not_allowed());
    }
    if !matches!(call.target.subresource.as_str(), "" | "status") {
        return subresource::update(call, body, warnings).await;
    }
    let object = read_object(call, body, warnings)?;
    if let Some(name) = object["metadata"]["name"].as_str().filter(|name| !name.is_empty() && *name != call.target.name)
    {
        return Err(name_mismatch(name, &call.target.name));
    }
    if call.state.store.get(&call.key()).is_none() && created_by_update(call) && call.target.subresource.is_empty() {
        let mut object = object;
        metadata_mut(&mut object)?.entry("name").or_insert_with(|| call.target.name.as_str().into());
        return created(call, object, Tracking::Update, warnings).await?.respond(call);
    }
    let outcome = changed(call, Change::Replace(&object), warnings).await?;
    outcome.respond(call)
}

/// The kinds that `update` creates when there is none.
fn created_by_update(call: &Call<'_>) -> bool {
    matches!(
        (call.resource.group.as_str(), call.resource.plural.as_str()),
        ("", "endpoints" | "events" | "limitranges" | "services")
            | ("coordination.k8s.io", "leases")
            | ("events.k8s.io", "events")
            | ("node.k8s.io", "runtimeclasses")
            | ("rbac.authorization.k8s.io", _)
    )
}

pub(crate) async fn patch(call: &Call<'_>, body: &Bytes, warnings: &mut Warnings) -> Result<Response, Failure> {
    if call.target.name.is_empty() {
        return Err(Failure::method_not_allowed());
    }
    let written = body_type(call.headers);
    if !matches!(call.target.subresource.as_str(), "" | "status") {
        return subresource::patch(call, body, written, warnings).await;
    }
    if written != BodyType::ApplyPatch && call.query.get("force").is_some() {
        let cause = super::cause::forbidden("force", "may not be specified for non-apply patch");
        return Err(Failure::invalid("meta.k8s.io", "PatchOptions", "", &[cause]));
    }
    let patch = Patch::read(call, written, body, warnings)?;
    if let Patch::Apply { applied, .. } = &patch
        && call.state.store.get(&call.key()).is_none()
        && call.target.subresource.is_empty()
    {
        return match created_by_apply(call, applied, warnings).await {
            // Somebody else has created it meanwhile.
            Err(failure) if failure.reason == "AlreadyExists" => {
                changed(call, Change::Patch(&patch), warnings).await?.respond(call)
            }
            other => other?.respond(call),
        };
    }
    changed(call, Change::Patch(&patch), warnings).await?.respond(call)
}

async fn created_by_apply(call: &Call<'_>, applied: &Value, warnings: &mut Warnings) -> Result<Outcome, Failure> {
    if applied["metadata"].get("resourceVersion").is_some_and(|version| !version.is_null()) {
        return Err(Failure::modified(&Subject::resource(call.resource, &call.target.name)));
    }
    if let Some(uid) = applied["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty()) {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(Failure::conflict(&Subject::resource(call.resource, &call.target.name), &why));
    }
    let manager = apply_manager(call)?;
    let object = apply::apply(call.resource, None, applied, &manager, "", call.query.flag("force"), &call.now())
        .map_err(|conflicts| conflicts_failure(&conflicts))?;
    created(call, object, Tracking::Applied, warnings).await
}

fn apply_manager(call: &Call<'_>) -> Result<String, Failure> {
    match call.query.text("fieldManager") {
        "" => {
            let cause = super::cause::required("fieldManager", "is required for apply patch");
            Err(Failure::invalid("meta.k8s.io", "PatchOptions", "", &[cause]))
        }
        manager => Ok(manager.to_owned()),
    }
}

fn conflicts_failure(conflicts: &apply::Conflicts) -> Failure {
    conflicts.conflicts.iter().fold(Failure::apply_conflict(conflicts.message()), |failure, conflict| {
        let message = format!("conflict with {}", conflict.manager);
        failure.because("FieldManagerConflict", message, &conflict.field)
    })
}

/// A patch, read.
pub(crate) enum Patch {
    Json(json_patch::Patch),
    Merge(Value, Duplicates),
    Strategic(Value, Duplicates),
    Apply { applied: Value, force: bool, manager: String },
}

impl Patch {
    pub(crate) fn read(
        call: &Call<'_>,
        written: BodyType,
        body: &[u8],
        warnings: &mut Warnings,
    ) -> Result<Self, Failure> {
        let parse = |body: &[u8]| {
            decode::json(body)
                .map_err(|error| Failure::bad_request(format!("error decoding patch: {}", decode::parse_error(&error))))
        };
        let as_object = |decoded: Decoded| {
            if decoded.value.is_object() {
                return Ok((decoded.value, decoded.duplicates));
            }
            Err(Failure::bad_request(
                "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}",
            ))
        };
        match written {
            BodyType::JsonPatch => {
                let operations = parse(body)?.value;
                if !operations.is_array() {
                    let message = "error decoding patch: json: cannot unmarshal object into Go value of type \
                                   []handlers.jsonPatchOp";
                    return Err(Failure::bad_request(message));
                }
                serde_json::from_value(operations).map(Self::Json).map_err(|_| Failure::unfit_patch())
            }
            BodyType::MergePatch => as_object(parse(body)?).map(|(patch, duplicates)| Self::Merge(patch, duplicates)),
            BodyType::StrategicMergePatch if call.resource.custom => Err(Failure::unsupported_body(
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            )),
            BodyType::StrategicMergePatch => {
                as_object(parse(body)?).map(|(patch, duplicates)| Self::Strategic(patch, duplicates))
            }
            BodyType::ApplyPatch => {
                let manager = apply_manager(call)?;
                let decoded = decode::object(call.scheme, body, written, &call.resource.kind)?;
                refuse_fields(call, &decoded.duplicates, &[], warnings)?;
                let mut applied = decoded.value;
                let (version, kind) = (&applied["apiVersion"], &applied["kind"]);
                if [version, kind].iter().all(|text| text.as_str().unwrap_or_default().is_empty()) {
                    return Err(Failure::bad_request("invalid object type: /, Kind="));
                }
                check_type(call, &mut applied)?;
                if let Some(why) = apply::untyped(call.resource, &applied) {
                    return Err(Failure::plain_internal(format!(
                        "failed to create typed patch object ({}/{}; {}, Kind={}): {why}",
                        applied["metadata"]["namespace"].as_str().unwrap_or_default(),
                        applied["metadata"]["name"].as_str().unwrap_or_default(),
                        // The core group, which has no name, has its slash here.
                        format_args!("{}/{}", call.resource.group, call.resource.version),
                        call.resource.kind,
                    )));
                }
                if applied["metadata"].get("managedFields").is_some_and(|fields| !fields.is_null()) {
                    return Err(Failure::bad_request("metadata.managedFields must be nil"));
                }
                let metadata = metadata_mut(&mut applied)?;
                metadata.entry("name").or_insert_with(|| call.target.name.as_str().into());
                if text(metadata, "name") != call.target.name {
                    return Err(name_mismatch(&text(metadata, "name"), &call.target.name));
                }
                // What was applied is remembered as it was sent, without the namespace of the path.
                check_namespace(call, &mut applied.clone())?;
                let unknown = call.scheme.unknown_fields(call.resource, &applied);
                refuse_fields(call, &Duplicates::default(), &unknown, warnings)?;
                check_types(call, &applied).map_err(Failure::bad_request)?;
                Ok(Self::Apply { applied, force: call.query.flag("force"), manager })
            }
            _ => Err(Failure::unsupported_media_type()),
        }
    }

    /// Refuses what the patch has made if it has fields that the kind does not have, or values of wrong types. What was
    /// applied has been read already.
    fn check(&self, call: &Call<'_>, object: &Value, warnings: &mut Warnings) -> Result<(), Failure> {
        let none = Duplicates::default();
        let (patch, duplicates) = match self {
            Self::Apply { .. } => return Ok(()),
            Self::Json(_) => (None, &none),
            Self::Merge(_, duplicates) => (None, duplicates),
            Self::Strategic(patch, duplicates) => (Some(patch), duplicates),
        };
        let misfit = |text: &str| {
            let shown = patch.map_or_else(|| object.to_string(), printed);
            let cause = super::cause::invalid("patch", &shown.into(), text);
            Failure::invalid("", "", "", &[cause])
        };
        check_types(call, object)
            .map_err(|message| misfit(message.split_once(": ").map_or(message.as_str(), |(_, text)| text)))?;
        let unknown = call.scheme.unknown_fields(call.resource, object);
        match told_fields(call, duplicates, &unknown, warnings)? {
            Some(refused) => Err(misfit(&refused)),
            None => Ok(()),
        }
    }

    /// The object with the patch.
    fn merge(&self, call: &Call<'_>, live: &Value) -> Result<Value, Failure> {
        let mut object = live.clone();
        match self {
            Self::Json(patch) => {
                json_patch::patch(&mut object, patch).map_err(|_| Failure::unfit_patch())?;
            }
            Self::Merge(patch, _) => merge::json(&mut object, patch),
            Self::Strategic(patch, _) => merge::strategic(call.resource, &mut object, patch)
                .map_err(|error| Failure::plain_internal(error.to_string()))?,
            Self::Apply { applied, force, manager } => {
                let subresource = &call.target.subresource;
                let now = call.now();
                return apply::apply(call.resource, Some(live), applied, manager, subresource, *force, &now)
                    .map_err(|conflicts| conflicts_failure(&conflicts));
            }
        }
        Ok(object)
    }
}

/// How an existing object changes.
pub(crate) enum Change<'a> {
    Replace(&'a Value),
    Patch(&'a Patch),
    /// By a subresource that acts on the object as a whole.
    With(&'a (dyn Fn(&mut Value) -> Result<(), Failure> + Send + Sync)),
}

/// Changes the object that the request names.
pub(crate) async fn changed(call: &Call<'_>, change: Change<'_>, warnings: &mut Warnings) -> Result<Outcome, Failure> {
    let replaced = matches!(change, Change::Replace(_));
    let dry_run = call.query.dry_run(if replaced { "UpdateOptions" } else { "PatchOptions" })?;
    let part = call.part();
    let subject = Subject::resource(call.resource, &call.target.name);
    for _ in 0..ATTEMPTS {
        let record = read::existing(call)?;
        let live = super::view::convert_from_stored(call.scheme, call.resource, &record);
        let mut new = match &change {
            Change::Replace(object) => Value::clone(object),
            Change::Patch(patch) => patch.merge(call, &live)?,
            Change::With(change) => {
                let mut new = Value::clone(&live);
                change(&mut new)?;
                new
            }
        };
        if let Change::Patch(patch) = &change {
            check_type(call, &mut new)?;
            patch.check(call, &new, warnings)?;
        }
        let applied = matches!(&change, Change::Patch(Patch::Apply { .. }));
        let expected = keep_system_fields(call, &mut new, &live, &change)?;
        if replaced && expected.is_none() && call.resource.needs_version() {
            let cause = cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
            // The place of the kind is taken by the name of the resource, as in Kubernetes.
            return Err(Failure::invalid(&call.resource.group, &call.resource.plural, &call.target.name, &[cause]));
        }
        if expected.is_some_and(|version| version != record.revision().to_string()) {
            return Err(Failure::modified(&subject));
        }
        let scheme = call.scheme;
        scheme.default(call.resource, &mut new);
        let unheeded = unheeded(call, &new, Some(&live));
        scheme.prepare_update(call.resource, &mut new, &live, part);
        admission::mutate(call, &mut new, Some(&live))?;
        if !applied {
            let manager = field_manager(call.query, call.headers);
            let subresource = &call.target.subresource;
            apply::track_update(call.resource, Some(&live), &mut new, &manager, subresource, &call.now());
        }
        let update = admission::Intent { operation: admission::Operation::Update, dry_run };
        admission::mutate_by_webhooks(call, update, Some(&mut new), Some(&live), warnings).await?;
        let admitted = admission::allocate(call, &mut new, Some(&live))?;
        let mut causes = scheme.validate(call.resource, &new, Some(&live), part);
        add_refusals(&unheeded, &mut causes);
        if !causes.is_empty() {
            return Err(Failure::invalid(&call.resource.group, &call.resource.kind, &call.target.name, &causes));
        }
        warn_of_ignored(&unheeded, warnings);
        admission::check(call, update, Some(&new), Some(&live), warnings).await?;
        if new == *live {
            return Ok(Outcome::Stored { record, created: false });
        }
        if dry_run {
            admission::affords(call, &new, Some(&live))?;
            return Ok(Outcome::Tried { object: new, created: false });
        }
        let gone = is_finished(&new);
        let key = call.key();
        let expect = Expect::Exactly(record.revision());
        let committed = if gone {
            call.state.store.delete(&key, expect, draft(call, &new)).await.map_err(|error| match error {
                CommitError::Conflict { .. } => Refused::Conflict,
                error @ CommitError::Storage(_) => Refused::Failure(storage(&error)),
            })
        } else {
            admitted.commit(call, key, expect, &new, Some(&live)).await
        };
        match committed {
            Ok(record) => {
                if gone {
                    admission::released(call, &record);
                }
                admitted.keep();
                let record = call.state.settled(call.resource, record).await?;
                if gone {
                    // Its last state keeps the version that it had; only watches see the one of its end.
                    let object = super::view::convert_from_stored(call.scheme, call.resource, &record);
                    let mut object = Value::clone(&object);
                    object["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
                    return Ok(Outcome::Tried { object, created: false });
                }
                return Ok(Outcome::Stored { record, created: false });
            }
            // The client has seen the version that it has changed: it must look again.
            Err(Refused::Conflict) if expected_by_client(&change) => return Err(Failure::modified(&subject)),
            Err(Refused::Conflict) => {}
            Err(Refused::Failure(failure)) => return Err(failure),
        }
    }
    Err(Failure::modified(&subject))
}

fn expected_by_client(change: &Change<'_>) -> bool {
    let object = match change {
        Change::Replace(object) => *object,
        Change::Patch(Patch::Merge(object, _) | Patch::Strategic(object, _)) => object,
        Change::Patch(Patch::Apply { applied, .. }) => applied,
        Change::Patch(Patch::Json(_)) | Change::With(_) => return false,
    };
    object["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty())
}

/// A deleted object whose last finalizer and grace are gone.
pub(crate) fn is_finished(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let finalizers = metadata["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
    let spec_finalizers = object["kind"] == "Namespace"
        && object["apiVersion"] == "v1"
        && object["spec"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
    let grace = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    metadata["deletionTimestamp"].is_string() && !finalizers && !spec_finalizers && grace == 0
}

/// Puts back what no client may change, and answers the version that the client expects the object to have.
fn keep_system_fields(
    call: &Call<'_>,
    new: &mut Value,
    live: &Value,
    change: &Change<'_>,
) -> Result<Option<String>, Failure> {
    let applied = matches!(change, Change::Patch(Patch::Apply { .. }));
    check_namespace(call, new)?;
    let live_metadata = live["metadata"].as_object().expect("a stored object has metadata");
    let metadata = metadata_mut(new)?;
    let name = text(metadata, "name");
    if name.is_empty() && applied {
        // The configuration had it, and nobody owns names.
        metadata.insert("name".to_owned(), call.target.name.as_str().into());
    } else if name.is_empty() {
        let url = &call.target.name;
        return Err(Failure::bad_request(format!(
            "the name of the object ({url} based on URL) was undeterminable: name must be provided"
        )));
    } else if name != call.target.name {
        return Err(name_mismatch(&name, &call.target.name));
    }
    let uid = text(metadata, "uid");
    let other = !uid.is_empty() && uid != text(live_metadata, "uid");
    if other && matches!(change, Change::Replace(_)) {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            text(live_metadata, "uid")
        );
        return Err(Failure::conflict(&Subject::resource(call.resource, &call.target.name), &why));
    }
    let expected = text(metadata, "resourceVersion");
    metadata.remove("selfLink");
    let mut kept =
        vec!["resourceVersion", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];
    // Validation refuses another one that a patch has made.
    if !other {
        kept.push("uid");
    }
    // An empty list is how a client takes all managers away. Another one says who they are, unless it is none.
    let given = metadata.get("managedFields").and_then(Value::as_array);
    let reset = given.is_some_and(|fields| fields.is_empty() || fields.as_slice() == [json!({})]);
    let says = call.target.subresource.is_empty() && given.is_some_and(|fields| apply::are_owners(fields));
    if reset && !applied {
        metadata.insert("managedFields".to_owned(), json!([{}]));
    } else if !applied && !says {
        kept.push("managedFields");
    }
    for key in kept {
        match live_metadata.get(key) {
            Some(value) => {
                metadata.insert(key.to_owned(), value.clone());
            }
            None => {
                metadata.remove(key);
            }
        }
    }
    Ok(Some(expected).filter(|version| !version.is_empty()))
}

fn name_mismatch(object: &str, url: &str) -> Failure {
    Failure::bad_request(format!("the name of the object ({object}) does not match the name on the URL ({url})"))
}

/// Reads the object in the body: of the right kind, with known fields of the right types only.
pub(crate) fn read_object(call: &Call<'_>, body: &[u8], warnings: &mut Warnings) -> Result<Value, Failure> {
    let decoded = decode::object(call.scheme, body, body_type(call.headers), &call.resource.kind)?;
    let mut object = decoded.value.clone();
    check_type(call, &mut object)?;
    let unknown = call.scheme.unknown_fields(call.resource, &object);
    refuse_fields(call, &decoded.duplicates, &unknown, warnings)?;
    check_types(call, &object).map_err(Failure::bad_request)?;
    Ok(object)
}

fn check_types(call: &Call<'_>, object: &Value) -> Result<(), String> {
    call.scheme.check_types(call.resource, object)
}

/// Refuses fields that stand twice or that the kind does not have, if the client wants that; defaulting drops them.
fn refuse_fields(
    call: &Call<'_>,
    duplicates: &Duplicates,
    unknown: &[String],
    warnings: &mut Warnings,
) -> Result<(), Failure> {
    match told_fields(call, duplicates, unknown, warnings)? {
        None => Ok(()),
        Some(refused) => Err(Failure::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {refused}",
            kind = call.resource.kind,
            version = call.resource.version,
        ))),
    }
}

/// Warns of such fields, or answers why they are refused.
fn told_fields(
    call: &Call<'_>,
    duplicates: &Duplicates,
    unknown: &[String],
    warnings: &mut Warnings,
) -> Result<Option<String>, Failure> {
    let with_unknown = |texts: Vec<String>| texts.into_iter().chain(unknown.iter().cloned()).collect::<Vec<_>>();
    let told = with_unknown(duplicates.warnings());
    if told.is_empty() {
        return Ok(None);
    }
    match call.query.field_validation()? {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => told.into_iter().for_each(|problem| warnings.add(problem)),
        FieldValidation::Strict => {
            let refused = with_unknown(duplicates.errors()).join(", ");
            return Ok(Some(format!("strict decoding error: {refused}")));
        }
    }
    Ok(None)
}

/// A value as the printer of Kubernetes' language shows it: `map[a:1 b:[c]]`.
fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(printed).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            let entries: Vec<_> = sorted.into_iter().map(|(key, value)| format!("{key}:{}", printed(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        scalar => scalar.to_string(),
    }
}

/// An object may leave its kind out, but not say another one.
fn check_type(call: &Call<'_>, object: &mut Value) -> Result<(), Failure> {
    let expected = call.resource.api_version();
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    if !version.is_empty() && version != expected {
        let (group, short) = version.rsplit_once('/').unwrap_or(("", &version));
        let message = if call.scheme.by_kind(group, short, &kind).is_some() {
            format!("the API version in the data ({version}) does not match the expected API version ({expected})")
        } else {
            format!(
                "{wanted} in version {short:?} cannot be handled as a {wanted}: no kind {kind:?} is registered for \
                 version {version:?} in scheme \"pkg/runtime/scheme.go:111\"",
                wanted = call.resource.kind,
            )
        };
        return Err(Failure::bad_request(message));
    }
    if !kind.is_empty() && kind != call.resource.kind {
        let (wanted, version) = (&call.resource.kind, &call.resource.version);
        let package = if call.resource.group.is_empty() {
            "core"
        } else {
            call.resource.group.split('.').next().unwrap_or_default()
        };
        return Err(Failure::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {wanted}: converting ({version}.{kind}) to \
             ({package}.{wanted}): unknown conversion"
        )));
    }
    object["kind"] = call.resource.kind.as_str().into();
    object["apiVersion"] = expected.into();
    Ok(())
}

/// The namespace in the object is the one of the path.
fn check_namespace(call: &Call<'_>, object: &mut Value) -> Result<(), Failure> {
    let metadata = metadata_mut(object)?;
    let namespace = text(metadata, "namespace");
    if !call.resource.namespaced {
        metadata.remove("namespace");
        return Ok(());
    }
    if namespace.is_empty() {
        metadata.insert("namespace".to_owned(), call.target.namespace.as_str().into());
    } else if namespace != call.target.namespace {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

pub(crate) fn metadata_mut(object: &mut Value) -> Result<&mut Map<String, Value>, Failure> {
    let metadata = &mut object["metadata"];
    if metadata.is_null() {
        *metadata = json!({});
    }
    metadata.as_object_mut().ok_or_else(|| Failure::bad_request("metadata is no object"))
}

pub(crate) fn text(fields: &Map<String, Value>, key: &str) -> String {
    fields.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The prefix, cut so that the name fits, with five letters.
pub(crate) fn generated_name(prefix: &str) -> String {
    let mut random = rand::rng();
    let letters = (0..5).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]));
    prefix.chars().take(58).chain(letters).collect()
}

//! `delete` and `deletecollection`: preconditions, finalizers, propagation and grace.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::failure::{Failure, Subject};
use super::negotiate::{self, BodyType, body_type};
use super::read::{self, Selection};
use super::request::{Target, Verb};
use super::write::{draft, is_finished, storage};
use super::{Call, Warnings, admission, cause, custom, decode, time_text};
use crate::store::{CommitError, Expect, Record};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// How often a deletion starts over when its object changes under it.
const ATTEMPTS: usize = 10;

/// What happens to the objects that an object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// The options of a deletion, from its body and its query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    grace: Option<i64>,
    propagation: Option<Propagation>,
    /// The older way to say it, which changes the code of the answer.
    orphan_dependents: Option<bool>,
    uid: Option<String>,
    version: Option<String>,
    dry_run: bool,
}

impl Options {
    pub(crate) fn read(call: &Call<'_>, body: &[u8]) -> Result<Self, Failure> {
        let body = if body.iter().all(u8::is_ascii_whitespace) {
            json!({})
        } else {
            match body_type(call.headers) {
                written @ (BodyType::Json | BodyType::Yaml | BodyType::Protobuf) => {
                    decode::object(call.scheme, body, written, "DeleteOptions")?.value
                }
                _ => return Err(Failure::unsupported_media_type()),
            }
        };
        Self::of(call, &body)
    }

    /// From a `DeleteOptions` object; what the query says counts where the object is silent.
    pub(crate) fn of(call: &Call<'_>, body: &Value) -> Result<Self, Failure> {
        let query = call.query;
        let policy = body["propagationPolicy"].as_str().or_else(|| query.get("propagationPolicy"));
        let orphan_dependents = body["orphanDependents"]
            .as_bool()
            .or_else(|| query.get("orphanDependents").map(|_| query.flag("orphanDependents")));
        let invalid = |cause| Failure::invalid("meta.k8s.io", "DeleteOptions", "", &[cause]);
        let propagation = match (policy, orphan_dependents) {
            (Some(policy), Some(_)) => {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                return Err(invalid(cause::invalid("propagationPolicy", &json!(policy), why)));
            }
            (None, None) => None,
            (None, Some(true)) | (Some("Orphan"), None) => Some(Propagation::Orphan),
            (None, Some(false)) | (Some("Background"), None) => Some(Propagation::Background),
            (Some("Foreground"), None) => Some(Propagation::Foreground),
            (Some(other), None) => {
                let cause =
                    cause::not_supported("propagationPolicy", other, &["Foreground", "Background", "Orphan", "nil"]);
                return Err(invalid(cause));
            }
        };
        let mut dry_run = query.dry_run("DeleteOptions")?;
        for value in body["dryRun"].as_array().into_iter().flatten() {
            match value.as_str() {
                Some("All") => dry_run = true,
                other => return Err(super::request::unsupported_dry_run("DeleteOptions", other.unwrap_or_default())),
            }
        }
        let grace = match body["gracePeriodSeconds"].as_i64() {
            None => query.number("gracePeriodSeconds")?,
            given => given,
        };
        let precondition = |key: &str| body["preconditions"][key].as_str().map(str::to_owned);
        Ok(Self {
            grace: grace.map(|seconds| if seconds < 0 { 1 } else { seconds }),
            propagation,
            orphan_dependents,
            uid: precondition("uid"),
            version: precondition("resourceVersion"),
            dry_run,
        })
    }

    /// Says that pods stay behind, to who does not say what should become of them.
    fn warn(&self, call: &Call<'_>, warnings: &mut Warnings) {
        if self.propagation.is_none() && leaves_pods(call) {
            warnings.add(
                "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove \
                 them or set propagationPolicy=Orphan to suppress this warning",
            );
        }
    }

    /// Whether nothing is to be written.
    pub(crate) fn tries_only(&self) -> bool {
        self.dry_run
    }

    fn check(&self, call: &Call<'_>, name: &str, object: &Value) -> Result<(), Failure> {
        // Kubernetes names the kind here, not the resource.
        let subject = Subject { group: &call.resource.group, kind: &call.resource.kind, name };
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        if let Some(wanted) = self.uid.as_deref().filter(|wanted| *wanted != uid) {
            let why = format!(
                "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might \
                 have been deleted and then recreated"
            );
            return Err(Failure::conflict(&subject, &why));
        }
        let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if let Some(wanted) = self.version.as_deref().filter(|wanted| *wanted != version) {
            let why = format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record \
                 ({version}). The object might have been modified"
            );
            return Err(Failure::conflict(&subject, &why));
        }
        Ok(())
    }
}

/// How far a deletion has come.
pub(crate) enum Deleted {
    /// The object is gone; its last state.
    Gone(Arc<Record>),
    /// It goes when its finalizers and its grace have.
    Pending(Arc<Record>),
    /// The deletion was only tried.
    Tried(Arc<Record>),
}

pub(crate) async fn delete(call: &Call<'_>, body: &Bytes, warnings: &mut Warnings) -> Result<Response, Failure> {
    if !call.target.subresource.is_empty() {
        return Err(Failure::method_not_allowed());
    }
    let options = Options::read(call, body)?;
    options.warn(call, warnings);
    let deleted = delete_named(call, &call.target.name, &options, warnings).await?;
    let view = call.view()?;
    let (record, code) = match &deleted {
        Deleted::Pending(record) => {
            let accepted = options.orphan_dependents == Some(false);
            (record, if accepted { StatusCode::ACCEPTED } else { StatusCode::OK })
        }
        Deleted::Gone(record) | Deleted::Tried(record) => {
            if !returns_object(call) {
                return Ok(negotiate::json(StatusCode::OK, &success(call, record)));
            }
            (record, StatusCode::OK)
        }
    };
    negotiate::object(code, call.accepted, view.one(record))
}

fn success(call: &Call<'_>, record: &Record) -> Value {
    let mut details = json!({"name": &*record.key().name});
    if !call.resource.group.is_empty() {
        details["group"] = call.resource.group.as_str().into();
    }
    details["kind"] = call.resource.plural.as_str().into();
    details["uid"] = record.value()["metadata"]["uid"].clone();
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// The kinds whose deletion is answered by the object itself.
fn returns_object(call: &Call<'_>) -> bool {
    matches!(
        (call.resource.group.as_str(), call.resource.plural.as_str()),
        (
            "",
            "namespaces"
                | "persistentvolumeclaims"
                | "persistentvolumes"
                | "pods"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
                | "services"
        ) | ("storage.k8s.io", _)
    )
}

/// Deletes one object of the request's collection.
pub(crate) async fn delete_named(
    call: &Call<'_>,
    name: &str,
    options: &Options,
    warnings: &mut Warnings,
) -> Result<Deleted, Failure> {
    let key = call.key_of(&call.target.namespace, name);
    let store = &call.state.store;
    for _ in 0..ATTEMPTS {
        let Some(record) = store.get(&key) else {
            return Err(Failure::not_found(&Subject::resource(call.resource, name)));
        };
        let live = super::view::convert_from_stored(call.scheme, call.resource, &record);
        options.check(call, name, &live)?;
        let intent = admission::Intent { operation: admission::Operation::Delete, dry_run: options.dry_run };
        admission::mutate_by_webhooks(call, intent, None, Some(&live), warnings).await?;
        admission::check(call, intent, None, Some(&live), warnings).await?;
        let mut object = Value::clone(&live);
        let waits = mark(call, &mut object, options)?;
        if options.dry_run {
            return Ok(Deleted::Tried(record));
        }
        let expect = Expect::Exactly(record.revision());
        let committed = if !waits {
            store.delete(&key, expect, draft(call, &object)).await.map(Deleted::Gone)
        } else if object == *live {
            return Ok(Deleted::Pending(record));
        } else {
            store.put(key.clone(), expect, draft(call, &object)).await.map(Deleted::Pending)
        };
        match committed {
            Ok(deleted) => {
                if let Deleted::Gone(record) = &deleted {
                    admission::released(call, record);
                }
                let (Deleted::Gone(record) | Deleted::Pending(record) | Deleted::Tried(record)) = &deleted;
                call.state.settled(call.resource, Arc::clone(record)).await?;
                return Ok(deleted);
            }
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(storage(&error)),
        }
    }
    Err(Failure::modified(&Subject::resource(call.resource, name)))
}

/// Writes into the object that it is being deleted. Answers whether something still has to happen before it is gone.
fn mark(call: &Call<'_>, object: &mut Value, options: &Options) -> Result<bool, Failure> {
    let now = call.state.clock.now();
    let is = |group: &str, plural: &str| call.resource.group == group && call.resource.plural == plural;
    if is("", "namespaces") {
        return mark_namespace(call, object, now);
    }
    let propagation = options.propagation.or_else(|| default_propagation(call, object));
    propagate(object, propagation);
    let graceful = if is("", "pods") { mark_pod(object, options, now) } else { false };
    let finalizers = object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
    if (finalizers || graceful) && !object["metadata"]["deletionTimestamp"].is_string() {
        set_deleted(object, now, 0);
        if is("apiextensions.k8s.io", "customresourcedefinitions") {
            custom::mark_terminating(object, now);
        }
    }
    Ok(finalizers || graceful)
}

fn set_deleted(object: &mut Value, at: Timestamp, grace: i64) {
    let metadata = &mut object["metadata"];
    metadata["deletionTimestamp"] = time_text(at).into();
    metadata["deletionGracePeriodSeconds"] = grace.into();
    if let Some(generation) = metadata["generation"].as_i64().filter(|generation| *generation > 0) {
        metadata["generation"] = (generation + 1).into();
    }
}

/// A pod that runs somewhere is given time to end; its agent deletes it for good with a grace of zero.
/// Answers whether that time is not over yet.
fn mark_pod(pod: &mut Value, options: &Options, now: Timestamp) -> bool {
    let pending = pod["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if let Some(deleted) = pod["metadata"]["deletionTimestamp"].as_str() {
        if pending == 0 {
            return false;
        }
        let Some(mut grace) = options.grace.filter(|grace| *grace < pending) else { return true };
        // Time can only be taken away, and not from the past.
        let deleted: Timestamp = deleted.parse().unwrap_or(now);
        let mut at = deleted.saturating_add(SignedDuration::from_secs(grace - pending)).unwrap_or(now);
        if at < now {
            at = now;
            grace = grace.min(1);
        }
        pod["metadata"]["deletionTimestamp"] = time_text(at).into();
        pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        return grace > 0;
    }
    let scheduled = pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let asked = options.grace.or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(0);
    let grace = match asked {
        _ if !scheduled || ended => 0,
        negative if negative < 0 => 1,
        seconds => seconds,
    };
    let at = now.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    set_deleted(pod, at, grace);
    grace > 0
}

/// A namespace goes in phases: its content first, by a controller, then the finalizer of its spec.
fn mark_namespace(call: &Call<'_>, namespace: &mut Value, now: Timestamp) -> Result<bool, Failure> {
    if !namespace["metadata"]["deletionTimestamp"].is_string() {
        namespace["metadata"]["deletionTimestamp"] = time_text(now).into();
        namespace["status"]["phase"] = "Terminating".into();
        return Ok(!is_finished(namespace));
    }
    if is_finished(namespace) {
        return Ok(false);
    }
    let name = namespace["metadata"]["name"].as_str().unwrap_or_default();
    let why = "The system is ensuring all content is removed from this namespace.  Upon completion, this namespace \
               will automatically be purged by the system.";
    Err(Failure::conflict(&Subject::resource(call.resource, name), why))
}

/// What happens to what an object owns if neither the client nor a finalizer says it: jobs leave it behind.
fn default_propagation(call: &Call<'_>, object: &Value) -> Option<Propagation> {
    let finalizers = object["metadata"]["finalizers"].as_array();
    let said = finalizers.into_iter().flatten().any(|finalizer| finalizer == ORPHAN || finalizer == FOREGROUND);
    (leaves_pods(call) && !said).then_some(Propagation::Orphan)
}

/// Whether objects of the kind leave what they own behind, if nothing else is said.
fn leaves_pods(call: &Call<'_>) -> bool {
    let resource = call.resource;
    (resource.group.as_str(), resource.version.as_str(), resource.plural.as_str()) == ("batch", "v1", "jobs")
}

/// The finalizers by which the garbage collector learns what is wished.
fn propagate(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let wanted = match propagation {
        Propagation::Orphan => Some(ORPHAN),
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Background => None,
    };
    let mut finalizers: Vec<Value> = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND);
    finalizers.extend(wanted.map(Value::from));
    if !finalizers.is_empty() {
        object["metadata"]["finalizers"] = finalizers.into();
    } else if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("finalizers");
    }
}

pub(crate) async fn delete_collection(
    call: &Call<'_>,
    body: &Bytes,
    warnings: &mut Warnings,
) -> Result<Response, Failure> {
    if !call.can("deletecollection") {
        return Err(Failure::method_not_allowed());
    }
    read::check_list_options(call.query, false)?;
    let options = Options::read(call, body)?;
    options.warn(call, warnings);
    let selection = Selection::parse(call)?;
    let namespace = Some(call.target.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let listing = call.state.store.list(&call.collection(), namespace);
    let mut deleted = Vec::new();
    for record in listing.records.into_iter().filter(|record| selection.takes(call, record)) {
        let target = Target {
            namespace: record.key().namespace.to_string(),
            name: record.key().name.to_string(),
            verb: Verb::Delete,
            ..call.target.clone()
        };
        let one = Call { target: &target, ..*call };
        match delete_named(&one, &target.name, &options, warnings).await {
            // Kubernetes answers with what it has found, not with what became of it.
            Ok(_) => deleted.push(record),
            // Somebody else has deleted it.
            Err(failure) if failure.code == StatusCode::NOT_FOUND => {}
            Err(failure) => return Err(failure),
        }
    }
    let body = call.view()?.many(&deleted, listing.revision, None);
    negotiate::object(StatusCode::OK, call.accepted, body)
}

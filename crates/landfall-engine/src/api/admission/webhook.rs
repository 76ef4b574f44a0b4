//! Admission webhooks: what asks servers of the users whether a write may be made, and how it is to be changed.
//!
//! Mutating ones are asked one after the other, by the names of their configurations; validating ones at the same time.
//!
//! Not handled: `reinvocationPolicy` (each webhook is asked once), the operation CONNECT, audit annotations, objects in
//! another version than that of the request, and the `Scale`, `Binding` or `Eviction` of a subresource, in whose place the
//! object itself is sent.

mod exchange;

#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};

use super::policy::{Request, namespace_of};
use super::{Intent, Operation};
use crate::api::failure::Failure;
use crate::api::request::{Verb, field_manager};
use crate::api::{Call, Warnings};
use crate::store::Collection;

const GROUP: &str = "admissionregistration.k8s.io";

/// The versions of reviews that are spoken.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

/// Reasons of Kubernetes; what else a webhook says is in its message.
const REASONS: [&str; 12] = [
    "AlreadyExists",
    "BadRequest",
    "Conflict",
    "Forbidden",
    "InternalError",
    "Invalid",
    "MethodNotAllowed",
    "NotFound",
    "RequestEntityTooLarge",
    "ServiceUnavailable",
    "TooManyRequests",
    "Unauthorized",
];

/// What webhooks are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Mutating,
    Validating,
}

impl Kind {
    fn plural(self) -> &'static str {
        match self {
            Self::Mutating => "mutatingwebhookconfigurations",
            Self::Validating => "validatingwebhookconfigurations",
        }
    }
}

/// What a webhook has said of a write that it lets pass.
struct Answer {
    warnings: Vec<String>,
    patch: Option<json_patch::Patch>,
}

/// Asks whoever may change the object of a write. `new` is absent from deletions.
pub(crate) async fn mutate(
    call: &Call<'_>,
    intent: Intent,
    mut new: Option<&mut Value>,
    old: Option<&Value>,
    warnings: &mut Warnings,
) -> Result<(), Failure> {
    let webhooks = webhooks(call, Kind::Mutating);
    if webhooks.is_empty() {
        return Ok(());
    }
    let namespace = namespace_of(call);
    for webhook in &webhooks {
        let request = Request { call, intent, new: new.as_deref(), old, namespace: &namespace };
        let Some(answer) = ask(&request, webhook, Kind::Mutating).await? else { continue };
        answer.warnings.into_iter().for_each(|warning| warnings.add(warning));
        let Some(patch) = answer.patch.filter(|patch| !patch.0.is_empty()) else { continue };
        let Some(object) = new.as_deref_mut() else {
            return Err(Failure::internal(format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                name(webhook)
            )));
        };
        json_patch::patch(object, &patch).map_err(Failure::internal)?;
        call.scheme.check_types(call.resource, object).map_err(Failure::internal)?;
        call.scheme.default(call.resource, object);
    }
    Ok(())
}

/// Asks whoever may refuse the write.
pub(crate) async fn validate(
    call: &Call<'_>,
    intent: Intent,
    new: Option<&Value>,
    old: Option<&Value>,
    warnings: &mut Warnings,
) -> Result<(), Failure> {
    let webhooks = webhooks(call, Kind::Validating);
    if webhooks.is_empty() {
        return Ok(());
    }
    let namespace = namespace_of(call);
    let request = Request { call, intent, new, old, namespace: &namespace };
    for answer in join_all(webhooks.iter().map(|webhook| ask(&request, webhook, Kind::Validating))).await {
        let said = answer?.map(|answer| answer.warnings).unwrap_or_default();
        for warning in said {
            warnings.add(warning);
        }
    }
    Ok(())
}

/// All webhooks of a kind. Nobody is asked about admission itself, so that a bad configuration can be taken away.
fn webhooks(call: &Call<'_>, kind: Kind) -> Vec<Value> {
    if call.resource.group == GROUP {
        return Vec::new();
    }
    let configurations = call.state.store.list(&Collection::new(GROUP, kind.plural()), None).records;
    let listed = configurations.iter().flat_map(|record| {
        let configuration = record.value();
        configuration["webhooks"].as_array().cloned().unwrap_or_default()
    });
    listed.collect()
}

fn name(webhook: &Value) -> &str {
    webhook["name"].as_str().unwrap_or_default()
}

/// `None`: the webhook has nothing to do with the write, or does not answer and may be passed over.
async fn ask(request: &Request<'_>, webhook: &Value, kind: Kind) -> Result<Option<Answer>, Failure> {
    let problem = match request.concerns(webhook) {
        Ok(false) => return Ok(None),
        Ok(true) => match review(request, webhook, kind).await {
            Ok(response) => match verdict(webhook, &response) {
                Ok(answer) => return answer.map(Some),
                Err(problem) => problem,
            },
            Err(problem) => problem,
        },
        Err(problem) => format!("its match conditions cannot be evaluated: {problem}"),
    };
    if webhook["failurePolicy"] == "Ignore" {
        tracing::warn!(webhook = name(webhook), problem, "a webhook that may be passed over did not answer");
        return Ok(None);
    }
    Err(Failure::internal(format!("failed calling webhook {:?}: {problem}", name(webhook))))
}

/// Sends the write, and answers the `response` of the review that comes back.
async fn review(request: &Request<'_>, webhook: &Value, kind: Kind) -> Result<Value, String> {
    let accepted = webhook["admissionReviewVersions"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let version = accepted.into_iter().find(|version| REVIEWS.contains(version)).ok_or_else(|| {
        "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)"
            .to_owned()
    })?;
    let version = format!("admission.k8s.io/{version}");
    let uid = uuid::Uuid::new_v4().to_string();
    let sent = json!({ "kind": "AdmissionReview", "apiVersion": version, "request": describe(request, &uid) });
    let received =
        exchange::post(request.call, webhook, &sent).await.map_err(|why| format!("failed to call webhook: {why}"))?;
    let invalid = |why: String| Err(format!("received invalid webhook response: {why}"));
    let response = &received["response"];
    if !response.is_object() {
        return invalid("webhook response was absent".to_owned());
    }
    let v1 = version.ends_with("/v1");
    if v1 && response["uid"] != uid.as_str() {
        let other = response["uid"].as_str().unwrap_or_default();
        return invalid(format!("expected response.uid={uid:?}, got {other:?}"));
    }
    if v1 && (received["kind"] != "AdmissionReview" || received["apiVersion"] != version.as_str()) {
        let text = |key: &str| received[key].as_str().unwrap_or_default();
        let (is, kind) = (text("apiVersion"), text("kind"));
        return invalid(format!("expected webhook response of {version}, Kind=AdmissionReview, got {is}, Kind={kind}"));
    }
    let mutates = kind == Kind::Mutating;
    match (response["patch"].as_str(), response["patchType"].as_str()) {
        (Some(_), _) if !mutates => invalid("validating webhook may not return response.patch".to_owned()),
        (_, Some(_)) if !mutates => invalid("validating webhook may not return response.patchType".to_owned()),
        (Some(_), None) if v1 => invalid("webhook returned response.patch but not response.patchType".to_owned()),
        (None, Some(_)) if v1 => invalid("webhook returned response.patchType but not response.patch".to_owned()),
        (_, Some(other)) if other != "JSONPatch" => {
            invalid(format!("webhook returned invalid response.patchType of {other:?}"))
        }
        _ => Ok(response.clone()),
    }
}

/// The write, as a review tells it.
fn describe(request: &Request<'_>, uid: &str) -> Value {
    let call = request.call;
    let (resource, target) = (call.resource, call.target);
    let kind = json!({ "group": resource.group, "version": resource.version, "kind": resource.kind });
    let of = json!({ "group": resource.group, "version": resource.version, "resource": resource.plural });
    let dry_run = request.intent.dry_run;
    let options = match request.intent.operation {
        Operation::Delete => "DeleteOptions",
        _ if target.verb == Verb::Patch => "PatchOptions",
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
    };
    let mut options = json!({ "kind": options, "apiVersion": "meta.k8s.io/v1" });
    if request.intent.operation != Operation::Delete {
        options["fieldManager"] = field_manager(call.query, call.headers).into();
    }
    if dry_run {
        options["dryRun"] = json!(["All"]);
    }
    let mut described = json!({
        "uid": uid,
        "kind": kind,
        "resource": of,
        "requestKind": kind,
        "requestResource": of,
        "name": request.object()["metadata"]["name"].as_str().unwrap_or_default(),
        "operation": request.operation(),
        "userInfo": call.identity.user_info(),
        "object": request.new,
        "oldObject": request.old,
        "dryRun": dry_run,
        "options": options,
    });
    if !target.subresource.is_empty() {
        described["subResource"] = target.subresource.as_str().into();
        described["requestSubResource"] = target.subresource.as_str().into();
    }
    let namespace = if resource.group.is_empty() && resource.plural == "namespaces" {
        described["name"].as_str().unwrap_or_default().to_owned()
    } else {
        target.namespace.clone()
    };
    if !namespace.is_empty() {
        described["namespace"] = namespace.into();
    }
    described
}

/// What the webhook has decided. The outer error: its answer cannot be understood.
fn verdict(webhook: &Value, response: &Value) -> Result<Result<Answer, Failure>, String> {
    if response["allowed"] != true {
        return Ok(Err(refusal(webhook, &response["status"])));
    }
    let undecodable = |why: String| format!("received undecodable patch in webhook response: {why}");
    let patch = match response["patch"].as_str() {
        None => None,
        Some(text) => {
            let decoded = BASE64_STANDARD.decode(text).map_err(|error| undecodable(error.to_string()))?;
            Some(serde_json::from_slice(&decoded).map_err(|error| undecodable(error.to_string()))?)
        }
    };
    let warnings = response["warnings"].as_array().into_iter().flatten();
    let warnings = warnings.filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(Ok(Answer { warnings, patch }))
}

fn refusal(webhook: &Value, status: &Value) -> Failure {
    let denied = format!("admission webhook {:?} denied the request", name(webhook));
    let said = |key: &str| status[key].as_str().filter(|text| !text.is_empty());
    let message = match said("message").or_else(|| said("reason")) {
        Some(why) => format!("{denied}: {why}"),
        None => format!("{denied} without explanation"),
    };
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 400);
    let code = code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::BAD_REQUEST);
    let reason = said("reason").and_then(|reason| REASONS.into_iter().find(|known| *known == reason));
    let details = Some(status["details"].clone()).filter(Value::is_object);
    Failure { code, reason: reason.unwrap_or_default(), message, details, continue_token: None }
}

//! What can be asked of one object besides the object: its scale, an eviction, a binding, a token.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::admission::pods;
use super::decode;
use super::failure::{Failure, Subject};
use super::negotiate::{self, BodyType, body_type};
use super::read;
use super::token::{self, Binding};
use super::write::{self, Change, Patch, changed};
use super::{Call, Warnings, cause, eviction, time_text};
use crate::scheme::{ScalePaths, merge};
use crate::store::{Collection, Key};

/// The shortest life of a token, and the one of a token whose life nobody said.
const TOKEN_SECONDS: (i64, i64) = (600, 3600);

/// A `get` of a subresource: the scale, or the object itself.
pub(crate) fn get(call: &Call<'_>) -> Result<Response, Failure> {
    if call.target.subresource == "scale" {
        let scale = scale_of(call, &read::existing(call)?.value())?;
        return negotiate::object(StatusCode::OK, call.accepted, scale.to_string().into());
    }
    read::get(call)
}

pub(crate) async fn create(call: &Call<'_>, body: &Bytes, warnings: &mut Warnings) -> Result<Response, Failure> {
    let read =
        |kind: &str| decode::object(call.scheme, body, body_type(call.headers), kind).map(|decoded| decoded.value);
    match (call.resource.plural.as_str(), call.target.subresource.as_str()) {
        ("pods", "eviction") => eviction::evict(call, &read("Eviction")?, warnings).await,
        ("pods", "binding") => bind(call, &read("Binding")?, warnings).await,
        ("serviceaccounts", "token") => issue_token(call, &read("TokenRequest")?),
        _ => Err(Failure::method_not_allowed()),
    }
}

pub(crate) async fn update(call: &Call<'_>, body: &Bytes, warnings: &mut Warnings) -> Result<Response, Failure> {
    if call.target.subresource == "scale" {
        let scale = decode::object(call.scheme, body, body_type(call.headers), "Scale")?.value;
        return rescale(call, &|_| Ok(scale.clone()), warnings).await;
    }
    let object = write::read_object(call, body, warnings)?;
    changed(call, Change::Replace(&object), warnings).await?.respond(call)
}

pub(crate) async fn patch(
    call: &Call<'_>,
    body: &Bytes,
    written: BodyType,
    warnings: &mut Warnings,
) -> Result<Response, Failure> {
    if call.target.subresource != "scale" {
        let patch = Patch::read(call, written, body, warnings)?;
        return changed(call, Change::Patch(&patch), warnings).await?.respond(call);
    }
    let json_patch = match written {
        BodyType::JsonPatch => Some(serde_json::from_slice::<json_patch::Patch>(body)),
        // Nothing in a scale is a list, so that the three other ways to merge are one.
        BodyType::MergePatch | BodyType::StrategicMergePatch | BodyType::ApplyPatch => None,
        _ => return Err(Failure::unsupported_media_type()),
    };
    let json_patch = json_patch.transpose().map_err(|error| Failure::bad_request(error.to_string()))?;
    let merge_patch = if json_patch.is_none() { decode::yaml(body)?.value } else { Value::Null };
    let patched = |mut scale: Value| {
        match &json_patch {
            Some(patch) => {
                json_patch::patch(&mut scale, patch).map_err(|error| Failure::bad_request(error.to_string()))?;
            }
            None => merge::json(&mut scale, &merge_patch),
        }
        Ok(scale)
    };
    rescale(call, &patched, warnings).await
}

/// Sets the number of replicas to what `wanted` makes of the present scale.
async fn rescale(
    call: &Call<'_>,
    wanted: &(dyn Fn(Value) -> Result<Value, Failure> + Send + Sync),
    warnings: &mut Warnings,
) -> Result<Response, Failure> {
    let subject = Subject::resource(call.resource, &call.target.name);
    let change = |object: &mut Value| {
        let now = scale_of(call, object)?;
        let wanted = wanted(now.clone())?;
        let version = wanted["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if !version.is_empty() && now["metadata"]["resourceVersion"] != version {
            return Err(Failure::modified(&subject));
        }
        let replicas = match &wanted["spec"]["replicas"] {
            Value::Null => 0,
            number => number.as_i64().ok_or_else(|| Failure::bad_request("spec.replicas is no number"))?,
        };
        if replicas < 0 {
            let why = "must be greater than or equal to 0";
            let cause = cause::invalid("spec.replicas", &json!(replicas), why);
            return Err(Failure::invalid("autoscaling", "Scale", &call.target.name, &[cause]));
        }
        let paths = scale_paths(call)?;
        set_at(object, &paths.spec_replicas, replicas.into());
        Ok(())
    };
    let outcome = changed(call, Change::With(&change), warnings).await?;
    let scale = match &outcome {
        write::Outcome::Stored { record, .. } => scale_of(call, &record.value())?,
        write::Outcome::Tried { object, .. } => scale_of(call, object)?,
    };
    negotiate::object(StatusCode::OK, call.accepted, scale.to_string().into())
}

fn scale_of(call: &Call<'_>, object: &Value) -> Result<Value, Failure> {
    let paths = scale_paths(call)?;
    let mut metadata = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(key) {
            metadata[key] = value.clone();
        }
    }
    let mut spec = json!({});
    if let Some(replicas) = at(object, &paths.spec_replicas).filter(|replicas| !replicas.is_null()) {
        spec["replicas"] = replicas.clone();
    }
    let mut status = json!({"replicas": at(object, &paths.status_replicas).and_then(Value::as_i64).unwrap_or(0)});
    let selector = match paths.selector.as_ref().and_then(|path| at(object, path)) {
        Some(Value::String(text)) => text.clone(),
        Some(selector @ Value::Object(_)) => selector_text(selector),
        _ => String::new(),
    };
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    Ok(json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}))
}

/// A label selector as the text that clients select by.
fn selector_text(selector: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let mut terms: Vec<String> = labels.map(|(key, value)| format!("{key}={}", text(value))).collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = text(&expression["key"]);
        let mut values: Vec<String> = expression["values"].as_array().into_iter().flatten().map(text).collect();
        values.sort();
        let values = values.join(",");
        terms.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key,
        });
    }
    terms.sort();
    terms.join(",")
}

fn scale_paths<'a>(call: &Call<'a>) -> Result<&'a ScalePaths, Failure> {
    call.resource.subresource("scale").and_then(|scale| scale.scale.as_ref()).ok_or_else(Failure::no_such_resource)
}

fn at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, part| value.get(part))
}

fn set_at(object: &mut Value, path: &[String], value: Value) {
    let mut place = object;
    for part in path {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[part];
    }
    *place = value;
}

pub(crate) fn success(code: StatusCode) -> Response {
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code.as_u16()});
    negotiate::json(code, &status)
}

/// Binds a pod to a node: what a scheduler does.
pub(crate) async fn bind(call: &Call<'_>, binding: &Value, warnings: &mut Warnings) -> Result<Response, Failure> {
    let node = binding["target"]["name"].as_str().unwrap_or_default();
    let kind = binding["target"]["kind"].as_str().unwrap_or_default();
    let mut causes = Vec::new();
    if !matches!(kind, "" | "Node") {
        causes.push(cause::not_supported("target.kind", kind, &["Node", "<empty>"]));
    }
    if node.is_empty() {
        causes.push(cause::required("target.name", ""));
    }
    if !causes.is_empty() {
        return Err(Failure::invalid("", "Binding", &call.target.name, &causes));
    }
    let place = if kind == "Node" { pods::place(call, node) } else { Vec::new() };
    let now = call.now();
    let subject = Subject { group: "", kind: "pods/binding", name: &call.target.name };
    let change = |pod: &mut Value| {
        let uid = binding["metadata"]["uid"].as_str().unwrap_or_default();
        if !uid.is_empty() && pod["metadata"]["uid"] != uid {
            let found = pod["metadata"]["uid"].as_str().unwrap_or_default();
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}");
            return Err(Failure::conflict(&subject, &why));
        }
        let name = &call.target.name;
        if pod["metadata"]["deletionTimestamp"].is_string() {
            return Err(Failure::conflict(
                &subject,
                &format!("pod {name} is being deleted, cannot be assigned to a host"),
            ));
        }
        if let Some(bound) = pod["spec"]["nodeName"].as_str().filter(|bound| !bound.is_empty()) {
            return Err(Failure::conflict(&subject, &format!("pod {name} is already assigned to node {bound:?}")));
        }
        if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
            return Err(Failure::conflict(&subject, &format!("pod {name} has non-empty .spec.schedulingGates")));
        }
        pod["spec"]["nodeName"] = node.into();
        if let Some(status) = pod["status"].as_object_mut() {
            status.remove("nominatedNodeName");
        }
        for key in ["annotations", "labels"] {
            for (name, value) in binding["metadata"][key].as_object().into_iter().flatten() {
                pod["metadata"][key][name] = value.clone();
            }
        }
        for (label, value) in &place {
            pod["metadata"]["labels"][label] = value.clone();
        }
        let mut conditions: Vec<Value> = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let scheduled =
            json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
        match conditions.iter_mut().find(|condition| condition["type"] == "PodScheduled") {
            Some(condition) if condition["status"] == "True" => {}
            Some(condition) => *condition = scheduled,
            None => conditions.push(scheduled),
        }
        pod["status"]["conditions"] = conditions.into();
        Ok(())
    };
    changed(call, Change::With(&change), warnings).await?;
    Ok(success(StatusCode::CREATED))
}

fn issue_token(call: &Call<'_>, request: &Value) -> Result<Response, Failure> {
    let account = read::existing(call)?.value();
    let (default, named) = (vec![token::ISSUER.to_owned()], &request["spec"]["audiences"]);
    let audiences: Vec<String> = match named.as_array().filter(|named| !named.is_empty()) {
        Some(named) => named.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        None => default,
    };
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(TOKEN_SECONDS.1);
    if seconds < TOKEN_SECONDS.0 {
        let why = "may not specify a duration less than 10 minutes";
        let cause = cause::invalid("spec.expirationSeconds", &json!(seconds), why);
        return Err(Failure::invalid("authentication.k8s.io", "TokenRequest", "", &[cause]));
    }
    let bound = &request["spec"]["boundObjectRef"];
    let pod = match bound["kind"].as_str() {
        None => None,
        Some("Pod") => Some(bound_pod(call, bound)?),
        // Not handled: tokens bound to Secrets and Nodes.
        Some(kind) => {
            let message = format!("cannot bind token for serviceaccount to kind {kind:?}");
            return Err(Failure::bad_request(message));
        }
    };
    // Programs hold it, and they go by the clock of the machine: see `crate::clock`.
    let now = Timestamp::now();
    let expires = now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
    let uid = account["metadata"]["uid"].as_str().unwrap_or_default();
    let binding = Binding {
        namespace: &call.target.namespace,
        account: &call.target.name,
        account_uid: uid,
        pod: pod.as_ref().map(|(name, uid)| (name.as_str(), uid.as_str())),
    };
    let claims = token::claims(&binding, &audiences, now.as_second(), expires.as_second());
    let mut spec = json!({"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": null});
    if !bound.is_null() {
        spec["boundObjectRef"] = bound.clone();
    }
    let answer = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": call.target.name, "namespace": call.target.namespace, "creationTimestamp": call.now()},
        "spec": spec,
        "status": {"token": call.state.signing_key.sign(&claims), "expirationTimestamp": time_text(expires)},
    });
    Ok(negotiate::json(StatusCode::CREATED, &answer))
}

fn bound_pod(call: &Call<'_>, reference: &Value) -> Result<(String, String), Failure> {
    let name = reference["name"].as_str().unwrap_or_default();
    let key = Key::new(&Collection::new("", "pods"), &call.target.namespace, name);
    let subject = Subject { group: "", kind: "pods", name };
    let pod = call.state.store.get(&key).ok_or_else(|| Failure::not_found(&subject))?.value();
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    if let Some(wanted) = reference["uid"].as_str().filter(|wanted| *wanted != uid) {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        );
        return Err(Failure::conflict(&subject, &why));
    }
    Ok((name.to_owned(), uid.to_owned()))
}

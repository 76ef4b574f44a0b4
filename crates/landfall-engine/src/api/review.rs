//! Questions that are asked by creating an object, which is answered and not stored: who am I, may they do that.

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::failure::Failure;
use super::identity::Identity;
use super::negotiate;
use super::rbac::Attributes;
use super::write::read_object;
use super::{Call, Warnings, cause, token};

/// Whether objects of the resource are questions.
pub(crate) fn is_review(call: &Call<'_>) -> bool {
    matches!(call.resource.group.as_str(), "authorization.k8s.io" | "authentication.k8s.io")
}

pub(crate) fn answer(call: &Call<'_>, body: &Bytes, warnings: &mut Warnings) -> Result<Response, Failure> {
    let mut review = read_object(call, body, warnings)?;
    let spec = review["spec"].clone();
    let status = match call.resource.kind.as_str() {
        "SelfSubjectAccessReview" => decide(call, call.identity, &spec),
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let identity = subject(&spec);
            if identity.user.is_empty() && identity.groups.is_empty() {
                let why = "at least one of user or group must be specified";
                let cause = cause::invalid("spec.user", &json!(""), why);
                return Err(Failure::invalid(&call.resource.group, &call.resource.kind, "", &[cause]));
            }
            if call.resource.kind == "LocalSubjectAccessReview"
                && spec["resourceAttributes"]["namespace"].as_str() != Some(&call.target.namespace)
            {
                let why = "must match metadata.namespace";
                let found = &spec["resourceAttributes"]["namespace"];
                let cause = cause::invalid("spec.resourceAttributes.namespace", found, why);
                return Err(Failure::invalid(&call.resource.group, &call.resource.kind, "", &[cause]));
            }
            decide(call, &identity, &spec)
        }
        "SelfSubjectRulesReview" => {
            let namespace = spec["namespace"].as_str().unwrap_or_default();
            if namespace.is_empty() {
                return Err(Failure::bad_request("no namespace on request"));
            }
            rules(call, namespace)
        }
        "SelfSubjectReview" => json!({"userInfo": call.identity.user_info()}),
        "TokenReview" => review_token(call, &spec),
        _ => return Err(Failure::method_not_allowed()),
    };
    review["metadata"]["creationTimestamp"] = Value::Null;
    review["status"] = status;
    Ok(negotiate::json(StatusCode::CREATED, &review))
}

fn subject(spec: &Value) -> Identity {
    let groups = spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    Identity {
        user: spec["user"].as_str().unwrap_or_default().to_owned(),
        groups: groups.collect(),
        ..Identity::default()
    }
}

fn decide(call: &Call<'_>, identity: &Identity, spec: &Value) -> Value {
    let text = |part: &str, key: &str| spec[part][key].as_str().unwrap_or_default().to_owned();
    let resource = |key: &str| text("resourceAttributes", key);
    let (verb, group, plural, subresource, namespace, name) = (
        resource("verb"),
        resource("group"),
        resource("resource"),
        resource("subresource"),
        resource("namespace"),
        resource("name"),
    );
    let (path, path_verb) = (text("nonResourceAttributes", "path"), text("nonResourceAttributes", "verb"));
    let wanted = Attributes {
        verb: if path.is_empty() { &verb } else { &path_verb },
        group: &group,
        resource: &plural,
        subresource: &subresource,
        namespace: &namespace,
        name: &name,
        path: &path,
    };
    let allowed = call.state.grants().allow(identity, &wanted);
    json!({"allowed": allowed})
}

fn rules(call: &Call<'_>, namespace: &str) -> Value {
    let rules = call.state.grants().rules(call.identity, namespace);
    let (paths, resources): (Vec<_>, Vec<_>) =
        rules.iter().map(super::rbac::Rule::to_value).partition(|rule| rule.get("nonResourceURLs").is_some());
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}

fn review_token(call: &Call<'_>, spec: &Value) -> Value {
    let audiences: Vec<String> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let bearer = spec["token"].as_str().unwrap_or_default();
    match call.state.static_tokens.get(bearer).cloned().or_else(|| token::identify(call.state, bearer, &audiences)) {
        Some(identity) => {
            let audiences = if audiences.is_empty() { vec![token::ISSUER.to_owned()] } else { audiences };
            json!({"authenticated": true, "user": identity.user_info(), "audiences": audiences})
        }
        None => json!({"user": {}, "error": "invalid bearer token"}),
    }
}

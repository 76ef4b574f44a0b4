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
use crate::scheme::Cause;

/// Whether objects of the resource are questions.
pub(crate) fn is_review(call: &Call<'_>) -> bool {
    matches!(call.resource.group.as_str(), "authorization.k8s.io" | "authentication.k8s.io")
}

pub(crate) fn answer(call: &Call<'_>, body: &Bytes, warnings: &mut Warnings) -> Result<Response, Failure> {
    let mut review = read_object(call, body, warnings)?;
    let spec = review["spec"].clone();
    let kind = call.resource.kind.as_str();
    if call.resource.group == "authorization.k8s.io" && kind != "SelfSubjectRulesReview" {
        let causes = wrong(kind, &review);
        if !causes.is_empty() {
            return Err(Failure::invalid(&call.resource.group, "", "", &causes));
        }
    }
    let status = match kind {
        "SelfSubjectAccessReview" => decide(call, call.identity, &spec),
        "SubjectAccessReview" => decide(call, &subject(&spec), &spec),
        "LocalSubjectAccessReview" => {
            let namespace = &call.target.namespace;
            if review["metadata"]["namespace"].as_str() != Some(namespace) {
                let why = format!("spec.resourceAttributes.namespace must match namespace: {namespace}");
                return Err(Failure::bad_request(why));
            }
            decide(call, &subject(&spec), &spec)
        }
        "SelfSubjectRulesReview" => {
            let namespace = spec["namespace"].as_str().unwrap_or_default();
            if namespace.is_empty() {
                return Err(Failure::bad_request("no namespace on request"));
            }
            review["spec"] = json!({});
            rules(call, namespace)
        }
        "SelfSubjectReview" => {
            review["metadata"]["creationTimestamp"] = call.now().into();
            json!({"userInfo": call.identity.user_info()})
        }
        "TokenReview" => review_token(call, &spec),
        _ => return Err(Failure::method_not_allowed()),
    };
    if review["metadata"].is_null() {
        review["metadata"] = json!({});
    }
    review["status"] = status;
    Ok(negotiate::json(StatusCode::CREATED, &review))
}

/// What is wrong with a question about access.
fn wrong(kind: &str, review: &Value) -> Vec<Cause> {
    let spec = &review["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let mut causes = Vec::new();
    if !resource.is_null() && !path.is_null() {
        let why = "cannot be specified in combination with resourceAttributes";
        // Kubernetes shows its own struct, whose fields are written so.
        let found = json!({"Path": path["path"], "Verb": path["verb"]});
        causes.push(cause::invalid("spec.nonResourceAttributes", &found, why));
    }
    if resource.is_null() && path.is_null() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        causes.push(cause::invalid("spec.resourceAttributes", &Value::Null, why));
    }
    if kind == "SelfSubjectAccessReview" {
        return causes;
    }
    let who = subject(spec);
    if who.user.is_empty() && who.groups.is_empty() {
        causes.push(cause::invalid("spec.user", &json!(""), "at least one of user or group must be specified"));
    }
    if kind == "LocalSubjectAccessReview" {
        let (wanted, named) = (&review["metadata"]["namespace"], &resource["namespace"]);
        if !resource.is_null() && wanted.as_str().unwrap_or_default() != named.as_str().unwrap_or_default() {
            let found = json!(named.as_str().unwrap_or_default());
            causes.push(cause::invalid("spec.resourceAttributes.namespace", &found, "must match metadata.namespace"));
        }
        if !path.is_null() {
            let found = json!({"Path": path["path"], "Verb": path["verb"]});
            causes.push(cause::invalid("spec.nonResourceAttributes", &found, "disallowed on this kind of request"));
        }
    }
    causes
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
    let verdict = call.state.grants().judge(identity, &wanted);
    let mut status = json!({"allowed": verdict.allowed});
    if !verdict.reason.is_empty() {
        status["reason"] = verdict.reason.into();
    }
    status
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

//! Who a request comes from: what the transport says, a bearer token, or somebody whom the sender acts for.

use http::request::Parts;
use http::{HeaderMap, header};

use super::failure::Failure;
use super::identity::Identity;
use super::rbac::{Attributes, authorize};
use super::{State, token};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";

/// The sender of a request, or the one whom the sender acts for and may act for.
pub(crate) fn identify(state: &State, parts: &Parts) -> Result<Identity, Failure> {
    let sender = sender(state, parts)?;
    impersonated(state, sender, &parts.headers)
}

/// Who shows nothing is nobody, whose rights are those that roles give to nobody; who shows something wrong is refused.
fn sender(state: &State, parts: &Parts) -> Result<Identity, Failure> {
    if let Some(identity) = parts.extensions.get::<Identity>() {
        return Ok(identity.clone());
    }
    let Some(bearer) = bearer(&parts.headers) else { return Ok(Identity::anonymous()) };
    let known = state.static_tokens.get(bearer).cloned().or_else(|| token::identify(state, bearer, &[]));
    known.ok_or_else(Failure::unauthorized)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, bearer) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let bearer = bearer.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !bearer.is_empty()).then_some(bearer)
}

fn impersonated(state: &State, sender: Identity, headers: &HeaderMap) -> Result<Identity, Failure> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let user = text(USER);
    let groups: Vec<&str> = headers.get_all(GROUP).iter().filter_map(|value| value.to_str().ok()).collect();
    let extra: Vec<(&str, &str)> = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().strip_prefix(EXTRA)?, value.to_str().ok()?)))
        .collect();
    if user.is_empty() {
        if groups.is_empty() && extra.is_empty() && text(UID).is_empty() {
            return Ok(sender);
        }
        let message = "requested [{Group}] without impersonating a user";
        return Err(Failure::plain_internal(message));
    }
    let may = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let wanted = Attributes { verb: "impersonate", group, resource, subresource, namespace, name, path: "" };
        authorize(state, &sender, &wanted)
    };
    let account = user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let mut identity = match account {
        Some((namespace, name)) => {
            may("", "serviceaccounts", "", namespace, name)?;
            Identity::service_account(namespace, name, "")
        }
        None => {
            may("", "users", "", "", user)?;
            Identity::new(user, Vec::<String>::new())
        }
    };
    for group in &groups {
        may("", "groups", "", "", group)?;
    }
    if !groups.is_empty() {
        identity.groups = groups.iter().map(|group| (*group).to_owned()).collect();
        if user != Identity::ANONYMOUS && !groups.contains(&"system:authenticated") {
            identity.groups.push("system:authenticated".to_owned());
        }
    }
    if !text(UID).is_empty() {
        may("authentication.k8s.io", "uids", "", "", text(UID))?;
        text(UID).clone_into(&mut identity.uid);
    }
    for (key, value) in extra {
        may("authentication.k8s.io", "userextras", key, "", value)?;
        identity.extra.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    Ok(identity)
}

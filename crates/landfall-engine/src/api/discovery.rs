//! What a client reads before it asks for objects: versions, groups and resources (plain and aggregated), schemas,
//! health and metrics.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::State;
use super::failure::Failure;
use super::negotiate::{self, accepted_types};
use crate::scheme::{Group, Resource, Scheme, group_version, openapi};

/// The version of Kubernetes whose behaviour the engine has. Clients read the numbers out of it.
const GIT_VERSION: &str = "v1.36.3+landfall";

/// What everybody may ask, whoever they are.
pub(crate) fn open_to_all(state: &State, parts: &Parts) -> Option<Response> {
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return None;
    }
    let path = parts.uri.path().trim_end_matches('/');
    let check = ["/healthz", "/livez", "/readyz"].into_iter().find_map(|probe| {
        let rest = path.strip_prefix(probe)?;
        (rest.is_empty() || rest.starts_with('/')).then_some((probe, rest))
    });
    if let Some((probe, rest)) = check {
        return Some(health(state, probe, rest, parts.uri.query().is_some_and(|query| query.contains("verbose"))));
    }
    (path == "/version").then(|| negotiate::json(StatusCode::OK, &version()))
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35", "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }),
    })
}

fn health(state: &State, probe: &str, check: &str, verbose: bool) -> Response {
    let checks = [("ping", true), ("store", !state.stop.is_cancelled())];
    let text = |code, body: String| negotiate::with_type(code, "text/plain; charset=utf-8", body.into());
    if let Some(name) = check.strip_prefix('/') {
        return match checks.iter().find(|(known, _)| *known == name) {
            Some((_, true)) => text(StatusCode::OK, "ok".to_owned()),
            Some((_, false)) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {name} failed\n"))
            }
            None => no_such_page(),
        };
    }
    let good = checks.iter().all(|(_, good)| *good);
    if good && !verbose {
        return text(StatusCode::OK, "ok".to_owned());
    }
    let mut lines: String = checks
        .iter()
        .map(
            |(name, good)| {
                if *good { format!("[+]{name} ok\n") } else { format!("[-]{name} failed: reason withheld\n") }
            },
        )
        .collect();
    let name = probe.trim_start_matches('/');
    lines.push_str(&format!("{name} check {}\n", if good { "passed" } else { "failed" }));
    text(if good { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }, lines)
}

/// The answer to a path that names nothing at all.
pub(crate) fn no_such_page() -> Response {
    negotiate::with_type(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n".into())
}

/// Answers a path that names no resource.
pub(crate) fn answer(state: &Arc<State>, scheme: &Scheme, parts: &Parts) -> Result<Response, Failure> {
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Err(Failure::method_not_allowed());
    }
    let segments: Vec<&str> = parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let discoverable;
    let scheme = if segments.first() == Some(&"apis") {
        discoverable = super::metrics::custom::discoverable(state, scheme);
        &discoverable
    } else {
        scheme
    };
    let found = match segments.as_slice() {
        [] => json!({"paths": paths(scheme)}),
        ["api"] => {
            if wants_aggregated(parts) {
                return Ok(aggregated(scheme, str::is_empty));
            }
            let address = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            json!({
                "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
            })
        }
        ["apis"] => {
            if wants_aggregated(parts) {
                return Ok(aggregated(scheme, |group| !group.is_empty()));
            }
            let named = groups(scheme).filter(|group| !group.name.is_empty());
            let groups: Vec<Value> = named.map(|group| api_group(&group)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["apis", group] => match scheme.groups().iter().find(|known| known.name == **group && !known.name.is_empty()) {
            Some(group) => {
                let mut found = json!({"kind": "APIGroup", "apiVersion": "v1"});
                merge(&mut found, api_group(group));
                found
            }
            None => return Ok(no_such_page()),
        },
        ["api", "v1"] => resource_list(scheme, "", "v1"),
        ["apis", group, version] if serves(scheme, group, version) => resource_list(scheme, group, version),
        ["openapi", "v2"] => return Ok(openapi_v2(scheme, parts)),
        ["apis", group, _] if scheme.groups().iter().any(|known| known.name == *group) => {
            return Err(Failure::no_such_resource());
        }
        ["openapi", "v3"] => {
            // Kubernetes, too, calls it text.
            let index = openapi::v3_index(scheme).to_string();
            return Ok(negotiate::with_type(StatusCode::OK, "text/plain; charset=utf-8", index.into()));
        }
        ["openapi", "v3", rest @ ..] => {
            return match openapi::v3(scheme, &rest.join("/")) {
                Some(document) => Ok(negotiate::json_bytes(StatusCode::OK, document)),
                None => Ok(StatusCode::NOT_FOUND.into_response()),
            };
        }
        ["metrics"] => return Ok(super::metrics::prometheus(state)),
        _ => return Ok(no_such_page()),
    };
    Ok(negotiate::json(StatusCode::OK, &found))
}

fn openapi_v2(scheme: &Scheme, parts: &Parts) -> Response {
    let protobuf = accepted_types(&parts.headers).any(|media| media.essence.contains("proto-openapi.spec.v2"));
    if protobuf {
        // With an `@` in it, as the client writes it, Go cannot read the media type.
        let media = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
        return negotiate::with_type(StatusCode::OK, media, openapi::v2_protobuf(scheme));
    }
    negotiate::json(StatusCode::OK, &openapi::v2_json(scheme))
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

fn api_group(group: &Group) -> Value {
    let shown: Vec<Value> = group
        .versions
        .iter()
        .map(|version| json!({"groupVersion": group_version(&group.name, version), "version": version}))
        .collect();
    json!({"name": group.name, "versions": shown, "preferredVersion": shown[0]})
}

/// Whether a group is served in a version.
pub(crate) fn serves(scheme: &Scheme, group: &str, version: &str) -> bool {
    scheme.resources().any(|one| one.group == group && one.version == version)
}

/// The groups that clients are told of. One of which nothing is served at the moment is none: old ones take an empty list
/// for a failure.
fn groups(scheme: &Scheme) -> impl Iterator<Item = Group> {
    let has_any = move |group: &Group, version: &str| !resources(scheme, &group.name, version).is_empty();
    let is_served = move |group: &Group| group.versions.iter().any(|version| has_any(group, version));
    scheme.groups().into_iter().filter(is_served)
}

fn resources<'a>(scheme: &'a Scheme, group: &'a str, version: &'a str) -> Vec<&'a Resource> {
    let served = |one: &&Arc<Resource>| {
        one.group == group && one.version == version && !(one.verbs.is_empty() && one.subresources.is_empty())
    };
    let mut found: Vec<&Resource> = scheme.resources().filter(served).map(AsRef::as_ref).collect();
    found.sort_by(|a, b| a.plural.cmp(&b.plural));
    found
}

fn resource_list(scheme: &Scheme, group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    for resource in resources(scheme, group, version) {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        if resource.verbs.iter().any(|verb| verb == "list") {
            entry["storageVersionHash"] = storage_version_hash(resource).into();
        }
        // One without a verb is there for what is below it.
        if !resource.verbs.is_empty() {
            list.push(entry);
        }
        for sub in &resource.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
                "namespaced": resource.namespaced,
            });
            if sub.group != group || sub.version != version {
                if !sub.group.is_empty() {
                    entry["group"] = sub.group.as_str().into();
                }
                entry["version"] = sub.version.as_str().into();
            }
            entry["kind"] = sub.kind.as_str().into();
            entry["verbs"] = json!(sub.verbs);
            list.push(entry);
        }
    }
    let mut answer = json!({"kind": "APIResourceList"});
    if !group.is_empty() {
        answer["apiVersion"] = "v1".into();
    }
    answer["groupVersion"] = group_version(group, version).into();
    answer["resources"] = list.into();
    answer
}

/// Changes when the stored form of the resource does; clients only compare it.
fn storage_version_hash(resource: &Resource) -> String {
    use base64::Engine as _;
    let (group, version) = &resource.storage;
    let text = format!("{group}/{version}/{}", resource.kind);
    base64::engine::general_purpose::STANDARD.encode(&Sha256::digest(text)[..8])
}

/// Whether the client asks for all groups in one document.
fn wants_aggregated(parts: &Parts) -> bool {
    for media in accepted_types(&parts.headers) {
        if media.essence != "application/json" {
            continue;
        }
        match (media.parameter("g"), media.parameter("v"), media.parameter("as")) {
            ("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList") => return true,
            ("", "", "") => return false,
            _ => {}
        }
    }
    false
}

fn aggregated(scheme: &Scheme, wanted: impl Fn(&str) -> bool) -> Response {
    let items: Vec<Value> = groups(scheme)
        .filter(|group| wanted(&group.name))
        .map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        resources(scheme, &group.name, version).into_iter().map(aggregated_resource).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let media_type = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let document = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": items,
    });
    let bytes = Bytes::from(document.to_string());
    let tag = format!("\"{:X}\"", Sha256::digest(&bytes));
    let mut response = negotiate::with_type(StatusCode::OK, media_type, bytes);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(header::ETAG, HeaderValue::from_str(&tag).expect("hexadecimal digits and quotes"));
    response
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    // Kubernetes leaves the group and version out when they are those of the resource, except for custom ones.
    let (group, version) =
        if resource.custom { (resource.group.as_str(), resource.version.as_str()) } else { ("", "") };
    let mut entry = Map::new();
    entry.insert("resource".to_owned(), resource.plural.as_str().into());
    // Kubernetes names no kind where only what is below is served.
    let shown = if resource.verbs.is_empty() { "" } else { resource.kind.as_str() };
    entry.insert("responseKind".to_owned(), kind(group, version, shown));
    entry.insert("scope".to_owned(), if resource.namespaced { "Namespaced" } else { "Cluster" }.into());
    entry.insert("singularResource".to_owned(), resource.singular.as_str().into());
    entry.insert("verbs".to_owned(), json!(resource.verbs));
    if !resource.short_names.is_empty() {
        entry.insert("shortNames".to_owned(), json!(resource.short_names));
    }
    if !resource.categories.is_empty() {
        entry.insert("categories".to_owned(), json!(resource.categories));
    }
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|sub| {
            let own = sub.group == resource.group && sub.version == resource.version && !resource.custom;
            let (group, version) = if own { ("", "") } else { (sub.group.as_str(), sub.version.as_str()) };
            json!({"subresource": sub.name, "responseKind": kind(group, version, &sub.kind), "verbs": sub.verbs})
        })
        .collect();
    if !subresources.is_empty() {
        entry.insert("subresources".to_owned(), subresources.into());
    }
    Value::Object(entry)
}

fn paths(scheme: &Scheme) -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned(), "/apis/".to_owned()];
    for group in scheme.groups().iter().filter(|group| !group.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|version| format!("/apis/{}/{version}", group.name)));
    }
    let others = [
        "/healthz",
        "/healthz/ping",
        "/livez",
        "/livez/ping",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/readyz/ping",
        "/version",
    ];
    paths.extend(others.map(str::to_owned));
    paths.sort();
    paths
}

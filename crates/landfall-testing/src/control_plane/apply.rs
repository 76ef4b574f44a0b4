//! Applies objects of any kind as a strict user would, custom resources included: their definitions are made from the
//! schemas that the tests have.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, ApiResource, Discovery, Scope};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::Schemas;

/// How long a new kind may take until it is served.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often discovery is asked, which tells nobody when it changes.
const POLL: Duration = Duration::from_millis(50);

/// Whether an object is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apply {
    /// Everything is checked and nothing is kept.
    DryRun,
    /// As a user does it.
    ForReal,
}

/// What the API server said of an object that it took.
#[derive(Debug, Default)]
pub struct Applied {
    /// Its `Warning` headers, as text.
    pub warnings: Vec<String>,
}

/// A user of an API server that serves the kinds of some objects.
pub struct Applier {
    client: Client,
    kinds: Discovery,
    loose: Vec<String>,
}

/// What went wrong with an object, or with a kind.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server, or the way to it.
    #[error("failed to {action}")]
    Request {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: Box<kube::Error>,
    },
    /// Neither the API server nor the schemas know the kind.
    #[error("nobody knows the kind {api_version} {kind}")]
    UnknownKind {
        /// Group and version.
        api_version: String,
        /// Its name.
        kind: String,
    },
    /// A kind was defined and is not served.
    #[error("{name} is not served after {} s", PATIENCE.as_secs())]
    NotServed {
        /// The definition.
        name: String,
    },
    /// The object was refused.
    #[error("{subject}: {message}")]
    Refused {
        /// The object.
        subject: String,
        /// In the words of the API server.
        message: String,
    },
}

impl Applier {
    /// Defines the custom resources among the objects and waits until every kind is served.
    ///
    /// A schema that the API server refuses is replaced by one that takes anything; [`Applier::loose`] names those kinds.
    pub async fn prepare(client: Client, schemas: &Schemas, objects: &[Value]) -> Result<Self, ApplyError> {
        let mut kinds: Vec<_> = objects.iter().map(kind_of).collect();
        kinds.sort_by_key(|kind| (kind.api_version(), kind.kind.clone()));
        kinds.dedup();
        let served = discover(&client).await?;
        let missing: Vec<_> = kinds.iter().filter(|kind| served.resolve_gvk(kind).is_none()).collect();

        let definitions = Api::<CustomResourceDefinition>::all(client.clone());
        let mut loose = Vec::new();
        let mut names = Vec::new();
        for kind in &missing {
            let unknown = || ApplyError::UnknownKind { api_version: kind.api_version(), kind: kind.kind.clone() };
            let schema = schemas.custom(&kind.api_version(), &kind.kind).ok_or_else(unknown)?;
            let defined = match definitions.create(&PostParams::default(), &definition(kind, schema)).await {
                Err(kube::Error::Api(status)) if status.code == 422 => {
                    loose.push(format!("{} {}: {}", kind.api_version(), kind.kind, status.message));
                    let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
                    definitions.create(&PostParams::default(), &definition(kind, anything)).await
                }
                result => result,
            };
            let defined = defined.map_err(|error| request(format!("define {}", kind.kind), error))?;
            names.push(defined.name_any());
        }
        for name in names {
            let established = await_condition(definitions.clone(), &name, conditions::is_crd_established());
            let Ok(Ok(_)) = tokio::time::timeout(PATIENCE, established).await else {
                return Err(ApplyError::NotServed { name });
            };
        }

        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let served = discover(&client).await?;
            let Some(missing) = missing.iter().find(|kind| served.resolve_gvk(kind).is_none()) else {
                return Ok(Self { client, kinds: served, loose });
            };
            if tokio::time::Instant::now() >= deadline {
                return Err(ApplyError::NotServed { name: missing.kind.clone() });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The custom resources whose schema was refused, with the reason; whatever they hold is taken.
    pub fn loose(&self) -> &[String] {
        &self.loose
    }

    /// Applies an object on the server's side, with strict validation of its fields.
    ///
    /// # Panics
    ///
    /// If the object's name cannot be a part of a URL.
    pub async fn apply(&self, object: &Value, mode: Apply) -> Result<Applied, ApplyError> {
        let kind = kind_of(object);
        let (resource, ApiCapabilities { scope, .. }) = self
            .kinds
            .resolve_gvk(&kind)
            .ok_or_else(|| ApplyError::UnknownKind { api_version: kind.api_version(), kind: kind.kind.clone() })?;
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
        let subject = format!("{} {name}", kind.kind);
        // What the path says of the scope, kubectl says too; an object with a namespace of its own that it cannot have is
        // refused by neither, so it is here.
        let path = match (scope, namespace) {
            (Scope::Cluster, None) => path(&resource, None, name),
            (Scope::Namespaced, Some(namespace)) => path(&resource, Some(namespace), name),
            (Scope::Cluster, Some(_)) => {
                return Err(ApplyError::Refused { subject, message: "it can have no namespace".to_owned() });
            }
            (Scope::Namespaced, None) => {
                return Err(ApplyError::Refused { subject, message: "it needs a namespace".to_owned() });
            }
        };
        let dry_run = if mode == Apply::DryRun { "&dryRun=All" } else { "" };
        let request_body = kube::client::Body::from(object.to_string().into_bytes());
        let call =
            http::Request::patch(format!("{path}?fieldManager=landfall&force=true&fieldValidation=Strict{dry_run}"))
                .header(http::header::CONTENT_TYPE, "application/apply-patch+yaml")
                .body(request_body)
                .expect("names of objects are parts of a URL");
        let failed = |error| request(format!("apply {subject}"), error);
        let answer = self.client.send(call).await.map_err(failed)?;
        let (head, body) = answer.into_parts();
        let body = body.collect_bytes().await.map_err(failed)?;
        if !head.status.is_success() {
            let status: Value = serde_json::from_slice(&body).unwrap_or_default();
            let message = status["message"].as_str().map_or_else(|| head.status.to_string(), str::to_owned);
            return Err(ApplyError::Refused { subject, message });
        }
        let warnings = head.headers.get_all(http::header::WARNING).iter();
        Ok(Applied { warnings: warnings.map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned()).collect() })
    }
}

/// A group whose first definition has just come is listed before its kinds are served: then they are asked for again.
async fn discover(client: &Client) -> Result<Discovery, ApplyError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match Discovery::new(client.clone()).run().await {
            Err(kube::Error::Api(status)) if status.code == 404 && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(POLL).await;
            }
            found => return found.map_err(|error| request("ask for the kinds that are served", error)),
        }
    }
}

fn request(action: impl Into<String>, error: kube::Error) -> ApplyError {
    ApplyError::Request { action: action.into(), source: Box::new(error) }
}

fn kind_of(object: &Value) -> GroupVersionKind {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    GroupVersionKind::gvk(group, version, text("kind"))
}

fn path(resource: &ApiResource, namespace: Option<&str>, name: &str) -> String {
    let root = if resource.group.is_empty() { "/api" } else { "/apis" };
    let namespace = namespace.map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
    format!("{root}/{}{namespace}/{}/{name}", resource.api_version, resource.plural)
}

/// A definition with one version, which has a status as the real one has.
fn definition(kind: &GroupVersionKind, mut schema: Value) -> CustomResourceDefinition {
    make_structural(&mut schema);
    let singular = kind.kind.to_lowercase();
    let plural = plural(&singular);
    // By the name, as the schemas do not say it: `ClusterIssuer` and `GatewayClass` are of the cluster, CloudNativePG's
    // `Cluster` is not.
    let of_cluster = kind.kind == "GatewayClass" || (kind.kind.starts_with("Cluster") && kind.kind != "Cluster");
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("{plural}.{}", kind.group),
            // Asked of definitions in the groups that belong to Kubernetes.
            "annotations": { "api-approved.kubernetes.io": "unapproved: made for a test" },
        },
        "spec": {
            "group": kind.group,
            "names": { "kind": kind.kind, "listKind": format!("{}List", kind.kind), "singular": singular, "plural": plural },
            "scope": if of_cluster { "Cluster" } else { "Namespaced" },
            "versions": [{
                "name": kind.version, "served": true, "storage": true,
                "schema": { "openAPIV3Schema": schema },
                "subresources": { "status": {} },
            }],
        },
    }))
    .expect("it has the fields of a definition")
}

/// By the rules of English that the names of resources follow.
fn plural(singular: &str) -> String {
    match singular.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if singular.ends_with('s') => format!("{singular}es"),
        _ => format!("{singular}s"),
    }
}

/// Removes what the schemas have for validators and a definition must not have: a structural schema refuses unknown fields
/// by itself.
fn make_structural(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    schema.remove("$schema");
    if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        schema.remove("additionalProperties");
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(make_structural);
    }
    for keyword in ["items", "additionalProperties", "not"] {
        if let Some(inner) = schema.get_mut(keyword) {
            make_structural(inner);
        }
    }
    for keyword in ["oneOf", "anyOf", "allOf"] {
        schema.get_mut(keyword).and_then(Value::as_array_mut).into_iter().flatten().for_each(make_structural);
    }
}

#[cfg(test)]
mod tests {
    use super::{make_structural, plural};
    use serde_json::json;

    #[test]
    fn resources_are_named_in_the_plural() {
        for (singular, expected) in [
            ("certificate", "certificates"),
            ("gateway", "gateways"),
            ("ingress", "ingresses"),
            ("serviceentry", "serviceentries"),
        ] {
            assert_eq!(plural(singular), expected);
        }
    }

    #[test]
    fn only_schemas_lose_their_closing_words() {
        let mut schema = json!({
            "type": "object", "additionalProperties": false,
            "properties": {
                "additionalProperties": { "type": "boolean" },
                "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                "list": { "type": "array", "items": { "type": "object", "additionalProperties": false } },
            },
        });
        make_structural(&mut schema);
        let expected = json!({
            "type": "object",
            "properties": {
                "additionalProperties": { "type": "boolean" },
                "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                "list": { "type": "array", "items": { "type": "object" } },
            },
        });
        assert_eq!(schema, expected);
    }
}

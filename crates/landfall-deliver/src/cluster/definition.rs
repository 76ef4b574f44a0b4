//! The definitions of the kinds that releases are kept in.
//!
//! What is written down once (`spec`) never changes: the API server says so to everybody, whatever rights they have. Only what a
//! production environment admits is changed, by whoever ships.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{ClusterError, During as _, MANAGER, is_status};
use crate::release::hexadecimal;

/// The label with a hash of the definition, by which an older one is known.
const DEFINITION: &str = "landfall.dev/definition";

/// How long a new kind may take until it is served.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether what is written down may be changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spec {
    /// Not any more.
    Fixed,
    /// By whoever may.
    Open,
}

/// A kind, as it differs from the others.
struct Kind {
    name: &'static str,
    plural: &'static str,
    spec: Spec,
    /// Whether it has a status of its own.
    status: bool,
    required: &'static [&'static str],
    properties: Value,
    /// Names and paths of the columns that `kubectl get` shows.
    columns: &'static [(&'static str, &'static str)],
}

/// Defines the kinds that are not known yet, or otherwise than here.
pub(crate) async fn ensure(client: &Client) -> Result<(), ClusterError> {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let listed = definitions.list(&ListParams::default().labels(DEFINITION)).await;
    if matches!(&listed, Err(error) if is_status(error, 403)) {
        // Whoever may not look has a cluster in which an administrator has defined them.
        return Ok(());
    }
    let known = listed.during(|| "list the definitions of Landfall's kinds".to_owned())?.items;
    for kind in kinds() {
        let (name, definition) = definition(&kind);
        let same = known.iter().any(|known| {
            known.name_any() == name
                && known.labels().get(DEFINITION).map(String::as_str)
                    == definition["metadata"]["labels"][DEFINITION].as_str()
        });
        if same {
            continue;
        }
        let apply = PatchParams::apply(MANAGER).force();
        definitions.patch(&name, &apply, &Patch::Apply(definition)).await.during(|| format!("define `{name}`"))?;
        let established = await_condition(definitions.clone(), &name, conditions::is_crd_established());
        // Who is not served in time says so at the first request.
        let _waited = tokio::time::timeout(PATIENCE, established).await;
    }
    Ok(())
}

fn text(longest: u32) -> Value {
    json!({ "type": "string", "maxLength": longest })
}

fn texts(most: u32, longest: u32) -> Value {
    json!({ "type": "array", "maxItems": most, "items": text(longest) })
}

fn kinds() -> Vec<Kind> {
    let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let list = json!({ "type": "array", "items": anything });
    let whole = json!({ "type": "integer", "minimum": 1 });
    let images = json!({ "type": "object", "additionalProperties": text(1024) });
    vec![
        Kind {
            name: "Release",
            plural: "releases",
            spec: Spec::Fixed,
            status: true,
            required: &["architecture", "number", "digest", "automatic", "services"],
            properties: json!({
                "architecture": text(63), "environment": text(63), "digest": text(128), "takesBack": text(128),
                "number": whole, "automatic": { "type": "boolean" }, "services": list, "gates": list,
                "verification": anything, "notify": list, "bundle": text(128), "rollbackWithinSeconds": whole,
            }),
            columns: &[("State", ".status.state"), ("Message", ".status.message")],
        },
        Kind {
            name: "AuditEntry",
            plural: "auditentries",
            spec: Spec::Fixed,
            status: false,
            required: &["architecture", "number", "previous", "at", "who", "action", "subject", "says", "hash"],
            properties: json!({
                "architecture": text(63), "number": whole, "previous": text(128), "at": text(64), "who": text(512),
                "action": text(64), "subject": text(256), "digest": text(128), "says": text(2048),
                "evidence": texts(64, 1024), "hash": text(128),
            }),
            columns: &[
                ("Who", ".spec.who"),
                ("Action", ".spec.action"),
                ("Subject", ".spec.subject"),
                ("At", ".spec.at"),
            ],
        },
        Kind {
            name: "Approval",
            plural: "approvals",
            spec: Spec::Fixed,
            status: false,
            required: &["architecture", "statement", "signature"],
            properties: json!({ "architecture": text(63), "statement": text(32_768), "signature": text(16_384) }),
            columns: &[],
        },
        Kind {
            name: "Signers",
            plural: "signers",
            spec: Spec::Fixed,
            status: false,
            required: &["architecture", "number", "previous", "of", "count", "expireSeconds", "list"],
            properties: json!({
                "architecture": text(63), "number": whole, "previous": text(128), "of": texts(64, 128), "count": whole,
                "expireSeconds": whole, "list": text(65_536),
            }),
            columns: &[("Number", ".spec.number"), ("Count", ".spec.count"), ("Of", ".spec.of")],
        },
        Kind {
            name: "Evidence",
            plural: "evidence",
            spec: Spec::Fixed,
            status: false,
            required: &["architecture", "kind", "environment", "at", "passed", "says", "by"],
            properties: json!({
                "architecture": text(63), "kind": text(64), "environment": text(63), "images": images, "since": text(64),
                "at": text(64), "passed": { "type": "boolean" }, "says": text(2048), "report": text(128), "by": text(512),
                "statement": text(32_768), "signature": text(16_384),
            }),
            columns: &[("Kind", ".spec.kind"), ("Passed", ".spec.passed"), ("Says", ".spec.says"), ("At", ".spec.at")],
        },
        Kind {
            name: "Freeze",
            plural: "freezes",
            spec: Spec::Fixed,
            status: false,
            required: &["architecture", "because", "by", "at"],
            properties: json!({ "architecture": text(63), "because": text(1024), "by": text(512), "at": text(64) }),
            columns: &[("Because", ".spec.because"), ("By", ".spec.by"), ("At", ".spec.at")],
        },
        Kind {
            name: "AdmittedImages",
            plural: "admittedimages",
            spec: Spec::Open,
            status: false,
            required: &["architecture", "images"],
            properties: json!({
                "architecture": text(63), "images": texts(4096, 1024), "namespaces": texts(1024, 63),
                "releases": texts(4096, 128),
            }),
            columns: &[("Releases", ".spec.releases")],
        },
    ]
}

/// The name of a definition, and the definition itself.
fn definition(kind: &Kind) -> (String, Value) {
    let name = format!("{}.landfall.dev", kind.plural);
    let column = |name: &str, type_: &str, path: &str| json!({ "name": name, "type": type_, "jsonPath": path });
    let mut columns: Vec<Value> = kind.columns.iter().map(|(name, path)| column(name, "string", path)).collect();
    columns.push(column("Age", "date", ".metadata.creationTimestamp"));
    let mut spec = json!({ "type": "object", "required": kind.required, "properties": kind.properties });
    if kind.spec == Spec::Fixed {
        let rule = json!({ "rule": "self == oldSelf", "message": "what is written down does not change" });
        spec["x-kubernetes-validations"] = json!([rule]);
    }
    let mut properties = Map::from_iter([("spec".to_owned(), spec)]);
    let mut version = json!({ "name": "v1alpha1", "served": true, "storage": true });
    if kind.status {
        version["subresources"] = json!({ "status": {} });
        properties
            .insert("status".to_owned(), json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }));
    }
    version["additionalPrinterColumns"] = json!(columns);
    version["schema"] =
        json!({ "openAPIV3Schema": { "type": "object", "required": ["spec"], "properties": properties } });
    let singular = kind.name.to_lowercase();
    let spec = json!({
        "group": "landfall.dev",
        "scope": "Namespaced",
        "names": {
            "kind": kind.name, "listKind": format!("{}List", kind.name), "singular": singular, "plural": kind.plural,
        },
        "versions": [version],
    });
    let hash = hexadecimal(&Sha256::digest(spec.to_string())[..16]);
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": name, "labels": { DEFINITION: hash } },
        "spec": spec,
    });
    (name, definition)
}

#[cfg(test)]
mod tests;

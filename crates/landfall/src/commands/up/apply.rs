//! Brings objects to an API server, and defines the kinds that it does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt as _};
use landfall_standin::PLACEHOLDER;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::files::write_whole;

/// As whom objects are applied.
const MANAGER: &str = "landfall";

/// How many objects are applied at a time.
const AT_ONCE: usize = 16;

/// How long a new kind may take until it is served.
const PATIENCE: Duration = Duration::from_secs(30);

/// Secrets that stand where an operator would make one that does not, by namespace and name, with the keys that pods ask for.
pub(super) type Placeholders = BTreeMap<(String, String), BTreeSet<String>>;

/// The kinds of these objects that are no part of Kubernetes.
pub(super) fn custom_kinds(objects: &[&Value]) -> Vec<GroupVersionKind> {
    let kinds: BTreeSet<(String, String, String)> = objects
        .iter()
        .map(|object| kind_of(object))
        .filter(|kind| {
            kind.group.contains('.') && !kind.group.ends_with(".k8s.io") || kind.group == "gateway.networking.k8s.io"
        })
        .map(|kind| (kind.group, kind.version, kind.kind))
        .collect();
    kinds.into_iter().map(|(group, version, kind)| GroupVersionKind::gvk(&group, &version, &kind)).collect()
}

/// Defines kinds with schemas that take anything: what the real definitions say was checked when the objects were
/// rendered.
pub(super) async fn define(client: &Client, kinds: &[GroupVersionKind]) -> anyhow::Result<()> {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let parameters = PatchParams::apply(MANAGER).force();
    let names: Vec<String> =
        kinds.iter().map(|kind| format!("{}.{}", ApiResource::from_gvk(kind).plural, kind.group)).collect();
    let defining = kinds.iter().zip(&names).map(|(kind, name)| {
        let (definitions, parameters) = (&definitions, &parameters);
        async move {
            let patch = Patch::Apply(definition(kind, name));
            definitions.patch(name, parameters, &patch).await.with_context(|| format!("failed to define {name}"))
        }
    });
    futures::future::try_join_all(defining).await?;
    for name in &names {
        let established = await_condition(definitions.clone(), name, conditions::is_crd_established());
        tokio::time::timeout(PATIENCE, established)
            .await
            .with_context(|| format!("{name} is not served"))?
            .with_context(|| format!("failed to watch {name}"))?;
    }
    Ok(())
}

fn definition(kind: &GroupVersionKind, name: &str) -> Value {
    let resource = ApiResource::from_gvk(kind);
    // By the name, as objects do not say it: `ClusterIssuer` and `GatewayClass` are of the cluster, CloudNativePG's `Cluster`
    // is not.
    let of_cluster = kind.kind == "GatewayClass" || (kind.kind.starts_with("Cluster") && kind.kind != "Cluster");
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": name,
            // Asked of definitions in the groups that belong to Kubernetes.
            "annotations": { "api-approved.kubernetes.io": "unapproved, for one machine" },
        },
        "spec": {
            "group": kind.group,
            "names": {
                "kind": kind.kind,
                "listKind": format!("{}List", kind.kind),
                "singular": kind.kind.to_lowercase(),
                "plural": resource.plural,
            },
            "scope": if of_cluster { "Cluster" } else { "Namespaced" },
            "versions": [{
                "name": kind.version, "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
                "subresources": { "status": {} },
            }],
        },
    })
}

/// Applies objects, many at a time: nothing says in which order a cluster gets them.
pub(super) async fn apply_all(client: &Client, objects: &[&Value]) -> anyhow::Result<()> {
    stream::iter(objects).map(|object| apply(client, object)).buffer_unordered(AT_ONCE).try_collect().await
}

/// Applies an object; what others have changed about its fields is taken back.
async fn apply(client: &Client, object: &Value) -> anyhow::Result<()> {
    let kind = kind_of(object);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let resource = ApiResource::from_gvk(&kind);
    let api = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource),
        None => Api::<DynamicObject>::all_with(client.clone(), &resource),
    };
    let parameters = PatchParams::apply(MANAGER).force();
    let applied = api.patch(name, &parameters, &Patch::Apply(object)).await;
    applied.map(drop).with_context(|| format!("failed to apply {} `{name}`", kind.kind))
}

/// What was applied: the name of each object with a hash of what it said. It is kept, so that the next `up` knows what has
/// changed and what is no longer rendered.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Applied(BTreeMap<String, String>);

/// What an `up` does to the objects of the one before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) new: usize,
    pub(super) changed: usize,
    pub(super) unchanged: usize,
    /// Those that are no longer rendered.
    pub(super) stale: Vec<String>,
}

impl Applied {
    pub(super) fn of<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Self {
        let named = |object: &Value| (name_of(object), format!("{:x}", Sha256::digest(object.to_string())));
        Self(objects.into_iter().map(named).collect())
    }

    /// What was kept; nothing where nothing is readable.
    pub(super) fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Keeps it, with what earlier ones had and is not removed yet.
    pub(super) fn keep(&self, file: &Path) -> anyhow::Result<()> {
        write_whole(file, &serde_json::to_vec_pretty(self)?)
    }

    /// Both, so that nothing is forgotten when the process ends between the first and the last object.
    pub(super) fn with(&self, other: &Self) -> Self {
        Self(other.0.iter().chain(&self.0).map(|(name, hash)| (name.clone(), hash.clone())).collect())
    }

    /// How this differs from what was there before.
    pub(super) fn since(&self, before: &Self) -> Changes {
        let mut changes = Changes::default();
        for (name, hash) in &self.0 {
            match before.0.get(name) {
                None => changes.new += 1,
                Some(old) if old == hash => changes.unchanged += 1,
                Some(_) => changes.changed += 1,
            }
        }
        changes.stale = before.0.keys().filter(|name| !self.0.contains_key(*name)).cloned().collect();
        changes
    }
}

/// `apps/v1/Deployment/shop/web`.
fn name_of(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let parts = [&object["apiVersion"], &object["kind"], &metadata["namespace"], &metadata["name"]];
    let parts: Vec<String> = parts.map(text).into();
    parts.join("/")
}

/// Removes objects by their names; one that is gone already is no error.
pub(super) async fn remove(client: &Client, names: &[String]) -> anyhow::Result<()> {
    for name in names {
        let mut parts: Vec<&str> = name.rsplitn(4, '/').collect();
        parts.reverse();
        let [version, kind, namespace, object] = parts[..] else { continue };
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api = if namespace.is_empty() {
            Api::<DynamicObject>::all_with(client.clone(), &resource)
        } else {
            Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource)
        };
        match api.delete(object, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => drop(deleted.with_context(|| format!("failed to remove {kind} `{object}`"))?),
        }
    }
    Ok(())
}

/// Removes the placeholders of earlier runs that nobody needs now. Before any operator works, as they leave alone what is there.
pub(super) async fn remove_placeholders(client: &Client, wanted: &Placeholders) -> anyhow::Result<()> {
    let all = Api::<Secret>::all(client.clone()).list(&ListParams::default().labels(PLACEHOLDER)).await;
    for secret in all.context("failed to list the placeholders of Secrets")? {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        if !wanted.contains_key(&(namespace.clone(), name.clone())) {
            remove(client, &[format!("v1/Secret/{namespace}/{name}")]).await?;
        }
    }
    Ok(())
}

/// Makes placeholders. What an operator has made while its store was there stays as it is: its data was made with it.
pub(super) async fn make_placeholders(client: &Client, wanted: &Placeholders) -> anyhow::Result<()> {
    for ((namespace, name), keys) in wanted {
        let there = Api::<Secret>::namespaced(client.clone(), namespace).get_opt(name).await;
        let there = there.with_context(|| format!("failed to read Secret `{name}`"))?;
        if there.is_none_or(|secret| secret.labels().contains_key(PLACEHOLDER)) {
            let values: BTreeMap<&String, &str> = keys.iter().map(|key| (key, "absent")).collect();
            let placeholder = json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": { "name": name, "namespace": namespace, "labels": { PLACEHOLDER: "true" } },
                "stringData": values,
            });
            apply(client, &placeholder).await?;
        }
    }
    Ok(())
}

fn kind_of(object: &Value) -> GroupVersionKind {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    GroupVersionKind::gvk(group, version, text("kind"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_longer_rendered_is_stale() {
        let object = |name: &str, replicas: u32| {
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": "shop" },
                "spec": { "replicas": replicas },
            })
        };
        let before = Applied::of(&[object("web", 1), object("mail", 1), object("old", 1)]);
        let after = Applied::of(&[object("web", 1), object("mail", 2), object("new", 1)]);
        let stale = vec!["apps/v1/Deployment/shop/old".to_owned()];
        assert_eq!(after.since(&before), Changes { new: 1, changed: 1, unchanged: 1, stale });
        assert_eq!(after.with(&before).since(&before).stale, Vec::<String>::new());
    }

    #[test]
    fn kinds_of_kubernetes_are_not_defined() {
        let object = |api: &str, kind: &str| json!({ "apiVersion": api, "kind": kind });
        let objects = [
            object("v1", "Secret"),
            object("apps/v1", "Deployment"),
            object("networking.k8s.io/v1", "NetworkPolicy"),
            object("gateway.networking.k8s.io/v1", "HTTPRoute"),
            object("cert-manager.io/v1", "Certificate"),
            object("cert-manager.io/v1", "Certificate"),
        ];
        let kinds = custom_kinds(&objects.iter().collect::<Vec<_>>());
        let names: Vec<_> = kinds.iter().map(|kind| kind.kind.as_str()).collect();
        assert_eq!(names, ["Certificate", "HTTPRoute"]);
    }
}

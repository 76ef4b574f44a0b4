//! The replica set that a deployment's pod template asks for: its name, its labels, and whether one is it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use crate::controller::claim::owner_reference;
use crate::controller::hash;

/// Tells the pods of one replica set of a deployment from those of another.
pub(super) const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// The longest name of an object (a DNS subdomain, RFC 1123).
const MAX_NAME: usize = 253;

/// Whether two templates make the same pods; the label that tells them apart does not count.
pub(super) fn same(one: Option<&PodTemplateSpec>, other: Option<&PodTemplateSpec>) -> bool {
    plain(one) == plain(other)
}

/// A template without its hash, as comparable as the API server makes it by its defaults: what is empty is absent.
fn plain(template: Option<&PodTemplateSpec>) -> serde_json::Value {
    let mut template = template.cloned().unwrap_or_default();
    if let Some(labels) = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
        labels.remove(POD_TEMPLATE_HASH);
    }
    hash::canonical(&template)
}

/// The replica set for the present template, with its labels, selector and owner; replicas and annotations are to be set.
pub(super) fn replica_set(deployment: &Deployment) -> ReplicaSet {
    let spec = deployment.spec.as_ref();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let mut template = spec.map(|spec| spec.template.clone()).unwrap_or_default();
    let hash = hash::of(&plain(Some(&template)), collisions);
    let mut selector = spec.map(|spec| spec.selector.clone()).unwrap_or_default();

    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
    selector.match_labels.get_or_insert_default().insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
    let labels: BTreeMap<_, _> = labels.clone();

    let mut name = deployment.name_any();
    name.truncate(MAX_NAME - 1 - hash.len());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: deployment.namespace(),
            labels: Some(labels),
            owner_references: Some(vec![owner_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.and_then(|spec| spec.min_ready_seconds),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

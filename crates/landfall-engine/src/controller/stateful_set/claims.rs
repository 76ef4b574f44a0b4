//! The volume claims of the pods of a stateful set, and whether they go with it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;

use crate::controller::claim::owner_reference;

/// The claims of the pod with this ordinal, by the name of their template.
pub(super) fn of_pod(set: &StatefulSet, ordinal: i32) -> Vec<(String, PersistentVolumeClaim)> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let templates = spec.volume_claim_templates.iter().flatten();
    let claims = templates.map(|template| {
        let mut claim = template.clone();
        let volume = claim.name_any();
        claim.metadata.name = Some(format!("{volume}-{}-{ordinal}", set.name_any()));
        claim.metadata.namespace = set.namespace();
        claim.status = None;
        let labels: &mut BTreeMap<_, _> = claim.metadata.labels.get_or_insert_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        claim.metadata.owner_references = owners(set, &[], None, false).filter(|owners| !owners.is_empty());
        (volume, claim)
    });
    claims.collect()
}

/// Mounts the claims in place of volumes with their names.
pub(super) fn mount(pod: &mut Pod, claims: &[(String, PersistentVolumeClaim)]) {
    let Some(spec) = &mut pod.spec else { return };
    let others = spec.volumes.take().unwrap_or_default();
    let others = others.into_iter().filter(|volume| claims.iter().all(|(name, _)| *name != volume.name));
    let mounted = claims.iter().map(|(name, claim)| Volume {
        name: name.clone(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.name_any(),
            read_only: None,
        }),
        ..Volume::default()
    });
    let volumes: Vec<_> = mounted.chain(others).collect();
    spec.volumes = (!volumes.is_empty()).then_some(volumes);
}

/// Who should own a claim that has these owners, by the retention policy; `None`: as it is, for somebody else controls it.
///
/// A claim that goes with the set is owned by it; one that goes when the set shrinks is, from then on, owned by its pod.
pub(super) fn owners(
    set: &StatefulSet,
    present: &[OwnerReference],
    pod: Option<&Pod>,
    shrunk: bool,
) -> Option<Vec<OwnerReference>> {
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.clone());
    let policy = policy.unwrap_or_default();
    let with_set = policy.when_deleted.as_deref() == Some("Delete");
    let with_pod = policy.when_scaled.as_deref() == Some("Delete") && shrunk;
    let of_set = owner_reference(set);
    let of_pod = pod.map(owner_reference);
    let is = |one: &OwnerReference, other: &OwnerReference| one.kind == other.kind && one.name == other.name;
    let ours = |owner: &OwnerReference| is(owner, &of_set) || of_pod.as_ref().is_some_and(|pod| is(owner, pod));
    // What an earlier set or pod of the same name owned is about to be collected.
    let stale = |owner: &OwnerReference| {
        ours(owner) && owner.uid != of_set.uid && of_pod.as_ref().is_none_or(|pod| owner.uid != pod.uid)
    };
    if present.iter().any(stale) {
        return None;
    }
    let mut owners: Vec<_> = present.iter().filter(|owner| !ours(owner)).cloned().collect();
    if owners.iter().any(|owner| owner.controller == Some(true)) {
        return (owners.len() != present.len()).then_some(owners);
    }
    match of_pod.filter(|_| with_pod) {
        Some(pod) => owners.push(pod),
        None if with_set => owners.push(of_set),
        None => {}
    }
    Some(owners)
}

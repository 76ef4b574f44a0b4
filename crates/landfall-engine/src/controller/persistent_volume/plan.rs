//! What a claim needs next.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference,
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{CLAIM_PROTECTION, VOLUME_PROTECTION, without};
use crate::cache::ObjectKey;
use crate::controller::claim::{selector, selects};
use crate::scheme::quantity::Quantity;

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const STORAGE: &str = "storage";

/// A claim, and what there is of what it needs.
#[expect(clippy::struct_field_names, reason = "it is the claim")]
pub(super) struct Claim<'a> {
    pub(super) claim: &'a PersistentVolumeClaim,
    /// The pods that use it and have not ended.
    pub(super) users: &'a [Arc<Pod>],
    /// The volume that it names.
    pub(super) volume: Option<&'a PersistentVolume>,
    pub(super) volumes: &'a [Arc<PersistentVolume>],
    pub(super) class: Option<&'a StorageClass>,
    /// Where its first user will run.
    pub(super) zone: Option<String>,
}

#[derive(Debug)]
pub(super) enum Step {
    /// A merge patch of the claim.
    Claim(Value),
    /// What is to be in the claim's status.
    Status(Value),
    /// A merge patch of a volume.
    Volume {
        name: String,
        patch: Value,
    },
    Provision(Box<PersistentVolume>),
    Normal(&'static str, String),
    Warning(&'static str, String),
}

/// Where a volume stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Available,
    Bound,
    /// Its claim is gone.
    Released,
}

impl Standing {
    pub(super) fn phase(self) -> &'static str {
        match self {
            Self::Available => "Available",
            Self::Bound => "Bound",
            Self::Released => "Released",
        }
    }
}

/// `claim`: the one that has the namespace and name that the volume says.
pub(super) fn standing(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Standing {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else {
        return Standing::Available;
    };
    match (&reference.uid, claim) {
        // Kept for a claim that has not come yet.
        (None, _) => Standing::Available,
        (Some(uid), Some(claim)) if claim.uid().as_ref() == Some(uid) => Standing::Bound,
        (Some(_), _) => Standing::Released,
    }
}

/// What was made for a claim goes with it, if the volume says so.
pub(super) fn is_deleted_when_released(volume: &PersistentVolume) -> bool {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy == Some("Delete") && volume.annotations().contains_key(PROVISIONED_BY)
}

pub(super) fn claim_of(volume: &PersistentVolume) -> Option<ObjectKey> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(ObjectKey::new(reference.namespace.as_deref()?, reference.name.as_deref()?))
}

/// The names of the claims that a pod uses, those for its ephemeral volumes included.
pub(super) fn claims_of(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.as_str()))
}

pub(super) fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.annotations().contains_key(BIND_COMPLETED)
}

/// The node that the scheduler has chosen for the first pod that uses a claim.
pub(super) fn selected_node(claim: &PersistentVolumeClaim, users: &[Arc<Pod>]) -> Option<String> {
    let placed = || users.iter().find_map(|pod| pod.spec.as_ref()?.node_name.clone());
    claim.annotations().get(SELECTED_NODE).cloned().or_else(placed)
}

pub(super) fn plan(view: &Claim<'_>) -> Vec<Step> {
    let claim = view.claim;
    let protected = claim.finalizers().iter().any(|finalizer| finalizer == CLAIM_PROTECTION);
    if claim.metadata.deletion_timestamp.is_some() {
        let release = protected && view.users.is_empty();
        let kept = without(claim.finalizers(), CLAIM_PROTECTION);
        let metadata = json!({ "resourceVersion": claim.resource_version(), "finalizers": kept });
        return release.then(|| Step::Claim(json!({ "metadata": metadata }))).into_iter().collect();
    }
    if !protected {
        let all: Vec<_> = claim.finalizers().iter().map(String::as_str).chain([CLAIM_PROTECTION]).collect();
        let metadata = json!({ "resourceVersion": claim.resource_version(), "finalizers": all });
        // The rest follows when this is seen.
        return vec![Step::Claim(json!({ "metadata": metadata }))];
    }
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
    match (named, view.volume) {
        (Some(_), Some(volume)) => settle(view, volume),
        (Some(_), None) if is_bound(claim) && phase(claim) != Some("Lost") => vec![
            Step::Status(json!({ "phase": "Lost", "accessModes": null, "capacity": null })),
            Step::Warning(
                "ClaimLost",
                "Bound claim has lost its PersistentVolume. Data on the volume is lost!".to_owned(),
            ),
        ],
        (Some(_), None) => pending(view),
        (None, _) => match find(view) {
            Some(volume) => bind(view, volume),
            None => provision(view),
        },
    }
}

/// A claim that names a volume: makes the volume name the claim, and the status say what there is.
fn settle(view: &Claim<'_>, volume: &PersistentVolume) -> Vec<Step> {
    let claim = view.claim;
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let mut steps = Vec::new();
    match reference {
        Some(reference) if reference.uid == claim.uid() => {}
        Some(reference) if reference.uid.is_some() || claim_of(volume) != Some(ObjectKey::of(claim)) => {
            return pending(view);
        }
        _ => steps.push(name_claim(view, volume)),
    }
    if !is_bound(claim) {
        steps.push(Step::Claim(json!({ "metadata": { "annotations": { BIND_COMPLETED: "yes" } } })));
    }
    let expandable = view.class.is_some_and(|class| class.allow_volume_expansion == Some(true));
    let mut capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.clone()).unwrap_or_default();
    let (asked, has) = (request(claim), capacity.get(STORAGE).and_then(|has| Quantity::parse(&has.0)));
    if expandable
        && let (Some(asked), Some(has)) = (asked, has)
        && asked.nanos() > has.nanos()
        && let Some(text) = request_text(claim)
    {
        let patch = json!({ "spec": { "capacity": { STORAGE: text } } });
        steps.push(Step::Volume { name: volume.name_any(), patch });
        capacity.insert(STORAGE.to_owned(), k8s_openapi::apimachinery::pkg::api::resource::Quantity(text));
    }
    let modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.clone()).unwrap_or_default();
    let status = claim.status.as_ref();
    let is_said = phase(claim) == Some("Bound")
        && status.and_then(|status| status.capacity.as_ref()) == Some(&capacity)
        && status.and_then(|status| status.access_modes.as_ref()) == Some(&modes);
    if !is_said {
        steps.push(Step::Status(json!({ "phase": "Bound", "accessModes": modes, "capacity": capacity })));
    }
    steps
}

/// Both say that they belong together, the volume first: it can be had once only.
fn bind(view: &Claim<'_>, volume: &PersistentVolume) -> Vec<Step> {
    let annotations = json!({ BIND_COMPLETED: "yes", BOUND_BY_CONTROLLER: "yes" });
    let patch = json!({ "metadata": { "annotations": annotations }, "spec": { "volumeName": volume.name_any() } });
    let mut steps = Vec::new();
    if standing(volume, Some(view.claim)) != Standing::Bound {
        steps.push(name_claim(view, volume));
    }
    steps.push(Step::Claim(patch));
    steps
}

fn name_claim(view: &Claim<'_>, volume: &PersistentVolume) -> Step {
    let mut patch = json!({ "spec": { "claimRef": reference(view.claim) } });
    patch["metadata"] = json!({ "resourceVersion": volume.resource_version() });
    if volume.spec.as_ref().is_none_or(|spec| spec.claim_ref.is_none()) {
        patch["metadata"]["annotations"] = json!({ BOUND_BY_CONTROLLER: "yes" });
    }
    Step::Volume { name: volume.name_any(), patch }
}

fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        namespace: claim.namespace(),
        name: claim.metadata.name.clone(),
        uid: claim.uid(),
        resource_version: claim.resource_version(),
        ..ObjectReference::default()
    }
}

/// The volume that is kept for a claim, or else the smallest that will do.
fn find<'a>(view: &Claim<'a>) -> Option<&'a PersistentVolume> {
    let own = ObjectKey::of(view.claim);
    let all = view.volumes.iter().map(|volume| &**volume).filter(|volume| volume.metadata.deletion_timestamp.is_none());
    let kept = all.clone().find(|volume| {
        let uid = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()?.uid.as_ref());
        claim_of(volume).as_ref() == Some(&own) && uid.is_none_or(|uid| Some(uid) == view.claim.uid().as_ref())
    });
    kept.or_else(|| {
        let free = all.filter(|volume| claim_of(volume).is_none() && fits(view, volume));
        free.min_by_key(|volume| capacity(volume).map_or(0, Quantity::nanos))
    })
}

fn fits(view: &Claim<'_>, volume: &PersistentVolume) -> bool {
    let (Some(wants), Some(has)) = (&view.claim.spec, &volume.spec) else { return false };
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let modes = has.access_modes.as_deref().unwrap_or_default();
    let selected = wants
        .selector
        .as_ref()
        .is_none_or(|wanted| selector(Some(wanted)).is_some_and(|wanted| selects(&wanted, volume)));
    let large = match (capacity(volume), request(view.claim)) {
        (Some(has), Some(wants)) => has.nanos() >= wants.nanos(),
        (_, None) => true,
        (None, Some(_)) => false,
    };
    let class = |class: &Option<String>| class.clone().unwrap_or_default();
    class(&wants.storage_class_name) == class(&has.storage_class_name)
        && mode(&wants.volume_mode) == mode(&has.volume_mode)
        && wants.access_modes.iter().flatten().all(|mode| modes.contains(mode))
        && selected
        && large
}

fn provision(view: &Claim<'_>) -> Vec<Step> {
    let (claim, mut steps) = (view.claim, pending(view));
    let named = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    let Some(class) = view.class else {
        let (reason, message) = match named.filter(|name| !name.is_empty()) {
            Some(name) => ("ProvisioningFailed", format!("storageclass.storage.k8s.io \"{name}\" not found")),
            None => {
                let message = "no persistent volumes available for this claim and no storage class is set";
                steps.push(Step::Normal("FailedBinding", message.to_owned()));
                return steps;
            }
        };
        steps.push(Step::Warning(reason, message));
        return steps;
    };
    if named.is_none() {
        // A claim without a class gets the default one, as soon as there is one.
        steps.push(Step::Claim(json!({ "spec": { "storageClassName": class.name_any() } })));
        return steps;
    }
    let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
    if waits && selected_node(claim, view.users).is_none() {
        let mut names: Vec<_> = view.users.iter().map(|pod| pod.name_any()).collect();
        names.sort();
        let (reason, message) = match names.as_slice() {
            [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
            [one] => ("WaitForPodScheduled", format!("waiting for pod {one} to be scheduled")),
            all => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", all.join(","))),
        };
        steps.push(Step::Normal(reason, message));
        return steps;
    }
    if class.provisioner == NO_PROVISIONER {
        let message = "no persistent volumes available for this claim and no storage class is set".to_owned();
        steps.push(Step::Normal("FailedBinding", message));
        return steps;
    }
    if claim.annotations().get(PROVISIONER) != Some(&class.provisioner) {
        let annotations = json!({ PROVISIONER: class.provisioner });
        steps.push(Step::Claim(json!({ "metadata": { "annotations": annotations } })));
    }
    // It is bound when it is seen: a volume that names a claim is the first that is found for it.
    steps.push(Step::Provision(Box::new(volume(view, class))));
    steps
}

fn volume(view: &Claim<'_>, class: &StorageClass) -> PersistentVolume {
    let claim = view.claim;
    let name = format!("pvc-{}", claim.uid().unwrap_or_default());
    let spec = claim.spec.clone().unwrap_or_default();
    let capacity = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
    let zone = view.zone.as_ref().map(|zone| VolumeNodeAffinity {
        required: Some(NodeSelector {
            node_selector_terms: vec![NodeSelectorTerm {
                match_expressions: Some(vec![NodeSelectorRequirement {
                    key: ZONE_LABEL.to_owned(),
                    operator: "In".to_owned(),
                    values: Some(vec![zone.clone()]),
                }]),
                match_fields: None,
            }],
        }),
    });
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            annotations: Some(BTreeMap::from([(PROVISIONED_BY.to_owned(), class.provisioner.clone())])),
            finalizers: Some(vec![VOLUME_PROTECTION.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: Some(capacity),
            claim_ref: Some(reference(claim)),
            csi: Some(CSIPersistentVolumeSource {
                driver: class.provisioner.clone(),
                volume_handle: name,
                ..CSIPersistentVolumeSource::default()
            }),
            mount_options: class.mount_options.clone(),
            node_affinity: zone,
            persistent_volume_reclaim_policy: Some(class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned())),
            storage_class_name: Some(class.name_any()),
            volume_mode: Some(spec.volume_mode.unwrap_or_else(|| "Filesystem".to_owned())),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

fn pending(view: &Claim<'_>) -> Vec<Step> {
    let said = phase(view.claim) == Some("Pending");
    (!said).then(|| Step::Status(json!({ "phase": "Pending" }))).into_iter().collect()
}

fn phase(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.status.as_ref()?.phase.as_deref()
}

fn request_text(claim: &PersistentVolumeClaim) -> Option<String> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get(STORAGE).map(|quantity| quantity.0.clone())
}

fn request(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    Quantity::parse(&request_text(claim)?)
}

fn capacity(volume: &PersistentVolume) -> Option<Quantity> {
    Quantity::parse(&volume.spec.as_ref()?.capacity.as_ref()?.get(STORAGE)?.0)
}

//! What a pod's volumes ask of its node, and what must be bound once the node is chosen.
//!
//! Not handled: limits on the number of attached volumes, and storage capacity objects; both belong to storage drivers.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, TopologySelectorTerm};
use k8s_openapi::api::storage::v1::StorageClass;

use super::matching::{self, LabelMatcher};
use super::quantity;
use crate::cache::ObjectKey;
use crate::context::Caches;

/// The annotation that tells a provisioner where a claim is wanted.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// The annotation that says that a claim has been bound.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

/// The provisioner of classes whose volumes somebody makes by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Labels of a volume that say where it is.
const PLACES: [&str; 4] = [
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

/// What the volumes of one pod ask for.
#[derive(Debug, Default)]
pub(crate) struct VolumeDemand {
    /// Why no node will do.
    pub(crate) refusal: Option<String>,
    /// A claim of the pod is for one pod only, and another has it.
    pub(crate) in_use_elsewhere: bool,
    bound: Vec<Arc<PersistentVolume>>,
    unbound: Vec<Unbound>,
}

/// A claim that is bound when the node is known.
#[derive(Debug)]
struct Unbound {
    claim: ObjectKey,
    /// Volumes that would do, the smallest first.
    volumes: Vec<Arc<PersistentVolume>>,
    /// Where a new one can be made; None when it cannot.
    provisioned_in: Option<Vec<TopologySelectorTerm>>,
}

/// What is to be written before a pod goes to its node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum VolumeBinding {
    Bind { claim: ObjectKey, volume: String },
    Provision { claim: ObjectKey },
}

impl VolumeBinding {
    pub(crate) fn claim(&self) -> &ObjectKey {
        match self {
            Self::Bind { claim, .. } | Self::Provision { claim } => claim,
        }
    }
}

impl VolumeDemand {
    pub(crate) fn of(pod: &Pod, caches: &Caches) -> Self {
        let mut demand = Self::default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        let mut immediate = false;
        for volume in volumes.into_iter().flatten() {
            let generated = format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name);
            let (name, is_ephemeral) = match (&volume.persistent_volume_claim, &volume.ephemeral) {
                (Some(claim), _) => (&claim.claim_name, false),
                (None, Some(_)) => (&generated, true),
                (None, None) => continue,
            };
            let key = ObjectKey::new(namespace, name);
            let Some(claim) = caches.persistent_volume_claims.get(&key) else {
                return Self::refused(if is_ephemeral {
                    format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
                } else {
                    format!("persistentvolumeclaim \"{name}\" not found")
                });
            };
            if let Some(refusal) = unusable(&claim, name) {
                return Self::refused(refusal);
            }
            demand.in_use_elsewhere |= is_for_one_pod(&claim) && used_by_another(pod, name, caches);
            let bound_to =
                claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|name| !name.is_empty());
            if let Some(volume) = &bound_to
                && has_annotation(&claim, BIND_COMPLETED)
            {
                match caches.persistent_volumes.get(&ObjectKey::new("", volume)) {
                    Some(volume) => demand.bound.push(volume),
                    None => {
                        return Self::refused(
                            "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)".to_owned(),
                        );
                    }
                }
            } else {
                let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
                let class = class.and_then(|name| caches.storage_classes.get(&ObjectKey::new("", name)));
                match class.filter(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")) {
                    Some(class) if bound_to.is_none() => demand.unbound.push(Unbound::of(key, &claim, &class, caches)),
                    _ => immediate = true,
                }
            }
        }
        if immediate {
            return Self::refused("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        demand
    }

    fn refused(refusal: String) -> Self {
        Self { refusal: Some(refusal), ..Self::default() }
    }

    /// Why the volumes do not go with a node.
    pub(crate) fn check(&self, node: &Node) -> Result<(), Vec<String>> {
        let mut reasons = Vec::new();
        if self.bound.iter().any(|volume| !reachable(volume, node)) {
            reasons.push("node(s) didn't match PersistentVolume's node affinity".to_owned());
        }
        if self.choose(node).is_none() {
            reasons.push("node(s) didn't find available persistent volumes to bind".to_owned());
        }
        if reasons.is_empty() && self.bound.iter().any(|volume| !in_place(volume, node)) {
            reasons.push("node(s) had no available volume zone".to_owned());
        }
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    /// What to bind when the pod goes to this node. None when it cannot go there.
    pub(crate) fn choose(&self, node: &Node) -> Option<Vec<VolumeBinding>> {
        let mut taken = BTreeSet::new();
        let bindings = self.unbound.iter().map(|unbound| {
            let name = |volume: &PersistentVolume| volume.metadata.name.clone().unwrap_or_default();
            let mut free = unbound.volumes.iter().filter(|volume| reachable(volume, node));
            if let Some(volume) = free.find(|volume| !taken.contains(&name(volume))) {
                taken.insert(name(volume));
                return Some(VolumeBinding::Bind { claim: unbound.claim.clone(), volume: name(volume) });
            }
            let places = unbound.provisioned_in.as_ref()?;
            let here = places.is_empty() || places.iter().any(|term| topology_matches(term, node));
            here.then(|| VolumeBinding::Provision { claim: unbound.claim.clone() })
        });
        bindings.collect()
    }
}

impl Unbound {
    fn of(key: ObjectKey, claim: &PersistentVolumeClaim, class: &StorageClass, caches: &Caches) -> Self {
        let provisioned_in =
            (class.provisioner != NO_PROVISIONER).then(|| class.allowed_topologies.clone().unwrap_or_default());
        let mut volumes = caches.persistent_volumes.list();
        volumes.retain(|volume| suits(volume, claim));
        volumes.sort_by_key(|volume| capacity(volume));
        Self { claim: key, volumes, provisioned_in }
    }
}

fn unusable(claim: &PersistentVolumeClaim, name: &str) -> Option<String> {
    if claim.metadata.deletion_timestamp.is_some() {
        return Some(format!("persistentvolumeclaim \"{name}\" is being deleted"));
    }
    let lost = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost");
    lost.then(|| {
        let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
        format!("persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\"")
    })
}

fn has_annotation(claim: &PersistentVolumeClaim, name: &str) -> bool {
    claim.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(name))
}

fn is_for_one_pod(claim: &PersistentVolumeClaim) -> bool {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod"))
}

fn used_by_another(pod: &Pod, claim: &str, caches: &Caches) -> bool {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    caches.pods.in_namespace(namespace).iter().filter(|other| other.metadata.uid != pod.metadata.uid).any(|other| {
        let spec = other.spec.as_ref();
        let uses = spec
            .and_then(|spec| spec.volumes.as_ref())
            .into_iter()
            .flatten()
            .any(|volume| volume.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == claim));
        uses && spec.is_some_and(|spec| spec.node_name.is_some()) && !super::is_finished(other)
    })
}

fn reachable(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|selector| matching::node_matches(selector, node))
}

/// Volumes of old say by labels where they are; several zones are joined by `__`.
fn in_place(volume: &PersistentVolume, node: &Node) -> bool {
    let here = node.metadata.labels.as_ref();
    let knows_places = here.is_some_and(|labels| PLACES.iter().any(|place| labels.contains_key(*place)));
    !knows_places
        || PLACES.iter().all(|place| {
            let Some(wanted) = volume.metadata.labels.as_ref().and_then(|labels| labels.get(*place)) else {
                return true;
            };
            let found = here.and_then(|labels| labels.get(*place));
            found.is_some_and(|found| wanted.split("__").any(|wanted| wanted == found))
        })
}

fn topology_matches(term: &TopologySelectorTerm, node: &Node) -> bool {
    let label = |key: &str| node.metadata.labels.as_ref()?.get(key);
    let expressions = term.match_label_expressions.iter().flatten();
    expressions.into_iter().all(|e| label(&e.key).is_some_and(|value| e.values.contains(value)))
}

fn capacity(volume: &PersistentVolume) -> i64 {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    capacity.and_then(|capacity| quantity::units(capacity.get("storage")?)).unwrap_or_default()
}

/// Whether a free volume does what a claim asks for.
fn suits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(spec), Some(wanted)) = (&volume.spec, &claim.spec) else { return false };
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let reserved_for_it = spec.claim_ref.as_ref().is_some_and(|reference| {
        reference.name == claim.metadata.name && reference.namespace == claim.metadata.namespace
    });
    let requested = wanted.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let requested = requested.and_then(|requests| quantity::units(requests.get("storage")?)).unwrap_or_default();
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let selected = wanted.selector.as_ref().is_none_or(|selector| {
        let labels = volume.metadata.labels.clone().unwrap_or_default();
        LabelMatcher::read(Some(selector)).matches(&labels)
    });
    (spec.claim_ref.is_none() && phase == Some("Available") || reserved_for_it)
        && volume.metadata.deletion_timestamp.is_none()
        && spec.storage_class_name.as_deref().unwrap_or_default()
            == wanted.storage_class_name.as_deref().unwrap_or_default()
        && spec.volume_mode.as_deref().unwrap_or("Filesystem") == wanted.volume_mode.as_deref().unwrap_or("Filesystem")
        && wanted.access_modes.iter().flatten().all(|mode| modes.contains(mode))
        && capacity(volume) >= requested
        && selected
}

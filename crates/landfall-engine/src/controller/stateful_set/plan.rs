//! Which pod of a stateful set is made, ended or replaced next, and what its status says. Pure.
//!
//! With ordered management, one pod at a time, and only while all before it are well. The rules are those of Kubernetes'
//! stateful set controller (<https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/>).

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;

use super::claims;
use crate::controller::claim::owner_reference;
use crate::controller::pod::{self, is_available, is_ready, is_terminal, phase};
use crate::controller::revision;
use crate::controller::status::{count, nonzero};

/// Which revision a pod is of.
const REVISION: &str = "controller-revision-hash";
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

#[derive(Debug, PartialEq)]
pub(super) enum Change {
    CreateClaim { claim: Box<PersistentVolumeClaim>, pod: String },
    OwnClaim { claim: Arc<PersistentVolumeClaim>, owners: Vec<OwnerReference> },
    Create(Box<Pod>),
    Delete(Arc<Pod>),
}

/// The revision that pods are of until an update reaches them, and the one of the present template.
pub(super) struct Revisions {
    current: Version,
    update: Version,
}

struct Version {
    name: String,
    template: PodTemplateSpec,
}

impl Revisions {
    pub(super) fn new(current: &ControllerRevision, update: &ControllerRevision) -> Self {
        let version = |revision: &ControllerRevision| Version {
            name: revision.name_any(),
            template: revision::template(revision).unwrap_or_default(),
        };
        Self { current: version(current), update: version(update) }
    }

    pub(super) fn current_name(&self) -> &str {
        &self.current.name
    }
}

/// The number at the end of the name of a pod of this set.
pub(super) fn ordinal(set: &str, pod: &Pod) -> Option<i32> {
    let name = pod.metadata.name.as_deref()?;
    let (parent, ordinal) = name.rsplit_once('-')?;
    (parent == set).then(|| ordinal.parse().ok().filter(|ordinal| *ordinal >= 0))?
}

pub(super) fn revision_of(pod: &Pod) -> Option<&str> {
    pod.labels().get(REVISION).map(String::as_str)
}

/// A place of the set: its ordinal, and the pod that has it.
struct Place<'a> {
    ordinal: i32,
    pod: Option<&'a Arc<Pod>>,
}

struct Planner<'a, C> {
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    revisions: &'a Revisions,
    claims: C,
    ordered: bool,
    now: Timestamp,
    changes: Vec<Change>,
}

/// Whether to look at the next pod.
#[derive(PartialEq)]
enum Next {
    Go,
    Stop,
}

pub(super) fn plan(
    set: &StatefulSet,
    revisions: &Revisions,
    pods: &[Arc<Pod>],
    claims: impl Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
    now: Timestamp,
) -> Vec<Change> {
    let Some(spec) = &set.spec else { return Vec::new() };
    if set.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let name = set.name_any();
    let wanted = spec.replicas.unwrap_or(1);
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default();
    let with = |wanted: i32| pods.iter().find(|pod| ordinal(&name, pod) == Some(wanted));
    let places: Vec<_> = (start..start + wanted).map(|ordinal| Place { ordinal, pod: with(ordinal) }).collect();
    let mut surplus: Vec<_> = pods
        .iter()
        .filter_map(|pod| Some((ordinal(&name, pod)?, pod)))
        .filter(|(ordinal, _)| !(start..start + wanted).contains(ordinal))
        .collect();
    surplus.sort_by_key(|(ordinal, _)| -ordinal);

    let ordered = spec.pod_management_policy.as_deref() != Some("Parallel");
    let mut planner = Planner { set, spec, revisions, claims, ordered, now, changes: Vec::new() };
    planner.run(&places, &surplus);
    planner.changes
}

impl<C: Fn(&str) -> Option<Arc<PersistentVolumeClaim>>> Planner<'_, C> {
    fn run(&mut self, places: &[Place<'_>], surplus: &[(i32, &Arc<Pod>)]) {
        for place in places {
            if self.fill(place) == Next::Stop && self.ordered {
                return;
            }
        }
        for (ordinal, pod) in surplus {
            self.match_claims(*ordinal, Some(pod), true);
        }
        let of_places = places.iter().filter_map(|place| place.pod);
        let mut by_ordinal = of_places.chain(surplus.iter().rev().map(|(_, pod)| *pod));
        let first_unwell = by_ordinal.find(|pod| self.is_unavailable(pod));
        for (_, pod) in surplus {
            if self.end(pod, first_unwell) == Next::Stop && self.ordered {
                return;
            }
        }
        let made = self.changes.iter().any(|change| matches!(change, Change::Create(_) | Change::Delete(_)));
        if !made
            && self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
        {
            self.update(places);
        }
    }

    /// Makes the pod of a place, or waits until it is well.
    fn fill(&mut self, place: &Place<'_>) -> Next {
        let Some(pod) = place.pod else {
            return self.create(place.ordinal);
        };
        if is_terminal(pod) {
            if pod.metadata.deletion_timestamp.is_none() {
                self.changes.push(Change::Delete(Arc::clone(pod)));
            }
            return Next::Stop;
        }
        if phase(pod) == "Pending" {
            self.create_claims(place.ordinal, &pod.name_any());
        }
        let well = pod.metadata.deletion_timestamp.is_none() && phase(pod) == "Running" && self.is_available(pod);
        if self.ordered && !well {
            return Next::Stop;
        }
        self.match_claims(place.ordinal, Some(pod), false);
        Next::Go
    }

    fn create(&mut self, ordinal: i32) -> Next {
        let pod = self.pod(ordinal);
        let name = pod.name_any();
        // A claim that goes with an earlier pod of this name must be gone first.
        let stale =
            claims::of_pod(self.set, ordinal).into_iter().filter_map(|(_, claim)| (self.claims)(&claim.name_any()));
        let mut stale = stale.filter(|claim| {
            let of_pod = |owner: &OwnerReference| owner.kind == "Pod" && owner.name == name;
            claim.metadata.deletion_timestamp.is_some() || claim.owner_references().iter().any(of_pod)
        });
        if stale.next().is_some() {
            return Next::Stop;
        }
        self.create_claims(ordinal, &name);
        self.match_claims(ordinal, None, false);
        self.changes.push(Change::Create(Box::new(pod)));
        Next::Stop
    }

    fn create_claims(&mut self, ordinal: i32, pod: &str) {
        for (_, claim) in claims::of_pod(self.set, ordinal) {
            if (self.claims)(&claim.name_any()).is_none() {
                self.changes.push(Change::CreateClaim { claim: Box::new(claim), pod: pod.to_owned() });
            }
        }
    }

    fn match_claims(&mut self, ordinal: i32, pod: Option<&Arc<Pod>>, shrunk: bool) {
        for (_, claim) in claims::of_pod(self.set, ordinal) {
            let Some(present) = (self.claims)(&claim.name_any()) else { continue };
            let owners = claims::owners(self.set, present.owner_references(), pod.map(|pod| &**pod), shrunk);
            if let Some(owners) = owners
                && owners != present.owner_references()
            {
                self.changes.push(Change::OwnClaim { claim: present, owners });
            }
        }
    }

    /// Ends a pod that is too many, if all the others are well or it is itself the reason that they are not.
    fn end(&mut self, pod: &Arc<Pod>, first_unwell: Option<&Arc<Pod>>) -> Next {
        if pod.metadata.deletion_timestamp.is_some() {
            return Next::Stop;
        }
        let is_the_reason = first_unwell.is_some_and(|unwell| Arc::ptr_eq(unwell, pod));
        if self.ordered && !self.is_available(pod) && !is_the_reason {
            return Next::Stop;
        }
        self.changes.push(Change::Delete(Arc::clone(pod)));
        Next::Stop
    }

    /// Replaces the outdated pods from the last to the partition, the next one when the one before is well.
    ///
    /// Not handled: `maxUnavailable`, which Kubernetes has switched off unless asked (KEP-961).
    fn update(&mut self, places: &[Place<'_>]) {
        let rolling = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or_default();
        for place in places.iter().skip(usize::try_from(partition).unwrap_or_default()).rev() {
            let Some(pod) = place.pod else { return };
            let outdated = revision_of(pod) != Some(&self.revisions.update.name);
            if outdated && pod.metadata.deletion_timestamp.is_none() {
                self.changes.push(Change::Delete(Arc::clone(pod)));
                return;
            }
            if self.is_unavailable(pod) {
                return;
            }
        }
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_available(pod, self.spec.min_ready_seconds.unwrap_or_default(), self.now)
    }

    fn is_unavailable(&self, pod: &Pod) -> bool {
        !self.is_available(pod) || pod.metadata.deletion_timestamp.is_some()
    }

    /// The pod for a place: below the partition of the current revision, else of the updated one.
    fn pod(&self, ordinal: i32) -> Pod {
        let start = self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default();
        let strategy = self.spec.update_strategy.as_ref();
        let kept = match strategy.and_then(|strategy| strategy.rolling_update.as_ref()) {
            Some(rolling) => rolling.partition.unwrap_or_default(),
            None if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("RollingUpdate") => {
                self.set.status.as_ref().and_then(|status| status.current_replicas).unwrap_or_default()
            }
            None => 0,
        };
        let version = if ordinal < start + kept { &self.revisions.current } else { &self.revisions.update };
        let set = self.set.name_any();
        let mut pod = pod::from_template(&set, owner_reference(self.set), Some(&version.template));
        let name = format!("{set}-{ordinal}");
        // The API keeps this prefix, though it does not name the pod by it.
        pod.metadata.generate_name = Some(format!("{set}-"));
        pod.metadata.namespace = self.set.namespace();
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(POD_NAME.to_owned(), name.clone());
        labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
        labels.insert(REVISION.to_owned(), version.name.clone());
        if let Some(spec) = &mut pod.spec {
            spec.hostname = Some(name.clone());
            spec.subdomain = self.spec.service_name.clone().filter(|name| !name.is_empty());
        }
        pod.metadata.name = Some(name);
        claims::mount(&mut pod, &claims::of_pod(self.set, ordinal));
        pod
    }
}

pub(super) fn status(set: &StatefulSet, revisions: &Revisions, pods: &[Arc<Pod>], now: Timestamp) -> StatefulSetStatus {
    let spec = set.spec.as_ref();
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or_default();
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let ready = |pod: &&Arc<Pod>| phase(pod) == "Running" && is_ready(pod);
    let ready_replicas = count(pods.iter().filter(ready));
    let available = count(pods.iter().filter(|pod| ready(pod) && is_available(pod, min_ready, now)));
    let of =
        |version: &Version| {
            count(pods.iter().filter(|pod| {
                pod.metadata.deletion_timestamp.is_none() && revision_of(pod) == Some(version.name.as_str())
            }))
        };
    let (mut current, updated) = (of(&revisions.current), of(&revisions.update));
    let mut current_revision = &revisions.current.name;
    let strategy = spec.and_then(|spec| spec.update_strategy.as_ref()?.type_.as_deref());
    // The update has reached every pod: it is the current revision from now on.
    if strategy != Some("OnDelete") && [updated, ready_replicas, count(pods)].iter().all(|count| *count == wanted) {
        current = updated;
        current_revision = &revisions.update.name;
    }
    StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: count(pods),
        ready_replicas: nonzero(ready_replicas),
        available_replicas: Some(available),
        current_replicas: nonzero(current),
        updated_replicas: nonzero(updated),
        current_revision: Some(current_revision.clone()),
        update_revision: Some(revisions.update.name.clone()),
        collision_count: Some(set.status.as_ref().and_then(|status| status.collision_count).unwrap_or_default()),
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    }
}

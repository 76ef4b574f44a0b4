//! A replica set while a step is planned: what it is, and what it shall become.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetCondition};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt as _;
use serde_json::{Map, json};

use super::{Change, inherited};

pub(in crate::controller::deployment) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// What a replica set does not inherit of a deployment's annotations.
pub(super) const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// How long the list of revisions that a set once had may grow.
const MAX_HISTORY: usize = 2000;

/// Where a set comes from.
enum Origin<'a> {
    Present(&'a ReplicaSet),
    Made(Box<ReplicaSet>),
}

pub(super) struct Set<'a> {
    origin: Origin<'a>,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) created: Option<Timestamp>,
    pub(super) deleting: bool,
    /// How many it is to have.
    pub(super) replicas: i32,
    /// How many it has.
    pub(super) actual: i32,
    pub(super) ready: i32,
    pub(super) available: i32,
    pub(super) terminating: Terminating,
    pub(super) min_ready: Option<i32>,
    pub(super) failure: Option<&'a ReplicaSetCondition>,
    annotations: BTreeMap<String, String>,
}

/// What a set says of its terminating pods.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Terminating {
    /// Nobody has looked at the set yet, so it has none.
    New,
    Known(i32),
    /// A controller that does not count them has looked.
    Unknown,
}

impl<'a> Set<'a> {
    pub(super) fn of(set: &'a ReplicaSet) -> Self {
        let status = set.status.as_ref();
        let failures = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        let observed = status.and_then(|status| status.observed_generation).unwrap_or_default();
        Self {
            origin: Origin::Present(set),
            name: set.name_any(),
            uid: set.uid().unwrap_or_default(),
            created: set.creation_timestamp().map(|time| time.0),
            deleting: set.metadata.deletion_timestamp.is_some(),
            replicas: replicas(set),
            actual: status.map_or(0, |status| status.replicas),
            ready: status.and_then(|status| status.ready_replicas).unwrap_or_default(),
            available: status.and_then(|status| status.available_replicas).unwrap_or_default(),
            terminating: match status.and_then(|status| status.terminating_replicas) {
                Some(terminating) => Terminating::Known(terminating),
                None if observed == 0 => Terminating::New,
                None => Terminating::Unknown,
            },
            min_ready: set.spec.as_ref().and_then(|spec| spec.min_ready_seconds),
            failure: failures.into_iter().find(|condition| condition.type_ == "ReplicaFailure"),
            annotations: set.annotations().clone(),
        }
    }

    pub(super) fn made(set: ReplicaSet) -> Self {
        Self {
            name: set.name_any(),
            uid: String::new(),
            created: None,
            deleting: false,
            replicas: 0,
            actual: 0,
            ready: 0,
            available: 0,
            terminating: Terminating::New,
            min_ready: set.spec.as_ref().and_then(|spec| spec.min_ready_seconds),
            failure: None,
            annotations: BTreeMap::new(),
            origin: Origin::Made(Box::new(set)),
        }
    }

    fn object(&self) -> &ReplicaSet {
        match &self.origin {
            Origin::Present(set) => set,
            Origin::Made(set) => set,
        }
    }

    pub(super) fn template(&self) -> Option<&PodTemplateSpec> {
        self.object().spec.as_ref()?.template.as_ref()
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// 0 when it has none or one that is no number.
    pub(super) fn revision(&self) -> i64 {
        self.annotation(REVISION).and_then(|revision| revision.parse().ok()).unwrap_or_default()
    }

    /// For how many replicas of the deployment it was last sized.
    pub(super) fn desired(&self) -> Option<i32> {
        self.annotation(DESIRED_REPLICAS)?.parse().ok().filter(|desired| *desired >= 0)
    }

    pub(super) fn note_scale(&mut self, desired: i32, most: i32) {
        self.annotations.insert(DESIRED_REPLICAS.to_owned(), desired.to_string());
        self.annotations.insert(MAX_REPLICAS.to_owned(), most.to_string());
    }

    pub(super) fn copy_annotations(&mut self, deployment: &Deployment) {
        self.annotations.extend(inherited(deployment));
    }

    /// A set that comes back, by an undo, remembers the revisions that it was.
    pub(super) fn raise_revision(&mut self, revision: i64) {
        let old = self.annotation(REVISION).map(str::to_owned);
        if old.as_ref().is_some_and(|old| old.parse::<i64>().is_err()) || self.revision() >= revision {
            return;
        }
        self.annotations.insert(REVISION.to_owned(), revision.to_string());
        let Some(old) = old else { return };
        let history = self.annotation(REVISION_HISTORY).unwrap_or_default().to_owned();
        let mut revisions: Vec<&str> = history.split(',').filter(|revision| !revision.is_empty()).collect();
        revisions.push(&old);
        while revisions.join(",").len() > MAX_HISTORY {
            revisions.remove(0);
        }
        self.annotations.insert(REVISION_HISTORY.to_owned(), revisions.join(","));
    }

    /// How many replicas more or fewer are its part when the deployment changes to `wanted`, with `most` at once.
    pub(super) fn share(&self, wanted: i32, most: i32, status_replicas: Option<i32>) -> i32 {
        if wanted == 0 {
            return -self.replicas;
        }
        let before = self.annotation(MAX_REPLICAS).and_then(|most| most.parse::<i32>().ok()).filter(|most| *most > 0);
        let Some(before) = before.or(status_replicas.filter(|replicas| *replicas > 0)) else { return 0 };
        let size = f64::from(self.replicas) * f64::from(most) / f64::from(before);
        #[expect(clippy::cast_possible_truncation, reason = "a float saturates, and the API refuses such numbers")]
        let size = size.round() as i32;
        size - self.replicas
    }

    /// It has no pods, wants none, and its controller has seen that.
    pub(super) fn is_idle(&self) -> bool {
        let set = self.object();
        let observed = set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or_default();
        self.actual == 0
            && self.replicas == 0
            && replicas(set) == 0
            && set.metadata.generation.unwrap_or_default() <= observed
            && !self.deleting
    }

    /// The write that makes it what it shall be.
    pub(super) fn change(&self) -> Option<Change> {
        let set = match &self.origin {
            Origin::Present(set) => *set,
            Origin::Made(set) => {
                let mut set = set.clone();
                set.metadata.annotations = Some(self.annotations.clone());
                if let Some(spec) = &mut set.spec {
                    spec.replicas = Some(self.replicas);
                }
                return Some(Change::Create(set));
            }
        };
        let annotations = set.annotations();
        let changed = self.annotations.iter().filter(|(key, value)| annotations.get(*key) != Some(value));
        let changed: Map<_, _> = changed.map(|(key, value)| (key.clone(), json!(value))).collect();
        let mut spec = Map::new();
        let old = replicas(set);
        if old != self.replicas {
            spec.insert("replicas".to_owned(), json!(self.replicas));
        }
        let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default();
        if min_ready != self.min_ready.unwrap_or_default() {
            spec.insert("minReadySeconds".to_owned(), json!(self.min_ready.unwrap_or_default()));
        }
        if changed.is_empty() && spec.is_empty() {
            return None;
        }
        // The version makes the write fail when somebody else has changed the set meanwhile.
        let metadata = json!({ "resourceVersion": set.metadata.resource_version, "annotations": changed });
        Some(Change::Update {
            name: self.name.clone(),
            patch: json!({ "metadata": metadata, "spec": spec }),
            scaled: (old != self.replicas).then_some((old, self.replicas)),
        })
    }
}

/// The API sets a default of one.
fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

//! What a deployment does next: one step of a rollout, of scaling, of cleaning up, and the status after it. Pure.
//!
//! A step changes little, so that the next one is decided on what became of it. The rules are those of Kubernetes' deployment
//! controller (<https://kubernetes.io/docs/concepts/workloads/controllers/deployment/>).

mod progress;
mod set;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet};
use kube::ResourceExt as _;
use serde_json::Value;

use super::template;
use crate::controller::fraction::{Round, of_total};
use set::Set;

pub(super) use progress::failed_to_create;
pub(super) use set::REVISION;

/// A write to a replica set.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    Create(Box<ReplicaSet>),
    /// A merge patch; `scaled` from and to how many replicas, if it does that.
    Update {
        name: String,
        patch: Value,
        scaled: Option<(i32, i32)>,
    },
    Delete {
        name: String,
    },
}

/// A step and what is true after it.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    /// What the deployment's revision annotation should say, if anything is known.
    pub(super) revision: Option<String>,
    pub(super) status: DeploymentStatus,
    /// When to look again though nothing has changed: whether the rollout got stuck.
    pub(super) recheck: Option<Duration>,
}

/// `pods_run` says whether a replica set (by uid) still has pods that have not ended.
pub(super) fn plan(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    pods_run: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Option<Plan> {
    let spec = deployment.spec.as_ref()?;
    let mut rollout = Rollout::new(deployment, spec, sets, now);
    if deployment.metadata.deletion_timestamp.is_some() {
        rollout.sync_new();
        return Some(rollout.end(false));
    }
    rollout.note_pause();
    rollout.sync_new();
    if spec.paused == Some(true) || rollout.is_scaling() {
        rollout.scale();
        if spec.paused == Some(true) {
            rollout.clean_up();
        }
        return Some(rollout.end(false));
    }
    if rollout.rolling {
        rollout.roll();
    } else {
        rollout.recreate(pods_run);
    }
    Some(rollout.end(true))
}

struct Rollout<'a> {
    deployment: &'a Deployment,
    spec: &'a DeploymentSpec,
    old_status: DeploymentStatus,
    /// Oldest first; the one for the present template, when it is there, among them.
    sets: Vec<Set<'a>>,
    new: Option<usize>,
    wanted: i32,
    rolling: bool,
    max_surge: i32,
    max_unavailable: i32,
    conditions: Vec<DeploymentCondition>,
    deleted: Vec<String>,
    now: Timestamp,
}

impl<'a> Rollout<'a> {
    fn new(deployment: &'a Deployment, spec: &'a DeploymentSpec, sets: &'a [Arc<ReplicaSet>], now: Timestamp) -> Self {
        let mut sets: Vec<_> = sets.iter().map(|set| Set::of(set)).collect();
        sets.sort_by(|one, other| (one.created, &one.name).cmp(&(other.created, &other.name)));
        let new = sets.iter().position(|set| template::same(set.template(), Some(&spec.template)));
        let strategy = spec.strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate");
        let wanted = spec.replicas.unwrap_or(1);
        let bounds = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let part = |part, round| of_total(part, wanted, round).unwrap_or_default();
        let max_surge = part(bounds.and_then(|bounds| bounds.max_surge.as_ref()), Round::Up);
        let mut max_unavailable = part(bounds.and_then(|bounds| bounds.max_unavailable.as_ref()), Round::Down);
        // With neither, nothing could ever move.
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        let old_status = deployment.status.clone().unwrap_or_default();
        Self {
            deployment,
            spec,
            conditions: old_status.conditions.clone().unwrap_or_default(),
            old_status,
            sets,
            new,
            wanted,
            rolling,
            max_surge: if rolling { max_surge } else { 0 },
            max_unavailable: if rolling { max_unavailable.min(wanted) } else { 0 },
            deleted: Vec::new(),
            now,
        }
    }

    fn old(&self) -> impl Iterator<Item = usize> + use<> {
        let new = self.new;
        (0..self.sets.len()).filter(move |index| Some(*index) != new)
    }

    fn active_old(&self) -> Vec<usize> {
        self.old().filter(|index| self.sets[*index].replicas > 0).collect()
    }

    fn total(&self, of: impl Fn(&Set<'_>) -> i32) -> i32 {
        self.sets.iter().map(of).sum()
    }

    /// Gives the replica set for the present template, if it is there, the newest revision and the deployment's annotations.
    fn sync_new(&mut self) {
        let Some(new) = self.new else { return };
        let revision = self.next_revision();
        let set = &mut self.sets[new];
        set.copy_annotations(self.deployment);
        set.raise_revision(revision);
        set.min_ready = self.spec.min_ready_seconds;
        let name = set.name.clone();
        self.note_found(&name);
    }

    fn next_revision(&self) -> i64 {
        self.old().map(|index| self.sets[index].revision()).max().unwrap_or_default().max(0) + 1
    }

    /// Makes the replica set for the present template when it is not there.
    fn create_new(&mut self) {
        if self.new.is_some() {
            return;
        }
        let mut set = Set::made(template::replica_set(self.deployment));
        set.copy_annotations(self.deployment);
        set.raise_revision(self.next_revision());
        set.note_scale(self.wanted, self.wanted + self.max_surge);
        self.sets.push(set);
        let new = self.sets.len() - 1;
        self.new = Some(new);
        self.sets[new].replicas = self.replicas_of_new(new);
        let name = self.sets[new].name.clone();
        self.note_created(&name);
    }

    /// How many replicas the new set may have: all, or what the surge leaves.
    fn replicas_of_new(&self, new: usize) -> i32 {
        if !self.rolling {
            return self.wanted;
        }
        let present = self.sets[new].replicas;
        let room = self.wanted + self.max_surge - self.total(|set| set.replicas);
        if room <= 0 { present } else { present + room.min(self.wanted - present) }
    }

    fn set_replicas(&mut self, index: usize, replicas: i32) -> bool {
        let (wanted, most) = (self.wanted, self.wanted + self.max_surge);
        let set = &mut self.sets[index];
        let scaled = set.replicas != replicas;
        if scaled {
            set.replicas = replicas;
            set.note_scale(wanted, most);
        }
        scaled
    }

    /// Somebody has changed the deployment's replicas since its sets were last sized.
    fn is_scaling(&self) -> bool {
        let active = self.sets.iter().filter(|set| set.replicas > 0);
        active.filter_map(Set::desired).any(|desired| desired != self.wanted)
    }

    /// Sizes the sets while no rollout moves: one set takes all; several share in proportion, so that a bad new template
    /// does not gain by it.
    fn scale(&mut self) {
        let active: Vec<_> = (0..self.sets.len()).filter(|index| self.sets[*index].replicas > 0).collect();
        match active[..] {
            [] => {
                if let Some(latest) = self.new.or_else(|| self.old().last()) {
                    self.set_replicas(latest, self.wanted);
                }
            }
            [only] => {
                self.set_replicas(only, self.wanted);
            }
            _ if self.is_saturated() => {
                for index in self.active_old() {
                    self.set_replicas(index, 0);
                }
            }
            _ if self.rolling => self.scale_in_proportion(active),
            _ => {}
        }
    }

    /// The new set has, and was sized for, all that is wanted, and all of it is available.
    fn is_saturated(&self) -> bool {
        let new = self.new.map(|new| &self.sets[new]);
        new.is_some_and(|new| {
            new.replicas == self.wanted && new.desired() == Some(self.wanted) && new.available == self.wanted
        })
    }

    fn scale_in_proportion(&mut self, mut active: Vec<usize>) {
        let most = self.wanted + self.max_surge;
        let allowed = if self.wanted > 0 { most } else { 0 };
        let to_add = allowed - self.total(|set| set.replicas);
        // Larger ones first; of equal ones the newer grows and the older shrinks first.
        active.sort_by_key(|index| {
            let age = i64::try_from(*index).unwrap_or(i64::MAX);
            (-self.sets[*index].replicas, if to_add > 0 { -age } else { age })
        });
        let mut sizes = Vec::new();
        let mut added = 0;
        for &index in &active {
            let set = &self.sets[index];
            let share = if to_add == 0 { 0 } else { set.share(self.wanted, most, self.old_status.replicas) };
            let left = to_add - added;
            let share = if to_add > 0 { share.min(left) } else { share.max(left) };
            sizes.push(set.replicas + share);
            added += share;
        }
        if let Some(largest) = sizes.first_mut() {
            *largest = (*largest + to_add - added).max(0);
        }
        for (index, size) in active.into_iter().zip(sizes) {
            self.sets[index].replicas = size;
            self.sets[index].note_scale(self.wanted, most);
        }
    }

    fn roll(&mut self) {
        self.create_new();
        if !self.grow_new() && !self.shrink_old() && self.was_complete() {
            self.clean_up();
        }
    }

    fn grow_new(&mut self) -> bool {
        let Some(new) = self.new else { return false };
        let present = self.sets[new].replicas;
        let replicas = if present > self.wanted { self.wanted } else { self.replicas_of_new(new) };
        self.set_replicas(new, replicas)
    }

    /// Takes from the old sets what availability allows: first what is not available anyway.
    fn shrink_old(&mut self) -> bool {
        let least = self.wanted - self.max_unavailable;
        let new_unavailable = self.new.map_or(0, |new| self.sets[new].replicas - self.sets[new].available);
        let mut spare = self.total(|set| set.replicas) - least - new_unavailable;
        if spare <= 0 {
            return false;
        }
        let mut shrunk = false;
        for index in self.active_old() {
            let set = &self.sets[index];
            let unavailable = (set.replicas - set.available).clamp(0, spare);
            spare -= unavailable;
            shrunk |= self.set_replicas(index, self.sets[index].replicas - unavailable);
        }
        let mut spare = (self.total(|set| set.available) - least).max(0);
        for index in self.active_old() {
            let taken = self.sets[index].replicas.min(spare);
            spare -= taken;
            shrunk |= self.set_replicas(index, self.sets[index].replicas - taken);
        }
        shrunk
    }

    /// All old pods end before a new one begins.
    fn recreate(&mut self, pods_run: impl Fn(&str) -> bool) {
        let mut shrunk = false;
        for index in self.active_old() {
            shrunk |= self.set_replicas(index, 0);
        }
        let runs = |set: &Set<'_>| set.actual > 0 || pods_run(&set.uid);
        if shrunk || self.old().any(|index| runs(&self.sets[index])) {
            return;
        }
        self.create_new();
        if let Some(new) = self.new {
            self.set_replicas(new, self.wanted);
        }
        if self.was_complete() {
            self.clean_up();
        }
    }

    /// The last status says that the rollout is done.
    fn was_complete(&self) -> bool {
        progress::is_complete(self.deployment, &self.old_status)
    }

    /// Deletes the oldest revisions past the limit, but none that has pods or is about to.
    fn clean_up(&mut self) {
        let Some(limit) = self.spec.revision_history_limit.filter(|limit| *limit != i32::MAX) else { return };
        let mut alive: Vec<_> = self.old().map(|index| &self.sets[index]).filter(|set| !set.deleting).collect();
        alive.sort_by_key(|set| (set.revision(), set.created));
        let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        let idle = alive.into_iter().take(surplus).filter(|set| set.is_idle());
        self.deleted = idle.map(|set| set.name.clone()).collect();
    }

    fn end(self, moves: bool) -> Plan {
        let revision = self.new.and_then(|new| self.sets[new].annotation(REVISION).map(str::to_owned));
        let (status, recheck) = self.status(moves);
        let new = self.new.into_iter();
        let changes = new.chain(self.old()).filter_map(|index| self.sets[index].change());
        let deletions = self.deleted.iter().map(|name| Change::Delete { name: name.clone() });
        let revision = revision.filter(|revision| self.deployment.annotations().get(REVISION) != Some(revision));
        Plan { changes: changes.chain(deletions).collect(), revision, status, recheck }
    }
}

/// Annotations of a deployment that its replica sets do not inherit.
fn is_own(annotation: &str) -> bool {
    set::OWN.contains(&annotation)
}

fn inherited(deployment: &Deployment) -> BTreeMap<String, String> {
    let annotations = deployment.annotations().iter().filter(|(key, _)| !is_own(key));
    annotations.map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests;

//! The status of a deployment: its counts, and the conditions Available, Progressing and `ReplicaFailure`, with
//! Kubernetes' reasons and messages.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use kube::ResourceExt as _;

use super::Rollout;
use super::set::Terminating;
use crate::controller::status::{nonzero, whole_seconds};

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// All pods are of the new template, as many as wanted, available, and the controller has seen the newest spec.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let counts = [status.updated_replicas, status.replicas, status.available_replicas];
    counts.iter().all(|count| count.unwrap_or_default() == wanted)
        && status.observed_generation >= deployment.metadata.generation
}

/// A pod came or went since the last status.
fn is_moving(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let count = |count: Option<i32>| count.unwrap_or_default();
    let outdated = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || outdated(new) < outdated(old)
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}

/// The status of a deployment whose new replica set could not be created.
pub(in crate::controller::deployment) fn failed_to_create(
    deployment: &Deployment,
    message: &str,
    now: Timestamp,
) -> Option<DeploymentStatus> {
    deadline(deployment)?;
    let mut status = deployment.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    set_condition(conditions, condition(PROGRESSING, "False", "ReplicaSetCreateError", message.to_owned(), now));
    Some(status)
}

/// How long a rollout may stand still. The largest number means for ever.
fn deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != i32::MAX).then(|| SignedDuration::from_secs(seconds.into()))
}

impl Rollout<'_> {
    /// That somebody waits on purpose must not look like standing still.
    pub(super) fn note_pause(&mut self) {
        if deadline(self.deployment).is_none() {
            return;
        }
        let reason = self.progressing().and_then(|condition| condition.reason.clone());
        if reason.as_deref() == Some(TIMED_OUT) {
            return;
        }
        let was_paused = reason.as_deref() == Some(PAUSED);
        match (self.spec.paused == Some(true), was_paused) {
            (true, false) => self.note_progress("Unknown", PAUSED, "Deployment is paused".to_owned()),
            (false, true) => self.note_progress("Unknown", "DeploymentResumed", "Deployment is resumed".to_owned()),
            _ => {}
        }
    }

    pub(super) fn note_found(&mut self, set: &str) {
        if deadline(self.deployment).is_some() && self.progressing().is_none() {
            self.note_progress("True", "FoundNewReplicaSet", format!("Found new replica set \"{set}\""));
        }
    }

    pub(super) fn note_created(&mut self, set: &str) {
        if deadline(self.deployment).is_some() {
            self.note_progress("True", "NewReplicaSetCreated", format!("Created new replica set \"{set}\""));
        }
    }

    fn progressing(&self) -> Option<&DeploymentCondition> {
        self.conditions.iter().find(|condition| condition.type_ == PROGRESSING)
    }

    fn note_progress(&mut self, status: &str, reason: &str, message: String) {
        set_condition(&mut self.conditions, condition(PROGRESSING, status, reason, message, self.now));
    }

    /// The status after this step and, when a rollout may be stuck, how long until that is known. `moves`: the step was one of
    /// a rollout, whose progress counts.
    pub(super) fn status(&self, moves: bool) -> (DeploymentStatus, Option<Duration>) {
        let available = self.total(|set| set.available);
        let mut conditions = self.conditions.clone();
        let (status, reason, message) = if available >= self.wanted - self.max_unavailable {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        set_condition(&mut conditions, condition(AVAILABLE, status, reason, message.to_owned(), self.now));

        let mut status = DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: nonzero(self.total(|set| set.actual)),
            updated_replicas: nonzero(self.new.map_or(0, |new| self.sets[new].actual)),
            ready_replicas: nonzero(self.total(|set| set.ready)),
            available_replicas: nonzero(available),
            unavailable_replicas: nonzero((self.total(|set| set.replicas) - available).max(0)),
            terminating_replicas: self.terminating(),
            collision_count: self.old_status.collision_count,
            conditions: None,
        };
        let mut recheck = None;
        if moves {
            self.judge_progress(&status, &mut conditions);
            self.report_failure(&mut conditions);
            recheck = self.recheck(&status, &conditions);
        }
        status.conditions = (!conditions.is_empty()).then_some(conditions);
        (status, recheck)
    }

    fn terminating(&self) -> Option<i32> {
        self.sets.iter().try_fold(0, |sum, set| match set.terminating {
            Terminating::New => Some(sum),
            Terminating::Known(terminating) => Some(sum + terminating),
            Terminating::Unknown => None,
        })
    }

    fn judge_progress(&self, status: &DeploymentStatus, conditions: &mut Vec<DeploymentCondition>) {
        let Some(deadline) = deadline(self.deployment) else {
            conditions.retain(|condition| condition.type_ != PROGRESSING);
            return;
        };
        let current = self.progressing().cloned();
        let reason = current.as_ref().and_then(|current| current.reason.as_deref());
        if status.replicas == status.updated_replicas && reason == Some(NEW_SET_AVAILABLE) {
            return;
        }
        let subject = match self.new {
            Some(new) => format!("ReplicaSet \"{}\"", self.sets[new].name),
            None => format!("Deployment \"{}\"", self.deployment.name_any()),
        };
        let progress =
            |status, reason, what: &str| condition(PROGRESSING, status, reason, format!("{subject} {what}"), self.now);
        if is_complete(self.deployment, status) {
            set_condition(conditions, progress("True", NEW_SET_AVAILABLE, "has successfully progressed."));
        } else if is_moving(&self.old_status, status) {
            let mut moving = progress("True", "ReplicaSetUpdated", "is progressing.");
            if let Some(current) = current.as_ref().filter(|current| current.status == "True") {
                moving.last_transition_time.clone_from(&current.last_transition_time);
            }
            // Each progress renews the time, though status and reason stay.
            conditions.retain(|condition| condition.type_ != PROGRESSING);
            conditions.push(moving);
        } else if let Some(current) = &current
            && reason != Some(NEW_SET_AVAILABLE)
            && is_over(current, deadline, self.now)
        {
            set_condition(conditions, progress("False", TIMED_OUT, "has timed out progressing."));
        }
    }

    /// The failure of the new set, or else of an old one.
    fn report_failure(&self, conditions: &mut Vec<DeploymentCondition>) {
        let new = self.new.and_then(|new| self.sets[new].failure);
        let failure = new.or_else(|| self.sets.iter().find_map(|set| set.failure));
        let Some(failure) = failure else {
            conditions.retain(|condition| condition.type_ != REPLICA_FAILURE);
            return;
        };
        set_condition(
            conditions,
            DeploymentCondition {
                type_: failure.type_.clone(),
                status: failure.status.clone(),
                reason: failure.reason.clone(),
                message: failure.message.clone(),
                last_transition_time: failure.last_transition_time.clone(),
                last_update_time: failure.last_transition_time.clone(),
            },
        );
    }

    fn recheck(&self, status: &DeploymentStatus, conditions: &[DeploymentCondition]) -> Option<Duration> {
        let deadline = deadline(self.deployment)?;
        let progressing = conditions.iter().find(|condition| condition.type_ == PROGRESSING)?;
        if is_complete(self.deployment, status) || progressing.reason.as_deref() == Some(TIMED_OUT) {
            return None;
        }
        let updated = progressing.last_update_time.as_ref()?.0;
        let left = deadline - self.now.duration_since(updated);
        // A second more, as times in the API have no fraction.
        Some(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1))
    }
}

fn is_over(progressing: &DeploymentCondition, deadline: SignedDuration, now: Timestamp) -> bool {
    let updated = progressing.last_update_time.as_ref().map(|time| time.0);
    progressing.reason.as_deref() == Some(TIMED_OUT)
        || updated.is_some_and(|updated| now.duration_since(updated) > deadline)
}

fn condition(type_: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    let now = whole_seconds(now);
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(now.clone()),
        last_update_time: Some(now),
    }
}

/// A condition that says the same as before keeps its times and its message; a changed one goes to the end.
fn set_condition(conditions: &mut Vec<DeploymentCondition>, mut new: DeploymentCondition) {
    if let Some(index) = conditions.iter().position(|condition| condition.type_ == new.type_) {
        let current = &conditions[index];
        if current.status == new.status {
            if current.reason == new.reason {
                return;
            }
            new.last_transition_time.clone_from(&current.last_transition_time);
        }
        conditions.remove(index);
    }
    conditions.push(new);
}

//! The status of a job: what is counted, what is about to be, and its conditions. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;

use super::failure_policy::{self, Verdict};
use super::plan::{Ending, is_indexed, is_suspended};
use super::{indexes, is_failed, is_tracked, per_index};
use crate::controller::pod::{is_active, is_ready, is_terminating, phase};
use crate::controller::status::{count, nonzero, whole_seconds};

/// How many ends may be noted and not counted at a time, so that a status stays small.
const MAX_UNCOUNTED: usize = 500;

/// How many pods have succeeded and failed, those included that are yet to be counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) succeeded: i32,
    pub(super) failed: i32,
}

pub(super) fn has_condition<'a>(job: &'a Job, type_: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True")
}

pub(super) fn is_end(condition: &JobCondition) -> bool {
    matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
}

/// When the job ended, if it did.
pub(super) fn finished_at(job: &Job) -> Option<Timestamp> {
    let end = job.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| is_end(condition))?;
    Some(end.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(super) fn counts_as_failed(job: &Job, pod: &Pod) -> bool {
    is_failed(job, pod) && failure_policy::judge(job, pod) != Verdict::Ignore
}

pub(super) fn totals(job: &Job, pods: &[Arc<Pod>]) -> Totals {
    let status = job.status.clone().unwrap_or_default();
    let uncounted = status.uncounted_terminated_pods.unwrap_or_default();
    let noted = |uids: &Option<Vec<String>>, pod: &Pod| uids.iter().flatten().any(|noted| noted == uid(pod));
    let tracked = || pods.iter().filter(|pod| is_tracked(pod));
    let failed = count(tracked().filter(|pod| counts_as_failed(job, pod) && !noted(&uncounted.failed, pod)));
    let succeeded = if is_indexed(job) {
        count(succeeded_indexes(job, pods))
    } else {
        let new = tracked().filter(|pod| phase(pod) == "Succeeded" && !noted(&uncounted.succeeded, pod));
        status.succeeded.unwrap_or_default() + count(uncounted.succeeded.iter().flatten()) + count(new)
    };
    Totals { succeeded, failed: status.failed.unwrap_or_default() + count(uncounted.failed.iter().flatten()) + failed }
}

/// The indexes of a job that have succeeded, those included that its status does not have yet.
pub(super) fn succeeded_indexes(job: &Job, pods: &[Arc<Pod>]) -> BTreeSet<i32> {
    let status = job.status.as_ref();
    let mut done = indexes::parse(status.and_then(|status| status.completed_indexes.as_deref()).unwrap_or_default());
    let completions = job.spec.as_ref().and_then(|spec| spec.completions).unwrap_or_default();
    let succeeded = pods.iter().filter(|pod| is_tracked(pod) && phase(pod) == "Succeeded");
    done.extend(succeeded.filter_map(|pod| indexes::of_pod(pod)).filter(|index| *index < completions));
    done
}

/// The status that notes every new end, and the pods that may then be let go.
pub(super) fn account(
    job: &Job,
    pods: &[Arc<Pod>],
    ending: Option<Ending>,
    now: Timestamp,
) -> (JobStatus, Vec<Arc<Pod>>) {
    let mut status = job.status.clone().unwrap_or_default();
    let active = count(pods.iter().filter(|pod| is_active(pod)));
    let Totals { succeeded, .. } = totals(job, pods);
    if status.start_time.is_none() && !is_suspended(job) {
        status.start_time = Some(whole_seconds(now));
    }
    let completions = job.spec.as_ref().and_then(|spec| spec.completions);
    let enough = completions.map_or(succeeded > 0, |completions| succeeded >= completions);
    let ending = ending.or_else(|| {
        (enough && active == 0).then(|| Ending::Success {
            reason: "CompletionsReached".to_owned(),
            message: "Reached expected number of succeeded pods".to_owned(),
        })
    });

    settle(&mut status, pods);
    let mut uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
    let mut release = Vec::new();
    let indexed = is_indexed(job);
    let done = if indexed { succeeded_indexes(job, pods) } else { BTreeSet::new() };
    let waiting = per_index::waiting(job, pods, &done);
    for pod in pods.iter().filter(|pod| is_tracked(pod)) {
        let noted = count(uncounted.succeeded.iter().flatten()) + count(uncounted.failed.iter().flatten());
        if usize::try_from(noted).unwrap_or_default() >= MAX_UNCOUNTED {
            break;
        }
        let succeeded = phase(pod) == "Succeeded";
        let over = ending.is_some() || job.metadata.deletion_timestamp.is_some();
        let waits =
            || indexes::of_pod(pod).and_then(|index| waiting.get(&index)).is_some_and(|kept| uid(kept) == uid(pod));
        if !(succeeded || over || (is_failed(job, pod) && !waits())) {
            continue;
        }
        release.push(Arc::clone(pod));
        // Successes of indexed jobs are in the list of indexes.
        let failed =
            counts_as_failed(job, pod) || (!is_failed(job, pod) && matches!(ending, Some(Ending::Failure { .. })));
        let list = match (succeeded, failed) {
            (true, _) if indexed => continue,
            (true, _) => &mut uncounted.succeeded,
            (false, true) => &mut uncounted.failed,
            (false, false) => continue,
        };
        let list = list.get_or_insert_default();
        if !list.iter().any(|noted| noted == uid(pod)) {
            list.push(uid(pod).to_owned());
        }
    }
    status.uncounted_terminated_pods = Some(uncounted);
    if indexed {
        status.failed_indexes = per_index::failed(job, pods).map(|failed| indexes::format(&failed));
        status.succeeded = nonzero(count(&done));
        status.completed_indexes = Some(indexes::format(&done)).filter(|done| !done.is_empty());
    }
    note_suspension(job, &mut status, ending.is_some(), now);
    if let Some(ending) = ending {
        let (type_, reason, message) = match ending {
            Ending::Success { reason, message } => ("SuccessCriteriaMet", reason, message),
            Ending::Failure { reason, message } => ("FailureTarget", reason, message),
        };
        let conditions = status.conditions.get_or_insert_default();
        if conditions.iter().all(|condition| condition.type_ != type_) {
            conditions.push(condition(type_, "True", reason, message, now));
        }
    }
    count_alive(&mut status, pods);
    (status, release)
}

/// The status after pods were let go: they are counted, and the job ends when nothing of it is left.
pub(super) fn conclude(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> JobStatus {
    let mut status = job.status.clone().unwrap_or_default();
    settle(&mut status, pods);
    count_alive(&mut status, pods);
    let uncounted = status.uncounted_terminated_pods.as_ref();
    let open = uncounted.is_some_and(|uncounted| uncounted.succeeded.is_some() || uncounted.failed.is_some());
    if open || pods.iter().any(|pod| is_terminating(pod) || is_active(pod)) {
        return status;
    }
    let ends = [("SuccessCriteriaMet", "Complete"), ("FailureTarget", "Failed")];
    for (target, end) in ends {
        let Some(target) = has_condition(job, target) else { continue };
        let (reason, message) = (target.reason.clone().unwrap_or_default(), target.message.clone().unwrap_or_default());
        let conditions = status.conditions.get_or_insert_default();
        if !conditions.iter().any(is_end) {
            conditions.push(condition(end, "True", reason, message, now));
            if end == "Complete" {
                status.completion_time = Some(whole_seconds(now));
            }
        }
    }
    status
}

/// Counts the ends that were noted and whose pods were let go.
fn settle(status: &mut JobStatus, pods: &[Arc<Pod>]) {
    let uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
    let held = |noted: &String| pods.iter().any(|pod| uid(pod) == noted && is_tracked(pod));
    let split = |noted: Option<Vec<String>>, counted: &mut Option<i32>| {
        let (kept, gone): (Vec<_>, Vec<_>) = noted.unwrap_or_default().into_iter().partition(held);
        *counted = nonzero(counted.unwrap_or_default() + count(gone));
        (!kept.is_empty()).then_some(kept)
    };
    let succeeded = split(uncounted.succeeded, &mut status.succeeded);
    let failed = split(uncounted.failed, &mut status.failed);
    status.uncounted_terminated_pods = Some(UncountedTerminatedPods { succeeded, failed });
}

fn count_alive(status: &mut JobStatus, pods: &[Arc<Pod>]) {
    let active: Vec<_> = pods.iter().filter(|pod| is_active(pod)).collect();
    status.active = nonzero(count(&active));
    status.ready = Some(count(active.iter().filter(|pod| is_ready(pod))));
    status.terminating = Some(count(pods.iter().filter(|pod| is_terminating(pod))));
}

fn note_suspension(job: &Job, status: &mut JobStatus, over: bool, now: Timestamp) {
    if over || job.metadata.deletion_timestamp.is_some() {
        return;
    }
    let conditions = status.conditions.get_or_insert_default();
    let current = conditions.iter_mut().find(|condition| condition.type_ == "Suspended");
    let was = current.as_ref().is_some_and(|condition| condition.status == "True");
    let (value, reason, message) = match (is_suspended(job), was) {
        (true, false) => ("True", "JobSuspended", "Job suspended"),
        (false, true) => ("False", "JobResumed", "Job resumed"),
        _ => {
            if conditions.is_empty() {
                status.conditions = None;
            }
            return;
        }
    };
    let new = condition("Suspended", value, reason.to_owned(), message.to_owned(), now);
    match current {
        Some(current) => *current = new,
        None => conditions.push(new),
    }
    // The deadline runs from when the job goes on.
    status.start_time = (value == "False").then(|| whole_seconds(now));
}

/// The event that tells that a job was suspended or goes on.
pub(super) fn suspension_changed(job: &Job, new: &JobStatus) -> Option<(&'static str, &'static str)> {
    let was = has_condition(job, "Suspended").is_some();
    let is = new.conditions.iter().flatten().any(|one| one.type_ == "Suspended" && one.status == "True");
    match (was, is) {
        (false, true) => Some(("Suspended", "Job suspended")),
        (true, false) => Some(("Resumed", "Job resumed")),
        _ => None,
    }
}

fn condition(type_: &str, status: &str, reason: String, message: String, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason),
        message: Some(message),
        last_probe_time: Some(whole_seconds(now)),
        last_transition_time: Some(whole_seconds(now)),
    }
}

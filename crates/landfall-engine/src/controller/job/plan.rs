//! Whether a job is at its end, and which pods it creates or deletes next. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::ResourceExt as _;

use super::failure_policy::{self, Verdict};
use super::indexes::{self, INDEX};
use super::status::{Totals, counts_as_failed, has_condition, succeeded_indexes, totals};
use super::{FINALIZER, is_failed, only_replaces_failed, per_index, success_policy};
use crate::controller::claim::owner_reference;
use crate::controller::pod::{self, is_active, is_terminating, phase};
use crate::controller::pod_control::BURST;
use crate::controller::status::count;

/// The wait after the first failure in a row; it doubles up to [`MAX_BACKOFF`], as in Kubernetes.
const MIN_BACKOFF: Duration = Duration::from_secs(10);
const MAX_BACKOFF: Duration = Duration::from_mins(10);

/// A job that goes on no more, and why: its remaining pods are to be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    Success { reason: String, message: String },
    Failure { reason: String, message: String },
}

/// What to do to pods.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) create: Vec<Pod>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// What is deleted is let go first: it is not to be counted.
    pub(super) release_deleted: bool,
    /// When failed pods may be replaced that may not yet.
    pub(super) retry: Option<Duration>,
}

/// When pods ended, by their uids and by the clock of the machine, as back-off goes by that.
pub(super) type Ends = HashMap<String, Timestamp>;

pub(super) fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true))
}

pub(super) fn is_indexed(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| spec.completion_mode.as_deref() == Some("Indexed"))
}

/// When the job has been active for as long as it may.
///
/// Not handled: the deadline is one of the engine's clock, so that a clock that is sped up makes it come sooner.
pub(super) fn deadline(job: &Job) -> Option<Timestamp> {
    let seconds = job.spec.as_ref()?.active_deadline_seconds?;
    let started = job.status.as_ref()?.start_time.as_ref()?.0;
    (!is_suspended(job)).then(|| started + SignedDuration::from_secs(seconds))
}

pub(super) fn verdict(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Option<Ending> {
    let spec = job.spec.as_ref()?;
    let said = |type_: &str| {
        let condition = has_condition(job, type_)?;
        Some((condition.reason.clone().unwrap_or_default(), condition.message.clone().unwrap_or_default()))
    };
    if let Some((reason, message)) = said("SuccessCriteriaMet") {
        return Some(Ending::Success { reason, message });
    }
    if let Some((reason, message)) = said("FailureTarget") {
        return Some(Ending::Failure { reason, message });
    }
    let failure =
        |reason: &str, message: &str| Some(Ending::Failure { reason: reason.to_owned(), message: message.to_owned() });
    let judged = pods.iter().filter(|pod| is_failed(job, pod)).find_map(|pod| match failure_policy::judge(job, pod) {
        Verdict::FailJob(message) => Some(message),
        Verdict::Ignore | Verdict::Count | Verdict::FailIndex => None,
    });
    if let Some(message) = judged {
        return failure("PodFailurePolicy", &message);
    }
    let limit = spec.backoff_limit.unwrap_or(if per_index::limit(job).is_some() { i32::MAX } else { 6 });
    if totals(job, pods).failed > limit || restarts_reach(spec, pods, limit) {
        return failure("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    if deadline(job).is_some_and(|deadline| now >= deadline) {
        return failure("DeadlineExceeded", "Job was active longer than specified deadline");
    }
    if !is_indexed(job) {
        return None;
    }
    let succeeded = succeeded_indexes(job, pods);
    let failed = per_index::failed(job, pods);
    failed.and_then(|failed| per_index::ending(job, &failed, &succeeded)).or_else(|| {
        let message = success_policy::met(job, &succeeded)?;
        Some(Ending::Success { reason: "SuccessPolicy".to_owned(), message })
    })
}

/// With restarts in place, each is a failure.
fn restarts_reach(spec: &JobSpec, pods: &[Arc<Pod>], limit: i32) -> bool {
    let policy = spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let alive = pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
    let statuses = alive.filter_map(|pod| pod.status.as_ref());
    let containers =
        statuses.flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses).flatten());
    let restarts: i32 = containers.map(|container| container.restart_count).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// `ends` and `now` are of the clock of the machine.
pub(super) fn step(job: &Job, pods: &[Arc<Pod>], verdict: Option<&Ending>, ends: &Ends, now: Timestamp) -> Step {
    let Some(spec) = &job.spec else { return Step::default() };
    let active: Vec<_> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
    if verdict.is_some() {
        return Step { delete: active, ..Step::default() };
    }
    if job.metadata.deletion_timestamp.is_some() {
        return Step::default();
    }
    if is_suspended(job) {
        return Step { delete: active, release_deleted: true, ..Step::default() };
    }
    let Totals { succeeded, .. } = totals(job, pods);
    let parallelism = spec.parallelism.unwrap_or(1);
    let wanted = match spec.completions {
        // Without a number, the first success is the last pod to begin.
        None if succeeded > 0 => count(&active),
        None => parallelism,
        Some(completions) => (completions - succeeded).clamp(0, parallelism.max(0)),
    };
    let surplus = usize::try_from(count(&active) - wanted).unwrap_or_default();
    let mut delete = if is_indexed(job) { superfluous(spec, &active, now) } else { Vec::new() };
    if surplus > delete.len() {
        let rest = pod::by_dispensability(active.clone(), &active, now);
        let rest = rest.into_iter().filter(|pod| !delete.iter().any(|gone| Arc::ptr_eq(gone, pod)));
        delete = delete.iter().cloned().chain(rest).take(surplus).collect();
    }
    if !delete.is_empty() {
        delete.truncate(BURST);
        return Step { delete, release_deleted: true, ..Step::default() };
    }
    let terminating = if only_replaces_failed(job) { count(pods.iter().filter(|pod| is_terminating(pod))) } else { 0 };
    let missing = usize::try_from(wanted - terminating - count(&active)).unwrap_or_default();
    if missing == 0 {
        return Step::default();
    }
    if per_index::limit(job).is_none()
        && let Some(wait) = backoff(job, pods, ends, now)
    {
        return Step { retry: Some(wait), ..Step::default() };
    }
    let (create, retry) = new_pods(job, spec, pods, missing.min(BURST), ends, now);
    Step { create, retry, ..Step::default() }
}

/// Pods of an indexed job whose index has another pod, is beyond the last, or is not known.
fn superfluous(spec: &JobSpec, active: &[Arc<Pod>], now: Timestamp) -> Vec<Arc<Pod>> {
    let mut kept = BTreeSet::new();
    // The one that can be spared least is kept.
    let ordered = pod::by_dispensability(active.to_vec(), active, now).into_iter().rev();
    let completions = spec.completions.unwrap_or_default();
    ordered.filter(|pod| !indexes::of_pod(pod).is_some_and(|index| index < completions && kept.insert(index))).collect()
}

/// How long to wait after the failures since the last success.
fn backoff(job: &Job, pods: &[Arc<Pod>], ends: &Ends, now: Timestamp) -> Option<Duration> {
    let ends = |ended: &dyn Fn(&Pod) -> bool| -> Vec<Timestamp> {
        pods.iter().filter(|pod| ended(pod)).filter_map(|pod| ended_at(pod, ends)).collect()
    };
    let success = ends(&|pod| phase(pod) == "Succeeded").into_iter().max();
    let failures = ends(&|pod| counts_as_failed(job, pod));
    let since: Vec<_> = failures.into_iter().filter(|end| success.is_none_or(|success| *end > success)).collect();
    let last = since.iter().max()?;
    wait_after(i32::try_from(since.len()).unwrap_or(i32::MAX), *last, now)
}

/// What is left of the wait after so many failures in a row, of which the last was at `last`.
pub(super) fn wait_after(failures: i32, last: Timestamp, now: Timestamp) -> Option<Duration> {
    let doublings = u32::try_from(failures - 1).unwrap_or_default().min(10);
    let wait = MIN_BACKOFF.saturating_mul(1 << doublings).min(MAX_BACKOFF);
    let elapsed = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    wait.checked_sub(elapsed).filter(|left| !left.is_zero())
}

pub(super) fn ended_at(pod: &Pod, ends: &Ends) -> Option<Timestamp> {
    ends.get(pod.metadata.uid.as_deref()?).copied()
}

/// The ends of pods that have one. A pod that tells none, as it was deleted before it ran, has ended when that was first seen:
/// `seen` are the ends of the look before, `now` is the time of the machine.
pub(super) fn ends(job: &Job, pods: &[Arc<Pod>], seen: &Ends, now: Timestamp) -> Ends {
    let ended = pods.iter().filter(|pod| phase(pod) == "Succeeded" || is_failed(job, pod));
    ended
        .filter_map(|pod| {
            let uid = pod.metadata.uid.clone()?;
            let end = told_end(pod).or_else(|| seen.get(&uid).copied()).unwrap_or(now);
            Some((uid, end))
        })
        .collect()
}

/// The end that the node agent has told of: by the clock of the machine. When a pod was made and when it was to be deleted the API
/// says by the one that can be set, and the two are not compared.
fn told_end(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    let ends: Vec<_> = statuses
        .filter_map(|container| container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|time| time.0))
        .collect();
    let unready = pod::condition(pod, "Ready").filter(|ready| ready.status == "False");
    let unready = unready.and_then(|ready| ready.last_transition_time.as_ref());
    ends.into_iter().max().or(unready.map(|time| time.0))
}

/// The pods to be created now; if none, how long the first that is missing has to wait.
fn new_pods(
    job: &Job,
    spec: &JobSpec,
    pods: &[Arc<Pod>],
    missing: usize,
    ends: &Ends,
    now: Timestamp,
) -> (Vec<Pod>, Option<Duration>) {
    let name = job.name_any();
    let pod = || {
        let mut pod = pod::from_template(&name, owner_reference(job), Some(&spec.template));
        let finalizers = pod.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        pod
    };
    if !is_indexed(job) {
        return (std::iter::repeat_with(pod).take(missing).collect(), None);
    }
    let mut closed: BTreeSet<i32> = pods
        .iter()
        .filter(|pod| is_active(pod) || (only_replaces_failed(job) && is_terminating(pod)))
        .filter_map(|pod| indexes::of_pod(pod))
        .collect();
    let succeeded = succeeded_indexes(job, pods);
    closed.extend(&succeeded);
    closed.extend(per_index::failed(job, pods).unwrap_or_default());
    let open: Vec<i32> =
        (0..spec.completions.unwrap_or_default()).filter(|index| !closed.contains(index)).take(missing).collect();
    if per_index::limit(job).is_none() {
        return (open.into_iter().map(|index| indexed(pod(), &name, index)).collect(), None);
    }
    let replaced = per_index::waiting(job, pods, &succeeded);
    let wait = |index: &i32| replaced.get(index).and_then(|replaced| per_index::backoff(replaced, ends, now));
    let new: Vec<Pod> = open
        .iter()
        .filter(|index| wait(index).is_none())
        .map(|index| {
            let mut pod = indexed(pod(), &name, *index);
            per_index::count(job, replaced.get(index).map(|replaced| &**replaced), &mut pod);
            pod
        })
        .collect();
    (new, open.iter().filter_map(wait).min())
}

fn indexed(mut pod: Pod, job: &str, index: i32) -> Pod {
    pod.metadata.generate_name = Some(format!("{job}-{index}-"));
    pod.metadata.annotations.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(format!("{job}-{index}"));
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            let environment = container.env.get_or_insert_default();
            if environment.iter().all(|variable| variable.name != "JOB_COMPLETION_INDEX") {
                environment.push(index_variable());
            }
        }
    }
    pod
}

fn index_variable() -> EnvVar {
    let field = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), api_version: None };
    EnvVar {
        name: "JOB_COMPLETION_INDEX".to_owned(),
        value: None,
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
    }
}

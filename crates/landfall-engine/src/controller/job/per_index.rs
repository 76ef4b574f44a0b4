//! Jobs whose indexes fail one by one, by `backoffLimitPerIndex`: which have failed for good, and what a failed pod hands on to
//! the one that takes its place. Pure.
//!
//! How often an index has failed is written on its newest pod alone. So a failed pod is kept until its index has another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::failure_policy::{self, Verdict};
use super::plan::{Ending, Ends, ended_at, is_indexed, wait_after};
use super::{indexes, is_failed, is_tracked};
use crate::controller::pod::is_active;

/// How often the index had failed before this pod, as its limit counts.
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";

/// How often it had failed in ways that do not count.
const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// How often each index may fail.
pub(super) fn limit(job: &Job) -> Option<i32> {
    job.spec.as_ref().filter(|_| is_indexed(job))?.backoff_limit_per_index
}

fn completions(job: &Job) -> i32 {
    job.spec.as_ref().and_then(|spec| spec.completions).unwrap_or_default()
}

/// The indexes that have failed for good; `None` if they do not fail by themselves.
pub(super) fn failed(job: &Job, pods: &[Arc<Pod>]) -> Option<BTreeSet<i32>> {
    let limit = limit(job)?;
    let known = job.status.as_ref().and_then(|status| status.failed_indexes.as_deref()).unwrap_or_default();
    let over = |pod: &&Arc<Pod>| {
        is_tracked(pod)
            && is_failed(job, pod)
            && match failure_policy::judge(job, pod) {
                Verdict::FailIndex => true,
                Verdict::Ignore => false,
                Verdict::Count | Verdict::FailJob(_) => number(pod, FAILURES) >= limit,
            }
    };
    let new = pods.iter().filter(over).filter_map(|pod| indexes::of_pod(pod));
    Some(indexes::parse(known).into_iter().chain(new).filter(|index| *index < completions(job)).collect())
}

/// The end that failed indexes bring to their job.
pub(super) fn ending(job: &Job, failed: &BTreeSet<i32>, succeeded: &BTreeSet<i32>) -> Option<Ending> {
    let failure =
        |reason: &str, message: &str| Some(Ending::Failure { reason: reason.to_owned(), message: message.to_owned() });
    let counted = |set: &BTreeSet<i32>| i32::try_from(set.len()).unwrap_or(i32::MAX);
    let most = job.spec.as_ref().and_then(|spec| spec.max_failed_indexes);
    if most.is_some_and(|most| counted(failed) > most) {
        return failure("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes");
    }
    if !failed.is_empty() && counted(failed).saturating_add(counted(succeeded)) >= completions(job) {
        return failure("FailedIndexes", "Job has failed indexes");
    }
    None
}

/// The newest failed pod of each index that waits for another one: it must not be let go before.
pub(super) fn waiting(job: &Job, pods: &[Arc<Pod>], succeeded: &BTreeSet<i32>) -> BTreeMap<i32, Arc<Pod>> {
    let Some(failed) = failed(job, pods) else { return BTreeMap::new() };
    let active: BTreeSet<i32> =
        pods.iter().filter(|pod| is_active(pod)).filter_map(|pod| indexes::of_pod(pod)).collect();
    let mut waiting: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| is_tracked(pod) && is_failed(job, pod)) {
        let Some(index) = indexes::of_pod(pod).filter(|index| *index < completions(job)) else { continue };
        if active.contains(&index) || failed.contains(&index) || succeeded.contains(&index) {
            continue;
        }
        let newest = |pod: &Arc<Pod>| (all_failures(pod), pod.metadata.creation_timestamp.clone());
        if waiting.get(&index).is_none_or(|other| newest(other) <= newest(pod)) {
            waiting.insert(index, Arc::clone(pod));
        }
    }
    waiting
}

/// How long the index of this failed pod is to wait for another one.
pub(super) fn backoff(replaced: &Pod, ends: &Ends, now: Timestamp) -> Option<Duration> {
    wait_after(all_failures(replaced).saturating_add(1), ended_at(replaced, ends)?, now)
}

/// Writes on a new pod how often its index has failed.
pub(super) fn count(job: &Job, replaced: Option<&Pod>, pod: &mut Pod) {
    let mut failures = replaced.map_or(0, |replaced| number(replaced, FAILURES));
    let mut ignored = replaced.map_or(0, |replaced| number(replaced, IGNORED));
    match replaced.map(|replaced| failure_policy::judge(job, replaced)) {
        None => {}
        Some(Verdict::Ignore) => ignored = ignored.saturating_add(1),
        Some(_) => failures = failures.saturating_add(1),
    }
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(FAILURES.to_owned(), failures.to_string());
    if ignored > 0 {
        annotations.insert(IGNORED.to_owned(), ignored.to_string());
    }
}

fn all_failures(pod: &Pod) -> i32 {
    number(pod, FAILURES).saturating_add(number(pod, IGNORED))
}

/// What is no number, or none that a count can be, is none.
fn number(pod: &Pod, annotation: &str) -> i32 {
    let text = pod.annotations().get(annotation);
    text.and_then(|text| text.parse().ok()).filter(|number| *number >= 0).unwrap_or_default()
}

//! The runs of jobs while the platform is up, each watched to its end: a schedule keeps only the last few of them.
//!
//! What counts is how a run ends, and not an attempt that another one made good. Not handled: an end that nobody saw, as the run
//! was removed while the connection to the API was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;
use tokio::time::Instant;

use super::POLL;
use super::plan::Plan;
use super::report::{JobOutcome, JobReport};

/// How long runs are waited for that have not ended when everything else is known.
const PATIENCE: Duration = Duration::from_mins(1);

/// What has been seen of runs.
pub(super) struct Jobs {
    /// Runs that began earlier are another `up`'s,
    since: Timestamp,
    /// except for these, by namespace and name: the file has them run once, whenever that is.
    rendered: BTreeSet<(String, String)>,
    /// When everything was ready, in whole seconds, as the times of runs are.
    ready: OnceLock<Timestamp>,
    runs: Mutex<BTreeMap<String, Run>>,
}

/// One run.
#[derive(Debug, Clone)]
struct Run {
    namespace: String,
    /// Of the schedule, or of itself where nothing schedules it.
    job: String,
    name: String,
    begun: Timestamp,
    is_rendered: bool,
    outcome: JobOutcome,
    /// What is said of a failure.
    why: String,
}

impl Jobs {
    pub(super) fn new(plan: &Plan) -> Self {
        let jobs = plan.objects.iter().filter(|object| object["kind"] == "Job");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let named = |job: &Value| (text(&job["metadata"]["namespace"]), text(&job["metadata"]["name"]));
        Self { since: plan.begun, rendered: jobs.map(named).collect(), ready: OnceLock::new(), runs: Mutex::default() }
    }

    /// Everything is ready at this time: whatever begins now has no reason to fail.
    pub(super) fn begin(&self, now: Timestamp) {
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        self.ready.get_or_init(|| now);
    }

    /// Looks at all jobs for as long as it is polled.
    pub(super) async fn watch(&self, client: &Client) -> Infallible {
        let events = watcher(Api::<Job>::all(client.clone()), watcher::Config::default()).default_backoff();
        let mut events = pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Apply(job) | watcher::Event::InitApply(job)) => self.see(&job, false),
                Ok(watcher::Event::Delete(job)) => self.see(&job, true),
                // It lists them all anew by itself.
                Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => {}
            }
        }
        unreachable!("a watcher goes on for ever")
    }

    fn see(&self, job: &Job, is_gone: bool) {
        let (namespace, name) = (job.namespace().unwrap_or_default(), job.name_any());
        let schedule = job.owner_references().iter().find(|owner| owner.kind == "CronJob");
        let begun = job.creation_timestamp().map(|time| time.0).unwrap_or_default();
        let is_rendered = self.rendered.contains(&(namespace.clone(), name.clone()));
        if begun < self.since && !is_rendered {
            return;
        }
        let (outcome, why) = match outcome(job) {
            (JobOutcome::Running, why) if is_gone => (JobOutcome::Removed, why),
            known => known,
        };
        let job_name = schedule.map_or_else(|| name.clone(), |schedule| schedule.name.clone());
        let run = Run { namespace, job: job_name, name, begun, is_rendered, outcome, why };
        self.runs().insert(job.uid().unwrap_or_default(), run);
    }

    /// What came of each job, once every run has ended or the time for that is over.
    pub(super) async fn ended(&self) -> Vec<JobReport> {
        let deadline = Instant::now() + PATIENCE;
        let is_running = || self.runs().values().any(|run| run.outcome == JobOutcome::Running);
        while is_running() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        self.report()
    }

    fn report(&self) -> Vec<JobReport> {
        let runs = self.runs();
        let mut jobs = BTreeMap::<(&str, &str), Vec<&Run>>::new();
        for run in runs.values() {
            jobs.entry((&run.job, &run.namespace)).or_default().push(run);
        }
        let report = |((name, namespace), mut runs): ((&str, &str), Vec<&Run>)| {
            runs.sort_by_key(|run| (run.begun, &run.name));
            let failed = || runs.iter().filter(|run| run.outcome == JobOutcome::Failed);
            let problem = failed().rfind(|run| self.is_judged(run)).map(|last| {
                let why = if last.why.is_empty() { "nobody says why" } else { &last.why };
                format!("{} of {} runs failed; the last of them, `{}`: {why}", failed().count(), runs.len(), last.name)
            });
            JobReport {
                name: name.to_owned(),
                namespace: namespace.to_owned(),
                runs: runs.len(),
                failed: failed().count(),
                last: runs.last().map_or(JobOutcome::Running, |run| run.outcome),
                problem,
            }
        };
        jobs.into_iter().map(report).collect()
    }

    /// Whether it breaks a promise when it fails. What a schedule has begun before all was ready may have lacked something.
    fn is_judged(&self, run: &Run) -> bool {
        run.is_rendered || self.ready.get().is_some_and(|ready| run.begun >= *ready)
    }

    fn runs(&self) -> MutexGuard<'_, BTreeMap<String, Run>> {
        self.runs.lock().expect("nothing panics with them")
    }
}

/// How a run has ended, and what is said of it.
fn outcome(job: &Job) -> (JobOutcome, String) {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ends = conditions.filter(|condition| condition.status == "True").filter_map(|condition| {
        let outcome = match condition.type_.as_str() {
            "Complete" => JobOutcome::Succeeded,
            "Failed" => JobOutcome::Failed,
            _ => return None,
        };
        Some((outcome, condition.message.clone().unwrap_or_default()))
    });
    ends.next().unwrap_or((JobOutcome::Running, String::new()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SINCE: &str = "2026-01-02T03:04:05Z";
    const READY: &str = "2026-01-02T03:04:20.7Z";
    const THEN: &str = "2026-01-02T03:04:20Z";

    fn jobs() -> Jobs {
        let rendered = BTreeSet::from([("shop".to_owned(), "migrate".to_owned())]);
        let (since, ready) = (SINCE.parse().expect("it is a time"), OnceLock::new());
        let jobs = Jobs { since, rendered, ready, runs: Mutex::default() };
        jobs.begin(READY.parse().expect("it is a time"));
        jobs
    }

    /// A run with the condition of this type, if any.
    fn run(name: &str, schedule: Option<&str>, begun: &str, condition: &str) -> Job {
        let owners: Vec<_> = schedule
            .iter()
            .map(|name| json!({ "apiVersion": "batch/v1", "kind": "CronJob", "name": name, "uid": "c", "controller": true }))
            .collect();
        let message = if condition == "Failed" { "Job has reached the specified backoff limit" } else { "" };
        let conditions = [json!({ "type": condition, "status": "True", "message": message })];
        let conditions = &conditions[..usize::from(!condition.is_empty())];
        let job = json!({
            "metadata": {
                "name": name, "namespace": "shop", "uid": name, "creationTimestamp": begun, "ownerReferences": owners,
            },
            // One attempt had failed in any case.
            "status": { "failed": 1, "conditions": conditions },
        });
        serde_json::from_value(job).expect("it is a Job")
    }

    fn seen(jobs: &Jobs) -> Vec<(String, usize, usize, JobOutcome)> {
        jobs.report().into_iter().map(|job| (job.name, job.runs, job.failed, job.last)).collect()
    }

    #[test]
    fn a_run_is_judged_by_its_end_and_not_by_an_attempt() {
        let jobs = jobs();
        jobs.see(&run("nightly-1", Some("nightly"), THEN, ""), false);
        assert_eq!(seen(&jobs), [("nightly".to_owned(), 1, 0, JobOutcome::Running)], "it is tried again");
        jobs.see(&run("nightly-1", Some("nightly"), THEN, "Complete"), false);
        assert_eq!(seen(&jobs), [("nightly".to_owned(), 1, 0, JobOutcome::Succeeded)]);
        assert_eq!(jobs.report()[0].problem, None);
    }

    #[test]
    fn a_run_that_failed_is_told_although_a_later_one_succeeded_and_its_schedule_has_removed_it() {
        let jobs = jobs();
        let failed = run("nightly-1", Some("nightly"), THEN, "Failed");
        jobs.see(&failed, false);
        jobs.see(&failed, true);
        jobs.see(&run("nightly-2", Some("nightly"), "2026-01-02T03:04:21Z", "Complete"), false);
        assert_eq!(seen(&jobs), [("nightly".to_owned(), 2, 1, JobOutcome::Succeeded)]);
        let problem = jobs.report().remove(0).problem.expect("one has failed");
        insta::assert_snapshot!(problem, @"1 of 2 runs failed; the last of them, `nightly-1`: Job has reached the specified backoff limit");
    }

    #[test]
    fn a_run_that_began_before_everything_was_ready_is_told_and_breaks_no_promise() {
        let jobs = jobs();
        jobs.see(&run("nightly-1", Some("nightly"), SINCE, "Failed"), false);
        assert_eq!(seen(&jobs), [("nightly".to_owned(), 1, 1, JobOutcome::Failed)]);
        assert_eq!(jobs.report()[0].problem, None);
    }

    #[test]
    fn runs_of_earlier_times_do_not_count_but_for_those_that_the_file_itself_has() {
        let (jobs, earlier) = (jobs(), "2026-01-02T03:04:04Z");
        jobs.see(&run("nightly-1", Some("nightly"), earlier, "Failed"), false);
        jobs.see(&run("tidy", None, earlier, "Failed"), false);
        jobs.see(&run("migrate", None, earlier, "Failed"), false);
        jobs.see(&run("by-hand", None, THEN, ""), true);
        let expected = [("by-hand", 0, JobOutcome::Removed), ("migrate", 1, JobOutcome::Failed)];
        assert_eq!(seen(&jobs), expected.map(|(name, failed, last)| (name.to_owned(), 1, failed, last)));
        let broken: Vec<_> =
            jobs.report().into_iter().filter(|job| job.problem.is_some()).map(|job| job.name).collect();
        assert_eq!(broken, ["migrate"]);
    }
}

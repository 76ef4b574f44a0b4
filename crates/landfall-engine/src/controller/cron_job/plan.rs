//! Which job a cron job starts or deletes next, and what its status says. Pure.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt as _;

use super::schedule::{self, Schedule};
use crate::controller::claim::owner_reference;
use crate::event::EventType;

/// For when a job was started, in the time zone of its schedule.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

#[derive(Debug)]
pub(super) struct Plan {
    /// Type, reason and message.
    pub(super) events: Vec<(EventType, &'static str, String)>,
    pub(super) delete: Vec<Arc<Job>>,
    /// With the time that it is for.
    pub(super) create: Option<(Box<Job>, Timestamp)>,
    /// Before the job that is created.
    pub(super) status: CronJobStatus,
    pub(super) next: Option<Timestamp>,
}

pub(super) fn plan(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let status = cron.status.clone().unwrap_or_default();
    let mut plan = Plan { events: Vec::new(), delete: Vec::new(), create: None, status, next: None };
    let spec = &cron.spec;
    plan.observe(jobs);
    if cron.metadata.deletion_timestamp.is_none() {
        plan.forget_history(spec, jobs);
        plan.start(cron, spec, jobs, now);
    }
    plan.status.active = plan.status.active.take().filter(|active| !active.is_empty());
    plan
}

/// Notes that a job was started for a time.
pub(super) fn note_start(status: &mut CronJobStatus, job: ObjectReference, time: Timestamp) {
    let active = status.active.get_or_insert_default();
    if active.iter().all(|one| one.uid != job.uid) {
        active.push(job);
    }
    status.last_schedule_time = Some(Time(time));
}

/// How a job ended: `Complete` or `Failed`.
fn end(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let mut ends = conditions.iter().filter(|one| matches!(one.type_.as_str(), "Complete" | "Failed"));
    ends.find(|one| one.status == "True").map(|one| one.type_.as_str())
}

impl Plan {
    fn tell(&mut self, type_: EventType, reason: &'static str, message: impl Into<String>) {
        self.events.push((type_, reason, message.into()));
    }

    /// Brings the list of active jobs up to date with the jobs.
    fn observe(&mut self, jobs: &[Arc<Job>]) {
        let mut active = self.status.active.take().unwrap_or_default();
        for job in jobs {
            let listed = active.iter().position(|one| one.uid == job.uid());
            match (end(job), listed) {
                (None, None) => {
                    let message = format!("Saw a job that the controller did not create or forgot: {}", job.name_any());
                    self.tell(EventType::Warning, "UnexpectedJob", message);
                }
                (Some(end), Some(index)) => {
                    active.remove(index);
                    let message = format!("Saw completed job: {}, condition: {end}", job.name_any());
                    self.tell(EventType::Normal, "SawCompletedJob", message);
                }
                _ => {}
            }
            if end(job) == Some("Complete") {
                let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
                self.status.last_successful_time = self.status.last_successful_time.take().max(completed);
            }
        }
        active.retain(|one| {
            let present = jobs.iter().any(|job| job.uid() == one.uid);
            if !present {
                let message = format!("Active job went missing: {}", one.name.as_deref().unwrap_or_default());
                self.events.push((EventType::Normal, "MissingJob", message));
            }
            present
        });
        self.status.active = Some(active);
    }

    /// Deletes the oldest finished jobs past the limits.
    fn forget_history(&mut self, spec: &CronJobSpec, jobs: &[Arc<Job>]) {
        let limits = [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)];
        for (how, limit) in limits {
            let Some(limit) = limit else { continue };
            let mut ended: Vec<_> = jobs.iter().filter(|job| end(job) == Some(how)).collect();
            let started = |job: &Job| job.status.as_ref().and_then(|status| status.start_time.clone());
            ended.sort_by_key(|job| (started(job).is_none(), started(job), job.name_any()));
            let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
            self.delete.extend(ended.into_iter().take(surplus).cloned());
        }
    }

    fn start(&mut self, cron: &CronJob, spec: &CronJobSpec, jobs: &[Arc<Job>], now: Timestamp) {
        let zone = match schedule::zone(spec.time_zone.as_deref()) {
            Ok(zone) => zone,
            Err(error) => {
                let name = spec.time_zone.as_deref().unwrap_or_default();
                return self.tell(
                    EventType::Warning,
                    "UnknownTimeZone",
                    format!("invalid timeZone: \"{name}\": {error}"),
                );
            }
        };
        if spec.suspend == Some(true) {
            return;
        }
        let schedule = match Schedule::parse(&spec.schedule, zone) {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: \"{}\" : {error}", spec.schedule);
                return self.tell(EventType::Warning, "UnparseableSchedule", message);
            }
        };
        self.next = schedule.after(now);
        let last = self.status.last_schedule_time.as_ref().or(cron.metadata.creation_timestamp.as_ref());
        let mut since = last.map_or(now, |time| time.0);
        let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        if let Some(deadline) = deadline {
            since = since.max(now - deadline);
        }
        let due = schedule.due(since, now);
        if due.too_many {
            let message =
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.tell(EventType::Warning, "TooManyMissedTimes", message);
        }
        let Some(time) = due.latest else { return };
        let name = format!("{}-{}", cron.name_any(), time.as_second() / 60);
        let active = self.status.active.clone().unwrap_or_default();
        let started = self.status.last_schedule_time.as_ref().is_some_and(|last| last.0 == time);
        if started || active.iter().any(|one| one.name.as_ref() == Some(&name)) {
            return;
        }
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                return self.tell(EventType::Normal, "JobAlreadyActive", message);
            }
            Some("Replace") => {
                self.delete.extend(jobs.iter().filter(|job| active.iter().any(|one| one.uid == job.uid())).cloned());
                self.status.active = None;
            }
            _ => {}
        }
        self.create = Some((Box::new(job(cron, spec, &schedule, name, time)), time));
    }
}

fn job(cron: &CronJob, spec: &CronJobSpec, schedule: &Schedule, name: String, time: Timestamp) -> Job {
    let metadata = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    let zoned = time.to_zoned(schedule.zone.clone());
    let offset =
        if schedule.zone == jiff::tz::TimeZone::UTC { "Z".to_owned() } else { zoned.strftime("%:z").to_string() };
    annotations.insert(SCHEDULED.to_owned(), format!("{}{offset}", zoned.strftime("%Y-%m-%dT%H:%M:%S")));
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: cron.namespace(),
            labels: metadata.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![owner_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cron(policy: &str, status: &Value) -> CronJob {
        let cron = json!({
            "metadata": { "name": "tick", "namespace": "shop", "uid": "c", "creationTimestamp": "2027-01-01T00:00:30Z" },
            "spec": {
                "schedule": "* * * * *",
                "concurrencyPolicy": policy,
                "successfulJobsHistoryLimit": 1,
                "startingDeadlineSeconds": 600,
                "jobTemplate": { "spec": { "template": { "spec": { "containers": [] } } } },
            },
            "status": status,
        });
        serde_json::from_value(cron).expect("a cron job")
    }

    fn job(name: &str, end: Option<&str>) -> Arc<Job> {
        let conditions = end.map(|end| json!([{ "type": end, "status": "True" }]));
        let status = json!({ "conditions": conditions, "completionTime": "2027-01-01T00:01:20Z", "startTime": "2027-01-01T00:01:00Z" });
        let job = json!({ "metadata": { "name": name, "uid": name }, "status": status });
        Arc::new(serde_json::from_value(job).expect("a job"))
    }

    fn at(text: &str) -> Timestamp {
        format!("2027-01-01T{text}Z").parse().expect("a time")
    }

    fn check(policy: &str, status: &Value, jobs: &[Arc<Job>], now: &str) -> Plan {
        plan(&cron(policy, status), jobs, at(now))
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let plan = check("Allow", &json!({}), &[], "00:00:59");
        assert!(plan.create.is_none());
        assert_eq!(plan.next, Some(at("00:01:00")));
    }

    #[test]
    fn a_job_is_named_by_the_minute_that_it_is_for() {
        let (job, time) = check("Allow", &json!({}), &[], "00:01:03").create.expect("a job");
        assert_eq!(time, at("00:01:00"));
        assert_eq!(job.name_any(), format!("tick-{}", at("00:01:00").as_second() / 60));
        assert_eq!(job.annotations().get(SCHEDULED).map(String::as_str), Some("2027-01-01T00:01:00Z"));
    }

    #[test]
    fn a_time_that_was_seen_to_is_not_seen_to_again() {
        assert!(
            check("Allow", &json!({ "lastScheduleTime": "2027-01-01T00:01:00Z" }), &[], "00:01:30").create.is_none()
        );
    }

    #[test]
    fn a_running_job_forbids_or_makes_way() {
        let status = json!({ "active": [{ "name": "tick-1", "uid": "tick-1" }] });
        let running = [job("tick-1", None)];
        let forbidden = check("Forbid", &status, &running, "00:02:00");
        assert!(forbidden.create.is_none());
        assert_eq!(forbidden.events[0].1, "JobAlreadyActive");
        let replaced = check("Replace", &status, &running, "00:02:00");
        assert_eq!(replaced.delete, running);
        assert!(replaced.create.is_some());
        assert!(check("Allow", &status, &running, "00:02:00").create.is_some());
    }

    #[test]
    fn finished_jobs_leave_the_list_and_the_oldest_are_deleted() {
        let status = json!({ "active": [{ "name": "tick-1", "uid": "tick-1" }, { "name": "gone", "uid": "gone" }] });
        let jobs = [job("tick-0", Some("Complete")), job("tick-1", Some("Complete")), job("tick-2", Some("Failed"))];
        let plan = check("Allow", &status, &jobs, "00:00:40");
        assert_eq!(plan.delete, jobs[..1]);
        assert_eq!(plan.status.active, None);
        assert_eq!(plan.status.last_successful_time, Some(Time(at("00:01:20"))));
        let reasons: Vec<_> = plan.events.iter().map(|(_, reason, _)| *reason).collect();
        assert_eq!(reasons, ["SawCompletedJob", "MissingJob"]);
    }
}

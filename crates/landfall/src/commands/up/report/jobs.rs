//! What came of jobs.

use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct JobReport {
    /// The schedule, or the job itself where nothing schedules it.
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) runs: usize,
    /// The runs that failed for good: an attempt that another one made good is no failure.
    pub(crate) failed: usize,
    /// How the run ended that began last.
    pub(crate) last: JobOutcome,
    /// Why the job does not keep its promise.
    pub(crate) problem: Option<String>,
}

/// How a run of a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum JobOutcome {
    Succeeded,
    Failed,
    /// It has not ended yet.
    Running,
    /// Somebody has removed it before it ended, such as a schedule whose next run takes its place.
    Removed,
}

/// One line for people; none where there are no jobs.
pub(super) fn line(jobs: &[JobReport]) -> Option<String> {
    let listed = |is_such: fn(&JobReport) -> bool| {
        let names = jobs.iter().filter(|job| is_such(job)).map(|job| format!("`{}`", job.name));
        names.collect::<Vec<_>>().join(", ")
    };
    let runs: usize = jobs.iter().map(|job| job.runs).sum();
    let failed: usize = jobs.iter().map(|job| job.failed).sum();
    let word = if runs == 1 { "run" } else { "runs" };
    let mut line = format!("jobs   {runs} {word} of {}, {failed} failed", listed(|_| true));
    let running = listed(|job| job.last == JobOutcome::Running);
    if !running.is_empty() {
        line += &format!("; not at their end: {running}");
    }
    (!jobs.is_empty()).then_some(line)
}

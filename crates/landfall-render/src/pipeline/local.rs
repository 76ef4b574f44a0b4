//! The pipeline for a machine without a runner: its stages with the commands that the runners' files have.
//!
//! What a runner adds around them is left to whoever performs them: a fresh folder, artifacts, signing in.

use std::time::Duration;

use super::{Plan, name_of};
use crate::target::Variant;

/// How the commands name the commit.
const REVISION: &str = "$LANDFALL_REVISION";

/// A stage. An approval begins one of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineStage {
    /// Its name.
    pub name: String,
    /// The environment that it is about.
    pub environment: Option<String>,
    /// Whether it waits for an approval first.
    pub gated: bool,
    /// What it does, in order. Steps with nothing to do are left out, as in the runners' files.
    pub steps: Vec<PipelineStep>,
    /// What takes its deployment back when a step fails.
    pub rollback: Option<String>,
    /// Whether the author of the commit is told when it fails.
    pub tells_author: bool,
    /// Whether it talks to a cluster.
    pub reaches_cluster: bool,
    /// How long it may take.
    pub limit: Duration,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineStep {
    /// Its name in the file.
    pub name: String,
    /// Lines for bash, which ends at the first that fails. `LANDFALL_REVISION` is the commit.
    pub run: String,
}

/// The stages of the file's pipeline, in their order; nothing for a file without one.
///
/// # Panics
///
/// If there is no environment at all.
pub fn pipeline(variants: &[Variant]) -> Option<Vec<PipelineStage>> {
    let plan = Plan::of(variants)?;
    let stage = |job: super::Job<'_>| PipelineStage {
        environment: job.stage.environment.as_ref().map(|name| name.value.to_string()),
        gated: job.gated,
        steps: plan.performed(&job, REVISION).map(|(step, run)| PipelineStep { name: name_of(step), run }).collect(),
        rollback: job.takes_back().then(|| plan.rollback(&job)),
        tells_author: job.tells_author(),
        reaches_cluster: job.reaches_cluster(),
        limit: Duration::from_secs(60 * u64::from(job.minutes())),
        name: job.name,
    };
    Some(plan.jobs().into_iter().map(stage).collect())
}

//! The arguments of what is done to a running engine.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::{SpanRelativeTo, Timestamp, Unit};

use super::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum EngineCommand {
    /// List the nodes of a running engine; kill them, cut them off, bring them back.
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Show or set the clock by which schedules run.
    Clock {
        #[command(subcommand)]
        command: Option<ClockCommand>,
        #[command(flatten)]
        engine: RunningEngine,
    },
    /// Give a running engine another image catalogue; containers that start from now on use it.
    Images(ImagesArguments),
}

/// Which engine, and how to print what it says.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunningEngine {
    /// The data folder of the engine.
    #[arg(long, value_name = "DIR", conflicts_with = "kubeconfig")]
    pub(crate) data: Option<PathBuf>,
    /// The kubeconfig of the engine; without either option `KUBECONFIG`, or else the one in `landfall-engine`.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// How to print.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List the nodes with their zones and states.
    #[command(
        after_help = "Examples:\n  landfall engine node list\n  landfall engine node list --data /tmp/e --output json"
    )]
    List {
        #[command(flatten)]
        engine: RunningEngine,
    },
    /// Turn nodes off: the processes of their pods die at once, and nobody hears of it.
    #[command(
        after_help = "The lease of a killed node runs out, and after the grace period (50 s, or `--node-monitor-grace-period`\nof the engine) it is NotReady. Its pods are replaced once they tolerate that no longer (300 s, or\n`tolerationSeconds` of the pod).\n\nExamples:\n  landfall engine node kill node-a\n  landfall engine node kill --zone b"
    )]
    Kill(NodeChange),
    /// Cut nodes off from the network: their pods run on, reach only each other, and nobody hears of them.
    #[command(
        after_help = "Pods that were replaced meanwhile are ended when their node comes back. Where pods have loopback addresses\n(`--network loopback`) only the node agent is cut off: the pods share the network of this machine.\n\nExamples:\n  landfall engine node cut node-a node-b\n  landfall engine node cut --zone b"
    )]
    Cut(NodeChange),
    /// Bring nodes back: turn killed ones on again, connect those that were cut off.
    #[command(
        after_help = "Faults also end with the engine.\n\nExamples:\n  landfall engine node restore node-a\n  landfall engine node restore --zone b"
    )]
    Restore(NodeChange),
}

/// Some nodes of some engine.
#[derive(Debug, Args)]
pub(crate) struct NodeChange {
    /// The nodes.
    #[arg(value_name = "NAME", required_unless_present = "zone", conflicts_with = "zone")]
    pub(crate) names: Vec<String>,
    /// All nodes of this zone, at one moment.
    #[arg(long, value_name = "ZONE")]
    pub(crate) zone: Option<String>,
    #[command(flatten)]
    pub(crate) engine: RunningEngine,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClockCommand {
    /// Show the time on the clock; the same as nothing.
    Show {
        #[command(flatten)]
        engine: RunningEngine,
    },
    /// Set the clock. What is not named stays as it is.
    #[command(
        after_help = "Schedules, deadlines of jobs, time to live and the time stamps of objects and events read this clock. Probes,\nheartbeats, grace periods, back-off and how long pods have run do not: a database beside the engine would not\nturn with it. With `--runtime mock` the\nclock may also stand still (`--speed 0`). The clock is that of the machine again when the engine starts again.\n\nExamples:\n  landfall engine clock set --offset 3h            three hours ahead of this machine\n  landfall engine clock set --time 2026-12-24T18:00:00Z\n  landfall engine clock set --speed 3600           an hour passes in a second\n  landfall engine clock set --offset 0s --speed 1  the time of this machine again"
    )]
    Set {
        /// The time that the clock is to show now.
        #[arg(long, value_name = "TIME", conflicts_with = "offset")]
        time: Option<Timestamp>,
        /// How far the clock is to be ahead of this machine's, such as `36h` or `-90m`.
        #[arg(long, value_name = "DURATION", allow_hyphen_values = true, value_parser = seconds)]
        offset: Option<f64>,
        /// How many times as fast as this machine's clock it is to run.
        #[arg(long, value_name = "TIMES", required_unless_present_any = ["time", "offset"])]
        speed: Option<f64>,
        #[command(flatten)]
        engine: RunningEngine,
    },
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  landfall engine images images.yaml\n  landfall engine images images.yaml --data /tmp/e"
)]
pub(crate) struct ImagesArguments {
    /// The new catalogue, as for `landfall engine --images`.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) engine: RunningEngine,
}

/// A duration in seconds; a day has 24 hours.
fn seconds(text: &str) -> Result<f64, String> {
    let span: jiff::Span = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    span.total((Unit::Second, SpanRelativeTo::days_are_24_hours())).map_err(|error| error.to_string())
}

/// A grace period: longer than the time between two heartbeats, or every node would be lost.
pub(super) fn grace_period(text: &str) -> Result<std::time::Duration, String> {
    const HEARTBEAT: f64 = 10.0;
    let seconds = seconds(text)?;
    if seconds <= HEARTBEAT {
        return Err(format!("nodes are heard of every {HEARTBEAT} s, and the grace period must be longer"));
    }
    std::time::Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

//! Runs commands one after the other, with their times and a summary.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// One command of a chore.
pub(crate) struct Step {
    name: &'static str,
    pub(crate) command: Command,
    /// What to do if the command fails because a tool is not installed.
    remedy: Option<&'static str>,
}

impl Step {
    pub(crate) fn new(name: &'static str, command: Command) -> Self {
        Self { name, command, remedy: None }
    }

    /// Says below a failure which tool the command needs.
    pub(crate) fn needs(mut self, remedy: &'static str) -> Self {
        self.remedy = Some(remedy);
        self
    }
}

/// A cargo command in the root of the workspace.
pub(crate) fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    // The cargo that runs this program, so that every step has one toolchain.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    // What `cargo run` tells this program of its own package. Build scripts that watch these variables would run again,
    // and with them all that stands on their crates: TLS and every client over it.
    let told = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
        command.env_remove(name);
    }
    command
}

/// Runs every step, also those after a failed one: one run shows everything that is wrong.
pub(crate) fn run(steps: impl IntoIterator<Item = Step>) -> anyhow::Result<ExitCode> {
    let mut results: Vec<(&str, bool, Duration)> = Vec::new();
    for mut step in steps {
        println!("\n── {}: {}", step.name, line(&step.command));
        let start = Instant::now();
        let status = step.command.status().with_context(|| format!("failed to start `{}`", line(&step.command)))?;
        let elapsed = start.elapsed();
        println!("── {}: {} in {:.1} s", step.name, verdict(status.success()), elapsed.as_secs_f64());
        if let Some(remedy) = step.remedy.filter(|_| !status.success()) {
            println!("hint: {remedy}");
        }
        results.push((step.name, status.success(), elapsed));
    }
    println!();
    for (name, passed, elapsed) in &results {
        println!("{name:<14} {:<6} {:>7.1} s", verdict(*passed), elapsed.as_secs_f64());
    }
    Ok(if results.iter().all(|(_, passed, _)| *passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn verdict(passed: bool) -> &'static str {
    if passed { "ok" } else { "FAILED" }
}

/// The command as a person would type it.
fn line(command: &Command) -> String {
    let arguments = command.get_args().map(|argument| argument.to_string_lossy());
    std::iter::once("cargo".into()).chain(arguments).collect::<Vec<_>>().join(" ")
}

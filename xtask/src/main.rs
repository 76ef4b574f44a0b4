//! The chores of the workspace: `cargo xtask ci`, `lint`, `bless`, `journey`, `conformance`, `unprivileged`.
//!
//! Each chore is a list of cargo commands; what they check lives in the tests. It depends on no crate of the workspace
//! and on little else, so that it is built in seconds.
#![expect(clippy::print_stdout, reason = "a chore tells a person at a terminal what it does")]

mod steps;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use crate::steps::{Step, cargo, run};

/// The chores of the workspace.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Chore {
    /// Run everything that a commit must pass: format, lints, documentation and tests.
    Ci,
    /// Run `ci` without the tests.
    Lint,
    /// Rewrite golden files, snapshots and transcripts with what the tests produce now; needs cargo-insta.
    Bless,
    /// Replay `tests/journey/*.transcript` with the binary and compare what it prints.
    Journey,
    /// Play `tests/conformance` against Kubernetes and the engine, and compare the answers; `-- --help` says more.
    Conformance {
        /// Names of scenarios, and options of the test.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run what the engine does on a machine again as a user without any right of root.
    Unprivileged {
        /// Names of tests, instead of those for which the user makes a difference.
        #[arg(last = true)]
        tests: Vec<String>,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Chore::parse() {
        Chore::Ci => run(lint().into_iter().chain([test()])),
        Chore::Lint => run(lint()),
        Chore::Bless => bless(),
        Chore::Journey => run(journey()?),
        Chore::Conformance { arguments } => conformance(&arguments),
        Chore::Unprivileged { tests } => run([unprivileged(&tests)]),
    }
}

fn lint() -> [Step; 5] {
    let mut documentation = cargo(["doc", "--workspace", "--no-deps", "--document-private-items"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    [
        Step::new("format", cargo(["fmt", "--all", "--", "--check"])),
        Step::new("clippy", cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
        // No part of all targets, as `cargo test` leaves it out.
        Step::new("clippy journey", cargo(["clippy", "--workspace", "--test", "journey", "--", "-D", "warnings"])),
        Step::new(
            "clippy conformance",
            cargo(["clippy", "--workspace", "--test", "conformance", "--", "-D", "warnings"]),
        ),
        Step::new("documentation", documentation),
    ]
}

fn test() -> Step {
    Step::new("tests", cargo(["test", "--workspace", "--no-fail-fast"]))
}

/// Where `landfall` is built to: beside this program, wherever the user has put it.
fn programs() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("failed to find out where this program is")?;
    Ok(this.parent().context("this program is in no folder")?.to_owned())
}

/// Builds the program as the tests do. Another selection of packages selects other features of what they depend on, and
/// builds most of that again.
fn build() -> std::process::Command {
    cargo(["test", "--quiet", "--workspace", "--no-run"])
}

fn journey() -> anyhow::Result<[Step; 2]> {
    let mut replay = cargo(["test", "--workspace", "--test", "journey"]);
    replay.env("LANDFALL_PROGRAMS", programs()?);
    Ok([Step::new("build", build()), Step::new("journey", replay)])
}

/// What the test prints last is the last line here too, so it is no step with a summary.
fn conformance(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let built = build().status().context("failed to start `cargo test`")?;
    if !built.success() {
        return Ok(ExitCode::FAILURE);
    }
    let mut command = cargo(["test", "--quiet", "--workspace", "--test", "conformance", "--"]);
    if std::env::var_os("LANDFALL_ENGINE").is_none() {
        command.env("LANDFALL_ENGINE", programs()?.join("landfall"));
    }
    let status = command.args(arguments).status().context("failed to start `cargo test`")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The tests' own processes run in a user namespace of one ordinary user, in which nobody has any capability over the
/// machine: no mounts, no devices, no other users, no network but by namespaces of its own.
///
/// `user` is left out, as it changes its user itself, which this one may not.
fn unprivileged(tests: &[String]) -> Step {
    let runner = r#"target."cfg(unix)".runner = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]"#;
    let mut command = cargo(["test", "--workspace", "--no-fail-fast", "--config", runner, "--test", "it", "--"]);
    let of_the_machine =
        ["engine_controllers", "engine_crash", "engine_disk", "engine_network", "engine_nodes", "engine_pods"];
    if tests.is_empty() {
        command.args(of_the_machine)
    } else {
        command.args(tests)
    };
    command.args(["--skip", "engine_pods::user"]);
    Step::new("unprivileged", command)
}

fn bless() -> anyhow::Result<ExitCode> {
    let mut test = cargo(["test", "--workspace", "--no-fail-fast"]);
    // A snapshot that changed is no failure here, and must not keep the next one of the same test from being written.
    test.env("LANDFALL_BLESS", "1").env("INSTA_UPDATE", "always").env("INSTA_FORCE_PASS", "1");
    let [build, mut journey] = journey()?;
    journey.command.env("LANDFALL_BLESS", "1");
    let accept = Step::new("snapshots", cargo(["insta", "accept", "--workspace"]))
        .needs("inline snapshots are written by cargo-insta: `cargo install --locked cargo-insta`");
    let blessed = run([Step::new("tests", test), accept, build, journey])?;
    println!("\nread what changed with `git diff`, and say why in the commit");
    Ok(blessed)
}

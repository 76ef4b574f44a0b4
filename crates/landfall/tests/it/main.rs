//! The program from outside: a command goes in; an exit code, stdout, stderr and files come out.

mod commands;
mod doctor;
mod engine_clients;
mod engine_controllers;
mod engine_crash;
mod engine_disk;
mod engine_examples;
mod engine_join;
mod engine_network;
mod engine_nodes;
mod engine_pods;
mod examples;
mod gates;
mod kafka;
mod kubernetes;
mod monitoring;
mod nobody;
mod pipelines;
mod platform;
mod readme;
mod running_engine;
mod ship;
mod up;
mod up_again;
mod up_firewall;
mod up_gitops;
mod up_kills;
mod up_loopback;
mod up_observed;
mod up_programs;
mod up_restore;
mod up_scaling;
mod up_stores;
mod up_user;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The day on which everything is checked.
const TODAY: &str = "2026-11-21";

/// A folder of the test's own with a `landfall.yaml` in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::write(folder.path().join("landfall.yaml"), text).expect("a file can be written to it");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// What the program did, as one text: exit code, stdout, stderr.
    fn run(&self, arguments: &[&str]) -> String {
        run_in(self.path(), arguments)
    }
}

fn run_in(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_landfall"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("NO_COLOR")
        .output()
        .expect("the program can be started");
    let mut text =
        format!("exit: {}\n", output.status.code().map_or_else(|| "signal".to_owned(), |code| code.to_string()));
    for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
        if !bytes.is_empty() {
            text += &format!("--- {name}\n{}", String::from_utf8_lossy(&bytes));
        }
    }
    text
}

/// The folder of an example.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

//! `landfall up` whole: the architecture of an example runs with real servers, and what its report says holds.

use std::path::Path;
use std::process::{Command, Stdio};

use landfall_standin::{Server, find_server};
use landfall_testing::require_or_skip;
use serde_json::{Value, json};

use crate::{Folder, example};

/// What `up` has printed, and how it ended.
struct Ended {
    code: Option<i32>,
    report: Option<Value>,
    said: String,
}

fn up(folder: &Path, arguments: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_landfall"))
        .arg("up")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the program can be started");
    Ended {
        code: output.status.code(),
        report: serde_json::from_slice(&output.stdout).ok(),
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A folder with the files of an example, so that its data does not stay in the checkout.
fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for entry in std::fs::read_dir(example(name)).expect("the example has a folder") {
        let entry = entry.expect("it can be read");
        if entry.path().is_file() {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("a file can be copied");
        }
    }
    folder
}

/// Servers of this machine, and network namespaces.
fn everything_is_here() -> Option<()> {
    for server in [Server::Postgres, Server::Redis, Server::Rabbitmq] {
        require_or_skip(server.as_str(), find_server(server).ok_or_else(|| server.remedy()))?;
    }
    Some(())
}

#[test]
fn balance_alerts_runs_whole() {
    let Some(()) = everything_is_here() else { return };
    let folder = copy("balance-alerts");
    let arguments = ["--env", "development", "--once", "--duration", "5s", "--timeout", "10m", "--output", "json"];
    let ended = up(folder.path(), &arguments);
    let report = ended.report.unwrap_or_else(|| panic!("no report:\n{}", ended.said));
    assert_eq!(report["pods"]["ready"], report["pods"]["total"]);
    let members: Vec<_> = report["stores"].as_array().into_iter().flatten().map(|store| &store["ready"]).collect();
    assert_eq!(members, [3, 6, 3], "{report:#}");
    assert_eq!((&report["edges"]["declared"], &report["edges"]["carrying"]), (&json!(17), &json!(17)), "{report:#}");
    assert_eq!(report["edges"]["reachable"], json!([]));
    assert!(report["edges"]["undeclared"].as_u64() > Some(0), "{report:#}");
    // The flows that call an external are as fast as the machine shakes hands; this one crosses the broker, two stores and
    // the gateway.
    let flows = report["flows"].as_array().expect("flows are a list");
    let flow = flows.iter().find(|flow| flow["name"] == "change-to-report").expect("the file declares it");
    assert_eq!((&flow["lost"], flow["sent"].as_u64() > Some(0)), (&json!(0), true), "{flow:#}");
    let kept = report["broken"] == json!([]);
    assert_eq!(ended.code, Some(i32::from(!kept)), "{}", ended.said);
    let down = Command::new(env!("CARGO_BIN_EXE_landfall"))
        .args(["down", "--env", "development", "--delete-data"])
        .current_dir(folder.path())
        .status()
        .expect("the program can be started");
    assert!(down.success() && !folder.path().join(".landfall/balance-alerts-development").exists());
}

#[test]
fn an_example_whose_stores_are_not_handled_says_so_and_does_not_start() {
    for (name, environment, missing) in [
        ("composerp", "staging", "kafka store `composerp-kafka`"),
        ("attendance-monitoring", "development", "kafka store `kafka`"),
        ("mindcompute", "development", "mongodb store `mongodb`"),
        ("water-channels", "dev", "kafka store `kafka`"),
    ] {
        let folder = copy(name);
        let ended = up(folder.path(), &["--env", environment, "--once"]);
        assert_eq!(ended.code, Some(1), "{name}: {}", ended.said);
        assert!(ended.said.contains(&format!("not handled yet: {missing}")), "{name}: {}", ended.said);
    }
}

#[test]
fn several_environments_ask_for_one() {
    let folder = Folder::with("landfall: v1\nname: shop\nenvironments: { development: {}, production: {} }\n");
    insta::assert_snapshot!(folder.run(&["up"]), @"
    exit: 2
    --- stderr
    error: which environment?
    hint: add `--env development`; there are development, production
    ");
}

#[test]
fn what_is_not_up_cannot_be_stopped() {
    let folder = Folder::with("landfall: v1\nname: shop\n");
    insta::assert_snapshot!(folder.run(&["down"]), @"
    exit: 0
    --- stderr
    it: not up
    ");
    insta::assert_snapshot!(folder.run(&["status"]), @"
    exit: 1
    --- stderr
    it: not up
    ");
}

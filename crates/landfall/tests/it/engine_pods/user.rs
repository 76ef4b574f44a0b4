//! An engine of somebody who is not root.

use std::os::unix::fs::chown;
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{fs, thread};

use landfall_testing::{Tool, require_or_skip};

use super::{FOREVER, IMAGES, PATIENCE, pod, spoken_to, told};
use crate::running_engine::POLL;

/// `nobody`.
const USER: u32 = 65534;

#[test]
fn an_ordinary_user_runs_pods() {
    let Some(kubectl) = require_or_skip("kubectl", Tool::Kubectl.locate()) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let owned = chown(folder.path(), Some(USER), Some(USER));
    if require_or_skip("the right to act as another user", owned).is_none() {
        return;
    }
    let images = folder.path().join("images.yaml");
    fs::write(&images, IMAGES).expect("a file can be written");
    let log = folder.path().join("engine.log");
    let mut engine = Command::new("setpriv")
        .args(["--reuid", &USER.to_string(), "--regid", &USER.to_string(), "--clear-groups", "--"])
        .args([env!("CARGO_BIN_EXE_landfall"), "engine", "--images"])
        .arg(&images)
        .arg("--data")
        .arg(folder.path().join("data"))
        .stderr(fs::File::create(&log).expect("a file can be made"))
        .stdin(Stdio::null())
        .spawn()
        .expect("setpriv is part of every Linux");
    let wait = |fits: &dyn Fn() -> bool| {
        let deadline = Instant::now() + PATIENCE;
        while !fits() {
            let said = fs::read_to_string(&log).unwrap_or_default();
            assert!(Instant::now() < deadline, "{said}");
            thread::sleep(POLL);
        }
    };
    wait(&|| fs::read_to_string(&log).is_ok_and(|text| text.contains("ready at ")));
    let command = |arguments: &str| {
        let mut command = Command::new(&kubectl);
        command.arg("--kubeconfig").arg(folder.path().join("data/kubeconfig")).args(arguments.split_whitespace());
        command
    };
    let applied = spoken_to(command("apply -f -"), &pod("mine", &format!("id -u; {FOREVER}"), ""));
    assert!(applied.status.success(), "{}", told(&applied));
    wait(&|| command("logs mine").output().is_ok_and(|output| output.stdout == b"65534\n"));
    let output = command("exec mine -- echo reached").output().expect("kubectl can be started");
    assert_eq!(told(&output), "exit 0\nstdout: reached");

    let asked = Command::new("kill").arg(engine.id().to_string()).status().expect("every system has kill");
    assert!(asked.success());
    assert!(engine.wait().expect("a child can be waited for").success());
}

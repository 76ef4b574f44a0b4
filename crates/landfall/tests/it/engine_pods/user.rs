//! An engine of somebody who is not root.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{fs, thread};

use landfall_testing::{Tool, require_or_skip};

use super::{FOREVER, IMAGES, PATIENCE, pod, spoken_to, told};
use crate::nobody;
use crate::running_engine::POLL;

#[test]
fn an_ordinary_user_runs_pods() {
    let Some(kubectl) = require_or_skip("kubectl", Tool::Kubectl.locate()) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let Some(()) = nobody::owns([folder.path()]) else { return };
    let images = folder.path().join("images.yaml");
    fs::write(&images, IMAGES).expect("a file can be written");
    let log = folder.path().join("engine.log");
    let mut engine = nobody::command(env!("CARGO_BIN_EXE_landfall"))
        .args(["engine", "--images"])
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
    let apply = |object: &str| {
        let applied = spoken_to(command("apply -f -"), object);
        assert!(applied.status.success(), "{}", told(&applied));
    };
    apply(&pod("mine", &format!("id -u; {FOREVER}"), ""));
    wait(&|| command("logs mine").output().is_ok_and(|output| output.stdout == b"65534\n"));
    let output = command("exec mine -- echo reached").output().expect("kubectl can be started");
    assert_eq!(told(&output), "exit 0\nstdout: reached");

    // A volume below a folder of the machine that the user may not enter, as `/etc/redis` of a package is.
    let closed = tempfile::tempdir().expect("a temporary folder can be made");
    fs::write(closed.path().join("server.conf"), "").expect("a file can be written");
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).expect("it is ours");
    let path = closed.path().display().to_string();
    let below = pod("below", &format!("echo kept > {path}/more/file; ls {path} {path}/more; {FOREVER}"), "");
    apply(&below.replace("mountPath: /work", &format!("mountPath: {path}/more")));
    let expected = format!("{path}:\nmore\n\n{path}/more:\nfile\n");
    wait(&|| command("logs below").output().is_ok_and(|output| output.stdout == expected.as_bytes()));

    let asked = Command::new("kill").arg(engine.id().to_string()).status().expect("every system has kill");
    assert!(asked.success());
    assert!(engine.wait().expect("a child can be waited for").success());
}

//! Containers whose memory no control group holds: it is looked at.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use landfall_testing::{Tool, require_or_skip};
use serde_json::json;

use super::{FOREVER, IMAGES, PATIENCE, World, pod};
use crate::running_engine::{POLL, RunningEngine, no_control_groups};

const LIMIT: &str = "resources: { limits: { memory: 64Mi } }";

/// What makes a shell take more than the limit, and then wait for a process that is known by how long. The shell does not become
/// that process, as something comes after it.
fn greedy(seconds: u32) -> String {
    format!("x=`head -c 100000000 /dev/zero | tr '\\0' x`; sleep {seconds}; :")
}

/// An engine that can make no control group.
fn unheld() -> Option<World> {
    let kubectl = require_or_skip("kubectl", Tool::Kubectl.locate())?;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    start(kubectl, folder)
}

fn start(kubectl: PathBuf, folder: tempfile::TempDir) -> Option<World> {
    let words = require_or_skip("a mount namespace", no_control_groups())?;
    let engine = RunningEngine::start_behind(&words, folder.path(), IMAGES);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = fs::read_to_string(folder.path().join("engine.log")).expect("the engine has a log");
        if log.contains("their memory is looked at twice a second and their processors are not limited") {
            return Some(World { engine, kubectl, folder });
        }
        assert!(Instant::now() < deadline, "it does not say how containers are kept:\n{log}");
        std::thread::sleep(POLL);
    }
}

/// The processes of this machine in which a [`greedy`] shell waits so long.
fn waiting(seconds: u32) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").expect("it is there").flatten().map(|entry| entry.path());
    let line = format!("sleep\0{seconds}\0");
    processes.filter(|process| fs::read(process.join("cmdline")).is_ok_and(|own| own == line.as_bytes())).collect()
}

#[test]
fn a_container_that_has_too_much_memory_is_killed_whole_and_its_neighbour_runs_on() {
    let Some(world) = unheld() else { return };
    let modest = format!(
        "  - {{ name: modest, image: busybox, command: [sh, -c, {FOREVER:?}], {LIMIT} }}\n  restartPolicy: Never\n"
    );
    let script = format!("( {} ) & wait", greedy(86_397));
    world.apply(&(pod("greedy", &script, LIMIT) + &modest));
    let of = |container: &str, what: &str| {
        format!("get pod greedy -o jsonpath={{.status.containerStatuses[?(@.name==\"{container}\")].{what}}}")
    };
    world.until(&of("main", "state.terminated.reason"), "OOMKilled");
    assert_eq!(world.say(&of("main", "state.terminated.exitCode")), "137");
    assert_eq!(waiting(86_397), Vec::<PathBuf>::new(), "what the container had begun is gone");
    assert_ne!(world.say(&of("modest", "state.running.startedAt")), "");
    assert_eq!(world.say(&of("modest", "restartCount")), "0");
}

#[test]
fn a_container_that_an_engine_finds_again_is_held_to_its_memory() {
    let Some(world) = unheld() else { return };
    let script = format!("until [ -e /work/go ]; do sleep 0.1; done; rm /work/go; {}", greedy(86_398));
    world.apply(&pod("later", &script, LIMIT));
    world.until_ready("later");
    let World { engine, kubectl, folder } = world;
    engine.kill();
    let Some(world) = start(kubectl, folder) else { return };
    // A command finds the container, so that the node agent knows of it again.
    world.until("exec later -- touch /work/go", "");
    let status = world.until_container("later", |status| status["restartCount"] == 1, "restarted");
    let ended = &status["lastState"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("OOMKilled"), &json!(137)), "{status}");
}

#[test]
fn an_init_container_is_held_to_its_memory() {
    let Some(world) = unheld() else { return };
    let script = greedy(86_399);
    world.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: first }}
spec:
  restartPolicy: Never
  initContainers: [{{ name: greedy, image: busybox, command: [sh, -c, {script:?}], {LIMIT} }}]
  containers: [{{ name: main, image: busybox, command: ['true'] }}]
"
    ));
    let pod = world.until_object("pod first", |pod| pod["status"]["phase"] == "Failed", "failed");
    let ended = &pod["status"]["initContainerStatuses"][0]["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("OOMKilled"), &json!(137)), "{pod}");
}

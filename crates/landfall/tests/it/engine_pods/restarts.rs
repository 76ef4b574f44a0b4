//! Containers that fail: what becomes of them, and what Kubernetes' clients are told.

use std::process::Command;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{FOREVER, TELL_PID, World, pod};

#[test]
fn a_container_whose_liveness_probe_fails_is_restarted() {
    let Some(world) = World::start() else { return };
    let script = format!("touch /work/alive; {FOREVER}");
    // The time-out is long, so that only what the probe finds out can make it fail. It is not asked before the file is
    // there.
    let probe = "startupProbe: { exec: { command: [test, -e, /work/alive] }, \
                 periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 60 }
livenessProbe: { exec: { command: [test, -e, /work/alive] }, \
                 periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 2 }";
    world.apply(&pod("mortal", &script, probe));
    world.until_ready("mortal");
    let before = world.get("pod mortal")["status"]["containerStatuses"][0].clone();
    world.in_pod("mortal", "rm /work/alive");

    let status = world.until_container("mortal", |status| status["restartCount"] == 1, "restarted");
    let last = &status["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(0), &json!("Completed")), "{status}");
    assert_eq!(last["containerID"], before["containerID"]);
    world.until_ready("mortal");
    world.until_events(
        "mortal",
        &[
            "2x Warning Unhealthy Liveness probe failed: ",
            "1x Normal Killing Container main failed liveness probe, will be restarted",
            "2x Normal Created Container created",
            "2x Normal Started Container started",
        ],
    );
    assert_eq!(world.get("pod mortal")["status"]["containerStatuses"][0]["restartCount"], 1, "it lives again");
}

/// The last process that a pod has told the number of.
fn pid(world: &World, pod: &str) -> String {
    let log = world.say(&format!("logs {pod}"));
    log.lines().last().expect("it has said its number").to_owned()
}

fn kill(pid: &str) {
    let killed = Command::new("kill").args(["-9", pid]).status().expect("every system has kill");
    assert!(killed.success(), "{pid}");
}

#[test]
fn a_process_that_is_killed_again_and_again_waits_longer_each_time() {
    let Some(world) = World::start() else { return };
    world.apply(&pod("victim", &format!("{TELL_PID}; {FOREVER}"), ""));
    world.until_it("logs victim", |said| said.ends_with('\n'), "a number");
    let first = pid(&world, "victim");
    kill(&first);

    // The first restart is at once.
    let runs_again = |count: i32| move |status: &Value| status["restartCount"] == count && status["ready"] == true;
    let status = world.until_container("victim", runs_again(1), "restarted");
    let last = &status["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(137), &json!("Error")), "{status}");
    world.until_it("logs victim", |said| said.ends_with('\n'), "a number");
    assert_eq!(world.say("logs victim --previous"), format!("{first}\n"));
    let second = pid(&world, "victim");
    assert_ne!(first, second);
    kill(&second);

    let waiting = |status: &Value| status["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let status = world.until_container("victim", waiting, "waiting");
    let uid = world.get("pod victim")["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let full = format!("victim_default({uid})");
    let message = |wait: &str| format!("back-off {wait} restarting failed container=main pod={full}");
    assert_eq!(status["state"]["waiting"]["message"], message("10s"));
    assert_eq!((&status["restartCount"], &status["ready"]), (&json!(1), &json!(false)));
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 137);

    let status = world.until_container("victim", runs_again(2), "restarted");
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok()).expect("a time");
    let down = time(&status["state"]["running"]["startedAt"])
        .duration_since(time(&status["lastState"]["terminated"]["finishedAt"]));
    // The times have whole seconds.
    assert!(down.as_secs() >= 9, "restarted after {down}");
    assert_eq!(world.say("logs victim --previous"), format!("{second}\n"));
    world.until_it("logs victim", |said| said.ends_with('\n'), "a number");
    kill(&pid(&world, "victim"));
    let status = world.until_container("victim", waiting, "waiting");
    assert_eq!(status["state"]["waiting"]["message"], message("20s"));
    let text = format!("2x Warning BackOff Back-off restarting failed container main in pod {full}");
    world.until_events("victim", &[&text]);
}

#[test]
fn a_container_without_its_program_is_never_told_to_have_started() {
    let Some(world) = World::start() else { return };
    world.apply(&pod("lost", "", "").replace("command: [sh, -c, \"\"]", "command: [no-such-program]"));
    let waiting = |status: &Value| status["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let status = world.until_container("lost", waiting, "waiting");
    let last = &status["lastState"]["terminated"];
    let why = "exec: \"no-such-program\": executable file not found in $PATH";
    assert_eq!(
        (&last["reason"], &last["exitCode"], &last["message"]),
        (&json!("StartError"), &json!(128), &json!(why)),
        "{status}"
    );
    world.until_events("lost", &[&format!("2x Warning Failed Error: {why}")]);
    let events = world.events("lost");
    assert!(!events.iter().any(|event| event.contains(" Started ")), "{events:#?}");
}

//! What a container is asked to do when it starts and before it stops, in the order in which it really happened.

use super::{TELL_PID, World, pod};

const CLAIM: &str = "apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: diary }
spec: { accessModes: [ReadWriteOnce], resources: { requests: { storage: 1Mi } } }
";

/// A pod that keeps its diary in the claim.
fn diarist(name: &str, script: &str, more: &str) -> String {
    pod(name, script, more)
        .replace("emptyDir: {}", "persistentVolumeClaim: { claimName: diary }")
        .replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 60")
}

#[test]
fn hooks_run_after_the_start_and_before_the_stop() {
    let Some(world) = World::start() else { return };
    world.apply(CLAIM);
    let script = "trap 'echo asked to stop >> /work/diary; exit 0' TERM; \
                  echo started >> /work/diary; while true; do sleep 0.1; done";
    let hooks = "lifecycle:
  postStart:
    exec:
      command: [sh, -c, 'until [ -e /work/go ]; do sleep 0.1; done; echo postStart >> /work/diary']
  preStop: { exec: { command: [sh, -c, 'echo preStop >> /work/diary'] } }";
    world.apply(&diarist("keeper", script, hooks));

    // The process is there, but nobody is told that it runs before its hook is done.
    world.until("exec keeper -- cat /work/diary", "started\n");
    let pod = world.get("pod keeper");
    let status = &pod["status"];
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating", "{status}");
    world.in_pod("keeper", "touch /work/go");
    world.until_ready("keeper");
    assert_eq!(world.get("pod keeper")["status"]["phase"], "Running");

    world.say("delete pod keeper --wait --timeout=60s");
    world.apply(&diarist("reader", "cat /work/diary", "").replace("spec:\n", "spec:\n  restartPolicy: Never\n"));
    world.until("get pod reader -o jsonpath={.status.phase}", "Succeeded");
    assert_eq!(world.say("logs reader"), "started\npostStart\npreStop\nasked to stop\n");
}

#[test]
fn a_container_whose_first_hook_fails_is_ended_and_started_again() {
    let Some(world) = World::start() else { return };
    let script = "trap 'exit 0' TERM; while true; do sleep 0.1; done";
    let hook = "lifecycle: { postStart: { exec: { command: [sh, -c, 'test -e /work/was || ! touch /work/was'] } } }";
    world.apply(&pod("late", script, hook));
    let status = world.until_container("late", |status| status["ready"] == true, "ready");
    assert_eq!(status["restartCount"], 1, "{status}");
    world.until_events(
        "late",
        &["1x Warning FailedPostStartHook PostStartHook failed", "1x Normal Killing FailedPostStartHook"],
    );
}

#[test]
fn a_container_that_does_not_stop_in_time_is_killed() {
    let Some(world) = World::start() else { return };
    world.apply(&pod("stubborn", &format!("trap '' TERM; {TELL_PID}; while true; do sleep 0.1; done"), ""));
    world.until_ready("stubborn");
    world.until_it("logs stubborn", |said| said.ends_with('\n'), "a number");
    let pid = world.say("logs stubborn").trim().to_owned();
    world.say("delete pod stubborn --wait --timeout=60s");
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "its process {pid} is there still");
}

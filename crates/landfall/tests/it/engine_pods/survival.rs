//! What pods live through when their engine does not.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{FOREVER, World, pod};

/// Two pods that write down each of their starts where it stays, and then count for ever.
const SET: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: counter }
spec:
  replicas: 2
  serviceName: counter
  selector: { matchLabels: { app: counter } }
  template:
    metadata: { labels: { app: counter } }
    spec:
      containers:
      - name: main
        image: busybox
        command: [sh, -c, "trap 'exit 0' TERM; echo $$$$ >> /data/starts; n=0; while true; do n=$((n+1)); echo $n; sleep 0.1; done"]
        readinessProbe: { exec: { command: [test, -s, /data/starts] }, periodSeconds: 1, timeoutSeconds: 30 }
        volumeMounts: [{ name: data, mountPath: /data }]
  volumeClaimTemplates:
  - metadata: { name: data }
    spec: { accessModes: [ReadWriteOnce], resources: { requests: { storage: 1Mi } } }
"#;

/// What must not change about a pod that runs on: its identity, its container, and since when it is ready.
fn essence(world: &World, pod: &str) -> Value {
    let pod = world.get(&format!("pod {pod}"));
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready: Vec<_> = conditions.into_iter().filter(|condition| condition["type"] == "Ready").collect();
    serde_json::json!({
        "uid": pod["metadata"]["uid"],
        "phase": pod["status"]["phase"],
        "ip": pod["status"]["podIP"],
        "containers": pod["status"]["containerStatuses"],
        "ready": ready,
    })
}

#[test]
fn the_pods_of_an_engine_that_is_killed_run_on() {
    let Some(world) = World::start() else { return };
    world.apply(SET);
    world.until("get statefulset counter -o jsonpath={.status.readyReplicas}", "2");
    let pods = ["counter-0", "counter-1"];
    let before = pods
        .map(|pod| (essence(&world, pod), world.in_pod(pod, "cat /data/starts"), world.say(&format!("logs {pod}"))));

    let mut world = world;
    for _ in 0..3 {
        world = world.restart_killed();
        for (pod, (essence_before, starts, log)) in pods.iter().zip(&before) {
            // A command finds the container, so that the node agent knows of it again; and it is the same process.
            world.until(&format!("exec {pod} -- cat /data/starts"), starts);
            let alive = Path::new("/proc").join(starts.trim());
            assert!(alive.exists(), "{pod}: process {starts}");
            assert_eq!(essence(&world, pod), *essence_before, "{pod}");
            let grown = world.say(&format!("logs {pod}"));
            assert!(grown.starts_with(log.as_str()), "{pod}: the log is another one");
            world.until_it(&format!("logs {pod}"), |said| said.len() > grown.len(), "a log that grows");
        }
    }
    let counted = world.say("logs counter-0");
    let gap = counted.lines().zip(1..).find(|(line, number)| **line != number.to_string());
    assert_eq!(gap, None, "nothing that was written meanwhile is lost");

    // They are its own: they end and change as always.
    world.say("scale statefulset counter --replicas=1");
    world.until("get pods -l app=counter -o jsonpath={.items[*].metadata.name}", "counter-0");
    let ended = Path::new("/proc").join(before[1].1.trim());
    assert!(!ended.exists(), "{}", ended.display());
}

#[test]
fn what_happens_while_there_is_no_engine_is_seen_by_the_next() {
    let Some(world) = World::start() else { return };
    world.apply(SET);
    world.until("get statefulset counter -o jsonpath={.status.readyReplicas}", "2");
    let starts = world.in_pod("counter-0", "cat /data/starts");
    let uid = world.get("pod counter-0")["metadata"]["uid"].clone();
    let world = world.restart_killed_after(|| {
        let killed = Command::new("kill").args(["-9", starts.trim()]).status().expect("every system has kill");
        assert!(killed.success());
    });
    let status = world.until_container("counter-0", |status| status["restartCount"] == 1, "restarted");
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 137, "{status}");
    world.until_ready("counter-0");
    assert_eq!(world.get("pod counter-0")["metadata"]["uid"], uid);
    assert_eq!(world.in_pod("counter-0", "wc -l < /data/starts").trim(), "2");
}

#[test]
fn pods_start_and_run_on_when_the_process_is_killed_that_their_shims_come_from() {
    let Some(world) = World::start() else { return };
    assert_eq!(world.engine.started("--zygote"), Vec::<u32>::new(), "it is not there before it is needed");
    world.apply(&pod("first", FOREVER, ""));
    world.until_ready("first");
    let zygote = world.engine.started("--zygote");
    assert_eq!(zygote.len(), 1, "{zygote:?}");
    let process = world.in_pod("first", "echo $PPID");

    let killed = Command::new("kill").args(["-9", &zygote[0].to_string()]).status().expect("every system has kill");
    assert!(killed.success());
    world.apply(&pod("second", FOREVER, ""));
    world.until_ready("second");
    assert_eq!(world.get("pod second")["status"]["containerStatuses"][0]["restartCount"], 0);
    let another = world.engine.started("--zygote");
    assert!(another.len() == 1 && another != zygote, "{another:?} after {zygote:?}");
    assert_eq!(world.in_pod("first", "echo $PPID"), process, "it has the same shim");
    assert_eq!(world.get("pod first")["status"]["containerStatuses"][0]["restartCount"], 0);
}

//! Stateful sets: one pod after the other, each with its own data.

use std::io::BufReader;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use serde_json::Value;

use super::{PATIENCE, World};

/// Each pod adds the version that it is of to its own data.
const SET: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: db }
spec: { clusterIP: None, selector: { app: db }, ports: [{ port: 80 }] }
---
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: db }
spec:
  replicas: 3
  serviceName: db
  selector: { matchLabels: { app: db } }
  template:
    metadata: { labels: { app: db } }
    spec:
      terminationGracePeriodSeconds: 30
      containers:
      - name: main
        image: busybox
        env: [{ name: VERSION, value: one }]
        command: [sh, -c, "echo $HOSTNAME $VERSION >> /data/book; trap 'exit 0' TERM; while true; do sleep 0.1; done"]
        readinessProbe: { exec: { command: [test, -s, /data/book] }, periodSeconds: 1, timeoutSeconds: 30 }
        volumeMounts: [{ name: data, mountPath: /data }]
  volumeClaimTemplates:
  - metadata: { name: data }
    spec: { accessModes: [ReadWriteOnce], resources: { requests: { storage: 1Mi } } }
"#;

/// Sees everything that happens to the pods of the set, in its order.
struct Witness {
    kubectl: Child,
    seen: Receiver<Value>,
    told: Vec<String>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _already_gone = self.kubectl.kill();
        let _reaped = self.kubectl.wait();
    }
}

impl Witness {
    fn of(world: &World) -> Self {
        let mut kubectl = world
            .command("get pods -l app=db --watch --output-watch-events -o json")
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl can be started");
        let stdout = BufReader::new(kubectl.stdout.take().expect("it is piped"));
        let (tell, seen) = channel();
        std::thread::spawn(move || {
            let events = serde_json::Deserializer::from_reader(stdout).into_iter::<Value>();
            // It ends with kubectl, or with the test.
            for event in events.map_while(Result::ok) {
                if tell.send(event).is_err() {
                    return;
                }
            }
        });
        Self { kubectl, seen, told: Vec::new() }
    }

    /// The next steps, as many as these, must be these.
    #[track_caller]
    fn sees(&mut self, expected: &[&str]) {
        let deadline = Instant::now() + PATIENCE * 2;
        let mut steps: Vec<String> = Vec::new();
        while steps.len() < expected.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.seen.recv_timeout(left).unwrap_or_else(|_| panic!("only {steps:#?} of {expected:#?}"));
            let pod = &event["object"];
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
            let step = match event["type"].as_str() {
                Some("DELETED") => "is gone",
                _ if pod["metadata"]["deletionTimestamp"].is_string() => "ends",
                _ if ready => "is ready",
                _ => "comes",
            };
            let step = format!("{name} {step}");
            // A step is told once for each life of the pod; what changes besides is not of interest.
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
            let of_this_life = format!("{uid} {step}");
            if !self.told.contains(&of_this_life) {
                self.told.push(of_this_life);
                steps.push(step);
            }
        }
        assert_eq!(steps, expected);
    }
}

#[test]
fn the_pods_of_a_set_come_go_and_change_in_order_and_keep_their_data() {
    let Some(world) = World::start() else { return };
    let mut witness = Witness::of(&world);
    world.apply(SET);
    witness.sees(&["db-0 comes", "db-0 is ready", "db-1 comes", "db-1 is ready", "db-2 comes", "db-2 is ready"]);
    world.until("get statefulset db -o jsonpath={.status.readyReplicas}", "3");

    world.say("scale statefulset db --replicas=1");
    witness.sees(&["db-2 ends", "db-2 is gone", "db-1 ends", "db-1 is gone"]);
    world.until("get statefulset db -o jsonpath={.status.replicas}", "1");
    assert_eq!(world.say("get pvc -o jsonpath={.items[*].metadata.name}"), "data-db-0 data-db-1 data-db-2");

    world.apply(&SET.replace("replicas: 3", "replicas: 2"));
    witness.sees(&["db-1 comes", "db-1 is ready"]);
    world.until("get statefulset db -o jsonpath={.status.readyReplicas}", "2");

    world.apply(&SET.replace("replicas: 3", "replicas: 2").replace("value: one", "value: two"));
    witness.sees(&[
        "db-1 ends",
        "db-1 is gone",
        "db-1 comes",
        "db-1 is ready",
        "db-0 ends",
        "db-0 is gone",
        "db-0 comes",
        "db-0 is ready",
    ]);
    world.say("rollout status statefulset db --timeout=60s");
    assert_eq!(world.in_pod("db-0", "cat /data/book"), "db-0 one\ndb-0 two\n");
    assert_eq!(world.in_pod("db-1", "cat /data/book"), "db-1 one\ndb-1 one\ndb-1 two\n");
}

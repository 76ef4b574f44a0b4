//! An autoscaler over real processes: what they use decides how many there are.

use std::fs;
use std::time::{Duration, Instant};

use super::{World, told};
use crate::running_engine::POLL;

/// Usage is measured every 15 s, looked at as often, and said only of what was measured twice; the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(4);

/// Each pod is busy for a part of the time, which is many times what it asks for, until there is a file.
fn objects(shared: &str) -> String {
    let script = "trap 'exit 0' TERM; while true; do if [ -e /shared/rest ]; then sleep 1; \
                  else n=0; while [ $n -lt 2000 ]; do n=$((n+1)); done; sleep 0.02; fi; done";
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{ name: web }}
spec:
  replicas: 1
  selector: {{ matchLabels: {{ app: web }} }}
  template:
    metadata: {{ labels: {{ app: web }} }}
    spec:
      terminationGracePeriodSeconds: 1
      volumes: [{{ name: shared, hostPath: {{ path: {shared}, type: Directory }} }}]
      containers:
      - name: main
        image: busybox
        command: [sh, -c, {script:?}]
        resources: {{ requests: {{ cpu: 10m }} }}
        volumeMounts: [{{ name: shared, mountPath: /shared }}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{ name: web }}
spec:
  scaleTargetRef: {{ apiVersion: apps/v1, kind: Deployment, name: web }}
  minReplicas: 1
  maxReplicas: 3
  metrics:
  - {{ type: Resource, resource: {{ name: cpu, target: {{ type: Utilization, averageUtilization: 100 }} }} }}
  behavior: {{ scaleDown: {{ stabilizationWindowSeconds: 0 }} }}
"
    )
}

#[test]
fn a_deployment_has_as_many_pods_as_their_load_asks_for() {
    let Some(world) = World::start() else { return };
    let shared = world.folder.path().join("shared");
    fs::create_dir(&shared).expect("a folder can be made");
    world.apply(&objects(&shared.display().to_string()));
    let replicas = |expected: &str| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = world.say("get deployment web -o jsonpath={.spec.replicas}/{.status.readyReplicas}");
            if said == expected {
                return;
            }
            let how = || ["describe hpa web", "top pods"].map(|command| told(&world.run(command))).join("\n");
            assert!(Instant::now() < deadline, "{said} and not {expected}:\n{}", how());
            std::thread::sleep(POLL);
        }
    };
    replicas("3/3");
    let active = "get hpa web -o jsonpath={.status.conditions[?(@.type==\"ScalingActive\")].reason}";
    assert_eq!(world.say(active), "ValidMetricFound");
    fs::write(shared.join("rest"), "").expect("a file can be written");
    replicas("1/1");
}

//! An autoscaler over real processes: what they use decides how many there are.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use landfall_testing::require_or_skip;
use serde_json::Value;

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

/// Waits until so many replicas are wanted and ready: `3/3`.
#[track_caller]
fn until_replicas(world: &World, expected: &str) {
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
}

#[test]
fn a_deployment_has_as_many_pods_as_their_load_asks_for() {
    let Some(world) = World::start() else { return };
    let shared = world.folder.path().join("shared");
    fs::create_dir(&shared).expect("a folder can be made");
    world.apply(&objects(&shared.display().to_string()));
    until_replicas(&world, "3/3");
    let active = "get hpa web -o jsonpath={.status.conditions[?(@.type==\"ScalingActive\")].reason}";
    assert_eq!(world.say(active), "ValidMetricFound");
    fs::write(shared.join("rest"), "").expect("a file can be written");
    until_replicas(&world, "1/1");
}

/// Pods of which the first tells what a file says, and every other that nothing waits: their sum is what the file says,
/// however many there are.
fn telling(shared: &str, python: &str) -> String {
    let script = format!(
        "mkdir /work/www; if mkdir /shared/first; then ln -s /shared/waiting /work/www/metrics; \
         else echo waiting 0 > /work/www/metrics; fi; \
         exec {python} -m http.server 8080 --bind $POD_IP --directory /work/www"
    );
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{ name: web }}
spec:
  replicas: 1
  selector: {{ matchLabels: {{ app: web }} }}
  template:
    metadata:
      labels: {{ app: web }}
      annotations: {{ prometheus.io/scrape: \"true\" }}
    spec:
      terminationGracePeriodSeconds: 1
      volumes:
      - {{ name: shared, hostPath: {{ path: {shared}, type: Directory }} }}
      - {{ name: work, emptyDir: {{}} }}
      containers:
      - name: main
        image: busybox
        command: [sh, -c, {script:?}]
        ports: [{{ containerPort: 8080 }}]
        env: [{{ name: POD_IP, valueFrom: {{ fieldRef: {{ fieldPath: status.podIP }} }} }}]
        readinessProbe: {{ tcpSocket: {{ port: 8080 }}, periodSeconds: 1 }}
        volumeMounts: [{{ name: shared, mountPath: /shared }}, {{ name: work, mountPath: /work }}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{ name: web }}
spec:
  scaleTargetRef: {{ apiVersion: apps/v1, kind: Deployment, name: web }}
  minReplicas: 1
  maxReplicas: 5
  metrics:
  - {{ type: Pods, pods: {{ metric: {{ name: waiting }}, target: {{ type: AverageValue, averageValue: \"10\" }} }} }}
  behavior: {{ scaleDown: {{ stabilizationWindowSeconds: 0 }} }}
"
    )
}

#[test]
fn a_deployment_has_as_many_pods_as_what_they_tell_of_themselves_asks_for() {
    let Some(world) = World::start() else { return };
    let python = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let Some(python) = require_or_skip("python3", python) else { return };
    let python = String::from_utf8(python.stdout).expect("paths of programs are text");
    let shared = world.folder.path().join("shared");
    fs::create_dir(&shared).expect("a folder can be made");
    let wait = |first: u32, second: u32| {
        let text = format!("# TYPE waiting gauge\nwaiting{{queue=\"a\"}} {first}\nwaiting{{queue=\"b\"}} {second}\n");
        // A pod is asked at any moment: it is never to find a half of the file.
        fs::write(shared.join("next"), text).expect("a file can be written");
        fs::rename(shared.join("next"), shared.join("waiting")).expect("a file can be renamed");
    };
    wait(20, 10);
    world.apply(&telling(&shared.display().to_string(), python.trim()));
    until_replicas(&world, "3/3");
    // 30 for three pods are what each is to have.
    world.until("get hpa web -o jsonpath={.status.currentMetrics[0].pods.current.averageValue}", "10");
    let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/waiting";
    let values = |query: &str| {
        let list: Value = serde_json::from_str(&world.say(&format!("get --raw {path}{query}"))).expect("it is JSON");
        let values = list["items"].as_array().into_iter().flatten().map(|item| item["value"].to_string());
        let mut values: Vec<_> = values.collect();
        values.sort();
        values.join(" ")
    };
    assert_eq!(values("?labelSelector=app%3Dweb"), r#""0" "0" "30""#);
    assert_eq!(values("?labelSelector=app%3Dweb&metricLabelSelector=queue%3Db"), r#""10""#);

    wait(4, 6);
    until_replicas(&world, "1/1");

    let lost = r#"{"metric":{"name":"lost"},"target":{"type":"AverageValue","averageValue":"10"}}"#;
    let patch = format!(r#"{{"spec":{{"metrics":[{{"type":"Pods","pods":{lost}}}]}}}}"#);
    world.say(&format!("patch hpa web --type=merge -p {patch}"));
    let said = "the HPA was unable to compute the replica count: unable to get metric lost: unable to fetch metrics from \
                custom metrics API: the server could not find the metric lost for pods";
    let is_told = |autoscaler: &Value| {
        let mut conditions = autoscaler["status"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| {
            condition["type"] == "ScalingActive"
                && condition["status"] == "False"
                && condition["reason"] == "FailedGetPodsMetric"
                && condition["message"].as_str().is_some_and(|message| message.starts_with(said))
        })
    };
    world.until_object("hpa web", is_told, "a condition that says what is not known");
}

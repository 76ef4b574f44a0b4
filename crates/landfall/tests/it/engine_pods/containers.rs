//! What a pod is made of besides its program: containers that come before it and run beside it, what it is told of
//! itself, whom its probes ask, and how much it may take.

use std::fs;
use std::time::Instant;

use landfall_testing::require_or_skip;
use serde_json::json;

use super::{FOREVER, PATIENCE, World, pod, told};
use crate::running_engine::POLL;

/// A pod whose containers write into one book: two that end, one between them that stays, and one that is waited for.
fn team(shared: &str) -> String {
    let container = |name: &str, script: &str, more: &str| {
        format!(
            "  - {{ name: {name}, image: busybox, command: [sh, -c, {script:?}],
      volumeMounts: [{{ name: shared, mountPath: /shared }}]{more} }}\n"
        )
    };
    let first = container("first", "echo first >> /shared/book", "");
    let side = container(
        "side",
        "echo side >> /shared/book; trap 'echo side ends >> /shared/book; exit 0' TERM; while true; do sleep 0.1; done",
        ", restartPolicy: Always,
      startupProbe: { exec: { command: [grep, side, /shared/book] }, periodSeconds: 1, timeoutSeconds: 30,
                      failureThreshold: 60 }",
    );
    let second = container("second", "echo second >> /shared/book", "");
    let main = container(
        "main",
        "echo main >> /shared/book; until [ -e /shared/go ]; do sleep 0.05; done; echo main ends >> /shared/book",
        "",
    );
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: team }}
spec:
  restartPolicy: Never
  volumes: [{{ name: shared, hostPath: {{ path: {shared}, type: Directory }} }}]
  initContainers:
{first}{side}{second}  containers:
{main}"
    )
}

#[test]
fn init_containers_run_one_after_the_other_and_a_sidecar_outlives_them_all() {
    let Some(world) = World::start() else { return };
    let shared = world.folder.path().join("shared");
    fs::create_dir(&shared).expect("a folder can be made");
    world.apply(&team(&shared.display().to_string()));
    let book = |expected: &str| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let book = fs::read_to_string(shared.join("book")).unwrap_or_default();
            if book == expected {
                return;
            }
            let events = || told(&world.run("get events"));
            assert!(Instant::now() < deadline, "{book}is in the book, and not\n{expected}{}", events());
            std::thread::sleep(POLL);
        }
    };
    book("first\nside\nsecond\nmain\n");
    let pod = world.until_object("pod team", |pod| pod["status"]["phase"] == "Running", "running");
    let init = &pod["status"]["initContainerStatuses"];
    for (place, name) in [(0_usize, "first"), (2, "second")] {
        assert_eq!(
            (&init[place]["name"], &init[place]["state"]["terminated"]["reason"]),
            (&json!(name), &json!("Completed")),
            "{init}"
        );
    }
    assert_eq!((&init[1]["name"], &init[1]["started"]), (&json!("side"), &json!(true)), "{init}");
    assert!(init[1]["state"]["running"].is_object(), "{init}");

    fs::write(shared.join("go"), "").expect("a file can be written");
    let pod = world.until_object("pod team", |pod| pod["status"]["phase"] == "Succeeded", "succeeded");
    book("first\nside\nsecond\nmain\nmain ends\nside ends\n");
    let side = &pod["status"]["initContainerStatuses"][1];
    assert_eq!((&side["state"]["terminated"]["exitCode"], &side["restartCount"]), (&json!(0), &json!(0)), "{side}");
}

const TOLD: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: told, labels: { app: told, tier: web }, annotations: { note: by hand } }
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    command: [sh, -c, "env | grep ^MY_ | sort; trap 'exit 0' TERM; while true; do sleep 0.1; done"]
    resources: { requests: { cpu: 250m }, limits: { memory: 128Mi } }
    env:
    - { name: MY_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
    - { name: MY_TIER, valueFrom: { fieldRef: { fieldPath: "metadata.labels['tier']" } } }
    - { name: MY_NOTE, valueFrom: { fieldRef: { fieldPath: "metadata.annotations['note']" } } }
    - { name: MY_ADDRESS, valueFrom: { fieldRef: { fieldPath: status.podIP } } }
    - { name: MY_NODE, valueFrom: { fieldRef: { fieldPath: spec.nodeName } } }
    - { name: MY_CPU, valueFrom: { resourceFieldRef: { resource: requests.cpu, divisor: 1m } } }
    - { name: MY_MEMORY, valueFrom: { resourceFieldRef: { resource: limits.memory, divisor: 1Mi } } }
    volumeMounts: [{ name: all, mountPath: /told }]
  volumes:
  - name: all
    projected:
      sources:
      - configMap: { name: settings, items: [{ key: color, path: settings/color }] }
      - secret: { name: password }
      - downwardAPI:
          items:
          - { path: labels, fieldRef: { fieldPath: metadata.labels } }
          - { path: memory, resourceFieldRef: { containerName: main, resource: limits.memory, divisor: 1Mi } }
      - serviceAccountToken: { path: token, audience: elsewhere }
"#;

#[test]
fn a_pod_is_told_of_itself_in_variables_and_in_files() {
    let Some(world) = World::start() else { return };
    world.say("create configmap settings --from-literal=color=red");
    world.say("create secret generic password --from-literal=word=sesame");
    world.apply(TOLD);
    world.until_ready("told");
    let pod = world.get("pod told");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let (address, node) = (text(&pod["status"]["podIP"]), text(&pod["spec"]["nodeName"]));
    let expected = format!(
        "MY_ADDRESS={address}\nMY_CPU=250\nMY_MEMORY=128\nMY_NAME=told\nMY_NODE={node}\nMY_NOTE=by hand\nMY_TIER=web\n"
    );
    world.until("logs told", &expected);
    let script = "cd /told; for file in settings/color word labels memory; do echo \"$file: $(cat $file)\"; done; \
                  echo \"dots of the token: $(tr -cd . < token)\"";
    insta::assert_snapshot!(world.in_pod("told", script), @r#"
    settings/color: red
    word: sesame
    labels: app="told"
    tier="web"
    topology.kubernetes.io/zone="a"
    memory: 128
    dots of the token: ..
    "#);
}

#[test]
fn a_probe_over_https_takes_the_certificate_of_whoever_answers() {
    let Some(world) = World::start() else { return };
    // The API server speaks TLS with a certificate that nobody knows, and answers to everybody at some of its paths.
    let kubeconfig = fs::read_to_string(world.engine.kubeconfig()).expect("it is written");
    let port = kubeconfig.split_once("https://").and_then(|(_, server)| {
        let (server, _) = server.split_once('"')?;
        Some(server.rsplit_once(':')?.1.to_owned())
    });
    let port = port.expect("the kubeconfig names a port");
    let probe = |scheme: &str, path: &str| {
        format!(
            "readinessProbe: {{ httpGet: {{ scheme: {scheme}, host: 127.0.0.1, port: {port}, path: {path} }}, \
             periodSeconds: 1, timeoutSeconds: 30 }}"
        )
    };
    world.apply(&pod("plain", FOREVER, &probe("HTTP", "/readyz")));
    world.apply(&pod("stranger", FOREVER, &probe("HTTPS", "/api/v1/secrets")));
    world.apply(&pod("guest", FOREVER, &probe("HTTPS", "/readyz")));
    world.until_ready("guest");
    let failures = |pod: &str| {
        let selector = format!("involvedObject.name={pod},reason=Unhealthy");
        format!("get events --field-selector {selector} -o jsonpath={{.items[*].message}}")
    };
    world.until(&failures("stranger"), "Readiness probe failed: HTTP probe failed with statuscode: 403");
    world.until_it(&failures("plain"), |said| said.starts_with("Readiness probe failed: "), "a failure");
    for pod in ["plain", "stranger"] {
        assert_eq!(world.get(&format!("pod {pod}"))["status"]["containerStatuses"][0]["ready"], false, "{pod}");
    }
}

/// Whether this system keeps containers to their memory: by control groups, and with nowhere else to put it.
fn memory_is_kept(world: &World) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    let line = loop {
        let log = fs::read_to_string(world.folder.path().join("engine.log")).expect("the engine has a log");
        if let Some(line) = log.lines().find(|line| line.contains("containers: ")) {
            break line.to_owned();
        }
        assert!(Instant::now() < deadline, "it does not say how containers are kept:\n{log}");
        std::thread::sleep(POLL);
    };
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    match swaps.lines().nth(1) {
        _ if !line.contains("control groups (version ") => Err(line),
        Some(swap) => Err(format!("there is swap: {swap}")),
        None => Ok(()),
    }
}

#[test]
fn a_container_that_takes_more_memory_than_it_may_is_killed_and_told_so() {
    let Some(world) = World::start() else { return };
    if require_or_skip("control groups", memory_is_kept(&world)).is_none() {
        return;
    }
    let limits = "resources: { limits: { memory: 64Mi } }";
    world.apply(&(pod("greedy", "exec tail /dev/zero", limits) + "  restartPolicy: Never\n"));
    let status = world.until_container("greedy", |status| status["state"]["terminated"].is_object(), "ended");
    let ended = &status["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("OOMKilled"), &json!(137)), "{status}");
    world.until("get pod greedy -o jsonpath={.status.phase}", "Failed");
}

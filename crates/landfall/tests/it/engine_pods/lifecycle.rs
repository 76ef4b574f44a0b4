//! What pods live through by design: probes, hooks, volumes, jobs and ordered sets.

use super::{FOREVER, World, pod};

#[test]
fn a_pod_is_an_endpoint_as_long_as_it_is_ready() {
    let Some(world) = World::start() else { return };
    let probe = "readinessProbe: { exec: { command: [test, -e, /work/ready] }, periodSeconds: 1, failureThreshold: 1 }";
    world.apply(&pod("web", FOREVER, probe));
    world.apply(
        "apiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec: { selector: { app: web }, ports: [{ port: 80 }] }",
    );
    let ready =
        "get endpointslices -l kubernetes.io/service-name=web -o jsonpath={.items[*].endpoints[*].conditions.ready}";
    world.until(ready, "false");
    world.in_pod("web", "touch /work/ready");
    world.until(ready, "true");
    world.in_pod("web", "rm /work/ready");
    world.until(ready, "false");
}

#[test]
fn a_changed_config_map_is_seen_in_its_volume() {
    let Some(world) = World::start() else { return };
    world.say("create configmap settings --from-literal=color=red");
    world.apply(&pod("reader", FOREVER, "").replace("emptyDir: {}", "configMap: { name: settings }"));
    world.until_ready("reader");
    assert_eq!(world.in_pod("reader", "cat /work/color"), "red");
    world.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: { name: settings }\ndata: { color: blue }");
    world.until("exec reader -- cat /work/color", "blue");
}

#[test]
fn a_job_runs_its_pods_to_their_end() {
    let Some(world) = World::start() else { return };
    world.apply(
        "apiVersion: batch/v1\nkind: Job\nmetadata: { name: work }\nspec:\n  completions: 3\n  parallelism: 2\n  \
         template:\n    spec:\n      restartPolicy: Never\n      \
         containers: [{ name: main, image: busybox, command: [sh, -c, echo done] }]",
    );
    world.until("get job work -o jsonpath={.status.succeeded}", "3");
    world.until("get job work -o jsonpath={.status.conditions[?(@.type==\"Complete\")].status}", "True");
    assert_eq!(world.say("logs -l job-name=work"), "done\ndone\ndone\n");
}

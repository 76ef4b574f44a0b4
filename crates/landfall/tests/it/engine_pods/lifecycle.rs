//! What pods live through by design: probes, hooks, volumes, jobs and ordered sets.

use std::fs;
use std::net::SocketAddrV4;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::time::Instant;

use super::{FOREVER, PATIENCE, World, pod};
use crate::running_engine::POLL;

#[test]
fn a_pod_is_an_endpoint_as_long_as_it_is_ready() {
    let Some(world) = World::start() else { return };
    let probe = "readinessProbe: { exec: { command: [test, -e, /work/ready] }, \
                 periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 1 }";
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
fn the_api_server_says_where_it_is_also_when_somebody_has_deleted_that() {
    let Some(world) = World::start() else { return };
    let old = "get endpoints kubernetes -o jsonpath={.subsets[0].addresses[0].ip}:{.subsets[0].ports[0].port}";
    let is_address = |said: &str| said.parse::<SocketAddrV4>().is_ok();
    world.until_it(old, is_address, "an address");
    let slice = world.until_object("endpointslice kubernetes", |slice| slice["endpoints"].is_array(), "there");
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "kubernetes", "{slice}");
    assert_eq!(
        (&slice["ports"][0]["name"], &slice["endpoints"][0]["conditions"]["ready"]),
        (&"https".into(), &true.into())
    );
    let new = "get endpointslice kubernetes -o jsonpath={.endpoints[0].addresses[0]}:{.ports[0].port}";
    assert_eq!(world.say(new), world.say(old));
    world.say("delete endpointslice kubernetes");
    world.until_it(new, is_address, "an address");
}

#[test]
fn no_pipe_is_left_that_would_hold_up_who_reads_through_the_files() {
    let Some(world) = World::start() else { return };
    world.apply(&pod("web", FOREVER, ""));
    world.until_ready("web");
    world.in_pod("web", "true");
    let (mut folders, mut pipes) = (vec![world.folder.path().to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder can be read") {
            let entry = entry.expect("a folder can be read");
            let kind = entry.file_type().expect("it has one");
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_fifo() {
                pipes.push(entry.path());
            }
        }
    }
    assert_eq!(pipes, Vec::<PathBuf>::new());
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
fn a_container_with_a_read_only_root_changes_its_volumes_and_nothing_else() {
    let Some(world) = World::start() else { return };
    world.apply(&pod("reader", FOREVER, "securityContext: { readOnlyRootFilesystem: true }"));
    world.until_ready("reader");
    let script = "for file in /tmp/landfall /var/tmp/landfall /landfall /dev/landfall; do \
                  (echo mine > $file) 2>&1 && echo changed; done; true";
    let said = world.in_pod("reader", script);
    assert_eq!((said.matches("Read-only file system").count(), said.matches("changed").count()), (4, 0), "{said}");
    assert_eq!(world.in_pod("reader", "echo > /dev/null; echo mine > /work/file; cat /work/file"), "mine\n");
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

#[test]
fn the_data_of_a_claim_goes_with_it_unless_it_is_to_be_kept() {
    let Some(world) = World::start() else { return };
    let claim = |name: &str| {
        format!(
            "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{ name: {name} }}\n\
             spec: {{ accessModes: [ReadWriteOnce], resources: {{ requests: {{ storage: 1Mi }} }} }}\n"
        )
    };
    let mut folders = Vec::new();
    for name in ["gone", "kept"] {
        let writer = pod(name, &format!("echo kept > /work/file; {FOREVER}"), "");
        let writer = writer.replace("emptyDir: {}", &format!("persistentVolumeClaim: {{ claimName: {name} }}"));
        world.apply(&format!("{}---\n{writer}", claim(name)));
        world.until_ready(name);
        folders.push(world.say(&format!("get pvc {name} -o jsonpath={{.spec.volumeName}}")));
    }
    world.say(&format!("patch pv {} -p {{\"spec\":{{\"persistentVolumeReclaimPolicy\":\"Retain\"}}}}", folders[1]));
    let folders: Vec<_> = folders.iter().map(|volume| world.folder.path().join("data/volumes").join(volume)).collect();
    assert!(folders.iter().all(|folder| folder.join("file").is_file()), "{folders:?}");

    world.say("delete pod gone kept --timeout=60s");
    world.say("delete pvc gone kept --timeout=60s");
    world.until_it("get pv --no-headers", |said| said.lines().count() == 1 && said.contains("Released"), "one volume");
    let deadline = Instant::now() + PATIENCE;
    while folders[0].exists() {
        assert!(Instant::now() < deadline, "{} is there still", folders[0].display());
        std::thread::sleep(POLL);
    }
    assert!(folders[1].join("file").is_file());
}

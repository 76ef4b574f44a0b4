//! Where the files of pods lie that need not outlive a reboot, and what becomes of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{FOREVER, IMAGES, TELL_PID, World};
use crate::running_engine::RunningEngine;

const SECRET: &str = "
apiVersion: v1
kind: Secret
metadata: { name: key }
stringData: { password: swordfish }
";

/// A pod with a volume of each kind: from an object, in memory (at the path `memory`), on the disk. What an init container has
/// made in memory is there before the script runs.
fn pod(name: &str, restart: &str, memory: &str, script: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: {restart}
  volumes:
  - {{ name: key, secret: {{ secretName: key }} }}
  - {{ name: memory, emptyDir: {{ medium: Memory }} }}
  - {{ name: disk, emptyDir: {{}} }}
  initContainers:
  - name: first
    image: busybox
    command: [sh, -c, 'echo made > {memory}/first']
    volumeMounts: [{{ name: memory, mountPath: {memory} }}]
  containers:
  - name: main
    image: busybox
    command: [sh, -c, {script:?}]
    volumeMounts:
    - {{ name: key, mountPath: /key, readOnly: true }}
    - {{ name: memory, mountPath: {memory} }}
    - {{ name: disk, mountPath: /disk }}
"
    )
}

impl World {
    fn pods_folder(&self) -> PathBuf {
        self.folder.path().join("data/pods")
    }

    fn run_folder(&self) -> PathBuf {
        self.folder.path().join("data/run").canonicalize().expect("an engine that runs has a run folder")
    }

    fn uid(&self, pod: &str) -> String {
        self.say(&format!("get pod {pod} -o jsonpath={{.metadata.uid}}"))
    }
}

/// The kind of file system that a path lies in.
fn system(path: &Path) -> String {
    let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(path).output().expect("every system has stat");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn secrets_and_volumes_in_memory_lie_in_memory_and_go_with_what_runs() {
    let Some(world) = World::start() else { return };
    world.apply(SECRET);
    world.apply(&pod("lasting", "Always", "/memory", &format!("echo it > /memory/is; echo it > /disk/is; {FOREVER}")));
    world.apply(&pod("brief", "Never", "/memory", "cat /key/password"));
    world.until_ready("lasting");
    let (pods, run, uid) = (world.pods_folder(), world.run_folder(), world.uid("lasting"));
    let own = run.join(&uid);
    assert_eq!(fs::read_to_string(own.join("volumes/key/password")).expect("it is there"), "swordfish");
    assert_eq!(fs::read_to_string(own.join("volumes/memory/is")).expect("it is there"), "it\n");
    assert_eq!(fs::read_to_string(pods.join(&uid).join("volumes/disk/is")).expect("it is there"), "it\n");
    assert!(!pods.join(&uid).join("volumes/key").exists());
    // On a machine that has no room in memory, such as a container of Docker, it is a folder and no link.
    if fs::read_link(world.folder.path().join("data/run")).is_ok() {
        assert_eq!(system(&run), "tmpfs");
    }
    // Where containers have mounts of their own, they do not see those of others there.
    let seen = world.in_pod("lasting", &format!("test -n \"$POD_ROOT\" || ls -A {}", run.display()));
    assert_eq!(seen, "");

    world.until("get pod brief -o jsonpath={.status.phase}", "Succeeded");
    let brief = world.uid("brief");
    world.until_it("get pods", |_| !run.join(&brief).exists(), "what has ended leaves no secret");
    assert_eq!(world.say("logs brief"), "swordfish\n");

    world.say("delete pod lasting --wait=false");
    world.until_it("get pods", |_| !own.exists() && !pods.join(&uid).exists(), "what was deleted leaves nothing");

    let World { engine, folder, .. } = world;
    drop(engine);
    assert!(!run.exists(), "an engine that was told to stop leaves no secret");
    assert!(fs::symlink_metadata(folder.path().join("data/run")).is_err());
}

/// A pod loses its run folder while there is no engine; `meanwhile` is told of its process and the one of its shim.
#[track_caller]
fn starts_anew(meanwhile: impl FnOnce(&[&str])) {
    let Some(world) = World::start() else { return };
    world.apply(SECRET);
    let script = format!("{TELL_PID} > /disk/pid; date > /dev/shm/new; echo once more >> /disk/starts; {FOREVER}");
    world.apply(&pod("web", "Always", "/dev/shm", &script));
    world.until_ready("web");
    let (pods, before, uid) = (world.pods_folder(), world.run_folder(), world.uid("web"));
    let process = world.in_pod("web", "touch /dev/shm/old; cat /disk/pid");
    let shim = fs::read_to_string(pods.join(&uid).join("lock")).expect("the shim has written it");

    let world = world.restart_killed_after(|| {
        meanwhile(&[shim.trim(), process.trim()]);
        fs::remove_dir_all(&before).expect("it is ours");
    });
    let status = world.until_container("web", |status| status["restartCount"] == 1, "restarted");
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 137, "{status}");
    world.until_ready("web");
    assert_eq!(world.uid("web"), uid);
    // One that has ended, and that nobody has reaped, has no command any more.
    let command = fs::read(Path::new("/proc").join(process.trim()).join("cmdline")).unwrap_or_default();
    assert!(command.is_empty(), "two copies of the container run");
    assert_eq!(world.in_pod("web", "ls /dev/shm; wc -l < /disk/starts; cat /key/password"), "first\nnew\n2\nswordfish");
    if fs::read_link(world.folder.path().join("data/run")).is_ok() {
        assert_ne!(world.run_folder(), before);
    }
}

#[test]
fn init_containers_run_again_when_an_engine_that_was_told_to_stop_comes_back() {
    let Some(world) = World::start() else { return };
    world.apply(SECRET);
    world.apply(&pod("web", "Always", "/memory", &format!("cat /memory/first && touch /memory/new && {FOREVER}")));
    world.until_ready("web");
    let World { engine, kubectl, folder } = world;
    drop(engine);
    let engine = RunningEngine::start(folder.path(), IMAGES, &[]);
    let world = World { engine, kubectl, folder };
    let status = world.until_container("web", |status| status["restartCount"] == 1, "restarted");
    assert!(status["state"]["waiting"].is_null(), "{status}");
    world.until_ready("web");
    assert_eq!(world.in_pod("web", "ls /memory"), "first\nnew\n");
    let counted = "get pod web -o jsonpath={.status.initContainerStatuses[0].restartCount}";
    assert_eq!(world.say(counted), "1");
}

#[test]
fn after_a_reboot_pods_start_anew_with_what_is_on_the_disk() {
    starts_anew(|processes| {
        let killed = Command::new("kill").arg("-9").args(processes).status().expect("every system has kill");
        assert!(killed.success());
    });
}

#[test]
fn pods_whose_files_in_memory_were_deleted_start_anew() {
    starts_anew(|_| {});
}

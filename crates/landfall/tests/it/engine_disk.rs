//! A disk that fills up under an engine, and has room again; one that cannot be written at all.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use landfall_testing::require_or_skip;
use landfall_testing::scenario::Endpoint;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::json;

use crate::running_engine::{POLL, RunningEngine, command};

/// How long anything may take; the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(1);

/// Runs a program twice on a small disk of its own, which lives as long as this script: `$0` is where the disk is, `$1` the
/// file that the process ids of the program are added to. Half of the disk is taken by a file that can be removed.
const ON_A_SMALL_DISK: &str = r#"
disk=$0 processes=$1
shift
mount -t tmpfs -o size=16m tmpfs "$disk" || exit 1
head -c 8388608 /dev/zero > "$disk/ballast"
for turn in first second; do
    "$@" &
    echo $! >> "$processes"
    wait $!
done
"#;

/// Starts a program on three data folders of a disk that cannot be written any more: one that is not there, an empty one, and
/// a copy of one that an engine has used. `$0` is where the disk is, `$1` the folder that is copied.
const ON_A_DISK_FOR_READING: &str = r#"
disk=$0 used=$1
shift
mount -t tmpfs tmpfs "$disk" && cp -r "$used" "$disk/used" && mkdir "$disk/empty" && mount -o remount,ro "$disk" || exit 1
for data in new empty used; do
    timeout 60 "$@" --data "$disk/$data"
    echo "exit $?" >&2
done
"#;

/// An engine whose data is on a disk with 8 MB left.
struct Cramped {
    script: Child,
    folder: tempfile::TempDir,
}

impl Cramped {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("disk")).expect("a folder can be made");
        fs::write(at("nodes.yaml"), "nodes: []\n").expect("a file can be written");
        let engine = command(&at("disk").join("data"));
        let script = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK])
            .args([at("disk"), at("processes")])
            .arg(engine.get_program())
            .args(engine.get_args())
            .args(["--network", "loopback", "--nodes"])
            .arg(at("nodes.yaml"))
            .arg("--kubeconfig")
            .arg(at("kubeconfig"))
            .stdin(Stdio::null())
            .stderr(File::create(at("engine.log")).expect("a file can be made"))
            .process_group(0)
            .spawn()
            .expect("unshare is part of every Linux");
        Self { script, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The process of the engine, once it serves for the time that is meant.
    fn serves(&self, time: usize) -> Pid {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(self.path("engine.log")).unwrap_or_default();
            let processes = fs::read_to_string(self.path("processes")).unwrap_or_default();
            if log.matches("ready at ").count() == time
                && let Some(process) = processes.lines().nth(time - 1).and_then(|line| line.parse().ok())
            {
                return Pid::from_raw(process);
            }
            assert!(Instant::now() < deadline, "the engine does not serve: {log}");
            std::thread::sleep(POLL);
        }
    }

    async fn client(&self) -> Client {
        Endpoint::from_kubeconfig(&self.path("kubeconfig")).await.expect("the engine writes a kubeconfig").client()
    }
}

impl Drop for Cramped {
    fn drop(&mut self) {
        let _already_gone = killpg(Pid::from_raw(self.script.id().cast_signed()), Signal::SIGKILL);
        let _reaped = self.script.wait();
    }
}

fn map(number: usize) -> ConfigMap {
    let map = json!({ "metadata": { "name": format!("map-{number}") }, "data": { "filler": "x".repeat(200_000) } });
    serde_json::from_value(map).expect("it is one")
}

async fn names(client: &Client) -> BTreeSet<String> {
    let maps = Api::<ConfigMap>::default_namespaced(client.clone());
    let maps = maps.list(&ListParams::default()).await.expect("a full disk can be read");
    maps.iter().map(kube::ResourceExt::name_any).filter(|name| name.starts_with("map-")).collect()
}

/// Whether disks can be had for a test; if not, it is reported as skipped.
fn has_mounts() -> bool {
    let mounts = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"])
        .output()
        .map_err(|error| error.to_string())
        .and_then(|tried| if tried.status.success() { Ok(()) } else { Err(format!("{tried:?}")) });
    require_or_skip("a mount namespace", mounts).is_some()
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_that_was_acknowledged_is_lost() {
    if !has_mounts() {
        return;
    }
    let engine = Cramped::start();
    let process = engine.serves(1);
    let client = engine.client().await;
    let maps = Api::<ConfigMap>::default_namespaced(client.clone());
    let mut acknowledged = BTreeSet::new();
    let refused = loop {
        let map = map(acknowledged.len());
        match maps.create(&PostParams::default(), &map).await {
            Ok(_) => acknowledged.insert(map.name_any()),
            Err(refused) => break refused,
        };
        assert!(acknowledged.len() < 100, "8 MB hold no 20 MB");
    };
    let kube::Error::Api(status) = refused else { panic!("the engine answers: {refused}") };
    assert_eq!((status.code, status.reason.as_str()), (507, "InsufficientStorage"), "{}", status.message);
    assert!(status.message.starts_with("the disk of the engine is full: "), "{}", status.message);
    assert!(status.message.ends_with(": No space left on device (os error 28)"), "{}", status.message);
    assert!(acknowledged.len() > 5, "{acknowledged:?}");
    assert_eq!(names(&client).await, acknowledged);

    let ballast = Path::new("/proc").join(process.to_string()).join("root");
    let ballast = ballast.join(engine.path("disk/ballast").strip_prefix("/").expect("temporary folders are absolute"));
    fs::remove_file(&ballast).expect("the disk can be made roomier");
    let deadline = Instant::now() + PATIENCE;
    let again = map(100);
    while let Err(error) = maps.create(&PostParams::default(), &again).await {
        assert!(Instant::now() < deadline, "there is room again: {error}");
        tokio::time::sleep(POLL).await;
    }
    acknowledged.insert(again.name_any());
    kill(process, Signal::SIGKILL).expect("the engine runs");
    let process = engine.serves(2);
    assert_eq!(names(&engine.client().await).await, acknowledged);
    kill(process, Signal::SIGTERM).expect("the engine runs");
}

#[test]
fn a_disk_that_cannot_be_written_is_told_at_the_start() {
    if !has_mounts() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).expect("a folder can be made");
    drop(RunningEngine::api_only(folder.path()));
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", ON_A_DISK_FOR_READING])
        .args([&disk, &folder.path().join("data")])
        .args([env!("CARGO_BIN_EXE_landfall"), "engine", "--api-only"])
        .output()
        .expect("unshare is part of every Linux");
    let said = String::from_utf8_lossy(&output.stderr).replace(&disk.display().to_string(), "<disk>");
    insta::assert_snapshot!(said, @r"
    error: failed to write `<disk>/new`: Read-only file system (os error 30)
    exit 3
    error: failed to open the folder `<disk>/empty/objects`: Read-only file system (os error 30)
    exit 3
    error: failed to open `<disk>/used/objects/store.redb`: Read-only file system (os error 30)
    exit 3
    ");
}

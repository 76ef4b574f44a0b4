//! A platform that `landfall up` runs for the benchmark, in a folder of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, Probe};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::load::{Case, Load, drive};

const PROGRAM: &str = env!("CARGO_BIN_EXE_landfall");

/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(15);

const POLL: Duration = Duration::from_millis(500);

pub(crate) struct Platform {
    folder: PathBuf,
    name: String,
    environment: String,
}

impl Platform {
    /// A copy of the example, without data.
    pub(crate) fn new(name: &str, environment: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}"));
        let _ = fs::remove_dir_all(&folder);
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
        let parts = ["services", "schemas"].map(|part| (example.join(part), folder.join(part)));
        for (from, to) in [(example.clone(), folder.clone())].into_iter().chain(parts) {
            let Ok(entries) = fs::read_dir(from) else { continue };
            fs::create_dir_all(&to).expect("a folder can be made");
            for path in entries.map(|entry| entry.expect("it can be read").path()).filter(|path| path.is_file()) {
                fs::copy(&path, to.join(path.file_name().expect("a file has a name"))).expect("a file can be copied");
            }
        }
        Self { folder, name: name.to_owned(), environment: environment.to_owned() }
    }

    /// Brings it up, and waits for its report.
    pub(crate) fn start(&self) -> Up<'_> {
        let (report, said) = (self.folder.join("report"), self.folder.join("said"));
        let file = |path: &Path| File::create(path).expect("a file can be made");
        let mut process = Command::new(PROGRAM)
            .args(["up", "--env", &self.environment, "--duration", "1s", "--timeout", "10m", "--output", "json"])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(file(&report))
            .stderr(file(&said))
            .spawn()
            .expect("the program can be started");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read(&report).unwrap_or_default();
            if let Ok(report) = serde_json::from_slice(&text) {
                return Up { platform: self, process, report };
            }
            let ended = process.try_wait().expect("a child can be asked");
            let said = fs::read_to_string(&said).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "no report, {ended:?}:\n{said}");
            thread::sleep(POLL);
        }
    }

    pub(crate) fn delete(self) {
        let _ = fs::remove_dir_all(&self.folder);
    }

    fn place(&self) -> PathBuf {
        self.folder.join(".landfall").join(format!("{}-{}", self.name, self.environment))
    }
}

/// One that is up.
pub(crate) struct Up<'a> {
    platform: &'a Platform,
    process: Child,
    pub(crate) report: Value,
}

impl Up<'_> {
    /// What all pods use together, and the process that is engine, operators and gateway.
    pub(crate) fn memory(&self) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        let expected = self.report["pods"]["ready"].as_u64().unwrap_or_default();
        loop {
            let mut top = Command::new(PROGRAM);
            top.args(["top", "--env", &self.platform.environment, "--output", "json"]);
            let told = top.current_dir(&self.platform.folder).output().expect("the program can be started");
            let told: Value = serde_json::from_slice(&told.stdout).unwrap_or_default();
            let measured = told["pods"].as_array().map_or(0, Vec::len) as u64;
            if measured >= expected {
                let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
                let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
                let own: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap_or_default();
                return told["memory_bytes"].as_u64().unwrap_or_default() + own * 1024;
            }
            assert!(Instant::now() < deadline, "{measured} of {expected} pods are measured");
            thread::sleep(POLL);
        }
    }

    /// How long pods must wait before they are probed, as their objects declare, all of them together.
    pub(crate) fn probe_delay(&self) -> Duration {
        let pods = self.block_on(async |client| {
            let pods = Api::<Pod>::all(client).list(&ListParams::default()).await;
            pods.expect("pods can be listed").items
        });
        let containers = pods.iter().filter_map(|pod| pod.spec.as_ref()).flat_map(|spec| &spec.containers);
        let delay = |probe: &Option<Probe>| probe.as_ref().and_then(|probe| probe.initial_delay_seconds).unwrap_or(0);
        let seconds: i32 =
            containers.map(|container| delay(&container.startup_probe).max(delay(&container.readiness_probe))).sum();
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }

    /// Drives a flow as fast as it goes.
    pub(crate) fn load(&self, case: &Case) -> Load {
        let place = self.platform.place();
        self.block_on(async |client| drive(&place, client, case).await)
    }

    pub(crate) fn stop(mut self) {
        let process = Pid::from_raw(i32::try_from(self.process.id()).expect("a process has a small number"));
        kill(process, Signal::SIGINT).expect("a child can be told to stop");
        self.process.wait().expect("a child can be waited for");
    }

    fn block_on<T>(&self, work: impl AsyncFnOnce(Client) -> T) -> T {
        let kubeconfig = self.platform.place().join("kubeconfig");
        Runtime::new().expect("threads can be started").block_on(async {
            let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("there is a kubeconfig");
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
            let client = Client::try_from(config.expect("it is one")).expect("a client can be made");
            work(client).await
        })
    }
}

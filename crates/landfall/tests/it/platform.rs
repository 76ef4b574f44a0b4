//! A platform that `landfall up` runs in a process of its own, and what a test does to it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kube::Client;
use landfall_testing::scenario::Endpoint;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::example;

/// How long it may take until everything is ready, on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_mins(10);

const POLL: Duration = Duration::from_millis(200);

/// A folder with the files of an example, of its services and of its schemas, so that its data does not stay in the checkout. What the
/// services are built to is not there.
pub(crate) fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder can be made");
    copy_files(&example(name), folder.path());
    for part in ["services", "schemas"] {
        let from = example(name).join(part);
        if from.is_dir() {
            fs::create_dir(folder.path().join(part)).expect("a folder can be made");
            copy_files(&from, &folder.path().join(part));
        }
    }
    folder
}

fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("the example has a folder") {
        let entry = entry.expect("it can be read");
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a file can be copied");
        }
    }
}

/// It is told to stop when dropped.
pub(crate) struct Platform {
    process: Child,
    folder: PathBuf,
    /// Below `.landfall`.
    place: String,
    environment: Vec<String>,
    /// What the files are called that have what it says.
    told: String,
}

impl Platform {
    /// Starts one in this folder; without a name of an environment the file has none.
    pub(crate) fn start(folder: &Path, project: &str, environment: Option<&str>, arguments: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_landfall")), folder, project, environment, arguments)
    }

    /// The same, by a command that runs the program in its own way.
    pub(crate) fn start_by(
        program: Command,
        folder: &Path,
        project: &str,
        environment: Option<&str>,
        arguments: &[&str],
    ) -> Self {
        let named = environment.map(|environment| format!("{project}-{environment}"));
        let place = named.unwrap_or_else(|| project.to_owned());
        let environment: Vec<_> =
            environment.iter().flat_map(|environment| ["--env".to_owned(), (*environment).to_owned()]).collect();
        let told = place.clone();
        Self::spawn(program, folder, place, environment, told, arguments)
    }

    /// Starts one more for the same environment in the same folder.
    pub(crate) fn another(&self, arguments: &[&str]) -> Self {
        let (program, told) = (Command::new(env!("CARGO_BIN_EXE_landfall")), format!("{}.next", self.told));
        Self::spawn(program, &self.folder, self.place.clone(), self.environment.clone(), told, arguments)
    }

    fn spawn(
        mut program: Command,
        folder: &Path,
        place: String,
        environment: Vec<String>,
        told: String,
        arguments: &[&str],
    ) -> Self {
        let file = |name: &str| File::create(folder.join(format!("{told}.{name}"))).expect("a file can be made");
        let process = program
            .args(["up", "--timeout", "10m", "--output", "json"])
            .args(&environment)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file("report"))
            .stderr(file("said"))
            .spawn()
            .expect("the program can be started");
        Self { process, folder: folder.to_owned(), place, environment, told }
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.folder.join(format!("{}.said", self.told))).expect("what it says can be read")
    }

    /// Waits until it has said this.
    pub(crate) fn until_said(&mut self, text: &str) {
        self.until(text, |platform| platform.said().contains(text).then_some(()));
    }

    /// Waits until it has reported, and reads the report.
    pub(crate) fn reported(&mut self) -> Value {
        self.until("a report", Self::report)
    }

    /// Waits for its end, and reads its report.
    pub(crate) fn ended(mut self) -> (ExitStatus, Value) {
        let status = self.until_ended();
        let report = self.report().unwrap_or_else(|| panic!("no report, {status}:\n{}", self.said()));
        (status, report)
    }

    /// Waits for its end by itself.
    pub(crate) fn until_ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().expect("a child can be asked") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.said());
            thread::sleep(POLL);
        }
    }

    fn report(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.folder.join(format!("{}.report", self.told))).ok()?).ok()
    }

    /// Waits for something that it does while it runs.
    pub(crate) fn until<T>(&mut self, what: &str, found: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            let ended = self.process.try_wait().expect("a child can be asked");
            assert!(ended.is_none() && Instant::now() < deadline, "no {what}, {ended:?}:\n{}", self.said());
            thread::sleep(POLL);
        }
    }

    /// A command that asks it something.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
        command.args(arguments).args(&self.environment).current_dir(&self.folder).stdin(Stdio::null());
        command
    }

    /// Where it keeps everything.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join(".landfall").join(&self.place)
    }

    pub(crate) async fn client(&self) -> Client {
        let kubeconfig = self.root().join("kubeconfig");
        Endpoint::from_kubeconfig(&kubeconfig).await.expect("`up` writes a kubeconfig").client()
    }

    /// Stops it by Ctrl-C.
    pub(crate) fn interrupt(mut self) -> ExitStatus {
        let process = self.process.id().to_string();
        let asked = Command::new("kill").args(["-INT", &process]).status().expect("every system has kill");
        assert!(asked.success(), "{asked}");
        self.process.wait().expect("a child can be waited for")
    }

    /// Kills it, as nothing on this machine can prevent; its pods run on.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("a child can be killed");
        self.process.wait().expect("a child can be waited for");
    }

    /// The processes of a container, whose pod has this uid. There must be some.
    pub(crate) fn processes_of(&self, uid: &str) -> Vec<u32> {
        let lock = self.root().join("engine/pods").join(uid).join("lock");
        let shim = fs::read_to_string(&lock).unwrap_or_else(|error| panic!("{}: {error}", lock.display()));
        let processes = processes();
        let mut family: Vec<u32> = vec![shim.trim().parse().expect("the lock has the process id of the shim")];
        let mut next = 0;
        while let Some(parent) = family.get(next).copied() {
            family.extend(processes.iter().filter(|process| process.parent == parent).map(|process| process.id));
            next += 1;
        }
        let containers = family.split_off(1);
        assert!(!containers.is_empty(), "nothing runs for {}", lock.display());
        containers
    }

    /// Kills the processes of a container, whose pod has this uid. There must be some.
    pub(crate) fn kill_container(&self, uid: &str) {
        for container in self.processes_of(uid) {
            // It may have ended by itself meanwhile.
            let _ = Command::new("kill").args(["-9", &container.to_string()]).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        // Pods would outlive a process that is killed.
        let _ = self.command(&["down"]).stderr(Stdio::null()).status();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What runs until the test ends it.
pub(crate) struct Running(Option<Child>);

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(Some(command.spawn().expect("the program can be started")))
    }

    /// Ends it by Ctrl-C.
    pub(crate) fn interrupt(&mut self) -> Output {
        let child = self.0.take().expect("it is ended once");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).expect("it is running");
        child.wait_with_output().expect("it ends")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _already_gone = child.kill();
            let _already_gone = child.wait();
        }
    }
}

/// Waits for something to be seen.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, found: impl Fn() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not seen: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// A process of this machine.
struct Process {
    id: u32,
    parent: u32,
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("every Linux has it").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let process = |id: u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name of the program may have spaces and brackets (proc_pid_stat(5)).
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        Some(Process { id, parent })
    };
    ids.filter_map(process).collect()
}

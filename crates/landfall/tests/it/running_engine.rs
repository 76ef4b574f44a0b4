//! An engine in a process of its own, as a user starts it, with everything that tests do to it from outside.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use kube::Client;
use landfall_testing::scenario::Endpoint;

/// How long an engine may take until it serves, and until it has stopped. Debug builds on a busy machine are slow.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often it is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// A running `landfall engine`; it is stopped, with its pods, when dropped.
pub(crate) struct RunningEngine {
    process: Child,
    data: PathBuf,
}

impl RunningEngine {
    /// Starts an engine and waits until it serves. `folder` keeps its data, its log and the files it is started with.
    pub(crate) fn start(folder: &Path, images: &str, options: &[&str]) -> Self {
        let catalogue = folder.join("images.yaml");
        fs::write(&catalogue, images).expect("a file can be written");
        let mut command = command(&folder.join("data"));
        command.arg("--images").arg(&catalogue).args(options);
        Self::spawn(folder, command)
    }

    /// Starts an engine behind words that end in running what follows them (see [`no_control_groups`]).
    pub(crate) fn start_behind(words: &[&str], folder: &Path, images: &str) -> Self {
        let catalogue = folder.join("images.yaml");
        fs::write(&catalogue, images).expect("a file can be written");
        let engine = command(&folder.join("data"));
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(engine.get_program()).args(engine.get_args());
        command.arg("--images").arg(&catalogue);
        Self::spawn(folder, command)
    }

    /// Starts this machine as the nodes of another control plane, and waits until it runs pods.
    pub(crate) fn joined(folder: &Path, images: &str, kubeconfig: &Path) -> Self {
        Self::start(folder, images, &["--join", &kubeconfig.display().to_string()])
    }

    /// Starts an engine that is an API server and nothing else, and waits until it serves.
    pub(crate) fn api_only(folder: &Path) -> Self {
        let mut command = command(&folder.join("data"));
        command.arg("--api-only");
        Self::spawn(folder, command)
    }

    fn spawn(folder: &Path, mut command: Command) -> Self {
        let data = folder.join("data");
        let log = File::create(folder.join("engine.log")).expect("a file can be made");
        let process = command.stderr(log).spawn().expect("the program can be started");
        let mut engine = Self { process, data };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(folder.join("engine.log")).expect("the log can be read");
            if log.contains("ready at ") {
                return engine;
            }
            let ended = engine.process.try_wait().expect("a child can be asked");
            assert!(ended.is_none() && Instant::now() < deadline, "the engine does not serve; {ended:?}:\n{log}");
            std::thread::sleep(POLL);
        }
    }

    /// An administrator's way in.
    pub(crate) async fn client(&self) -> Client {
        Endpoint::from_kubeconfig(&self.kubeconfig()).await.expect("the engine writes a kubeconfig").client()
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.data.join("kubeconfig")
    }

    /// Ends it at once, with no time to write anything down.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("a child can be killed");
        self.process.wait().expect("a child can be waited for");
    }

    /// How many files and connections the process has open.
    pub(crate) fn open_files(&self) -> usize {
        let files = fs::read_dir(Path::new("/proc").join(self.process.id().to_string()).join("fd"));
        files.expect("the process runs, and is ours").count()
    }

    /// The processes that it has started itself, and that were given this as their last argument.
    pub(crate) fn started(&self, last: &str) -> Vec<u32> {
        let threads = fs::read_dir(Path::new("/proc").join(self.process.id().to_string()).join("task"));
        let threads = threads.expect("the process runs, and is ours").flatten();
        let children: String =
            threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok()).collect();
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        let was_given = |process: &u32| {
            let command = fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
            command.trim_end_matches('\0').rsplit('\0').next() == Some(last)
        };
        children.filter(was_given).collect()
    }

    /// Whether the process is there still.
    pub(crate) fn lives(&mut self) -> bool {
        self.process.try_wait().expect("a child can be asked").is_none()
    }
}

impl Drop for RunningEngine {
    fn drop(&mut self) {
        if !self.lives() {
            return;
        }
        // A request to stop, so that its pods stop with it.
        let asked = Command::new("kill").arg(self.process.id().to_string()).status();
        let deadline = Instant::now() + PATIENCE;
        while asked.as_ref().is_ok_and(ExitStatus::success) && Instant::now() < deadline {
            if !self.lives() {
                return;
            }
            std::thread::sleep(POLL);
        }
        let _already_gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// The words before a program that is to run where no control group can be made: a file system that nobody can write to lies
/// over those of the machine. An error says why this system does not let us.
pub(crate) fn no_control_groups() -> Result<Vec<&'static str>, String> {
    let user = fs::metadata("/proc/self").map_err(|error| error.to_string())?.uid();
    let mut words = vec!["unshare", "--mount"];
    if user != 0 {
        words.extend(["--user", "--map-root-user"]);
    }
    words.extend(["sh", "-c", "mount -t tmpfs -o ro none /sys/fs/cgroup && exec \"$@\"", "sh"]);
    let tried = Command::new(words[0]).args(&words[1..]).arg("true").output().map_err(|error| error.to_string())?;
    if tried.status.success() { Ok(words) } else { Err(String::from_utf8_lossy(&tried.stderr).into_owned()) }
}

/// `landfall engine` on a data folder, on a free port.
pub(crate) fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    command.arg("engine").arg("--data").arg(data);
    command
}

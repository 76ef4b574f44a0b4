//! Pods of a running engine, from outside: what they say, what is said to them, and how they live, restart and end.

mod lifecycle;
mod streams;
mod user;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use landfall_testing::{Tool, require_or_skip};

use crate::running_engine::{POLL, RunningEngine};

/// How long anything may take that pods do. Debug builds on a busy machine are slow.
const PATIENCE: Duration = Duration::from_mins(1);

/// Pods that name their command, and one that serves its folder by HTTP where there is a Python.
const IMAGES: &str = "images: [{ image: busybox }]";

/// An engine and a client of it.
struct World {
    engine: RunningEngine,
    kubectl: PathBuf,
    _folder: tempfile::TempDir,
}

impl World {
    /// None: there is no kubectl on this machine.
    fn start() -> Option<Self> {
        let kubectl = require_or_skip("kubectl", Tool::Kubectl.locate())?;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let engine = RunningEngine::start(folder.path(), IMAGES, &[]);
        Some(Self { engine, kubectl, _folder: folder })
    }

    /// A command of kubectl; words are separated by spaces.
    fn command(&self, arguments: &str) -> Command {
        self.command_of(&self.kubectl, arguments)
    }

    fn command_of(&self, kubectl: &Path, arguments: &str) -> Command {
        let mut command = Command::new(kubectl);
        command.arg("--kubeconfig").arg(self.engine.kubeconfig()).args(arguments.split_whitespace());
        command
    }

    fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().expect("kubectl can be started")
    }

    /// What a command of kubectl that succeeds says.
    #[track_caller]
    fn say(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments}: {}", told(&output));
        String::from_utf8(output.stdout).expect("kubectl writes text")
    }

    /// Runs a script in the only container of a pod.
    #[track_caller]
    fn in_pod(&self, pod: &str, script: &str) -> String {
        let output =
            self.command(&format!("exec {pod} -- sh -c")).arg(script).output().expect("kubectl can be started");
        assert!(output.status.success(), "{pod}: {script}: {}", told(&output));
        String::from_utf8(output.stdout).expect("the scripts of these tests write text")
    }

    #[track_caller]
    fn apply(&self, objects: &str) {
        let output = spoken_to(self.command("apply -f -"), objects);
        assert!(output.status.success(), "{}", told(&output));
    }

    /// Waits until a command of kubectl says something.
    #[track_caller]
    fn until(&self, arguments: &str, expected: &str) {
        self.until_it(arguments, |said| said == expected, expected);
    }

    #[track_caller]
    fn until_it(&self, arguments: &str, fits: impl Fn(&str) -> bool, expected: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.run(arguments);
            if output.status.success() && fits(&String::from_utf8_lossy(&output.stdout)) {
                return;
            }
            assert!(
                Instant::now() <= deadline,
                "{arguments}\nis not `{expected}`: {}\n{}",
                told(&output),
                told(&self.run("get pods,events -A"))
            );
            std::thread::sleep(POLL);
        }
    }

    #[track_caller]
    fn until_ready(&self, pod: &str) {
        self.until(&format!("get pod {pod} -o jsonpath={{.status.conditions[?(@.type==\"Ready\")].status}}"), "True");
    }
}

/// Runs a command that is told something.
fn spoken_to(mut command: Command, text: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl can be started");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(text.as_bytes()).expect("kubectl reads");
    drop(stdin);
    child.wait_with_output().expect("a child can be waited for")
}

/// Exit code, stdout and stderr as one text.
fn told(output: &Output) -> String {
    let mut text = format!("exit {}", output.status.code().unwrap_or(-1));
    for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !bytes.is_empty() {
            write!(text, "\n{name}: {}", String::from_utf8_lossy(bytes).trim_end()).expect("texts take everything");
        }
    }
    text
}

/// A pod of one container that runs a script, with a folder of its own at `/work`. `more` are fields of the container,
/// one a line.
fn pod(name: &str, script: &str, more: &str) -> String {
    let more: String = more.lines().fold(String::new(), |text, line| text + "    " + line + "\n");
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {name}, labels: {{ app: {name} }} }}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{{ name: work, emptyDir: {{}} }}]
  containers:
  - name: main
    image: busybox
    command: [sh, -c, {script:?}]
    volumeMounts: [{{ name: work, mountPath: /work }}]
{more}"
    )
}

/// Runs until it is told to end.
const FOREVER: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

//! Pods of a running engine, from outside: what they say, what is said to them, and how they live, restart and end.

mod autoscaled;
mod containers;
mod hooks;
mod lifecycle;
mod memory;
mod ordered;
mod restarts;
mod run_folder;
mod streams;
mod survival;
mod user;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use landfall_testing::{Tool, require_or_skip};
use serde_json::Value;

use crate::running_engine::{POLL, RunningEngine};

/// How long anything may take that pods do. Debug builds on a busy machine are slow.
const PATIENCE: Duration = Duration::from_mins(1);

/// Pods that name their command, and one that serves its folder by HTTP where there is a Python.
const IMAGES: &str = "images: [{ image: busybox }]";

/// An engine and a client of it.
struct World {
    engine: RunningEngine,
    kubectl: PathBuf,
    folder: tempfile::TempDir,
}

impl World {
    /// None: there is no kubectl on this machine.
    fn start() -> Option<Self> {
        let kubectl = require_or_skip("kubectl", Tool::Kubectl.locate())?;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let engine = RunningEngine::start(folder.path(), IMAGES, &[]);
        Some(Self { engine, kubectl, folder })
    }

    /// Kills the engine, without a word, and starts it again.
    fn restart_killed(self) -> Self {
        self.restart_killed_after(|| {})
    }

    /// The same; `meanwhile` happens while there is no engine.
    fn restart_killed_after(self, meanwhile: impl FnOnce()) -> Self {
        let Self { engine, kubectl, folder } = self;
        engine.kill();
        meanwhile();
        let engine = RunningEngine::start(folder.path(), IMAGES, &[]);
        Self { engine, kubectl, folder }
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

    /// An object as it is now; `what` is a kind and a name.
    #[track_caller]
    fn get(&self, what: &str) -> Value {
        serde_json::from_str(&self.say(&format!("get {what} -o json"))).expect("kubectl writes JSON")
    }

    /// Waits until an object is as it should be, and says how it is.
    #[track_caller]
    fn until_object(&self, what: &str, fits: impl Fn(&Value) -> bool, expected: &str) -> Value {
        let found = RefCell::new(Value::Null);
        let fits = |said: &str| {
            // What is not yet there is no object.
            found.replace(serde_json::from_str(said).unwrap_or_default());
            fits(&found.borrow())
        };
        self.until_it(&format!("get {what} -o json"), fits, expected);
        found.into_inner()
    }

    /// Waits until the only container of a pod is as it should be, and gives its status.
    #[track_caller]
    fn until_container(&self, pod: &str, fits: impl Fn(&Value) -> bool, expected: &str) -> Value {
        let status = |pod: &Value| pod["status"]["containerStatuses"][0].clone();
        status(&self.until_object(&format!("pod {pod}"), |pod| fits(&status(pod)), expected))
    }

    /// What happened to an object so far, in no order: `3x Warning Unhealthy Liveness probe failed: `.
    #[track_caller]
    fn events(&self, about: &str) -> Vec<String> {
        let events = self.get(&format!("events --field-selector involvedObject.name={about}"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = events["items"].as_array().into_iter().flatten();
        let told = events.map(|event| {
            let [type_, reason, message] = [&event["type"], &event["reason"], &event["message"]].map(text);
            format!("{}x {type_} {reason} {message}", event["count"])
        });
        let mut told: Vec<_> = told.collect();
        told.sort();
        told
    }

    /// Waits until all of these events have been recorded.
    #[track_caller]
    fn until_events(&self, about: &str, expected: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let events = self.events(about);
            if expected.iter().all(|one| events.iter().any(|event| event == one)) {
                return;
            }
            assert!(Instant::now() <= deadline, "{expected:#?} is not in {events:#?}");
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

/// Tells the number of the process. Kubernetes makes one `$` of two.
const TELL_PID: &str = "echo $$$$";

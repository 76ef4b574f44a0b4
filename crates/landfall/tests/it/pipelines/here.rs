//! `landfall pipeline run`: the example's pipeline by Landfall itself, with real bash and git; programs that write down how they
//! were called stand for docker, kubectl, Helm and the programs of the owner.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use landfall_render::Target;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::repository::Repository;
use super::{EXAMPLE, digest_of, rendered};
use crate::example;
use crate::examples::read;
use crate::running_engine::RunningEngine;

/// How long something may take that comes. Debug builds on a busy machine are slow.
const PATIENCE: Duration = Duration::from_mins(2);

const POLL: Duration = Duration::from_millis(20);

/// A test that succeeds, and says so in a report.
const PASSES: &str = "echo '<testsuite tests=\"1\"><testcase name=\"adds\"/></testsuite>' >\"$LANDFALL_REPORTS/junit.xml\"\necho 'one test'";

/// A step that never ends by itself, nor when it is asked to, and says who it is.
const HANGS: &str = "trap '' TERM\nsleep 3600 &\necho $! >\"$FOLDER/sleeps\"\nwait\nwait";

/// The example in a repository, with everything that its steps start.
fn repository() -> Repository {
    let repository = Repository::new(&[]);
    for name in ["landfall.yaml", "claims.yaml"] {
        let text = fs::read_to_string(example(EXAMPLE).join(name)).expect("the example has it");
        repository.write_file(name, &text);
    }
    repository.write(&rendered(EXAMPLE, Target::Helm), Path::new("deploy/helm"));
    for service in ["attendance", "auth", "fraud-engine", "geo", "notification", "report"] {
        repository.write_file(&format!("services/{service}/Dockerfile"), "FROM scratch\n");
    }
    for program in ["lint", "type-check", "integration-test"] {
        repository.program_of_the_owner(program, "");
    }
    repository.program_of_the_owner("unit-test", PASSES);
    for (program, script) in
        [("kubectl", ""), ("helm", "echo \"with $KUBECONFIG\" >>\"$FOLDER/calls\""), ("curl", "echo 200")]
    {
        repository.record(program, script);
    }
    repository
}

fn command(repository: &Repository, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    command
        .args(["pipeline", "run"])
        .args(arguments)
        .current_dir(repository.path())
        .env("PATH", repository.search_path())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env_remove("KUBECONFIG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it; its exit code and what it said.
fn run(repository: &Repository, arguments: &[&str]) -> (Option<i32>, String) {
    let output = command(repository, arguments).output().expect("the program can be started");
    (output.status.code(), said(&output))
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// What was kept of a run.
fn kept(repository: &Repository, run: u32) -> Value {
    let path = repository.path().join(format!(".landfall/pipeline/{run}/run.json"));
    serde_json::from_str(&fs::read_to_string(path).expect("the run was kept")).expect("it is JSON")
}

/// The steps of a run with their states, as `stage / step: state`.
fn states(run: &Value) -> Vec<String> {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of_stage = |stage: Value| {
        let name = text(&stage["name"]);
        let steps = items(&stage["steps"]);
        let state = |step: Value| format!("{name} / {}: {}", text(&step["name"]), text(&step["state"]));
        steps.into_iter().map(state).collect::<Vec<_>>()
    };
    items(&run["stages"]).into_iter().flat_map(of_stage).collect()
}

/// What runs until the test ends it.
struct Running(Option<Child>);

impl Running {
    fn start(repository: &Repository, arguments: &[&str]) -> Self {
        Self(Some(command(repository, arguments).spawn().expect("the program can be started")))
    }

    fn interrupt(&mut self) -> Output {
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

/// The process that a hanging step has started in the background, as soon as there is one.
fn sleeper(repository: &Repository) -> String {
    let path = repository.path().join("../sleeps");
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs::read_to_string(&path) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            _ => assert!(Instant::now() < deadline, "the step has not begun"),
        }
        std::thread::sleep(POLL);
    }
}

/// A process that has ended may wait for its new parent for a moment.
fn is_gone(process: &str) {
    let deadline = Instant::now() + PATIENCE;
    while fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "process {process} has outlived its step");
        std::thread::sleep(POLL);
    }
}

#[test]
fn the_pipeline_runs_here_with_the_commands_of_the_workflow_and_keeps_what_it_did() {
    let repository = repository();
    let commit = repository.commit("the first version");
    let stages = ["lint", "test", "build", "scan", "push"].map(|name| ["--stage", name]).concat();
    let (code, said) = run(&repository, &stages);
    assert_eq!(code, Some(0), "{said}");
    let kept = kept(&repository, 1);
    let expected = [
        "lint / lint: passed",
        "lint / type-check: passed",
        "test / unit-test: passed",
        "test / integration-test: passed",
        "build / build: passed",
        "scan / sast: passed",
        "scan / image-scan: passed",
        "push / push: passed",
    ];
    assert_eq!(states(&kept), expected);
    assert_eq!(kept["revision"], commit.as_str());
    assert_eq!(kept["images"]["auth"], digest_of("docker.io/monitoring/auth", &commit).as_str());
    let test = &kept["stages"][1]["steps"][0];
    assert_eq!(test["tail"], serde_json::json!(["one test"]));
    assert_eq!(test["reports"][0]["says"], "1 tests passed, 0 failed, 0 were skipped");
    assert_eq!(test["reports"][0]["passed"], true);
    // The workflow of GitHub has the same commands, with its own name for the commit.
    let workflow: Value = serde_saphyr::from_str(&rendered(EXAMPLE, Target::Github)[".github/workflows/delivery.yml"])
        .expect("it is YAML");
    for stage in kept["stages"].as_array().expect("there are stages") {
        for step in stage["steps"].as_array().expect("there are steps") {
            let job = &workflow["jobs"][stage["name"].as_str().expect("it has a name")];
            let theirs = job["steps"].as_array().into_iter().flatten().find(|theirs| theirs["name"] == step["name"]);
            let theirs = theirs.and_then(|theirs| theirs["run"].as_str()).unwrap_or_default();
            let ours = step["command"].as_str().unwrap_or_default();
            assert_eq!(ours, theirs.replace("$GITHUB_SHA", "$LANDFALL_REVISION"), "{}", step["name"]);
        }
    }
    // What a run leaves behind is no change; a new file is, and no image is called by the commit then.
    repository.write_file("services/auth/new.txt", "new");
    let (code, said) = run(&repository, &["--stage", "build"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(self::kept(&repository, 2)["revision"], format!("{commit}-uncommitted"));
}

#[test]
fn a_step_that_fails_ends_the_run_says_how_to_run_it_alone_and_the_next_run_goes_on_from_there() {
    let repository = repository();
    repository
        .program_of_the_owner("unit-test", "[ ! -e \"$FOLDER/broken\" ] || { echo 'adds: 2 is not 3' >&2; exit 3; }");
    repository.commit("a version");
    let broken = repository.path().join("../broken");
    fs::write(&broken, "").expect("a file can be written");
    let (code, said) = run(&repository, &["--stage", "lint", "--stage", "test", "--stage", "build"]);
    assert_eq!(code, Some(1), "{said}");
    let expected = [
        "lint / lint: passed",
        "lint / type-check: passed",
        "test / unit-test: failed",
        "test / integration-test: planned",
        "build / build: planned",
    ];
    assert_eq!(states(&kept(&repository, 1)), expected);
    for part in [
        "error: step `unit-test` of stage `test` failed with exit code 3\n  | adds: 2 is not 3\n",
        "hint: go on from there: landfall pipeline run --from test\n",
    ] {
        assert!(said.contains(part), "{said}");
    }
    // The command that is told does it alone.
    let alone = said.lines().find_map(|line| line.strip_prefix("hint: run it alone: ")).expect("it is told");
    let ran = Command::new("sh").args(["-c", alone]).env("PATH", repository.search_path()).output();
    assert_eq!(ran.expect("there is a shell").status.code(), Some(3), "{alone}");

    fs::remove_file(&broken).expect("it was written");
    repository.forget_calls();
    let (code, said) = run(&repository, &["--from", "test", "--env", "nowhere"]);
    assert_eq!(code, Some(2), "{said}");
    // It goes on until it would need a cluster, which nobody has named.
    let (code, said) = run(&repository, &["--from", "test"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("error: stage `staging`: which cluster?"), "{said}");
    assert_eq!(repository.calls()[..2], ["ci/unit-test ", "ci/integration-test "]);
    let second = kept(&repository, 2);
    assert_eq!(second["continues"], 1);
    assert_eq!(second["state"], "failed");
}

#[test]
fn a_step_that_hangs_ends_with_everything_that_it_has_started_when_its_time_is_over() {
    let repository = repository();
    repository.program_of_the_owner("unit-test", HANGS);
    repository.commit("a version that hangs");
    let (code, said) = run(&repository, &["--stage", "test", "--limit", "2s"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("error: step `unit-test` of stage `test` timed out\n"), "{said}");
    assert_eq!(states(&kept(&repository, 1)), ["test / unit-test: timed-out", "test / integration-test: planned"]);
    is_gone(&sleeper(&repository));
}

#[test]
fn ctrl_c_ends_the_step_with_everything_that_it_has_started_and_the_run_says_so() {
    let repository = repository();
    repository.program_of_the_owner("unit-test", HANGS);
    repository.commit("a version that hangs");
    let mut running = Running::start(&repository, &["--stage", "test"]);
    let sleeper = sleeper(&repository);
    // Nobody else runs it here meanwhile.
    let (code, other) = run(&repository, &["--stage", "lint"]);
    assert_eq!(code, Some(1), "{other}");
    assert!(other.starts_with("error: the pipeline runs here already\n"), "{other}");
    let output = running.interrupt();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(states(&kept(&repository, 1)), ["test / unit-test: interrupted", "test / integration-test: planned"]);
    assert_eq!(kept(&repository, 1)["state"], "interrupted");
    is_gone(&sleeper);
}

#[test]
fn a_run_that_was_killed_is_told_to_have_been_and_nobody_is_kept_out() {
    let repository = repository();
    repository.program_of_the_owner("unit-test", "echo $$ >\"$FOLDER/sleeps\"\nexec sleep 3600");
    repository.commit("a version that hangs");
    let running = Running::start(&repository, &["--stage", "test"]);
    let sleeper = sleeper(&repository);
    assert_eq!(kept(&repository, 1)["state"], "running");
    drop(running);
    let (code, said) = run(&repository, &["--stage", "lint"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(kept(&repository, 1)["state"], "interrupted");
    // Who is killed cannot end its step.
    kill(Pid::from_raw(sleeper.parse().expect("it is a number")), Signal::SIGKILL).expect("it is running");
}

#[test]
fn a_deployment_goes_to_the_named_cluster_is_taken_back_when_a_step_after_it_fails_and_production_waits() {
    let repository = repository();
    repository.commit("a version");
    let config = repository.path().join("../kubeconfig");
    let text = "{apiVersion: v1, kind: Config, current-context: prod, clusters: [], users: [], contexts: []}";
    fs::write(&config, text).expect("a file can be written");
    let config = config.to_str().expect("temporary folders have plain names");
    let (code, said) = run(&repository, &["--stage", "staging", "--stage", "production", "--kubeconfig", config]);
    assert_eq!(code, Some(2), "one cluster is not that of two environments: {said}");

    let (code, said) = run(&repository, &["--from", "push", "--kubeconfig", config, "--env", "staging"]);
    assert_eq!(code, Some(0), "{said}");
    let calls = repository.calls();
    assert!(calls.contains(&format!("with {config}")), "{calls:#?}");

    repository.let_the_attack_succeed(true);
    repository.forget_calls();
    let (code, said) = run(&repository, &["--stage", "staging", "--kubeconfig", config]);
    assert_eq!(code, Some(1), "{said}");
    let expected =
        ["staging / deploy: passed", "staging / smoke: passed", "staging / dast: failed", "staging / rollback: passed"];
    assert_eq!(states(&kept(&repository, 2)), expected);
    let helm: Vec<String> = repository
        .calls()
        .iter()
        .filter_map(|call| call.strip_prefix("helm ")?.split(' ').next().map(str::to_owned))
        .collect();
    assert_eq!(helm, ["upgrade", "rollback"]);

    // The smoke test of a version that was not deployed takes nothing back.
    repository.record("helm", "exit 1");
    repository.forget_calls();
    let (code, said) = run(&repository, &["--stage", "staging", "--kubeconfig", config]);
    assert_eq!(code, Some(1), "{said}");
    assert!(!repository.calls().iter().any(|call| call.starts_with("helm rollback")), "{:#?}", repository.calls());

    // The stage behind the approval begins when somebody names it.
    let named = config;
    let config = ["--kubeconfig", named, "--env", "production"];
    let (code, said) = run(&repository, &[&["--from", "push"], &config[..]].concat());
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&format!(
            "stage `approval` waits for an approval\nhint: go on from there: landfall pipeline run --env production --kubeconfig {named} --from approval"
        )),
        "{said}"
    );
    repository.record("helm", "");
    let (code, said) = run(&repository, &[&["--from", "approval"], &config[..]].concat());
    assert_eq!(code, Some(0), "{said}");
    let run = kept(&repository, 5);
    assert!(run["stages"][0]["approved_by"].as_str().is_some_and(|by| by.starts_with("landfall on ")), "{run:#}");
}

#[test]
fn the_reports_of_a_run_are_evidence_for_the_gates_unless_somebody_has_changed_them() {
    let repository = repository();
    let (code, said) = run(&repository, &["--stage", "test"]);
    assert_eq!(code, Some(0), "{said}");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let engine = RunningEngine::api_only(folder.path());
    let architecture = read(&repository.path()).architecture(Some("production")).expect("it is an architecture");
    let namespace = architecture.namespace().to_string();
    tokio::runtime::Runtime::new().expect("threads can be started").block_on(async {
        let namespaces = Api::<Namespace>::all(engine.client().await);
        let own = Namespace {
            metadata: ObjectMeta { name: Some(namespace), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        namespaces.create(&PostParams::default(), &own).await.expect("it is valid");
    });
    let attest = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
        command.args([
            "attest",
            "tests-passed",
            "--env",
            "production",
            "--seen-in",
            "staging",
            "--run",
            "1",
            "--output",
            "json",
        ]);
        command.arg("--kubeconfig").arg(engine.kubeconfig()).current_dir(repository.path()).stdin(Stdio::null());
        command.output().expect("the program can be started")
    };
    let output = attest();
    assert_eq!(output.status.code(), Some(0), "{}", self::said(&output));
    let evidence: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let piece = &evidence["evidence"][0];
    let report = &kept(&repository, 1)["stages"][0]["steps"]
        .as_array()
        .expect("there are steps")
        .iter()
        .find_map(|step| step["reports"].get(0).cloned())
        .expect("a step has a report");
    assert_eq!((&piece["passed"], &piece["report"]), (&Value::Bool(true), &report["digest"]), "{evidence:#}");

    let file = repository.path().join(".landfall/pipeline/1").join(report["file"].as_str().expect("it is a path"));
    fs::write(&file, "<testsuite tests=\"2\"><testcase name=\"adds\"/><testcase name=\"more\"/></testsuite>")
        .expect("it can be written");
    let output = attest();
    assert_eq!(output.status.code(), Some(2), "{}", self::said(&output));
    assert!(self::said(&output).contains("is not what the run has kept"), "{}", self::said(&output));
}

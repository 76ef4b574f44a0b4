//! `landfall pipeline run`: the example's pipeline by Landfall itself, with real bash and git; programs that write down how they
//! were called stand for docker, kubectl, Helm and the programs of the owner.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
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
use crate::platform::Running;
use crate::running_engine::RunningEngine;
use crate::ship::notices::{Answer, Receiver};

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

/// What the runs so far have shown of the claims.
fn shown(repository: &Repository) -> BTreeMap<String, bool> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    let output = command.args(["claims", "--output", "json"]).current_dir(repository.path()).output();
    let output = output.expect("the program can be started");
    let claims: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let measured = items(&claims["claims"]).into_iter().flat_map(|claim| items(&claim["measured_here"]));
    measured.map(|one| (one["what"].as_str().unwrap_or_default().to_owned(), one["held"] == true)).collect()
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
    let mut running = Running::start(command(&repository, &["--stage", "test"]));
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
    let running = Running::start(command(&repository, &["--stage", "test"]));
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
    let expected = [
        ("ship: digests", true),
        ("ship: rollback", true),
        ("ship: rollback staging", true),
        ("ship: scan", false),
        ("ship: smoke", true),
        ("ship: staging", false),
    ];
    assert_eq!(shown(&repository), BTreeMap::from(expected.map(|(what, held)| (what.to_owned(), held))));

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

#[test]
fn whoever_is_to_be_told_of_a_failure_learns_whose_commit_it_was_and_what_is_left_is_sent_by_the_next_run() {
    let repository = repository();
    let text = fs::read_to_string(repository.path().join("landfall.yaml")).expect("the example has it");
    let list = "delivery:
  notify:
    - { to: developers, file: told.jsonl, on: [failed] }
    - { to: the chat,   webhook: chat/url }
    - { to: managers,   file: never.jsonl, on: [rolled-back] }
";
    let text = text
        .replace("\ndelivery:\n", &format!("\n{list}"))
        .replace("    items:\n", "    items:\n      chat: { keys: [url] }\n");
    repository.write_file("landfall.yaml", &text);
    repository.program_of_the_owner("unit-test", "echo 'nothing adds up'; exit 3");
    let commit = repository.commit("a commit that breaks something");
    let (code, said) = run(&repository, &["--stage", "test"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("the variable `CHAT_URL` is not set, which has the secret `chat/url` in a pipeline"),
        "{said}"
    );
    assert!(said.contains("hint: the next run of the pipeline sends the messages that are left"), "{said}");
    let lines = fs::read_to_string(repository.path().join("told.jsonl")).expect("the file was written");
    let told: Value = serde_json::from_str(&lines).expect("it is one message");
    let news = &told["pipeline"];
    assert_eq!(
        (&told["event"], &told["to"], &news["revision"]),
        (&"failed".into(), &"developers".into(), &commit.into())
    );
    assert_eq!((&news["stage"], &news["step"], &news["exit_code"]), (&"test".into(), &"unit-test".into(), &3.into()));
    assert_eq!(news["said"], serde_json::json!(["nothing adds up"]));
    assert!(news["author"]["email"].as_str().is_some_and(|email| email.contains('@')), "{told:#}");
    assert!(!repository.path().join("never.jsonl").exists());
    let receipts = |run: u32| {
        let kept = kept(&repository, run);
        let notices = kept["notices"].as_array().cloned().unwrap_or_default();
        notices
            .iter()
            .map(|notice| notice["receipt"].as_object().expect("it has one").keys().next().cloned())
            .collect::<Vec<_>>()
    };
    assert_eq!(receipts(1), [Some("sent".to_owned()), Some("toSend".to_owned())]);

    let receiver = Receiver::start(&[Answer::Status(200)]);
    repository.program_of_the_owner("unit-test", PASSES);
    let output = command(&repository, &["--stage", "test"]).env("CHAT_URL", &receiver.url).output();
    let output = output.expect("the program can be started");
    assert_eq!(output.status.code(), Some(0), "{}", self::said(&output));
    let received = receiver.received();
    assert_eq!((received.len(), &received[0].body["pipeline"]["run"]), (1, &1.into()), "{received:?}");
    assert_eq!(received[0].body["id"], received[0].id.as_str());
    assert_eq!(receipts(1), [Some("sent".to_owned()), Some("sent".to_owned())]);
}

#[test]
fn a_smoke_test_tries_every_route_and_says_which_failed() {
    let repository = Repository::new(&[]);
    repository.write_file(
        "landfall.yaml",
        "landfall: v1
name: shop
services:
  web: { port: 8080, image: shop/web:1, expose: { host: shop.example } }
  stock: { port: 8080, image: shop/stock:1, expose: { host: stock.example } }
  mail: { port: 8080, image: shop/mail:1, expose: { host: mail.example } }
environments: { staging: {} }
delivery: { pipeline: { runner: github, stages: [{ name: smoke, steps: [smoke], environment: staging }] } }
",
    );
    let answers = "case \"$*\" in *shop.example*) echo 503 ;; *mail.example*) exit 7 ;; *) echo 404 ;; esac";
    repository.record("curl", answers);
    let (code, said) = run(&repository, &[]);
    assert_eq!(code, Some(1), "{said}");
    let log = fs::read_to_string(repository.path().join(".landfall/pipeline/1/smoke-smoke.log")).expect("it has one");
    insta::assert_snapshot!(log, @"
    000 http://mail.example/
    503 http://shop.example/
    404 http://stock.example/
    no answer, or one that says the server failed:
      000 http://mail.example/
      503 http://shop.example/
    ");
}

#[test]
fn a_step_that_tells_people_says_it_in_their_form_and_fails_nothing_when_they_do_not_listen() {
    let repository = Repository::new(&[]);
    repository.write_file(
        "landfall.yaml",
        "landfall: v1
name: shop
environments: { staging: {} }
delivery:
  notify: [{ to: 'the \"chat\" of $USER', webhook: chat/url }]
  pipeline: { runner: github, stages: [{ name: told, steps: [notify] }] }
security: { secrets: { items: { chat: { keys: [url] } } } }
",
    );
    repository
        .record("curl", "for word; do case $word in {*) echo \"$word\" >\"$FOLDER/message\" ;; esac; done; exit 22");
    let commit = repository.commit("a version");
    let output = command(&repository, &[]).env("CHAT_URL", "https://chat.example/T0").output();
    let output = output.expect("the program can be started");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let message = fs::read_to_string(repository.path().join("../message")).expect("somebody was told");
    let message: Value = serde_json::from_str(&message).unwrap_or_else(|error| panic!("{error}: {message}"));
    let expected = serde_json::json!({
        "version": 1, "id": format!("shop/told/{commit}/succeeded/0"), "event": "succeeded", "to": "the \"chat\" of $USER",
        "architecture": "shop", "text": format!("shop: the pipeline has got to told, revision {commit}"),
    });
    assert_eq!(message, expected);
}

//! GitLab's pipeline, by a real runner of such pipelines on this machine.
//!
//! Not handled: that production waits for the approval, and that the author is told. The runner neither holds back what
//! follows a manual job that may not fail, nor runs a job of `.post` after a failure; GitLab does both.

#![expect(clippy::print_stdout, reason = "what a job said is for people who read a failure")]

use std::path::Path;
use std::process::Command;

use landfall_render::Target;
use landfall_testing::{Tool, require_or_skip};
use serde_json::Value;

use super::rendered;
use super::repository::Repository;

const EXAMPLE: &str = "mindcompute";

/// Every request is answered; curl prints the status as it is asked to.
const CURL: &str = "echo 200";

/// A registry that takes a chart says by which digest.
const HELM: &str = "[ \"$1\" != push ] || echo \"Digest: sha256:1\"";

/// What the runner said, and whether it was content.
struct Ran {
    succeeded: bool,
    said: String,
}

impl Ran {
    /// The jobs with their results, in the order of the pipeline: `PASS build`.
    fn jobs(&self) -> Vec<String> {
        let results =
            self.said.lines().map(str::trim).filter(|line| line.starts_with("PASS ") || line.starts_with("FAIL "));
        // A job that fails has its exit code and what it said behind its name.
        results.map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect()
    }
}

/// A repository with the pipeline, and what its jobs start.
fn repository() -> Repository {
    let repository = Repository::new(&[]);
    let pipeline = rendered(EXAMPLE, Target::Gitlab);
    repository.write(&pipeline, Path::new(""));
    for program in ["compile", "unit-test", "integration-test", "contract-test", "end-to-end-test", "performance-test"]
    {
        repository.program_of_the_owner(program, "");
    }
    for service in
        ["api-gateway", "evaluation", "interview", "nightly-report", "notification", "scheduling", "web-frontend"]
    {
        repository.write_file(&format!("services/{service}/Dockerfile"), "FROM scratch\n");
    }
    for (program, script) in [("kubectl", ""), ("helm", HELM), ("landfall", ""), ("curl", CURL)] {
        repository.record(program, script);
    }
    repository.git(&["remote", "add", "origin", "git@gitlab.com:mindcompute/mindcompute.git"]);
    repository
}

/// Each job in a folder of its own, with the artifacts of those before it.
const APART: &str = "--shell-isolation";

/// Runs the jobs.
fn run(repository: &Repository, runner: &Path, arguments: &[&str]) -> Ran {
    let home = repository.run_folder();
    let variables = ["CI_REGISTRY_USER=user", "CI_REGISTRY_PASSWORD=secret", "CLUSTER_TOKEN=token"];
    let output = Command::new("node")
        .arg(runner)
        // The image of the jobs is the project's own.
        .args(["--force-shell-executor", "--no-color"])
        // Whether a push has changed something is asked of the real GitLab; here everything is new.
        .arg("--no-evaluate-rule-changes")
        .args(variables.iter().flat_map(|variable| ["--variable", variable]))
        .args(arguments)
        .current_dir(repository.path())
        .env("PATH", repository.search_path())
        .env("HOME", home.path())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("node can be started");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    println!("{said}");
    assert!(said.contains("json schema validated"), "the file was not held against the schema:\n{said}");
    Ran { succeeded: output.status.success(), said }
}

/// The first two words of what was called, each once where it is repeated.
fn in_short(calls: &[String]) -> Vec<String> {
    let mut short: Vec<String> =
        calls.iter().map(|call| call.split(' ').take(2).collect::<Vec<_>>().join(" ").trim_end().to_owned()).collect();
    short.dedup();
    short
}

#[test]
fn gitlabs_pipeline_runs_in_its_order_and_deploys_by_digest() {
    let Some(runner) = require_or_skip("gitlab-ci-local", Tool::GitlabCiLocal.locate()) else { return };
    let repository = repository();
    repository.commit("the first version");
    let ran = run(&repository, &runner, &[APART, "--manual", "pre-production-approved"]);
    assert!(ran.succeeded, "{}", ran.said);
    let jobs = [
        "PASS build",
        "PASS development",
        "PASS test",
        "PASS validation",
        "PASS pre-production",
        "PASS pre-production-approved",
        "PASS production",
    ];
    assert_eq!(ran.jobs(), jobs);
    let calls = repository.calls();
    let deploys: Vec<&str> = calls
        .iter()
        .filter(|call| call.starts_with("helm upgrade "))
        .filter_map(|call| call.split("values-").nth(1)?.split(".yaml").next())
        .collect();
    assert_eq!(deploys, ["development", "qa", "staging"]);
    let version = format!("0.1.0-g{}", repository.git(&["rev-parse", "HEAD"]).trim());
    let pushed = format!("helm push digests/mindcompute-{version}.tgz oci://registry.gitlab.com/mindcompute/charts");
    assert!(calls.iter().any(|call| call.trim_end() == pushed), "the chart is pushed beside the images: {calls:#?}");
    let digest = super::digest_of("registry.gitlab.com/mindcompute/interview", &repository.git(&["rev-parse", "HEAD"]));
    let deployed = format!("--set-string interview.image={digest} ");
    let by_digest = calls.iter().filter(|call| call.starts_with("helm upgrade ") && call.contains(&deployed)).count();
    assert_eq!(by_digest, 3, "every environment gets what was pushed, by {digest}: {calls:#?}");
    let shipped: Vec<&String> = calls.iter().filter(|call| call.starts_with("landfall ")).collect();
    let [shipped] = shipped[..] else { panic!("production is shipped once: {calls:#?}") };
    assert!(shipped.starts_with("landfall ship --env production --kubeconfig "), "{shipped}");
    assert!(shipped.contains(&format!("--image interview={digest} ")), "{shipped}");
    assert!(!shipped.contains("nightly-report"), "a scheduled job is no Deployment: {shipped}");
}

#[test]
fn a_job_of_gitlabs_that_fails_takes_its_deployment_back_and_nothing_follows() {
    let Some(runner) = require_or_skip("gitlab-ci-local", Tool::GitlabCiLocal.locate()) else { return };
    let repository = repository();
    repository.program_of_the_owner("integration-test", "exit 3");
    repository.commit("a version that fails its tests");
    // Not apart: the runner would run what comes after a job in another folder than the job, which GitLab does not.
    let ran = run(&repository, &runner, &["--manual", "pre-production-approved"]);
    assert!(!ran.succeeded, "{}", ran.said);
    let jobs: Vec<String> = ran.jobs();
    assert!(jobs.contains(&"FAIL test".to_owned()) && !jobs.iter().any(|job| job.ends_with(" validation")), "{jobs:?}");
    let calls = in_short(&repository.calls());
    let after: Vec<&str> =
        calls.iter().skip_while(|call| *call != "ci/integration-test qa").map(String::as_str).collect();
    assert_eq!(after, ["ci/integration-test qa", "helm rollback"], "{calls:#?}");
}

#[test]
fn gitlabs_schema_takes_the_pipeline_of_every_example_that_has_one() {
    let Some(runner) = require_or_skip("gitlab-ci-local", Tool::GitlabCiLocal.locate()) else { return };
    for name in ["balance-alerts", "attendance-monitoring", "composerp", "mindcompute"] {
        let repository = Repository::new(&[]);
        repository.write(&rendered(name, Target::Gitlab), Path::new(""));
        repository.git(&["remote", "add", "origin", "git@gitlab.com:shop/platform.git"]);
        repository.commit("the pipeline");
        let ran = run(&repository, &runner, &["--list"]);
        assert!(ran.succeeded, "{name}: {}", ran.said);
    }
}

#[test]
fn a_pipeline_begins_when_something_that_it_delivers_is_pushed_and_its_schedule_only_scans() {
    let text = rendered("attendance-monitoring", Target::Gitlab);
    let pipeline: Value = serde_saphyr::from_str(&text[".gitlab-ci.yml"]).expect("it is YAML");
    let rules = &pipeline["workflow"]["rules"];
    assert_eq!(rules[0]["if"], "$CI_PIPELINE_SOURCE == \"push\" && $CI_COMMIT_BRANCH == \"main\"");
    assert_eq!(rules[0]["changes"][0], "services/attendance/**");
    assert_eq!(rules[0]["changes"].as_array().and_then(|paths| paths.last()), Some(&Value::from(".gitlab-ci.yml")));
    let scheduled = "$CI_PIPELINE_SOURCE == \"schedule\"";
    assert_eq!(rules[2]["if"], scheduled);
    let jobs =
        pipeline.as_object().expect("a pipeline is a mapping").iter().filter(|(_, job)| job["script"].is_array());
    for (name, job) in jobs {
        let scans = name.starts_with("scheduled-");
        let expected = if scans { scheduled } else { "$CI_PIPELINE_SOURCE != \"schedule\"" };
        // Who is told of a failure is told of no other job's than those that it needs.
        assert!(job["rules"][0]["if"] == expected || name == "notify-author", "{name}: {job}");
    }
}

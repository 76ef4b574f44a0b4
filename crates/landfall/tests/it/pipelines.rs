//! The rendered pipelines run on this machine, their shell steps in their order.
//!
//! GitHub's workflow deploys to two engines, one for each environment, with real kubectl, Helm, curl, jq and git: the chart
//! is installed, upgraded and rolled back, and the smoke test goes through the gateway to the pods. GitLab's pipeline is run
//! by gitlab-ci-local, after it has held the file against GitLab's schema; kubectl, Helm and curl only write down there how
//! they were called, as the commands are the same. Programs that write down how they were called stand for what no test has:
//! `docker`, `gh`, and the programs in `ci/` that only the owner of the code can write.

mod cluster;
mod gitlab;
mod here;
mod identity;
mod repository;
mod workflow;

use std::collections::BTreeMap;
use std::path::Path;

use landfall_render::{Target, Variant};
use landfall_testing::{Schemas, Tool, require_or_skip};

use crate::engine_examples::which;
use crate::example;
use crate::examples::read;
use cluster::Cluster;
use identity::Issuer;
use repository::Repository;
use workflow::Runner;

const EXAMPLE: &str = "attendance-monitoring";

/// What a green commit does.
const GREEN: [&str; 22] = [
    "lint / lint: 0",
    "lint / type-check: 0",
    "test / unit-test: 0",
    "test / integration-test: 0",
    "build / build: 0",
    "build / save: 0",
    "scan / load: 0",
    "scan / sast: 0",
    "scan / image-scan: 0",
    "push / load: 0",
    "push / push: 0",
    "staging / sign in: 0",
    "staging / deploy: 0",
    "staging / smoke: 0",
    "staging / dast: 0",
    "staging / rollback: skipped",
    "approval / approval: 0",
    "production / sign in: 0",
    "production / deploy: 0",
    "production / verify: 0",
    "production / rollback: skipped",
    "notify-author: skipped",
];

/// The files of an example for a target.
pub(crate) fn rendered(example_name: &str, target: Target) -> BTreeMap<String, String> {
    let file = read(&example(example_name));
    let architecture = |name: &String| file.architecture(Some(name)).expect("the example is an architecture");
    let variants: Vec<Variant> = file.environments().iter().map(architecture).map(Variant::new).collect();
    landfall_render::render(target, &variants, file.sources()).files
}

/// By which digest the recording `docker` says that an image was pushed.
fn digest_of(image: &str, commit: &str) -> String {
    let output = std::process::Command::new("sh")
        .args(["-c", "printf %s \"$0\" | sha256sum | cut -d' ' -f1", &format!("{image}:{commit}")])
        .output()
        .expect("there is a shell");
    format!("{image}@sha256:{}", String::from_utf8_lossy(&output.stdout).trim())
}

#[test]
fn githubs_workflow_delivers_a_commit_takes_a_bad_one_back_and_tells_the_author_of_a_broken_one() {
    let Some(schemas) = require_or_skip("the schemas of Kubernetes", Schemas::locate()) else { return };
    let python = which("/usr/bin/python3").or_else(|| which("python3"));
    let Some(python) = require_or_skip("python3", python.ok_or("it is not on PATH")) else { return };
    let Some(kubectl) = require_or_skip("kubectl", Tool::Kubectl.locate()) else { return };
    let Some(helm) = require_or_skip("helm", Tool::OldHelm.locate()) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");

    let file = read(&example(EXAMPLE));
    let start = |environment| Cluster::start(&file, environment, &schemas, &python, &kubectl, &runtime);
    let clusters = BTreeMap::from(["staging", "production"].map(|name| (name, start(name))));
    let issuer = Issuer::start(clusters.iter().map(|(name, cluster)| ((*name).to_owned(), cluster.token())).collect());

    let repository = Repository::new(&[("kubectl", kubectl.as_path()), ("helm", helm.as_path())]);
    repository.write(&rendered(EXAMPLE, Target::Github), Path::new(""));
    repository.write(&rendered(EXAMPLE, Target::Helm), Path::new("deploy/helm"));
    let services = ["attendance", "auth", "fraud-engine", "geo", "notification", "report"];
    for service in services {
        repository.write_file(&format!("services/{service}/Dockerfile"), "FROM scratch\n");
    }
    for program in ["lint", "type-check", "unit-test", "integration-test"] {
        repository.program_of_the_owner(program, "");
    }
    let runner = Runner { repository: &repository, clusters: &clusters, issuer: &issuer };
    let image = "docker.io/monitoring/auth";

    let first = repository.commit("the first version");
    assert_eq!(runner.run(".github/workflows/delivery.yml"), GREEN);
    for (environment, namespace) in [("staging", "attendance-staging"), ("production", "attendance-monitoring")] {
        let runs = clusters[environment].image_of("auth", namespace);
        assert_eq!(runs, digest_of(image, &first), "{environment} runs what was pushed");
    }
    let calls = repository.calls();
    for verb in ["build", "push", "inspect"] {
        let of_verb = calls.iter().filter(|call| call.starts_with(&format!("docker {verb} "))).count();
        assert_eq!(of_verb, services.len(), "one `docker {verb}` for each service: {calls:#?}");
    }
    assert_eq!(calls.iter().filter(|call| call.contains("zap-baseline.py")).count(), 1, "{calls:#?}");

    // What the scanner of the running platform finds comes after the deployment, so that it is taken back.
    repository.write_file("services/auth/Dockerfile", "FROM scratch\nLABEL version=2\n");
    repository.commit("the second version");
    repository.let_the_attack_succeed(true);
    let ran = runner.run(".github/workflows/delivery.yml");
    let staging: Vec<&str> = ran.iter().skip_while(|line| *line != "staging / deploy: 0").map(String::as_str).collect();
    let taken_back = [
        "staging / deploy: 0",
        "staging / smoke: 0",
        "staging / dast: 1",
        "staging / rollback: 0",
        "approval: skipped",
        "production: skipped",
        "notify-author: skipped",
    ];
    assert_eq!(staging, taken_back, "{ran:#?}");
    for (environment, namespace) in [("staging", "attendance-staging"), ("production", "attendance-monitoring")] {
        let runs = clusters[environment].image_of("auth", namespace);
        assert_eq!(runs, digest_of(image, &first), "{environment} runs the first version again");
    }
    assert_eq!(clusters["staging"].releases(&helm, EXAMPLE), ["superseded", "superseded", "deployed"]);
    repository.let_the_attack_succeed(false);

    // A test that fails ends it before anything is built, and the author is told.
    repository.program_of_the_owner("unit-test", "exit 1");
    repository.commit("a broken version");
    repository.forget_calls();
    let ran = runner.run(".github/workflows/delivery.yml");
    let broken = [
        "lint / lint: 0",
        "lint / type-check: 0",
        "test / unit-test: 1",
        "test / integration-test: skipped",
        "build: skipped",
        "scan: skipped",
        "push: skipped",
        "staging: skipped",
        "approval: skipped",
        "production: skipped",
        "notify-author / notify: 0",
    ];
    assert_eq!(ran, broken);
    let calls = repository.calls();
    assert!(!calls.iter().any(|call| call.starts_with("docker ")), "{calls:#?}");
    assert!(calls.last().is_some_and(|call| call.starts_with("gh api repos/")), "{calls:#?}");
}

//! What a pipeline's steps do where something that they need is not there: the rendered lines, run by `bash`.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the crate starts nothing and reads no disk, but a test that runs what it renders has to"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use landfall_render::{Target, Variant, pipeline, render};

const SERVICES: &str = "services:
  web: { port: 8080, image: web:1, build: src/web }
  nightly: { kind: scheduled-job, schedule: '0 2 * * *', image: nightly:1, build: src/nightly }
environments: { production: { production: true } }
";

fn with(rollout: &str, stages: &str) -> (Vec<Variant>, landfall_model::File) {
    let text = format!("{SERVICES}delivery:\n{rollout}  pipeline:\n    runner: github\n    stages:\n{stages}");
    let file = crate::architecture::read(&text);
    let architecture = file.architecture(Some("production"));
    let architecture = architecture.unwrap_or_else(|findings| panic!("the test's file is wrong: {findings:#?}"));
    (vec![Variant::new(architecture)], file)
}

/// The lines of the last stage's step `deploy`.
fn deploy(stages: &str) -> String {
    let stages = pipeline(&with("", stages).0).expect("there is a pipeline");
    let steps = &stages.last().expect("it has stages").steps;
    steps.iter().find(|step| step.name == "deploy").expect("it deploys").run.clone()
}

fn findings(rollout: &str, stages: &str) -> Vec<String> {
    let (variants, file) = with(rollout, stages);
    let findings = render(Target::Github, &variants, file.sources()).findings;
    findings.into_iter().map(|finding| finding.message).collect()
}

/// What `helm` and `landfall` are called with, or what is said when the lines fail.
fn run(lines: &str, digests: &[(&str, &str)]) -> Result<String, String> {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    fs::create_dir(folder.path().join("digests")).expect("a folder can be made");
    for (service, text) in digests {
        fs::write(folder.path().join("digests").join(service), format!("{text}\n")).expect("a file can be written");
    }
    for program in ["helm", "landfall"] {
        let path = folder.path().join(program);
        fs::write(&path, format!("#!/bin/sh\necho {program} \"$@\"\n")).expect("a file can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it can be made a program");
    }
    let output = Command::new("bash")
        .args(["--noprofile", "--norc", "-eo", "pipefail", "-c", lines])
        .current_dir(folder.path())
        .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
        .env("HOME", "/home/user")
        .env_remove("KUBECONFIG")
        .output()
        .expect("bash can be started");
    assert_eq!(output.status.success(), folder.path().join("deployed").exists());
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(said.trim().to_owned()) } else { Err(failed.trim().to_owned()) }
}

const BUILT: &str = "    - { name: build, steps: [build, push] }\n";
const BY_HELM: &str = "    - { name: release, environment: production, steps: [deploy] }\n";
const BY_SHIP: &str = "    - { name: release, environment: production, deploy-by: ship, steps: [deploy] }\n";

/// As `push` writes them down.
const DIGESTS: [(&str, &str); 2] = [("web", "web.image=web@sha256:1"), ("nightly", "nightly.image=nightly@sha256:2")];

#[test]
fn helm_gets_every_digest_that_was_pushed() {
    let called = run(&deploy(&format!("{BUILT}{BY_HELM}")), &DIGESTS);
    let expected = "helm upgrade --install shop deploy/helm --namespace default --values deploy/helm/values-production.yaml --set-string nightly.image=nightly@sha256:2 --set-string web.image=web@sha256:1 --atomic --wait --timeout 10m";
    assert_eq!(called, Ok(expected.to_owned()));
}

#[test]
fn a_digest_that_is_missing_is_named_before_anything_is_deployed() {
    let lines = deploy(&format!("{BUILT}{BY_HELM}"));
    let expected = "no digest of web: a stage with the step push has to run first";
    assert_eq!(run(&lines, &DIGESTS[1..]), Err(expected.to_owned()));
}

#[test]
fn where_nothing_is_pushed_the_images_of_the_file_are_deployed_and_that_is_said() {
    let expected = "helm upgrade --install shop deploy/helm --namespace default --values deploy/helm/values-production.yaml --atomic --wait --timeout 10m";
    assert_eq!(run(&deploy(BY_HELM), &[]), Ok(expected.to_owned()));
    let said = "`release` deploys no image that this pipeline has built";
    assert!(findings("", BY_HELM).contains(&said.to_owned()));
    assert!(!findings("", &format!("{BUILT}{BY_HELM}")).contains(&said.to_owned()));
}

#[test]
fn ship_gets_the_images_of_deployments_and_the_cluster_of_the_job() {
    let called = run(&deploy(&format!("{BUILT}{BY_SHIP}")), &DIGESTS);
    let expected = "landfall ship --env production --kubeconfig /home/user/.kube/config --image web=web@sha256:1";
    assert_eq!(called, Ok(expected.to_owned()));
}

#[test]
fn what_one_job_builds_pushes_and_deploys_is_not_looked_for_among_artifacts() {
    let stages = "    - { name: all, environment: production, steps: [build, push, deploy] }\n";
    let (variants, file) = with("", stages);
    let files = render(Target::Github, &variants, file.sources()).files;
    let workflow = &files[".github/workflows/delivery.yml"];
    assert!(!workflow.contains("download-artifact"), "{workflow}");
    assert!(run(&deploy(stages), &DIGESTS).is_ok());
}

#[test]
fn a_canary_that_helm_would_bring_at_once_is_said() {
    let canary = "  rollout: { canary: { steps: [10%, 50%] } }\n";
    let said = "`release` deploys `web` copy by copy and not by canary".to_owned();
    assert!(findings(canary, BY_HELM).contains(&said));
    assert!(!findings("", BY_HELM).contains(&said));
    assert!(!findings(canary, BY_SHIP).contains(&said));
}

#[test]
fn a_chart_is_pushed_beside_the_images_where_the_registry_has_charts() {
    let text = format!(
        "platform: {{ registry: {{ host: registry.example.com/shop, charts: true }} }}\n{SERVICES}delivery: {{ pipeline: {{ runner: gitlab, stages: [{{ name: build, steps: [build, push] }}] }} }}\n"
    );
    let file = crate::architecture::read(&text);
    let architecture = file.architecture(Some("production")).expect("the test's file is an architecture");
    let stages = pipeline(&[Variant::new(architecture)]).expect("there is a pipeline");
    let push = &stages[0].steps.iter().find(|step| step.name == "push").expect("it pushes").run;
    let lines = &push[push.find("helm package").expect("the chart is packed")..];
    assert_eq!(
        run(&lines.replace("$LANDFALL_REVISION", "abc"), &[]),
        Err("the registry has not said the digest of the chart".to_owned())
    );
    let told = lines.replace("helm push", "echo Digest:") + "touch deployed\n";
    assert!(run(&told, &[]).is_ok(), "{told}");
}

#[test]
fn a_job_has_the_time_that_the_steps_of_its_canaries_may_take() {
    let canary = "  rollout: { canary: { steps: [10%, 25%, 50%], decide-within: 3h } }\n";
    let stages = "      - { name: production, environment: production, steps: [deploy], deploy-by: ship }\n";
    let limit = |rollout: &str| {
        let stages = pipeline(&with(rollout, stages).0).expect("there is a pipeline");
        stages[0].limit.as_secs() / 60
    };
    assert_eq!((limit(""), limit(canary)), (90, 3 * 180 + 30));
    let expected = "`production` may take 570 minutes, and GitHub ends a job after 360";
    assert!(findings(canary, stages).iter().any(|finding| finding == expected), "{:?}", findings(canary, stages));
}

#[test]
fn images_are_handed_on_where_a_later_job_works_with_them() {
    let saves = |stages: &str| {
        let (variants, file) = with("", stages);
        let files = render(Target::Github, &variants, file.sources()).files;
        files[".github/workflows/delivery.yml"].contains("docker save")
    };
    assert!(!saves("      - { name: build, steps: [build, push] }\n"));
    assert!(saves("      - { name: build, steps: [build] }\n      - { name: push, steps: [push] }\n"));
}

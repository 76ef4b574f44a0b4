//! GitLab CI: the pipeline as `.gitlab-ci.yml`.
//!
//! No key is stored: the registry takes the job's own credentials, and the cluster takes the token of the job's identity
//! (`id_tokens`). What stands in the settings of a project (protected environments, schedules) is told by findings.

use landfall_model::{FailureAction, Finding, Step};
use serde_json::{Map, Value};

use super::{Job, Plan, SIGN_IN};
use crate::json::json;
use crate::object::{FileTree, compact};
use crate::target::{Output, Variant};
use crate::yaml;

const REVISION: &str = "$CI_COMMIT_SHA";

/// The file.
pub(crate) fn pipeline(variants: &[Variant]) -> Output {
    let Some(plan) = Plan::of(variants) else { return super::without_pipeline(variants) };
    let jobs = plan.jobs();
    let stages: Vec<Value> = jobs.iter().map(|job| json!(job.name.as_str())).collect();
    let mut file = Map::new();
    file.insert("stages".to_owned(), Value::Array(stages));
    let branch = serde_json::to_string(plan.branch()).expect("a text is plain data");
    file.insert("workflow".to_owned(), json!({ "rules": [{ "if": format!("$CI_COMMIT_BRANCH == {branch}") }] }));
    // The image with Docker's client, Helm, kubectl and what `ci/` needs is the project's own.
    file.insert("variables".to_owned(), json!({ "PIPELINE_IMAGE": "$CI_REGISTRY_IMAGE/pipeline:1" }));
    file.insert(
        "default".to_owned(),
        json!({ "image": "$PIPELINE_IMAGE", "timeout": "90 minutes", "interruptible": false }),
    );
    for planned in &jobs {
        // Names that GitLab keeps for itself.
        let reserved = ["image", "services", "stages", "types", "before_script", "after_script", "variables", "cache"];
        let taken = reserved.contains(&planned.name.as_str()) || file.contains_key(&planned.name);
        let name = if taken { format!("{}-job", planned.name) } else { planned.name.clone() };
        file.insert(name, job(&plan, planned));
    }
    let text = yaml::Writer::default().write(&Value::Object(file));
    let mut findings = plan.findings("registry.gitlab.com");
    let span = plan.pipeline.runner.span;
    let note =
        |message: &str, why: &str, help: String| Finding::note("not-rendered", span, message).because(why).help(help);
    findings.push(note(
        "the image that the jobs run in is not rendered",
        "it needs what `ci/` needs, besides bash, curl, Docker's client, Helm and kubectl",
        "push one and name it in the variable `PIPELINE_IMAGE`".to_owned(),
    ));
    for gated in jobs.iter().filter(|job| job.gated) {
        let environment = gated.environment().unwrap_or_default();
        findings.push(note(
            &format!("who approves `{}` is not in the pipeline", gated.name),
            "GitLab keeps approvers in the settings of the project",
            format!("protect its environment `{environment}`"),
        ));
    }
    if plan.pipeline.scan_schedule.is_some() {
        findings.push(note(
            "the schedule of the scans is not in the pipeline",
            "GitLab keeps schedules in the settings of the project",
            "make a pipeline schedule there".to_owned(),
        ));
    }
    Output { files: FileTree::from([(".gitlab-ci.yml".to_owned(), text)]), findings }
}

fn job(plan: &Plan<'_>, job: &Job<'_>) -> Value {
    let has_images = !plan.built().is_empty();
    let mut script: Vec<String> = Vec::new();
    if job.has(&[Step::Push]) {
        script.push("echo \"$CI_REGISTRY_PASSWORD\" | docker login --username \"$CI_REGISTRY_USER\" --password-stdin \"$CI_REGISTRY\"\n".to_owned());
    }
    if has_images && job.has_images() && !job.has(&[Step::Build]) {
        script.push("docker load --input images.tar\n".to_owned());
    }
    if job.reaches_cluster() {
        script.push(format!("token=$CLUSTER_TOKEN\n{SIGN_IN}"));
    }
    script
        .extend(job.steps.iter().filter_map(|step| plan.commands(*step, job, REVISION)).filter(|run| !run.is_empty()));
    if has_images && job.has(&[Step::Build]) {
        script.push(plan.save(REVISION));
    }
    if script.is_empty() {
        script.push("echo \"approved\"\n".to_owned());
    }
    let takes_back = job.stage.on_failure.iter().any(|action| action.value == FailureAction::Rollback);
    let rollback = (takes_back && job.has(&[Step::Deploy]))
        .then(|| json!([format!("if [ \"$CI_JOB_STATUS\" = failed ]; then {}; fi", plan.rollback().trim_end())]));
    let kept: Vec<&str> = [("images.tar", Step::Build), ("digests", Step::Push)]
        .into_iter()
        .filter(|(_, step)| has_images && job.has(&[*step]))
        .map(|(path, _)| path)
        .collect();
    let identity = job.reaches_cluster().then(|| json!({ "CLUSTER_TOKEN": { "aud": "$CLUSTER_AUDIENCE" } }));
    compact(json!({
        "stage": job.name.as_str(),
        "environment": job.environment(),
        // One release at a time.
        "resource_group": job.environment(),
        "id_tokens": identity,
        "when": job.gated.then_some("manual"),
        "allow_failure": job.gated.then_some(false),
        "script": script,
        "after_script": rollback,
        "artifacts": (!kept.is_empty()).then(|| json!({ "paths": kept, "expire_in": "1 week" })),
    }))
}

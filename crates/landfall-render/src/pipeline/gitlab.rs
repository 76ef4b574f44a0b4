//! GitLab CI: the pipeline as `.gitlab-ci.yml`.
//!
//! No key is stored: the registry takes the job's own credentials, and the cluster takes the token of the job's identity
//! (`id_tokens`). What stands in the settings of a project (protected environments, schedules) is told by findings.

use landfall_model::{Finding, NotifyEvent, Step};
use serde_json::{Map, Value};

use super::{Job, MINUTES, Plan, SIGN_IN};
use crate::json::json;
use crate::object::{FileTree, compact, unless_empty};
use crate::target::{Output, Variant};
use crate::yaml;

const FILE: &str = ".gitlab-ci.yml";
const REVISION: &str = "$CI_COMMIT_SHA";

/// After how many minutes GitLab's own runners end a job, whatever the pipeline says.
const LONGEST: u32 = 180;

/// Says whether a pipeline is run by its schedule.
const SCHEDULED: &str = "$CI_PIPELINE_SOURCE == \"schedule\"";

/// Names that GitLab keeps for itself.
const RESERVED: [&str; 8] =
    ["image", "services", "stages", "types", "before_script", "after_script", "variables", "cache"];

/// The file.
pub(crate) fn pipeline(variants: &[Variant]) -> Output {
    let Some(plan) = Plan::of(variants) else { return super::without_pipeline(variants) };
    let jobs = plan.jobs();
    let stages: Vec<Value> = jobs.iter().map(|job| json!(job.name.as_str())).collect();
    let mut file = Map::new();
    file.insert("stages".to_owned(), Value::Array(stages));
    file.insert("workflow".to_owned(), json!({ "rules": runs(&plan) }));
    // The image with Docker's client, Helm, kubectl and what `ci/` needs is the project's own.
    file.insert("variables".to_owned(), json!({ "PIPELINE_IMAGE": "$CI_REGISTRY_IMAGE/pipeline:1" }));
    file.insert(
        "default".to_owned(),
        json!({ "image": "$PIPELINE_IMAGE", "timeout": format!("{} minutes", MINUTES.1), "interruptible": false }),
    );
    // A job that needs one which waits for an approval would wait with it, so then every failure is told.
    let waits = jobs.iter().any(|job| job.gated && job.tells_author());
    let mut told = Vec::new();
    for planned in &jobs {
        let name = free(&file, &planned.name);
        if planned.tells_author() {
            // Its artifacts are of no use there.
            told.push(json!({ "job": name.as_str(), "artifacts": false }));
        }
        file.insert(name, job(&plan, planned));
    }
    let notifies = !told.is_empty();
    if notifies {
        let needs = if waits { Value::Null } else { Value::Array(told) };
        file.insert(free(&file, "notify-author"), notify(&needs));
    }
    if plan.tells(NotifyEvent::Failed) {
        let text =
            format!("{}: the delivery of $CI_COMMIT_SHA by $GITLAB_USER_LOGIN failed: $CI_PIPELINE_URL", plan.name);
        let script = plan.tell(NotifyEvent::Failed, &text, &format!("{}/$CI_PIPELINE_ID", plan.name));
        let job = json!({ "stage": ".post", "when": "on_failure", "script": [script] });
        file.insert(free(&file, "notify"), job);
    }
    if let (Some(first), Some(_)) = (jobs.first(), &plan.pipeline.scan_schedule) {
        for (name, run) in plan.scans(&jobs, REVISION) {
            let scan = json!({ "stage": first.name.as_str(), "rules": [{ "if": SCHEDULED }], "script": [run] });
            file.insert(free(&file, &format!("scheduled-{name}")), scan);
        }
    }
    let text = yaml::Writer::default().write(&Value::Object(file));
    Output { files: FileTree::from([(FILE.to_owned(), text)]), findings: findings(&plan, &jobs, notifies) }
}

/// A name that nothing of the file has, nor GitLab for itself.
fn free(file: &Map<String, Value>, name: &str) -> String {
    let taken = RESERVED.contains(&name) || file.contains_key(name);
    if taken { format!("{name}-job") } else { name.to_owned() }
}

/// When there is a pipeline at all: when something that is delivered is pushed, or when somebody asks for it.
fn runs(plan: &Plan<'_>) -> Vec<Value> {
    let branch = serde_json::to_string(plan.branch()).expect("a text is plain data");
    let on_branch = format!("$CI_COMMIT_BRANCH == {branch}");
    let paths = plan.paths(FILE);
    let mut rules = vec![compact(json!({
        "if": format!("$CI_PIPELINE_SOURCE == \"push\" && {on_branch}"),
        "changes": unless_empty(paths),
    }))];
    rules.push(json!({ "if": format!("$CI_PIPELINE_SOURCE == \"web\" && {on_branch}") }));
    if plan.pipeline.scan_schedule.is_some() {
        rules.push(json!({ "if": SCHEDULED }));
    }
    rules
}

fn job(plan: &Plan<'_>, job: &Job<'_>) -> Value {
    let has_images = !plan.built().is_empty();
    let mut script: Vec<String> = Vec::new();
    if job.has(&[Step::Push]) {
        script.push("echo \"$CI_REGISTRY_PASSWORD\" | docker login --username \"$CI_REGISTRY_USER\" --password-stdin \"$CI_REGISTRY\"\n".to_owned());
    }
    if has_images && job.has_images() && !job.has(&[Step::Build]) && plan.before(job, Step::Build) {
        script.push("docker load --input images.tar\n".to_owned());
    }
    if job.reaches_cluster() {
        script.push(format!("token=$CLUSTER_TOKEN\n{SIGN_IN}"));
    }
    script.extend(plan.performed(job, REVISION).map(|(_, run)| run));
    if plan.hands_images_on(job) {
        script.push(plan.save(REVISION));
    }
    if script.is_empty() {
        script.push("echo \"approved\"\n".to_owned());
    }
    let rollback = job
        .takes_back()
        .then(|| json!([format!("if [ \"$CI_JOB_STATUS\" = failed ]; then {}; fi", plan.rollback(job).trim_end())]));
    let images = plan.hands_images_on(job).then_some("images.tar");
    let digests = (has_images && job.has(&[Step::Push])).then_some("digests");
    let kept: Vec<&str> = images.into_iter().chain(digests).collect();
    let identity = job.reaches_cluster().then(|| json!({ "CLUSTER_TOKEN": { "aud": "$CLUSTER_AUDIENCE" } }));
    // A pipeline that its schedule runs scans and does nothing else.
    let unscheduled = plan
        .pipeline
        .scan_schedule
        .as_ref()
        .map(|_| json!([{ "if": "$CI_PIPELINE_SOURCE != \"schedule\"", "when": job.gated.then_some("manual") }]));
    compact(json!({
        "stage": job.name.as_str(),
        "environment": job.environment(),
        // One release at a time.
        "resource_group": job.environment(),
        "timeout": (job.minutes() > MINUTES.1).then(|| format!("{} minutes", job.minutes())),
        "id_tokens": identity,
        "rules": unscheduled,
        "when": (job.gated && plan.pipeline.scan_schedule.is_none()).then_some("manual"),
        "allow_failure": job.gated.then_some(false),
        "script": script,
        "after_script": rollback,
        "artifacts": (!kept.is_empty()).then(|| json!({ "paths": kept, "expire_in": "1 week" })),
    }))
}

/// Tells the author at the commit, of which GitLab sends a message. The token of a job may not comment, so this takes one of
/// the project's own; without it, GitLab's mail about a failed pipeline is all there is.
fn notify(needs: &Value) -> Value {
    let comment = "if [ -z \"$NOTIFY_TOKEN\" ]; then echo \"NOTIFY_TOKEN is not set\"; exit 0; fi\n\
        curl --silent --show-error --fail --header \"PRIVATE-TOKEN: $NOTIFY_TOKEN\" \\\n  \
        --data-urlencode \"note=@$GITLAB_USER_LOGIN: the delivery failed: $CI_PIPELINE_URL\" \\\n  \
        \"$CI_API_V4_URL/projects/$CI_PROJECT_ID/repository/commits/$CI_COMMIT_SHA/comments\"\n";
    compact(json!({ "stage": ".post", "needs": needs.clone(), "when": "on_failure", "script": [comment] }))
}

/// What the settings of a project say and no file can.
fn findings(plan: &Plan<'_>, jobs: &[Job<'_>], notifies: bool) -> Vec<Finding> {
    let mut findings = plan.findings("registry.gitlab.com");
    findings.extend(plan.secret_findings("masked variable of the project"));
    let span = plan.pipeline.runner.span;
    let note =
        |message: &str, why: &str, help: String| Finding::note("not-rendered", span, message).because(why).help(help);
    findings.push(note(
        "the image that the jobs run in is not rendered",
        "it needs what `ci/` needs, besides bash, curl, Docker's client, Helm and kubectl, and a runner that lets it reach a Docker daemon",
        "push one and name it in the variable `PIPELINE_IMAGE`".to_owned(),
    ));
    let help = "let a runner of your own take it, whose longest time is as long";
    findings.extend(jobs.iter().filter_map(|job| job.too_long(LONGEST, "a runner of GitLab's", help)));
    for gated in jobs.iter().filter(|job| job.gated) {
        let environment = gated.environment().unwrap_or_default();
        findings.push(note(
            &format!("who approves `{}` is not in the pipeline", gated.name),
            "GitLab keeps approvers in the settings of the project",
            format!("protect its environment `{environment}`"),
        ));
    }
    if notifies {
        findings.push(note(
            "the token with which the author of a commit is told is not rendered",
            "GitLab lets no job comment with a token of its own",
            "make an access token of the project and keep it in the masked variable `NOTIFY_TOKEN`".to_owned(),
        ));
    }
    if plan.pipeline.scan_schedule.is_some() {
        findings.push(note(
            "the schedule of the scans is not in the pipeline",
            "GitLab keeps schedules in the settings of the project",
            "make a pipeline schedule there; it runs the scans and nothing else".to_owned(),
        ));
    }
    findings
}

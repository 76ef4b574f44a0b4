//! GitHub Actions: the pipeline as a workflow, and scans on their schedule as another.
//!
//! Actions are named by commit. No key is stored: the registry takes the job's own token, and the cluster takes the token
//! of the job's identity (OpenID Connect). Who may approve stands in the settings of a repository and not in a workflow; a
//! finding says so.

use landfall_model::{Finding, NotifyEvent, Step};
use serde_json::{Map, Value};

use super::{Job, MINUTES, Plan, SIGN_IN, name_of};
use crate::json::json;
use crate::object::{FileTree, compact, unless_empty};
use crate::target::{Output, Variant};
use crate::yaml;

/// Where the workflow of the pipeline is.
const FILE: &str = ".github/workflows/delivery.yml";
const RUNNER: &str = "ubuntu-24.04";
const REVISION: &str = "$GITHUB_SHA";

/// After how many minutes GitHub ends a job, whatever the workflow says.
const LONGEST: u32 = 360;

/// An action by its commit, and the version that the commit is.
type Action = (&'static str, &'static str);

const CHECKOUT: Action = ("actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683", "v4.2.2");
const LOGIN: Action = ("docker/login-action@74a5d142397b4f367a81961eba4e8cd7edddf772", "v3.4.0");
const UPLOAD: Action = ("actions/upload-artifact@ea165f8d65b6e75b540449e92b4886f43607fa02", "v4.6.2");
const DOWNLOAD: Action = ("actions/download-artifact@d3f86a106a0bac45b974a628896c90dbdf5c8093", "v4.3.0");

/// The workflows.
pub(crate) fn workflows(variants: &[Variant]) -> Output {
    let Some(plan) = Plan::of(variants) else { return super::without_pipeline(variants) };
    let mut output = Output { files: FileTree::new(), findings: plan.findings("ghcr.io") };
    let mut writer = yaml::Writer::default();
    let planned = plan.jobs();
    let mut jobs = Map::new();
    let mut before: Option<&str> = None;
    for planned in &planned {
        jobs.insert(planned.name.clone(), job(&plan, planned, before));
        before = Some(&planned.name);
        let help = "ship fewer services by canary, decide sooner, or run the job on a machine of your own";
        output.findings.extend(planned.too_long(LONGEST, "GitHub", help));
        if planned.gated {
            let environment = planned.environment().unwrap_or_default();
            let finding = Finding::note(
                "not-rendered",
                plan.pipeline.runner.span,
                format!("who approves `{}` is not in the workflow", planned.name),
            );
            output.findings.push(
                finding
                    .because("GitHub keeps required reviewers in the settings of the repository")
                    .help(format!("name the reviewers in its environment `{environment}`")),
            );
        }
    }
    output.findings.extend(plan.secret_findings("secret of the repository"));
    let told: Vec<Value> =
        planned.iter().filter(|job| job.tells_author()).map(|job| json!(job.name.as_str())).collect();
    if !told.is_empty() {
        jobs.insert("notify-author".to_owned(), notify(told));
    }
    if plan.tells(NotifyEvent::Failed) {
        let all: Vec<Value> = planned.iter().map(|job| json!(job.name.as_str())).collect();
        let name = if jobs.contains_key("notify") { "notify-people" } else { "notify" };
        jobs.insert(name.to_owned(), tell(&plan, all));
    }
    let workflow = json!({
        "name": plan.name,
        "on": {
            "push": compact(json!({ "branches": [plan.branch()], "paths": unless_empty(plan.paths(FILE)) })),
            "workflow_dispatch": {},
        },
        "permissions": {},
        // A release that is under way is finished before the next one begins.
        "concurrency": { "group": format!("{}-delivery", plan.name), "cancel-in-progress": false },
        "defaults": { "run": { "shell": "bash" } },
        "jobs": jobs,
    });
    insert(&mut output.files, "delivery", &writer.write(&workflow));
    if let Some(schedule) = &plan.pipeline.scan_schedule {
        insert(&mut output.files, "scans", &writer.write(&scans(&plan, &planned, &schedule.value)));
    }
    output
}

/// The text of a workflow, with the version of each action behind its commit.
fn insert(files: &mut FileTree, name: &str, yaml: &str) {
    let mut text = yaml.to_owned();
    for (action, version) in [CHECKOUT, LOGIN, UPLOAD, DOWNLOAD] {
        text = text.replace(&format!("{action}\n"), &format!("{action} # {version}\n"));
    }
    files.insert(format!(".github/workflows/{name}.yml"), text);
}

fn job(plan: &Plan<'_>, job: &Job<'_>, before: Option<&str>) -> Value {
    let reaches = job.reaches_cluster();
    let variable = |name: &str| format!("${{{{ vars.{name} }}}}");
    let environment = reaches.then(|| {
        json!({
            "CLUSTER_SERVER": variable("CLUSTER_SERVER"),
            "CLUSTER_CA": variable("CLUSTER_CA"),
            "CLUSTER_AUDIENCE": variable("CLUSTER_AUDIENCE"),
        })
    });
    compact(json!({
        "needs": before,
        "runs-on": RUNNER,
        "timeout-minutes": job.minutes().min(LONGEST),
        "environment": job.environment(),
        "permissions": {
            "contents": "read",
            "packages": job.has(&[Step::Push]).then_some("write"),
            "id-token": reaches.then_some("write"),
        },
        "env": environment,
        "steps": steps(plan, job),
    }))
}

fn steps(plan: &Plan<'_>, job: &Job<'_>) -> Vec<Value> {
    if job.steps.is_empty() {
        return vec![json!({ "name": "approval", "run": "echo \"approved\"\n" })];
    }
    let artifact =
        |action: Action, name: &str, path: &str| json!({ "uses": action.0, "with": { "name": name, "path": path } });
    let mut steps = vec![json!({ "uses": CHECKOUT.0, "with": { "persist-credentials": false } })];
    let has_images = !plan.built().is_empty();
    if job.has(&[Step::Push]) {
        steps.push(json!({
            "uses": LOGIN.0,
            "with": {
                "registry": plan.registry(),
                "username": "${{ github.actor }}",
                "password": "${{ github.token }}",
            },
        }));
    }
    if has_images && job.has_images() && !job.has(&[Step::Build]) && plan.before(job, Step::Build) {
        steps.push(artifact(DOWNLOAD, "images", "."));
        steps.push(json!({ "name": "load", "run": "docker load --input images.tar\n" }));
    }
    if job.has(&[Step::Deploy]) && has_images && plan.before(job, Step::Push) {
        steps.push(artifact(DOWNLOAD, "digests", "digests"));
    }
    if job.reaches_cluster() {
        let token = "token=$(curl --silent --show-error --fail --header \"Authorization: bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN\" \\\n  \"$ACTIONS_ID_TOKEN_REQUEST_URL&audience=$CLUSTER_AUDIENCE\" | jq --raw-output .value)\necho \"::add-mask::$token\"\n";
        steps.push(json!({ "name": "sign in", "run": format!("{token}{SIGN_IN}") }));
    }
    steps.extend(plan.performed(job, REVISION).map(|(step, run)| {
        let env = if step == Step::Notify { urls(plan, NotifyEvent::Succeeded) } else { Value::Null };
        compact(json!({ "name": name_of(step), "env": env, "run": run }))
    }));
    if plan.hands_images_on(job) {
        steps.push(json!({ "name": "save", "run": plan.save(REVISION) }));
        // They are of use to this run only.
        let kept = json!({ "name": "images", "path": "images.tar", "retention-days": 1 });
        steps.push(json!({ "uses": UPLOAD.0, "with": kept }));
    }
    if has_images && job.has(&[Step::Push]) {
        steps.push(artifact(UPLOAD, "digests", "digests"));
    }
    if job.takes_back() {
        steps.push(json!({ "name": "rollback", "if": "failure()", "run": plan.rollback(job) }));
    }
    steps
}

/// Tells the author at the commit, of which GitHub sends a message.
fn notify(needs: Vec<Value>) -> Value {
    json!({
        "needs": needs,
        "if": "failure()",
        "runs-on": RUNNER,
        "timeout-minutes": 5,
        "permissions": { "contents": "write" },
        "env": { "GH_TOKEN": "${{ github.token }}" },
        "steps": [{
            "name": "notify",
            "run": "gh api \"repos/$GITHUB_REPOSITORY/commits/$GITHUB_SHA/comments\" \\\n  --field body=\"@$GITHUB_ACTOR: the delivery failed: $GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID\"\n",
        }],
    })
}

/// Tells those of `delivery.notify`.
fn tell(plan: &Plan<'_>, needs: Vec<Value>) -> Value {
    let text = format!(
        "{}: the delivery of $GITHUB_SHA by $GITHUB_ACTOR failed: $GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID",
        plan.name
    );
    let id = format!("{}/$GITHUB_RUN_ID/$GITHUB_RUN_ATTEMPT", plan.name);
    compact(json!({
        "needs": needs,
        "if": "failure()",
        "runs-on": RUNNER,
        "timeout-minutes": 5,
        "permissions": {},
        "env": urls(plan, NotifyEvent::Failed),
        "steps": [{ "name": "notify", "run": plan.tell(NotifyEvent::Failed, &text, &id) }],
    }))
}

/// The secrets of the repository that have the URLs of those who are told.
fn urls(plan: &Plan<'_>, event: NotifyEvent) -> Value {
    let urls = plan.urls(event).into_keys();
    let urls: Map<String, Value> = urls
        .map(|name| {
            let value = format!("${{{{ secrets.{name} }}}}");
            (name, json!(value))
        })
        .collect();
    if urls.is_empty() { Value::Null } else { Value::Object(urls) }
}

/// The scans of the pipeline, when nobody pushes.
fn scans(plan: &Plan<'_>, jobs: &[Job<'_>], schedule: &str) -> Value {
    let mut scans = Map::new();
    for (name, run) in plan.scans(jobs, REVISION) {
        let scan = json!({
            "runs-on": RUNNER,
            "timeout-minutes": MINUTES.0,
            "permissions": { "contents": "read" },
            "steps": [
                { "uses": CHECKOUT.0, "with": { "persist-credentials": false } },
                { "name": name.as_str(), "run": run },
            ],
        });
        scans.insert(name, scan);
    }
    json!({
        "name": format!("{} scans", plan.name),
        "on": { "schedule": [{ "cron": schedule }], "workflow_dispatch": {} },
        "permissions": {},
        "jobs": scans,
    })
}

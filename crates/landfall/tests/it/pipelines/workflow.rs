//! A small runner of GitHub's workflows: jobs by what they need, each in a clone of its own; steps by `bash`, as GitHub
//! starts it; artifacts from job to job.
//!
//! It knows what the rendered workflows use, and panics at anything else, so that nothing is passed over.

#![expect(clippy::print_stdout, reason = "what a job said is for people who read a failure")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::cluster::Cluster;
use super::identity::{CREDENTIAL, Issuer};
use super::repository::Repository;

/// Everything around a workflow.
pub(super) struct Runner<'a> {
    pub(super) repository: &'a Repository,
    /// By environment.
    pub(super) clusters: &'a BTreeMap<&'static str, Cluster>,
    pub(super) issuer: &'a Issuer,
}

/// What has become of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Succeeded,
    Failed,
    Skipped,
}

/// Where a job works.
struct Place<'a> {
    home: &'a Path,
    work: &'a Path,
    artifacts: &'a Path,
    commit: &'a str,
}

impl Runner<'_> {
    /// Runs the workflow of the current commit: a line for each step with its exit code, and for what is skipped.
    pub(super) fn run(&self, workflow: &str) -> Vec<String> {
        let text = fs::read_to_string(self.repository.path().join(workflow)).expect("the workflow is there");
        let workflow: Value = serde_saphyr::from_str(&text).expect("it is YAML");
        assert_eq!(workflow["defaults"]["run"]["shell"], "bash");
        let commit = self.repository.git(&["rev-parse", "HEAD"]);
        let folder = self.repository.run_folder();
        let artifacts = folder.path().join("artifacts");
        fs::create_dir(&artifacts).expect("a folder can be made");
        let mut waiting: Vec<(&String, &Value)> = workflow["jobs"].as_object().expect("it has jobs").iter().collect();
        let mut outcomes: BTreeMap<&str, Outcome> = BTreeMap::new();
        let mut ran = Vec::new();
        while !waiting.is_empty() {
            let ready = |(_, job): &(&String, &Value)| needs(job).iter().all(|need| outcomes.contains_key(need));
            let place = waiting.iter().position(ready).expect("what jobs need leads to a first one");
            let (name, job) = waiting.remove(place);
            let wanted = match job["if"].as_str() {
                None => needs(job).iter().all(|need| outcomes[need] == Outcome::Succeeded),
                Some("failure()") => {
                    ancestors(&workflow, job).iter().any(|job| outcomes[job.as_str()] == Outcome::Failed)
                }
                Some(other) => panic!("the runner does not know `if: {other}`"),
            };
            if !wanted {
                ran.push(format!("{name}: skipped"));
                outcomes.insert(name, Outcome::Skipped);
                continue;
            }
            let own = folder.path().join(name);
            let (home, work) = (own.join("home"), own.join("work"));
            fs::create_dir_all(&home).expect("a folder can be made");
            fs::create_dir_all(&work).expect("a folder can be made");
            let place = Place { home: &home, work: &work, artifacts: &artifacts, commit: &commit };
            let outcome = self.job(name, job, &place, &mut ran);
            outcomes.insert(name, outcome);
        }
        ran
    }

    fn job(&self, name: &str, job: &Value, place: &Place<'_>, ran: &mut Vec<String>) -> Outcome {
        let cluster = job["environment"].as_str().and_then(|environment| self.clusters.get(environment));
        if let Some(cluster) = cluster {
            cluster.lead_to_gateway(place.home);
        }
        let mut variables = self.variables(job, place);
        let own = job["env"].as_object().into_iter().flatten();
        for (variable, value) in own {
            let value = value.as_str().expect("a variable is a text");
            variables.insert(variable.clone(), self.filled(value, job));
        }
        let mut outcome = Outcome::Succeeded;
        for (number, step) in job["steps"].as_array().expect("a job has steps").iter().enumerate() {
            let wanted = match step["if"].as_str() {
                None => outcome == Outcome::Succeeded,
                Some("failure()") => outcome == Outcome::Failed,
                Some(other) => panic!("the runner does not know `if: {other}`"),
            };
            if let Some(action) = step["uses"].as_str() {
                if wanted {
                    self.action(action, &step["with"], place);
                }
                continue;
            }
            let title = step["name"].as_str().expect("a step has a name");
            if !wanted {
                ran.push(format!("{name} / {title}: skipped"));
                continue;
            }
            let script = place.home.join(format!("step-{number}.sh"));
            fs::write(&script, step["run"].as_str().expect("a step runs something")).expect("a file can be written");
            // https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idstepsshell
            let output = Command::new("bash")
                .args(["--noprofile", "--norc", "-eo", "pipefail"])
                .arg(&script)
                .current_dir(place.work)
                .env_clear()
                .envs(&variables)
                .output()
                .expect("bash can be started");
            let code = output.status.code().unwrap_or(-1);
            let said =
                [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
            println!("--- {name} / {title}: {code}\n{said}");
            ran.push(format!("{name} / {title}: {code}"));
            if code != 0 {
                outcome = Outcome::Failed;
            }
        }
        outcome
    }

    /// What every step of a job finds in its environment.
    fn variables(&self, job: &Value, place: &Place<'_>) -> BTreeMap<String, String> {
        let mut variables: BTreeMap<String, String> = [
            ("PATH", self.repository.search_path()),
            ("HOME", place.home.display().to_string()),
            ("CI", "true".to_owned()),
            ("GITHUB_SHA", place.commit.to_owned()),
            ("GITHUB_ACTOR", "author".to_owned()),
            ("GITHUB_REPOSITORY", "shop/platform".to_owned()),
            ("GITHUB_SERVER_URL", "https://github.example".to_owned()),
            ("GITHUB_RUN_ID", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        // Only a job that may have an identity can ask for its token.
        if job["permissions"]["id-token"] == "write" {
            variables.insert("ACTIONS_ID_TOKEN_REQUEST_URL".to_owned(), self.issuer.url());
            variables.insert("ACTIONS_ID_TOKEN_REQUEST_TOKEN".to_owned(), CREDENTIAL.to_owned());
        }
        variables
    }

    /// A text with its expressions filled in.
    fn filled(&self, text: &str, job: &Value) -> String {
        let Some(expression) = text.strip_prefix("${{ ").and_then(|rest| rest.strip_suffix(" }}")) else {
            return text.to_owned();
        };
        let environment = job["environment"].as_str().unwrap_or_default();
        match expression.split_once('.') {
            Some(("github", "token")) => "token-of-the-job".to_owned(),
            Some(("vars", "CLUSTER_AUDIENCE")) => environment.to_owned(),
            Some(("vars", name)) => {
                let value = self.clusters.get(environment).and_then(|cluster| cluster.variable(name));
                value.unwrap_or_else(|| panic!("`{environment}` has no variable `{name}`"))
            }
            _ => panic!("the runner does not know `{expression}`"),
        }
    }

    /// What the actions of others do.
    fn action(&self, action: &str, with: &Value, place: &Place<'_>) {
        let text = |name: &str| with[name].as_str().expect("the action has this argument").to_owned();
        match action.split('@').next().unwrap_or_default() {
            "actions/checkout" => {
                let from = self.repository.path();
                let (from, to) = (from.to_string_lossy(), place.work.to_string_lossy());
                self.repository.git(&["clone", "--quiet", &from, &to]);
            }
            "actions/upload-artifact" => {
                let (from, to) = (place.work.join(text("path")), place.artifacts.join(text("name")));
                fs::create_dir_all(&to).expect("a folder can be made");
                if from.is_dir() {
                    copy(&from, &to);
                } else {
                    fs::copy(&from, to.join(text("path"))).expect("the file is there");
                }
            }
            "actions/download-artifact" => {
                let (from, to) = (place.artifacts.join(text("name")), place.work.join(text("path")));
                fs::create_dir_all(&to).expect("a folder can be made");
                copy(&from, &to);
            }
            // Signs in to a registry, which is `docker`'s, and that is none here.
            "docker/login-action" => {}
            other => panic!("the runner does not know the action `{other}`"),
        }
    }
}

/// Copies the files of a folder.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("the artifact is there") {
        let entry = entry.expect("a folder can be read");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a file can be copied");
    }
}

/// The jobs that a job needs.
fn needs(job: &Value) -> Vec<&str> {
    match &job["needs"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// All jobs that come before a job.
fn ancestors(workflow: &Value, job: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut waiting: Vec<String> = needs(job).into_iter().map(str::to_owned).collect();
    while let Some(name) = waiting.pop() {
        let job = &workflow["jobs"][&name];
        waiting.extend(needs(job).into_iter().map(str::to_owned));
        found.insert(name);
    }
    found
}

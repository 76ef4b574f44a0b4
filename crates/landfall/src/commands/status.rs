//! `landfall status`: how a platform that is up is doing.

use std::io::Write as _;

use anyhow::Context as _;
use comfy_table::Table;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use serde_json::json;

use crate::Outcome;
use crate::cli::{Output, StatusArguments};
use crate::commands::up::{Place, client, says_ready, table};
use crate::output::VERSION;
use crate::project::Project;
use crate::terminal::Terminal;

/// An environment of the file.
#[derive(Debug, Serialize)]
struct State {
    environment: Option<String>,
    /// The process that runs it; none: it is not up.
    process: Option<u32>,
    kubeconfig: Option<String>,
    /// How many of its pods are ready; those that have finished are not among them.
    ready: usize,
    pods: Vec<PodState>,
}

#[derive(Debug, Serialize)]
struct PodState {
    namespace: String,
    pod: String,
    ready: bool,
    /// Whether it has done what it was for, as the pods of jobs do.
    finished: bool,
    phase: String,
}

impl PodState {
    fn of(pod: &Pod) -> Self {
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            pod: pod.name_any(),
            ready: says_ready(pod),
            finished: phase == "Succeeded",
            phase,
        }
    }
}

impl State {
    /// How many of its pods should be ready.
    fn wanted(&self) -> usize {
        self.pods.iter().filter(|pod| !pod.finished).count()
    }

    /// For people.
    fn line(&self) -> String {
        let finished = self.pods.len() - self.wanted();
        let finished = if finished == 0 { String::new() } else { format!(", {finished} finished") };
        format!("{} of {} pods ready{finished}", self.ready, self.wanted())
    }
}

/// Prints the pods of every wanted environment that is up. The answer is no when none is, or a pod is not ready.
pub(crate) fn run(arguments: &StatusArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let project = Project::read(&arguments.input.file)?;
    let mut states = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start a thread for requests")?;
    for environment in project.environments(arguments.input.environment.as_deref()) {
        let architecture = match project.file.architecture(environment.as_deref()) {
            Ok(architecture) => architecture,
            Err(findings) => {
                terminal.findings(&findings, project.file.sources())?;
                return Ok(Outcome::NotUnderstood);
            }
        };
        let place = Place::of(&arguments.input.file, architecture.document.name.as_str(), environment.as_deref());
        let named = environment.as_deref().unwrap_or("it");
        let Some(process) = place.occupant().map(|occupant| occupant.process) else {
            terminal.say(&format!("{named}: not up"))?;
            states.push(State { environment, process: None, kubeconfig: None, ready: 0, pods: Vec::new() });
            continue;
        };
        let pods =
            runtime.block_on(pods(&place)).with_context(|| format!("{named}: failed to ask the process {process}"))?;
        let ready = pods.iter().filter(|pod| pod.ready).count();
        let kubeconfig = place.kubeconfig().display().to_string();
        if arguments.output == Output::Text {
            writeln!(terminal.data(), "{}", lines(&pods))?;
        }
        let state = State {
            environment: environment.clone(),
            process: Some(process),
            kubeconfig: Some(kubeconfig.clone()),
            ready,
            pods,
        };
        terminal.say(&format!("{named}: {}, in the process {process}", state.line()))?;
        terminal.say(&format!("try: kubectl --kubeconfig {kubeconfig} get pods -A"))?;
        states.push(state);
    }
    if arguments.output == Output::Json {
        let text = serde_json::to_string_pretty(&json!({ "version": VERSION, "environments": states }))?;
        writeln!(terminal.data(), "{text}")?;
    }
    let mut up = states.iter().filter(|state| state.process.is_some()).peekable();
    let whole = up.peek().is_some() && up.all(|state| state.ready == state.wanted());
    Ok(if whole { Outcome::Done } else { Outcome::No })
}

fn lines(pods: &[PodState]) -> Table {
    let mut lines = table(&["NAMESPACE", "POD", "READY", "PHASE"]);
    for pod in pods {
        let ready = match (pod.ready, pod.finished) {
            (true, _) => "yes",
            (false, true) => "done",
            (false, false) => "no",
        };
        lines.add_row([pod.namespace.as_str(), &pod.pod, ready, &pod.phase]);
    }
    lines
}

async fn pods(place: &Place) -> anyhow::Result<Vec<PodState>> {
    let pods = Api::<Pod>::all(client(place).await?).list(&ListParams::default()).await?;
    Ok(pods.items.iter().map(PodState::of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_has_finished_is_not_waited_for() {
        let pod = |name: &str, phase: &str, ready: &str| -> PodState {
            let pod: Pod = serde_json::from_value(json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "shop" },
                "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready }] },
            }))
            .expect("it has the form of a pod");
            PodState::of(&pod)
        };
        let state = |pods: Vec<PodState>| {
            let ready = pods.iter().filter(|pod| pod.ready).count();
            State { environment: None, process: Some(1), kubeconfig: None, ready, pods }
        };
        let web = || pod("web-1", "Running", "True");
        let done = state(vec![web(), pod("report-1", "Succeeded", "False")]);
        assert_eq!((done.wanted(), done.line()), (1, "1 of 1 pods ready, 1 finished".to_owned()));
        let table = lines(&done.pods).to_string();
        let table: Vec<_> = table.lines().map(str::trim_end).collect();
        assert_eq!(table[2], " shop       report-1  done   Succeeded");
        let failed = state(vec![web(), pod("report-1", "Failed", "False")]);
        assert_eq!((failed.wanted(), failed.line()), (2, "1 of 2 pods ready".to_owned()));
    }
}

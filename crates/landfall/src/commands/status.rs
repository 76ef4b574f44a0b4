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
    /// How many of its pods are ready.
    ready: usize,
    pods: Vec<PodState>,
}

#[derive(Debug, Serialize)]
struct PodState {
    namespace: String,
    pod: String,
    ready: bool,
    phase: String,
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
        let Some(process) = place.occupant() else {
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
        terminal.say(&format!("{named}: {ready} of {} pods ready, in the process {process}", pods.len()))?;
        terminal.say(&format!("try: kubectl --kubeconfig {kubeconfig} get pods -A"))?;
        states.push(State { environment, process: Some(process), kubeconfig: Some(kubeconfig), ready, pods });
    }
    if arguments.output == Output::Json {
        let text = serde_json::to_string_pretty(&json!({ "version": VERSION, "environments": states }))?;
        writeln!(terminal.data(), "{text}")?;
    }
    let mut up = states.iter().filter(|state| state.process.is_some()).peekable();
    let whole = up.peek().is_some() && up.all(|state| state.ready == state.pods.len());
    Ok(if whole { Outcome::Done } else { Outcome::No })
}

fn lines(pods: &[PodState]) -> Table {
    let mut lines = table(&["NAMESPACE", "POD", "READY", "PHASE"]);
    for pod in pods {
        let ready = if pod.ready { "yes" } else { "no" };
        lines.add_row([pod.namespace.as_str(), &pod.pod, ready, &pod.phase]);
    }
    lines
}

async fn pods(place: &Place) -> anyhow::Result<Vec<PodState>> {
    let pods = Api::<Pod>::all(client(place).await?).list(&ListParams::default()).await?;
    let state = |pod: Pod| PodState {
        namespace: pod.namespace().unwrap_or_default(),
        pod: pod.name_any(),
        ready: says_ready(&pod),
        phase: pod.status.and_then(|status| status.phase).unwrap_or_default(),
    };
    Ok(pods.items.into_iter().map(state).collect())
}

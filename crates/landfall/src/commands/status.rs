//! `landfall status`: how a platform that is up is doing.

use std::io::Write as _;

use anyhow::Context as _;
use comfy_table::{Table, presets};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use crate::Outcome;
use crate::cli::StatusArguments;
use crate::commands::up::{Place, client, says_ready};
use crate::project::Project;
use crate::terminal::Terminal;

/// Prints the pods of every wanted environment that is up. The answer is no when none is, or a pod is not ready.
pub(crate) fn run(arguments: &StatusArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let project = Project::read(&arguments.input.file)?;
    let mut outcome = Outcome::No;
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
            continue;
        };
        let pods =
            runtime.block_on(pods(&place)).with_context(|| format!("{named}: failed to ask the process {process}"))?;
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["NAMESPACE", "POD", "READY", "PHASE"]);
        let mut ready = 0;
        for pod in &pods {
            let is_ready = says_ready(pod);
            ready += usize::from(is_ready);
            table.add_row([
                pod.namespace().unwrap_or_default(),
                pod.name_any(),
                if is_ready { "yes" } else { "no" }.to_owned(),
                pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default(),
            ]);
        }
        writeln!(terminal.data(), "{table}")?;
        terminal.say(&format!("{named}: {ready} of {} pods ready, in the process {process}", pods.len()))?;
        terminal.say(&format!("try: kubectl --kubeconfig {} get pods -A", place.kubeconfig().display()))?;
        outcome = if ready == pods.len() { Outcome::Done } else { Outcome::No };
    }
    Ok(outcome)
}

async fn pods(place: &Place) -> anyhow::Result<Vec<Pod>> {
    Ok(Api::<Pod>::all(client(place).await?).list(&ListParams::default()).await?.items)
}

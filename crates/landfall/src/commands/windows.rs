//! `landfall windows`: keeps the time windows of services where no KEDA does.

use std::cell::RefCell;
use std::io::Write as _;

use kube::Client;
use landfall_deliver::{ClusterError, Kept, keep, keep_once};
use landfall_model::WindowKeeper;

use crate::Outcome;
use crate::cli::WindowsArguments;
use crate::commands::ship::{Target, in_a_cluster};
use crate::signals::StopSignals;
use crate::terminal::Terminal;

/// Keeps them until it is stopped, or sets the bounds of this moment.
pub(crate) fn run(arguments: &WindowsArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let target = match Target::find(&arguments.input.file, arguments.input.environment.as_deref(), terminal)? {
        Ok(target) => target,
        Err(outcome) => return Ok(outcome),
    };
    if target.architecture.document.platform.windows.value != WindowKeeper::Landfall {
        terminal.say(
            "error: KEDA keeps the windows of this file\nhint: `platform.windows: landfall` renders autoscalers whose bounds this sets",
        )?;
        return Ok(Outcome::NotUnderstood);
    }
    in_a_cluster(&target, &arguments.cluster, terminal, async |client, terminal| {
        if arguments.once {
            for namespace in namespaces(&target) {
                for kept in keep_once(&client, Some(&namespace)).await? {
                    writeln!(terminal.data(), "{}", line(&kept))?;
                }
            }
            return Ok(Outcome::Done);
        }
        let (namespaces, mut signals) = (namespaces(&target), StopSignals::listen()?);
        tokio::select! {
            () = all(&client, &namespaces, terminal) => {}
            () = signals.next() => {}
        }
        Ok(Outcome::Done)
    })
}

/// The namespaces in which services have windows.
fn namespaces(target: &Target) -> Vec<String> {
    let architecture = &target.architecture;
    let services = architecture.document.services.iter().filter(|(_, service)| !service.windows.is_empty());
    let mut namespaces: Vec<String> = services
        .map(|(name, _)| landfall_model::Element::Service(name.value.clone()))
        .map(|service| architecture.namespace_of(&service).to_string())
        .collect();
    namespaces.sort();
    namespaces.dedup();
    namespaces
}

async fn all(client: &Client, namespaces: &[String], terminal: &mut Terminal) {
    let terminal = RefCell::new(terminal);
    let tell = |kept: Result<Kept, ClusterError>| {
        let said = match kept {
            Ok(kept) => line(&kept),
            Err(error) => format!("warning: {:#}; it is tried again", anyhow::Error::from(error)),
        };
        // A terminal that is gone keeps nobody from working.
        let _gone = terminal.borrow_mut().say(&said);
    };
    let keepers = namespaces.iter().map(|namespace| keep(client, Some(namespace), tell));
    futures::future::join_all(keepers).await;
}

/// What was set, on one line.
fn line(kept: &Kept) -> String {
    let Kept { at, namespace, name, before, now } = kept;
    let at = at.strftime("%Y-%m-%dT%H:%M:%SZ");
    format!("{at} {namespace}/{name}: {}..{} copies, before {}..{}", now.min, now.max, before.min, before.max)
}

//! `landfall windows`: keeps the time windows of services where no KEDA does.

use std::cell::RefCell;
use std::io::{self, Write as _};

use kube::Client;
use landfall_deliver::{ClusterError, Kept, keep, keep_once};
use landfall_model::WindowKeeper;

use crate::Outcome;
use crate::cli::{Output, WindowsArguments};
use crate::commands::ship::{Target, in_a_cluster};
use crate::output::WindowsOutput;
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
            let mut set = Vec::new();
            for namespace in namespaces(&target) {
                set.extend(keep_once(&client, Some(&namespace)).await?);
            }
            print(&set, arguments.output, terminal)?;
            return Ok(Outcome::Done);
        }
        let (namespaces, mut signals) = (namespaces(&target), StopSignals::listen()?);
        tokio::select! {
            () = all(&client, &namespaces, arguments.output, terminal) => {}
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

async fn all(client: &Client, namespaces: &[String], output: Output, terminal: &mut Terminal) {
    let terminal = RefCell::new(terminal);
    let tell = |kept: Result<Kept, ClusterError>| {
        let mut terminal = terminal.borrow_mut();
        // A terminal that is gone keeps nobody from working.
        let _gone = match kept {
            Ok(kept) if output == Output::Json => tell_programs(&kept, &mut terminal),
            Ok(kept) => terminal.say(&line(&kept)),
            Err(error) => terminal.say(&format!("warning: {:#}; it is tried again", anyhow::Error::from(error))),
        };
    };
    let keepers = namespaces.iter().map(|namespace| keep(client, Some(namespace), tell));
    futures::future::join_all(keepers).await;
}

/// Prints what was set at one moment.
fn print(set: &[Kept], output: Output, terminal: &mut Terminal) -> anyhow::Result<()> {
    if output == Output::Json {
        writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&WindowsOutput::new(set))?)?;
        return Ok(());
    }
    for kept in set {
        writeln!(terminal.data(), "{}", line(kept))?;
    }
    Ok(())
}

/// A document on a line, as soon as something was set.
fn tell_programs(kept: &Kept, terminal: &mut Terminal) -> io::Result<()> {
    let document = WindowsOutput::new(std::slice::from_ref(kept));
    writeln!(terminal.data(), "{}", serde_json::to_string(&document)?)?;
    terminal.flush()
}

/// What was set, on one line.
fn line(kept: &Kept) -> String {
    let Kept { at, namespace, name, before, now } = kept;
    let at = at.strftime("%Y-%m-%dT%H:%M:%SZ");
    format!("{at} {namespace}/{name}: {}..{} copies, before {}..{}", now.min, now.max, before.min, before.max)
}

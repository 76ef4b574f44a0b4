//! `landfall releases`: what has been shipped.

use std::io::Write as _;

use comfy_table::{Table, presets};
use kube::ResourceExt as _;
use landfall_deliver::{drift, list, state_of};

use crate::Outcome;
use crate::cli::{Output, ReleasesArguments};
use crate::commands::ship::{Target, in_a_cluster};
use crate::output::{ReleaseOutput, ReleasesOutput, VERSION};
use crate::terminal::Terminal;

/// Prints the releases, the last one last.
pub(crate) fn run(arguments: &ReleasesArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let target = match Target::find(&arguments.input.file, arguments.input.environment.as_deref(), terminal)? {
        Ok(target) => target,
        Err(outcome) => return Ok(outcome),
    };
    in_a_cluster(&target, &arguments.cluster, terminal, async |client, terminal| {
        let releases = list(&client, target.namespace(), target.name()).await?;
        let drift = drift(&client, &target.architecture).await?;
        for what in &drift {
            terminal.say(&format!("warning: drift: {what}"))?;
        }
        if arguments.output == Output::Json {
            let releases = releases.iter().map(|release| ReleaseOutput::new(VERSION, release)).collect();
            let document = ReleasesOutput { version: VERSION, releases, drift: &drift };
            writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
            return Ok(Outcome::Done);
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["RELEASE", "STATE", "SERVICES", "WRITTEN"]);
        for release in &releases {
            let services: Vec<&str> = release.spec.services.iter().map(|service| service.name.as_str()).collect();
            let written = release.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string());
            table.add_row([
                release.name_any(),
                state_of(release).to_owned(),
                services.join(", "),
                written.unwrap_or_default(),
            ]);
        }
        if releases.is_empty() {
            terminal.say("nothing has been shipped yet")?;
        } else {
            writeln!(terminal.data(), "{table}")?;
        }
        Ok(Outcome::Done)
    })
}

//! `landfall release show`: one release whole.

use std::io::Write as _;

use landfall_deliver::{read, state_of};

use crate::Outcome;
use crate::cli::{Output, ReleaseArguments};
use crate::commands::ship::{Target, in_a_cluster};
use crate::output::{ReleaseOutput, VERSION};
use crate::terminal::Terminal;

/// Prints it. The answer is no when there is none of that name.
pub(crate) fn show(arguments: &ReleaseArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let place = &arguments.place;
    let target = match Target::find(&place.file, place.environment.as_deref(), terminal)? {
        Ok(target) => target,
        Err(outcome) => return Ok(outcome),
    };
    in_a_cluster(&target, &place.cluster, terminal, async |client, terminal| {
        let Some(release) = read(&client, target.namespace(), &arguments.release).await? else {
            terminal.say(&format!(
                "error: there is no release `{}` in `{}`\nhint: `landfall releases` lists them",
                arguments.release,
                target.namespace()
            ))?;
            return Ok(Outcome::No);
        };
        if place.output == Output::Json {
            let document = ReleaseOutput::new(VERSION, &release);
            writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
            return Ok(Outcome::Done);
        }
        let state = state_of(&release);
        let data = terminal.data();
        writeln!(data, "{}: {}", arguments.release, state)?;
        writeln!(data, "digest {}", release.spec.digest)?;
        if let Some(took) = release.way_back() {
            writeln!(data, "{took}")?;
        }
        for service in &release.spec.services {
            let by = service.strategy.as_str();
            writeln!(data, "  {} {} -> {} ({by})", service.name, service.old_image, service.new_image)?;
        }
        let status = release.status.unwrap_or_default();
        for gate in &status.gates {
            writeln!(data, "gate {}: {}: {}", gate.standing.as_str(), gate.gate, gate.why)?;
            for piece in &gate.evidence {
                writeln!(data, "  shown by: {piece}")?;
            }
            if let Some(bring) = &gate.bring {
                writeln!(data, "  bring it: {bring}")?;
            }
        }
        for entry in &status.history {
            writeln!(data, "{} {}", entry.at, entry.what)?;
        }
        for notice in &status.notices {
            writeln!(data, "{}", notice.summary())?;
        }
        if let Some(analysis) = &status.analysis {
            writeln!(data, "last verdict: {}, of {} requests", analysis.verdict.as_str(), analysis.requests)?;
            for line in &analysis.lines {
                writeln!(data, "  {line}")?;
            }
        }
        Ok(Outcome::Done)
    })
}

//! `landfall scaling`: whether copies of a platform that is up follow the load and the time of day.

use std::io::Write as _;

use anyhow::Context as _;
use serde_json::json;

use super::up::{Found, ScalingReport, table};
use crate::Outcome;
use crate::cli::{Output, ScalingArguments};
use crate::output::VERSION;
use crate::signals::StopSignals;
use crate::terminal::Terminal;

/// Prints what was seen, and keeps it for `landfall claims`. The answer is no when copies do not follow.
pub(crate) fn run(arguments: &ScalingArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    super::up::block_on(async {
        let found = match Found::find(&arguments.input, terminal).await? {
            Ok(found) => found,
            Err(outcome) => return Ok(outcome),
        };
        let scaled = found.scaled();
        if let Some(unknown) = arguments.services.iter().find(|wanted| !scaled.contains(wanted)) {
            let hint = if scaled.is_empty() { "none here has".to_owned() } else { scaled.join(", ") };
            terminal.say(&format!("error: `{unknown}` has no autoscaler and no windows\nhint: these have: {hint}"))?;
            return Ok(Outcome::NotUnderstood);
        }
        let services = if arguments.services.is_empty() { &scaled } else { &arguments.services };
        let mut signals = StopSignals::listen()?;
        let mut said = Ok(());
        let tell = |what: &str| {
            if said.is_ok() {
                said = terminal.progress(what);
            }
        };
        let seen = found.scaling(services, tell, async { signals.next().await }).await?;
        said?;
        print(&seen, arguments.output, terminal)?;
        let kept = seen.problems().next().is_none();
        found.keep_scaling(seen).context("failed to keep what was seen")?;
        Ok(if kept { Outcome::Done } else { Outcome::No })
    })
}

fn print(seen: &ScalingReport, output: Output, terminal: &mut Terminal) -> anyhow::Result<()> {
    if output == Output::Json {
        let text = json!({ "version": VERSION, "services": seen.services, "windows": seen.windows });
        writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&text)?)?;
        return Ok(());
    }
    let seconds = |seconds: Option<f64>| seconds.map_or_else(String::new, |seconds| format!(" after {seconds:.0} s"));
    if !seen.services.is_empty() {
        let mut lines = table(&["SERVICE", "BY", "AT REST", "UNDER LOAD", "CALM AGAIN"]);
        for own in &seen.services {
            let with = |copies: Option<u32>, after| copies.map(|copies| format!("{copies}{}", seconds(after)));
            let load = with(own.reached, own.reached_after_s).map(|text| format!("{text}, of {}", own.most));
            let calm = with(own.calm, own.calm_after_s).unwrap_or_default();
            let load = load.unwrap_or_else(|| "not tried".to_owned());
            lines.add_row([own.service.clone(), own.by.clone(), own.at_rest.to_string(), load, calm]);
        }
        writeln!(terminal.data(), "{lines}")?;
    }
    if !seen.windows.is_empty() {
        let mut lines = table(&["SERVICE", "WINDOW", "BEFORE", "READY", "AFTER ITS END"]);
        for own in &seen.windows {
            let ready = own.ready_before_s.map_or_else(
                || "too late".to_owned(),
                |ready| format!("{} copies, {ready:.0} s before it began", own.least),
            );
            let (before, after) = (own.before.to_string(), own.after.to_string());
            lines.add_row([own.service.clone(), own.window.clone(), before, ready, after]);
        }
        writeln!(terminal.data(), "{lines}")?;
    }
    for own in &seen.services {
        if let Some(why) = &own.missing {
            writeln!(terminal.data(), "note   `{}` by {} was not tried: {why}", own.service, own.by)?;
        }
    }
    for problem in seen.problems() {
        writeln!(terminal.data(), "no     {problem}")?;
    }
    Ok(())
}

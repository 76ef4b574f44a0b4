//! `landfall audit`: the log of who did what, and whether it is whole.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use comfy_table::{Table, presets};
use landfall_deliver::{AuditEntrySpec, AuditLog};

use crate::Outcome;
use crate::cli::{AuditArguments, AuditCommand, AuditVerifyArguments, Output, Place};
use crate::commands::ship::{Target, in_a_cluster};
use crate::output::{AuditOutput, AuditVerifyOutput};
use crate::terminal::Terminal;

/// Prints the log, exports it, or verifies it.
pub(crate) fn run(arguments: &AuditArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    match &arguments.command {
        None => with_log(&arguments.place, terminal, |log, terminal| print(&log, arguments.place.output, terminal)),
        Some(AuditCommand::Export(place)) => with_log(place, terminal, |log, terminal| {
            for entry in &log.entries {
                writeln!(terminal.data(), "{}", serde_json::to_string(entry)?)?;
            }
            Ok(Outcome::Done)
        }),
        Some(AuditCommand::Verify(arguments)) => verify(arguments, terminal),
    }
}

fn with_log(
    place: &Place,
    terminal: &mut Terminal,
    work: impl FnOnce(AuditLog, &mut Terminal) -> anyhow::Result<Outcome>,
) -> anyhow::Result<Outcome> {
    let target = match Target::find(&place.file, place.environment.as_deref(), terminal)? {
        Ok(target) => target,
        Err(outcome) => return Ok(outcome),
    };
    in_a_cluster(&target, &place.cluster, terminal, async |client, terminal| {
        let log = AuditLog::read(&client, target.namespace(), target.name()).await?;
        work(log, terminal)
    })
}

fn print(log: &AuditLog, output: Output, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    if output == Output::Json {
        let document = AuditOutput::new(&log.entries);
        writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
        return Ok(Outcome::Done);
    }
    if log.entries.is_empty() {
        terminal.say("the audit log is empty")?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["NUMBER", "AT", "WHO", "ACTION", "SUBJECT", "SAYS"]);
    for entry in &log.entries {
        table.add_row([
            entry.number.to_string(),
            entry.at.get(..19).unwrap_or(&entry.at).to_owned(),
            entry.who.clone(),
            entry.action.as_str().to_owned(),
            entry.subject.clone(),
            entry.says.clone(),
        ]);
    }
    for line in table.to_string().lines() {
        writeln!(terminal.data(), "{}", line.trim_end())?;
    }
    Ok(Outcome::Done)
}

fn verify(arguments: &AuditVerifyArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let output = arguments.place.output;
    if let Some(file) = &arguments.exported {
        let entries = read_export(file)?;
        // An export has no head beside it: its own last entry is the last.
        let log = AuditLog { entries, ..AuditLog::default() }.ended();
        return answer(&log, log.verify(), output, terminal);
    }
    let earlier = arguments.against.as_deref().map(read_export).transpose()?;
    with_log(&arguments.place, terminal, |log, terminal| {
        let mut problems = log.verify();
        problems.extend(earlier.iter().flat_map(|earlier| log.against(earlier)));
        answer(&log, problems, output, terminal)
    })
}

fn answer(log: &AuditLog, problems: Vec<String>, output: Output, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    match output {
        Output::Json => {
            let document = AuditVerifyOutput::new(&log.entries, &problems);
            writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
        }
        Output::Text if problems.is_empty() => {
            let last = log.entries.last().map(|entry| format!(", the last is {}", entry.hash)).unwrap_or_default();
            writeln!(terminal.data(), "the audit log is whole: {} entries{last}", log.entries.len())?;
        }
        Output::Text => {}
    }
    for problem in &problems {
        terminal.say(&format!("error: {problem}"))?;
    }
    Ok(if problems.is_empty() { Outcome::Done } else { Outcome::No })
}

fn read_export(file: &Path) -> anyhow::Result<Vec<AuditEntrySpec>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("failed to read `{}`", file.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            serde_json::from_str(line)
                .with_context(|| format!("line {} of `{}` is no audit entry", number + 1, file.display()))
        })
        .collect()
}

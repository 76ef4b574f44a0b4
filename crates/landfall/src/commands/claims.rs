//! `landfall claims`: the ledger of promises.

mod measured;
mod pipelines;

use std::collections::BTreeMap;
use std::io::Write;

use comfy_table::presets;
use comfy_table::{ContentArrangement, Table};
use landfall_check::{ClaimState, LedgerRow};

pub(crate) use self::measured::Measured;

use self::measured::Runs;
use crate::Outcome;
use crate::cli::{ClaimsArguments, Output, State};
use crate::output::ClaimsOutput;
use crate::project::{Project, today};
use crate::terminal::Terminal;

/// Prints the ledger of the production environment, or of the one that is wanted.
pub(crate) fn run(arguments: &ClaimsArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let project = Project::read(&arguments.input.file)?;
    let environment = project.production(arguments.input.environment.as_deref());
    let checked = match project.check(environment.as_deref(), today(arguments.today)) {
        Ok(checked) => checked,
        Err(findings) => {
            terminal.findings(&findings, project.file.sources())?;
            return Ok(Outcome::NotUnderstood);
        }
    };
    let all = project.ledger(&checked);
    let wanted = |row: &&LedgerRow| arguments.state.is_none_or(|state| row.state == claim_state(state));
    let rows: Vec<&LedgerRow> = all.iter().filter(wanted).collect();
    let runs = Runs::read(&arguments.input.file, &checked.architecture, &project.environments(None));
    if arguments.output == Output::Json {
        let document =
            ClaimsOutput::new(&rows, &|row: &LedgerRow| runs.of(row), environment.as_deref(), project.file.sources());
        writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
    } else {
        if arguments.explain {
            evidence(&rows, &runs, terminal)?;
        } else {
            table(&rows, &runs, terminal)?;
        }
        terminal.say(&summary(&all, environment.as_deref()))?;
    }
    Ok(Outcome::Done)
}

fn claim_state(state: State) -> ClaimState {
    match state {
        State::Refuted => ClaimState::Refuted,
        State::NotYetShown => ClaimState::NotYetShown,
        State::Claimed => ClaimState::Claimed,
        State::Proved => ClaimState::Proved,
    }
}

/// A line for each claim.
fn table(rows: &[&LedgerRow], runs: &Runs<'_>, terminal: &mut Terminal) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let mut header = vec!["ID", "LINE", "STATE", "TO MEASURE", "CLAIM"];
    if runs.are_there() {
        header.insert(4, "HELD HERE");
    }
    table.set_header(header);
    for row in rows {
        let to_measure = if row.to_measure.is_empty() { "-".to_owned() } else { row.to_measure.len().to_string() };
        let line = row.line.clone().unwrap_or_default();
        let mut cells = vec![row.id.clone(), line, row.state.as_str().to_owned(), to_measure, row.says.clone()];
        if runs.are_there() {
            cells.insert(4, measured::summary(row, &runs.of(row)));
        }
        table.add_row(cells);
    }
    for line in table.lines() {
        writeln!(terminal.data(), "{}", line.trim())?;
    }
    Ok(())
}

/// Each claim with its evidence.
fn evidence(rows: &[&LedgerRow], runs: &Runs<'_>, terminal: &mut Terminal) -> anyhow::Result<()> {
    let out = terminal.data();
    for row in rows {
        let line = row.line.as_ref().map_or_else(String::new, |line| format!(" (line {line})"));
        writeln!(out, "{}{line}: {}", row.id, row.says)?;
        for (shown_by, state) in &row.evidence {
            writeln!(out, "    {:14} {shown_by}", state.as_str())?;
        }
        for run in &row.to_measure {
            let nothing = if measured::can_be_shown(run) { "" } else { " (no run shows this yet)" };
            writeln!(out, "    {:14} {run}{nothing}", "to measure")?;
        }
        for measured in runs.of(row) {
            let state = if measured.held { "held here" } else { "broke here" };
            writeln!(out, "    {state:14} {} ({})", measured.what, measured.place())?;
        }
        writeln!(out, "    => {}\n", row.state.as_str())?;
    }
    Ok(())
}

/// `29 claims in production: 10 proved, 3 claimed, 16 not yet shown; 25 are still to be measured`.
fn summary(rows: &[LedgerRow], environment: Option<&str>) -> String {
    let mut counts: BTreeMap<ClaimState, usize> = BTreeMap::new();
    for row in rows {
        *counts.entry(row.state).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().rev().map(|(state, count)| format!("{count} {}", state.as_str())).collect();
    let place = environment.map_or_else(String::new, |name| format!(" in {name}"));
    let counts = if counts.is_empty() { "the file declares none".to_owned() } else { counts.join(", ") };
    let to_measure = rows.iter().filter(|row| !row.to_measure.is_empty()).count();
    let to_measure = if to_measure == 0 { String::new() } else { format!("; {to_measure} are still to be measured") };
    format!("{} claims{place}: {counts}{to_measure}", rows.len())
}

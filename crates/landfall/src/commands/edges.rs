//! `landfall edges`: what each declared edge of a platform that is up has carried.

use std::io::Write as _;

use serde_json::json;

use super::up::{EdgeState, Found, table};
use crate::Outcome;
use crate::cli::{AskArguments, Output};
use crate::output::VERSION;
use crate::terminal::Terminal;

/// Prints one line for each edge. The answer is no when one carries nothing, or cannot be tried here, and nobody has
/// asked for that.
pub(crate) fn run(arguments: &AskArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    super::up::block_on(async {
        let found = match Found::find(&arguments.input, terminal).await? {
            Ok(found) => found,
            Err(outcome) => return Ok(outcome),
        };
        let edges = found.edges().await?;
        match arguments.output {
            Output::Json => {
                let text = serde_json::to_string_pretty(&json!({ "version": VERSION, "edges": edges }))?;
                writeln!(terminal.data(), "{text}")?;
            }
            Output::Text => writeln!(terminal.data(), "{}", lines(&edges))?,
        }
        let whole = edges.iter().all(|edge| edge.carried > 0 || edge.connected || edge.left_out);
        Ok(if whole { Outcome::Done } else { Outcome::No })
    })
}

fn lines(edges: &[EdgeState]) -> comfy_table::Table {
    let mut lines = table(&["EDGE", "CARRIED", "FAILED", "WHY"]);
    for edge in edges {
        let connected =
            edge.connected.then(|| "there is a connection; what it carries its program does not tell".into());
        let why = edge.missing.clone().or_else(|| edge.error.clone()).or(connected).unwrap_or_default();
        lines.add_row([edge.edge.clone(), edge.carried.to_string(), edge.failed.to_string(), why]);
    }
    lines
}

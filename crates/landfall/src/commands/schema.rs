//! `landfall schema`: the JSON Schema of the file.

use std::io::Write;

use crate::Outcome;
use crate::terminal::Terminal;

/// Prints the schema.
pub(crate) fn run(terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&landfall_model::json_schema())?)?;
    Ok(Outcome::Done)
}

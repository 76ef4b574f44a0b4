//! `landfall engine images`: another image catalogue for a running engine.

use std::fs;
use std::io::Write as _;

use anyhow::Context as _;
use serde::Deserialize;

use super::endpoint::Endpoint;
use crate::cli::{ImagesArguments, Output};
use crate::output::{ImagesOutput, VERSION};
use crate::terminal::Terminal;

/// What the engine answers.
#[derive(Debug, Deserialize)]
struct Taken {
    entries: usize,
}

/// Hands the catalogue over.
pub(crate) async fn run(arguments: &ImagesArguments, terminal: &mut Terminal) -> anyhow::Result<()> {
    let file = &arguments.file;
    let text = fs::read(file).with_context(|| format!("failed to read `{}`", file.display()))?;
    let taken: Taken = Endpoint::find(&arguments.engine).await?.put("images", text).await?;
    if arguments.engine.output == Output::Json {
        let document = ImagesOutput { version: VERSION, entries: taken.entries };
        writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
    } else {
        terminal.say(&format!("containers that start from now on find {} images", taken.entries))?;
    }
    Ok(())
}

//! The catalogue of images that `--images` names.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use landfall_engine::Catalogue;
use landfall_model::{Finding, Sources, Span};

use crate::terminal::Terminal;

/// Reads it; an empty one where none is named. Nothing when it is not understood, which has been told.
pub(super) fn read(file: Option<&Path>, terminal: &mut Terminal) -> anyhow::Result<Option<Catalogue>> {
    let Some(file) = file else { return Ok(Some(Catalogue::default())) };
    let name = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("failed to read `{name}`"))?;
    let error = match Catalogue::parse(&text) {
        Ok(catalogue) => return Ok(Some(catalogue)),
        Err(error) => error,
    };
    let mut sources = Sources::default();
    let source = sources.add(name.to_string(), text);
    let span = error.place().map_or(Span::NONE, |place| Span::new(source, place.start, place.end));
    let message = format!("the catalogue of images `{name}` is not understood: {}", error.reason());
    let help = "write `images: [{ image: acme/web, program: /path/to/web }]`; `docs/up.md` has all keys";
    terminal.findings(&[Finding::error("wrong-value", span, message).help(help)], &sources)?;
    Ok(None)
}

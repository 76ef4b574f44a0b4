//! The architecture document: diagrams and tables, kept between markers in the user's own Markdown.
//!
//! What stands between `<!-- landfall:begin NAME -->` and `<!-- landfall:end NAME -->` is written anew; every other line is
//! the user's, and stays as it is, byte for byte. Without a document there is one to begin with, which has every part once.

mod diagrams;
mod drawing;
mod tables;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use landfall_model::{Architecture, Finding, Span, suggestion};

use crate::target::Output;

/// The file that the document is written to. Its author writes in it too, so that it is never to be removed.
pub const DOCUMENT: &str = "architecture.md";

/// A promise and how far it is shown, as whoever has computed the ledger says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRow {
    /// The claim's id.
    pub id: String,
    /// The promise.
    pub says: String,
    /// The line or lines of the prose document.
    pub line: Option<String>,
    /// The word for its state, such as `proved`.
    pub state: String,
    /// How many runs would measure it.
    pub to_measure: usize,
}

/// What a part shows.
type Part = fn(&View<'_>) -> String;

/// The parts by the names in their markers, in the order of a new document, each with its heading there.
const PARTS: [(&str, &str, Part); 11] = [
    ("services-diagram", "What talks to what", |view| diagrams::services(view.main)),
    ("services", "Services", |view| tables::services(view.main)),
    ("stores", "Stores", |view| tables::stores(view.main)),
    ("externals", "Systems of others", |view| tables::externals(view.main)),
    ("edges", "Connections", |view| tables::edges(view.main)),
    ("flows", "Journeys", |view| diagrams::flows(view.main)),
    ("environments", "Environments", |view| tables::environments(view.all)),
    ("pipeline", "From a commit to production", |view| diagrams::pipeline(view.main)),
    ("objectives", "Objectives", |view| tables::objectives(view.main)),
    ("alerts", "Who is told", |view| tables::alerts(view.main)),
    ("claims", "Claims", |view| tables::claims(view.claims)),
];

/// What the parts are made from.
struct View<'a> {
    /// The environment that the document describes: the one that serves users.
    main: &'a Architecture,
    all: &'a [&'a Architecture],
    claims: &'a [ClaimRow],
}

/// Renders the document of the environments, `existing` being the document as it stands, and the drawing beside it.
///
/// There must be at least one environment. Nothing is rendered when the markers of `existing` are wrong.
pub fn docs<'a>(
    architectures: impl IntoIterator<Item = &'a Architecture>,
    claims: &[ClaimRow],
    existing: Option<&str>,
) -> Output {
    let architectures: Vec<&Architecture> = architectures.into_iter().collect();
    let mut rendered = Output::default();
    let Some(first) = architectures.first() else { return rendered };
    let main = architectures.iter().find(|architecture| architecture.is_production()).unwrap_or(first);
    let view = View { main, all: &architectures, claims };
    let text = match existing {
        Some(existing) => match replaced(existing, &view) {
            Ok(text) => text,
            Err(findings) => {
                rendered.findings = findings;
                return rendered;
            }
        },
        None => new_document(&view),
    };
    rendered.files.insert(DOCUMENT.to_owned(), text);
    rendered.files.insert("architecture.svg".to_owned(), drawing::services(main));
    rendered
}

fn begin(name: &str) -> String {
    format!("<!-- landfall:begin {name} -->")
}

fn end(name: &str) -> String {
    format!("<!-- landfall:end {name} -->")
}

/// A part with its markers. Markdown begins a block after an empty line only.
fn marked(name: &str, part: Part, view: &View<'_>) -> String {
    format!("{}\n\n{}\n\n{}\n", begin(name), part(view).trim(), end(name))
}

fn new_document(view: &View<'_>) -> String {
    let document = &view.main.document;
    let mut text = format!("# {}\n\n", document.name);
    text += "Write around the marked parts: `landfall render docs` writes those anew and leaves everything else alone. A part\n\
             that is removed with its markers stays away.\n";
    for (name, heading, part) in PARTS {
        let _ = write!(text, "\n## {heading}\n\n{}", marked(name, part, view));
    }
    text
}

/// A line that is a marker, and the name in it.
fn marker<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let inside = line.trim().strip_prefix("<!--")?.strip_suffix("-->")?.trim();
    inside.strip_prefix(&format!("landfall:{word}")).map(str::trim)
}

/// The document with its parts written anew.
fn replaced(existing: &str, view: &View<'_>) -> Result<String, Vec<Finding>> {
    let parts: BTreeMap<&str, Part> = PARTS.iter().map(|(name, _, part)| (*name, *part)).collect();
    let wrong = |line: usize, what: String| {
        Finding::error("document-markers", Span::NONE, format!("{DOCUMENT}, line {}: {what}", line + 1))
    };
    let mut findings = Vec::new();
    let mut text = String::new();
    let mut open: Option<(usize, &str)> = None;
    let mut found = 0;
    for (number, line) in existing.split_inclusive('\n').enumerate() {
        if let Some(name) = marker(line, "begin") {
            if let Some((_, before)) = open {
                findings.push(
                    wrong(number, format!("`{name}` begins inside of `{before}`"))
                        .help(format!("write `{}` first", end(before))),
                );
            }
            if let Some(part) = parts.get(name) {
                text += &marked(name, *part, view);
                found += 1;
            } else {
                let near = suggestion(name, parts.keys().copied());
                let known = parts.keys().copied().collect::<Vec<_>>().join(", ");
                let help =
                    near.map_or_else(|| format!("the parts are {known}"), |near| format!("did you mean `{near}`?"));
                findings.push(wrong(number, format!("there is no part `{name}`")).help(help));
            }
            open = Some((number, name));
        } else if let Some(name) = marker(line, "end") {
            match open.take() {
                Some((_, before)) if before == name => {}
                Some((_, before)) => findings.push(
                    wrong(number, format!("`{name}` ends where `{before}` is open"))
                        .help(format!("write `{}` here", end(before))),
                ),
                None => findings.push(
                    wrong(number, format!("`{name}` ends and has not begun"))
                        .help(format!("write `{}` before it, or remove the line", begin(name))),
                ),
            }
        } else if open.is_none() {
            text += line;
        }
    }
    if let Some((number, name)) = open {
        findings.push(
            wrong(number, format!("`{name}` begins and does not end")).help(format!("write `{}` after it", end(name))),
        );
    }
    if found == 0 && findings.is_empty() {
        findings.push(
            Finding::error("document-markers", Span::NONE, format!("{DOCUMENT} has no place for a part"))
                .because("nothing of a document is changed but what stands between markers")
                .help(format!("write `{}` and `{}`, each on a line of its own, where the diagram shall stand; or render to a folder without the file", begin("services-diagram"), end("services-diagram"))),
        );
    }
    if findings.is_empty() { Ok(text) } else { Err(findings) }
}

/// A text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('\n', " ").replace('<', "&lt;")
}

/// A choice as the file writes it.
fn word(choice: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(choice).expect("a choice is plain data");
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

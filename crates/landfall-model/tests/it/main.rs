//! The language from outside: text goes in, an architecture or findings come out.

mod hostile;
mod names;
mod overrides;
mod reading;
mod schema;
mod units;

use landfall_model::{Architecture, File, Finding, Sources};

/// Reads `text` as `environment`.
fn read(text: &str, environment: Option<&str>) -> (File, Result<Architecture, Vec<Finding>>) {
    let file = File::read("landfall.yaml", text.as_bytes(), &mut |path| Err(format!("no file `{path}`")));
    let architecture = file.architecture(environment);
    (file, architecture)
}

/// Reads a text that must be an architecture.
#[track_caller]
fn architecture(text: &str) -> Architecture {
    let (file, architecture) = read(text, None);
    match architecture {
        Ok(architecture) => architecture,
        Err(findings) => panic!("not an architecture:\n{}", told(&findings, file.sources())),
    }
}

/// The findings on a text, a line each: `line:column rule: message | label | help`.
fn findings(text: &str) -> String {
    let (file, architecture) = read(text, None);
    told(&architecture.err().unwrap_or_default(), file.sources())
}

fn told(findings: &[Finding], sources: &Sources) -> String {
    let line = |finding: &Finding| {
        let place =
            sources.position(finding.primary.span).map_or_else(String::new, |at| format!("{}:{} ", at.line, at.column));
        let mut line = format!("{place}{}: {}", finding.rule, finding.message);
        if !finding.primary.text.is_empty() {
            line += &format!(" [{}]", finding.primary.text);
        }
        for label in &finding.secondary {
            let at = sources.position(label.span).expect("a label stands somewhere");
            line += &format!(" ({}:{} {})", at.line, at.column, label.text);
        }
        line + &finding.help.as_ref().map_or_else(String::new, |help| format!(" => {help}"))
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

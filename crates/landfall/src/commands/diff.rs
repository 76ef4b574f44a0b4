//! `landfall diff`: what differs between two environments, files or revisions, value by value.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use landfall_model::{Finding, Sources};
use serde_json::Value;

use crate::Outcome;
use crate::cli::{DiffArguments, Output};
use crate::output::{ChangeOutput, DiffOutput, VERSION};
use crate::project::Project;
use crate::terminal::Terminal;

/// Prints the differences; the exit code is 1 when there are some.
pub(crate) fn run(arguments: &DiffArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let (a, b) = match (side(arguments, &arguments.a)?, side(arguments, &arguments.b)?) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(unread), _) | (_, Err(unread)) => {
            terminal.findings(&unread.findings, &unread.sources)?;
            return Ok(Outcome::NotUnderstood);
        }
    };
    let changes = changes(&a, &b);
    if arguments.output == Output::Json {
        let document = DiffOutput { version: VERSION, a: &arguments.a, b: &arguments.b, changes };
        writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&document)?)?;
        return Ok(if document.changes.is_empty() { Outcome::Done } else { Outcome::No });
    }
    let mut count = 0;
    let mut heading = String::new();
    for change in &changes {
        let (noun, rest) = split(&change.path);
        let lonely = only_one_has(&noun, &a, &b, [&arguments.a, &arguments.b]);
        if noun != heading {
            writeln!(terminal.data(), "{noun}")?;
            if let Some(side) = lonely {
                writeln!(terminal.data(), "  only in `{side}`")?;
                count += 1;
            }
            heading = noun;
        }
        if lonely.is_some() {
            continue;
        }
        let line = match (&change.a, &change.b) {
            (Some(a), Some(b)) => format!("{rest}: {a} -> {b}"),
            (Some(a), None) => format!("{rest}: {a} -> nothing"),
            (None, Some(b)) => format!("{rest}: nothing -> {b}"),
            (None, None) => rest,
        };
        writeln!(terminal.data(), "  {line}")?;
        count += 1;
    }
    let plural = if count == 1 { "" } else { "s" };
    terminal.say(&format!("{count} difference{plural} between `{}` and `{}`", arguments.a, arguments.b))?;
    Ok(if count == 0 { Outcome::Done } else { Outcome::No })
}

/// The side that alone has the element `noun`, such as `services.checkout`: its values are then no differences that
/// anybody would read one by one.
fn only_one_has<'a>(noun: &str, a: &Values, b: &Values, sides: [&'a String; 2]) -> Option<&'a String> {
    let (section, _) = noun.split_once('.')?;
    if !["services", "stores", "externals", "flows", "channels", "segments"].contains(&section) {
        return None;
    }
    let prefix = format!("{noun}.");
    let has =
        |values: &Values| values.range(prefix.clone()..).next().is_some_and(|(path, _)| path.starts_with(&prefix));
    match (has(a), has(b)) {
        (true, false) => Some(sides[0]),
        (false, true) => Some(sides[1]),
        _ => None,
    }
}

/// `services.checkout` and `replicas.min`.
fn split(path: &str) -> (String, String) {
    let parts: Vec<&str> = path.split('.').collect();
    let depth = if parts.len() > 2 { 2 } else { 1 };
    (parts[..depth].join("."), parts[depth..].join("."))
}

/// Every value by its path.
type Values = BTreeMap<String, String>;

struct Unread {
    findings: Vec<Finding>,
    sources: Sources,
}

/// Reads one side: a file that exists, else an environment of the file, else a Git revision of it.
fn side(arguments: &DiffArguments, name: &str) -> anyhow::Result<Result<Values, Unread>> {
    let environment = arguments.environment.as_deref();
    if Path::new(name).exists() {
        return Ok(values(&Project::read(Path::new(name))?, environment));
    }
    let file = if arguments.file.is_dir() { arguments.file.join("landfall.yaml") } else { arguments.file.clone() };
    if file.exists() {
        let project = Project::read(&file)?;
        if project.file.environments().iter().any(|known| known == name) {
            return Ok(values(&project, Some(name)));
        }
    }
    let bytes = revision(&file, name)?;
    // Includes are read from the working tree. Not handled: includes as they were in the revision.
    Ok(values(&Project::from_bytes(&file, &bytes), environment))
}

fn revision(file: &Path, revision: &str) -> anyhow::Result<Vec<u8>> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let output = Command::new("git").arg("-C").arg(folder).args(["show", &format!("{revision}:./{name}")]).output();
    match output {
        Ok(output) if output.status.success() => Ok(output.stdout),
        _ => anyhow::bail!(
            "`{revision}` is neither a file, nor an environment of `{}`, nor a Git revision that has it",
            file.display()
        ),
    }
}

fn values(project: &Project, environment: Option<&str>) -> Result<Values, Unread> {
    let architecture = project
        .file
        .architecture(environment)
        .map_err(|findings| Unread { findings, sources: project.file.sources().clone() })?;
    let mut document = serde_json::to_value(&architecture.document).expect("a document is plain data");
    // What an environment overrides is already laid over the rest; claims and waivers say nothing of what is deployed.
    for section in ["environments", "claims", "waivers", "include"] {
        document.as_object_mut().map(|sections| sections.remove(section));
    }
    let mut values = Values::new();
    flatten("", &document, &mut values);
    Ok(values)
}

fn flatten(path: &str, value: &Value, values: &mut Values) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| flatten(&below(key), value, values)),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().enumerate().for_each(|(index, item)| flatten(&below(&index.to_string()), item, values));
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            if !items.is_empty() {
                values.insert(path.to_owned(), format!("[{}]", items.join(", ")));
            }
        }
        Value::Null => {}
        value => {
            values.insert(path.to_owned(), plain(value));
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn changes(a: &Values, b: &Values) -> Vec<ChangeOutput> {
    let mut paths: Vec<&String> = a.keys().chain(b.keys().filter(|path| !a.contains_key(*path))).collect();
    paths.sort();
    let change = |path: &String| {
        (a.get(path) != b.get(path)).then(|| ChangeOutput {
            path: path.clone(),
            a: a.get(path).cloned(),
            b: b.get(path).cloned(),
        })
    };
    paths.into_iter().filter_map(change).collect()
}

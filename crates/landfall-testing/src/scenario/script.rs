//! The grammar of a scenario's file, and reading it.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::{fs, io};

use serde::Deserialize;
use serde_json::Value;

use crate::scenario::path::Path;

/// One behaviour, as requests whose answers are compared.
///
/// Unknown keys are errors, so that a misspelt one does not silently compare less.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Script {
    /// What the scenario shows, in a sentence.
    pub(crate) shows: String,
    /// Whether `managedFields` are compared; only scenarios about apply say so, as they double every answer.
    #[serde(default)]
    pub(crate) managed_fields: bool,
    pub(crate) steps: Vec<Step>,
    /// Paths of cluster-scoped objects and further namespaces, deleted when the scenario is over.
    #[serde(default)]
    pub(crate) cleanup: Vec<String>,
}

/// One step: a request (repeated `until` something holds), or a watch.
#[derive(Debug, Deserialize)]
#[serde(try_from = "WrittenStep")]
pub(crate) struct Step {
    /// Unique in its scenario.
    pub(crate) name: String,
    pub(crate) action: Action,
    /// Added to the query of the action's address, percent-encoded.
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) identity: Identity,
    /// What is recorded of each body or event; all of it when empty.
    pub(crate) select: Vec<Path>,
    /// What is left out of each body or event.
    pub(crate) ignore: Vec<Path>,
    /// Lists whose order says nothing.
    pub(crate) unordered: Vec<Path>,
    /// Variables for later steps, from the answer (of a watch: from its last event).
    pub(crate) keep: BTreeMap<String, Path>,
}

impl Step {
    /// Whether it ends only when something holds.
    pub(crate) fn waits(&self) -> bool {
        match &self.action {
            Action::Request { until, .. } => !until.is_empty(),
            Action::Watch { .. } => true,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Action {
    Request { method: http::Method, address: String, body: Body, until: BTreeMap<Path, Value> },
    Watch { address: String, end: End },
}

/// When a watch has seen enough.
#[derive(Debug)]
pub(crate) enum End {
    /// After so many events.
    Events(usize),
    /// After the event of which all of this holds.
    Until(BTreeMap<Path, Value>),
    /// When the server ends it.
    Closed,
}

#[derive(Debug)]
pub(crate) enum Body {
    None,
    Json(Value),
    Text(String),
    Bytes(Vec<u8>),
}

/// Who asks.
#[derive(Debug)]
pub(crate) enum Identity {
    /// The administrator of the kubeconfig.
    Administrator,
    /// Somebody whom the administrator impersonates.
    Impersonated(String),
    /// The owner of a token.
    Bearer(String),
    /// Nobody.
    Anonymous,
}

/// A step as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenStep {
    step: String,
    /// `GET /api/v1/namespaces`.
    request: Option<String>,
    /// The address to watch, without `watch=true`.
    watch: Option<String>,
    /// How many events a watch collects.
    events: Option<usize>,
    /// A watch goes on until the server ends it.
    #[serde(default)]
    until_closed: bool,
    /// What must hold of the answer, or of an event, before the next step: path → value, `"*"` for any value.
    until: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    query: BTreeMap<String, String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The content type of the body.
    r#type: Option<String>,
    /// The `Accept` header.
    accept: Option<String>,
    /// A user whom the administrator impersonates.
    r#as: Option<String>,
    /// A bearer token, or `none`.
    token: Option<String>,
    /// A JSON body, written as YAML.
    body: Option<Value>,
    /// A body that is sent as it is.
    text: Option<String>,
    /// A body of bytes.
    base64: Option<String>,
    #[serde(default)]
    select: Vec<Path>,
    #[serde(default)]
    ignore: Vec<Path>,
    #[serde(default)]
    unordered: Vec<Path>,
    #[serde(default)]
    keep: BTreeMap<String, Path>,
}

impl TryFrom<WrittenStep> for Step {
    type Error = String;

    fn try_from(written: WrittenStep) -> Result<Self, String> {
        let name = written.step;
        let problem = |text: &str| format!("step `{name}`: {text}");
        let mut headers = written.headers;
        headers.extend(written.r#type.map(|media| ("Content-Type".to_owned(), media)));
        headers.extend(written.accept.map(|media| ("Accept".to_owned(), media)));
        let body = match (written.body, written.text, written.base64) {
            (None, None, None) => Body::None,
            (Some(json), None, None) => Body::Json(json),
            (None, Some(text), None) => Body::Text(text),
            (None, None, Some(text)) => {
                Body::Bytes(decode_base64(&text).ok_or_else(|| problem("`base64` is not base64"))?)
            }
            _ => return Err(problem("`body`, `text` and `base64` exclude each other")),
        };
        let until = written
            .until
            .map(|until| until.into_iter().map(|(path, value)| Ok((path.parse()?, value))).collect())
            .transpose()
            .map_err(|error: super::path::PathError| problem(&error.to_string()))?;
        let action = match (written.request, written.watch) {
            (Some(line), None) => {
                if written.events.is_some() || written.until_closed {
                    return Err(problem("`events` and `untilClosed` belong to a `watch`"));
                }
                let (method, address) =
                    line.split_once(' ').ok_or_else(|| problem("a request is a method and an address"))?;
                let method = method.parse().map_err(|_| problem("the method is none"))?;
                Action::Request { method, address: address.to_owned(), body, until: until.unwrap_or_default() }
            }
            (None, Some(address)) => {
                let end = match (written.events, until, written.until_closed) {
                    (Some(events), None, false) => End::Events(events),
                    (None, Some(until), false) => End::Until(until),
                    (None, None, true) => End::Closed,
                    _ => return Err(problem("a `watch` has one of `events`, `until` and `untilClosed`")),
                };
                Action::Watch { address, end }
            }
            _ => return Err(problem("it has either a `request` or a `watch`")),
        };
        let identity = match (written.r#as, written.token.as_deref()) {
            (None, None) => Identity::Administrator,
            (Some(user), None) => Identity::Impersonated(user),
            (None, Some("none")) => Identity::Anonymous,
            (None, Some(token)) => Identity::Bearer(token.to_owned()),
            (Some(_), Some(_)) => return Err(problem("`as` and `token` exclude each other")),
        };
        Ok(Self {
            name,
            action,
            query: written.query,
            headers,
            identity,
            select: written.select,
            ignore: written.ignore,
            unordered: written.unordered,
            keep: written.keep,
        })
    }
}

/// A scenario and where it was read from.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// `area/name`.
    pub(crate) name: String,
    pub(crate) script: Script,
    /// The file's text: what it writes itself is not masked in the answers.
    pub(crate) source: String,
    /// Where the recording is.
    pub(crate) recording: PathBuf,
}

/// Why scenarios cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or folder cannot be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not follow the grammar.
    #[error("`{}`: {problem}", path.display())]
    Grammar {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column where they are known.
        problem: String,
    },
}

/// Reads every `<area>/<name>.yaml` below a folder, in the order of their names.
pub(crate) fn load(folder: &FilePath) -> Result<Vec<Scenario>, LoadError> {
    let mut scenarios = Vec::new();
    for area in entries(folder)? {
        for file in entries(&area)? {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(stem) = name.strip_suffix(".yaml").filter(|stem| !stem.ends_with(".recorded")) else { continue };
            let area_name = area.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let source = read(&file)?;
            let recording = file.with_file_name(format!("{stem}.recorded.yaml"));
            let script = parse(&source).map_err(|problem| LoadError::Grammar { path: file.clone(), problem })?;
            scenarios.push(Scenario { name: format!("{area_name}/{stem}"), script, source, recording });
        }
    }
    Ok(scenarios)
}

/// Reads a script.
pub(crate) fn parse(source: &str) -> Result<Script, String> {
    let script: Script = serde_saphyr::from_str(source).map_err(|error| error.to_string())?;
    let mut names: Vec<_> = script.steps.iter().map(|step| &step.name).collect();
    names.sort();
    if let Some([twice, _]) = names.array_windows().find(|[one, next]| one == next) {
        return Err(format!("two steps are called `{twice}`"));
    }
    Ok(script)
}

pub(crate) fn read(path: &FilePath) -> Result<String, LoadError> {
    fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })
}

fn entries(folder: &FilePath) -> Result<Vec<PathBuf>, LoadError> {
    let error = |source| LoadError::Read { path: folder.to_owned(), source };
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(error)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(error)?;
    entries.sort();
    Ok(entries)
}

/// Decodes base64 with padding; line breaks and spaces are skipped.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut pending = 0_u32;
    let mut bits = 0_u32;
    for letter in text.bytes().filter(|letter| !letter.is_ascii_whitespace() && *letter != b'=') {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        pending = pending << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(pending >> bits & 0xff).expect("it was cut to eight bits"));
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        let error =
            parse("shows: It.\nsteps:\n- step: a\n  request: GET /\n  headrs: {}\n").expect_err("it is misspelt");
        assert!(error.contains("headrs") && error.contains('5'), "{error}");
    }

    #[test]
    fn a_step_is_either_a_request_or_a_watch() {
        let error = parse("shows: It.\nsteps:\n- step: a\n").expect_err("it does nothing");
        assert!(error.contains("either a `request` or a `watch`"), "{error}");
    }

    #[test]
    fn two_steps_of_one_name_are_refused() {
        let error = parse("shows: It.\nsteps:\n- {step: a, request: GET /}\n- {step: a, request: GET /}\n");
        assert_eq!(error.expect_err("they share a name"), "two steps are called `a`");
    }

    #[test]
    fn base64_is_decoded() {
        assert_eq!(decode_base64("azhzAA==\n"), Some(b"k8s\0".to_vec()));
        assert_eq!(decode_base64("!"), None);
    }
}

//! The file as a whole: reading it with its includes, and reading it as one environment.

use std::collections::BTreeSet;

use crate::architecture::Architecture;
use crate::diagnostic::{Finding, suggestion, unknown_name};
use crate::document::Document;
use crate::lower::lower;
use crate::span::{SourceId, Sources, Span, Spanned};
use crate::tree::{self, DeserializeError, Node, Problem, Segment, Value};

/// The largest file that is read, in bytes: an architecture of 1,000 services has about 700,000.
const MAX_BYTES: usize = 8 << 20;

/// How many problems of one file are told at once.
const MAX_PROBLEMS: usize = 50;

/// The sections that an environment may override, in the file's order.
pub const OVERRIDABLE: [&str; 8] =
    ["objectives", "platform", "services", "stores", "externals", "flows", "observability", "security"];

/// A `landfall.yaml` with its includes.
#[derive(Debug)]
pub struct File {
    sources: Sources,
    root: Option<Node>,
    findings: Vec<Finding>,
}

impl File {
    /// Reads the file `name` with the content `bytes`; `include` fetches the bytes of an included file, or says why
    /// it cannot.
    pub fn read(name: &str, bytes: &[u8], include: &mut dyn FnMut(&str) -> Result<Vec<u8>, String>) -> Self {
        let mut file = Self { sources: Sources::default(), root: None, findings: Vec::new() };
        let mut root = file.load(name, bytes);
        if let Some(root) = &mut root {
            let mut seen = BTreeSet::from([name.to_owned()]);
            file.include(root, &mut seen, include);
        }
        file.root = root;
        file
    }

    /// The texts that were read.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// What is wrong with the file as text: syntax, duplicate keys, includes that are not there.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The environments that the file declares, sorted.
    pub fn environments(&self) -> Vec<String> {
        let declared = self.root.as_ref().and_then(|root| root.entry("environments"));
        let Some(Value::Mapping(entries)) = declared.map(|entry| &entry.value.value) else { return Vec::new() };
        let mut names: Vec<String> = entries.iter().map(|entry| entry.key.clone()).collect();
        names.sort();
        names
    }

    /// Reads the file as `environment`, or as it stands when that is `None`.
    ///
    /// # Errors
    /// Everything that keeps the file from being an architecture. [`File::findings`] come first.
    pub fn architecture(&self, environment: Option<&str>) -> Result<Architecture, Vec<Finding>> {
        let Some(root) = &self.root else { return Err(self.findings.clone()) };
        if !self.findings.is_empty() {
            return Err(self.findings.clone());
        }
        let mut overlaid = root.clone();
        let mut findings = Vec::new();
        if let Some(name) = environment {
            let declared = root.entry("environments").and_then(|entry| entry.value.entry(name)).cloned();
            if let Some(mut environment) = declared {
                findings = refuse_undeclared(name, root, &mut environment.value);
                apply(&mut overlaid, &environment.value);
            }
        }
        let read = typed(overlaid)
            .map_err(|problems| without_consequences(root, problems))
            .and_then(|document| lower(document, environment));
        match read {
            Ok(architecture) if findings.is_empty() => Ok(architecture),
            Ok(_) => Err(findings),
            Err(problems) => {
                findings.extend(problems);
                Err(findings)
            }
        }
    }

    /// Where the value at `path`, such as `services.checkout.port`, was written in the file as it stands.
    pub fn written(&self, path: &str) -> Option<Span> {
        self.written_in(path, None)
    }

    /// Where the value at `path` was written: in the environment's overrides when they give it, else in the file as it
    /// stands.
    pub fn written_in(&self, path: &str, environment: Option<&str>) -> Option<Span> {
        let root = self.root.as_ref()?;
        let overridden = environment.and_then(|name| {
            let overrides = &root.entry("environments")?.value.entry(name)?.value;
            let (section, _) = path.split_once('.')?;
            OVERRIDABLE.contains(&section).then(|| place(overrides, path)).flatten()
        });
        overridden.or_else(|| place(root, path))
    }

    fn load(&mut self, name: &str, bytes: &[u8]) -> Option<Node> {
        let text = match decode(bytes) {
            Ok(text) => text,
            Err((problem, valid)) => {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_BYTES)]).into_owned();
                let source = self.sources.add(name, text);
                self.findings.push(problem.at(source, valid));
                return None;
            }
        };
        let source = self.sources.add(name, text);
        tree::load(source, text, &mut self.findings)
    }

    fn include(
        &mut self,
        root: &mut Node,
        seen: &mut BTreeSet<String>,
        fetch: &mut dyn FnMut(&str) -> Result<Vec<u8>, String>,
    ) {
        let Some(entry) = root.entry("include") else { return };
        let Value::Sequence(items) = &entry.value.value else { return };
        let paths: Vec<(String, Span)> = items
            .iter()
            .filter_map(|item| match &item.value {
                Value::Scalar { text, .. } => Some((text.clone(), item.span)),
                _ => None,
            })
            .collect();
        for (path, span) in paths {
            if !seen.insert(path.clone()) {
                self.findings.push(Finding::error("include", span, format!("`{path}` is included twice")));
                continue;
            }
            match fetch(&path) {
                Err(reason) => self.findings.push(
                    Finding::error("include", span, format!("cannot read `{path}`"))
                        .because(reason)
                        .help("paths are relative to the file that includes"),
                ),
                Ok(bytes) => {
                    if let Some(mut part) = self.load(&path, &bytes) {
                        self.include(&mut part, seen, fetch);
                        self.join(root, part);
                    }
                }
            }
        }
    }

    /// Adds the sections of an included file; two files may share a section, but not a key in it.
    fn join(&mut self, root: &mut Node, part: Node) {
        let (Value::Mapping(entries), Value::Mapping(additions)) = (&mut root.value, part.value) else {
            self.findings.push(Finding::error("include", part.span, "an included file must be a mapping of sections"));
            return;
        };
        for addition in additions {
            if addition.key == "include" {
                continue;
            }
            let Some(existing) = entries.iter_mut().find(|entry| entry.key == addition.key) else {
                entries.push(addition);
                continue;
            };
            match (&mut existing.value.value, addition.value.value) {
                (Value::Mapping(ours), Value::Mapping(theirs)) => {
                    for entry in theirs {
                        match ours.iter().find(|known| known.key == entry.key) {
                            Some(known) => self.findings.push(
                                Finding::error(
                                    "duplicate-key",
                                    entry.key_span,
                                    format!("`{}` is declared twice", entry.key),
                                )
                                .label("the second one")
                                .also(known.key_span, "the first one")
                                .help("keep one of them"),
                            ),
                            None => ours.push(entry),
                        }
                    }
                }
                (Value::Sequence(ours), Value::Sequence(theirs)) => ours.extend(theirs),
                _ => self.findings.push(
                    Finding::error("duplicate-key", addition.key_span, format!("`{}` is declared twice", addition.key))
                        .also(existing.key_span, "the first one")
                        .help("keep one of them"),
                ),
            }
        }
    }
}

/// Why bytes are not a text that can be read.
enum Unreadable {
    TooLarge,
    Utf16,
    NotUtf8,
}

impl Unreadable {
    fn at(&self, source: SourceId, valid: usize) -> Finding {
        let span = Span::new(source, valid, valid);
        match self {
            Self::TooLarge => {
                Finding::error("file-too-large", span, format!("the file is larger than {} MiB", MAX_BYTES >> 20))
                    .help("split the platform: one `landfall.yaml` describes one deployable platform")
            }
            Self::Utf16 => Finding::error("not-utf-8", span, "the file is UTF-16, not UTF-8")
                .help("save it as UTF-8, in the editor or with `iconv -f UTF-16 -t UTF-8`"),
            Self::NotUtf8 => Finding::error("not-utf-8", span, format!("byte {} is not UTF-8", valid + 1))
                .help("save the file as UTF-8; if it is Latin-1, `iconv -f LATIN1 -t UTF-8` does it"),
        }
    }
}

fn decode(bytes: &[u8]) -> Result<&str, (Unreadable, usize)> {
    if bytes.len() > MAX_BYTES {
        return Err((Unreadable::TooLarge, 0));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err((Unreadable::Utf16, 0));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| (Unreadable::NotUtf8, error.valid_up_to()))
}

/// Where `path` stands below `node`. A key may hold dots, as topics do: `topics.balance.changed`.
fn place(node: &Node, path: &str) -> Option<Span> {
    if path.is_empty() {
        return Some(node.span);
    }
    match &node.value {
        Value::Mapping(entries) => entries.iter().find_map(|entry| match path.strip_prefix(entry.key.as_str())? {
            "" => Some(entry.key_span),
            rest => place(&entry.value, rest.strip_prefix('.')?),
        }),
        Value::Sequence(items) => {
            let (index, rest) = path.split_once('.').unwrap_or((path, ""));
            place(items.get(index.parse::<usize>().ok()?)?, rest)
        }
        Value::Scalar { .. } => None,
    }
}

fn apply(root: &mut Node, environment: &Node) {
    let over = OVERRIDABLE.iter().filter_map(|section| environment.entry(section)).cloned().collect();
    tree::overlay(root, &Node { span: environment.span, value: Value::Mapping(over) });
}

/// Refuses, and takes out, what an environment overrides although the file does not declare it: a service needs no key,
/// so a mistyped name would be one service more.
fn refuse_undeclared(environment: &str, root: &Node, overrides: &mut Node) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Value::Mapping(sections) = &mut overrides.value else { return findings };
    for (section, what) in [("services", "service"), ("stores", "store"), ("externals", "external"), ("flows", "flow")]
    {
        let known: Vec<&str> = match root.entry(section).map(|entry| &entry.value.value) {
            Some(Value::Mapping(entries)) => entries.iter().map(|entry| entry.key.as_str()).collect(),
            None => Vec::new(),
            // That the section is no mapping is told when it is read.
            Some(_) => continue,
        };
        let Some(entry) = sections.iter_mut().find(|entry| entry.key == section) else { continue };
        let Value::Mapping(entries) = &mut entry.value.value else { continue };
        entries.retain(|entry| {
            let is_known = known.contains(&entry.key.as_str());
            if !is_known {
                let name = Spanned::new(entry.key.clone(), entry.key_span);
                findings.push(
                    unknown_name(what, &name, known.iter().copied())
                        .because(format!("the environment `{environment}` can only change what `{section}` declares"))
                        .because(format!(
                            "what exists there alone is declared in `{section}`, with `environments: [{environment}]`"
                        )),
                );
            }
            is_known
        });
    }
    findings
}

/// The problems of an overlaid file without those that follow from a problem of the file as it stands: an override of
/// a key in `nodes: 6` leaves the other keys missing.
fn without_consequences(base: &Node, problems: Vec<Finding>) -> Vec<Finding> {
    let is_missing = |finding: &Finding| finding.rule == "missing-key";
    let Err(mut causes) = typed(base.clone()) else { return problems };
    causes.retain(|cause| !is_missing(cause) || problems.contains(cause));
    if causes.is_empty() {
        return problems;
    }
    let others = problems.into_iter().filter(|problem| !is_missing(problem) && !causes.contains(problem));
    let others: Vec<Finding> = others.collect();
    causes.extend(others);
    causes
}

/// Reads the tree as a document. What does not fit is told, cut out, and the rest is read again, so that the first
/// problem never hides the second.
fn typed(mut root: Node) -> Result<Document, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut removed: Vec<Vec<Segment>> = Vec::new();
    loop {
        match tree::deserialize::<Document>(&root) {
            Ok(document) if findings.is_empty() => return Ok(document),
            Ok(_) => return Err(findings),
            Err(error) => {
                let mut path = error.path.clone();
                path.reverse();
                // A key that was cut out because its value did not fit is not missing.
                let follows = matches!(error.problem, Problem::MissingField(field) if removed.iter().any(|cut| {
                    cut.split_last() == Some((&Segment::Key(field.to_owned()), path.as_slice()))
                }));
                if !follows {
                    findings.push(describe(&error, &path));
                }
                if findings.len() >= MAX_PROBLEMS || !root.remove(&path) {
                    return Err(findings);
                }
                removed.push(path);
            }
        }
    }
}

fn describe(error: &DeserializeError, path: &[Segment]) -> Finding {
    let span = error.span.unwrap_or(Span::NONE);
    let mut at = String::new();
    for segment in path {
        match segment {
            Segment::Key(key) if at.is_empty() => at.push_str(key),
            Segment::Key(key) => at = format!("{at}.{key}"),
            Segment::Index(index) => at = format!("{at}[{index}]"),
        }
    }
    match &error.problem {
        Problem::UnknownField { field, expected } => {
            let parent = at.strip_suffix(field.as_str()).unwrap_or("").trim_end_matches('.');
            let place = if parent.is_empty() { "at the top of the file".to_owned() } else { format!("in `{parent}`") };
            let finding = Finding::error("unknown-key", span, format!("unknown key `{field}` {place}")).on(at.clone());
            match suggestion(field, expected.iter().copied()) {
                Some(near) => finding.help(format!("did you mean `{near}`?")),
                None => finding.help(format!("known here: {}", expected.join(", "))),
            }
        }
        Problem::UnknownVariant { variant, expected } => {
            let finding = Finding::error("unknown-value", span, format!("`{variant}` is not a value of `{at}`"));
            match suggestion(variant, expected.iter().copied()) {
                Some(near) => finding.help(format!("did you mean `{near}`? Possible: {}", expected.join(", "))),
                None => finding.help(format!("possible: {}", expected.join(", "))),
            }
        }
        Problem::MissingField(field) if at.is_empty() => {
            Finding::error("missing-key", span, format!("`{field}` is missing at the top of the file")).help(
                if *field == "landfall" { "add `landfall: v1`".to_owned() } else { format!("add `{field}: …`") },
            )
        }
        Problem::MissingField(field) => Finding::error("missing-key", span, format!("`{field}` is missing in `{at}`"))
            .help(format!("add `{field}: …`; `landfall explain {at}` shows what belongs there")),
        Problem::NotAMapping { found, known } => {
            let message = format!("expected a mapping, found {found}");
            let message = if at.is_empty() { message } else { format!("`{at}`: {message}") };
            Finding::error("wrong-value", span, message).help(format!("known here: {}", known.join(", ")))
        }
        Problem::Other(message) => {
            let message = if at.is_empty() { message.clone() } else { format!("`{at}`: {message}") };
            Finding::error("wrong-value", span, message)
        }
    }
}

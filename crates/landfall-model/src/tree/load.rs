//! From YAML text to a tree of nodes, with findings for what the language does not take.
//!
//! The scanner and parser are `saphyr-parser`'s. This file owns the limits: depth, anchors, tags, duplicate keys.
//! Anchors and aliases are refused, which also refuses alias bombs: an environment's overrides and `include` do
//! what they are used for.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::{Entry, Node, Value, syntax};
use crate::diagnostic::Finding;
use crate::span::{SourceId, Span};

/// How deep a file may nest. The language itself needs 12 levels; raw objects and patches may need more.
const MAX_DEPTH: usize = 64;

/// How many nodes a file may hold: an architecture of 10,000 services has about 400,000.
const MAX_NODES: usize = 2_000_000;

/// Reads one YAML document; `None` with at least one finding when nothing of it can be used.
pub(crate) fn load(source: SourceId, text: &str, findings: &mut Vec<Finding>) -> Option<Node> {
    let mut loader = Loader { source, bytes: ByteOffsets::new(text), findings, stack: Vec::new(), nodes: 0 };
    let mut root = None;
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(found) => found,
            Err(error) => {
                let at = loader.bytes.of(error.marker().index());
                let span = Span::new(source, at, at + 1);
                // The scanner looks ahead, and has a limit of its own that it can meet before ours.
                if error.info().contains("recursion limit") {
                    loader.findings.push(too_deep(span));
                    return None;
                }
                loader.findings.push(syntax::refused(source, text, error.info(), at));
                return None;
            }
        };
        let span = loader.span(span);
        if let Event::DocumentStart(_) = event {
            documents += 1;
            if documents > 1 {
                let finding = Finding::error("yaml-syntax", span, "a second document begins here");
                loader
                    .findings
                    .push(finding.help("put each document in a file of its own, and name it under `include`"));
                return root;
            }
            continue;
        }
        match loader.event(event, span) {
            Ok(Some(node)) => root = Some(node),
            Ok(None) => {}
            Err(finding) => {
                loader.findings.push(finding);
                return None;
            }
        }
    }
    if root.as_ref().is_none_or(Node::is_null) {
        let finding = Finding::error("empty-file", Span::new(source, 0, 0), "the file is empty");
        loader
            .findings
            .push(finding.help("begin with `landfall: v1` and `name: …`; `landfall schema` prints the whole grammar"));
        return None;
    }
    root
}

fn too_deep(span: Span) -> Finding {
    Finding::error("nested-too-deep", span, format!("the file nests deeper than {MAX_DEPTH} levels"))
        .help("the language itself never nests deeper than 12")
}

/// Turns the scanner's character offsets into byte offsets.
enum ByteOffsets {
    Ascii(usize),
    /// The byte offset of every character, and of the end.
    Table(Vec<u32>),
}

impl ByteOffsets {
    fn new(text: &str) -> Self {
        if text.is_ascii() {
            return Self::Ascii(text.len());
        }
        let offset = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
        Self::Table(text.char_indices().map(|(index, _)| offset(index)).chain([offset(text.len())]).collect())
    }

    fn of(&self, character: usize) -> usize {
        match self {
            Self::Ascii(length) => character.min(*length),
            Self::Table(table) => table[character.min(table.len() - 1)] as usize,
        }
    }
}

struct Loader<'a> {
    source: SourceId,
    bytes: ByteOffsets,
    findings: &'a mut Vec<Finding>,
    stack: Vec<Open>,
    nodes: usize,
}

/// A collection whose end was not seen yet.
enum Open {
    Sequence { start: Span, items: Vec<Node> },
    Mapping { start: Span, entries: Vec<Entry>, key: Option<(String, Span)>, seen: HashMap<String, Span> },
}

impl Loader<'_> {
    fn span(&self, span: saphyr_parser::Span) -> Span {
        Span::new(self.source, self.bytes.of(span.start.index()), self.bytes.of(span.end.index()))
    }

    /// Takes one event; returns the root when it is complete.
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<Option<Node>, Finding> {
        let node = match event {
            Event::Alias(_) => {
                return Err(Finding::error("yaml-anchor", span, "aliases are not part of the language")
                    .help("write the value out; what differs between environments goes under `environments`"));
            }
            Event::Scalar(text, style, anchor, tag) => {
                refuse_extras(anchor, tag.is_some(), span)?;
                self.count(span)?;
                Node { span, value: Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain } }
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_extras(anchor, tag.is_some(), span)?;
                self.open(Open::Sequence { start: span, items: Vec::new() }, span)?;
                return Ok(None);
            }
            Event::MappingStart(anchor, tag) => {
                refuse_extras(anchor, tag.is_some(), span)?;
                self.open(Open::Mapping { start: span, entries: Vec::new(), key: None, seen: HashMap::new() }, span)?;
                return Ok(None);
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Open::Sequence { start, items }) => {
                    let end = items.last().map_or(span, |last| last.span);
                    Node { span: start.to(end), value: Value::Sequence(items) }
                }
                Some(Open::Mapping { start, entries, .. }) => {
                    let end = entries.last().map_or(span, |last| last.value.span);
                    Node { span: start.to(end), value: Value::Mapping(entries) }
                }
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        self.place(node)
    }

    fn count(&mut self, span: Span) -> Result<(), Finding> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Finding::error("file-too-large", span, format!("the file holds more than {MAX_NODES} values"))
                .help("split the platform: one `landfall.yaml` describes one deployable platform"));
        }
        Ok(())
    }

    fn open(&mut self, open: Open, span: Span) -> Result<(), Finding> {
        self.count(span)?;
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_deep(span));
        }
        self.stack.push(open);
        Ok(())
    }

    fn place(&mut self, node: Node) -> Result<Option<Node>, Finding> {
        match self.stack.last_mut() {
            None => return Ok(Some(node)),
            Some(Open::Sequence { items, .. }) => items.push(node),
            Some(Open::Mapping { entries, key, seen, .. }) => match key.take() {
                None => {
                    let Value::Scalar { text, .. } = node.value else {
                        return Err(Finding::error("yaml-syntax", node.span, "a key must be a single word")
                            .help("if this is a template such as `{{ … }}`, the file has none: use `environments`"));
                    };
                    *key = Some((text, node.span));
                }
                Some((text, key_span)) => {
                    if let Some(first) = seen.get(&text) {
                        self.findings.push(
                            Finding::error("duplicate-key", key_span, format!("`{text}` is written twice"))
                                .label("the second one")
                                .also(*first, "the first one")
                                .help("keep one of them; YAML readers disagree on which one would count"),
                        );
                    } else {
                        seen.insert(text.clone(), key_span);
                        entries.push(Entry { key: text, key_span, value: node });
                    }
                }
            },
        }
        Ok(None)
    }
}

fn refuse_extras(anchor: usize, tagged: bool, span: Span) -> Result<(), Finding> {
    if anchor != 0 {
        return Err(Finding::error("yaml-anchor", span, "anchors are not part of the language")
            .help("write the value out; what differs between environments goes under `environments`"));
    }
    if tagged {
        return Err(Finding::error("yaml-tag", span, "tags (`!…`) are not part of the language").help("remove the tag"));
    }
    Ok(())
}

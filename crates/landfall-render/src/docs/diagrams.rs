//! Diagrams as Mermaid.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use landfall_model::{Architecture, DeployPolicy, Element};

use super::word;

fn fenced(diagram: &str) -> String {
    format!("```mermaid\n{diagram}```\n")
}

/// A name that no word of Mermaid is: `end` would end a subgraph.
pub(super) fn id(section: &str, name: &str) -> String {
    format!("{section}_{}", name.replace('-', "_"))
}

fn id_of(element: &Element) -> String {
    match element {
        Element::Client => "client".to_owned(),
        Element::Service(name) => id("service", name.as_str()),
        Element::Store(name) => id("store", name.as_str()),
        Element::External(name) => id("external", name.as_str()),
    }
}

/// A text between quotes: Mermaid's own escapes begin with `#` and end with `;`.
fn quoted(text: &str) -> String {
    let escaped = text.replace('#', "#35;").replace('"', "#quot;").replace('<', "#lt;").replace('>', "#gt;");
    format!("\"{escaped}\"")
}

/// A text to the end of a line: a semicolon would end it, so those are escaped too.
fn plain(text: &str) -> String {
    text.replace('#', "#35;").replace(';', "#59;").replace('\n', " ")
}

/// What talks to what, as pairs with the verbs between them; a store that is backed up sends its backups.
pub(super) fn pairs(architecture: &Architecture) -> BTreeMap<(Element, Element), BTreeSet<&'static str>> {
    let mut pairs: BTreeMap<_, BTreeSet<&'static str>> = BTreeMap::new();
    for edge in &architecture.connections {
        pairs.entry((edge.from.clone(), edge.to.clone())).or_default().insert(edge.verb.as_str());
    }
    for (name, _, _) in architecture.exposed() {
        pairs.entry((Element::Client, Element::Service(name.value.clone()))).or_default();
    }
    for (name, store) in &architecture.document.stores {
        let to = store.backup.as_ref().and_then(|backup| backup.to.as_ref());
        if let Some(to) = to.and_then(|to| architecture.element(to.as_str())) {
            pairs.entry((Element::Store(name.value.clone()), to)).or_default().insert("back up");
        }
    }
    pairs
}

/// The services and stores by the segment that they stand in.
fn by_segment(architecture: &Architecture) -> BTreeMap<Option<&str>, Vec<Element>> {
    let document = &architecture.document;
    let mut by_segment: BTreeMap<Option<&str>, Vec<Element>> = BTreeMap::new();
    for (name, service) in &document.services {
        let segment = service.segment.as_ref().map(|segment| segment.as_str());
        by_segment.entry(segment).or_default().push(Element::Service(name.value.clone()));
    }
    for (name, store) in &document.stores {
        let segment = store.segment.as_ref().map(|segment| segment.as_str());
        by_segment.entry(segment).or_default().push(Element::Store(name.value.clone()));
    }
    by_segment
}

fn node(architecture: &Architecture, element: &Element) -> String {
    let (id, name) = (id_of(element), element.name());
    match element {
        Element::Client => format!("{id}([{}])", quoted("client")),
        Element::Service(_) => format!("{id}[{}]", quoted(name)),
        Element::External(_) => format!("{id}>{}]", quoted(name)),
        Element::Store(_) => {
            let store = architecture.store(name);
            let engine = store.map_or("", |store| store.engine.value.as_str());
            let label = if engine == name { quoted(name) } else { quoted(&format!("{name}: {engine}")) };
            let is_broker = store.is_some_and(|store| store.engine.value.is_broker());
            if is_broker { format!("{id}{{{{{label}}}}}") } else { format!("{id}[({label})]") }
        }
    }
}

/// Services, stores and systems of others, with edges, by segment.
pub(super) fn services(architecture: &Architecture) -> String {
    let document = &architecture.document;
    let pairs = pairs(architecture);
    let mut text = "flowchart LR\n".to_owned();
    if pairs.keys().any(|(from, _)| *from == Element::Client) {
        let _ = writeln!(text, "    {}", node(architecture, &Element::Client));
    }
    for (segment, elements) in by_segment(architecture) {
        let declared = segment.and_then(|name| document.segments.get(name));
        let title = declared.and_then(|segment| segment.title.as_ref()).map(|title| title.as_str()).or(segment);
        let indent = if let (Some(name), Some(title)) = (segment, title) {
            let _ = writeln!(text, "    subgraph {}[{}]", id("segment", name), quoted(title));
            "        "
        } else {
            "    "
        };
        for element in &elements {
            let _ = writeln!(text, "{indent}{}", node(architecture, element));
        }
        if segment.is_some() {
            text += "    end\n";
        }
    }
    for name in document.externals.keys() {
        let _ = writeln!(text, "    {}", node(architecture, &Element::External(name.value.clone())));
    }
    for ((from, to), verbs) in &pairs {
        let verbs: Vec<&str> = verbs.iter().copied().collect();
        let label = if verbs.is_empty() { String::new() } else { format!("|{}|", quoted(&verbs.join(", "))) };
        let _ = writeln!(text, "    {} -->{label} {}", id_of(from), id_of(to));
    }
    format!("{}\nThe same as a drawing: [architecture.svg](architecture.svg).\n", fenced(&text))
}

/// Each flow as a sequence diagram.
pub(super) fn flows(architecture: &Architecture) -> String {
    let flows = &architecture.document.flows;
    if flows.is_empty() {
        return "The file declares no journeys.\n".to_owned();
    }
    let mut text = String::new();
    for (name, flow) in flows {
        let title = flow.title.as_ref().map_or(name.as_str(), |title| title.as_str());
        let rate = flow.rate.as_ref().map(|rate| format!("{} begin", rate.value));
        let within = flow.within.as_ref().map(|within| format!("each takes at most {}", within.value));
        let loss = flow
            .loss
            .as_ref()
            .map_or_else(|| "none is lost".to_owned(), |loss| format!("at most {} are lost", loss.value));
        let figures = rate.into_iter().chain(within).chain([loss]).collect::<Vec<_>>().join(", ");
        let _ = write!(text, "### {name}\n\n{title}: {figures}.\n\n{}\n", fenced(&sequence(architecture, flow)));
    }
    text
}

fn sequence(architecture: &Architecture, flow: &landfall_model::Flow) -> String {
    let mut text = "sequenceDiagram\n".to_owned();
    let mut known: Vec<Element> = Vec::new();
    let ends = flow.steps.iter().flat_map(|step| [step.from.as_str(), step.to.as_str()]);
    for element in ends.filter_map(|name| architecture.element(name)) {
        if !known.contains(&element) {
            let kind = if element == Element::Client { "actor" } else { "participant" };
            let _ = writeln!(text, "    {kind} {} as {}", id_of(&element), plain(element.name()));
            known.push(element);
        }
    }
    for step in &flow.steps {
        let (Some(from), Some(to)) = (architecture.element(step.from.as_str()), architecture.element(step.to.as_str()))
        else {
            continue;
        };
        // What a broker delivers was asked for by whoever consumes it.
        let asked = architecture
            .connections
            .iter()
            .find(|edge| edge.from == to && edge.to == from && matches!(from, Element::Store(_)));
        let declared = architecture.connections.iter().filter(|edge| edge.from == from && edge.to == to);
        let labels: Vec<String> = match asked {
            Some(edge) => vec![format!("deliver {}", edge.detail.as_deref().unwrap_or_default())],
            None => {
                declared.map(|edge| format!("{} {}", edge.verb, edge.detail.as_deref().unwrap_or_default())).collect()
            }
        };
        let label = if labels.is_empty() {
            "request".to_owned()
        } else {
            labels.iter().map(|label| label.trim()).collect::<Vec<_>>().join(", ")
        };
        let arrow = if asked.is_some() { "-->>" } else { "->>" };
        let _ = writeln!(text, "    {}{arrow}{}: {}", id_of(&from), id_of(&to), plain(&label));
    }
    text
}

/// The stages of the pipeline, and how a release goes from one environment to the next.
pub(super) fn pipeline(architecture: &Architecture) -> String {
    let document = &architecture.document;
    let mut text = String::new();
    if let Some(pipeline) = &document.delivery.pipeline {
        let mut diagram = "flowchart LR\n".to_owned();
        let mut before = "commit".to_owned();
        let branch = pipeline
            .branch
            .as_ref()
            .map_or_else(|| "a commit".to_owned(), |branch| format!("a commit to {}", branch.value));
        let _ = writeln!(diagram, "    commit([{}])", quoted(&branch));
        for stage in &pipeline.stages {
            let steps: Vec<String> = stage.steps.iter().map(|step| word(&step.value)).collect();
            let this = id("stage", stage.name.as_str());
            let _ = writeln!(diagram, "    {this}[{}]", quoted(&format!("{}: {}", stage.name.value, steps.join(", "))));
            let _ = writeln!(diagram, "    {before} --> {this}");
            before = this;
        }
        let _ = write!(text, "Run by {}:\n\n{}\n", word(&pipeline.runner.value), fenced(&diagram));
    }
    if !document.environments.is_empty() {
        let mut diagram = "flowchart LR\n".to_owned();
        for (name, environment) in &document.environments {
            let purpose =
                environment.purpose.as_ref().map_or_else(String::new, |purpose| format!(": {}", purpose.value));
            let _ =
                writeln!(diagram, "    {}[{}]", id("environment", name.as_str()), quoted(&format!("{name}{purpose}")));
        }
        for (name, environment) in &document.environments {
            let Some(after) = &environment.after else { continue };
            let gate = match (environment.deploy.value, &environment.approvals) {
                (DeployPolicy::Approval, Some(approvals)) => {
                    let of: Vec<&str> = approvals.of.iter().map(|who| who.as_str()).collect();
                    format!("approval by {} of {}", approvals.count.value, of.join(", "))
                }
                (policy, _) => word(&policy),
            };
            let soak = environment
                .soak
                .as_ref()
                .map_or_else(String::new, |soak| format!(", runs {} before it goes on", soak.value));
            let _ = writeln!(
                diagram,
                "    {} -->|{}| {}",
                id("environment", after.as_str()),
                quoted(&format!("{gate}{soak}")),
                id("environment", name.as_str())
            );
        }
        let _ = write!(text, "Environments, in the order in which a release reaches them:\n\n{}\n", fenced(&diagram));
    }
    if text.is_empty() { "The file declares no pipeline and no environments.\n".to_owned() } else { text }
}

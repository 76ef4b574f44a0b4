//! `landfall explain`: a value of the file with its default and its place, or a rule with its examples.

use std::io::Write;

use landfall_check::{RULES, Rule, Subject};
use landfall_model::{json_schema, suggestion};
use serde_json::Value;

use crate::Outcome;
use crate::cli::ExplainArguments;
use crate::project::Project;
use crate::terminal::Terminal;

/// Prints the explanation.
pub(crate) fn run(arguments: &ExplainArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let what = arguments.what.as_str();
    if what == "rules" {
        return rules(terminal);
    }
    if let Some(rule) = RULES.iter().find(|rule| rule.name == what) {
        return explain_rule(rule, terminal);
    }
    let (environment, path) = overridden(&plural(&dotted(what)), arguments.input.environment.as_deref());
    let environment = environment.as_deref();
    let project = Project::read(&arguments.input.file)?;
    let schema = json_schema();
    let architecture = match project.file.architecture(environment) {
        Ok(architecture) => architecture,
        Err(findings) => {
            terminal.findings(&findings, project.file.sources())?;
            // Somebody who asks what belongs there wants to know it most while the file is wrong.
            grammar(&path, &schema, terminal)?;
            return Ok(Outcome::NotUnderstood);
        }
    };
    let document = serde_json::to_value(&architecture.document)?;
    let found = match find(&document, &schema, &path) {
        Ok(found) => found,
        Err(missing) => {
            if missing.is_unset && grammar(&path, &schema, terminal)? {
                return Ok(Outcome::Done);
            }
            let hint = missing.hint(what);
            terminal.say(&format!("error: there is no value and no rule `{what}`{hint}"))?;
            return Ok(Outcome::NotUnderstood);
        }
    };
    let has_keys = alternatives(found.schema, &schema).iter().any(|option| option.get("properties").is_some());
    if found.value.is_null() && has_keys && grammar(&path, &schema, terminal)? {
        return Ok(Outcome::Done);
    }
    let out = terminal.data();
    writeln!(out, "{}", found.path)?;
    if let Some(description) = found.description {
        writeln!(out, "  {description}")?;
    }
    writeln!(out)?;
    let mut explanation = Explanation { schema: &schema, project: &project, environment, rows: Vec::new() };
    explanation.leaves(&found.path, "", found.value, found.schema, Absent::Shown);
    let rows = explanation.rows;
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let value_width = rows.iter().map(|row| row.value.chars().count()).max().unwrap_or(0).min(40);
    for row in &rows {
        writeln!(out, "  {:width$}  {:value_width$}  {}", row.name, row.value, row.place)?;
    }
    Ok(Outcome::Done)
}

/// Prints the keys that `path` may have, by the grammar alone; says whether the grammar knows it.
fn grammar(path: &str, schema: &Value, terminal: &mut Terminal) -> anyhow::Result<bool> {
    let mut at = schema;
    let mut description = None;
    for segment in path.split('.') {
        (at, description) = child(at, segment, schema);
    }
    let mut rows = Vec::new();
    for option in alternatives(at, schema) {
        let Some(Value::Object(properties)) = option.get("properties") else { continue };
        let required = option.get("required").and_then(Value::as_array);
        for (key, property) in properties {
            let is_required = required.is_some_and(|required| required.iter().any(|name| name == key));
            let about = alternatives(property, schema).into_iter().find_map(|one| one.get("description")?.as_str());
            rows.push((key, if is_required { "required" } else { "" }, about.unwrap_or("")));
        }
    }
    if rows.is_empty() && description.is_none() {
        return Ok(false);
    }
    let out = terminal.data();
    writeln!(out, "{path}")?;
    if let Some(description) = description {
        writeln!(out, "  {description}")?;
    }
    if !rows.is_empty() {
        writeln!(out, "\nIt takes:\n")?;
    }
    let width = rows.iter().map(|(key, ..)| key.chars().count()).max().unwrap_or(0);
    let required = rows.iter().map(|(_, required, _)| required.len()).max().unwrap_or(0);
    for (key, is_required, about) in rows {
        writeln!(out, "  {key:width$}  {is_required:required$}  {about}")?;
    }
    Ok(true)
}

/// `uses[0].call` is `uses.0.call`.
fn dotted(path: &str) -> String {
    path.replace('[', ".").replace(']', "")
}

/// `environments.staging.services.checkout` is `services.checkout` in `staging`.
fn overridden(path: &str, environment: Option<&str>) -> (Option<String>, String) {
    let parts: Vec<&str> = path.splitn(4, '.').collect();
    match parts.as_slice() {
        ["environments", name, section, rest @ ..] if landfall_model::OVERRIDABLE.contains(section) => {
            let path = [std::slice::from_ref(section), rest].concat().join(".");
            (Some((*name).to_owned()), path)
        }
        _ => (environment.map(ToOwned::to_owned), path.to_owned()),
    }
}

/// Findings say `service.checkout`, the file says `services.checkout`: both are understood.
fn plural(path: &str) -> String {
    let (head, rest) = path.split_once('.').unwrap_or((path, ""));
    let head = match head {
        "service" | "store" | "external" | "flow" | "environment" | "channel" | "segment" | "claim" | "waiver" => {
            format!("{head}s")
        }
        _ => head.to_owned(),
    };
    if rest.is_empty() { head } else { format!("{head}.{rest}") }
}

fn rules(terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let width = RULES.iter().map(|rule| rule.name.len()).max().unwrap_or(0);
    let mut subject = None;
    for rule in RULES {
        if subject != Some(rule.subject) {
            let blank = if subject.is_some() { "\n" } else { "" };
            writeln!(terminal.data(), "{blank}{}", heading(rule.subject))?;
            subject = Some(rule.subject);
        }
        writeln!(terminal.data(), "  {:width$}  {:7}  {}", rule.name, rule.severity.as_str(), rule.summary)?;
    }
    terminal.say(&format!("\n{} rules; `landfall explain RULE` explains one", RULES.len()))?;
    Ok(Outcome::Done)
}

fn heading(subject: Subject) -> &'static str {
    match subject {
        Subject::Language => "The file itself",
        Subject::Capacity => "Capacity, zones and nodes",
        Subject::Recovery => "Availability and recovery",
        Subject::Rollout => "Rollouts and scaling",
        Subject::Isolation => "Who reaches whom",
        Subject::Security => "Secrets, encryption, residency, images",
        Subject::Completeness => "What is missing or leads nowhere",
        Subject::Delivery => "Pipelines, checklists, end of life, claims",
    }
}

fn explain_rule(rule: &Rule, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let out = terminal.data();
    writeln!(out, "{} ({})\n{}\n\n{}\n", rule.name, rule.severity.as_str(), rule.summary, rule.explanation)?;
    writeln!(out, "Passes:\n\n{}\nFails:\n\n{}", indent(rule.passing), indent(rule.failing))?;
    Ok(Outcome::Done)
}

fn indent(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }).collect()
}

struct Found<'a> {
    /// The path, with an index where the user gave an id.
    path: String,
    value: &'a Value,
    schema: &'a Value,
    description: Option<&'a str>,
}

/// Where a path leads nowhere.
struct Missing {
    /// The part of the path that is there.
    above: String,
    /// What could have come next.
    known: Vec<String>,
    /// Whether the path ends at a value that nobody has set.
    is_unset: bool,
}

impl Missing {
    fn hint(&self, what: &str) -> String {
        let wanted = dotted(what);
        let rules = RULES.iter().map(|rule| rule.name).filter(|_| self.above.is_empty());
        let wanted = if self.above.is_empty() { wanted.as_str() } else { wanted.rsplit('.').next().unwrap_or("") };
        let near = suggestion(wanted, self.known.iter().map(String::as_str).chain(rules));
        let whole = |name: &str| if self.above.is_empty() { name.to_owned() } else { format!("{}.{name}", self.above) };
        match near {
            Some(near) => format!("\nhint: did you mean `{}`?", whole(near)),
            None if self.above.is_empty() || self.known.is_empty() => String::new(),
            None => format!("\nhint: `{}` has {}", self.above, self.known.join(", ")),
        }
    }
}

fn find<'a>(document: &'a Value, schema: &'a Value, path: &str) -> Result<Found<'a>, Missing> {
    let mut found = Found { path: String::new(), value: document, schema, description: None };
    let mut rest = path;
    while !rest.is_empty() {
        let missing =
            |known: Vec<String>| Missing { above: found.path.clone(), known, is_unset: found.value.is_null() };
        let first = rest.split('.').next().unwrap_or(rest);
        let (key, value, length) = match found.value {
            Value::Array(items) => {
                let by_id = || items.iter().position(|item| item.get("id").is_some_and(|id| id == first));
                let index = first.parse().ok().or_else(by_id);
                let item = index.and_then(|index: usize| Some((index, items.get(index)?)));
                let (index, item) = item.ok_or_else(|| missing(Vec::new()))?;
                (index.to_string(), item, first.len())
            }
            Value::Object(object) => {
                // A key may hold dots, as topics do: the longest one that fits is meant.
                let fits =
                    |key: &str| rest.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
                let entry = object.iter().filter(|(key, _)| fits(key)).max_by_key(|(key, _)| key.len());
                let (key, value) = entry.ok_or_else(|| missing(object.keys().cloned().collect()))?;
                (key.clone(), value, key.len())
            }
            _ => return Err(missing(Vec::new())),
        };
        rest = rest[length..].trim_start_matches('.');
        let (below, description) = child(found.schema, &key, schema);
        let path = if found.path.is_empty() { key } else { format!("{}.{key}", found.path) };
        found = Found { path, value, schema: below, description };
    }
    Ok(found)
}

/// The schema of a key, and what its documentation says.
fn child<'a>(schema: &'a Value, key: &str, root: &'a Value) -> (&'a Value, Option<&'a str>) {
    let mut of_type = None;
    for candidate in alternatives(schema, root) {
        let property = candidate.get("properties").and_then(|properties| properties.get(key));
        let nested = property.or_else(|| candidate.get("additionalProperties")).or_else(|| candidate.get("items"));
        if let Some(nested) = nested {
            let own = nested.get("description").and_then(Value::as_str);
            let text =
                own.or_else(|| alternatives(nested, root).into_iter().find_map(|one| one.get("description")?.as_str()));
            return (nested, text);
        }
        of_type = of_type.or_else(|| candidate.get("description").and_then(Value::as_str));
    }
    (&Value::Null, of_type)
}

/// A schema with its references followed and its alternatives laid out.
fn alternatives<'a>(schema: &'a Value, root: &'a Value) -> Vec<&'a Value> {
    let mut all = vec![schema];
    let mut next = 0;
    while let Some(schema) = all.get(next).copied() {
        next += 1;
        if let Some(name) =
            schema.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix("#/$defs/"))
        {
            all.push(&root["$defs"][name]);
        }
        if let Some(Value::Array(options)) = schema.get("anyOf") {
            all.extend(options);
        }
    }
    all
}

struct Row {
    name: String,
    value: String,
    place: String,
}

/// The rows of one explanation.
struct Explanation<'a> {
    schema: &'a Value,
    project: &'a Project,
    environment: Option<&'a str>,
    rows: Vec<Row>,
}

/// Whether what is absent is worth a row: an edge has ten verbs of which one is written, so in a list it is not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    Shown,
    Hidden,
}

impl Explanation<'_> {
    /// Every value below `path`, with the line that says it, or that it is a default and what it means.
    fn leaves(&mut self, path: &str, name: &str, value: &Value, schema: &Value, absent: Absent) {
        let below = |key: &str| {
            let name = if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
            (format!("{path}.{key}"), name)
        };
        match value {
            Value::Object(object) if !object.is_empty() => {
                let short = short_for(schema, self.schema);
                for (key, value) in object {
                    let is_short = short == Some(key.as_str());
                    let (path, name) = below(key);
                    let (schema, description) = child(schema, key, self.schema);
                    if !is_plain(value) {
                        self.leaves(&path, &name, value, schema, absent);
                        continue;
                    }
                    let parent = path.rsplit_once('.').map(|(parent, _)| parent).filter(|_| is_short);
                    let place = self.place(&path).or_else(|| self.place(parent?));
                    if absent == Absent::Shown || place.is_some() {
                        self.rows.push(row(name, value, place, description));
                    }
                }
            }
            Value::Array(items) if items.iter().any(|item| !is_plain(item)) => {
                let (schema, _) = child(schema, "", self.schema);
                for (index, item) in items.iter().enumerate() {
                    let (path, name) = below(&index.to_string());
                    self.leaves(&path, &name, item, schema, Absent::Hidden);
                }
            }
            _ => {
                let place = self.place(path);
                self.rows.push(row(name.to_owned(), value, place, None));
            }
        }
    }

    /// `line 12`, or `claims.yaml:12` in an included file.
    fn place(&self, path: &str) -> Option<String> {
        let span = self.project.file.written_in(path, self.environment)?;
        let sources = self.project.file.sources();
        let is_included = self.project.file.written("landfall").is_none_or(|first| first.source() != span.source());
        if is_included {
            return sources.line_reference(span);
        }
        sources.position(span).map(|position| format!("line {}", position.line))
    }
}

/// The key for which a single value may stand: `count` for `replicas: 3`.
fn short_for<'a>(schema: &'a Value, root: &'a Value) -> Option<&'a str> {
    alternatives(schema, root).into_iter().find_map(|option| {
        let text = option.get("description")?.as_str()?;
        text.strip_prefix("Short for `{ ")?.split_once(':').map(|(key, _)| key)
    })
}

fn is_plain(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().all(|item| !item.is_object() && !item.is_array()),
        Value::Object(object) => object.is_empty(),
        _ => true,
    }
}

fn row(name: String, value: &Value, place: Option<String>, description: Option<&str>) -> Row {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.to_string(), ToOwned::to_owned))
            .collect::<Vec<_>>()
            .join(", "),
        Value::Object(_) => "none".to_owned(),
        other => other.to_string(),
    };
    let place = match (place, description) {
        (Some(place), _) => place,
        (None, Some(description)) => format!("default: {description}"),
        (None, None) => "default".to_owned(),
    };
    Row { name, value: text, place }
}

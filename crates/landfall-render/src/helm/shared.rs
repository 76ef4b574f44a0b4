//! Texts that many objects share and each environment has its own of: namespaces and hosts.
//!
//! A text that contains one is told by a marker in its place. Where the marked texts of all environments are equal, the
//! marked text is the template: putting an environment's own text back gives what that environment had.

use serde_json::Value;

use super::names::{Names, word};
use super::values::Values;
use crate::layers::{CLUSTER, Layers};

/// The character around a marker: YAML can only say it between quotes, so what replaces it is quoted.
const MARK: char = '\u{1}';

/// The namespaces and hosts that differ.
pub(crate) struct Shared {
    texts: Vec<SharedText>,
}

/// One of them.
struct SharedText {
    /// What a template says for it.
    expression: String,
    /// What it is in each environment; `None` where there is none.
    of: Vec<Option<String>>,
}

impl Shared {
    /// Finds them, and makes each a value.
    pub(crate) fn of(layers: &Layers<'_>, names: &mut Names, values: &mut Values) -> Self {
        let mut shared = Self { texts: Vec::new() };
        let main = layers.variants[layers.base].architecture.namespace().to_string();
        let groups = layers.namespaces.iter().flat_map(|groups| groups.keys());
        let groups: std::collections::BTreeSet<&String> = groups.filter(|group| *group != CLUSTER).collect();
        for group in groups {
            let name =
                if *group == main { vec!["namespace".to_owned()] } else { vec!["namespaces".to_owned(), word(group)] };
            let of = layers.namespaces.iter().map(|groups| groups.get(group).cloned()).collect();
            shared.add(name, of, names, values);
        }
        shared.hosts(layers, names, values);
        shared
    }

    /// The hosts under which services are reached. One that several services share is one value.
    fn hosts(&mut self, layers: &Layers<'_>, names: &mut Names, values: &mut Values) {
        let services = layers.variants.iter().flat_map(|variant| variant.architecture.document.services.keys());
        let services: std::collections::BTreeSet<&str> = services.map(|name| name.as_str()).collect();
        let mut hosts: Vec<(&str, Vec<Option<String>>)> = Vec::new();
        for service in services {
            let host = |variant: &crate::target::Variant| {
                let expose = variant.architecture.service(service)?.expose.as_ref()?;
                Some(expose.host.to_string())
            };
            let of: Vec<_> = layers.variants.iter().map(host).collect();
            if of.iter().any(Option::is_some) && hosts.iter().all(|(_, other)| *other != of) {
                hosts.push((service, of));
            }
        }
        let alone = hosts.len() == 1;
        for (service, of) in hosts {
            let name = if alone { vec!["host".to_owned()] } else { vec![word(service), "host".to_owned()] };
            let dashed = of.iter().map(|host| host.as_ref().map(|host| host.replace('.', "-"))).collect();
            if let Some(path) = self.add(name, of, names, values) {
                self.texts
                    .push(SharedText { expression: format!("{{{{ {path} | replace \".\" \"-\" }}}}"), of: dashed });
            }
        }
    }

    /// Makes a value of the text when it differs, and says how a template reads it.
    fn add(
        &mut self,
        name: Vec<String>,
        of: Vec<Option<String>>,
        names: &mut Names,
        values: &mut Values,
    ) -> Option<String> {
        let present: Vec<&String> = of.iter().flatten().collect();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '*');
        if present.iter().all(|text| *text == present[0]) || present.iter().any(|text| !text.chars().all(is_plain)) {
            return None;
        }
        let name = names.take(name);
        let path = format!(".Values.{}", name.join("."));
        values.add(name, of.iter().map(|text| text.clone().map(Value::String)).collect());
        self.texts.push(SharedText { expression: format!("{{{{ {path} }}}}"), of });
        Some(path)
    }

    /// The value with a marker for each shared text of an environment.
    pub(crate) fn mark(&self, value: &Value, environment: usize) -> Value {
        match value {
            Value::String(text) => Value::String(self.mark_text(text, environment)),
            Value::Array(items) => items.iter().map(|item| self.mark(item, environment)).collect(),
            // Keys stay: a key that differs is a field that some environments do not have.
            Value::Object(fields) => {
                fields.iter().map(|(key, field)| (key.clone(), self.mark(field, environment))).collect()
            }
            other => other.clone(),
        }
    }

    fn mark_text(&self, text: &str, environment: usize) -> String {
        if text.contains(MARK) {
            return text.to_owned();
        }
        let known = self
            .texts
            .iter()
            .enumerate()
            .filter_map(|(index, shared)| Some((index, shared.of[environment].as_deref()?)));
        let mut known: Vec<(usize, &str)> = known.collect();
        known.sort_by_key(|(index, own)| (std::cmp::Reverse(own.len()), *index));
        let mut marked = String::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            match known.iter().find(|(_, own)| rest.starts_with(own)) {
                Some((index, own)) => {
                    marked.push_str(&marker(*index));
                    rest = &rest[own.len()..];
                }
                None => {
                    marked.push(next);
                    rest = &rest[next.len_utf8()..];
                }
            }
        }
        marked
    }

    /// YAML with markers as a template.
    pub(crate) fn template(&self, yaml: &str) -> String {
        let mut text = yaml.replace("{{", "{{`{{`}}");
        let written = written_mark();
        for (index, shared) in self.texts.iter().enumerate() {
            let marker = marker(index).replace(MARK, &written);
            let alone = format!("\"{marker}\"");
            let quoted = shared.expression.replace(" }}", " | quote }}");
            text = text.replace(&alone, &quoted).replace(&marker, &shared.expression);
        }
        text
    }
}

fn marker(index: usize) -> String {
    format!("{MARK}{index}{MARK}")
}

/// How the mark is written between quotes.
fn written_mark() -> String {
    let text = crate::yaml::Writer::default().write(&Value::String(MARK.to_string()));
    text.trim().trim_matches('"').to_owned()
}

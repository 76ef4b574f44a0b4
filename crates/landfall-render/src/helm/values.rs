//! The values of a chart: what each is in each environment, and the three files that say so.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::json::json;

/// Every value.
pub(crate) struct Values {
    base: usize,
    entries: Vec<Entry>,
}

struct Entry {
    name: Vec<String>,
    /// What it is in each environment; `None` where the chart does not look at it, or where it must not be.
    of: Vec<Option<Value>>,
    /// Whether a template fails without it. What may be missing has no default: Helm can hardly take one away.
    required: bool,
}

impl Values {
    /// No values yet.
    pub(crate) fn new(base: usize) -> Self {
        Self { base, entries: Vec::new() }
    }

    /// A value that has a default; where it is `None` nothing looks at it.
    pub(crate) fn add(&mut self, name: Vec<String>, of: Vec<Option<Value>>) {
        // Helm would merge a mapping with the default.
        let required = !of.iter().flatten().any(|value| value.is_object() || value.is_null());
        self.entries.push(Entry { name, of, required });
    }

    /// A value that means by its absence that something is not there.
    pub(crate) fn add_optional(&mut self, name: Vec<String>, of: Vec<Option<Value>>) {
        self.entries.push(Entry { name, of, required: false });
    }

    /// `values.yaml`.
    pub(crate) fn defaults(&self) -> Value {
        let mut values = Map::new();
        for entry in &self.entries {
            let (last, folders) = entry.name.split_last().expect("a name has a part");
            let folder = folder(&mut values, folders);
            if let Some(value) = entry.default(self.base) {
                folder.insert(last.clone(), value.clone());
            }
        }
        Value::Object(values)
    }

    /// `values-<environment>.yaml`.
    pub(crate) fn overrides(&self, environment: usize) -> Value {
        let mut values = Map::new();
        for entry in &self.entries {
            let own = entry.of[environment].as_ref();
            if let Some(own) = own.filter(|own| entry.default(self.base) != Some(own)) {
                let (last, folders) = entry.name.split_last().expect("a name has a part");
                folder(&mut values, folders).insert(last.clone(), own.clone());
            }
        }
        Value::Object(values)
    }

    /// `values.schema.json`: the type of each value, and that there are no others.
    pub(crate) fn schema(&self) -> Value {
        let mut root = json!({ "type": "object", "additionalProperties": false, "properties": {} });
        for entry in &self.entries {
            let (last, folders) = entry.name.split_last().expect("a name has a part");
            let mut at = &mut root;
            for part in folders {
                let new = || json!({ "type": "object", "additionalProperties": false, "properties": {} });
                let properties = at["properties"].as_object_mut().expect("a schema has properties");
                at = properties.entry(part.clone()).or_insert_with(new);
            }
            at["properties"][last] = entry.schema();
            if entry.required {
                match &mut at["required"] {
                    Value::Array(required) => required.push(json!(last)),
                    none => *none = json!([last]),
                }
            }
        }
        // Helm adds it to the values of every chart.
        root["properties"]["global"] = json!({ "type": "object" });
        let mut schema = json!({ "$schema": "http://json-schema.org/draft-07/schema#" });
        if let (Value::Object(schema), Value::Object(root)) = (&mut schema, root) {
            schema.extend(root);
        }
        schema
    }
}

impl Entry {
    fn default(&self, base: usize) -> Option<&Value> {
        let own = self.of[base].as_ref().or_else(|| self.of.iter().flatten().next());
        own.filter(|_| self.required)
    }

    fn schema(&self) -> Value {
        let types: BTreeSet<&str> = self.of.iter().flatten().map(type_of).collect();
        match types.len() {
            1 => json!({ "type": types.first() }),
            _ => json!({ "type": types }),
        }
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn folder<'a>(values: &'a mut Map<String, Value>, folders: &[String]) -> &'a mut Map<String, Value> {
    folders.iter().fold(values, |values, part| {
        let folder = values.entry(part.clone()).or_insert_with(|| Value::Object(Map::new()));
        folder.as_object_mut().expect("a name is never a part of another")
    })
}

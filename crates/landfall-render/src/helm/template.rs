//! Templates: one object in all environments as one text.

use landfall_model::Sources;
use serde_json::{Map, Value};

use super::names::{self, Names};
use super::shared::Shared;
use super::values::Values;
use crate::layers::{Layered, Layers};
use crate::yaml;

/// Writes templates, and gathers the values that they read.
pub(crate) struct Templates<'a> {
    base: usize,
    sources: &'a Sources,
    shared: &'a Shared,
    names: Names,
    values: Values,
    writer: yaml::Writer,
}

/// A part of an object in each environment; `None` where what it is in is not.
type Parts<'v> = Vec<Option<&'v Value>>;

/// Where a part stands: in which object, and how far it is indented.
struct Place<'p> {
    kind: &'p str,
    prefix: &'p [String],
    pointer: Vec<String>,
    indent: usize,
}

impl Place<'_> {
    fn inside(&self, part: &str, indent: usize) -> Self {
        let mut pointer = self.pointer.clone();
        pointer.extend((!part.is_empty()).then(|| part.to_owned()));
        Self { kind: self.kind, prefix: self.prefix, pointer, indent }
    }

    fn name(&self) -> Vec<String> {
        names::of_pointer(self.prefix, self.kind, &self.pointer)
    }
}

impl<'a> Templates<'a> {
    /// No templates yet.
    pub(crate) fn new(
        layers: &Layers<'_>,
        sources: &'a Sources,
        shared: &'a Shared,
        names: Names,
        values: Values,
    ) -> Self {
        Self { base: layers.base, sources, shared, names, values, writer: yaml::Writer::default() }
    }

    /// The values that the templates read.
    pub(crate) fn into_values(self) -> Values {
        self.values
    }

    /// The template of an object.
    pub(crate) fn object(&mut self, object: &Layered<'_>) -> String {
        let (_, model) = object.model(self.base);
        let prefix = names::prefix(model.kind(), &object.path);
        let parts: Parts<'_> = object.variants.iter().map(|object| object.map(|object| &object.value)).collect();
        let place = Place { kind: model.kind(), prefix: &prefix, pointer: Vec::new(), indent: 0 };
        let mut out = format!("# From {}\n", model.origin_line(self.sources));
        if parts.iter().all(Option::is_some) {
            self.fields(&parts, &place, &mut out);
        } else {
            let switch = self.switch(&parts, &vec![true; parts.len()], &place);
            out += &format!("{{{{- if {switch} }}}}\n");
            self.fields(&parts, &place, &mut out);
            out += "{{- end }}\n";
        }
        out
    }

    /// The fields of a mapping, one after the other; every part that is there is a mapping.
    fn fields(&mut self, parts: &Parts<'_>, place: &Place<'_>, out: &mut String) {
        for key in self.keys(parts) {
            let fields: Parts<'_> = parts.iter().map(|part| part.and_then(|part| part.get(&key))).collect();
            let everywhere = parts.iter().zip(&fields).all(|(part, field)| part.is_some() == field.is_some());
            let place = place.inside(&key, place.indent);
            if everywhere {
                self.field(&key, &fields, &place, out);
            } else if fields.iter().flatten().all(|field| is_mapping(field)) {
                let there: Vec<bool> = parts.iter().map(Option::is_some).collect();
                let switch = self.switch(&fields, &there, &place);
                *out += &format!("{{{{- if {switch} }}}}\n");
                self.field(&key, &fields, &place, out);
                *out += "{{- end }}\n";
            } else {
                self.optional(&key, &fields, &place, out);
            }
        }
    }

    /// A field that is in every environment that has what it is in.
    fn field(&mut self, key: &str, parts: &Parts<'_>, place: &Place<'_>, out: &mut String) {
        if let Some(same) = self.same(parts, place) {
            self.literal(&one(key, same), place.indent, out);
        } else if parts.iter().flatten().all(|part| is_mapping(part)) {
            let head = self.key(key);
            *out += &format!("{}{head}\n", blanks(place.indent));
            self.fields(parts, &place.inside("", place.indent + 2), out);
        } else if let Some(items) = items(parts, self.base) {
            let head = self.key(key);
            *out += &format!("{}{head}\n", blanks(place.indent));
            for item in items {
                self.item(&item, parts, place, out);
            }
        } else {
            let name = self.names.take(place.name());
            let head = self.key(key);
            *out += &format!("{}{head}", blanks(place.indent));
            *out += &expression(&format!(".Values.{}", name.join(".")), parts, place.indent);
            self.values.add(name, parts.iter().map(|part| part.cloned()).collect());
        }
    }

    /// A field that is a value where it is, and is left out where there is no value.
    fn optional(&mut self, key: &str, parts: &Parts<'_>, place: &Place<'_>, out: &mut String) {
        let name = self.names.take(place.name());
        let path = format!(".Values.{}", name.join("."));
        let head = self.key(key);
        let field = format!("{}{head}", blanks(place.indent));
        if parts.iter().flatten().all(|part| is_truth(part)) {
            *out += &format!("{{{{- with {path} }}}}\n{field}{}{{{{- end }}}}\n", expression(".", parts, place.indent));
        } else {
            let text = expression(&path, parts, place.indent);
            *out += &format!("{{{{- if not (kindIs \"invalid\" {path}) }}}}\n{field}{text}{{{{- end }}}}\n");
        }
        self.values.add_optional(name, parts.iter().map(|part| part.cloned()).collect());
    }

    /// An item of a list, which is a mapping.
    fn item(&mut self, item: &Item, lists: &Parts<'_>, place: &Place<'_>, out: &mut String) {
        let parts: Parts<'_> =
            lists.iter().zip(&item.index).map(|(list, index)| list.and_then(|list| list.get((*index)?))).collect();
        let everywhere = lists.iter().zip(&parts).all(|(list, part)| list.is_some() == part.is_some());
        let inner = place.inside(&item.name, place.indent + 2);
        let mut text = String::new();
        if let Some(same) = self.same(&parts, &inner) {
            self.literal(&same, inner.indent, &mut text);
        } else {
            self.fields(&parts, &inner, &mut text);
        }
        // The first line of an item begins with a dash.
        let text = format!("{}- {}", blanks(place.indent), &text[inner.indent..]);
        if everywhere {
            *out += &text;
        } else {
            let there: Vec<bool> = lists.iter().map(Option::is_some).collect();
            let switch = self.switch(&parts, &there, &inner);
            *out += &format!("{{{{- if {switch} }}}}\n{text}{{{{- end }}}}\n");
        }
    }

    /// A value that says whether something is there.
    fn switch(&mut self, parts: &Parts<'_>, asked: &[bool], place: &Place<'_>) -> String {
        let mut name = place.name();
        name.push("enabled".to_owned());
        let name = self.names.take(name);
        let of = parts.iter().zip(asked).map(|(part, asked)| asked.then_some(Value::Bool(part.is_some())));
        self.values.add(name.clone(), of.collect());
        format!(".Values.{}", name.join("."))
    }

    /// What all environments have alike, with markers; nothing if they differ or if it has something that is always a value.
    fn same(&self, parts: &Parts<'_>, place: &Place<'_>) -> Option<Value> {
        let mut there = parts.iter().enumerate().filter_map(|(index, part)| Some((index, (*part)?)));
        let (index, first) = there.next()?;
        if names::is_workload(place.kind) && has_delivered(first, &place.pointer) {
            return None;
        }
        if parts.iter().flatten().all(|part| *part == first) {
            return Some(first.clone());
        }
        let marked = self.shared.mark(first, index);
        there.all(|(index, part)| self.shared.mark(part, index) == marked).then_some(marked)
    }

    fn literal(&mut self, value: &Value, indent: usize, out: &mut String) {
        let text = self.shared.template(&self.writer.write(value));
        for line in text.split_inclusive('\n') {
            if line != "\n" {
                *out += &blanks(indent);
            }
            *out += line;
        }
    }

    /// `key:`, as YAML and as a template.
    fn key(&mut self, key: &str) -> String {
        let text = self.writer.write(&one(key, Value::Bool(true)));
        self.shared.template(text.trim_end().trim_end_matches("true").trim_end())
    }

    /// The keys of all parts: those of the base first. A field that is everywhere comes first, for lists whose items
    /// begin with a dash.
    fn keys(&self, parts: &Parts<'_>) -> Vec<String> {
        let base = parts[self.base].or_else(|| parts.iter().flatten().next().copied());
        let ordered = base.into_iter().chain(parts.iter().flatten().copied());
        let mut keys: Vec<String> = Vec::new();
        for key in ordered.filter_map(Value::as_object).flat_map(Map::keys) {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        if let Some(first) = keys.iter().position(|key| parts.iter().flatten().all(|part| part.get(key).is_some())) {
            let first = keys.remove(first);
            keys.insert(0, first);
        }
        keys
    }
}

/// What a list has at one place.
struct Item {
    /// What it is called in the names of values; empty for the only one.
    name: String,
    /// Where it is in the list of each environment.
    index: Vec<Option<usize>>,
}

/// By what people tell the items of Kubernetes' lists apart.
const IDENTITIES: [&str; 8] = ["name", "alert", "record", "topologyKey", "secretKey", "mountPath", "hostname", "type"];

/// The items of lists of mappings, put together; `None` for lists that cannot be told item by item.
fn items(parts: &Parts<'_>, base: usize) -> Option<Vec<Item>> {
    let lists: Vec<Option<&Vec<Value>>> = parts.iter().map(|part| part.and_then(Value::as_array)).collect();
    let told = parts.iter().zip(&lists).all(|(part, list)| part.is_some() == list.is_some());
    let mut present = lists.iter().flatten();
    let item_is_fit = |item: &Value| item.as_object().is_some_and(|fields| !fields.is_empty());
    if !told || !present.clone().all(|list| !list.is_empty() && list.iter().all(item_is_fit)) {
        return None;
    }
    let named = IDENTITIES.iter().find_map(|identity| by_identity(&lists, base, identity));
    let items = named.or_else(|| {
        let length = present.next()?.len();
        let name = |place: usize| if length == 1 { String::new() } else { format!("item{}", place + 1) };
        let index = |place| lists.iter().map(|list| list.map(|_| place)).collect();
        let items = (0..length).map(|place| Item { name: name(place), index: index(place) }).collect();
        lists.iter().flatten().all(|list| list.len() == length).then_some(items)
    })?;
    // An item begins with a field that is always there.
    let begins = |item: &Item| {
        let of: Vec<&Map<String, Value>> =
            lists.iter().zip(&item.index).filter_map(|(list, index)| (*list)?[(*index)?].as_object()).collect();
        of.first().is_some_and(|first| first.keys().any(|key| of.iter().all(|fields| fields.contains_key(key))))
    };
    items.iter().all(begins).then_some(items)
}

/// The items by a field that tells them apart, if it does and if no two environments have them in another order.
fn by_identity(lists: &[Option<&Vec<Value>>], base: usize, identity: &str) -> Option<Vec<Item>> {
    let named: Vec<Option<Vec<&str>>> = lists
        .iter()
        .map(|list| list.map(|list| list.iter().map(|item| item[identity].as_str()).collect::<Option<Vec<_>>>()))
        .map(|names| match names {
            None => Some(None),
            Some(None) => None,
            Some(Some(names)) => Some(Some(names)),
        })
        .collect::<Option<_>>()?;
    let mut order: Vec<&str> = Vec::new();
    let first = named[base].iter();
    for names in first.chain(named.iter().flatten()) {
        let mut at = 0;
        for name in names {
            match order.iter().position(|known| known == name) {
                Some(known) => at = known + 1,
                None => {
                    order.insert(at, name);
                    at += 1;
                }
            }
        }
    }
    let in_order = |names: &Vec<&str>| {
        let places: Vec<usize> =
            order.iter().enumerate().filter(|(_, name)| names.contains(name)).map(|(place, _)| place).collect();
        places.len() == names.len() && places.iter().map(|place| order[*place]).eq(names.iter().copied())
    };
    let index = |name: &str| {
        let place =
            |names: &Option<Vec<&str>>| names.as_ref().and_then(|names| names.iter().position(|own| *own == name));
        named.iter().map(place).collect()
    };
    let items = order.iter().map(|name| Item { name: (*name).to_owned(), index: index(name) }).collect();
    named.iter().flatten().all(in_order).then_some(items)
}

/// What a template says for a value, with the line break; `path` leads to the value.
fn expression(path: &str, parts: &Parts<'_>, indent: usize) -> String {
    let all = |test: fn(&Value) -> bool| parts.iter().flatten().all(|part| test(part));
    if all(Value::is_string) {
        format!(" {{{{ {path} | quote }}}}\n")
    } else if all(Value::is_boolean) {
        format!(" {{{{ {path} }}}}\n")
    } else if all(|part| part.is_i64() || part.is_u64()) {
        // Helm holds numbers as floating ones, and would write a million as 1e+06.
        format!(" {{{{ {path} | int64 }}}}\n")
    } else if all(|part| !part.is_array() && !part.is_object()) {
        format!(" {{{{ {path} | toJson }}}}\n")
    } else {
        format!("\n{}{{{{- toYaml {path} | nindent {} }}}}\n", blanks(indent + 2), indent + 2)
    }
}

/// Whether a template's `with` takes the value for something.
fn is_truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// Whether the part has something that a delivery changes, so that it is a value even where environments agree.
fn has_delivered(value: &Value, pointer: &[String]) -> bool {
    let under = pointer.iter().any(|part| part == "resources");
    let key = pointer.last().map(String::as_str);
    match value {
        Value::Object(fields) => fields.iter().any(|(key, field)| {
            let mut inner = pointer.to_vec();
            inner.push(key.clone());
            has_delivered(field, &inner)
        }),
        Value::Array(items) => items.iter().any(|item| has_delivered(item, pointer)),
        Value::Null => false,
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let in_container = pointer.iter().any(|part| part == "containers");
            key == Some("image") && in_container
                || key == Some("replicas") && pointer.len() == 2
                || under && in_container
        }
    }
}

fn is_mapping(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| !fields.is_empty())
}

fn one(key: &str, value: Value) -> Value {
    Value::Object([(key.to_owned(), value)].into_iter().collect())
}

fn blanks(count: usize) -> String {
    " ".repeat(count)
}

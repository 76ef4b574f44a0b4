//! Sets of fields, as `metadata.managedFields` writes them, and the walks that build them.
//!
//! <https://kubernetes.io/docs/reference/using-api/server-side-apply/>

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::scheme::types::{Field, ListKind, Shape, Types, Zero};

/// One step from a value to a part of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Field(String),
    /// An item of a list by its keys, as canonical JSON.
    Key(String),
    /// An item of a set, as JSON.
    Item(String),
}

/// Fields of an object. A node that is a member is owned itself; its children may be owned as well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Set {
    pub(crate) member: bool,
    pub(crate) children: BTreeMap<Step, Set>,
}

impl Step {
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Self::Field(rest.to_owned())),
            "k" => Some(Self::Key(canonical(&serde_json::from_str(rest).ok()?))),
            "v" => Some(Self::Item(canonical(&serde_json::from_str(rest).ok()?))),
            _ => None,
        }
    }

    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => format!("k:{keys}"),
            Self::Item(value) => format!("v:{value}"),
        }
    }

    /// As paths in messages name it: `.spec`, `[name="a"]`.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Field(name) => format!(".{name}"),
            Self::Item(value) => format!("[={value}]"),
            Self::Key(keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let parts: Vec<_> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("[{}]", parts.join(","))
            }
        }
    }
}

/// JSON with the keys of objects in order.
pub(crate) fn canonical(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let sorted: BTreeMap<_, _> = object.iter().collect();
            let parts: Vec<_> = sorted
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", parts.join(","))
        }
        other => other.to_string(),
    }
}

impl Set {
    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// Makes each node a member: what is added is added with all that holds it.
    pub(crate) fn member_throughout(&mut self) {
        self.member = true;
        self.children.values_mut().for_each(Self::member_throughout);
    }

    pub(crate) fn leaf() -> Self {
        Self { member: true, children: BTreeMap::new() }
    }

    /// Reads the form of `fieldsV1`.
    pub(crate) fn parse(fields: &Value) -> Self {
        let mut set = Self::default();
        for (name, inner) in fields.as_object().into_iter().flatten() {
            if name == "." {
                set.member = true;
            } else if let Some(step) = Step::parse(name) {
                let mut child = Self::parse(inner);
                child.member |= child.children.is_empty();
                set.children.insert(step, child);
            }
        }
        set
    }

    pub(crate) fn encode(&self) -> Value {
        let mut fields = Map::new();
        if self.member && !self.children.is_empty() {
            fields.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (step, child) in &self.children {
            fields.insert(step.encode(), child.encode());
        }
        Value::Object(fields)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.member |= other.member;
        for (step, child) in &other.children {
            self.children.entry(step.clone()).or_default().add(child);
        }
    }

    /// Takes away what `other` has.
    pub(crate) fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        for (step, child) in &other.children {
            if let Some(own) = self.children.get_mut(step) {
                own.subtract(child);
                if own.is_empty() {
                    self.children.remove(step);
                }
            }
        }
    }

    /// Takes away what `other` has, and all that is below it.
    pub(crate) fn subtract_below(&mut self, other: &Self) {
        if other.member {
            *self = Self::default();
            return;
        }
        for (step, child) in &other.children {
            if let Some(own) = self.children.get_mut(step) {
                own.subtract_below(child);
                if own.is_empty() {
                    self.children.remove(step);
                }
            }
        }
    }

    pub(crate) fn intersect(&self, other: &Self) -> Self {
        let mut set = Self { member: self.member && other.member, children: BTreeMap::new() };
        for (step, child) in &self.children {
            if let Some(other) = other.children.get(step) {
                let common = child.intersect(other);
                if !common.is_empty() {
                    set.children.insert(step.clone(), common);
                }
            }
        }
        set
    }

    /// Each member's path as Kubernetes writes it: `.spec.containers[name="a"].image`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.paths_into("", &mut found);
        found
    }

    fn paths_into(&self, prefix: &str, found: &mut Vec<String>) {
        for (step, child) in &self.children {
            let path = format!("{prefix}{}", step.text());
            if child.member {
                found.push(path.clone());
            }
            child.paths_into(&path, found);
        }
    }
}

/// How a value is put together, for ownership.
pub(crate) enum Nature<'a> {
    /// One owner for all of it.
    Whole,
    /// By field: of a struct, a map, or an object without a schema.
    Fields,
    /// By key. The field names the keys.
    Keyed(&'a Field, &'a Shape),
    Items,
}

/// How `value` is owned, given what is known of it.
pub(crate) fn nature<'a>(
    types: &'a Types,
    shape: Option<&'a Shape>,
    field: Option<&'a Field>,
    value: &Value,
) -> Nature<'a> {
    let atomic = field.is_some_and(|field| field.atomic);
    match (shape, value) {
        (Some(Shape::Struct(index)), Value::Object(_)) if !atomic && !types.get(*index).atomic => Nature::Fields,
        (Some(Shape::Map(_)) | None, Value::Object(_)) if !atomic => Nature::Fields,
        (Some(Shape::List(item)), Value::Array(_)) => match field.map(|field| field.list) {
            Some(ListKind::Map) => Nature::Keyed(field.expect("its kind was asked for"), item),
            Some(ListKind::Set) => Nature::Items,
            _ => Nature::Whole,
        },
        _ => Nature::Whole,
    }
}

/// What is known of the field `name` of a value of `shape`. None: nothing is, and it is taken as it comes.
pub(crate) fn inner<'a>(
    types: &'a Types,
    shape: Option<&'a Shape>,
    name: &str,
) -> (Option<&'a Shape>, Option<&'a Field>) {
    match shape {
        Some(Shape::Struct(index)) => {
            let field = types.get(*index).field(name);
            (field.map(|field| &field.shape), field)
        }
        Some(Shape::Map(item)) => (Some(item), None),
        _ => (None, None),
    }
}

/// The keys of an item, with the defaults of those that are left out.
pub(crate) fn key_of(types: &Types, field: &Field, item_shape: &Shape, item: &Value) -> Step {
    let mut keys = Map::new();
    for key in &field.keys {
        let default = || match item_shape {
            Shape::Struct(index) => types.get(*index).field(key).and_then(|field| field.default.clone()),
            _ => None,
        };
        if let Some(value) = item.get(key).cloned().or_else(default) {
            keys.insert(key.clone(), value);
        }
    }
    Step::Key(canonical(&Value::Object(keys)))
}

pub(crate) fn item_of(item: &Value) -> Step {
    Step::Item(canonical(item))
}

/// All fields of a value.
pub(crate) fn collect(types: &Types, shape: Option<&Shape>, field: Option<&Field>, value: &Value) -> Set {
    let mut set = Set::default();
    match (nature(types, shape, field, value), value) {
        (Nature::Fields, Value::Object(object)) if !object.is_empty() => {
            for (name, value) in object {
                let (shape, field) = inner(types, shape, name);
                set.children.insert(Step::Field(name.clone()), collect(types, shape, field, value));
            }
        }
        (Nature::Keyed(field, item_shape), Value::Array(list)) if !list.is_empty() => {
            for item in list {
                let mut child = collect(types, Some(item_shape), None, item);
                child.member = true;
                set.children.insert(key_of(types, field, item_shape, item), child);
            }
        }
        (Nature::Items, Value::Array(list)) if !list.is_empty() => {
            for item in list {
                set.children.insert(item_of(item), Set::leaf());
            }
        }
        _ => set.member = true,
    }
    set
}

/// What differs between two values.
#[derive(Default)]
pub(crate) struct Difference {
    /// Added or modified.
    pub(crate) changed: Set,
    pub(crate) removed: Set,
}

pub(crate) fn compare(
    types: &Types,
    shape: Option<&Shape>,
    field: Option<&Field>,
    old: &Value,
    new: &Value,
) -> Difference {
    let mut difference = Difference::default();
    if old == new {
        return difference;
    }
    // An empty list that is always there, which Go writes as null.
    let empty = match (old, new) {
        (Value::Null, Value::Array(_)) => Some(Value::Array(Vec::new())),
        _ => None,
    };
    let old = empty.as_ref().unwrap_or(old);
    let mut pairs: BTreeMap<Step, [Option<&Value>; 2]> = BTreeMap::new();
    let mut inners = |step: Step, index: usize, value| pairs.entry(step).or_default()[index] = Some(value);
    match (nature(types, shape, field, old), nature(types, shape, field, new), old, new) {
        (Nature::Fields, Nature::Fields, Value::Object(a), Value::Object(b)) => {
            a.iter().for_each(|(name, value)| inners(Step::Field(name.clone()), 0, value));
            b.iter().for_each(|(name, value)| inners(Step::Field(name.clone()), 1, value));
        }
        (Nature::Keyed(field, item), Nature::Keyed(..), Value::Array(a), Value::Array(b)) => {
            for value in a {
                inners(key_of(types, field, item, value), 0, value);
            }
            for value in b {
                inners(key_of(types, field, item, value), 1, value);
            }
        }
        (Nature::Items, Nature::Items, Value::Array(a), Value::Array(b)) => {
            for value in a {
                inners(item_of(value), 0, value);
            }
            for value in b {
                inners(item_of(value), 1, value);
            }
        }
        _ => {
            difference.changed = Set::leaf();
            return difference;
        }
    }
    for (step, sides) in pairs {
        let (shape, field) = match (&step, shape) {
            (Step::Field(name), _) => inner(types, shape, name),
            (_, Some(Shape::List(item))) => (Some(&**item), None),
            _ => (None, None),
        };
        let whole = |value: &Value| {
            let mut set = collect(types, shape, field, value);
            set.member_throughout();
            set
        };
        let always = field.is_some_and(|field| field.zero == Zero::Kept && matches!(field.shape, Shape::List(_)));
        let sides = match sides {
            [None, Some(new)] if always => [Some(&Value::Null), Some(new)],
            other => other,
        };
        match sides {
            [Some(old), Some(new)] => {
                let inner = compare(types, shape, field, old, new);
                for (set, target) in
                    [(inner.changed, &mut difference.changed), (inner.removed, &mut difference.removed)]
                {
                    if !set.is_empty() {
                        target.children.insert(step.clone(), set);
                    }
                }
            }
            [None, Some(new)] => {
                difference.changed.children.insert(step, whole(new));
            }
            [Some(old), None] => {
                let mut set = whole(old);
                set.member = true;
                difference.removed.children.insert(step, set);
            }
            [None, None] => {}
        }
    }
    difference
}

//! A kind of the alphabet: its objects, and changes of them.

use std::collections::BTreeMap;

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A kind, as `random.yaml` describes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Kind {
    #[serde(rename = "kind")]
    pub(super) name: String,
    api_version: String,
    /// The address of its objects.
    pub(super) collection: String,
    /// Whether a controller writes to its objects at times of its own.
    #[serde(default)]
    pub(super) controlled: bool,
    /// What every valid object has.
    base: Value,
    /// What else an object may have: JSON pointers and their values.
    fields: BTreeMap<String, Vec<Value>>,
    /// Strategic merge patches with directives.
    strategic: Vec<Value>,
    /// Merge patches of its subresources.
    #[serde(default)]
    pub(super) subresources: BTreeMap<String, Vec<Value>>,
    /// What has to be there first.
    #[serde(default)]
    pub(super) definition: Option<Value>,
}

impl Kind {
    /// A whole object.
    pub(super) fn object(&self, random: &mut StdRng, name: &str) -> Value {
        let mut object = self.identity(name);
        overlay(&mut object, &self.base);
        self.set_some(random, &mut object, 0.35);
        object
    }

    /// What a manager applies: often not enough to make an object.
    pub(super) fn configuration(&self, random: &mut StdRng, name: &str) -> Value {
        let mut object = self.identity(name);
        if random.random_bool(0.6) {
            overlay(&mut object, &self.base);
        }
        self.set_some(random, &mut object, 0.25);
        object
    }

    /// A merge patch that sets and removes.
    pub(super) fn merge_patch(&self, random: &mut StdRng) -> Value {
        let mut patch = json!({});
        for _ in 0..random.random_range(1..=3) {
            let (pointer, value) = self.field(random);
            set(&mut patch, pointer, if random.random_bool(0.35) { Value::Null } else { value });
        }
        patch
    }

    /// A strategic merge patch, with directives more often than not.
    pub(super) fn strategic_patch(&self, random: &mut StdRng) -> Value {
        if random.random_bool(0.7) { pick(random, &self.strategic).clone() } else { self.merge_patch(random) }
    }

    /// A JSON patch; its paths need not be there.
    pub(super) fn json_patch(&self, random: &mut StdRng) -> Value {
        (0..random.random_range(1..=3)).map(|_| self.operation(random)).collect()
    }

    fn operation(&self, random: &mut StdRng) -> Value {
        let (pointer, value) = self.field(random);
        let element = value.as_array().and_then(|list| list.first()).cloned();
        match (random.random_range(0..8), element) {
            (0, Some(element)) => json!({"op": "add", "path": format!("{pointer}/-"), "value": element}),
            (1, Some(element)) => json!({"op": "add", "path": format!("{pointer}/0"), "value": element}),
            (2, Some(_)) => json!({"op": "remove", "path": format!("{pointer}/0")}),
            (0 | 1, None) => json!({"op": "copy", "from": "/metadata/labels/app", "path": "/metadata/labels/tier"}),
            (2, None) => json!({"op": "move", "from": "/metadata/labels/tier", "path": "/metadata/labels/app"}),
            (3, _) => json!({"op": "replace", "path": pointer, "value": value}),
            (4, _) => json!({"op": "remove", "path": pointer}),
            (5, _) => json!({"op": "test", "path": pointer, "value": value}),
            _ => json!({"op": "add", "path": pointer, "value": value}),
        }
    }

    fn identity(&self, name: &str) -> Value {
        json!({"apiVersion": self.api_version, "kind": self.name, "metadata": {"name": name}})
    }

    fn set_some(&self, random: &mut StdRng, object: &mut Value, share: f64) {
        for (pointer, values) in &self.fields {
            if random.random_bool(share) {
                set(object, pointer, pick(random, values).clone());
            }
        }
    }

    fn field(&self, random: &mut StdRng) -> (&str, Value) {
        let pointers: Vec<_> = self.fields.keys().collect();
        let pointer = *pick(random, &pointers);
        (pointer, pick(random, &self.fields[pointer]).clone())
    }
}

/// One of several, of which the alphabet has at least one.
pub(super) fn pick<'a, T>(random: &mut StdRng, of: &'a [T]) -> &'a T {
    of.choose(random).expect("the alphabet leaves nothing empty")
}

/// Sets what a pointer leads to and makes the objects on the way.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut place = object;
    for key in pointer.split('/').skip(1) {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = place.as_object_mut().expect("it was made one").entry(key).or_insert(Value::Null);
    }
    *place = value;
}

/// Puts `over` into `under`, object by object.
fn overlay(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                overlay(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}

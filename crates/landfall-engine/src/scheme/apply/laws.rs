//! What holds for every sequence of applied configurations: beside the simplest thing that could keep fields and owners, and for
//! lists that several managers write.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::apply;
use crate::scheme::Scheme;

const NOW: &str = "2030-01-01T00:00:00Z";
const LATER: &str = "2030-01-01T00:00:01Z";

/// One manager applies its fields.
#[derive(Debug, Clone)]
struct Step {
    manager: &'static str,
    fields: BTreeMap<&'static str, u8>,
    force: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fields = prop::collection::btree_map(select(vec!["a", "b", "c", "d"]), 0..3_u8, 0..4);
    let step = (select(vec!["x", "y", "z"]), fields, prop::bool::weighted(0.2));
    let step = step.prop_map(|(manager, fields, force)| Step { manager, fields, force });
    prop::collection::vec(step, 1..12)
}

/// Each field with its value and its owners.
#[derive(Debug, Default, PartialEq)]
struct Model(BTreeMap<String, (u8, BTreeSet<String>)>);

impl Model {
    /// Whom the step takes a field from: the manager and the field.
    fn conflicts(&self, step: &Step) -> BTreeSet<(String, String)> {
        let manager = step.manager;
        let changed = step.fields.iter().filter_map(|(field, value)| {
            let (present, owners) = self.0.get(*field)?;
            (present != value).then_some((field, owners))
        });
        let taken = changed.flat_map(|(field, owners)| {
            let others = owners.iter().filter(move |owner| *owner != manager);
            others.map(move |owner| (format!("{owner:?}"), format!(".data.{field}")))
        });
        taken.collect()
    }

    fn apply(&mut self, step: &Step) {
        for (field, value) in &step.fields {
            let (present, owners) = self.0.entry((*field).to_owned()).or_default();
            if *present != *value {
                *present = *value;
                owners.clear();
            }
            owners.insert(step.manager.to_owned());
        }
        for (field, (_, owners)) in &mut self.0 {
            if !step.fields.contains_key(field.as_str()) {
                owners.remove(step.manager);
            }
        }
        self.0.retain(|_, (_, owners)| !owners.is_empty());
    }

    /// What an object says.
    fn of(object: &Value) -> Self {
        let mut model = Self::default();
        for (field, value) in object["data"].as_object().into_iter().flatten() {
            let value = value.as_str().and_then(|value| value.parse().ok()).expect("a number");
            model.0.insert(field.clone(), (value, BTreeSet::new()));
        }
        for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
            let manager = entry["manager"].as_str().expect("an entry has a manager");
            let owned = entry["fieldsV1"]["f:data"].as_object().into_iter().flatten();
            for field in owned.filter_map(|(field, _)| field.strip_prefix("f:")) {
                let (_, owners) = model.0.get_mut(field).expect("what is owned is there");
                owners.insert(manager.to_owned());
            }
        }
        model
    }
}

fn config_map(fields: &BTreeMap<&'static str, u8>) -> Value {
    let mut map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m" } });
    for (field, value) in fields {
        map["data"][*field] = value.to_string().into();
    }
    map
}

fn pod(containers: &[&str]) -> Value {
    let containers: Vec<_> =
        containers.iter().map(|name| json!({ "name": name, "image": format!("of-{name}") })).collect();
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": { "containers": containers } })
}

/// The containers that are among these names, in their order.
fn containers(pod: &Value, among: &[&str]) -> Vec<String> {
    let names = pod["spec"]["containers"].as_array().into_iter().flatten().filter_map(|item| item["name"].as_str());
    names.filter(|name| among.contains(name)).map(str::to_owned).collect()
}

const FIRST: [&str; 4] = ["a", "b", "c", "d"];
const SECOND: [&str; 4] = ["e", "f", "g", "h"];

fn some_of(names: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(names, 1..=names.len()).prop_shuffle()
}

proptest! {
    #[test]
    fn a_field_is_changed_by_its_owners_and_goes_with_the_last(steps in steps()) {
        let scheme = Scheme::builtin();
        let maps = scheme.resource("", "v1", "configmaps").expect("they are served");
        let (mut live, mut model) = (None, Model::default());
        for step in &steps {
            let applied = config_map(&step.fields);
            let conflicts = if step.force { BTreeSet::new() } else { model.conflicts(step) };
            match apply(maps, live.as_ref(), &applied, step.manager, "", step.force, NOW) {
                Err(refused) => {
                    let refused = refused.conflicts.into_iter().map(|one| (one.manager, one.field));
                    prop_assert_eq!(refused.collect::<BTreeSet<_>>(), conflicts);
                }
                Ok(object) => {
                    prop_assert_eq!(conflicts, BTreeSet::new());
                    model.apply(step);
                    prop_assert_eq!(&Model::of(&object), &model);
                    let again = apply(maps, Some(&object), &applied, step.manager, "", false, LATER);
                    prop_assert_eq!(again.as_ref(), Ok(&object), "the same once more changes nothing, and no time");
                    live = Some(object);
                }
            }
        }
    }

    #[test]
    fn items_of_several_managers_keep_their_order_and_leave_those_of_others_alone(
        first in some_of(&FIRST), then in some_of(&FIRST), second in some_of(&SECOND),
    ) {
        let scheme = Scheme::builtin();
        let pods = scheme.resource("", "v1", "pods").expect("they are served");
        let apply = |live: Option<&Value>, names: &[&str], manager: &str| {
            apply(pods, live, &pod(names), manager, "", false, NOW).expect("nobody has what is another's")
        };
        let alone = apply(None, &first, "x");
        let both = apply(Some(&alone), &second, "y");
        prop_assert_eq!((containers(&both, &FIRST), containers(&both, &SECOND)), (owned(&first), owned(&second)));
        let changed = apply(Some(&both), &then, "x");
        prop_assert_eq!((containers(&changed, &FIRST), containers(&changed, &SECOND)), (owned(&then), owned(&second)));
        prop_assert_eq!(apply(Some(&changed), &second, "y"), changed);
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

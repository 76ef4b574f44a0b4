//! What holds for every patch. The patches are made as their senders make them: from two states of an object.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::{json as merge, strategic};
use crate::scheme::Scheme;

/// The names of items and fields.
static NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Lists and objects of `leaf`, some of them empty.
fn values(leaf: BoxedStrategy<Value>) -> impl Strategy<Value = Value> {
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(select(&NAMES[..]), inner, 0..4).prop_map(object),
        ]
    })
}

fn state() -> impl Strategy<Value = Value> {
    values(prop_oneof![any::<bool>().prop_map(Value::from), (0..3_u8).prop_map(Value::from)].boxed())
}

fn patch() -> impl Strategy<Value = Value> {
    values(prop_oneof![1 => Just(Value::Null), 2 => (0..3_u8).prop_map(Value::from)].boxed())
}

/// The patch that makes `new` of `old` (RFC 7386, section 1).
fn difference(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return new.clone() };
    let gone = old.keys().filter(|name| !new.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    let changed = new.iter().filter(|(name, value)| old.get(*name) != Some(value));
    let changed = changed.map(|(name, value)| {
        let value = old.get(name).map_or_else(|| value.clone(), |old| difference(old, value));
        (name.clone(), value)
    });
    Value::Object(gone.chain(changed).collect())
}

/// Containers in any order, each with or without an image, and with variables in any order.
fn containers() -> impl Strategy<Value = Vec<Value>> {
    let variable =
        |name: &'static str| (0..2_u8).prop_map(move |value| json!({ "name": name, "value": value.to_string() }));
    let variables = move || {
        let names = subsequence(&NAMES[..3], 0..=3).prop_shuffle();
        names.prop_flat_map(move |names| names.into_iter().map(variable).collect::<Vec<_>>())
    };
    let container = move |name: &'static str| {
        (prop::option::of(0..2_u8), variables()).prop_map(move |(image, variables)| {
            let mut container = json!({ "name": name, "env": variables });
            if let Some(image) = image {
                container["image"] = image.to_string().into();
            }
            container
        })
    };
    let names = subsequence(&NAMES[..], 0..=NAMES.len()).prop_shuffle();
    names.prop_flat_map(move |names| names.into_iter().map(&container).collect::<Vec<_>>())
}

fn pod(containers: &[Value]) -> Value {
    json!({ "metadata": { "name": "p" }, "spec": { "containers": containers } })
}

fn names(list: &[Value]) -> Vec<&str> {
    list.iter().map(|item| item["name"].as_str().expect("an item has a name")).collect()
}

/// What `kubectl apply` sends for a list that is merged by name: items that changed or went, and the order of all.
fn list_difference(field: &str, old: &[Value], new: &[Value]) -> Map<String, Value> {
    let in_list = |list: &[Value], item: &Value| list.iter().find(|one| one["name"] == item["name"]).cloned();
    let changed = new.iter().filter_map(|item| match in_list(old, item) {
        None => Some(item.clone()),
        Some(before) if before == *item => None,
        Some(before) => Some(item_difference(&before, item)),
    });
    let gone = old.iter().filter(|item| in_list(new, item).is_none());
    let gone = gone.map(|item| json!({ "$patch": "delete", "name": item["name"] }));
    let order: Vec<_> = new.iter().map(|item| json!({ "name": item["name"] })).collect();
    let items: Vec<_> = changed.chain(gone).collect();
    Map::from_iter([(format!("$setElementOrder/{field}"), Value::from(order)), (field.to_owned(), Value::from(items))])
}

fn item_difference(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { panic!("items are objects") };
    let mut patch: Map<_, _> =
        old.keys().filter(|name| !new.contains_key(*name)).map(|name| (name.clone(), Value::Null)).collect();
    for (name, value) in new {
        match (old.get(name), value) {
            (Some(Value::Array(old)), Value::Array(new)) if old != new => patch.extend(list_difference(name, old, new)),
            (Some(old), new) if old == new && name != "name" => {}
            _ => drop(patch.insert(name.clone(), value.clone())),
        }
    }
    Value::Object(patch)
}

/// `old` after a patch, and after the same once more.
fn twice(old: &Value, patch: &Value) -> [Value; 2] {
    let scheme = Scheme::builtin();
    let pods = scheme.resource("", "v1", "pods").expect("they are served");
    let mut once = old.clone();
    strategic(pods, &mut once, patch).expect("it is a patch");
    let mut again = once.clone();
    strategic(pods, &mut again, patch).expect("it is a patch");
    [once, again]
}

proptest! {
    #[test]
    fn a_merge_patch_makes_the_new_state_of_the_old(old in state(), new in state()) {
        let mut target = old.clone();
        merge(&mut target, &difference(&old, &new));
        prop_assert_eq!(target, new);
    }

    #[test]
    fn a_merge_patch_changes_nothing_the_second_time(old in state(), patch in patch()) {
        let mut once = old;
        merge(&mut once, &patch);
        let mut again = once.clone();
        merge(&mut again, &patch);
        prop_assert_eq!(again, once);
    }

    #[test]
    fn a_strategic_patch_makes_the_new_list_of_the_old_in_its_order(old in containers(), new in containers()) {
        let patch = json!({ "spec": list_difference("containers", &old, &new) });
        let [once, again] = twice(&pod(&old), &patch);
        prop_assert_eq!(&once, &pod(&new), "by {}", patch);
        prop_assert_eq!(again, once, "by {}", patch);
    }

    #[test]
    fn without_an_order_the_patched_items_have_theirs_and_the_others_keep_their_own(
        old in containers(), sent in containers(), gone in subsequence(&NAMES[..], 0..=NAMES.len()),
    ) {
        let deleted = |item: &&Value| gone.iter().any(|name| item["name"] == *name);
        let mut items: Vec<_> = sent.iter().filter(|item| !deleted(item)).cloned().collect();
        let kept: Vec<_> = items.clone();
        items.extend(gone.iter().map(|name| json!({ "$patch": "delete", "name": name })));
        let [once, again] = twice(&pod(&old), &json!({ "spec": { "containers": items } }));
        prop_assert_eq!(&again, &once);

        let merged = once["spec"]["containers"].as_array().expect("a list");
        let is_patched = |name: &&str| names(&kept).contains(name);
        let (patched, others): (Vec<_>, Vec<_>) = names(merged).into_iter().partition(is_patched);
        prop_assert_eq!(patched, names(&kept));
        let rest: Vec<_> = old.iter().filter(|item| !deleted(item)).cloned().collect();
        let rest: Vec<_> = names(&rest).into_iter().filter(|name| !is_patched(name)).collect();
        prop_assert_eq!(others, rest);
        for item in &kept {
            let merged = merged.iter().find(|one| one["name"] == item["name"]).expect("it was sent");
            let before = old.iter().find(|one| one["name"] == item["name"]);
            // What the patch does not say stays.
            let image = item.get("image").or_else(|| before?.get("image"));
            prop_assert_eq!(merged.get("image"), image);
        }
    }

    #[test]
    fn a_list_that_is_replaced_is_the_list_that_was_sent(old in containers(), new in containers()) {
        let items: Vec<_> = std::iter::once(json!({ "$patch": "replace" })).chain(new.iter().cloned()).collect();
        let [once, again] = twice(&pod(&old), &json!({ "spec": { "containers": items } }));
        prop_assert_eq!(&once, &pod(&new));
        prop_assert_eq!(again, once);
    }

    #[test]
    fn a_set_has_what_was_there_and_what_was_sent_but_not_what_was_to_go(
        old in subsequence(&NAMES[..], 0..=NAMES.len()).prop_shuffle(),
        sent in subsequence(&NAMES[..], 0..=NAMES.len()).prop_shuffle(),
        gone in subsequence(&NAMES[..], 0..=NAMES.len()),
    ) {
        let gone: Vec<_> = gone.into_iter().filter(|name| !sent.contains(name)).collect();
        let target = json!({ "metadata": { "finalizers": old } });
        let patch = json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": gone, "finalizers": sent } });
        let [once, again] = twice(&target, &patch);
        prop_assert_eq!(&again, &once);
        let found = once["metadata"]["finalizers"].as_array().expect("a list");
        let found: Vec<_> = found.iter().filter_map(Value::as_str).collect();
        let expected: BTreeSet<_> = old.into_iter().filter(|name| !gone.contains(name)).chain(sent).collect();
        prop_assert_eq!(found.len(), expected.len());
        prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    }
}

//! Names for contents: a short hash of a template, for the names of replica sets and controller revisions. Pure.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// No vowels, so that no word comes out, and no characters that look alike.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// How many characters a hash has: 27¹⁰ of them are enough that collisions can be looked at one by one.
const LENGTH: usize = 10;

/// The JSON of `value` without what is absent or empty, with its keys in order: equal for what the API takes as equal.
pub(super) fn canonical<T: Serialize>(value: &T) -> Value {
    pruned(serde_json::to_value(value).expect("types of the API are JSON"))
}

fn pruned(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut kept: Vec<_> = object
                .into_iter()
                .map(|(key, value)| (key, pruned(value)))
                .filter(|(_, value)| !is_empty(value))
                .collect();
            kept.sort_by(|(one, _), (other, _)| one.cmp(other));
            Value::Object(kept.into_iter().collect())
        }
        // An item of a list stays, even when empty: the others must keep their places.
        Value::Array(items) => Value::Array(items.into_iter().map(pruned).collect()),
        other => other,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(object) => object.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// A hash of `canonical` JSON. `collisions` gives another one when something else already has the first.
pub(super) fn of(canonical: &Value, collisions: Option<i32>) -> String {
    let mut hasher = Sha256::new();
    hasher.update(canonical.to_string());
    if let Some(collisions) = collisions {
        hasher.update(collisions.to_le_bytes());
    }
    let digest = hasher.finalize();
    digest.iter().take(LENGTH).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_hash_does_not_depend_on_order_or_on_what_is_empty() {
        let one = canonical(&json!({ "a": 1, "b": { "c": [], "d": null }, "e": [{}] }));
        let other = canonical(&json!({ "e": [{}], "a": 1 }));
        assert_eq!(of(&one, None), of(&other, None));
        assert_ne!(of(&one, None), of(&canonical(&json!({ "a": 1 })), None));
    }

    #[test]
    fn a_collision_gives_another_hash() {
        let value = json!({ "a": 1 });
        assert_ne!(of(&value, None), of(&value, Some(1)));
        assert_ne!(of(&value, Some(1)), of(&value, Some(2)));
    }
}

//! Where two pod templates differ, for people. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{ServiceRelease, plain};

impl ServiceRelease {
    /// Which fields of its pod template are others than before, as JSON pointers.
    pub fn changes(&self) -> Vec<String> {
        differing(&plain(&self.old_template), &plain(&self.new_template))
    }
}

/// Where two values differ, as JSON pointers: those of whole branches that only one of them has.
pub(crate) fn differing(one: &Value, other: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(one, other, "", &mut found);
    found
}

fn walk(one: &Value, other: &Value, path: &str, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let (one, other) = (one.get(key), other.get(key));
                let escaped = key.replace('~', "~0").replace('/', "~1");
                walk(one.unwrap_or(&Value::Null), other.unwrap_or(&Value::Null), &format!("{path}/{escaped}"), found);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (place, (one, other)) in one.iter().zip(other).enumerate() {
                walk(one, other, &format!("{path}/{place}"), found);
            }
        }
        (one, other) if one == other => {}
        _ => found.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_named_and_nothing_else() {
        let one = json!({ "metadata": { "labels": { "a/b": "1" } }, "spec": { "containers": [{ "name": "web", "image": "1" }], "volumes": [1] } });
        let other = json!({ "metadata": { "labels": { "a/b": "2" } }, "spec": { "containers": [{ "name": "web", "image": "2" }], "volumes": [1, 2], "hostPID": true } });
        let expected = ["/metadata/labels/a~1b", "/spec/containers/0/image", "/spec/hostPID", "/spec/volumes"];
        assert_eq!(differing(&one, &other), expected);
        assert_eq!(differing(&one, &one), Vec::<String>::new());
    }
}

//! Lays one environment's overrides over the file.

use super::{Entry, Node, Value};

/// Lays `over` on `base`: mappings merge key by key, `~` removes a key, everything else replaces.
///
/// Every value keeps the span of the place that won, so that a finding in one environment points at its override.
pub(crate) fn overlay(base: &mut Node, over: &Node) {
    let (Value::Mapping(entries), Value::Mapping(overrides)) = (&mut base.value, &over.value) else {
        *base = over.clone();
        return;
    };
    for Entry { key, key_span, value } in overrides {
        let index = entries.iter().position(|entry| entry.key == *key);
        match index {
            Some(index) if value.is_null() => {
                entries.remove(index);
            }
            Some(index) => overlay(&mut entries[index].value, value),
            None if value.is_null() => {}
            None => entries.push(Entry { key: key.clone(), key_span: *key_span, value: value.clone() }),
        }
    }
}

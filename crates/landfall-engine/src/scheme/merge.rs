//! Patches: JSON merge patch (RFC 7386) and strategic merge patch.
//!
//! <https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/> and the API conventions
//! describe the second one.

#[cfg(test)]
mod laws;

use serde_json::{Map, Value};

use super::Resource;
use super::types::{Field, Shape, Types};

/// A patch that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct MergeError(String);

/// RFC 7386.
pub(crate) fn json(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { unreachable!("it was made an object above") };
    for (name, value) in patch {
        if value.is_null() {
            fields.shift_remove(name);
        } else {
            json(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Merges `patch` into `target` as the types of the kind say: lists by key, with the `$` directives.
pub(crate) fn strategic(resource: &Resource, target: &mut Value, patch: &Value) -> Result<(), MergeError> {
    let (Value::Object(fields), Value::Object(patch)) = (target, patch) else {
        return Err(MergeError("cannot unmarshal array into Go value of type map[string]interface {}".to_owned()));
    };
    merge_map(&resource.types, Some(&Shape::Struct(resource.root)), fields, patch)
}

const DIRECTIVE: &str = "$patch";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const RETAIN_KEYS: &str = "$retainKeys";

fn bad_directive(value: &Value) -> MergeError {
    MergeError(format!("Unknown patch type found: {}", value.as_str().unwrap_or_default()))
}

fn merge_map(
    types: &Types,
    shape: Option<&Shape>,
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), MergeError> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(Value::String(text)) if text == "replace" => {
            target.clone_from(patch);
            target.shift_remove(DIRECTIVE);
            return Ok(());
        }
        Some(Value::String(text)) if text == "delete" => {
            target.clear();
            return Ok(());
        }
        Some(value) => return Err(bad_directive(value)),
    }
    if let Some(Value::Array(kept)) = patch.get(RETAIN_KEYS) {
        target.retain(|name, _| kept.iter().any(|one| one.as_str() == Some(name)));
    }
    let orders = patch;
    let mut originals = std::collections::HashMap::new();
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(DELETE_FROM) {
            if let (Some(Value::Array(target)), Value::Array(gone)) = (target.get_mut(list), value) {
                target.retain(|one| !gone.contains(one));
            }
            continue;
        }
        if name == DIRECTIVE || name == RETAIN_KEYS || name.starts_with(ELEMENT_ORDER) {
            continue;
        }
        if value.is_null() {
            target.shift_remove(name);
            continue;
        }
        let field = field_of(types, shape, name);
        let inner = field.map(|field| &field.shape).or(match shape {
            Some(Shape::Map(item)) => Some(&**item),
            _ => None,
        });
        match (value, target.get_mut(name)) {
            (Value::Object(patch), Some(Value::Object(target))) => merge_map(types, inner, target, patch)?,
            // With nothing there to direct, Kubernetes drops all that stands beside a directive, also beside `replace`.
            (Value::Object(patch), _) if patch.contains_key(DIRECTIVE) => {
                target.shift_remove(name);
            }
            (Value::Object(patch), _) => {
                let mut fresh = Map::new();
                merge_map(types, inner, &mut fresh, patch)?;
                target.insert(name.clone(), Value::Object(fresh));
            }
            (Value::Array(patch), existing) => {
                let existing = match existing {
                    Some(Value::Array(list)) => std::mem::take(list),
                    _ => Vec::new(),
                };
                let original = existing.clone();
                let mut merged = merge_list(types, field, existing, patch)?;
                if field.is_some_and(|field| field.merge) && !orders.contains_key(&format!("{ELEMENT_ORDER}{name}")) {
                    sort(&mut merged, patch, &original, field);
                }
                originals.insert(name.clone(), original);
                target.insert(name.clone(), Value::Array(merged));
            }
            _ => {
                target.insert(name.clone(), value.clone());
            }
        }
    }
    for (name, order) in patch {
        if let (Some(list), Value::Array(order)) = (name.strip_prefix(ELEMENT_ORDER), order)
            && let Some(Value::Array(target)) = target.get_mut(list)
        {
            let original = originals.remove(list).unwrap_or_else(|| target.clone());
            sort(target, order, &original, field_of(types, shape, list));
        }
    }
    Ok(())
}

fn field_of<'a>(types: &'a Types, shape: Option<&Shape>, name: &str) -> Option<&'a Field> {
    match shape {
        Some(Shape::Struct(index)) => types.get(*index).field(name),
        _ => None,
    }
}

fn merge_list(
    types: &Types,
    field: Option<&Field>,
    mut target: Vec<Value>,
    patch: &[Value],
) -> Result<Vec<Value>, MergeError> {
    let directive = |item: &Value| item.get(DIRECTIVE).and_then(Value::as_str).map(ToOwned::to_owned);
    // `- $patch: replace` among the items replaces the list by the others.
    if patch.iter().any(|item| directive(item).as_deref() == Some("replace")) {
        let others = patch.iter().filter(|item| directive(item).is_none());
        return Ok(others.cloned().collect());
    }
    let Some(field) = field.filter(|field| field.merge) else {
        return Ok(patch.iter().filter(|item| directive(item).is_none()).map(|item| clean(item.clone())).collect());
    };
    let item_shape = match &field.shape {
        Shape::List(item) => Some(&**item),
        _ => None,
    };
    let Some(key) = &field.merge_key else {
        // A set of scalars.
        for item in patch {
            if !target.contains(item) {
                target.push(item.clone());
            }
        }
        return Ok(target);
    };
    for item in patch {
        let Value::Object(fields) = item else {
            return Err(MergeError("invalid list: the items of a list that is merged by key are objects".to_owned()));
        };
        let Some(value) = fields.get(key) else {
            let map: Map<String, Value> = fields.clone();
            return Err(MergeError(format!(
                "map: {} does not contain declared merge key: {key}",
                go_map(&Value::Object(map))
            )));
        };
        let matching = |one: &Value| one.get(key) == Some(value);
        match directive(item).as_deref() {
            Some("delete") => target.retain(|one| !matching(one)),
            None => match target.iter_mut().find(|one| matching(one)) {
                Some(Value::Object(existing)) => merge_map(types, item_shape, existing, fields)?,
                _ => {
                    let mut fresh = Map::new();
                    merge_map(types, item_shape, &mut fresh, fields)?;
                    target.push(Value::Object(fresh));
                }
            },
            Some("merge") => {
                return Err(MergeError("merging lists cannot yet be specified in the patch".to_owned()));
            }
            Some(_) => return Err(bad_directive(&item[DIRECTIVE])),
        }
    }
    Ok(target)
}

/// Removes directives and nulls from what replaces a value whole.
fn clean(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(name, value)| !name.starts_with('$') && !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, clean(value))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(clean).collect()),
        other => other,
    }
}

/// As Go prints a map: `map[a:1 b:2]`, keys in order.
fn go_map(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut parts: Vec<_> = fields.iter().map(|(name, value)| format!("{name}:{}", go_map(value))).collect();
            parts.sort();
            format!("map[{}]", parts.join(" "))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(go_map).collect::<Vec<_>>().join(" ")),
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

/// Puts the items that `order` names into its order. Another item goes before one of those only where it stood before
/// it in `original`.
fn sort(target: &mut Vec<Value>, order: &[Value], original: &[Value], field: Option<&Field>) {
    let key = field.and_then(|field| field.merge_key.as_deref());
    let identity = |item: &Value| match key {
        Some(key) => item.get(key).cloned().unwrap_or(Value::Null),
        None => item.clone(),
    };
    let rank = |list: &[Value], item: &Value| list.iter().position(|one| identity(one) == identity(item));
    let (mut named, others): (Vec<_>, Vec<_>) =
        std::mem::take(target).into_iter().partition(|item| rank(order, item).is_some());
    named.sort_by_key(|item| rank(order, item));
    let mut others = others.into_iter().peekable();
    for item in named {
        while let Some(other) = others.next_if(
            |other| matches!((rank(original, other), rank(original, &item)), (Some(other), Some(item)) if other < item),
        ) {
            target.push(other);
        }
        target.push(item);
    }
    target.extend(others);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scheme::Scheme;

    #[test]
    fn a_directive_with_nothing_to_direct_drops_what_stands_beside_it() {
        let scheme = Scheme::builtin();
        let deployments = scheme.resource("apps", "v1", "deployments").expect("it is served");
        let before = json!({"spec": {"template": {"spec": {"dnsPolicy": "Default"}}}});
        let mut target = before.clone();
        let selector = json!({"$patch": "replace", "zone": "a"});
        let patch = json!({"spec": {"template": {"spec": {"nodeSelector": selector}}}});
        strategic(deployments, &mut target, &patch).expect("it is a patch");
        assert_eq!(target, before);
    }
}

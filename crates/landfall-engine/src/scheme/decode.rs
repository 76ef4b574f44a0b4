//! Reading objects as Kubernetes does: what is unknown, what has the wrong type, and the form in which it is kept.

use serde_json::{Map, Value};

use super::quantity::Quantity;
use super::types::{Field, Shape, Types, Zero};
use super::{Resource, Type};

/// Fields that the kind does not have, in the order of the object; of custom resources in the order of their paths.
pub(super) fn unknown_fields(resource: &Resource, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    unknown_in(&resource.types, &Shape::Struct(resource.root), object, "", false, &mut found);
    if resource.custom {
        found.sort_unstable();
    }
    found
}

fn unknown_in(types: &Types, shape: &Shape, value: &Value, path: &str, preserve: bool, found: &mut Vec<String>) {
    match (shape, value) {
        (Shape::Struct(index), Value::Object(object)) => {
            let of = types.get(*index);
            for (name, value) in object {
                let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match of.field(name) {
                    Some(field) => unknown_in(types, &field.shape, value, &inner, field.preserve, found),
                    None if of.preserve || preserve => {}
                    None => found.push(format!("unknown field {inner:?}")),
                }
            }
        }
        (Shape::List(item), Value::Array(list)) => {
            for (index, value) in list.iter().enumerate() {
                unknown_in(types, item, value, &format!("{path}[{index}]"), preserve, found);
            }
        }
        (Shape::Map(item), Value::Object(map)) => {
            for (name, value) in map {
                unknown_in(types, item, value, &format!("{path}.{name}"), preserve, found);
            }
        }
        _ => {}
    }
}

/// The first value whose type cannot be read.
pub(super) fn check_types(resource: &Resource, object: &Value) -> Result<(), String> {
    if resource.custom {
        // A schema answers for custom resources, when they are validated.
        return Ok(());
    }
    let root = resource.root();
    let context = Context { types: &resource.types, owner: root.short_name() };
    check_in(&context, &Shape::Struct(resource.root), None, object, "").map_err(|error| {
        format!("{} in version {:?} cannot be handled as a {}: {error}", resource.kind, resource.version, resource.kind)
    })
}

struct Context<'a> {
    types: &'a Types,
    /// The Go struct that the field is declared in.
    owner: &'a str,
}

fn check_in(
    context: &Context<'_>,
    shape: &Shape,
    field: Option<&Field>,
    value: &Value,
    path: &str,
) -> Result<(), String> {
    let wrong = |expected: &str| {
        let named = field.and_then(|field| field.go_name.as_deref()).unwrap_or(expected);
        let found = match value {
            Value::Number(number) if matches!(shape, Shape::Int32 | Shape::Int64) => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
            Value::Null => "null".to_owned(),
        };
        Err(if path.is_empty() {
            format!("json: cannot unmarshal {found} into Go value of type {named}")
        } else {
            format!("json: cannot unmarshal {found} into Go struct field {}.{path} of type {named}", context.owner)
        })
    };
    match (shape, value) {
        (_, Value::Null) => Ok(()),
        (Shape::Struct(index), Value::Object(object)) => {
            let of = context.types.get(*index);
            for (name, value) in object {
                let Some(field) = of.field(name) else { continue };
                let inner = Context { owner: of.short_name(), types: context.types };
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                check_in(&inner, &field.shape, Some(field), value, &path)?;
            }
            Ok(())
        }
        (Shape::Struct(index), _) => wrong(&go_name(context.types.get(*index))),
        (Shape::List(item), Value::Array(list)) => {
            list.iter().try_for_each(|value| check_in(context, item, field, value, path))
        }
        (Shape::Map(item), Value::Object(map)) => {
            map.values().try_for_each(|value| check_in(context, item, field, value, path))
        }
        (Shape::List(_) | Shape::Map(_), _) => wrong(&go_shape(context.types, shape)),
        (Shape::String, Value::String(_))
        | (Shape::Boolean, Value::Bool(_))
        | (Shape::Number, Value::Number(_))
        | (Shape::Json, _)
        | (Shape::Raw | Shape::FieldSet, Value::Object(_)) => Ok(()),
        (Shape::Int32, Value::Number(number)) => {
            if number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) { Ok(()) } else { wrong("int32") }
        }
        (Shape::Int64, Value::Number(number)) => {
            if number.as_i64().is_some() {
                Ok(())
            } else {
                wrong("int64")
            }
        }
        (Shape::Quantity, Value::String(text)) => match Quantity::parse(text) {
            Some(_) => Ok(()),
            None if text.is_empty() => Ok(()),
            None => Err(QUANTITY_GRAMMAR.to_owned()),
        },
        (Shape::Quantity, Value::Number(_)) => Ok(()),
        (Shape::Quantity, _) => Err(QUANTITY_GRAMMAR.to_owned()),
        (Shape::IntOrString, Value::String(_)) => Ok(()),
        (Shape::IntOrString, Value::Number(number)) if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => {
            Ok(())
        }
        (Shape::IntOrString, Value::Number(number)) => {
            Err(format!("json: cannot unmarshal number {number} into Go value of type int32"))
        }
        (Shape::IntOrString, _) => {
            Err(format!("json: cannot unmarshal {} into Go value of type int32", kind_of(value)))
        }
        (Shape::Bytes, Value::String(text)) => {
            use base64::Engine as _;
            let decoded = base64::engine::general_purpose::STANDARD.decode(text.replace(['\n', '\r'], ""));
            decoded.map(drop).map_err(|error| match error {
                base64::DecodeError::InvalidByte(at, _) => format!("illegal base64 data at input byte {at}"),
                _ => format!("illegal base64 data at input byte {}", text.len().saturating_sub(text.len() % 4)),
            })
        }
        (Shape::Time | Shape::MicroTime, Value::String(text)) => {
            let parsed = text.parse::<jiff::Timestamp>();
            parsed.map(drop).map_err(|_| {
                format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\"")
            })
        }
        (Shape::Duration, Value::String(_)) => Ok(()),
        (Shape::Time | Shape::MicroTime | Shape::Duration, _) => {
            Err(format!("json: cannot unmarshal {} into Go value of type string", kind_of(value)))
        }
        (Shape::String, _) => wrong("string"),
        (Shape::Boolean, _) => wrong("bool"),
        (Shape::Int32, _) => wrong("int32"),
        (Shape::Int64, _) => wrong("int64"),
        (Shape::Number, _) => wrong("float64"),
        (Shape::Bytes, _) => wrong("[]uint8"),
        (Shape::Raw | Shape::FieldSet, _) => wrong("object"),
    }
}

const QUANTITY_GRAMMAR: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn go_name(of: &Type) -> String {
    let mut parts = of.name.rsplit('.');
    let (kind, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{version}.{kind}")
}

fn go_shape(types: &Types, shape: &Shape) -> String {
    match shape {
        Shape::List(item) => format!("[]{}", go_shape(types, item)),
        Shape::Map(item) => format!("map[string]{}", go_shape(types, item)),
        Shape::Struct(index) => go_name(types.get(*index)),
        Shape::Boolean => "bool".to_owned(),
        Shape::Int32 => "int32".to_owned(),
        Shape::Int64 => "int64".to_owned(),
        Shape::Number => "float64".to_owned(),
        Shape::Bytes => "[]uint8".to_owned(),
        Shape::Quantity => "resource.Quantity".to_owned(),
        Shape::IntOrString => "intstr.IntOrString".to_owned(),
        _ => "string".to_owned(),
    }
}

/// Brings an object into the form in which it is kept: without nulls, unknown fields and zero values that say nothing,
/// with canonical quantities, and with the empty structs that Kubernetes always writes.
pub(super) fn normalize(resource: &Resource, object: &mut Value) {
    if resource.custom {
        super::custom::prune(resource, object);
        return;
    }
    normalize_in(&resource.types, &Shape::Struct(resource.root), object);
}

/// Brings a value of a built-in type into its canonical form.
pub(super) fn normalize_in(types: &Types, shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Struct(index), Value::Object(object)) => {
            let of = types.get(*index);
            object.retain(|name, value| match of.field(name) {
                Some(field) => {
                    normalize_in(types, &field.shape, value);
                    let silent = value.is_null() || field.zero == Zero::Omitted && is_zero(value);
                    !silent || is_null_time(field)
                }
                None => false,
            });
            for field in of.fields.iter().filter(|field| is_null_time(field)) {
                if !object.contains_key(&field.name) {
                    object.insert(field.name.clone(), Value::Null);
                }
            }
            for field in of.fields.iter().filter(|field| field.zero == Zero::Kept) {
                let zero = match field.shape {
                    // Kubernetes stores no difference between an empty list and none.
                    Shape::List(_) | Shape::Map(_) => {
                        if object.get(&field.name).is_none_or(is_zero) {
                            object.insert(field.name.clone(), Value::Null);
                        }
                        continue;
                    }
                    Shape::String => Value::from(""),
                    Shape::Int32 | Shape::Int64 => Value::from(0),
                    Shape::Boolean => Value::from(false),
                    _ => continue,
                };
                if !object.contains_key(&field.name) {
                    object.insert(field.name.clone(), zero);
                }
            }
            for field in of.fields.iter().filter(|field| field.zero == Zero::Always) {
                if !object.contains_key(&field.name) {
                    let mut empty = Value::Object(Map::new());
                    normalize_in(types, &field.shape, &mut empty);
                    object.insert(field.name.clone(), empty);
                }
            }
        }
        (Shape::List(item), Value::Array(list)) => list.iter_mut().for_each(|value| normalize_in(types, item, value)),
        (Shape::Map(item), Value::Object(map)) => map.values_mut().for_each(|value| {
            if value.is_null() && **item == Shape::String {
                *value = Value::String(String::new());
            }
            normalize_in(types, item, value);
        }),
        (Shape::Quantity, value) => {
            let text = match &*value {
                Value::String(text) if text.is_empty() => "0".to_owned(),
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return,
            };
            if let Some(quantity) = Quantity::parse(&text) {
                *value = Value::String(quantity.canonical());
            }
        }
        (Shape::Time, Value::String(text)) => {
            if let Ok(time) = text.parse::<jiff::Timestamp>() {
                *text = time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            }
        }
        (Shape::MicroTime, Value::String(text)) => {
            if let Ok(time) = text.parse::<jiff::Timestamp>() {
                *text = time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
            }
        }
        _ => {}
    }
}

/// Times that Go writes as null when they are not known; for the one of creation it was mended.
fn is_null_time(field: &Field) -> bool {
    matches!(field.shape, Shape::Time | Shape::MicroTime)
        && matches!(field.zero, Zero::Omitted | Zero::Kept)
        && field.name != "creationTimestamp"
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

//! Request bodies in protobuf, as typed clients send them: decoded by the table, field numbers and all.
//!
//! The envelope is the magic `k8s\0` and a `runtime.Unknown`:
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding>.
//! Not handled: `CustomResourceDefinition`, whose schema type has unions that the table does not describe; its clients
//! send JSON.

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Scheme;
use super::types::{Shape, Table, Types};

/// A body that is no protobuf object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct DecodeError(String);

type Decoded<T> = Result<T, DecodeError>;

const MAGIC: &[u8] = b"k8s\0";

/// How deep messages may lie in each other.
const MAX_DEPTH: usize = 64;

fn fail<T>(text: &str) -> Decoded<T> {
    Err(DecodeError(text.to_owned()))
}

/// Decodes an object with its `apiVersion` and `kind`. `DeleteOptions` and the like are known too.
pub(crate) fn decode(scheme: &Scheme, bytes: &[u8]) -> Decoded<Value> {
    let Some(envelope) = bytes.strip_prefix(MAGIC) else {
        return fail("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]");
    };
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Reader(envelope).fields() {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in Reader(meta).fields() {
                    match field? {
                        (1, Wire::Bytes(text)) => version = utf8(text)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (group, short) = version.rsplit_once('/').unwrap_or(("", &version));
    let table = Table::get();
    let root = match scheme.by_kind(group, short, &kind) {
        Some(resource) if !resource.custom => Some(resource.root),
        _ => {
            let meta = format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}");
            let other = match (group, kind.as_str()) {
                ("autoscaling", "Scale") => "io.k8s.api.autoscaling.v1.Scale",
                ("policy", "Eviction") => "io.k8s.api.policy.v1.Eviction",
                ("authentication.k8s.io", "TokenRequest") => "io.k8s.api.authentication.v1.TokenRequest",
                ("", "Binding") => "io.k8s.api.core.v1.Binding",
                _ => meta.as_str(),
            };
            table.types.index_of(other)
        }
    };
    let Some(root) = root else {
        return Err(DecodeError(format!("no kind {kind:?} is registered for version {version:?}")));
    };
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), json!(version));
    object.insert("kind".to_owned(), json!(kind));
    message(&table.types, root, &[], raw, &mut object, 0)?;
    Ok(Value::Object(object))
}

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Decoded<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let Some((first, rest)) = self.0.split_first() else { return fail("unexpected EOF") };
            self.0 = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Ok(value);
            }
        }
        fail("integer overflow")
    }

    fn take(&mut self, count: usize) -> Decoded<&'a [u8]> {
        match self.0.split_at_checked(count) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => fail("unexpected EOF"),
        }
    }

    fn next(&mut self) -> Decoded<(u32, Wire<'a>)> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| DecodeError("illegal tag".to_owned()))?;
        let value = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => {
                let bytes = self.take(8)?.try_into().expect("eight were taken");
                Wire::Number(u64::from_le_bytes(bytes))
            }
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| DecodeError("unexpected EOF".to_owned()))?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?.try_into().expect("four were taken");
                Wire::Number(u64::from(u32::from_le_bytes(bytes)))
            }
            _ => return fail("illegal wire type"),
        };
        Ok((number, value))
    }

    fn fields(mut self) -> impl Iterator<Item = Decoded<(u32, Wire<'a>)>> {
        let mut failed = false;
        std::iter::from_fn(move || {
            (!self.0.is_empty() && !failed).then(|| {
                let field = self.next();
                failed = field.is_err();
                field
            })
        })
    }
}

fn utf8(bytes: &[u8]) -> Decoded<String> {
    std::str::from_utf8(bytes).map(ToOwned::to_owned).map_err(|_| DecodeError("invalid UTF-8".to_owned()))
}

/// Reads a message into `object`. `prefix`: the numbers of the embedded structs that it is reached through.
fn message(
    types: &Types,
    index: usize,
    prefix: &[u32],
    bytes: &[u8],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Decoded<()> {
    if depth > MAX_DEPTH {
        return fail("messages lie too deep in each other");
    }
    for field in Reader(bytes).fields() {
        let (number, wire) = field?;
        let path = [prefix, &[number]].concat();
        let of = types.get(index);
        if let Some(field) = of.fields.iter().find(|field| field.numbers == path) {
            match (&field.shape, wire) {
                (Shape::List(item), wire) if !matches!(**item, Shape::List(_)) => {
                    let item = value(types, item, wire, depth)?;
                    let list = object.entry(field.name.clone()).or_insert_with(|| json!([]));
                    list.as_array_mut().expect("it was made a list").push(item);
                }
                (Shape::Map(item), Wire::Bytes(entry)) => {
                    let (key, inner) = map_entry(types, item, entry, depth)?;
                    let map = object.entry(field.name.clone()).or_insert_with(|| json!({}));
                    map.as_object_mut().expect("it was made a map").insert(key, inner);
                }
                (shape, wire) => {
                    let inner = value(types, shape, wire, depth)?;
                    object.insert(field.name.clone(), inner);
                }
            }
        } else if let Wire::Bytes(bytes) = wire
            && of.fields.iter().any(|field| field.numbers.len() > path.len() && field.numbers.starts_with(&path))
        {
            message(types, index, &path, bytes, object, depth + 1)?;
        }
    }
    Ok(())
}

fn map_entry(types: &Types, item: &Shape, entry: &[u8], depth: usize) -> Decoded<(String, Value)> {
    let (mut key, mut inner) = (String::new(), None);
    for field in Reader(entry).fields() {
        match field? {
            (1, Wire::Bytes(text)) => key = utf8(text)?,
            (2, wire) => {
                inner = Some(match (item, wire) {
                    // A list as the value of a map is a message whose first field repeats.
                    (Shape::List(item), Wire::Bytes(bytes)) => {
                        let mut list = Vec::new();
                        for field in Reader(bytes).fields() {
                            let (_, wire) = field?;
                            list.push(value(types, item, wire, depth)?);
                        }
                        Value::Array(list)
                    }
                    (item, wire) => value(types, item, wire, depth)?,
                });
            }
            _ => {}
        }
    }
    let empty = || match item {
        Shape::String | Shape::Bytes => json!(""),
        Shape::Quantity => json!("0"),
        Shape::List(_) => json!([]),
        _ => json!({}),
    };
    Ok((key, inner.unwrap_or_else(empty)))
}

/// Numbers are sent as two's complement in 64 bits.
fn signed(number: u64) -> i64 {
    i64::from_le_bytes(number.to_le_bytes())
}

fn value(types: &Types, shape: &Shape, wire: Wire<'_>, depth: usize) -> Decoded<Value> {
    Ok(match (shape, wire) {
        (Shape::Boolean, Wire::Number(number)) => json!(number != 0),
        (Shape::Int32 | Shape::Int64, Wire::Number(number)) => json!(signed(number)),
        (Shape::Number, Wire::Number(number)) => json!(f64::from_bits(number)),
        (Shape::String, Wire::Bytes(bytes)) => json!(utf8(bytes)?),
        (Shape::Bytes, Wire::Bytes(bytes)) => json!(base64::engine::general_purpose::STANDARD.encode(bytes)),
        (Shape::Struct(index), Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            message(types, *index, &[], bytes, &mut object, depth + 1)?;
            Value::Object(object)
        }
        // A quantity is a message with its text.
        (Shape::Quantity, Wire::Bytes(bytes)) => match first_bytes(bytes, 1)? {
            Some(text) => json!(utf8(text)?),
            None => json!("0"),
        },
        (Shape::IntOrString, Wire::Bytes(bytes)) => {
            let (mut is_text, mut number, mut text) = (false, 0, String::new());
            for field in Reader(bytes).fields() {
                match field? {
                    (1, Wire::Number(kind)) => is_text = kind == 1,
                    (2, Wire::Number(value)) => number = signed(value),
                    (3, Wire::Bytes(bytes)) => text = utf8(bytes)?,
                    _ => {}
                }
            }
            if is_text { json!(text) } else { json!(number) }
        }
        (Shape::Time | Shape::MicroTime, Wire::Bytes(bytes)) => {
            let (mut seconds, mut nanos) = (0, 0);
            for field in Reader(bytes).fields() {
                match field? {
                    (1, Wire::Number(value)) => seconds = signed(value),
                    (2, Wire::Number(value)) => nanos = i32::try_from(signed(value)).unwrap_or_default(),
                    _ => {}
                }
            }
            match Timestamp::new(seconds, nanos) {
                // The zero time is what Go writes for none.
                _ if bytes.is_empty() => Value::Null,
                Ok(time) if *shape == Shape::Time => json!(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
                Ok(time) => json!(time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()),
                Err(_) => return fail("a time is out of range"),
            }
        }
        (Shape::Duration, Wire::Bytes(bytes)) => {
            let mut nanos = 0;
            for field in Reader(bytes).fields() {
                if let (1, Wire::Number(value)) = field? {
                    nanos = signed(value);
                }
            }
            json!(format!("{}s", nanos / 1_000_000_000))
        }
        // Embedded JSON: a message with the text.
        (Shape::Raw | Shape::Json | Shape::FieldSet, Wire::Bytes(bytes)) => match first_bytes(bytes, 1)? {
            Some(text) => {
                serde_json::from_slice(text).map_err(|_| DecodeError("embedded JSON cannot be read".to_owned()))?
            }
            None => json!({}),
        },
        _ => return fail("a field has the wrong wire type"),
    })
}

fn first_bytes(bytes: &[u8], wanted: u32) -> Decoded<Option<&[u8]>> {
    for field in Reader(bytes).fields() {
        if let (number, Wire::Bytes(inner)) = field?
            && number == wanted
        {
            return Ok(Some(inner));
        }
    }
    Ok(None)
}

//! The shapes of objects: what fields a type has, and what is known of each.
//!
//! Built-in types come from a generated table (`tools/generate-scheme`), those of custom resources from their schemas;
//! both have this one form, so that merging, applying, decoding and defaulting need not know which they look at.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;

/// What a value looks like.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    String,
    Boolean,
    Int32,
    Int64,
    Number,
    /// Base64 in JSON.
    Bytes,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    Duration,
    /// An object of any form.
    Raw,
    FieldSet,
    /// Any JSON.
    Json,
    /// The type with this index in the same arena.
    Struct(usize),
    List(Box<Shape>),
    Map(Box<Shape>),
}

/// How a list is merged by server-side apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ListKind {
    #[default]
    Atomic,
    Set,
    Map,
}

/// What becomes of the zero value of a field when an object is written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Zero {
    /// The field is a pointer: absent and zero differ.
    #[default]
    Distinct,
    Omitted,
    Kept,
    /// A struct that is there even when nothing was said.
    Always,
}

#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    /// Protobuf numbers, the last one that of the field itself, the others of the structs it is embedded through.
    pub(crate) numbers: Vec<u32>,
    pub(crate) required: bool,
    pub(crate) choices: Vec<Value>,
    pub(crate) default: Option<Value>,
    pub(crate) list: ListKind,
    pub(crate) keys: Vec<String>,
    /// A map or struct that has one owner.
    pub(crate) atomic: bool,
    pub(crate) merge_key: Option<String>,
    pub(crate) merge: bool,
    pub(crate) retain_keys: bool,
    pub(crate) zero: Zero,
    pub(crate) go_name: Option<String>,
    /// Null is a value of its own.
    pub(crate) nullable: bool,
    /// A map or object whose unknown fields are kept.
    pub(crate) preserve: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Type {
    /// As OpenAPI names it: `io.k8s.api.apps.v1.Deployment`.
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
    pub(super) by_name: HashMap<String, usize>,
    pub(crate) atomic: bool,
    /// Unknown fields are kept.
    pub(crate) preserve: bool,
}

impl Type {
    pub(crate) fn new(name: String, fields: Vec<Field>) -> Self {
        let by_name = fields.iter().enumerate().map(|(index, field)| (field.name.clone(), index)).collect();
        Self { name, fields, by_name, atomic: false, preserve: false }
    }

    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        self.by_name.get(name).map(|index| &self.fields[*index])
    }

    /// The Go name of the type: `Deployment`.
    pub(crate) fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

/// The types that belong together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Types {
    pub(crate) list: Vec<Type>,
}

impl Types {
    pub(crate) fn get(&self, index: usize) -> &Type {
        &self.list[index]
    }

    pub(crate) fn index_of(&self, name: &str) -> Option<usize> {
        self.list.iter().position(|one| one.name == name)
    }
}

impl Field {
    /// A field of which nothing but the shape is known.
    pub(crate) fn plain(name: &str, shape: Shape) -> Self {
        Self {
            name: name.to_owned(),
            shape,
            numbers: Vec::new(),
            required: false,
            choices: Vec::new(),
            default: None,
            list: ListKind::Atomic,
            keys: Vec::new(),
            atomic: false,
            merge_key: None,
            merge: false,
            retain_keys: false,
            zero: Zero::Distinct,
            go_name: None,
            nullable: false,
            preserve: false,
        }
    }
}

/// The built-in kinds and their types, parsed at first use.
pub(crate) struct Table {
    pub(crate) kinds: Vec<TableKind>,
    pub(crate) types: std::sync::Arc<Types>,
}

impl Table {
    pub(crate) fn get() -> &'static Self {
        static TABLE: OnceLock<Table> = OnceLock::new();
        TABLE.get_or_init(Self::read)
    }

    fn read() -> Self {
        let mut text = String::new();
        flate2::read::GzDecoder::new(include_bytes!("table.json.gz").as_slice())
            .read_to_string(&mut text)
            .expect("the table was compressed by its generator");
        let raw: RawTable = serde_json::from_str(&text).expect("the table was written by its generator");
        let list = raw.types.into_iter().map(type_of).collect();
        Self { kinds: raw.kinds, types: std::sync::Arc::new(Types { list }) }
    }
}

/// Its name, its fields, and what holds for the whole of it.
type RawType = (String, Vec<(String, String, Attributes)>, Flags);

#[derive(Deserialize)]
struct RawTable {
    kinds: Vec<TableKind>,
    types: Vec<RawType>,
}

/// A kind as the generator writes it.
#[derive(Deserialize)]
pub(crate) struct TableKind {
    #[serde(rename = "g")]
    pub(crate) group: String,
    #[serde(rename = "v")]
    pub(crate) version: String,
    #[serde(rename = "k")]
    pub(crate) kind: String,
    #[serde(rename = "n")]
    pub(crate) namespaced: bool,
    #[serde(rename = "o")]
    pub(crate) verbs: Vec<String>,
    #[serde(rename = "t")]
    pub(crate) root: Option<usize>,
    #[serde(rename = "p", default)]
    pub(crate) plural: String,
    #[serde(rename = "u", default)]
    pub(crate) singular: String,
    #[serde(rename = "h", default)]
    pub(crate) short_names: Vec<String>,
    #[serde(rename = "c", default)]
    pub(crate) categories: Vec<String>,
    #[serde(rename = "x", default)]
    pub(crate) subresources: Vec<TableKind>,
    #[serde(rename = "s", default)]
    pub(crate) subresource: String,
}

#[derive(Deserialize)]
struct Flags {
    m: Option<String>,
}

#[derive(Deserialize)]
struct Attributes {
    #[serde(default)]
    p: Vec<u32>,
    #[serde(default)]
    r: u8,
    #[serde(default)]
    e: Vec<Value>,
    d: Option<Value>,
    l: Option<String>,
    #[serde(default)]
    k: Vec<String>,
    m: Option<String>,
    mk: Option<String>,
    #[serde(default)]
    ps: String,
    g: Option<String>,
    z: Option<String>,
}

fn type_of((name, fields, flags): (String, Vec<(String, String, Attributes)>, Flags)) -> Type {
    let fields = fields.into_iter().map(field_of).collect();
    Type { atomic: flags.m.as_deref() == Some("atomic"), ..Type::new(name, fields) }
}

fn field_of((name, shape, attributes): (String, String, Attributes)) -> Field {
    Field {
        numbers: attributes.p,
        required: attributes.r == 1,
        choices: attributes.e,
        default: attributes.d,
        list: match attributes.l.as_deref() {
            Some("map") => ListKind::Map,
            Some("set") => ListKind::Set,
            _ => ListKind::Atomic,
        },
        keys: attributes.k,
        atomic: attributes.m.as_deref() == Some("atomic"),
        merge_key: attributes.mk,
        merge: attributes.ps.split(',').any(|strategy| strategy == "merge"),
        retain_keys: attributes.ps.split(',').any(|strategy| strategy == "retainKeys"),
        go_name: attributes.g,
        zero: match attributes.z.as_deref() {
            Some("omitted") => Zero::Omitted,
            Some("kept") => Zero::Kept,
            Some("always") => Zero::Always,
            _ => Zero::Distinct,
        },
        ..Field::plain(&name, shape_of(&shape))
    }
}

fn shape_of(letters: &str) -> Shape {
    let (first, rest) = letters.split_at(1);
    match first {
        "[" => Shape::List(Box::new(shape_of(rest))),
        "{" => Shape::Map(Box::new(shape_of(rest))),
        "#" => Shape::Struct(rest.parse().expect("the generator writes an index")),
        "s" => Shape::String,
        "b" => Shape::Boolean,
        "i" => Shape::Int32,
        "l" => Shape::Int64,
        "f" => Shape::Number,
        "B" => Shape::Bytes,
        "q" => Shape::Quantity,
        "I" => Shape::IntOrString,
        "T" => Shape::Time,
        "M" => Shape::MicroTime,
        "D" => Shape::Duration,
        "R" => Shape::Raw,
        "F" => Shape::FieldSet,
        _ => Shape::Json,
    }
}

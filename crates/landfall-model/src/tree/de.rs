//! A `serde::Deserializer` over the tree.
//!
//! Two conventions tie it to `document`. A [`Spanned`](crate::Spanned) asks for a struct of the name [`SPANNED`] and
//! gets the span with the value. A struct whose serde name is `Replicas|count` may be written short: a single value
//! (or a list, for a field that takes one) in its place fills the field after the bar. Unlike `untagged`, that loses no span.

use std::fmt::Display;

use serde::de::{self, DeserializeOwned, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use super::{Entry, Node, Value};
use crate::span::Span;

/// The struct name by which a `Spanned` asks for its span.
pub(crate) const SPANNED: &str = "$landfall::Spanned";

/// Turns the tree into `T`; the first thing that does not fit is the error.
pub(crate) fn deserialize<T: DeserializeOwned>(node: &Node) -> Result<T, DeserializeError> {
    T::deserialize(NodeDeserializer(node)).map_err(|error| error.at(node.span))
}

/// One step on the way to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    Key(String),
    Index(usize),
}

/// What did not fit, and where.
#[derive(Debug)]
pub(crate) struct DeserializeError {
    pub(crate) problem: Problem,
    pub(crate) span: Option<Span>,
    /// From the innermost step outwards.
    pub(crate) path: Vec<Segment>,
}

#[derive(Debug)]
pub(crate) enum Problem {
    UnknownField { field: String, expected: &'static [&'static str] },
    UnknownVariant { variant: String, expected: &'static [&'static str] },
    MissingField(&'static str),
    NotAMapping { found: &'static str, known: &'static [&'static str] },
    Other(String),
}

impl DeserializeError {
    fn new(problem: Problem) -> Self {
        Self { problem, span: None, path: Vec::new() }
    }

    fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }

    fn under(mut self, segment: Segment) -> Self {
        self.path.push(segment);
        self
    }
}

impl Display for DeserializeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.problem {
            Problem::UnknownField { field, .. } => write!(f, "unknown key `{field}`"),
            Problem::UnknownVariant { variant, .. } => write!(f, "unknown value `{variant}`"),
            Problem::MissingField(field) => write!(f, "`{field}` is missing"),
            Problem::NotAMapping { found, .. } => write!(f, "expected a mapping, found {found}"),
            Problem::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for DeserializeError {}

impl de::Error for DeserializeError {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(Problem::Other(message.to_string()))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Problem::UnknownField { field: field.to_owned(), expected })
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Problem::UnknownVariant { variant: variant.to_owned(), expected })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Problem::MissingField(field))
    }
}

#[derive(Clone, Copy)]
struct NodeDeserializer<'a>(&'a Node);

impl<'a> NodeDeserializer<'a> {
    fn text(self, wanted: &dyn Display) -> Result<&'a str, DeserializeError> {
        match &self.0.value {
            Value::Scalar { text, .. } if !self.0.is_null() => Ok(text),
            _ => Err(self.mismatch(wanted)),
        }
    }

    fn mismatch(self, wanted: &dyn Display) -> DeserializeError {
        DeserializeError::new(Problem::Other(format!("expected {wanted}, found {}", self.0.kind()))).at(self.0.span)
    }

    fn parse<T: std::str::FromStr>(self, wanted: &str) -> Result<T, DeserializeError> {
        let text = self.text(&wanted)?;
        text.replace('_', "").parse().map_err(|_| {
            DeserializeError::new(Problem::Other(format!("expected {wanted}, found `{text}`"))).at(self.0.span)
        })
    }

    /// The struct's fields, with the short form spelled out.
    fn entries(self, name: &str, known: &'static [&'static str]) -> Result<Entries<'a>, DeserializeError> {
        match &self.0.value {
            Value::Mapping(entries) => Ok(Entries::Written(entries)),
            _ if self.0.is_null() => Ok(Entries::Written(&[])),
            _ => match name.split_once('|') {
                Some((_, field)) => Ok(Entries::Short(field.to_owned(), self.0)),
                None if known.is_empty() => Err(self.mismatch(&"a mapping")),
                None => {
                    Err(DeserializeError::new(Problem::NotAMapping { found: self.0.kind(), known }).at(self.0.span))
                }
            },
        }
    }
}

enum Entries<'a> {
    Written(&'a [Entry]),
    Short(String, &'a Node),
}

macro_rules! deserialize_number {
    ($($method:ident $visit:ident $type:ty, $wanted:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            visitor.$visit(self.parse::<$type>($wanted)?)
        })*
    };
}

impl<'de> de::Deserializer<'de> for NodeDeserializer<'_> {
    type Error = DeserializeError;

    /// Plain scalars are read by YAML 1.2's core schema; only raw objects and patches come this way.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match &self.0.value {
            Value::Sequence(_) => self.deserialize_seq(visitor),
            Value::Mapping(_) => self.deserialize_map(visitor),
            Value::Scalar { .. } if self.0.is_null() => visitor.visit_unit(),
            Value::Scalar { text, plain: false } => visitor.visit_str(text),
            Value::Scalar { text, .. } => match text.as_str() {
                "true" | "True" | "TRUE" => visitor.visit_bool(true),
                "false" | "False" | "FALSE" => visitor.visit_bool(false),
                _ => {
                    let begins_like_a_number =
                        text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
                    if let Ok(number) = text.parse::<i64>() {
                        visitor.visit_i64(number)
                    } else if let Some(number) =
                        text.parse::<f64>().ok().filter(|n| begins_like_a_number && n.is_finite())
                    {
                        visitor.visit_f64(number)
                    } else {
                        visitor.visit_str(text)
                    }
                }
            },
        }
    }

    deserialize_number! {
        deserialize_i8 visit_i8 i8, "a whole number";
        deserialize_i16 visit_i16 i16, "a whole number";
        deserialize_i32 visit_i32 i32, "a whole number";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number";
        deserialize_u64 visit_u64 u64, "a whole number";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.text(&"`true` or `false`")? {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            other => {
                let message = format!("expected `true` or `false`, found `{other}`");
                Err(DeserializeError::new(Problem::Other(message)).at(self.0.span))
            }
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_str(self.text(&"a single value")?).map_err(|error: DeserializeError| error.at(self.0.span))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match &self.0.value {
            Value::Sequence(items) => visitor.visit_seq(Items { items, next: 0 }),
            _ if self.0.is_null() => visitor.visit_seq(Items { items: &[], next: 0 }),
            _ => Err(self.mismatch(&"a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_map(Fields::new(self.entries("", &[])?, self.0.span))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        if name == SPANNED {
            return visitor.visit_map(SpannedParts { span: self.0.span, value: SpannedValue::Node(self.0), part: 0 });
        }
        visitor.visit_map(Fields::new(self.entries(name, fields)?, self.0.span)).map_err(|error| error.at(self.0.span))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        let (name, span, content) = match &self.0.value {
            Value::Scalar { text, .. } if !self.0.is_null() => (text, self.0.span, None),
            Value::Mapping(entries) if entries.len() == 1 => {
                (&entries[0].key, entries[0].key_span, Some(&entries[0].value))
            }
            _ => return Err(self.mismatch(&format_args!("one of {}", list(variants)))),
        };
        visitor.visit_enum(Choice { name, span, content }).map_err(|error: DeserializeError| match content {
            Some(_) if error.span != Some(span) => error.under(Segment::Key(name.clone())),
            _ => error,
        })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! { i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.deserialize_str(visitor)
    }
}

/// `a`, `b` or `c`.
pub(crate) fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

struct Items<'a> {
    items: &'a [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = DeserializeError;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Self::Error> {
        let Some(node) = self.items.get(self.next) else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        let value = seed.deserialize(NodeDeserializer(node));
        value.map(Some).map_err(|error| error.at(node.span).under(Segment::Index(index)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

struct Fields<'a> {
    entries: Entries<'a>,
    next: usize,
    span: Span,
}

impl<'a> Fields<'a> {
    fn new(entries: Entries<'a>, span: Span) -> Self {
        Self { entries, next: 0, span }
    }

    fn current(&self) -> Option<(&str, Span, &'a Node)> {
        match &self.entries {
            Entries::Written(entries) => {
                entries.get(self.next).map(|entry| (entry.key.as_str(), entry.key_span, &entry.value))
            }
            Entries::Short(field, node) => (self.next == 0).then_some((field.as_str(), self.span, *node)),
        }
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = DeserializeError;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Self::Error> {
        let Some((key, span, _)) = self.current() else { return Ok(None) };
        seed.deserialize(KeyDeserializer { key, span })
            .map(Some)
            .map_err(|error| error.at(span).under(Segment::Key(key.to_owned())))
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Self::Error> {
        let (key, _, node) = self.current().expect("a value follows its key");
        let short = matches!(self.entries, Entries::Short(..));
        let result = seed.deserialize(NodeDeserializer(node)).map_err(|error| {
            let error = error.at(node.span);
            if short { error } else { error.under(Segment::Key(key.to_owned())) }
        });
        self.next += 1;
        result
    }
}

struct KeyDeserializer<'a> {
    key: &'a str,
    span: Span,
}

impl<'de> de::Deserializer<'de> for KeyDeserializer<'_> {
    type Error = DeserializeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_str(self.key)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        if name == SPANNED {
            return visitor.visit_map(SpannedParts { span: self.span, value: SpannedValue::Key(self.key), part: 0 });
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_enum(self.key.into_deserializer())
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq
        tuple tuple_struct map identifier ignored_any
    }
}

/// The three parts that a `Spanned` asks for: where it begins, where it ends, and the value.
struct SpannedParts<'a> {
    span: Span,
    value: SpannedValue<'a>,
    part: u8,
}

enum SpannedValue<'a> {
    Node(&'a Node),
    Key(&'a str),
}

impl<'de> MapAccess<'de> for SpannedParts<'_> {
    type Error = DeserializeError;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Self::Error> {
        let name = match self.part {
            0 => "span",
            1 => "value",
            _ => return Ok(None),
        };
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Self::Error> {
        self.part += 1;
        if self.part == 1 {
            let range = self.span.range();
            let parts = [u64::from(self.span.source().0), range.start as u64, range.end as u64];
            return seed.deserialize(de::value::SeqDeserializer::new(parts.into_iter()));
        }
        match self.value {
            SpannedValue::Node(node) => seed.deserialize(NodeDeserializer(node)),
            SpannedValue::Key(key) => seed.deserialize(KeyDeserializer { key, span: self.span }),
        }
        .map_err(|error| error.at(self.span))
    }
}

struct Choice<'a> {
    name: &'a str,
    span: Span,
    content: Option<&'a Node>,
}

impl<'a, 'de> de::EnumAccess<'de> for Choice<'a> {
    type Error = DeserializeError;
    type Variant = ChoiceContent<'a>;

    fn variant_seed<V: de::DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), Self::Error> {
        let variant = seed
            .deserialize(KeyDeserializer { key: self.name, span: self.span })
            .map_err(|error| error.at(self.span))?;
        Ok((variant, ChoiceContent { name: self.name, span: self.span, content: self.content }))
    }
}

struct ChoiceContent<'a> {
    name: &'a str,
    span: Span,
    content: Option<&'a Node>,
}

impl<'de> de::VariantAccess<'de> for ChoiceContent<'_> {
    type Error = DeserializeError;

    fn unit_variant(self) -> Result<(), Self::Error> {
        match self.content {
            Some(node) if !node.is_null() => {
                let message = format!("`{}` takes no further values", self.name);
                Err(DeserializeError::new(Problem::Other(message)).at(node.span))
            }
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<T: de::DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Self::Error> {
        let absent = Node { span: self.span, value: Value::Scalar { text: String::new(), plain: true } };
        let node = self.content.unwrap_or(&absent);
        seed.deserialize(NodeDeserializer(node)).map_err(|error| error.at(node.span))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Self::Error> {
        let node = self.content.ok_or_else(|| de::Error::missing_field("value"))?;
        de::Deserializer::deserialize_seq(NodeDeserializer(node), visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        let entries =
            self.content.map_or(Ok(Entries::Written(&[])), |node| NodeDeserializer(node).entries("", fields))?;
        visitor.visit_map(Fields::new(entries, self.span))
    }
}

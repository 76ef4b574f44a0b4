//! Reads the bodies of requests: JSON with its duplicate keys named, YAML, protobuf.

use std::cell::RefCell;
use std::fmt;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::DuplicateKeyPolicy;

use super::failure::Failure;
use super::negotiate::BodyType;
use crate::scheme::{Scheme, protobuf};

/// The largest body that is read.
pub(crate) const LIMIT: usize = 3 * 1024 * 1024;

/// How many bytes of a body that cannot be read are shown.
const SHOWN: usize = 1024;

/// A body, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Decoded {
    pub(crate) value: Value,
    /// Keys that stand in their object more than once; the last one counts.
    pub(crate) duplicates: Duplicates,
}

/// Keys that stand in their object more than once, as the reader of the format tells them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Duplicates {
    /// Of JSON: their paths.
    Paths(Vec<String>),
    /// Of YAML: their lines, as texts. Not handled: more than the first one.
    Lines(Vec<String>),
}

impl Default for Duplicates {
    fn default() -> Self {
        Self::Paths(Vec::new())
    }
}

impl Duplicates {
    /// A text for each of them.
    pub(crate) fn warnings(&self) -> Vec<String> {
        match self {
            Self::Paths(paths) => paths.iter().map(|path| format!("duplicate field {path:?}")).collect(),
            Self::Lines(lines) => lines.clone(),
        }
    }

    /// What a strict reader says: YAML's says everything in one error.
    pub(crate) fn errors(&self) -> Vec<String> {
        match self {
            Self::Lines(lines) if !lines.is_empty() => {
                vec![format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "))]
            }
            _ => self.warnings(),
        }
    }
}

/// Reads the whole body; one that says that it is too large is refused before it comes.
pub(crate) async fn body(headers: &HeaderMap, body: Body) -> Result<Bytes, Failure> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<usize>().ok());
    if announced.is_some_and(|length| length > LIMIT) {
        return Err(Failure::too_large(LIMIT));
    }
    axum::body::to_bytes(body, LIMIT).await.map_err(|error| {
        let too_large = std::error::Error::source(&error)
            .is_some_and(<dyn std::error::Error + 'static>::is::<http_body_util::LengthLimitError>);
        if too_large {
            Failure::too_large(LIMIT)
        } else {
            Failure::bad_request("unable to read the body of the request")
        }
    })
}

/// Reads an object; `kind` is what it should be, for the message.
pub(crate) fn object(scheme: &Scheme, body: &[u8], written: BodyType, kind: &str) -> Result<Decoded, Failure> {
    let decoded = match written {
        BodyType::Json => json(body).map_err(|error| {
            let shown: String = String::from_utf8_lossy(body).chars().take(256).collect();
            let shown = if shown.is_empty() { "<empty>" } else { &shown };
            Failure::bad_request(format!(
                "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse \
                 error: {} ({shown})",
                parse_error(&error)
            ))
        })?,
        BodyType::ApplyPatch => yaml(body)?,
        BodyType::Yaml => yaml(body).map_err(|failure| unrecognized(kind, &failure.message, body))?,
        BodyType::Protobuf => {
            let value = protobuf::decode(scheme, body).map_err(|error| unrecognized(kind, &error.to_string(), body))?;
            Decoded { value, duplicates: Duplicates::default() }
        }
        _ => {
            let accepted = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
            return Err(Failure::unsupported_body(accepted));
        }
    };
    if decoded.value.is_object() {
        return Ok(decoded);
    }
    let why = format!(
        "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct {{ \
         APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
        type_name(&decoded.value)
    );
    Err(unrecognized(kind, &why, body))
}

/// A body that is no object; its beginning is shown in hexadecimal.
fn unrecognized(kind: &str, why: &str, body: &[u8]) -> Failure {
    let shown = body.iter().take(SHOWN).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    Failure::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why} ({shown})"))
}

/// What is wrong with a text that is no JSON; a text that ends too early has Kubernetes' words.
pub(crate) fn parse_error(error: &serde_json::Error) -> String {
    if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// JSON, with its duplicate keys named.
pub(crate) fn json(body: &[u8]) -> Result<Decoded, serde_json::Error> {
    let found = RefCell::default();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = Node { path: "", found: &found }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Decoded { value, duplicates: Duplicates::Paths(found.into_inner()) })
}

/// One YAML document. JSON is YAML as well, and is read as what it is.
pub(crate) fn yaml(body: &[u8]) -> Result<Decoded, Failure> {
    if let Ok(decoded) = json(body) {
        return Ok(decoded);
    }
    let text = std::str::from_utf8(body).map_err(|_| Failure::bad_request("the body is no UTF-8"))?;
    let read = |policy: DuplicateKeyPolicy| {
        let options = serde_saphyr::options! { duplicate_keys: policy, with_snippet: false };
        serde_saphyr::from_str_with_options::<Value>(text, options)
    };
    let (value, lines) = match read(DuplicateKeyPolicy::Error) {
        Err(serde_saphyr::Error::DuplicateMappingKey { key, location }) => {
            let line = format!("line {}: key {:?} already set in map", location.line(), key.unwrap_or_default());
            (read(DuplicateKeyPolicy::LastWins), vec![line])
        }
        other => (other, Vec::new()),
    };
    let value = value.map_err(|error| Failure::bad_request(format!("error converting YAML to JSON: {error}")))?;
    Ok(Decoded { value, duplicates: Duplicates::Lines(lines) })
}

/// Deserializes the value at a path.
struct Node<'a> {
    path: &'a str,
    found: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is none"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, list.len());
            match items.next_element_seed(Node { path: &path, found: self.found })? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            let value = entries.next_value_seed(Node { path: &path, found: self.found })?;
            if map.insert(key, value).is_some() {
                self.found.borrow_mut().push(path);
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_named_by_its_path_and_the_last_one_counts() {
        let decoded = json(br#"{"a": {"b": 1, "b": 2}, "c": [{"d": 1, "d": 1}]}"#).expect("well-formed");
        assert_eq!(decoded.duplicates, Duplicates::Paths(vec!["a.b".to_owned(), "c[0].d".to_owned()]));
        assert_eq!(decoded.value["a"]["b"], 2);
    }

    #[test]
    fn a_key_that_stands_twice_in_yaml_is_named_by_its_line_and_the_last_one_counts() {
        let decoded = yaml(b"kind: ConfigMap\ndata: {}\ndata: {a: b}\n").expect("it can be read");
        assert_eq!(decoded.duplicates.warnings(), ["line 3: key \"data\" already set in map"]);
        assert_eq!(decoded.duplicates.errors(), ["yaml: unmarshal errors:\n  line 3: key \"data\" already set in map"]);
        assert_eq!(decoded.value["data"]["a"], "b");
    }

    #[test]
    fn a_body_that_nests_without_end_is_an_error_and_no_overflow() {
        let body = "[".repeat(100_000);
        assert!(json(body.as_bytes()).is_err());
    }
}

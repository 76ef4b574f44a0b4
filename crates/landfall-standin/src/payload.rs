//! What the messages of a flow carry: made up by its JSON Schema and in its declared size, and held against the schema where
//! it arrives.
//!
//! What is made up depends on the id of the message alone, so that everybody who passes a message on makes up the same.
//! Not handled: schemas in several files.

mod sample;

use std::fmt;
use std::time::Duration;

use jsonschema::Validator;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::sample::sample;
use crate::Failure;
use crate::behaviour::{Load, Message, PayloadShape};

/// The field that fills a message up to its size.
const PADDING: &str = "padding";

/// What the field takes beside its text: a comma, its name, and quotes.
const PADDING_COSTS: usize = r#","padding":"""#.len();

/// How often other alternatives of a schema are taken before nothing can be made up.
const ATTEMPTS: usize = 16;

/// How many bytes a second get through TLS, checksums and a disk on a slow machine.
const SLOWEST: u64 = 2_000_000;

/// The longest text that a reason repeats of a payload.
const REPEATED: usize = 80;

/// The payload of a flow.
pub struct Payload {
    shape: PayloadShape,
    validator: Option<Validator>,
    /// Where what is made up may grow to its size; none: nowhere, or it need not.
    room: Option<Room>,
}

/// A text that may be as long as it has to.
enum Room {
    /// A field of the outermost object that is not there otherwise.
    Field(String),
    /// One that is there, by its JSON pointer.
    Text(String),
}

/// A message as a broker brings it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Carried {
    #[serde(flatten)]
    pub(crate) message: Message,
    /// None where a program has sent it that says nothing under this name.
    #[serde(default)]
    pub(crate) payload: Option<Value>,
}

/// The same, as it is sent.
#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(flatten)]
    message: &'a Message,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    padding: Option<String>,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Payload {
    /// Prepares it. The error says why no message can be made up, or held against the schema.
    pub fn new(shape: &PayloadShape) -> Result<Self, String> {
        let mut payload = Self { shape: shape.clone(), validator: None, room: None };
        let Some(schema) = &shape.schema else { return Ok(payload) };
        // Formats are notes by the standard, and promises by whoever writes them here.
        let built = jsonschema::options().should_validate_formats(true).build(schema);
        payload.validator = Some(built.map_err(|error| format!("it is no JSON Schema that can be used: {error}"))?);
        let made_up = payload.made_up(0)?.unwrap_or_default();
        if let (Some(bytes), Some(validator)) = (payload.wanted(Load::Whole), &payload.validator) {
            payload.room = room(schema, validator, &made_up, bytes);
        }
        Ok(payload)
    }

    /// How many bytes a request of the flow has, where a size is declared: fewer than that where the schema leaves no room.
    pub fn bytes(&self) -> Option<usize> {
        let (wanted, message) = (self.wanted(Load::Whole)?, Message::default());
        let load = if self.has_schema() { Load::Whole } else { Load::Reference };
        let made = self.request(&message, load).ok()?.len();
        // Without a schema a large one need not be made to be measured.
        Some(if !self.has_schema() && made + PADDING_COSTS <= wanted { wanted } else { made })
    }

    /// What a request has in its body: the payload alone where there is a schema, as its header says what it belongs to.
    pub fn request(&self, message: &Message, load: Load) -> Result<Vec<u8>, Failure> {
        let Some(mut value) = self.made_up(message.id)? else { return self.envelope(message, load) };
        if let (Some(bytes), Some(room)) = (self.wanted(load), &self.room) {
            room.grow(&mut value, bytes);
        }
        Ok(serde_json::to_vec(&value)?)
    }

    /// What goes to a broker or an object store: the fields of the message, the payload beside them, and what fills it up.
    pub(crate) fn envelope(&self, message: &Message, load: Load) -> Result<Vec<u8>, Failure> {
        let value = self.made_up(message.id)?;
        let mut envelope = Envelope { message, payload: value.as_ref(), padding: None };
        let small = serde_json::to_vec(&envelope)?;
        let missing = self.wanted(load).and_then(|bytes| bytes.checked_sub(small.len() + PADDING_COSTS));
        let Some(missing) = missing else { return Ok(small) };
        envelope.padding = Some(filler(missing));
        Ok(serde_json::to_vec(&envelope)?)
    }

    /// Whether there is a schema to hold something against.
    pub(crate) fn has_schema(&self) -> bool {
        self.validator.is_some()
    }

    /// Holds the body of a request against the schema. The error is what is wrong with it.
    pub(crate) fn check(&self, body: &[u8]) -> Result<(), Failure> {
        if !self.has_schema() {
            return Ok(());
        }
        if body.is_empty() {
            return Err("the request has no payload".into());
        }
        let value = serde_json::from_slice(body).map_err(|error| format!("the payload is no JSON: {error}"))?;
        self.check_value(&value)
    }

    /// The same for what a message has in its field `payload`.
    pub(crate) fn check_value(&self, value: &Value) -> Result<(), Failure> {
        let Some(validator) = &self.validator else { return Ok(()) };
        let Some(error) = validator.iter_errors(value).next() else { return Ok(()) };
        let place = match error.instance_path().as_str() {
            "" => "the payload",
            pointer => pointer,
        };
        Err(format!("{place}: {}", error.masked_with(shortened(error.instance()))).into())
    }

    /// How much longer than a small message it may take to carry this one.
    pub fn patience(&self, load: Load) -> Duration {
        let bytes = self.wanted(load).and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
        Duration::from_secs(bytes / SLOWEST)
    }

    fn wanted(&self, load: Load) -> Option<usize> {
        match load {
            Load::Whole => usize::try_from(self.shape.bytes?).ok(),
            Load::Reference => None,
        }
    }

    /// What is valid for the message of this id, as small as it may be; none where there is no schema.
    fn made_up(&self, id: u64) -> Result<Option<Value>, String> {
        let (Some(schema), Some(validator)) = (&self.shape.schema, &self.validator) else { return Ok(None) };
        let mut last = None;
        for attempt in 0..ATTEMPTS {
            let Some(value) = sample(schema, id, attempt) else { continue };
            let wrong = validator.iter_errors(&value).next();
            let wrong = wrong.map(|error| format!("{}: {error}", error.instance_path().as_str()));
            if wrong.is_none() {
                return Ok(Some(value));
            }
            last = wrong;
        }
        let why = last.map(|error| format!(" (the last try is wrong at {error})")).unwrap_or_default();
        Err(format!("no payload could be made up that is valid{why}; `examples` in the schema are taken first"))
    }
}

/// A place where a valid value may grow by so much and stays valid.
fn room(schema: &Value, validator: &Validator, value: &Value, bytes: usize) -> Option<Room> {
    let fields = schema["properties"].as_object().into_iter().flat_map(Map::keys).map(String::as_str);
    let unused = [PADDING].into_iter().chain(fields).filter(|field| value.get(*field).is_none());
    let mut places: Vec<Room> = match value {
        Value::Object(_) => unused.map(|field| Room::Field(field.to_owned())).collect(),
        _ => Vec::new(),
    };
    texts(value, String::new(), &mut places);
    places.into_iter().find(|room| {
        let mut grown = value.clone();
        room.grow(&mut grown, bytes);
        validator.is_valid(&grown)
    })
}

/// The texts in a value.
fn texts(value: &Value, pointer: String, found: &mut Vec<Room>) {
    match value {
        Value::String(_) => found.push(Room::Text(pointer)),
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                texts(field, format!("{pointer}/{name}"), found);
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| texts(item, format!("{pointer}/{at}"), found));
        }
        _ => {}
    }
}

impl Room {
    /// Makes the value as long as this, as text, unless it is longer already.
    fn grow(&self, value: &mut Value, bytes: usize) {
        let mut empty = value.clone();
        self.add(&mut empty, 0);
        if let Some(missing) = bytes.checked_sub(empty.to_string().len()) {
            self.add(value, missing);
        }
    }

    fn add(&self, value: &mut Value, count: usize) {
        match self {
            Self::Field(name) => {
                if let Some(fields) = value.as_object_mut() {
                    fields.insert(name.clone(), Value::String(filler(count)));
                }
            }
            Self::Text(pointer) => {
                if let Some(Value::String(text)) = value.pointer_mut(pointer) {
                    text.push_str(&filler(count));
                }
            }
        }
    }
}

fn filler(count: usize) -> String {
    "x".repeat(count)
}

/// A value as JSON, short enough for one line.
fn shortened(value: &Value) -> String {
    match value {
        Value::String(text) if text.len() > REPEATED => format!("a text of {} bytes", text.len()),
        Value::Object(fields) => format!("an object of {} fields", fields.len()),
        Value::Array(items) => format!("a list of {}", items.len()),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn payload(schema: Option<Value>, bytes: Option<u64>) -> Payload {
        Payload::new(&PayloadShape { schema, bytes }).unwrap_or_else(|error| panic!("{error}"))
    }

    fn message(id: u64) -> Message {
        Message { flow: Some("order".to_owned()), id, sent_us: 5, hop: 2, trace: None }
    }

    /// A reading, as strict as schemas of the examples are.
    fn reading() -> Value {
        json!({
            "type": "object",
            "required": ["id", "channel", "measured", "value"],
            "properties": {
                "id": { "type": "string", "format": "uuid" },
                "channel": { "enum": ["bfm", "pumps"] },
                "measured": { "type": "string", "format": "date-time" },
                "value": { "type": "number", "minimum": 0 },
                "image": { "type": "string" },
            },
            "additionalProperties": false,
        })
    }

    #[test]
    fn a_message_has_its_declared_size_and_the_fields_that_it_is_known_by() {
        let payload = payload(None, Some(1000));
        for body in [payload.request(&message(7), Load::Whole), payload.envelope(&message(7), Load::Whole)] {
            let body = body.expect("it can be made");
            assert_eq!(body.len(), 1000);
            assert_eq!(serde_json::from_slice::<Message>(&body).expect("it is one"), message(7));
        }
        let small = payload.envelope(&message(7), Load::Reference).expect("it can be made");
        assert_eq!(small, serde_json::to_vec(&message(7)).expect("it is JSON"));
        assert_eq!(payload.bytes(), Some(1000));
    }

    #[test]
    fn what_a_request_carries_is_valid_and_grows_where_the_schema_has_room() {
        let payload = payload(Some(reading()), Some(5000));
        let body = payload.request(&message(7), Load::Whole).expect("it can be made");
        assert_eq!(body.len(), 5000);
        payload.check(&body).expect("it is valid");
        let value: Value = serde_json::from_slice(&body).expect("it is JSON");
        assert!(value["image"].as_str().is_some_and(|image| image.len() > 4000), "the field that may be left out");
        let again = payload.request(&message(7), Load::Whole).expect("it can be made");
        assert_eq!(again, body, "by its id alone");
        assert_ne!(payload.request(&message(8), Load::Whole).expect("it can be made"), body);
        let small = payload.request(&message(7), Load::Reference).expect("it can be made");
        assert!(small.len() < 200, "{}", String::from_utf8_lossy(&small));
    }

    #[test]
    fn a_message_of_a_broker_has_the_payload_beside_its_own_fields() {
        let payload = payload(Some(reading()), Some(5000));
        let body = payload.envelope(&message(7), Load::Whole).expect("it can be made");
        assert_eq!(body.len(), 5000);
        let carried: Carried = serde_json::from_slice(&body).expect("it is one");
        assert_eq!(carried.message, message(7));
        payload.check_value(&carried.payload.expect("it is there")).expect("it is valid");
        let of_a_program: Carried =
            serde_json::from_slice(br#"{"flow":"order","id":7,"sent_us":5,"hop":2,"text":"a"}"#)
                .expect("it has the fields that count");
        assert_eq!((of_a_program.message, of_a_program.payload), (message(7), None));
    }

    #[test]
    fn what_is_wrong_with_a_payload_is_told() {
        let payload = payload(Some(reading()), None);
        let told = |body: &[u8]| payload.check(body).expect_err("it is wrong").to_string();
        assert_eq!(told(b""), "the request has no payload");
        assert!(told(b"{").starts_with("the payload is no JSON: "), "{}", told(b"{"));
        let mut value: Value =
            serde_json::from_slice(&payload.request(&message(7), Load::Whole).expect("it can be made"))
                .expect("it is JSON");
        value["value"] = json!(-1);
        let told = payload.check_value(&value).expect_err("it is wrong").to_string();
        assert!(told.starts_with("/value: -1 "), "{told}");
    }

    #[test]
    fn a_schema_without_room_keeps_messages_small_and_one_that_nothing_fits_is_refused() {
        let narrow = json!({ "type": "object", "required": ["on"], "properties": { "on": { "type": "boolean" } }, "additionalProperties": false });
        let bytes = payload(Some(narrow), Some(5000)).bytes();
        assert_eq!(bytes, Some(r#"{"on":true}"#.len()));
        let nothing = PayloadShape { schema: Some(json!({ "type": "string", "not": {} })), bytes: None };
        let error = Payload::new(&nothing).expect_err("nothing fits");
        assert!(error.starts_with("no payload could be made up that is valid"), "{error}");
        let unknown = PayloadShape { schema: Some(json!({ "type": "strange" })), bytes: None };
        assert!(Payload::new(&unknown).is_err());
    }
}

//! An object as it is stored, and as it is before its revision is known.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{Key, Revision};

/// An object that has no revision yet: its JSON, with a gap where the revision will stand.
///
/// It is serialised by whoever makes the draft, so that the one writer of the store only copies bytes.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// Up to and with the opening quote of the resource version.
    head: Vec<u8>,
    /// From the closing quote on.
    tail: Vec<u8>,
}

/// The members of an object that do not stand where they come.
const OWN_PLACE: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Draft {
    /// Any resource version that the object has is dropped.
    ///
    /// # Panics
    ///
    /// When `object` is not a JSON object, or its `metadata` is something else than one.
    pub(crate) fn new(object: &Value) -> Self {
        let Value::Object(object) = object else { panic!("an object of the API is a JSON object: {object}") };
        let empty = Map::new();
        let metadata = match object.get("metadata") {
            None | Some(Value::Null) => &empty,
            Some(Value::Object(metadata)) => metadata,
            Some(other) => panic!("metadata is a JSON object: {other}"),
        };
        let mut head = Vec::with_capacity(1024);
        let mut tail = Vec::with_capacity(4096);
        head.push(b'{');
        // Type first, then metadata, as the clients of Kubernetes expect to read it.
        for name in ["apiVersion", "kind"] {
            if let Some(value) = object.get(name) {
                member(&mut head, name, value);
            }
        }
        separate(&mut head);
        head.extend_from_slice(b"\"metadata\":{");
        // The fields of metadata are sorted by name, as Kubernetes writes them.
        for (name, value) in metadata.iter().filter(|(name, _)| name.as_str() < "resourceVersion") {
            member(&mut head, name, value);
        }
        separate(&mut head);
        head.extend_from_slice(b"\"resourceVersion\":\"");
        tail.push(b'"');
        for (name, value) in metadata.iter().filter(|(name, _)| name.as_str() > "resourceVersion") {
            member(&mut tail, name, value);
        }
        tail.push(b'}');
        for (name, value) in object.iter().filter(|(name, _)| !OWN_PLACE.contains(&name.as_str())) {
            member(&mut tail, name, value);
        }
        tail.push(b'}');
        Self { head, tail }
    }

    #[cfg(test)]
    /// The same object again.
    pub(crate) fn of(record: &Record) -> Self {
        let gap = record.gap..record.gap + record.revision.to_string().len();
        Self { head: record.json[..gap.start].to_vec(), tail: record.json[gap.end..].to_vec() }
    }

    pub(super) fn commit(self, key: Key, revision: Revision) -> Record {
        let mut json = self.head;
        let gap = json.len();
        let number = revision.to_string();
        json.reserve_exact(number.len() + self.tail.len());
        json.extend_from_slice(number.as_bytes());
        json.extend_from_slice(&self.tail);
        Record { key, revision, json: json.into(), gap, parsed: Mutex::new(Parsed::Warm(None)) }
    }
}

fn member(json: &mut Vec<u8>, name: &str, value: &Value) {
    separate(json);
    let written = serde_json::to_writer(&mut *json, name);
    json.push(b':');
    written.and_then(|()| serde_json::to_writer(json, value)).expect("a value can be written to memory");
}

fn separate(json: &mut Vec<u8>) {
    if !matches!(json.last(), Some(b'{') | None) {
        json.push(b',');
    }
}

/// An object at a revision. It never changes.
#[derive(Debug)]
pub(crate) struct Record {
    key: Key,
    revision: Revision,
    json: Bytes,
    /// Where in `json` the revision stands.
    gap: usize,
    parsed: Mutex<Parsed>,
}

/// A parsed object takes several times the memory of its JSON, so only those that changed lately are kept.
#[derive(Debug)]
enum Parsed {
    /// Kept once somebody has asked for it.
    Warm(Option<Arc<Value>>),
    /// Shared as long as somebody else holds it.
    Cold(Weak<Value>),
}

impl Record {
    /// A record as it was read from disk; `None` if `gap` is not where the revision stands.
    pub(super) fn restored(key: Key, revision: Revision, json: Bytes, gap: usize) -> Option<Self> {
        let number = revision.to_string();
        let fits = json.get(gap..)?.starts_with(number.as_bytes());
        fits.then(|| Self { key, revision, json, gap, parsed: Mutex::new(Parsed::Cold(Weak::new())) })
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// The revision of the write that made the object so; for a deleted object, that of the deletion.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The whole object, resource version included.
    pub(crate) fn json(&self) -> &Bytes {
        &self.json
    }

    /// The object's metadata as it stands in its JSON: nothing is parsed for it.
    pub(crate) fn metadata(&self) -> &str {
        #[derive(Deserialize)]
        struct Object<'a> {
            #[serde(borrow)]
            metadata: &'a RawValue,
        }
        let object: Object<'_> = serde_json::from_slice(&self.json).expect("every object of the store has metadata");
        object.metadata.get()
    }

    /// The whole object, parsed when it is first asked for.
    pub(crate) fn value(&self) -> Arc<Value> {
        let mut parsed = self.parsed();
        let kept = match &*parsed {
            Parsed::Warm(value) => value.clone(),
            Parsed::Cold(value) => value.upgrade(),
        };
        kept.unwrap_or_else(|| {
            let value = Arc::new(self.parse());
            match &mut *parsed {
                Parsed::Warm(kept) => *kept = Some(Arc::clone(&value)),
                Parsed::Cold(kept) => *kept = Arc::downgrade(&value),
            }
            value
        })
    }

    /// From here on the parsed object is not kept.
    pub(super) fn cool(&self) {
        let mut parsed = self.parsed();
        if let Parsed::Warm(value) = &*parsed {
            *parsed = Parsed::Cold(value.as_ref().map(Arc::downgrade).unwrap_or_default());
        }
    }

    pub(super) fn gap(&self) -> usize {
        self.gap
    }

    fn parse(&self) -> Value {
        serde_json::from_slice(&self.json)
            .expect("the store has written this JSON itself, or checked it when it was read")
    }

    fn parsed(&self) -> std::sync::MutexGuard<'_, Parsed> {
        self.parsed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! How stored objects are shown: in the version that the client asks for, whole, as metadata only, or as rows of a table.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::failure::Failure;
use super::negotiate::{Accepted, Form};
use crate::scheme::{Resource, Scheme, table};
use crate::store::{Record, Revision};

/// The resource in whose version the objects of `resource` are stored.
pub(crate) fn stored_as<'a>(scheme: &'a Scheme, resource: &'a Resource) -> &'a Resource {
    let (group, version) = &resource.storage;
    if *group == resource.group && *version == resource.version {
        return resource;
    }
    scheme.resource(group, version, &resource.plural).map_or(resource, |stored| stored)
}

/// Shows objects of one resource in one form.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) scheme: &'a Scheme,
    pub(crate) resource: &'a Resource,
    pub(crate) accepted: Accepted,
    pub(crate) included: Included,
    pub(crate) now: Timestamp,
}

/// What a row of a table carries of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Included {
    Nothing,
    Metadata,
    Object,
}

impl Included {
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            "None" => Ok(Self::Nothing),
            other => Err(Failure::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        }
    }
}

impl View<'_> {
    /// The object in the version of the request.
    pub(crate) fn bytes(&self, record: &Record) -> Bytes {
        let stored = stored_as(self.scheme, self.resource);
        if std::ptr::eq(stored, self.resource) {
            return record.json().clone();
        }
        to_bytes(&self.value(record))
    }

    /// The object in the version of the request, parsed.
    pub(crate) fn value(&self, record: &Record) -> Arc<Value> {
        convert_from_stored(self.scheme, self.resource, record)
    }

    /// The object as metadata only. What clients that watch every kind ask for is cut out of what is stored.
    pub(crate) fn metadata(&self, record: &Record) -> Bytes {
        if !std::ptr::eq(stored_as(self.scheme, self.resource), self.resource) {
            return to_bytes(&metadata_of(&self.value(record)));
        }
        let head = &br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#[..];
        [head, record.metadata().as_bytes(), b"}"].concat().into()
    }

    /// An answer with one object.
    pub(crate) fn one(&self, record: &Record) -> Bytes {
        match self.accepted.form {
            Form::Whole => self.bytes(record),
            Form::Metadata => self.metadata(record),
            Form::Table => to_bytes(&self.table(&[self.value(record)], &record.revision().to_string(), true)),
        }
    }

    /// An answer with one object that is not stored.
    pub(crate) fn one_value(&self, object: &Value) -> Bytes {
        match self.accepted.form {
            Form::Whole => to_bytes(object),
            Form::Metadata => to_bytes(&metadata_of(object)),
            Form::Table => to_bytes(&self.table(&[Arc::new(object.clone())], "", true)),
        }
    }

    /// An answer with many: `next` is where the list goes on, with the number of objects that remain if it is known.
    pub(crate) fn many(
        &self,
        records: &[Arc<Record>],
        revision: Revision,
        next: Option<(&str, Option<usize>)>,
    ) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        // Kubernetes has no structure for such a list, and so nothing that leaves out what is empty.
        if self.resource.custom && matches!(self.accepted.form, Form::Whole) {
            metadata["continue"] = "".into();
        }
        if let Some((token, remaining)) = next {
            metadata["continue"] = token.into();
            if let Some(remaining) = remaining {
                metadata["remainingItemCount"] = remaining.into();
            }
        } else if self.resource.custom && matches!(self.accepted.form, Form::Whole) {
            // Kubernetes has no type for such a list that would leave it out.
            metadata["continue"] = "".into();
        }
        match self.accepted.form {
            Form::Whole => self.list(records, &metadata),
            Form::Metadata => {
                let items: Vec<Bytes> = records.iter().map(|record| self.metadata(record)).collect();
                let head = format!(
                    "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\
                     \"items\":["
                );
                [head.as_bytes(), &items.join(&b","[..]), b"]}"].concat().into()
            }
            Form::Table => {
                let values: Vec<_> = records.iter().map(|record| self.value(record)).collect();
                let mut table = self.table(&values, "", true);
                table["metadata"] = metadata;
                to_bytes(&table)
            }
        }
    }

    /// The items are the stored bytes; those of built-in kinds go without their kind, as Kubernetes writes them.
    fn list(&self, records: &[Arc<Record>], metadata: &Value) -> Bytes {
        let mut list =
            BytesMut::with_capacity(records.iter().map(|record| record.json().len() + 1).sum::<usize>() + 256);
        let head = format!(
            "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
            Value::from(self.resource.list_kind.as_str()),
            Value::from(self.resource.api_version()),
        );
        list.put(head.as_bytes());
        let prefix = type_prefix(self.resource);
        for (index, record) in records.iter().enumerate() {
            if index > 0 {
                list.put_u8(b',');
            }
            let bytes = self.bytes(record);
            match bytes.strip_prefix(prefix.as_bytes()) {
                Some(rest) if !self.resource.custom => {
                    list.put_u8(b'{');
                    list.put(rest);
                }
                _ => list.put(&bytes[..]),
            }
        }
        list.put(&b"]}"[..]);
        list.freeze()
    }

    /// A table of these objects; its columns are named when `columns`.
    pub(crate) fn table(&self, objects: &[Arc<Value>], revision: &str, columns: bool) -> Value {
        let rows: Vec<Value> = objects
            .iter()
            .map(|object| {
                let mut row = json!({"cells": table::cells(self.resource, object, self.now)});
                match self.included {
                    Included::Nothing => {}
                    Included::Metadata => row["object"] = metadata_of(object),
                    Included::Object => row["object"] = Value::clone(object),
                }
                row
            })
            .collect();
        let columns = if columns { table::columns(self.resource) } else { Value::Null };
        json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": revision},
            "columnDefinitions": columns, "rows": rows,
        })
    }
}

/// How the JSON of every stored object begins.
fn type_prefix(resource: &Resource) -> String {
    format!("{{\"apiVersion\":\"{}\",\"kind\":\"{}\",", resource.api_version(), resource.kind)
}

pub(crate) fn convert_from_stored(scheme: &Scheme, resource: &Resource, record: &Record) -> Arc<Value> {
    let stored = stored_as(scheme, resource);
    if std::ptr::eq(stored, resource) {
        return record.value();
    }
    let mut value = Value::clone(&record.value());
    scheme.convert(stored, resource, &mut value);
    Arc::new(value)
}

fn metadata_of(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn to_bytes(value: &Value) -> Bytes {
    serde_json::to_vec(value).expect("a JSON value has string keys only").into()
}

//! `get` and `list`.

use std::sync::Arc;

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Value, json};

use super::failure::{Failure, Subject};
use super::negotiate;
use super::request::Query;
use super::{Call, cause};
use crate::scheme::selector::{FieldSelector, LabelSelector, SelectorError};
use crate::store::{Key, Record, Revision};

pub(crate) fn get(call: &Call<'_>) -> Result<Response, Failure> {
    let wanted = call.query.text("resourceVersion");
    if !wanted.is_empty() && wanted != "0" {
        not_older_than(call, wanted)?;
    }
    let record = existing(call)?;
    negotiate::object(StatusCode::OK, call.accepted, call.view()?.one(&record))
}

/// The object that the request names.
pub(crate) fn existing(call: &Call<'_>) -> Result<Arc<Record>, Failure> {
    call.state.store.get(&call.key()).ok_or_else(|| missing(call, &call.target.name))
}

/// That there is no object of this name.
pub(crate) fn missing(call: &Call<'_>, name: &str) -> Failure {
    Failure::not_found(&Subject::resource(call.resource, name))
}

fn not_older_than(call: &Call<'_>, wanted: &str) -> Result<Revision, Failure> {
    let wanted: Revision = parse_revision(wanted)?;
    let current = call.state.store.revision();
    if wanted <= current {
        return Ok(wanted);
    }
    Err(Failure::timeout(format!("Timeout: Too large resource version: {wanted}, current: {current}"), 1).because(
        "ResourceVersionTooLarge",
        "Too large resource version",
        "",
    ))
}

/// Lists word it otherwise than everybody else.
fn malformed_version(failure: Failure) -> Failure {
    if !failure.reason.is_empty() {
        return failure;
    }
    Failure::bad_request(format!("invalid resource version: {}", failure.message))
}

pub(crate) fn parse_revision(text: &str) -> Result<Revision, Failure> {
    text.parse().map_err(|_| {
        let message =
            format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax");
        Failure::plain_internal(message)
    })
}

/// Which objects of a collection a request is about.
#[derive(Clone)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    pub(crate) fn parse(call: &Call<'_>) -> Result<Self, Failure> {
        let refuse = |error: SelectorError| Failure::bad_request(error.to_string());
        let labels = LabelSelector::parse(call.query.text("labelSelector")).map_err(refuse)?;
        let named = format!("metadata.name={}", call.target.name);
        // One object can be watched by its path.
        let fields = if call.target.name.is_empty() { call.query.text("fieldSelector") } else { &named };
        Ok(Self { labels, fields: FieldSelector::parse(call.resource, fields).map_err(refuse)? })
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn takes(&self, call: &Call<'_>, record: &Record) -> bool {
        self.is_everything() || self.takes_value(&super::view::convert_from_stored(call.scheme, call.resource, record))
    }

    pub(crate) fn takes_value(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }
}

/// Which state of the collection a list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    Now,
    At(Revision),
}

pub(crate) fn list(call: &Call<'_>) -> Result<Response, Failure> {
    let query = call.query;
    check_list_options(query, false)?;
    let selection = Selection::parse(call)?;
    let limit = query.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let version = query.text("resourceVersion");
    let token = query.text("continue");

    let (time, after) = if token.is_empty() {
        match query.text("resourceVersionMatch") {
            "Exact" => {
                not_older_than(call, version)?;
                (Time::At(parse_revision(version)?), None)
            }
            _ => {
                if !version.is_empty() && version != "0" {
                    not_older_than(call, version).map_err(malformed_version)?;
                }
                (Time::Now, None)
            }
        }
    } else {
        if !version.is_empty() && version != "0" {
            let message = "specifying resource version is not allowed when using continue";
            return Err(Failure::bad_request(message));
        }
        let place = Place::decode(token)?;
        let key = call.key_of(&place.namespace, &place.name);
        (place.revision.map_or(Time::Now, Time::At), Some(key))
    };

    let page = read_page(call, &selection, time, after, limit).map_err(|error| expired(call, error))?;
    let next = page.next.as_ref().map(Place::encode);
    let remaining = page.remaining.filter(|_| selection.is_everything());
    let body = call.view()?.many(&page.records, page.revision, next.as_deref().map(|token| (token, remaining)));
    negotiate::object(StatusCode::OK, call.accepted, body)
}

struct PageRead {
    records: Vec<Arc<Record>>,
    revision: Revision,
    next: Option<Place>,
    remaining: Option<usize>,
}

/// The page's objects could not be read as they were: where the list can go on with the present ones.
struct Outdated {
    after: Option<Key>,
}

fn read_page(
    call: &Call<'_>,
    selection: &Selection,
    time: Time,
    mut after: Option<Key>,
    limit: Option<usize>,
) -> Result<PageRead, Outdated> {
    let store = &call.state.store;
    let collection = call.collection();
    let namespace = Some(call.target.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    if time == Time::Now && after.is_none() && limit.is_none() {
        let listing = store.list(&collection, namespace);
        let records = listing.records.into_iter().filter(|record| selection.takes(call, record)).collect();
        return Ok(PageRead { records, revision: listing.revision, next: None, remaining: None });
    }
    let mut revision = match time {
        Time::Now => store.revision(),
        Time::At(revision) => revision,
    };
    let mut records = Vec::new();
    loop {
        let wanted = limit.map_or(usize::MAX, |limit| limit - records.len());
        let page = store
            .list_at(revision, &collection, namespace, after.as_ref(), wanted)
            .map_err(|_| Outdated { after: after.clone() })?;
        revision = page.revision;
        after = page.records.last().map(|record| record.key().clone()).or(after);
        records.extend(page.records.into_iter().filter(|record| selection.takes(call, record)));
        let full = limit.is_some_and(|limit| records.len() >= limit);
        if page.remaining == 0 || full {
            let next = (page.remaining > 0).then(|| after.as_ref().map(|key| Place::after(key, revision))).flatten();
            return Ok(PageRead { records, revision, next, remaining: Some(page.remaining) });
        }
    }
}

fn expired(call: &Call<'_>, outdated: Outdated) -> Failure {
    let Some(after) = outdated.after else {
        let message =
            format!("The resourceVersion for the provided list is too old: {}", call.query.text("resourceVersion"));
        return Failure::expired(message);
    };
    let mut failure = Failure::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let place = Place { revision: None, namespace: after.namespace.to_string(), name: after.name.to_string() };
    // Clients look for the way on in the metadata of the answer.
    failure.continue_token = Some(place.encode());
    failure
}

/// Where a list goes on.
struct Place {
    /// `None`: with the objects as they are then.
    revision: Option<Revision>,
    namespace: String,
    name: String,
}

impl Place {
    fn after(key: &Key, revision: Revision) -> Self {
        Self { revision: Some(revision), namespace: key.namespace.to_string(), name: key.name.to_string() }
    }

    fn encode(&self) -> String {
        let revision = self.revision.map_or_else(|| "-1".to_owned(), |revision| revision.to_string());
        let token =
            json!({"v": "meta.k8s.io/v1", "rv": revision, "start": format!("{}/{}", self.namespace, self.name)});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn decode(token: &str) -> Result<Self, Failure> {
        let refuse =
            |why: &str| Failure::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|error| refuse(&error.to_string()))?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| match bytes.first() {
            Some(first @ 0x80..) => {
                refuse(&format!("invalid character '\\u{first:04x}' looking for beginning of value"))
            }
            _ => refuse(&error.to_string()),
        })?;
        if value["v"] != "meta.k8s.io/v1" {
            return Err(refuse("server does not recognize this encoded version"));
        }
        let start = value["start"].as_str().unwrap_or_default();
        let (namespace, name) = start.split_once('/').ok_or_else(|| refuse("encoded start key is not set"))?;
        let revision = match value["rv"].as_str() {
            Some("-1") => None,
            Some(text) => Some(text.parse().map_err(|_| refuse("incorrect encoded start resourceVersion"))?),
            None => return Err(refuse("incorrect encoded start resourceVersion")),
        };
        Ok(Self { revision, namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// The rules between the options of a list (or a watch) about versions.
pub(crate) fn check_list_options(query: &Query, watch: bool) -> Result<(), Failure> {
    let mut causes = Vec::new();
    let version = query.text("resourceVersion");
    let matching = query.text("resourceVersionMatch");
    let initial = query.get("sendInitialEvents").is_some();
    let mut forbid = |field: &str, why: &str| causes.push(cause::forbidden(field, why));
    if watch {
        if initial && matching != "NotOlderThan" {
            forbid("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if !initial && !matching.is_empty() {
            forbid(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            );
        }
    } else {
        if initial {
            forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
        if !matching.is_empty() {
            if version.is_empty() {
                forbid("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if !query.text("continue").is_empty() {
                forbid("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided");
            }
            if !matches!(matching, "Exact" | "NotOlderThan") {
                causes.push(cause::not_supported("resourceVersionMatch", matching, &["Exact", "NotOlderThan"]));
            } else if matching == "Exact" && version == "0" {
                causes.push(cause::forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
    }
    if causes.is_empty() { Ok(()) } else { Err(Failure::invalid("meta.k8s.io", "ListOptions", "", &causes)) }
}

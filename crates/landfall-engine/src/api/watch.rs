//! `watch`: the changes of a collection as a stream of JSON lines.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{FutureExt as _, StreamExt as _, stream};
use http::{HeaderValue, StatusCode, header};
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::negotiate::{Accepted, Form};
use super::read::{Selection, check_list_options, parse_revision};
use super::view::{Included, View};
use super::{Call, State};
use crate::scheme::{Resource, Scheme};
use crate::store::{Event, EventKind, Expired, Record, Revision, Watch};

/// How often a quiet watch tells its version.
const BOOKMARKS: Duration = Duration::from_mins(1);

/// How long before its end a watch tells its version, whatever happens.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// A watch without a time of its own ends after this, and at most twice this.
const SHORTEST: Duration = Duration::from_mins(30);

/// Changes that are ready together go out in one piece of at most this size.
const PIECE: usize = 64 * 1024;

pub(crate) fn watch(call: &Call<'_>) -> Result<Response, Failure> {
    let query = call.query;
    check_list_options(query, true)?;
    let selection = Selection::parse(call)?;
    let version = query.text("resourceVersion");
    let initial = match query.get("sendInitialEvents") {
        Some(_) => query.flag("sendInitialEvents"),
        None => matches!(version, "" | "0"),
    };
    let store = &call.state.store;
    let collection = call.collection();
    let namespace = Some(call.target.namespace.clone()).filter(|namespace| !namespace.is_empty());

    let mut first = Vec::new();
    let mut marker = None;
    let after = if initial {
        let listing = store.list(&collection, namespace.as_deref());
        first = listing.records.into_iter().filter(|record| selection.takes(call, record)).collect();
        if query.flag("sendInitialEvents") && query.flag("allowWatchBookmarks") {
            marker = Some(listing.revision);
        }
        listing.revision
    } else if matches!(version, "" | "0") {
        store.revision()
    } else {
        let version = parse_revision(version)?;
        let current = store.revision();
        if version > current {
            let message = format!("Timeout: Too large resource version: {version}, current: {current}");
            return Err(Failure::timeout(message, 1).because(
                "ResourceVersionTooLarge",
                "Too large resource version",
                "",
            ));
        }
        version
    };
    let timeout = match query.number("timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok()) {
        None | Some(0) => SHORTEST.mul_f64(rand::rng().random_range(1.0..2.0)),
        Some(seconds) => Duration::from_secs(seconds),
    };
    // The last bookmark comes shortly before the end, so that the client goes on from there.
    let before_end = timeout.checked_sub(LAST_BOOKMARK).filter(|time| !time.is_zero());
    let first_bookmark = before_end.map_or(BOOKMARKS, |time| time.min(BOOKMARKS));
    let mut bookmarks = tokio::time::interval_at(Instant::now() + first_bookmark, BOOKMARKS);
    bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let lines = Lines {
        state: Arc::clone(call.state),
        scheme: call.scheme.clone(),
        resource: Arc::clone(call.resource),
        accepted: call.accepted,
        included: Included::parse(query.text("includeObject"))?,
        columns_named: false,
        selection,
        namespace,
    };
    // A version that is too old is told as an event: the answer has begun when the server learns it.
    let watch = store.watch(&collection, after).ok();
    let stream = Changes {
        lines,
        first: first.into_iter(),
        marker,
        watch,
        asked: version.to_owned(),
        bookmarks: query.flag("allowWatchBookmarks").then_some(bookmarks),
        timeout: Box::pin(tokio::time::sleep(timeout)),
        stop: call.state.stop.clone(),
        ended: false,
    };
    let body = Body::from_stream(stream::unfold(stream, |mut changes| async move {
        let piece = changes.next_piece().await?;
        Some((Ok::<_, Infallible>(piece), changes))
    }));
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// One watch of one client.
struct Changes {
    lines: Lines,
    first: std::vec::IntoIter<Arc<Record>>,
    /// The end of the initial events is still to be told, with this version.
    marker: Option<Revision>,
    /// `None`: the version asked for is too old, or has become so.
    watch: Option<Watch>,
    asked: String,
    bookmarks: Option<Interval>,
    timeout: Pin<Box<Sleep>>,
    stop: CancellationToken,
    ended: bool,
}

enum Next {
    Change(Option<Result<Arc<Event>, Expired>>),
    Bookmark,
    End,
}

impl Changes {
    /// The next lines to send; `None` ends the answer.
    async fn next_piece(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut piece = BytesMut::new();
        for record in self.first.by_ref() {
            self.lines.event(&mut piece, "ADDED", &record);
            if piece.len() >= PIECE {
                return Some(piece.freeze());
            }
        }
        if let Some(revision) = self.marker.take() {
            self.lines.bookmark(&mut piece, revision, true);
        }
        if !piece.is_empty() {
            return Some(piece.freeze());
        }
        while piece.is_empty() {
            let Some(watch) = &mut self.watch else {
                return Some(self.expire());
            };
            // Every arm may be dropped half-way: a stream, a timer and a token lose nothing.
            let next = tokio::select! {
                change = watch.next() => Next::Change(change),
                () = tick(&mut self.bookmarks) => Next::Bookmark,
                () = &mut self.timeout => Next::End,
                () = self.stop.cancelled() => Next::End,
            };
            match next {
                Next::End | Next::Change(None) => return None,
                Next::Bookmark => {
                    // A watch that is asked in vain has come as far as the store, whatever was written elsewhere.
                    let expired = self.lines.take_ready(&mut piece, watch).is_err();
                    self.lines.bookmark(&mut piece, watch.position(), false);
                    if expired {
                        self.watch = None;
                    }
                }
                Next::Change(Some(Err(_))) => return Some(self.expire()),
                Next::Change(Some(Ok(event))) => {
                    self.lines.change(&mut piece, &event);
                    let expired = self.lines.take_ready(&mut piece, watch).is_err();
                    if expired {
                        self.watch = None;
                    }
                }
            }
        }
        Some(piece.freeze())
    }

    fn expire(&mut self) -> Bytes {
        self.ended = true;
        let current = self.lines.state.store.revision();
        let failure = Failure::expired(format!("too old resource version: {} ({current})", self.asked));
        let mut line = json!({"type": "ERROR", "object": failure.status()}).to_string();
        line.push('\n');
        line.into()
    }
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// Writes events as lines, in the form that the client asked for.
struct Lines {
    state: Arc<State>,
    scheme: Scheme,
    resource: Arc<Resource>,
    accepted: Accepted,
    included: Included,
    /// Only the first table of a watch names its columns.
    columns_named: bool,
    selection: Selection,
    namespace: Option<String>,
}

impl Lines {
    fn view(&self) -> View<'_> {
        View {
            scheme: &self.scheme,
            resource: &self.resource,
            accepted: self.accepted,
            included: self.included,
            now: self.state.clock.now(),
        }
    }

    /// Writes the changes that are there already, up to the size of a piece.
    fn take_ready(&mut self, out: &mut BytesMut, watch: &mut Watch) -> Result<(), Expired> {
        while out.len() < PIECE
            && let Some(Some(event)) = watch.next().now_or_never()
        {
            let event = event?;
            self.change(out, &event);
        }
        Ok(())
    }

    /// An object that comes to match the selectors is added, one that ceases to match is deleted.
    fn change(&mut self, out: &mut BytesMut, event: &Event) {
        if self.namespace.as_deref().is_some_and(|namespace| namespace != &*event.record.key().namespace) {
            return;
        }
        if self.selection.is_everything() {
            let name = match event.kind {
                EventKind::Added => "ADDED",
                EventKind::Modified => "MODIFIED",
                EventKind::Deleted => "DELETED",
            };
            return self.event(out, name, &event.record);
        }
        let takes = |record: &Record| self.selection.takes_value(&self.view().value(record));
        let before = event.previous.as_deref().is_some_and(takes);
        let now = event.kind != EventKind::Deleted && takes(&event.record);
        match (before, now) {
            (false, false) => {}
            (false, true) => self.event(out, "ADDED", &event.record),
            (true, true) => self.event(out, "MODIFIED", &event.record),
            (true, false) if event.kind == EventKind::Deleted => self.event(out, "DELETED", &event.record),
            (true, false) => {
                // The client is shown the last state that it could see, with the version of the change.
                let previous = event.previous.as_ref().expect("it matched before, so it was there");
                let mut object = Value::clone(&self.view().value(previous));
                object["metadata"]["resourceVersion"] = event.record.revision().to_string().into();
                self.object(out, "DELETED", Arc::new(object));
            }
        }
    }

    fn event(&mut self, out: &mut BytesMut, name: &str, record: &Record) {
        match self.accepted.form {
            Form::Whole => put_line(out, name, &self.view().bytes(record)),
            Form::Metadata => put_line(out, name, &self.view().metadata(record)),
            Form::Table => {
                let object = self.view().value(record);
                self.object(out, name, object);
            }
        }
    }

    fn object(&mut self, out: &mut BytesMut, name: &str, object: Arc<Value>) {
        if self.accepted.form != Form::Table {
            return put_line(out, name, &self.view().one_value(&object));
        }
        let revision = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let table = self.view().table(&[object], &revision, !self.columns_named);
        self.columns_named = true;
        put_line(out, name, table.to_string().as_bytes());
    }

    fn bookmark(&mut self, out: &mut BytesMut, revision: Revision, end_of_initial: bool) {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if end_of_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let resource = &self.resource;
        let object = match self.accepted.form {
            Form::Whole => json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata}),
            Form::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Form::Table => {
                let mut row = json!({"cells": []});
                row["object"] =
                    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
                json!({
                    "kind": "Table", "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"resourceVersion": revision.to_string()}, "columnDefinitions": null, "rows": [row],
                })
            }
        };
        put_line(out, "BOOKMARK", object.to_string().as_bytes());
    }
}

fn put_line(out: &mut BytesMut, name: &str, object: &[u8]) {
    out.reserve(object.len() + 40);
    out.put(&b"{\"type\":\""[..]);
    out.put(name.as_bytes());
    out.put(&b"\",\"object\":"[..]);
    out.put(object);
    out.put(&b"}\n"[..]);
}

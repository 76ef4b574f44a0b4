//! The calls of Elasticsearch that shippers make, and a search.
//!
//! Index templates and lifecycle policies are kept and given back. A data stream is what a template says it is: it takes new
//! documents with a time and no others, as the real one does. Not handled: that a policy deletes what is too old.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query as Parameters, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::documents::{Query, fits};
use super::{Sink, unpacked};

/// Clients look for it, and for the version.
const PRODUCT: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-elastic-product"), HeaderValue::from_static("Elasticsearch"));
const VERSION: &str = "8.19.0";

/// How many hits a search gives unless it asks for more.
const HITS: usize = 10;

/// What was put beside the documents, by name.
#[derive(Default)]
pub(super) struct Templates {
    index_templates: BTreeMap<String, Value>,
    policies: BTreeMap<String, Value>,
}

impl Templates {
    /// Whether a name is that of a data stream.
    fn is_data_stream(&self, name: &str) -> bool {
        let names = |template: &Value| {
            let patterns = template["index_patterns"].as_array().into_iter().flatten();
            template["data_stream"].is_object() && patterns.filter_map(Value::as_str).any(|pattern| fits(pattern, name))
        };
        self.index_templates.values().any(names)
    }
}

type Shared = State<Arc<Sink>>;

pub(super) fn router(sink: Arc<Sink>) -> Router {
    Router::new()
        .route("/", get(about))
        .route("/_cluster/health", get(health))
        .route("/_bulk", post(bulk_anywhere).put(bulk_anywhere))
        .route("/_search", get(search_all).post(search_all))
        .route("/_ilm/policy/{name}", put(put_policy).get(get_policy))
        .route("/_index_template/{name}", put(put_template).get(get_template))
        .route("/{index}/_bulk", post(bulk).put(bulk))
        .route("/{index}/_doc", post(one))
        .route("/{index}/_create/{id}", post(one_named).put(one_named))
        .route("/{index}/_search", get(search).post(search))
        .route("/{index}/_count", get(count).post(count))
        .fallback(unknown)
        .layer(axum::middleware::map_response(mark))
        .with_state(sink)
}

async fn mark(mut response: Response) -> Response {
    response.headers_mut().insert(PRODUCT.0, PRODUCT.1);
    response
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn refused(status: StatusCode, kind: &str, reason: &str) -> Response {
    answer(status, &json!({ "error": { "type": kind, "reason": reason }, "status": status.as_u16() }))
}

async fn about() -> Response {
    let version =
        json!({ "number": VERSION, "build_flavor": "default", "minimum_wire_compatibility_version": "7.17.0" });
    let about = json!({
        "name": "landfall", "cluster_name": "stand-in", "version": version, "tagline": "You Know, for Search",
    });
    answer(StatusCode::OK, &about)
}

async fn health() -> Response {
    answer(
        StatusCode::OK,
        &json!({ "cluster_name": "stand-in", "status": "green", "timed_out": false, "number_of_nodes": 1 }),
    )
}

async fn unknown(request: axum::extract::Request) -> Response {
    let reason = format!("the stand-in knows no {} {}", request.method(), request.uri().path());
    refused(StatusCode::BAD_REQUEST, "illegal_argument_exception", &reason)
}

/// Keeps a template or policy.
fn keep(place: &mut BTreeMap<String, Value>, name: String, body: &Bytes) -> Response {
    match serde_json::from_slice::<Value>(body) {
        Ok(value) if value.is_object() => {
            place.insert(name, value);
            answer(StatusCode::OK, &json!({ "acknowledged": true }))
        }
        Ok(_) => refused(StatusCode::BAD_REQUEST, "parse_exception", "the body is no object"),
        Err(error) => refused(StatusCode::BAD_REQUEST, "parse_exception", &error.to_string()),
    }
}

async fn put_policy(State(sink): Shared, Path(name): Path<String>, body: Bytes) -> Response {
    keep(&mut sink.templates.lock().expect("nothing panics with templates").policies, name, &body)
}

async fn get_policy(State(sink): Shared, Path(name): Path<String>) -> Response {
    let templates = sink.templates.lock().expect("nothing panics with templates");
    match templates.policies.get(&name) {
        Some(policy) => answer(StatusCode::OK, &json!({ name: { "version": 1, "policy": policy["policy"] } })),
        None => refused(StatusCode::NOT_FOUND, "resource_not_found_exception", "there is no such policy"),
    }
}

async fn put_template(State(sink): Shared, Path(name): Path<String>, body: Bytes) -> Response {
    keep(&mut sink.templates.lock().expect("nothing panics with templates").index_templates, name, &body)
}

async fn get_template(State(sink): Shared, Path(name): Path<String>) -> Response {
    let templates = sink.templates.lock().expect("nothing panics with templates");
    match templates.index_templates.get(&name) {
        Some(template) => {
            let one = json!({ "name": name, "index_template": template });
            answer(StatusCode::OK, &json!({ "index_templates": [one] }))
        }
        None => refused(StatusCode::NOT_FOUND, "resource_not_found_exception", "there is no such index template"),
    }
}

impl Sink {
    /// Takes a document; the status and, if it was not taken, the kind and the reason. A document with an id is the same
    /// one when it comes again only if it is told to be new, which nothing here looks up.
    fn take(&self, index: &str, action: &str, document: Value) -> Result<u64, (StatusCode, &'static str, String)> {
        let is_stream = self.templates.lock().expect("nothing panics with templates").is_data_stream(index);
        if !matches!(action, "create" | "index") {
            let why = format!("the stand-in takes new documents only, and knows no `{action}`");
            return Err((StatusCode::BAD_REQUEST, "illegal_argument_exception", why));
        }
        if is_stream && action != "create" {
            let why = "only write ops with an op_type of create are allowed in data streams".to_owned();
            return Err((StatusCode::BAD_REQUEST, "illegal_argument_exception", why));
        }
        if is_stream && document["@timestamp"].is_null() {
            let why = "data stream timestamp field [@timestamp] is missing".to_owned();
            return Err((StatusCode::BAD_REQUEST, "document_parsing_exception", why));
        }
        Ok(self.documents().add(index, document))
    }
}

async fn bulk_anywhere(State(sink): Shared, headers: HeaderMap, body: Bytes) -> Response {
    take_all(&sink, None, &headers, body)
}

async fn bulk(State(sink): Shared, Path(index): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    take_all(&sink, Some(&index), &headers, body)
}

/// Lines by twos: what to do, and the document.
fn take_all(sink: &Sink, index: Option<&str>, headers: &HeaderMap, body: Bytes) -> Response {
    let body = match unpacked(headers, body) {
        Ok(body) => body,
        Err(why) => return refused(StatusCode::BAD_REQUEST, "parse_exception", &why),
    };
    let text = String::from_utf8_lossy(&body);
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let (mut items, mut errors) = (Vec::new(), false);
    while let Some(line) = lines.next() {
        let bad = |why: &str| refused(StatusCode::BAD_REQUEST, "illegal_argument_exception", why);
        let Ok(Value::Object(command)) = serde_json::from_str(line) else {
            return bad("Malformed action/metadata line: it is no object");
        };
        let Some((action, about)) = command.iter().next() else { return bad("an action is missing") };
        let Some(index) = about["_index"].as_str().or(index) else { return bad("an index is missing") };
        let document = if action == "delete" {
            Value::Null
        } else {
            match lines.next().map(serde_json::from_str) {
                Some(Ok(document)) => document,
                Some(Err(error)) => return bad(&format!("a document is no JSON: {error}")),
                None => return bad("The bulk request must be terminated by a newline: a document is missing"),
            }
        };
        let item = match sink.take(index, action, document) {
            Ok(number) => {
                json!({ "_index": index, "_id": number.to_string(), "status": 201, "result": "created" })
            }
            Err((status, kind, reason)) => {
                errors = true;
                json!({ "_index": index, "status": status.as_u16(), "error": { "type": kind, "reason": reason } })
            }
        };
        items.push(json!({ action.as_str(): item }));
    }
    answer(StatusCode::OK, &json!({ "took": 0, "errors": errors, "items": items }))
}

async fn one(State(sink): Shared, Path(index): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    take_one(&sink, &index, &headers, body)
}

async fn one_named(
    State(sink): Shared,
    Path((index, _)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    take_one(&sink, &index, &headers, body)
}

fn take_one(sink: &Sink, index: &str, headers: &HeaderMap, body: Bytes) -> Response {
    let document =
        unpacked(headers, body).and_then(|body| serde_json::from_slice(&body).map_err(|error| error.to_string()));
    let taken = document
        .map_err(|why| (StatusCode::BAD_REQUEST, "document_parsing_exception", why))
        .and_then(|document| sink.take(index, "create", document));
    match taken {
        Ok(number) => {
            let created = json!({ "_index": index, "_id": number.to_string(), "result": "created" });
            answer(StatusCode::CREATED, &created)
        }
        Err((status, kind, why)) => refused(status, kind, &why),
    }
}

type Asked = Parameters<BTreeMap<String, String>>;

async fn search_all(State(sink): Shared, asked: Asked, headers: HeaderMap, body: Bytes) -> Response {
    find(&sink, "", &asked, &headers, body, Given::Hits)
}

async fn search(
    State(sink): Shared,
    Path(index): Path<String>,
    asked: Asked,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    find(&sink, &index, &asked, &headers, body, Given::Hits)
}

async fn count(
    State(sink): Shared,
    Path(index): Path<String>,
    asked: Asked,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    find(&sink, &index, &asked, &headers, body, Given::Count)
}

/// What a search is answered with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Given {
    Hits,
    Count,
}

fn find(sink: &Sink, index: &str, asked: &Asked, headers: &HeaderMap, body: Bytes, given: Given) -> Response {
    let bad = |why: &str| refused(StatusCode::BAD_REQUEST, "parsing_exception", why);
    let body = match unpacked(headers, body) {
        Ok(body) if body.iter().all(u8::is_ascii_whitespace) => Value::Null,
        Ok(body) => match serde_json::from_slice(&body) {
            Ok(body) => body,
            Err(error) => return bad(&error.to_string()),
        },
        Err(why) => return bad(&why),
    };
    for unknown in ["aggs", "aggregations", "knn", "collapse", "search_after"] {
        if !body[unknown].is_null() {
            return bad(&format!("the stand-in knows no `{unknown}`"));
        }
    }
    let mut queries = Vec::new();
    if let Some(typed) = asked.get("q") {
        queries.push(Query::typed(typed));
    }
    if !body["query"].is_null() {
        match Query::read(&body["query"]) {
            Ok(query) => queries.push(query),
            Err(why) => return bad(&why),
        }
    }
    let query = Query::All(queries);
    let number = |name: &str, otherwise: usize| {
        let asked = asked.get(name).and_then(|text| text.parse().ok());
        asked.or_else(|| body[name].as_u64().and_then(|number| usize::try_from(number).ok())).unwrap_or(otherwise)
    };
    let documents = sink.documents();
    let total = documents.search(index, &query).count();
    if given == Given::Count {
        return answer(StatusCode::OK, &json!({ "count": total }));
    }
    let hits: Vec<Value> = documents
        .search(index, &query)
        .skip(number("from", 0))
        .take(number("size", HITS))
        .map(|document| {
            json!({
                "_index": document.stream, "_id": document.number.to_string(), "_score": 1.0,
                "_source": document.source,
            })
        })
        .collect();
    let hits = json!({ "total": { "value": total, "relation": "eq" }, "max_score": 1.0, "hits": hits });
    let shards = json!({ "total": 1, "successful": 1, "skipped": 0, "failed": 0 });
    answer(StatusCode::OK, &json!({ "took": 0, "timed_out": false, "_shards": shards, "hits": hits }))
}

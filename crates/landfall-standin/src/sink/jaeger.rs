//! What Jaeger answers to those who look at traces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query as Parameters, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::Sink;
use super::spans::Span;

/// How many traces a search gives unless it asks for more.
const TRACES: usize = 20;

type Shared = State<Arc<Sink>>;

pub(super) fn router(sink: Arc<Sink>) -> Router {
    Router::new()
        .route("/api/services", get(services))
        .route("/api/traces", get(search))
        .route("/api/traces/{trace}", get(one))
        .route("/api/dependencies", get(dependencies))
        .with_state(sink)
}

fn answer(data: Vec<Value>) -> Response {
    let total = data.len();
    axum::Json(json!({ "data": data, "total": total, "limit": 0, "offset": 0, "errors": null })).into_response()
}

async fn services(State(sink): Shared) -> Response {
    let spans = sink.spans();
    let services: BTreeSet<&str> = spans.iter().map(|span| span.service.as_str()).collect();
    answer(services.into_iter().map(Value::from).collect())
}

async fn dependencies(State(sink): Shared) -> Response {
    let calls = sink.spans().calls();
    let call = |call: &super::CallSeen| json!({ "parent": call.parent, "child": call.child, "callCount": call.count });
    answer(calls.iter().map(call).collect())
}

async fn one(State(sink): Shared, Path(trace): Path<String>) -> Response {
    let spans = sink.spans();
    let own: Vec<&Span> = spans.iter().filter(|span| span.trace == trace).collect();
    if own.is_empty() {
        let error = json!({ "code": 404, "msg": "trace not found" });
        return (StatusCode::NOT_FOUND, axum::Json(json!({ "data": null, "errors": [error] }))).into_response();
    }
    answer(vec![written(&own)])
}

/// The newest traces that a service took part in, and an operation if one is named.
async fn search(State(sink): Shared, asked: Parameters<BTreeMap<String, String>>) -> Response {
    let Some(service) = asked.get("service") else {
        return (StatusCode::BAD_REQUEST, "parameter 'service' is required\n").into_response();
    };
    let operation = asked.get("operation").filter(|operation| !operation.is_empty());
    let limit = asked.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(TRACES);
    let spans = sink.spans();
    let is_wanted = |span: &&Span| span.service == *service && operation.is_none_or(|name| span.name == *name);
    let mut found: Vec<&str> = Vec::new();
    for span in spans.iter().rev().filter(is_wanted) {
        if !found.contains(&span.trace.as_str()) {
            found.push(&span.trace);
            if found.len() == limit {
                break;
            }
        }
    }
    let mut traces: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in spans.iter().filter(|span| found.contains(&span.trace.as_str())) {
        traces.entry(&span.trace).or_default().push(span);
    }
    answer(found.iter().map(|trace| written(&traces[trace])).collect())
}

/// A trace with its spans.
fn written(spans: &[&Span]) -> Value {
    let services: BTreeSet<&str> = spans.iter().map(|span| span.service.as_str()).collect();
    let names: BTreeMap<&str, String> =
        services.iter().enumerate().map(|(place, service)| (*service, format!("p{}", place + 1))).collect();
    let processes: serde_json::Map<String, Value> =
        names.iter().map(|(service, name)| (name.clone(), json!({ "serviceName": service, "tags": [] }))).collect();
    let of_span = |span: &&Span| {
        let parent = (!span.parent.is_empty())
            .then(|| json!({ "refType": "CHILD_OF", "traceID": span.trace, "spanID": span.parent }));
        let kinds = ["unspecified", "internal", "server", "client", "producer", "consumer"];
        let kind = usize::try_from(span.kind).ok().and_then(|kind| kinds.get(kind)).unwrap_or(&kinds[0]);
        let tag = |key: &str, value: &Value| json!({ "key": key, "type": kind_of(value), "value": value });
        let mut tags: Vec<Value> = span.attributes.iter().map(|(key, value)| tag(key, value)).collect();
        tags.push(tag("span.kind", &Value::from(*kind)));
        if span.failed {
            tags.push(tag("error", &Value::Bool(true)));
        }
        json!({
            "traceID": span.trace, "spanID": span.id, "operationName": span.name,
            "references": parent.into_iter().collect::<Vec<_>>(),
            "startTime": span.start / 1000, "duration": span.end.saturating_sub(span.start) / 1000,
            "tags": tags, "logs": [], "processID": names[span.service.as_str()],
        })
    };
    let spans_written: Vec<Value> = spans.iter().map(of_span).collect();
    json!({ "traceID": spans[0].trace, "spans": spans_written, "processes": processes })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        _ => "string",
    }
}

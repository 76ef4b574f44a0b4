//! The calls of Loki that shippers make, and a query with labels and filters of lines.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query as Parameters, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::documents::Query;
use super::{Sink, unpacked, written};

/// Among the documents, what came here.
const STREAM: &str = "loki";

/// How many lines a query gives unless it asks for more.
const LINES: usize = 100;

type Shared = State<Arc<Sink>>;

pub(super) fn router(sink: Arc<Sink>) -> Router {
    Router::new()
        .route("/ready", get(|| async { "ready\n" }))
        .route("/loki/api/v1/push", post(push))
        .route("/loki/api/v1/query_range", get(query))
        .with_state(sink)
}

async fn push(State(sink): Shared, headers: HeaderMap, body: Bytes) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/json") {
        let why = "the stand-in takes `application/json` only\n";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, why).into_response();
    }
    let body = unpacked(&headers, body)
        .and_then(|body| serde_json::from_slice::<Value>(&body).map_err(|error| error.to_string()));
    let lines = body.and_then(|body| read(&body));
    match lines {
        Ok(lines) => {
            let mut documents = sink.documents();
            for line in lines {
                documents.add(STREAM, line);
            }
            StatusCode::NO_CONTENT.into_response()
        }
        Err(why) => (StatusCode::BAD_REQUEST, why + "\n").into_response(),
    }
}

/// The lines of a push, each with its labels.
fn read(body: &Value) -> Result<Vec<Value>, String> {
    let mut lines = Vec::new();
    for stream in body["streams"].as_array().ok_or("`streams` is missing")? {
        if stream["stream"].as_object().is_none_or(serde_json::Map::is_empty) {
            return Err("error at least one label pair is required per stream".to_owned());
        }
        for value in stream["values"].as_array().ok_or("`values` is missing")? {
            let (Some(time), Some(line)) = (value[0].as_str().and_then(|time| time.parse().ok()), value[1].as_str())
            else {
                return Err("a value is a time in nanoseconds and a line, both of them texts".to_owned());
            };
            let time: u64 = time;
            lines.push(json!({
                "@timestamp": written(time), "time": time.to_string(), "labels": stream["stream"], "line": line,
            }));
        }
    }
    Ok(lines)
}

async fn query(State(sink): Shared, asked: Parameters<BTreeMap<String, String>>) -> Response {
    let text = asked.get("query").map(String::as_str).unwrap_or_default();
    let query = match selected(text) {
        Ok(query) => query,
        Err(why) => return (StatusCode::BAD_REQUEST, why + "\n").into_response(),
    };
    let limit = asked.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(LINES);
    let mut streams: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    for document in sink.documents().search(STREAM, &query).take(limit) {
        let source = &document.source;
        let stream = streams.entry(source["labels"].to_string());
        let (_, values) = stream.or_insert_with(|| (source["labels"].clone(), Vec::new()));
        values.push(json!([source["time"], source["line"]]));
    }
    let result: Vec<Value> =
        streams.into_values().map(|(stream, values)| json!({ "stream": stream, "values": values })).collect();
    let data = json!({ "resultType": "streams", "result": result });
    axum::Json(json!({ "status": "success", "data": data })).into_response()
}

/// `{label="value", …} |= "text" …`.
fn selected(text: &str) -> Result<Query, String> {
    let unknown = || format!("the stand-in knows `{{label=\"value\"}} |= \"text\"`, and not `{text}`");
    let (labels, mut rest) = text
        .trim()
        .strip_prefix('{')
        .and_then(|inner| inner.split_once('}'))
        .map(|(labels, rest)| (labels, rest.trim()))
        .ok_or_else(unknown)?;
    let mut all = Vec::new();
    for label in labels.split(',').map(str::trim).filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once('=').ok_or_else(unknown)?;
        let value = value.trim().strip_prefix('"').and_then(|value| value.strip_suffix('"')).ok_or_else(unknown)?;
        all.push(Query::Exactly(format!("labels.{}", name.trim()), Value::from(value)));
    }
    while !rest.is_empty() {
        let quoted = rest.strip_prefix("|=").map(str::trim_start).and_then(|rest| rest.strip_prefix('"'));
        let (phrase, after) = quoted.and_then(|rest| rest.split_once('"')).ok_or_else(unknown)?;
        all.push(Query::Phrase("line".to_owned(), phrase.to_lowercase()));
        rest = after.trim_start();
    }
    Ok(Query::All(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_labels_and_filters_of_lines() {
        let labels = Query::Exactly("labels.pod".to_owned(), json!("web-1"));
        let line = Query::Phrase("line".to_owned(), "paid".to_owned());
        assert_eq!(selected("{pod=\"web-1\"} |= \"Paid\""), Ok(Query::All(vec![labels, line])));
        assert!(selected("rate({pod=\"web-1\"}[5m])").is_err());
        assert!(selected("{pod=~\"web.*\"}").is_err());
    }

    #[test]
    fn lines_of_a_push_keep_their_labels() {
        let lines =
            read(&json!({ "streams": [{ "stream": { "pod": "web-1" }, "values": [["1000000000", "a line"]] }] }));
        let expected = json!({
            "@timestamp": "1970-01-01T00:00:01.000000000Z", "time": "1000000000", "labels": { "pod": "web-1" },
            "line": "a line",
        });
        assert_eq!(lines, Ok(vec![expected]));
        assert!(read(&json!({ "streams": [{ "stream": {}, "values": [] }] })).is_err());
    }
}

//! OTLP: traces and logs, over HTTP as JSON and as protocol buffers, and over gRPC.
//!
//! Field numbers are those of `opentelemetry-proto` 1; what nothing here reads is left out of the messages, and skipped.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use prost::Message as _;
use serde_json::{Map, Value, json};

use super::spans::Span;
use super::{LARGEST, Sink, gunzip, unpacked, written};

/// Among the documents, what came here.
const STREAM: &str = "otlp";

const PROTOBUF: &str = "application/x-protobuf";

/// What gRPC calls a method that is not there.
const UNIMPLEMENTED: &str = "12";
/// And an argument that is not understood.
const INVALID: &str = "3";

#[derive(Clone, PartialEq, prost::Message)]
struct Traces {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<WireSpan>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireSpan {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    List(Values),
    #[prost(message, tag = "6")]
    Map(KeyValues),
    #[prost(bytes = "vec", tag = "7")]
    Bytes(Vec<u8>),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Values {
    #[prost(message, repeated, tag = "1")]
    values: Vec<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValues {
    #[prost(message, repeated, tag = "1")]
    values: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Logs {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeLogs {
    #[prost(message, repeated, tag = "2")]
    records: Vec<Record>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(fixed64, tag = "1")]
    time: u64,
    #[prost(string, tag = "3")]
    severity: String,
    #[prost(message, optional, tag = "5")]
    body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<KeyValue>,
    #[prost(bytes = "vec", tag = "9")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    span_id: Vec<u8>,
    #[prost(fixed64, tag = "11")]
    observed: u64,
}

type Shared = State<Arc<Sink>>;

pub(super) fn router(sink: Arc<Sink>) -> Router {
    const GRPC: &str = "/opentelemetry.proto.collector";
    Router::new()
        .route("/v1/traces", post(traces))
        .route("/v1/logs", post(logs))
        .route("/v1/metrics", post(metrics))
        .route(&format!("{GRPC}.trace.v1.TraceService/Export"), post(grpc_traces))
        .route(&format!("{GRPC}.logs.v1.LogsService/Export"), post(grpc_logs))
        .route(&format!("{GRPC}.metrics.v1.MetricsService/Export"), post(grpc_metrics))
        .fallback(unknown)
        .with_state(sink)
}

async fn unknown(headers: HeaderMap) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if kind.starts_with(b"application/grpc") {
        grpc(Some(UNIMPLEMENTED))
    } else {
        StatusCode::NOT_FOUND.into_response()
    }
}

async fn traces(State(sink): Shared, headers: HeaderMap, body: Bytes) -> Response {
    over_http(&headers, body, traces_of_json, |bytes| Traces::decode(bytes).ok(), |traces| sink.take_traces(traces))
}

async fn logs(State(sink): Shared, headers: HeaderMap, body: Bytes) -> Response {
    over_http(&headers, body, logs_of_json, |bytes| Logs::decode(bytes).ok(), |logs| sink.take_logs(logs))
}

/// Taken and thrown away, so that no exporter waits with them.
async fn metrics(headers: HeaderMap, body: Bytes) -> Response {
    over_http(&headers, body, |_| Some(()), |_| Some(()), |()| ())
}

fn over_http<T>(
    headers: &HeaderMap,
    body: Bytes,
    of_json: impl FnOnce(&Value) -> Option<T>,
    of_protobuf: impl FnOnce(Bytes) -> Option<T>,
    take: impl FnOnce(T),
) -> Response {
    let body = match unpacked(headers, body) {
        Ok(body) => body,
        Err(why) => return (StatusCode::BAD_REQUEST, why + "\n").into_response(),
    };
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let (read, kind, answer) = if kind.starts_with("application/json") {
        let body = serde_json::from_slice(&body).ok();
        (body.and_then(|body| of_json(&body)), "application/json", "{}")
    } else if kind.starts_with(PROTOBUF) {
        (of_protobuf(body), PROTOBUF, "")
    } else {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    };
    match read {
        Some(read) => {
            take(read);
            ([(header::CONTENT_TYPE, kind)], answer).into_response()
        }
        None => (StatusCode::BAD_REQUEST, "the body is not understood\n").into_response(),
    }
}

async fn grpc_traces(State(sink): Shared, body: Bytes) -> Response {
    over_grpc(&body, |bytes| Traces::decode(bytes).ok(), |traces| sink.take_traces(traces))
}

async fn grpc_logs(State(sink): Shared, body: Bytes) -> Response {
    over_grpc(&body, |bytes| Logs::decode(bytes).ok(), |logs| sink.take_logs(logs))
}

async fn grpc_metrics(body: Bytes) -> Response {
    over_grpc(&body, |_| Some(()), |()| ())
}

/// One message, as every call here has: whether it is packed, its length in four bytes, itself.
fn over_grpc<T>(body: &[u8], read: impl FnOnce(Bytes) -> Option<T>, take: impl FnOnce(T)) -> Response {
    let message = body.split_first_chunk::<5>().and_then(|([packed, length @ ..], message)| {
        let is_whole = usize::try_from(u32::from_be_bytes(*length)).is_ok_and(|length| length == message.len());
        match packed {
            _ if !is_whole || message.len() > LARGEST => None,
            0 => Some(Bytes::copy_from_slice(message)),
            _ => gunzip(message).ok().map(Bytes::from),
        }
    });
    match message.and_then(read) {
        Some(read) => {
            take(read);
            grpc(None)
        }
        None => grpc(Some(INVALID)),
    }
}

/// An answer of gRPC: an empty message, or the code of an error.
fn grpc(error: Option<&'static str>) -> Response {
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let status = HeaderValue::from_static(error.unwrap_or("0"));
    if error.is_some() {
        return ([kind, (header::HeaderName::from_static("grpc-status"), status)], ()).into_response();
    }
    let trailers = HeaderMap::from_iter([(header::HeaderName::from_static("grpc-status"), status)]);
    let frames = [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(trailers)];
    let body = StreamBody::new(futures::stream::iter(frames.map(Ok::<_, std::convert::Infallible>)));
    ([kind], Body::new(body)).into_response()
}

impl Sink {
    fn take_traces(&self, traces: Traces) {
        let mut spans = self.spans();
        for resource in traces.resources {
            let service = service(resource.resource.as_ref());
            for span in resource.scopes.into_iter().flat_map(|scope| scope.spans) {
                spans.add(Span {
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    service: service.clone(),
                    name: span.name,
                    kind: span.kind,
                    start: span.start,
                    end: span.end,
                    failed: span.status.is_some_and(|status| status.code == 2),
                    attributes: map(&span.attributes),
                });
            }
        }
    }

    fn take_logs(&self, logs: Logs) {
        let mut documents = self.documents();
        for resource in logs.resources {
            let attributes = resource.resource.as_ref().map(|resource| map(&resource.attributes)).unwrap_or_default();
            for record in resource.scopes.into_iter().flat_map(|scope| scope.records) {
                let time = if record.time == 0 { record.observed } else { record.time };
                documents.add(
                    STREAM,
                    json!({
                        "@timestamp": written(time), "level": record.severity,
                        "body": record.body.as_ref().map(plain), "attributes": map(&record.attributes),
                        "trace_id": hex(&record.trace_id), "span_id": hex(&record.span_id),
                        "resource": attributes,
                    }),
                );
            }
        }
    }
}

fn service(resource: Option<&Resource>) -> String {
    let attributes = resource.map(|resource| resource.attributes.as_slice()).unwrap_or_default();
    let named = attributes.iter().find(|attribute| attribute.key == "service.name");
    let name = named.and_then(|named| named.value.as_ref()).map(plain);
    name.as_ref().and_then(Value::as_str).unwrap_or("unknown_service").to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn map(attributes: &[KeyValue]) -> Map<String, Value> {
    let pair = |one: &KeyValue| (one.key.clone(), one.value.as_ref().map_or(Value::Null, plain));
    attributes.iter().map(pair).collect()
}

fn plain(value: &AnyValue) -> Value {
    match &value.kind {
        None => Value::Null,
        Some(Kind::Text(text)) => Value::from(text.as_str()),
        Some(Kind::Bool(value)) => Value::from(*value),
        Some(Kind::Int(value)) => Value::from(*value),
        Some(Kind::Double(value)) => Value::from(*value),
        Some(Kind::List(list)) => list.values.iter().map(plain).collect(),
        Some(Kind::Map(fields)) => Value::Object(map(&fields.values)),
        Some(Kind::Bytes(bytes)) => Value::from(hex(bytes)),
    }
}

/// Ids are hexadecimal digits in OTLP's JSON, and not base64 as in that of other protocol buffers.
fn bytes_of_hex(value: &Value) -> Option<Vec<u8>> {
    let text = value.as_str().unwrap_or_default();
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|place| u8::from_str_radix(&text[place..place + 2], 16).ok()).collect()
}

/// A number of 64 bits is a text, or a number.
fn number_of(value: &Value) -> Option<u64> {
    match value {
        Value::Null => Some(0),
        value => value.as_u64().or_else(|| value.as_str()?.parse().ok()),
    }
}

fn list<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(items) => items.iter().map(read).collect(),
        _ => None,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn attributes_of(value: &Value) -> Option<Vec<KeyValue>> {
    list(value, |one| Some(KeyValue { key: one["key"].as_str()?.to_owned(), value: Some(any_of(&one["value"])?) }))
}

fn any_of(value: &Value) -> Option<AnyValue> {
    let Some((kind, value)) = value.as_object().and_then(|fields| fields.iter().next()) else {
        return Some(AnyValue { kind: None });
    };
    let kind = match kind.as_str() {
        "stringValue" => Kind::Text(value.as_str()?.to_owned()),
        "boolValue" => Kind::Bool(value.as_bool()?),
        "intValue" => Kind::Int(value.as_i64().or_else(|| value.as_str()?.parse().ok())?),
        "doubleValue" => Kind::Double(value.as_f64()?),
        "arrayValue" => Kind::List(Values { values: list(&value["values"], any_of)? }),
        "kvlistValue" => Kind::Map(KeyValues { values: attributes_of(&value["values"])? }),
        "bytesValue" => Kind::Text(value.as_str()?.to_owned()),
        _ => return None,
    };
    Some(AnyValue { kind: Some(kind) })
}

fn resource_of(value: &Value) -> Option<Resource> {
    Some(Resource { attributes: attributes_of(&value["attributes"])? })
}

fn traces_of_json(body: &Value) -> Option<Traces> {
    let span = |span: &Value| {
        Some(WireSpan {
            trace_id: bytes_of_hex(&span["traceId"])?,
            span_id: bytes_of_hex(&span["spanId"])?,
            parent_span_id: bytes_of_hex(&span["parentSpanId"])?,
            name: text(&span["name"]),
            kind: span["kind"].as_i64().and_then(|kind| i32::try_from(kind).ok()).unwrap_or_default(),
            start: number_of(&span["startTimeUnixNano"])?,
            end: number_of(&span["endTimeUnixNano"])?,
            attributes: attributes_of(&span["attributes"])?,
            status: span["status"]["code"]
                .as_i64()
                .map(|code| Status { code: i32::try_from(code).unwrap_or_default() }),
        })
    };
    let scope = |scope: &Value| Some(ScopeSpans { spans: list(&scope["spans"], span)? });
    let resource = |of: &Value| {
        Some(ResourceSpans { resource: Some(resource_of(&of["resource"])?), scopes: list(&of["scopeSpans"], scope)? })
    };
    Some(Traces { resources: list(body.as_object()?.get("resourceSpans")?, resource)? })
}

fn logs_of_json(body: &Value) -> Option<Logs> {
    let record = |record: &Value| {
        Some(Record {
            time: number_of(&record["timeUnixNano"])?,
            severity: text(&record["severityText"]),
            body: Some(any_of(&record["body"])?),
            attributes: attributes_of(&record["attributes"])?,
            trace_id: bytes_of_hex(&record["traceId"])?,
            span_id: bytes_of_hex(&record["spanId"])?,
            observed: number_of(&record["observedTimeUnixNano"])?,
        })
    };
    let scope = |scope: &Value| Some(ScopeLogs { records: list(&scope["logRecords"], record)? });
    let resource = |of: &Value| {
        Some(ResourceLogs { resource: Some(resource_of(&of["resource"])?), scopes: list(&of["scopeLogs"], scope)? })
    };
    Some(Logs { resources: list(body.as_object()?.get("resourceLogs")?, resource)? })
}

#[cfg(test)]
mod tests;

//! What comes over each of the protocols is what was sent.

use axum::http::Request;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::BodyExt as _;
use std::io::Write as _;
use tower::Service as _;

use super::*;
use crate::sink::documents::Query;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

fn spans() -> Value {
    json!({ "resourceSpans": [{
        "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": "web" } }] },
        "scopeSpans": [{ "spans": [{
            "traceId": TRACE, "spanId": "b7ad6b7169203331", "parentSpanId": "", "name": "web call stock", "kind": 3,
            "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": 1_700_000_000_005_000_000_u64,
            "attributes": [
                { "key": "items", "value": { "intValue": "3" } },
                { "key": "parts", "value": { "arrayValue": { "values": [{ "boolValue": true }] } } },
            ],
            "status": { "code": 2 },
        }] }],
    }] })
}

fn expected() -> Span {
    Span {
        trace: TRACE.to_owned(),
        id: "b7ad6b7169203331".to_owned(),
        parent: String::new(),
        service: "web".to_owned(),
        name: "web call stock".to_owned(),
        kind: 3,
        start: 1_700_000_000_000_000_000,
        end: 1_700_000_000_005_000_000,
        failed: true,
        attributes: Map::from_iter([("items".to_owned(), json!(3)), ("parts".to_owned(), json!([true]))]),
    }
}

/// The status, the trailers and the body.
async fn sent(sink: &Arc<Sink>, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (StatusCode, HeaderMap, Bytes) {
    let request = headers.iter().fold(Request::post(path), |request, (name, value)| request.header(*name, *value));
    let response = router(Arc::clone(sink)).call(request.body(Body::from(body)).expect("it is a request")).await;
    let response = response.expect("a router always answers");
    let (status, mut headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.expect("the body is whole");
    headers.extend(body.trailers().cloned().unwrap_or_default());
    (status, headers, body.to_bytes())
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut writer = GzEncoder::new(Vec::new(), Compression::fast());
    writer.write_all(bytes).expect("memory takes it");
    writer.finish().expect("memory takes it")
}

/// A path, headers and a body.
type Sent<'a> = (&'a str, &'a [(&'a str, &'a str)], Vec<u8>);

/// With what gRPC writes before a message.
fn framed(is_packed: bool, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("it is small").to_be_bytes();
    [&[u8::from(is_packed)], length.as_slice(), message].concat()
}

#[tokio::test]
async fn spans_are_the_same_by_every_protocol() {
    let message = traces_of_json(&spans()).expect("it is understood").encode_to_vec();
    let text = spans().to_string().into_bytes();
    let ways: [Sent<'_>; 5] = [
        ("/v1/traces", &[("content-type", "application/json")], text.clone()),
        ("/v1/traces", &[("content-type", "application/json"), ("content-encoding", "gzip")], packed(&text)),
        ("/v1/traces", &[("content-type", PROTOBUF)], message.clone()),
        (TRACES, &[("content-type", "application/grpc")], framed(false, &message)),
        (TRACES, &[("content-type", "application/grpc"), ("grpc-encoding", "gzip")], framed(true, &packed(&message))),
    ];
    for (path, headers, body) in ways {
        let sink = Arc::new(Sink::default());
        let (status, headers, body) = sent(&sink, path, headers, body).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body:?}");
        if path == TRACES {
            assert_eq!((headers["grpc-status"].as_bytes(), body.as_ref()), (b"0".as_slice(), [0; 5].as_slice()));
        }
        assert_eq!(sink.spans().iter().collect::<Vec<_>>(), [&expected()], "{path} {headers:?}");
    }
}

#[tokio::test]
async fn what_is_not_understood_is_refused_and_nothing_is_kept() {
    let sink = Arc::new(Sink::default());
    let json = [("content-type", "application/json")];
    for body in ["", "{}", "[]", "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{\"traceId\":\"xyz\"}]}]}]}"] {
        assert_eq!(sent(&sink, "/v1/traces", &json, body.into()).await.0, StatusCode::BAD_REQUEST, "{body}");
    }
    let (status, ..) = sent(&sink, "/v1/traces", &[("content-type", "text/plain")], Vec::new()).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let grpc = [("content-type", "application/grpc")];
    for body in [Vec::new(), framed(false, b"\xff"), framed(true, b"not packed"), framed(false, b"")[..4].to_vec()] {
        assert_eq!(sent(&sink, TRACES, &grpc, body).await.1["grpc-status"], INVALID);
    }
    assert_eq!(sent(&sink, "/somewhere.Else/Export", &grpc, Vec::new()).await.1["grpc-status"], UNIMPLEMENTED);
    assert_eq!(sink.spans().seen(0).spans, 0);
}

#[tokio::test]
async fn records_of_logs_are_documents() {
    let sink = Arc::new(Sink::default());
    let body = json!({ "resourceLogs": [{
        "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": "web" } }] },
        "scopeLogs": [{ "logRecords": [{
            "timeUnixNano": "1700000000000000000", "severityText": "INFO", "body": { "stringValue": "it was paid" },
            "traceId": TRACE, "spanId": "b7ad6b7169203331",
        }] }],
    }] });
    let (status, ..) =
        sent(&sink, "/v1/logs", &[("content-type", "application/json")], body.to_string().into_bytes()).await;
    assert_eq!(status, StatusCode::OK);
    let documents = sink.documents();
    let query = Query::typed("paid");
    let found: Vec<_> = documents.search("", &query).map(|document| &document.source).collect();
    let expected = json!({
        "@timestamp": "2023-11-14T22:13:20.000000000Z", "level": "INFO", "body": "it was paid", "attributes": {},
        "trace_id": TRACE, "span_id": "b7ad6b7169203331", "resource": { "service.name": "web" },
    });
    assert_eq!(found, [&expected]);
}

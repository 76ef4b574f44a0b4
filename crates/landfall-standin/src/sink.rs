//! The stand-in of a store of logs and of traces: takes what shippers and instrumented services send, and answers searches.
//! It is also that of everybody whom Alertmanager would tell of an alert.
//!
//! It speaks the few calls of Elasticsearch and of Loki that shippers use, OTLP over HTTP and gRPC, what Jaeger answers, and takes
//! Alertmanager's webhooks.
//! It keeps the newest in memory, knows nobody's password, and everything is gone when it ends.
//!
//! Not handled: TLS; metrics over OTLP, which are taken and thrown away; aggregations; Loki's compressed protocol and Zipkin's own.

mod alerts;
mod documents;
mod elasticsearch;
mod jaeger;
mod loki;
mod otlp;
mod spans;

use std::io::Read as _;
use std::sync::{Arc, Mutex};

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::routing::get;
use axum::{Json, Router};
use flate2::read::GzDecoder;
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::info;

pub use self::alerts::AlertSeen;
use self::alerts::Alerts;
use self::documents::Documents;
use self::elasticsearch::Templates;
use self::spans::Spans;
pub use self::spans::{CallSeen, OperationSeen, TraceSeen};
use crate::Failure;
use crate::behaviour::{CONTROL_PORT, SEEN_PATH};

/// How large a request may be, unpacked.
const LARGEST: usize = 64 * 1024 * 1024;

/// Where it answers as Elasticsearch does, and so on.
pub const ELASTICSEARCH_PORT: u16 = 9200;
/// As Loki.
pub const LOKI_PORT: u16 = 3100;
/// OTLP over gRPC.
pub const OTLP_GRPC_PORT: u16 = 4317;
/// OTLP over HTTP.
pub const OTLP_HTTP_PORT: u16 = 4318;
/// As Jaeger's user interface does.
pub const JAEGER_PORT: u16 = 16686;
/// As a webhook of Alertmanager, for every receiver.
pub const ALERTS_PORT: u16 = 9095;

/// What a sink has been sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SinkSeen {
    /// Lines of logs, those that were let go included.
    pub lines: u64,
    /// Spans, those that were let go included.
    pub spans: u64,
    /// How many traces they are, as far as they are kept.
    pub traces: usize,
    /// How long each operation takes, of the spans that are kept.
    pub operations: Vec<OperationSeen>,
    /// Which service has caused what in which.
    pub calls: Vec<CallSeen>,
    /// For each flow, the trace that the most services took part in.
    pub flows: Vec<TraceSeen>,
    /// What receivers of alerts were told, as far as it is kept.
    pub alerts: Vec<AlertSeen>,
}

/// What all doors lead to.
#[derive(Default)]
struct Sink {
    documents: Mutex<Documents>,
    templates: Mutex<Templates>,
    spans: Mutex<Spans>,
    alerts: Mutex<Alerts>,
}

impl Sink {
    fn documents(&self) -> std::sync::MutexGuard<'_, Documents> {
        self.documents.lock().expect("nothing panics while it holds the lines")
    }

    fn spans(&self) -> std::sync::MutexGuard<'_, Spans> {
        self.spans.lock().expect("nothing panics while it holds the spans")
    }

    fn alerts(&self) -> std::sync::MutexGuard<'_, Alerts> {
        self.alerts.lock().expect("nothing panics while it holds the alerts")
    }
}

/// Serves until it is asked to end.
pub(crate) async fn run() -> Result<(), Failure> {
    let sink = Arc::new(Sink::default());
    let otlp = otlp::router(Arc::clone(&sink));
    let doors = [
        (ELASTICSEARCH_PORT, elasticsearch::router(Arc::clone(&sink))),
        (LOKI_PORT, loki::router(Arc::clone(&sink))),
        (OTLP_GRPC_PORT, otlp.clone()),
        (OTLP_HTTP_PORT, otlp),
        (JAEGER_PORT, jaeger::router(Arc::clone(&sink))),
        (ALERTS_PORT, alerts::router(Arc::clone(&sink))),
        (CONTROL_PORT, control(Arc::clone(&sink))),
    ];
    let mut servers: JoinSet<Result<(), Failure>> = JoinSet::new();
    for (port, router) in doors {
        let listener = TcpListener::bind((crate::address::own(), port)).await?;
        let router = router.layer(DefaultBodyLimit::max(LARGEST));
        servers.spawn(async move { Ok(axum::serve(listener, router).await?) });
    }
    info!("serving");
    let mut stop = crate::service::asked_to_end()?;
    tokio::select! {
        _ = stop.recv() => Ok(()),
        Some(ended) = servers.join_next() => ended?,
    }
}

fn control(sink: Arc<Sink>) -> Router {
    let seen = move || async move {
        let lines = sink.documents().taken();
        let alerts = sink.alerts().seen();
        Json(SinkSeen { alerts, ..sink.spans().seen(lines) })
    };
    Router::new().route(SEEN_PATH, get(seen))
}

/// A body as it was before it was packed.
fn unpacked(headers: &HeaderMap, body: Bytes) -> Result<Bytes, String> {
    match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity" | b"") => Ok(body),
        Some(b"gzip") => gunzip(&body).map(Bytes::from),
        Some(other) => Err(format!("not handled: the encoding {}", String::from_utf8_lossy(other))),
    }
}

fn gunzip(packed: &[u8]) -> Result<Vec<u8>, String> {
    let mut plain = Vec::new();
    let limit = u64::try_from(LARGEST).expect("it is a small number") + 1;
    let read = GzDecoder::new(packed).take(limit).read_to_end(&mut plain);
    match read {
        Ok(size) if size > LARGEST => Err("the body is too large".to_owned()),
        Ok(_) => Ok(plain),
        Err(error) => Err(format!("the body is not packed as it says: {error}")),
    }
}

/// Nanoseconds since 1970 as RFC 3339.
fn written(nanoseconds: u64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default();
    format!("{time:.9}")
}

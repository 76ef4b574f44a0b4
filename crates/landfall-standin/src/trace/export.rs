//! Sends finished spans to the collector, over HTTP as OTLP's JSON, as a service with an SDK of OpenTelemetry would.
//!
//! Where it is and how the service is called stands in the variables that SDKs read. Spans wait in a bounded queue: a
//! collector that is away costs spans, and never a message.

use std::time::Duration;

use http::{Request, header};
use http_body_util::Full;
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::warn;

use super::{FLOW, Span};
use crate::Failure;
use crate::connect::HttpClient;

/// The variables, of OpenTelemetry's specification of environment variables.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const SERVICE: &str = "OTEL_SERVICE_NAME";

/// How many spans wait at most, and how many go at once.
const WAITING: usize = 4096;
const AT_ONCE: usize = 512;

/// How long spans are gathered, and how long a request may take.
const GATHER: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);

/// What a span is of its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It deals with a request or a message.
    Consumes = 5,
    /// It asks somebody, or gives something on.
    Asks = 3,
}

/// A span that is over.
pub(crate) struct Finished<'a> {
    pub(crate) span: &'a Span,
    pub(crate) name: &'a str,
    pub(crate) kind: Kind,
    /// In microseconds since 1970.
    pub(crate) begin_us: u64,
    pub(crate) end_us: u64,
    pub(crate) flow: &'a str,
    /// Why it failed, if it did.
    pub(crate) error: Option<String>,
}

/// Takes spans that are over; does nothing where no collector is named.
#[derive(Debug, Default, Clone)]
pub(crate) struct Exporter(Option<mpsc::Sender<Value>>);

/// Sends what an [`Exporter`] takes.
pub(crate) struct Sending {
    waiting: mpsc::Receiver<Value>,
    client: HttpClient,
    service: String,
}

impl Exporter {
    /// As the environment says.
    pub(crate) fn of_environment(service: &str) -> Result<(Self, Option<Sending>), Failure> {
        let Ok(endpoint) = std::env::var(ENDPOINT) else { return Ok((Self::default(), None)) };
        let host = endpoint.strip_prefix("http://").ok_or_else(|| format!("{ENDPOINT} is no URL of plain HTTP"))?;
        let host = host.trim_end_matches('/');
        let client = HttpClient::to_host(host, host)?;
        let service = std::env::var(SERVICE).unwrap_or_else(|_| service.to_owned());
        let (sender, waiting) = mpsc::channel(WAITING);
        Ok((Self(Some(sender)), Some(Sending { waiting, client, service })))
    }

    /// Takes a span, unless too many wait.
    pub(crate) fn take(&self, finished: &Finished<'_>) {
        let Some(queue) = &self.0 else { return };
        // What does not fit is not sent, as its reader has to know that there are gaps anyway.
        let _ = queue.try_send(finished.written());
    }
}

impl Finished<'_> {
    fn written(&self) -> Value {
        let nanoseconds = |microseconds: u64| (u128::from(microseconds) * 1000).to_string();
        let status = match &self.error {
            Some(error) => json!({ "code": 2, "message": error }),
            None => json!({}),
        };
        json!({
            "traceId": self.span.trace_id(), "spanId": self.span.span_id(), "parentSpanId": self.span.parent_id(),
            "name": self.name, "kind": self.kind as i32,
            "startTimeUnixNano": nanoseconds(self.begin_us), "endTimeUnixNano": nanoseconds(self.end_us),
            "attributes": [{ "key": FLOW, "value": { "stringValue": self.flow } }],
            "status": status,
        })
    }
}

impl Sending {
    /// Sends until there is nobody who could hand it more.
    pub(crate) async fn run(mut self) {
        let mut spans = Vec::new();
        let mut failing = false;
        while self.waiting.recv_many(&mut spans, AT_ONCE).await > 0 {
            if spans.len() < AT_ONCE {
                // Those that are over meanwhile go with them; when nobody hands over more, this is the end of it.
                let more =
                    async { while self.waiting.recv_many(&mut spans, AT_ONCE).await > 0 && spans.len() < AT_ONCE {} };
                let _ = tokio::time::timeout(GATHER, more).await;
            }
            let result = self.send(std::mem::take(&mut spans)).await;
            if let Err(error) = &result
                && !failing
            {
                warn!(%error, "spans are not taken");
            }
            failing = result.is_err();
        }
    }

    async fn send(&self, spans: Vec<Value>) -> Result<(), Failure> {
        let name = json!({ "key": "service.name", "value": { "stringValue": self.service } });
        let body = json!({ "resourceSpans": [{
            "resource": { "attributes": [name] },
            "scopeSpans": [{ "scope": { "name": "landfall" }, "spans": spans }],
        }] });
        let request = Request::post("/v1/traces")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(Bytes::from(body.to_string())))?;
        let (status, answer) = self.client.send(request, PATIENCE).await?;
        if status.is_success() {
            return Ok(());
        }
        Err(format!("the collector answers {status}: {}", String::from_utf8_lossy(&answer)).into())
    }
}

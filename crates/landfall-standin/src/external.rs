//! An external stand-in: answers over HTTPS after its declared latency, fails and refuses as its profile says, and makes
//! the calls that it is declared to make.

mod outbox;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use self::outbox::Outbox;
use crate::Failure;
use crate::behaviour::{
    CONTROL_PORT, EdgeSeen, ExternalBehaviour, Load, MESSAGE_HEADER, Message, OUTBOX_PATH, OUTCOME_PATH, SEEN_PATH,
    Seen,
};
use crate::record::Record;
use crate::service::now_us;
use crate::trace::{Span, TRACE_HEADER};

/// Where it listens: any user may, and a Service leads the port of HTTPS here.
const PORT: u16 = 8443;

/// The folder with its certificate.
const IDENTITY: &str = "/tls";

/// How often it calls by itself.
const IDLE: Duration = Duration::from_secs(5);

struct External {
    behaviour: ExternalBehaviour,
    /// Requests that it will still take, and when that was counted.
    allowance: Mutex<(f64, Instant)>,
    outbox: Outbox,
    seen: Vec<Mutex<EdgeSeen>>,
    record: Record,
}

/// Serves until it is asked to end.
pub(crate) async fn run(file: &str) -> Result<(), Failure> {
    let behaviour: ExternalBehaviour = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let listener = TcpListener::bind((crate::address::own(), PORT)).await?;
    let control = TcpListener::bind((crate::address::own(), CONTROL_PORT)).await?;
    let acceptor = TlsAcceptor::from(Arc::new(identity()?));
    info!(external = behaviour.external, port = PORT, "serving");
    let full = behaviour.limit.unwrap_or_default();
    let external = Arc::new(External {
        allowance: Mutex::new((full, Instant::now())),
        outbox: Outbox::default(),
        seen: behaviour.callbacks.iter().map(|_| Mutex::default()).collect(),
        record: Record::default(),
        behaviour,
    });
    let mut tasks: JoinSet<Result<(), Failure>> = JoinSet::new();
    let router = control_router(Arc::clone(&external));
    tasks.spawn(async move { Ok(axum::serve(control, router).await?) });
    for place in 0..external.behaviour.callbacks.len() {
        tasks.spawn(call_by_itself(Arc::clone(&external), place));
    }
    let service = TowerToHyperService::new(Router::new().fallback(answer).with_state(external));
    let mut connections = JoinSet::new();
    let mut stop = crate::service::asked_to_end()?;
    loop {
        tokio::select! {
            _ = stop.recv() => return Ok(()),
            Some(ended) = tasks.join_next() => return ended?,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let (stream, peer) = accepted?;
                let (acceptor, service) = (acceptor.clone(), service.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let connection = auto::Builder::new(TokioExecutor::new());
                    if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
                        debug!(%peer, error, "a connection broke");
                    }
                });
            }
        }
    }
}

fn identity() -> Result<ServerConfig, Failure> {
    let certificates = CertificateDer::pem_file_iter(format!("{IDENTITY}/tls.crt"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(format!("{IDENTITY}/tls.key"))?;
    Ok(ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?)
}

/// What is no behaviour of the external: `up` reaches it by `port-forward`. A request of a flow is answered here as well,
/// because clients of an external are outside of the cluster.
fn control_router(external: Arc<External>) -> Router {
    Router::new()
        .route(SEEN_PATH, get(seen))
        .route(OUTBOX_PATH, get(outbox::hand_out))
        .route(OUTCOME_PATH, post(outbox::take_back))
        .fallback(answer)
        .with_state(external)
}

async fn seen(State(external): State<Arc<External>>) -> Json<Seen> {
    let counts = external.seen.iter().map(|seen| seen.lock().expect("nothing panics while it counts").clone());
    let names = external.behaviour.callbacks.iter().map(|callback| callback.name.clone());
    let (arrivals, suppressed) = external.record.told();
    // What it is sent has the form of its own interface, which no flow declares: nothing is held against a schema here.
    Json(Seen { edges: names.zip(counts).collect(), arrivals, suppressed, invalid: BTreeMap::new() })
}

async fn answer(State(external): State<Arc<External>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // What stays unread would cost the caller the connection.
    if axum::body::to_bytes(body, usize::MAX).await.is_err() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let status = external.judge();
    if status != StatusCode::TOO_MANY_REQUESTS {
        tokio::time::sleep(Duration::from_millis(external.behaviour.latency_ms)).await;
    }
    let body = serde_json::json!({ "external": external.behaviour.external, "path": parts.uri.path() });
    let message = parts.headers.get(MESSAGE_HEADER).and_then(|message| serde_json::from_slice(message.as_bytes()).ok());
    let trace = parts.headers.get(TRACE_HEADER).and_then(|trace| trace.to_str().ok());
    match message {
        Some(message) if status.is_success() => match external.pass(&message, trace).await {
            Ok(()) => (status, Json(body)).into_response(),
            Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
        },
        _ => (status, Json(body)).into_response(),
    }
}

async fn call_by_itself(external: Arc<External>, place: usize) -> Result<(), Failure> {
    let mut tick = tokio::time::interval(IDLE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for id in 0.. {
        tick.tick().await;
        // What fails is counted.
        let _ = external.call(place, &Message { id, sent_us: now_us(), ..Message::default() }, Load::Whole).await;
    }
    Ok(())
}

impl External {
    fn judge(&self) -> StatusCode {
        if let Some(limit) = self.behaviour.limit {
            let mut allowance = self.allowance.lock().expect("nothing panics with the allowance");
            let now = Instant::now();
            // A second's worth may be saved up.
            allowance.0 = (allowance.0 + limit * (now - allowance.1).as_secs_f64()).min(limit.max(1.0));
            allowance.1 = now;
            if allowance.0 < 1.0 {
                return StatusCode::TOO_MANY_REQUESTS;
            }
            allowance.0 -= 1.0;
        }
        if rand::random::<f64>() < self.behaviour.errors { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    }

    /// Makes the calls that the flow has it make before it answers, so that the caller hears of one that failed.
    async fn pass(&self, message: &Message, trace: Option<&str>) -> Result<(), Failure> {
        let Some(flow) = &message.flow else { return Ok(()) };
        let Some(part) = self.behaviour.flows.get(flow) else { return Ok(()) };
        let hop = part.stage_of(message.hop, None);
        let Some(stage) = part.stages.get(&hop) else { return Ok(()) };
        let message = &Message { hop, ..message.clone() };
        if self.record.knows(flow, message) {
            return Ok(());
        }
        let span = Span::within(trace.or(message.trace.as_deref()));
        for step in &stage.steps {
            let next = Message { hop: step.hop, trace: Some(span.header()), ..message.clone() };
            self.call(step.edge, &next, step.load).await?;
        }
        let after_us = stage.ends.then(|| now_us().saturating_sub(message.sent_us));
        self.record.deal(flow, message, after_us)?;
        let (trace_id, span_id, parent_id) = (span.trace_id(), span.span_id(), span.parent_id());
        info!(flow, id = message.id, hop = message.hop, trace_id, span_id, parent_id, "passed a message on");
        Ok(())
    }

    async fn call(&self, place: usize, message: &Message, load: Load) -> Result<(), Failure> {
        let callback = &self.behaviour.callbacks[place];
        let mut attempt = 0;
        let result = loop {
            let sent = self.outbox.send(callback, message, load).await;
            if sent.is_ok() || attempt == callback.retries {
                break sent;
            }
            attempt += 1;
        };
        let mut seen = self.seen[place].lock().expect("nothing panics while it counts");
        match &result {
            Ok(()) => seen.carried += 1,
            Err(error) => {
                warn!(edge = callback.name, %error, "a call failed");
                seen.failed += 1;
                seen.error = Some(error.to_string());
            }
        }
        result
    }
}

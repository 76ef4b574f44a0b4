//! A service stand-in: serves its ports and probes, performs its edges, passes messages of flows on, and tells what it saw.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::Failure;
use crate::behaviour::{
    Action, Arrival, MESSAGE_HEADER, Message, PROBE_PATH, Probe, Probed, SEEN_PATH, Seen, ServiceBehaviour,
};
use crate::edges::{Edges, Subscription, consume};

/// How often each edge is used when no flow uses it, so that an edge without traffic shows within seconds.
const IDLE: Duration = Duration::from_secs(5);

/// How long a probed address may take to accept: what a policy closes answers nothing at all.
const PROBE: Duration = Duration::from_millis(1500);

struct Service {
    behaviour: Arc<ServiceBehaviour>,
    edges: Edges,
    arrivals: Mutex<BTreeMap<String, Vec<Arrival>>>,
    /// For each edge: whether it consumes and has not reached its queue yet.
    detached: Vec<AtomicBool>,
    idle: AtomicU64,
}

/// Serves until it is asked to end.
pub(crate) async fn run(file: &str) -> Result<(), Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("failed to read `{file}`: {error}"))?;
    let behaviour: Arc<ServiceBehaviour> = Arc::new(serde_json::from_str(&text)?);
    let detached = behaviour.edges.iter().map(|edge| AtomicBool::new(matches!(edge.action, Action::Consume { .. })));
    let service = Arc::new(Service {
        edges: Edges::new(Arc::clone(&behaviour))?,
        arrivals: Mutex::default(),
        detached: detached.collect(),
        idle: AtomicU64::new(0),
        behaviour,
    });
    let mut parts: JoinSet<Result<(), Failure>> = JoinSet::new();
    for port in &service.behaviour.ports {
        let listener = TcpListener::bind(("0.0.0.0", *port)).await?;
        let router = router(Arc::clone(&service));
        parts.spawn(async move { Ok(axum::serve(listener, router).await?) });
    }
    for place in 0..service.behaviour.edges.len() {
        parts.spawn(work(Arc::clone(&service), place));
    }
    info!(service = service.behaviour.service, ports = ?service.behaviour.ports, "serving");
    let mut stop = asked_to_end()?;
    tokio::select! {
        _ = stop.recv() => Ok(()),
        Some(ended) = parts.join_next() => ended?,
    }
}

/// The signal with which a pod is asked to end.
pub(crate) fn asked_to_end() -> Result<Signal, Failure> {
    Ok(signal(SignalKind::terminate())?)
}

/// What an edge does by itself, all the time.
async fn work(service: Arc<Service>, place: usize) -> Result<(), Failure> {
    let edge = &service.behaviour.edges[place];
    if let Action::Consume { url, exchange, queue } = &edge.action {
        let attached = || service.detached[place].store(false, Ordering::Relaxed);
        let subscription = Subscription { url, exchange, queue };
        consume(&service.edges, subscription, attached, |message| take(&service, place, message)).await;
        return Ok(());
    }
    let mut tick = tokio::time::interval(IDLE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tick.tick().await;
        let id = service.idle.fetch_add(1, Ordering::Relaxed);
        let message = Message { flow: None, id, sent_us: now_us() };
        let result = service.edges.perform(place, &message).await;
        if let Err(error) = &result
            && !failing
        {
            warn!(edge = edge.name, %error, "an edge carries nothing");
        }
        failing = result.is_err();
    }
}

/// A message that a queue has brought.
async fn take(service: &Service, place: usize, message: Message) -> Result<(), Failure> {
    let result = service.pass(&message).await;
    service.edges.count(place, &result);
    result
}

impl Service {
    fn is_ready(&self) -> bool {
        self.detached.iter().all(|detached| !detached.load(Ordering::Relaxed))
    }

    /// Does this service's part of the flow, one edge after the other.
    async fn pass(&self, message: &Message) -> Result<(), Failure> {
        // Of no flow, or of one that goes elsewhere: to receive it is all.
        let part = message.flow.as_ref().and_then(|flow| Some((flow, self.behaviour.flows.get(flow)?)));
        let Some((flow, part)) = part else { return Ok(()) };
        for place in &part.edges {
            self.edges.perform(*place, message).await?;
        }
        if part.ends {
            let arrival = Arrival { id: message.id, after_us: now_us().saturating_sub(message.sent_us) };
            let mut arrivals = self.arrivals.lock().expect("nothing panics while it writes an arrival");
            arrivals.entry(flow.clone()).or_default().push(arrival);
        }
        Ok(())
    }
}

fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route(SEEN_PATH, get(seen))
        .route(PROBE_PATH, post(probe))
        .fallback(anything)
        .with_state(service)
}

async fn seen(State(service): State<Arc<Service>>) -> Json<Seen> {
    let arrivals = service.arrivals.lock().expect("nothing panics while it writes an arrival").clone();
    Json(Seen { edges: service.edges.seen(), arrivals })
}

async fn probe(Json(probe): Json<Probe>) -> Json<Probed> {
    let attempts = probe.targets.iter().map(|target| async move {
        let attempt = tokio::time::timeout(PROBE, TcpStream::connect(target)).await;
        attempt.is_ok_and(|connected| connected.is_ok())
    });
    Json(Probed { open: futures::future::join_all(attempts).await })
}

/// Probes, and requests of flows.
async fn anything(State(service): State<Arc<Service>>, request: Request) -> Response {
    let path = request.uri().path();
    if service.behaviour.ready.iter().any(|ready| ready == path) && !service.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "not every queue is reached yet\n").into_response();
    }
    let Some(message) = request.headers().get(MESSAGE_HEADER) else {
        return "this is a stand-in\n".into_response();
    };
    let message: Message = match serde_json::from_slice(message.as_bytes()) {
        Ok(message) => message,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    match service.pass(&message).await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// In the text format of Prometheus.
async fn metrics(State(service): State<Arc<Service>>) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut text = String::from(
        "# HELP landfall_edge_operations_total What a declared edge has carried or failed to carry.\n\
         # TYPE landfall_edge_operations_total counter\n",
    );
    for (edge, seen) in service.edges.seen() {
        for (result, count) in [("carried", seen.carried), ("failed", seen.failed)] {
            let edge = quoted(&edge);
            text += &format!("landfall_edge_operations_total{{edge=\"{edge}\",result=\"{result}\"}} {count}\n");
        }
    }
    text
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

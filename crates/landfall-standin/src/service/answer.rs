//! What a service stand-in answers on its ports.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures::TryStreamExt as _;

use super::Service;
use crate::behaviour::{FAULT_PATH, MESSAGE_HEADER, Message, PROBE_PATH, Probe, Probed, SAY_PATH, SEEN_PATH, Seen};
use crate::fault::Fault;
use crate::metrics::{self, label};
use crate::program::reached;
use crate::trace::TRACE_HEADER;

/// How large a request may be that is looked at. Others are read and thrown away.
const LARGEST: usize = 64 * 1024 * 1024;

pub(super) fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route(SEEN_PATH, get(seen))
        .route(PROBE_PATH, post(probe))
        .route(SAY_PATH, post(say))
        .route(FAULT_PATH, get(fault).post(set_fault).delete(end_fault))
        .fallback(anything)
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(service)
}

async fn seen(State(service): State<Arc<Service>>) -> Json<Seen> {
    Json(service.seen())
}

async fn probe(Json(probe): Json<Probe>) -> Json<Probed> {
    Json(Probed { open: reached(probe.targets.iter()).await })
}

async fn say(text: String) -> Json<()> {
    tracing::info!(text, "was asked to say");
    Json(())
}

async fn fault(State(service): State<Arc<Service>>) -> Json<Fault> {
    Json(service.faults.now())
}

async fn set_fault(State(service): State<Arc<Service>>, body: Bytes) -> Response {
    match Fault::parse(&body) {
        Ok(fault) => {
            tracing::warn!(?fault, "told what to do");
            service.faults.set(fault.clone());
            Json(fault).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, error + "\n").into_response(),
    }
}

async fn end_fault(State(service): State<Arc<Service>>) -> Json<Fault> {
    service.faults.set(Fault::default());
    Json(Fault::default())
}

/// Probes, and requests of flows and of anybody else.
async fn anything(State(service): State<Arc<Service>>, request: Request) -> Response {
    let (begin, method) = (Instant::now(), request.method().clone());
    let response = answer(&service, request).await;
    let labels = format!(
        "{},{}",
        label("http_request_method", method.as_str()),
        label("http_response_status_code", response.status().as_str())
    );
    service.answers.observe(labels, begin.elapsed());
    response
}

async fn answer(service: &Service, request: Request) -> Response {
    let path = request.uri().path();
    let among = |paths: &[String]| paths.iter().any(|own| own == path);
    let (is_probe, is_ready_probe) = (among(&service.behaviour.probes), among(&service.behaviour.ready));
    service.faults.hold().await;
    if is_ready_probe && service.faults.now().not_ready {
        return (StatusCode::SERVICE_UNAVAILABLE, "it was told not to be ready\n").into_response();
    }
    if is_ready_probe && !service.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "not every queue is reached yet\n").into_response();
    }
    if !is_probe && service.faults.strikes() {
        return (StatusCode::INTERNAL_SERVER_ERROR, "it was told to fail\n").into_response();
    }
    let (parts, body) = request.into_parts();
    let message = parts.headers.get(MESSAGE_HEADER);
    let message = message.map(|message| serde_json::from_slice::<Message>(message.as_bytes())).transpose();
    // A message that only begins here has been told to by somebody who knows of no payload.
    let arrived = message.as_ref().ok().and_then(Option::as_ref).filter(|message| message.hop > 0);
    let declared = arrived.and_then(|message| service.edges.payload(message)).filter(|payload| payload.has_schema());
    // What stays unread would cost the caller the connection.
    let read = match declared {
        Some(_) => axum::body::to_bytes(body, LARGEST).await,
        None => drain(body).await.map(|()| Bytes::new()),
    };
    let Ok(body) = read else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "the request is too large, or broke off\n").into_response();
    };
    if let (Some(message), Some(declared)) = (arrived, declared)
        && let Err(error) = declared.check(&body)
    {
        service.refuse(message, &error);
        return (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n")).into_response();
    }
    let mut message = match message {
        Ok(Some(message)) => message,
        Ok(None) => return "this is a stand-in\n".into_response(),
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    if let Some(trace) = parts.headers.get(TRACE_HEADER).and_then(|trace| trace.to_str().ok()) {
        message.trace = Some(trace.to_owned());
    }
    match service.pass(&message, None).await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// Reads a body to its end, and keeps nothing of it.
async fn drain(body: Body) -> Result<(), axum::Error> {
    body.into_data_stream().try_for_each(|_| std::future::ready(Ok(()))).await
}

async fn metrics(State(service): State<Arc<Service>>) -> Response {
    let mut text = String::new();
    // The name that the rendered rules read, of OpenTelemetry's conventions for HTTP.
    service.answers.write("http_server_request_duration_seconds", "How long answers to requests took.", &mut text);
    // The same for what queues bring, by which `landfall ship` judges a worker.
    service.processed.write("messaging_process_duration_seconds", "How long messages were worked on.", &mut text);
    metrics::write_edges(&service.edges.seen(), &mut text);
    service.edges.durations().write("landfall_edge_duration_seconds", "How long it took to use an edge.", &mut text);
    service.passed.write(&service.behaviour.business, &mut text);
    metrics::write_gauges(&service.faults.now().gauges, &mut text);
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

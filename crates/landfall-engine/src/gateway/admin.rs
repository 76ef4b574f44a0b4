//! The gateway's own endpoint: figures for Prometheus, faults for drills, and where everything is.

use std::net::TcpListener;
use std::sync::PoisonError;

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::{get, put};
use axum::{Json, Router};
use http::{StatusCode, header};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Inside;
use super::fault::Fault;

/// Serves until cancelled.
pub(super) async fn run(inside: Inside, listener: TcpListener, cancel: CancellationToken) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "the gateway's admin endpoint is not served"),
    };
    let serving = axum::serve(listener, router(inside)).with_graceful_shutdown(async move { cancel.cancelled().await });
    if let Err(error) = serving.await {
        warn!(%error, "the gateway's admin endpoint has ended");
    }
}

fn router(inside: Inside) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/listeners", get(listeners))
        .route("/authority.pem", get(authority))
        .route("/faults", get(list))
        .route("/faults/{name}", put(inject).delete(remove))
        .with_state(inside)
}

async fn metrics(State(inside): State<Inside>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], inside.shared.registry.metrics())
}

/// Where each declared port is.
async fn listeners(State(inside): State<Inside>) -> impl IntoResponse {
    let addresses = inside.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Json(json!(addresses))
}

async fn authority(State(inside): State<Inside>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/x-pem-file")], inside.certificates.authority().to_owned())
}

async fn list(State(inside): State<Inside>) -> impl IntoResponse {
    let faults = inside.shared.faults.list();
    Json(faults.iter().map(|(name, fault)| (name.clone(), json!(fault))).collect::<serde_json::Map<_, _>>())
}

async fn inject(State(inside): State<Inside>, Path(name): Path<String>, Json(fault): Json<Fault>) -> impl IntoResponse {
    match fault.objection() {
        Some(objection) => (StatusCode::UNPROCESSABLE_ENTITY, objection),
        None => {
            inside.shared.faults.put(&name, &fault);
            (StatusCode::OK, "")
        }
    }
}

async fn remove(State(inside): State<Inside>, Path(name): Path<String>) -> StatusCode {
    if inside.shared.faults.remove(&name) { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

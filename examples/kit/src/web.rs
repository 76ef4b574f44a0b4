//! What every service serves: its work, its probes, its metrics; and how it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{Failure, Platform};

/// The port, as the architecture declares it.
const PORT: u16 = 8080;

/// How long what is under way may take when the service is asked to end.
const FINISH: Duration = Duration::from_secs(20);

/// Serves until it is asked to end: then nothing new is begun, and what was begun is finished. `works` are told to stop by
/// `stop`; `is_ready` says whether requests may come.
pub async fn serve(
    platform: Arc<Platform>,
    work: Router,
    mut works: JoinSet<()>,
    stop: CancellationToken,
    is_ready: impl Fn() -> bool + Clone + Send + Sync + 'static,
) -> Result<(), Failure> {
    let ready = move || {
        let is_ready = is_ready();
        async move {
            if is_ready { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready yet\n") }
        }
    };
    let told = Arc::clone(&platform);
    let metrics = move || async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], told.metrics.text()) };
    let measure = move |request: Request, next: Next| measure(Arc::clone(&platform), request, next);
    let router = work
        .layer(from_fn(measure))
        .route("/health/live", get(async || "alive\n"))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics));
    // Where pods share the network of a machine, each has an address of its own there.
    let address = std::env::var("POD_IP").unwrap_or_else(|_| "0.0.0.0".to_owned());
    let listener = TcpListener::bind((address, PORT)).await?;
    let mut asked_to_end = signal(SignalKind::terminate())?;
    let mut server = JoinSet::new();
    let ended = stop.clone().cancelled_owned();
    server.spawn(async move { axum::serve(listener, router).with_graceful_shutdown(ended).await });
    info!(port = PORT, "serving");
    tokio::select! {
        _ = asked_to_end.recv() => {}
        Some(ended) = server.join_next() => return Ok(ended??),
        Some(ended) = works.join_next() => return Err(format!("its work ended by itself: {ended:?}").into()),
    }
    info!("ending");
    stop.cancel();
    let finished = async {
        while server.join_next().await.is_some() {}
        while works.join_next().await.is_some() {}
    };
    if tokio::time::timeout(FINISH, finished).await.is_err() {
        // Events that are not acknowledged come again, to another copy.
        warn!("something was still under way");
    }
    Ok(())
}

async fn measure(platform: Arc<Platform>, request: Request, next: Next) -> Response {
    let (begin, method) = (Instant::now(), request.method().to_string());
    let response = next.run(request).await;
    platform.metrics.answered(&method, response.status().as_u16(), begin.elapsed());
    response
}

/// The answer to a request whose work is done or has failed.
pub fn answer(done: Result<(), Failure>) -> Response {
    match done {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => {
            warn!(%error, "failed to do what was asked");
            (StatusCode::BAD_GATEWAY, error.to_string()).into_response()
        }
    }
}

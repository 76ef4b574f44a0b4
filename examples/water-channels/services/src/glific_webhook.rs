//! Glific's webhook: takes what was heard on `WhatsApp`, and hands it to the orchestrator before it answers, so that Glific
//! sends again what nobody has taken.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use example_kit::{Attempts, Failure, Message, Peer, Platform, answer, serve};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::submission::Submission;

const CALL: &str = "glific-webhook call messaging";

/// How long the orchestrator may take. Glific itself tries again.
const ORCHESTRATOR: Attempts = Attempts { timeout: Duration::from_secs(5), retries: 0 };

struct Webhook {
    platform: Arc<Platform>,
    messaging: Peer,
}

pub(crate) async fn run(messaging: &str) -> Result<(), Failure> {
    let platform = Platform::new(&[CALL])?;
    let messaging = Peer::new(&platform, messaging, None)?;
    let webhook = Arc::new(Webhook { platform: Arc::clone(&platform), messaging });
    let work = Router::new().route("/glific", post(hear)).with_state(webhook);
    serve(platform, work, JoinSet::new(), CancellationToken::new(), || true).await
}

/// Not handled: Glific's signature over the body. The stand-in for Glific knows no secret to sign with.
async fn hear(State(webhook): State<Arc<Webhook>>, headers: HeaderMap) -> Response {
    let message = match Message::of_request(&headers) {
        Ok(message) => message,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    if message.flow.is_none() {
        // Glific asks whether anybody is there.
        return StatusCode::OK.into_response();
    }
    let submission = match serde_json::to_value(Submission::by_whatsapp(&message)) {
        Ok(submission) => submission,
        Err(error) => return answer(Err(error.into())),
    };
    let called = webhook.messaging.post("/submissions", &submission, &message, ORCHESTRATOR);
    answer(webhook.platform.metrics.edge(CALL, called).await.map(drop))
}

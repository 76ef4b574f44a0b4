//! A scheduled job: uses each of its edges once, begins its flows, tells what it has seen in its log, and ends.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Service, now_us};
use crate::Failure;
use crate::behaviour::{BEGIN_VARIABLE, Load, Message, SEEN_FIELD};

/// How long something is tried again: a pod that has just started may come before the policies that let it out.
const PATIENCE: Duration = Duration::from_secs(20);

const RETRY: Duration = Duration::from_millis(250);

/// Fails when an edge carries nothing or a flow cannot begin.
pub(super) async fn run(service: &Service) -> Result<(), Failure> {
    let mut failure = None;
    for (place, edge) in service.behaviour.edges.iter().enumerate() {
        let message = service.of_no_flow();
        if let Err(error) = patiently(|| service.edges.perform(place, &message, Load::Whole)).await {
            warn!(edge = edge.name, %error, "an edge carries nothing");
            if !edge.optional {
                failure = Some(error);
            }
        }
    }
    for message in messages(service)? {
        failure = patiently(|| service.pass(&message, None)).await.err().or(failure);
    }
    // What it has seen ends with the pod; its log stays.
    let seen = serde_json::to_string(&service.seen())?;
    info!({ SEEN_FIELD } = seen, "done");
    failure.map_or(Ok(()), Err)
}

/// Those that it was given, or one for each flow that begins here.
fn messages(service: &Service) -> Result<Vec<Message>, Failure> {
    if let Ok(text) = std::env::var(BEGIN_VARIABLE) {
        return Ok(serde_json::from_str(&text).map_err(|error| format!("{BEGIN_VARIABLE}: {error}"))?);
    }
    let begun = service.behaviour.flows.iter().filter(|(_, part)| part.stages.contains_key(&0));
    let now = now_us();
    Ok(begun
        .map(|(flow, _)| Message { flow: Some(flow.clone()), id: now, sent_us: now, ..Message::default() })
        .collect())
}

async fn patiently<F: Future<Output = Result<(), Failure>>>(work: impl Fn() -> F) -> Result<(), Failure> {
    let begin = Instant::now();
    loop {
        match work().await {
            Err(_) if begin.elapsed() < PATIENCE => tokio::time::sleep(RETRY).await,
            done => return done,
        }
    }
}

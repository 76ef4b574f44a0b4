//! Consuming events, as far as it is the same with every broker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{Failure, Message, Platform};

/// After a broken connection, and before an event whose work has failed comes again: it would fail at once again.
pub const RETRY: Duration = Duration::from_millis(500);

/// Consumes from a queue or topic until it is told to stop, and begins again when the connection breaks. `attached` is taken
/// back whenever it does: events cannot arrive then.
pub async fn consume_until<C>(
    stop: &CancellationToken,
    source: &str,
    attached: &AtomicBool,
    consume_once: impl Fn() -> C,
) where
    C: Future<Output = Result<(), Failure>>,
{
    while !stop.is_cancelled() {
        if let Err(error) = consume_once().await {
            warn!(source, %error, "consuming again");
        }
        attached.store(false, Ordering::Relaxed);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

impl Platform {
    /// Does the work of an event that an edge has brought, counts it and writes it down; whether it succeeded.
    pub async fn deal(
        &self,
        edge: &'static str,
        message: &Message,
        work: impl Future<Output = Result<(), Failure>>,
    ) -> bool {
        let begin = Instant::now();
        let done = work.await;
        self.metrics.count(edge, done.is_ok());
        let (flow, id, hop, trace_id) = (message.flow.as_deref(), message.id, message.hop, message.trace_id());
        let duration_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &done {
            Ok(()) => info!(flow, id, hop, trace_id, duration_ms, "dealt with an event"),
            Err(error) => warn!(flow, id, hop, trace_id, duration_ms, %error, "failed to deal with an event"),
        }
        done.is_ok()
    }
}

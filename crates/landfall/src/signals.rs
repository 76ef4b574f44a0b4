//! The signals by which a person, the system or another process of this program tells it to stop.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, and the request to end. They are kept from when this exists: what has been begun by then can be ended in order.
pub(crate) struct StopSignals {
    interrupts: Signal,
    terminations: Signal,
}

impl StopSignals {
    pub(crate) fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            interrupts: signal(SignalKind::interrupt()).context("failed to listen for Ctrl-C")?,
            terminations: signal(SignalKind::terminate()).context("failed to listen for a signal to stop")?,
        })
    }

    /// Waits for the next one. May be dropped: a signal that comes meanwhile is kept.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupts.recv() => {}
            _ = self.terminations.recv() => {}
        }
    }
}

/// The request of another process of this program to go on in the place of this one: `SIGUSR1`. It is kept from when this exists;
/// before, the system ends a process that gets it.
pub(crate) struct HandoverRequests(Signal);

impl HandoverRequests {
    /// Must be called where a runtime is.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        Ok(Self(signal(SignalKind::user_defined1()).context("failed to listen for another process that takes over")?))
    }

    /// Waits for the next one. May be dropped: a signal that comes meanwhile is kept.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}

//! The signals by which a person or the system tells this program to stop.

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

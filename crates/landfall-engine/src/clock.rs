//! The wall clock of the engine: it can be offset and sped up, so that a day of schedules takes seconds.
//!
//! Schedules, windows, retention and time-to-live read this clock. Heartbeats, probes, grace periods and back-off use
//! tokio's monotonic time, which nobody turns: a real server beside the engine would not turn with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// A clock that several components share; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    setting: Arc<watch::Sender<Setting>>,
}

/// From `since` on, time runs from `from` with `speed`.
#[derive(Debug, Clone, Copy)]
struct Setting {
    since: Instant,
    from: Timestamp,
    speed: f64,
}

impl Clock {
    /// The clock of the machine.
    pub(crate) fn wall() -> Self {
        let setting = Setting { since: Instant::now(), from: Timestamp::now(), speed: 1.0 };
        Self { setting: Arc::new(watch::Sender::new(setting)) }
    }

    /// The time on this clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.read().now()
    }

    /// How long to wait, in real time, until this clock shows `time`. Zero when it is past.
    pub(crate) fn until(&self, time: Timestamp) -> Duration {
        let setting = self.read();
        let left = Duration::try_from(time.duration_since(setting.now())).unwrap_or_default();
        left.div_f64(setting.speed)
    }

    /// From now on, the clock shows `time` and runs `speed` times as fast as the machine's.
    ///
    /// # Panics
    ///
    /// When `speed` is not a positive number.
    pub(crate) fn set(&self, time: Timestamp, speed: f64) {
        assert!(speed.is_finite() && speed > 0.0, "a clock runs forward: speed {speed}");
        let setting = Setting { since: Instant::now(), from: time, speed };
        self.setting.send_replace(setting);
    }

    /// Tells when the clock was set: who waits for a time on it must reckon anew.
    pub(crate) fn set_times(&self) -> watch::Receiver<impl Sized + use<>> {
        self.setting.subscribe()
    }

    fn read(&self) -> Setting {
        *self.setting.borrow()
    }
}

impl Setting {
    fn now(&self) -> Timestamp {
        let elapsed = self.since.elapsed().mul_f64(self.speed);
        let elapsed = SignedDuration::try_from(elapsed).unwrap_or(SignedDuration::MAX);
        self.from.checked_add(elapsed).unwrap_or(Timestamp::MAX)
    }
}

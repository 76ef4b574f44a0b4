//! The wall clock of the engine: it can be offset and sped up, so that a day of schedules takes seconds.
//!
//! Schedules, windows, retention, time-to-live and the time stamps of objects and events read this clock. Heartbeats,
//! probes, grace periods and back-off use tokio's monotonic time, which nobody turns: a real server beside the engine would
//! not turn with it. For the same reason the status of pods has the time of the machine, and so has what is reckoned from
//! it: a process is not ready for longer because a clock was set. Tokens of service accounts have the time of the machine too: the
//! programs that hold them renew them by it.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// How fast a clock that runs may run: a thousand years of it fit into the arithmetic of durations, and a second of it passes.
pub(crate) const SPEEDS: RangeInclusive<f64> = 0.001..=100_000.0;

/// The longest wait for a time on a clock. Whoever waits is told when the clock is set, and looks again.
const LONGEST: Duration = Duration::from_hours(24 * 365);

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
    /// One of [`SPEEDS`]; zero: it stands still.
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

    /// How many times as fast as the machine's it runs.
    pub(crate) fn speed(&self) -> f64 {
        self.read().speed
    }

    /// How long to wait, in real time, until this clock shows `time`. Zero when it is past.
    pub(crate) fn until(&self, time: Timestamp) -> Duration {
        let setting = self.read();
        let left = Duration::try_from(time.duration_since(setting.now())).unwrap_or_default();
        match setting.speed {
            _ if left.is_zero() => left,
            0.0 => LONGEST,
            speed => left.div_f64(speed).min(LONGEST),
        }
    }

    /// From now on, the clock shows `time` and runs `speed` times as fast as the machine's. With a speed of zero it stands
    /// still.
    ///
    /// # Panics
    ///
    /// When `speed` is neither zero nor one of [`SPEEDS`].
    pub(crate) fn set(&self, time: Timestamp, speed: f64) {
        assert!(speed == 0.0 || SPEEDS.contains(&speed), "a clock does not run with speed {speed}");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_clock_that_stands_still_shows_one_time_until_it_is_set() {
        let clock = Clock::wall();
        clock.set(at("2030-01-01T00:00:00Z"), 0.0);
        assert_eq!((clock.now(), clock.now()), (at("2030-01-01T00:00:00Z"), at("2030-01-01T00:00:00Z")));
        assert_eq!(clock.until(at("2030-01-01T00:00:01Z")), LONGEST);
        assert_eq!(clock.until(at("2029-01-01T00:00:00Z")), Duration::ZERO);
    }

    #[test]
    fn a_fast_clock_is_waited_for_less() {
        let clock = Clock::wall();
        clock.set(at("2030-01-01T00:00:00Z"), 60.0);
        let wait = clock.until(at("2030-01-01T01:00:00Z"));
        assert!(wait <= Duration::from_mins(1) && wait > Duration::from_secs(50), "{wait:?}");
    }

    #[test]
    fn the_slowest_clock_can_be_waited_for_and_the_fastest_read() {
        let clock = Clock::wall();
        clock.set(Timestamp::MIN, *SPEEDS.start());
        assert_eq!(clock.until(Timestamp::MAX), LONGEST);
        clock.set(Timestamp::MAX, *SPEEDS.end());
        assert_eq!(clock.now(), Timestamp::MAX);
    }
}

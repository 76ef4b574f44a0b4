//! When what has failed is tried again.

use std::time::Duration;

use tokio::time::Instant;

/// How long after a failure of the API or of a volume the next attempt waits, at first and at most.
pub(super) const RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// When what has failed is tried again.
#[derive(Debug, Default)]
pub(super) struct Retry {
    pub(super) wait: Option<Duration>,
    pub(super) at: Option<Instant>,
}

impl Retry {
    pub(super) fn fail(&mut self) {
        let wait = self.wait.map_or(RETRY, |wait| (wait * 2).min(MAX_RETRY));
        self.wait = Some(wait);
        self.at = Some(Instant::now() + wait);
    }

    pub(super) fn waits(&self) -> bool {
        self.at.is_some_and(|at| at > Instant::now())
    }
}

/// As Go writes it: `10s`, `1m20s`, `5m0s`.
pub(super) fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, 0) => format!("{}ms", duration.as_millis()),
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (seconds, text) in [(10, "10s"), (80, "1m20s"), (300, "5m0s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
    }
}

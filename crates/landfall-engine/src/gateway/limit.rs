//! Rate limits: a token bucket for each client, or for whatever else a limit counts by.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderName, request};

/// When there are more buckets than this, those that are full again are forgotten: a full one and none are the same.
const MANY: usize = 8192;

/// So many requests in so much time, and so many at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Limit {
    pub(crate) count: u64,
    pub(crate) period: Duration,
    pub(crate) burst: u64,
    pub(crate) by: By,
}

/// Which requests a bucket is shared by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum By {
    /// The address of the client.
    Client,
    /// The host asked for: one bucket for the whole route, if it has one host.
    Host,
    /// The value of a header.
    Header(HeaderName),
}

impl Limit {
    /// How long it takes until there is one more token.
    fn interval(&self) -> Duration {
        let nanos = self.period.as_nanos() / u128::from(self.count.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[derive(Debug)]
pub(crate) struct Limiter {
    limit: Limit,
    /// When each bucket is full again.
    buckets: Mutex<HashMap<String, Instant>>,
}

impl Limiter {
    pub(crate) fn new(limit: Limit) -> Self {
        Self { limit, buckets: Mutex::new(HashMap::new()) }
    }

    /// Takes a token for a request, or says after which time there will be one.
    pub(crate) fn admit(
        &self,
        request: &request::Parts,
        host: &str,
        client: IpAddr,
        now: Instant,
    ) -> Result<(), Duration> {
        let key = match &self.limit.by {
            By::Client => client.to_string(),
            By::Host => host.to_owned(),
            By::Header(name) => {
                let value =
                    request.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
                value.unwrap_or_default()
            }
        };
        self.take(key, now)
    }

    fn take(&self, key: String, now: Instant) -> Result<(), Duration> {
        let interval = self.limit.interval();
        let capacity = interval.saturating_mul(u32::try_from(self.limit.burst.max(1)).unwrap_or(u32::MAX));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() > MANY {
            buckets.retain(|_, full| *full > now);
        }
        let full = buckets.get(&key).copied().unwrap_or(now).max(now);
        let after = full + interval;
        let over = (after - now).saturating_sub(capacity);
        if over.is_zero() {
            buckets.insert(key, after);
            Ok(())
        } else {
            Err(over)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(count: u64, period: Duration, burst: u64) -> Limiter {
        Limiter::new(Limit { count, period, burst, by: By::Client })
    }

    #[test]
    fn a_burst_passes_and_then_one_for_each_interval() {
        let limiter = limiter(10, Duration::from_secs(1), 3);
        let start = Instant::now();
        let take = |after: u64| limiter.take("a".to_owned(), start + Duration::from_millis(after));
        assert_eq!([take(0), take(0), take(0)], [Ok(()); 3]);
        assert_eq!(take(0), Err(Duration::from_millis(100)));
        assert_eq!(take(99), Err(Duration::from_millis(1)));
        assert_eq!(take(100), Ok(()));
        assert_eq!(take(150), Err(Duration::from_millis(50)));
        assert_eq!([take(10_000), take(10_000), take(10_000)], [Ok(()); 3]);
        assert!(take(10_000).is_err(), "a long silence fills no more than the burst");
    }

    #[test]
    fn one_client_does_not_use_up_the_tokens_of_another() {
        let limiter = limiter(1, Duration::from_mins(1), 1);
        let now = Instant::now();
        assert_eq!(limiter.take("a".to_owned(), now), Ok(()));
        assert!(limiter.take("a".to_owned(), now).is_err());
        assert_eq!(limiter.take("b".to_owned(), now), Ok(()));
    }

    #[test]
    fn full_buckets_are_forgotten_when_there_are_many() {
        let limiter = limiter(1000, Duration::from_secs(1), 1);
        let start = Instant::now();
        for client in 0..=MANY {
            assert_eq!(limiter.take(client.to_string(), start), Ok(()));
        }
        assert_eq!(limiter.take("late".to_owned(), start + Duration::from_secs(1)), Ok(()));
        assert_eq!(limiter.buckets.lock().expect("nobody panicked").len(), 1);
    }
}

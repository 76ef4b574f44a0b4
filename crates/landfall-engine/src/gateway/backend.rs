//! Who gets a request: a backend by its weight, then an endpoint by turns.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

use super::registry::Series;
use super::rule::HeaderEdits;

/// The backends of a rule.
#[derive(Debug)]
pub(crate) struct Backends {
    choices: Vec<Backend>,
    schedule: Schedule,
    turn: Arc<AtomicU64>,
}

#[derive(Debug)]
pub(crate) struct Backend {
    /// As figures name it: `shop/web:80`.
    pub(crate) name: Arc<str>,
    pub(crate) target: Target,
    pub(crate) protocol: Protocol,
    pub(crate) request: HeaderEdits,
    pub(crate) response: HeaderEdits,
    pub(crate) series: Arc<Series>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// Possibly none.
    Endpoints(Vec<SocketAddr>),
    /// The reference leads nowhere.
    Nowhere,
}

/// What a backend speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Http1,
    /// `appProtocol: kubernetes.io/h2c` of the Service's port (KEP-3726).
    Http2,
}

impl Backends {
    pub(crate) fn new(choices: Vec<(Backend, u32)>, turn: Arc<AtomicU64>) -> Self {
        let schedule = Schedule::new(choices.iter().map(|(_, weight)| *weight));
        Self { choices: choices.into_iter().map(|(backend, _)| backend).collect(), schedule, turn }
    }

    /// The next backend; `None` when no one has a weight.
    pub(crate) fn next(&self) -> Option<&Backend> {
        match self.choices.as_slice() {
            [only] if self.schedule.total == 1 => Some(only),
            choices => choices.get(self.schedule.pick(self.turn.fetch_add(1, Ordering::Relaxed))?),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Backend> {
        self.choices.iter()
    }
}

impl Backend {
    /// An endpoint, the next one each time.
    pub(crate) fn endpoint(&self) -> Result<SocketAddr, StatusCode> {
        match &self.target {
            Target::Nowhere => Err(StatusCode::INTERNAL_SERVER_ERROR),
            Target::Endpoints(endpoints) => match endpoints.as_slice() {
                [] => Err(StatusCode::SERVICE_UNAVAILABLE),
                [only] => Ok(*only),
                several => Ok(several[self.series.turn.fetch_add(1, Ordering::Relaxed) % several.len()]),
            },
        }
    }
}

/// Which of several choices has its turn, so that each gets exactly its weight of any run of as many turns as the
/// weights add up to, and not all of them in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Where the share of each choice ends.
    ends: Vec<u64>,
    total: u64,
    /// How far one turn is from the next on the circle of shares; it has no divisor in common with `total`, so that
    /// `total` turns visit each place once, and is near the golden section, which spreads them.
    stride: u64,
}

impl Schedule {
    pub(crate) fn new(weights: impl Iterator<Item = u32> + Clone) -> Self {
        let divisor = weights.clone().map(u64::from).fold(0, gcd).max(1);
        let mut total = 0;
        let ends = weights.map(|weight| {
            total += u64::from(weight) / divisor;
            total
        });
        let ends = ends.collect();
        let golden = total * 618 / 1000;
        let stride = (golden.max(1)..=total).find(|stride| gcd(*stride, total) == 1).unwrap_or(1);
        Self { ends, total, stride }
    }

    /// `None` when all weights are zero.
    pub(crate) fn pick(&self, turn: u64) -> Option<usize> {
        // Both factors are below the total, which is below 2^37: sixteen weights of at most 1,000,000 by the API.
        let place = u128::from(turn.checked_rem(self.total)?) * u128::from(self.stride) % u128::from(self.total);
        Some(self.ends.partition_point(|end| u128::from(*end) <= place))
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(weights: &[u32], from: u64) -> Vec<u64> {
        let schedule = Schedule::new(weights.iter().copied());
        let mut counts = vec![0; weights.len()];
        for turn in from..from + schedule.total {
            counts[schedule.pick(turn).expect("there is a weight")] += 1;
        }
        counts
    }

    proptest! {
        #[test]
        fn each_choice_gets_exactly_its_share_of_any_round(
            weights in prop::collection::vec(0_u32..300, 1..8),
            from in 0_u64..10_000,
        ) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let divisor = weights.iter().copied().map(u64::from).fold(0, gcd);
            let expected: Vec<u64> = weights.iter().map(|weight| u64::from(*weight) / divisor).collect();
            prop_assert_eq!(counts(&weights, from), expected);
        }

        #[test]
        fn a_choice_with_half_the_weight_never_waits_long(heavy in 2_u32..200) {
            let schedule = Schedule::new([heavy, heavy].into_iter());
            prop_assert_eq!(schedule.total, 2);
            prop_assert_ne!(schedule.pick(0), schedule.pick(1));
        }

        #[test]
        fn a_small_share_is_spread_over_the_round(share in 2_u32..20) {
            let schedule = Schedule::new([100 - share, share].into_iter());
            let turns: Vec<u64> = (0..2 * schedule.total).filter(|turn| schedule.pick(*turn) == Some(1)).collect();
            let longest = turns.windows(2).map(|pair| pair[1] - pair[0]).max().expect("several turns");
            // By the three-distance theorem the gaps of a golden stride differ by a small factor.
            prop_assert!(longest <= 4 * u64::from(100 / share), "{turns:?}");
        }
    }

    #[test]
    fn without_any_weight_nobody_has_a_turn() {
        assert_eq!(Schedule::new([0, 0].into_iter()).pick(3), None);
        assert_eq!(Schedule::new([].into_iter()).pick(0), None);
    }

    #[test]
    fn the_largest_weights_do_not_overflow() {
        let schedule = Schedule::new(std::iter::repeat_n(1_000_000, 15).chain([999_999]));
        assert!(schedule.pick(u64::MAX).is_some_and(|choice| choice < 16));
    }
}

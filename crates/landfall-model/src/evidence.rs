//! How many requests show that a declared limit is kept: the test by which canaries are judged, so that what is proved of a
//! file, what a plan says and what a verdict takes are the same numbers.
//!
//! A share of bad requests is judged by a sequential probability ratio test between two rates: the limit, which must not be
//! passed, and half of it, which must not be failed. With `b` bad and `g` good requests the evidence is
//! `b·ln(limit/half) + g·ln((1−limit)/(1−half))`. It fails at `ln(1/α)` and passes at `ln(β)`. Both ratios are martingales,
//! so by Ville's inequality a version at half of the limit or better is ever failed with a chance of at most α, and one at
//! the limit or worse is ever passed with a chance of at most β, however often one looks. A test of one sample, asked again
//! and again, keeps no such promise.

use crate::Percent;

/// Two rates, and the bounds of the evidence between them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    limit: f64,
    alpha: f64,
}

impl Evidence {
    /// The chance that a release is taken back although its version is at half of every limit or better.
    pub const FALSE_ROLLBACK: f64 = 0.05;

    /// The chance that a version at the limit or worse goes on.
    pub const MISSED_REGRESSION: f64 = 0.05;

    /// Below so many requests nobody is judged: the first ones fill caches and open connections.
    pub const FEWEST: u64 = 50;

    /// The share of requests that may be slower than a p99.
    pub const SLOWER_THAN_P99: f64 = 0.01;

    /// Between `limit`, a share of bad requests, and half of it. [`Self::FALSE_ROLLBACK`] is shared among as many verdicts as a
    /// release asks for. `None` when nothing can be shown: no number of requests says that every one succeeds, and any number
    /// keeps a limit of all of them.
    pub fn of_limit(limit: f64, verdicts: u32) -> Option<Self> {
        // Below a millionth it takes more requests than anybody sends.
        let can_be_shown = limit > 1e-6 && limit < 1.0;
        can_be_shown.then(|| Self { limit, alpha: Self::FALSE_ROLLBACK / f64::from(verdicts.max(1)) })
    }

    /// The same for the least share of requests that succeed.
    pub fn of_success(success: Percent, verdicts: u32) -> Option<Self> {
        Self::of_limit(1.0 - success.fraction(), verdicts)
    }

    /// The share of bad requests that must not be passed.
    pub fn limit(self) -> f64 {
        self.limit
    }

    /// The share of bad requests that must not be failed.
    pub fn half(self) -> f64 {
        self.limit / 2.0
    }

    /// The chance of a false alarm of this test alone.
    pub fn alpha(self) -> f64 {
        self.alpha
    }

    /// What so many requests show: positive evidence speaks for the limit, negative for half of it.
    pub fn weigh(self, bad: u64, good: u64) -> f64 {
        let (by_bad, by_good) = self.weights();
        float(bad) * by_bad + float(good) * by_good
    }

    /// The evidence at which a version fails.
    pub fn fails_at(self) -> f64 {
        -self.alpha.ln()
    }

    /// The evidence at which a version passes.
    pub fn passes_at() -> f64 {
        Self::MISSED_REGRESSION.ln()
    }

    /// How many good requests in a row pass: with fewer nothing ever does.
    pub fn least(self) -> u64 {
        whole(Self::passes_at() / self.weights().1).max(Self::FEWEST)
    }

    /// About how many requests a version at half of the limit needs to pass.
    pub fn usual(self) -> u64 {
        let (by_bad, by_good) = self.weights();
        whole(Self::passes_at() / (self.half() * by_bad + (1.0 - self.half()) * by_good)).max(Self::FEWEST)
    }

    /// What one bad and one good request weigh.
    fn weights(self) -> (f64, f64) {
        ((self.limit / self.half()).ln(), ((1.0 - self.limit) / (1.0 - self.half())).ln())
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

/// Rounded up; a cast saturates.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and a cast saturates")]
fn whole(value: f64) -> u64 {
    value.max(0.0).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(success: &str) -> Option<Evidence> {
        Evidence::of_success(success.parse().expect("a share"), 1)
    }

    #[test]
    fn a_success_of_99_percent_takes_595_good_requests() {
        let least = |success: &str| of(success).map(Evidence::least);
        assert_eq!(
            [least("99%"), least("99.5%"), least("99.9%"), least("50%")],
            [Some(595), Some(1_194), Some(5_987), Some(50)]
        );
    }

    #[test]
    fn nothing_shows_that_all_requests_succeed_or_that_none_has_to() {
        assert_eq!((of("100%"), of("0%")), (None, None));
    }

    #[test]
    fn as_many_good_requests_pass_and_one_less_does_not() {
        for limit in [0.001, 0.005, 0.01, 0.05] {
            let test = Evidence::of_limit(limit, 4).expect("it can be shown");
            let least = test.least();
            assert!(test.weigh(0, least) <= Evidence::passes_at() && test.weigh(0, least - 1) > Evidence::passes_at());
        }
    }
}

//! Whether a canary is good enough to go on: a verdict over counts, with numbers that one can check by hand.
//!
//! A share of bad requests is judged by the sequential test of [`Evidence`], between the declared limit and half of it: however often
//! one looks, it is wrong as rarely as it says.
//!
//! A p99 is a share, too: at most 1 % of the requests may be slower. Histogram buckets that the limit falls into count against
//! whichever verdict they could help.

use std::time::Duration;

use landfall_model::Evidence;
use serde::{Deserialize, Serialize};

use crate::metric::CanaryMetric;

/// So many requests without a single success end a canary at once.
pub(crate) const HOPELESS: u64 = 10;

/// An old version is seen to be good when its requests are so many times as likely at half of the limit as at the limit.
const GOOD: f64 = 3.0;

/// What a verdict may be. Only [`Verdict::Pass`] goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Good enough, with the declared certainty.
    Pass,
    /// Not good enough, with the declared certainty.
    Fail,
    /// Too few requests, or too little to tell them apart.
    Inconclusive,
    /// No request at all.
    NoData,
}

impl Verdict {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
            Self::NoData => "no data",
        }
    }
}

/// What a version does, and is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// It answers requests.
    Requests,
    /// It processes messages, which it takes from queues.
    Messages,
}

impl Work {
    /// The word for one.
    pub(crate) fn one(self) -> &'static str {
        match self {
            Self::Requests => "request",
            Self::Messages => "message",
        }
    }

    /// The word for several.
    pub(crate) fn many(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Messages => "messages",
        }
    }
}

/// Requests that one version has answered, or messages that it has processed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Answered, and not with 5xx; processed without an error.
    pub good: u64,
    /// Answered with 5xx, or not at all; processed with an error.
    pub bad: u64,
    /// How many took at most so many seconds, by growing bounds; those above the last are in none.
    pub buckets: Vec<(f64, u64)>,
    /// How many were timed.
    pub timed: u64,
}

impl Counts {
    /// All requests.
    pub fn total(&self) -> u64 {
        self.good + self.bad
    }

    /// What was counted after `earlier`. `None` when the counter has begun anew.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let mut buckets = Vec::new();
        for (bound, count) in &self.buckets {
            let before =
                earlier.buckets.iter().find(|(other, _)| other.total_cmp(bound).is_eq()).map_or(0, |(_, count)| *count);
            buckets.push((*bound, count.checked_sub(before)?));
        }
        Some(Self {
            good: self.good.checked_sub(earlier.good)?,
            bad: self.bad.checked_sub(earlier.bad)?,
            buckets,
            timed: self.timed.checked_sub(earlier.timed)?,
        })
    }

    /// Slower than `limit`: surely, and perhaps.
    fn slower(&self, limit: f64) -> (u64, u64) {
        // A bucket that ends at the limit, within what decimal fractions lose, decides.
        let at_most = self.buckets.iter().rfind(|(bound, _)| *bound <= limit * (1.0 + 1e-9));
        let at_least = self.buckets.iter().find(|(bound, _)| *bound >= limit * (1.0 - 1e-9));
        let surely_fast = at_most.map_or(0, |(_, count)| *count);
        let perhaps_fast = at_least.map_or(self.timed, |(_, count)| *count);
        (self.timed.saturating_sub(perhaps_fast), self.timed.saturating_sub(surely_fast))
    }

    /// The bucket in which the slowest of 99 of 100 requests is: above which bound, and up to which.
    fn p99(&self) -> Option<(f64, Option<f64>)> {
        let rank = self.timed - self.timed / 100;
        if self.timed == 0 {
            return None;
        }
        let place = self.buckets.iter().position(|(_, count)| *count >= rank);
        let above = place.unwrap_or(self.buckets.len()).checked_sub(1).map_or(0.0, |before| self.buckets[before].0);
        Some((above, place.map(|place| self.buckets[place].0)))
    }
}

/// What a canary must reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Judge {
    /// The share of requests that may fail; above zero and below one.
    pub failures: Option<f64>,
    /// The slowest answer that 99 of 100 requests may get, in milliseconds.
    pub p99_ms: Option<u64>,
    /// How many verdicts the release asks for in all: α is shared among them.
    pub verdicts: u32,
    /// Figures that a Prometheus has, each with its bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<CanaryMetric>,
}

/// A verdict with everything that led to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// The whole.
    pub verdict: Verdict,
    /// How many requests the canary has answered.
    pub requests: u64,
    /// Each thing that is judged, with its numbers.
    pub lines: Vec<String>,
}

impl Analysis {
    /// The same with what else is judged: the worst of all counts. Where nothing was judged before, that alone.
    pub(crate) fn beside(mut self, more: impl IntoIterator<Item = (Verdict, String)>) -> Self {
        let mut verdicts = if self.lines.is_empty() { Vec::new() } else { vec![self.verdict] };
        for (verdict, line) in more {
            verdicts.push(verdict);
            self.lines.push(line);
        }
        self.verdict = worst(&verdicts);
        self
    }

    /// The verdict with its numbers, on one line.
    pub(crate) fn summary(&self) -> String {
        format!("{}: {}", self.verdict.as_str(), self.lines.join("; "))
    }
}

/// What so many requests show.
pub(crate) fn verdict(test: Evidence, bad: u64, good: u64) -> Verdict {
    let evidence = test.weigh(bad, good);
    if bad + good == 0 {
        Verdict::NoData
    } else if bad + good < Evidence::FEWEST {
        Verdict::Inconclusive
    } else if evidence >= test.fails_at() {
        Verdict::Fail
    } else if evidence <= Evidence::passes_at() {
        Verdict::Pass
    } else {
        Verdict::Inconclusive
    }
}

/// The same, so that one can check it by hand.
fn derivation(test: Evidence, work: Work, what: &str, bad: u64, good: u64) -> String {
    if bad + good == 0 {
        return format!("{what}: no {}", work.one());
    }
    let (limit, half) = (percent(test.limit()), percent(test.half()));
    let evidence = test.weigh(bad, good);
    let (passes_at, fails_at) = (Evidence::passes_at(), test.fails_at());
    let bound = match verdict(test, bad, good) {
        Verdict::NoData => unreachable!("there are requests"),
        Verdict::Inconclusive if bad + good < Evidence::FEWEST => {
            format!("fewer than {} {}", Evidence::FEWEST, work.many())
        }
        Verdict::Fail => format!("≥ {fails_at:.2} = ln(1/{:.4}): fail", test.alpha()),
        Verdict::Pass => format!("≤ {passes_at:.2} = ln({}): pass", Evidence::MISSED_REGRESSION),
        Verdict::Inconclusive => format!("between {passes_at:.2} (pass) and {fails_at:.2} (fail): inconclusive"),
    };
    let share = float(bad) / float(bad + good);
    format!(
        "{what}: {bad} of {} ({}, at most {limit}): {bad}·ln({limit}/{half}) + {good}·ln({}/{}) = {evidence:.2} {bound}",
        bad + good,
        percent(share),
        percent(1.0 - test.limit()),
        percent(1.0 - test.half()),
    )
}

/// Judges a canary by its work beside that of the old version at the same time.
pub(crate) fn analyse(judge: &Judge, work: Work, canary: &Counts, stable: &Counts) -> Analysis {
    let mut lines = Vec::new();
    let mut verdicts = Vec::new();
    if canary.good == 0 && canary.bad >= HOPELESS {
        let (bad, many) = (canary.bad, work.many());
        let line = format!("success: not one of {bad} {many}; {HOPELESS} without a success are a failure");
        return Analysis { verdict: Verdict::Fail, requests: canary.bad, lines: vec![line] };
    }
    if let Some(test) = judge.failures.and_then(|limit| Evidence::of_limit(limit, judge.verdicts)) {
        lines.push(derivation(test, work, "failed", canary.bad, canary.good));
        let verdict = verdict(test, canary.bad, canary.good);
        verdicts.push(excuse(verdict, test, (canary.bad, canary.good), (stable.bad, stable.good), &mut lines));
    }
    if let Some(limit) = judge.p99_ms.map(Duration::from_millis)
        && let Some(test) = Evidence::of_limit(Evidence::SLOWER_THAN_P99, judge.verdicts)
    {
        let (surely, perhaps) = canary.slower(limit.as_secs_f64());
        let against = (surely, canary.timed.saturating_sub(surely));
        let towards = (perhaps, canary.timed.saturating_sub(perhaps));
        // What is uncertain counts against a failure while it is one, and against a pass otherwise.
        let (bad, good) = if verdict(test, against.0, against.1) == Verdict::Fail { against } else { towards };
        let verdict = match verdict(test, bad, good) {
            Verdict::Fail if (bad, good) != against => Verdict::Inconclusive,
            verdict => verdict,
        };
        let place = canary.p99().map_or_else(String::new, |(above, to)| match to {
            Some(to) => format!("; the p99 is between {} and {}", seconds(above), seconds(to)),
            None => format!("; the p99 is above {}", seconds(above)),
        });
        let what = format!("slower than {}", seconds(limit.as_secs_f64()));
        lines.push(format!("{}{place}", derivation(test, work, &what, bad, good)));
        if perhaps != surely {
            lines.push(format!(
                "no bucket ends at {}: {} {} may be on either side, and count against either verdict",
                seconds(limit.as_secs_f64()),
                perhaps - surely,
                work.many()
            ));
        }
        let (slow, _) = stable.slower(limit.as_secs_f64());
        verdicts.push(excuse(verdict, test, (bad, good), (slow, stable.timed.saturating_sub(slow)), &mut lines));
    }
    Analysis { verdict: worst(&verdicts), requests: canary.total(), lines }
}

/// The one that decides of several; without any there is nothing to judge by.
fn worst(verdicts: &[Verdict]) -> Verdict {
    let worst = [Verdict::Fail, Verdict::NoData, Verdict::Inconclusive, Verdict::Pass];
    worst.into_iter().find(|verdict| verdicts.contains(verdict)).unwrap_or(Verdict::NoData)
}

/// A canary that fails beside an old version that is not seen to be good shows nothing about its own, unless it is shown to be worse:
/// something else may be wrong. The old version need not have failed itself, as one of two that are alike comes there first.
fn excuse(found: Verdict, test: Evidence, canary: (u64, u64), old: (u64, u64), lines: &mut Vec<String>) -> Verdict {
    if found != Verdict::Fail || old.0 + old.1 == 0 || test.weigh(old.0, old.1) <= -GOOD.ln() {
        return found;
    }
    let (of_canary, of_old) = (canary.0 + canary.1, old.0 + old.1);
    let evidence = twice_as_bad(canary, old);
    let (is_worse, bound) = (evidence >= test.fails_at(), test.fails_at());
    let (sign, said) = if is_worse { ("≥", "fail") } else { ("<", "inconclusive") };
    lines.push(format!(
        "the old version beside it: {} of {of_old}; that the canary is twice as bad: {}·ln(2/(1+q)) − {}·ln(1+q) = {evidence:.2} {sign} {bound:.2}, q = {of_canary}/{}: {said}",
        old.0,
        canary.0,
        old.0,
        of_canary + of_old
    ));
    if is_worse { Verdict::Fail } else { Verdict::Inconclusive }
}

/// How much the bad requests speak for a canary that is twice as bad as the old version, and against one that is as bad: each is the
/// canary's with the chance of its share `q` of all requests, or of `2q/(1+q)`. A sequential test like [`Evidence`]: it is above
/// ln(1/α) at any time with a chance of at most α when both are alike and the shares stay. Each side is bad and good requests.
fn twice_as_bad(canary: (u64, u64), old: (u64, u64)) -> f64 {
    let of_canary = float(canary.0 + canary.1);
    let share = of_canary / (of_canary + float(old.0 + old.1)).max(1.0);
    float(canary.0) * (2.0 / (1.0 + share)).ln() - float(old.0) * (1.0 + share).ln()
}

/// `0.5%`, with as many digits as say something.
fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}%")
}

fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{} ms", (seconds * 1e6).round() / 1e3) } else { format!("{seconds} s") }
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// Rounded up; a cast saturates.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and a cast saturates")]
pub(crate) fn whole(value: f64) -> u64 {
    value.max(0.0).ceil() as u64
}

#[cfg(test)]
mod tests;

//! Own metrics of a canary: figures that a Prometheus has, each with its bound. Pure.
//!
//! A figure is no share of counted requests: there is no exact test of it, and nobody knows how often its verdict is wrong. Samples are
//! taken as often as the file says. Three in a row beyond the bound fail, three in a row within it pass, and what is between waits.
//! What has no number is no data and begins the row anew, so silence never goes forward.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::analysis::Verdict;
use crate::plan::PrometheusAt;
use crate::release::ReleaseStatus;

/// So many samples in a row on one side of the bound decide.
const IN_A_ROW: u32 = landfall_model::CanaryMetric::SAMPLES;

/// A figure with its bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryMetric {
    /// What it is called.
    pub name: String,
    /// What the Prometheus is asked, as the file has it.
    pub query: String,
    /// What it must keep.
    pub bound: Bound,
    /// The time between two samples.
    pub every_seconds: u64,
}

/// What a figure must keep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::enum_variant_names, reason = "the words of the file, which signed releases have as well")]
pub enum Bound {
    /// It is no greater.
    AtMost(f64),
    /// It is no less.
    AtLeast(f64),
    /// It is no greater than so many times what the old version has.
    AtMostOfStable(f64),
    /// It is no less than so many times what the old version has.
    AtLeastOfStable(f64),
}

impl Bound {
    /// Whether the old version is asked, too.
    pub(crate) fn is_relative(self) -> bool {
        matches!(self, Self::AtMostOfStable(_) | Self::AtLeastOfStable(_))
    }

    /// Whether a value keeps it beside what the old version has. Multiplied and not divided, so that of nothing there is a verdict
    /// as well: nothing is at most 1.2 times nothing.
    fn is_kept(self, value: f64, stable: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
            Self::AtMostOfStable(most) => value <= most * stable,
            Self::AtLeastOfStable(least) => value >= least * stable,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "at most {most}"),
            Self::AtLeast(least) => write!(f, "at least {least}"),
            Self::AtMostOfStable(most) => write!(f, "at most {most} times the old version's"),
            Self::AtLeastOfStable(least) => write!(f, "at least {least} times the old version's"),
        }
    }
}

/// What a Prometheus says when it is asked for one number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// The number.
    Value(f64),
    /// It has none; why.
    NoData(String),
    /// It does not take the question, or nobody answers; in what words.
    Refused(String),
}

impl Answer {
    /// The number; otherwise, why there is none.
    fn number(&self) -> Result<f64, String> {
        match self {
            Self::Value(value) => Ok(*value),
            Self::NoData(why) | Self::Refused(why) => Err(why.clone()),
        }
    }
}

/// What a Prometheus says of the own metrics of a canary when it is asked for the copies that run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// Where it is; `None` where there is none.
    pub(crate) at: Option<PrometheusAt>,
    /// Of each metric, in the order of the file.
    pub(crate) answers: Vec<Answer>,
}

/// A sample of one of the metrics by which a canary is judged.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// Which metric, from zero.
    pub(crate) metric: usize,
    pub(crate) answer: Answer,
    /// The answer for the old version over the same time, where the bound is relative to them.
    pub(crate) stable: Option<Answer>,
}

/// The samples of a metric in one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Samples {
    /// Its name.
    pub metric: String,
    /// When the last was taken.
    pub at: String,
    /// Where the last was.
    pub side: Side,
    /// What the last was, if it was a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// What the old version had at the same time, if it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<f64>,
    /// Why it was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How many in a row were there.
    pub in_a_row: u32,
    /// How many were taken.
    pub all: u32,
    /// How many of them were within the bound.
    pub within: u32,
}

/// Where a sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    /// It keeps the bound.
    Within,
    /// It does not.
    Beyond,
    /// There was no number.
    NoData,
}

/// A regular expression of the names of the pods of a Deployment: behind its name they have the hash of the template and five
/// characters. Those of its canary have one part more.
pub(crate) fn pods_of(deployment: &str) -> String {
    format!("{deployment}-[a-z0-9]+-[a-z0-9]{{5}}")
}

impl CanaryMetric {
    /// As the file declares it.
    pub(crate) fn of(declared: &landfall_model::CanaryMetric) -> Self {
        let given = [
            declared.at_most.as_ref().map(|most| Bound::AtMost(most.value)),
            declared.at_least.as_ref().map(|least| Bound::AtLeast(least.value)),
            declared.at_most_of_stable.as_ref().map(|most| Bound::AtMostOfStable(most.value)),
            declared.at_least_of_stable.as_ref().map(|least| Bound::AtLeastOfStable(least.value)),
        ];
        Self {
            name: declared.name.to_string(),
            query: declared.query.value.clone(),
            bound: given.into_iter().flatten().next().expect("whoever reads the file refuses a metric without a bound"),
            every_seconds: declared.every.seconds(),
        }
    }

    /// How long it takes at least until it is decided.
    pub(crate) fn least_seconds(&self) -> u64 {
        u64::from(IN_A_ROW) * self.every_seconds
    }

    /// What is asked for the pods of a Deployment over the last seconds.
    pub(crate) fn expression(&self, namespace: &str, deployment: &str, window_seconds: u64) -> String {
        let window = format!("{}s", window_seconds.max(1));
        let query = self.query.replace("{{pods}}", &pods_of(deployment));
        query.replace("{{namespace}}", namespace).replace("{{window}}", &window)
    }

    /// What a plan says of it; otherwise, why it cannot be had.
    pub(crate) fn planned(&self, answer: &Answer) -> Result<String, String> {
        let now = match answer {
            Answer::Value(value) => format!("it is {value}"),
            Answer::NoData(why) => format!("there is no data: {why}"),
            Answer::Refused(why) => return Err(why.clone()),
        };
        Ok(format!(
            "`{}` {}: a sample each {} s, and {IN_A_ROW} in a row decide, after {} s at least, by no exact test; now, of the copies that run, {now}",
            self.name,
            self.bound,
            self.every_seconds,
            self.least_seconds(),
        ))
    }

    /// What its samples show, and the line that says so.
    pub(crate) fn judged(&self, samples: Option<&Samples>) -> (Verdict, String) {
        let Self { name, bound, .. } = self;
        let Some(samples) = samples else {
            return (Verdict::Inconclusive, format!("`{name}` {bound}: no sample yet"));
        };
        let Samples { in_a_row, all, within, .. } = samples;
        let of_all = format!("{within} of {all} samples were within");
        let (side, decided) = match samples.side {
            Side::NoData => {
                let why = samples.why.as_deref().unwrap_or("nobody says why");
                return (Verdict::NoData, format!("`{name}` {bound}: no data: {why}; {of_all}"));
            }
            Side::Within => ("within", Verdict::Pass),
            Side::Beyond => ("beyond", Verdict::Fail),
        };
        let verdict = if *in_a_row >= IN_A_ROW { decided } else { Verdict::Inconclusive };
        let value = samples.numbers();
        let line = format!(
            "`{name}` {bound}: {value} is {side}, {in_a_row} in a row, {IN_A_ROW} decide: {}; {of_all}",
            verdict.as_str()
        );
        (verdict, line)
    }
}

impl Samples {
    /// The last numbers, as a verdict has them.
    fn numbers(&self) -> String {
        let value = self.value.map(|value| value.to_string()).unwrap_or_default();
        match (self.value, self.stable) {
            (Some(own), Some(stable)) if stable > 0.0 => {
                let ratio = (own / stable * 1000.0).round() / 1000.0;
                format!("{value}, {ratio} times its {stable},")
            }
            (_, Some(stable)) => format!("{value} beside its {stable}"),
            (_, None) => value,
        }
    }
}

impl Sample {
    /// Its number, and that of the old version where it was asked; otherwise, why there is nothing to judge.
    fn numbers(&self) -> Result<(f64, Option<f64>), String> {
        let value = self.answer.number()?;
        let Some(stable) = &self.stable else { return Ok((value, None)) };
        let stable = stable.number().map_err(|why| format!("of the old version: {why}"))?;
        if stable < 0.0 {
            return Err(format!("the old version has {stable}, of which nothing is a multiple"));
        }
        Ok((value, Some(stable)))
    }
}

impl ReleaseStatus {
    /// The metrics of a step of which a sample is to be taken, by their places.
    pub(crate) fn due(&self, metrics: &[CanaryMetric], now: Timestamp) -> Vec<usize> {
        // Before its requests are counted, a canary has nothing to show.
        if self.windows.is_empty() {
            return Vec::new();
        }
        let is_due = |metric: &CanaryMetric| {
            let last = self.samples_of(metric).and_then(|known| known.at.parse::<Timestamp>().ok());
            let age = last.map(|last| u64::try_from(now.duration_since(last).as_secs()).unwrap_or_default());
            age.unwrap_or_else(|| self.age_seconds(now)) >= metric.every_seconds
        };
        metrics.iter().enumerate().filter(|(_, metric)| is_due(metric)).map(|(place, _)| place).collect()
    }

    /// The samples of a metric in this step.
    pub(crate) fn samples_of(&self, metric: &CanaryMetric) -> Option<&Samples> {
        self.metrics.iter().find(|known| known.metric == metric.name)
    }

    /// Notes a sample.
    pub(crate) fn note_sample(&mut self, metric: &CanaryMetric, sample: &Sample, now: Timestamp) {
        let (side, value, stable, why) = match sample.numbers() {
            Ok((value, stable)) => {
                let is_kept = metric.bound.is_kept(value, stable.unwrap_or_default());
                (if is_kept { Side::Within } else { Side::Beyond }, Some(value), stable, None)
            }
            Err(why) => (Side::NoData, None, None, Some(why)),
        };
        let before = self.samples_of(metric);
        let in_a_row = before.filter(|before| before.side == side).map_or(0, |before| before.in_a_row) + 1;
        let samples = Samples {
            metric: metric.name.clone(),
            at: now.to_string(),
            side,
            value,
            stable,
            why,
            in_a_row,
            all: before.map_or(0, |before| before.all) + 1,
            within: before.map_or(0, |before| before.within) + u32::from(side == Side::Within),
        };
        self.metrics.retain(|known| known.metric != metric.name);
        self.metrics.push(samples);
    }
}

#[cfg(test)]
mod tests;

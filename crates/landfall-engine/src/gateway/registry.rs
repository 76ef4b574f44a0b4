//! What outlives a route table: figures, turns and the state of rate limits. A table is built anew at each change.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;

use super::limit::{Limit, Limiter};

/// Upper bounds of the latency histogram, in microseconds; closer together where objectives usually are.
const BOUNDS: [u64; 24] = [
    500, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000, 20_000, 30_000, 50_000, 75_000, 100_000, 150_000, 200_000,
    250_000, 300_000, 400_000, 500_000, 750_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

/// `1xx` to `5xx`, and requests whose client went away before there was an answer.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "aborted"];

/// Picks one of the figures.
type Counter = fn(&Series) -> &AtomicU64;

/// Of which route, and what it says.
type LimiterKey = (Arc<str>, Limit);

/// Of which route, and of which of its backends.
type SeriesKey = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
pub(crate) struct Registry {
    series: Mutex<BTreeMap<SeriesKey, Arc<Series>>>,
    turns: Mutex<HashMap<String, Arc<AtomicU64>>>,
    limiters: Mutex<HashMap<LimiterKey, Arc<Limiter>>>,
}

/// The figures of a route, or of one of its backends.
#[derive(Debug, Default)]
pub(crate) struct Series {
    classes: [AtomicU64; CLASSES.len()],
    limited: AtomicU64,
    retries: AtomicU64,
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
    /// Which endpoint is next.
    pub(super) turn: AtomicUsize,
}

impl Series {
    pub(crate) fn record(&self, status: Option<StatusCode>, elapsed: Duration) {
        let class = status.map_or(CLASSES.len() - 1, |status| usize::from(status.as_u16() / 100 - 1).min(4));
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS.partition_point(|bound| *bound < micros)].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(crate) fn limited(&self) {
        self.limited.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }
}

impl Registry {
    /// The figures of a route and one of its backends; an empty backend is the gateway's own answers.
    pub(crate) fn series(&self, route: &Arc<str>, backend: &Arc<str>) -> Arc<Series> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(series.entry((Arc::clone(route), Arc::clone(backend))).or_default())
    }

    /// Whose turn it is in a rule.
    pub(crate) fn turn(&self, rule: String) -> Arc<AtomicU64> {
        Arc::clone(self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(rule).or_default())
    }

    /// The state of a route's limit; a changed limit begins anew.
    pub(crate) fn limiter(&self, route: &Arc<str>, limit: &Limit) -> Arc<Limiter> {
        let mut limiters = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = limiters.entry((Arc::clone(route), limit.clone()));
        Arc::clone(entry.or_insert_with(|| Arc::new(Limiter::new(limit.clone()))))
    }

    /// Forgets limits that no table has any more.
    pub(crate) fn prune(&self) {
        let mut limiters = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
        limiters.retain(|_, limiter| Arc::strong_count(limiter) > 1);
    }

    /// All figures in Prometheus' text format
    /// (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>).
    pub(crate) fn metrics(&self) -> String {
        let series: Vec<_> = {
            let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
            series.iter().map(|(key, series)| (key.clone(), Arc::clone(series))).collect()
        };
        let labelled = series.iter().map(|((route, backend), series)| {
            (format!("route=\"{}\",backend=\"{}\"", escaped(route), escaped(backend)), series)
        });
        let labelled: Vec<_> = labelled.collect();
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("text takes everything");

        line(format_args!("# HELP gateway_requests_total Requests, by the class of the answer."));
        line(format_args!("# TYPE gateway_requests_total counter"));
        for (labels, series) in &labelled {
            for (class, count) in CLASSES.iter().zip(&series.classes) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    line(format_args!("gateway_requests_total{{{labels},class=\"{class}\"}} {count}"));
                }
            }
        }
        let counters: [(&str, &str, Counter); 2] = [
            ("gateway_rate_limited_total", "Requests that a rate limit refused.", |series| &series.limited),
            ("gateway_retries_total", "Attempts at another endpoint.", |series| &series.retries),
        ];
        for (name, help, counter) in counters {
            line(format_args!("# HELP {name} {help}"));
            line(format_args!("# TYPE {name} counter"));
            for (labels, series) in &labelled {
                line(format_args!("{name}{{{labels}}} {}", counter(series).load(Ordering::Relaxed)));
            }
        }
        line(format_args!("# HELP gateway_request_duration_seconds From the head of a request to the last byte out."));
        line(format_args!("# TYPE gateway_request_duration_seconds histogram"));
        for (labels, series) in &labelled {
            let mut total = 0;
            for (bound, bucket) in BOUNDS.iter().map(|bound| Some(*bound)).chain([None]).zip(&series.buckets) {
                total += bucket.load(Ordering::Relaxed);
                let bound =
                    bound.map_or("+Inf".to_owned(), |bound| Duration::from_micros(bound).as_secs_f64().to_string());
                line(format_args!("gateway_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {total}"));
            }
            let sum = Duration::from_micros(series.micros.load(Ordering::Relaxed)).as_secs_f64();
            line(format_args!("gateway_request_duration_seconds_sum{{{labels}}} {sum}"));
            line(format_args!("gateway_request_duration_seconds_count{{{labels}}} {total}"));
        }
        text
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_cumulative_and_survive_a_new_table() {
        let registry = Registry::default();
        let (route, backend): (Arc<str>, Arc<str>) = ("HTTPRoute/shop/web".into(), "shop/web:80".into());
        registry.series(&route, &backend).record(Some(StatusCode::OK), Duration::from_micros(700));
        registry.series(&route, &backend).record(Some(StatusCode::BAD_GATEWAY), Duration::from_secs(20));
        let text = registry.metrics();
        let labels = "route=\"HTTPRoute/shop/web\",backend=\"shop/web:80\"";
        for line in [
            format!("gateway_requests_total{{{labels},class=\"2xx\"}} 1"),
            format!("gateway_requests_total{{{labels},class=\"5xx\"}} 1"),
            format!("gateway_request_duration_seconds_bucket{{{labels},le=\"0.0005\"}} 0"),
            format!("gateway_request_duration_seconds_bucket{{{labels},le=\"0.001\"}} 1"),
            format!("gateway_request_duration_seconds_bucket{{{labels},le=\"10\"}} 1"),
            format!("gateway_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 2"),
            format!("gateway_request_duration_seconds_count{{{labels}}} 2"),
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }
}

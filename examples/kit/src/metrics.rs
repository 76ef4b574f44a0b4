//! What a service counts, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use crate::Failure;

/// How long anybody whom a service talks to may take, retries included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Upper bounds of the buckets in seconds: those that OpenTelemetry recommends for HTTP.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

#[derive(Default)]
struct Histogram {
    /// Each counts what is not in an earlier one.
    buckets: [u64; BOUNDS.len()],
    count: u64,
    seconds: f64,
}

/// How often something was done, and how often it failed.
#[derive(Debug, Clone, Copy, Default)]
struct Outcomes {
    carried: u64,
    failed: u64,
}

/// What a service counts.
pub struct Metrics {
    edges: Mutex<BTreeMap<&'static str, Outcomes>>,
    /// By method and status.
    answers: Mutex<BTreeMap<(String, u16), Histogram>>,
    /// What the business counts: a name, and whether it is a share.
    business: Mutex<BTreeMap<(&'static str, bool), Outcomes>>,
}

impl Metrics {
    /// `edges` are those of the service, as the architecture declares them.
    pub fn new(edges: &[&'static str]) -> Self {
        let edges = edges.iter().map(|edge| (*edge, Outcomes::default())).collect();
        Self { edges: Mutex::new(edges), answers: Mutex::default(), business: Mutex::default() }
    }

    /// Uses an edge of the architecture, and counts it.
    pub async fn edge<T>(
        &self,
        edge: &'static str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let done = tokio::time::timeout(PATIENCE, work).await;
        let done = done.unwrap_or_else(|_| Err(format!("no answer after {PATIENCE:?}").into()));
        let done = done.map_err(|error| Failure::from(format!("{edge}: {error}")));
        self.count(edge, done.is_ok());
        done
    }

    /// Counts that an edge was used.
    pub fn count(&self, edge: &'static str, carried: bool) {
        add(&self.edges, edge, carried);
    }

    /// Counts something of the business: how often it happened.
    pub fn happened(&self, name: &'static str) {
        add(&self.business, (name, false), true);
    }

    /// Counts something of the business of which the share is asked that succeeded.
    pub fn share(&self, name: &'static str, succeeded: bool) {
        add(&self.business, (name, true), succeeded);
    }

    /// Counts an answer to a request.
    pub(crate) fn answered(&self, method: &str, status: u16, after: Duration) {
        let seconds = after.as_secs_f64();
        let mut answers = self.answers.lock().expect("nothing panics while it counts");
        let histogram = answers.entry((method.to_owned(), status)).or_default();
        if let Some(place) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            histogram.buckets[place] += 1;
        }
        histogram.count += 1;
        histogram.seconds += seconds;
    }

    /// All of it, for Prometheus.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let name = "http_server_request_duration_seconds";
        head(&mut text, name, "How long answers to requests took.", "histogram");
        for ((method, status), histogram) in self.answers.lock().expect("nothing panics while it counts").iter() {
            let labels = format!("http_request_method=\"{method}\",http_response_status_code=\"{status}\"");
            let mut total = 0;
            for (bound, bucket) in BOUNDS.iter().zip(histogram.buckets) {
                total += bucket;
                let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
            }
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", histogram.count);
            let _ = writeln!(text, "{name}_sum{{{labels}}} {}", histogram.seconds);
            let _ = writeln!(text, "{name}_count{{{labels}}} {}", histogram.count);
        }
        let name = "landfall_edge_operations_total";
        head(&mut text, name, "What an edge of the architecture has carried or failed to carry.", "counter");
        for (edge, outcomes) in self.edges.lock().expect("nothing panics while it counts").iter() {
            for (result, count) in [("carried", outcomes.carried), ("failed", outcomes.failed)] {
                let _ = writeln!(text, "{name}{{edge=\"{edge}\",result=\"{result}\"}} {count}");
            }
        }
        for ((name, is_share), outcomes) in self.business.lock().expect("nothing panics while it counts").iter() {
            if *is_share {
                head(&mut text, name, "What the business asks for: a share.", "gauge");
                #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
                let share = outcomes.carried as f64 / (outcomes.carried + outcomes.failed) as f64;
                let _ = writeln!(text, "{name} {share}");
            } else {
                head(&mut text, &format!("{name}_total"), "What the business counts.", "counter");
                let _ = writeln!(text, "{name}_total {}", outcomes.carried);
            }
        }
        text
    }
}

fn add<K: Ord>(counts: &Mutex<BTreeMap<K, Outcomes>>, key: K, succeeded: bool) {
    let mut counts = counts.lock().expect("nothing panics while it counts");
    let outcomes = counts.entry(key).or_default();
    if succeeded {
        outcomes.carried += 1;
    } else {
        outcomes.failed += 1;
    }
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

//! What a stand-in counts, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::behaviour::{BusinessCount, CountKind, EdgeSeen};

/// Upper bounds of the buckets in seconds: those that OpenTelemetry recommends for HTTP.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The type of the text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug, Default)]
struct Histogram {
    /// Each counts what is not in an earlier one.
    buckets: [u64; BOUNDS.len()],
    count: u64,
    seconds: f64,
}

/// Durations by their labels, which are written as Prometheus has them: `edge="a call b"`.
#[derive(Debug, Default)]
pub(crate) struct Durations(Mutex<BTreeMap<String, Histogram>>);

impl Durations {
    pub(crate) fn observe(&self, labels: String, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let mut all = self.0.lock().expect("nothing panics while it counts");
        let histogram = all.entry(labels).or_default();
        if let Some(place) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            histogram.buckets[place] += 1;
        }
        histogram.count += 1;
        histogram.seconds += seconds;
    }

    pub(crate) fn write(&self, name: &str, help: &str, text: &mut String) {
        head(text, name, help, "histogram");
        for (labels, histogram) in self.0.lock().expect("nothing panics while it counts").iter() {
            let mut total = 0;
            for (bound, bucket) in BOUNDS.iter().zip(histogram.buckets) {
                total += bucket;
                line(text, &format!("{name}_bucket{{{labels},le=\"{bound}\"}}"), total);
            }
            line(text, &format!("{name}_bucket{{{labels},le=\"+Inf\"}}"), histogram.count);
            line(text, &format!("{name}_sum{{{labels}}}"), histogram.seconds);
            line(text, &format!("{name}_count{{{labels}}}"), histogram.count);
        }
    }
}

/// What passed through the service, as the business counts it.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    active: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
}

impl Passed {
    pub(crate) fn begin(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self, succeeded: bool) {
        self.active.fetch_sub(1, Ordering::Relaxed);
        if succeeded { &self.done } else { &self.failed }.fetch_add(1, Ordering::Relaxed);
    }

    /// Names are those of the file, with `_` for `-`; a counter ends in `_total`, as Prometheus wants it.
    pub(crate) fn write(&self, counts: &[BusinessCount], text: &mut String) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let help = "What the business counts, as far as a stand-in can: the messages that pass through it.";
        for count in counts {
            let name = count.name.replace('-', "_");
            match count.kind {
                CountKind::Counter => {
                    head(text, &format!("{name}_total"), help, "counter");
                    line(text, &format!("{name}_total"), read(&self.done));
                }
                CountKind::Gauge => {
                    head(text, &name, help, "gauge");
                    line(text, &name, read(&self.active));
                }
                CountKind::Ratio => {
                    let (done, failed) = (read(&self.done), read(&self.failed));
                    head(text, &name, help, "gauge");
                    // A share of nothing is no number.
                    #[expect(clippy::cast_precision_loss, reason = "counts of messages are far below 2^52")]
                    if done + failed > 0 {
                        line(text, &name, done as f64 / (done + failed) as f64);
                    }
                }
            }
        }
    }
}

/// The counter of edges.
const EDGES: &str = "landfall_edge_operations_total";

/// How often each edge was used, as the metrics of a program say it.
pub fn edges_told(text: &str) -> BTreeMap<String, EdgeSeen> {
    let mut edges = BTreeMap::<String, EdgeSeen>::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(EDGES).and_then(|rest| rest.strip_prefix('{')) else { continue };
        let Some((labels, value)) = rest.rsplit_once('}') else { continue };
        let value = value.split_whitespace().next().and_then(|value| value.parse::<f64>().ok());
        let (Some(edge), Some(result), Some(value)) = (read_label(labels, "edge"), read_label(labels, "result"), value)
        else {
            continue;
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count is a whole number")]
        let value = value.max(0.0) as u64;
        let seen = edges.entry(edge).or_default();
        match result.as_str() {
            "carried" => seen.carried += value,
            "failed" => seen.failed += value,
            _ => {}
        }
    }
    edges
}

/// The value of `name="value"` among labels.
fn read_label(labels: &str, name: &str) -> Option<String> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    let (mut value, mut escaped) = (String::new(), false);
    for character in rest.chars() {
        match (escaped, character) {
            (true, 'n') => value.push('\n'),
            (true, other) => value.push(other),
            (false, '\\') => {}
            (false, '"') => return Some(value),
            (false, other) => value.push(other),
        }
        escaped = !escaped && character == '\\';
    }
    None
}

/// How often each edge was used.
pub(crate) fn write_edges(edges: &BTreeMap<String, EdgeSeen>, text: &mut String) {
    let name = EDGES;
    head(text, name, "What a declared edge has carried or failed to carry.", "counter");
    for (edge, seen) in edges {
        let edge = label("edge", edge);
        line(text, &format!("{name}{{{edge},result=\"carried\"}}"), seen.carried);
        line(text, &format!("{name}{{{edge},result=\"failed\"}}"), seen.failed);
    }
}

/// `name="value"`, with what cannot stand in a value escaped.
pub(crate) fn label(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// The labels that OpenTelemetry's conventions give a message which was processed, with the kind of its error if it has failed.
pub(crate) fn processed(system: &str, destination: &str, error: Option<&str>) -> String {
    let mut labels = vec![
        label("messaging_system", system),
        label("messaging_destination_name", destination),
        label("messaging_operation_name", "process"),
    ];
    labels.extend(error.map(|error| label("error_type", error)));
    labels.join(",")
}

/// Figures that it was told to have.
pub(crate) fn write_gauges(gauges: &BTreeMap<String, f64>, text: &mut String) {
    for (name, value) in gauges {
        head(text, name, "What it was told to tell.", "gauge");
        line(text, name, value);
    }
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, series: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{series} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_all_that_was_faster() {
        let durations = Durations::default();
        for ms in [3, 30, 30, 20_000] {
            durations.observe(label("edge", "a \"b\""), Duration::from_millis(ms));
        }
        let mut text = String::new();
        durations.write("d_seconds", "How long.", &mut text);
        let shown: Vec<_> = text
            .lines()
            .filter(|line| ["\"0.005\"", "\"0.05\"", "\"10\"", "+Inf", "_sum"].iter().any(|part| line.contains(part)))
            .collect();
        assert_eq!(
            shown,
            [
                r#"d_seconds_bucket{edge="a \"b\"",le="0.005"} 1"#,
                r#"d_seconds_bucket{edge="a \"b\"",le="0.05"} 3"#,
                r#"d_seconds_bucket{edge="a \"b\"",le="10"} 3"#,
                r#"d_seconds_bucket{edge="a \"b\"",le="+Inf"} 4"#,
                r#"d_seconds_sum{edge="a \"b\""} 20.063"#,
            ]
        );
    }

    #[test]
    fn what_is_counted_of_edges_is_read_again() {
        let seen = |carried, failed| EdgeSeen { carried, failed, ..EdgeSeen::default() };
        let edges = BTreeMap::from([
            ("web call stock".to_owned(), seen(3, 1)),
            ("web write \"ledger\"\\x".to_owned(), seen(0, 2)),
        ]);
        let mut text = String::new();
        write_edges(&edges, &mut text);
        assert_eq!(edges_told(&text), edges);
        let others = "other_total{edge=\"a\",result=\"carried\"} 1\nlandfall_edge_operations_total 4\n";
        assert_eq!(edges_told(others), BTreeMap::new());
        let elsewhere = "landfall_edge_operations_total{result=\"carried\",edge=\"a b c\",pod=\"x\"} 7e0 1700000000\n";
        assert_eq!(edges_told(elsewhere), BTreeMap::from([("a b c".to_owned(), seen(7, 0))]));
    }

    #[test]
    fn a_message_that_has_failed_is_told_from_others() {
        let durations = Durations::default();
        durations.observe(processed("kafka", "orders", None), Duration::from_millis(3));
        durations.observe(processed("kafka", "orders", Some("_OTHER")), Duration::from_millis(3));
        let mut text = String::new();
        durations.write("messaging_process_duration_seconds", "How long.", &mut text);
        let shown: Vec<_> = text.lines().filter(|line| line.contains("_count")).collect();
        assert_eq!(
            shown,
            [
                r#"messaging_process_duration_seconds_count{messaging_system="kafka",messaging_destination_name="orders",messaging_operation_name="process"} 1"#,
                r#"messaging_process_duration_seconds_count{messaging_system="kafka",messaging_destination_name="orders",messaging_operation_name="process",error_type="_OTHER"} 1"#,
            ]
        );
    }

    #[test]
    fn the_business_counts_what_passes() {
        let passed = Passed::default();
        let counts = [
            BusinessCount { name: "alerts-sent".to_owned(), kind: CountKind::Counter },
            BusinessCount { name: "delivered".to_owned(), kind: CountKind::Ratio },
        ];
        let text = |passed: &Passed| {
            let mut text = String::new();
            passed.write(&counts, &mut text);
            text.lines().filter(|line| !line.starts_with('#')).map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(text(&passed), ["alerts_sent_total 0"]);
        for succeeded in [true, true, true, false] {
            passed.begin();
            passed.end(succeeded);
        }
        assert_eq!(text(&passed), ["alerts_sent_total 3", "delivered 0.75"]);
    }
}

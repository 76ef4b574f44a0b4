//! Prometheus' text format: <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.
//!
//! A text with a line that is not of the format is refused as a whole, as Prometheus does it. What OpenMetrics adds is read
//! too: `_total` beside its family, exemplars, `# EOF`. The buckets of histograms and the quantiles of summaries are left
//! out, as their sum says nothing.
//!
//! Not handled: names in quotes, which may have any character.

use std::collections::{BTreeMap, HashMap};

use crate::api::node_agent::Labels;

/// How the values of a metric are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only grows, and begins again at zero with its process.
    Counter,
    /// It is as it is.
    Gauge,
}

/// One name, with its series.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Metric {
    pub(super) kind: Kind,
    pub(super) series: BTreeMap<Labels, f64>,
}

/// By name, as the samples have it.
pub(super) type Metrics = BTreeMap<String, Metric>;

/// A text that is not of the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(super) struct Malformed {
    line: usize,
    what: &'static str,
}

/// What `# TYPE` says of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

pub(super) fn parse(text: &str) -> Result<Metrics, Malformed> {
    let mut types: HashMap<&str, Type> = HashMap::new();
    let mut metrics = Metrics::new();
    for (index, line) in text.lines().enumerate() {
        let malformed = |what: &'static str| Malformed { line: index + 1, what };
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if let Some(comment) = line.strip_prefix('#') {
            if let Some((name, of)) = type_of(comment).map_err(malformed)?
                && types.insert(name, of).is_some()
            {
                return Err(malformed("a second TYPE of the same metric"));
            }
            continue;
        }
        let sample = sample(line).map_err(malformed)?;
        let Some(kind) = kind(sample.name, &types) else { continue };
        let new = || Metric { kind, series: BTreeMap::new() };
        let metric = metrics.entry(sample.name.to_owned()).or_insert_with(new);
        if metric.series.insert(sample.labels, sample.value).is_some() {
            return Err(malformed("the same name with the same labels again"));
        }
    }
    Ok(metrics)
}

/// Reads what follows `#`. None: it is a comment, or help.
fn type_of(comment: &str) -> Result<Option<(&str, Type)>, &'static str> {
    let mut words = comment.split_whitespace();
    if words.next() != Some("TYPE") {
        return Ok(None);
    }
    let (Some(name), Some(of), None) = (words.next(), words.next(), words.next()) else {
        return Err("TYPE takes a name and a type");
    };
    if !is_name(name) {
        return Err("TYPE names no metric");
    }
    let of = match of {
        "counter" => Type::Counter,
        "histogram" => Type::Histogram,
        "summary" => Type::Summary,
        "gauge" | "untyped" | "unknown" | "info" | "stateset" | "gaugehistogram" => Type::Gauge,
        _ => return Err("there is no such TYPE"),
    };
    Ok(Some((name, of)))
}

/// How a sample is meant, by its name and the types that were told before it. None: it is a part of a distribution.
fn kind(name: &str, types: &HashMap<&str, Type>) -> Option<Kind> {
    match types.get(name) {
        Some(Type::Counter) => return Some(Kind::Counter),
        Some(Type::Gauge) => return Some(Kind::Gauge),
        // The quantiles of a summary have the name of their family.
        Some(Type::Histogram | Type::Summary) => return None,
        None => {}
    }
    let of = |suffix: &str, wanted: &[Type]| {
        let family = name.strip_suffix(suffix).and_then(|family| types.get(family));
        family.is_some_and(|family| wanted.contains(family))
    };
    let distributions = [Type::Histogram, Type::Summary];
    if of("_bucket", &[Type::Histogram]) {
        None
    } else if of("_total", &[Type::Counter]) || of("_count", &distributions) || of("_sum", &distributions) {
        Some(Kind::Counter)
    } else {
        Some(Kind::Gauge)
    }
}

struct Sample<'a> {
    name: &'a str,
    labels: Labels,
    value: f64,
}

fn sample(line: &str) -> Result<Sample<'_>, &'static str> {
    let end = line.find(|letter: char| !is_part_of_a_name(letter)).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    if !is_name(name) {
        return Err("it begins with no name of a metric");
    }
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Labels::new(), rest),
    };
    let mut words = rest.split_whitespace();
    let value = words.next().and_then(|word| word.parse().ok()).ok_or("its value is no number")?;
    match (words.next(), words.next()) {
        // An exemplar follows.
        (None | Some("#"), _) => {}
        (Some(time), None | Some("#")) if time.parse::<f64>().is_ok() => {}
        _ => return Err("what follows its value is no time"),
    }
    Ok(Sample { name, labels, value })
}

/// Reads the labels after `{`, and says what follows `}`.
fn labels(mut rest: &str) -> Result<(Labels, &str), &'static str> {
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok((labels, rest));
        }
        let (name, after) = rest.split_once('=').ok_or("its labels do not end")?;
        let name = name.trim_end();
        if !is_name(name) || name.contains(':') {
            return Err("it has a label without a name");
        }
        let after = after.trim_start().strip_prefix('"').ok_or("the value of a label is not in quotes")?;
        let (value, after) = quoted(after)?;
        if labels.insert(name.to_owned(), value).is_some() {
            return Err("it has the same label twice");
        }
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(next) => next,
            None if after.starts_with('}') => after,
            None => return Err("there is no comma between two labels"),
        };
    }
}

/// Reads up to the closing quote, and says what follows it.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((place, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, &text[place + 1..])),
            '\\' => match letters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                _ => return Err("there is no such escape in the value of a label"),
            },
            other => value.push(other),
        }
    }
    Err("the value of a label does not end")
}

fn is_part_of_a_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.starts_with(|first: char| first.is_ascii_digit()) && text.chars().all(is_part_of_a_name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each metric with its kind, its series and their values, one a line.
    fn shown(text: &str) -> String {
        match parse(text) {
            Err(malformed) => malformed.to_string(),
            Ok(metrics) => {
                let lines = metrics.iter().flat_map(|(name, metric)| {
                    let kind = metric.kind;
                    metric.series.iter().map(move |(labels, value)| format!("{kind:?} {name} {labels:?} {value}"))
                });
                lines.collect::<Vec<_>>().join("\n")
            }
        }
    }

    /// The example of Prometheus' own documentation, shortened.
    #[test]
    fn the_example_of_the_documentation_is_read() {
        let text = r#"
# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="post",code="400"}    3 1395066363000

# Escaping in label values:
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1.458255915e9

# Minimalistic line:
metric_without_timestamp_and_labels 12.47

# A weird metric from before the epoch:
something_weird{problem="division by zero"} +Inf -3982045

# HELP http_request_duration_seconds A histogram of the request duration.
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{le="0.05"} 24054
http_request_duration_seconds_bucket{le="+Inf"} 144320
http_request_duration_seconds_sum 53423
http_request_duration_seconds_count 144320

# TYPE rpc_duration_seconds summary
rpc_duration_seconds{quantile="0.01"} 3102
rpc_duration_seconds_sum 1.7560473e+07
rpc_duration_seconds_count 2693
"#;
        insta::assert_snapshot!(shown(text), @r#"
        Counter http_request_duration_seconds_count {} 144320
        Counter http_request_duration_seconds_sum {} 53423
        Counter http_requests_total {"code": "200", "method": "post"} 1027
        Counter http_requests_total {"code": "400", "method": "post"} 3
        Gauge metric_without_timestamp_and_labels {} 12.47
        Gauge msdos_file_access_time_seconds {"error": "Cannot find file:\n\"FILE.TXT\"", "path": "C:\\DIR\\FILE.TXT"} 1458255915
        Counter rpc_duration_seconds_count {} 2693
        Counter rpc_duration_seconds_sum {} 17560473
        Gauge something_weird {"problem": "division by zero"} inf
        "#);
    }

    #[test]
    fn what_open_metrics_adds_is_read_too() {
        let text = r#"# TYPE jobs counter
jobs_total{kind="a",} 5 # {trace_id="x"} 1 1.5
jobs_created 1.7e9
# TYPE waiting gauge
waiting { kind = "a" , kind2="b" }3 1.5 # {trace_id="x"} 1
# EOF
"#;
        insta::assert_snapshot!(shown(text), @r#"
        Gauge jobs_created {} 1700000000
        Counter jobs_total {"kind": "a"} 5
        Gauge waiting {"kind": "a", "kind2": "b"} 3
        "#);
    }

    #[test]
    fn a_text_with_a_line_of_another_format_is_refused_with_the_line() {
        for (text, expected) in [
            ("<html>", "line 1: it begins with no name of a metric"),
            ("a 1\n1a 1", "line 2: it begins with no name of a metric"),
            ("a", "line 1: its value is no number"),
            ("a one", "line 1: its value is no number"),
            ("a 1 soon", "line 1: what follows its value is no time"),
            ("a 1 2 3", "line 1: what follows its value is no time"),
            ("a{b=\"c\" 1", "line 1: there is no comma between two labels"),
            ("a{b=c} 1", "line 1: the value of a label is not in quotes"),
            ("a{b=\"c} 1", "line 1: the value of a label does not end"),
            ("a{b=\"\\c\"} 1", "line 1: there is no such escape in the value of a label"),
            ("a{b} 1", "line 1: its labels do not end"),
            ("a{=\"c\"} 1", "line 1: it has a label without a name"),
            ("a{b=\"c\",b=\"d\"} 1", "line 1: it has the same label twice"),
            ("a{b=\"c\"} 1\n\na{b=\"c\"} 2", "line 3: the same name with the same labels again"),
            ("# TYPE a counter\n# TYPE a gauge", "line 2: a second TYPE of the same metric"),
            ("# TYPE a guage", "line 1: there is no such TYPE"),
            ("# TYPE a", "line 1: TYPE takes a name and a type"),
        ] {
            assert_eq!(shown(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            labels in prop::collection::btree_map("[a-zA-Z_][a-zA-Z0-9_]{0,8}", any::<String>(), 0..4),
            value in any::<f64>().prop_filter("NaN is not equal to itself", |value| !value.is_nan()),
        ) {
            // The format is one of lines, and has an escape for no other end of a line.
            let labels: Labels = labels.into_iter().map(|(name, value)| (name, value.replace('\r', ""))).collect();
            let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let written: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let metrics = parse(&format!("m{{{}}} {value}\n", written.join(","))).expect("it is of the format");
            prop_assert_eq!(&metrics["m"].series, &BTreeMap::from([(labels, value)]));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}

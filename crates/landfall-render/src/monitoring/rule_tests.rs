//! Unit tests of the alerts, for `promtool test rules`.
//!
//! Each alert is shown once to be raised, and once not to be. Requests are counted in whole numbers, so that a share of
//! failures is exact and the summary that a person will read can be compared too.

use std::collections::BTreeMap;

use landfall_model::Service;
use serde_json::Value;

use super::Stack;
use crate::json::json;
use crate::kubernetes::monitoring::{Objective, number, scraped_port, speaks_http};

/// When the alerts are looked at: every one of them lasts at most an hour.
const LATE: &str = "75m";

/// Requests in a minute, of which a share fails: a share to six digits is a whole number of them.
const REQUESTS: u64 = 1_000_000;

pub(super) fn write(stack: &mut Stack<'_>) {
    let mut files: Vec<(String, Value)> = Vec::new();
    for (name, service) in &stack.architecture.document.services {
        if scraped_port(service).is_none() {
            continue;
        }
        let Some(watched) = Watched::of(stack, name.as_str()) else { continue };
        files.push((watched.path(), watched.file(watched.of_service(stack, service))));
    }
    for name in stack.architecture.document.stores.keys() {
        let Some(watched) = Watched::of(stack, name.as_str()) else { continue };
        files.push((watched.path(), watched.file(watched.of_store())));
    }
    for (path, value) in files {
        stack.yaml(
            path,
            "`promtool test rules` raises each alert, and sees that it is not raised for nothing.",
            &value,
        );
    }
}

/// The alerts of a service or store.
struct Watched {
    name: String,
    namespace: String,
    /// By their names, as rendered.
    alerts: BTreeMap<String, Value>,
}

/// What is expected of one alert at a time.
enum Expected {
    Raised {
        /// What `{{ $value | humanizePercentage }}` and `{{ $value }}` become.
        value: String,
    },
    Silent,
}

impl Watched {
    fn of(stack: &Stack<'_>, name: &str) -> Option<Self> {
        let object = stack.of_kind("PrometheusRule").find(|object| object.name() == name)?;
        let groups = object.value["spec"]["groups"].as_array().into_iter().flatten();
        let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
        let alerts = rules.filter_map(|rule| Some((rule["alert"].as_str()?.to_owned(), rule.clone()))).collect();
        Some(Self { name: name.to_owned(), namespace: object.namespace().unwrap_or_default().to_owned(), alerts })
    }

    fn path(&self) -> String {
        format!("prometheus/tests/{}/{}.yaml", self.namespace, self.name)
    }

    fn file(&self, tests: Vec<Value>) -> Value {
        json!({
            "rule_files": [format!("../../rules/{}/{}.yaml", self.namespace, self.name)],
            "evaluation_interval": "1m",
            "tests": tests,
        })
    }

    /// The expectation of an alert at a time; nothing when there is no such alert, because a patch removed it.
    fn expect(&self, at: &str, alert: &str, expected: &Expected) -> Option<Value> {
        let rule = self.alerts.get(alert)?;
        let mut test = json!({ "eval_time": at, "alertname": alert });
        if let Expected::Raised { value } = expected {
            let mut annotations = rule["annotations"].as_object().cloned().unwrap_or_default();
            for text in annotations.values_mut() {
                let written = text.as_str().unwrap_or_default();
                let filled = written
                    .replace("{{ $value | humanizePercentage }}", &format!("{value}%"))
                    .replace("{{ $value }}", value);
                *text = Value::from(filled);
            }
            test["exp_alerts"] = json!([{ "exp_labels": rule["labels"].clone(), "exp_annotations": annotations }]);
        } else {
            test["exp_alerts"] = json!([]);
        }
        Some(test)
    }

    fn test(name: &str, series: Vec<Value>, expected: Vec<Option<Value>>) -> Value {
        json!({
            "name": name,
            "interval": "1m",
            "input_series": series,
            "alert_rule_test": expected.into_iter().flatten().collect::<Vec<_>>(),
        })
    }

    fn of_service(&self, stack: &Stack<'_>, service: &Service) -> Vec<Value> {
        let up = |value: u64| self.series("up", "", &format!("{value}x80"));
        let down = || Expected::Raised { value: "0".to_owned() };
        let mut tests = vec![
            Self::test(
                "a service that cannot be scraped is down",
                vec![up(0)],
                vec![self.expect("5m", "ServiceDown", &down())],
            ),
            Self::test("a service that is nowhere is down", vec![], vec![self.expect("5m", "ServiceDown", &down())]),
            Self::test(
                "a service that answers is not down",
                vec![up(1)],
                vec![self.expect("5m", "ServiceDown", &Expected::Silent)],
            ),
        ];
        if !speaks_http(service) {
            return tests;
        }
        let objective = Objective::of(stack.architecture, service);
        tests.extend(self.of_budget(&objective.burn_limits()));
        if let Some(p99) = objective.p99 {
            tests.extend(self.of_latency(p99.as_secs_f64()));
        }
        tests
    }

    /// For each limit a share of failures just above it, which raises the alerts up to this one and no other, one below
    /// all of them, and a failure that has ended.
    fn of_budget(&self, limits: &[(&'static str, f64)]) -> Vec<Value> {
        let Some(lowest) = limits.iter().map(|(_, limit)| *limit).reduce(f64::min) else { return Vec::new() };
        let failing = |share: Share| {
            let code = |code: &str, each: u64| {
                let labels = format!(",http_response_status_code=\"{code}\"");
                self.series("http_server_request_duration_seconds_count", &labels, &format!("0+{each}x80"))
            };
            vec![code("200", REQUESTS - share.failed), code("500", share.failed)]
        };
        let mut tests = Vec::new();
        for (alert, limit) in limits {
            let Some(share) = Share::above(*limit) else { continue };
            let expected = limits.iter().map(|(other, other_limit)| {
                let raised = share.fraction() > *other_limit;
                let expected = if raised { Expected::Raised { value: share.percent() } } else { Expected::Silent };
                self.expect(LATE, other, &expected)
            });
            tests.push(Self::test(
                &format!("{} % of failures raise {alert}", share.percent()),
                failing(share),
                expected.collect(),
            ));
        }
        if let Some(share) = Share::below(lowest) {
            let expected = limits.iter().map(|(alert, _)| self.expect(LATE, alert, &Expected::Silent)).collect();
            tests.push(Self::test(
                &format!("{} % of failures are within the budget", share.percent()),
                failing(share),
                expected,
            ));
        }
        if let Some((alert, _)) = limits.iter().find(|(alert, _)| alert.ends_with("1h")) {
            let code = |code: &str, values: &str| {
                let labels = format!(",http_response_status_code=\"{code}\"");
                self.series("http_server_request_duration_seconds_count", &labels, values)
            };
            // Twenty minutes of nothing but failures, then none.
            let series = vec![code("200", "0x20 0+1000x60"), code("500", "0+1000x20 20000x60")];
            let while_it_lasts = Expected::Raised { value: "100".to_owned() };
            let expected =
                vec![self.expect("20m", alert, &while_it_lasts), self.expect("30m", alert, &Expected::Silent)];
            tests.push(Self::test("an alert ends soon after the failure", series, expected));
        }
        tests
    }

    fn of_latency(&self, limit: f64) -> Vec<Value> {
        let buckets = |fast: u64| {
            [(limit, fast), (limit * 4.0, 1000)]
                .into_iter()
                .map(|(bound, each)| (number(bound), each))
                .chain([("+Inf".to_owned(), 1000)])
                .map(|(bound, each)| {
                    let labels = format!(",le=\"{bound}\"");
                    self.series("http_server_request_duration_seconds_bucket", &labels, &format!("0+{each}x80"))
                })
                .collect()
        };
        let slow = Expected::Raised { value: String::new() };
        vec![
            Self::test(
                "two slow requests in a hundred are too many",
                buckets(980),
                vec![self.expect(LATE, "RequestsSlow", &slow)],
            ),
            Self::test(
                "one slow request in a thousand is not",
                buckets(999),
                vec![self.expect(LATE, "RequestsSlow", &Expected::Silent)],
            ),
        ]
    }

    fn of_store(&self) -> Vec<Value> {
        let down = Expected::Raised { value: "0".to_owned() };
        vec![Self::test(
            "a store without a member that is ready is down",
            vec![],
            vec![self.expect("5m", "StoreDown", &down), self.expect("0m", "StoreDown", &Expected::Silent)],
        )]
    }

    fn series(&self, metric: &str, labels: &str, values: &str) -> Value {
        let series = format!("{metric}{{namespace=\"{}\",service=\"{}\"{labels}}}", self.namespace, self.name);
        json!({ "series": series, "values": values })
    }
}

/// A share of requests that fail, as a whole number of [`REQUESTS`] with at most four digits that count: as many as
/// Prometheus prints.
#[derive(Clone, Copy)]
struct Share {
    failed: u64,
}

impl Share {
    /// A little more than the limit; nothing when that is more than all of them.
    fn above(limit: f64) -> Option<Self> {
        let share = Self::rounded(limit * 1.05, 1);
        (share.fraction() > limit && share.failed <= REQUESTS).then_some(share)
    }

    /// Half of the limit; nothing when that is less than one request.
    fn below(limit: f64) -> Option<Self> {
        Some(Self::rounded(limit * 0.5, 0)).filter(|share| share.failed > 0)
    }

    /// To three digits, and `more` units of the last of them.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a million is small and not negative"
    )]
    fn rounded(share: f64, more: u64) -> Self {
        let failed = (share * REQUESTS as f64).floor().max(0.0) as u64;
        let unit = 10_u64.pow(failed.checked_ilog10().unwrap_or(0).saturating_sub(2));
        Self { failed: (failed / unit + more) * unit }
    }

    #[expect(clippy::cast_precision_loss, reason = "a million is small")]
    fn fraction(self) -> f64 {
        self.failed as f64 / REQUESTS as f64
    }

    /// In hundredths, as `humanizePercentage` writes it.
    fn percent(self) -> String {
        number(self.fraction() * 100.0)
    }
}

//! What a Prometheus has gathered of the pods of each version: the counters that OpenTelemetry gives an HTTP server, which the
//! rendered alerts read, too, and those that it gives whoever processes messages.
//!
//! Whatever it does not answer is no count: a release then holds until its deadline.

use std::time::Duration;

use http::Request;
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::client::Body;
use kube::{Api, Client, Config, ResourceExt as _};
use serde_json::Value;
use tracing::debug;

use crate::analysis::{Counts, Work};
use crate::metric::{Answer, pods_of};
use crate::plan::PrometheusAt;

/// The histogram of how long requests took, by status, or of how long messages took, by the kind of their error.
pub(super) fn histogram(work: Work) -> &'static str {
    match work {
        Work::Requests => "http_server_request_duration_seconds",
        Work::Messages => "messaging_process_duration_seconds",
    }
}

/// The label of that histogram by which failures are known.
fn outcome(work: Work) -> &'static str {
    match work {
        Work::Requests => "http_response_status_code",
        Work::Messages => "error_type",
    }
}

/// Whether what has this in that label is a failure. A message without an error has no such label.
fn is_failure(work: Work, outcome: &str) -> bool {
    match work {
        Work::Requests => outcome.starts_with('5'),
        Work::Messages => !outcome.is_empty(),
    }
}

/// The label by which Prometheus' operator marks the Service in front of each Prometheus.
const OPERATED: &str = "operated-prometheus=true";

/// How long it may take to answer. A release looks again soon.
const PATIENCE: Duration = Duration::from_secs(5);

/// A Prometheus that can be asked.
#[derive(Clone)]
pub(crate) struct Prometheus {
    client: Client,
    /// What comes before `/api/v1/query` in the path.
    prefix: String,
}

impl Prometheus {
    /// The one at a place. `Err` says why nobody can be asked there.
    pub(crate) fn at(cluster: &Client, at: &PrometheusAt) -> Result<Self, String> {
        match at {
            PrometheusAt::Service { namespace, name } => Ok(Self {
                client: cluster.clone(),
                prefix: format!("/api/v1/namespaces/{namespace}/services/{name}/proxy"),
            }),
            PrometheusAt::Url(url) => {
                let parsed: http::Uri = url.parse().map_err(|error| format!("`{url}` is no URL: {error}"))?;
                let mut config = Config::new(parsed);
                (config.connect_timeout, config.read_timeout) = (Some(PATIENCE), Some(PATIENCE));
                let client = Client::try_from(config).map_err(|error| error.to_string())?;
                Ok(Self { client, prefix: String::new() })
            }
        }
    }

    /// The one that an operator runs in the cluster, if there is one and we may know.
    pub(crate) async fn find(cluster: &Client) -> Option<PrometheusAt> {
        let services = Api::<Service>::all(cluster.clone()).list(&ListParams::default().labels(OPERATED)).await;
        let service = services.ok()?.items.into_iter().next()?;
        let port = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).next()?.port;
        Some(PrometheusAt::Service {
            namespace: service.namespace().unwrap_or_default(),
            name: format!("{}:{port}", service.name_any()),
        })
    }

    /// What the pods of a Deployment have done; `None` when there are no such counters, or nobody answers.
    pub(crate) async fn counts(&self, work: Work, namespace: &str, deployment: &str) -> Option<Counts> {
        match self.try_counts(work, namespace, deployment).await {
            Ok(counts) => counts,
            Err(why) => {
                debug!(deployment, why, work = work.many(), "Prometheus does not say how many there were");
                None
            }
        }
    }

    /// The same, with why it is not known.
    pub(crate) async fn try_counts(
        &self,
        work: Work,
        namespace: &str,
        deployment: &str,
    ) -> Result<Option<Counts>, String> {
        let (histogram, label) = (histogram(work), outcome(work));
        let of = format!("namespace=\"{namespace}\",pod=~\"{}\"", pods_of(deployment));
        let by_outcome = self.query(&format!("sum by ({label}) ({histogram}_count{{{of}}})")).await?;
        if by_outcome.is_empty() {
            return Ok(None);
        }
        let mut counts = Counts::default();
        for (outcome, count) in by_outcome {
            counts.timed += count;
            if is_failure(work, &outcome) {
                counts.bad += count;
            } else {
                counts.good += count;
            }
        }
        let by_bound = self.query(&format!("sum by (le) ({histogram}_bucket{{{of}}})")).await?;
        let bounds = by_bound.into_iter().filter_map(|(bound, count)| Some((bound.parse::<f64>().ok()?, count)));
        counts.buckets = bounds.filter(|(bound, _)| bound.is_finite()).collect();
        counts.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Failures and durations are asked for one after the other.
        counts.timed = counts.buckets.last().map_or(counts.timed, |(_, most)| counts.timed.max(*most));
        Ok(Some(counts))
    }

    /// The values of an expression by their only label, in whole numbers.
    async fn query(&self, expression: &str) -> Result<Vec<(String, u64)>, String> {
        let answer = self.ask(expression).await?;
        let series = answer["data"]["result"].as_array().into_iter().flatten();
        Ok(series.filter_map(value).collect())
    }

    /// The one number that an expression is.
    pub(crate) async fn number(&self, expression: &str) -> Answer {
        match self.ask(expression).await {
            Ok(answer) => number(&answer),
            Err(why) => Answer::Refused(why),
        }
    }

    /// The answer to an expression. `Err` is in the words of Prometheus where it has some.
    async fn ask(&self, expression: &str) -> Result<Value, String> {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("query", expression).finish();
        let request = Request::get(format!("{}/api/v1/query?{query}", self.prefix)).body(Body::from(Vec::<u8>::new()));
        let request = request.map_err(|error| error.to_string())?;
        // What Prometheus does not take is said in the body of a refusal, which is no `Status` of Kubernetes.
        let (head, body) = self.client.send(request).await.map_err(|error| error.to_string())?.into_parts();
        let body = body.collect_bytes().await.map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if head.status.is_success() && answer["status"] == "success" {
            return Ok(answer);
        }
        let said = answer["error"].as_str().or_else(|| answer["message"].as_str());
        Err(said.map_or_else(
            || format!("what answers with {} is no Prometheus", head.status),
            |said| said.trim().to_owned(),
        ))
    }
}

/// The one number of an answer.
fn number(answer: &Value) -> Answer {
    let data = &answer["data"];
    let series = data["result"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = match (data["resultType"].as_str().unwrap_or("nothing"), series) {
        ("scalar", [_, value]) => value,
        ("vector", []) => return Answer::NoData("there is no such series".to_owned()),
        ("vector", [one]) => &one["value"][1],
        ("vector", more) => {
            return Answer::Refused(format!(
                "it has {} series, and one number is asked for: put them together, as `max(…)` and `sum(…)` do",
                more.len()
            ));
        }
        (other, _) => return Answer::Refused(format!("it is a {other}, and one number is asked for")),
    };
    match text.as_str().and_then(|text| text.parse::<f64>().ok()) {
        Some(value) if value.is_finite() => Answer::Value(value),
        Some(value) => Answer::NoData(format!("its value is {value}")),
        None => Answer::Refused(format!("`{text}` is no number")),
    }
}

fn value(series: &Value) -> Option<(String, u64)> {
    let label = series["metric"].as_object()?.values().next().and_then(Value::as_str).unwrap_or_default();
    let value: f64 = series["value"][1].as_str()?.parse().ok()?;
    Some((label.to_owned(), crate::analysis::whole(value)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_series_is_its_label_and_its_count() {
        assert_eq!(
            value(&json!({ "metric": { "http_response_status_code": "503" }, "value": [1_764_000_000.5, "12"] })),
            Some(("503".to_owned(), 12))
        );
        assert_eq!(value(&json!({ "metric": {}, "value": [0, "NaN"] })), Some((String::new(), 0)));
        assert_eq!(value(&json!({ "metric": {}, "values": [] })), None);
    }

    #[test]
    fn a_message_has_failed_when_it_has_an_error_and_a_request_when_the_server_has() {
        let failed = |work, outcomes: [&str; 3]| outcomes.map(|outcome| is_failure(work, outcome));
        assert_eq!(failed(Work::Requests, ["200", "404", "503"]), [false, false, true]);
        assert_eq!(failed(Work::Messages, ["", "_OTHER", "timeout"]), [false, true, true]);
    }

    #[test]
    fn an_own_metric_is_one_number_or_says_why_it_is_none() {
        let vector = |values: &[&str]| {
            let series: Vec<Value> = values.iter().map(|value| json!({ "metric": {}, "value": [0, value] })).collect();
            number(&json!({ "data": { "resultType": "vector", "result": series } }))
        };
        assert_eq!(vector(&["12.5"]), Answer::Value(12.5));
        assert_eq!(vector(&[]), Answer::NoData("there is no such series".to_owned()));
        assert_eq!(vector(&["NaN"]), Answer::NoData("its value is NaN".to_owned()));
        assert_eq!(vector(&["+Inf"]), Answer::NoData("its value is inf".to_owned()));
        assert!(matches!(vector(&["1", "2"]), Answer::Refused(why) if why.starts_with("it has 2 series")));
        let scalar = json!({ "data": { "resultType": "scalar", "result": [0, "7"] } });
        assert_eq!(number(&scalar), Answer::Value(7.0));
        let matrix = json!({ "data": { "resultType": "matrix", "result": [{ "metric": {}, "values": [] }] } });
        assert_eq!(number(&matrix), Answer::Refused("it is a matrix, and one number is asked for".to_owned()));
    }
}

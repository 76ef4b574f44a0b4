//! What a Prometheus has gathered of the pods of each version: the counters that OpenTelemetry gives an HTTP server, which the
//! rendered alerts read, too.
//!
//! Whatever it does not answer is no count: a release then holds until its deadline.

use std::time::Duration;

use http::Request;
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::{Api, Client, Config, ResourceExt as _};
use serde_json::Value;
use tracing::debug;

use crate::analysis::Counts;
use crate::plan::PrometheusAt;

/// The histogram of how long requests took, by status.
const DURATION: &str = "http_server_request_duration_seconds";

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

    /// What the pods of a Deployment have answered; `None` when there are no such counters, or nobody answers.
    pub(crate) async fn counts(&self, namespace: &str, deployment: &str) -> Option<Counts> {
        match self.try_counts(namespace, deployment).await {
            Ok(counts) => counts,
            Err(why) => {
                debug!(deployment, why, "Prometheus does not say how many requests there were");
                None
            }
        }
    }

    /// The same, with why it is not known.
    pub(crate) async fn try_counts(&self, namespace: &str, deployment: &str) -> Result<Option<Counts>, String> {
        // A pod of a Deployment has the hash of its template and five characters behind the name; those of its canary have one
        // part more.
        let of = format!("namespace=\"{namespace}\",pod=~\"{deployment}-[a-z0-9]+-[a-z0-9]{{5}}\"");
        let by_status = self.query(&format!("sum by (http_response_status_code) ({DURATION}_count{{{of}}})")).await?;
        if by_status.is_empty() {
            return Ok(None);
        }
        let mut counts = Counts::default();
        for (status, count) in by_status {
            counts.timed += count;
            if status.starts_with('5') {
                counts.bad += count;
            } else {
                counts.good += count;
            }
        }
        let by_bound = self.query(&format!("sum by (le) ({DURATION}_bucket{{{of}}})")).await?;
        let bounds = by_bound.into_iter().filter_map(|(bound, count)| Some((bound.parse::<f64>().ok()?, count)));
        counts.buckets = bounds.filter(|(bound, _)| bound.is_finite()).collect();
        counts.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Failures and durations are asked for one after the other.
        counts.timed = counts.buckets.last().map_or(counts.timed, |(_, most)| counts.timed.max(*most));
        Ok(Some(counts))
    }

    /// The values of an expression by their only label, in whole numbers.
    async fn query(&self, expression: &str) -> Result<Vec<(String, u64)>, String> {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("query", expression).finish();
        let request = Request::get(format!("{}/api/v1/query?{query}", self.prefix)).body(Vec::new());
        let request = request.map_err(|error| error.to_string())?;
        let answer = self.client.request::<Value>(request).await.map_err(|error| error.to_string())?;
        if answer["status"] != "success" {
            return Err(answer["error"].as_str().unwrap_or("it answers something else than Prometheus").to_owned());
        }
        let series = answer["data"]["result"].as_array().into_iter().flatten();
        Ok(series.filter_map(value).collect())
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
}

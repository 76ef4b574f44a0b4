//! Reading metrics through the aggregated APIs, with Kubernetes' words for what fails.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::MetricIdentifier;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Client;
use kube::core::Selector;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::replicas::{Sample, Samples};
use crate::scheduler::quantity;

#[derive(Debug, Deserialize)]
struct List<T> {
    items: Vec<T>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

#[derive(Debug, Deserialize)]
struct PodMetrics {
    metadata: Named,
    timestamp: Timestamp,
    window: String,
    containers: Vec<ContainerMetrics>,
}

#[derive(Debug, Deserialize)]
struct ContainerMetrics {
    name: String,
    usage: std::collections::BTreeMap<String, Quantity>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    described_object: Option<Named>,
    timestamp: Timestamp,
    window_seconds: Option<u64>,
    value: Quantity,
}

/// What each of the selected pods uses of a resource; one container of it, when it is named.
pub(super) async fn resource(
    client: &Client,
    namespace: &str,
    selector: &str,
    resource: &str,
    container: Option<&str>,
) -> Result<Samples, String> {
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={}", encode(selector));
    let list: List<PodMetrics> = get(client, &path).await.map_err(|error| {
        format!(
            "unable to fetch metrics from resource metrics API: {}",
            error.unwrap_or_else(|| missing("pods.metrics.k8s.io"))
        )
    })?;
    if list.items.is_empty() {
        return Err("no metrics returned from resource metrics API".to_owned());
    }
    let sample = |pod: PodMetrics| {
        let counted = pod.containers.iter().filter(|c| container.is_none_or(|name| name == c.name));
        // A pod of which a container is missing is itself missing.
        let values: Option<Vec<i64>> = counted.map(|c| quantity::millis(c.usage.get(resource)?)).collect();
        let values = values.filter(|values| !values.is_empty())?;
        let sample = Sample { value: values.iter().sum(), at: pod.timestamp, window: window(&pod.window) };
        Some((pod.metadata.name, sample))
    };
    Ok(list.items.into_iter().filter_map(sample).collect())
}

/// A custom metric, and which of its series count.
#[derive(Debug, Clone)]
pub(super) struct Metric {
    name: String,
    /// Empty: all of them.
    selector: String,
}

impl Metric {
    pub(super) fn of(metric: &MetricIdentifier) -> Self {
        let selector = metric.selector.clone().and_then(|selector| Selector::try_from(selector).ok());
        Self { name: metric.name.clone(), selector: selector.map(|selector| selector.to_string()).unwrap_or_default() }
    }
}

/// A custom metric of each of the selected pods.
pub(super) async fn pods(client: &Client, namespace: &str, selector: &str, metric: &Metric) -> Result<Samples, String> {
    let path = format!(
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/{namespace}/pods/*/{}?labelSelector={}&metricLabelSelector={}",
        encode(&metric.name),
        encode(selector),
        encode(&metric.selector)
    );
    let values = custom(client, &path).await?;
    if values.is_empty() {
        return Err("no metrics returned from custom metrics API".to_owned());
    }
    let sample = |value: MetricValue| {
        let window = Duration::from_secs(value.window_seconds.unwrap_or(60));
        let sample = Sample { value: quantity::millis(&value.value)?, at: value.timestamp, window };
        Some((value.described_object?.name, sample))
    };
    Ok(values.into_iter().filter_map(sample).collect())
}

/// A custom metric of one object, in thousandths. `resource` is plural, with its group when it has one.
pub(super) async fn object(
    client: &Client,
    namespace: &str,
    resource: &str,
    name: &str,
    metric: &Metric,
) -> Result<i64, String> {
    // A namespace has its own place, and none but its own is shown to an autoscaler.
    let object = if resource == "namespaces" { "metrics".to_owned() } else { format!("{resource}/{name}") };
    let path = format!(
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/{namespace}/{object}/{}?metricLabelSelector={}",
        encode(&metric.name),
        encode(&metric.selector)
    );
    let values = custom(client, &path).await?;
    let value = values.first().and_then(|value| quantity::millis(&value.value));
    value.ok_or_else(|| "no metrics returned from custom metrics API".to_owned())
}

/// A metric from outside the cluster, summed, in thousandths.
pub(super) async fn external(client: &Client, namespace: &str, metric: &Metric) -> Result<i64, String> {
    let path = format!(
        "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{}?labelSelector={}",
        encode(&metric.name),
        encode(&metric.selector)
    );
    let list: List<MetricValue> = get(client, &path).await.map_err(|error| {
        let error = error.unwrap_or_else(|| missing(&format!("{}.external.metrics.k8s.io", metric.name)));
        format!("unable to fetch metrics from external metrics API: {error}")
    })?;
    if list.items.is_empty() {
        return Err("no metrics returned from external metrics API".to_owned());
    }
    Ok(list.items.iter().filter_map(|item| quantity::millis(&item.value)).sum())
}

async fn custom(client: &Client, path: &str) -> Result<Vec<MetricValue>, String> {
    let list: Result<List<MetricValue>, _> = get(client, path).await;
    list.map(|list| list.items).map_err(|error| {
        let error = error.unwrap_or_else(|| "no custom metric API (custom.metrics.k8s.io) registered".to_owned());
        format!("unable to fetch metrics from custom metrics API: {error}")
    })
}

/// How adapters begin when they do not know a metric, or not of this object.
const UNKNOWN_METRIC: &str = "the server could not find the metric ";

/// `Err(None)`: there is no such API.
async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T, Option<String>> {
    let request = http::Request::get(path).body(Vec::new()).map_err(|error| Some(error.to_string()))?;
    client.request(request).await.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 404 && !status.message.starts_with(UNKNOWN_METRIC) => None,
        kube::Error::Api(status) => Some(status.message.clone()),
        other => Some(other.to_string()),
    })
}

fn missing(resource: &str) -> String {
    format!("the server could not find the requested resource (get {resource})")
}

/// A duration as Go prints it: `30s`, `1m0s`, `15.5s`.
fn window(text: &str) -> Duration {
    let span: Option<jiff::SignedDuration> = text.parse().ok();
    span.and_then(|span| Duration::try_from(span).ok()).unwrap_or(Duration::from_mins(1))
}

fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

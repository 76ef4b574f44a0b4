//! How many requests each version has answered, or messages it has processed: from the figures of the engine's gateway, in
//! Prometheus' text format, or from a Prometheus.
//!
//! Not handled: the pods' own counters without a Prometheus, and the figures of other gateways.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use http::Request;
use kube::Client;

use super::prometheus::{self, Prometheus};
use super::{ClusterError, During as _};
use crate::analysis::{Counts, Work};
use crate::metric::{Answer, Asked, CanaryMetric};
use crate::plan::{Counted, CountedBy, PrometheusAt, Strategy, Track};
use crate::release::{ServiceRelease, Window};

/// Where the engine serves the figures of its gateway.
const PATH: &str = "/landfall.dev/v1/gateway/figures";

/// Whoever counts.
pub(crate) struct Counters {
    cluster: Client,
    /// Those elsewhere, by their URLs: a client of its own is not made for each look.
    elsewhere: Mutex<HashMap<String, Prometheus>>,
}

impl Counters {
    pub(crate) fn new(cluster: Client) -> Self {
        Self { cluster, elsewhere: Mutex::default() }
    }

    /// What both versions of a service have done since ever, the old one in the copies that the new one is compared with; `None`
    /// where nobody counts who should.
    pub(crate) async fn window(
        &self,
        counted_by: &CountedBy,
        work: Work,
        service: &ServiceRelease,
    ) -> Result<Option<Window>, ClusterError> {
        let (namespace, canary) = (&service.namespace, &Track::Canary.name(&service.name));
        let stable = &match &service.strategy {
            Strategy::Canary(plan) => plan.compared_with(&service.name),
            Strategy::Rolling | Strategy::Recreate => service.name.clone(),
        };
        match counted_by {
            CountedBy::Gateway => {
                let figures = read(&self.cluster).await?;
                Ok(figures.map(|figures| Window {
                    canary: counts(&figures, namespace, canary),
                    stable: counts(&figures, namespace, stable),
                }))
            }
            CountedBy::Prometheus(at) => {
                let Ok(prometheus) = self.prometheus(at) else { return Ok(None) };
                let stable = prometheus.counts(work, namespace, stable).await;
                let canary = prometheus.counts(work, namespace, canary).await;
                // Where the one is counted, the other has answered nothing yet.
                let known = stable.is_some() || canary.is_some();
                Ok(known.then(|| Window { canary: canary.unwrap_or_default(), stable: stable.unwrap_or_default() }))
            }
            CountedBy::Nobody => Ok(Some(Window::default())),
        }
    }

    /// Who counts the work of a service; `wanted` is the Prometheus that a person has named.
    pub(crate) async fn of(
        &self,
        work: Work,
        namespace: &str,
        service: &str,
        by_gateway: bool,
        wanted: Option<&PrometheusAt>,
    ) -> Counted {
        let Some(at) = self.place(wanted).await else {
            return Counted { by_gateway, by_prometheus: None, why_not: "no Prometheus is found".to_owned() };
        };
        let found = match self.prometheus(&at) {
            Ok(prometheus) => prometheus.try_counts(work, namespace, service).await,
            Err(why) => Err(why),
        };
        let why_not = match found {
            Ok(Some(_)) => return Counted { by_gateway, by_prometheus: Some(at), why_not: String::new() },
            Ok(None) => {
                let histogram = prometheus::histogram(work);
                format!("Prometheus has no `{histogram}_count` of pods of `{service}` in `{namespace}`")
            }
            Err(why) => format!("Prometheus cannot be asked: {why}"),
        };
        Counted { by_gateway, by_prometheus: None, why_not }
    }

    /// What is said of own metrics for the copies of a service that run; `wanted` is the Prometheus that a person has named.
    pub(crate) async fn asked(
        &self,
        metrics: &[CanaryMetric],
        namespace: &str,
        service: &str,
        wanted: Option<&PrometheusAt>,
    ) -> Asked {
        if metrics.is_empty() {
            return Asked::default();
        }
        let Some(at) = self.place(wanted).await else { return Asked::default() };
        let mut answers = Vec::new();
        for metric in metrics {
            answers.push(self.sample(&at, metric, namespace, service, metric.least_seconds()).await);
        }
        Asked { at: Some(at), answers }
    }

    /// A sample of a metric for the pods of a Deployment, over the last seconds.
    pub(crate) async fn sample(
        &self,
        at: &PrometheusAt,
        metric: &CanaryMetric,
        namespace: &str,
        deployment: &str,
        window_seconds: u64,
    ) -> Answer {
        match self.prometheus(at) {
            Ok(prometheus) => prometheus.number(&metric.expression(namespace, deployment, window_seconds)).await,
            Err(why) => Answer::Refused(why),
        }
    }

    /// The Prometheus that is asked.
    async fn place(&self, wanted: Option<&PrometheusAt>) -> Option<PrometheusAt> {
        match wanted {
            Some(at) => Some(at.clone()),
            None => Prometheus::find(&self.cluster).await,
        }
    }

    fn prometheus(&self, at: &PrometheusAt) -> Result<Prometheus, String> {
        let PrometheusAt::Url(url) = at else { return Prometheus::at(&self.cluster, at) };
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = elsewhere.get(url) {
            return Ok(known.clone());
        }
        let made = Prometheus::at(&self.cluster, at)?;
        elsewhere.insert(url.clone(), made.clone());
        Ok(made)
    }
}

/// The figures of now; `None` where nobody counts, or nobody may ask: other API servers know no such path, and say so as
/// they like.
pub(crate) async fn read(client: &Client) -> Result<Option<String>, ClusterError> {
    let request = Request::get(PATH).body(Vec::new()).expect("a constant path makes a request");
    match client.request_text(request).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 503) => Ok(None),
        answered => answered.map(Some).during(|| "read the figures of the gateway".to_owned()),
    }
}

/// What a service has answered, over all routes and ports. A client that went away is neither good nor bad.
fn counts(figures: &str, namespace: &str, service: &str) -> Counts {
    let backend = format!("{namespace}/{service}");
    let mut counts = Counts::default();
    for (name, labels, value) in figures.lines().filter_map(sample) {
        let label = |wanted: &str| labels.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str());
        let own = label("backend").is_some_and(|own| own.split(':').next() == Some(backend.as_str()));
        match name {
            "gateway_requests_total" if own => match label("class") {
                Some("5xx") => counts.bad += value,
                Some("aborted") | None => {}
                Some(_) => counts.good += value,
            },
            "gateway_request_duration_seconds_count" if own => counts.timed += value,
            "gateway_request_duration_seconds_bucket" if own => {
                let Some(bound) = label("le").and_then(|bound| bound.parse::<f64>().ok()).filter(|le| le.is_finite())
                else {
                    continue;
                };
                match counts.buckets.iter_mut().find(|(other, _)| other.total_cmp(&bound).is_eq()) {
                    Some((_, count)) => *count += value,
                    None => counts.buckets.push((bound, value)),
                }
            }
            _ => {}
        }
    }
    counts.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    counts
}

/// Names and values.
type Labels = Vec<(String, String)>;

/// A sample: its name, labels and whole value. `None` for comments and what is no count.
fn sample(line: &str) -> Option<(&str, Labels, u64)> {
    if line.starts_with('#') {
        return None;
    }
    let (name, mut rest) = line.split_once('{')?;
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(value) = rest.strip_prefix('}') {
            let value = value.split_whitespace().next()?;
            return Some((name, labels, value.parse().ok()?));
        }
        let (key, text) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = text.char_indices();
        loop {
            let (place, character) = characters.next()?;
            match character {
                '"' => {
                    rest = &text[place + 1..];
                    break;
                }
                '\\' => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                other => value.push(other),
            }
        }
        labels.push((key.to_owned(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_counted_over_all_its_routes_and_apart_from_its_canary() {
        let figures = r#"
# TYPE gateway_requests_total counter
gateway_requests_total{route="HTTPRoute/shop/web",backend="shop/web:80",class="2xx"} 90
gateway_requests_total{route="HTTPRoute/shop/web-api",backend="shop/web:8080",class="4xx"} 3
gateway_requests_total{route="HTTPRoute/shop/web",backend="shop/web:80",class="5xx"} 2
gateway_requests_total{route="HTTPRoute/shop/web",backend="shop/web:80",class="aborted"} 7
gateway_requests_total{route="HTTPRoute/shop/web",backend="shop/web-canary:80",class="2xx"} 10
gateway_requests_total{route="a \"b\", \\c",backend="",class="5xx"} 4
gateway_request_duration_seconds_bucket{route="HTTPRoute/shop/web",backend="shop/web-canary:80",le="0.1"} 8
gateway_request_duration_seconds_bucket{route="HTTPRoute/shop/web",backend="shop/web-canary:80",le="0.05"} 5
gateway_request_duration_seconds_bucket{route="HTTPRoute/shop/web",backend="shop/web-canary:80",le="+Inf"} 10
gateway_request_duration_seconds_sum{route="HTTPRoute/shop/web",backend="shop/web-canary:80"} 0.5
gateway_request_duration_seconds_count{route="HTTPRoute/shop/web",backend="shop/web-canary:80"} 10
"#;
        let stable = counts(figures, "shop", "web");
        assert_eq!((stable.good, stable.bad), (93, 2));
        let canary = counts(figures, "shop", "web-canary");
        assert_eq!((canary.good, canary.bad, canary.timed), (10, 0, 10));
        assert_eq!(canary.buckets, [(0.05, 5), (0.1, 8)]);
    }
}

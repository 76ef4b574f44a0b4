//! Whether Prometheus gets to every copy of every service, finds what the business counts there, and can evaluate the rendered rules.

use std::time::Duration;

use anyhow::Context as _;
use http::Request;
use http_body_util::Full;
use hyper::body::Bytes;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;
use url::form_urlencoded;

use super::cluster::{Lines, Snapshot, is_ready, ready_pods};
use super::plan::{Counted, MetricsPlan, PROMETHEUS, PROMETHEUS_LABEL, PROMETHEUS_PORT, Plan, Scraped, TARGETS};
use super::report::{BusinessReport, MetricsReport, RulesReport, TargetReport};

/// How long it may take until Prometheus has asked everybody and evaluated everything. It does both every second.
const PATIENCE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(500);

/// How often it is looked which pods are there while nobody waits for it.
const OFTEN: Duration = Duration::from_secs(2);

/// Tells Prometheus the pods that are there now; it reads them again when they change.
pub(super) async fn tell(client: &Client, plan: &Plan, pods: &Snapshot) -> anyhow::Result<()> {
    let Some(metrics) = &plan.metrics else { return Ok(()) };
    let targets = metrics.scraped.iter().flat_map(|scraped| {
        pods.ready_of(&scraped.service).filter_map(move |pod| target(scraped, pod)).collect::<Vec<_>>()
    });
    write(client, &metrics.namespace, &targets.collect::<Value>()).await
}

/// Goes on telling it, for as long as pods come and go: those of canaries and those that autoscalers add.
pub(super) async fn follow(client: Client, metrics: MetricsPlan) {
    let mut told = Value::Null;
    loop {
        tokio::time::sleep(OFTEN).await;
        let mut targets = Vec::new();
        for scraped in &metrics.scraped {
            let ready = ready_pods(&client, &scraped.namespace, &scraped.service).await.unwrap_or_default();
            targets.extend(ready.iter().filter_map(|pod| target(scraped, pod)));
        }
        let targets = Value::Array(targets);
        // What the API does not take is tried again.
        if targets != told && write(&client, &metrics.namespace, &targets).await.is_ok() {
            told = targets;
        }
    }
}

/// A pod as Prometheus is told of it.
fn target(scraped: &Scraped, pod: &Pod) -> Option<Value> {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref())?;
    Some(json!({
        "targets": [format!("{ip}:{}", scraped.port)],
        "labels": {
            "__metrics_path__": scraped.path,
            "job": scraped.service, "service": scraped.service, "namespace": scraped.namespace, "pod": pod.name_any(),
        },
    }))
}

async fn write(client: &Client, namespace: &str, targets: &Value) -> anyhow::Result<()> {
    let patch = json!({ "data": { TARGETS: targets.to_string() } });
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let patched = maps.patch(PROMETHEUS, &PatchParams::default(), &Patch::Merge(patch)).await;
    patched.map(drop).context("failed to tell Prometheus the pods")
}

/// What Prometheus says; `None` where there is none.
pub(super) async fn try_all(client: &Client, lines: &Lines, plan: &Plan) -> anyhow::Result<Option<MetricsReport>> {
    let Some(metrics) = &plan.metrics else { return Ok(None) };
    let pods = Snapshot::take(client, plan).await?;
    tell(client, plan, &pods).await?;
    let pod = pods.pods.iter().find(|pod| pod.labels().contains_key(PROMETHEUS_LABEL) && is_ready(pod));
    let asked = Asked { lines, pod: pod.context("the pod of Prometheus is not ready")? };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report = asked.report(metrics, &pods).await?;
        if report.problems().is_empty() || Instant::now() >= deadline {
            return Ok(Some(report));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The API of Prometheus: <https://prometheus.io/docs/prometheus/latest/querying/api/>.
struct Asked<'a> {
    lines: &'a Lines,
    pod: &'a Pod,
}

impl Asked<'_> {
    async fn report(&self, plan: &MetricsPlan, pods: &Snapshot) -> anyhow::Result<MetricsReport> {
        let mut business = Vec::new();
        for counted in &plan.business {
            business.push(BusinessReport {
                metric: counted.metric.clone(),
                service: counted.service.clone(),
                found: self.has(counted).await?,
                expected: counted.from_start,
            });
        }
        Ok(MetricsReport {
            by: plan.server.clone(),
            targets: self.targets(plan, pods).await?,
            business,
            rules: self.rules().await?,
        })
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request = Request::get(path).body(Full::<Bytes>::default())?;
        let mut answer: Value = self.lines.ask(self.pod, PROMETHEUS_PORT, request).await?;
        Ok(answer["data"].take())
    }

    /// How many copies of each service were scraped the last time.
    async fn targets(&self, plan: &MetricsPlan, pods: &Snapshot) -> anyhow::Result<Vec<TargetReport>> {
        let found = self.get("/api/v1/targets?state=active").await?;
        let active = found["activeTargets"].as_array().cloned().unwrap_or_default();
        let targets = plan.scraped.iter().map(|scraped| {
            let of_it = || active.iter().filter(|target| target["labels"]["service"] == *scraped.service);
            let error = of_it().filter_map(|target| target["lastError"].as_str()).find(|error| !error.is_empty());
            TargetReport {
                service: scraped.service.clone(),
                namespace: scraped.namespace.clone(),
                copies: pods.ready_of(&scraped.service).count(),
                scraped: of_it().filter(|target| target["health"] == "up").count(),
                error: error.map(ToOwned::to_owned),
            }
        });
        Ok(targets.collect())
    }

    async fn has(&self, counted: &Counted) -> anyhow::Result<bool> {
        let query = format!("count({}{{service=\"{}\"}})", counted.metric, counted.service);
        let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("query", &query).finish();
        let found = self.get(&format!("/api/v1/query?{query}")).await?;
        Ok(found["result"].as_array().is_some_and(|series| !series.is_empty()))
    }

    async fn rules(&self) -> anyhow::Result<RulesReport> {
        let found = self.get("/api/v1/rules").await?;
        let groups = found["groups"].as_array().cloned().unwrap_or_default();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
        let mut report = RulesReport::default();
        for rule in rules {
            let name = rule["name"].as_str().unwrap_or_default();
            match rule["health"].as_str() {
                Some("ok") => report.evaluated += 1,
                // Not yet.
                Some("unknown") => report.waiting += 1,
                _ => report.failing.push(format!("{name}: {}", rule["lastError"].as_str().unwrap_or_default())),
            }
            if rule["state"] == "firing" {
                report.firing.insert(name.to_owned());
            }
        }
        Ok(report)
    }
}

//! Prometheus: the real one, in the namespace of the monitoring stack, with the rendered `ServiceMonitor`s and `PrometheusRule`s.
//!
//! Debian builds it without discovery in Kubernetes, so that the pods are told to it in its `ConfigMap`. Not handled: `PodMonitor`s, as the
//! exporters of stores do not run here.

use std::path::Path;

use landfall_model::{Architecture, MetricKind};
use landfall_render::business_metric;
use landfall_standin::{Server, find_server};
use serde_json::{Value, json};

use super::Plan;
use super::externals::deployment;

/// Made up here, as no architecture names one.
const IMAGE: &str = "landfall/prometheus";

/// What its objects are called, and the label by which they are known.
pub(in crate::commands::up) const PROMETHEUS: &str = "prometheus-on-this-machine";
pub(in crate::commands::up) const PROMETHEUS_LABEL: &str = "landfall.dev/prometheus";
pub(in crate::commands::up) const PROMETHEUS_PORT: u16 = 9090;

/// The key of its `ConfigMap` that names the pods.
pub(in crate::commands::up) const TARGETS: &str = "targets.json";

/// Where its pod has its configuration and its data.
const CONFIGURATION: &str = "/etc/prometheus";
const DATA: &str = "/prometheus";

/// Every service is asked so often here, whatever is declared: a run takes seconds.
const INTERVAL: &str = "1s";

/// Who measures the services.
#[derive(Debug, Clone)]
pub(in crate::commands::up) struct MetricsPlan {
    pub(in crate::commands::up) namespace: String,
    /// What runs here, such as `Prometheus 2.42.0`.
    pub(in crate::commands::up) server: String,
    pub(in crate::commands::up) scraped: Vec<Scraped>,
    pub(in crate::commands::up) business: Vec<Counted>,
}

/// A service that is scraped.
#[derive(Debug, Clone)]
pub(in crate::commands::up) struct Scraped {
    pub(in crate::commands::up) service: String,
    pub(in crate::commands::up) namespace: String,
    pub(in crate::commands::up) port: u16,
    pub(in crate::commands::up) path: String,
}

/// Something that the business counts.
#[derive(Debug, Clone)]
pub(in crate::commands::up) struct Counted {
    /// As Prometheus has it.
    pub(in crate::commands::up) metric: String,
    pub(in crate::commands::up) service: String,
    /// Whether it is there before anything has happened; a share of nothing is no number.
    pub(in crate::commands::up) from_start: bool,
}

impl Plan {
    /// Prometheus, where the architecture declares it and this machine has it, and Alertmanager beside it.
    pub(super) fn add_metrics(&mut self, architecture: &Architecture, program: &Path) {
        let observability = &architecture.document.observability;
        if observability.metrics.is_none() {
            return;
        }
        let Some(found) = find_server(Server::Prometheus) else {
            let remedy = Server::Prometheus.remedy();
            self.left_out
                .push(format!("no Prometheus on this machine: metrics and rules are not tried; try: {remedy}"));
            return;
        };
        let namespace = observability.namespace.to_string();
        self.server(IMAGE.to_owned(), program, Server::Prometheus, &found);
        let rules = self.rules();
        let alertmanager = self.add_alerts(architecture, program);
        self.additions.extend(objects(&namespace, &rules, alertmanager.as_deref()));
        self.ensure_namespace(&namespace);
        let business = observability.business.iter().filter(|(_, metric)| self.runs(metric.from.as_str()));
        self.metrics = Some(MetricsPlan {
            namespace,
            server: found.version,
            scraped: self.scraped(architecture),
            business: business
                .map(|(name, metric)| Counted {
                    metric: business_metric(name.as_str(), metric.kind.value),
                    service: metric.from.to_string(),
                    from_start: metric.kind.value != MetricKind::Ratio,
                })
                .collect(),
        });
    }

    fn runs(&self, service: &str) -> bool {
        self.services.iter().any(|behaviour| behaviour.service == service && !behaviour.runs_once)
    }

    /// What the rendered `ServiceMonitor`s name.
    fn scraped(&self, architecture: &Architecture) -> Vec<Scraped> {
        let monitors = self.objects.iter().filter(|object| object["kind"] == "ServiceMonitor");
        let scraped = monitors.filter_map(|monitor| {
            let service = monitor["metadata"]["name"].as_str().filter(|service| self.runs(service))?;
            let endpoint = &monitor["spec"]["endpoints"][0];
            let named = endpoint["port"].as_str()?.parse().ok()?;
            let (_, port) = architecture.service(service)?.port_named(Some(&named))?;
            Some(Scraped {
                service: service.to_owned(),
                namespace: monitor["metadata"]["namespace"].as_str()?.to_owned(),
                port: port.port.get(),
                path: endpoint["path"].as_str()?.to_owned(),
            })
        });
        scraped.collect()
    }

    /// The groups of the rendered rules.
    fn rules(&self) -> Vec<Value> {
        let rules = self.objects.iter().filter(|object| object["kind"] == "PrometheusRule");
        rules.flat_map(|object| object["spec"]["groups"].as_array().cloned().unwrap_or_default()).collect()
    }
}

/// Its pod and its configuration; alerts go to `alertmanager`. YAML is a superset of JSON (YAML 1.2.2, section 1.3).
fn objects(namespace: &str, rules: &[Value], alertmanager: Option<&str>) -> Vec<Value> {
    // Policies know Prometheus by the label that its operator and its chart give it.
    let labels = json!({ PROMETHEUS_LABEL: PROMETHEUS, "app.kubernetes.io/name": "prometheus" });
    let metadata = json!({ "name": PROMETHEUS, "namespace": namespace, "labels": labels });
    // Rules of several services may have groups of one name, which one file may not.
    let numbered = rules.iter().enumerate().map(|(number, group)| {
        let name = format!("{}-{number}", group["name"].as_str().unwrap_or_default());
        let mut group = group.clone();
        group["name"] = name.into();
        group["interval"] = INTERVAL.into();
        group
    });
    let alertmanagers: Vec<Value> =
        alertmanager.iter().map(|address| json!({ "static_configs": [{ "targets": [address] }] })).collect();
    let configuration = json!({
        "global": { "scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL },
        "rule_files": [format!("{CONFIGURATION}/rules.json")],
        "alerting": { "alertmanagers": alertmanagers },
        "scrape_configs": [{
            "job_name": "services",
            "file_sd_configs": [{ "files": [format!("{CONFIGURATION}/{TARGETS}")], "refresh_interval": INTERVAL }],
        }],
    });
    let container = json!({
        "name": "prometheus",
        "image": IMAGE,
        "env": [
            { "name": "PROMETHEUS_CONFIG", "value": format!("{CONFIGURATION}/prometheus.yml") },
            { "name": "PROMETHEUS_DATA", "value": DATA },
        ],
        "readinessProbe": { "httpGet": { "port": PROMETHEUS_PORT, "path": "/-/ready" }, "periodSeconds": 1 },
        "volumeMounts": [
            { "name": "configuration", "mountPath": CONFIGURATION },
            { "name": "data", "mountPath": DATA },
        ],
    });
    let volumes = json!([
        { "name": "configuration", "configMap": { "name": PROMETHEUS } },
        { "name": "data", "emptyDir": {} },
    ]);
    let mut prometheus = deployment(&metadata, &labels, container, &volumes);
    prometheus["spec"]["strategy"] = json!({ "type": "Recreate" });
    vec![
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
            "data": {
                "prometheus.yml": configuration.to_string(),
                TARGETS: "[]",
                "rules.json": json!({ "groups": numbered.collect::<Vec<_>>() }).to_string(),
            },
        }),
        prometheus,
        // As Prometheus' operator calls and marks it: whoever looks for the Prometheus of a cluster finds it so.
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "prometheus-operated", "namespace": namespace, "labels": { "operated-prometheus": "true" },
            },
            "spec": {
                "clusterIP": "None", "selector": labels,
                "ports": [{ "name": "web", "port": PROMETHEUS_PORT, "targetPort": PROMETHEUS_PORT }],
            },
        }),
    ]
}

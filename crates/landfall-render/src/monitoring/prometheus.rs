//! Prometheus: what is scraped, and the rules.

use std::collections::BTreeSet;

use serde_json::Value;

use landfall_model::{Finding, Span};

use super::Stack;
use crate::json::json;

use crate::object::{Object, compact};

/// Where the monitoring stack reads the secrets that its objects name.
pub(super) const SECRETS: &str = "/etc/secrets";

/// Where a pod finds its own credentials for the API server.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

pub(super) fn write(stack: &mut Stack<'_>) {
    let rules: Vec<(String, String, Value)> = stack
        .of_kind("PrometheusRule")
        .map(|object| {
            let path = format!("prometheus/rules/{}/{}.yaml", object.namespace().unwrap_or("cluster"), object.name());
            (path, object.origin.clone(), json!({ "groups": object.value["spec"]["groups"].clone() }))
        })
        .collect();
    for (path, origin, groups) in rules {
        stack.yaml(path, &format!("From {origin}: the rules of its PrometheusRule."), &groups);
    }
    let foreign: Vec<(String, Span)> = stack
        .objects
        .iter()
        .filter(|object| {
            matches!(object.kind(), "ServiceMonitor" | "PodMonitor" | "Probe" | "ScrapeConfig" | "AlertmanagerConfig")
        })
        .filter(|object| !is_ours(object))
        .map(|object| (format!("{} `{}`", object.kind(), object.name()), object.span))
        .collect();
    for (what, span) in foreign {
        stack.rendered.findings.push(
            Finding::note("not-rendered", span, format!("{what} has no file of its own for Prometheus"))
                .because("only the Prometheus operator knows every field of it")
                .help("run the operator, or add the scrape configuration to `prometheus.yaml` by hand"),
        );
    }
    let configuration = configuration(stack);
    stack.yaml("prometheus/prometheus.yaml", "From observability.metrics.", &configuration);
}

/// Whether the object was rendered, and not written as it stands.
fn is_ours(object: &Object) -> bool {
    object.value["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "landfall"
}

fn configuration(stack: &Stack<'_>) -> Value {
    let document = &stack.architecture.document;
    let interval = document.observability.metrics.as_ref().map_or(30, |metrics| metrics.interval.seconds().max(1));
    let mut jobs: Vec<Value> =
        stack.of_kind("ServiceMonitor").filter(|object| is_ours(object)).map(of_service).collect();
    jobs.extend(stack.of_kind("PodMonitor").filter(|object| is_ours(object)).map(of_pods));
    jobs.extend(of_cluster(&document.platform.ingress.class.value));
    if document.observability.traces.is_some() {
        let keep = [("app_kubernetes_io_name", "opentelemetry-collector")];
        jobs.push(by_label("opentelemetry-collector", "pod_container_port_name", "prometheus", &keep, true));
    }
    json!({
        "global": compact(json!({
            "scrape_interval": format!("{interval}s"),
            "evaluation_interval": format!("{interval}s"),
            "external_labels": {
                "platform": document.name.as_str(),
                "environment": stack.architecture.environment.as_ref().map(landfall_model::Name::as_str),
            },
        })),
        "rule_files": rule_files(stack),
        "alerting": {
            "alertmanagers": [{ "static_configs": [{ "targets": ["alertmanager:9093"] }] }],
        },
        "scrape_configs": jobs,
    })
}

/// A pattern for each folder: Prometheus takes one in the last part of a path only.
fn rule_files(stack: &Stack<'_>) -> Vec<String> {
    let folders: BTreeSet<&str> =
        stack.of_kind("PrometheusRule").map(|object| object.namespace().unwrap_or("cluster")).collect();
    folders.into_iter().map(|folder| format!("rules/{folder}/*.yaml")).collect()
}

/// How Prometheus' discovery writes a label of an object.
fn discovered(label: &str) -> String {
    label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// Keeps the targets that have these labels.
fn keep(pairs: &[(String, String)]) -> Value {
    let (labels, values): (Vec<&str>, Vec<&str>) =
        pairs.iter().map(|(label, value)| (label.as_str(), value.as_str())).unzip();
    json!({ "source_labels": labels, "regex": values.join(";"), "action": "keep" })
}

fn named(from: &str, to: &str) -> Value {
    json!({ "source_labels": [from], "target_label": to })
}

/// The labels that a monitor selects by, as discovery writes them after `prefix`.
fn selected(object: &Object, prefix: &str) -> Vec<(String, String)> {
    let labels = object.value["spec"]["selector"]["matchLabels"].as_object();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    labels
        .into_iter()
        .flatten()
        .map(|(label, value)| (format!("__meta_kubernetes_{prefix}_label_{}", discovered(label)), word(value)))
        .collect()
}

fn job(object: &Object, endpoint: &Value, role: &str, relabel: Vec<Value>) -> Value {
    let namespace = object.namespace().unwrap_or_default();
    let secret = &endpoint["tlsConfig"]["ca"]["secret"];
    let authority = Some(secret).filter(|secret| secret.is_object()).map(|secret| {
        let part = |key: &str| secret[key].as_str().unwrap_or_default().to_owned();
        format!("{SECRETS}/{}/{}", part("name"), part("key"))
    });
    let tls =
        authority.map(|file| json!({ "ca_file": file, "server_name": endpoint["tlsConfig"]["serverName"].clone() }));
    compact(json!({
        "job_name": format!("{namespace}/{}", object.name()),
        "scrape_interval": endpoint["interval"].clone(),
        "metrics_path": endpoint["path"].clone(),
        "scheme": endpoint["scheme"].clone(),
        "tls_config": tls,
        "kubernetes_sd_configs": [{ "role": role, "namespaces": { "names": [namespace] } }],
        "relabel_configs": relabel,
    }))
}

/// The endpoints of a Kubernetes Service, with the labels that the operator adds: `namespace`, `service`, `pod`.
fn of_service(object: &Object) -> Value {
    let endpoint = &object.value["spec"]["endpoints"][0];
    let mut kept = selected(object, "service");
    let port = endpoint["port"].as_str().unwrap_or_default();
    kept.push(("__meta_kubernetes_endpointslice_port_name".to_owned(), port.to_owned()));
    let relabel = vec![
        keep(&kept),
        named("__meta_kubernetes_namespace", "namespace"),
        named("__meta_kubernetes_service_name", "service"),
        named("__meta_kubernetes_pod_name", "pod"),
    ];
    job(object, endpoint, "endpointslice", relabel)
}

/// Pods on a port that no Service has. Discovery finds a pod once for each of its ports; with one address they are one
/// target.
fn of_pods(object: &Object) -> Value {
    let endpoint = &object.value["spec"]["podMetricsEndpoints"][0];
    let mut kept = selected(object, "pod");
    kept.push(("__meta_kubernetes_pod_container_init".to_owned(), "false".to_owned()));
    let address = json!({
        "source_labels": ["__meta_kubernetes_pod_ip"],
        "target_label": "__address__",
        "replacement": format!("$1:{}", endpoint["portNumber"]),
    });
    let relabel = vec![
        keep(&kept),
        address,
        named("__meta_kubernetes_namespace", "namespace"),
        named("__meta_kubernetes_pod_name", "pod"),
    ];
    job(object, endpoint, "pod", relabel)
}

/// What the rules and dashboards ask the cluster itself: kube-state-metrics, the kubelets with cAdvisor, the gateway.
fn of_cluster(class: &str) -> Vec<Value> {
    let kubelet = |name: &str, path: &str| {
        json!({
            "job_name": name,
            "scheme": "https",
            "metrics_path": path,
            // cAdvisor names the pod that it measures, which is not the kubelet's own.
            "honor_labels": true,
            "authorization": { "credentials_file": format!("{ACCOUNT}/token") },
            // A kubelet's certificate is signed by nobody unless the cluster rotates it.
            "tls_config": { "ca_file": format!("{ACCOUNT}/ca.crt"), "insecure_skip_verify": true },
            "kubernetes_sd_configs": [{ "role": "node" }],
            "relabel_configs": [named("__meta_kubernetes_node_name", "node")],
        })
    };
    let mut jobs = vec![
        by_label(
            "kube-state-metrics",
            "pod_container_port_name",
            "http-metrics|http",
            &[("app_kubernetes_io_name", "kube-state-metrics")],
            true,
        ),
        kubelet("kubelet", "/metrics"),
        kubelet("cadvisor", "/metrics/cadvisor"),
    ];
    if class == "traefik" {
        jobs.push(by_label(
            "traefik",
            "pod_container_port_name",
            "metrics",
            &[("app_kubernetes_io_name", "traefik")],
            false,
        ));
    }
    jobs
}

/// Pods with these labels, on a port of that name.
fn by_label(job: &str, port_label: &str, port: &str, labels: &[(&str, &str)], honor_labels: bool) -> Value {
    let mut kept: Vec<(String, String)> = labels
        .iter()
        .map(|(label, value)| (format!("__meta_kubernetes_pod_label_{label}"), (*value).to_owned()))
        .collect();
    kept.push((format!("__meta_kubernetes_{port_label}"), port.to_owned()));
    compact(json!({
        "job_name": job,
        "honor_labels": honor_labels.then_some(true),
        "kubernetes_sd_configs": [{ "role": "pod" }],
        "relabel_configs": [keep(&kept)],
    }))
}

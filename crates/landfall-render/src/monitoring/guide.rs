//! The README of the rendered folder: what each file is for, and what a service has to expose to be seen.

use std::fmt::Write as _;

use super::{Stack, business_metric};
use crate::kubernetes::monitoring::ESCALATION as ESCALATION_RULES;

pub(super) fn write(stack: &mut Stack<'_>) {
    let document = &stack.architecture.document;
    let observability = &document.observability;
    let mut text = format!("# Monitoring of {}\n\n", document.name);
    if let Some(environment) = &stack.architecture.environment {
        let _ = write!(text, "For the environment `{environment}`. ");
    }
    text += "Every file is plain configuration of the program that its folder is named after, and needs nothing else. \
             Services of the monitoring stack are reached by the names `prometheus`, `alertmanager`, ";
    let _ = writeln!(text, "`loki`, `elasticsearch`, `jaeger` in the namespace `{}`.\n", stack.namespace());
    text += "| folder | what it is |\n|---|---|\n";
    for (folder, what) in FOLDERS {
        if stack.rendered.files.keys().any(|path| path.starts_with(&format!("{folder}/"))) {
            let _ = writeln!(text, "| `{folder}` | {what} |");
        }
    }
    if let Some(metrics) = &observability.metrics {
        let _ = write!(
            text,
            "\nPrometheus keeps metrics for the declared time with `--storage.tsdb.retention.time={}`. ",
            metrics.retention.value
        );
        text += "Secrets that a file names are mounted below `/etc/secrets`, a folder for each.\n\n";
        text += CHECKS;
        text += CONVENTION;
        for (name, metric) in &observability.business {
            let title = metric.title.as_ref().map_or("", |title| title.as_str());
            let _ = writeln!(
                text,
                "| `{}` | {} | {title} |",
                business_metric(name.as_str(), metric.kind.value),
                metric.from.value
            );
        }
    }
    if stack.of_kind("PrometheusRule").any(|object| object.name() == ESCALATION_RULES) {
        text += ESCALATION;
    }
    if observability.on_call.is_some() {
        text += "\nWho is on call at a time is kept in the pager, which the receivers lead to: Alertmanager has no rotation.\n";
    }
    stack.text("README.md", text);
}

const FOLDERS: [(&str, &str); 10] = [
    ("prometheus", "`prometheus.yaml`, the rules, and unit tests of the alerts"),
    ("alertmanager", "who is told of what; `routes.test` says whom each alert must reach"),
    ("grafana", "dashboards, and provisioning that loads them"),
    ("fluent-bit", "ships the logs of the pods, from each node"),
    ("fluentd", "ships the logs of the pods, from each node"),
    ("logstash", "ships the logs of the pods, from each node"),
    ("alloy", "ships the logs of the pods"),
    ("loki", "keeps the logs, and for how long"),
    (
        "elasticsearch",
        "how long logs are kept: `PUT _ilm/policy/NAME` and `PUT _index_template/NAME`, NAME being the pattern in the template",
    ),
    (
        "opentelemetry",
        "the collector, behind a Service `opentelemetry-collector`: services send traces to its port 4317 or 4318 (OTLP)",
    ),
];

const CHECKS: &str = "## Checks

```sh
promtool check config --syntax-only prometheus/prometheus.yaml
promtool check rules prometheus/rules/*.yaml prometheus/rules/*/*.yaml
promtool test rules prometheus/tests/*/*.yaml
amtool check-config alertmanager/alertmanager.yaml
grep -v '^#' alertmanager/routes.test | while read -r receiver labels; do
  amtool config routes test --config.file=alertmanager/alertmanager.yaml --verify.receivers=\"$receiver\" $labels
done
```

";

const CONVENTION: &str = "## What a service exposes

Rules and dashboards ask for these names, in Prometheus' text format on the declared port and path. `namespace`, `service` and
`pod` are added when it is scraped.

| metric | what it is | from |
|---|---|---|
| `http_server_request_duration_seconds` | a histogram with the label `http_response_status_code` | OpenTelemetry's conventions; most libraries write it |
| `http_server_active_requests` | requests under way | OpenTelemetry's conventions |
| `messaging_process_duration_seconds` | of a worker: a histogram of how long messages took, with the label `error_type` where they have failed | OpenTelemetry's conventions; `landfall ship` judges a worker's canary by it |
| `landfall_edge_operations_total` | what a declared edge has carried, with the labels `edge`, such as `web write ledger/orders`, and `result`, `carried` or `failed` | the stand-ins of `landfall up` write it; without it, a flow's panels for stores and brokers stay empty |
| `landfall_edge_duration_seconds` | a histogram of how long that took, with the label `edge` | the same |
| `kube_*`, `kubelet_*`, `container_*` | the cluster | kube-state-metrics, the kubelets, cAdvisor |

Buckets of the histograms have to be close together around the declared p99: a quantile is read between two of them.

| business metric | reported by | what it is |
|---|---|---|
";

const ESCALATION: &str = "
## Escalation

Alertmanager does not know whether anybody has answered, but it knows silences. An alert that has fired for the declared time
and is not silenced is sent to the next receiver under the same name, with the label `escalation`. To answer is to silence
(`amtool silence add alertname=… service=…`), which ends both. The pager's own escalation, where there is one, can do
the same; use one of them.
";

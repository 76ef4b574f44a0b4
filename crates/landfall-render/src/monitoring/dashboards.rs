//! Grafana: the declared dashboards, one for each service and one for each flow.

mod panel;

use landfall_model::{Architecture, DashboardSubject, Element, Flow, MetricKind, Service, Signal};
use serde_json::Value;

use self::panel::{Dashboard, Query, Unit};
use super::{Stack, business_metric};
use crate::json::json;
use crate::kubernetes::monitoring::{Objective, number, scraped_port, speaks_http};

/// Everything; nothing when Grafana is not declared.
pub(super) fn write(stack: &mut Stack<'_>) {
    let architecture = stack.architecture;
    let observability = &architecture.document.observability;
    if !observability.metrics.as_ref().is_some_and(|metrics| metrics.grafana.value) {
        return;
    }
    let mut dashboards: Vec<(String, Dashboard)> = Vec::new();
    let platform = architecture.document.name.as_str();
    for (name, declared) in &observability.dashboards {
        let title = declared.title.as_ref().map_or(name.as_str(), |title| title.as_str());
        let mut dashboard = Dashboard::new(platform, name.as_str(), title);
        match declared.shows.value {
            DashboardSubject::Health => health(architecture, &mut dashboard),
            DashboardSubject::Business => business(architecture, &mut dashboard),
            DashboardSubject::Capacity => capacity(architecture, &mut dashboard),
            DashboardSubject::Flows => flows(architecture, &mut dashboard),
        }
        dashboards.push((name.to_string(), dashboard));
    }
    for (name, service) in &architecture.document.services {
        let title = format!("Service {name}");
        let mut dashboard = Dashboard::new(platform, &format!("service-{name}"), &title);
        of_service(architecture, name.as_str(), service, &mut dashboard);
        dashboards.push((format!("services/{name}"), dashboard));
    }
    for (name, flow) in &architecture.document.flows {
        let title = flow.title.as_ref().map_or(name.as_str(), |title| title.as_str());
        let mut dashboard = Dashboard::new(platform, &format!("flow-{name}"), &format!("Flow {name}: {title}"));
        of_flow(architecture, flow, &mut dashboard);
        dashboards.push((format!("flows/{name}"), dashboard));
    }
    for (name, dashboard) in dashboards {
        stack.json(format!("grafana/dashboards/{name}.json"), &dashboard.render());
    }
    provision(stack);
}

/// The files that tell Grafana where its data and its dashboards are.
fn provision(stack: &mut Stack<'_>) {
    let observability = &stack.architecture.document.observability;
    let mut sources = vec![json!({
        "name": "Prometheus", "uid": "prometheus", "type": "prometheus", "access": "proxy", "isDefault": true,
        "url": "http://prometheus:9090",
    })];
    sources.extend(observability.logs.as_ref().map(|logs| super::logs::data_source(logs.stack.value)));
    sources.extend(observability.traces.as_ref().map(|traces| super::traces::data_source(traces.stack.value)));
    let sources = json!({ "apiVersion": 1, "datasources": sources });
    stack.yaml("grafana/provisioning/datasources/landfall.yaml", "From observability: where Grafana asks.", &sources);
    let provider = json!({
        "apiVersion": 1,
        "providers": [{
            "name": stack.architecture.document.name.as_str(),
            "type": "file",
            // Changes are made in the file that these are rendered from.
            "allowUiUpdates": false,
            "options": { "path": "/var/lib/grafana/dashboards", "foldersFromFilesStructure": true },
        }],
    });
    let about = "From observability.dashboards: mount `grafana/dashboards` at the path.";
    stack.yaml("grafana/provisioning/dashboards/landfall.yaml", about, &provider);
}

/// The label matchers of a service.
fn which(architecture: &Architecture, name: &str) -> String {
    let namespace = architecture.service(name).and_then(|service| service.namespace.as_ref());
    let namespace = namespace.map_or_else(|| architecture.namespace(), |own| &own.value);
    format!("namespace=\"{namespace}\",service=\"{name}\"")
}

/// The label matchers of a service's pods, which metrics of the cluster know by name only: `NAME-HASH-HASH` for a
/// Deployment, `NAME-NUMBER-HASH` for a run of a `CronJob`.
fn pods(architecture: &Architecture, name: &str) -> String {
    let namespace = architecture.service(name).and_then(|service| service.namespace.as_ref());
    let namespace = namespace.map_or_else(|| architecture.namespace(), |own| &own.value);
    format!("namespace=\"{namespace}\",pod=~\"{name}-[a-z0-9]+-[a-z0-9]{{5}}\"")
}

fn duration_count(which: &str) -> String {
    format!("sum(rate(http_server_request_duration_seconds_count{{{which}}}[$__rate_interval]))")
}

fn quantile(which: &str, quantile: &str) -> String {
    format!(
        "histogram_quantile({quantile}, sum by (le) (rate(http_server_request_duration_seconds_bucket{{{which}}}[$__rate_interval])))"
    )
}

fn failed(which: &str) -> String {
    format!("service:http_request_errors:ratio_rate5m{{{which}}}")
}

fn container_share(pods: &str, used: &str, resource: &str) -> String {
    format!("sum({used}) / sum(kube_pod_container_resource_limits{{{pods},resource=\"{resource}\"}})")
}

fn cpu_used(pods: &str) -> String {
    format!("rate(container_cpu_usage_seconds_total{{{pods},container!=\"\"}}[$__rate_interval])")
}

fn memory_used(pods: &str) -> String {
    format!("container_memory_working_set_bytes{{{pods},container!=\"\"}}")
}

/// The signals that are shown: those declared, or the first three when none is.
fn signals(architecture: &Architecture) -> Vec<Signal> {
    let declared = architecture.document.observability.metrics.as_ref().map(|metrics| &metrics.signals);
    let declared: Vec<Signal> = declared.into_iter().flatten().map(|signal| signal.value).collect();
    if declared.is_empty() { vec![Signal::RequestRate, Signal::ErrorRate, Signal::Latency] } else { declared }
}

/// Rate, errors, duration and saturation of one service.
fn of_service(architecture: &Architecture, name: &str, service: &Service, dashboard: &mut Dashboard) {
    let (which, pods) = (which(architecture, name), pods(architecture, name));
    let objective = Objective::of(architecture, service);
    if speaks_http(service) && scraped_port(service).is_some() {
        dashboard.row("Requests");
        for signal in signals(architecture) {
            match signal {
                Signal::RequestRate => {
                    let by_code = format!(
                        "sum by (http_response_status_code) (rate(http_server_request_duration_seconds_count{{{which}}}[$__rate_interval]))"
                    );
                    dashboard.graph(
                        "Requests in a second",
                        Unit::PerSecond,
                        vec![Query::new(by_code, "{{http_response_status_code}}")],
                    );
                }
                Signal::ErrorRate => {
                    let limit =
                        objective.budget().map(|budget| Query::new(format!("vector({})", number(budget)), "budget"));
                    let queries = [Query::new(failed(&which), "failed")].into_iter().chain(limit).collect();
                    dashboard.graph("Share of requests that fail", Unit::Share, queries);
                }
                Signal::Latency => {
                    let mut queries: Vec<Query> = [("0.5", "p50"), ("0.95", "p95"), ("0.99", "p99")]
                        .map(|(share, legend)| Query::new(quantile(&which, share), legend))
                        .into();
                    queries.extend(
                        objective
                            .p99
                            .map(|p99| Query::new(format!("vector({})", number(p99.as_secs_f64())), "p99 objective")),
                    );
                    dashboard.graph("How long requests take", Unit::Seconds, queries);
                }
                Signal::ActiveConnections => {
                    let query = format!("sum(http_server_active_requests{{{which}}})");
                    dashboard.graph("Requests under way", Unit::Number, vec![Query::new(query, "under way")]);
                }
            }
        }
        if let Some(budget) = objective.budget().filter(|budget| *budget > 0.0) {
            let days = (objective.window.seconds() / 86_400).max(1);
            let left = format!(
                "1 - avg_over_time(service:http_request_errors:ratio_rate1h{{{which}}}[{days}d]) / {}",
                number(budget)
            );
            dashboard.stat(&format!("Error budget left of {days} days"), Unit::Share, vec![Query::new(left, "left")]);
        }
    }
    dashboard.row("Saturation");
    let cpu = container_share(&pods, &cpu_used(&pods), "cpu");
    let memory = container_share(&pods, &memory_used(&pods), "memory");
    let queries = vec![Query::new(cpu, "CPU"), Query::new(memory, "memory")];
    dashboard.graph("Share of the limits in use", Unit::Share, queries);
    let throttled = format!(
        "sum(rate(container_cpu_cfs_throttled_periods_total{{{pods}}}[$__rate_interval])) / sum(rate(container_cpu_cfs_periods_total{{{pods}}}[$__rate_interval]))"
    );
    dashboard.graph("Share of time without CPU", Unit::Share, vec![Query::new(throttled, "throttled")]);
    let ready = format!("sum(kube_pod_status_ready{{{pods},condition=\"true\"}})");
    let queries = vec![
        Query::new(ready, "ready"),
        Query::new(format!("vector({})", service.replicas.floor()), "fewest"),
        Query::new(format!("vector({})", service.replicas.ceiling()), "most"),
    ];
    dashboard.graph("Copies", Unit::Number, queries);
    let restarts = format!("sum(increase(kube_pod_container_status_restarts_total{{{pods}}}[1h]))");
    dashboard.graph("Restarts in an hour", Unit::Number, vec![Query::new(restarts, "restarts")]);
    let edges = format!("sum by (edge, result) (rate(landfall_edge_operations_total{{{which}}}[$__rate_interval]))");
    if architecture.connections.iter().any(|connection| connection.from.name() == name) {
        dashboard.row("What it talks to");
        dashboard.graph(
            "Operations in a second, by edge",
            Unit::PerSecond,
            vec![Query::new(edges, "{{edge}}: {{result}}")],
        );
    }
}

/// Every service at a glance, and what is wrong.
fn health(architecture: &Architecture, dashboard: &mut Dashboard) {
    dashboard.row("Now");
    let firing = "sum by (alertname, service, store, severity) (ALERTS{alertstate=\"firing\"})";
    dashboard.table("What is wrong", vec![Query::new(firing.to_owned(), "")]);
    let services = architecture.document.services.iter().filter(|(_, service)| scraped_port(service).is_some());
    let each = |query: &dyn Fn(&str) -> String| -> Vec<Query> {
        services
            .clone()
            .map(|(name, _)| Query::new(query(&which(architecture, name.as_str())), name.as_str()))
            .collect()
    };
    let up = each(&|which| format!("sum(up{{{which}}}) / count(up{{{which}}})"));
    dashboard.stat("Share of copies that answer", Unit::Share, up);
    dashboard.row("Services");
    let web = architecture
        .document
        .services
        .iter()
        .filter(|(_, service)| scraped_port(service).is_some() && speaks_http(service));
    let each = |query: &dyn Fn(&str) -> String| -> Vec<Query> {
        web.clone().map(|(name, _)| Query::new(query(&which(architecture, name.as_str())), name.as_str())).collect()
    };
    for signal in signals(architecture) {
        match signal {
            Signal::RequestRate => dashboard.graph("Requests in a second", Unit::PerSecond, each(&duration_count)),
            Signal::ErrorRate => dashboard.graph("Share of requests that fail", Unit::Share, each(&failed)),
            Signal::Latency => {
                let p99 = each(&|which| format!("service:http_request_duration_seconds:p99_rate5m{{{which}}}"));
                dashboard.graph("How long the slowest in a hundred take", Unit::Seconds, p99);
            }
            Signal::ActiveConnections => {
                let active = each(&|which| format!("sum(http_server_active_requests{{{which}}})"));
                dashboard.graph("Requests under way", Unit::Number, active);
            }
        }
    }
    let pods_of = |query: &dyn Fn(&str) -> String| -> Vec<Query> {
        let names = architecture.document.services.keys();
        names.map(|name| Query::new(query(&pods(architecture, name.as_str())), name.as_str())).collect()
    };
    let cpu = pods_of(&|pods| container_share(pods, &cpu_used(pods), "cpu"));
    dashboard.graph("Share of the CPU limit in use", Unit::Share, cpu);
    let memory = pods_of(&|pods| container_share(pods, &memory_used(pods), "memory"));
    dashboard.graph("Share of the memory limit in use", Unit::Share, memory);
    volumes(architecture, dashboard);
    if architecture.document.platform.ingress.class.value == "traefik" {
        dashboard.row("Gateway");
        let requests = "sum by (code) (rate(traefik_entrypoint_requests_total[$__rate_interval]))".to_owned();
        dashboard.graph("Requests in a second", Unit::PerSecond, vec![Query::new(requests, "{{code}}")]);
        let slow = "histogram_quantile(0.99, sum by (le) (rate(traefik_entrypoint_request_duration_seconds_bucket[$__rate_interval])))";
        dashboard.graph(
            "How long the slowest in a hundred take",
            Unit::Seconds,
            vec![Query::new(slow.to_owned(), "p99")],
        );
    }
}

/// The volumes of stores in the cluster.
fn volumes(architecture: &Architecture, dashboard: &mut Dashboard) {
    let here = architecture.document.stores.iter().filter(|(_, store)| !store.provider.value.is_managed());
    let mut namespaces: Vec<&str> =
        here.map(|(name, _)| architecture.namespace_of(&Element::Store(name.value.clone())).as_str()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    if namespaces.is_empty() {
        return;
    }
    dashboard.row("Stores");
    let of = format!("{{namespace=~\"{}\"}}", namespaces.join("|"));
    let used = format!("kubelet_volume_stats_used_bytes{of} / kubelet_volume_stats_capacity_bytes{of}");
    dashboard.graph("Share of volumes in use", Unit::Share, vec![Query::new(used, "{{persistentvolumeclaim}}")]);
}

/// What the business counts.
fn business(architecture: &Architecture, dashboard: &mut Dashboard) {
    for (name, metric) in &architecture.document.observability.business {
        let title = metric.title.as_ref().map_or(name.as_str(), |title| title.as_str());
        let which = which(architecture, metric.from.as_str());
        let series = format!("{}{{{which}}}", business_metric(name.as_str(), metric.kind.value));
        let (expression, unit) = match metric.kind.value {
            MetricKind::Counter => (format!("sum(rate({series}[$__rate_interval]))"), Unit::PerSecond),
            MetricKind::Gauge => (format!("sum({series})"), Unit::Number),
            MetricKind::Ratio => (format!("avg({series})"), Unit::Share),
        };
        dashboard.graph(title, unit, vec![Query::new(expression, metric.from.as_str())]);
        if metric.kind.value == MetricKind::Counter {
            let today = format!("sum(increase({series}[1d]))");
            dashboard.stat(&format!("{title}: in a day"), Unit::Number, vec![Query::new(today, "in a day")]);
        }
    }
}

/// Headroom, and when it will be used up.
fn capacity(architecture: &Architecture, dashboard: &mut Dashboard) {
    dashboard.row("Nodes");
    for (resource, title) in [("cpu", "CPU"), ("memory", "memory")] {
        let requested = format!(
            "sum(kube_pod_container_resource_requests{{resource=\"{resource}\"}}) / sum(kube_node_status_allocatable{{resource=\"{resource}\"}})"
        );
        let used = match resource {
            "cpu" => {
                "sum(rate(container_cpu_usage_seconds_total{id=\"/\"}[$__rate_interval])) / sum(kube_node_status_allocatable{resource=\"cpu\"})"
            }
            _ => {
                "sum(container_memory_working_set_bytes{id=\"/\"}) / sum(kube_node_status_allocatable{resource=\"memory\"})"
            }
        };
        let queries = vec![
            Query::new(requested.clone(), "requested"),
            Query::new(used.to_owned(), "in use"),
            Query::new(
                format!("predict_linear({}[7d:1h], 30 * 86400)", parenthesised(&requested)),
                "requested in 30 days",
            ),
        ];
        dashboard.graph(&format!("Share of the nodes' {title}"), Unit::Share, queries);
        // Of what is left now, at the speed of the last week.
        let days =
            format!("(1 - {}) / (deriv({}[7d:1h]) > 0) / 86400", parenthesised(&requested), parenthesised(&requested));
        dashboard.stat(
            &format!("Days until the nodes' {title} is used up"),
            Unit::Days,
            vec![Query::new(days, "days")],
        );
    }
    dashboard.row("Services");
    let scaled = architecture.document.services.iter().filter(|(_, service)| service.replicas.scales());
    let queries: Vec<Query> = scaled
        .map(|(name, service)| {
            let pods = pods(architecture, name.as_str());
            let ready = format!("sum(kube_pod_status_ready{{{pods},condition=\"true\"}})");
            Query::new(format!("{ready} / {}", service.replicas.ceiling()), name.as_str())
        })
        .collect();
    if !queries.is_empty() {
        dashboard.graph("Share of the most copies that run", Unit::Share, queries);
    }
    volumes(architecture, dashboard);
    let left =
        "(kubelet_volume_stats_available_bytes / -(deriv(kubelet_volume_stats_available_bytes[1d]) < 0)) / 86400"
            .to_owned();
    dashboard.stat("Days until a volume is full", Unit::Days, vec![Query::new(format!("min({left})"), "days")]);
}

fn parenthesised(expression: &str) -> String {
    format!("({expression})")
}

/// Sent against arrived, for each flow.
fn flows(architecture: &Architecture, dashboard: &mut Dashboard) {
    for (name, flow) in &architecture.document.flows {
        let title = flow.title.as_ref().map_or(name.as_str(), |title| title.as_str());
        let queries = sent_and_arrived(architecture, flow);
        if !queries.is_empty() {
            dashboard.graph(title, Unit::PerSecond, queries);
        }
    }
}

/// What each step of a flow carries. Metrics count operations and not journeys: where an edge serves several flows, it
/// carries the sum of them.
fn sent_and_arrived(architecture: &Architecture, flow: &Flow) -> Vec<Query> {
    let steps: Vec<Step> =
        flow.steps.iter().filter_map(|step| Step::of(architecture, step.from.as_str(), step.to.as_str())).collect();
    let ends = [steps.first().map(|step| (step, "sent")), steps.last().map(|step| (step, "arrived"))];
    let mut queries: Vec<Query> = ends
        .into_iter()
        .flatten()
        .map(|(step, word)| Query::new(step.rate.clone(), &format!("{word}: {}", step.name)))
        .collect();
    queries.extend(
        flow.rate.as_ref().map(|rate| Query::new(format!("vector({})", number(rate.per_second())), "declared")),
    );
    queries
}

/// A step of a flow that something counts.
struct Step {
    name: String,
    rate: String,
    failed: String,
    /// How long the slowest in a hundred take.
    slow: String,
}

impl Step {
    /// A request is counted where it is answered, everything else by whoever does it. What a broker delivers is counted
    /// by the service that consumes it.
    fn of(architecture: &Architecture, from: &str, to: &str) -> Option<Self> {
        let name = format!("{from} → {to}");
        if architecture.service(to).is_some_and(|service| speaks_http(service) && scraped_port(service).is_some())
            && architecture.store(from).is_none()
        {
            let which = which(architecture, to);
            return Some(Self {
                name,
                rate: duration_count(&which),
                failed: failed(&which),
                slow: quantile(&which, "0.99"),
            });
        }
        let edge = architecture.connections.iter().find(|edge| {
            let declared = (edge.from.name(), edge.to.name());
            declared == (from, to) || (declared == (to, from) && architecture.store(from).is_some())
        })?;
        let which = format!("{},edge=\"{edge}\"", which(architecture, edge.from.name()));
        let of = |result: &str| {
            format!("sum(rate(landfall_edge_operations_total{{{which},result=\"{result}\"}}[$__rate_interval]))")
        };
        let slow = format!(
            "histogram_quantile(0.99, sum by (le) (rate(landfall_edge_duration_seconds_bucket{{{which}}}[$__rate_interval])))"
        );
        let (carried, lost) = (of("carried"), of("failed"));
        Some(Self { name, failed: format!("{lost} / ({carried} + {lost})"), rate: carried, slow })
    }
}

/// One flow, step by step.
fn of_flow(architecture: &Architecture, flow: &Flow, dashboard: &mut Dashboard) {
    dashboard.row("From end to end");
    dashboard.graph("Sent against arrived, in a second", Unit::PerSecond, sent_and_arrived(architecture, flow));
    let steps: Vec<Step> =
        flow.steps.iter().filter_map(|step| Step::of(architecture, step.from.as_str(), step.to.as_str())).collect();
    let failed = steps.iter().map(|step| Query::new(step.failed.clone(), &step.name)).collect();
    dashboard.graph("Share of each step that fails", Unit::Share, failed);
    let mut slow: Vec<Query> = steps.iter().map(|step| Query::new(step.slow.clone(), &step.name)).collect();
    slow.extend(
        flow.within
            .as_ref()
            .map(|within| Query::new(format!("vector({})", number(within.as_secs_f64())), "whole flow, declared")),
    );
    dashboard.graph("How long the slowest in a hundred take", Unit::Seconds, slow);
    dashboard.row("Step by step");
    for step in steps {
        dashboard.graph(&step.name, Unit::PerSecond, vec![Query::new(step.rate, "in a second")]);
    }
}

/// A value of a dashboard that is a list only when it has something in it.
fn list(values: Vec<Value>) -> Value {
    Value::Array(values)
}

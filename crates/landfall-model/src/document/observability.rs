//! Metrics, logs, traces, dashboards, alerts and who is called.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Map, default};
use crate::span::Spanned;
use crate::units::{Duration, Name, Percent, TimeOfDay};

/// Metrics, logs, traces, dashboards and alerts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Observability {
    /// The namespace of the monitoring stack; its pods may scrape the services.
    #[serde(default = "monitoring_namespace")]
    pub namespace: Spanned<Name>,
    /// How services are measured; nothing is scraped when left out.
    #[serde(default)]
    pub metrics: Option<MetricsStack>,
    /// What the business counts.
    #[serde(default)]
    pub business: Map<BusinessMetric>,
    /// Where logs go.
    #[serde(default)]
    pub logs: Option<Logs>,
    /// Where traces go.
    #[serde(default)]
    pub traces: Option<Traces>,
    /// The dashboards.
    #[serde(default)]
    pub dashboards: Map<Dashboard>,
    /// Who is told of what, and who next.
    #[serde(default)]
    pub alerts: Alerts,
    /// Who is on call.
    #[serde(default)]
    pub on_call: Option<OnCall>,
}

impl Default for Observability {
    fn default() -> Self {
        Self {
            namespace: monitoring_namespace(),
            metrics: None,
            business: Map::new(),
            logs: None,
            traces: None,
            dashboards: Map::new(),
            alerts: Alerts::default(),
            on_call: None,
        }
    }
}

fn monitoring_namespace() -> Spanned<Name> {
    Spanned::unwritten("monitoring".parse().expect("`monitoring` is a name"))
}

/// How services are measured.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "MetricsStack|stack", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "MetricsStack", extend("x-short" = "stack"))]
pub struct MetricsStack {
    /// Which software.
    pub stack: Spanned<MetricsSoftware>,
    /// Whether Grafana shows it.
    #[serde(default)]
    pub grafana: Spanned<bool>,
    /// The time between two scrapes.
    #[serde(default = "default::seconds::<30>")]
    pub interval: Spanned<Duration>,
    /// How long metrics are kept.
    #[serde(default = "default::days::<15>")]
    pub retention: Spanned<Duration>,
    /// What every service reports.
    #[serde(default)]
    pub signals: Vec<Spanned<Signal>>,
}

/// Software for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MetricsSoftware {
    /// Prometheus.
    Prometheus,
}

/// What every service reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// Requests in a second.
    RequestRate,
    /// The share of requests that fail.
    ErrorRate,
    /// How long requests take: p50, p95 and p99.
    Latency,
    /// Open connections.
    ActiveConnections,
}

/// Something that the business counts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BusinessMetric {
    /// What it is, for people.
    #[serde(default)]
    pub title: Option<Spanned<String>>,
    /// The service that reports it.
    pub from: Spanned<Name>,
    /// How it is counted.
    pub kind: Spanned<MetricKind>,
    /// Whether the document leaves this out and the file assumes it.
    #[serde(default)]
    pub assumed: bool,
}

/// How something is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MetricKind {
    /// It only grows; its rate is shown.
    Counter,
    /// It goes up and down.
    Gauge,
    /// A share between 0 and 1.
    Ratio,
}

/// Where logs go.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "Logs|stack", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Logs", extend("x-short" = "stack"))]
pub struct Logs {
    /// Which software.
    pub stack: Spanned<LogSoftware>,
    /// What ships them; Fluent Bit when left out.
    #[serde(default)]
    pub shipper: Spanned<LogShipper>,
    /// The format of a line.
    #[serde(default)]
    pub format: Spanned<LogFormat>,
    /// How long they are kept.
    #[serde(default = "default::days::<30>")]
    pub retention: Spanned<Duration>,
}

/// Software for logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogSoftware {
    /// Elasticsearch and Kibana.
    Elasticsearch,
    /// Grafana Loki.
    Loki,
}

/// What ships logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogShipper {
    /// Fluent Bit.
    #[default]
    FluentBit,
    /// Fluentd.
    Fluentd,
    /// Grafana Alloy.
    Alloy,
    /// Promtail.
    Promtail,
    /// Logstash.
    Logstash,
}

/// The format of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// Anything.
    Text,
}

/// Where traces go.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "Traces|stack", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Traces", extend("x-short" = "stack"))]
pub struct Traces {
    /// Which software.
    pub stack: Spanned<TraceSoftware>,
    /// Its version, such as `2`.
    #[serde(default)]
    pub version: Option<Spanned<String>>,
    /// The share of requests that is traced.
    #[serde(default = "default::percent::<10>")]
    pub sample: Spanned<Percent>,
}

/// Software for traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TraceSoftware {
    /// Jaeger.
    Jaeger,
    /// Zipkin.
    Zipkin,
    /// Grafana Tempo.
    Tempo,
}

/// A dashboard.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "Dashboard|shows", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Dashboard", extend("x-short" = "shows"))]
pub struct Dashboard {
    /// What it shows.
    pub shows: Spanned<DashboardSubject>,
    /// Its title, for people.
    #[serde(default)]
    pub title: Option<Spanned<String>>,
}

/// What a dashboard shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DashboardSubject {
    /// Rate, errors, duration and saturation of every service and store.
    Health,
    /// What the business counts.
    Business,
    /// Headroom, and when it will be used up.
    Capacity,
    /// Sent against arrived, for each flow.
    Flows,
}

/// Who is told of what, and who next.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Alerts {
    /// The people and channels that can be told.
    #[serde(default)]
    pub receivers: Map<Receiver>,
    /// By severity.
    #[serde(default)]
    pub routes: Routes,
    /// What raises alerts; metrics always can.
    #[serde(default)]
    pub from: Vec<Spanned<AlertSource>>,
}

/// Routes by severity.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Routes {
    /// Users are hurt now.
    #[serde(default)]
    pub critical: Option<Route>,
    /// Users will be hurt.
    #[serde(default)]
    pub warning: Option<Route>,
    /// Nobody is hurt.
    #[serde(default)]
    pub info: Option<Route>,
}

/// Who is told, and who next.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Route {
    /// Who is told first.
    pub to: Spanned<Name>,
    /// Who is told next when nobody answers.
    #[serde(default)]
    pub escalate: Vec<Escalation>,
}

/// Who is told when nobody answers.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Escalation {
    /// After how long without an answer.
    pub after: Spanned<Duration>,
    /// Who.
    pub to: Spanned<Name>,
}

/// Somebody or something that can be told.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Receiver {
    /// By which means.
    pub by: Spanned<ReceiverMeans>,
    /// The address, or the secret that holds it: `alerting/slack-url`.
    pub to: Spanned<String>,
    /// Whether the document leaves this out and the file assumes it.
    #[serde(default)]
    pub assumed: bool,
}

/// By which means somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReceiverMeans {
    /// Mail.
    Email,
    /// A Slack channel.
    Slack,
    /// A pager.
    Pager,
    /// An HTTP endpoint.
    Webhook,
}

/// What raises alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AlertSource {
    /// Metrics.
    Metrics,
    /// Logs.
    Logs,
}

/// Who is on call.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OnCall {
    /// The people, in their turn.
    pub rotation: Vec<Spanned<String>>,
    /// How long a turn takes.
    #[serde(default = "default::days::<7>")]
    pub turn: Spanned<Duration>,
    /// From when on a day somebody is on call; around the clock when left out.
    #[serde(default)]
    pub from: Option<Spanned<TimeOfDay>>,
    /// Until when.
    #[serde(default)]
    pub to: Option<Spanned<TimeOfDay>>,
    /// The IANA time zone.
    #[serde(default)]
    pub time_zone: Option<Spanned<String>>,
    /// Whether the document leaves this out and the file assumes it.
    #[serde(default)]
    pub assumed: bool,
}

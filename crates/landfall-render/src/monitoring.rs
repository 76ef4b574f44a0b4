//! Monitoring without an operator: the files of Prometheus, Alertmanager, Grafana, of what ships logs and of the
//! OpenTelemetry collector.
//!
//! What is scraped and what raises an alert is read from the rendered objects of the Prometheus operator, patches and raw
//! objects included, so that a cluster with the operator and one without it watch the same. Files add what the operator's
//! objects cannot say: unit tests of the alerts, tests of the routes, dashboards, log shipping, traces.

mod alertmanager;
mod dashboards;
mod guide;
mod logs;
mod prometheus;
mod rule_tests;
mod traces;

use landfall_model::{Architecture, Finding};
use serde_json::Value;

use crate::kubernetes::kubernetes;
use crate::object::Object;
use crate::target::Output;
use crate::yaml;

/// Renders the monitoring of each environment, in a folder of its own when there are several.
pub fn monitoring<'a>(architectures: impl IntoIterator<Item = &'a Architecture>) -> Output {
    let architectures: Vec<&Architecture> = architectures.into_iter().collect();
    let mut all = Output::default();
    for architecture in &architectures {
        let mut one = Stack::new(architecture);
        one.write();
        let folder = architecture.environment.as_ref().filter(|_| architectures.len() > 1);
        let place = |path: String| folder.map_or_else(|| path.clone(), |folder| format!("{folder}/{path}"));
        all.files.extend(one.rendered.files.into_iter().map(|(path, text)| (place(path), text)));
        for finding in one.rendered.findings {
            // An environment repeats what another one has said of the same place.
            let known =
                |other: &Finding| (other.primary.span, &other.message) == (finding.primary.span, &finding.message);
            if !all.findings.iter().any(known) {
                all.findings.push(finding);
            }
        }
    }
    all
}

/// The monitoring of one environment while it is written.
struct Stack<'a> {
    architecture: &'a Architecture,
    /// The objects of the Prometheus operator.
    objects: Vec<Object>,
    rendered: Output,
    yaml: yaml::Writer,
}

impl<'a> Stack<'a> {
    fn new(architecture: &'a Architecture) -> Self {
        let of_operator = |object: &Object| object.api_version().starts_with("monitoring.coreos.com/");
        let objects = kubernetes(architecture).objects.into_iter().filter(of_operator).collect();
        Self { architecture, objects, rendered: Output::default(), yaml: yaml::Writer::default() }
    }

    fn write(&mut self) {
        let observability = &self.architecture.document.observability;
        if observability.metrics.is_some() {
            prometheus::write(self);
            rule_tests::write(self);
            alertmanager::write(self);
            dashboards::write(self);
        }
        logs::write(self);
        traces::write(self);
        if self.rendered.files.is_empty() {
            let name = &self.architecture.document.name;
            self.rendered.findings.push(
                Finding::note("not-rendered", name.span, "there is no monitoring to render")
                    .because("`observability` declares no metrics, logs or traces")
                    .help("declare `observability: { metrics: prometheus }`"),
            );
            return;
        }
        guide::write(self);
    }

    /// The objects of a kind.
    fn of_kind<'s>(&'s self, kind: &'s str) -> impl Iterator<Item = &'s Object> {
        self.objects.iter().filter(move |object| object.kind() == kind)
    }

    /// Writes a file of YAML; `about` says what it is and where it comes from.
    fn yaml(&mut self, path: impl Into<String>, about: &str, value: &Value) {
        let text = format!("# {about}\n{}", self.yaml.write(value));
        self.rendered.files.insert(path.into(), text);
    }

    fn json(&mut self, path: impl Into<String>, value: &Value) {
        let text = serde_json::to_string_pretty(value).expect("a value is JSON");
        self.rendered.files.insert(path.into(), text + "\n");
    }

    fn text(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.rendered.files.insert(path.into(), text.into());
    }

    /// The namespace of the monitoring stack.
    fn namespace(&self) -> &'a str {
        self.architecture.document.observability.namespace.as_str()
    }
}

/// `a-b` as a part of a metric's name.
fn metric_word(name: &str) -> String {
    name.replace('-', "_")
}

/// The name of a business metric, as stand-ins write it: a counter ends in `_total`.
pub fn business_metric(name: &str, kind: landfall_model::MetricKind) -> String {
    let name = metric_word(name);
    match kind {
        landfall_model::MetricKind::Counter => format!("{name}_total"),
        landfall_model::MetricKind::Gauge | landfall_model::MetricKind::Ratio => name,
    }
}

//! The store of logs, the store of traces and the receivers of alerts: one stand-in for all, in the namespace of the monitoring
//! stack, behind the names that the rendered files and pods have for the stores.

use std::path::Path;
use std::sync::Mutex;

use landfall_model::{Architecture, LogFormat, LogSoftware, TraceSoftware};
use landfall_standin::{
    CONTROL_PORT, ELASTICSEARCH_PORT, JAEGER_PORT, LOKI_PORT, OTLP_GRPC_PORT, OTLP_HTTP_PORT, SEEN_PATH,
};
use serde_json::{Value, json};

use super::Plan;
use super::externals::deployment;

/// Made up here, as no architecture names one.
const IMAGE: &str = "landfall/sink";

/// What its pod is called and labelled with.
pub(in crate::commands::up) const SINK: &str = "log-and-trace-sink-on-this-machine";
pub(in crate::commands::up) const SINK_LABEL: &str = "landfall.dev/sink";

/// Where logs and traces go here, and alerts.
pub(in crate::commands::up) struct SinkPlan {
    /// The namespace of its pod.
    pub(in crate::commands::up) namespace: String,
    /// The declared log store.
    pub(in crate::commands::up) logs: Option<LogSoftware>,
    /// Whether the file says that lines are JSON.
    pub(in crate::commands::up) json_lines: bool,
    /// The declared store of traces, where services send theirs by OTLP.
    pub(in crate::commands::up) traces: Option<&'static str>,
    /// What is put into an Elasticsearch before the first line: the path, and the file.
    pub(in crate::commands::up) prepared: Vec<(String, String)>,
    /// The data stream or stream that lines go to.
    pub(in crate::commands::up) stream: String,
    /// Why lines wait for another try, if some do, or were refused.
    pub(in crate::commands::up) trouble: Mutex<Option<String>>,
}

impl Plan {
    /// The sink, where the architecture declares logs or traces, or somebody is told of alerts.
    pub(super) fn add_sink(&mut self, architecture: &Architecture, program: &Path) {
        let observability = &architecture.document.observability;
        let traces = match observability.traces.as_ref().map(|traces| traces.stack.value) {
            Some(TraceSoftware::Jaeger) => Some("jaeger"),
            Some(TraceSoftware::Tempo) => Some("tempo"),
            Some(TraceSoftware::Zipkin) => {
                self.left_out.push("not handled yet: traces in Zipkin's own protocol".to_owned());
                None
            }
            None => None,
        };
        let logs = observability.logs.as_ref();
        if logs.is_none() && traces.is_none() && self.alerts.is_none() {
            return;
        }
        let namespace = observability.namespace.to_string();
        let software = logs.map(|logs| logs.stack.value);
        let (stream, prepared) = match software {
            Some(LogSoftware::Elasticsearch) => rendered_template(architecture),
            Some(LogSoftware::Loki) | None => (String::new(), Vec::new()),
        };
        self.image(IMAGE.to_owned(), program, &["sink"]);
        self.additions.extend(objects(&namespace, software, traces));
        self.ensure_namespace(&namespace);
        self.sink = Some(SinkPlan {
            namespace,
            logs: software,
            json_lines: logs.is_some_and(|logs| logs.format.value == LogFormat::Json),
            traces,
            prepared,
            stream,
            trouble: Mutex::default(),
        });
    }
}

/// How the rendered files name a log store.
pub(in crate::commands::up) fn name_of(software: LogSoftware) -> &'static str {
    match software {
        LogSoftware::Elasticsearch => "elasticsearch",
        LogSoftware::Loki => "loki",
    }
}

/// The data stream, and the policy and template for it, as `render monitoring` writes them.
fn rendered_template(architecture: &Architecture) -> (String, Vec<(String, String)>) {
    let files = landfall_render::monitoring([architecture]).files;
    let file = |name: &str| files.get(&format!("elasticsearch/{name}.json")).cloned().unwrap_or_default();
    let (policy, template) = (file("lifecycle-policy"), file("index-template"));
    let parsed: Value = serde_json::from_str(&template).expect("a rendered template is JSON");
    let stream = parsed["index_patterns"][0].as_str().expect("a rendered template has a pattern").to_owned();
    let prepared = vec![(format!("/_ilm/policy/{stream}"), policy), (format!("/_index_template/{stream}"), template)];
    (stream, prepared)
}

/// The pod, and a Service for each name that something has for it.
fn objects(namespace: &str, logs: Option<LogSoftware>, traces: Option<&str>) -> Vec<Value> {
    let labels = json!({ SINK_LABEL: SINK });
    let metadata = |name: &str| json!({ "name": name, "namespace": namespace, "labels": labels });
    let service = |name: &str, ports: &[(&str, u16)]| {
        let ports: Vec<_> = ports.iter().map(|(name, port)| json!({ "name": name, "port": port })).collect();
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata(name),
            "spec": { "selector": labels, "ports": ports },
        })
    };
    let otlp = [("otlp-grpc", OTLP_GRPC_PORT), ("otlp-http", OTLP_HTTP_PORT)];
    let container = json!({
        "name": "sink",
        "image": IMAGE,
        "readinessProbe": { "httpGet": { "port": CONTROL_PORT, "path": SEEN_PATH }, "periodSeconds": 1 },
    });
    // Its lines and spans are in memory: two copies would each have a part.
    let mut sink = deployment(&metadata(SINK), &labels, container, &json!([]));
    sink["spec"]["strategy"] = json!({ "type": "Recreate" });
    let mut objects = vec![sink];
    objects.extend(logs.map(|logs| match logs {
        LogSoftware::Elasticsearch => service(name_of(logs), &[("http", ELASTICSEARCH_PORT)]),
        LogSoftware::Loki => service(name_of(logs), &[("http", LOKI_PORT)]),
    }));
    if let Some(store) = traces {
        objects.push(service("opentelemetry-collector", &otlp));
        let query = (store == "jaeger").then_some(("query", JAEGER_PORT));
        let ports: Vec<_> = otlp.into_iter().chain(query).collect();
        objects.push(service(store, &ports));
    }
    objects
}

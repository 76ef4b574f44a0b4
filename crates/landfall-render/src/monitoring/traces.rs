//! Traces: the OpenTelemetry collector, which takes them over OTLP, counts them, and sends a share of them on.

use landfall_model::TraceSoftware;
use serde_json::Value;

use super::Stack;
use crate::json::json;
use crate::kubernetes::monitoring::number;

pub(super) fn write(stack: &mut Stack<'_>) {
    let Some(traces) = &stack.architecture.document.observability.traces else { return };
    let (exporter, settings) = exporter(traces.stack.value, stack.namespace());
    let share = number(traces.sample.fraction() * 100.0).parse::<f64>().unwrap_or(100.0);
    let configuration = json!({
        "receivers": {
            "otlp": { "protocols": { "grpc": { "endpoint": "0.0.0.0:4317" }, "http": { "endpoint": "0.0.0.0:4318" } } },
        },
        "processors": {
            "memory_limiter": { "check_interval": "1s", "limit_percentage": 80, "spike_limit_percentage": 20 },
            "probabilistic_sampler": { "sampling_percentage": share },
            "batch": {},
        },
        "connectors": {
            // How long each operation takes, and who calls whom: of every trace, before any is left out.
            "span_metrics": { "histogram": { "explicit": {} } },
            "servicegraph": { "store": { "ttl": "5s", "max_items": 10_000 } },
            "forward": {},
        },
        "exporters": {
            exporter: settings,
            "prometheus": { "endpoint": "0.0.0.0:8889" },
        },
        "extensions": { "health_check": { "endpoint": "0.0.0.0:13133" } },
        "service": {
            "extensions": ["health_check"],
            "pipelines": {
                "traces/all": {
                    "receivers": ["otlp"],
                    "processors": ["memory_limiter"],
                    "exporters": ["span_metrics", "servicegraph", "forward"],
                },
                "traces/sampled": {
                    "receivers": ["forward"],
                    "processors": ["probabilistic_sampler", "batch"],
                    "exporters": [exporter],
                },
                "metrics": {
                    "receivers": ["span_metrics", "servicegraph"],
                    "processors": ["batch"],
                    "exporters": ["prometheus"],
                },
            },
        },
    });
    let about = "From observability.traces, for the distribution `otelcol-contrib` from 0.161 on, which has the connectors and knows these names.";
    stack.yaml("opentelemetry/collector.yaml", about, &configuration);
}

/// Where the share goes. Jaeger 2 and Tempo take OTLP; Zipkin has its own protocol.
fn exporter(software: TraceSoftware, namespace: &str) -> (&'static str, Value) {
    let otlp =
        |service: &str| json!({ "endpoint": format!("{service}.{namespace}.svc:4317"), "tls": { "insecure": true } });
    match software {
        TraceSoftware::Jaeger => ("otlp_grpc/jaeger", otlp("jaeger")),
        TraceSoftware::Tempo => ("otlp_grpc/tempo", otlp("tempo")),
        TraceSoftware::Zipkin => {
            ("zipkin", json!({ "endpoint": format!("http://zipkin.{namespace}.svc:9411/api/v2/spans") }))
        }
    }
}

/// How Grafana asks for traces.
pub(super) fn data_source(software: TraceSoftware) -> Value {
    let (name, url) = match software {
        TraceSoftware::Jaeger => ("jaeger", "http://jaeger:16686"),
        TraceSoftware::Tempo => ("tempo", "http://tempo:3200"),
        TraceSoftware::Zipkin => ("zipkin", "http://zipkin:9411"),
    };
    json!({ "name": name, "uid": name, "type": name, "access": "proxy", "url": url })
}

//! Changing an object from one version of its kind into another.

use serde_json::{Map, Value, json};

use super::Resource;

/// Changes `object`, which is of `from`, into one of `to`. Custom resources keep their fields: the only strategy that
/// is served is `None`.
pub(super) fn convert(from: &Resource, to: &Resource, object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    match (from.group.as_str(), from.version.as_str(), to.group.as_str(), to.version.as_str()) {
        ("autoscaling", "v1", "autoscaling", "v2") => autoscaler_to_v2(fields),
        ("autoscaling", "v2", "autoscaling", "v1") => autoscaler_to_v1(fields),
        ("", _, "events.k8s.io", _) if from.kind == "Event" => rename(fields, &EVENT),
        ("events.k8s.io", _, "", _) if from.kind == "Event" => {
            rename(fields, &EVENT.map(|(core, event)| (event, core)));
        }
        _ => {}
    }
    fields.insert("apiVersion".to_owned(), json!(to.api_version()));
    fields.insert("kind".to_owned(), json!(to.kind));
}

/// Names of a field in core/v1 and in events.k8s.io/v1.
const EVENT: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename<const N: usize>(fields: &mut Map<String, Value>, names: &[(&str, &str); N]) {
    for (from, to) in names {
        if let Some(value) = fields.shift_remove(*from) {
            fields.insert((*to).to_owned(), value);
        }
    }
}

/// Where a v1 object keeps what only v2 can say.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn autoscaler_to_v2(fields: &mut Map<String, Value>) {
    let metrics = take_annotation(fields, METRICS);
    let behavior = take_annotation(fields, BEHAVIOR);
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        let mut all: Vec<Value> = metrics.and_then(|value| value.as_array().cloned()).unwrap_or_default();
        if let Some(percent) = spec.shift_remove("targetCPUUtilizationPercentage") {
            all.insert(
                0,
                json!({
                    "type": "Resource",
                    "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": percent } },
                }),
            );
        }
        if !all.is_empty() {
            spec.insert("metrics".to_owned(), Value::Array(all));
        }
        if let Some(behavior) = behavior {
            spec.insert("behavior".to_owned(), behavior);
        }
    }
    if let Some(status) = fields.get_mut("status").and_then(Value::as_object_mut)
        && let Some(percent) = status.shift_remove("currentCPUUtilizationPercentage")
    {
        let current = json!([{
            "type": "Resource",
            "resource": { "name": "cpu", "current": { "averageUtilization": percent } },
        }]);
        status.insert("currentMetrics".to_owned(), current);
    }
}

fn autoscaler_to_v1(fields: &mut Map<String, Value>) {
    let mut annotations = Vec::new();
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        if let Some(Value::Array(mut metrics)) = spec.shift_remove("metrics") {
            let is_cpu = |metric: &Value| {
                metric.pointer("/resource/name") == Some(&json!("cpu"))
                    && metric.pointer("/resource/target/averageUtilization").is_some()
            };
            if let Some(index) = metrics.iter().position(is_cpu) {
                let metric = metrics.remove(index);
                let percent = metric.pointer("/resource/target/averageUtilization").cloned().unwrap_or_default();
                spec.insert("targetCPUUtilizationPercentage".to_owned(), percent);
            }
            if !metrics.is_empty() {
                annotations.push((METRICS, Value::Array(metrics)));
            }
        }
        if let Some(behavior) = spec.shift_remove("behavior") {
            annotations.push((BEHAVIOR, behavior));
        }
    }
    if let Some(status) = fields.get_mut("status").and_then(Value::as_object_mut) {
        status.shift_remove("conditions");
        if let Some(metrics) = status.shift_remove("currentMetrics")
            && let Some(percent) = metrics.as_array().into_iter().flatten().find_map(|metric| {
                let cpu = metric.pointer("/resource/name") == Some(&json!("cpu"));
                cpu.then(|| metric.pointer("/resource/current/averageUtilization").cloned()).flatten()
            })
        {
            status.insert("currentCPUUtilizationPercentage".to_owned(), percent);
        }
    }
    if !annotations.is_empty()
        && let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut)
        && let Some(map) = metadata.entry("annotations").or_insert_with(|| json!({})).as_object_mut()
    {
        for (name, value) in annotations {
            map.insert(name.to_owned(), json!(value.to_string()));
        }
    }
}

fn take_annotation(fields: &mut Map<String, Value>, name: &str) -> Option<Value> {
    let metadata = fields.get_mut("metadata")?.as_object_mut()?;
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.shift_remove(name)?;
    if annotations.is_empty() {
        metadata.shift_remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

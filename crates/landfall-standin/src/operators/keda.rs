//! KEDA's `ScaledObject`: the `HorizontalPodAutoscaler` that KEDA makes of it, whose minimum follows the cron triggers.
//!
//! The triggers for CPU and memory become its metrics, and so does one that asks Prometheus for a sum over the pods. A cron trigger asks
//! for a number of copies while it is on, and the highest number wins: that is a minimum. The clock is that of the engine. Not
//! handled: triggers that ask Prometheus for anything else, scaling to zero, and a real KEDA's pause between two looks.

use std::sync::Arc;

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::{Value, json};
use tracing::warn;

use super::{Context, OperatorError, Progress, labels_of};

pub(super) async fn reconcile(context: Arc<Context>, scaled: Arc<DynamicObject>) -> Result<Progress, OperatorError> {
    let spec = &scaled.data["spec"];
    let now = context.now().await;
    let asked = triggers(spec, "cron").filter_map(|trigger| {
        let asked =
            is_on(&trigger["metadata"], now).map(|on| on.then(|| number(&trigger["metadata"]["desiredReplicas"])));
        asked.unwrap_or_else(|why| {
            warn!(object = scaled.name_any(), why, "a cron trigger says nothing");
            None
        })
    });
    let (least, most) = (number(&spec["minReplicaCount"]), number(&spec["maxReplicaCount"]).max(1));
    let min = asked.fold(least, u64::max).clamp(1, most);
    let mut metrics: Vec<Value> = ["cpu", "memory"]
        .into_iter()
        .flat_map(|resource| triggers(spec, resource).map(move |trigger| metric(resource, &trigger["metadata"])))
        .collect();
    for trigger in triggers(spec, "prometheus") {
        let metric = metric_of_pods(&trigger["metadata"]);
        if metric.is_none() {
            warn!(object = scaled.name_any(), query = ?trigger["metadata"]["query"], "a trigger asks Prometheus for no sum over pods");
        }
        metrics.extend(metric);
    }
    if metrics.is_empty() {
        // One that asks for what there is: without any, Kubernetes scales by CPU.
        metrics.push(metric("cpu", &json!({ "value": "100000" })));
    }
    let name = scaled.name_any();
    let autoscaler = json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": { "name": format!("keda-hpa-{name}"), "labels": labels_of(&scaled, &[]) },
        "spec": {
            "scaleTargetRef": spec["scaleTargetRef"],
            "minReplicas": min,
            "maxReplicas": most,
            "metrics": metrics,
            "behavior": spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
        },
    });
    context.apply(&scaled, autoscaler).await?;
    let ready =
        json!({ "type": "Ready", "status": "True", "reason": "ScaledObjectReady", "message": "kept on this machine" });
    context.set_status(&scaled, json!({ "conditions": [ready] })).await?;
    Ok(Progress::Later)
}

fn triggers<'a>(spec: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    spec["triggers"].as_array().into_iter().flatten().filter(move |trigger| trigger["type"] == kind)
}

/// A number, or a text that is one: metadata of triggers are texts.
fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

fn metric(resource: &str, metadata: &Value) -> Value {
    let target = json!({ "type": "Utilization", "averageUtilization": number(&metadata["value"]) });
    match metadata["containerName"].as_str() {
        Some(container) => json!({
            "type": "ContainerResource",
            "containerResource": { "name": resource, "container": container, "target": target },
        }),
        None => json!({ "type": "Resource", "resource": { "name": resource, "target": target } }),
    }
}

/// What is rendered asks Prometheus for the sum over the pods, of which each is to have the threshold: that is a metric of pods, which
/// the engine serves by itself (`custom.metrics.k8s.io`).
fn metric_of_pods(metadata: &Value) -> Option<Value> {
    let query = metadata["query"].as_str()?;
    let (name, rest) = query.strip_prefix("sum(")?.split_once('{')?;
    let is_plain =
        rest.ends_with("})") && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_:".contains(letter));
    let target = json!({ "type": "AverageValue", "averageValue": metadata["threshold"] });
    is_plain.then(|| json!({ "type": "Pods", "pods": { "metric": { "name": name }, "target": target } }))
}

/// Whether a cron trigger is on: its next end comes before its next beginning.
fn is_on(metadata: &Value, now: Timestamp) -> Result<bool, String> {
    let text = |key: &str| metadata[key].as_str().ok_or_else(|| format!("it has no `{key}`"));
    let zone = text("timezone")?;
    let here = now.to_zoned(TimeZone::get(zone).map_err(|_| format!("there is no time zone `{zone}`"))?);
    let next = |key: &str| -> Result<Zoned, String> {
        let cron: Cron = text(key)?.parse().map_err(|error| format!("`{key}` is no schedule: {error}"))?;
        cron.find_next_occurrence(&here, false).map_err(|error| format!("`{key}` never comes: {error}"))
    };
    Ok(next("end")? < next("start")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_that_asks_prometheus_for_the_sum_over_pods_is_a_metric_of_pods() {
        let of = |query: &str| metric_of_pods(&json!({ "query": query, "threshold": "40" }));
        let rendered = of(r#"sum(baskets_open{namespace="shop",pod=~"web-.+"})"#).expect("it is one");
        assert_eq!(rendered["pods"]["metric"]["name"], "baskets_open");
        assert_eq!(rendered["pods"]["target"], json!({ "type": "AverageValue", "averageValue": "40" }));
        assert_eq!(of("max(up)"), None);
        assert_eq!(of("sum(rate(requests_total{}[1m]))"), None);
    }

    #[test]
    fn a_cron_trigger_is_on_between_its_beginning_and_its_end() {
        let office = json!({
            "timezone": "Asia/Kolkata", "start": "58 8 * * 1,2,3,4,5", "end": "0 19 * * 1,2,3,4,5", "desiredReplicas": "6",
        });
        let on = |time: &str| is_on(&office, time.parse().expect("a time"));
        // A Friday in India, 5:30 h ahead; and the Saturday after it.
        let expected = [
            ("2026-11-27T03:27:59Z", false),
            ("2026-11-27T03:28:00Z", true),
            ("2026-11-27T13:29:59Z", true),
            ("2026-11-27T13:30:00Z", false),
            ("2026-11-28T06:00:00Z", false),
        ];
        for (time, wanted) in expected {
            assert_eq!(on(time), Ok(wanted), "at {time}");
        }
        assert_eq!(
            is_on(&json!({ "timezone": "Nowhere" }), Timestamp::now()),
            Err("there is no time zone `Nowhere`".to_owned())
        );
    }
}

//! `custom.metrics.k8s.io`: what pods tell of themselves, as adapters of Prometheus serve it on a cluster.
//!
//! <https://github.com/kubernetes/metrics/blob/master/pkg/apis/custom_metrics/v1beta2/types.go>
//!
//! Not handled: metrics of anything but pods.

use std::borrow::Cow;
use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use crate::api::failure::Failure;
use crate::api::node_agent::PodSeries;
use crate::api::request::{Target, Verb};
use crate::api::{Call, State, negotiate, time_text};
use crate::scheme::Scheme;
use crate::scheme::quantity::Quantity;
use crate::scheme::selector::LabelSelector;
use crate::store::{Collection, Key};

/// The name that stands for all pods which the selector takes.
const ALL: &str = "*";

/// The kinds that are served, with a subresource of `pods` for each metric that is known now: for discovery.
pub(crate) fn discoverable<'a>(state: &State, scheme: &'a Scheme) -> Cow<'a, Scheme> {
    let names = state.metrics.get().map(|source| source.metric_names()).unwrap_or_default();
    if names.is_empty() { Cow::Borrowed(scheme) } else { Cow::Owned(scheme.with_pod_metrics(&names)) }
}

/// Refuses a metric of something of which none is known.
pub(crate) fn of_others(target: &Target) -> Failure {
    let why = "only metrics of pods are served";
    if !target.subresource.is_empty() {
        unknown(&target.subresource, &subject(target), why)
    } else if target.plural == "metrics" && !target.name.is_empty() {
        // Of the namespace itself.
        unknown(&target.name, &format!("namespaces {}", target.namespace), why)
    } else {
        Failure::no_such_resource()
    }
}

/// Answers with a list of values also where one pod is named.
pub(crate) async fn answer(call: &Call<'_>) -> Result<Response, Failure> {
    let target = call.target;
    if target.subresource.is_empty() {
        return Err(Failure::no_such_resource());
    }
    if target.verb != Verb::Get {
        return Err(Failure::method_not_allowed());
    }
    let Some(source) = call.state.metrics.get() else {
        return Err(Failure::unavailable("the server is currently unable to handle the request"));
    };
    let selector = |option: &str| {
        let selector = LabelSelector::parse(call.query.text(option));
        selector.map_err(|error| Failure::bad_request(error.to_string()))
    };
    let (of_pods, of_series) = (selector("labelSelector")?, selector("metricLabelSelector")?);
    let pods = pods(call, &of_pods)?;
    let text = |pod: &Value, key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
    let uids: Vec<Arc<str>> = pods.iter().map(|pod| text(pod, "uid").into()).collect();
    let told = source.series(&uids, &target.subresource).await;
    let (mut items, mut silent) = (Vec::new(), None);
    for (pod, told) in pods.iter().zip(told) {
        let name = text(pod, "name");
        let value = told.and_then(|told| sum(&told, &of_series).map(|value| (told, value)));
        match value {
            Ok((told, value)) => items.push(item(target, &name, &told, &value, &of_series)),
            Err(why) if target.name == ALL => {
                silent.get_or_insert_with(|| format!("pod {name}: {why}"));
            }
            Err(why) => silent = Some(why),
        }
    }
    match silent {
        // One reason of perhaps many: that it has none is mostly the same for all of them.
        Some(why) if items.is_empty() => Err(unknown(&target.subresource, &subject(target), &why)),
        _ => Ok(negotiate::json(
            StatusCode::OK,
            &json!({
                "kind": call.resource.list_kind, "apiVersion": call.resource.api_version(), "metadata": {},
                "items": items,
            }),
        )),
    }
}

/// The pods that are asked of.
fn pods(call: &Call<'_>, selector: &LabelSelector) -> Result<Vec<Arc<Value>>, Failure> {
    let (target, collection) = (call.target, Collection::new("", "pods"));
    if target.name == ALL {
        let all = call.state.store.list(&collection, Some(&target.namespace)).records;
        return Ok(all.iter().map(|record| record.value()).filter(|pod| selector.matches(pod)).collect());
    }
    let named = call.state.store.get(&Key::new(&collection, &target.namespace, &target.name));
    named
        .map(|record| vec![record.value()])
        .ok_or_else(|| unknown(&target.subresource, &subject(target), "there is no such pod"))
}

/// The sum over the series that are selected, as Kubernetes writes an amount.
fn sum(told: &PodSeries, selector: &LabelSelector) -> Result<String, String> {
    let taken =
        told.series.iter().filter(|(labels, _)| selector.matches_labels(|key| labels.get(key).map(String::as_str)));
    let values: Vec<f64> = taken.map(|(_, value)| *value).collect();
    if values.is_empty() {
        return Err("none of its series has such labels".to_owned());
    }
    amount(values.iter().sum()).ok_or_else(|| "its value is no finite number".to_owned())
}

/// In thousandths at the finest, as Kubernetes keeps metrics.
#[expect(clippy::cast_possible_truncation, reason = "the conversion saturates")]
fn amount(value: f64) -> Option<String> {
    let millis = Some((value * 1000.0).round()).filter(|millis| millis.is_finite())? as i64;
    Quantity::parse(&format!("{millis}m")).map(Quantity::canonical)
}

fn item(target: &Target, name: &str, told: &PodSeries, value: &str, selector: &LabelSelector) -> Value {
    let mut item = json!({
        "describedObject": { "kind": "Pod", "namespace": target.namespace, "name": name, "apiVersion": "v1" },
        "metric": { "name": target.subresource, "selector": selector.to_object() },
        "timestamp": time_text(told.at),
    });
    if let Some(window) = told.window {
        item["windowSeconds"] = window.as_secs().into();
    }
    item["value"] = value.into();
    item
}

/// Whose metric is asked for: `pods`, `pods web-0`.
fn subject(target: &Target) -> String {
    if target.name == ALL { target.plural.clone() } else { format!("{} {}", target.plural, target.name) }
}

/// In the words of Kubernetes' library for adapters, and why.
fn unknown(metric: &str, subject: &str, why: &str) -> Failure {
    let message = format!("the server could not find the metric {metric} for {subject}: {why}");
    Failure { code: StatusCode::NOT_FOUND, reason: "NotFound", ..Failure::bad_request(message) }
}

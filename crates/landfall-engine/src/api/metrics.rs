//! How the server does, in Prometheus' text format, and what pods and nodes use, as `metrics.k8s.io` shows it.

pub(crate) mod custom;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::failure::{Failure, Subject};
use super::node_agent::{NodeUsage, PodUsage, Usage};
use super::read::Selection;
use super::request::Verb;
use super::{Call, State, negotiate, time_text};
use crate::store::{Collection, Key};

/// How many requests were answered, by verb, resource and code.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<BTreeMap<(String, String, u16), u64>>);

impl Requests {
    pub(crate) fn count(&self, verb: &str, resource: &str, code: StatusCode) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((verb.to_ascii_uppercase(), resource.to_owned(), code.as_u16())).or_default() += 1;
    }
}

pub(crate) fn prometheus(state: &State) -> Response {
    let mut text = String::from(
        "# HELP apiserver_request_total Requests answered, by verb, resource and code.\n\
         # TYPE apiserver_request_total counter\n",
    );
    for ((verb, resource, code), count) in state.requests.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        text +=
            &format!("apiserver_request_total{{code=\"{code}\",resource=\"{resource}\",verb=\"{verb}\"}} {count}\n");
    }
    text += "# HELP apiserver_storage_objects Objects stored, by resource.\n# TYPE apiserver_storage_objects gauge\n";
    let mut collections = state.store.collections();
    collections.sort();
    for collection in collections {
        let count = state.store.count(&collection, None);
        text += &format!("apiserver_storage_objects{{resource=\"{collection}\"}} {count}\n");
    }
    if let Some(lost) = state.lost_events.get() {
        text += &format!(
            "# HELP landfall_events_lost_total Events that were recorded and not written, as too many were waiting.\n\
             # TYPE landfall_events_lost_total counter\n\
             landfall_events_lost_total {}\n",
            lost.total()
        );
    }
    negotiate::with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text.into())
}

/// Answers for the resources of `metrics.k8s.io`, which are measured and not stored.
pub(crate) fn answer(call: &Call<'_>) -> Result<Response, Failure> {
    let Some(source) = call.state.metrics.get() else {
        return Err(Failure::unavailable("the server is currently unable to handle the request"));
    };
    let mut found: Vec<Value> = match call.resource.plural.as_str() {
        "nodes" => source.nodes().iter().map(|usage| node(call, usage)).collect(),
        _ => source
            .pods()
            .iter()
            .filter(|usage| call.target.namespace.is_empty() || *usage.namespace == *call.target.namespace)
            .map(|usage| pod(call, usage))
            .collect(),
    };
    found
        .sort_by_key(|metrics| metrics["metadata"]["namespace"].to_string() + &metrics["metadata"]["name"].to_string());
    match call.target.verb {
        Verb::Get => {
            let named = found.into_iter().find(|metrics| metrics["metadata"]["name"] == call.target.name.as_str());
            let subject = Subject::resource(call.resource, &call.target.name);
            named.map(|metrics| negotiate::json(StatusCode::OK, &metrics)).ok_or_else(|| Failure::not_found(&subject))
        }
        Verb::List => {
            let selection = Selection::parse(call)?;
            found.retain(|metrics| selection.takes_value(metrics));
            let list = json!({
                "kind": call.resource.list_kind, "apiVersion": call.resource.api_version(), "metadata": {},
                "items": found,
            });
            Ok(negotiate::json(StatusCode::OK, &list))
        }
        _ => Err(Failure::method_not_allowed()),
    }
}

fn usage(usage: &Usage) -> Value {
    json!({"cpu": format!("{}n", usage.nanocores), "memory": format!("{}Ki", usage.memory_bytes / 1024)})
}

fn window(window: Duration) -> String {
    format!("{}s", window.as_secs())
}

/// Metrics carry the labels of what they are about, so that selectors find them.
fn labels(call: &Call<'_>, plural: &str, namespace: &str, name: &str) -> Value {
    let key = Key::new(&Collection::new("", plural), namespace, name);
    call.state.store.get(&key).map(|record| record.value()["metadata"]["labels"].clone()).unwrap_or_default()
}

fn node(call: &Call<'_>, measured: &NodeUsage) -> Value {
    let mut metadata = json!({"name": &*measured.node, "creationTimestamp": call.now()});
    let labels = labels(call, "nodes", "", &measured.node);
    if labels.is_object() {
        metadata["labels"] = labels;
    }
    json!({
        "kind": "NodeMetrics", "apiVersion": call.resource.api_version(), "metadata": metadata,
        "timestamp": time_text(measured.at), "window": window(measured.window), "usage": usage(&measured.usage),
    })
}

fn pod(call: &Call<'_>, measured: &PodUsage) -> Value {
    let mut metadata =
        json!({"name": &*measured.name, "namespace": &*measured.namespace, "creationTimestamp": call.now()});
    let labels = labels(call, "pods", &measured.namespace, &measured.name);
    if labels.is_object() {
        metadata["labels"] = labels;
    }
    let containers: Vec<Value> =
        measured.containers.iter().map(|(name, used)| json!({"name": &**name, "usage": usage(used)})).collect();
    json!({
        "kind": "PodMetrics", "apiVersion": call.resource.api_version(), "metadata": metadata,
        "timestamp": time_text(measured.at), "window": window(measured.window), "containers": containers,
    })
}

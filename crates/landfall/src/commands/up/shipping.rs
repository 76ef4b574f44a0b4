//! Ships the logs of the pods to the log store, as a shipper that asks the Kubernetes API does, and not one on each node.
//!
//! A document has the fields that the rendered shippers give it. Not handled: what a container wrote before it was started
//! again, and what came in the moment before a pod was gone.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::Context as _;
use http::{Request, header};
use http_body_util::Full;
use hyper::body::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, ResourceExt as _};
use landfall_model::LogSoftware;
use landfall_standin::{ELASTICSEARCH_PORT, LOKI_PORT};
use serde_json::{Value, json};

use super::cluster::{Lines, is_ready};
use super::plan::{SINK_LABEL, SinkPlan};

/// The time between two rounds.
const ROUND: Duration = Duration::from_secs(2);

/// How long the store may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many lines go at once.
const AT_ONCE: usize = 2_000;

/// One line of a pod.
struct Line {
    time: Timestamp,
    text: String,
    /// What Kubernetes knows of it.
    about: Value,
}

/// Ships for as long as it is polled. What goes wrong is tried again in the next round.
pub(super) async fn ship(client: &Client, plan: &SinkPlan, namespaces: BTreeSet<String>) -> std::convert::Infallible {
    let lines = Lines::new(client.clone());
    let mut shipped: HashMap<(String, String), Timestamp> = HashMap::new();
    let mut prepared = None;
    loop {
        let trouble = round(client, &lines, plan, &namespaces, &mut shipped, &mut prepared).await.err();
        *plan.trouble.lock().expect("nothing panics with it") = trouble.map(|error| format!("{error:#}"));
        tokio::time::sleep(ROUND).await;
    }
}

/// Reads what is new of each container and sends it. `shipped` is up to when, by pod and container; `prepared` is the pod of the
/// store that has been told what is stored in it.
async fn round(
    client: &Client,
    lines: &Lines,
    plan: &SinkPlan,
    namespaces: &BTreeSet<String>,
    shipped: &mut HashMap<(String, String), Timestamp>,
    prepared: &mut Option<String>,
) -> anyhow::Result<()> {
    let sink = find(client, plan).await?.context("the stand-in of the log store is not ready")?;
    if *prepared != sink.uid() {
        // A new one knows nothing, and has none of the lines.
        for (path, body) in &plan.prepared {
            send(lines, &sink, ELASTICSEARCH_PORT, Request::put(path), "application/json", body.clone()).await?;
        }
        shipped.clear();
        *prepared = sink.uid();
    }
    let mut trouble = None;
    for namespace in namespaces {
        let pods = Api::<Pod>::namespaced(client.clone(), namespace);
        let all =
            pods.list(&ListParams::default()).await.with_context(|| format!("failed to list pods of {namespace}"))?;
        for pod in all.items.iter().filter(|pod| !pod.labels().contains_key(SINK_LABEL)) {
            let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            for status in statuses {
                let key = (pod.uid().unwrap_or_default(), status.name.clone());
                let since = shipped.get(&key).copied();
                let found = match tokio::time::timeout(PATIENCE, read(&pods, pod, &status.name, since)).await {
                    Ok(Ok(found)) => found,
                    // One that has not started has no log yet.
                    _ if status.state.as_ref().is_none_or(|state| state.running.is_none()) => continue,
                    Ok(Err(error)) => {
                        trouble = Some(error.context(format!("failed to read the log of `{}`", pod.name_any())));
                        continue;
                    }
                    Err(_) => {
                        trouble = Some(anyhow::anyhow!("the log of `{}` does not come", pod.name_any()));
                        continue;
                    }
                };
                let Some(last) = found.last().map(|line| line.time) else { continue };
                for part in found.chunks(AT_ONCE) {
                    hand_over(lines, &sink, plan, part).await?;
                }
                shipped.insert(key, last);
            }
        }
    }
    trouble.map_or(Ok(()), Err)
}

/// The pod of the store.
pub(super) async fn find(client: &Client, plan: &SinkPlan) -> anyhow::Result<Option<Pod>> {
    let pods = Api::<Pod>::namespaced(client.clone(), &plan.namespace);
    let found =
        pods.list(&ListParams::default().labels(SINK_LABEL)).await.context("failed to look for the log store")?;
    Ok(found.items.into_iter().find(is_ready))
}

/// The lines of a container after a moment.
async fn read(pods: &Api<Pod>, pod: &Pod, container: &str, since: Option<Timestamp>) -> anyhow::Result<Vec<Line>> {
    let parameters = LogParams {
        container: Some(container.to_owned()),
        timestamps: true,
        since_time: since,
        ..LogParams::default()
    };
    let text = pods.logs(&pod.name_any(), &parameters).await?;
    let about = json!({
        "pod_name": pod.name_any(), "namespace_name": pod.namespace(), "container_name": container,
        "pod_id": pod.uid(), "labels": pod.labels(), "host": pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
    });
    let line = |line: &str| {
        let (time, text) = line.split_once(' ')?;
        Some(Line { time: time.parse().ok()?, text: text.to_owned(), about: about.clone() })
    };
    // The API begins with the second of the moment, so that what was shipped of it comes once more.
    Ok(text.lines().filter_map(line).filter(|line| since.is_none_or(|since| line.time > since)).collect())
}

async fn hand_over(lines: &Lines, sink: &Pod, plan: &SinkPlan, part: &[Line]) -> anyhow::Result<()> {
    match plan.logs {
        Some(LogSoftware::Elasticsearch) => {
            let mut body = String::new();
            for line in part {
                body += &json!({ "create": { "_index": plan.stream } }).to_string();
                body.push('\n');
                body += &document(line, plan.json_lines).to_string();
                body.push('\n');
            }
            let answer =
                send(lines, sink, ELASTICSEARCH_PORT, Request::post("/_bulk"), "application/x-ndjson", body).await?;
            let answer: Value = serde_json::from_slice(&answer).context("failed to understand the log store")?;
            let refused = answer["items"].as_array().into_iter().flatten().find_map(|item| item["create"].get("error"));
            refused.map_or(Ok(()), |error| Err(anyhow::anyhow!("the log store refuses a line: {error}")))
        }
        Some(LogSoftware::Loki) => {
            let streams: Vec<Value> = part
                .iter()
                .map(|line| {
                    let labels = json!({
                        "namespace": line.about["namespace_name"], "pod": line.about["pod_name"],
                        "container": line.about["container_name"],
                        "service": line.about["labels"]["app.kubernetes.io/name"].as_str().unwrap_or("none"),
                    });
                    json!({ "stream": labels, "values": [[line.time.as_nanosecond().to_string(), line.text]] })
                })
                .collect();
            let (request, body) = (Request::post("/loki/api/v1/push"), json!({ "streams": streams }).to_string());
            send(lines, sink, LOKI_PORT, request, "application/json", body).await.map(drop)
        }
        None => Ok(()),
    }
}

/// A line as the rendered shippers store it: an object becomes fields where lines are declared to be JSON.
fn document(line: &Line, json_lines: bool) -> Value {
    let fields = json_lines.then(|| serde_json::from_str::<Value>(&line.text).ok()).flatten();
    let mut document = match fields {
        Some(fields @ Value::Object(_)) => fields,
        _ => json!({ "log": line.text }),
    };
    document["@timestamp"] = json!(format!("{:.9}", line.time));
    document["kubernetes"] = line.about.clone();
    document
}

async fn send(
    lines: &Lines,
    sink: &Pod,
    port: u16,
    request: http::request::Builder,
    kind: &str,
    body: String,
) -> anyhow::Result<Bytes> {
    let request = request.header(header::CONTENT_TYPE, kind).body(Full::from(Bytes::from(body)))?;
    let answer = lines.to(sink, port)?.send(request, PATIENCE).await;
    let (status, answer) = answer.map_err(|error| anyhow::anyhow!(error)).context("failed to reach the log store")?;
    anyhow::ensure!(status.is_success(), "the log store answers {status}: {}", String::from_utf8_lossy(&answer));
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_stored_as_the_rendered_shippers_store_it() {
        let time = "2026-01-02T03:04:05.000000006Z".parse().expect("it is a time");
        let line = |text: &str| Line { time, text: text.to_owned(), about: json!({ "pod_name": "web-1" }) };
        let (at, about) = ("2026-01-02T03:04:05.000000006Z", json!({ "pod_name": "web-1" }));
        let fields = json!({ "level": "INFO", "@timestamp": at, "kubernetes": about });
        assert_eq!(document(&line("{\"level\":\"INFO\"}"), true), fields);
        let plain = |text: &str| json!({ "log": text, "@timestamp": at, "kubernetes": about });
        assert_eq!(document(&line("started"), true), plain("started"));
        assert_eq!(document(&line("17"), true), plain("17"));
        assert_eq!(document(&line("{\"level\":\"INFO\"}"), false), plain("{\"level\":\"INFO\"}"));
    }
}

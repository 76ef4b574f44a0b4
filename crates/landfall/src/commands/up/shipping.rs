//! Ships the logs of the pods to the log store, as a shipper that asks the Kubernetes API does, and not one on each node.
//!
//! A document has the fields that the rendered shippers give it. Not handled: what a container wrote that was started again twice
//! between two rounds, and what came in the moment before a pod was gone.

mod rounds;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::{Request, header};
use http_body_util::Full;
use hyper::body::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, ResourceExt as _};
use landfall_model::LogSoftware;
use landfall_standin::{ELASTICSEARCH_PORT, LOKI_PORT};
use serde_json::{Value, json};

use self::rounds::{Container, Ends, Line, Log, ROUND, carry};
use super::cluster::{Lines, is_ready};
use super::plan::{SINK_LABEL, SinkPlan};

/// How long the store may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ships for as long as it is polled. What goes wrong is tried again.
pub(super) async fn ship(client: &Client, plan: &SinkPlan, namespaces: BTreeSet<String>) -> Infallible {
    let lines = Lines::new(client.clone());
    loop {
        match open(client, &lines, plan).await {
            Ok(sink) => {
                let ends = Platform { client, lines: &lines, plan, namespaces: &namespaces, sink };
                carry(&ends, &plan.trouble).await;
            }
            Err(error) => {
                *plan.trouble.lock().expect("nothing panics with it") = Some(format!("{error:#}"));
                tokio::time::sleep(ROUND).await;
            }
        }
    }
}

/// The pod of the store, which knows then what is stored in it.
async fn open(client: &Client, lines: &Lines, plan: &SinkPlan) -> anyhow::Result<Pod> {
    let sink = find(client, plan).await?.context(NOT_READY)?;
    for (path, body) in &plan.prepared {
        send(lines, &sink, ELASTICSEARCH_PORT, Request::put(path), "application/json", body.clone()).await?;
    }
    Ok(sink)
}

const NOT_READY: &str = "the stand-in of the log store is not ready";

/// The pods of the platform, and its log store.
struct Platform<'a> {
    client: &'a Client,
    lines: &'a Lines,
    plan: &'a SinkPlan,
    namespaces: &'a BTreeSet<String>,
    sink: Pod,
}

impl Ends for Platform<'_> {
    async fn containers(&self) -> anyhow::Result<Option<Vec<Container>>> {
        let sink = find(self.client, self.plan).await?.context(NOT_READY)?;
        // One that was started again knows nothing, and has none of the lines.
        if (sink.uid(), restarts(&sink)) != (self.sink.uid(), restarts(&self.sink)) {
            return Ok(None);
        }
        let pods = Api::<Pod>::all(self.client.clone()).list(&ListParams::default()).await;
        let mut containers = Vec::new();
        for pod in pods.context("failed to list the pods")? {
            let is_ours = pod.namespace().is_some_and(|namespace| self.namespaces.contains(&namespace));
            if !is_ours || pod.labels().contains_key(SINK_LABEL) {
                continue;
            }
            let pod = Arc::new(pod);
            let of = |status: &ContainerStatus| Container {
                pod: Arc::clone(&pod),
                name: status.name.clone(),
                restarts: status.restart_count,
            };
            containers.extend(statuses(&pod).filter(|status| has_begun(status)).map(of));
        }
        Ok(Some(containers))
    }

    async fn read(&self, container: &Container, log: Log, from: Option<Timestamp>) -> anyhow::Result<Vec<Line>> {
        let (pod, name) = (&container.pod, &container.name);
        let parameters = LogParams {
            container: Some(name.clone()),
            timestamps: true,
            since_time: from,
            previous: log == Log::Previous,
            ..LogParams::default()
        };
        let pods = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let text = match pods.logs(&pod.name_any(), &parameters).await {
            Ok(text) => text,
            // It is gone, or what it was before is.
            Err(kube::Error::Api(status)) if status.code == 404 || (log == Log::Previous && status.code == 400) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error).context("failed to read its log"),
        };
        let about = json!({
            "pod_name": pod.name_any(), "namespace_name": pod.namespace(), "container_name": name,
            "pod_id": pod.uid(), "labels": pod.labels(), "host": pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        });
        let line = |line: &str| {
            let (time, text) = line.split_once(' ')?;
            Some(Line { time: time.parse().ok()?, text: text.to_owned(), about: about.clone() })
        };
        Ok(text.lines().filter_map(line).collect())
    }

    async fn hand_over(&self, lines: &[Line]) -> anyhow::Result<Option<String>> {
        hand_over(self.lines, &self.sink, self.plan, lines).await
    }
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten())
}

/// How often the containers of a pod were started again.
fn restarts(pod: &Pod) -> i32 {
    statuses(pod).map(|status| status.restart_count).sum()
}

/// Whether it runs, or did: one that has not started has no log yet.
fn has_begun(status: &ContainerStatus) -> bool {
    let mut states = [&status.state, &status.last_state].into_iter().flatten();
    states.any(|state| state.running.is_some() || state.terminated.is_some())
}

/// The pod of the store.
pub(super) async fn find(client: &Client, plan: &SinkPlan) -> anyhow::Result<Option<Pod>> {
    let pods = Api::<Pod>::namespaced(client.clone(), &plan.namespace);
    let found =
        pods.list(&ListParams::default().labels(SINK_LABEL)).await.context("failed to look for the log store")?;
    Ok(found.items.into_iter().find(is_ready))
}

/// Hands lines over; what the store refuses of them, if anything.
async fn hand_over(lines: &Lines, sink: &Pod, plan: &SinkPlan, part: &[Line]) -> anyhow::Result<Option<String>> {
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
            Ok(refused.map(|error| format!("the log store refuses a line: {error}")))
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
            send(lines, sink, LOKI_PORT, request, "application/json", body).await?;
            Ok(None)
        }
        None => Ok(None),
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

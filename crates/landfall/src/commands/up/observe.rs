//! Whether what is logged and traced arrives: a word of its own of each service is looked for in the log store, and the spans of the
//! flows are held against the declared edges.
//!
//! Not handled: words of programs of one's own, which write what they like: their lines are counted. Jobs are not asked either.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use http::Request;
use http_body_util::Full;
use hyper::body::Bytes;
use jiff::Timestamp;
use kube::Client;
use kube::ResourceExt as _;
use landfall_model::{Architecture, LogSoftware, Verb};
use landfall_standin::{CONTROL_PORT, ELASTICSEARCH_PORT, LOKI_PORT, SAY_PATH, SEEN_PATH, SinkSeen};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::cluster::{Lines, Snapshot, body};
use super::plan::{Plan, SinkPlan};
use super::report::{CallReport, EdgeTraceReport, FlowTraceReport, LogsReport, ServiceLogsReport, TracesReport};
use super::shipping;

/// How long a line or span may be on its way.
const PATIENCE: Duration = Duration::from_mins(1);

const POLL: Duration = Duration::from_millis(500);

/// What was found out.
pub(super) struct Observed {
    pub(super) logs: Option<LogsReport>,
    pub(super) traces: Option<TracesReport>,
}

/// Tries it, where something is declared to be observed.
pub(super) async fn try_all(
    client: &Client,
    lines: &Lines,
    architecture: &Architecture,
    plan: &Plan,
) -> anyhow::Result<Observed> {
    let Some(sink) = &plan.sink else { return Ok(Observed { logs: None, traces: None }) };
    let pods = Snapshot::take(client, plan).await?;
    let watch = Watch { lines, architecture, plan, sink, pods: &pods, client };
    let logs = match sink.logs {
        Some(software) => Some(watch.logs(software).await?),
        None => None,
    };
    let traces = match sink.traces {
        Some(store) => Some(watch.traces(store).await?),
        None => None,
    };
    Ok(Observed { logs, traces })
}

struct Watch<'a> {
    client: &'a Client,
    lines: &'a Lines,
    architecture: &'a Architecture,
    plan: &'a Plan,
    sink: &'a SinkPlan,
    pods: &'a Snapshot,
}

impl Watch<'_> {
    /// Asks the stand-in of the stores; again, if it is busy for a moment.
    async fn ask<A: DeserializeOwned>(&self, port: u16, request: &Request<Full<Bytes>>) -> anyhow::Result<A> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = async {
                let found = shipping::find(self.client, self.sink).await?;
                let store = found.context("the stand-in of the log store and the store of traces is not ready")?;
                self.lines.ask(&store, port, request.clone()).await
            };
            match answer.await {
                Err(_) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
                answer => return answer,
            }
        }
    }

    /// Has each copy of each stand-in write a word, and waits until all of them are in the store.
    async fn logs(&self, software: LogSoftware) -> anyhow::Result<LogsReport> {
        let mut words = Vec::new();
        for service in self.plan.services.iter().filter(|service| service.program.is_none() && !service.runs_once) {
            let Some(port) = service.ports.first() else { continue };
            for pod in self.pods.ready_of(&service.service) {
                let word = format!("landfall-{}-{}", pod.name_any(), Timestamp::now().as_nanosecond());
                let request = Request::post(SAY_PATH).body(Full::from(word.clone()))?;
                let _: Value = self.lines.ask(pod, *port, request).await?;
                words.push((service.service.as_str(), pod.name_any(), word));
            }
        }
        let deadline = Instant::now() + PATIENCE;
        let mut found: BTreeSet<&str> = BTreeSet::new();
        while found.len() < words.len() && Instant::now() < deadline {
            for (_, pod, word) in &words {
                if !found.contains(word.as_str()) && self.count(software, &Wanted::Word(pod, word)).await? > 0 {
                    found.insert(word);
                }
            }
            tokio::time::sleep(POLL).await;
        }
        let mut services = Vec::new();
        for service in self.plan.services.iter().map(|service| service.service.as_str()) {
            let own = || words.iter().filter(|(of, ..)| *of == service);
            services.push(ServiceLogsReport {
                service: service.to_owned(),
                lines: self.count(software, &Wanted::Service(service)).await?,
                not_json: if self.sink.json_lines && software == LogSoftware::Elasticsearch {
                    Some(self.count(software, &Wanted::Plain(service)).await?)
                } else {
                    None
                },
                found: own().next().is_some().then(|| own().all(|(_, _, word)| found.contains(word.as_str()))),
            });
        }
        let store = super::plan::name_of(software);
        let seen = self.seen().await?;
        let trouble = self.sink.trouble.lock().expect("nothing panics with it").clone();
        Ok(LogsReport { store, by: "stand-in", shipper: "up", lines: seen.lines, services, trouble })
    }

    /// How many lines the store has of what is wanted.
    async fn count(&self, software: LogSoftware, wanted: &Wanted<'_>) -> anyhow::Result<u64> {
        match software {
            LogSoftware::Elasticsearch => {
                let term = |field: &str, value: &str| json!({ "term": { field: value } });
                let name = "kubernetes.labels.app.kubernetes.io/name";
                let conditions = match wanted {
                    Wanted::Word(pod, word) => {
                        vec![term("kubernetes.pod_name", pod), json!({ "query_string": { "query": word } })]
                    }
                    Wanted::Service(service) => vec![term(name, service)],
                    Wanted::Plain(service) => vec![term(name, service), json!({ "exists": { "field": "log" } })],
                };
                let query = json!({ "query": { "bool": { "filter": conditions } } });
                let path = format!("/{}/_count", self.sink.stream);
                let request = Request::post(path).header("content-type", "application/json").body(body(&query)?)?;
                let answer: Value = self.ask(ELASTICSEARCH_PORT, &request).await?;
                answer["count"].as_u64().context("the log store does not count")
            }
            LogSoftware::Loki => {
                let query = match wanted {
                    Wanted::Word(pod, word) => format!("{{pod=\"{pod}\"}} |= \"{word}\""),
                    Wanted::Service(service) | Wanted::Plain(service) => format!("{{service=\"{service}\"}}"),
                };
                let path = format!("/loki/api/v1/query_range?limit=1000000&query={}", percent_encoded(&query));
                let answer: Value = self.ask(LOKI_PORT, &Request::get(path).body(Full::default())?).await?;
                let streams = answer["data"]["result"].as_array().context("the log store does not answer")?;
                let lines = streams.iter().filter_map(|stream| stream["values"].as_array()).map(Vec::len);
                Ok(u64::try_from(lines.sum::<usize>())?)
            }
        }
    }

    async fn seen(&self) -> anyhow::Result<SinkSeen> {
        let request = Request::get(SEEN_PATH).body(Full::default())?;
        self.ask(CONTROL_PORT, &request).await
    }

    /// Waits until each flow has a trace with all stand-ins that it passes, and says what the spans show.
    async fn traces(&self, store: &'static str) -> anyhow::Result<TracesReport> {
        let flows: Vec<FlowTraceReport> = self
            .plan
            .flows
            .iter()
            .filter(|flow| flow.missing.is_none())
            .map(|flow| {
                // One that begins in several places has a trace for each of them.
                let part = |service: &&landfall_standin::ServiceBehaviour| {
                    flow.entrances.len() == 1 && service.program.is_none() && service.flows.contains_key(&flow.name)
                };
                let services = self.plan.services.iter().filter(part).map(|service| service.service.clone()).collect();
                FlowTraceReport { name: flow.name.clone(), services, trace: None, missing: BTreeSet::new() }
            })
            .collect();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.seen().await?;
            let flows: Vec<FlowTraceReport> = flows.iter().map(|flow| flow.held_against(&seen)).collect();
            if flows.iter().all(|flow| flow.missing.is_empty()) || Instant::now() >= deadline {
                return Ok(self.report(store, &seen, flows));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn report(&self, store: &'static str, seen: &SinkSeen, flows: Vec<FlowTraceReport>) -> TracesReport {
        let declared: BTreeSet<&str> = self.plan.edges.iter().map(|edge| edge.name.as_str()).collect();
        let milliseconds = |microseconds| (Duration::from_micros(microseconds).as_secs_f64() * 10_000.0).round() / 10.0;
        let edges = seen.operations.iter().filter(|operation| declared.contains(operation.name.as_str()));
        let edges = edges.filter(|operation| operation.name.split(' ').next() == Some(&operation.service));
        TracesReport {
            store,
            by: "stand-in",
            spans: seen.spans,
            traces: seen.traces,
            edges: edges
                .map(|operation| EdgeTraceReport {
                    edge: operation.name.clone(),
                    count: operation.count,
                    failed: operation.failed,
                    p50_ms: milliseconds(operation.p50_us),
                    p99_ms: milliseconds(operation.p99_us),
                })
                .collect(),
            calls: seen
                .calls
                .iter()
                .map(|call| CallReport {
                    from: call.parent.clone(),
                    to: call.child.clone(),
                    count: call.count,
                    declared: self.is_declared(&call.parent, &call.child),
                })
                .collect(),
            flows,
        }
    }

    /// Whether one service may cause work in another: by a call, or by what it publishes or writes and the other takes.
    fn is_declared(&self, from: &str, to: &str) -> bool {
        let edges = &self.architecture.connections;
        let takes = |store: &str| {
            let verbs = [Verb::Consume, Verb::Read, Verb::Query];
            edges.iter().any(|edge| edge.from.name() == to && edge.to.name() == store && verbs.contains(&edge.verb))
        };
        edges.iter().filter(|edge| edge.from.name() == from).any(|edge| edge.to.name() == to || takes(edge.to.name()))
    }
}

impl FlowTraceReport {
    fn held_against(&self, seen: &SinkSeen) -> Self {
        let trace = seen.flows.iter().find(|trace| trace.flow == self.name);
        let in_it = trace.map(|trace| trace.services.clone()).unwrap_or_default();
        Self {
            name: self.name.clone(),
            services: self.services.clone(),
            trace: trace.map(|trace| trace.trace.clone()),
            missing: self.services.difference(&in_it).cloned().collect(),
        }
    }
}

/// A text as it stands in a query of a URL.
fn percent_encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Which lines.
enum Wanted<'a> {
    /// Of this pod, with this word.
    Word(&'a str, &'a str),
    /// Of this service.
    Service(&'a str),
    /// Of this service, and no object of JSON.
    Plain(&'a str),
}

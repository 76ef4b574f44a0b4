//! One flow at full speed: so many clients, each with its next request as soon as the last is answered.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use http::Request;
use http_body_util::Full;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use landfall_standin::{Failure, HttpClient, MESSAGE_HEADER, Message, Pipe, trust};
use serde_json::Value;

pub(crate) const CLIENTS: usize = 16;

pub(crate) const DURATION: Duration = Duration::from_secs(15);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A flow that begins with a request of a client and ends in the service that answers it.
pub(crate) struct Case {
    pub(crate) flow: &'static str,
    pub(crate) host: &'static str,
    pub(crate) path: &'static str,
    pub(crate) namespace: &'static str,
    pub(crate) service: &'static str,
    pub(crate) edge: &'static str,
}

pub(crate) struct Load {
    pub(crate) flow: &'static str,
    pub(crate) edge_name: &'static str,
    pub(crate) per_second: f64,
    pub(crate) refused: usize,
    pub(crate) mean: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// The mean that the service measures of its answers.
    pub(crate) service: Duration,
    /// The mean that it measures of its edge.
    pub(crate) edge: Duration,
}

/// Sums and counts of the service's own measurements.
#[derive(Default)]
struct Measured {
    answers: (f64, f64),
    edge: (f64, f64),
}

pub(crate) async fn drive(place: &Path, client: Client, case: &Case) -> Load {
    let entrances = fs::read(place.join("entrances.json")).expect("it is written when it is up");
    let entrances: Value = serde_json::from_slice(&entrances).expect("it is JSON");
    let gateway = entrances["https"].as_str().expect("it is an address").to_owned();
    let authority = fs::read_to_string(place.join("standins/authority.pem")).expect("it is written when it is up");
    let tls = Arc::new(trust(&authority).expect("it is a certificate"));
    let before = measured(&client, case).await;
    let began = Instant::now();
    let clients = (0..CLIENTS as u64).map(|number| {
        let (gateway, tls) = (gateway.clone(), Arc::clone(&tls));
        async move {
            let line = HttpClient::to(&gateway, Some(case.host), &tls).expect("it is an address");
            let (mut times, mut refused) = (Vec::new(), 0);
            while began.elapsed() < DURATION {
                let sent_us = now_us();
                // Unlike those of others, and of `up` itself.
                let id = sent_us * CLIENTS as u64 + number;
                let message = Message { flow: Some(case.flow.to_owned()), id, sent_us, hop: 1, trace: None };
                let message = serde_json::to_vec(&message).expect("it is JSON");
                let request = Request::post(case.path).header(MESSAGE_HEADER, message).body(Full::default());
                let begin = Instant::now();
                match line.send(request.expect("it is a request"), ANSWER).await {
                    Ok((status, _)) if status.is_success() => times.push(begin.elapsed()),
                    _ => refused += 1,
                }
            }
            (times, refused)
        }
    });
    let all = join_all(clients).await;
    let elapsed = began.elapsed();
    let after = measured(&client, case).await;
    let refused = all.iter().map(|(_, refused)| refused).sum();
    let mut times: Vec<Duration> = all.into_iter().flat_map(|(times, _)| times).collect();
    times.sort_unstable();
    assert!(!times.is_empty(), "no request was answered");
    let mean = |before: (f64, f64), after: (f64, f64)| {
        Duration::from_secs_f64(((after.0 - before.0) / (after.1 - before.1).max(1.0)).max(0.0))
    };
    #[expect(clippy::cast_precision_loss, reason = "there are not so many requests")]
    let per_second = times.len() as f64 / elapsed.as_secs_f64();
    Load {
        flow: case.flow,
        edge_name: case.edge,
        per_second,
        refused,
        mean: times.iter().sum::<Duration>() / u32::try_from(times.len()).expect("there are not so many"),
        p50: times[times.len() / 2],
        p99: times[times.len() * 99 / 100],
        service: mean(before.answers, after.answers),
        edge: mean(before.edge, after.edge),
    }
}

/// What all copies of the service have measured since they started.
async fn measured(client: &Client, case: &Case) -> Measured {
    let pods = Api::<Pod>::namespaced(client.clone(), case.namespace);
    let own = ListParams::default().labels(&format!("app.kubernetes.io/name={}", case.service));
    let mut measured = Measured::default();
    for pod in pods.list(&own).await.expect("pods can be listed") {
        let (pods, name) = (pods.clone(), pod.name_any());
        let dial = move || {
            let (pods, name) = (pods.clone(), name.clone());
            async move {
                let mut forwarder = pods.portforward(&name, &[8080]).await?;
                Ok::<_, Failure>(Pipe::new(forwarder.take_stream(8080).ok_or("no stream was opened")?))
            }
        };
        let line = HttpClient::over("pod", "pod", move || Box::pin(dial())).expect("it is a name");
        let request = Request::get("/metrics").body(Full::default()).expect("it is a request");
        let (_, text) = line.send(request, ANSWER).await.expect("a stand-in tells its metrics");
        let text = String::from_utf8_lossy(&text).into_owned();
        // Answers to probes are GET.
        add(&mut measured.answers, &text, "http_server_request_duration_seconds", "http_request_method=\"POST\"");
        add(&mut measured.edge, &text, "landfall_edge_duration_seconds", &format!("edge=\"{}\"", case.edge));
    }
    measured
}

/// Adds the sum and the count of the series of a histogram with this label.
fn add(total: &mut (f64, f64), text: &str, histogram: &str, label: &str) {
    let mut values = BTreeMap::from([("_sum", 0.0), ("_count", 0.0)]);
    for (suffix, value) in &mut values {
        let series = format!("{histogram}{suffix}{{");
        let lines = text.lines().filter(|line| line.starts_with(&series) && line.contains(label));
        *value += lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
    }
    total.0 += values["_sum"];
    total.1 += values["_count"];
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

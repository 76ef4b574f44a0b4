//! What pods tell of themselves at their own `/metrics`, for `custom.metrics.k8s.io`.
//!
//! A pod that asks for it is scraped from the moment on at which somebody asks for a metric of it, and until nobody has for
//! a while. That it asks, and where it is to be scraped, is said by the annotations that Prometheus' examples for
//! Kubernetes go by: `prometheus.io/scrape`, `port`, `path` and `scheme`. For a pod without the first of them, the entry of
//! the image catalogue says it that one of its containers has.
//!
//! Not handled: `prometheus.io/scheme: https`.

mod exposition;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::exposition::{Kind, Metric, Metrics};
use super::Shared;
use super::probe::{self, HttpError};
use crate::api::machine::NodeFault;
use crate::api::node_agent::{Labels, PodSeries};
use crate::images::Catalogue;
use crate::network::Dialer;
use crate::tasks;

#[cfg(test)]
mod tests;

/// How often a pod is scraped: as often as autoscalers look.
const PERIOD: Duration = Duration::from_secs(15);

/// A pod that nobody has asked of for so long is not scraped any more.
const LINGER: Duration = Duration::from_mins(5);

/// How long a pod may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How long who asks first waits for the first answer: it may not be scraped at once.
const PATIENCE: Duration = Duration::from_secs(4);

/// How much of an answer is read.
const MAX_BODY: usize = 1024 * 1024;

/// How many pods are scraped at the same time.
const AT_ONCE: usize = 16;

/// What the usual rules of prometheus-adapter take off the names of counters, as their rates count something else.
const COUNTER_SUFFIXES: [&str; 2] = ["_total", "_seconds_total"];

/// The pods that are scraped, by their uids.
#[derive(Debug, Default)]
pub(super) struct Scrapes {
    pods: Mutex<HashMap<Arc<str>, Scraped>>,
    /// There is one that was not scraped yet.
    asked: Notify,
}

#[derive(Debug)]
struct Scraped {
    /// When somebody asked of it last.
    asked: Instant,
    under_way: bool,
    /// None before the first answer.
    known: watch::Sender<Option<Known>>,
}

/// What is known of a pod.
#[derive(Debug, Clone)]
struct Known {
    /// The last answer, or why there is none.
    newest: Result<Arc<Look>, String>,
    /// The last one before it that was an answer.
    before: Option<Arc<Look>>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq)]
struct Look {
    at: Timestamp,
    taken: Instant,
    metrics: Metrics,
}

/// Scrapes until cancelled.
pub(super) async fn scrape(shared: &Arc<Shared>, cancel: &CancellationToken) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut under_way: JoinSet<(Arc<str>, Result<Look, String>)> = JoinSet::new();
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        // None of these loses anything when it is dropped.
        let due = tokio::select! {
            () = cancel.cancelled() => break,
            _ = ticks.tick() => shared.scrapes.due(),
            () = shared.scrapes.asked.notified() => shared.scrapes.unseen(),
            Some(ended) = under_way.join_next() => {
                if let Some((uid, answer)) = tasks::result(ended) {
                    shared.scrapes.record(&uid, answer);
                }
                continue;
            }
        };
        for uid in due {
            let (shared, room) = (Arc::clone(shared), Arc::clone(&room));
            under_way.spawn(async move {
                // It is never closed.
                let _room = room.acquire().await;
                let answer = shared.scrape_pod(&uid).await;
                (uid, answer)
            });
        }
    }
    under_way.shutdown().await;
}

impl Scrapes {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Scraped>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a pod scraped from now on.
    fn ask(&self, uid: &Arc<str>) -> watch::Receiver<Option<Known>> {
        let mut pods = self.lock();
        let new = || Scraped { asked: Instant::now(), under_way: false, known: watch::Sender::new(None) };
        let pod = pods.entry(Arc::clone(uid)).or_insert_with(new);
        pod.asked = Instant::now();
        if !pod.under_way && pod.known.borrow().is_none() {
            self.asked.notify_one();
        }
        pod.known.subscribe()
    }

    /// All of them, to be scraped now. Those that nobody asks of any more are forgotten.
    fn due(&self) -> Vec<Arc<str>> {
        let mut pods = self.lock();
        pods.retain(|_, pod| pod.under_way || pod.asked.elapsed() < LINGER);
        begin(pods.iter_mut())
    }

    /// Those that were not scraped yet, to be scraped now.
    fn unseen(&self) -> Vec<Arc<str>> {
        begin(self.lock().iter_mut().filter(|(_, pod)| pod.known.borrow().is_none()))
    }

    fn record(&self, uid: &str, answer: Result<Look, String>) {
        let mut pods = self.lock();
        let Some(pod) = pods.get_mut(uid) else { return };
        pod.under_way = false;
        pod.known.send_modify(|known| {
            let before = known.take().and_then(|known| known.newest.ok().or(known.before));
            *known = Some(Known { newest: answer.map(Arc::new), before });
        });
    }

    /// The metrics that some pod tells.
    pub(super) fn names(&self) -> BTreeSet<String> {
        let pods = self.lock();
        let known = pods.values().filter_map(|pod| pod.known.borrow().as_ref()?.newest.clone().ok());
        known.flat_map(|look| look.metrics.keys().cloned().collect::<Vec<_>>()).collect()
    }
}

fn begin<'a>(pods: impl Iterator<Item = (&'a Arc<str>, &'a mut Scraped)>) -> Vec<Arc<str>> {
    let mut begun = Vec::new();
    for (uid, pod) in pods {
        if !pod.under_way {
            pod.under_way = true;
            begun.push(Arc::clone(uid));
        }
    }
    begun
}

impl Shared {
    /// What each of these pods, by their uids, tells of a metric; or why it does not.
    pub(super) async fn series(&self, pods: &[Arc<str>], metric: &str) -> Vec<Result<PodSeries, String>> {
        let deadline = Instant::now() + PATIENCE;
        let asked: Vec<_> = pods.iter().map(|uid| self.scrapes.ask(uid)).collect();
        let mut told = Vec::with_capacity(asked.len());
        for mut known in asked {
            let known = match tokio::time::timeout_at(deadline, known.wait_for(Option::is_some)).await {
                Ok(Ok(known)) => known.clone(),
                _ => None,
            };
            let known = known.ok_or_else(|| "it was not scraped in time".to_owned());
            told.push(known.and_then(|known| known.series(metric)));
        }
        told
    }

    async fn scrape_pod(&self, uid: &str) -> Result<Look, String> {
        let pod = self.handle(uid).and_then(|handle| handle.pod.borrow().clone());
        let pod = pod.ok_or("it does not run")?;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        if self.fault(node) != NodeFault::None {
            return Err(format!("its node {node} does not answer"));
        }
        let place = Place::of(&pod, &self.images.load())?;
        let dialer = self.network.node_dialer();
        let answer = tokio::time::timeout(TIMEOUT, place.fetch(&dialer)).await;
        let slow = |_| Err(format!("no answer within {} s", TIMEOUT.as_secs()));
        let metrics = answer.unwrap_or_else(slow).and_then(|text| {
            exposition::parse(&text).map_err(|error| format!("its answer is not in Prometheus' text format: {error}"))
        });
        let metrics = metrics.map_err(|why| format!("{place}: {why}"))?;
        Ok(Look { at: Timestamp::now(), taken: Instant::now(), metrics })
    }
}

impl Known {
    /// Gauges as they are, counters as what was added in a second.
    fn series(&self, name: &str) -> Result<PodSeries, String> {
        let newest = self.newest.as_ref().map_err(Clone::clone)?;
        let (exposed, metric) = find(&newest.metrics, name).ok_or("it tells no such metric")?;
        let (window, series) = match metric.kind {
            Kind::Gauge => (None, metric.series.clone().into_iter().collect()),
            Kind::Counter => {
                let before = self.before.as_ref();
                let before = before.ok_or("it was scraped only once, and the rate of a counter takes twice")?;
                let window = newest.taken - before.taken;
                let old = before.metrics.get(exposed).map(|metric| &metric.series);
                let rate = |(labels, value): (&Labels, &f64)| {
                    // A series that is new has counted from zero, and so has one of a process that has started anew.
                    let old = old.and_then(|old| old.get(labels)).copied().filter(|old| old <= value);
                    (labels.clone(), (value - old.unwrap_or_default()) / window.as_secs_f64())
                };
                (Some(window), metric.series.iter().map(rate).collect())
            }
        };
        Ok(PodSeries { at: newest.at, window, series })
    }
}

/// A metric by its own name, or a counter by the name that its rate has with prometheus-adapter.
fn find<'a>(metrics: &'a Metrics, name: &str) -> Option<(&'a str, &'a Metric)> {
    let exactly = |name: &str| metrics.get_key_value(name).map(|(name, metric)| (name.as_str(), metric));
    let counters = COUNTER_SUFFIXES.iter().filter_map(|suffix| exactly(&format!("{name}{suffix}")));
    let mut counters = counters.filter(|(_, metric)| metric.kind == Kind::Counter);
    exactly(name).or_else(|| counters.next())
}

/// Where a pod says that it is to be scraped.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    ip: IpAddr,
    port: u16,
    path: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", SocketAddr::new(self.ip, self.port), self.path)
    }
}

impl Place {
    fn of(pod: &Pod, images: &Catalogue) -> Result<Self, String> {
        let annotations = pod.metadata.annotations.as_ref();
        let asks = annotations.and_then(|all| all.get("prometheus.io/scrape"));
        let (port, path) = match asks.map(String::as_str) {
            Some("true") => annotated(pod)?,
            Some(_) => return Err("its annotation `prometheus.io/scrape` is not `\"true\"`".to_owned()),
            None => of_image(pod, images)?,
        };
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse().ok());
        Ok(Self { ip: ip.ok_or("it has no address yet")?, port, path })
    }

    async fn fetch(&self, dialer: &Dialer) -> Result<String, String> {
        let address = SocketAddr::new(self.ip, self.port);
        let stream = dialer.dial(address).await.map_err(|error| format!("connect: {}", probe::words(&error)))?;
        let request = http::Request::get(&self.path)
            .header("host", address.to_string())
            .header("user-agent", "landfall")
            .header("accept", "text/plain;version=0.0.4")
            .header("connection", "close")
            .body(Full::new(Bytes::new()))
            .map_err(|error| error.to_string())?;
        let answer = probe::send(stream, request, MAX_BODY).await;
        let answer = answer.map_err(|(HttpError::Connect(why) | HttpError::Other(why))| why)?;
        if answer.status != 200 {
            return Err(format!("it answers {}", answer.status));
        }
        let body = answer.body.map_err(|why| format!("its answer was not read to the end: {why}"))?;
        String::from_utf8(body.into()).map_err(|_| "its answer is no text".to_owned())
    }
}

/// The port and the path that the annotations of a pod say.
fn annotated(pod: &Pod) -> Result<(u16, String), String> {
    let annotations = pod.metadata.annotations.as_ref();
    let annotation = |name: &str| annotations.and_then(|all| all.get(&format!("prometheus.io/{name}")));
    if let Some(scheme) = annotation("scheme").filter(|scheme| *scheme != "http") {
        return Err(format!("its annotation `prometheus.io/scheme` is `{scheme}`, and only `http` is scraped"));
    }
    let port = match annotation("port") {
        Some(text) => {
            let port = text.parse::<u16>().ok().filter(|port| *port > 0);
            port.ok_or_else(|| format!("its annotation `prometheus.io/port` is `{text}`, which is no port"))?
        }
        None => only_port(pod).ok_or("it has no annotation `prometheus.io/port`, and more or fewer ports than one")?,
    };
    Ok((port, annotation("path").cloned().unwrap_or_else(|| "/metrics".to_owned())))
}

/// The port and the path that the catalogue says of the image of a container: of the first that it says them of.
fn of_image(pod: &Pod, images: &Catalogue) -> Result<(u16, String), String> {
    let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let found = containers.find_map(|container| {
        let entry = images.find(container.image.as_deref()?)?;
        Some((container, entry.metrics.as_ref()?))
    });
    let (container, place) = found.ok_or(
        "it has no annotation `prometheus.io/scrape: \"true\"`, and the image catalogue does not say where its image tells metrics",
    )?;
    let port = probe::port(&place.port, container).map_err(|_| {
        let port = match &place.port {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(name) => name.clone(),
        };
        format!("the image catalogue says `port: {port}` of its container {}, which has no such port", container.name)
    })?;
    Ok((port, place.path.clone()))
}

/// The port of a pod that declares only one.
fn only_port(pod: &Pod) -> Option<u16> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let mut ports = ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    let only = ports.next().filter(|_| ports.next().is_none());
    only.and_then(|port| u16::try_from(port.container_port).ok())
}

//! Performs the edges of a service, and counts: what carried, what failed and why.

mod broker;
mod cache;
mod document;
mod kafka;
mod mqtt;
mod object;
mod sql;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Request;
use http_body_util::Full;
use hyper::body::Bytes;
use rustls::ClientConfig;

pub(crate) use self::broker::{Subscription, consume};
pub(crate) use self::kafka::{Membership, consume as consume_topic};
pub(crate) use self::mqtt::subscribe;
pub(crate) use self::object::Objects;

use self::broker::Broker;
use self::cache::Cache;
use self::document::Documents;
use self::kafka::Cluster;
use self::mqtt::Topics;
use self::sql::Database;
use crate::Failure;
use crate::behaviour::{Action, EdgeSeen, Load, MESSAGE_HEADER, Message, ServiceBehaviour};
use crate::connect::{self, HttpClient, TRIES};
use crate::metrics::{Durations, label};
use crate::payload::{Carried, Payload};
use crate::trace::TRACE_HEADER;

/// How long one attempt to do something at a store may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long nothing is tried after a connection could not be made: the first time, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A connection that is made when it is first needed, and again after it broke.
pub(crate) struct Slot<C> {
    connection: Mutex<Option<C>>,
    connecting: tokio::sync::Mutex<BackOff>,
}

/// When a connection may be tried again, and how long the wait is after that.
#[derive(Default)]
struct BackOff {
    until: Option<tokio::time::Instant>,
    last: Duration,
}

impl BackOff {
    fn fail(&mut self, now: tokio::time::Instant) {
        let (first, most) = BACK_OFF;
        self.last = (self.last * 2).clamp(first, most);
        self.until = Some(now + self.last);
    }
}

impl<C: Clone> Slot<C> {
    pub(crate) fn empty() -> Self {
        Self { connection: Mutex::new(None), connecting: tokio::sync::Mutex::default() }
    }

    pub(crate) fn get(&self) -> Option<C> {
        self.connection.lock().expect("nothing panics with a connection").clone()
    }

    pub(crate) fn put(&self, connection: Option<C>) {
        *self.connection.lock().expect("nothing panics with a connection") = connection;
    }

    /// The connection that is there and open, or a new one. Of many that need it one connects, and after a failure later
    /// and later. An error when none can be made for a second.
    pub(crate) async fn connected<F>(&self, is_open: impl Fn(&C) -> bool, connect: impl Fn() -> F) -> Result<C, Failure>
    where
        F: Future<Output = Result<C, Failure>>,
    {
        if let Some(connection) = self.get().filter(&is_open) {
            return Ok(connection);
        }
        let mut back_off = self.connecting.lock().await;
        if let Some(connection) = self.get().filter(&is_open) {
            return Ok(connection);
        }
        let begin = tokio::time::Instant::now();
        loop {
            if let Some(until) = back_off.until {
                tokio::time::sleep_until(until).await;
            }
            match connect().await {
                Ok(connection) => {
                    *back_off = BackOff::default();
                    self.put(Some(connection.clone()));
                    return Ok(connection);
                }
                Err(error) => {
                    back_off.fail(tokio::time::Instant::now());
                    if begin.elapsed() >= TRIES {
                        return Err(error);
                    }
                }
            }
        }
    }
}

/// The edges of a service.
pub(crate) struct Edges {
    behaviour: Arc<ServiceBehaviour>,
    tls: Arc<ClientConfig>,
    /// By the place of the edge.
    clients: BTreeMap<usize, HttpClient>,
    /// By the variable with the URL, and the replicas' host where they are asked.
    databases: BTreeMap<(String, Option<String>), Database>,
    caches: BTreeMap<String, Cache>,
    brokers: BTreeMap<String, Broker>,
    clusters: BTreeMap<String, Cluster>,
    documents: BTreeMap<String, Documents>,
    topics: BTreeMap<String, Topics>,
    /// By the variable with the address, and the bucket.
    objects: BTreeMap<(String, String), Objects>,
    /// By flow, where the file declares what its messages carry.
    payloads: BTreeMap<String, Payload>,
    seen: Vec<Mutex<EdgeSeen>>,
    durations: Durations,
}

impl Edges {
    /// Prepares them; nothing is connected yet.
    pub(crate) fn new(behaviour: Arc<ServiceBehaviour>) -> Result<Self, Failure> {
        let tls = Arc::new(connect::tls(&behaviour.authority)?);
        let mut edges = Self {
            tls,
            clients: BTreeMap::new(),
            databases: BTreeMap::new(),
            caches: BTreeMap::new(),
            brokers: BTreeMap::new(),
            clusters: BTreeMap::new(),
            documents: BTreeMap::new(),
            topics: BTreeMap::new(),
            objects: BTreeMap::new(),
            payloads: BTreeMap::new(),
            seen: behaviour.edges.iter().map(|_| Mutex::default()).collect(),
            durations: Durations::default(),
            behaviour: Arc::clone(&behaviour),
        };
        for (flow, part) in &behaviour.flows {
            if let Some(shape) = &part.payload {
                edges.payloads.insert(flow.clone(), Payload::new(shape).map_err(|error| format!("{flow}: {error}"))?);
            }
        }
        for (place, edge) in behaviour.edges.iter().enumerate() {
            match &edge.action {
                Action::Http { address, server_name, .. } => {
                    let client = HttpClient::to(address, server_name.as_deref(), &edges.tls)?;
                    edges.clients.insert(place, client);
                }
                Action::Sql { url, replicas, .. } => {
                    let value = value_of(url)?;
                    let database = Database::new(&value, replicas.as_deref(), (*edges.tls).clone())?;
                    edges.databases.insert((url.clone(), replicas.clone()), database);
                }
                Action::Redis { url, cluster, .. } => {
                    edges.caches.insert(url.clone(), Cache::new(value_of(url)?, *cluster, &behaviour.authority));
                }
                Action::Publish { url, .. } | Action::Consume { url, .. } => {
                    edges.brokers.insert(url.clone(), Broker::new(value_of(url)?, &behaviour.authority));
                }
                Action::KafkaPublish { kafka, .. } | Action::KafkaConsume { kafka, .. } => {
                    edges.clusters.insert(kafka.servers.clone(), Cluster::new(kafka, &behaviour.authority)?);
                }
                Action::Document { url, direct, .. } => {
                    let documents = Documents::new(value_of(url)?, *direct, &behaviour.authority)?;
                    edges.documents.insert(url.clone(), documents);
                }
                Action::MqttPublish { url, .. } | Action::MqttSubscribe { url, .. } => {
                    edges.topics.insert(url.clone(), Topics::new(&value_of(url)?, Arc::clone(&edges.tls))?);
                }
                Action::Object { address, access_key, secret_key, encrypted, bucket, .. } => {
                    let credentials = (value_of(access_key)?, value_of(secret_key)?);
                    let objects = Objects::new(&value_of(address)?, *encrypted, bucket, credentials, &edges.tls)?;
                    edges.objects.insert((address.clone(), bucket.clone()), objects);
                }
            }
        }
        Ok(edges)
    }

    /// The broker at the URL in this environment variable.
    pub(crate) fn broker(&self, url: &str) -> &Broker {
        self.brokers.get(url).expect("every URL of an edge was prepared")
    }

    /// The MQTT broker at the URL in this environment variable.
    pub(crate) fn topics(&self, url: &str) -> &Topics {
        self.topics.get(url).expect("every URL of an edge was prepared")
    }

    /// The cluster of Kafka whose servers are in this environment variable.
    pub(crate) fn cluster(&self, servers: &str) -> &Cluster {
        self.clusters.get(servers).expect("every cluster of an edge was prepared")
    }

    /// Tells those who would wait for this service that it ends.
    pub(crate) async fn leave(&self) {
        futures::future::join_all(self.clusters.values().map(Cluster::leave_all)).await;
    }

    /// What the flow of a message carries, where that is declared.
    pub(crate) fn payload(&self, message: &Message) -> Option<&Payload> {
        self.payloads.get(message.flow.as_deref()?)
    }

    /// What a request for a message has in its body.
    fn request(&self, message: &Message, load: Load) -> Result<Vec<u8>, Failure> {
        match self.payload(message) {
            Some(payload) => payload.request(message, load),
            None => Ok(serde_json::to_vec(message)?),
        }
    }

    /// What goes to a broker or an object store for it.
    fn envelope(&self, message: &Message, load: Load) -> Result<Vec<u8>, Failure> {
        match self.payload(message) {
            Some(payload) => payload.envelope(message, load),
            None => Ok(serde_json::to_vec(message)?),
        }
    }

    /// How long one attempt may take to hand it on with so much of its payload.
    fn patience(&self, message: &Message, load: Load) -> Duration {
        PATIENCE + self.payload(message).map(|payload| payload.patience(load)).unwrap_or_default()
    }

    /// Does what the edge does for `message`, with so much of its payload, and counts it. Consuming is not done here, it
    /// happens.
    pub(crate) async fn perform(&self, place: usize, message: &Message, load: Load) -> Result<(), Failure> {
        let edge = &self.behaviour.edges[place];
        let begin = Instant::now();
        let patience = self.patience(message, load);
        let done = async {
            match &edge.action {
                Action::Http { path, timeout_ms, retries, .. } => {
                    let client = self.clients.get(&place).expect("every client of an edge was prepared");
                    let body = Bytes::from(self.request(message, load)?);
                    call(client, path, Duration::from_millis(*timeout_ms), *retries, message, body).await
                }
                Action::Sql { url, table, writes, replicas } => {
                    let place = (url.clone(), replicas.clone());
                    let database = self.databases.get(&place).expect("every URL of an edge was prepared");
                    let key = key(message);
                    within(PATIENCE, database.row(table, &key, *writes)).await
                }
                Action::Redis { url, prefix, keep_ms, .. } => {
                    let cache = self.caches.get(url).expect("every URL of an edge was prepared");
                    within(PATIENCE, cache.key(&format!("{prefix}:{}", key(message)), *keep_ms)).await
                }
                Action::Publish { url, exchange } => {
                    within(patience, self.broker(url).publish(exchange, &self.envelope(message, load)?)).await
                }
                Action::KafkaPublish { kafka, topic } => {
                    let body = self.envelope(message, load)?;
                    within(patience, self.cluster(&kafka.servers).publish(topic, key(message), body)).await
                }
                Action::Document { url, collection, writes, .. } => {
                    let documents = self.documents.get(url).expect("every URL of an edge was prepared");
                    within(PATIENCE, documents.document(collection, &key(message), *writes)).await
                }
                Action::MqttPublish { url, topic } => {
                    within(patience, self.topics(url).publish(topic, &self.envelope(message, load)?)).await
                }
                Action::Object { address, bucket, puts, .. } => {
                    let place = (address.clone(), bucket.clone());
                    let objects = self.objects.get(&place).expect("every bucket of an edge was prepared");
                    let key = format!("{}.json", key(message));
                    if *puts {
                        within(patience, objects.put(&key, self.envelope(message, load)?.into(), patience)).await
                    } else {
                        // An object is whole, however little has led to it.
                        let patience = self.patience(message, Load::Whole);
                        within(patience, self.kept(objects, &key, message, patience)).await
                    }
                }
                Action::Consume { .. } | Action::KafkaConsume { .. } | Action::MqttSubscribe { .. } => Ok(()),
            }
        };
        let result = done.await;
        if !edge.action.comes_by_itself() {
            self.count(place, &result, begin.elapsed());
        }
        result
    }

    /// Gets a message as an object: if one is there it must be that message, with a payload that is valid.
    async fn kept(&self, objects: &Objects, key: &str, message: &Message, patience: Duration) -> Result<(), Failure> {
        let Some(kept) = objects.get(key, patience).await? else { return Ok(()) };
        let kept: Carried = serde_json::from_slice(&kept)?;
        if kept.message.id != message.id {
            return Err(format!("object `{key}` is of another message").into());
        }
        let payload = self.payload(message).zip(kept.payload);
        payload.map_or(Ok(()), |(payload, kept)| payload.check_value(&kept))
    }

    /// Writes down that an edge was used, and how long it took.
    pub(crate) fn count(&self, place: usize, result: &Result<(), Failure>, duration: Duration) {
        self.durations.observe(label("edge", &self.behaviour.edges[place].name), duration);
        let mut seen = self.seen[place].lock().expect("nothing panics while it counts");
        match result {
            Ok(()) => seen.carried += 1,
            Err(error) => {
                seen.failed += 1;
                seen.error = Some(error.to_string());
            }
        }
    }

    /// What was counted, by the names of the edges.
    pub(crate) fn seen(&self) -> BTreeMap<String, EdgeSeen> {
        let counts = self.seen.iter().map(|seen| seen.lock().expect("nothing panics while it counts").clone());
        self.behaviour.edges.iter().map(|edge| edge.name.clone()).zip(counts).collect()
    }

    /// How long it took to use them, by their names.
    pub(crate) fn durations(&self) -> &Durations {
        &self.durations
    }
}

/// Calls another service or an external, and tries again as often as declared.
async fn call(
    client: &HttpClient,
    path: &str,
    timeout: Duration,
    retries: u32,
    message: &Message,
    body: Bytes,
) -> Result<(), Failure> {
    let header = serde_json::to_vec(message)?;
    let mut attempt = 0;
    loop {
        let mut request = Request::post(path)
            .header(MESSAGE_HEADER, header.as_slice())
            .header(http::header::CONTENT_TYPE, "application/json");
        if let Some(trace) = &message.trace {
            request = request.header(TRACE_HEADER, trace);
        }
        let failure: Failure = match client.send(request.body(Full::from(body.clone()))?, timeout).await {
            Ok((status, _)) if status.is_success() => return Ok(()),
            Ok((status, body)) => {
                let body: String = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
                format!("{path} answers {status}: {body}").into()
            }
            Err(error) => error,
        };
        if attempt == retries {
            return Err(failure);
        }
        attempt += 1;
    }
}

/// One row, key or message for each message of each flow, so that doing it twice changes nothing.
fn key(message: &Message) -> String {
    format!("{}-{}", message.flow.as_deref().unwrap_or("edge"), message.id)
}

async fn within<T>(patience: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(patience, work).await.map_err(|_| format!("no answer after {patience:?}"))?
}

/// The value of an environment variable, which the pod must have.
fn value_of(variable: &str) -> Result<String, Failure> {
    std::env::var(variable).map_err(|_| format!("the environment variable {variable} is missing").into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_connection_that_fails_is_tried_later_and_later() {
        let (mut back_off, now) = (BackOff::default(), tokio::time::Instant::now());
        let mut waits = Vec::new();
        for _ in 0..8 {
            back_off.fail(now);
            waits.push((back_off.until.expect("it failed") - now).as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_refused_for_a_moment_is_made_all_the_same() {
        let (slot, begin) = (Slot::<()>::empty(), tokio::time::Instant::now());
        let after = |refused: Duration| {
            let connect = move || async move { if begin.elapsed() < refused { Err("refused".into()) } else { Ok(()) } };
            slot.connected(|()| false, connect)
        };
        assert!(after(Duration::from_millis(500)).await.is_ok());
        assert!(after(Duration::MAX).await.is_err());
        // After 100, 300 and 700 ms; the other one after 1,500 ms, too.
        assert_eq!(begin.elapsed(), Duration::from_millis(700 + 1500));
    }

    #[tokio::test]
    async fn of_many_that_need_a_connection_one_makes_it() {
        let (slot, made) = (Slot::<u32>::empty(), AtomicU32::new(0));
        let need = || {
            slot.connected(
                |_| true,
                || async {
                    tokio::task::yield_now().await;
                    Ok(made.fetch_add(1, Ordering::Relaxed))
                },
            )
        };
        let all = futures::future::join_all((0..20).map(|_| need())).await;
        assert!(all.into_iter().all(|connection| connection.ok() == Some(0)));
    }
}

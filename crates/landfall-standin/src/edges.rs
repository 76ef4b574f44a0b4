//! Performs the edges of a service, and counts: what carried, what failed and why.

mod broker;
mod cache;
mod sql;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use hyper::body::Bytes;
use rustls::ClientConfig;

pub(crate) use self::broker::{Subscription, consume};

use self::broker::Broker;
use self::cache::Cache;
use self::sql::Database;
use crate::behaviour::{Action, EdgeSeen, MESSAGE_HEADER, Message, ServiceBehaviour};
use crate::{Failure, connect};

/// How long one attempt to do something at a store may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that is made when it is first needed, and again after it broke.
pub(crate) struct Slot<C>(Mutex<Option<C>>);

impl<C: Clone> Slot<C> {
    pub(crate) fn empty() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn get(&self) -> Option<C> {
        self.0.lock().expect("nothing panics with a connection").clone()
    }

    pub(crate) fn put(&self, connection: Option<C>) {
        *self.0.lock().expect("nothing panics with a connection") = connection;
    }
}

/// The edges of a service.
pub(crate) struct Edges {
    behaviour: Arc<ServiceBehaviour>,
    tls: Arc<ClientConfig>,
    databases: BTreeMap<String, Database>,
    caches: BTreeMap<String, Cache>,
    brokers: BTreeMap<String, Broker>,
    seen: Vec<Mutex<EdgeSeen>>,
}

impl Edges {
    /// Prepares them; nothing is connected yet.
    pub(crate) fn new(behaviour: Arc<ServiceBehaviour>) -> Result<Self, Failure> {
        let tls = Arc::new(connect::tls(&behaviour.authority)?);
        let mut edges = Self {
            tls,
            databases: BTreeMap::new(),
            caches: BTreeMap::new(),
            brokers: BTreeMap::new(),
            seen: behaviour.edges.iter().map(|_| Mutex::default()).collect(),
            behaviour: Arc::clone(&behaviour),
        };
        for edge in &behaviour.edges {
            match &edge.action {
                Action::Http { .. } => {}
                Action::Sql { url, .. } => {
                    edges.databases.insert(url.clone(), Database::new(&value_of(url)?, (*edges.tls).clone()));
                }
                Action::Redis { url, cluster, .. } => {
                    edges.caches.insert(url.clone(), Cache::new(value_of(url)?, *cluster, &behaviour.authority));
                }
                Action::Publish { url, .. } | Action::Consume { url, .. } => {
                    edges.brokers.insert(url.clone(), Broker::new(value_of(url)?, &behaviour.authority));
                }
            }
        }
        Ok(edges)
    }

    /// The broker at the URL in this environment variable.
    pub(crate) fn broker(&self, url: &str) -> &Broker {
        self.brokers.get(url).expect("every URL of an edge was prepared")
    }

    /// Does what the edge does for `message`, and counts it. Consuming is not done here, it happens.
    pub(crate) async fn perform(&self, place: usize, message: &Message) -> Result<(), Failure> {
        let edge = &self.behaviour.edges[place];
        let done = async {
            match &edge.action {
                Action::Http { address, server_name, path, timeout_ms, retries } => {
                    let timeout = Duration::from_millis(*timeout_ms);
                    self.call(address, server_name.as_deref(), path, timeout, *retries, message).await
                }
                Action::Sql { url, table, writes } => {
                    let database = self.databases.get(url).expect("every URL of an edge was prepared");
                    let key = key(message);
                    within(PATIENCE, database.row(table, &key, *writes)).await
                }
                Action::Redis { url, prefix, keep_ms, .. } => {
                    let cache = self.caches.get(url).expect("every URL of an edge was prepared");
                    within(PATIENCE, cache.key(&format!("{prefix}:{}", key(message)), *keep_ms)).await
                }
                Action::Publish { url, exchange } => {
                    within(PATIENCE, self.broker(url).publish(exchange, &serde_json::to_vec(message)?)).await
                }
                Action::Consume { .. } => Ok(()),
            }
        };
        let result = done.await;
        if !matches!(edge.action, Action::Consume { .. }) {
            self.count(place, &result);
        }
        result
    }

    /// Writes down that an edge was used.
    pub(crate) fn count(&self, place: usize, result: &Result<(), Failure>) {
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

    async fn call(
        &self,
        address: &str,
        server_name: Option<&str>,
        path: &str,
        timeout: Duration,
        retries: u32,
        message: &Message,
    ) -> Result<(), Failure> {
        let body = serde_json::to_vec(message)?;
        let host = server_name.unwrap_or(address);
        let mut attempt = 0;
        loop {
            let request = Request::post(path)
                .header(MESSAGE_HEADER, body.as_slice())
                .header(http::header::HOST, host)
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(Full::from(Bytes::from(body.clone())))?;
            let failure: Failure = match connect::request(address, server_name, &self.tls, request, timeout).await {
                Ok((status, _)) if status.is_success() => return Ok(()),
                Ok((status, _)) => format!("{host}{path} answers {status}").into(),
                Err(error) => error,
            };
            if attempt == retries {
                return Err(failure);
            }
            attempt += 1;
        }
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

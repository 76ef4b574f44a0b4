//! What a service or external stand-in is told to do: made from the declared edges and flows, read from a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a service stand-in does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceBehaviour {
    /// The service.
    pub service: String,
    /// The ports that it serves, all of them with HTTP.
    pub ports: Vec<u16>,
    /// The paths that answer only when it is ready.
    pub ready: Vec<String>,
    /// Its edges, in the order of the file.
    pub edges: Vec<EdgeBehaviour>,
    /// Its part in each flow that passes through it.
    pub flows: BTreeMap<String, FlowPart>,
    /// The certificates that it trusts, as PEM.
    pub authority: String,
}

/// One edge, and how it is performed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EdgeBehaviour {
    /// How reports name it: `balance publish events/balance.changed`.
    pub name: String,
    /// What is done.
    pub action: Action,
}

/// What an edge does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A request over HTTP, with TLS when there is a server name.
    Http {
        /// Where it is sent: `host:port`.
        address: String,
        /// The name that the certificate of the other side must have.
        server_name: Option<String>,
        /// The path.
        path: String,
        /// After how long it has failed, in milliseconds.
        timeout_ms: u64,
        /// How often it is tried again.
        retries: u32,
    },
    /// A row in a table of PostgreSQL.
    Sql {
        /// The environment variable with the URL.
        url: String,
        /// The table.
        table: String,
        /// Whether a row is written; otherwise it is looked for.
        writes: bool,
    },
    /// A key in Redis.
    Redis {
        /// The environment variable with the URL.
        url: String,
        /// What the key begins with.
        prefix: String,
        /// How long the key stays; not written but read when left out.
        keep_ms: Option<u64>,
        /// Whether the keys are spread over the members of a Redis Cluster.
        cluster: bool,
    },
    /// A message to a fan-out exchange of RabbitMQ, confirmed by the broker.
    Publish {
        /// The environment variable with the URL.
        url: String,
        /// The exchange.
        exchange: String,
    },
    /// Messages from a queue of RabbitMQ, acknowledged when their work is done.
    Consume {
        /// The environment variable with the URL.
        url: String,
        /// The exchange that the queue is bound to.
        exchange: String,
        /// The queue, which somebody else has declared.
        queue: String,
    },
}

/// What a service does for the messages of a flow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPart {
    /// The edges that a message takes here, as places in [`ServiceBehaviour::edges`].
    pub edges: Vec<usize>,
    /// Whether the flow ends here, so that arrivals are written down.
    pub ends: bool,
}

/// How an external behaves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExternalBehaviour {
    /// The external.
    pub external: String,
    /// How long an answer takes, in milliseconds.
    pub latency_ms: u64,
    /// The share of requests that fail, from 0 to 1.
    pub errors: f64,
    /// The most requests a second that it takes.
    pub limit: Option<f64>,
}

/// A message on its way through a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The flow; none for a message that only shows that an edge carries.
    pub flow: Option<String>,
    /// Unique in its flow.
    pub id: u64,
    /// When the client sent it, in microseconds since 1970.
    pub sent_us: u64,
}

/// What a service stand-in has seen, since it started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Seen {
    /// By the name of the edge.
    pub edges: BTreeMap<String, EdgeSeen>,
    /// By flow: every arrival at its end, repeated ones too.
    pub arrivals: BTreeMap<String, Vec<Arrival>>,
}

/// What an edge has carried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeSeen {
    /// How often it was done, the answer of the other side included.
    pub carried: u64,
    /// How often it could not be done.
    pub failed: u64,
    /// Why, the last time.
    pub error: Option<String>,
}

/// A message at the end of its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// The message.
    pub id: u64,
    /// After how long, in microseconds.
    pub after_us: u64,
}

/// Addresses that a service stand-in tries to reach, from inside its pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probe {
    /// `host:port`.
    pub targets: Vec<String>,
}

/// Whether each of them accepted a connection, in the same order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probed {
    /// `true`: somebody listens there, and nothing stands between.
    pub open: Vec<bool>,
}

/// The header of a request that belongs to a flow: the [`Message`] as JSON.
pub const MESSAGE_HEADER: &str = "x-landfall-message";

/// Where a service stand-in tells what it has seen.
pub const SEEN_PATH: &str = "/.landfall/seen";

/// Where a service stand-in takes a [`Probe`].
pub const PROBE_PATH: &str = "/.landfall/probe";

//! What a service or external stand-in is told to do: made from the declared edges and flows, read from a file.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a service stand-in does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceBehaviour {
    /// The service.
    pub service: String,
    /// The ports that it serves, all of them with HTTP.
    pub ports: Vec<u16>,
    /// The paths that answer only when it is ready.
    pub ready: Vec<String>,
    /// The paths of all its probes, which errors that are asked for leave alone.
    pub probes: Vec<String>,
    /// Whether it does its work once and ends, as a scheduled job does.
    pub runs_once: bool,
    /// What the business counts here.
    pub business: Vec<BusinessCount>,
    /// Its edges, in the order of the file.
    pub edges: Vec<EdgeBehaviour>,
    /// Its part in each flow that passes through it.
    pub flows: BTreeMap<String, FlowPart>,
    /// The folder in which each of its pods keeps what it has dealt with, under its name.
    #[serde(default)]
    pub ledger: Option<String>,
    /// The certificates that it trusts, as PEM.
    pub authority: String,
    /// The program that runs in its place.
    #[serde(default)]
    pub program: Option<Program>,
}

/// A program of this machine in the place of a stand-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The program, by its path, and its arguments.
    pub argv: Vec<String>,
    /// Whether the image catalogue says so: then the process is told the same with its placeholders filled in.
    #[serde(default)]
    pub of_catalogue: bool,
    /// Where it starts.
    pub folder: String,
    /// The file with the certificates that it trusts.
    pub trust: String,
}

/// One edge, and how it is performed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EdgeBehaviour {
    /// How reports name it: `balance publish events/balance.changed`.
    pub name: String,
    /// What is done.
    pub action: Action,
    /// How often it is done by itself, in milliseconds; every few seconds when left out.
    pub every_ms: Option<u64>,
    /// Whether messages go on when it fails.
    pub optional: bool,
}

/// Something that the business counts: by what passes through the service, as a stand-in has nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusinessCount {
    /// The name of the metric in the file.
    pub name: String,
    /// How it is counted.
    pub kind: CountKind,
}

/// How something is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CountKind {
    /// The messages of flows that were passed on.
    Counter,
    /// Those that are being worked on.
    Gauge,
    /// The share of them that succeeded.
    Ratio,
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
        /// The host of the replicas, when they and not the primary are asked.
        #[serde(default)]
        replicas: Option<String>,
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
    /// A message to a topic of Kafka, acknowledged by the brokers that are in sync.
    KafkaPublish {
        /// The cluster.
        kafka: KafkaAccess,
        /// The topic.
        topic: String,
    },
    /// Messages of a topic of Kafka, committed when their work is done.
    KafkaConsume {
        /// The cluster.
        kafka: KafkaAccess,
        /// The topic.
        topic: String,
        /// The consumer group.
        group: String,
    },
    /// An object in a bucket of an S3 store.
    Object {
        /// The environment variable with `host:port`.
        address: String,
        /// The environment variable with the access key.
        access_key: String,
        /// The environment variable with the secret key.
        secret_key: String,
        /// Whether it is spoken to with TLS.
        encrypted: bool,
        /// The bucket.
        bucket: String,
        /// Whether an object is put, and got back; otherwise it is looked for.
        puts: bool,
    },
    /// A document in a collection of MongoDB.
    Document {
        /// The environment variable with the URL.
        url: String,
        /// The collection.
        collection: String,
        /// Whether a document is written; otherwise it is looked for.
        writes: bool,
        /// Whether whoever answers is asked, as no replica set is there.
        direct: bool,
    },
    /// A message to a topic of an MQTT broker, acknowledged by it.
    MqttPublish {
        /// The environment variable with the URL.
        url: String,
        /// The topic.
        topic: String,
    },
    /// Messages of a topic of an MQTT broker, acknowledged when their work is done.
    MqttSubscribe {
        /// The environment variable with the URL.
        url: String,
        /// The topic.
        topic: String,
    },
}

impl Action {
    /// Whether it is not done for a message, but brings messages.
    pub(crate) fn comes_by_itself(&self) -> bool {
        self.brings().is_some()
    }

    /// The system that messages come from, as OpenTelemetry names it, and the queue or topic; nothing where none come.
    pub(crate) fn brings(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Consume { queue, .. } => Some(("rabbitmq", queue)),
            Self::KafkaConsume { topic, .. } => Some(("kafka", topic)),
            Self::MqttSubscribe { topic, .. } => Some(("mqtt", topic)),
            _ => None,
        }
    }
}

/// How a cluster of Kafka is reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KafkaAccess {
    /// The environment variable with `host:port` of the brokers that are asked first.
    pub servers: String,
    /// Who the client is, by SCRAM-SHA-512; nobody in particular when left out.
    pub login: Option<KafkaLogin>,
    /// Whether TLS is spoken.
    pub tls: bool,
}

/// Who a client of Kafka is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KafkaLogin {
    /// The environment variable with the user's name.
    pub user: String,
    /// The environment variable with the password.
    pub password: String,
}

/// What a service or external does for the messages of a flow: by the step that brings them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPart {
    /// By [`Message::hop`]. What another step brings is only received.
    pub stages: BTreeMap<u32, Stage>,
    /// The stages of messages that say another step, as a program has passed them on, which leaves the step as it was.
    #[serde(default)]
    pub told: Vec<Told>,
    /// What its messages carry, where the file declares that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<PayloadShape>,
}

/// What the messages of a flow carry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadShape {
    /// The JSON Schema that it keeps to.
    pub schema: Option<Value>,
    /// How many bytes a message has.
    pub bytes: Option<u64>,
}

/// How much of its payload a message has with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// All of it, in its declared size.
    #[default]
    Whole,
    /// What leads to it, as an object store keeps it: as small as the schema allows.
    Reference,
}

impl FlowPart {
    /// The stage of a message that says `hop`, where `edge` has brought it.
    pub fn stage_of(&self, hop: u32, edge: Option<&str>) -> u32 {
        let mut candidates = self.told.iter().filter(|told| told.hop == hop);
        let by_edge = candidates.clone().find(|told| told.edge.as_deref() == edge);
        match (candidates.next(), candidates.next()) {
            (Some(only), None) => only.stage,
            _ => by_edge.map_or(hop, |told| told.stage),
        }
    }
}

/// How a message is known whose [`Message::hop`] is not that of its stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What the message says.
    pub hop: u32,
    /// The consuming edge that brings it; none for a request.
    pub edge: Option<String>,
    /// The stage that it is for.
    pub stage: u32,
}

/// What is done with a message that one step of a flow has brought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// What it does, one after the other.
    pub steps: Vec<StageStep>,
    /// Whether the flow ends here, so that arrivals are written down.
    pub ends: bool,
}

/// An edge that a message takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageStep {
    /// The edge, as its place in the behaviour.
    pub edge: usize,
    /// The step of the flow, as the one who gets the message is told.
    pub hop: u32,
    /// How much of the payload goes with it.
    #[serde(default)]
    pub load: Load,
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
    /// The exposed services that it calls.
    pub callbacks: Vec<Callback>,
    /// Its part in each flow that passes through it; the edges are `callbacks`.
    pub flows: BTreeMap<String, FlowPart>,
}

/// A call that an external makes: a webhook, a receipt. It goes out by [`OUTBOX_PATH`], for an external stands outside
/// of the cluster and its stand-in does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callback {
    /// How reports name it: `glific call glific-webhook`.
    pub name: String,
    /// The host that is called.
    pub host: String,
    /// The path.
    pub path: String,
    /// Whether with TLS.
    pub tls: bool,
    /// After how long it has failed, in milliseconds.
    pub timeout_ms: u64,
    /// How often it is tried again.
    pub retries: u32,
}

/// A call that waits to be carried outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    /// Names it in its [`Outcome`].
    pub number: u64,
    /// What is called.
    pub callback: Callback,
    /// What it says.
    pub message: Message,
    /// How much of the payload of its flow it has with it.
    #[serde(default)]
    pub load: Load,
}

/// What became of a [`Parcel`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The parcel.
    pub number: u64,
    /// Why it could not be delivered.
    pub error: Option<String>,
}

/// A message on its way through a flow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The flow; none for a message that only shows that an edge carries.
    pub flow: Option<String>,
    /// Unique in its flow.
    pub id: u64,
    /// When the client sent it, in microseconds since 1970.
    pub sent_us: u64,
    /// The step of the flow that brings it, counted from 1; 0 where the flow begins by itself.
    #[serde(default)]
    pub hop: u32,
    /// Its place in its trace, as the header `traceparent` of W3C's Trace Context says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// What a service stand-in has seen, since it started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Seen {
    /// By the name of the edge.
    pub edges: BTreeMap<String, EdgeSeen>,
    /// By flow: every arrival at an end of it, the latest ones; each message once.
    pub arrivals: BTreeMap<String, VecDeque<Arrival>>,
    /// By flow: how often a message came again that had been dealt with, and was not dealt with again.
    #[serde(default)]
    pub suppressed: BTreeMap<String, u64>,
    /// By flow: the messages whose payload does not keep to the declared schema; they were not dealt with.
    #[serde(default)]
    pub invalid: BTreeMap<String, InvalidSeen>,
}

/// Messages that do not keep to the schema of their flow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvalidSeen {
    /// How many came.
    pub count: u64,
    /// What was wrong with the first.
    pub reason: String,
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
    /// There is a connection to the other side, and nobody tells what it carries.
    #[serde(default)]
    pub connected: bool,
}

/// A message at the end of its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// The message.
    pub id: u64,
    /// The step that brought it.
    #[serde(default)]
    pub hop: u32,
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

/// Where a stand-in writes a line into its log with the text that it is sent, so that the line can be looked for elsewhere.
pub const SAY_PATH: &str = "/.landfall/say";

/// Where a stand-in is told what to get wrong: a [`Fault`](crate::Fault).
pub const FAULT_PATH: &str = "/.landfall/fault";

/// Where the stand-in of an external hands out what it wants to send: a list of [`Parcel`]s, as soon as there is one.
pub const OUTBOX_PATH: &str = "/.landfall/outbox";

/// Where the stand-in of an external is told the [`Outcome`] of a parcel.
pub const OUTCOME_PATH: &str = "/.landfall/outcome";

/// The port on which the stand-in of an external answers all that is not its declared behaviour.
pub const CONTROL_PORT: u16 = 8080;

/// The environment variable with the [`Message`]s that begin at a job: a JSON list. Without it the job makes its own.
pub const BEGIN_VARIABLE: &str = "LANDFALL_BEGIN";

/// The environment variable with a [`Fault`](crate::Fault) that a service begins with, as a bad release would.
pub const FAULT_VARIABLE: &str = "LANDFALL_FAULT";

/// The environment variable with the file in which a program writes a line for each message of a flow that it has dealt with:
/// `{"flow": …, "hop": …, "id": …, "after_us": …}`, and `edge` where a consuming edge has brought it.
pub const LEDGER_VARIABLE: &str = "LANDFALL_LEDGER";

/// The field of a line in the log of a job that says what it has [`Seen`], as JSON.
pub const SEEN_FIELD: &str = "seen";

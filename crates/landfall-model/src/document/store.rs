//! Stores: databases, caches, brokers and buckets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Placement, Resources, default};
use crate::span::Spanned;
use crate::units::{Bytes, Duration, Name, Percent, Throughput};

/// A database, cache, broker or bucket.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Store {
    /// The software.
    pub engine: Spanned<Engine>,
    /// Its version, such as `17`; a current one when left out.
    #[serde(default)]
    pub version: Option<Spanned<String>>,
    /// What it holds, for people.
    #[serde(default)]
    pub title: Option<Spanned<String>>,
    /// Who runs it: an operator in the cluster, a plain `StatefulSet`, or a cloud provider.
    #[serde(default)]
    pub provider: Spanned<StoreProvider>,
    /// The provider's instance class, such as `db.m7g.large`.
    #[serde(default)]
    pub instance: Option<Spanned<String>>,
    /// How many members (instances, brokers, nodes) it has.
    #[serde(default = "default::one")]
    pub members: Spanned<u32>,
    /// For a sharded cache: how many shards; each has its share of the members.
    #[serde(default)]
    pub shards: Option<Spanned<u32>>,
    /// The zones of the members; all zones of the region when left out.
    #[serde(default)]
    pub zones: Vec<Spanned<Name>>,
    /// The region, when it is not the primary one.
    #[serde(default)]
    pub region: Option<Spanned<Name>>,
    /// The size of each member's volume.
    #[serde(default)]
    pub size: Option<Spanned<Bytes>>,
    /// How much data it holds, for the time of a restore; the volume's size when left out.
    #[serde(default)]
    pub data: Option<Spanned<Bytes>>,
    /// The class of its volumes, when it is not the platform's.
    #[serde(default)]
    pub storage_class: Option<Spanned<String>>,
    /// What each member requests, and what it may use at most.
    #[serde(default)]
    pub resources: Resources,
    /// How it survives a restart.
    #[serde(default)]
    pub persistence: Option<Spanned<Persistence>>,
    /// For a broker: on how many members each topic or queue is kept.
    #[serde(default)]
    pub replication: Option<Spanned<u32>>,
    /// For a broker: how many of them must have a message before it is acknowledged.
    #[serde(default)]
    pub in_sync: Option<Spanned<u32>>,
    /// For a database: whether a commit waits for a replica.
    #[serde(default)]
    pub commit: Option<Spanned<Commit>>,
    /// How far a replica may lag behind; assumed until it is measured.
    #[serde(default = "default::seconds::<5>")]
    pub lag: Spanned<Duration>,
    /// How long it takes until another member has taken over from a lost one; assumed until it is measured.
    #[serde(default = "default::seconds::<30>")]
    pub failover: Spanned<Duration>,
    /// Its backups.
    #[serde(default)]
    pub backup: Option<Backup>,
    /// The speed of a restore; assumed until it is measured.
    #[serde(default = "restore_speed")]
    pub restore: Spanned<Throughput>,
    /// The topics, queues or buckets, by name.
    #[serde(default)]
    pub topics: std::collections::BTreeMap<Spanned<String>, Topic>,
    /// Encryption of data and connections.
    #[serde(default)]
    pub encryption: StoreEncryption,
    /// The share of time in which the provider promises that it works.
    #[serde(default)]
    pub availability: Option<Spanned<Percent>>,
    /// Where members are placed.
    #[serde(default)]
    pub placement: Placement,
    /// The network segment it stands in.
    #[serde(default)]
    pub segment: Option<Spanned<Name>>,
    /// The namespace, when it is not the platform's.
    #[serde(default)]
    pub namespace: Option<Spanned<Name>>,
    /// The environments that have it; all when left out.
    #[serde(default)]
    pub environments: Vec<Spanned<Name>>,
    /// Whether its members run on machines of their own, outside the node pools.
    #[serde(default)]
    pub own_machines: Spanned<bool>,
    /// Whether the document leaves this out and the file assumes it.
    #[serde(default)]
    pub assumed: bool,
}

fn restore_speed() -> Spanned<Throughput> {
    Spanned::unwritten(Throughput::new(100_000_000))
}

/// The software of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// PostgreSQL.
    Postgres,
    /// MongoDB, or a server that speaks its protocol.
    Mongodb,
    /// Redis or Valkey.
    Redis,
    /// Apache Kafka.
    Kafka,
    /// RabbitMQ.
    Rabbitmq,
    /// An S3-compatible object store.
    S3,
    /// An MQTT broker.
    Mqtt,
    /// Elasticsearch or OpenSearch.
    Elasticsearch,
}

impl Engine {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mongodb => "mongodb",
            Self::Redis => "redis",
            Self::Kafka => "kafka",
            Self::Rabbitmq => "rabbitmq",
            Self::S3 => "s3",
            Self::Mqtt => "mqtt",
            Self::Elasticsearch => "elasticsearch",
        }
    }

    /// The port on which clients reach it over TLS: the registered one where a protocol has a second.
    pub fn tls_port(self) -> u16 {
        match self {
            Self::Kafka => 9093,
            Self::Rabbitmq => 5671,
            Self::Mqtt => 8883,
            Self::Postgres | Self::Mongodb | Self::Redis | Self::S3 | Self::Elasticsearch => self.port(),
        }
    }

    /// The port on which clients reach it in plain text.
    pub fn port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::Mongodb => 27017,
            Self::Redis => 6379,
            Self::Kafka => 9092,
            Self::Rabbitmq => 5672,
            Self::S3 => 8333,
            Self::Mqtt => 1883,
            Self::Elasticsearch => 9200,
        }
    }

    /// Whether it is a broker: messages are published to it and consumed from it.
    pub fn is_broker(self) -> bool {
        matches!(self, Self::Kafka | Self::Rabbitmq | Self::Mqtt)
    }
}

/// Who runs a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StoreProvider {
    /// An operator in the cluster, which also fails over and backs up.
    #[default]
    Operator,
    /// A plain `StatefulSet`: nobody fails over.
    Statefulset,
    /// A managed service of Amazon Web Services.
    Aws,
    /// A managed service of Microsoft Azure.
    Azure,
    /// A managed service of Google Cloud.
    Gcp,
}

impl StoreProvider {
    /// Whether a cloud provider runs it, outside the cluster.
    pub fn is_managed(self) -> bool {
        matches!(self, Self::Aws | Self::Azure | Self::Gcp)
    }

    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Statefulset => "statefulset",
            Self::Aws => "aws",
            Self::Azure => "azure",
            Self::Gcp => "gcp",
        }
    }
}

/// How a store survives a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Persistence {
    /// It does not: data is gone.
    None,
    /// From a snapshot: what came after it is gone.
    Snapshot,
    /// From a log of every write, synced once a second.
    Log,
    /// From a log of every write, synced before each acknowledgement.
    Durable,
}

/// Whether a commit waits for a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Commit {
    /// It waits: losing the primary loses nothing.
    Synchronous,
    /// It does not: losing the primary loses what had not been shipped.
    Asynchronous,
}

/// The backups of a store.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Backup {
    /// The time between two full backups.
    pub full: Spanned<Duration>,
    /// The time between two shipments of the write-ahead log or oplog; without it there is no point in time to go back to.
    #[serde(default)]
    pub log: Option<Spanned<Duration>>,
    /// How long backups are kept.
    #[serde(default = "default::days::<7>")]
    pub keep: Spanned<Duration>,
    /// The store of engine `s3` that they go to.
    #[serde(default)]
    pub to: Option<Spanned<Name>>,
    /// Whether they are encrypted.
    #[serde(default)]
    pub encrypted: Spanned<bool>,
    /// The regions that have a copy.
    #[serde(default)]
    pub copies: Vec<Spanned<Name>>,
    /// How often a restore is tried; never when left out.
    #[serde(default)]
    pub tested: Option<Spanned<Duration>>,
    /// Whether the document leaves the numbers out and the file assumes them.
    #[serde(default)]
    pub assumed: bool,
}

/// A topic, queue or bucket of a store.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Topic {
    /// Into how many parts it is split.
    #[serde(default)]
    pub partitions: Option<Spanned<u32>>,
    /// How long messages are kept.
    #[serde(default)]
    pub retention: Option<Spanned<Duration>>,
    /// On how many members it is kept, when not as the store says.
    #[serde(default)]
    pub replication: Option<Spanned<u32>>,
}

/// Encryption of a store.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StoreEncryption {
    /// Whether its files are encrypted.
    #[serde(default)]
    pub at_rest: Option<Spanned<bool>>,
    /// Whether clients must use TLS.
    #[serde(default)]
    pub in_transit: Option<Spanned<bool>>,
}

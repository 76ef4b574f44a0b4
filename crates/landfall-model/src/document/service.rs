//! Services: the programs of the platform.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Map, Rollout, default};
use crate::span::Spanned;
use crate::units::{Bytes, Cpu, Duration, Name, Percent, Port, Range, Rate, Reference, Target, TimeOfDay};

/// A program of the platform, with what it needs, promises and talks to.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Service {
    /// What sort of program it is.
    #[serde(default)]
    pub kind: Spanned<ServiceKind>,
    /// What it does, for people.
    #[serde(default)]
    pub title: Option<Spanned<String>>,
    /// The image, without the registry's host; best with a digest.
    #[serde(default)]
    pub image: Option<Spanned<String>>,
    /// How the image is built, when it is built here.
    #[serde(default)]
    pub build: Option<Build>,
    /// The program and its arguments, instead of the image's.
    #[serde(default)]
    pub command: Vec<Spanned<String>>,
    /// The program of this machine that `landfall up` runs in the place of the image; a stand-in when left out.
    #[serde(default)]
    pub run: Option<Run>,
    /// The one port it serves HTTP on; short for `ports: { http: … }`.
    #[serde(default)]
    pub port: Option<Spanned<Port>>,
    /// The ports it serves, by name.
    #[serde(default)]
    pub ports: Map<ServicePort>,
    /// How many copies run.
    #[serde(default)]
    pub replicas: Replicas,
    /// Bounds on the number of copies at certain times.
    #[serde(default)]
    pub windows: Vec<Window>,
    /// What each copy requests, and what it may use at most.
    #[serde(default)]
    pub resources: Resources,
    /// How Kubernetes sees that a copy works.
    #[serde(default)]
    pub probes: Probes,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<Spanned<String>, EnvironmentValue>,
    /// Files, mounted read-only under `/etc/<service>`.
    #[serde(default)]
    pub config: BTreeMap<Spanned<String>, Spanned<String>>,
    /// How it is reached from outside the cluster.
    #[serde(default)]
    pub expose: Option<Expose>,
    /// What it talks to. What is not listed is closed.
    #[serde(default)]
    pub uses: Vec<Edge>,
    /// When it runs, for a scheduled job.
    #[serde(default)]
    pub schedule: Option<Schedule>,
    /// Where copies are placed.
    #[serde(default)]
    pub placement: Placement,
    /// The network segment it stands in.
    #[serde(default)]
    pub segment: Option<Spanned<Name>>,
    /// The namespace, when it is not the platform's.
    #[serde(default)]
    pub namespace: Option<Spanned<Name>>,
    /// How important it is when nodes are full: higher is placed first.
    #[serde(default)]
    pub priority: Option<Spanned<i32>>,
    /// How long a copy gets to finish its requests when it is stopped.
    #[serde(default = "default::seconds::<30>")]
    pub grace: Spanned<Duration>,
    /// How long a copy needs from start to ready; assumed until it is measured.
    #[serde(default = "default::seconds::<30>")]
    pub startup: Spanned<Duration>,
    /// How a new version replaces the old one, when not as `delivery.rollout` says.
    #[serde(default)]
    pub rollout: Option<Spanned<Rollout>>,
    /// The versions of a store's schema that it can work with.
    #[serde(default)]
    pub schema: Option<SchemaRange>,
    /// What it promises by itself.
    #[serde(default)]
    pub objective: Option<ServiceObjective>,
    /// Where Prometheus scrapes it; `/metrics` on its first port by default.
    #[serde(default)]
    pub metrics: Metrics,
    /// The environments that have it; all when left out.
    #[serde(default)]
    pub environments: Vec<Spanned<Name>>,
    /// The writable folders it needs, with their sizes; the rest of its file system is read-only.
    #[serde(default)]
    pub scratch: BTreeMap<Spanned<String>, Spanned<Bytes>>,
    /// Whether the document leaves this service out and the file assumes it.
    #[serde(default)]
    pub assumed: bool,
}

/// What sort of program a service is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKind {
    /// Answers requests.
    #[default]
    Web,
    /// Takes its work from a broker or a schedule of its own; nobody calls it.
    Worker,
    /// Runs to its end at certain times.
    ScheduledJob,
    /// Serves pages to browsers.
    Frontend,
    /// Takes calls from an external system.
    Webhook,
    /// Stands in for something that is not there; no high availability is asked of it.
    Mock,
}

impl ServiceKind {
    /// Whether it normally answers requests.
    pub fn serves(self) -> bool {
        matches!(self, Self::Web | Self::Frontend | Self::Webhook)
    }
}

/// How an image is built.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "Build|context", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Build", extend("x-short" = "context"))]
pub struct Build {
    /// The folder with the sources.
    pub context: Spanned<String>,
    /// The language, which decides how the rendered Dockerfile builds it.
    #[serde(default)]
    pub language: Option<Spanned<String>>,
    /// The base image, such as `node:24-alpine`.
    #[serde(default)]
    pub base: Option<Spanned<String>>,
    /// The Dockerfile, when it is the user's own.
    #[serde(default)]
    pub dockerfile: Option<Spanned<String>>,
}

/// A program of this machine that `landfall up` runs in the place of an image. Its pod is the rendered one; a cluster gets
/// the image.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Run {
    /// The program and its arguments, started in the folder of the file. One with a `/` is a path from there, any other is
    /// looked for on the `PATH`.
    pub command: Vec<Spanned<String>>,
    /// The command that makes the program, which `landfall up` tells when there is none.
    #[serde(default)]
    pub build: Option<Spanned<String>>,
}

/// A port that a service serves.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "ServicePort|port", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "ServicePort", extend("x-short" = "port"))]
pub struct ServicePort {
    /// The port of the container.
    pub port: Spanned<Port>,
    /// The port of the Kubernetes Service; 80 for HTTP, otherwise the container's.
    #[serde(default)]
    pub service: Option<Spanned<Port>>,
    /// What is spoken on it.
    #[serde(default)]
    pub protocol: Spanned<PortProtocol>,
}

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PortProtocol {
    /// HTTP/1.1 or HTTP/2 in plain text.
    #[default]
    Http,
    /// gRPC.
    Grpc,
    /// Any protocol over TCP.
    Tcp,
    /// Any protocol over UDP.
    Udp,
}

/// How many copies run: a fixed number, or bounds with the metrics that move it between them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "Replicas|count", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Replicas", extend("x-short" = "count"))]
pub struct Replicas {
    /// A fixed number of copies.
    #[serde(default)]
    pub count: Option<Spanned<u32>>,
    /// The fewest copies, when their number moves.
    #[serde(default)]
    pub min: Option<Spanned<u32>>,
    /// The most copies, when their number moves.
    #[serde(default)]
    pub max: Option<Spanned<u32>>,
    /// The share of the requested CPU that copies should use on average.
    #[serde(default)]
    pub cpu: Option<Spanned<Percent>>,
    /// The share of the requested memory that copies should use on average.
    #[serde(default)]
    pub memory: Option<Spanned<Percent>>,
    /// Other metrics by name, each with the average value for each copy that the autoscaler aims at.
    #[serde(default)]
    pub custom: BTreeMap<Spanned<String>, Spanned<u32>>,
    /// How long the load must be low before copies are removed.
    #[serde(default = "default::seconds::<300>")]
    pub calm: Spanned<Duration>,
    /// Whether the document leaves the numbers out and the file assumes them.
    #[serde(default)]
    pub assumed: bool,
}

impl Default for Replicas {
    fn default() -> Self {
        Self {
            count: None,
            min: None,
            max: None,
            cpu: None,
            memory: None,
            custom: BTreeMap::new(),
            calm: default::seconds::<300>(),
            assumed: false,
        }
    }
}

impl Replicas {
    /// The fewest copies that run: 1 unless written.
    pub fn floor(&self) -> u32 {
        self.min.as_ref().or(self.count.as_ref()).map_or(1, |count| count.value)
    }

    /// The most copies that run.
    pub fn ceiling(&self) -> u32 {
        self.max.as_ref().or(self.count.as_ref()).map_or(self.floor(), |count| count.value.max(self.floor()))
    }

    /// Whether an autoscaler moves the number.
    pub fn scales(&self) -> bool {
        self.max.is_some()
    }
}

/// Bounds on the number of copies at certain times. Copies are *ready* at the start of the window.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Window {
    /// A name, for people and metrics.
    pub name: Spanned<Name>,
    /// The days on which it begins; every day when left out.
    #[serde(default)]
    pub days: Vec<Spanned<Weekday>>,
    /// When it begins.
    pub from: Spanned<TimeOfDay>,
    /// When it ends; on the next day when not after `from`.
    pub to: Spanned<TimeOfDay>,
    /// The IANA time zone of both, such as `Asia/Kolkata`.
    pub time_zone: Spanned<String>,
    /// The fewest copies in the window.
    #[serde(default)]
    pub min: Option<Spanned<u32>>,
    /// The most copies in the window.
    #[serde(default)]
    pub max: Option<Spanned<u32>>,
    /// Whether the document leaves the numbers out and the file assumes them.
    #[serde(default)]
    pub assumed: bool,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Weekday {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// What each copy requests, and what it may use at most: `250m..500m`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Resources {
    /// Processor time: request and limit.
    #[serde(default)]
    pub cpu: Option<Spanned<Range<Cpu>>>,
    /// Memory: request and limit.
    #[serde(default)]
    pub memory: Option<Spanned<Range<Bytes>>>,
    /// Ephemeral storage: request and limit.
    #[serde(default)]
    pub storage: Option<Spanned<Range<Bytes>>>,
    /// Whether the document leaves the numbers out and the file assumes them.
    #[serde(default)]
    pub assumed: bool,
}

/// How Kubernetes sees that a copy works.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Probes {
    /// Restarts the container when it fails.
    #[serde(default)]
    pub live: Option<Probe>,
    /// Takes the copy out of the Service when it fails.
    #[serde(default)]
    pub ready: Option<Probe>,
    /// Holds the other two back until it has passed once.
    #[serde(default)]
    pub startup: Option<Probe>,
}

/// One probe: exactly one of `http`, `tcp`, `grpc` and `exec`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "Probe|http", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Probe", extend("x-short" = "http"))]
pub struct Probe {
    /// The path of a GET that must answer with a status from 200 to 399.
    #[serde(default)]
    pub http: Option<Spanned<String>>,
    /// The name or number of a port that must accept a connection.
    #[serde(default)]
    pub tcp: Option<Spanned<String>>,
    /// The service to ask by the gRPC health protocol; `""` for the server as a whole.
    #[serde(default)]
    pub grpc: Option<Spanned<String>>,
    /// A program and its arguments, which must exit with 0.
    #[serde(default)]
    pub exec: Vec<Spanned<String>>,
    /// The port, when it is not the first one.
    #[serde(default)]
    pub port: Option<Spanned<Port>>,
    /// How long after the start the first probe comes.
    #[serde(default)]
    pub delay: Spanned<Duration>,
    /// The time between two probes.
    #[serde(default = "default::seconds::<10>")]
    pub period: Spanned<Duration>,
    /// How long an answer may take.
    #[serde(default = "default::seconds::<1>")]
    pub timeout: Spanned<Duration>,
    /// How many failures in a row count.
    #[serde(default = "three")]
    pub failures: Spanned<u32>,
}

fn three() -> Spanned<u32> {
    Spanned::unwritten(3)
}

/// The value of an environment variable: exactly one of the four.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "EnvironmentValue|value", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "EnvironmentValue", extend("x-short" = "value"))]
pub struct EnvironmentValue {
    /// The value itself; never a secret.
    #[serde(default)]
    pub value: Option<Spanned<String>>,
    /// A key of a secret: `db-secret/url`.
    #[serde(default)]
    pub secret: Option<Spanned<Reference>>,
    /// How to reach a store: `ledger/host`, `/port`, `/address`, `/url`, `/username` or `/password`.
    #[serde(default)]
    pub store: Option<Spanned<Reference>>,
    /// A field of the pod, such as `metadata.name`.
    #[serde(default)]
    pub field: Option<Spanned<String>>,
}

/// How a service is reached from outside the cluster.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "Expose|host", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Expose", extend("x-short" = "host"))]
pub struct Expose {
    /// The DNS name.
    pub host: Spanned<String>,
    /// The path below which requests come here.
    #[serde(default = "root_path")]
    pub path: Spanned<String>,
    /// The port by name, when it is not the first one.
    #[serde(default)]
    pub port: Option<Spanned<Name>>,
    /// The cert-manager `ClusterIssuer` of the certificate; without one there is no TLS.
    #[serde(default)]
    pub tls: Option<Spanned<String>>,
    /// Whether a web application firewall looks at the requests.
    #[serde(default)]
    pub waf: Spanned<bool>,
    /// How many requests one client may make.
    #[serde(default)]
    pub rate_limit: Option<Spanned<Rate>>,
    /// Who may call: everybody, or callers with a credential.
    #[serde(default)]
    pub access: Spanned<Access>,
    /// Whether the document leaves this out and the file assumes it.
    #[serde(default)]
    pub assumed: bool,
}

fn root_path() -> Spanned<String> {
    Spanned::unwritten("/".to_owned())
}

/// Who may call an exposed service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Everybody.
    #[default]
    Public,
    /// Callers that show a token or a client certificate.
    Authenticated,
}

/// What a service talks to: exactly one verb with its target.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Edge {
    /// Sends a request to a service or external and waits for the answer.
    #[serde(default)]
    pub call: Option<Spanned<Target>>,
    /// Reads from a store.
    #[serde(default)]
    pub read: Option<Spanned<Target>>,
    /// Writes to a store.
    #[serde(default)]
    pub write: Option<Spanned<Target>>,
    /// Puts results into a cache, with a time to live.
    #[serde(default)]
    pub cache: Option<Spanned<Target>>,
    /// Publishes to a topic or queue.
    #[serde(default)]
    pub publish: Option<Spanned<Target>>,
    /// Consumes from a topic or queue.
    #[serde(default)]
    pub consume: Option<Spanned<Target>>,
    /// Stores a record or an object for good.
    #[serde(default)]
    pub store: Option<Spanned<Target>>,
    /// Sends a message to an external and waits for the receipt only.
    #[serde(default)]
    pub send: Option<Spanned<Target>>,
    /// Asks an external again and again for what is new.
    #[serde(default)]
    pub poll: Option<Spanned<Target>>,
    /// Asks a service, store or external a question that changes nothing.
    #[serde(default)]
    pub query: Option<Spanned<Target>>,
    /// How often it happens; the rates of flows count on top.
    #[serde(default)]
    pub rate: Option<Spanned<Rate>>,
    /// How long a call may take before it is given up.
    #[serde(default)]
    pub timeout: Option<Spanned<Duration>>,
    /// How often a failed call is tried again.
    #[serde(default)]
    pub retries: Option<Spanned<u32>>,
    /// The time between two polls.
    #[serde(default)]
    pub every: Option<Spanned<Duration>>,
    /// How long a cached value lives.
    #[serde(default)]
    pub ttl: Option<Spanned<Duration>>,
    /// The port of the target by name, when it is not the first one.
    #[serde(default)]
    pub port: Option<Spanned<Name>>,
    /// Whether a read may be answered by a replica, which can lag behind.
    #[serde(default)]
    pub from_replica: Spanned<bool>,
    /// Whether the service still works, with less, when the target is away.
    #[serde(default)]
    pub optional: Spanned<bool>,
    /// Whether the document leaves this edge out and the file assumes it.
    #[serde(default)]
    pub assumed: bool,
}

/// When a scheduled job runs.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "Schedule|cron", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Schedule", extend("x-short" = "cron"))]
pub struct Schedule {
    /// Five fields of cron: minute, hour, day of the month, month, day of the week.
    pub cron: Spanned<String>,
    /// The IANA time zone; UTC when left out.
    #[serde(default)]
    pub time_zone: Option<Spanned<String>>,
    /// Whether a run may begin while the one before still goes on.
    #[serde(default)]
    pub overlap: Spanned<Overlap>,
    /// How long a run may take.
    #[serde(default)]
    pub deadline: Option<Spanned<Duration>>,
    /// How often a failed run is tried again.
    #[serde(default = "three")]
    pub retries: Spanned<u32>,
}

/// What happens when a run is due while the one before still goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// The new run is skipped.
    #[default]
    Forbid,
    /// Both run.
    Allow,
    /// The old run is ended.
    Replace,
}

/// Where copies are placed.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Placement {
    /// Whether copies are spread over the zones.
    #[serde(default)]
    pub zones: Spanned<Spread>,
    /// Whether two copies keep off the same node.
    #[serde(default)]
    pub nodes: Spanned<Spread>,
    /// The node pool; any pool that is not dedicated when left out.
    #[serde(default)]
    pub pool: Option<Spanned<Name>>,
}

/// How strictly copies keep apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// A copy that cannot keep apart is not placed.
    Required,
    /// A copy that cannot keep apart is placed all the same.
    #[default]
    Preferred,
    /// Nothing keeps them apart.
    None,
}

/// The versions of a store's schema that a release can work with.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SchemaRange {
    /// The store.
    pub store: Spanned<Name>,
    /// The versions it can read.
    pub reads: Spanned<Range<u32>>,
    /// The version it migrates to.
    pub writes: Spanned<u32>,
}

/// What a service promises by itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ServiceObjective {
    /// The share of requests that succeed.
    #[serde(default)]
    pub availability: Option<Spanned<Percent>>,
    /// The slowest answer that 99 of 100 requests may get.
    #[serde(default)]
    pub p99: Option<Spanned<Duration>>,
}

/// Where Prometheus scrapes a service.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Metrics {
    /// The path.
    #[serde(default = "metrics_path")]
    pub path: Spanned<String>,
    /// The port by name, when it is not the first one.
    #[serde(default)]
    pub port: Option<Spanned<Name>>,
    /// Whether it is scraped at all.
    #[serde(default = "default::yes")]
    pub scrape: Spanned<bool>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { path: metrics_path(), port: None, scrape: default::yes() }
    }
}

fn metrics_path() -> Spanned<String> {
    Spanned::unwritten("/metrics".to_owned())
}

//! What the API server asks of the node agent: logs, commands and connections of running pods, and how much they use.
//!
//! The API server finds the pod, the container and checks the rights; the agent finds the process. One agent answers for
//! all nodes of the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// Serves the streaming subresources of pods.
pub(crate) trait NodeAgent: Send + Sync + 'static {
    /// The log of a container. The stream ends at the end of the log, or with [`LogOptions::follow`] when the container
    /// has ended and its log is read to the end; dropping it is how a client goes away.
    fn log(&self, container: ContainerRef, options: LogOptions) -> BoxFuture<'_, Result<LogStream, AgentError>>;

    /// Runs a command inside a container, or attaches to its first process when [`Command::argv`] is `None`.
    fn exec(&self, container: ContainerRef, command: Command) -> BoxFuture<'_, Result<Session, AgentError>>;

    /// A connection to a port of a pod.
    fn connect(&self, pod: PodRef, port: u16) -> BoxFuture<'_, Result<Box<dyn Connection>, AgentError>>;
}

/// A pod as the API server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodRef {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) uid: Arc<str>,
    /// The node that it is bound to; never empty.
    pub(crate) node: Arc<str>,
}

/// A container (init, ordinary or ephemeral) of a pod; the API server has checked that the pod has one of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerRef {
    pub(crate) pod: PodRef,
    pub(crate) container: Arc<str>,
}

/// Which part of a log, and in which form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    /// Go on as lines are written.
    pub(crate) follow: bool,
    /// Of the container before its last restart.
    pub(crate) previous: bool,
    /// Each line begins with its RFC 3339 time.
    pub(crate) timestamps: bool,
    /// Only lines written at this time or later.
    pub(crate) since: Option<Timestamp>,
    /// Only so many lines from the end.
    pub(crate) tail: Option<u64>,
    /// Only so many bytes.
    pub(crate) limit: Option<u64>,
    /// Only one of the two streams.
    pub(crate) stream: Option<LogSource>,
}

/// Where a line of a log comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogSource {
    Stdout,
    Stderr,
}

pub(crate) type LogStream = BoxStream<'static, std::io::Result<Bytes>>;

/// What to run, and which streams the client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// `None`: attach to the container's own process.
    pub(crate) argv: Option<Vec<String>>,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
}

/// A running command. Dropping it is how a client goes away: the command is then ended.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) input: mpsc::Sender<Input>,
    /// Ends after [`Output::Ended`].
    pub(crate) output: mpsc::Receiver<Output>,
}

/// From the client to the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Stdin(Bytes),
    /// End of file.
    CloseStdin,
    Resize {
        columns: u16,
        rows: u16,
    },
}

/// From the command to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The last one.
    Ended(Result<i32, String>),
}

/// Both directions of a forwarded port.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<C: AsyncRead + AsyncWrite + Send + Unpin> Connection for C {}

/// Why the agent cannot do it, in the words that the client shall read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AgentError {
    /// The container or its log is not there (any more).
    #[error("{0}")]
    NotFound(String),
    /// The container is not in a state to do it: `container "a" in pod "b" is waiting to start: ContainerCreating`.
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    Internal(String),
    /// The node of the pod does not answer.
    #[error("{0}")]
    Unreachable(String),
}

/// Knows what pods and nodes use, for `metrics.k8s.io`, and what pods tell of themselves, for `custom.metrics.k8s.io`.
pub(crate) trait MetricsSource: Send + Sync + 'static {
    fn nodes(&self) -> Vec<NodeUsage>;
    fn pods(&self) -> Vec<PodUsage>;

    /// What each of these pods, by their uids, tells of a metric, in the same order; or why it does not. It is known for a
    /// while only of pods that somebody asks of: the first answer takes as long as the pods do.
    fn series<'a>(&'a self, pods: &'a [Arc<str>], metric: &'a str) -> BoxFuture<'a, Vec<Result<PodSeries, String>>>;

    /// The metrics that some pod tells of those which were asked of lately.
    fn metric_names(&self) -> BTreeSet<String>;
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Processor time used in a second, in billionths of a core.
    pub(crate) nanocores: u64,
    /// Working set.
    pub(crate) memory_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeUsage {
    pub(crate) node: Arc<str>,
    /// The end of the window in which it was measured.
    pub(crate) at: Timestamp,
    pub(crate) window: Duration,
    pub(crate) usage: Usage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodUsage {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) at: Timestamp,
    pub(crate) window: Duration,
    /// By container name.
    pub(crate) containers: Vec<(Arc<str>, Usage)>,
}

/// Names and values.
pub(crate) type Labels = BTreeMap<String, String>;

/// What a pod tells of one metric.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PodSeries {
    /// When it told so.
    pub(crate) at: Timestamp,
    /// Over which time it is the rate of a counter. None: it is the value at that moment.
    pub(crate) window: Option<Duration>,
    pub(crate) series: Vec<(Labels, f64)>,
}

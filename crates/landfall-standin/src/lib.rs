//! What stands in for what a machine does not have.
//!
//! * a *service* without code performs its declared edges with the real protocols ([`ServiceBehaviour`]);
//! * an *external* answers as its profile says ([`ExternalBehaviour`]);
//! * a *sink* takes logs and traces in the place of the store that keeps them, and alerts in that of their receivers
//!   ([`SinkSeen`]);
//! * a *server* is the real program of this machine behind the entry point that its image would have ([`find_server`]);
//! * small *operators* make from custom resources what the real ones make, through the Kubernetes API alone
//!   ([`run_operators`]).
//!
//! All but the operators are processes of their own: the binary, started again, calls [`main`] and leaves the process to it.

mod address;
mod authority;
mod behaviour;
mod connect;
mod edges;
mod external;
mod fault;
mod metrics;
mod operators;
mod payload;
mod program;
mod record;
mod servers;
mod service;
mod sink;
mod trace;

use std::process::ExitCode;

pub use authority::{Authority, AuthorityError};
pub use behaviour::{
    Action, Arrival, BEGIN_VARIABLE, BusinessCount, CONTROL_PORT, Callback, CountKind, EdgeBehaviour, EdgeSeen,
    ExternalBehaviour, FAULT_PATH, FAULT_VARIABLE, FlowPart, InvalidSeen, KafkaAccess, KafkaLogin, LEDGER_VARIABLE,
    Load, MESSAGE_HEADER, Message, OUTBOX_PATH, OUTCOME_PATH, Outcome, PROBE_PATH, Parcel, PayloadShape, Probe, Probed,
    Program, SAY_PATH, SEEN_FIELD, SEEN_PATH, Seen, ServiceBehaviour, Stage, StageStep, Told,
};
pub use connect::{HttpClient, Pipe, TlsConfig, tls as trust};
pub use fault::Fault;
pub use metrics::edges_told;
pub use operators::{
    AT_REST, OperatorError, PLACEHOLDER, URL_OF, container_security, kafka_image, pod_security, run_operators,
};
pub use payload::Payload;
pub use program::{LOOK_VARIABLE, Looked, NOBODY};
pub use record::arrivals;
pub use servers::{
    Found, Server, TOOLS, arguments as server_arguments, find as find_server, first_of as find_program,
    pod_environment, program_command, tools,
};
pub use sink::{
    ALERTS_PORT, AlertSeen, CallSeen, ELASTICSEARCH_PORT, JAEGER_PORT, LOKI_PORT, OTLP_GRPC_PORT, OTLP_HTTP_PORT,
    OperationSeen, SinkSeen, TraceSeen,
};

/// A reason that is told and nothing else: where it comes from is in its text.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Becomes a stand-in: `service FILE`, `external FILE`, `sink` or `server NAME …`. Returns when it has been asked to end, or failed.
/// Where several services have one image, `service-of POD FILE…` takes the file of the service that the pod is named after.
/// A service that is a program of its own becomes that program; where the image catalogue says which, it and its arguments follow
/// after `--`. `look TARGET…` prints what [`Looked`] says, and `look-as-told` does so by [`LOOK_VARIABLE`].
pub fn main(arguments: &[String]) -> ExitCode {
    use_ring();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["service", file, ref named @ ..] => on_threads(service::run(file, after_files(named).1)),
        ["service-of", pod, ref files @ ..] => {
            let (files, named) = after_files(files);
            on_threads(service::run_one_of(pod, files, named))
        }
        ["external", file] => on_threads(external::run(file)),
        ["sink"] => on_threads(sink::run()),
        ["server", name, ref arguments @ ..] => servers::become_server(name, arguments),
        ["archive", ref arguments @ ..] => match on_threads(servers::archive::run(arguments)) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        ["look", ref targets @ ..] => on_threads(program::look(targets)),
        ["look-as-told"] => on_threads(async {
            let told = std::env::var(LOOK_VARIABLE).map_err(|error| format!("{LOOK_VARIABLE}: {error}"))?;
            program::look_as_told(&told).await
        }),
        ["kafka-admin"] => on_threads(servers::kafka::admin::run()),
        ["rabbitmq-tool", name, ref arguments @ ..] => servers::rabbitmq::become_tool(name, arguments),
        _ => Err(format!("no stand-in is called so: {}", arguments.join(" ")).into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "ended");
            ExitCode::FAILURE
        }
    }
}

/// The files, and what follows after `--`.
fn after_files<'a, 's>(arguments: &'a [&'s str]) -> (&'a [&'s str], &'a [&'s str]) {
    match arguments.iter().position(|argument| *argument == "--") {
        Some(end) => (&arguments[..end], &arguments[end + 1..]),
        None => (arguments, &[]),
    }
}

/// Several libraries here speak TLS; all of them are to use the same cryptography.
fn use_ring() {
    // An error says that one is chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn on_threads<T, F: Future<Output = Result<T, Failure>>>(run: F) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run)
}

/// Where a process writes what is gone with it: a container whose root is only to be read may write to memory all the same.
pub(crate) fn scratch() -> std::path::PathBuf {
    let memory = std::path::PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

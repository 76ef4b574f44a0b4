//! What the services of the examples share: how they begin and end, what they count, and how they talk to a database and to
//! others. Nothing of it comes from Landfall, and only three things are for it: [`Message`] is passed on as it came, the
//! [`Ledger`] says what was dealt with, and [`Metrics`] name the edges as the architecture does.

mod database;
mod events;
mod message;
mod metrics;
mod peer;
mod web;

use std::process::ExitCode;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tracing::error;

pub use database::Database;
pub use events::{RETRY, consume_until};
pub use message::{Ledger, Message, now_us};
pub use metrics::Metrics;
pub use peer::{Attempts, Peer};
pub use tokio_postgres::Row;
pub use web::{answer, serve};

/// A reason that is told and nothing else.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Where certificates are that clients trust, unless `SSL_CERT_FILE` says another place.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What every service works with.
pub struct Platform {
    /// What it counts.
    pub metrics: Metrics,
    /// What it has dealt with.
    pub ledger: Ledger,
    /// The certificates that are trusted, as PEM, for libraries that read them themselves.
    pub trust: String,
    tls: Arc<ClientConfig>,
}

impl Platform {
    /// `edges` are those of the service, as the architecture declares them.
    pub fn new(edges: &[&'static str]) -> Result<Arc<Self>, Failure> {
        let file = std::env::var("SSL_CERT_FILE").unwrap_or_else(|_| CERTIFICATES.to_owned());
        let trust = std::fs::read_to_string(&file).map_err(|error| format!("failed to read `{file}`: {error}"))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(trust.as_bytes()) {
            roots.add(certificate?)?;
        }
        let tls = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
        Ok(Arc::new(Self { metrics: Metrics::new(edges), ledger: Ledger::open()?, tls, trust }))
    }
}

/// The value of an environment variable, which the pod must have.
pub fn variable(name: &str) -> Result<String, Failure> {
    std::env::var(name).map_err(|_| format!("the environment variable {name} is missing").into())
}

/// Runs a service to its end, with its log as JSON lines.
pub fn main(service: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    tracing_subscriber::fmt()
        .json()
        .with_env_filter("warn,example_kit=info,balance_alerts=info,water_channels=info")
        .init();
    // An error says that one is chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(service),
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "ended");
            ExitCode::FAILURE
        }
    }
}

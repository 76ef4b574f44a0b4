//! An external stand-in: answers over HTTPS after its declared latency, fails and refuses as its profile says.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info};

use crate::Failure;
use crate::behaviour::ExternalBehaviour;

/// Where it listens: any user may, and a Service leads the port of HTTPS here.
const PORT: u16 = 8443;

/// The folder with its certificate.
const IDENTITY: &str = "/tls";

struct External {
    behaviour: ExternalBehaviour,
    /// Requests that it will still take, and when that was counted.
    allowance: Mutex<(f64, Instant)>,
}

/// Serves until it is asked to end.
pub(crate) async fn run(file: &str) -> Result<(), Failure> {
    let behaviour: ExternalBehaviour = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let acceptor = TlsAcceptor::from(Arc::new(identity()?));
    info!(external = behaviour.external, port = PORT, "serving");
    let full = behaviour.limit.unwrap_or_default();
    let external = Arc::new(External { behaviour, allowance: Mutex::new((full, Instant::now())) });
    let mut connections = JoinSet::new();
    let mut stop = crate::service::asked_to_end()?;
    loop {
        tokio::select! {
            _ = stop.recv() => return Ok(()),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let (stream, peer) = accepted?;
                let (acceptor, external) = (acceptor.clone(), Arc::clone(&external));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let answer = service_fn(move |request| answer(Arc::clone(&external), request));
                    let connection = auto::Builder::new(TokioExecutor::new());
                    if let Err(error) = connection.serve_connection(TokioIo::new(stream), answer).await {
                        debug!(%peer, error, "a connection broke");
                    }
                });
            }
        }
    }
}

fn identity() -> Result<ServerConfig, Failure> {
    let certificates = CertificateDer::pem_file_iter(format!("{IDENTITY}/tls.crt"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(format!("{IDENTITY}/tls.key"))?;
    Ok(ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?)
}

async fn answer(external: Arc<External>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, http::Error> {
    let status = external.judge();
    if status != StatusCode::TOO_MANY_REQUESTS {
        tokio::time::sleep(Duration::from_millis(external.behaviour.latency_ms)).await;
    }
    let body = serde_json::json!({ "external": external.behaviour.external, "path": request.uri().path() });
    Response::builder().status(status).body(Full::from(body.to_string()))
}

impl External {
    fn judge(&self) -> StatusCode {
        if let Some(limit) = self.behaviour.limit {
            let mut allowance = self.allowance.lock().expect("nothing panics with the allowance");
            let now = Instant::now();
            // A second's worth may be saved up.
            allowance.0 = (allowance.0 + limit * (now - allowance.1).as_secs_f64()).min(limit.max(1.0));
            allowance.1 = now;
            if allowance.0 < 1.0 {
                return StatusCode::TOO_MANY_REQUESTS;
            }
            allowance.0 -= 1.0;
        }
        if rand::random::<f64>() < self.behaviour.errors { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    }
}

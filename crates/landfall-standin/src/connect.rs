//! Connections to others: TLS that trusts one authority, and single requests over HTTP.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
pub use rustls::ClientConfig as TlsConfig;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Failure;

/// What a client trusts: certificates that `authority` (PEM) has signed, and no others.
pub fn tls(authority: &str) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate?)?;
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// Sends a request over a connection of its own and reads the whole answer.
pub async fn request(
    address: &str,
    server_name: Option<&str>,
    tls: &Arc<ClientConfig>,
    request: Request<Full<Bytes>>,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), Failure> {
    let exchange = async {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
        match server_name {
            Some(name) => {
                let name = ServerName::try_from(name.to_owned())?;
                let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?;
                over(TokioIo::new(stream), request).await
            }
            None => over(TokioIo::new(stream), request).await,
        }
    };
    tokio::time::timeout(timeout, exchange).await.map_err(|_| format!("{address}: no answer after {timeout:?}"))?
}

async fn over<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Failure>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok::<_, Failure>((status, body))
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    // The connection moves the bytes; it may end before the answer is read from its buffers.
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = &mut connection => { ended?; exchange.await }
    }
}

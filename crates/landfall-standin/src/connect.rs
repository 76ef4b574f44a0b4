//! Connections to others: TLS that trusts one authority, and requests over HTTP on connections that are kept.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
pub use rustls::ClientConfig as TlsConfig;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::Service;

use crate::Failure;

/// After how long without a request a connection is closed.
const IDLE: Duration = Duration::from_mins(1);

/// For how long somebody who needs a connection tries again, as pools of connections do: where a service leads changes a moment
/// after its pods do, and until then it refuses.
pub(crate) const TRIES: Duration = Duration::from_secs(1);

const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// What a client trusts: certificates that `authority` (PEM) has signed, and no others.
pub fn tls(authority: &str) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate?)?;
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// A client of one server. Its connections are kept for the next request; one that broke meanwhile is replaced.
#[derive(Clone)]
pub struct HttpClient {
    client: Client<Dial, Full<Bytes>>,
    /// How errors name the server.
    server: String,
    /// What `Host` says.
    authority: Authority,
}

impl HttpClient {
    /// A client of the server at `address`; with TLS when there is a name that its certificate must have.
    pub fn to(address: &str, server_name: Option<&str>, tls: &Arc<TlsConfig>) -> Result<Self, Failure> {
        let (server, name, tls) = (address.to_owned(), server_name.map(ToOwned::to_owned), Arc::clone(tls));
        let connect = move || dial(server.clone(), name.clone(), Arc::clone(&tls));
        Self::over(address, server_name.unwrap_or(address), move || Box::pin(connect()))
    }

    /// A client of the server at `address`, without TLS, that asks for `host`.
    pub fn to_host(address: &str, host: &str) -> Result<Self, Failure> {
        let server = address.to_owned();
        Self::over(address, host, move || {
            let stream = plain(server.clone());
            Box::pin(async move { Ok(Pipe::new(stream.await?)) })
        })
    }

    /// A client whose connections somebody else makes.
    pub fn over(
        server: &str,
        host: &str,
        dial: impl Fn() -> BoxFuture<'static, Result<Pipe, Failure>> + Send + Sync + 'static,
    ) -> Result<Self, Failure> {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(Dial(Arc::new(dial)));
        Ok(Self { client, server: server.to_owned(), authority: host.parse()? })
    }

    /// Sends a request, whose URI is a path, and reads the status and the body of the answer.
    pub async fn send(&self, request: Request<Full<Bytes>>, timeout: Duration) -> Result<(StatusCode, Bytes), Failure> {
        let (head, body) = self.exchange(request, timeout).await?.into_parts();
        Ok((head.status, body))
    }

    /// Sends a request, whose URI is a path, and reads the whole answer.
    pub async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Failure> {
        let mut parts = request.uri().clone().into_parts();
        // The client asks for one; whether it is TLS is the business of `Dial`.
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts)?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| self.told(&error))?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(|error| self.told(&error))?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        tokio::time::timeout(timeout, exchange)
            .await
            .map_err(|_| format!("{}: no answer after {timeout:?}", self.server))?
    }

    /// The last reason says most: `client error (Connect)` alone helps nobody.
    fn told(&self, error: &dyn std::error::Error) -> Failure {
        let mut last = error;
        while let Some(source) = last.source() {
            last = source;
        }
        format!("{}: {last}", self.server).into()
    }
}

async fn dial(address: String, server_name: Option<String>, tls: Arc<ClientConfig>) -> Result<Pipe, Failure> {
    let stream = plain(address).await?;
    Ok(match server_name {
        Some(name) => Pipe::new(TlsConnector::from(tls).connect(ServerName::try_from(name)?, stream).await?),
        None => Pipe::new(stream),
    })
}

/// For a while an address that refuses is tried again, as it may be that of a service which is about to lead elsewhere.
async fn plain(address: String) -> Result<TcpStream, Failure> {
    let begin = tokio::time::Instant::now();
    let stream = loop {
        match crate::address::connect(&address).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && begin.elapsed() < TRIES => {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            connected => break connected?,
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Makes connections for the pool.
#[derive(Clone)]
struct Dial(Arc<dyn Fn() -> BoxFuture<'static, Result<Pipe, Failure>> + Send + Sync>);

impl Service<Uri> for Dial {
    type Response = TokioIo<Pipe>;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<TokioIo<Pipe>, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialed = (self.0)();
        Box::pin(async move { Ok(TokioIo::new(dialed.await?)) })
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A connection of whatever kind.
pub struct Pipe(Box<dyn Duplex>);

impl Pipe {
    /// Takes the connection.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(stream))
    }
}

impl Connection for Pipe {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

//! Others that are spoken to over HTTP: services of the platform, and systems outside of it with TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::uri::{Authority, Scheme};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::message::{HEADER, Message, TRACE_HEADER};
use crate::{Failure, Platform};

/// How long nothing is tried after a failure, twice as long after the next.
const BACK_OFF: Duration = Duration::from_millis(50);

/// How long an answer is waited for, and how often it is asked again after a failure.
#[derive(Debug, Clone, Copy)]
pub struct Attempts {
    /// For each attempt.
    pub timeout: Duration,
    /// After the first.
    pub retries: u32,
}

/// Somebody who answers requests. Connections are kept.
pub struct Peer {
    client: Client<Dial, Full<Bytes>>,
    authority: Authority,
    key: Option<String>,
}

impl Peer {
    /// The one at `url`, who wants to know this key, if any.
    pub fn new(platform: &Platform, url: &str, key: Option<String>) -> Result<Self, Failure> {
        let url: Url = url.parse().map_err(|error| format!("`{url}` is no URL: {error}"))?;
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(format!("`{url}` names no host").into());
        };
        let tls = (url.scheme() == "https").then(|| Arc::clone(&platform.tls));
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")).parse()?;
        let dial = Dial { host: host.to_owned(), port, tls };
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(dial), authority, key })
    }

    /// Posts, again after a failure as said. What is done for the message twice must be what is done once: the header
    /// `idempotency-key` says that it is the same.
    pub async fn post(
        &self,
        path: &str,
        body: &Value,
        message: &Message,
        attempts: Attempts,
    ) -> Result<Value, Failure> {
        let Attempts { timeout, retries } = attempts;
        let mut attempt = 0;
        loop {
            let failure = match tokio::time::timeout(timeout, self.post_once(path, body, message)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(_) => format!("{}: no answer after {timeout:?}", self.authority).into(),
            };
            if attempt == retries {
                return Err(failure);
            }
            tokio::time::sleep(BACK_OFF * 2_u32.pow(attempt) + BACK_OFF.mul_f64(rand::random())).await;
            attempt += 1;
        }
    }

    async fn post_once(&self, path: &str, body: &Value, message: &Message) -> Result<Value, Failure> {
        let mut request = Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", message.key())
            .header(HEADER, serde_json::to_vec(message)?);
        if let Some(key) = &self.key {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {key}"));
        }
        if let Some(trace) = &message.trace {
            request = request.header(TRACE_HEADER, trace);
        }
        let (status, text) = self.send(request.body(Full::from(body.to_string()))?).await?;
        if status.is_success() {
            return Ok(serde_json::from_slice(&text).unwrap_or_default());
        }
        let text: String = String::from_utf8_lossy(&text).trim().chars().take(200).collect();
        Err(format!("{} answers {status}: {text}", self.authority).into())
    }

    /// Sends a request, whose URI is a path, and reads the whole answer.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Failure> {
        let mut parts = request.uri().clone().into_parts();
        // The client asks for one; whether it is TLS is the business of `Dial`.
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        *request.uri_mut() = Uri::from_parts(parts)?;
        let answer = self.client.request(request).await.map_err(|error| self.told(&error))?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| self.told(&error))?;
        Ok((status, body.to_bytes()))
    }

    /// The last reason says most: `client error (Connect)` alone helps nobody.
    fn told(&self, error: &dyn std::error::Error) -> Failure {
        let mut last = error;
        while let Some(source) = last.source() {
            last = source;
        }
        format!("{}: {last}", self.authority).into()
    }
}

/// Makes connections for the pool.
#[derive(Clone)]
struct Dial {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
}

impl tower::Service<Uri> for Dial {
    type Response = TokioIo<Line>;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<TokioIo<Line>, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { host, port, tls } = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(match tls {
                Some(tls) => {
                    Line(Box::new(TlsConnector::from(tls).connect(ServerName::try_from(host)?, stream).await?))
                }
                None => Line(Box::new(stream)),
            }))
        })
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// One connection.
struct Line(Box<dyn Duplex>);

impl Connection for Line {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Line {
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

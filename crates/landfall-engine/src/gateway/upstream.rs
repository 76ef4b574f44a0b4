//! Connections to endpoints: opened through the dialer, kept for the next request, never shared between threads.
//!
//! A connection of HTTP/1.1 is driven by the task of the request that uses it, not by one of its own: so a request and its
//! answer cost no switch between tasks. While nobody uses it, nobody drives it; whether it was closed meanwhile is found
//! out when it is used again.

use std::collections::HashMap;
use std::future::{Future as _, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backend::Protocol;
use super::table::RouteTable;
use crate::network::Dialer;

/// How long a connection may take to be made. On one machine an endpoint that does not answer is gone.
const CONNECT: Duration = Duration::from_secs(3);

/// How long a connection is kept without use: less than the 5 s after which Node.js closes its side, so that a request
/// seldom meets the end of its connection.
const IDLE: Duration = Duration::from_secs(4);

/// How many connections to one endpoint are kept without use.
const KEPT: usize = 256;

/// The body of a request on its way to an endpoint.
pub(super) enum RequestBody {
    Empty,
    Streamed(Incoming),
}

/// A connection with the task that drives it: whoever holds it.
struct Link {
    sender: http1::SendRequest<RequestBody>,
    connection: http1::Connection<TokioIo<TcpStream>, RequestBody>,
    /// The connection has come to its end.
    ended: bool,
}

struct Idle {
    link: Box<Link>,
    since: Instant,
}

/// The connections of one thread.
pub(super) struct Upstreams {
    dialer: Dialer,
    idle: Mutex<HashMap<SocketAddr, Vec<Idle>>>,
    multiplexed: Mutex<HashMap<SocketAddr, http2::SendRequest<RequestBody>>>,
    /// Of each endpoint that was asked something, and is there still: who waits for an answer is told when it is gone.
    gone: Mutex<HashMap<SocketAddr, CancellationToken>>,
    tasks: TaskTracker,
}

/// Why there is no answer.
pub(super) struct Failure {
    /// The request, if nothing of it has been sent: then it may be sent to another endpoint, whatever it is.
    pub(super) unsent: Option<Request<RequestBody>>,
    pub(super) error: io::Error,
}

/// What an endpoint answers; reading it to its end gives the connection back.
pub(super) struct ResponseBody {
    incoming: Incoming,
    ended: bool,
    link: Option<(Box<Link>, SocketAddr, Arc<Upstreams>)>,
}

/// Both ends after `101 Switching Protocols`.
pub(super) struct Upgraded {
    pub(super) response: Response<Incoming>,
    pub(super) stream: Option<hyper::upgrade::Upgraded>,
}

impl Upstreams {
    pub(super) fn new(dialer: Dialer, tasks: TaskTracker) -> Self {
        Self { dialer, idle: Mutex::default(), multiplexed: Mutex::default(), gone: Mutex::default(), tasks }
    }

    /// Sends a request to an endpoint. The future may be dropped: then the connection is closed.
    pub(super) async fn send(
        self: &Arc<Self>,
        address: SocketAddr,
        protocol: Protocol,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, Failure> {
        let gone = self.end_of(address);
        let sending = async {
            match protocol {
                Protocol::Http1 => self.send_alone(address, request).await,
                Protocol::Http2 => self.send_multiplexed(address, request).await,
            }
        };
        // The connection of a request that is not waited for is closed.
        tokio::select! {
            biased;
            sent = sending => sent,
            () = gone.cancelled() => {
                let error = io::Error::new(io::ErrorKind::ConnectionAborted, "the endpoint is gone");
                Err(Failure { unsent: None, error })
            }
        }
    }

    async fn send_alone(
        self: &Arc<Self>,
        address: SocketAddr,
        mut request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, Failure> {
        loop {
            let kept = self.checkout(address).await;
            let fresh = kept.is_none();
            let mut link = match kept {
                Some(link) => link,
                None => match self.open(address).await {
                    Ok(link) => link,
                    Err(error) => return Err(Failure { unsent: Some(request), error }),
                },
            };
            match link.exchange(request).await {
                Ok(response) => {
                    let link = Some((link, address, Arc::clone(self)));
                    return Ok(response.map(|incoming| ResponseBody { incoming, ended: false, link }));
                }
                // A kept connection that was closed meanwhile says nothing about the endpoint: another one.
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if !fresh => request = unsent,
                    unsent => return Err(Failure { unsent, error: io::Error::other(failed.into_error()) }),
                },
            }
        }
    }

    async fn open(&self, address: SocketAddr) -> io::Result<Box<Link>> {
        let stream = self.dial(address).await?;
        let handshake = http1::Builder::new().handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        let mut link = Box::new(Link { sender, connection, ended: false });
        // It takes requests after its first turn.
        link.ready().await;
        Ok(link)
    }

    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let dialled = tokio::time::timeout(CONNECT, self.dialer.dial(address)).await;
        dialled.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the endpoint did not answer")))
    }

    async fn checkout(&self, address: SocketAddr) -> Option<Box<Link>> {
        loop {
            let Idle { mut link, since } = self.idle().get_mut(&address)?.pop()?;
            if since.elapsed() < IDLE && link.ready().await {
                return Some(link);
            }
        }
    }

    fn give_back(&self, address: SocketAddr, link: Box<Link>) {
        let mut idle = self.idle();
        let kept = idle.entry(address).or_default();
        if kept.len() < KEPT {
            kept.push(Idle { link, since: Instant::now() });
        }
    }

    /// Closes what nobody has used for long, and what leads to endpoints that get no more requests. Requests that are under way
    /// have their connections and keep them for as long as the endpoint is there. One that is gone answers no more, and may have
    /// gone with its network, without a word: nobody waits for it.
    pub(super) fn tidy(&self, table: &RouteTable) {
        let endpoints = table.all_endpoints();
        self.idle().retain(|address, kept| {
            kept.retain(|idle| idle.since.elapsed() < IDLE);
            endpoints.contains(address) && !kept.is_empty()
        });
        self.multiplexed().retain(|address, sender| endpoints.contains(address) && !sender.is_closed());
        self.gone().retain(|address, gone| {
            let is_there = table.knows(address);
            if !is_there {
                gone.cancel();
            }
            is_there
        });
    }

    /// Is cancelled when the endpoint is gone.
    fn end_of(&self, address: SocketAddr) -> CancellationToken {
        self.gone().entry(address).or_default().clone()
    }

    async fn send_multiplexed(
        self: &Arc<Self>,
        address: SocketAddr,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, Failure> {
        let known = self.multiplexed().get(&address).filter(|sender| !sender.is_closed()).cloned();
        let mut sender = match known {
            Some(sender) => sender,
            None => match self.open_multiplexed(address).await {
                Ok(sender) => sender,
                Err(error) => return Err(Failure { unsent: Some(request), error }),
            },
        };
        match sender.try_send_request(request).await {
            Ok(response) => Ok(response.map(ResponseBody::detached)),
            Err(mut failed) => {
                let unsent = failed.take_message();
                Err(Failure { unsent, error: io::Error::other(failed.into_error()) })
            }
        }
    }

    async fn open_multiplexed(&self, address: SocketAddr) -> io::Result<http2::SendRequest<RequestBody>> {
        let stream = self.dial(address).await?;
        let handshake = http2::Builder::new(Tracked(self.tasks.clone())).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        self.tasks.spawn(connection);
        self.multiplexed().insert(address, sender.clone());
        Ok(sender)
    }

    /// Sends a request that asks for another protocol, on a connection of its own.
    pub(super) async fn upgrade(
        &self,
        address: SocketAddr,
        request: Request<RequestBody>,
    ) -> Result<Upgraded, Failure> {
        let link = match self.open(address).await {
            Ok(link) => link,
            Err(error) => return Err(Failure { unsent: Some(request), error }),
        };
        let told = |error| Failure { unsent: None, error: io::Error::other(error) };
        let Link { mut sender, connection, .. } = *link;
        let mut connection = connection.with_upgrades();
        let mut answer = pin!(sender.send_request(request));
        let mut ended = false;
        let mut response = poll_fn(|cx| {
            ended = ended || Pin::new(&mut connection).poll(cx).is_ready();
            answer.as_mut().poll(cx)
        })
        .await
        .map_err(told)?;
        if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            self.tasks.spawn(connection);
            return Ok(Upgraded { response, stream: None });
        }
        let upgrade = hyper::upgrade::on(&mut response);
        if !ended {
            connection.await.map_err(told)?;
        }
        let stream = upgrade.await.map_err(told)?;
        Ok(Upgraded { response, stream: Some(stream) })
    }

    fn gone(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, CancellationToken>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn multiplexed(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, http2::SendRequest<RequestBody>>> {
        self.multiplexed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn drive(&mut self, cx: &mut Context<'_>) {
        self.ended = self.ended || Pin::new(&mut self.connection).poll(cx).is_ready();
    }

    /// Whether it takes a request; waits only if that is about to be known.
    async fn ready(&mut self) -> bool {
        poll_fn(|cx| {
            self.drive(cx);
            if self.ended { Poll::Ready(false) } else { self.sender.poll_ready(cx).map(|ready| ready.is_ok()) }
        })
        .await
    }

    async fn exchange(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            self.ended = self.ended || Pin::new(&mut self.connection).poll(cx).is_ready();
            answer.as_mut().poll(cx)
        })
        .await
    }
}

impl ResponseBody {
    /// An answer whose connection is driven elsewhere.
    pub(super) fn detached(incoming: Incoming) -> Self {
        Self { incoming, ended: false, link: None }
    }
}

impl Drop for ResponseBody {
    /// The whole answer has been read: the connection is as good as new.
    fn drop(&mut self) {
        if let Some((mut link, address, upstreams)) = self.link.take()
            && (self.ended || self.incoming.is_end_stream())
        {
            // One turn, so that it notices the end; nobody needs to be woken for what may follow.
            link.drive(&mut Context::from_waker(Waker::noop()));
            if !link.ended && link.sender.is_ready() {
                upstreams.give_back(address, link);
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some((link, ..)) = &mut self.link {
            link.drive(cx);
        }
        let frame = Pin::new(&mut self.incoming).poll_frame(cx);
        self.ended = self.ended || matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(body) => body.size_hint(),
        }
    }
}

/// Tasks that the thread waits for at its end.
#[derive(Clone)]
pub(super) struct Tracked(pub(super) TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
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
    Limited(Box<Limited>),
}

/// A body whose length the client does not tell, and that must not be longer than a route allows.
pub(super) struct Limited {
    body: Incoming,
    left: u64,
    exceeded: Arc<AtomicBool>,
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
    /// Each that was asked something, and is there still.
    endpoints: Mutex<HashMap<SocketAddr, Arc<Endpoint>>>,
    tasks: TaskTracker,
}

/// What one thread has of an endpoint; looked up once for each request.
struct Endpoint {
    address: SocketAddr,
    idle: Mutex<Vec<Idle>>,
    multiplexed: Mutex<Option<http2::SendRequest<RequestBody>>>,
    /// Who waits for an answer is told when the endpoint is gone.
    gone: CancellationToken,
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
    link: Option<(Box<Link>, Arc<Endpoint>)>,
}

/// Both ends after `101 Switching Protocols`.
pub(super) struct Upgraded {
    pub(super) response: Response<Incoming>,
    pub(super) stream: Option<hyper::upgrade::Upgraded>,
}

impl Upstreams {
    pub(super) fn new(dialer: Dialer, tasks: TaskTracker) -> Self {
        Self { dialer, endpoints: Mutex::default(), tasks }
    }

    /// Sends a request to an endpoint. The future may be dropped: then the connection is closed.
    pub(super) async fn send(
        &self,
        address: SocketAddr,
        protocol: Protocol,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, Failure> {
        let endpoint = self.endpoint(address);
        let sending = pin!(async {
            match protocol {
                Protocol::Http1 => self.send_alone(&endpoint, request).await,
                Protocol::Http2 => Box::pin(self.send_multiplexed(&endpoint, request)).await,
            }
        });
        // The connection of a request that is not waited for is closed.
        tokio::select! {
            biased;
            sent = sending => sent,
            // Who knows what of it has arrived there.
            () = endpoint.gone.cancelled() => Err(Failure { unsent: None, error: gone() }),
        }
    }

    async fn send_alone(
        &self,
        endpoint: &Arc<Endpoint>,
        mut request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, Failure> {
        loop {
            let kept = endpoint.checkout().await;
            let fresh = kept.is_none();
            let mut link = match kept {
                Some(link) => link,
                None => match Box::pin(self.open(endpoint)).await {
                    Ok(link) => link,
                    Err(error) => return Err(Failure { unsent: Some(request), error }),
                },
            };
            match link.exchange(request).await {
                Ok(response) => {
                    let link = Some((link, Arc::clone(endpoint)));
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

    async fn open(&self, endpoint: &Endpoint) -> io::Result<Box<Link>> {
        let stream = self.dial(endpoint).await?;
        let handshake = http1::Builder::new().handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        let mut link = Box::new(Link { sender, connection, ended: false });
        // It takes requests after its first turn.
        link.ready().await;
        Ok(link)
    }

    /// Nothing has been sent yet when this fails, the end of the endpoint included.
    async fn dial(&self, endpoint: &Endpoint) -> io::Result<TcpStream> {
        let dialling = tokio::time::timeout(CONNECT, self.dialer.dial(endpoint.address));
        // A connection that is not waited for is closed.
        tokio::select! {
            biased;
            dialled = dialling => {
                dialled.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the endpoint did not answer")))
            }
            () = endpoint.gone.cancelled() => Err(gone()),
        }
    }

    /// Closes what nobody has used for long, and what leads to endpoints that get no more requests. Requests that are under way
    /// have their connections and keep them for as long as the endpoint is there. One that is gone answers no more, and may have
    /// gone with its network, without a word: nobody waits for it.
    pub(super) fn tidy(&self, table: &RouteTable) {
        let routed = table.all_endpoints();
        self.endpoints().retain(|address, endpoint| {
            endpoint.tidy(routed.contains(address));
            let is_there = table.knows(address);
            if !is_there {
                endpoint.gone.cancel();
            }
            is_there
        });
    }

    fn endpoint(&self, address: SocketAddr) -> Arc<Endpoint> {
        let mut endpoints = self.endpoints();
        Arc::clone(endpoints.entry(address).or_insert_with(|| Arc::new(Endpoint::new(address))))
    }

    async fn send_multiplexed(
        &self,
        endpoint: &Endpoint,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, Failure> {
        let known = endpoint.multiplexed().as_ref().filter(|sender| !sender.is_closed()).cloned();
        let mut sender = match known {
            Some(sender) => sender,
            None => match self.open_multiplexed(endpoint).await {
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

    async fn open_multiplexed(&self, endpoint: &Endpoint) -> io::Result<http2::SendRequest<RequestBody>> {
        let stream = self.dial(endpoint).await?;
        let handshake = http2::Builder::new(Tracked(self.tasks.clone())).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        self.tasks.spawn(connection);
        *endpoint.multiplexed() = Some(sender.clone());
        Ok(sender)
    }

    /// Sends a request that asks for another protocol, on a connection of its own.
    pub(super) async fn upgrade(
        &self,
        address: SocketAddr,
        request: Request<RequestBody>,
    ) -> Result<Upgraded, Failure> {
        let link = match self.open(&self.endpoint(address)).await {
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

    fn endpoints(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<Endpoint>>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the endpoint is gone")
}

impl Endpoint {
    fn new(address: SocketAddr) -> Self {
        Self { address, idle: Mutex::default(), multiplexed: Mutex::default(), gone: CancellationToken::new() }
    }

    async fn checkout(&self) -> Option<Box<Link>> {
        loop {
            let Idle { mut link, since } = self.idle().pop()?;
            if since.elapsed() < IDLE && link.ready().await {
                return Some(link);
            }
        }
    }

    fn give_back(&self, link: Box<Link>) {
        let mut idle = self.idle();
        if idle.len() < KEPT {
            idle.push(Idle { link, since: Instant::now() });
        }
    }

    /// Closes what nobody has used for long, or all that nobody uses, when the endpoint gets no more requests.
    fn tidy(&self, routed: bool) {
        self.idle().retain(|idle| routed && idle.since.elapsed() < IDLE);
        let mut multiplexed = self.multiplexed();
        if !routed || multiplexed.as_ref().is_some_and(http2::SendRequest::is_closed) {
            *multiplexed = None;
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn multiplexed(&self) -> MutexGuard<'_, Option<http2::SendRequest<RequestBody>>> {
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
        if let Some((mut link, endpoint)) = self.link.take()
            && (self.ended || self.incoming.is_end_stream())
        {
            // One turn, so that it notices the end; nobody needs to be woken for what may follow.
            link.drive(&mut Context::from_waker(Waker::noop()));
            if !link.ended && link.sender.is_ready() {
                endpoint.give_back(link);
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

impl Limited {
    /// At most `most` bytes of a body; and what is set when there are more, with which the body ends in an error.
    pub(super) fn new(body: Incoming, most: u64) -> (Self, Arc<AtomicBool>) {
        let exceeded = Arc::new(AtomicBool::new(false));
        (Self { body, left: most, exceeded: Arc::clone(&exceeded) }, exceeded)
    }

    fn admit(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        match self.left.checked_sub(length) {
            Some(left) => {
                self.left = left;
                Ok(frame)
            }
            None => {
                self.exceeded.store(true, Ordering::Release);
                Err("the body is larger than its route allows".into())
            }
        }
    }
}

type BodyError = Box<dyn std::error::Error + Send + Sync>;

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Limited(limited) => {
                let frame = ready!(Pin::new(&mut limited.body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| limited.admit(frame?)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(body) => body.is_end_stream(),
            Self::Limited(limited) => limited.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(body) => body.size_hint(),
            Self::Limited(limited) => limited.body.size_hint(),
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

//! The threads that serve requests: each has its own runtime, its own connections to endpoints, and takes part in every
//! listening socket, so that a request never leaves the thread that it came to.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::proxy::{Door, Proxy, Shared};
use super::table::Scheme;
use super::upstream::{Tracked, Upstreams};
use crate::network::Dialer;
use crate::tasks;

/// How long a client may take for its TLS handshake, and for the head of the next request: an idle connection is closed after it.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many requests one connection of HTTP/2 may have under way; RFC 9113 advises at least 100.
const STREAMS: u32 = 250;

/// The longest head of a request.
const HEAD: u32 = 64 * 1024;

/// How often connections that nobody uses are looked for.
const TIDY: Duration = Duration::from_secs(1);

/// How long requests that are under way may take when the gateway stops.
const FAREWELL: Duration = Duration::from_secs(5);

/// A socket for a declared port.
pub(super) struct Opened {
    pub(super) port: u16,
    pub(super) listener: TcpListener,
    pub(super) tls: Option<Arc<ServerConfig>>,
}

enum Order {
    Open(Opened),
    Close(u16),
}

/// A thread at work; it stops when this is told to.
pub(super) struct Worker {
    orders: mpsc::UnboundedSender<Order>,
    ended: oneshot::Receiver<()>,
    thread: thread::JoinHandle<()>,
}

impl Worker {
    pub(super) fn start(
        number: usize,
        shared: Arc<Shared>,
        dialer: Dialer,
        cancel: CancellationToken,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Unbounded: an order is small, and there are as many as there are listeners.
        let (orders, received) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        let thread = thread::Builder::new().name(format!("gateway-{number}")).spawn(move || {
            runtime.block_on(serve(shared, dialer, received, cancel));
            // Whoever waited may have gone.
            let _ = end.send(());
        })?;
        Ok(Self { orders, ended, thread })
    }

    /// Takes part in a socket.
    pub(super) fn open(&self, port: u16, listener: TcpListener, tls: Option<Arc<ServerConfig>>) {
        // A thread that has ended panicked, and `join` says so.
        let _ = self.orders.send(Order::Open(Opened { port, listener, tls }));
    }

    pub(super) fn close(&self, port: u16) {
        let _ = self.orders.send(Order::Close(port));
    }

    /// Waits for its end; a panic there is a panic here.
    pub(super) async fn join(self) {
        // An error says that the thread ended without a word, which `join` explains.
        let _ = self.ended.await;
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

async fn serve(
    shared: Arc<Shared>,
    dialer: Dialer,
    mut orders: mpsc::UnboundedReceiver<Order>,
    cancel: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let upstreams = Arc::new(Upstreams::new(dialer, tasks.clone()));
    let proxy = Arc::new(Proxy { shared, upstreams, tasks: tasks.clone() });
    let mut doors: HashMap<u16, CancellationToken> = HashMap::new();
    let mut accepting = JoinSet::new();
    let mut ticks = tokio::time::interval(TIDY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Nothing is lost when an arm is dropped: orders and ended tasks stay where they are.
        tokio::select! {
            () = cancel.cancelled() => break,
            order = orders.recv() => match order {
                Some(Order::Open(opened)) => {
                    let closed = cancel.child_token();
                    if let Some(before) = doors.insert(opened.port, closed.clone()) {
                        before.cancel();
                    }
                    accepting.spawn(accept(opened, Arc::clone(&proxy), closed));
                }
                Some(Order::Close(port)) => {
                    if let Some(closed) = doors.remove(&port) {
                        closed.cancel();
                    }
                }
                None => break,
            },
            Some(ended) = accepting.join_next() => { tasks::result(ended); }
            _ = ticks.tick() => proxy.upstreams.tidy(&proxy.shared.table.load()),
        }
    }
    for closed in doors.values() {
        closed.cancel();
    }
    accepting.join_all().await;
    tasks.close();
    if tokio::time::timeout(FAREWELL, tasks.wait()).await.is_err() {
        debug!(open = tasks.len(), "connections were still busy when the gateway stopped");
    }
}

async fn accept(opened: Opened, proxy: Arc<Proxy>, closed: CancellationToken) {
    let Opened { port, listener, tls } = opened;
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(port, %error, "a socket cannot be listened on"),
    };
    let acceptor = tls.map(TlsAcceptor::from);
    loop {
        // A connection that is not accepted stays in the queue of the system.
        let accepted = tokio::select! {
            () = closed.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Most often too many open files: others must end before there is room.
                warn!(port, %error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Small answers should not wait for more to send.
        let _ = stream.set_nodelay(true);
        let scheme = if acceptor.is_some() { Scheme::Https } else { Scheme::Http };
        let door = Door { port, scheme, peer };
        let (own, closed) = (Arc::clone(&proxy), closed.clone());
        match acceptor.clone() {
            None => drop(proxy.tasks.spawn(connection(stream, door, own, closed))),
            Some(acceptor) => drop(proxy.tasks.spawn(async move {
                match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, door, own, closed).await,
                    Ok(Err(error)) => debug!(%peer, %error, "no TLS handshake"),
                    Err(_) => debug!(%peer, "the TLS handshake took too long"),
                }
            })),
        }
    }
}

async fn connection<S>(stream: S, door: Door, proxy: Arc<Proxy>, closed: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(Tracked(proxy.tasks.clone()));
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(HEAD as usize);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS).max_header_list_size(HEAD);
    let service = service_fn(move |request| Arc::clone(&proxy).serve(door, request));
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = closed.cancelled() => {
            // What is under way is finished; the client is told to open another connection for more.
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        debug!(peer = %door.peer, error, "a connection ended early");
    }
}

/// One thread for each core that this process may use.
pub(super) fn threads() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A socket for all threads, and the address it got.
pub(super) fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

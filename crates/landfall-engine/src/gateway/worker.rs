//! The threads that serve requests: each has its own runtime, its own connections to endpoints, and takes part in every
//! listening socket, so that a request never leaves the thread that its connection came to.
//!
//! Who is awake first accepts all connections that wait, which may be all there are. So each is given to the thread that has
//! the fewest.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::proxy::{Door, Proxy, Shared};
use super::table::Scheme;
use super::timer::MovingTimer;
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
    /// A connection that another thread accepted.
    Serve(std::net::TcpStream, Box<Arrival>),
}

/// What is known of a connection when it is accepted.
struct Arrival {
    door: Door,
    tls: Option<Arc<ServerConfig>>,
    closed: CancellationToken,
    seat: Seat,
}

/// The threads, as each of them sees the others.
struct Team {
    /// Weak, so that threads whose gateway is gone do not keep each other waiting for orders.
    orders: Vec<mpsc::WeakUnboundedSender<Order>>,
    /// How many each of them serves.
    connections: Mutex<Vec<usize>>,
}

/// The place of a connection with one of the threads; dropping it leaves the place.
struct Seat {
    team: Arc<Team>,
    number: usize,
}

/// A thread at work; it stops when this is told to.
pub(super) struct Worker {
    orders: mpsc::UnboundedSender<Order>,
    ended: oneshot::Receiver<()>,
    thread: thread::JoinHandle<()>,
    #[cfg(test)]
    team: (usize, Arc<Team>),
}

impl Worker {
    /// As many as there should be.
    pub(super) fn start(
        threads: usize,
        shared: &Arc<Shared>,
        dialer: &Dialer,
        cancel: &CancellationToken,
    ) -> io::Result<Vec<Self>> {
        // Unbounded: an order is small, and there are no more than listeners and connections.
        let channels: Vec<_> = (0..threads).map(|_| mpsc::unbounded_channel()).collect();
        let orders = channels.iter().map(|(orders, _)| orders.downgrade()).collect();
        let team = Arc::new(Team { orders, connections: Mutex::new(vec![0; threads]) });
        let start = |(number, (orders, received))| -> io::Result<Self> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (end, ended) = oneshot::channel();
            let thread = Thread { number, team: Arc::clone(&team), shared: Arc::clone(shared), dialer: dialer.clone() };
            let cancel = cancel.clone();
            let thread = thread::Builder::new().name(format!("gateway-{number}")).spawn(move || {
                runtime.block_on(thread.run(received, cancel));
                // Whoever waited may have gone.
                let _ = end.send(());
            })?;
            Ok(Self {
                orders,
                ended,
                thread,
                #[cfg(test)]
                team: (number, Arc::clone(&team)),
            })
        };
        channels.into_iter().enumerate().map(start).collect()
    }

    /// How many connections it serves.
    #[cfg(test)]
    pub(super) fn connections(&self) -> usize {
        self.team.1.connections()[self.team.0]
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

impl Team {
    /// A place with the thread that serves the fewest; with `own`, if no other serves fewer.
    fn seat(self: &Arc<Self>, own: usize) -> Seat {
        let mut connections = self.connections();
        let fewest = (0..connections.len()).min_by_key(|number| (connections[*number], *number != own));
        let number = fewest.expect("the thread that asks is one of them");
        connections[number] += 1;
        Seat { team: Arc::clone(self), number }
    }

    fn connections(&self) -> MutexGuard<'_, Vec<usize>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.team.connections()[self.number] -= 1;
    }
}

/// What a thread knows from its start.
struct Thread {
    number: usize,
    team: Arc<Team>,
    shared: Arc<Shared>,
    dialer: Dialer,
}

impl Thread {
    async fn run(self, mut orders: mpsc::UnboundedReceiver<Order>, cancel: CancellationToken) {
        let Self { number, team, shared, dialer } = self;
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
                        accepting.spawn(accept(opened, number, Arc::clone(&team), Arc::clone(&proxy), closed));
                    }
                    Some(Order::Close(port)) => {
                        if let Some(closed) = doors.remove(&port) {
                            closed.cancel();
                        }
                    }
                    Some(Order::Serve(stream, arrival)) => take_over(stream, *arrival, &proxy),
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
        // Another thread may have handed something over before it was told to stop; after this it serves that itself.
        orders.close();
        while let Some(order) = orders.recv().await {
            if let Order::Serve(stream, arrival) = order {
                take_over(stream, *arrival, &proxy);
            }
        }
        tasks.close();
        if tokio::time::timeout(FAREWELL, tasks.wait()).await.is_err() {
            debug!(open = tasks.len(), "connections were still busy when the gateway stopped");
        }
    }
}

async fn accept(opened: Opened, own: usize, team: Arc<Team>, proxy: Arc<Proxy>, closed: CancellationToken) {
    let Opened { port, listener, tls } = opened;
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(port, %error, "a socket cannot be listened on"),
    };
    let scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
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
        let seat = team.seat(own);
        let door = Door::new(port, scheme, peer);
        let arrival = Arrival { door, tls: tls.clone(), closed: closed.clone(), seat };
        if arrival.seat.number == own {
            begin(stream, arrival, &proxy);
        } else if let Err(error) = hand_over(stream, arrival, &proxy) {
            debug!(%peer, %error, "a connection could not be handed over");
        }
    }
}

/// Gives a connection to the thread in which it has its seat, or serves it here if that one takes no orders any more.
fn hand_over(stream: TcpStream, arrival: Arrival, proxy: &Arc<Proxy>) -> io::Result<()> {
    let orders = arrival.seat.team.orders[arrival.seat.number].upgrade();
    let order = Order::Serve(stream.into_std()?, Box::new(arrival));
    let refused = match orders {
        Some(orders) => orders.send(order).err().map(|refused| refused.0),
        None => Some(order),
    };
    if let Some(Order::Serve(stream, arrival)) = refused {
        take_over(stream, *arrival, proxy);
    }
    Ok(())
}

/// Serves a connection that another thread accepted.
fn take_over(stream: std::net::TcpStream, arrival: Arrival, proxy: &Arc<Proxy>) {
    match TcpStream::from_std(stream) {
        Ok(stream) => begin(stream, arrival, proxy),
        Err(error) => debug!(peer = %arrival.door.peer, %error, "a connection could not be taken over"),
    }
}

fn begin(stream: TcpStream, arrival: Arrival, proxy: &Arc<Proxy>) {
    let Arrival { door, tls, closed, seat } = arrival;
    let own = Arc::clone(proxy);
    let Some(acceptor) = tls.map(TlsAcceptor::from) else {
        proxy.tasks.spawn(async move {
            connection(stream, door, own, closed).await;
            drop(seat);
        });
        return;
    };
    proxy.tasks.spawn(async move {
        let peer = door.peer;
        match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => connection(stream, door, own, closed).await,
            Ok(Err(error)) => debug!(%peer, %error, "no TLS handshake"),
            Err(_) => debug!(%peer, "the TLS handshake took too long"),
        }
        drop(seat);
    });
}

async fn connection<S>(stream: S, door: Door, proxy: Arc<Proxy>, closed: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(Tracked(proxy.tasks.clone()));
    builder.http1().timer(MovingTimer::default()).header_read_timeout(PATIENCE).max_buf_size(HEAD as usize);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS).max_header_list_size(HEAD);
    let peer = door.peer;
    let service = service_fn(move |request| Arc::clone(&proxy).serve(door.clone(), request));
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
        debug!(%peer, error, "a connection ended early");
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

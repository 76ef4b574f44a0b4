//! The embedded gateway: how requests from outside reach services, as `Ingress` and the Gateway API say.
//!
//! It stands in for whatever controller the manifests name. The objects are watched; at each change a new route table is
//! built from all of them (`table`, a pure function) and put in the place of the old one, while requests that are under
//! way keep theirs. Requests are served by threads of their own (`worker`, `proxy`, `upstream`), so that the engine's
//! other work does not hold them up.
//!
//! A class of ingresses or gateways that nobody has defined is the gateway's, and so is one that names [`CONTROLLER`]. A class
//! that names another controller is left to that one.

mod admin;
mod backend;
mod fault;
mod gateway_api;
mod host;
mod ingress;
mod limit;
mod proxy;
mod registry;
mod report;
mod resources;
mod rule;
mod sources;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod timer;
mod tls;
mod upstream;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::fault::Faults;
use self::proxy::Shared;
use self::registry::Registry;
use self::sources::Sources;
use self::table::{RouteTable, Scheme};
use self::tls::Certificates;
use self::worker::Worker;
use crate::context::Context;
use crate::network::Dialer;

/// How classes name this controller.
pub(crate) const CONTROLLER: &str = "landfall.dev/gateway";

/// The ports that ingresses are served on, as declared.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;

/// Where the gateway listens.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// For what is declared on port 80.
    pub http: SocketAddr,
    /// For what is declared on port 443.
    pub https: SocketAddr,
    /// For figures and faults; whoever reaches it may inject faults.
    pub admin: SocketAddr,
    /// How many threads serve requests; one for each core when it is not said.
    pub threads: Option<usize>,
}

impl Default for GatewayConfig {
    /// Free ports of this machine.
    fn default() -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { http: free, https: free, admin: free, threads: None }
    }
}

/// Where a declared port is to be found.
pub(crate) type Addresses = BTreeMap<u16, SocketAddr>;

/// A gateway whose sockets are open; [`Gateway::run`] serves them.
pub(crate) struct Gateway {
    sockets: BTreeMap<u16, (TcpListener, SocketAddr)>,
    admin: (TcpListener, SocketAddr),
    threads: usize,
    certificates: Arc<Certificates>,
    registry: Arc<Registry>,
}

/// Why there is no gateway.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayError {
    #[error("failed to listen on {address} for the gateway")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("failed to make the gateway's certificate authority")]
    Authority(#[source] rcgen::Error),
}

/// What the admin's endpoint shows.
#[derive(Clone)]
pub(crate) struct Inside {
    shared: Arc<Shared>,
    certificates: Arc<Certificates>,
    addresses: Arc<Mutex<Addresses>>,
}

impl Gateway {
    /// Opens the sockets, so that the user can be told where they are before anything else has started.
    pub(crate) fn bind(config: &GatewayConfig) -> Result<Self, GatewayError> {
        let bind = |address| worker::bind(address).map_err(|source| GatewayError::Listen { address, source });
        let certificates = Arc::new(Certificates::new().map_err(GatewayError::Authority)?);
        let sockets = BTreeMap::from([(HTTP, bind(config.http)?), (HTTPS, bind(config.https)?)]);
        let threads = config.threads.unwrap_or_else(worker::threads).max(1);
        Ok(Self { sockets, admin: bind(config.admin)?, threads, certificates, registry: Arc::default() })
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.sockets[&HTTP].1
    }

    pub(crate) fn https(&self) -> SocketAddr {
        self.sockets[&HTTPS].1
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin.1
    }

    /// What it has counted at any time, in Prometheus' text format.
    pub(crate) fn figures(&self) -> impl Fn() -> String + Send + Sync + 'static {
        let registry = Arc::clone(&self.registry);
        move || registry.metrics()
    }

    /// Serves until cancelled; then requests that are under way are finished. The caches must be synced.
    pub(crate) async fn run(self, context: Context, dialer: Dialer, cancel: CancellationToken) {
        let registry = self.registry;
        let unrouted = registry.series(&"".into(), &"".into());
        let table = ArcSwap::from_pointee(RouteTable::empty());
        let shared = Arc::new(Shared { table, registry, faults: Faults::default(), unrouted });
        let workers = match Worker::start(self.threads, &shared, &dialer, &cancel) {
            Ok(workers) => workers,
            Err(error) => return warn!(%error, "the gateway has no threads"),
        };

        let addresses = self.sockets.iter().map(|(port, (_, address))| (*port, *address)).collect();
        let inside = Inside {
            shared: Arc::clone(&shared),
            certificates: Arc::clone(&self.certificates),
            addresses: Arc::new(Mutex::new(addresses)),
        };
        let mut doors = Doors { sockets: self.sockets, workers: &workers, open: BTreeMap::new() };
        let mut tasks = JoinSet::new();
        let (sources, mut news) = Sources::start(&context, &cancel, &mut tasks);
        let (reports, reported) = watch::channel(Arc::default());
        tasks.spawn(status::run(context.clone(), sources.clone(), reported, cancel.clone()));
        tasks.spawn(admin::run(inside.clone(), self.admin.0, cancel.clone()));

        loop {
            let world = sources.world(&context.caches);
            let (table, report) = RouteTable::build(&world, &shared.registry);
            self.certificates.update(&table, &world);
            // A port is opened after what it serves is known, and closed before that is forgotten.
            doors.close(&table);
            debug!(rules = table.rules(), "a new route table");
            let table = Arc::new(table);
            shared.table.store(Arc::clone(&table));
            doors.open(&table, &self.certificates);
            *inside.addresses.lock().unwrap_or_else(PoisonError::into_inner) = doors.addresses();
            shared.registry.prune();
            reports.send_replace(Arc::new(report));
            // Both may be dropped: that there is news is kept.
            tokio::select! {
                () = cancel.cancelled() => break,
                () = news.next() => {}
            }
        }
        drop(doors);
        for worker in workers {
            worker.join().await;
        }
        drop(reports);
        tasks.join_all().await;
    }
}

/// The sockets of all declared ports.
struct Doors<'w> {
    /// The two that are always there.
    sockets: BTreeMap<u16, (TcpListener, SocketAddr)>,
    workers: &'w [Worker],
    open: BTreeMap<u16, (Scheme, SocketAddr)>,
}

impl Doors<'_> {
    fn close(&mut self, table: &RouteTable) {
        let wanted: BTreeMap<u16, Scheme> = table.ports().collect();
        self.open.retain(|port, (scheme, _)| {
            let keep = wanted.get(port) == Some(scheme);
            if !keep {
                for worker in self.workers {
                    worker.close(*port);
                }
            }
            keep
        });
    }

    fn open(&mut self, table: &RouteTable, certificates: &Arc<Certificates>) {
        for (port, scheme) in table.ports() {
            if self.open.contains_key(&port) {
                continue;
            }
            match self.open_one(port, scheme, certificates) {
                Ok(address) => {
                    info!(port, %address, "the gateway listens");
                    self.open.insert(port, (scheme, address));
                }
                Err(error) => warn!(port, %error, "the gateway cannot listen"),
            }
        }
    }

    /// The declared port where it is free and an ordinary user may have it, else any.
    fn open_one(&self, port: u16, scheme: Scheme, certificates: &Arc<Certificates>) -> io::Result<SocketAddr> {
        let (listener, address) = match self.sockets.get(&port) {
            Some((listener, address)) => (listener.try_clone()?, *address),
            None => worker::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
                .or_else(|_| worker::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?,
        };
        let tls = (scheme == Scheme::Https).then(|| certificates.config(port));
        for worker in self.workers {
            worker.open(port, listener.try_clone()?, tls.clone());
        }
        Ok(address)
    }

    fn addresses(&self) -> Addresses {
        self.open.iter().map(|(port, (_, address))| (*port, *address)).collect()
    }
}

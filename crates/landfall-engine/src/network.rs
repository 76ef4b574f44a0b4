//! How pods reach each other: addresses, names, services, and what policies close.
//!
//! There are two levels, and every report says which one it was made on. *Namespace*: each pod has a network of its own,
//! and the kernel enforces policies. *Loopback*, where the system allows no namespaces: each pod has an address of the
//! loopback device, services are sockets of the engine, names are in the hosts files of the pods, and policies are not enforced.

mod dialer;
mod dns;
mod egress;
pub(crate) mod endpoints;
mod holder;
mod hosts;
mod isolation;
mod names;
mod namespace;
mod pods;
mod policy;
mod proxy;
#[cfg(test)]
mod reader;
mod services;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::cache::{Cache, Kind};
use crate::context::Context;

#[cfg(test)]
pub(crate) use self::dialer::Dial;
pub(crate) use self::dialer::{Dialer, Loopback};
use self::dns::Elsewhere;
pub(crate) use self::egress::Exit;
pub use self::egress::{EgressBlock, EgressBlockError};
pub use self::holder::network_main;
use self::hosts::HostsFiles;
use self::namespace::FromNode;
pub(crate) use self::namespace::Network;
pub use self::namespace::NetworkError;
pub(crate) use self::pods::{Attachment, PodNetwork};
use self::proxy::Doors;
pub use self::proxy::{LAST_PRIVILEGED_PORT, RAISED_BY};

/// What every pod has as its gateway: an address of the link, which no route leads to (RFC 3927).
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Where a node agent speaks from when it asks the pods of its node. Everything else of the engine speaks from [`GATEWAY`],
/// so that packets say who sends them.
const NODE: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);

/// How long changes are gathered before rules are written: a rollout changes many objects in a row, and one transaction
/// takes milliseconds.
const SETTLE: Duration = Duration::from_millis(5);

/// After a failure, rules are written again after this time, even if nothing changes.
const RETRY: Duration = Duration::from_secs(1);

/// Below the folder of the network: the hosts files of the pods.
const HOSTS: &str = "hosts";

/// The port of DNS.
const DNS: u16 = 53;

/// How far the pods of an engine are kept apart on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Each pod has a network namespace of its own, and the kernel enforces policies.
    Namespace,
    /// Each pod has an address of the loopback device; policies are not enforced.
    Loopback,
}

/// The network that the pods of an engine are in.
#[derive(Clone)]
pub(crate) enum ClusterNetwork {
    Namespace { network: Network, dns: Ipv4Addr },
    Loopback { names: HostsFiles },
}

/// The addresses of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServiceRange {
    pub(crate) network: Ipv4Addr,
    pub(crate) prefix: u8,
}

impl ServiceRange {
    /// Where Kubernetes' own installers put services: 10.96.0.0/16 is in kubeadm's default, 10.96.0.0/12.
    const NAMESPACE: Self = Self { network: Ipv4Addr::new(10, 96, 0, 0), prefix: 16 };

    /// Addresses that any process of this machine may listen on, away from those of the pods.
    const LOOPBACK: Self = Self { network: Ipv4Addr::new(127, 32, 0, 0), prefix: 16 };

    /// The tenth address is that of the DNS server, as kubeadm has it.
    fn dns(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + 10)
    }
}

impl ClusterNetwork {
    /// The best that this system allows. `program` with `arguments` and a folder ends in [`network_main`]. What is not in one of
    /// these blocks is closed to pods; [`ClusterNetwork::open`] leads to what is.
    pub(crate) async fn start(
        folder: &Path,
        program: &Path,
        arguments: &[String],
        open: &[EgressBlock],
    ) -> (Self, Option<NetworkError>) {
        let services = ServiceRange::NAMESPACE;
        let started = async {
            let network = Network::start(folder, program, arguments).await?;
            network.own(services.network, services.prefix).await?;
            // An earlier engine may have cut nodes off. And the rules need a program that may not be there: to learn that now
            // is to fall back in time. What the policies of a network that was found say stays until they are read again.
            network.filter(&(isolation::ruleset(&[]) + &egress::ruleset(open))).await?;
            Ok(network)
        };
        match started.await {
            Ok(network) => (Self::Namespace { network, dns: services.dns() }, None),
            Err(error) => (Self::loopback(folder), Some(error)),
        }
    }

    /// The way out to these blocks, which [`ClusterNetwork::start`] was told as well; an earlier one is closed. None if there are
    /// no blocks, and on loopback addresses, where nothing is closed.
    pub(crate) async fn open(&self, blocks: Vec<EgressBlock>) -> Result<Option<Exit>, NetworkError> {
        let Self::Namespace { network, .. } = self else { return Ok(None) };
        if blocks.is_empty() {
            network.close_egress().await?;
            return Ok(None);
        }
        let arrivals = network.open_egress(egress::PODS.parts(), egress::ARRIVALS, &egress::arrivals()).await?;
        Ok(Some(Exit::new(arrivals, blocks)))
    }

    /// Pods on loopback addresses. What they read of each other's names is kept in `folder`.
    pub(crate) fn loopback(folder: &Path) -> Self {
        Self::Loopback { names: HostsFiles::new(folder.join(HOSTS)) }
    }

    /// Ends the network once its pods have ended.
    pub(crate) async fn close(&self) {
        if let Self::Namespace { network, .. } = self
            && let Err(error) = network.close().await
        {
            warn!(%error, "the network was left behind");
        }
    }

    pub(crate) fn level(&self) -> Level {
        match self {
            Self::Namespace { .. } => Level::Namespace,
            Self::Loopback { .. } => Level::Loopback,
        }
    }

    pub(crate) fn services(&self) -> ServiceRange {
        match self {
            Self::Namespace { .. } => ServiceRange::NAMESPACE,
            Self::Loopback { .. } => ServiceRange::LOOPBACK,
        }
    }

    /// A socket on an address of a service, which pods reach without a rule that leads on from there. None on loopback
    /// addresses, where the proxy has the sockets of services.
    pub(crate) async fn listen(&self, address: SocketAddr) -> Result<Option<TcpListener>, NetworkError> {
        match self {
            Self::Namespace { network, .. } => Ok(Some(network.listen(address).await?.1)),
            Self::Loopback { .. } => Ok(None),
        }
    }

    /// The first and the last address of pods.
    fn pods(&self) -> (Ipv4Addr, Ipv4Addr) {
        match self {
            Self::Namespace { .. } => egress::PODS.hosts(),
            // Away from what distributions use (127.0.0.53, 127.0.1.1).
            Self::Loopback { .. } => (Ipv4Addr::new(127, 64, 0, 1), Ipv4Addr::new(127, 127, 255, 254)),
        }
    }

    /// The way to the pods.
    pub(crate) fn dialer(&self) -> Dialer {
        match self {
            Self::Namespace { network, .. } => Arc::new(network.clone()),
            Self::Loopback { .. } => Arc::new(Loopback),
        }
    }

    /// The way of a node agent to the pods of its node, which is there even when the node is cut off.
    fn node_dialer(&self) -> Dialer {
        match self {
            Self::Namespace { network, .. } => Arc::new(FromNode(network.clone())),
            Self::Loopback { .. } => Arc::new(Loopback),
        }
    }

    /// Cuts the pods of each of these nodes off from everybody else, and nobody but these. Pods on loopback addresses
    /// share the network of the machine and cannot be cut off.
    async fn isolate(&self, nodes: &[BTreeSet<Ipv4Addr>]) -> Result<(), NetworkError> {
        match self {
            Self::Namespace { network, .. } => network.filter(&isolation::ruleset(nodes)).await,
            Self::Loopback { .. } => Ok(()),
        }
    }

    /// What a pod reads in `/etc/resolv.conf`, if names are served: as a kubelet writes it for `ClusterFirst`
    /// (<https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>).
    pub(crate) fn resolv_conf(&self, namespace: &str) -> Option<String> {
        let Self::Namespace { dns, .. } = self else { return None };
        let zone = names::ZONE;
        Some(format!("search {namespace}.svc.{zone} svc.{zone} {zone}\nnameserver {dns}\noptions ndots:5\n"))
    }

    /// Serves names and services, enforces policies and carries what has a way out until cancelled.
    pub(crate) async fn run(self, context: Context, exit: Option<Exit>, cancel: CancellationToken) {
        match self {
            Self::Loopback { names } => {
                let proxy = proxy::run(context.clone(), Arc::new(Loopback), Doors::All, cancel.clone());
                tokio::join!(proxy, names.run(context, cancel));
            }
            Self::Namespace { network, dns } => {
                let mut tasks = JoinSet::new();
                tasks.spawn(proxy::run(context.clone(), Arc::new(network.clone()), Doors::NodePorts, cancel.clone()));
                let elsewhere = if exit.is_some() { Elsewhere::AsOnThisMachine } else { Elsewhere::Absent };
                match network.listen(SocketAddr::from((dns, DNS))).await {
                    Ok((udp, tcp)) => {
                        tasks.spawn(dns::run(context.caches.clone(), elsewhere, udp, tcp, cancel.clone()));
                    }
                    Err(error) => warn!(%error, source = ?std::error::Error::source(&error), "names are not served"),
                }
                if let Some(exit) = exit {
                    tasks.spawn(exit.run(cancel.clone()));
                }
                tasks.spawn(keep_policies(network.clone(), context.clone(), cancel.clone()));
                tasks.spawn(keep_services(network, context, cancel));
                tasks.join_all().await;
            }
        }
    }
}

async fn keep_policies(network: Network, context: Context, cancel: CancellationToken) {
    let mut news = News::default();
    news.of(&context.caches.pods);
    news.of(&context.caches.namespaces);
    news.of(&context.caches.network_policies);
    let caches = context.caches;
    keep(network, news, cancel, || {
        let (pods, namespaces, policies) =
            (caches.pods.list(), caches.namespaces.list(), caches.network_policies.list());
        policy::ruleset(&policy::View {
            pods: &pods.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
            namespaces: &namespaces.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
            policies: &policies.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
        })
    })
    .await;
}

async fn keep_services(network: Network, context: Context, cancel: CancellationToken) {
    let mut news = News::default();
    news.of(&context.caches.services);
    news.of(&context.caches.endpoint_slices);
    let caches = context.caches;
    keep(network, news, cancel, || services::ruleset(&caches.services.list(), &caches.endpoint_slices.list())).await;
}

/// Applies what `rules` says, and again whenever that changes.
async fn keep(network: Network, mut news: News, cancel: CancellationToken, rules: impl Fn() -> String) {
    let mut applied = None;
    loop {
        let wanted = rules();
        let mut wait = Duration::MAX;
        if applied.as_ref() != Some(&wanted) {
            match network.filter(&wanted).await {
                Ok(()) => applied = Some(wanted),
                Err(error) => {
                    warn!(%error, source = ?std::error::Error::source(&error), "rules were not applied");
                    wait = RETRY;
                }
            }
        }
        // Nothing is lost when an arm is dropped: the channel keeps that there was a change.
        tokio::select! {
            () = cancel.cancelled() => return,
            () = news.next() => tokio::time::sleep(SETTLE).await,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// That something has changed in one of several caches, however often.
pub(crate) struct News {
    tell: mpsc::Sender<()>,
    hear: mpsc::Receiver<()>,
    tasks: JoinSet<()>,
}

impl Default for News {
    fn default() -> Self {
        let (tell, hear) = mpsc::channel(1);
        Self { tell, hear, tasks: JoinSet::new() }
    }
}

impl News {
    pub(crate) fn of<K: Kind>(&mut self, cache: &Cache<K>) {
        use tokio::sync::broadcast::error::RecvError;
        let mut changes = cache.subscribe();
        let tell = self.tell.clone();
        self.tasks.spawn(async move {
            while !matches!(changes.recv().await, Err(RecvError::Closed)) {
                // A full channel has the news already.
                if let Err(mpsc::error::TrySendError::Closed(())) = tell.try_send(()) {
                    return;
                }
            }
        });
    }

    pub(crate) async fn next(&mut self) {
        self.hear.recv().await.expect("it has a sender of its own");
    }
}

//! Which address each pod has, and the network namespace behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use futures::future::BoxFuture;

use super::{ClusterNetwork, Dialer, Level, NetworkError};
use crate::runtime::{NetworkNamespace, PodSandbox};

/// A pod's place on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) ip: IpAddr,
    pub(crate) netns: Option<NetworkNamespace>,
    pub(crate) resolv_conf: Option<String>,
}

/// Gives pods their places on the network of the engine.
pub(crate) struct PodNetwork {
    network: ClusterNetwork,
    given: Mutex<Given>,
}

/// Addresses in a range, each given to one pod at a time.
#[derive(Debug)]
struct Given {
    first: u32,
    count: u32,
    by_uid: BTreeMap<String, Ipv4Addr>,
    used: BTreeSet<Ipv4Addr>,
    next: u32,
}

impl PodNetwork {
    pub(crate) fn new(network: ClusterNetwork) -> Self {
        let (first, last) = network.pods();
        let (first, last) = (u32::from(first), u32::from(last));
        // Engines that share the addresses of a machine begin at different ones.
        let next = match &network {
            ClusterNetwork::Namespace { .. } => 0,
            ClusterNetwork::Loopback { names } => names.number(),
        };
        let given = Given { first, count: last - first + 1, by_uid: BTreeMap::new(), used: BTreeSet::new(), next };
        Self { network, given: Mutex::new(given) }
    }

    /// The place of a pod; the same one each time it is asked for the same uid until [`PodNetwork::detach`].
    pub(crate) fn attach<'a>(&'a self, uid: &'a str, namespace: &'a str) -> BoxFuture<'a, Result<Attachment, String>> {
        Box::pin(async move {
            let address = self.lock().give(uid).ok_or_else(|| "no address is left".to_owned())?;
            let netns = match &self.network {
                ClusterNetwork::Loopback { .. } => None,
                ClusterNetwork::Namespace { network, .. } => {
                    let attached = network.attach(uid, address).await.map_err(|error| told(&error))?;
                    Some(NetworkNamespace { file: attached.namespace, owner: attached.owner })
                }
            };
            let resolv_conf = self.network.resolv_conf(namespace);
            Ok(Attachment { ip: IpAddr::V4(address), netns, resolv_conf })
        })
    }

    /// Where names are told by hosts files: the folder with the pod's, which is kept current until [`PodNetwork::detach`].
    pub(crate) fn introduce(&self, pod: &PodSandbox) -> io::Result<Option<PathBuf>> {
        let ClusterNetwork::Loopback { names } = &self.network else { return Ok(None) };
        let own = pod.hosts.as_deref().unwrap_or_default();
        names.introduce(&pod.uid, &pod.namespace, own).map(Some)
    }

    /// A place that a pod had before the engine was started again.
    pub(crate) fn keep(&self, uid: &str, ip: IpAddr) {
        if let IpAddr::V4(address) = ip {
            let mut given = self.lock();
            given.used.insert(address);
            given.by_uid.insert(uid.to_owned(), address);
        }
    }

    /// Removes what pods have left behind that are none of these: they were deleted while no engine was there.
    pub(crate) async fn retain(&self, uids: &BTreeSet<String>) -> Result<(), NetworkError> {
        let network = match &self.network {
            ClusterNetwork::Namespace { network, .. } => network,
            ClusterNetwork::Loopback { names } => {
                names.retain(uids);
                return Ok(());
            }
        };
        for (uid, attachment) in network.attached().await? {
            if uids.contains(&uid) {
                self.keep(&uid, IpAddr::V4(attachment.address));
            } else {
                network.detach(&uid).await?;
            }
        }
        Ok(())
    }

    /// The pod has ended; others may have its address.
    pub(crate) fn detach<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            match &self.network {
                ClusterNetwork::Namespace { network, .. } => {
                    if let Err(error) = network.detach(uid).await {
                        tracing::warn!(uid, error = told(&error), "the network of a pod was left behind");
                    }
                }
                ClusterNetwork::Loopback { names } => names.forget(uid),
            }
            let mut given = self.lock();
            if let Some(address) = given.by_uid.remove(uid) {
                given.used.remove(&address);
            }
        })
    }

    /// The address of a pod that has its place.
    pub(crate) fn address(&self, uid: &str) -> Option<Ipv4Addr> {
        self.lock().by_uid.get(uid).copied()
    }

    /// Cuts the pods of each of these nodes off from everybody else, and nobody but these.
    pub(crate) async fn isolate(&self, nodes: Vec<BTreeSet<Ipv4Addr>>) -> Result<(), NetworkError> {
        self.network.isolate(&nodes).await
    }

    pub(crate) fn level(&self) -> Level {
        self.network.level()
    }

    /// How the engine reaches a pod.
    pub(crate) fn dialer(&self) -> Dialer {
        self.network.dialer()
    }

    /// How the node agent reaches a pod of its node.
    pub(crate) fn node_dialer(&self) -> Dialer {
        self.network.node_dialer()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Given {
    /// The next free address, not the lowest: one that was just let go may still be known to somebody.
    fn give(&mut self, uid: &str) -> Option<Ipv4Addr> {
        if let Some(address) = self.by_uid.get(uid) {
            return Some(*address);
        }
        for _ in 0..self.count {
            let address = Ipv4Addr::from(self.first + self.next % self.count);
            self.next = self.next.wrapping_add(1);
            if self.used.insert(address) {
                self.by_uid.insert(uid.to_owned(), address);
                return Some(address);
            }
        }
        None
    }
}

fn told(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_given_once_and_comes_back_last() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let network = PodNetwork::new(ClusterNetwork::loopback(folder.path()));
        let mut given = network.lock();
        let first = given.give("a").expect("all are free");
        assert_eq!(given.give("a"), Some(first));
        let second = given.give("b").expect("one is taken");
        given.by_uid.remove("a");
        given.used.remove(&first);
        let third = given.give("c").expect("one is taken");
        assert!(third != first && third != second, "{first} {second} {third}");
    }
}

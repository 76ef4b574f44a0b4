//! Nodes that are cut off or killed on purpose, and come back.
//!
//! A node that is killed loses power: its pods' processes die at once, and nobody reports it. A node that is cut off runs
//! on, with the pods that it knew, and reaches nobody but itself. Either way the control plane learns of it as it would in
//! a real cluster: the lease is not renewed. A fault ends with the engine at the latest.
//!
//! Not handled: a pod on the network of its host (`hostNetwork`) is on that of this machine and cannot be cut off from it;
//! commands and logs that are being followed when a node is cut off go on to their end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use tracing::info;

use super::{Agent, Handle, Shared};
use crate::api::machine::{Machine, NodeFault, PlayedNode};
use crate::images::Catalogue;
use crate::network::{Attachment, Level, NetworkError};
use crate::scheduler::is_finished;

impl Machine for Agent {
    fn nodes(&self) -> Vec<PlayedNode> {
        let pods = &self.shared.context.caches.pods;
        let played = self.shared.nodes.iter().map(|(name, node)| PlayedNode {
            name: name.clone(),
            zone: node.spec.zone.clone(),
            state: *node.fault.borrow(),
            pods: pods.indexed_by(name).iter().filter(|pod| !is_finished(pod)).count(),
        });
        played.collect()
    }

    fn set_faults(&self, nodes: BTreeSet<String>, fault: NodeFault) -> BoxFuture<'_, Result<(), String>> {
        self.shared.set_faults(nodes, fault).boxed()
    }

    fn stops_traffic(&self) -> bool {
        self.shared.network.level() == Level::Namespace
    }

    fn set_images(&self, images: Catalogue) {
        self.shared.images.store(Arc::new(images));
    }

    fn is_mock(&self) -> bool {
        self.shared.runtime.isolation().is_none()
    }
}

impl Shared {
    /// The fault of a node.
    pub(super) fn fault(&self, node: &str) -> NodeFault {
        self.nodes.get(node).map(|state| *state.fault.borrow()).unwrap_or_default()
    }

    /// How often the power of a node was cut.
    pub(super) fn boots(&self, node: &str) -> u64 {
        self.nodes.get(node).map(|state| state.boots.load(Ordering::Acquire)).unwrap_or_default()
    }

    /// The place of a pod on the network: behind the same walls as its node.
    pub(super) async fn attach(&self, uid: &str, pod: &Pod) -> Result<Attachment, String> {
        let attachment = self.network.attach(uid, &pod.namespace().unwrap_or_default()).await?;
        let node = pod.spec.as_ref().and_then(|spec| self.nodes.get(spec.node_name.as_ref()?));
        if node.is_some_and(|node| node.away.load(Ordering::Acquire)) {
            self.isolate().await.map_err(|error| error.to_string())?;
        }
        Ok(attachment)
    }

    async fn set_faults(&self, names: BTreeSet<String>, fault: NodeFault) -> Result<(), String> {
        let _turn = self.changing_faults.lock().await;
        let nodes: Vec<_> = names.iter().filter_map(|name| self.nodes.get(name)).collect();
        let before: Vec<bool> =
            nodes.iter().map(|node| node.away.swap(fault != NodeFault::None, Ordering::AcqRel)).collect();
        // First the network: whoever dies with the power says no farewell to the other end of its connections.
        if let Err(error) = self.isolate().await {
            for (node, away) in nodes.iter().zip(before) {
                node.away.store(away, Ordering::Release);
            }
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            return Err(format!("{error}: {source}"));
        }
        for node in &nodes {
            info!(node = node.spec.name, ?fault, "the state of the node is changed");
            if fault == NodeFault::Killed {
                node.boots.fetch_add(1, Ordering::AcqRel);
            }
            node.fault.send_replace(fault);
        }
        let handles: Vec<_> =
            self.handles().into_iter().filter(|handle| node_of(handle).is_some_and(|on| names.contains(&on))).collect();
        if fault == NodeFault::Killed {
            // All at once, and here: a worker may be waiting for something else. What it is starting now, it ends itself.
            let sandboxes: Vec<_> = handles.iter().filter_map(|handle| handle.sandbox()).collect();
            join_all(sandboxes.iter().map(|sandbox| sandbox.close())).await;
        }
        for handle in handles {
            handle.poke.notify_one();
        }
        Ok(())
    }

    /// Lets nothing through to or from the pods of nodes with a fault.
    async fn isolate(&self) -> Result<(), NetworkError> {
        let mut addresses: BTreeMap<String, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        for handle in self.handles() {
            let Some(node) = node_of(&handle) else { continue };
            let away = self.nodes.get(&node).is_some_and(|node| node.away.load(Ordering::Acquire));
            let uid = handle.pod.borrow().as_ref().and_then(|pod| pod.uid()).unwrap_or_default();
            if away && let Some(address) = self.network.address(&uid) {
                addresses.entry(node).or_default().insert(address);
            }
        }
        self.network.isolate(addresses.into_values().collect()).await
    }
}

fn node_of(handle: &Handle) -> Option<String> {
    handle.pod.borrow().as_ref()?.spec.as_ref()?.node_name.clone()
}

//! Tries every undeclared edge from inside the pods: each must be closed.
//!
//! Not handled: edges that begin at stores, at externals, at scheduled jobs and outside of the cluster.

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use landfall_model::{Architecture, Element};

use super::cluster::{Lines, Snapshot, probe};
use super::plan::{EXTERNAL_PORT, Plan};
use super::programs::look;

/// What was tried, and what was open.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// How many pairs have no declared edge.
    pub(super) undeclared: usize,
    /// Those of them on which a connection was accepted: `reporting -> banking-api`.
    pub(super) reachable: Vec<String>,
}

/// Tries all pairs of a service and another service, store or external.
pub(super) async fn try_all(
    lines: &Lines,
    architecture: &Architecture,
    plan: &Plan,
    pods: &Snapshot,
) -> anyhow::Result<Tried> {
    let mut tried = Tried::default();
    let targets = targets(architecture, plan, pods);
    for service in &plan.services {
        let from = Element::Service(service.service.parse().context("a service has the name of one")?);
        let Some(pod) = pods.ready_of(&service.service).next() else { continue };
        let declared = |to: &Element| architecture.from(&from).any(|connection| connection.to == *to);
        let undeclared: Vec<_> = targets.iter().filter(|(to, _)| *to != from && !declared(to)).collect();
        let addresses: Vec<_> = undeclared.iter().map(|(_, address)| address.clone()).collect();
        let open = match service.ports.first() {
            _ if service.program.is_some() => look(lines, plan, pod, &service.service, &addresses).await?.open,
            Some(port) => probe(lines, pod, *port, addresses).await?,
            None => continue,
        };
        tried.undeclared += undeclared.len();
        let reached = undeclared.iter().zip(open).filter(|(_, open)| *open);
        tried.reachable.extend(reached.map(|((to, _), _)| format!("{} -> {}", service.service, to.name())));
    }
    Ok(tried)
}

/// Where each element accepts connections: one of its pods.
fn targets(architecture: &Architecture, plan: &Plan, pods: &Snapshot) -> Vec<(Element, String)> {
    let address = |pod: &Pod, port: u16| Some(format!("{}:{port}", pod.status.as_ref()?.pod_ip.as_ref()?));
    let mut targets = Vec::new();
    for service in &plan.services {
        let element = architecture.element(&service.service);
        let pod = pods.ready_of(&service.service).next();
        let place = pod.zip(service.ports.first()).and_then(|(pod, port)| address(pod, *port));
        targets.extend(element.zip(place));
    }
    for store in &plan.stores {
        let declared = architecture.store(&store.name);
        let place = pods
            .members_of(store)
            .next()
            .zip(declared)
            .and_then(|(pod, declared)| address(pod, architecture.store_port(declared)));
        targets.extend(architecture.element(&store.name).zip(place));
    }
    for external in &plan.externals {
        let place = pods.external(&external.external).and_then(|pod| address(pod, EXTERNAL_PORT));
        targets.extend(architecture.element(&external.external).zip(place));
    }
    targets
}

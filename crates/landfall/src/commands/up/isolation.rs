//! Tries every way that no edge declares: from inside of pods, from a pod of a foreign namespace, and at the gateway. Each must be
//! closed.
//!
//! Not handled: ways into scheduled jobs, which serve nobody, and from one external to another, in which a platform has no say.

mod gateway;
mod visitor;

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use landfall_engine::Level;
use landfall_model::{Architecture, Element};
use serde::Serialize;

use self::visitor::Visitor;
use super::cluster::{Lines, Snapshot, probe};
use super::plan::{EXTERNAL_CONTAINER, EXTERNAL_PORT, PROGRAM, Plan};
use super::programs::look_by;
use super::traffic::Outsider;

/// From how many places it is tried at a time: what is closed answers nothing, and is waited for.
const AT_ONCE: usize = 4;

/// Where a way begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Origin {
    /// At a service.
    Services,
    /// At a store: what has taken over a database is to get no further.
    Stores,
    /// At an external that does not come in through the gateway.
    Externals,
    /// At a scheduled job.
    Jobs,
    /// In a namespace that is no part of the platform.
    ForeignNamespaces,
    /// At the gateway, for what is not exposed.
    Outside,
}

/// What was tried, and what was open.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// How many pairs have no declared edge, by where they begin.
    pub(super) undeclared: BTreeMap<Origin, usize>,
    /// The same of those that nothing closes on this machine, so that nobody tries them.
    pub(super) not_enforceable: BTreeMap<Origin, usize>,
    /// Those of them on which a connection was accepted: `reporting -> banking-api`.
    pub(super) reachable: Vec<String>,
    /// From where it could not be tried, and why.
    pub(super) untried: Vec<String>,
}

/// Somebody who could be reached, and where: one of its pods, at each of its ports.
#[derive(Debug)]
struct Target {
    element: Element,
    addresses: Vec<String>,
}

/// Where ways begin, and whom nothing declared leads to from there.
struct Begin<'a> {
    origin: Origin,
    /// As reports have it.
    name: String,
    at: Vantage<'a>,
    undeclared: Vec<&'a Target>,
}

enum Vantage<'a> {
    /// A stand-in, which tries what it is asked to.
    StandIn(&'a Pod, u16),
    /// A container, whatever runs in it: this program is started beside that.
    Container { pod: &'a Pod, name: String, program: String },
    /// A pod that is made for this.
    Visitor(Visitor),
}

/// Tries all of them. On loopback addresses only the gateway stands between anybody: what it closes is tried, the rest counted.
pub(super) async fn try_all(
    lines: &Lines,
    outsider: &Outsider,
    architecture: &Architecture,
    plan: &Plan,
    pods: &Snapshot,
    level: Level,
) -> anyhow::Result<Tried> {
    let targets = targets(architecture, plan, pods);
    let begins = begins(architecture, plan, pods, &targets);
    let mut tried = Tried::default();
    let begins = match level {
        Level::Namespace => begins,
        Level::Loopback => {
            for begin in begins {
                *tried.not_enforceable.entry(begin.origin).or_default() += begin.undeclared.len();
            }
            Vec::new()
        }
    };
    let looked = begins.iter().map(|begin| async move { (begin, begin.look(lines).await) });
    let looked: Vec<_> = stream::iter(looked).buffered(AT_ONCE).collect().await;
    for (begin, reached) in looked {
        match reached {
            Ok(reached) => tried.add(begin.origin, &begin.name, begin.undeclared.len(), reached),
            Err(error) => tried.untried.push(format!("{}: {error:#}", begin.name)),
        }
    }
    let hidden = gateway::hidden(architecture, plan);
    let reached = gateway::reached(outsider, plan, &hidden).await?;
    tried.add(Origin::Outside, "outside", hidden.len(), reached);
    Ok(tried)
}

impl Tried {
    fn add(&mut self, origin: Origin, from: &str, count: usize, reached: Vec<String>) {
        *self.undeclared.entry(origin).or_default() += count;
        self.reachable.extend(reached.into_iter().map(|to| format!("{from} -> {to}")));
    }
}

impl Begin<'_> {
    /// Whom it gets to.
    async fn look(&self, lines: &Lines) -> anyhow::Result<Vec<String>> {
        let addresses: Vec<String> = self.undeclared.iter().flat_map(|target| target.addresses.clone()).collect();
        let open = match &self.at {
            _ if addresses.is_empty() => Vec::new(),
            Vantage::StandIn(pod, port) => probe(lines, pod, *port, addresses.clone()).await?,
            Vantage::Container { pod, name, program } => {
                look_by(lines.client(), pod, name, program, &addresses).await?.open
            }
            Vantage::Visitor(visitor) => visitor.look(lines.client(), &addresses).await?,
        };
        anyhow::ensure!(open.len() == addresses.len(), "{} of {} addresses were tried", open.len(), addresses.len());
        let open: BTreeSet<&String> = addresses.iter().zip(open).filter(|(_, open)| *open).map(|(at, _)| at).collect();
        let reached = self.undeclared.iter().filter(|target| target.addresses.iter().any(|at| open.contains(at)));
        Ok(reached.map(|target| target.element.name().to_owned()).collect())
    }
}

/// Whether something leads from one to the other that the file declares.
fn is_declared(architecture: &Architecture, from: &Element, to: &Element) -> bool {
    let declared = match from {
        Element::Client | Element::Service(_) => architecture.from(from).any(|connection| connection.to == *to),
        // What is backed up goes there; the members of a store are one.
        Element::Store(name) => architecture
            .store(name.as_str())
            .and_then(|store| store.backup.as_ref()?.to.as_ref())
            .is_some_and(|archive| archive.as_str() == to.name()),
        // Whom it may call, it calls through the gateway.
        Element::External(_) => matches!(to, Element::External(_)),
    };
    declared || from == to
}

/// All places where ways begin, but for the gateway.
fn begins<'a>(architecture: &Architecture, plan: &Plan, pods: &'a Snapshot, targets: &'a [Target]) -> Vec<Begin<'a>> {
    let undeclared = |from: &Element| -> Vec<&'a Target> {
        targets.iter().filter(|target| !is_declared(architecture, from, &target.element)).collect()
    };
    let here = plan.landfall.display().to_string();
    let mut begins = Vec::new();
    for service in &plan.services {
        let name = &service.service;
        let Some(from) = architecture.element(name) else { continue };
        let place = if service.runs_once {
            // It gets to whom it uses as soon as its pod has a network.
            let used = targets.iter().find(|target| architecture.from(&from).any(|edge| edge.to == target.element));
            Visitor::of_job(plan, name, used.and_then(|target| target.addresses.first())).map(Vantage::Visitor)
        } else {
            pods.ready_of(name).next().map(|pod| match service.ports.first() {
                Some(port) if service.program.is_none() => Vantage::StandIn(pod, *port),
                _ => Vantage::Container { pod, name: name.clone(), program: here.clone() },
            })
        };
        let origin = if service.runs_once { Origin::Jobs } else { Origin::Services };
        let begin = |at| Begin { origin, name: name.clone(), at, undeclared: undeclared(&from) };
        begins.extend(place.map(begin));
    }
    for store in &plan.stores {
        let place = pods.members_of(store).next().and_then(|pod| {
            let name = pod.spec.as_ref()?.containers.first()?.name.clone();
            Some(Vantage::Container { pod, name, program: PROGRAM.to_owned() })
        });
        let from = architecture.element(&store.name);
        begins.extend(from.zip(place).map(|(from, at)| Begin {
            origin: Origin::Stores,
            name: store.name.clone(),
            at,
            undeclared: undeclared(&from),
        }));
    }
    for external in &plan.externals {
        let place = pods.external(&external.external).map(|pod| Vantage::Container {
            pod,
            name: EXTERNAL_CONTAINER.to_owned(),
            program: here.clone(),
        });
        let from = architecture.element(&external.external);
        begins.extend(from.zip(place).map(|(from, at)| Begin {
            origin: Origin::Externals,
            name: format!("{} past the gateway", external.external),
            at,
            undeclared: undeclared(&from),
        }));
    }
    // Externals are outside: nothing keeps others from them, which shows that the pod has a network.
    let (outside, inside): (Vec<_>, Vec<_>) =
        targets.iter().partition(|target| matches!(target.element, Element::External(_)));
    let open = outside.first().and_then(|target| target.addresses.first());
    begins.push(Begin {
        origin: Origin::ForeignNamespaces,
        name: "a foreign namespace".to_owned(),
        at: Vantage::Visitor(Visitor::of_nobody(plan, open)),
        undeclared: inside,
    });
    begins
}

/// Where each element accepts connections.
fn targets(architecture: &Architecture, plan: &Plan, pods: &Snapshot) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut add = |name: &str, pod: Option<&Pod>, ports: BTreeSet<u16>| {
        let address = pod.and_then(|pod| pod.status.as_ref()?.pod_ip.clone());
        if let (Some(element), Some(address), false) = (architecture.element(name), address, ports.is_empty()) {
            let addresses = ports.into_iter().map(|port| format!("{address}:{port}")).collect();
            targets.push(Target { element, addresses });
        }
    };
    for service in plan.services.iter().filter(|service| !service.runs_once) {
        let ports = service.ports.iter().copied().collect();
        add(&service.service, pods.ready_of(&service.service).next(), ports);
    }
    for store in &plan.stores {
        let pod = pods.members_of(store).next();
        let declared = architecture.store(&store.name).map(|declared| architecture.store_port(declared));
        add(&store.name, pod, declared.into_iter().chain(pod.into_iter().flat_map(ports_of)).collect());
    }
    for external in &plan.externals {
        add(&external.external, pods.external(&external.external), BTreeSet::from([EXTERNAL_PORT]));
    }
    targets
}

/// The ports that the containers of a pod name.
fn ports_of(pod: &Pod) -> impl Iterator<Item = u16> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let tcp = ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    tcp.filter_map(|port| u16::try_from(port.container_port).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::up::architecture_of;

    const SHOP: &str = "
landfall: v1
name: shop
services:
  web: { port: 8080, expose: shop.example, uses: [{ write: rows/orders }, { send: carrier }] }
  stock: { port: 8080 }
  nightly: { kind: scheduled-job, schedule: '0 3 * * *', uses: [{ read: rows/orders }] }
stores:
  rows: { engine: postgres, version: '17', backup: { full: 1d, to: files } }
  files: { engine: s3 }
externals:
  carrier: { uses: [{ call: web }] }
  bank: {}
";

    #[test]
    fn what_is_declared_or_backed_up_is_not_tried_and_all_else_is() {
        let architecture = architecture_of(SHOP);
        let element = |name: &str| architecture.element(name).expect("it is declared");
        let all = ["web", "stock", "rows", "files", "carrier", "bank"];
        let undeclared = |from: &str| {
            let closed = all.into_iter().filter(|to| !is_declared(&architecture, &element(from), &element(to)));
            closed.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(undeclared("web"), "stock files bank");
        assert_eq!(undeclared("nightly"), "web stock files carrier bank");
        assert_eq!(undeclared("rows"), "web stock carrier bank", "its backups go to `files`");
        assert_eq!(undeclared("files"), "web stock rows carrier bank");
        assert_eq!(undeclared("carrier"), "web stock rows files", "it calls `web` through the gateway");
    }

    #[test]
    fn what_is_reachable_is_told_with_both_ends() {
        let mut tried = Tried::default();
        tried.add(Origin::Stores, "rows", 3, vec!["web".to_owned()]);
        tried.add(Origin::Stores, "files", 2, Vec::new());
        tried.add(Origin::ForeignNamespaces, "a foreign namespace", 4, vec!["rows".to_owned()]);
        assert_eq!(tried.reachable, ["rows -> web", "a foreign namespace -> rows"]);
        let counts = serde_json::to_string(&tried.undeclared).expect("it is JSON");
        assert_eq!(counts, r#"{"stores":5,"foreign-namespaces":4}"#);
    }
}

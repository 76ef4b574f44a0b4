//! Everything that can reach anything, at once.
//!
//! Pairs come from the peer sets of rules, never from testing all pairs. Each destination whose ingress rules name few
//! workloads is followed to those; each source whose egress rules name few is followed to the remaining destinations.
//! What is left has wide rules on both ends. There, sources that nothing restricts stay one entry, and the others are
//! tested. The cost is the number of rule peers and answers, with binary searches between. Not handled: two ends that
//! each allow a whole namespace are written out pair by pair.

use std::collections::BTreeSet;

use super::Cluster;
use super::index::WorkloadSet;
use super::policy::{Direction, PortMatch};
use super::workload::{Origin, Port, Workload, WorkloadId};

/// Up to how many peers one end is followed to the other.
///
/// A workload with more is a hub, and the other ends of its connections are usually narrower.
const NARROW: usize = 64;

/// Which connections the policies allow between workloads, on the ports that containers declare.
///
/// Not handled: a container that listens on a port it does not declare.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relation {
    /// The connections; see [`Source`] for what one entry stands for.
    pub connections: BTreeSet<Connection>,
    /// The workloads that may open connections to everywhere.
    pub unrestricted: BTreeSet<WorkloadId>,
    strangers: BTreeSet<WorkloadId>,
}

/// One allowed connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// Who may open it.
    pub from: Source,
    /// The workload that is reached.
    pub to: WorkloadId,
    /// Where.
    pub port: Port,
}

/// Who may open a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Some address outside of the cluster. Left out for strangers: what they expose is their owners' business.
    Outside,
    /// Every workload of [`Relation::unrestricted`]: the destination admits everybody. One entry instead of all pairs.
    Unrestricted,
    /// One workload; not written where [`Source::Unrestricted`] already says it.
    Workload(WorkloadId),
}

/// A rule with its peers resolved to workloads.
#[derive(Debug)]
pub(super) struct ResolvedRule {
    /// Admits every pod, because it names no peers or because of an address block.
    pub(super) every_pod: bool,
    /// Admits some address outside.
    pub(super) outside: bool,
    /// The workloads that selectors find.
    pub(super) pods: WorkloadSet,
    pub(super) ports: Vec<PortMatch>,
}

/// The rules of one workload in one direction; `None` if nothing isolates it.
type Side<'a> = Option<Vec<&'a ResolvedRule>>;

struct Builder<'a> {
    cluster: &'a Cluster,
    egress: Vec<Side<'a>>,
    ingress: Vec<Side<'a>>,
    /// Up to how many peers a side is followed from.
    narrow: usize,
    /// By workload: whether it is followed to its destinations.
    is_narrow_source: Vec<bool>,
    connections: Vec<Connection>,
}

/// A destination while its connections are collected.
struct Destination<'a> {
    id: WorkloadId,
    workload: &'a Workload,
    ports: Vec<DestinationPort<'a>>,
}

struct DestinationPort<'a> {
    port: Port,
    /// Admits every pod.
    open: bool,
    /// The peer sets that admit to this port.
    peers: Vec<&'a WorkloadSet>,
}

impl Relation {
    /// Whether the workload may connect to the port of the other.
    pub fn contains(&self, from: WorkloadId, to: WorkloadId, port: Port) -> bool {
        let holds = |from| self.connections.contains(&Connection { from, to, port });
        let shared = || self.unrestricted.contains(&from) && holds(Source::Unrestricted);
        !self.between_strangers(from, to) && (holds(Source::Workload(from)) || shared())
    }

    /// Every pair by itself. Quadratic where much is unrestricted: for small sets and messages.
    pub fn pairs(&self) -> BTreeSet<(WorkloadId, WorkloadId, Port)> {
        let mut pairs = BTreeSet::new();
        for &Connection { from, to, port } in &self.connections {
            match from {
                Source::Outside => {}
                Source::Workload(from) => {
                    pairs.insert((from, to, port));
                }
                Source::Unrestricted => pairs.extend(
                    self.unrestricted
                        .iter()
                        .filter(|from| !self.between_strangers(**from, to))
                        .map(|&from| (from, to, port)),
                ),
            }
        }
        pairs
    }

    fn between_strangers(&self, from: WorkloadId, to: WorkloadId) -> bool {
        self.strangers.contains(&from) && self.strangers.contains(&to)
    }
}

impl ResolvedRule {
    fn finds(&self, workload: WorkloadId) -> bool {
        self.every_pod || self.pods.binary_search(&workload).is_ok()
    }

    fn admits_port(&self, port: Port, destination: &Workload) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|ports| ports.admits(port, Some(destination)))
    }
}

impl Cluster {
    /// The whole allowed relation.
    pub fn relation(&self) -> Relation {
        self.relation_following(NARROW)
    }

    /// The same for every limit, which decides about the way there only.
    pub(super) fn relation_following(&self, narrow: usize) -> Relation {
        Builder::new(self, narrow).build()
    }

    fn side(&self, workload: usize, direction: Direction) -> Side<'_> {
        let rules: Vec<_> = self.selecting[workload]
            .iter()
            .filter_map(|&policy| match direction {
                Direction::Ingress => self.resolved[policy as usize].ingress.as_deref(),
                Direction::Egress => self.resolved[policy as usize].egress.as_deref(),
            })
            .collect();
        (!rules.is_empty()).then(|| rules.into_iter().flatten().collect())
    }
}

impl<'a> Builder<'a> {
    fn new(cluster: &'a Cluster, narrow: usize) -> Self {
        let sides = |direction| (0..cluster.workloads.len()).map(move |workload| cluster.side(workload, direction));
        let egress: Vec<Side<'a>> = sides(Direction::Egress).collect();
        Builder {
            cluster,
            narrow,
            is_narrow_source: egress.iter().map(|side| is_narrow(side, narrow)).collect(),
            egress,
            ingress: sides(Direction::Ingress).collect(),
            connections: Vec::new(),
        }
    }

    fn build(mut self) -> Relation {
        let all = || (0..).map(WorkloadId).zip(&self.cluster.workloads).map(|(id, _)| id);
        let (narrow, wide): (Vec<WorkloadId>, Vec<WorkloadId>) =
            all().partition(|id| self.is_narrow_source[id.0 as usize]);
        let (unrestricted, wide_restricted): (Vec<WorkloadId>, Vec<WorkloadId>) =
            wide.into_iter().partition(|id| is_unrestricted(self.egress_of(*id)));
        let destinations: Vec<Destination<'a>> = all().map(|id| self.destination(id)).collect();

        let mut is_wide_destination = vec![false; destinations.len()];
        for destination in &destinations {
            self.connect_all(destination);
            let peers: usize = destination.peers().map(|set| set.len()).sum();
            let open = destination.ports.iter().any(|port| port.open);
            if !open && peers <= self.narrow {
                let sources: BTreeSet<WorkloadId> = destination.peers().flat_map(|set| set.iter().copied()).collect();
                self.connect(sources, destination);
                continue;
            }
            is_wide_destination[destination.id.0 as usize] = true;
            let mut sources: BTreeSet<WorkloadId> = wide_restricted.iter().copied().collect();
            if peers <= unrestricted.len() {
                sources.extend(destination.peers().flat_map(|set| set.iter().copied()));
                sources.retain(|id| !self.is_narrow_source[id.0 as usize]);
            } else {
                sources.extend(&unrestricted);
            }
            self.connect(sources, destination);
        }
        for source in narrow {
            let found: BTreeSet<WorkloadId> =
                self.egress_of(source).iter().flatten().flat_map(|rule| rule.pods.iter().copied()).collect();
            for id in found.into_iter().filter(|id| is_wide_destination[id.0 as usize]) {
                self.connect([source], &destinations[id.0 as usize]);
            }
        }

        let strangers = all().filter(|id| self.cluster.workload(*id).origin == Origin::Stranger).collect();
        Relation {
            connections: self.connections.into_iter().collect(),
            unrestricted: unrestricted.into_iter().collect(),
            strangers,
        }
    }

    fn destination(&self, id: WorkloadId) -> Destination<'a> {
        let workload = self.cluster.workload(id);
        let declared: BTreeSet<Port> = workload.ports.iter().map(|port| port.port).collect();
        let ports = declared
            .into_iter()
            .map(|port| match &self.ingress[id.0 as usize] {
                None => DestinationPort { port, open: true, peers: Vec::new() },
                Some(rules) => {
                    let admitting = || rules.iter().filter(|rule| rule.admits_port(port, workload));
                    let peers = admitting().map(|rule| &rule.pods).filter(|pods| !pods.is_empty()).collect();
                    DestinationPort { port, open: admitting().any(|rule| rule.every_pod), peers }
                }
            })
            .collect();
        Destination { id, workload, ports }
    }

    /// The entries that stand for many sources.
    fn connect_all(&mut self, destination: &Destination<'a>) {
        for port in &destination.ports {
            let mut push = |from| self.connections.push(Connection { from, to: destination.id, port: port.port });
            if port.open {
                push(Source::Unrestricted);
            }
            let admits_outside = match &self.ingress[destination.id.0 as usize] {
                None => true,
                Some(rules) => {
                    rules.iter().any(|rule| rule.outside && rule.admits_port(port.port, destination.workload))
                }
            };
            if admits_outside && destination.workload.origin != Origin::Stranger {
                push(Source::Outside);
            }
        }
    }

    /// Connects those of the sources that both ends allow.
    fn connect(&mut self, sources: impl IntoIterator<Item = WorkloadId>, destination: &Destination<'a>) {
        let to_stranger = destination.workload.origin == Origin::Stranger;
        for source in sources {
            if to_stranger && self.cluster.workload(source).origin == Origin::Stranger {
                continue;
            }
            let unrestricted = is_unrestricted(self.egress_of(source));
            let leading: Vec<&ResolvedRule> = match self.egress_of(source) {
                None => Vec::new(),
                Some(rules) => rules.iter().filter(|rule| rule.finds(destination.id)).copied().collect(),
            };
            for port in &destination.ports {
                // `Source::Unrestricted` has said it.
                let said = unrestricted && port.open;
                let admitted = port.open || port.peers.iter().any(|set| set.binary_search(&source).is_ok());
                let may_leave =
                    unrestricted || leading.iter().any(|rule| rule.admits_port(port.port, destination.workload));
                if !said && admitted && may_leave {
                    let from = Source::Workload(source);
                    self.connections.push(Connection { from, to: destination.id, port: port.port });
                }
            }
        }
    }

    fn egress_of(&self, workload: WorkloadId) -> &Side<'a> {
        &self.egress[workload.0 as usize]
    }
}

impl Destination<'_> {
    fn peers(&self) -> impl Iterator<Item = &WorkloadSet> {
        self.ports.iter().flat_map(|port| port.peers.iter().copied())
    }
}

fn is_narrow(egress: &Side<'_>, limit: usize) -> bool {
    egress.as_ref().is_some_and(|rules| {
        rules.iter().all(|rule| !rule.every_pod) && rules.iter().map(|rule| rule.pods.len()).sum::<usize>() <= limit
    })
}

/// Whether nothing keeps the source from any pod and port.
fn is_unrestricted(egress: &Side<'_>) -> bool {
    egress.as_ref().is_none_or(|rules| rules.iter().any(|rule| rule.every_pod && rule.ports.is_empty()))
}

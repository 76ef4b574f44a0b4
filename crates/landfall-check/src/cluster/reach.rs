//! Whether one endpoint reaches another, and by which rules: one pair at a time, straight from the policies.

use std::net::IpAddr;

use super::Cluster;
use super::address::AddressBlock;
use super::index::Namespaces;
use super::object::ObjectKey;
use super::policy::{Direction, Peer, Policy, PortMatch, Rule, RuleRef};
use super::workload::{PodNetwork, Port, Workload, WorkloadId};

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// A pod of the workload. A pod of a stranger, such as an ingress controller, is a workload too.
    ///
    /// With the same workload on both ends, two different pods of it are meant: no policy keeps a pod from itself.
    Workload(WorkloadId),
    /// One address outside of the cluster.
    Address(IpAddr),
    /// Some address outside of the cluster: what reaches it is not private.
    Outside,
}

/// Whether a connection can be opened. Both ends have their say, and both are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reachability {
    /// What the policies of the source say.
    pub egress: Verdict,
    /// What the policies of the destination say.
    pub ingress: Verdict,
}

/// What the policies on one end of a connection say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This end is no pod, so that no policy selects it.
    NotAPod,
    /// No policy isolates the pod in this direction.
    Unisolated,
    /// These rules allow it; any one of them would.
    Allowed(Vec<Grant>),
    /// These policies isolate the pod in this direction, and none of them has a rule that allows it.
    Denied(Vec<ObjectKey>),
}

/// A rule that allows a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The rule.
    pub rule: RuleRef,
    /// Why it applies to the other end.
    pub by: GrantedBy,
}

/// Why a rule applies to the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantedBy {
    /// The rule names no peers.
    Anyone,
    /// A selector finds the pod.
    Selector,
    /// An `ipBlock` holds the address. For a pod, whose address is not known before it runs: may hold it.
    Address,
}

/// A way out of the cluster that a rule opens for a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The rule.
    pub rule: RuleRef,
    /// The addresses; `None` for all of them.
    pub to: Option<AddressBlock>,
    /// The ports; empty for all of them. Named ones lead nowhere outside.
    pub ports: Vec<PortMatch>,
}

/// Whether a workload can resolve names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsReachability {
    /// Port 53 over UDP, where resolvers ask first.
    pub udp: Reachability,
    /// Port 53 over TCP, where they ask again if the answer is long.
    pub tcp: Reachability,
}

/// The other end, as the peers of a rule see it.
#[derive(Clone, Copy)]
enum Other<'a> {
    Pod(&'a Workload),
    Address(IpAddr),
    Outside,
}

impl Reachability {
    /// Whether the connection can be opened.
    pub fn is_allowed(&self) -> bool {
        self.egress.is_allowed() && self.ingress.is_allowed()
    }
}

impl Verdict {
    /// Whether this end lets the connection be.
    pub fn is_allowed(&self) -> bool {
        !matches!(self, Verdict::Denied(_))
    }
}

impl DnsReachability {
    /// Whether both transports are open. With UDP alone, names resolve until an answer is too long for one datagram.
    pub fn is_allowed(&self) -> bool {
        self.udp.is_allowed() && self.tcp.is_allowed()
    }
}

impl Cluster {
    /// Whether `from` can open a connection to the port of `to`.
    ///
    /// The node is no endpoint here: traffic between a pod and its own node is always allowed, so that the probes of
    /// the kubelet pass every policy, a default deny included
    /// (<https://kubernetes.io/docs/concepts/services-networking/network-policies/>).
    ///
    /// # Panics
    ///
    /// If a workload belongs to another cluster.
    pub fn reaches(&self, from: Endpoint, to: Endpoint, port: Port) -> Reachability {
        let source = self.other(from);
        let destination = self.other(to);
        let destination_pod = match destination {
            Other::Pod(workload) => Some(workload),
            Other::Address(_) | Other::Outside => None,
        };
        Reachability {
            egress: self.verdict(Direction::Egress, from, destination, port, destination_pod),
            ingress: self.verdict(Direction::Ingress, to, source, port, destination_pod),
        }
    }

    /// Whether a workload can ask the DNS server of the cluster.
    ///
    /// The server is a pod in `kube-system` with the label `k8s-app: kube-dns`, whether or not it is in the set. A
    /// policy of type `Egress` without rules blocks DNS like everything else, and then no Service name resolves.
    /// Not handled: a DNS cache on the node, which has the address of the node.
    ///
    /// # Panics
    ///
    /// If the workload belongs to another cluster.
    pub fn dns(&self, workload: WorkloadId) -> DnsReachability {
        let server = Workload::kube_dns();
        let ask = |port| Reachability {
            egress: self.verdict(
                Direction::Egress,
                Endpoint::Workload(workload),
                Other::Pod(&server),
                port,
                Some(&server),
            ),
            ingress: judge(
                self.policies.iter().filter(|policy| selects(policy, &server)),
                Direction::Ingress,
                |policy, rule| self.grants(policy, rule, Other::Pod(self.workload(workload)), port, Some(&server)),
            ),
        };
        DnsReachability { udp: ask(Port::udp(53)), tcp: ask(Port::tcp(53)) }
    }

    /// The ways out of the cluster that rules open for a workload; `None` if nothing isolates it, and all are open.
    ///
    /// Blocks that hold only addresses of pods, as far as those are known, are no way out.
    ///
    /// # Panics
    ///
    /// If the workload belongs to another cluster.
    pub fn exits(&self, workload: WorkloadId) -> Option<Vec<Exit>> {
        let mut exits = Vec::new();
        let mut isolated = false;
        for policy in self.policies_of(workload) {
            let Some(rules) = policy.rules(Direction::Egress) else { continue };
            isolated = true;
            for (index, rule) in rules.iter().enumerate() {
                let exit = |to| Exit { rule: policy.rule_ref(Direction::Egress, index), to, ports: rule.ports.clone() };
                match &rule.peers {
                    None => exits.push(exit(None)),
                    Some(peers) => exits.extend(peers.iter().filter_map(|peer| match peer {
                        Peer::Block(block) if block.leaves(&self.pod_ranges) => Some(exit(Some(block.clone()))),
                        Peer::Block(_) | Peer::Pods { .. } => None,
                    })),
                }
            }
        }
        isolated.then_some(exits)
    }

    fn other(&self, endpoint: Endpoint) -> Other<'_> {
        match endpoint {
            Endpoint::Workload(id) => Other::Pod(self.workload(id)),
            Endpoint::Address(address) => Other::Address(address),
            Endpoint::Outside => Other::Outside,
        }
    }

    fn verdict(
        &self,
        direction: Direction,
        end: Endpoint,
        other: Other<'_>,
        port: Port,
        destination: Option<&Workload>,
    ) -> Verdict {
        match end {
            Endpoint::Address(_) | Endpoint::Outside => Verdict::NotAPod,
            Endpoint::Workload(id) => judge(self.policies_of(id), direction, |policy, rule| {
                self.grants(policy, rule, other, port, destination)
            }),
        }
    }

    fn policies_of(&self, workload: WorkloadId) -> impl Iterator<Item = &Policy> {
        self.selecting[workload.0 as usize].iter().map(|&position| &self.policies[position as usize])
    }

    fn grants(
        &self,
        policy: &Policy,
        rule: &Rule,
        other: Other<'_>,
        port: Port,
        destination: Option<&Workload>,
    ) -> Option<GrantedBy> {
        if !rule.admits_port(port, destination) {
            return None;
        }
        let Some(peers) = &rule.peers else { return Some(GrantedBy::Anyone) };
        if let Other::Pod(workload) = other
            && peers.iter().any(|peer| peer_finds(peer, policy, workload, &self.namespaces))
        {
            return Some(GrantedBy::Selector);
        }
        let holds = |block: &AddressBlock| match other {
            Other::Pod(_) => self.may_hold_pods(block),
            Other::Address(address) => block.contains(address),
            Other::Outside => block.leaves(&self.pod_ranges),
        };
        let by_address = peers.iter().any(|peer| matches!(peer, Peer::Block(block) if holds(block)));
        by_address.then_some(GrantedBy::Address)
    }
}

/// Whether the peer finds the workload by its labels, pods on the network of their node excepted.
pub(super) fn peer_finds(peer: &Peer, policy: &Policy, workload: &Workload, namespaces: &Namespaces) -> bool {
    workload.network == PodNetwork::Own
        && peer.selects(&policy.key.namespace, workload, namespaces.labels(&workload.key.namespace))
}

fn selects(policy: &Policy, workload: &Workload) -> bool {
    policy.key.namespace == workload.key.namespace && policy.pods.matches(&workload.labels)
}

/// The verdict of the policies that select one end.
fn judge<'a>(
    policies: impl Iterator<Item = &'a Policy>,
    direction: Direction,
    grants: impl Fn(&Policy, &Rule) -> Option<GrantedBy>,
) -> Verdict {
    let mut isolating = Vec::new();
    let mut granted = Vec::new();
    for policy in policies {
        let Some(rules) = policy.rules(direction) else { continue };
        isolating.push(policy);
        for (index, rule) in rules.iter().enumerate() {
            if let Some(by) = grants(policy, rule) {
                granted.push(Grant { rule: policy.rule_ref(direction, index), by });
            }
        }
    }
    if isolating.is_empty() {
        Verdict::Unisolated
    } else if granted.is_empty() {
        Verdict::Denied(isolating.into_iter().map(|policy| policy.key.clone()).collect())
    } else {
        Verdict::Allowed(granted)
    }
}

//! Network policies as packet filter rules: a pure function from what the caches hold to one transaction for `nft`.
//!
//! <https://kubernetes.io/docs/concepts/services-networking/network-policies/> says what a policy means. A pod that no
//! policy selects in a direction is open in that direction; one that is selected may do what the union of the rules of
//! its policies allows. Traffic between a node and its own pods is always allowed, and never comes by here: it does not
//! pass the forward hook.
//!
//! The size of the rules grows with policies plus pods, not with pairs of pods: all pods with the same policies share one
//! chain, and every peer selector is one set of addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::scheduler::matching::{LabelMatcher, Labels};

/// The table that holds everything of ours; the transaction replaces it whole.
pub(crate) const TABLE: &str = "landfall_policy";

/// What policies are applied to.
pub(crate) struct View<'a> {
    pub(crate) pods: &'a [&'a Pod],
    pub(crate) namespaces: &'a [&'a Namespace],
    pub(crate) policies: &'a [&'a NetworkPolicy],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// The address of the far end.
    const fn far(self) -> &'static str {
        match self {
            Self::Ingress => "ip saddr",
            Self::Egress => "ip daddr",
        }
    }

    /// The address of the pod that is selected.
    const fn near(self) -> &'static str {
        match self {
            Self::Ingress => "ip daddr",
            Self::Egress => "ip saddr",
        }
    }
}

/// The text of the rules, for `nft -f -`: it replaces all of the table in one step.
pub(crate) fn ruleset(view: &View<'_>) -> String {
    let compiler = Compiler::new(view);
    let mut sets = BTreeMap::new();
    let mut chains = BTreeMap::new();
    let mut maps = BTreeMap::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        maps.insert(direction, compiler.isolate(direction, &mut sets, &mut chains));
    }
    write_table(&sets, &chains, &maps)
}

/// A pod that runs and has an address.
struct Placed<'a> {
    address: Ipv4Addr,
    pod: &'a Pod,
}

struct Compiler<'a> {
    placed: Vec<Placed<'a>>,
    namespaces: BTreeMap<&'a str, &'a Namespace>,
    policies: &'a [&'a NetworkPolicy],
}

/// The addresses of each set, by its name.
type Sets = BTreeMap<String, BTreeSet<Ipv4Addr>>;
/// The rules of each chain, by its name.
type Chains = BTreeMap<String, Vec<String>>;
/// The chain of each isolated pod.
type Isolated = BTreeMap<Ipv4Addr, String>;

impl<'a> Compiler<'a> {
    fn new(view: &View<'a>) -> Self {
        let placed = view.pods.iter().filter_map(|pod| {
            let status = pod.status.as_ref()?;
            let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
            let on_host = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
            let address = status.pod_ip.as_deref()?.parse().ok()?;
            (!ended && !on_host).then_some(Placed { address, pod })
        });
        let namespaces =
            view.namespaces.iter().filter_map(|namespace| Some((namespace.metadata.name.as_deref()?, *namespace)));
        Self { placed: placed.collect(), namespaces: namespaces.collect(), policies: view.policies }
    }

    /// Chains and sets for the pods that are isolated in `direction`, and which pod has which chain.
    fn isolate(&self, direction: Direction, sets: &mut Sets, chains: &mut Chains) -> Isolated {
        let applying: Vec<(usize, &NetworkPolicy)> =
            self.policies.iter().copied().enumerate().filter(|(_, policy)| applies(policy, direction)).collect();
        let mut isolated = Isolated::new();
        // The rules of equal pods are compiled once. What differs between pods with the same policies is only what their
        // named ports mean.
        let mut known: BTreeMap<(Vec<usize>, BTreeMap<String, u16>), String> = BTreeMap::new();
        for placed in &self.placed {
            let selecting: Vec<usize> =
                applying.iter().filter(|(_, policy)| selects(policy, placed.pod)).map(|(index, _)| *index).collect();
            if selecting.is_empty() {
                continue;
            }
            let named = match direction {
                Direction::Ingress => named_ports(placed.pod),
                Direction::Egress => BTreeMap::new(),
            };
            let next = format!("{}_{}", direction.name(), known.len());
            let chain = known.entry((selecting.clone(), named.clone())).or_insert_with(|| {
                let rules = selecting.iter().flat_map(|index| self.rules(*index, direction, &named, sets));
                let rules: BTreeSet<String> = rules.collect();
                chains.insert(next.clone(), rules.into_iter().collect());
                next
            });
            isolated.insert(placed.address, chain.clone());
        }
        isolated
    }

    /// What one policy allows, a rule for each line.
    fn rules(&self, index: usize, direction: Direction, named: &BTreeMap<String, u16>, sets: &mut Sets) -> Vec<String> {
        let policy = self.policies[index];
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        let Some(spec) = &policy.spec else { return Vec::new() };
        let allowed: Vec<(Option<&[NetworkPolicyPeer]>, &[NetworkPolicyPort])> = match direction {
            Direction::Ingress => spec
                .ingress
                .iter()
                .flatten()
                .map(|rule| (rule.from.as_deref(), rule.ports.as_deref().unwrap_or_default()))
                .collect(),
            Direction::Egress => spec
                .egress
                .iter()
                .flatten()
                .map(|rule| (rule.to.as_deref(), rule.ports.as_deref().unwrap_or_default()))
                .collect(),
        };
        let mut rules = Vec::new();
        for (at, (peers, ports)) in allowed.into_iter().enumerate() {
            // No list and an empty list of peers both mean everybody.
            let everybody = [Far::Everybody];
            let far: Vec<Far<'_, '_>> = match peers {
                None | Some([]) => everybody.into_iter().collect(),
                Some(peers) => peers
                    .iter()
                    .enumerate()
                    .map(|(number, peer)| match &peer.ip_block {
                        Some(block) => Far::Block(block),
                        None => {
                            let set = format!("{}_{index}_{at}_{number}", direction.name());
                            Far::Pods { set, pods: self.peers(peer, namespace) }
                        }
                    })
                    .collect(),
            };
            for far in &far {
                rules.extend(self.allow(direction, far, ports, named, sets));
            }
        }
        rules
    }

    /// The pods that a peer selects, seen from a policy in `namespace`.
    fn peers(&self, peer: &NetworkPolicyPeer, namespace: &str) -> Vec<&Placed<'a>> {
        let matcher = |selector: &LabelSelector| LabelMatcher::read(Some(selector));
        let namespaces = peer.namespace_selector.as_ref().map(matcher);
        let pods = peer.pod_selector.as_ref().map(matcher);
        let in_scope = |placed: &Placed<'_>| {
            let of = placed.pod.metadata.namespace.as_deref().unwrap_or_default();
            match &namespaces {
                None => of == namespace,
                Some(selected) => self.namespaces.get(of).is_some_and(|of| matches(selected, &of.metadata)),
            }
        };
        let selected =
            |placed: &Placed<'_>| pods.as_ref().is_none_or(|selected| matches(selected, &placed.pod.metadata));
        self.placed.iter().filter(|placed| in_scope(placed) && selected(placed)).collect()
    }

    fn allow(
        &self,
        direction: Direction,
        far: &Far<'_, 'a>,
        ports: &[NetworkPolicyPort],
        named: &BTreeMap<String, u16>,
        sets: &mut Sets,
    ) -> Vec<String> {
        if ports.is_empty() {
            return far.condition(direction, sets).map(|condition| format!("{condition}return")).into_iter().collect();
        }
        let mut rules = Vec::new();
        for port in ports {
            let protocol = port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase();
            let numbers = match (&port.port, port.end_port) {
                (None, _) => None,
                (Some(IntOrString::Int(first)), None) => Some(first.to_string()),
                (Some(IntOrString::Int(first)), Some(last)) => Some(format!("{first}-{last}")),
                (Some(IntOrString::String(name)), _) if direction == Direction::Egress => {
                    rules.extend(self.allow_named(far, name, &protocol, sets));
                    continue;
                }
                // A name that the pod does not have matches nothing.
                (Some(IntOrString::String(name)), _) => match named.get(name) {
                    Some(number) => Some(number.to_string()),
                    None => continue,
                },
            };
            let Some(condition) = far.condition(direction, sets) else { continue };
            rules.push(match numbers {
                Some(numbers) => format!("{condition}{protocol} dport {numbers} return"),
                None => format!("{condition}meta l4proto {protocol} return"),
            });
        }
        rules
    }

    /// Egress to a named port: each far pod says itself what the name means.
    fn allow_named(&self, far: &Far<'_, 'a>, name: &str, protocol: &str, sets: &mut Sets) -> Vec<String> {
        let everybody: Vec<&Placed<'a>>;
        let (set, pods) = match far {
            Far::Pods { set, pods } => (set.as_str(), pods),
            Far::Everybody => {
                everybody = self.placed.iter().collect();
                ("egress_all", &everybody)
            }
            // An address has no names for its ports.
            Far::Block(_) => return Vec::new(),
        };
        let mut by_number: BTreeMap<u16, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        for placed in pods {
            if let Some(number) = named_ports(placed.pod).get(name) {
                by_number.entry(*number).or_default().insert(placed.address);
            }
        }
        let mut rules = Vec::new();
        for (number, addresses) in by_number {
            let set = format!("{set}_{number}");
            rules.push(format!("ip daddr @{set} {protocol} dport {number} return"));
            sets.entry(set).or_default().extend(addresses);
        }
        rules
    }
}

/// The far end of a rule.
enum Far<'p, 'a> {
    Everybody,
    Block(&'p IPBlock),
    Pods { set: String, pods: Vec<&'p Placed<'a>> },
}

impl Far<'_, '_> {
    /// The condition, with a space behind it unless it is empty; `None` when nobody meets it.
    fn condition(&self, direction: Direction, sets: &mut Sets) -> Option<String> {
        let far = direction.far();
        match self {
            Self::Everybody => Some(String::new()),
            // Not handled: IPv6 blocks, as pods have IPv4 addresses only.
            Self::Block(block) if block.cidr.contains(':') => None,
            Self::Block(block) => {
                let except: Vec<&str> = block.except.iter().flatten().map(String::as_str).collect();
                let mut condition = format!("{far} {} ", block.cidr);
                if !except.is_empty() {
                    let _ = write!(condition, "{far} != {{ {} }} ", except.join(", "));
                }
                Some(condition)
            }
            Self::Pods { pods, .. } if pods.is_empty() => None,
            Self::Pods { set, pods } => {
                sets.entry(set.clone()).or_default().extend(pods.iter().map(|placed| placed.address));
                Some(format!("{far} @{set} "))
            }
        }
    }
}

/// Whether a policy isolates the pods it selects in this direction. Without `policyTypes` it is about ingress, and about
/// egress when it has a rule for that.
fn applies(policy: &NetworkPolicy, direction: Direction) -> bool {
    let Some(spec) = &policy.spec else { return false };
    match (&spec.policy_types, direction) {
        (Some(types), _) if !types.is_empty() => types.iter().any(|kind| kind.eq_ignore_ascii_case(direction.name())),
        (_, Direction::Ingress) => true,
        (_, Direction::Egress) => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
    }
}

fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
    policy.metadata.namespace == pod.metadata.namespace
        && selector.is_none_or(|selector| matches(&LabelMatcher::read(Some(selector)), &pod.metadata))
}

fn matches(selected: &LabelMatcher, metadata: &ObjectMeta) -> bool {
    metadata.labels.as_ref().map_or_else(|| selected.matches(&Labels::new()), |labels| selected.matches(labels))
}

/// What the names of a pod's ports mean.
fn named_ports(pod: &Pod) -> BTreeMap<String, u16> {
    let containers =
        pod.spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| Some((port.name.clone()?, u16::try_from(port.container_port).ok()?)))
        .collect()
}

fn write_table(sets: &Sets, chains: &Chains, maps: &BTreeMap<Direction, Isolated>) -> String {
    // Added first, so that deleting it cannot fail; the transaction as a whole replaces it.
    let mut text = format!("table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n");
    for (name, addresses) in sets {
        let elements: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "  set {name} {{ type ipv4_addr; elements = {{ {} }}; }}", elements.join(", "));
    }
    for (name, rules) in chains {
        let _ = writeln!(text, "  chain {name} {{");
        for rule in rules {
            let _ = writeln!(text, "    {rule}");
        }
        // Told, not dropped: whoever tries learns at once that it is closed.
        text += "    meta l4proto tcp reject with tcp reset\n    reject\n  }\n";
    }
    for (direction, isolated) in maps {
        let elements: Vec<String> =
            isolated.iter().map(|(address, chain)| format!("{address} : jump {chain}")).collect();
        let elements =
            if elements.is_empty() { String::new() } else { format!(" elements = {{ {} }};", elements.join(", ")) };
        let _ = writeln!(text, "  map {}_isolated {{ type ipv4_addr : verdict;{elements} }}", direction.name());
    }
    // No policy closes a pod to itself, which it reaches through the address of a service.
    let isolated: BTreeSet<Ipv4Addr> = maps.values().flat_map(BTreeMap::keys).copied().collect();
    let pairs: Vec<String> = isolated.iter().map(|address| format!("{address} . {address}")).collect();
    let elements = if pairs.is_empty() { String::new() } else { format!(" elements = {{ {} }};", pairs.join(", ")) };
    let _ = writeln!(text, "  set itself {{ type ipv4_addr . ipv4_addr;{elements} }}");
    text += "  chain forward {\n    type filter hook forward priority filter; policy accept;\n    ct state established,related accept\n";
    text += "    ip saddr . ip daddr @itself accept\n";
    // A rule that allows returns, so that the other end has its say as well.
    for direction in [Direction::Egress, Direction::Ingress] {
        let _ = writeln!(text, "    {} vmap @{}_isolated", direction.near(), direction.name());
    }
    text + "  }\n}\n"
}

#[cfg(test)]
mod tests;

//! `networking.k8s.io/v1` `NetworkPolicy`: read as the API server reads it, with its defaults and its validation.

use super::address::AddressBlock;
use super::field::{Field, Labels, Malformed};
use super::object::{Object, ObjectKey};
use super::selector::Selector;
use super::workload::{Port, Protocol, Workload};

/// Kinds that also decide about traffic, and that this analysis does not read.
const OTHER_POLICY_LANGUAGES: [(&str, &str); 9] = [
    ("cilium.io", "CiliumNetworkPolicy"),
    ("cilium.io", "CiliumClusterwideNetworkPolicy"),
    ("crd.projectcalico.org", "NetworkPolicy"),
    ("crd.projectcalico.org", "GlobalNetworkPolicy"),
    ("projectcalico.org", "NetworkPolicy"),
    ("projectcalico.org", "GlobalNetworkPolicy"),
    ("policy.networking.k8s.io", "AdminNetworkPolicy"),
    ("policy.networking.k8s.io", "BaselineAdminNetworkPolicy"),
    ("policy.networking.k8s.io", "ClusterNetworkPolicy"),
];

/// Which way a policy looks at a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Connections that others open to the selected pods.
    Ingress,
    /// Connections that the selected pods open.
    Egress,
}

/// One rule of one policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleRef {
    /// The policy.
    pub policy: ObjectKey,
    /// The list that the rule is in.
    pub direction: Direction,
    /// Its position in that list, from zero.
    pub index: usize,
}

/// The ports that one entry of a rule's `ports` admits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortMatch {
    /// TCP unless said otherwise.
    pub protocol: Protocol,
    /// The ports.
    pub ports: PortSet,
}

/// Ports of one protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortSet {
    /// Every port.
    All,
    /// From the first to the second, both included.
    Range(u16, u16),
    /// The port that the destination pod declares under this name. An address outside has no such port.
    Named(String),
}

#[derive(Debug)]
pub(super) struct Policy {
    pub(super) key: ObjectKey,
    pub(super) pods: Selector,
    /// `None`: the policy says nothing about this direction. Without rules it isolates and allows nothing.
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
    /// A direction for which there are rules that `policyTypes` leaves out, so that they have no effect.
    pub(super) ignored: Option<Direction>,
}

#[derive(Debug)]
pub(super) struct Rule {
    /// `None`: everybody, which is what both an absent and an empty list mean.
    pub(super) peers: Option<Vec<Peer>>,
    /// Empty: every port of every protocol.
    pub(super) ports: Vec<PortMatch>,
}

#[derive(Debug)]
pub(super) enum Peer {
    /// Pods that match, in namespaces that match; without `namespaces`, in the namespace of the policy.
    Pods {
        namespaces: Option<Selector>,
        pods: Selector,
    },
    Block(AddressBlock),
}

impl Policy {
    pub(super) fn is_policy(object: &Object<'_>) -> bool {
        object.is("networking.k8s.io", "NetworkPolicy")
    }

    pub(super) fn is_of_another_language(object: &Object<'_>) -> bool {
        OTHER_POLICY_LANGUAGES.contains(&(object.group, object.key.kind.as_str()))
    }

    pub(super) fn parse(object: &Object<'_>) -> Result<Self, Malformed> {
        object.root.only(&["apiVersion", "kind", "metadata", "spec", "status"])?;
        let spec = object.root.member("spec")?;
        spec.only(&["podSelector", "policyTypes", "ingress", "egress"])?;
        let ingress = Rule::parse_list(&spec.member("ingress")?, "from")?;
        let egress = Rule::parse_list(&spec.member("egress")?, "to")?;
        let types = spec.member("policyTypes")?.items()?;
        let (mut isolates_ingress, mut isolates_egress) = (false, false);
        for item in &types {
            match item.text()? {
                Some("Ingress") => isolates_ingress = true,
                Some("Egress") => isolates_egress = true,
                _ => return Err(item.malformed("must be `Ingress` or `Egress`")),
            }
        }
        if types.is_empty() {
            // As `SetDefaults_NetworkPolicy` does: an empty `egress` list is not yet an egress policy.
            (isolates_ingress, isolates_egress) = (true, !egress.is_empty());
        }
        let ignored = if !isolates_ingress && !ingress.is_empty() {
            Some(Direction::Ingress)
        } else if !isolates_egress && !egress.is_empty() {
            Some(Direction::Egress)
        } else {
            None
        };
        Ok(Policy {
            key: object.key.clone(),
            // An absent selector is an empty one, and an empty one selects the whole namespace.
            pods: Selector::parse(&spec.member("podSelector")?)?,
            ingress: isolates_ingress.then_some(ingress),
            egress: isolates_egress.then_some(egress),
            ignored,
        })
    }

    /// The rules of a direction; `None` if the policy does not isolate it.
    pub(super) fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    pub(super) fn rule_ref(&self, direction: Direction, index: usize) -> RuleRef {
        RuleRef { policy: self.key.clone(), direction, index }
    }
}

impl Rule {
    fn parse_list(field: &Field<'_>, peers: &str) -> Result<Vec<Self>, Malformed> {
        field.items()?.iter().map(|item| Rule::parse(item, peers)).collect()
    }

    fn parse(field: &Field<'_>, peers: &str) -> Result<Self, Malformed> {
        if field.is_absent() {
            // The API server would read it as `{}`, which allows everything; nobody means that by an empty line.
            return Err(field.malformed("must be a mapping"));
        }
        field.only(&[peers, "ports"])?;
        let peers = field.member(peers)?.items()?.iter().map(Peer::parse).collect::<Result<Vec<_>, _>>()?;
        let ports = field.member("ports")?.items()?.iter().map(PortMatch::parse).collect::<Result<Vec<_>, _>>()?;
        Ok(Rule { peers: (!peers.is_empty()).then_some(peers), ports })
    }

    pub(super) fn admits_port(&self, port: Port, destination: Option<&Workload>) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|ports| ports.admits(port, destination))
    }
}

impl Peer {
    fn parse(field: &Field<'_>) -> Result<Self, Malformed> {
        field.only(&["podSelector", "namespaceSelector", "ipBlock"])?;
        let (pods, namespaces) = (field.member("podSelector")?, field.member("namespaceSelector")?);
        let block = field.member("ipBlock")?;
        let selects = !pods.is_absent() || !namespaces.is_absent();
        match (selects, block.is_absent()) {
            (false, true) => Err(field.malformed("must have a `podSelector`, a `namespaceSelector` or an `ipBlock`")),
            (true, false) => Err(field.malformed("must not have an `ipBlock` beside a selector")),
            (false, false) => Ok(Peer::Block(AddressBlock::parse(&block)?)),
            (true, true) => Ok(Peer::Pods {
                // Absent pods are all pods of the namespaces; absent namespaces are only the policy's own.
                pods: Selector::parse(&pods)?,
                namespaces: if namespaces.is_absent() { None } else { Some(Selector::parse(&namespaces)?) },
            }),
        }
    }

    /// Whether the peer is found by its labels; `home` is the namespace of the policy.
    pub(super) fn selects(&self, home: &str, workload: &Workload, namespace_labels: &Labels) -> bool {
        match self {
            Peer::Block(_) => false,
            Peer::Pods { namespaces: None, pods } => workload.key.namespace == home && pods.matches(&workload.labels),
            Peer::Pods { namespaces: Some(namespaces), pods } => {
                namespaces.matches(namespace_labels) && pods.matches(&workload.labels)
            }
        }
    }
}

impl PortMatch {
    fn parse(field: &Field<'_>) -> Result<Self, Malformed> {
        field.only(&["protocol", "port", "endPort"])?;
        let protocol = Protocol::parse(&field.member("protocol")?)?;
        let (port, end_field) = (field.member("port")?, field.member("endPort")?);
        let end = end_field.port()?;
        let ports = if port.is_absent() {
            PortSet::All
        } else if port.is_text() {
            let name = port.required_text()?;
            if !is_port_name(name) {
                return Err(port.malformed("must be a number, or a name of at most 15 letters, digits and hyphens"));
            }
            PortSet::Named(name.to_owned())
        } else {
            let first = port.port()?.ok_or_else(|| port.malformed("is required"))?;
            PortSet::Range(first, end.unwrap_or(first))
        };
        match (&ports, end) {
            (PortSet::Range(first, last), _) if last < first => {
                Err(end_field.malformed("must not be smaller than `port`"))
            }
            (PortSet::All | PortSet::Named(_), Some(_)) => Err(end_field.malformed("needs a numeric `port`")),
            _ => Ok(PortMatch { protocol, ports }),
        }
    }

    /// Whether the entry admits the port of this destination; `None` is an address outside.
    pub fn admits(&self, port: Port, destination: Option<&Workload>) -> bool {
        self.protocol == port.protocol
            && match &self.ports {
                PortSet::All => true,
                PortSet::Range(first, last) => (*first..=*last).contains(&port.number),
                PortSet::Named(name) => {
                    destination.and_then(|workload| workload.named_port(name, port.protocol)) == Some(port)
                }
            }
    }
}

/// An IANA service name, as `IsValidPortName` of Kubernetes has it.
fn is_port_name(name: &str) -> bool {
    let edge_hyphen = name.starts_with('-') || name.ends_with('-');
    name.len() <= 15
        && !edge_hyphen
        && !name.contains("--")
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
}

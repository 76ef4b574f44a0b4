//! Workloads: the templates that pods are made from. All pods of a workload have the same labels and ports, so that
//! for policies they are one.

use std::fmt;

use super::field::{Field, Labels, Malformed};
use super::object::{Object, ObjectKey};

/// A workload of one [`Cluster`](super::Cluster); means nothing in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadId(pub(super) u32);

/// Pods that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The object that makes the pods.
    pub key: ObjectKey,
    /// The labels of the pods.
    pub labels: Labels,
    /// The ports that the containers declare.
    pub ports: Vec<ContainerPort>,
    /// How the workload came into the analysis.
    pub origin: Origin,
    /// Whether the pods use the network of their node.
    pub network: PodNetwork,
}

/// How a workload came into the analysis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From a rendered object that holds a pod template.
    Rendered,
    /// Pods that an operator makes from a rendered custom resource; told by the caller.
    Operator,
    /// Pods of somebody else, such as an ingress controller; told by the caller. What strangers say to each other is
    /// left out of the [`Relation`](super::Relation).
    Stranger,
}

/// The network that pods live in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodNetwork {
    /// Each pod has its own address.
    Own,
    /// `hostNetwork: true`: the pod has the addresses of its node.
    ///
    /// What policies do to such pods is undefined. Most implementations cannot tell them from the node: no policy
    /// selects them and no pod selector finds them, and so it is here. See "`NetworkPolicy` and `hostNetwork` pods" on
    /// <https://kubernetes.io/docs/concepts/services-networking/network-policies/>.
    Host,
}

/// A port that a container declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPort {
    /// The name, if it has one.
    pub name: Option<String>,
    /// Where the container listens.
    pub port: Port,
}

/// A port number with its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// From 1 to 65535.
    pub number: u16,
    /// The transport.
    pub protocol: Protocol,
}

/// The transports that policies know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// What is meant where nothing is said.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
    /// Streams over SCTP.
    Sctp,
}

impl Port {
    /// A TCP port.
    pub fn tcp(number: u16) -> Self {
        Port { number, protocol: Protocol::Tcp }
    }

    /// A UDP port.
    pub fn udp(number: u16) -> Self {
        Port { number, protocol: Protocol::Udp }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        })
    }
}

impl Protocol {
    /// The protocol that a field names; TCP if absent.
    pub(super) fn parse(field: &Field<'_>) -> Result<Self, Malformed> {
        match field.text()? {
            None | Some("TCP") => Ok(Protocol::Tcp),
            Some("UDP") => Ok(Protocol::Udp),
            Some("SCTP") => Ok(Protocol::Sctp),
            Some(_) => Err(field.malformed("must be `TCP`, `UDP` or `SCTP`")),
        }
    }
}

impl Workload {
    /// Pods that the caller knows of.
    pub fn new(key: ObjectKey, origin: Origin, labels: Labels, ports: Vec<ContainerPort>) -> Self {
        Workload { key, labels, ports, origin, network: PodNetwork::Own }
    }

    /// The DNS server of a cluster, as `kubeadm` and the managed offerings install it.
    pub fn kube_dns() -> Self {
        let port = |name: &str, port| ContainerPort { name: Some(name.to_owned()), port };
        Workload::new(
            ObjectKey::new("Deployment", "kube-system", "coredns"),
            Origin::Stranger,
            Labels::from([("k8s-app".to_owned(), "kube-dns".to_owned())]),
            vec![port("dns", Port::udp(53)), port("dns-tcp", Port::tcp(53))],
        )
    }

    /// Where the name leads; the first of several, as Kubernetes resolves it.
    pub fn named_port(&self, name: &str, protocol: Protocol) -> Option<Port> {
        let mut named = self.ports.iter().filter(|port| port.name.as_deref() == Some(name));
        named.find(|port| port.port.protocol == protocol).map(|port| port.port)
    }

    /// The workload of an object that holds a pod template; `None` for every other object.
    pub(super) fn read(object: &Object<'_>) -> Result<Option<Self>, Malformed> {
        let template = match template_path(object) {
            None => return Ok(None),
            Some(path) => object.root.at(path)?,
        };
        let mut labels = template.at(&["metadata", "labels"])?.labels()?;
        if object.is("batch", "Job") {
            // The Job controller adds these to its pods. Not handled: labels that differ from pod to pod.
            for key in ["job-name", "batch.kubernetes.io/job-name"] {
                labels.insert(key.to_owned(), object.key.name.clone());
            }
        }
        let spec = template.member("spec")?;
        let mut ports = Vec::new();
        for container in spec.member("containers")?.items()? {
            read_ports(&container, &mut ports)?;
        }
        for container in spec.member("initContainers")?.items()? {
            // An init container that restarts is a sidecar: it listens as long as the pod lives.
            if container.member("restartPolicy")?.text()? == Some("Always") {
                read_ports(&container, &mut ports)?;
            }
        }
        let network = match spec.member("hostNetwork")?.boolean()? {
            Some(true) => PodNetwork::Host,
            _ => PodNetwork::Own,
        };
        Ok(Some(Workload { key: object.key.clone(), labels, ports, origin: Origin::Rendered, network }))
    }
}

/// Where an object keeps its pod template, which is a pod without a kind.
pub(super) fn template_path(object: &Object<'_>) -> Option<&'static [&'static str]> {
    match (object.group, object.key.kind.as_str()) {
        ("", "Pod") => Some(&[]),
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch", "Job")
        | ("argoproj.io", "Rollout") => Some(&["spec", "template"]),
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

fn read_ports(container: &Field<'_>, ports: &mut Vec<ContainerPort>) -> Result<(), Malformed> {
    for field in container.member("ports")?.items()? {
        let number = field.member("containerPort")?;
        let number = number.port()?.ok_or_else(|| number.malformed("is required"))?;
        let protocol = Protocol::parse(&field.member("protocol")?)?;
        let name = field.member("name")?.text()?.map(str::to_owned);
        ports.push(ContainerPort { name, port: Port { number, protocol } });
    }
    Ok(())
}

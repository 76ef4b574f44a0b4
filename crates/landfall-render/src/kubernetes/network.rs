//! Network policies, generated from the declared edges: what is not declared is closed.
//!
//! Every namespace denies all traffic and allows DNS. Each service and store then has one policy that opens exactly what
//! is declared: callers, the ingress controller where it is exposed, Prometheus where it is scraped; and the other way
//! its targets. Ports are those of the containers, since a policy is judged after a Service was resolved.
//!
//! Not handled: names. A `NetworkPolicy` knows addresses only, so an external that does not list its `addresses` may be
//! at any public one. Not handled: IPv6 outside the cluster, and a DNS cache on each node at a link-local address.

use std::collections::{BTreeMap, BTreeSet};

use crate::json::json;
use landfall_model::{Architecture, Element, Engine, Name, Service, Spanned, Store, TraceSoftware, Transport};
use serde_json::Value;

use super::edges::Edges;
use super::metadata::Subject;
use super::namespace;
use super::stores::{Place, StoreAccess};
use crate::object::{Object, unless_empty};

/// Ranges that are not the internet: private networks, and link-local addresses with the metadata of cloud machines.
const PRIVATE: [&str; 4] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", LINK_LOCAL];
const LINK_LOCAL: &str = "169.254.0.0/16";

/// The ports of API servers. A policy cannot name the API server, which is no pod: it sees the address behind the
/// Service `kubernetes`, on 6443 in most clusters and on 443 in managed ones.
const API_SERVER: [u16; 2] = [443, 6443];

/// Where Istio's control plane gives sidecars their configuration and certificates, and where a sidecar shows the
/// metrics of its program together with its own (istio.io, "Ports used by Istio").
const ISTIO_NAMESPACE: &str = "istio-system";
const ISTIOD: u16 = 15012;
const MERGED_METRICS: u16 = 15020;

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    /// Pods by their namespace and labels.
    Pods(String, BTreeMap<String, String>),
    /// Every pod of a namespace.
    Namespace(String),
    /// A range of addresses.
    Block(String),
    /// Any address outside the cluster's private networks.
    Public,
    /// Any address but link-local ones.
    Anywhere,
}

/// One direction of a policy: to or from whom, and on which ports.
#[derive(Debug, Default)]
struct Rules(BTreeMap<Peer, BTreeSet<(Transport, u16)>>);

impl Rules {
    fn allow(&mut self, peer: Peer, transport: Transport, port: u16) {
        self.0.entry(peer).or_default().insert((transport, port));
    }

    fn allow_tcp(&mut self, peer: &Peer, ports: impl IntoIterator<Item = u16>) {
        ports.into_iter().for_each(|port| self.allow(peer.clone(), Transport::Tcp, port));
    }

    /// The rules; `direction` is `from` or `to`.
    fn render(&self, namespace: &str, direction: &str) -> Value {
        let rule = |(peer, ports): (&Peer, &BTreeSet<(Transport, u16)>)| {
            let port = |(transport, port): &(Transport, u16)| json!({ "protocol": if *transport == Transport::Udp { "UDP" } else { "TCP" }, "port": port });
            json!({ direction: [peer.render(namespace)], "ports": ports.iter().map(port).collect::<Vec<_>>() })
        };
        unless_empty(self.0.iter().map(rule).collect())
    }
}

impl Peer {
    /// The peer as a policy in `namespace` says it.
    fn render(&self, namespace: &str) -> Value {
        let in_namespace = |name: &str| json!({ "matchLabels": { "kubernetes.io/metadata.name": name } });
        match self {
            Self::Pods(own, labels) if own == namespace => json!({ "podSelector": { "matchLabels": labels } }),
            Self::Pods(other, labels) => {
                json!({ "namespaceSelector": in_namespace(other), "podSelector": { "matchLabels": labels } })
            }
            Self::Namespace(name) => json!({ "namespaceSelector": in_namespace(name) }),
            Self::Block(block) => json!({ "ipBlock": { "cidr": block } }),
            Self::Public => json!({ "ipBlock": { "cidr": "0.0.0.0/0", "except": PRIVATE } }),
            Self::Anywhere => json!({ "ipBlock": { "cidr": "0.0.0.0/0", "except": [LINK_LOCAL] } }),
        }
    }
}

/// The policies of every namespace: all traffic is denied, DNS is allowed, and Istio's control plane where there is one.
pub(super) fn of_namespaces(architecture: &Architecture) -> Vec<Object> {
    let mut objects = Vec::new();
    for (namespace, span) in namespace::all(architecture) {
        let subject = Subject::platform(architecture, namespace, "network", "services", span);
        let mut add = |name: &str, spec: Value| objects.push(subject.object(name, policy(&subject, name, spec)));
        add("default-deny", json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }));
        let dns = json!({
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [{
                "to": [{
                    "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } },
                    "podSelector": { "matchLabels": { "k8s-app": "kube-dns" } },
                }],
                "ports": [{ "protocol": "UDP", "port": 53 }, { "protocol": "TCP", "port": 53 }],
            }],
        });
        add("allow-dns", dns);
        if architecture.document.platform.mesh.is_some() {
            let mut egress = Rules::default();
            egress.allow_tcp(&Peer::Namespace(ISTIO_NAMESPACE.to_owned()), [ISTIOD]);
            let spec = json!({
                "podSelector": {},
                "policyTypes": ["Egress"],
                "egress": egress.render(namespace, "to"),
            });
            add("allow-istiod", spec);
        }
    }
    objects
}

fn policy(subject: &Subject<'_>, name: &str, spec: Value) -> Value {
    let mut policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": subject.metadata(name),
    });
    // `json!` copies a value that it is given, and these are the largest objects.
    policy["spec"] = spec;
    policy
}

/// The policy of a service.
pub(super) fn of_service(
    architecture: &Architecture,
    edges: &Edges<'_>,
    subject: &Subject<'_>,
    name: &Spanned<Name>,
    service: &Service,
) -> Object {
    let element = Element::Service(name.value.clone());
    let (mut ingress, mut egress) = (Rules::default(), Rules::default());
    for edge in edges.to(&element) {
        if let Element::Service(_) = edge.from {
            ingress.allow(service_peer(architecture, &edge.from), edge.transport, edge.port);
        }
    }
    let platform = &architecture.document.platform;
    if let Some(expose) = &service.expose
        && let Some((_, port)) = service.port_named(expose.port.as_ref().map(|port| &port.value))
    {
        ingress.allow_tcp(&Peer::Namespace(platform.ingress.namespace.to_string()), [port.port.get()]);
    }
    let observability = &architecture.document.observability;
    let monitoring = Peer::Namespace(observability.namespace.to_string());
    if observability.metrics.is_some() && service.metrics.scrape.value {
        let port = service.port_named(service.metrics.port.as_ref().map(|port| &port.value));
        let prometheus = prometheus(architecture);
        ingress.allow_tcp(&prometheus, port.map(|(_, port)| port.port.get()));
        ingress.allow_tcp(&prometheus, platform.mesh.as_ref().map(|_| MERGED_METRICS));
    }

    for edge in edges.from(&element) {
        match &edge.to {
            Element::Service(_) => egress.allow(service_peer(architecture, &edge.to), edge.transport, edge.port),
            Element::Store(store) => {
                if let Some(access) = edges.store(store.as_str()) {
                    let engine = architecture.store(store.as_str()).map(|store| store.engine.value);
                    egress.allow(store_peer(access, engine), edge.transport, access.port);
                }
            }
            Element::External(external) => {
                let external = architecture.external(external.as_str());
                let blocks: Vec<&str> =
                    external.iter().flat_map(|external| &external.addresses).map(|block| block.as_str()).collect();
                if blocks.is_empty() {
                    egress.allow(Peer::Public, edge.transport, edge.port);
                }
                for block in blocks {
                    egress.allow(Peer::Block(block.to_owned()), edge.transport, edge.port);
                }
            }
            Element::Client => {}
        }
    }
    egress.allow_tcp(&monitoring, trace_ports(architecture).iter().copied());
    of_pods(subject, &subject.selector(), &ingress, &egress)
}

/// The pods of Prometheus, by the label that its operator and its chart give them. The namespace has others too, such as
/// the collector of traces, which have nothing to ask of a service.
fn prometheus(architecture: &Architecture) -> Peer {
    let labels = BTreeMap::from([("app.kubernetes.io/name".to_owned(), "prometheus".to_owned())]);
    Peer::Pods(architecture.document.observability.namespace.to_string(), labels)
}

/// The ports on which the collector of traces takes spans: OTLP over gRPC and over HTTP, or Zipkin's own.
fn trace_ports(architecture: &Architecture) -> &'static [u16] {
    match architecture.document.observability.traces.as_ref().map(|traces| traces.stack.value) {
        Some(TraceSoftware::Jaeger | TraceSoftware::Tempo) => &[4317, 4318],
        Some(TraceSoftware::Zipkin) => &[9411],
        None => &[],
    }
}

/// The policy of a store whose pods are in the cluster: its clients, its own members, its operator, Prometheus, and the
/// store that keeps its backups.
pub(super) fn of_store(
    architecture: &Architecture,
    edges: &Edges<'_>,
    subject: &Subject<'_>,
    name: &Spanned<Name>,
    store: &Store,
) -> Option<Object> {
    let access = edges.store(name.as_str())?;
    let Place::Pods(pods) = &access.place else { return None };
    let element = Element::Store(name.value.clone());
    let (mut ingress, mut egress) = (Rules::default(), Rules::default());
    for edge in edges.to(&element) {
        if let Element::Service(_) = edge.from {
            ingress.allow(service_peer(architecture, &edge.from), edge.transport, access.port);
        }
    }
    let members = store_peer(access, Some(store.engine.value));
    ingress.allow_tcp(&members, pods.member_ports.iter().copied());
    egress.allow_tcp(&members, pods.member_ports.iter().copied());
    if let Some(operator) = &pods.operator {
        ingress.allow_tcp(&Peer::Namespace(operator.namespace.to_owned()), operator.ports.iter().copied());
        if operator.calls_api_server {
            egress.allow_tcp(&Peer::Anywhere, API_SERVER);
        }
    }
    let observability = &architecture.document.observability;
    if observability.metrics.is_some() {
        ingress.allow_tcp(&prometheus(architecture), pods.metrics_port);
    }
    if let Some(archive) = store.backup.as_ref().and_then(|backup| backup.to.as_ref())
        && let Some(to) = edges.store(archive.as_str())
    {
        egress.allow(store_peer(to, Some(Engine::S3)), Transport::Tcp, to.port);
    }
    for other in edges.backed_up_to(name.as_str()) {
        if let Place::Pods(_) = other.place {
            ingress.allow_tcp(&store_peer(other, None), [access.port]);
        }
    }
    Some(of_pods(subject, &json!(&pods.match_labels), &ingress, &egress))
}

fn of_pods(subject: &Subject<'_>, selector: &Value, ingress: &Rules, egress: &Rules) -> Object {
    let spec = json!({
        "podSelector": { "matchLabels": selector },
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress.render(subject.namespace, "from"),
        "egress": egress.render(subject.namespace, "to"),
    });
    subject.object("networkpolicy", policy(subject, subject.name, spec))
}

fn service_peer(architecture: &Architecture, service: &Element) -> Peer {
    let labels = [
        ("app.kubernetes.io/name".to_owned(), service.name().to_owned()),
        ("app.kubernetes.io/part-of".to_owned(), architecture.document.name.to_string()),
    ];
    Peer::Pods(architecture.namespace_of(service).to_string(), BTreeMap::from(labels))
}

/// A managed service stands in the provider's network, at a private address that nobody knows before it is made; an
/// object store of a provider stands on the internet.
fn store_peer(access: &StoreAccess, engine: Option<Engine>) -> Peer {
    match &access.place {
        Place::Pods(pods) => Peer::Pods(pods.namespace.to_string(), pods.match_labels.clone()),
        Place::Outside if engine == Some(Engine::S3) => Peer::Public,
        Place::Outside => Peer::Anywhere,
    }
}

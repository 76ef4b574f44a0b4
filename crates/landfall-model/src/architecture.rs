//! An architecture: the document of one environment with its names resolved.

use std::fmt;

use crate::document::{
    Document, Edge, EdgeLayer, Engine, Environment, Expose, External, NodePool, Notify, Region, RegionRole, Rolling,
    Rollout, Service, ServiceKind, ServicePort, Store, StoreProvider,
};
use crate::span::{Span, Spanned};
use crate::units::{Name, Port, Target};

/// The document of one environment with its names resolved.
///
/// Services, stores and externals that the environment does not have are not in the document any more.
#[derive(Debug, Clone)]
pub struct Architecture {
    /// The document.
    pub document: Document,
    /// The environment, or `None` for the file as it stands.
    pub environment: Option<Name>,
    /// Every declared edge, in the order of services and of their `uses`.
    pub connections: Vec<Connection>,
}

/// Something that can be an end of an edge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// Whoever stands outside.
    Client,
    /// A service.
    Service(Name),
    /// A store.
    Store(Name),
    /// An external.
    External(Name),
}

impl Element {
    /// Its name in the file.
    pub fn name(&self) -> &str {
        match self {
            Self::Client => "client",
            Self::Service(name) | Self::Store(name) | Self::External(name) => name.as_str(),
        }
    }
}

/// `service.checkout`: how findings and waivers name it.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Service(name) => write!(f, "service.{name}"),
            Self::Store(name) => write!(f, "store.{name}"),
            Self::External(name) => write!(f, "external.{name}"),
        }
    }
}

/// What an edge does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Sends a request and waits for the answer.
    Call,
    /// Reads from a store.
    Read,
    /// Writes to a store.
    Write,
    /// Puts results into a cache.
    Cache,
    /// Publishes to a topic or queue.
    Publish,
    /// Consumes from a topic or queue.
    Consume,
    /// Stores a record or an object for good.
    Store,
    /// Sends a message and waits for the receipt only.
    Send,
    /// Asks again and again for what is new.
    Poll,
    /// Asks a question that changes nothing.
    Query,
}

impl Verb {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Read => "read",
            Self::Write => "write",
            Self::Cache => "cache",
            Self::Publish => "publish",
            Self::Consume => "consume",
            Self::Store => "store",
            Self::Send => "send",
            Self::Poll => "poll",
            Self::Query => "query",
        }
    }

    /// Whether data flows from the service to the target.
    pub fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Cache | Self::Publish | Self::Store | Self::Send)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A declared edge with its ends resolved.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Who opens the connection.
    pub from: Element,
    /// Who accepts it.
    pub to: Element,
    /// What it does.
    pub verb: Verb,
    /// The topic, queue, bucket, table or path.
    pub detail: Option<String>,
    /// The port on which the target accepts: of the container for a service.
    pub port: u16,
    /// The transport.
    pub transport: Transport,
    /// The edge as declared.
    pub edge: Edge,
    /// Where it is declared.
    pub span: Span,
}

/// `balance publish events/balance.changed`: how reports, metrics and diagrams name it.
impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.from.name(), self.verb, self.to.name())?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, "/{detail}"))
    }
}

impl Edge {
    /// Every verb that the edge was given, with its target.
    pub fn verbs(&self) -> impl Iterator<Item = (Verb, &Spanned<Target>)> {
        [
            (Verb::Call, &self.call),
            (Verb::Read, &self.read),
            (Verb::Write, &self.write),
            (Verb::Cache, &self.cache),
            (Verb::Publish, &self.publish),
            (Verb::Consume, &self.consume),
            (Verb::Store, &self.store),
            (Verb::Send, &self.send),
            (Verb::Poll, &self.poll),
            (Verb::Query, &self.query),
        ]
        .into_iter()
        .filter_map(|(verb, target)| Some((verb, target.as_ref()?)))
    }
}

impl Service {
    /// Its ports by name: `port` is the port `http`, and comes first.
    pub fn all_ports(&self) -> Vec<(String, ServicePort)> {
        let short = self.port.map(|port| {
            let protocol = Spanned::default();
            ("http".to_owned(), ServicePort { port, service: None, protocol })
        });
        let named = self.ports.iter().map(|(name, port)| (name.to_string(), port.clone()));
        short.into_iter().chain(named).collect()
    }

    /// The port of that name, or the first one.
    pub fn port_named(&self, name: Option<&Name>) -> Option<(String, ServicePort)> {
        let ports = self.all_ports();
        match name {
            Some(name) => ports.into_iter().find(|(known, _)| known == name.as_str()),
            None => ports.into_iter().next(),
        }
    }

    /// Whether high availability is asked of it.
    pub fn must_be_available(&self) -> bool {
        !matches!(self.kind.value, ServiceKind::Mock | ServiceKind::ScheduledJob)
    }
}

impl ServicePort {
    /// The port of the Kubernetes Service.
    pub fn service_port(&self) -> Port {
        use crate::document::PortProtocol::{Grpc, Http, Tcp, Udp};
        match (&self.service, self.protocol.value) {
            (Some(port), _) => port.value,
            (None, Http) => Port::new(80),
            (None, Grpc | Tcp | Udp) => self.port.value,
        }
    }
}

impl Architecture {
    /// The namespace of everything that names no other.
    pub fn namespace(&self) -> &Name {
        let of_environment = self.environment().and_then(|environment| environment.namespace.as_ref());
        let of_platform = self.document.platform.namespace.as_ref();
        &of_environment.or(of_platform).unwrap_or(&self.document.name).value
    }

    /// The environment's declaration.
    pub fn environment(&self) -> Option<&Environment> {
        self.document.environments.get(self.environment.as_ref()?.as_str())
    }

    /// Who is told of releases.
    pub fn notify(&self) -> &[Notify] {
        let own = self.environment().and_then(|environment| environment.notify.as_ref());
        own.unwrap_or(&self.document.delivery.notify)
    }

    /// Whether every promise must hold here: the file as it stands counts as production.
    pub fn is_production(&self) -> bool {
        self.environment().is_none_or(|environment| environment.production.value)
    }

    /// The service of that name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.document.services.get(name)
    }

    /// The store of that name.
    pub fn store(&self, name: &str) -> Option<&Store> {
        self.document.stores.get(name)
    }

    /// Whether clients of the store must use TLS: as it says itself, otherwise as `security.encryption` says.
    pub fn encrypts_in_transit(&self, store: &Store) -> bool {
        let everywhere = &self.document.security.encryption.in_transit;
        store.encryption.in_transit.as_ref().unwrap_or(everywhere).value
    }

    /// The port on which clients reach the store. Each cloud has one of its own for clients of Kafka that show a
    /// username and a password.
    pub fn store_port(&self, store: &Store) -> u16 {
        let engine = store.engine.value;
        match (engine, store.provider.value) {
            (Engine::Kafka, StoreProvider::Aws) => return 9096,
            (Engine::Kafka, StoreProvider::Azure) => return 9093,
            (Engine::Kafka, StoreProvider::Gcp) => return 9092,
            _ => {}
        }
        if self.encrypts_in_transit(store) { engine.tls_port() } else { engine.port() }
    }

    /// The external of that name.
    pub fn external(&self, name: &str) -> Option<&External> {
        self.document.externals.get(name)
    }

    /// The element of that name; `client` is whoever stands outside.
    pub fn element(&self, name: &str) -> Option<Element> {
        let document = &self.document;
        let service = document.services.get_key_value(name).map(|(key, _)| Element::Service(key.value.clone()));
        let store = || document.stores.get_key_value(name).map(|(key, _)| Element::Store(key.value.clone()));
        let external = || document.externals.get_key_value(name).map(|(key, _)| Element::External(key.value.clone()));
        service.or_else(store).or_else(external).or_else(|| (name == "client").then_some(Element::Client))
    }

    /// Where an element is declared.
    pub fn span_of(&self, element: &Element) -> Span {
        let name = element.name();
        let key = match element {
            Element::Client => None,
            Element::Service(_) => self.document.services.get_key_value(name).map(|(key, _)| key),
            Element::Store(_) => self.document.stores.get_key_value(name).map(|(key, _)| key),
            Element::External(_) => self.document.externals.get_key_value(name).map(|(key, _)| key),
        };
        key.map_or(Span::NONE, |key| key.span)
    }

    /// The edges that begin at `element`.
    pub fn from<'a>(&'a self, element: &'a Element) -> impl Iterator<Item = &'a Connection> {
        self.connections.iter().filter(move |connection| connection.from == *element)
    }

    /// The edges that end at `element`.
    pub fn to<'a>(&'a self, element: &'a Element) -> impl Iterator<Item = &'a Connection> {
        self.connections.iter().filter(move |connection| connection.to == *element)
    }

    /// The region that serves users: the first of role `primary`.
    pub fn primary_region(&self) -> Option<(&Spanned<Name>, &Region)> {
        self.document.platform.regions.iter().find(|(_, region)| region.role.value == RegionRole::Primary)
    }

    /// The zones of the primary region.
    pub fn zones(&self) -> &[Spanned<Name>] {
        self.primary_region().map_or(&[], |(_, region)| region.zones.as_slice())
    }

    /// The node pools; `platform.nodes` is the pool `default`.
    pub fn pools(&self) -> Vec<(String, &NodePool)> {
        let platform = &self.document.platform;
        let short = platform.nodes.iter().map(|pool| ("default".to_owned(), pool));
        short.chain(platform.pools.iter().map(|(name, pool)| (name.to_string(), pool))).collect()
    }

    /// How a new version of a service replaces the old one: rolling, one more copy at a time, unless declared.
    pub fn rollout(&self, service: &Service) -> Spanned<Rollout> {
        let declared = service.rollout.as_ref().or(self.document.delivery.rollout.as_ref());
        declared.cloned().unwrap_or_else(|| Spanned::unwritten(Rollout::Rolling(Rolling::default())))
    }

    /// The exposed services.
    pub fn exposed(&self) -> impl Iterator<Item = (&Spanned<Name>, &Service, &Expose)> {
        self.document.services.iter().filter_map(|(name, service)| Some((name, service, service.expose.as_ref()?)))
    }

    /// The exposed services that a web application firewall stands before: their own one, or that of the whole platform.
    pub fn behind_firewall(&self) -> impl Iterator<Item = (&Spanned<Name>, &Service, &Expose)> {
        let of_all = self.document.platform.edge.iter().any(|layer| layer.value == EdgeLayer::Waf);
        self.exposed().filter(move |(_, _, expose)| of_all || expose.waf.value)
    }

    /// The namespace of a service or store; the platform's when it names none, or is neither.
    pub fn namespace_of(&self, element: &Element) -> &Name {
        let own = match element {
            Element::Service(name) => self.service(name.as_str()).and_then(|service| service.namespace.as_ref()),
            Element::Store(name) => self.store(name.as_str()).and_then(|store| store.namespace.as_ref()),
            Element::Client | Element::External(_) => None,
        };
        own.map_or_else(|| self.namespace(), |name| &name.value)
    }
}

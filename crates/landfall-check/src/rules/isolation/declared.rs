//! The relation that the file declares: its edges, and what exposure, monitoring, backups and traces add to them.

use std::collections::{BTreeMap, BTreeSet};

use landfall_model::{Architecture, Element, Engine, PortProtocol, Span, Transport};

use super::parties::{Party, TELEMETRY_PORTS};
use crate::cluster::{Port, Protocol};

/// A connection that must be possible.
pub(super) struct Wanted {
    pub(super) from: Party,
    pub(super) to: Party,
    /// Any of these ports will do: with TLS a store listens elsewhere.
    pub(super) ports: Vec<Port>,
    /// Where it is declared.
    pub(super) span: Span,
    /// Why it must be possible.
    pub(super) because: &'static str,
}

/// A connection to the outside that must be possible.
pub(super) struct WantedExit {
    pub(super) from: Element,
    pub(super) to: Element,
    pub(super) port: Port,
    pub(super) span: Span,
}

/// Everything that may connect.
pub(super) struct Declared {
    pub(super) wanted: Vec<Wanted>,
    pub(super) exits: Vec<WantedExit>,
    /// From, to and port of service edges.
    to_service: BTreeSet<(Party, Element, Port)>,
    /// From and to of store edges; the ports are those of the engine.
    to_store: BTreeSet<(Element, Element)>,
    client_ports: BTreeMap<Element, BTreeSet<Port>>,
    scrapes_stores: bool,
    sends_traces: bool,
}

/// The ports on which clients of an engine may reach it, the plain one first.
fn client_ports(engine: Engine) -> &'static [u16] {
    match engine {
        Engine::Postgres => &[5432],
        Engine::Mongodb => &[27017],
        Engine::Redis => &[6379, 6380, 26379],
        Engine::Kafka => &[9092, 9093, 9094, 9095, 9096],
        Engine::Rabbitmq => &[5672, 5671],
        Engine::S3 => &[8333, 8334, 9000, 443],
        Engine::Mqtt => &[1883, 8883],
        Engine::Elasticsearch => &[9200],
    }
}

fn port(number: u16, transport: Transport) -> Port {
    let protocol = match transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
    };
    Port { number, protocol }
}

impl Declared {
    pub(super) fn new(architecture: &Architecture) -> Self {
        let document = &architecture.document;
        let mut declared = Self {
            wanted: Vec::new(),
            exits: Vec::new(),
            to_service: BTreeSet::new(),
            to_store: BTreeSet::new(),
            client_ports: BTreeMap::new(),
            scrapes_stores: document.observability.metrics.is_some(),
            sends_traces: document.observability.traces.is_some(),
        };
        for (name, store) in &document.stores {
            let ports = client_ports(store.engine.value).iter().map(|number| Port::tcp(*number));
            declared.client_ports.insert(Element::Store(name.value.clone()), ports.collect());
        }
        declared.edges(architecture);
        for (name, service, expose) in architecture.exposed() {
            let port = service.port_named(expose.port.as_ref().map(|port| &port.value));
            if let Some((_, port)) = port {
                let port = Port::tcp(port.port.get());
                declared.service(
                    Party::Ingress,
                    Element::Service(name.value.clone()),
                    port,
                    expose.host.span,
                    "it is exposed",
                );
            }
        }
        if document.observability.metrics.is_some() {
            for (name, service) in document.services.iter().filter(|(_, service)| service.metrics.scrape.value) {
                let Some((_, metrics)) = service.port_named(service.metrics.port.as_ref().map(|port| &port.value))
                else {
                    continue;
                };
                if metrics.protocol.value != PortProtocol::Udp {
                    let port = Port::tcp(metrics.port.get());
                    declared.service(
                        Party::Monitoring,
                        Element::Service(name.value.clone()),
                        port,
                        name.span,
                        "it is scraped",
                    );
                }
            }
        }
        for (name, store) in &document.stores {
            if let Some(to) = store.backup.as_ref().and_then(|backup| backup.to.as_ref()) {
                declared.to_store.insert((Element::Store(name.value.clone()), Element::Store(to.value.clone())));
            }
        }
        declared
    }

    fn edges(&mut self, architecture: &Architecture) {
        for connection in &architecture.connections {
            let Element::Service(_) = connection.from else { continue };
            let from = Party::Element(connection.from.clone());
            let at = port(connection.port, connection.transport);
            let outside = match &connection.to {
                Element::Store(name) => {
                    architecture.store(name.as_str()).is_some_and(|store| store.provider.is_managed())
                }
                Element::External(_) => true,
                Element::Service(_) | Element::Client => false,
            };
            if outside {
                let (from, to) = (connection.from.clone(), connection.to.clone());
                self.exits.push(WantedExit { from, to, port: at, span: connection.span });
                continue;
            }
            if let Element::Store(_) = connection.to {
                // One store edge stands for all verbs to that store.
                if self.to_store.insert((connection.from.clone(), connection.to.clone())) {
                    let ports = self.client_ports[&connection.to].iter().copied().filter(|known| *known != at);
                    let ports = std::iter::once(at).chain(ports).collect();
                    let to = Party::Element(connection.to.clone());
                    self.wanted.push(Wanted {
                        from,
                        to,
                        ports,
                        span: connection.span,
                        because: "the file declares it",
                    });
                }
            } else {
                self.service(from, connection.to.clone(), at, connection.span, "the file declares it");
            }
        }
    }

    fn service(&mut self, from: Party, to: Element, port: Port, span: Span, because: &'static str) {
        if self.to_service.insert((from.clone(), to.clone(), port)) {
            self.wanted.push(Wanted { from, to: Party::Element(to), ports: vec![port], span, because });
        }
    }

    /// Whether the file lets `from` connect to the port of `to`.
    pub(super) fn allows(&self, from: &Party, to: &Party, port: Port) -> bool {
        // Policies admit the namespace of the monitoring, where the collector stands too.
        let from = if *from == Party::Telemetry { &Party::Monitoring } else { from };
        if from == to {
            return true;
        }
        match (from, to) {
            (Party::Element(_), Party::Telemetry) => self.sends_traces && TELEMETRY_PORTS.contains(&port.number),
            (_, Party::Element(Element::Service(_))) => {
                let Party::Element(element) = to else { return false };
                self.to_service.contains(&(from.clone(), element.clone(), port))
            }
            (Party::Element(from), Party::Element(to @ Element::Store(_))) => {
                self.is_client_port(to, port) && self.to_store.contains(&(from.clone(), to.clone()))
            }
            (Party::Monitoring, Party::Element(to @ Element::Store(_))) => {
                self.scrapes_stores && !self.is_client_port(to, port)
            }
            _ => false,
        }
    }

    fn is_client_port(&self, store: &Element, port: Port) -> bool {
        self.client_ports.get(store).is_some_and(|ports| ports.contains(&port))
    }
}

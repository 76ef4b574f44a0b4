//! The ports of a service: as its containers serve them, and as its Kubernetes Service shows them.

use crate::json::json;
use landfall_model::{PortProtocol, Service};
use serde_json::Value;

/// A port of a service.
#[derive(Debug, Clone)]
pub(super) struct ServedPort {
    /// Its name in the file.
    pub(super) name: String,
    /// The port of the container.
    pub(super) container: u16,
    /// The port of the Kubernetes Service.
    pub(super) service: u16,
    protocol: PortProtocol,
}

/// The ports of a service, the first one first.
///
/// A Kubernetes Service has each port once. The first HTTP port is 80 unless it says otherwise; one that would take a
/// port that is taken keeps the number of its container.
pub(super) fn served(service: &Service) -> Vec<ServedPort> {
    let mut ports: Vec<ServedPort> = Vec::new();
    for (name, port) in service.all_ports() {
        let mut served = ServedPort {
            name,
            container: port.port.get(),
            service: port.service_port().get(),
            protocol: port.protocol.value,
        };
        let taken =
            ports.iter().any(|other| other.service == served.service && other.transport() == served.transport());
        if taken && port.service.is_none() {
            served.service = served.container;
        }
        ports.push(served);
    }
    ports
}

impl ServedPort {
    /// `TCP` or `UDP`.
    pub(super) fn transport(&self) -> &'static str {
        if self.protocol == PortProtocol::Udp { "UDP" } else { "TCP" }
    }

    /// Whether requests are spoken on it: HTTP or gRPC.
    pub(super) fn is_http(&self) -> bool {
        matches!(self.protocol, PortProtocol::Http | PortProtocol::Grpc)
    }

    /// The name by which Kubernetes knows the port of the container: at most 15 characters with a letter among them.
    fn label(&self) -> Option<&str> {
        let fits =
            self.name.len() <= 15 && self.name.contains(|c: char| c.is_ascii_lowercase()) && !self.name.contains("--");
        fits.then_some(self.name.as_str())
    }

    /// How others refer to the port of the container: by its name if it has one.
    pub(super) fn reference(&self) -> Value {
        self.label().map_or_else(|| json!(self.container), |name| json!(name))
    }

    /// Its entry in the container.
    pub(super) fn of_container(&self) -> Value {
        json!({
            "name": self.label(),
            "containerPort": self.container,
            "protocol": self.transport(),
        })
    }

    /// Its entry in the Kubernetes Service.
    pub(super) fn of_service(&self) -> Value {
        // gRPC is HTTP/2 without TLS, which proxies only speak when they are told.
        let application = match self.protocol {
            PortProtocol::Http => Some("http"),
            PortProtocol::Grpc => Some("kubernetes.io/h2c"),
            PortProtocol::Tcp | PortProtocol::Udp => None,
        };
        json!({
            "name": &self.name,
            "protocol": self.transport(),
            "appProtocol": application,
            "port": self.service,
            "targetPort": self.reference(),
        })
    }
}

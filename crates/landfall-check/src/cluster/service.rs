//! Services: names in front of workloads.

use super::field::{Field, Labels, Malformed};
use super::object::{Object, ObjectKey};
use super::workload::{Port, Protocol, Workload};

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub key: ObjectKey,
    /// The labels of the pods behind it; empty if its endpoints come from elsewhere.
    pub selector: Labels,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// The name, if it has one.
    pub name: Option<String>,
    /// The port under which clients know it.
    pub port: Port,
    /// The port of the pods.
    pub target: TargetPort,
}

/// Where a Service sends its connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// To this number.
    Number(u16),
    /// To the port that the pod declares under this name.
    Named(String),
}

impl ServicePort {
    /// The port of a pod behind the Service; `None` for a name that the pod does not declare.
    pub fn on(&self, workload: &Workload) -> Option<Port> {
        match &self.target {
            TargetPort::Number(number) => Some(Port { number: *number, protocol: self.port.protocol }),
            TargetPort::Named(name) => workload.named_port(name, self.port.protocol),
        }
    }
}

impl Service {
    pub(super) fn parse(object: &Object<'_>) -> Result<Self, Malformed> {
        let spec = object.root.member("spec")?;
        let ports = spec.member("ports")?.items()?.iter().map(ServicePort::parse).collect::<Result<Vec<_>, _>>()?;
        let selector = match spec.member("type")?.text()? {
            // A DNS alias: Kubernetes ignores its selector.
            Some("ExternalName") => Labels::new(),
            _ => spec.member("selector")?.labels()?,
        };
        Ok(Service { key: object.key.clone(), selector, ports })
    }
}

impl ServicePort {
    fn parse(field: &Field<'_>) -> Result<Self, Malformed> {
        let number = field.member("port")?;
        let number = number.port()?.ok_or_else(|| number.malformed("is required"))?;
        let protocol = Protocol::parse(&field.member("protocol")?)?;
        let target = field.member("targetPort")?;
        let target = if target.is_text() {
            TargetPort::Named(target.required_text()?.to_owned())
        } else {
            TargetPort::Number(target.port()?.unwrap_or(number))
        };
        let name = field.member("name")?.text()?.map(str::to_owned);
        Ok(ServicePort { name, port: Port { number, protocol }, target })
    }
}

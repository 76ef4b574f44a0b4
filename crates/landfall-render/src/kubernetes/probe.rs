//! Probes: how Kubernetes sees that a copy works.

use crate::json::json;
use landfall_model::{Finding, Name, Probe, Service, Spanned};
use serde_json::Value;

use super::ports::{self, ServedPort};

/// The probes of a service; null for one that it does not have.
pub(super) struct Probes {
    pub(super) live: Value,
    pub(super) ready: Value,
    pub(super) startup: Value,
}

/// Renders the probes. One that names no port of a service without ports cannot be asked: that is a finding.
pub(super) fn probes(name: &Spanned<Name>, service: &Service, findings: &mut Vec<Finding>) -> Probes {
    let ports = ports::served(service);
    let mut render = |which: &str, declared: &Option<Probe>| {
        let Some(declared) = declared else { return Value::Null };
        probe(declared, &ports).unwrap_or_else(|problem| {
            let span = [&declared.http, &declared.tcp, &declared.grpc]
                .into_iter()
                .flatten()
                .next()
                .map_or(name.span, |text| text.span);
            let message = format!("the `{which}` probe of `{name}` {problem}, so it is not rendered");
            findings.push(
                Finding::error("probe", span, message)
                    .on(format!("service.{name}"))
                    .help(format!("add `port` to the probe, or give the service one: `services.{name}.port: 8080`")),
            );
            Value::Null
        })
    };
    Probes {
        live: render("live", &service.probes.live),
        ready: render("ready", &service.probes.ready),
        startup: render("startup", &service.probes.startup),
    }
}

fn probe(probe: &Probe, ports: &[ServedPort]) -> Result<Value, &'static str> {
    let mut fields = serde_json::Map::new();
    if let Some(path) = &probe.http {
        fields.insert("httpGet".to_owned(), json!({ "path": &path.value, "port": reference(probe, ports)? }));
    } else if let Some(port) = &probe.tcp {
        fields.insert("tcpSocket".to_owned(), json!({ "port": named_or_number(port, ports)? }));
    } else if let Some(service) = &probe.grpc {
        // The gRPC probe takes numbers only.
        let first = || ports.first().map(|port| port.container);
        let port = probe.port.as_ref().map(|port| port.get()).or_else(first).ok_or("has no port to ask")?;
        let service = (!service.is_empty()).then_some(service.as_str());
        fields.insert("grpc".to_owned(), json!({ "port": port, "service": service }));
    } else {
        let command: Vec<&str> = probe.exec.iter().map(|word| word.as_str()).collect();
        fields.insert("exec".to_owned(), json!({ "command": command }));
    }
    // Written even where it is the default of Kubernetes: these are the numbers of every proof about failover.
    let delay = probe.delay.seconds();
    if delay > 0 {
        fields.insert("initialDelaySeconds".to_owned(), json!(delay));
    }
    fields.insert("periodSeconds".to_owned(), json!(probe.period.seconds().max(1)));
    fields.insert("timeoutSeconds".to_owned(), json!(probe.timeout.seconds().max(1)));
    fields.insert("failureThreshold".to_owned(), json!(probe.failures.value.max(1)));
    Ok(Value::Object(fields))
}

/// The port of an HTTP probe: its own, or the first of the service.
fn reference(probe: &Probe, ports: &[ServedPort]) -> Result<Value, &'static str> {
    match &probe.port {
        Some(port) => Ok(by_number(port.get(), ports)),
        None => ports.first().map(ServedPort::reference).ok_or("has no port to ask"),
    }
}

fn by_number(number: u16, ports: &[ServedPort]) -> Value {
    ports.iter().find(|port| port.container == number).map_or_else(|| json!(number), ServedPort::reference)
}

fn named_or_number(text: &str, ports: &[ServedPort]) -> Result<Value, &'static str> {
    match (ports.iter().find(|port| port.name == text), text.parse::<u16>()) {
        (Some(port), _) => Ok(port.reference()),
        (None, Ok(number)) if number != 0 => Ok(by_number(number, ports)),
        _ => Err("asks a port that the service does not serve"),
    }
}

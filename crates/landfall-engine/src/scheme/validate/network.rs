//! Ingresses and network policies.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::pod::port;
use super::{Fields as _, Findings, metadata, names};

pub(super) fn ingress(ingress: &Value, findings: &mut Findings) {
    let spec = ingress.at("spec");
    if spec.items("rules").is_empty() && spec.at("defaultBackend").is_null() {
        findings.invalid("spec", &Value::Null, "either `defaultBackend` or `rules` must be specified");
    }
    if spec.at("defaultBackend").is_object() {
        backend(spec.at("defaultBackend"), "spec.defaultBackend", findings);
    }
    for (index, rule) in spec.items("rules").iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        let host = rule.text("host");
        if host.parse::<IpAddr>().is_ok() {
            let detail = "must be a DNS name, not an IP address";
            findings.invalid(&format!("{field}.host"), &json!(host), detail);
        }
        if !host.is_empty() {
            host_name(host, &format!("{field}.host"), findings);
        }
        if rule.at("http").is_object() {
            paths(rule.at("http"), &format!("{field}.http.paths"), findings);
        }
    }
    for (index, tls) in spec.items("tls").iter().enumerate() {
        let field = format!("spec.tls[{index}]");
        for (index, host) in tls.items("hosts").iter().filter_map(Value::as_str).enumerate() {
            host_name(host, &format!("{field}.hosts[{index}]"), findings);
        }
        let secret = tls.text("secretName");
        if !secret.is_empty() {
            findings.names(&format!("{field}.secretName"), secret, names::subdomain(secret));
        }
    }
    let class = spec.at("ingressClassName").as_str();
    if let Some(class) = class {
        findings.names("spec.ingressClassName", class, names::subdomain(class));
    }
}

/// An older way to name the class, which must say the same when both are used by a new ingress.
pub(super) fn ingress_class(ingress: &Value, findings: &mut Findings) {
    const ANNOTATION: &str = "kubernetes.io/ingress.class";
    let annotated = ingress.at("metadata.annotations").get(ANNOTATION);
    let class = ingress.at("spec.ingressClassName");
    if let Some(annotated) = annotated.filter(|annotated| !class.is_null() && *annotated != class) {
        let detail = "must match `ingressClassName` when both are specified";
        findings.invalid(&format!("annotations.{ANNOTATION}"), annotated, detail);
    }
}

fn host_name(host: &str, field: &str, findings: &mut Findings) {
    let reasons = if host.contains('*') { names::wildcard(host) } else { names::subdomain(host) };
    findings.names(field, host, reasons);
}

fn paths(http: &Value, field: &str, findings: &mut Findings) {
    if http.items("paths").is_empty() {
        findings.required(field, "");
    }
    for (index, path) in http.items("paths").iter().enumerate() {
        let field = format!("{field}[{index}]");
        let (text, inner) = (path.text("path"), format!("{field}.path"));
        let mut refuse = |detail: &str| findings.invalid(&inner, &json!(text), detail);
        match path.text("pathType") {
            "" => {
                findings.required(&format!("{field}.pathType"), "pathType must be specified");
                continue;
            }
            "Exact" | "Prefix" => {
                if !text.starts_with('/') {
                    refuse("must be an absolute path");
                }
                for part in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|part| text.contains(**part)) {
                    refuse(&format!("must not contain '{part}'"));
                }
                for end in ["/..", "/."].iter().filter(|end| text.ends_with(**end)) {
                    refuse(&format!("cannot end with '{end}'"));
                }
            }
            "ImplementationSpecific" => {
                if !text.is_empty() && !text.starts_with('/') {
                    refuse("must be an absolute path");
                }
            }
            kind => {
                let choices = ["Exact", "ImplementationSpecific", "Prefix"];
                findings.not_supported(&format!("{field}.pathType"), &json!(kind), &choices);
            }
        }
        backend(path.at("backend"), &format!("{field}.backend"), findings);
    }
}

fn backend(backend: &Value, field: &str, findings: &mut Findings) {
    let (service, resource) = (backend.at("service"), backend.at("resource"));
    match (service.is_object(), resource.is_object()) {
        (true, true) => findings.invalid(field, &json!(""), "cannot set both resource and service backends"),
        (false, false) => findings.invalid(field, &json!(""), "resource or service backend is required"),
        (false, true) => {
            for name in ["kind", "name"] {
                let text = resource.text(name);
                let field = format!("{field}.resource.{name}");
                if text.is_empty() {
                    findings.required(&field, "");
                } else {
                    findings.names(&field, text, names::path_segment(text));
                }
            }
        }
        (true, false) => {
            let (name, inner) = (service.text("name"), format!("{field}.service.name"));
            if name.is_empty() {
                findings.required(&inner, "");
            } else {
                findings.names(&inner, name, names::label(name));
            }
            let (name, number) = (service.text("port.name"), service.integer("port.number").unwrap_or(0));
            match (name.is_empty(), number) {
                (true, 0) => findings.required(field, "port name or number is required"),
                (true, _) => findings.port(&format!("{field}.service.port.number"), &json!(number)),
                (false, 0) => findings.names(&format!("{field}.service.port.name"), name, names::port_name(name)),
                (false, _) => findings.invalid(field, &json!(""), "cannot set both port name & port number"),
            }
        }
    }
}

pub(super) fn policy(spec: &Value, findings: &mut Findings) {
    metadata::selector(spec.at("podSelector"), "spec.podSelector", findings);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in spec.items(direction).iter().enumerate() {
            let field = format!("spec.{direction}[{index}]");
            for (index, one) in rule.items("ports").iter().enumerate() {
                policy_port(one, &format!("{field}.ports[{index}]"), findings);
            }
            for (index, one) in rule.items(peers).iter().enumerate() {
                peer(one, &format!("{field}.{peers}[{index}]"), findings);
            }
        }
    }
    let types = spec.items("policyTypes");
    if types.len() > 2 {
        findings.invalid("spec.policyTypes", spec.at("policyTypes"), "may not specify more than two policyTypes");
        return;
    }
    for (index, kind) in types.iter().enumerate() {
        findings.choice(&format!("spec.policyTypes[{index}]"), kind, &["Ingress", "Egress"]);
    }
}

fn policy_port(one: &Value, field: &str, findings: &mut Findings) {
    findings.choice(&format!("{field}.protocol"), one.at("protocol"), &["TCP", "UDP", "SCTP"]);
    let (first, last, inner) = (one.at("port"), one.at("endPort"), format!("{field}.endPort"));
    if !first.is_null() {
        port(first, &format!("{field}.port"), findings);
    }
    let Some(end) = last.as_i64() else { return };
    match first {
        Value::Null => findings.invalid(&inner, last, "may not be specified when `port` is not specified"),
        Value::String(_) => findings.invalid(&inner, last, "may not be specified when `port` is non-numeric"),
        _ => {
            if first.as_i64().is_some_and(|first| end < first) {
                // Kubernetes shows the first port and not the last.
                findings.invalid(&inner, first, "must be greater than or equal to `port`");
            }
            findings.port(&inner, last);
        }
    }
}

fn peer(peer: &Value, field: &str, findings: &mut Findings) {
    for name in ["podSelector", "namespaceSelector"] {
        metadata::selector(peer.at(name), &format!("{field}.{name}"), findings);
    }
    let range = peer.at("ipBlock");
    if range.is_object() {
        let (text, inner) = (range.text("cidr"), format!("{field}.ipBlock.cidr"));
        if text.is_empty() {
            findings.required(&inner, "");
        } else if block(text, &inner, findings) {
            exceptions(range, &format!("{field}.ipBlock.except"), findings);
        }
    }
    match peer.as_object().map_or(0, serde_json::Map::len) {
        0 => findings.required(field, "must specify a peer"),
        1 => {}
        _ if range.is_object() => findings.forbidden(field, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

fn exceptions(range: &Value, field: &str, findings: &mut Findings) {
    let Some((outer, length)) = parsed(range.text("cidr")) else { return };
    for (index, text) in range.items("except").iter().filter_map(Value::as_str).enumerate() {
        let field = format!("{field}[{index}]");
        if !block(text, &field, findings) {
            continue;
        }
        let within = parsed(text).is_some_and(|(inner, inner_length)| {
            inner_length > length && network(inner, length) == network(outer, length)
        });
        if !within {
            findings.invalid(&field, &json!(text), "must be a strict subset of `cidr`");
        }
    }
}

/// A block of addresses. Answers whether it is one.
pub(super) fn block(text: &str, field: &str, findings: &mut Findings) -> bool {
    let known = parsed(text).is_some();
    if !known {
        let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        findings.invalid(field, &json!(text), detail);
    }
    known
}

fn parsed(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let (address, length) = (address.parse::<IpAddr>().ok()?, length.parse::<u8>().ok()?);
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

/// The first bits of an address, and of which family it is.
fn network(address: IpAddr, length: u8) -> (bool, u128) {
    match address {
        IpAddr::V4(four) => (true, u128::from(u32::from(four)).checked_shr(32 - u32::from(length)).unwrap_or(0)),
        IpAddr::V6(six) => (false, u128::from(six).checked_shr(128 - u32::from(length)).unwrap_or(0)),
    }
}

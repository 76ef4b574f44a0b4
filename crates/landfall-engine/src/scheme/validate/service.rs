//! Services, config maps, secrets, claims, ingresses, network policies and the smaller kinds of the core group.

use serde_json::{Value, json};

use super::{Fields as _, Findings, metadata, names, pod};
use crate::scheme::Resource;

/// Data of config maps and secrets together.
const MAX_DATA: usize = 1024 * 1024;

/// How a volume may be used.
const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

pub(super) fn check(resource: &Resource, new: &Value, _old: Option<&Value>, findings: &mut Findings) {
    match resource.kind.as_str() {
        "Service" => service(new, findings),
        "ConfigMap" => data(new, &["data", "binaryData"], "", findings),
        "Secret" => {
            data(new, &["data"], "data", findings);
            let keys: &[&str] = match new.text("type") {
                "kubernetes.io/tls" => &["tls.crt", "tls.key"],
                "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
                _ => &[],
            };
            for key in keys {
                if new.at("data").get(key).is_none() {
                    findings.required(&format!("data[{key}]"), "");
                }
            }
        }
        "PersistentVolumeClaim" => {
            let spec = new.at("spec");
            if spec.items("accessModes").is_empty() {
                findings.required("spec.accessModes", "at least 1 access mode is required");
            }
            for mode in spec.items("accessModes") {
                if !mode.as_str().is_some_and(|mode| MODES.contains(&mode)) {
                    findings.not_supported("spec.accessModes", mode, &MODES);
                }
            }
            if spec.at("resources.requests").get("storage").is_none() {
                findings.required("spec.resources[storage]", "");
            }
            pod::resources(spec.at("resources"), "spec.resources", findings);
        }
        "PersistentVolume" => {
            if new.items("spec.accessModes").is_empty() {
                findings.required("spec.accessModes", "");
            }
            if new.at("spec.capacity").is_null() {
                findings.required("spec.capacity", "");
            }
        }
        "Ingress" => ingress(new, findings),
        "NetworkPolicy" => network_policy(new.at("spec"), findings),
        _ => {}
    }
}

fn data(object: &Value, fields: &[&str], total_field: &str, findings: &mut Findings) {
    let mut size = 0;
    for field in fields {
        for (key, value) in object.at(field).as_object().into_iter().flatten() {
            findings.names(&format!("{field}[{key}]"), key, names::config_key(key));
            size += value.as_str().unwrap_or_default().len();
        }
    }
    // Base64 takes four letters for three bytes.
    let size = if total_field.is_empty() { size } else { size / 4 * 3 };
    if size > MAX_DATA {
        // Kubernetes prints a path without parts like this.
        findings.too_long(if total_field.is_empty() { "[]" } else { total_field }, MAX_DATA);
    }
}

fn service(service: &Value, findings: &mut Findings) {
    let spec = service.at("spec");
    let ports = spec.items("ports");
    let external = spec.text("type") == "ExternalName";
    if ports.is_empty() && !external && spec.text("clusterIP") != "None" {
        findings.required("spec.ports", "");
    }
    if external && spec.text("externalName").is_empty() {
        findings.required("spec.externalName", "");
    }
    let mut seen: Vec<(i64, &str)> = Vec::new();
    let mut seen_names: Vec<&str> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        let name = port.text("name");
        if name.is_empty() {
            if ports.len() > 1 {
                findings.required(&format!("{field}.name"), "");
            }
        } else {
            findings.names(&format!("{field}.name"), name, names::label(name));
            if seen_names.contains(&name) {
                findings.duplicate(&format!("{field}.name"), &json!(name));
            }
            seen_names.push(name);
        }
        let number = port.integer("port").unwrap_or(0);
        if !(1..=65535).contains(&number) {
            findings.invalid(&format!("{field}.port"), &json!(number), "must be between 1 and 65535, inclusive");
        }
        match port.at("targetPort") {
            Value::Number(target) if !target.as_i64().is_some_and(|target| (1..=65535).contains(&target)) => findings
                .invalid(
                    &format!("{field}.targetPort"),
                    port.at("targetPort"),
                    "must be between 1 and 65535, inclusive",
                ),
            Value::String(text) => findings.names(&format!("{field}.targetPort"), text, names::port_name(text)),
            _ => {}
        }
        if seen.contains(&(number, port.text("protocol"))) {
            findings.with_value(
                super::Reason::Duplicate,
                &field,
                &json!({ "port": number, "protocol": port.text("protocol") }),
                "",
            );
        }
        seen.push((number, port.text("protocol")));
    }
    metadata::labels(spec.at("selector"), "spec.selector", findings);
    let address = spec.text("clusterIP");
    if !matches!(address, "" | "None") && address.parse::<std::net::IpAddr>().is_err() {
        findings.invalid(
            "spec.clusterIPs[0]",
            &json!(address),
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
    }
}

fn ingress(ingress: &Value, findings: &mut Findings) {
    let spec = ingress.at("spec");
    if spec.items("rules").is_empty() && spec.at("defaultBackend").is_null() {
        findings.invalid("spec", &Value::Null, "either `defaultBackend` or `rules` must be specified");
    }
    for (index, rule) in spec.items("rules").iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        let host = rule.text("host");
        if !host.is_empty() {
            findings.names(&format!("{field}.host"), host, names::subdomain(host.strip_prefix("*.").unwrap_or(host)));
        }
        let paths = rule.at("http.paths");
        if rule.at("http").is_object() && rule.items("http.paths").is_empty() {
            findings.required(&format!("{field}.http.paths"), "");
        }
        for (index, path) in paths.as_array().into_iter().flatten().enumerate() {
            let field = format!("{field}.http.paths[{index}]");
            if path.text("pathType").is_empty() {
                findings.required(&format!("{field}.pathType"), "pathType must be specified");
                continue;
            }
            if !path.text("path").starts_with('/') && path.text("pathType") != "ImplementationSpecific" {
                findings.invalid(&format!("{field}.path"), &json!(path.text("path")), "must be an absolute path");
            }
            backend(path.at("backend"), &format!("{field}.backend"), findings);
        }
    }
    if spec.at("defaultBackend").is_object() {
        backend(spec.at("defaultBackend"), "spec.defaultBackend", findings);
    }
}

fn backend(backend: &Value, field: &str, findings: &mut Findings) {
    let service = backend.at("service");
    if service.is_null() {
        if backend.at("resource").is_null() {
            findings.required(field, "either resource or service is required");
        }
        return;
    }
    if service.text("name").is_empty() {
        findings.required(&format!("{field}.service.name"), "");
    }
    if service.at("port.name").is_null() && service.at("port.number").is_null() {
        findings.required(&format!("{field}.service.port"), "port name or number is required");
    }
}

fn network_policy(spec: &Value, findings: &mut Findings) {
    metadata::selector(spec.at("podSelector"), "spec.podSelector", findings);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in spec.items(direction).iter().enumerate() {
            let field = format!("spec.{direction}[{index}]");
            for (index, port) in rule.items("ports").iter().enumerate() {
                let field = format!("{field}.ports[{index}]");
                match port.at("port") {
                    Value::Number(number) if !number.as_i64().is_some_and(|number| (1..=65535).contains(&number)) => {
                        findings.invalid(
                            &format!("{field}.port"),
                            port.at("port"),
                            "must be between 1 and 65535, inclusive",
                        );
                    }
                    Value::String(text) => findings.names(&format!("{field}.port"), text, names::port_name(text)),
                    _ => {}
                }
            }
            for (index, peer) in rule.items(peers).iter().enumerate() {
                let field = format!("{field}.{peers}[{index}]");
                let block = peer.at("ipBlock");
                if peer.as_object().is_none_or(serde_json::Map::is_empty) {
                    findings.required(&field, "must specify a peer");
                } else if block.is_object() && peer.as_object().is_some_and(|peer| peer.len() > 1) {
                    findings.forbidden(&field, "may not specify both ipBlock and another peer");
                }
                metadata::selector(peer.at("podSelector"), &format!("{field}.podSelector"), findings);
                metadata::selector(peer.at("namespaceSelector"), &format!("{field}.namespaceSelector"), findings);
                if block.is_object() && !is_block(block.text("cidr")) {
                    findings.invalid(
                        &format!("{field}.ipBlock.cidr"),
                        block.at("cidr"),
                        "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                    );
                }
            }
        }
    }
}

fn is_block(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, length)| {
        let most = match address.parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(_)) => 32,
            Ok(std::net::IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        length.parse::<u8>().is_ok_and(|length| length <= most)
    })
}

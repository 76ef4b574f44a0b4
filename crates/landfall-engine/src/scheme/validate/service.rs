//! Services, and the dispatch of the smaller kinds of the core and the networking group.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::pod::port;
use super::{Fields as _, Findings, metadata, names, network, quota, storage};
use crate::scheme::Resource;

pub(super) fn check(resource: &Resource, new: &Value, findings: &mut Findings) {
    match resource.kind.as_str() {
        "Service" => service(new, findings),
        "ConfigMap" => storage::config_map(new, findings),
        "Secret" => storage::secret(new, findings),
        "PersistentVolumeClaim" => storage::claim(new.at("spec"), "spec", findings),
        "PersistentVolume" => storage::volume(new.at("spec"), findings),
        "ResourceQuota" => quota::quota(new.at("spec"), findings),
        "LimitRange" => quota::limit_range(new.at("spec"), findings),
        "Ingress" => network::ingress(new, findings),
        "NetworkPolicy" => network::policy(new.at("spec"), findings),
        _ => {}
    }
}

fn service(service: &Value, findings: &mut Findings) {
    let spec = service.at("spec");
    let ports = spec.items("ports");
    let (kind, headless) = (spec.text("type"), spec.text("clusterIP") == "None");
    if ports.is_empty() && kind != "ExternalName" && !headless {
        findings.required("spec.ports", "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {kind} services");
            findings.invalid("spec.clusterIPs[0]", &json!("None"), &detail);
        }
        "ExternalName" => {
            for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !spec.at(name).is_null() {
                    findings.forbidden(&format!("spec.{name}"), "may not be set for ExternalName services");
                }
            }
            let name = spec.text("externalName");
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                findings.required("spec.externalName", "");
            } else {
                findings.names("spec.externalName", name, names::subdomain(name));
            }
        }
        _ => {}
    }
    let mut seen_names = BTreeSet::new();
    for (index, one) in ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        let name = one.text("name");
        if !name.is_empty() {
            findings.names(&format!("{field}.name"), name, names::label(name));
            if !seen_names.insert(name) {
                findings.duplicate(&format!("{field}.name"), &json!(name));
            }
        } else if ports.len() > 1 {
            findings.required(&format!("{field}.name"), "");
        }
        findings.port(&format!("{field}.port"), &json!(one.integer("port").unwrap_or(0)));
        findings.choice(&format!("{field}.protocol"), one.at("protocol"), &["SCTP", "TCP", "UDP"]);
        port(one.at("targetPort"), &format!("{field}.targetPort"), findings);
        let application = one.text("appProtocol");
        if !application.is_empty() {
            findings.names(&format!("{field}.appProtocol"), application, names::qualified(application));
        }
    }
    metadata::labels(spec.at("selector"), "spec.selector", findings);
    affinity(spec, findings);
    for (index, address) in spec.items("externalIPs").iter().filter_map(Value::as_str).enumerate() {
        findings.address(&format!("spec.externalIPs[{index}]"), address);
    }
    findings.choice("spec.type", spec.at("type"), &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    unique_ports(ports, kind, findings);
    load_balancer(spec, kind, findings);
    traffic(spec, kind, findings);
}

/// Whether a client stays with the pod that it has once had.
fn affinity(spec: &Value, findings: &mut Findings) {
    /// One day.
    const LONGEST: i64 = 86_400;
    findings.choice("spec.sessionAffinity", spec.at("sessionAffinity"), &["ClientIP", "None"]);
    let config = spec.at("sessionAffinityConfig");
    match spec.text("sessionAffinity") {
        "ClientIP" => {
            let seconds = config.integer("clientIP.timeoutSeconds").unwrap_or(0);
            if !(1..=LONGEST).contains(&seconds) {
                let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
                findings.invalid(field, &json!(seconds), &format!("must be greater than 0 and less than {LONGEST}"));
            }
        }
        "None" if !config.is_null() => {
            let detail = "must not be set when session affinity is None";
            findings.forbidden("spec.sessionAffinityConfig", detail);
        }
        _ => {}
    }
}

/// Ports of the nodes, and ports of the service: each once for a protocol.
fn unique_ports(ports: &[Value], kind: &str, findings: &mut Findings) {
    let numbers = |name: &'static str| {
        ports.iter().enumerate().filter_map(move |(index, port)| {
            let number = port.integer(name).filter(|number| *number != 0)?;
            Some((format!("spec.ports[{index}]"), number, port.text("protocol")))
        })
    };
    if kind == "ClusterIP" {
        for (field, ..) in numbers("nodePort") {
            findings.forbidden(&format!("{field}.nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut seen = BTreeSet::new();
    for (field, number, protocol) in numbers("nodePort") {
        if !seen.insert((number, protocol)) {
            findings.duplicate(&format!("{field}.nodePort"), &json!(number));
        }
    }
    let mut seen = BTreeSet::new();
    for (field, number, protocol) in numbers("port") {
        if !seen.insert((number, protocol)) {
            // The pair, as Kubernetes has it inside.
            let pair = json!({
                "Name": "", "Protocol": protocol, "AppProtocol": null, "Port": number, "TargetPort": 0, "NodePort": 0,
            });
            findings.duplicate(&field, &pair);
        }
    }
}

fn load_balancer(spec: &Value, kind: &str, findings: &mut Findings) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let ranges = spec.items("loadBalancerSourceRanges");
    // Kubernetes writes the field like this.
    let field = "spec.LoadBalancerSourceRanges";
    if !ranges.is_empty() && kind != "LoadBalancer" {
        findings.forbidden(field, ONLY);
    }
    for (index, range) in ranges.iter().filter_map(Value::as_str).enumerate() {
        network::block(range.trim(), &format!("{field}[{index}]"), findings);
    }
    if !spec.at("allocateLoadBalancerNodePorts").is_null() && kind != "LoadBalancer" {
        findings.forbidden("spec.allocateLoadBalancerNodePorts", ONLY);
    }
    if !spec.at("loadBalancerClass").is_null() && kind != "LoadBalancer" {
        findings.forbidden("spec.loadBalancerClass", ONLY);
    }
}

/// Which pods get the traffic that comes from outside and from inside.
fn traffic(spec: &Value, kind: &str, findings: &mut Findings) {
    let (field, policy) = ("spec.externalTrafficPolicy", spec.at("externalTrafficPolicy"));
    let from_outside =
        matches!(kind, "LoadBalancer" | "NodePort") || kind == "ClusterIP" && !spec.items("externalIPs").is_empty();
    if from_outside {
        if policy.is_null() {
            findings.required(field, "");
        } else {
            findings.choice(field, policy, &["Cluster", "Local"]);
        }
    } else if !policy.is_null() {
        findings.invalid(field, policy, "may only be set for externally-accessible services");
    }
    findings.choice("spec.internalTrafficPolicy", spec.at("internalTrafficPolicy"), &["Cluster", "Local"]);
}

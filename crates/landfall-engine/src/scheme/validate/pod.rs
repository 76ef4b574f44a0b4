//! Pods and pod templates.
//!
//! Not handled: resource claims, resources of a whole pod, sysctls, Windows options, profiles of the kernel's security modules;
//! what the types say of their values is checked for them too.

mod amount;
mod container;
mod handler;
mod scheduling;
mod update;
mod volume;

use std::collections::BTreeSet;

use serde_json::{Value, json};

pub(super) use self::amount::{container_resource, is_quota_resource, quantity, resource_name};
pub(super) use self::handler::port;
pub(super) use self::update::check_update;
use super::{Fields as _, Findings, metadata, names};

/// The largest identity of a user or a group.
const MAX_IDENTITY: i64 = i32::MAX as i64;

/// Name servers and search paths of a pod.
const MAX_NAME_SERVERS: usize = 3;
const MAX_SEARCH_PATHS: usize = 32;

/// What a specification belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Pod,
    /// A template gets some values only when a pod is made of it.
    Template,
}

pub(super) fn check_pod(pod: &Value, findings: &mut Findings) {
    let spec = pod.at("spec");
    check_spec(spec, "spec", Owner::Pod, findings);
    if spec.text("serviceAccountName").is_empty() {
        for (index, volume) in spec.items("volumes").iter().enumerate() {
            for (source, projection) in volume.items("projected.sources").iter().enumerate() {
                if projection.at("serviceAccountToken").is_object() {
                    findings.forbidden(
                        &format!("spec.volumes[{index}].projected.sources[{source}].serviceAccountToken"),
                        "must not be specified when serviceAccountName is not set",
                    );
                }
            }
        }
    }
    for kind in ["containers", "initContainers"] {
        for (index, container) in spec.items(kind).iter().enumerate() {
            let image = container.text("image");
            if image.trim() != image {
                let field = format!("spec.{kind}[{index}].image");
                findings.invalid(&field, &json!(image), "must not have leading or trailing whitespace");
            }
        }
    }
}

/// A template: labels, annotations and the spec.
pub(super) fn check_template(template: &Value, field: &str, findings: &mut Findings) {
    metadata::labels(template.at("metadata.labels"), &format!("{field}.labels"), findings);
    metadata::annotations(template.at("metadata.annotations"), &format!("{field}.annotations"), findings);
    check_spec(template.at("spec"), &format!("{field}.spec"), Owner::Template, findings);
    if !template.items("spec.ephemeralContainers").is_empty() {
        let field = format!("{field}.spec.ephemeralContainers");
        findings.forbidden(&field, "ephemeral containers not allowed in pod template");
    }
}

fn check_spec(spec: &Value, field: &str, owner: Owner, findings: &mut Findings) {
    let volumes = volume::check(spec, field, findings);
    container::check(spec, field, &volumes, findings);
    if spec.at("hostNetwork") == &json!(true) {
        host_ports(spec, field, owner, findings);
    }
    findings.choice(&format!("{field}.restartPolicy"), spec.at("restartPolicy"), &["Always", "OnFailure", "Never"]);
    let choices = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    findings.choice(&format!("{field}.dnsPolicy"), spec.at("dnsPolicy"), &choices);
    metadata::labels(spec.at("nodeSelector"), &format!("{field}.nodeSelector"), findings);
    security(spec.at("securityContext"), &format!("{field}.securityContext"), findings);
    scheduling::affinity(spec.at("affinity"), &format!("{field}.affinity"), findings);
    resolver(spec, field, findings);
    for (index, gate) in spec.items("readinessGates").iter().enumerate() {
        let kind = gate.text("conditionType");
        findings.names(&format!("{field}.readinessGates[{index}].conditionType"), kind, names::qualified(kind));
    }
    scheduling::gates(spec, field, findings);
    scheduling::spread(spec, field, findings);
    for (name, grammar) in
        [("serviceAccountName", names::subdomain as fn(&str) -> Vec<String>), ("nodeName", names::subdomain)]
    {
        optional_name(spec, name, field, grammar, findings);
    }
    if let Some(number) = spec.integer("activeDeadlineSeconds").filter(|number| !(1..=MAX_IDENTITY).contains(number)) {
        let detail = "must be between 1 and 2147483647, inclusive";
        findings.invalid(&format!("{field}.activeDeadlineSeconds"), &json!(number), detail);
    }
    optional_name(spec, "hostname", field, names::label, findings);
    optional_name(spec, "subdomain", field, names::label, findings);
    scheduling::tolerations(spec, field, findings);
    for (index, alias) in spec.items("hostAliases").iter().enumerate() {
        let field = format!("{field}.hostAliases[{index}]");
        findings.address(&format!("{field}.ip"), alias.text("ip"));
        for (index, host) in alias.items("hostnames").iter().filter_map(Value::as_str).enumerate() {
            findings.names(&format!("{field}.hostnames[{index}]"), host, names::subdomain(host));
        }
    }
    optional_name(spec, "priorityClassName", field, names::subdomain, findings);
    optional_name(spec, "runtimeClassName", field, names::subdomain, findings);
}

fn optional_name(spec: &Value, name: &str, field: &str, grammar: fn(&str) -> Vec<String>, findings: &mut Findings) {
    let text = spec.text(name);
    if !text.is_empty() {
        findings.names(&format!("{field}.{name}"), text, grammar(text));
    }
}

/// On the network of its node, a container has its port on the node or none.
fn host_ports(spec: &Value, field: &str, owner: Owner, findings: &mut Findings) {
    for (index, container) in spec.items("containers").iter().enumerate() {
        for (port_index, port) in container.items("ports").iter().enumerate() {
            let (host, inner) = (port.integer("hostPort").unwrap_or(0), port.integer("containerPort").unwrap_or(0));
            if (owner == Owner::Pod || host != 0) && host != inner {
                findings.invalid(
                    &format!("{field}.containers[{index}].ports[{port_index}].hostPort"),
                    &json!(host),
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
    }
}

/// Users and groups, of a pod or of a container.
fn security(context: &Value, field: &str, findings: &mut Findings) {
    for name in ["fsGroup", "runAsUser", "runAsGroup"] {
        identity(context.at(name), &format!("{field}.{name}"), findings);
    }
    for (index, group) in context.items("supplementalGroups").iter().enumerate() {
        identity(group, &format!("{field}.supplementalGroups[{index}]"), findings);
    }
}

fn identity(value: &Value, field: &str, findings: &mut Findings) {
    if value.as_i64().is_some_and(|number| !(0..=MAX_IDENTITY).contains(&number)) {
        findings.invalid(field, value, "must be between 0 and 2147483647, inclusive");
    }
}

/// How the pod looks names up.
fn resolver(spec: &Value, field: &str, findings: &mut Findings) {
    let (config, field) = (spec.at("dnsConfig"), format!("{field}.dnsConfig"));
    let servers: Vec<_> = config.items("nameservers").iter().filter_map(Value::as_str).collect();
    if spec.text("dnsPolicy") == "None" {
        if config.is_null() {
            findings.required(&field, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            findings.required(&format!("{field}.nameservers"), detail);
            return;
        }
    }
    if servers.len() > MAX_NAME_SERVERS {
        let detail = format!("must not have more than {MAX_NAME_SERVERS} nameservers");
        findings.invalid(&format!("{field}.nameservers"), config.at("nameservers"), &detail);
    }
    for (index, server) in servers.iter().enumerate() {
        findings.address(&format!("{field}.nameservers[{index}]"), server);
    }
    let searches: Vec<_> = config.items("searches").iter().filter_map(Value::as_str).collect();
    if searches.len() > MAX_SEARCH_PATHS {
        let detail = format!("must not have more than {MAX_SEARCH_PATHS} search paths");
        findings.invalid(&format!("{field}.searches"), config.at("searches"), &detail);
    }
    for (index, option) in config.items("options").iter().enumerate() {
        if option.text("name").is_empty() {
            findings.required(&format!("{field}.options[{index}]"), "must not be empty");
        }
    }
}

/// The names of the containers of all kinds so far.
type Names = BTreeSet<String>;

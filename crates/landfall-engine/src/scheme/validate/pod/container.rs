//! Containers of all kinds: their names, ports, environment and mounts.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::{Fields as _, Findings, names};
use super::{Names, amount, handler, security};

/// Fields of a pod that a variable may be taken from.
const ENVIRONMENT_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of a pod that can be named, if not everywhere.
const FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];

/// Amounts of a container that a variable or a file may be taken from.
const AMOUNTS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// What an amount of bytes may be divided by.
const SIZES: &str = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";

pub(super) fn check(spec: &Value, field: &str, volumes: &BTreeSet<String>, findings: &mut Findings) {
    let grace = spec.integer("terminationGracePeriodSeconds");
    let mut seen = Names::new();
    let containers = spec.items("containers");
    if containers.is_empty() {
        findings.required(&format!("{field}.containers"), "");
    }
    let mut host_ports = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let field = format!("{field}.containers[{index}]");
        every(container, &field, volumes, findings);
        unique(container, &field, &mut seen, findings);
        if container.at("lifecycle").is_object() {
            handler::lifecycle(container.at("lifecycle"), grace, &format!("{field}.lifecycle"), findings);
        }
        handler::probes(container, grace, &field, findings);
    }
    for (index, container) in containers.iter().enumerate() {
        unique_host_ports(container, &format!("{field}.containers[{index}]"), &mut host_ports, findings);
    }
    for (index, container) in spec.items("initContainers").iter().enumerate() {
        let field = format!("{field}.initContainers[{index}]");
        every(container, &field, volumes, findings);
        unique(container, &field, &mut seen, findings);
        // They run one after another.
        unique_host_ports(container, &field, &mut BTreeSet::new(), findings);
        if container.text("restartPolicy") == "Always" {
            if container.at("lifecycle").is_object() {
                handler::lifecycle(container.at("lifecycle"), grace, &format!("{field}.lifecycle"), findings);
            }
            handler::probes(container, grace, &field, findings);
            continue;
        }
        for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container.at(name).is_object() {
                let detail = "may not be set for init containers without restartPolicy=Always";
                findings.forbidden(&format!("{field}.{name}"), detail);
            }
        }
    }
}

fn unique(container: &Value, field: &str, seen: &mut Names, findings: &mut Findings) {
    let name = container.text("name");
    if !name.is_empty() && !seen.insert(name.to_owned()) {
        findings.duplicate(&format!("{field}.name"), &json!(name));
    }
}

fn unique_host_ports(container: &Value, field: &str, seen: &mut BTreeSet<String>, findings: &mut Findings) {
    for (index, port) in container.items("ports").iter().enumerate() {
        let number = port.integer("hostPort").unwrap_or(0);
        let text = format!("{}/{}/{number}", port.text("protocol"), port.text("hostIP"));
        if number != 0 && !seen.insert(text.clone()) {
            findings.duplicate(&format!("{field}.ports[{index}].hostPort"), &json!(text));
        }
    }
}

/// What holds for containers of every kind.
fn every(container: &Value, field: &str, volumes: &BTreeSet<String>, findings: &mut Findings) {
    let name = container.text("name");
    if name.is_empty() {
        findings.required(&format!("{field}.name"), "");
    } else {
        findings.names(&format!("{field}.name"), name, names::label(name));
    }
    if container.text("image").is_empty() {
        findings.required(&format!("{field}.image"), "");
    }
    findings.choice(
        &format!("{field}.terminationMessagePolicy"),
        container.at("terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
    );
    ports(container, field, findings);
    environment(container, field, findings);
    sources(container, field, findings);
    mounts(container, field, volumes, findings);
    let policy = container.at("imagePullPolicy");
    findings.choice(&format!("{field}.imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
    amount::resources(container.at("resources"), &format!("{field}.resources"), findings);
    let (context, field) = (container.at("securityContext"), format!("{field}.securityContext"));
    security(context, &field, findings);
    if context.at("allowPrivilegeEscalation") == &json!(false) && context.at("privileged") == &json!(true) {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        findings.invalid(&field, context, detail);
    }
}

fn ports(container: &Value, field: &str, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, port) in container.items("ports").iter().enumerate() {
        let field = format!("{field}.ports[{index}]");
        let name = port.text("name");
        if !name.is_empty() {
            let reasons = names::port_name(name);
            if !reasons.is_empty() {
                findings.names(&format!("{field}.name"), name, reasons);
            } else if !seen.insert(name.to_owned()) {
                findings.duplicate(&format!("{field}.name"), &json!(name));
            }
        }
        match port.integer("containerPort").unwrap_or(0) {
            0 => findings.required(&format!("{field}.containerPort"), ""),
            _ => findings.port(&format!("{field}.containerPort"), port.at("containerPort")),
        }
        if port.integer("hostPort").is_some_and(|number| number != 0) {
            findings.port(&format!("{field}.hostPort"), port.at("hostPort"));
        }
        findings.choice(&format!("{field}.protocol"), port.at("protocol"), &["SCTP", "TCP", "UDP"]);
    }
}

fn environment(container: &Value, field: &str, findings: &mut Findings) {
    for (index, variable) in container.items("env").iter().enumerate() {
        let field = format!("{field}.env[{index}]");
        let name = variable.text("name");
        if name.is_empty() {
            findings.required(&format!("{field}.name"), "");
        } else {
            findings.names(&format!("{field}.name"), name, names::environment(name));
        }
        let (from, field) = (variable.at("valueFrom"), format!("{field}.valueFrom"));
        if from.is_null() {
            continue;
        }
        if from.at("fieldRef").is_object() {
            pod_field(from.at("fieldRef"), &ENVIRONMENT_FIELDS, &format!("{field}.fieldRef"), findings);
        }
        if from.at("resourceFieldRef").is_object() {
            container_amount(from.at("resourceFieldRef"), false, &format!("{field}.resourceFieldRef"), findings);
        }
        for kind in ["configMapKeyRef", "secretKeyRef"] {
            let (source, field) = (from.at(kind), format!("{field}.{kind}"));
            if source.is_object() {
                let (name, key) = (source.text("name"), source.text("key"));
                findings.names(&format!("{field}.name"), name, names::subdomain(name));
                if key.is_empty() {
                    findings.required(&format!("{field}.key"), "");
                } else {
                    findings.names(&format!("{field}.key"), key, names::config_key(key));
                }
            }
        }
        let given = from.as_object().map_or(0, serde_json::Map::len);
        let detail = if given == 0 {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        } else if !variable.text("value").is_empty() {
            "may not be specified when `value` is not empty"
        } else if given > 1 {
            "may not have more than one field specified at a time"
        } else {
            continue;
        };
        findings.invalid(&field, &json!(""), detail);
    }
}

/// Config maps and secrets whose keys become variables.
fn sources(container: &Value, field: &str, findings: &mut Findings) {
    let field = format!("{field}.envFrom");
    for (index, source) in container.items("envFrom").iter().enumerate() {
        let inner = format!("{field}[{index}]");
        let prefix = source.text("prefix");
        if !prefix.is_empty() {
            findings.names(&format!("{inner}.prefix"), prefix, names::environment(prefix));
        }
        let given: Vec<_> =
            ["configMapRef", "secretRef"].into_iter().filter(|kind| source.at(kind).is_object()).collect();
        for kind in &given {
            let name = source.at(kind).text("name");
            let field = format!("{inner}.{kind}.name");
            if name.is_empty() {
                findings.required(&field, "");
            } else {
                findings.names(&field, name, names::subdomain(name));
            }
        }
        // Kubernetes does not say which of them.
        match given.len() {
            0 => findings.invalid(&field, &json!(""), "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => findings.invalid(&field, &json!(""), "may not have more than one field specified at a time"),
        }
    }
}

/// A field of the pod, by its path; labels and annotations by their keys.
pub(super) fn pod_field(source: &Value, choices: &[&str], field: &str, findings: &mut Findings) {
    let path = source.text("fieldPath");
    let inner = format!("{field}.fieldPath");
    if path.is_empty() {
        findings.required(&inner, "");
        return;
    }
    let refuse = |why: &str, findings: &mut Findings| {
        findings.invalid(&inner, &json!(path), &format!("error converting fieldPath: {why}"));
    };
    if let Some((list, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        match list {
            "metadata.annotations" => findings.names(field, key, names::qualified(&key.to_lowercase())),
            "metadata.labels" => findings.names(field, key, names::qualified(key)),
            _ => refuse(&format!("field label does not support subscript: {path}"), findings),
        }
    } else if !ENVIRONMENT_FIELDS.contains(&path) && !FIELDS.contains(&path) {
        refuse(&format!("field label not supported: {path}"), findings);
    } else if !choices.contains(&path) {
        findings.not_supported(&inner, &json!(path), choices);
    }
}

/// A request or a limit of a container, which files must name.
pub(super) fn container_amount(source: &Value, in_file: bool, field: &str, findings: &mut Findings) {
    let name = source.text("resource");
    let huge = name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-");
    if in_file && source.text("containerName").is_empty() {
        findings.required(&format!("{field}.containerName"), "");
    } else if name.is_empty() {
        findings.required(&format!("{field}.resource"), "");
    } else if !AMOUNTS.contains(&name) && !huge {
        findings.not_supported(&format!("{field}.resource"), &json!(name), &AMOUNTS);
    }
    let kind = match name.split_once('.') {
        Some((_, "cpu")) => "cpu resource",
        Some((_, "memory")) => "memory resource",
        Some((_, "ephemeral-storage")) => "local ephemeral storage resource",
        _ if huge => "hugepages resource",
        _ => return,
    };
    let divisor = source.text("divisor");
    let choices = if kind == "cpu resource" { "1m and 1" } else { SIZES };
    let known = choices.split([',', ' ']).any(|choice| choice == divisor);
    if !matches!(divisor, "" | "0") && !known {
        let detail = format!("only divisor's values {choices} are supported with the {kind}");
        findings.invalid(&format!("{field}.divisor"), &json!(name), &detail);
    }
}

fn mounts(container: &Value, field: &str, volumes: &BTreeSet<String>, findings: &mut Findings) {
    let list = format!("{field}.volumeMounts");
    let mut paths = BTreeSet::new();
    for (index, mount) in container.items("volumeMounts").iter().enumerate() {
        let field = format!("{list}[{index}]");
        let (name, path) = (mount.text("name"), mount.text("mountPath"));
        if name.is_empty() {
            findings.required(&format!("{field}.name"), "");
        }
        if !volumes.contains(name) {
            findings.not_found(&format!("{field}.name"), &json!(name));
        }
        if path.is_empty() {
            findings.required(&format!("{field}.mountPath"), "");
        }
        if !paths.insert(path.to_owned()) {
            findings.invalid(&format!("{field}.mountPath"), &json!(path), "must be unique");
        }
        let (inner, expression) = (mount.text("subPath"), mount.text("subPathExpr"));
        // Kubernetes does not say in which mount.
        if !inner.is_empty() {
            descends(inner, &format!("{list}.subPath"), findings);
        }
        if !expression.is_empty() {
            if !inner.is_empty() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                findings.invalid(&format!("{field}.subPathExpr"), &json!(expression), detail);
            }
            descends(expression, &format!("{list}.subPathExpr"), findings);
        }
    }
}

/// A path that leads down from where it begins.
pub(super) fn descends(path: &str, field: &str, findings: &mut Findings) {
    if path.starts_with('/') {
        findings.invalid(field, &json!(path), "must be a relative path");
    }
    no_steps_back(path, field, findings);
}

pub(super) fn no_steps_back(path: &str, field: &str, findings: &mut Findings) {
    if path.split('/').any(|step| step == "..") {
        findings.invalid(field, &json!(path), "must not contain '..'");
    }
}

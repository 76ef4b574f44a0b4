//! What a probe or a hook does.

use serde_json::{Value, json};

use super::super::{Fields as _, Findings, names};

/// In the order in which Kubernetes looks at them: the first one counts.
const KINDS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Probe {
    Liveness,
    Readiness,
    Startup,
}

/// The probes of a container, with the grace period of its pod.
pub(super) fn probes(container: &Value, grace: Option<i64>, field: &str, findings: &mut Findings) {
    let all =
        [("livenessProbe", Probe::Liveness), ("readinessProbe", Probe::Readiness), ("startupProbe", Probe::Startup)];
    for (name, kind) in all {
        let value = container.at(name);
        if value.is_object() {
            probe(value, kind, grace, &format!("{field}.{name}"), findings);
        }
    }
}

fn probe(probe: &Value, kind: Probe, grace: Option<i64>, field: &str, findings: &mut Findings) {
    handler(probe, grace, field, findings);
    for name in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        findings.not_negative(&format!("{field}.{name}"), probe.at(name));
    }
    let (own, inner) = (probe.at("terminationGracePeriodSeconds"), format!("{field}.terminationGracePeriodSeconds"));
    if own.as_i64().is_some_and(|seconds| seconds <= 0) {
        findings.invalid(&inner, own, "must be greater than 0");
    }
    match kind {
        Probe::Readiness if !own.is_null() => findings.invalid(&inner, own, "must not be set for readinessProbes"),
        Probe::Readiness => {}
        Probe::Liveness | Probe::Startup => {
            if probe.integer("successThreshold").is_some_and(|number| number != 1) {
                findings.invalid(&format!("{field}.successThreshold"), probe.at("successThreshold"), "must be 1");
            }
        }
    }
}

/// The hooks of a container.
pub(super) fn lifecycle(lifecycle: &Value, grace: Option<i64>, field: &str, findings: &mut Findings) {
    for name in ["postStart", "preStop"] {
        let hook = lifecycle.at(name);
        if hook.is_object() {
            handler(hook, grace, &format!("{field}.{name}"), findings);
        }
    }
}

fn handler(handler: &Value, grace: Option<i64>, field: &str, findings: &mut Findings) {
    let mut given = KINDS.into_iter().filter(|kind| handler.at(kind).is_object());
    let Some(first) = given.next() else {
        findings.required(field, "must specify a handler type");
        return;
    };
    let (action, inner) = (handler.at(first), format!("{field}.{first}"));
    match first {
        "exec" if action.items("command").is_empty() => findings.required(&format!("{inner}.command"), ""),
        "httpGet" => {
            if action.text("path").is_empty() {
                findings.required(&format!("{inner}.path"), "");
            }
            port(action.at("port"), &format!("{inner}.port"), findings);
            let scheme = action.at("scheme");
            findings.choice(&format!("{inner}.scheme"), scheme, &["HTTP", "HTTPS"]);
            for header in action.items("httpHeaders") {
                let name = header.text("name");
                findings.names(&format!("{inner}.httpHeaders"), name, names::header(name));
            }
        }
        "tcpSocket" | "grpc" => port(action.at("port"), &format!("{inner}.port"), findings),
        "sleep" => {
            let (seconds, most) = (action.integer("seconds").unwrap_or(0), grace.unwrap_or(0));
            if seconds < 0 || seconds > most {
                let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({most})");
                findings.invalid(&inner, &json!(seconds), &detail);
            }
        }
        _ => {}
    }
    for other in given {
        findings.forbidden(&format!("{field}.{other}"), "may not specify more than 1 handler type");
    }
}

/// A number, or the name of a port.
pub(in super::super) fn port(port: &Value, field: &str, findings: &mut Findings) {
    match port {
        Value::String(text) => findings.names(field, text, names::port_name(text)),
        _ => findings.port(field, &json!(port.as_i64().unwrap_or(0))),
    }
}

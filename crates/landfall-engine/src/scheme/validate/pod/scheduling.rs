//! Where a pod may run: affinity, tolerations, spread and gates.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::{Fields as _, Findings, metadata, names};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn affinity(affinity: &Value, field: &str, findings: &mut Findings) {
    let (node, inner) = (affinity.at("nodeAffinity"), format!("{field}.nodeAffinity"));
    if node.at(REQUIRED).is_object() {
        let (terms, inner) =
            (node.at(REQUIRED).items("nodeSelectorTerms"), format!("{inner}.{REQUIRED}.nodeSelectorTerms"));
        if terms.is_empty() {
            findings.required(&inner, "must have at least one node selector term");
        }
        for (index, term) in terms.iter().enumerate() {
            node_term(term, &format!("{inner}[{index}]"), findings);
        }
    }
    for (index, term) in node.items(PREFERRED).iter().enumerate() {
        let inner = format!("{inner}.{PREFERRED}[{index}]");
        weight(term, &inner, findings);
        node_term(term.at("preference"), &format!("{inner}.preference"), findings);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        for (index, term) in affinity.at(kind).items(REQUIRED).iter().enumerate() {
            pod_term(term, &format!("{field}.{kind}.{REQUIRED}[{index}]"), findings);
        }
        for (index, term) in affinity.at(kind).items(PREFERRED).iter().enumerate() {
            let inner = format!("{field}.{kind}.{PREFERRED}[{index}]");
            weight(term, &inner, findings);
            pod_term(term.at("podAffinityTerm"), &format!("{inner}.podAffinityTerm"), findings);
        }
    }
}

fn weight(term: &Value, field: &str, findings: &mut Findings) {
    let weight = term.integer("weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        findings.invalid(&format!("{field}.weight"), &json!(weight), "must be in the range 1-100");
    }
}

fn node_term(term: &Value, field: &str, findings: &mut Findings) {
    for (index, rule) in term.items("matchExpressions").iter().enumerate() {
        let field = format!("{field}.matchExpressions[{index}]");
        let values = rule.items("values");
        let list = format!("{field}.values");
        match rule.text("operator") {
            "In" | "NotIn" if values.is_empty() => {
                findings.required(&list, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                findings.forbidden(&list, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "Gt" | "Lt" if values.len() != 1 => {
                findings.required(&list, "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => findings.invalid(&format!("{field}.operator"), rule.at("operator"), "not a valid selector operator"),
        }
        let key = rule.text("key");
        findings.names(&format!("{field}.key"), key, names::qualified(key));
        for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
            findings.names(&format!("{list}[{index}]"), value, names::label_value(value));
        }
    }
}

fn pod_term(term: &Value, field: &str, findings: &mut Findings) {
    for name in ["labelSelector", "namespaceSelector"] {
        metadata::selector(term.at(name), &format!("{field}.{name}"), findings);
    }
    for namespace in term.items("namespaces").iter().filter_map(Value::as_str) {
        findings.names(&format!("{field}.namespace"), namespace, names::label(namespace));
    }
    let key = term.text("topologyKey");
    let field = format!("{field}.topologyKey");
    if key.is_empty() {
        findings.required(&field, "can not be empty");
    }
    findings.names(&field, key, names::qualified(key));
}

pub(super) fn spread(spec: &Value, field: &str, findings: &mut Findings) {
    let constraints = spec.items("topologySpreadConstraints");
    for (index, constraint) in constraints.iter().enumerate() {
        let field = format!("{field}.topologySpreadConstraints[{index}]");
        let skew = constraint.integer("maxSkew").unwrap_or(0);
        if skew <= 0 {
            findings.invalid(&format!("{field}.maxSkew"), &json!(skew), "must be greater than zero");
        }
        let key = constraint.text("topologyKey");
        if key.is_empty() {
            findings.required(&format!("{field}.topologyKey"), "can not be empty");
        }
        let policy = constraint.text("whenUnsatisfiable");
        let choices = ["DoNotSchedule", "ScheduleAnyway"];
        if !choices.contains(&policy) {
            findings.not_supported(&format!("{field}.whenUnsatisfiable"), &json!(policy), &choices);
        }
        let same = |other: &Value| other.text("topologyKey") == key && other.text("whenUnsatisfiable") == policy;
        if constraints[index + 1..].iter().any(same) {
            let pair = format!("{{{key}, {policy}}}");
            findings.duplicate(&format!("{field}.{{topologyKey, whenUnsatisfiable}}"), &json!(pair));
        }
        if let Some(least) = constraint.integer("minDomains") {
            let field = format!("{field}.minDomains");
            if least <= 0 {
                findings.invalid(&field, &json!(least), "must be greater than zero");
            }
            if policy != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {policy}");
                findings.invalid(&field, &json!(least), &detail);
            }
        }
        metadata::selector(constraint.at("labelSelector"), &format!("{field}.labelSelector"), findings);
    }
}

pub(super) fn tolerations(spec: &Value, field: &str, findings: &mut Findings) {
    for (index, toleration) in spec.items("tolerations").iter().enumerate() {
        let field = format!("{field}.tolerations[{index}]");
        let (key, operator, value) = (toleration.text("key"), toleration.text("operator"), toleration.text("value"));
        if !key.is_empty() {
            findings.names(&format!("{field}.key"), key, names::qualified(key));
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            findings.invalid(&format!("{field}.operator"), &json!(operator), detail);
        }
        let effect = toleration.text("effect");
        if !toleration.at("tolerationSeconds").is_null() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            findings.invalid(&format!("{field}.effect"), &json!(effect), detail);
        }
        match operator {
            "" | "Equal" => {
                let reasons = names::label_value(value);
                if !reasons.is_empty() {
                    findings.invalid(&format!("{field}.operator"), &json!(value), &reasons.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                findings.invalid(&format!("{field}.operator"), &json!(value), detail);
            }
            "Exists" => {}
            "Lt" | "Gt" => {
                let choices = ["Equal", "Exists", "Lt", "Gt"];
                findings.not_supported(&format!("{field}.operator"), &json!(operator), &choices);
            }
            _ => findings.not_supported(&format!("{field}.operator"), &json!(operator), &["Equal", "Exists"]),
        }
        findings.choice(
            &format!("{field}.effect"),
            toleration.at("effect"),
            &["NoSchedule", "PreferNoSchedule", "NoExecute"],
        );
    }
}

pub(super) fn gates(spec: &Value, field: &str, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, gate) in spec.items("schedulingGates").iter().enumerate() {
        let (name, field) = (gate.text("name"), format!("{field}.schedulingGates[{index}]"));
        findings.names(&field, name, names::qualified(name));
        if !seen.insert(name) {
            findings.duplicate(&field, &json!(name));
        }
    }
}

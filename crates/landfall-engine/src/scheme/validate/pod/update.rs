//! What of a pod may change once it exists.

use serde_json::{Value, json};

use super::super::{Fields as _, Findings};

const OTHER: &str = "pod updates may not change fields other than \
                     `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                     `spec.tolerations` (only additions to existing tolerations),\
                     `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Not handled: Kubernetes ends the last text with a listing of the differences in its own types.
pub(in super::super) fn check_update(new: &Value, old: &Value, findings: &mut Findings) {
    let (is, was) = (new.at("spec"), old.at("spec"));
    for kind in ["containers", "initContainers"] {
        if is.items(kind).len() != was.items(kind).len() {
            findings.forbidden(&format!("spec.{kind}"), "pod updates may not add or remove containers");
            return;
        }
    }
    if !deadline(is.at("activeDeadlineSeconds"), was.at("activeDeadlineSeconds"), findings) {
        return;
    }
    let tolerated = |tolerations: &Value, one: &Value| {
        let without_time = |toleration: &Value| {
            let mut toleration = toleration.clone();
            toleration.as_object_mut().map(|fields| fields.remove("tolerationSeconds"));
            toleration
        };
        tolerations.items("tolerations").iter().any(|other| without_time(other) == without_time(one))
    };
    if !was.items("tolerations").iter().all(|one| tolerated(is, one)) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        findings.forbidden("spec.tolerations", detail);
    }
    let old_gates = was.items("schedulingGates");
    for (index, gate) in is.items("schedulingGates").iter().enumerate() {
        if !old_gates.contains(gate) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.text("name"));
            findings.forbidden(&format!("spec.schedulingGates[{index}].name"), &detail);
        }
    }
    let gated = !old_gates.is_empty();
    if gated {
        gated_selector(is, was, findings);
    }
    if comparable(is, was, gated) != comparable(was, was, gated) {
        findings.forbidden("spec", OTHER);
    }
}

/// A deadline may be set, and come closer. Answers whether it does.
fn deadline(new: &Value, old: &Value, findings: &mut Findings) -> bool {
    const FIELD: &str = "spec.activeDeadlineSeconds";
    let detail = match (new.as_i64(), old.as_i64()) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => "must be between 0 and 2147483647, inclusive",
        (Some(new), Some(old)) if old < new => "must be less than or equal to previous value",
        (None, Some(_)) => {
            findings.invalid(FIELD, &Value::Null, "must not update from a positive integer to nil value");
            return true;
        }
        _ => return true,
    };
    findings.invalid(FIELD, new, detail);
    false
}

/// The node selector of a pod that is not scheduled yet may grow.
fn gated_selector(new: &Value, old: &Value, findings: &mut Findings) {
    let kept = |(key, value): (&String, &Value)| new.at("nodeSelector").get(key) == Some(value);
    if !old.at("nodeSelector").as_object().into_iter().flatten().all(kept) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        findings.invalid("spec.nodeSelector", new.at("nodeSelector"), detail);
    }
}

/// The specification without what may change.
///
/// Not handled: the node affinity of a pod with gates, of which Kubernetes lets some terms change.
fn comparable(spec: &Value, old: &Value, gated: bool) -> Value {
    let mut spec = spec.clone();
    let Some(fields) = spec.as_object_mut() else { return spec };
    for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates", "ephemeralContainers"] {
        fields.remove(name);
    }
    if gated {
        fields.remove("nodeSelector");
    }
    // Set by binding and admission, which write the pod whole.
    if old.text("nodeName").is_empty() {
        fields.remove("nodeName");
    }
    if old.integer("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0)
        && fields.get("terminationGracePeriodSeconds") == Some(&json!(1))
    {
        fields.insert("terminationGracePeriodSeconds".to_owned(), old.at("terminationGracePeriodSeconds").clone());
    }
    for kind in ["containers", "initContainers"] {
        for container in fields.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            container.as_object_mut().map(|container| container.remove("image"));
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: Value, new: Value, expected: &[&str]) {
        let mut findings = Findings::default();
        check_update(&json!({ "spec": new }), &json!({ "spec": old }), &mut findings);
        let texts: Vec<_> = findings.causes.iter().map(super::super::super::Cause::text).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn an_image_may_change_and_a_port_may_not() {
        let of = |image: &str, port: u16| json!({ "containers": [{ "image": image, "ports": [port] }] });
        check(of("a", 1), of("b", 1), &[]);
        check(of("a", 1), of("a", 2), &[&format!("spec: Forbidden: {OTHER}")]);
    }

    #[test]
    fn containers_are_neither_added_nor_removed() {
        check(
            json!({ "containers": [{}] }),
            json!({ "containers": [{}, {}], "dnsPolicy": "Default" }),
            &["spec.containers: Forbidden: pod updates may not add or remove containers"],
        );
    }

    #[test]
    fn a_deadline_only_comes_closer() {
        let of = |seconds: i64| json!({ "activeDeadlineSeconds": seconds });
        check(json!({}), of(5), &[]);
        check(of(5), of(4), &[]);
        let field = "spec.activeDeadlineSeconds";
        check(of(5), of(6), &[&format!("{field}: Invalid value: 6: must be less than or equal to previous value")]);
        check(
            of(5),
            json!({}),
            &[&format!("{field}: Invalid value: null: must not update from a positive integer to nil value")],
        );
    }

    #[test]
    fn tolerations_are_added_and_gates_are_taken_away() {
        let of = |tolerations: Value, gates: Value| json!({ "tolerations": tolerations, "schedulingGates": gates });
        let one = json!([{ "key": "a", "tolerationSeconds": 5 }]);
        let longer = json!([{ "key": "b" }, { "key": "a", "tolerationSeconds": 9 }]);
        let gate = json!([{ "name": "g" }]);
        check(of(one.clone(), gate.clone()), of(longer, json!([])), &[]);
        check(
            of(one, json!([])),
            of(json!([]), gate),
            &[
                "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
                "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g'",
            ],
        );
    }

    #[test]
    fn a_pod_with_gates_may_get_a_narrower_node_selector() {
        let of = |selector: Value| json!({ "schedulingGates": [{ "name": "g" }], "nodeSelector": selector });
        check(of(json!({ "a": "1" })), of(json!({ "a": "1", "b": "2" })), &[]);
        check(
            of(json!({ "a": "1" })),
            of(json!({ "a": "2" })),
            &[
                r#"spec.nodeSelector: Invalid value: {"a":"2"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)"#,
            ],
        );
    }
}

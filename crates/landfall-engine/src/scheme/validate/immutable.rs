//! What cannot be changed once an object exists.

use serde_json::{Value, json};

use super::{Fields as _, Findings, pod};
use crate::scheme::Resource;

const IMMUTABLE: &str = "field is immutable";

pub(super) fn check(resource: &Resource, new: &Value, old: &Value, findings: &mut Findings) {
    let mut fixed = |field: &str| {
        if new.at(field) != old.at(field) {
            findings.invalid(field, new.at(field), IMMUTABLE);
        }
    };
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet") => fixed("spec.selector"),
        ("batch", "Job") => job(new, old, findings),
        ("apps", "StatefulSet") => stateful_set(new, old, findings),
        ("", "Secret") => {
            fixed("type");
            data(new, old, &["data"], findings);
        }
        ("", "ConfigMap") => data(new, old, &["data", "binaryData"], findings),
        ("", "Service") => {
            let external = json!("ExternalName");
            if old.at("spec.type") != &external && new.at("spec.type") != &external {
                let (was, is) = (old.at("spec.clusterIP"), new.at("spec.clusterIP"));
                if !was.is_null() && was != is {
                    findings.invalid(
                        "spec.clusterIPs[0]",
                        &json!(new.at("spec.clusterIPs")),
                        "may not change once set",
                    );
                }
            }
        }
        ("", "PersistentVolumeClaim") => claim(new, old, findings),
        ("", "Pod") => pod::check_update(new, old, findings),
        ("storage.k8s.io", "StorageClass") => {
            for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
                if new.at(field) != old.at(field) {
                    if field == "reclaimPolicy" || field == "volumeBindingMode" {
                        findings.invalid(field, new.at(field), IMMUTABLE);
                    } else {
                        findings.forbidden(field, &format!("updates to {field} are forbidden."));
                    }
                }
            }
        }
        ("scheduling.k8s.io", "PriorityClass") => {
            if new.at("value") != old.at("value") {
                findings.invalid("value", new.at("value"), IMMUTABLE);
            }
            fixed_later(new, old, "preemptionPolicy", findings);
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding")
            if new.at("roleRef") != old.at("roleRef") =>
        {
            // Kubernetes shows its own struct, whose fields are written so.
            let role = new.at("roleRef");
            let found =
                json!({"APIGroup": role.text("apiGroup"), "Kind": role.text("kind"), "Name": role.text("name")});
            findings.invalid("roleRef", &found, "cannot change roleRef");
        }
        ("apiextensions.k8s.io", _) => {
            for field in ["spec.group", "spec.scope", "spec.names.kind", "spec.names.plural"] {
                fixed_later(new, old, field, findings);
            }
        }
        ("discovery.k8s.io", _) => fixed_later(new, old, "addressType", findings),
        _ => {}
    }
}

fn fixed_later(new: &Value, old: &Value, field: &str, findings: &mut Findings) {
    if new.at(field) != old.at(field) {
        findings.invalid(field, new.at(field), IMMUTABLE);
    }
}

fn data(new: &Value, old: &Value, fields: &[&str], findings: &mut Findings) {
    if old.at("immutable") != &json!(true) {
        return;
    }
    if new.at("immutable") != &json!(true) {
        findings.forbidden("immutable", "field is immutable when `immutable` is set");
    }
    for field in fields {
        if new.at(field) != old.at(field) {
            findings.forbidden(field, "field is immutable when `immutable` is set");
        }
    }
}

fn job(new: &Value, old: &Value, findings: &mut Findings) {
    let mut fields = vec!["spec.selector", "spec.completionMode", "spec.podFailurePolicy", "spec.backoffLimitPerIndex"];
    if new.text("spec.completionMode") != "Indexed" {
        fields.push("spec.completions");
    }
    for field in fields {
        fixed_later(new, old, field, findings);
    }
    if new.at("spec.successPolicy") != old.at("spec.successPolicy") {
        // Told as Kubernetes keeps it inside, where its fields have the names of its language.
        let rules = new.items("spec.successPolicy.rules").iter().map(|rule| {
            json!({ "SucceededIndexes": rule.at("succeededIndexes"), "SucceededCount": rule.at("succeededCount") })
        });
        let policy = match new.at("spec.successPolicy") {
            Value::Null => Value::Null,
            _ => json!({ "Rules": rules.collect::<Vec<_>>() }),
        };
        findings.invalid("spec.successPolicy", &policy, IMMUTABLE);
    }
    // A suspended job that has not started may be told where to run.
    let open = old.at("spec.suspend") == &json!(true) && old.at("status.startTime").is_null();
    let comparable = |object: &Value| {
        let mut template = object.at("spec.template").clone();
        if open {
            for name in ["affinity", "nodeSelector", "tolerations", "schedulingGates"] {
                template.get_mut("spec").and_then(Value::as_object_mut).map(|spec| spec.remove(name));
            }
            template.as_object_mut().map(|template| template.remove("metadata"));
        }
        template
    };
    if comparable(new) != comparable(old) {
        findings.invalid("spec.template", new.at("spec.template"), IMMUTABLE);
    }
}

fn stateful_set(new: &Value, old: &Value, findings: &mut Findings) {
    const OPEN: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let closed = |object: &Value| {
        let mut spec = object.at("spec").clone();
        if let Some(spec) = spec.as_object_mut() {
            spec.retain(|name, _| !OPEN.contains(&name.as_str()));
        }
        spec
    };
    if closed(new) != closed(old) {
        findings.forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
}

fn claim(new: &Value, old: &Value, findings: &mut Findings) {
    let comparable = |object: &Value| {
        let mut spec = object.at("spec").clone();
        if let Some(fields) = spec.as_object_mut() {
            fields.remove("resources");
            fields.remove("volumeAttributesClassName");
            if old.text("spec.volumeName").is_empty() {
                fields.remove("volumeName");
            }
            if old.at("spec.storageClassName").is_null() {
                fields.remove("storageClassName");
            }
        }
        spec
    };
    if comparable(new) != comparable(old) {
        findings.forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
    }
    let size =
        |object: &Value| crate::scheme::quantity::Quantity::parse(object.text("spec.resources.requests.storage"));
    if let (Some(new_size), Some(old_size)) = (size(new), size(old)) {
        if new_size < old_size {
            findings.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity");
        } else if new_size > old_size && old.text("status.phase") != "Bound" {
            findings.forbidden(
                "spec",
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
                 claims",
            );
        }
    }
}

//! The volumes of a pod.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::{Fields as _, Findings, names};
use super::{amount, container};
use crate::scheme::quantity::Quantity;

/// Volumes by their source, in the order in which Kubernetes looks at them: the first one counts.
///
/// Not handled: what the sources of storage systems must say, beyond their types.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
    "flexVolume",
];

/// Fields of a pod that a file may show.
const FILE_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Answers the names of the volumes that are as they must be.
pub(super) fn check(spec: &Value, field: &str, findings: &mut Findings) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for (index, volume) in spec.items("volumes").iter().enumerate() {
        let field = format!("{field}.volumes[{index}]");
        let before = findings.causes.len();
        source(volume, &field, findings);
        let name = volume.text("name");
        if name.is_empty() {
            findings.required(&format!("{field}.name"), "");
        } else {
            findings.names(&format!("{field}.name"), name, names::label(name));
        }
        if seen.contains(name) {
            findings.duplicate(&format!("{field}.name"), &json!(name));
        }
        if findings.causes.len() == before {
            seen.insert(name.to_owned());
        }
    }
    seen
}

fn source(volume: &Value, field: &str, findings: &mut Findings) {
    let mut given = SOURCES.into_iter().filter(|kind| !volume.at(kind).is_null());
    let Some(first) = given.next() else {
        findings.required(field, "must specify a volume type");
        return;
    };
    let (source, inner) = (volume.at(first), format!("{field}.{first}"));
    match first {
        "emptyDir" if amount::parsed(source.at("sizeLimit")).is_some_and(Quantity::is_negative) => {
            findings.forbidden(&format!("{inner}.sizeLimit"), "SizeLimit field must be a valid resource quantity");
        }
        "hostPath" => {
            let path = source.text("path");
            if path.is_empty() {
                findings.required(&format!("{inner}.path"), "");
            } else {
                container::no_steps_back(path, &format!("{inner}.path"), findings);
            }
        }
        "secret" => keys(source, Some("secretName"), &inner, findings),
        "configMap" => keys(source, Some("name"), &inner, findings),
        "persistentVolumeClaim" if source.text("claimName").is_empty() => {
            findings.required(&format!("{inner}.claimName"), "");
        }
        "downwardAPI" => {
            mode(source, "defaultMode", &inner, findings);
            // Kubernetes does not say which of them.
            source.items("items").iter().for_each(|file| downward(file, &inner, findings));
        }
        "projected" => projected(source, &inner, findings),
        _ => {}
    }
    for other in given {
        findings.forbidden(&format!("{field}.{other}"), "may not specify more than 1 volume type");
    }
}

fn mode(source: &Value, name: &str, field: &str, findings: &mut Findings) {
    if source.integer(name).is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        findings.invalid(&format!("{field}.{name}"), source.at(name), MODE);
    }
}

/// Files that are keys of a config map or a secret.
fn keys(source: &Value, name: Option<&str>, field: &str, findings: &mut Findings) {
    if let Some(name) = name {
        if source.text(name).is_empty() {
            findings.required(&format!("{field}.{name}"), "");
        }
        mode(source, "defaultMode", field, findings);
    }
    for (index, item) in source.items("items").iter().enumerate() {
        let field = format!("{field}.items[{index}]");
        for name in ["key", "path"] {
            if item.text(name).is_empty() {
                findings.required(&format!("{field}.{name}"), "");
            }
        }
        file(item.text("path"), &format!("{field}.path"), findings);
        mode(item, "mode", &field, findings);
    }
}

/// The path of a file in a volume: what begins with two points is for those who write the volume.
fn file(path: &str, field: &str, findings: &mut Findings) {
    container::descends(path, field, findings);
    // A step back has been told.
    if path.starts_with("..") && !path.starts_with("../") {
        findings.invalid(field, &json!(path), "must not start with '..'");
    }
}

fn downward(item: &Value, field: &str, findings: &mut Findings) {
    let path = item.text("path");
    if path.is_empty() {
        findings.required(&format!("{field}.path"), "");
    }
    file(path, &format!("{field}.path"), findings);
    let (of_pod, of_container) = (item.at("fieldRef"), item.at("resourceFieldRef"));
    if of_pod.is_object() {
        container::pod_field(of_pod, &FILE_FIELDS, &format!("{field}.fieldRef"), findings);
        if of_container.is_object() {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            findings.invalid(field, &json!("resource"), detail);
        }
    } else if of_container.is_object() {
        container::container_amount(of_container, true, &format!("{field}.resourceFieldRef"), findings);
    } else {
        findings.required(field, "one of fieldRef and resourceFieldRef is required");
    }
    mode(item, "mode", field, findings);
}

fn projected(source: &Value, field: &str, findings: &mut Findings) {
    mode(source, "defaultMode", field, findings);
    for (index, one) in source.items("sources").iter().enumerate() {
        let inner = format!("{field}.sources[{index}]");
        for kind in ["secret", "configMap"] {
            let (list, inner) = (one.at(kind), format!("{inner}.{kind}"));
            if list.is_object() {
                if list.text("name").is_empty() {
                    findings.required(&format!("{inner}.name"), "");
                }
                keys(list, None, &inner, findings);
            }
        }
        for item in one.items("downwardAPI.items") {
            downward(item, &format!("{inner}.downwardAPI"), findings);
        }
        let token = one.at("serviceAccountToken");
        if token.is_object() {
            let (seconds, inner) = (token.at("expirationSeconds"), format!("{inner}.serviceAccountToken"));
            if seconds.as_i64().is_some_and(|seconds| seconds < 600) {
                let detail = "may not specify a duration less than 10 minutes";
                findings.invalid(&format!("{inner}.expirationSeconds"), seconds, detail);
            }
            let path = token.text("path");
            if path.is_empty() {
                findings.required(&format!("{field}.path"), "");
            } else {
                file(path, &format!("{field}.path"), findings);
            }
        }
        if one.as_object().is_some_and(|one| one.len() > 1) {
            findings.forbidden(&inner, "may not specify more than 1 volume type per source");
        }
    }
}

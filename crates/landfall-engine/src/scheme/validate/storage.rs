//! Config maps, secrets, volumes and claims to them.

use serde_json::{Value, json};

use super::{Fields as _, Findings, metadata, names, pod};
use crate::scheme::quantity::Quantity;

/// Data of config maps and secrets together.
const MAX_DATA: usize = 1024 * 1024;

/// How a volume may be used.
const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

pub(super) fn config_map(object: &Value, findings: &mut Findings) {
    let mut size = 0;
    for list in ["data", "binaryData"] {
        for (key, value) in object.at(list).as_object().into_iter().flatten() {
            let field = format!("{list}[{key}]");
            findings.names(&field, key, names::config_key(key));
            if list == "data" && object.at("binaryData").get(key).is_some() {
                findings.invalid(&field, &json!(key), "duplicate of key present in binaryData");
            }
            let length = value.as_str().unwrap_or_default().len();
            size += if list == "data" { length } else { decoded(length) };
        }
    }
    if size > MAX_DATA {
        // Kubernetes prints a path without parts like this.
        findings.too_long("[]", MAX_DATA);
    }
}

/// Base64 takes four letters for three bytes.
fn decoded(length: usize) -> usize {
    length / 4 * 3
}

pub(super) fn secret(secret: &Value, findings: &mut Findings) {
    let data = secret.at("data");
    let mut size = 0;
    for (key, value) in data.as_object().into_iter().flatten() {
        findings.names(&format!("data[{key}]"), key, names::config_key(key));
        size += decoded(value.as_str().unwrap_or_default().len());
    }
    if size > MAX_DATA {
        findings.too_long("data", MAX_DATA);
    }
    let has = |key: &str| data.get(key).is_some();
    let missing: &[&str] = match secret.text("type") {
        "kubernetes.io/service-account-token" => {
            const ACCOUNT: &str = "kubernetes.io/service-account.name";
            let account = secret.at("metadata.annotations").get(ACCOUNT).and_then(Value::as_str);
            if account.unwrap_or_default().is_empty() {
                findings.required(&format!("metadata.annotations[{ACCOUNT}]"), "");
            }
            &[]
        }
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        // One of them is enough.
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => &["username", "password"],
        _ => &[],
    };
    for key in missing.iter().filter(|key| !has(key)) {
        findings.required(&format!("data[{key}]"), "");
    }
}

pub(super) fn claim(spec: &Value, field: &str, findings: &mut Findings) {
    let (modes, inner) = (spec.items("accessModes"), format!("{field}.accessModes"));
    if modes.is_empty() {
        findings.required(&inner, "at least 1 access mode is required");
    }
    metadata::selector(spec.at("selector"), &format!("{field}.selector"), findings);
    for mode in modes {
        findings.choice(&inner, mode, &MODES);
    }
    if modes.contains(&json!("ReadWriteOncePod")) && modes.len() > 1 {
        findings.forbidden(&inner, "may not use ReadWriteOncePod with other access modes");
    }
    let (size, inner) = (spec.at("resources.requests.storage"), format!("{field}.resources[storage]"));
    match size.as_str().and_then(Quantity::parse) {
        None => findings.required(&inner, ""),
        Some(amount) if amount.nanos() <= 0 => findings.invalid(&inner, size, "must be greater than zero"),
        Some(_) => pod::quantity("storage", size, &inner, findings),
    }
    let class = spec.text("storageClassName");
    if !class.is_empty() {
        findings.names(&format!("{field}.storageClassName"), class, names::subdomain(class));
    }
    findings.choice(&format!("{field}.volumeMode"), spec.at("volumeMode"), &["Block", "Filesystem"]);
}

pub(super) fn volume(spec: &Value, findings: &mut Findings) {
    if spec.items("accessModes").is_empty() {
        findings.required("spec.accessModes", "");
    }
    if spec.at("capacity").is_null() {
        findings.required("spec.capacity", "");
    }
}

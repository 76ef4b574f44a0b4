//! The configuration of a service: its files as a `ConfigMap`, and its writable folders.

use crate::json::json;
use landfall_model::Service;
use serde_json::{Map, Value};

use super::metadata::Subject;
use crate::object::Object;

/// The annotation of pods that changes with the files, so that a change of configuration rolls out like one of code.
const HASH: &str = "landfall.dev/config-hash";

/// The `ConfigMap` with the files of a service.
pub(super) fn config_map(subject: &Subject<'_>, service: &Service) -> Option<Object> {
    if service.config.is_empty() {
        return None;
    }
    let data: Map<String, Value> = service.config.iter().map(|(path, text)| (key(path), json!(&text.value))).collect();
    let value = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": subject.metadata(subject.name),
        "data": data,
    });
    Some(subject.object("configmap", value))
}

/// The annotations that the configuration puts on pods; empty without files.
pub(super) fn annotations(service: &Service) -> Map<String, Value> {
    if service.config.is_empty() {
        return Map::new();
    }
    // A zero byte cannot stand in a path or a text of YAML, so that no two configurations are the same bytes.
    let parts = service.config.iter().flat_map(|(path, text)| [path.as_str(), "\0", text.as_str(), "\0"]);
    let hash = fnv1a(parts.flat_map(str::bytes));
    Map::from_iter([(HASH.to_owned(), json!(format!("{hash:016x}")))])
}

/// The volumes of a pod and where its container mounts them.
pub(super) fn volumes(service_name: &str, service: &Service) -> (Vec<Value>, Vec<Value>) {
    let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
    if !service.config.is_empty() {
        // Keys of a ConfigMap have no `/`: `items` puts files into their folders.
        let items: Vec<Value> =
            service.config.keys().map(|path| json!({ "key": key(path), "path": &path.value })).collect();
        volumes.push(json!({ "name": "config", "configMap": { "name": service_name, "items": items } }));
        mounts.push(json!({ "name": "config", "mountPath": format!("/etc/{service_name}"), "readOnly": true }));
    }
    for (path, size) in &service.scratch {
        let name = scratch(path);
        volumes.push(json!({ "name": &name, "emptyDir": { "sizeLimit": size.to_string() } }));
        mounts.push(json!({ "name": name, "mountPath": &path.value }));
    }
    (volumes, mounts)
}

fn key(path: &str) -> String {
    path.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' }).collect()
}

/// The name of the volume of a writable folder: `/var/cache` is `scratch-var-cache`. A path that does not fit a name
/// gets its hash, so that two paths never share one.
fn scratch(path: &str) -> String {
    let trimmed = path.trim_matches('/');
    let words = trimmed.replace('/', "-");
    let plain = words.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if plain && !trimmed.is_empty() && !trimmed.contains('-') && words.len() <= 50 {
        format!("scratch-{words}")
    } else {
        format!("scratch-{:016x}", fnv1a(path.bytes()))
    }
}

/// The 64-bit hash FNV-1a: the standard library promises nothing about its own from one release to the next.
fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

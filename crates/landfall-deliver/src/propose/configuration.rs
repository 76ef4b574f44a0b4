//! A hash of the configuration and secrets that a pod reads, so that changing them is a change of the service.
//!
//! Secrets go into it with the random identifier of their object, which who reads pods does not know: the hash of a short
//! password could be guessed otherwise.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMap, PodTemplateSpec, Secret};
use kube::{Api, Client};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::cluster::{ClusterError, During as _, if_there};
use crate::release::hexadecimal;

/// What a pod reads.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    configurations: BTreeSet<String>,
    secrets: BTreeSet<String>,
}

/// The hash; `None` when a pod reads nothing.
pub(crate) async fn hash(client: &Client, namespace: &str, template: &Value) -> Result<Option<String>, ClusterError> {
    let read = read_by(template);
    if read == Read::default() {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    let configurations = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    for name in &read.configurations {
        let found = if_there(configurations.get(name).await).during(|| format!("read the ConfigMap `{name}`"))?;
        let data = found.map(|found| json!([found.data, found.binary_data]));
        hash.update(json!([name, data]).to_string());
    }
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    for name in &read.secrets {
        let found = if_there(secrets.get(name).await).during(|| format!("read the Secret `{name}`"))?;
        let data = found.map(|found| json!([found.metadata.uid, found.data]));
        hash.update(json!([name, data]).to_string());
    }
    Ok(Some(hexadecimal(&hash.finalize()[..16])))
}

fn read_by(template: &Value) -> Read {
    let mut read = Read::default();
    let template: PodTemplateSpec = serde_json::from_value(template.clone()).unwrap_or_default();
    let Some(spec) = template.spec else { return read };
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        for variable in container.env.iter().flatten() {
            let Some(from) = &variable.value_from else { continue };
            read.configurations.extend(from.config_map_key_ref.iter().map(|key| key.name.clone()));
            read.secrets.extend(from.secret_key_ref.iter().map(|key| key.name.clone()));
        }
        for from in container.env_from.iter().flatten() {
            read.configurations.extend(from.config_map_ref.iter().map(|source| source.name.clone()));
            read.secrets.extend(from.secret_ref.iter().map(|source| source.name.clone()));
        }
    }
    for volume in spec.volumes.iter().flatten() {
        read.configurations.extend(volume.config_map.iter().map(|source| source.name.clone()));
        read.secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            read.configurations.extend(source.config_map.iter().map(|source| source.name.clone()));
            read.secrets.extend(source.secret.iter().map(|source| source.name.clone()));
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_a_pod_reads_is_found() {
        let template = json!({ "spec": {
            "containers": [{ "name": "web", "env": [
                { "name": "A", "valueFrom": { "secretKeyRef": { "name": "s1", "key": "k" } } },
                { "name": "B", "valueFrom": { "configMapKeyRef": { "name": "c1", "key": "k" } } },
                { "name": "C", "value": "plain" },
            ] }],
            "initContainers": [{ "name": "init", "envFrom": [{ "secretRef": { "name": "s2" } }, { "configMapRef": { "name": "c2" } }] }],
            "volumes": [
                { "name": "v", "secret": { "secretName": "s3" } },
                { "name": "w", "projected": { "sources": [{ "configMap": { "name": "c3" } }] } },
            ],
        } });
        let names = |names: [&str; 3]| names.map(ToOwned::to_owned).into();
        assert_eq!(
            read_by(&template),
            Read { configurations: names(["c1", "c2", "c3"]), secrets: names(["s1", "s2", "s3"]) }
        );
        assert_eq!(read_by(&json!({ "spec": { "containers": [] } })), Read::default());
    }
}

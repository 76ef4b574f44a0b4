//! Storage that exists in the API only: a volume for every claim that has none, bound to it by name, whatever its class.

use std::pin::pin;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::kubelet::report;

/// Never ends. The controller that binds claims is the control plane's.
pub(super) async fn provision(client: Client) {
    let volumes = Api::<PersistentVolume>::all(client.clone());
    let claims = watcher(Api::<PersistentVolumeClaim>::all(client), watcher::Config::default()).default_backoff();
    let mut claims = pin!(claims.applied_objects());
    loop {
        match claims.try_next().await {
            Ok(Some(claim)) => {
                if let Some(volume) = volume_for(&claim) {
                    let created = volumes.create(&PostParams::default(), &volume).await;
                    report("create a volume for claim", &claim.name_any(), created);
                }
            }
            Ok(None) => return,
            Err(error) => report::<()>("watch", "claims", Err(error)),
        }
    }
}

/// `None`: the claim has a volume, is on its way out, or asks by the class of no name for one that is there already.
fn volume_for(claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    let spec = claim.spec.as_ref()?;
    let wants_none = spec.storage_class_name.as_deref() == Some("");
    if spec.volume_name.is_some() || claim.metadata.deletion_timestamp.is_some() || wants_none {
        return None;
    }
    let uid = claim.uid()?;
    let volume = json!({
        "metadata": { "name": format!("fake-{uid}") },
        "spec": {
            "capacity": spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()),
            "accessModes": spec.access_modes,
            "storageClassName": spec.storage_class_name,
            "volumeMode": spec.volume_mode,
            // `Delete` would wait for a plug-in that this volume does not have.
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": { "path": format!("/nonexistent/{uid}") },
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": claim.namespace(), "name": claim.name_any(), "uid": uid,
            },
        },
    });
    Some(serde_json::from_value(volume).expect("it has the fields of a volume"))
}

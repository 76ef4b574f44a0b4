//! Binds claims to volumes, makes volumes for those that have none, and protects both while they are used.
//!
//! There is one machine: whatever a storage class says about who provisions it, a volume is a folder that the node agent
//! keeps under the volume's name. A class that says that nobody does is believed.
//! Not handled: snapshots and clones as the source of a claim, volume attributes classes, `Recycle`.

mod plan;

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::plan::{Claim, Step};
use super::pod;
use super::pod_control::{api, post_params};
use super::status::patch_params;
use super::{Action, ReconcileError, Reconciler, Triggers};
use crate::cache::ObjectKey;
use crate::context::Context;
use crate::event::Recorder;

const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

pub(super) fn start(context: &Context, recorder: &Recorder, cancel: &CancellationToken, tasks: &mut JoinSet<()>) {
    let recorder = recorder.component("persistentvolume-controller");
    super::spawn(PersistentVolumes { context: context.clone(), recorder }, cancel, tasks);
}

struct PersistentVolumes {
    context: Context,
    recorder: Recorder,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Claim(ObjectKey),
    Volume(ObjectKey),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(key) => write!(f, "claim {key}"),
            Self::Volume(key) => write!(f, "volume {key}"),
        }
    }
}

impl Reconciler for PersistentVolumes {
    type Key = Key;
    const NAME: &'static str = "persistentvolume";

    fn watch(&self, triggers: &mut Triggers<Key>) {
        let caches = self.context.caches.clone();
        triggers.on(&caches.persistent_volume_claims, |claim| {
            let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
            let volume = volume.map(|volume| Key::Volume(ObjectKey::new("", volume)));
            std::iter::once(Key::Claim(ObjectKey::of(claim))).chain(volume).collect()
        });
        let claims = caches.persistent_volume_claims.clone();
        triggers.on(&caches.persistent_volumes, move |volume| {
            let waiting = claims.list().into_iter().filter(|claim| !plan::is_bound(claim));
            let waiting = waiting.map(|claim| Key::Claim(ObjectKey::of(&*claim)));
            let own = plan::claim_of(volume).map(Key::Claim);
            std::iter::once(Key::Volume(ObjectKey::of(volume))).chain(own).chain(waiting).collect()
        });
        triggers.on(&caches.pods, |pod| {
            let namespace = pod.namespace().unwrap_or_default();
            plan::claims_of(pod).map(|claim| Key::Claim(ObjectKey::new(&namespace, claim))).collect()
        });
        let claims = caches.persistent_volume_claims.clone();
        triggers.on(&caches.storage_classes, move |_| {
            claims.list().into_iter().map(|claim| Key::Claim(ObjectKey::of(&*claim))).collect()
        });
    }

    async fn reconcile(&self, key: &Key) -> Result<Action, ReconcileError> {
        match key {
            Key::Claim(key) => self.claim(key).await,
            Key::Volume(key) => self.volume(key).await,
        }
    }
}

impl PersistentVolumes {
    async fn claim(&self, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let caches = &self.context.caches;
        let Some(claim) = caches.persistent_volume_claims.get(key) else { return Ok(Action::AwaitChange) };
        let users: Vec<Arc<Pod>> = {
            let mut pods = caches.pods.in_namespace(&key.namespace);
            pods.retain(|pod| plan::claims_of(pod).any(|name| *name == *key.name) && !pod::is_terminal(pod));
            pods
        };
        let bound = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
        let volume = bound.and_then(|name| caches.persistent_volumes.get(&ObjectKey::new("", name)));
        let node = plan::selected_node(&claim, &users);
        let zone = node.and_then(|node| caches.nodes.get(&ObjectKey::new("", &node)));
        let (volumes, class) = (caches.persistent_volumes.list(), self.class(&claim));
        let view = Claim {
            claim: &claim,
            users: &users,
            volume: volume.as_deref(),
            volumes: &volumes,
            class: class.as_deref(),
            zone: zone.and_then(|node| node.labels().get("topology.kubernetes.io/zone").cloned()),
        };
        for step in plan::plan(&view) {
            self.perform(&claim, step).await?;
        }
        Ok(Action::AwaitChange)
    }

    /// The class of a claim; the default one for a claim that names none.
    fn class(&self, claim: &PersistentVolumeClaim) -> Option<Arc<StorageClass>> {
        let classes = &self.context.caches.storage_classes;
        match claim.spec.as_ref()?.storage_class_name.as_deref() {
            Some(name) => classes.get(&ObjectKey::new("", name)),
            None => {
                let is_default = |class: &Arc<StorageClass>| {
                    class.annotations().get(DEFAULT_CLASS).is_some_and(|value| value == "true")
                };
                // The newest, if there are several.
                classes
                    .list()
                    .into_iter()
                    .filter(is_default)
                    .max_by_key(|class| class.metadata.creation_timestamp.clone())
            }
        }
    }

    async fn perform(&self, claim: &PersistentVolumeClaim, step: Step) -> Result<(), ReconcileError> {
        let claims: Api<PersistentVolumeClaim> = api(&self.context, claim);
        match step {
            Step::Claim(patch) => self.patch_claim(&claims, claim, patch, "change a claim").await,
            Step::Status(status) => {
                let patch = Patch::Merge(json!({ "status": status }));
                let written = claims.patch_status(&claim.name_any(), &patch_params(), &patch).await;
                let written = written.map_err(ReconcileError::request("write the status of a claim"))?;
                seen(self.context.caches.persistent_volume_claims.reached(&written).await)
            }
            Step::Volume { name, patch } => {
                let volumes = Api::<PersistentVolume>::all(self.context.client.clone());
                let patched = volumes.patch(&name, &patch_params(), &Patch::Merge(patch)).await;
                let patched = patched.map_err(ReconcileError::request("change a volume"))?;
                seen(self.context.caches.persistent_volumes.reached(&patched).await)
            }
            Step::Provision(volume) => {
                let volumes = Api::<PersistentVolume>::all(self.context.client.clone());
                match volumes.create(&post_params(), &volume).await {
                    Ok(created) => {
                        let message = format!("Successfully provisioned volume {}", created.name_any());
                        self.recorder.normal(claim, "ProvisioningSucceeded", message);
                        seen(self.context.caches.persistent_volumes.reached(&created).await)
                    }
                    Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
                    Err(error) => Err(ReconcileError::request("create a volume")(error)),
                }
            }
            Step::Normal(reason, message) => {
                self.recorder.normal(claim, reason, message);
                Ok(())
            }
            Step::Warning(reason, message) => {
                self.recorder.warning(claim, reason, message);
                Ok(())
            }
        }
    }

    async fn patch_claim(
        &self,
        claims: &Api<PersistentVolumeClaim>,
        claim: &PersistentVolumeClaim,
        patch: Value,
        operation: &'static str,
    ) -> Result<(), ReconcileError> {
        match claims.patch(&claim.name_any(), &patch_params(), &Patch::Merge(patch)).await {
            // It went with its last finalizer.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(ReconcileError::request(operation)(error)),
            Ok(written) if claim.metadata.deletion_timestamp.is_some() => {
                drop(written);
                Ok(())
            }
            Ok(written) => seen(self.context.caches.persistent_volume_claims.reached(&written).await),
        }
    }

    async fn volume(&self, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let caches = &self.context.caches;
        let Some(volume) = caches.persistent_volumes.get(key) else { return Ok(Action::AwaitChange) };
        let volumes = Api::<PersistentVolume>::all(self.context.client.clone());
        let claim = plan::claim_of(&volume).and_then(|key| caches.persistent_volume_claims.get(&key));
        let standing = plan::standing(&volume, claim.as_deref());
        let going = volume.metadata.deletion_timestamp.is_some();
        let protected = volume.finalizers().iter().any(|finalizer| finalizer == VOLUME_PROTECTION);
        if going && protected && standing != plan::Standing::Bound {
            let patch = json!({ "metadata": {
                "resourceVersion": volume.resource_version(),
                "finalizers": without(volume.finalizers(), VOLUME_PROTECTION),
            } });
            return match volumes.patch(&key.name, &patch_params(), &Patch::Merge(patch)).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(Action::AwaitChange),
                patched => patched.map(|_| Action::AwaitChange).map_err(ReconcileError::request("release a volume")),
            };
        }
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase != Some(standing.phase()) {
            let patch = Patch::Merge(json!({ "status": { "phase": standing.phase() } }));
            let written = volumes.patch_status(&key.name, &patch_params(), &patch).await;
            let written = written.map_err(ReconcileError::request("write the status of a volume"))?;
            seen(caches.persistent_volumes.reached(&written).await)?;
        }
        if standing == plan::Standing::Released && plan::is_deleted_when_released(&volume) && !going {
            match volumes.delete(&key.name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                deleted => drop(deleted.map_err(ReconcileError::request("delete a volume"))?),
            }
        }
        Ok(Action::AwaitChange)
    }
}

fn seen(reached: bool) -> Result<(), ReconcileError> {
    if reached { Ok(()) } else { Err(ReconcileError::Behind) }
}

fn without(finalizers: &[String], gone: &str) -> Vec<String> {
    finalizers.iter().filter(|finalizer| *finalizer != gone).cloned().collect()
}

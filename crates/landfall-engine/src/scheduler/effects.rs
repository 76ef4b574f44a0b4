//! What the scheduler writes: bindings, conditions of pods without a place, and evictions that make room.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Binding, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tracing::{debug, info, warn};

use super::preemption::Eviction;
use super::volumes::{SELECTED_NODE, VolumeBinding};
use crate::cache::{Cache, ObjectKey};
use crate::clock::Clock;
use crate::context::Context;
use crate::event::Recorder;

/// How long a pod waits for its volumes (Kubernetes: `BindTimeoutSeconds`).
const VOLUME_PATIENCE: Duration = Duration::from_mins(10);

const FIELD_MANAGER: &str = "kube-scheduler";

/// What has been written.
#[derive(Debug)]
pub(crate) enum Done {
    Bound { key: ObjectKey, succeeded: bool },
    Told,
}

/// Why a pod could not be bound to the node that was chosen for it.
#[derive(Debug, thiserror::Error)]
enum BindError {
    #[error("failed to {operation}")]
    Request { operation: &'static str, source: kube::Error },
    #[error("timed out waiting for the condition")]
    VolumesLate,
}

#[derive(Clone)]
pub(crate) struct Effects {
    client: Client,
    clock: Clock,
    claims: Cache<PersistentVolumeClaim>,
    recorder: Recorder,
}

impl Effects {
    pub(crate) fn new(context: &Context, recorder: Recorder) -> Self {
        Self {
            client: context.client.clone(),
            clock: context.clock.clone(),
            claims: context.caches.persistent_volume_claims.clone(),
            recorder,
        }
    }

    /// Sends a pod to its node, its volumes first.
    pub(crate) async fn bind(self, pod: Arc<Pod>, node: String, volumes: Vec<VolumeBinding>) -> Done {
        let key = ObjectKey::of(&*pod);
        match self.try_bind(&pod, &node, &volumes).await {
            Ok(()) => {
                info!(pod = %key, %node, "placed");
                let message = format!("Successfully assigned {key} to {node}");
                self.recorder.action("Binding").normal(&*pod, "Scheduled", message);
                Done::Bound { key, succeeded: true }
            }
            Err(BindError::Request { source: kube::Error::Api(status), .. }) if matches!(status.code, 404 | 409) => {
                debug!(pod = %key, %status, "somebody else was quicker");
                Done::Bound { key, succeeded: false }
            }
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                warn!(pod = %key, %node, %error, source, "cannot bind");
                self.recorder.action("Scheduling").warning(&*pod, "FailedScheduling", format!("{error}: {source}"));
                Done::Bound { key, succeeded: false }
            }
        }
    }

    async fn try_bind(&self, pod: &Pod, node: &str, volumes: &[VolumeBinding]) -> Result<(), BindError> {
        let failed = |operation| move |source| BindError::Request { operation, source };
        for volume in volumes {
            self.bind_volume(volume, node).await.map_err(failed("bind a volume"))?;
        }
        self.volumes_bound(volumes).await?;
        let binding = Binding {
            metadata: ObjectMeta {
                name: pod.metadata.name.clone(),
                namespace: pod.metadata.namespace.clone(),
                uid: pod.metadata.uid.clone(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: None,
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let (pods, name) = (self.pods_of(pod), pod.name_any());
        let answer: Result<serde_json::Value, _> =
            pods.create_subresource("binding", &name, &PostParams::default(), &binding).await;
        answer.map(drop).map_err(failed("bind the pod"))
    }

    async fn bind_volume(&self, binding: &VolumeBinding, node: &str) -> Result<(), kube::Error> {
        let key = binding.claim();
        match binding {
            VolumeBinding::Bind { volume, .. } => {
                let uid = self.claims.get(key).and_then(|claim| claim.metadata.uid.clone());
                let reference = json!({
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "namespace": &*key.namespace, "name": &*key.name, "uid": uid,
                });
                let patch = json!({
                    "metadata": { "annotations": { "pv.kubernetes.io/bound-by-controller": "yes" } },
                    "spec": { "claimRef": reference },
                });
                let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
                volumes.patch(volume, &params(), &Patch::Merge(patch)).await.map(drop)
            }
            VolumeBinding::Provision { .. } => {
                let patch = json!({ "metadata": { "annotations": { SELECTED_NODE: node } } });
                let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
                claims.patch(&key.name, &params(), &Patch::Merge(patch)).await.map(drop)
            }
        }
    }

    /// Waits until the volume controller has bound every claim.
    async fn volumes_bound(&self, volumes: &[VolumeBinding]) -> Result<(), BindError> {
        let bound = |binding: &VolumeBinding| {
            let claim = self.claims.get(binding.claim());
            let phase = claim.as_ref().and_then(|claim| claim.status.as_ref()?.phase.as_deref().map(str::to_owned));
            phase.as_deref() == Some("Bound")
        };
        let mut changes = self.claims.subscribe();
        let wait = async {
            while !volumes.iter().all(bound) {
                // Lagging is a reason to look, as a change is.
                if matches!(changes.recv().await, Err(tokio::sync::broadcast::error::RecvError::Closed)) {
                    return;
                }
            }
        };
        tokio::time::timeout(VOLUME_PATIENCE, wait).await.map_err(|_| BindError::VolumesLate)
    }

    /// Says on the pod, and in an event, why it has no place; and where room is being made.
    pub(crate) async fn tell(self, pod: Arc<Pod>, message: String, nominated: Option<String>) -> Done {
        self.recorder.action("Scheduling").warning(&*pod, "FailedScheduling", message.clone());
        let status = pod.status.as_ref();
        let current =
            status.and_then(|s| s.conditions.as_ref()).into_iter().flatten().find(|c| c.type_ == "PodScheduled");
        let told = current.is_some_and(|condition| {
            condition.status == "False"
                && condition.reason.as_deref() == Some("Unschedulable")
                && condition.message.as_deref() == Some(&message)
        });
        if told && nominated.is_none() {
            return Done::Told;
        }
        let since =
            current.filter(|condition| condition.status == "False").and_then(|c| c.last_transition_time.clone());
        let since = since.map_or_else(|| seconds(&self.clock), |time| time.0.to_string());
        let mut patch = json!({ "status": { "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastProbeTime": null, "lastTransitionTime": since, "observedGeneration": pod.metadata.generation,
        }] } });
        if let Some(node) = nominated {
            patch["status"]["nominatedNodeName"] = node.into();
        }
        let answer = self.pods_of(&pod).patch_status(&pod.name_any(), &params(), &Patch::Strategic(patch)).await;
        if let Err(error) = answer {
            debug!(pod = %ObjectKey::of(&*pod), %error, "cannot tell why the pod has no place");
        }
        Done::Told
    }

    /// Ends the victims, telling each why.
    pub(crate) async fn evict(self, preemptor: Arc<Pod>, eviction: Eviction) -> Done {
        let uid = preemptor.metadata.uid.as_deref().unwrap_or_default();
        for victim in eviction.victims.iter().filter(|victim| !victim.terminating) {
            let pod = &victim.pod;
            let condition = json!({
                "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                "message": "default-scheduler: preempting to accommodate a higher priority pod",
                "lastProbeTime": null, "lastTransitionTime": seconds(&self.clock),
                "observedGeneration": pod.metadata.generation,
            });
            let api = self.pods_of(pod);
            let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
            let ended = async {
                api.patch_status(&pod.name_any(), &params(), &patch).await?;
                let same = kube::api::Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
                api.delete(&pod.name_any(), &DeleteParams { preconditions: Some(same), ..DeleteParams::default() })
                    .await
            };
            match ended.await {
                Ok(_) => {
                    let message = format!("Preempted by pod {uid} on node {}", eviction.node);
                    self.recorder.action("Preempting").normal(&**pod, "Preempted", message);
                }
                Err(error) => debug!(pod = %victim.key, %error, "cannot end the pod to make room"),
            }
        }
        Done::Told
    }

    fn pods_of(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default())
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// The time, to the second, as the API has it.
fn seconds(clock: &Clock) -> String {
    clock.now().round(jiff::Unit::Second).unwrap_or_else(|_| clock.now()).to_string()
}

//! What the worker of a pod tells the API: the pod's status, and that it has ended.

use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tracing::warn;

use super::Worker;
use super::retry::RETRY;
use crate::kubelet::status::{Facts, status};

/// The conditions that the node agent writes.
const OWN_CONDITIONS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// Of a status, as SHA-256.
pub(super) type Digest = [u8; 32];

fn digest(status: &Value) -> Digest {
    Sha256::digest(status.to_string()).into()
}

/// Names the reasons and messages that conditions do not have any more: a merge keeps what it does not name, and a condition
/// that has come true would go on saying why it was false.
fn name_absent(status: &mut Value) {
    let conditions = status["conditions"].as_array_mut().into_iter().flatten();
    for condition in conditions.filter_map(Value::as_object_mut) {
        for text in ["reason", "message"] {
            condition.entry(text).or_insert(Value::Null);
        }
    }
}

impl Worker {
    /// Writes the status when it is another one than the last. True: the API has it.
    pub(super) async fn write(&mut self, pod: &Arc<Pod>, over: bool) -> bool {
        if self.gone {
            return true;
        }
        if self.away {
            return false;
        }
        // It is never closed.
        let shared = Arc::clone(&self.shared);
        let _turn = shared.writes.acquire().await;
        let records = self.sandbox.as_ref().map(|sandbox| sandbox.records().borrow().clone()).unwrap_or_default();
        let known = |name: &str| self.slots.get(name).map(|slot| slot.known.clone()).unwrap_or_default();
        let mut status = status(&Facts {
            pod,
            records: &records,
            known: &known,
            host_ip: &self.host_ip,
            pod_ip: self.ip.as_deref(),
            over,
            failed: self.failed.as_ref().map(|(reason, message)| (reason.as_str(), message.as_str())),
            now: Timestamp::now(),
        });
        status.conditions.iter_mut().for_each(|all| all.retain(|one| OWN_CONDITIONS.contains(&one.type_.as_str())));
        // What is compared is what is written: times have no fraction there, as they have none when they are read back.
        let mut status = serde_json::to_value(&status).expect("types of the API are JSON");
        name_absent(&mut status);
        let digest = digest(&status);
        if self.written == Some(digest) {
            return true;
        }
        let body = json!({ "metadata": { "uid": pod.uid() }, "status": status });
        let pods: Api<Pod> = Api::namespaced(self.shared.context.client.clone(), &pod.namespace().unwrap_or_default());
        match pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&body)).await {
            Ok(answer) => {
                self.written = Some(digest);
                self.answered(answer);
                true
            }
            Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => {
                // Gone, or another pod of the same name by now: the cache will say so.
                self.wake(Instant::now() + RETRY);
                true
            }
            Err(error) => {
                warn!(%error, "the status cannot be written, trying again");
                self.wake(Instant::now() + RETRY);
                false
            }
        }
    }

    /// Lets the API forget the pod. True: it has.
    pub(super) async fn delete(&self, pod: &Pod) -> bool {
        let pods: Api<Pod> = Api::namespaced(self.shared.context.client.clone(), &pod.namespace().unwrap_or_default());
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: pod.uid(), ..Preconditions::default() }),
            ..DeleteParams::default()
        };
        let _turn = self.shared.writes.acquire().await;
        match pods.delete(&pod.name_any(), &parameters).await {
            // With a finalizer it is still there: its end is seen by the watch.
            Ok(_) => pod.finalizers().is_empty(),
            Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => true,
            Err(error) => {
                warn!(%error, "the pod cannot be deleted, trying again");
                false
            }
        }
    }

    pub(super) async fn remove(&mut self) {
        let uid = self.known_by_api.uid().unwrap_or_default();
        *self.handle.sandbox.write().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(sandbox) = self.sandbox.take()
            && let Err(error) = sandbox.remove().await
        {
            warn!(%error, "the pod's folder is not removed");
        }
        self.shared.network.detach(&uid).await;
    }
}

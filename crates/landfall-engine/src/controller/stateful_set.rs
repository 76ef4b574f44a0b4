//! Gives the pods of a StatefulSet their names and their volumes, and changes them one after the other.

mod claims;
mod plan;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::Patch;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::claim::{claim, selector, selects};
use super::pod_control::{api, message, namespace_is_terminating, post_params};
use super::revision::{Present, Synced};
use super::status::patch_params;
use super::{Action, ReconcileError, Reconciler, Triggers, pod, status};
use crate::cache::{ObjectKey, controller_of};
use crate::context::{Caches, Context};
use crate::event::Recorder;
use plan::{Change, Revisions};

pub(super) fn start(context: &Context, recorder: &Recorder, cancel: &CancellationToken, tasks: &mut JoinSet<()>) {
    let recorder = recorder.component("statefulset-controller");
    super::spawn(StatefulSets { context: context.clone(), recorder }, cancel, tasks);
}

struct StatefulSets {
    context: Context,
    recorder: Recorder,
}

impl Reconciler for StatefulSets {
    type Key = ObjectKey;
    const NAME: &'static str = "statefulset";

    fn watch(&self, triggers: &mut Triggers<ObjectKey>) {
        let caches = &self.context.caches;
        triggers.on_each(&caches.stateful_sets);
        let of_pods = caches.clone();
        triggers.on(&caches.pods, move |pod| owners(&of_pods, pod));
        triggers.on(&caches.controller_revisions, |revision| {
            let owner = controller_of(revision).filter(|owner| owner.kind == "StatefulSet");
            owner
                .map(|owner| ObjectKey::new(&revision.namespace().unwrap_or_default(), &owner.name))
                .into_iter()
                .collect()
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let caches = &self.context.caches;
        let Some(set) = caches.stateful_sets.get(key) else { return Ok(Action::AwaitChange) };
        let Some(spec) = &set.spec else { return Ok(Action::AwaitChange) };
        let Some(selector) = selector(Some(&spec.selector)) else { return Ok(Action::AwaitChange) };

        let is_member = |pod: &Pod| plan::ordinal(&key.name, pod).is_some();
        let mut pods = claim(&self.context, &*set, &selector, &caches.pods, &is_member).await?;
        let old = set.status.as_ref();
        let present = Present {
            owner: &*set,
            selector: &selector,
            template: &spec.template,
            hash_label: "controller.kubernetes.io/hash",
            collisions: old.and_then(|status| status.collision_count).filter(|count| *count > 0),
        };
        let history = match present.sync(&self.context).await? {
            Synced::History(history) => history,
            Synced::Collision(collisions) => {
                let mut new = old.cloned().unwrap_or_default();
                new.collision_count = Some(collisions);
                self.write_status(&set, &new).await?;
                return Err(ReconcileError::Behind);
            }
        };
        let current = old.and_then(|status| status.current_revision.as_deref());
        let current = history.revisions.iter().find(|revision| Some(&*revision.name_any()) == current);
        let revisions = Revisions::new(current.unwrap_or(&history.update), &history.update);

        let claims = |name: &str| caches.persistent_volume_claims.get(&ObjectKey::new(&key.namespace, name));
        let changes = plan::plan(&set, &revisions, &pods, claims, Timestamp::now());
        let mut result = Ok(());
        for change in &changes {
            result = self.perform(&set, change).await;
            if result.is_err() {
                break;
            }
        }

        pods = caches.pods.owned_by(&set.uid().unwrap_or_default());
        pods.retain(|pod| selects(&selector, &**pod) && is_member(pod));
        let now = Timestamp::now();
        self.write_status(&set, &plan::status(&set, &revisions, &pods, now)).await?;
        result?;
        let in_use = |revision: &k8s_openapi::api::apps::v1::ControllerRevision| {
            let name = revision.name_any();
            name == revisions.current_name() || pods.iter().any(|pod| plan::revision_of(pod) == Some(&name))
        };
        history.truncate(&self.context, &*set, spec.revision_history_limit, in_use).await?;
        let next = pod::next_available(&pods, spec.min_ready_seconds.unwrap_or_default(), now);
        Ok(next.map_or(Action::AwaitChange, Action::RequeueAfter))
    }
}

impl StatefulSets {
    async fn perform(&self, set: &StatefulSet, change: &Change) -> Result<(), ReconcileError> {
        match change {
            Change::CreateClaim { claim, pod } => {
                let claims: Api<PersistentVolumeClaim> = api(&self.context, set);
                let name = claim.name_any();
                let of = format!("Claim {name} Pod {pod} in StatefulSet {}", set.name_any());
                match claims.create(&post_params(), claim).await {
                    Ok(created) => {
                        self.recorder.normal(set, "SuccessfulCreate", format!("Create {of} success"));
                        let seen = self.context.caches.persistent_volume_claims.reached(&created).await;
                        if seen { Ok(()) } else { Err(ReconcileError::Behind) }
                    }
                    Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
                    Err(source) => {
                        let text = format!(
                            "Create Claim {name} for Pod {pod} in StatefulSet {} failed error: {}",
                            set.name_any(),
                            message(&source)
                        );
                        self.recorder.warning(set, "FailedCreate", text);
                        Err(ReconcileError::Request { operation: "create a volume claim", source })
                    }
                }
            }
            Change::OwnClaim { claim, owners } => {
                let claims: Api<PersistentVolumeClaim> = api(&self.context, set);
                let version = &claim.metadata.resource_version;
                let patch = json!({ "metadata": { "resourceVersion": version, "ownerReferences": owners } });
                let patched = claims.patch(&claim.name_any(), &patch_params(), &Patch::Merge(patch)).await;
                let patched = patched.map_err(ReconcileError::request("change the owner of a volume claim"))?;
                let seen = self.context.caches.persistent_volume_claims.reached(&patched).await;
                if seen { Ok(()) } else { Err(ReconcileError::Behind) }
            }
            Change::Create(pod) => {
                let pods: Api<Pod> = api(&self.context, set);
                match pods.create(&post_params(), pod).await {
                    Ok(created) => {
                        self.tell(set, "Create", &pod.name_any(), None);
                        if self.context.caches.pods.reached(&created).await {
                            Ok(())
                        } else {
                            Err(ReconcileError::Behind)
                        }
                    }
                    Err(error) if namespace_is_terminating(&error) => Ok(()),
                    // Somebody else's pod has the name, or an old one of ours is not gone yet.
                    Err(source @ kube::Error::Api(_)) if is_conflict(&source) => {
                        Err(ReconcileError::Request { operation: "create a pod", source })
                    }
                    Err(source) => {
                        self.tell(set, "Create", &pod.name_any(), Some(&source));
                        Err(ReconcileError::Request { operation: "create a pod", source })
                    }
                }
            }
            Change::Delete(pod) => {
                let pods: Api<Pod> = api(&self.context, set);
                match pods.delete(&pod.name_any(), &super::pod_control::delete_params(pod)).await {
                    Ok(_) => self.tell(set, "Delete", &pod.name_any(), None),
                    Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                    Err(source) => {
                        self.tell(set, "Delete", &pod.name_any(), Some(&source));
                        return Err(ReconcileError::Request { operation: "delete a pod", source });
                    }
                }
                let seen = self.context.caches.pods.seen_deleted(&ObjectKey::of(&**pod), pod).await;
                if seen { Ok(()) } else { Err(ReconcileError::Behind) }
            }
        }
    }

    fn tell(&self, set: &StatefulSet, verb: &str, pod: &str, error: Option<&kube::Error>) {
        let of = format!("{verb} Pod {pod} in StatefulSet {}", set.name_any());
        match error {
            None => self.recorder.normal(set, &format!("Successful{verb}"), format!("{of} successful")),
            Some(error) => {
                let text = format!("{of} failed error: {}", message(error));
                self.recorder.warning(set, &format!("Failed{verb}"), text);
            }
        }
    }

    async fn write_status(
        &self,
        set: &StatefulSet,
        new: &k8s_openapi::api::apps::v1::StatefulSetStatus,
    ) -> Result<(), ReconcileError> {
        let sets: Api<StatefulSet> = api(&self.context, set);
        let operation = "write the status of a stateful set";
        let written = status::write(&sets, &set.name_any(), set.status.as_ref(), new, operation).await?;
        match written {
            Some(written) if !self.context.caches.stateful_sets.reached(&written).await => Err(ReconcileError::Behind),
            _ => Ok(()),
        }
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// The stateful set that a pod belongs to, or those that might adopt it.
fn owners(caches: &Caches, pod: &Pod) -> Vec<ObjectKey> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(owner) = controller_of(pod) {
        return (owner.kind == "StatefulSet").then(|| ObjectKey::new(namespace, &owner.name)).into_iter().collect();
    }
    let sets: Vec<Arc<StatefulSet>> = caches.stateful_sets.in_namespace(namespace);
    let might = sets.iter().filter(|set| {
        let selector = set.spec.as_ref().and_then(|spec| selector(Some(&spec.selector)));
        selector.is_some_and(|selector| selects(&selector, pod))
    });
    might.map(|set| ObjectKey::of(&**set)).collect()
}

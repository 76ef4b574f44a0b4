//! Rolls a Deployment out: one replica set for each pod template that it had, the newest grown and the others shrunk
//! within the bounds of its strategy.

mod plan;
mod template;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PropagationPolicy};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::claim::{claim, selector, selects};
use super::pod_control::{api, message, namespace_is_terminating, post_params};
use super::status::patch_params;
use super::{Action, ReconcileError, Reconciler, Triggers, pod, status};
use crate::cache::{ObjectKey, controller_of};
use crate::context::{Caches, Context};
use crate::event::Recorder;
use plan::Change;

pub(super) fn start(context: &Context, recorder: &Recorder, cancel: &CancellationToken, tasks: &mut JoinSet<()>) {
    let recorder = recorder.component("deployment-controller");
    super::spawn(Deployments { context: context.clone(), recorder }, cancel, tasks);
}

struct Deployments {
    context: Context,
    recorder: Recorder,
}

impl Reconciler for Deployments {
    type Key = ObjectKey;
    const NAME: &'static str = "deployment";

    fn watch(&self, triggers: &mut Triggers<ObjectKey>) {
        let caches = &self.context.caches;
        triggers.on_each(&caches.deployments);
        let of_sets = caches.clone();
        triggers.on(&caches.replica_sets, move |set| owners(&of_sets, set));
        let of_pods = caches.clone();
        triggers.on(&caches.pods, move |pod| recreating_owner(&of_pods, pod).into_iter().collect());
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let caches = &self.context.caches;
        let Some(deployment) = caches.deployments.get(key) else { return Ok(Action::AwaitChange) };
        let Some(spec) = &deployment.spec else { return Ok(Action::AwaitChange) };
        let Some(selector) = selector(Some(&spec.selector)) else { return Ok(Action::AwaitChange) };

        let sets = claim(&self.context, &*deployment, &selector, &caches.replica_sets, &|_| true).await?;
        let pods_run = |uid: &str| caches.pods.owned_by(uid).iter().any(|pod| !pod::is_terminal(pod));
        let Some(plan) = plan::plan(&deployment, &sets, pods_run, Timestamp::now()) else {
            return Ok(Action::AwaitChange);
        };
        for change in &plan.changes {
            self.perform(&deployment, change).await?;
        }
        self.write_status(&deployment, &plan.status, plan.revision.as_deref()).await?;
        Ok(plan.recheck.map_or(Action::AwaitChange, Action::RequeueAfter))
    }
}

impl Deployments {
    async fn perform(&self, deployment: &Deployment, change: &Change) -> Result<(), ReconcileError> {
        let sets: Api<ReplicaSet> = api(&self.context, deployment);
        let cache = &self.context.caches.replica_sets;
        let written = match change {
            Change::Create(set) => self.create(deployment, &sets, set).await?,
            Change::Update { name, patch, scaled } => {
                let patched = sets.patch(name, &patch_params(), &Patch::Merge(patch)).await;
                let patched = patched.map_err(ReconcileError::request("patch a replica set"))?;
                if let Some((from, to)) = scaled {
                    let direction = if from < to { "up" } else { "down" };
                    let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
                    self.recorder.normal(deployment, "ScalingReplicaSet", message);
                }
                patched
            }
            Change::Delete { name } => {
                let params =
                    DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
                return match sets.delete(name, &params).await {
                    Ok(_) => Ok(()),
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                    Err(source) => Err(ReconcileError::Request { operation: "delete an old replica set", source }),
                };
            }
        };
        if cache.reached(&written).await { Ok(()) } else { Err(ReconcileError::Behind) }
    }

    async fn create(
        &self,
        deployment: &Deployment,
        sets: &Api<ReplicaSet>,
        set: &ReplicaSet,
    ) -> Result<ReplicaSet, ReconcileError> {
        let name = set.name_any();
        let error = match sets.create(&post_params(), set).await {
            Ok(created) => {
                let replicas = created.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
                if replicas > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.recorder.normal(deployment, "ScalingReplicaSet", message);
                }
                return Ok(created);
            }
            Err(error) => error,
        };
        match &error {
            kube::Error::Api(status) if status.reason == "AlreadyExists" => {
                let present = sets.get(&name).await.map_err(ReconcileError::request("read a replica set"))?;
                let template = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.template.clone());
                let ours = controller_of(&present).is_some_and(|owner| Some(&owner.uid) == deployment.uid().as_ref());
                if ours && template::same(template(&present).as_ref(), template(set).as_ref()) {
                    return Ok(present);
                }
                // Another template has this hash: the next try makes another one.
                let mut status = deployment.status.clone().unwrap_or_default();
                status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
                self.write_status(deployment, &status, None).await?;
            }
            error if namespace_is_terminating(error) => {}
            error => {
                let message = format!("Failed to create new replica set \"{name}\": {}", message(error));
                if let Some(status) = plan::failed_to_create(deployment, &message, Timestamp::now()) {
                    self.write_status(deployment, &status, None).await?;
                }
                self.recorder.warning(deployment, "ReplicaSetCreateError", message);
            }
        }
        Err(ReconcileError::Request { operation: "create a replica set", source: error })
    }

    /// The revision is an annotation, but goes with the status: through the object itself, the API would count it as a
    /// change of the deployment and raise its generation.
    async fn write_status(
        &self,
        deployment: &Deployment,
        new: &DeploymentStatus,
        revision: Option<&str>,
    ) -> Result<(), ReconcileError> {
        let mut patch = json!({});
        if let Some(status) = status::difference(deployment.status.as_ref(), new) {
            patch["status"] = status;
        }
        if let Some(revision) = revision {
            patch["metadata"] = json!({ "annotations": { plan::REVISION: revision } });
        }
        if patch == json!({}) {
            return Ok(());
        }
        let deployments: Api<Deployment> = api(&self.context, deployment);
        let patched = deployments.patch_status(&deployment.name_any(), &patch_params(), &Patch::Merge(patch)).await;
        let patched = patched.map_err(ReconcileError::request("write the status of a deployment"))?;
        if self.context.caches.deployments.reached(&patched).await { Ok(()) } else { Err(ReconcileError::Behind) }
    }
}

/// The deployment that a replica set belongs to, or those that might adopt it.
fn owners(caches: &Caches, set: &ReplicaSet) -> Vec<ObjectKey> {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(owner) = controller_of(set) {
        return (owner.kind == "Deployment").then(|| ObjectKey::new(namespace, &owner.name)).into_iter().collect();
    }
    let deployments = caches.deployments.in_namespace(namespace);
    let might = deployments.iter().filter(|deployment| {
        let selector = deployment.spec.as_ref().and_then(|spec| selector(Some(&spec.selector)));
        selector.is_some_and(|selector| selects(&selector, set))
    });
    might.map(|deployment| ObjectKey::of(&**deployment)).collect()
}

/// The deployment of a pod, if it waits for old pods to end. The others hear of their pods from their replica sets.
fn recreating_owner(caches: &Caches, pod: &Pod) -> Option<ObjectKey> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let set = controller_of(pod).filter(|owner| owner.kind == "ReplicaSet")?;
    let set = caches.replica_sets.get(&ObjectKey::new(namespace, &set.name))?;
    let key = ObjectKey::new(namespace, &controller_of(&*set)?.name);
    let deployment = caches.deployments.get(&key)?;
    let recreates = deployment.spec.as_ref()?.strategy.as_ref()?.type_.as_deref() == Some("Recreate");
    recreates.then_some(key)
}

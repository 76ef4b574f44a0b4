//! Deletes what nobody owns any more, and holds back or lets go what is being deleted.
//!
//! It watches the metadata of every kind that can be deleted, custom ones included, and keeps who owns whom as a graph.
//! An owner that is not in the graph is asked for before anything is deleted on account of its absence.

mod graph;
mod monitor;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::graph::{Graph, Node, Plan};
use self::monitor::{Kinds, Monitors};
use super::{Action, ReconcileError, Reconciler, Triggers};
use crate::context::Context;

/// On an object that goes only after those that it owns and that hold it back.
pub(super) const FOREGROUND: &str = "foregroundDeletion";

/// On an object whose dependents are to stay behind without it.
const ORPHAN: &str = "orphan";

pub(super) fn start(context: &Context, cancel: &CancellationToken, tasks: &mut JoinSet<()>) {
    let (client, cancel) = (context.client.clone(), cancel.clone());
    tasks.spawn(async move {
        // Unbounded: keys are small, equal ones fall together in the queue.
        let (sender, changes) = mpsc::unbounded_channel();
        let graph = Arc::new(Mutex::new(Graph::default()));
        let kinds = Kinds::default();
        let mut monitors = Monitors::new(client.clone(), Arc::clone(&graph), sender, kinds.clone(), cancel.clone());
        if cancel.run_until_cancelled(monitors.start()).await.is_none() {
            return;
        }
        let collector = GarbageCollector { client, graph, kinds, changes: Mutex::new(Some(changes)) };
        let run = super::run(Arc::new(collector), cancel);
        futures::future::join(run, monitors.keep_up()).await;
    });
}

struct GarbageCollector {
    client: Client,
    graph: Arc<Mutex<Graph>>,
    kinds: Kinds,
    /// Taken when the controller starts.
    changes: Mutex<Option<mpsc::UnboundedReceiver<String>>>,
}

impl Reconciler for GarbageCollector {
    /// The uid of an object.
    type Key = String;
    const NAME: &'static str = "garbage-collector";

    fn watch(&self, triggers: &mut Triggers<String>) {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner).take();
        triggers.from(changes.expect("a controller is started once"));
    }

    async fn reconcile(&self, uid: &String) -> Result<Action, ReconcileError> {
        let Some(node) = self.graph().get(uid) else { return Ok(Action::AwaitChange) };
        let mut absent = Vec::new();
        let unseen = self.graph().unseen_owners(&node);
        for owner in unseen {
            if !self.exists(&node, &owner).await? {
                absent.push(owner.uid);
            }
        }
        let plan = self.graph().plan(&node, &absent);
        match plan {
            Plan::Nothing => {}
            Plan::Delete(propagation) => self.delete(&node, propagation).await?,
            Plan::Disown(owners) => self.disown(&node, &owners).await?,
            Plan::Orphan(dependents) => {
                for dependent in dependents {
                    self.disown(&dependent, std::slice::from_ref(uid)).await?;
                }
                self.release(&node, ORPHAN).await?;
            }
            Plan::Release => self.release(&node, FOREGROUND).await?,
        }
        Ok(Action::AwaitChange)
    }
}

impl GarbageCollector {
    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn api(&self, node: &Node) -> Api<DynamicObject> {
        scoped(self.client.clone(), &node.kind, node.namespace.as_deref())
    }

    /// Asks for an owner that the graph does not know. It must have the uid that the reference says.
    async fn exists(&self, node: &Node, owner: &OwnerReference) -> Result<bool, ReconcileError> {
        let Some((kind, is_namespaced)) = self.kinds.find(&owner.api_version, &owner.kind) else {
            // The kind may come back; nothing is deleted because of a kind that is not served.
            return Err(ReconcileError::Invalid(format!("no kind {} {}", owner.api_version, owner.kind)));
        };
        let namespace = node.namespace.as_deref().filter(|_| is_namespaced);
        if is_namespaced && namespace.is_none() {
            // Not handled: the event `OwnerRefInvalidNamespace`. The owner cannot be found, so its absence is not known.
            return Ok(true);
        }
        let found = scoped(self.client.clone(), &kind, namespace).get_metadata_opt(&owner.name).await;
        let found = found.map_err(ReconcileError::request("look for an owner"))?;
        Ok(found.is_some_and(|found| found.metadata.uid.as_deref() == Some(owner.uid.as_str())))
    }

    async fn delete(&self, node: &Node, propagation: PropagationPolicy) -> Result<(), ReconcileError> {
        // Both: somebody may have adopted it meanwhile, or made another of the same name.
        let preconditions = Preconditions { uid: Some(node.uid.clone()), resource_version: node.version.clone() };
        let params = DeleteParams {
            propagation_policy: Some(propagation),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let deleted = self.api(node).delete(&node.name, &params).await;
        absent_is_fine(deleted).map_err(ReconcileError::request("delete what has no owner"))
    }

    /// Takes owners away from an object.
    async fn disown(&self, node: &Node, owners: &[String]) -> Result<(), ReconcileError> {
        let kept: Vec<_> = node.owners.iter().filter(|owner| !owners.contains(&owner.uid)).collect();
        self.patch(node, json!({ "ownerReferences": kept })).await
    }

    /// Takes a finalizer away from an object.
    async fn release(&self, node: &Node, finalizer: &str) -> Result<(), ReconcileError> {
        let kept: Vec<_> = node.finalizers.iter().filter(|kept| *kept != finalizer).collect();
        self.patch(node, json!({ "finalizers": kept })).await
    }

    /// Lists in metadata are replaced as a whole, so they must be those that were looked at.
    async fn patch(&self, node: &Node, mut metadata: Value) -> Result<(), ReconcileError> {
        metadata["uid"] = json!(node.uid);
        metadata["resourceVersion"] = json!(node.version);
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let patched = self.api(node).patch_metadata(&node.name, &PatchParams::default(), &patch).await;
        absent_is_fine(patched).map_err(ReconcileError::request("change the metadata of an object"))
    }
}

fn scoped(client: Client, kind: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, kind),
        None => Api::all_with(client, kind),
    }
}

fn absent_is_fine<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

/// `apps/v1` and `Deployment` as one.
fn kind_of(api_version: &str, kind: &str) -> GroupVersionKind {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    GroupVersionKind::gvk(group, version, kind)
}

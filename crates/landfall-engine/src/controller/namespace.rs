//! Empties a namespace that is being deleted, says what is left, and lets it go when nothing is.

mod content;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams, PropagationPolicy};
use kube::core::ApiResource;
use kube::discovery::{ApiCapabilities, ApiGroup, Discovery, Scope, verbs};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::content::{Left, conditions};
use super::status::{self, whole_seconds};
use super::{Action, ReconcileError, Reconciler, Triggers};
use crate::cache::ObjectKey;
use crate::context::Context;

/// In `spec.finalizers` of a namespace until it is empty.
const FINALIZER: &str = "kubernetes";

/// How soon is looked again whether what was deleted is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

pub(super) fn start(context: &Context, cancel: &CancellationToken, tasks: &mut JoinSet<()>) {
    super::spawn(Namespaces { context: context.clone() }, cancel, tasks);
}

struct Namespaces {
    context: Context,
}

impl Reconciler for Namespaces {
    type Key = ObjectKey;
    const NAME: &'static str = "namespace";

    fn watch(&self, triggers: &mut Triggers<ObjectKey>) {
        triggers.on_each(&self.context.caches.namespaces);
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let Some(namespace) = self.context.caches.namespaces.get(key) else { return Ok(Action::AwaitChange) };
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default();
        if namespace.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|name| name == FINALIZER) {
            return Ok(Action::AwaitChange);
        }
        let left = self.empty(&key.name).await?;
        self.report(&namespace, &left).await?;
        if !left.is_empty() {
            return Ok(Action::RequeueAfter(LOOK_AGAIN));
        }
        self.release(&namespace).await?;
        Ok(Action::AwaitChange)
    }
}

impl Namespaces {
    /// Deletes everything that is in a namespace. Pods first, as what they still do may need the rest.
    async fn empty(&self, namespace: &str) -> Result<Left, ReconcileError> {
        let mut left = Left::default();
        let discovered = Discovery::new(self.context.client.clone()).run_aggregated().await;
        let discovered = match discovered {
            Ok(discovered) => discovered,
            Err(error) => {
                left.undiscovered = Some(error.to_string());
                return Ok(left);
            }
        };
        let all: Vec<_> = discovered.groups().flat_map(ApiGroup::recommended_resources).collect();
        let (pods, others): (Vec<_>, Vec<_>) = all
            .into_iter()
            .filter(|(_, capabilities)| capabilities.scope == Scope::Namespaced && can(capabilities, verbs::DELETE))
            .partition(|(kind, _)| kind.kind == "Pod" && kind.group.is_empty());
        for kinds in [pods, others] {
            let emptied = kinds.iter().map(|(kind, can)| self.empty_of(namespace, kind, can));
            for ((kind, _), result) in kinds.iter().zip(futures::future::join_all(emptied).await) {
                match result {
                    Ok(objects) => left.add(kind, &objects),
                    Err(error) => left.failures.push(super::pod_control::message(&error)),
                }
            }
            if !left.is_empty() {
                break;
            }
        }
        Ok(left)
    }

    /// Deletes the objects of one kind, and gives those that are still there.
    async fn empty_of(
        &self,
        namespace: &str,
        kind: &ApiResource,
        capabilities: &ApiCapabilities,
    ) -> kube::Result<Vec<kube::core::PartialObjectMeta<DynamicObject>>> {
        if !can(capabilities, verbs::LIST) {
            return Ok(Vec::new());
        }
        let api = Api::<DynamicObject>::namespaced_with(self.context.client.clone(), namespace, kind);
        let everything = ListParams::default();
        let found = match api.list_metadata(&everything).await {
            // The kind has gone meanwhile, or cannot be listed after all.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => return Ok(Vec::new()),
            found => found?.items,
        };
        if found.is_empty() {
            return Ok(found);
        }
        let background =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
        if can(capabilities, verbs::DELETE_COLLECTION) {
            api.delete_collection(&background, &everything).await?;
        } else {
            for object in found.iter().filter(|object| object.metadata.deletion_timestamp.is_none()) {
                match api.delete(&object.name_any(), &background).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    deleted => drop(deleted?),
                }
            }
        }
        Ok(api.list_metadata(&everything).await?.items)
    }

    async fn report(&self, namespace: &Namespace, left: &Left) -> Result<(), ReconcileError> {
        let old = namespace.status.clone().unwrap_or_default();
        let known = old.conditions.clone().unwrap_or_default();
        let new = NamespaceStatus {
            conditions: Some(merge(&known, conditions(left), self.context.clock.now())),
            phase: Some("Terminating".to_owned()),
        };
        let all = Api::<Namespace>::all(self.context.client.clone());
        let operation = "write the status of a namespace";
        let written = status::write(&all, &namespace.name_any(), Some(&old), &new, operation).await?;
        if let Some(written) = written
            && !self.context.caches.namespaces.reached(&written).await
        {
            return Err(ReconcileError::Behind);
        }
        Ok(())
    }

    /// Takes the finalizer away; the API server removes the namespace with its last one.
    async fn release(&self, namespace: &Namespace) -> Result<(), ReconcileError> {
        let spec = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default();
        let kept: Vec<_> = spec.iter().filter(|name| *name != FINALIZER).collect();
        let finalize: Namespace = serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": { "name": namespace.name_any(), "uid": namespace.uid() },
            "spec": { "finalizers": kept },
        }))
        .expect("a namespace");
        let all = Api::<Namespace>::all(self.context.client.clone());
        match all.replace_subresource("finalize", &namespace.name_any(), &PostParams::default(), &finalize).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            finalized => finalized.map(drop).map_err(ReconcileError::request("finalize a namespace")),
        }
    }
}

fn can(capabilities: &ApiCapabilities, verb: &str) -> bool {
    capabilities.supports_operation(verb)
}

/// Conditions keep the time at which they came to be as they are.
fn merge(known: &[NamespaceCondition], new: Vec<NamespaceCondition>, now: Timestamp) -> Vec<NamespaceCondition> {
    let by_type: BTreeMap<_, _> = known.iter().map(|condition| (&condition.type_, condition)).collect();
    let now = whole_seconds(now);
    let dated = new.into_iter().map(|new| {
        let unchanged = by_type
            .get(&new.type_)
            .filter(|old| old.status == new.status && old.reason == new.reason && old.message == new.message);
        let since = unchanged.and_then(|old| old.last_transition_time.clone());
        NamespaceCondition { last_transition_time: Some(since.unwrap_or_else(|| now.clone())), ..new }
    });
    dated.collect()
}

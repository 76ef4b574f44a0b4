//! Says where the pods of a service are: endpoint slices, and Endpoints for those who still read them.
//!
//! A service without a selector, and one that is only a name for something outside, is left to its owner.
//! Not handled: endpoint slices that mirror Endpoints made by hand.

mod legacy;
mod plan;
#[cfg(test)]
mod tests;
mod trigger;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::pod_control::{api, namespace_is_terminating, post_params};
use super::status::{difference, patch_params};
use super::{Action, ReconcileError, Reconciler, Triggers};
use crate::cache::{Kind, ObjectKey};
use crate::context::{Caches, Context};

/// The controller that slices say they are managed by.
const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

pub(super) fn start(context: &Context, cancel: &CancellationToken, tasks: &mut JoinSet<()>) {
    super::spawn(EndpointSlices { context: context.clone(), triggers: Mutex::default() }, cancel, tasks);
}

struct EndpointSlices {
    context: Context,
    /// By service: the changes that its slices reflect.
    triggers: Mutex<HashMap<ObjectKey, trigger::Seen>>,
}

impl Reconciler for EndpointSlices {
    type Key = ObjectKey;
    const NAME: &'static str = "endpointslice";

    fn watch(&self, triggers: &mut Triggers<ObjectKey>) {
        let caches = &self.context.caches;
        triggers.on_each(&caches.services);
        triggers.on_each(&caches.endpoints);
        let of_pod = caches.clone();
        triggers.on(&caches.pods, move |pod| selecting(&of_pod, pod));
        // A pod's zone is that of its node, and a pod whose node is not known is not listed.
        let of_node = caches.clone();
        triggers.on(&caches.nodes, move |node| {
            let pods = of_node.pods.indexed_by(&node.name_any());
            pods.iter().flat_map(|pod| selecting(&of_node, pod)).collect()
        });
        triggers.on(&caches.endpoint_slices, |slice| {
            let service = slice.labels().get(SERVICE_LABEL);
            service.map(|name| ObjectKey::new(&slice.namespace().unwrap_or_default(), name)).into_iter().collect()
        });
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let caches = &self.context.caches;
        let Some(service) = caches.services.get(key) else {
            self.triggers.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            // Slices go with their owner; Endpoints have none.
            return self.delete_endpoints(key).await;
        };
        let Some(selector) = selector(&service) else { return Ok(Action::AwaitChange) };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Action::AwaitChange);
        }
        let mut pods = caches.pods.in_namespace(&key.namespace);
        pods.retain(|pod| selects(selector, pod));
        let pods: Vec<plan::Placed> = pods.into_iter().map(|pod| self.placed(pod)).collect();
        let existing = caches.endpoint_slices.owned_by(&service.uid().unwrap_or_default());
        let existing: Vec<_> = existing.into_iter().filter(|slice| is_ours(slice)).collect();
        let trigger = self.trigger(key, &service, &pods);
        let mut changes = plan::plan(&service, &pods, &existing);
        for change in &mut changes {
            change.caused_at(trigger);
        }
        self.write_slices(&service, changes).await?;
        self.write_endpoints(&service, legacy::endpoints(&service, &pods), trigger).await?;
        Ok(Action::AwaitChange)
    }
}

impl EndpointSlices {
    fn placed(&self, pod: Arc<Pod>) -> plan::Placed {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let node = node.and_then(|node| self.context.caches.nodes.get(&ObjectKey::new("", node)));
        plan::Placed { pod, node }
    }

    /// When that happened which is to be written down now; none if all of it has been before.
    fn trigger(&self, key: &ObjectKey, service: &Service, pods: &[plan::Placed]) -> Option<Timestamp> {
        let seen = trigger::Seen::of(service, pods.iter().map(|placed| &*placed.pod));
        let mut triggers = self.triggers.lock().unwrap_or_else(PoisonError::into_inner);
        let before = triggers.insert(key.clone(), seen);
        triggers.get(key)?.since(before.as_ref())
    }

    async fn write_slices(&self, service: &Service, changes: Vec<plan::Change>) -> Result<(), ReconcileError> {
        let slices: Api<EndpointSlice> = api(&self.context, service);
        let cache = &self.context.caches.endpoint_slices;
        for change in changes {
            match change {
                plan::Change::Create(slice) => match slices.create(&post_params(), &slice).await {
                    Ok(created) => seen(cache.reached(&created).await)?,
                    Err(error) if namespace_is_terminating(&error) => {}
                    Err(error) => return Err(ReconcileError::request("create an endpoint slice")(error)),
                },
                plan::Change::Update { old, new } => {
                    let Some(patch) = difference(Some(&*old), &new) else { continue };
                    // The lists are replaced as a whole, so they must be those that were looked at.
                    let updated = replace(&slices, &*old, patch).await;
                    let updated = updated.map_err(ReconcileError::request("update an endpoint slice"))?;
                    seen(cache.reached(&updated).await)?;
                }
                plan::Change::Delete(slice) => {
                    let deleted = slices.delete(&slice.name_any(), &DeleteParams::default()).await;
                    ignore_absent(deleted).map_err(ReconcileError::request("delete an endpoint slice"))?;
                }
            }
        }
        Ok(())
    }

    async fn write_endpoints(
        &self,
        service: &Service,
        mut new: Endpoints,
        trigger: Option<Timestamp>,
    ) -> Result<(), ReconcileError> {
        let all: Api<Endpoints> = api(&self.context, service);
        let cache = &self.context.caches.endpoints;
        let written = match cache.get(&ObjectKey::of(service)) {
            None => match all.create(&post_params(), trigger::marked(&mut new, trigger)).await {
                Ok(created) => created,
                Err(error) if namespace_is_terminating(&error) => return Ok(()),
                Err(error) => return Err(ReconcileError::request("create endpoints")(error)),
            },
            Some(old) => {
                let Some(mut patch) = legacy::changes(&old, &new) else { return Ok(()) };
                trigger::mark(&mut patch, trigger);
                replace(&all, &*old, patch).await.map_err(ReconcileError::request("update endpoints"))?
            }
        };
        seen(cache.reached(&written).await)
    }

    async fn delete_endpoints(&self, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let ours = self.context.caches.endpoints.get(key).filter(|endpoints| legacy::is_ours(endpoints));
        if let Some(endpoints) = ours {
            let all: Api<Endpoints> = api(&self.context, &*endpoints);
            let deleted = all.delete(&key.name, &DeleteParams::default()).await;
            ignore_absent(deleted).map_err(ReconcileError::request("delete endpoints"))?;
        }
        Ok(Action::AwaitChange)
    }
}

/// A merge patch that holds for one version only.
async fn replace<K>(api: &Api<K>, old: &K, mut patch: serde_json::Value) -> kube::Result<K>
where
    K: Kind,
{
    json_patch::merge(&mut patch, &json!({ "metadata": { "resourceVersion": old.resource_version() } }));
    api.patch(&old.name_any(), &patch_params(), &Patch::Merge(patch)).await
}

fn seen(reached: bool) -> Result<(), ReconcileError> {
    if reached { Ok(()) } else { Err(ReconcileError::Behind) }
}

fn ignore_absent<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY_LABEL).is_some_and(|manager| manager == MANAGED_BY)
}

/// The selector of a service that is looked after here.
fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let named = spec.type_.as_deref() == Some("ExternalName");
    spec.selector.as_ref().filter(|selector| !selector.is_empty() && !named)
}

fn selects(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    selector.iter().all(|(name, value)| pod.labels().get(name) == Some(value))
}

/// The services that a pod may be behind.
fn selecting(caches: &Caches, pod: &Pod) -> Vec<ObjectKey> {
    let services = caches.services.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default());
    let selecting = services.iter().filter(|service| selector(service).is_some_and(|wanted| selects(wanted, pod)));
    selecting.map(|service| ObjectKey::of(&**service)).collect()
}

/// The labels of a service without those that are kept for us, and whether it is headless.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let reserved = [SERVICE_LABEL, MANAGED_BY_LABEL, HEADLESS_LABEL];
    let own = service.labels().iter().filter(|(name, _)| !reserved.contains(&name.as_str()));
    let mut labels: BTreeMap<_, _> = own.map(|(name, value)| (name.clone(), value.clone())).collect();
    if is_headless(service) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels
}

fn is_headless(service: &Service) -> bool {
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    address.is_empty() || address == "None"
}

//! Counts what a namespace has of all that its quotas limit.
//!
//! The API charges a quota in the commit that makes an object; what has gone is given back here. The caches of two kinds are not
//! of one moment: the quota's may show a charge before that of the secrets shows the secret. So the caches only say that
//! something may have changed, and what is written was listed after the version of the quota that it replaces.
//! Not handled: counts of kinds that are not in a cache, such as custom resources (the charges of the API stay).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{ListParams, Patch};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::status::{difference, patch_params};
use super::{Action, ReconcileError, Reconciler, Triggers};
use crate::cache::{Cache, Kind, ObjectKey};
use crate::context::Context;
use crate::scheme::quota::{Usage, in_scope, shown, usage};

pub(super) fn start(context: &Context, cancel: &CancellationToken, tasks: &mut JoinSet<()>) {
    super::spawn(ResourceQuotas { context: context.clone() }, cancel, tasks);
}

struct ResourceQuotas {
    context: Context,
}

/// Calls a function for each kind that is counted, with its cache, group and plural.
macro_rules! counted {
    ($caches:expr, $visit:ident($($argument:expr),*) $($after:tt)*) => {
        $visit(&$caches.config_maps, "", "configmaps" $(, $argument)*) $($after)*;
        $visit(&$caches.persistent_volume_claims, "", "persistentvolumeclaims" $(, $argument)*) $($after)*;
        $visit(&$caches.pods, "", "pods" $(, $argument)*) $($after)*;
        $visit(&$caches.secrets, "", "secrets" $(, $argument)*) $($after)*;
        $visit(&$caches.service_accounts, "", "serviceaccounts" $(, $argument)*) $($after)*;
        $visit(&$caches.services, "", "services" $(, $argument)*) $($after)*;
        $visit(&$caches.daemon_sets, "apps", "daemonsets" $(, $argument)*) $($after)*;
        $visit(&$caches.deployments, "apps", "deployments" $(, $argument)*) $($after)*;
        $visit(&$caches.replica_sets, "apps", "replicasets" $(, $argument)*) $($after)*;
        $visit(&$caches.stateful_sets, "apps", "statefulsets" $(, $argument)*) $($after)*;
        $visit(&$caches.cron_jobs, "batch", "cronjobs" $(, $argument)*) $($after)*;
        $visit(&$caches.jobs, "batch", "jobs" $(, $argument)*) $($after)*;
        $visit(&$caches.ingresses, "networking.k8s.io", "ingresses" $(, $argument)*) $($after)*;
    };
}

/// One kind of objects of the namespace.
struct Counted {
    group: &'static str,
    plural: &'static str,
    objects: Vec<Value>,
}

impl Reconciler for ResourceQuotas {
    type Key = ObjectKey;
    const NAME: &'static str = "resourcequota";

    fn watch(&self, triggers: &mut Triggers<ObjectKey>) {
        let caches = &self.context.caches;
        triggers.on_each(&caches.resource_quotas);
        counted!(caches, watch_kind(triggers, &caches.resource_quotas));
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let caches = &self.context.caches;
        let Some(quota) = caches.resource_quotas.get(key) else { return Ok(Action::AwaitChange) };
        let mut kinds = Vec::new();
        counted!(caches, objects_of(&key.namespace, &mut kinds));
        if difference(quota.status.as_ref(), &plan(&quota, &kinds)).is_none() {
            return Ok(Action::AwaitChange);
        }
        let mut kinds = Vec::new();
        counted!(caches, list(&self.context.client, &key.namespace, &mut kinds).await?);
        let status = plan(&quota, &kinds);
        let Some(change) = difference(quota.status.as_ref(), &status) else { return Ok(Action::AwaitChange) };
        let patch = json!({ "metadata": { "resourceVersion": quota.metadata.resource_version }, "status": change });
        let quotas = Api::<ResourceQuota>::namespaced(self.context.client.clone(), &key.namespace);
        let written = quotas.patch_status(&key.name, &patch_params(), &Patch::Merge(patch)).await;
        match written {
            // What changed it wakes this up again.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Action::AwaitChange),
            other => {
                let quota = other.map_err(ReconcileError::request("update the status of a resource quota"))?;
                caches.resource_quotas.reached(&quota).await;
                Ok(Action::AwaitChange)
            }
        }
    }
}

/// A change of an object concerns the quotas of its namespace.
fn watch_kind<K: Kind>(
    cache: &Cache<K>,
    _group: &'static str,
    _plural: &'static str,
    triggers: &mut Triggers<ObjectKey>,
    quotas: &Cache<ResourceQuota>,
) {
    let quotas = quotas.clone();
    triggers.on(cache, move |object| {
        let key = ObjectKey::of(object);
        quotas.in_namespace(&key.namespace).iter().map(|quota| ObjectKey::of(&**quota)).collect()
    });
}

fn objects_of<K: Kind + Serialize>(
    cache: &Cache<K>,
    group: &'static str,
    plural: &'static str,
    namespace: &str,
    kinds: &mut Vec<Counted>,
) {
    let objects = cache.in_namespace(namespace);
    kinds.push(Counted { group, plural, objects: objects.iter().map(|object| as_json(&**object)).collect() });
}

/// What is there now, of the kind of a cache.
async fn list<K: Kind + Serialize + Resource<Scope = NamespaceResourceScope>>(
    _kind: &Cache<K>,
    group: &'static str,
    plural: &'static str,
    client: &Client,
    namespace: &str,
    kinds: &mut Vec<Counted>,
) -> Result<(), ReconcileError> {
    let listed = Api::<K>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
    let listed = listed.map_err(ReconcileError::request("list what a resource quota counts"))?;
    kinds.push(Counted { group, plural, objects: listed.items.iter().map(as_json).collect() });
    Ok(())
}

fn as_json(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("types of the API are JSON")
}

/// The status that the quota should have.
fn plan(quota: &ResourceQuota, kinds: &[Counted]) -> ResourceQuotaStatus {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let before = quota.status.as_ref().and_then(|status| status.used.as_ref());
    let value = as_json(quota);
    let mut total = Usage::new();
    for kind in kinds {
        total.entry(count_name(kind)).or_default();
        for object in kind.objects.iter().filter(|object| in_scope(&value, kind.plural, object)) {
            for (name, amount) in usage(kind.group, kind.plural, object) {
                *total.entry(name).or_default() += amount;
            }
        }
    }
    let used: BTreeMap<_, _> = hard
        .keys()
        .map(|name| {
            let charged = before.and_then(|used| used.get(name)).filter(|_| name.starts_with("count/"));
            let amount = match (total.get(name), charged) {
                (None, Some(charged)) => charged.clone(),
                (amount, _) => Quantity(shown(amount.copied().unwrap_or(0))),
            };
            (name.clone(), amount)
        })
        .collect();
    ResourceQuotaStatus { hard: Some(hard), used: Some(used) }
}

fn count_name(kind: &Counted) -> String {
    match kind.group {
        "" => format!("count/{}", kind.plural),
        group => format!("count/{}.{group}", kind.plural),
    }
}

//! Gives each namespace what every pod in it takes for granted: the service account `default`, and the certificate of the
//! authority that signs the API server's.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::Patch;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::pod_control::{namespace_is_terminating, post_params};
use super::status::patch_params;
use super::{Action, ReconcileError, Reconciler, Triggers};
use crate::cache::ObjectKey;
use crate::context::Context;

const DEFAULT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const ROOT_CA_DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

/// `authority`: certificates in PEM.
pub(super) fn start(context: &Context, authority: &str, cancel: &CancellationToken, tasks: &mut JoinSet<()>) {
    super::spawn(ServiceAccounts { context: context.clone(), authority: authority.to_owned() }, cancel, tasks);
}

struct ServiceAccounts {
    context: Context,
    authority: String,
}

impl Reconciler for ServiceAccounts {
    /// A namespace.
    type Key = ObjectKey;
    const NAME: &'static str = "serviceaccount";

    fn watch(&self, triggers: &mut Triggers<ObjectKey>) {
        let caches = &self.context.caches;
        triggers.on_each(&caches.namespaces);
        triggers.on(&caches.service_accounts, |account| namespace_of(&account.metadata, DEFAULT));
        triggers.on(&caches.config_maps, |map| namespace_of(&map.metadata, ROOT_CA));
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, ReconcileError> {
        let caches = &self.context.caches;
        let Some(namespace) = caches.namespaces.get(key) else { return Ok(Action::AwaitChange) };
        if namespace.metadata.deletion_timestamp.is_some() {
            return Ok(Action::AwaitChange);
        }
        if caches.service_accounts.get(&ObjectKey::new(&key.name, DEFAULT)).is_none() {
            let account = ServiceAccount {
                metadata: ObjectMeta { name: Some(DEFAULT.to_owned()), ..ObjectMeta::default() },
                ..ServiceAccount::default()
            };
            let accounts = Api::namespaced(self.context.client.clone(), &key.name);
            created(accounts.create(&post_params(), &account).await, "create a service account")?;
        }
        self.publish_authority(&key.name).await?;
        Ok(Action::AwaitChange)
    }
}

impl ServiceAccounts {
    async fn publish_authority(&self, namespace: &str) -> Result<(), ReconcileError> {
        let maps = Api::<ConfigMap>::namespaced(self.context.client.clone(), namespace);
        let data = BTreeMap::from([(ROOT_CA_KEY.to_owned(), self.authority.clone())]);
        match self.context.caches.config_maps.get(&ObjectKey::new(namespace, ROOT_CA)) {
            None => {
                let description = (DESCRIPTION.to_owned(), ROOT_CA_DESCRIPTION.to_owned());
                let map = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(ROOT_CA.to_owned()),
                        annotations: Some(BTreeMap::from([description])),
                        ..ObjectMeta::default()
                    },
                    data: Some(data),
                    ..ConfigMap::default()
                };
                created(maps.create(&post_params(), &map).await, "create a config map")
            }
            Some(map) if map.data.as_ref() == Some(&data) => Ok(()),
            Some(_) => {
                let metadata = json!({ "annotations": { DESCRIPTION: ROOT_CA_DESCRIPTION } });
                let patch = Patch::Merge(json!({ "metadata": metadata, "data": data }));
                let patched = maps.patch(ROOT_CA, &patch_params(), &patch).await;
                patched.map(drop).map_err(ReconcileError::request("update a config map"))
            }
        }
    }
}

/// That it exists by now is as good; that the namespace goes away is better.
fn created<T>(result: kube::Result<T>, operation: &'static str) -> Result<(), ReconcileError> {
    match result {
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
        Err(error) if namespace_is_terminating(&error) => Ok(()),
        other => other.map(drop).map_err(ReconcileError::request(operation)),
    }
}

/// The namespace of an object, if it is the one with this name.
fn namespace_of(metadata: &ObjectMeta, name: &str) -> Vec<ObjectKey> {
    let wanted = metadata.namespace.as_deref().filter(|_| metadata.name.as_deref() == Some(name));
    wanted.map(|namespace| ObjectKey::new("", namespace)).into_iter().collect()
}

//! What every component is given: a client, the caches, the clock.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota, Secret,
    Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::clock::Clock;
use crate::controller::job;
use crate::event::Lost;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) caches: Caches,
    pub(crate) clock: Clock,
    /// The events that its components could not record.
    pub(crate) lost: Lost,
    /// The certificates, in PEM, of those who sign the API server's.
    pub(crate) authority: std::sync::Arc<str>,
}

/// Declares the caches, so that a kind is named in one place.
macro_rules! caches {
    ($($(#[$doc:meta])* $field:ident: $kind:ty = $cache:expr;)*) => {
        /// One cache for each kind that a component of the engine acts on.
        #[derive(Clone)]
        pub(crate) struct Caches {
            $($(#[$doc])* pub(crate) $field: Cache<$kind>,)*
        }

        impl Caches {
            pub(crate) fn new() -> Self {
                Self { $($field: $cache,)* }
            }

            /// Fills every cache in a task of its own, in `tasks`, and waits for the first lists.
            pub(crate) async fn fill(&self, client: &Client, cancel: &CancellationToken, tasks: &mut JoinSet<()>) {
                $({
                    let (cache, client, cancel) = (self.$field.clone(), client.clone(), cancel.clone());
                    tasks.spawn(async move { cache.fill(client, cancel).await });
                })*
                $(self.$field.synced().await;)*
            }
        }
    };
}

caches! {
    config_maps: ConfigMap = Cache::new();
    controller_revisions: ControllerRevision = Cache::new();
    cron_jobs: CronJob = Cache::new();
    daemon_sets: DaemonSet = Cache::new();
    deployments: Deployment = Cache::new();
    endpoints: Endpoints = Cache::new();
    /// Indexed by the name of their service; look at the namespace too.
    endpoint_slices: EndpointSlice = Cache::indexed(|slice| {
        let labels = slice.metadata.labels.iter();
        labels.filter_map(|labels| labels.get("kubernetes.io/service-name").cloned()).collect()
    });
    horizontal_pod_autoscalers: HorizontalPodAutoscaler = Cache::new();
    ingresses: Ingress = Cache::new();
    jobs: Job = Cache::new();
    leases: Lease = Cache::new();
    namespaces: Namespace = Cache::new();
    network_policies: NetworkPolicy = Cache::new();
    nodes: Node = Cache::new();
    persistent_volume_claims: PersistentVolumeClaim = Cache::new();
    persistent_volumes: PersistentVolume = Cache::new();
    pod_disruption_budgets: PodDisruptionBudget = Cache::new();
    /// Indexed by the name of their node, and by the job that has not let them go (`namespace/name`, which no node is called).
    pods: Pod = Cache::indexed(|pod| {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        node.into_iter().chain(job::holder(pod).map(|job| job.to_string())).collect()
    });
    priority_classes: PriorityClass = Cache::new();
    replica_sets: ReplicaSet = Cache::new();
    resource_quotas: ResourceQuota = Cache::new();
    secrets: Secret = Cache::new();
    service_accounts: ServiceAccount = Cache::new();
    services: Service = Cache::new();
    stateful_sets: StatefulSet = Cache::new();
    storage_classes: StorageClass = Cache::new();
}

//! What the platform runs on: regions, zones, node pools, mesh, registry, ingress, network segments.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Map, default};
use crate::span::Spanned;
use crate::units::{Bytes, Cpu, Name};

/// What the platform runs on.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Platform {
    /// Whether anything may depend on one cloud provider.
    #[serde(default)]
    pub portability: Spanned<Portability>,
    /// The cloud providers that the platform must be able to run on; empty for none in particular.
    #[serde(default)]
    pub providers: Vec<Spanned<Provider>>,
    /// The version of Kubernetes, such as `1.37`.
    #[serde(default)]
    pub kubernetes: Option<Spanned<String>>,
    /// The namespace of everything that names no other; the platform's name by default.
    #[serde(default)]
    pub namespace: Option<Spanned<Name>>,
    /// The regions, one of them primary.
    #[serde(default)]
    pub regions: Map<Region>,
    /// The countries in which data may be kept, as ISO 3166 codes such as `IN`; empty for anywhere.
    #[serde(default)]
    pub residency: Vec<Spanned<String>>,
    /// The worker nodes, when they are all alike.
    #[serde(default)]
    pub nodes: Option<NodePool>,
    /// The worker nodes by pool, when they are not all alike.
    #[serde(default)]
    pub pools: Map<NodePool>,
    /// The service mesh, if there is one.
    #[serde(default)]
    pub mesh: Option<Mesh>,
    /// The image registry.
    #[serde(default)]
    pub registry: Option<Registry>,
    /// How requests come into the cluster.
    #[serde(default)]
    pub ingress: Ingress,
    /// The class of persistent volumes.
    #[serde(default)]
    pub storage: StorageClass,
    /// What stands between the internet and the ingress, in the order in which a request meets it.
    #[serde(default)]
    pub edge: Vec<Spanned<EdgeLayer>>,
    /// Who keeps the time windows of services.
    #[serde(default)]
    pub windows: Spanned<WindowKeeper>,
    /// Whether the API server has a private address only.
    #[serde(default)]
    pub private_api: Spanned<bool>,
}

/// Whether anything may depend on one cloud provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Portability {
    /// Nothing may: any Kubernetes will do.
    Neutral,
    /// Services of the listed providers may be used.
    #[default]
    Provider,
}

/// Who keeps the bounds that services have at certain times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WindowKeeper {
    /// KEDA, by cron triggers; it knows no upper bound of a window.
    #[default]
    Keda,
    /// `landfall windows`, which sets both bounds of a `HorizontalPodAutoscaler` while it runs; `landfall up` does so by itself.
    Landfall,
}

/// A cloud provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// Amazon Web Services.
    Aws,
    /// Microsoft Azure.
    Azure,
    /// Google Cloud.
    Gcp,
}

/// A region: a place whose zones fail independently of each other.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Region {
    /// The provider's name of the region, such as `ap-south-1`.
    #[serde(default)]
    pub location: Option<Spanned<String>>,
    /// The country, as an ISO 3166 code such as `IN`.
    #[serde(default)]
    pub country: Option<Spanned<String>>,
    /// The provider.
    #[serde(default)]
    pub provider: Option<Spanned<Provider>>,
    /// The zones.
    #[serde(default)]
    pub zones: Vec<Spanned<Name>>,
    /// What the region is for.
    #[serde(default)]
    pub role: Spanned<RegionRole>,
    /// Whether the document leaves this out and the file assumes it.
    #[serde(default)]
    pub assumed: bool,
}

/// What a region is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RegionRole {
    /// It serves users.
    #[default]
    Primary,
    /// It takes over when the primary is lost.
    Standby,
    /// It only keeps copies of data.
    Archive,
}

/// Worker nodes that are alike.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NodePool {
    /// How many nodes, over all zones.
    pub count: Spanned<u32>,
    /// The cores of each node.
    pub cpu: Spanned<Cpu>,
    /// The memory of each node.
    pub memory: Spanned<Bytes>,
    /// The provider's machine type, such as `m5.xlarge`.
    #[serde(default)]
    pub machine: Option<Spanned<String>>,
    /// The zones of the pool; all zones of the primary region by default.
    #[serde(default)]
    pub zones: Vec<Spanned<Name>>,
    /// What the kubelet and the system keep for themselves; derived from the node's size by default.
    #[serde(default)]
    pub reserved: Option<Reserved>,
    /// Only pods that ask for this pool are placed on it.
    #[serde(default)]
    pub dedicated: Spanned<bool>,
    /// Whether the document leaves this out and the file assumes it.
    #[serde(default)]
    pub assumed: bool,
}

/// What the kubelet and the system keep of a node.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Reserved {
    /// Processor time.
    pub cpu: Spanned<Cpu>,
    /// Memory.
    pub memory: Spanned<Bytes>,
}

/// The service mesh.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Mesh {
    /// Which mesh.
    pub kind: Spanned<MeshKind>,
    /// Its version.
    #[serde(default)]
    pub version: Option<Spanned<String>>,
    /// Whether plain text between pods is refused.
    #[serde(default)]
    pub mtls: Spanned<MutualTls>,
    /// What a sidecar proxy requests in each pod.
    #[serde(default)]
    pub sidecar: Option<Reserved>,
}

/// A service mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MeshKind {
    /// Istio with sidecars.
    Istio,
}

/// Mutual TLS between pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MutualTls {
    /// Plain text is refused.
    #[default]
    Strict,
    /// Plain text is accepted too.
    Permissive,
}

/// The image registry.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "Registry|host", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "Registry", extend("x-short" = "host"))]
pub struct Registry {
    /// The host and path that is put before image names, such as `ghcr.io/composerp`.
    pub host: Spanned<String>,
    /// The Secret with the credentials for pulling; none for a public registry.
    #[serde(default)]
    pub pull_secret: Option<Spanned<Name>>,
    /// Whether the pipeline pushes the rendered chart there, too: an OCI artifact beside the images.
    #[serde(default)]
    pub charts: Spanned<bool>,
}

/// How requests come into the cluster.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ingress {
    /// Which API describes the routes.
    #[serde(default)]
    pub api: Spanned<IngressApi>,
    /// The `IngressClass` or `GatewayClass`, such as `traefik`.
    #[serde(default = "traefik")]
    pub class: Spanned<String>,
    /// The namespace in which the controller runs; its pods may reach what is exposed.
    #[serde(default = "ingress_namespace")]
    pub namespace: Spanned<Name>,
}

impl Default for Ingress {
    fn default() -> Self {
        Self { api: Spanned::default(), class: traefik(), namespace: ingress_namespace() }
    }
}

fn traefik() -> Spanned<String> {
    Spanned::unwritten("traefik".to_owned())
}

fn ingress_namespace() -> Spanned<Name> {
    Spanned::unwritten("ingress".parse().expect("`ingress` is a name"))
}

/// Which API describes routes into the cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IngressApi {
    /// Gateway API: `Gateway` and `HTTPRoute`.
    #[default]
    Gateway,
    /// `Ingress` of networking.k8s.io/v1.
    Ingress,
}

/// The class of persistent volumes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StorageClass {
    /// The name of the `StorageClass`; the cluster's default class when left out.
    #[serde(default)]
    pub class: Option<Spanned<String>>,
    /// Whether a volume can only be attached in the zone in which it was made.
    #[serde(default = "default::yes")]
    pub zonal: Spanned<bool>,
    /// Whether volumes are encrypted at rest.
    #[serde(default)]
    pub encrypted: Spanned<bool>,
}

impl Default for StorageClass {
    fn default() -> Self {
        Self { class: None, zonal: default::yes(), encrypted: Spanned::default() }
    }
}

/// Something between the internet and the ingress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EdgeLayer {
    /// A content delivery network.
    Cdn,
    /// A web application firewall.
    Waf,
    /// A load balancer.
    LoadBalancer,
}

/// A network segment: who in it may be reached from where.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NetworkSegment {
    /// What it is, for people.
    #[serde(default)]
    pub title: Option<Spanned<String>>,
    /// The segments that may be reached from this one, on declared edges only.
    #[serde(default)]
    pub reaches: Vec<Spanned<Name>>,
    /// Whether the internet may reach it.
    #[serde(default)]
    pub public: Spanned<bool>,
    /// What stands in it that is not a service or store of this file, such as `load-balancer` or `ci`.
    #[serde(default)]
    pub contains: Vec<Spanned<String>>,
}

//! What parts of Landfall that know nothing of each other but a cluster must agree on.

/// The clock of a cluster that is Landfall's engine: a `GET` answers with its `time` and its `speed`.
pub const ENGINE_CLOCK: &str = "/landfall.dev/v1/clock";

/// As whom `landfall ship` changes fields of objects, so that whoever applies the same objects leaves these alone
/// (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>).
pub const SHIP_MANAGER: &str = "landfall-ship";

/// The annotation by which Argo CD says on an object to which application it belongs, and to which object
/// (<https://argo-cd.readthedocs.io/en/stable/user-guide/resource_tracking/>).
pub const ARGOCD_TRACKING: &str = "argocd.argoproj.io/tracking-id";

/// The namespace of Argo CD itself, and of the applications that say no other.
pub const ARGOCD_NAMESPACE: &str = "argocd";

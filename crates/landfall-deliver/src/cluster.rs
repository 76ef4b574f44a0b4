//! The cluster, through the Kubernetes API alone: what is there, what is done to it, and who may do it.

pub(crate) mod around;
pub(crate) mod autoscaler;
pub(crate) mod clock;
pub(crate) mod courier;
pub(crate) mod definition;
pub(crate) mod figures;
pub(crate) mod follower;
pub(crate) mod lock;
mod mesh;
pub(crate) mod perform;
mod prometheus;
pub(crate) mod records;
mod route;
pub(crate) mod workload;

use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;

/// As whom fields are written.
pub(crate) use landfall_model::SHIP_MANAGER as MANAGER;

/// The cluster did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("failed to {operation}")]
pub struct ClusterError {
    operation: String,
    source: kube::Error,
}

impl ClusterError {
    /// Whether the same request may succeed a moment later: nobody answers, or somebody else was first.
    pub(crate) fn may_pass(&self) -> bool {
        match &self.source {
            kube::Error::Api(status) => status.code == 409 || status.code == 429 || status.code >= 500,
            _ => true,
        }
    }

    /// Whether it was refused in these words.
    pub(crate) fn says(&self, words: &str) -> bool {
        matches!(&self.source, kube::Error::Api(status) if status.message.contains(words))
    }

    /// Whether somebody else has changed it meanwhile.
    pub(crate) fn is_conflict(&self) -> bool {
        is_status(&self.source, 409)
    }
}

/// Says what was tried.
pub(crate) trait During<T> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, ClusterError>;
}

impl<T> During<T> for Result<T, kube::Error> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, ClusterError> {
        self.map_err(|source| ClusterError { operation: operation(), source })
    }
}

/// `None` for what is not there.
pub(crate) fn if_there<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the API server answered with this status code.
pub(crate) fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// Istio's `VirtualService`.
pub(crate) fn mesh_resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("networking.istio.io", "v1", "VirtualService"))
}

/// `HTTPRoute`, which no crate has types for that is compiled in.
pub(crate) fn route_resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute"))
}

//! How long a pod may stay on a node with taints.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::scheduler::matching::tolerates;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// No taint drives it away.
    Unlimited,
    /// From the moment on at which the first such taint was seen.
    Limited(Duration),
}

/// The shortest time that a pod's tolerations give it under the `NoExecute` taints of its node; none at all when one of
/// the taints is not tolerated.
pub(super) fn patience(taints: &[Taint], tolerations: &[Toleration]) -> Patience {
    let mut shortest: Option<i64> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let Some(toleration) = tolerations.iter().find(|toleration| tolerates(toleration, taint)) else {
            return Patience::Limited(Duration::ZERO);
        };
        if let Some(seconds) = toleration.toleration_seconds {
            shortest = Some(shortest.map_or(seconds, |shortest| shortest.min(seconds)));
        }
    }
    match shortest {
        None => Patience::Unlimited,
        Some(seconds) => Patience::Limited(Duration::from_secs(u64::try_from(seconds).unwrap_or_default())),
    }
}

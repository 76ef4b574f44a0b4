//! The bounds of an autoscaler with windows. There is one function that sets them, for whoever keeps the windows and for a release
//! whose canary needs room.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::{ClusterError, During as _, MANAGER};
use crate::windows::{Clock, Limits, ROOM, WINDOWS, Windows};

/// Why bounds were not set.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The cluster did not do it.
    Cluster(ClusterError),
    /// The annotation is not understood, and why.
    Annotation(String),
}

impl From<ClusterError> for Trouble {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}

/// Whether it has windows, be they understood or not.
pub(crate) fn has_windows(autoscaler: &HorizontalPodAutoscaler) -> bool {
    autoscaler.annotations().contains_key(WINDOWS)
}

/// How many copies of a canary are beside those that it counts.
pub(crate) fn room(autoscaler: &HorizontalPodAutoscaler) -> u32 {
    autoscaler.annotations().get(ROOM).and_then(|room| room.parse().ok()).unwrap_or(0)
}

/// The bounds that it has.
pub(crate) fn limits(autoscaler: &HorizontalPodAutoscaler) -> Limits {
    let spec = &autoscaler.spec;
    let number = |number: i32| u32::try_from(number).unwrap_or_default();
    Limits { min: spec.min_replicas.map_or(1, number), max: number(spec.max_replicas) }
}

/// Sets the bounds of an autoscaler with windows, if they are others: those before, and those now.
pub(crate) async fn settle(
    client: &Client,
    autoscaler: &HorizontalPodAutoscaler,
    clock: Clock,
) -> Result<Option<(Limits, Limits)>, Trouble> {
    let Some(windows) = autoscaler.annotations().get(WINDOWS) else { return Ok(None) };
    let windows = Windows::read(windows).map_err(Trouble::Annotation)?;
    let (before, now) = (limits(autoscaler), windows.bounds(clock, room(autoscaler)));
    set(client, autoscaler, now).await?;
    Ok((before != now).then_some((before, now)))
}

/// Sets the bounds of an autoscaler, if they are others.
pub(crate) async fn set(
    client: &Client,
    autoscaler: &HorizontalPodAutoscaler,
    wanted: Limits,
) -> Result<(), ClusterError> {
    if limits(autoscaler) == wanted {
        return Ok(());
    }
    let name = autoscaler.name_any();
    // Whoever has changed it since it was read, such as a release that makes room, is looked at first.
    let patch = json!({
        "metadata": { "resourceVersion": autoscaler.metadata.resource_version },
        "spec": { "minReplicas": wanted.min, "maxReplicas": wanted.max },
    });
    write(client, autoscaler, &patch).await.during(|| format!("change the HorizontalPodAutoscaler `{name}`"))?;
    Ok(())
}

/// The bounds of stable copies beside a canary that leaves them room up to `ceiling`: never fewer than the floor, and with the
/// canary never more than what is declared. Whoever asks for more copies at least than there is room for gets them: a minimum is
/// about those who are served, and a maximum about what they cost.
pub(crate) fn beside(live: Limits, floor: u32, ceiling: u32) -> Limits {
    let min = live.min.max(floor);
    Limits { min, max: live.max.min(ceiling).max(min) }
}

/// Notes how much room a canary needs beside the copies of an autoscaler with windows; `None` when there is no canary. What was
/// written; `settle` follows.
pub(crate) async fn note_room(
    client: &Client,
    autoscaler: &HorizontalPodAutoscaler,
    room: Option<u32>,
) -> Result<HorizontalPodAutoscaler, ClusterError> {
    let noted = autoscaler.annotations().get(ROOM).cloned();
    let wanted = room.map(|room| room.to_string());
    if noted == wanted {
        return Ok(autoscaler.clone());
    }
    let name = autoscaler.name_any();
    let patch = json!({ "metadata": { "annotations": { ROOM: wanted } } });
    write(client, autoscaler, &patch).await.during(|| format!("change the HorizontalPodAutoscaler `{name}`"))
}

async fn write(
    client: &Client,
    autoscaler: &HorizontalPodAutoscaler,
    patch: &serde_json::Value,
) -> Result<HorizontalPodAutoscaler, kube::Error> {
    let namespace = autoscaler.namespace().unwrap_or_default();
    let api = Api::<HorizontalPodAutoscaler>::namespaced(client.clone(), &namespace);
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    api.patch(&autoscaler.name_any(), &parameters, &Patch::Merge(patch)).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whoever_sets_the_bounds_beside_a_canary_stable_copies_keep_their_floor_and_both_the_maximum(
            floor in 1..20_u32, room in 0..20_u32, canary in 1..10_u32, min in 0..60_u32, more in 0..60_u32,
        ) {
            let (ceiling, live) = (floor + room, Limits { min, max: min + more });
            let kept = beside(live, floor, ceiling);
            prop_assert!(kept.min >= floor && kept.max >= kept.min, "{:?}", kept);
            // What is declared is the room with the canary in it, unless somebody asks for more at least.
            prop_assert!(kept.max + canary <= (ceiling + canary).max(min + canary), "{:?}", kept);
            prop_assert_eq!(beside(kept, floor, ceiling), kept, "looking twice changes nothing");
        }
    }
}

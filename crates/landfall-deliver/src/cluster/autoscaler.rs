//! What bounds the copies of a service, and who may change these bounds: a release whose canary needs room, and whoever keeps the
//! windows. There is one function that sets them.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use super::{ClusterError, During as _, MANAGER, if_there};
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

/// What bounds the copies of a service.
#[derive(Debug, Clone)]
pub(crate) struct Autoscaler {
    kind: Kind,
    object: DynamicObject,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Horizontal,
    /// KEDA makes a `HorizontalPodAutoscaler` of it, and undoes what anybody else changes there
    /// (<https://keda.sh/docs/latest/reference/scaledobject-spec/>).
    Scaled,
}

impl Kind {
    fn resource(self) -> ApiResource {
        match self {
            Self::Horizontal => ApiResource::erase::<HorizontalPodAutoscaler>(&()),
            Self::Scaled => ApiResource::from_gvk(&GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject")),
        }
    }

    /// The fields of its bounds, and what they are where they are missing.
    fn fields(self) -> [(&'static str, u32); 2] {
        match self {
            Self::Horizontal => [("minReplicas", 1), ("maxReplicas", 1)],
            Self::Scaled => [("minReplicaCount", 0), ("maxReplicaCount", 100)],
        }
    }
}

impl Autoscaler {
    /// That of a service, if it has one: a `HorizontalPodAutoscaler`, or the `ScaledObject` of KEDA.
    pub(crate) async fn find(client: &Client, namespace: &str, service: &str) -> Result<Option<Self>, ClusterError> {
        for kind in [Kind::Horizontal, Kind::Scaled] {
            let resource = kind.resource();
            let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
            let found = if_there(api.get(service).await);
            let found = found.during(|| format!("read the {} `{service}`", resource.kind))?;
            if let Some(object) = found {
                return Ok(Some(Self { kind, object }));
            }
        }
        Ok(None)
    }

    /// Those in a namespace, or everywhere, that may have windows of ours. KEDA keeps its own.
    pub(crate) async fn list(client: &Client, namespace: Option<&str>) -> Result<Vec<Self>, ClusterError> {
        let resource = Kind::Horizontal.resource();
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let all = api.list(&ListParams::default()).await.during(|| "list the autoscalers".to_owned())?;
        Ok(all.items.into_iter().map(|object| Self { kind: Kind::Horizontal, object }).collect())
    }

    pub(crate) fn name(&self) -> String {
        self.object.name_any()
    }

    pub(crate) fn namespace(&self) -> String {
        self.object.namespace().unwrap_or_default()
    }

    pub(crate) fn resource(&self) -> ApiResource {
        self.kind.resource()
    }

    /// ``HorizontalPodAutoscaler `web` ``.
    pub(crate) fn title(&self) -> String {
        format!("{} `{}`", self.kind.resource().kind, self.name())
    }

    /// Whether it has windows of ours, be they understood or not.
    pub(crate) fn has_windows(&self) -> bool {
        self.object.annotations().contains_key(WINDOWS)
    }

    /// How many copies of a canary are beside those that it counts.
    fn room(&self) -> u32 {
        self.object.annotations().get(ROOM).and_then(|room| room.parse().ok()).unwrap_or(0)
    }

    /// The bounds that it has.
    pub(crate) fn limits(&self) -> Limits {
        let spec = &self.object.data["spec"];
        let number = |(field, otherwise): (&str, u32)| {
            spec[field].as_u64().map_or(otherwise, |number| u32::try_from(number).unwrap_or(u32::MAX))
        };
        let [min, max] = self.kind.fields().map(number);
        Limits { min, max }
    }

    /// Sets its bounds to what its windows say, if it has some and the bounds are others: those before, and those now.
    pub(crate) async fn settle(&self, client: &Client, clock: Clock) -> Result<Option<(Limits, Limits)>, Trouble> {
        let Some(windows) = self.object.annotations().get(WINDOWS) else { return Ok(None) };
        let windows = Windows::read(windows).map_err(Trouble::Annotation)?;
        let (before, now) = (self.limits(), windows.bounds(clock, self.room()));
        self.set(client, now).await?;
        Ok((before != now).then_some((before, now)))
    }

    /// Sets its bounds, if they are others.
    pub(crate) async fn set(&self, client: &Client, wanted: Limits) -> Result<(), ClusterError> {
        if self.limits() == wanted {
            return Ok(());
        }
        let [(min, _), (max, _)] = self.kind.fields();
        // Whoever has changed it since it was read, such as a release that makes room, is looked at first.
        let patch = json!({
            "metadata": { "resourceVersion": self.object.metadata.resource_version },
            "spec": { min: wanted.min, max: wanted.max },
        });
        self.write(client, &patch).await.map(drop)
    }

    /// Notes how much room a canary needs beside the copies that it counts, where it has windows; `None` when there is no canary. What
    /// was written; `settle` follows.
    pub(crate) async fn note_room(&self, client: &Client, room: Option<u32>) -> Result<Self, ClusterError> {
        let noted = self.object.annotations().get(ROOM).cloned();
        let wanted = room.map(|room| room.to_string());
        if noted == wanted {
            return Ok(self.clone());
        }
        self.write(client, &json!({ "metadata": { "annotations": { ROOM: wanted } } })).await
    }

    async fn write(&self, client: &Client, patch: &Value) -> Result<Self, ClusterError> {
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), &self.namespace(), &self.kind.resource());
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let written = api.patch(&self.name(), &parameters, &Patch::Merge(patch)).await;
        let object = written.during(|| format!("change the {}", self.title()))?;
        Ok(Self { kind: self.kind, object })
    }
}

/// The bounds of stable copies beside a canary that leaves them room up to `ceiling`: never fewer than the floor, and with the
/// canary never more than what is declared. Whoever asks for more copies at least than there is room for gets them: a minimum is
/// about those who are served, and a maximum about what they cost.
pub(crate) fn beside(live: Limits, floor: u32, ceiling: u32) -> Limits {
    let min = live.min.max(floor);
    Limits { min, max: live.max.min(ceiling).max(min) }
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

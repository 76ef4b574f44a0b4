//! Does what a rollout asks for. Each effect may be done again after it was cut off anywhere.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Request;
use http::header::CONTENT_TYPE;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PropagationPolicy};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tracing::info;

use super::autoscaler::Autoscaler;
use super::workload::{self, template_hash};
use super::{
    ClusterError, During as _, MANAGER, autoscaler, clock, if_there, mesh, mesh_resource, route, route_resource,
};
use crate::analysis::Work;
use crate::plan::{CanaryPlan, Split, Strategy, Track, Weights};
use crate::release::{RELEASE, ReleaseSpec, ServiceRelease};
use crate::rollout::{Effect, Version};
use crate::windows::Limits;

/// Tells the pods of a canary, and of its baseline, from others of the service.
pub(super) const TRACK: &str = "landfall.dev/track";

const HASH: &str = "pod-template-hash";

/// How long the pods of a canary may take to be told to end.
const FAREWELL: Duration = Duration::from_mins(1);

const POLL: Duration = Duration::from_millis(200);

/// Why an effect could not be done.
#[derive(Debug, thiserror::Error)]
pub enum PerformError {
    /// The cluster refused, or did not answer.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// What has to be changed is not there.
    #[error("{0}")]
    Missing(String),
}

/// Does one effect.
pub(crate) async fn perform(client: &Client, spec: &ReleaseSpec, effect: Effect) -> Result<(), PerformError> {
    let place = |service: usize| {
        let release = spec.services.get(service).expect("effects are about services of the release");
        Place { client, release }
    };
    match effect {
        Effect::SetTemplate { service, version } => place(service).set_template(version).await,
        Effect::StartCanary { service } => place(service).start_canary().await,
        Effect::Weigh { service, step } => place(service).weigh(step).await,
        Effect::RemoveCanary { service } => place(service).remove_canary().await,
    }
}

/// Keeps the bounds beside a canary, whoever has set them anew meanwhile, such as somebody who applies the rendered objects: the
/// autoscaler's minimum is not lower than before the release, and its maximum stays lower by the canary's copies.
pub(crate) async fn keep_room(client: &Client, release: &ServiceRelease) -> Result<(), PerformError> {
    let place = Place { client, release };
    let Some((canary, ceiling)) = place.canary().and_then(|canary| Some((canary, canary.ceiling?))) else {
        return Ok(());
    };
    let Some(found) = place.autoscaler().await? else { return Ok(()) };
    place.make_room(&found, canary, ceiling).await
}

/// One service of a release, in a cluster.
struct Place<'a> {
    client: &'a Client,
    release: &'a ServiceRelease,
}

impl Place<'_> {
    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.release.namespace)
    }

    fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), &self.release.namespace)
    }

    fn name(&self) -> &str {
        &self.release.name
    }

    async fn stable(&self) -> Result<Deployment, PerformError> {
        let found = workload::deployment(self.client, &self.release.namespace, self.name()).await?;
        found.ok_or_else(|| PerformError::Missing(format!("the Deployment `{}` is gone", self.name())))
    }

    fn canary(&self) -> Option<&CanaryPlan> {
        match &self.release.strategy {
            Strategy::Canary(canary) => Some(canary),
            Strategy::Rolling | Strategy::Recreate => None,
        }
    }

    async fn set_template(&self, version: Version) -> Result<(), PerformError> {
        let template = match version {
            Version::Old => &self.release.old_template,
            Version::New => &self.release.new_template,
        };
        let stable = self.stable().await?;
        let live = stable.spec.as_ref().map(|spec| json!(spec.template)).unwrap_or_default();
        let replaced_by = stable.spec.as_ref().map(|spec| json!(spec.strategy)).unwrap_or_default();
        let replacement = self.release.replacement.as_ref().filter(|wanted| **wanted != replaced_by);
        if live == *template && replacement.is_none() {
            return Ok(());
        }
        // The whole template takes the place of the other: what an earlier version had and this one has not is gone. How copies
        // are replaced is what the plan has said, whatever somebody has set meanwhile, and is so before the first of them goes.
        let replacement = replacement.map(|wanted| json!({ "op": "add", "path": "/spec/strategy", "value": wanted }));
        let template = json!({ "op": "replace", "path": "/spec/template", "value": template });
        let patch: Value = replacement.into_iter().chain([template]).collect();
        let path = format!(
            "/apis/apps/v1/namespaces/{}/deployments/{}?fieldManager={MANAGER}",
            self.release.namespace,
            self.name()
        );
        let request = Request::patch(path).header(CONTENT_TYPE, "application/json-patch+json");
        let request = request.body(patch.to_string().into_bytes()).expect("names make a path");
        let patched = self.client.request::<Value>(request).await;
        patched.during(|| format!("change the Deployment `{}`", self.name()))?;
        Ok(())
    }

    /// First the callers inside the platform are kept on the stable copies; then the canary starts, and its baseline if it has one,
    /// which have the labels of the service, as network policies go by them.
    async fn start_canary(&self) -> Result<(), PerformError> {
        let Some(canary) = self.canary() else { return Ok(()) };
        let stable = self.stable().await?;
        let hash = template_hash(self.client, &stable).await?;
        let hash = hash.ok_or_else(|| self.no_template())?;
        if let Some(ceiling) = canary.ceiling {
            let found = self.autoscaler().await?;
            let gone = || PerformError::Missing(format!("the autoscaler of `{}` is gone", self.name()));
            self.make_room(&found.ok_or_else(gone)?, canary, ceiling).await?;
        }
        self.fence(Some(&hash)).await?;
        let service = if_there(self.services().get(self.name()).await)
            .during(|| format!("read the Service `{}`", self.name()))?;
        if service.is_none() && canary.work() == Work::Requests {
            return Err(PerformError::Missing(format!("the Service `{}` is gone", self.name())));
        }
        let apply = PatchParams::apply(MANAGER).force();
        for track in canary.tracks() {
            let name = track.name(self.name());
            if let Some(service) = &service {
                let object = self.beside_service(*track, service);
                let applied = self.services().patch(&name, &apply, &Patch::Apply(object)).await;
                applied.during(|| format!("apply the Service `{name}`"))?;
            }
            let object = self.beside_deployment(*track, &stable, canary);
            let applied = self.deployments().patch(&name, &apply, &Patch::Apply(object)).await;
            applied.during(|| format!("apply the Deployment `{name}`"))?;
        }
        Ok(())
    }

    fn beside_service(&self, track: Track, stable: &Service) -> Value {
        let spec = stable.spec.clone().unwrap_or_default();
        let mut selector = spec.selector.unwrap_or_default();
        selector.remove(HASH);
        selector.insert(TRACK.to_owned(), track.as_str().to_owned());
        let ports = spec.ports.unwrap_or_default().into_iter().map(|port| {
            json!({ "name": port.name, "protocol": port.protocol, "appProtocol": port.app_protocol, "port": port.port, "targetPort": port.target_port })
        });
        let mut ports: Vec<Value> = ports.collect();
        for port in ports.iter_mut().filter_map(Value::as_object_mut) {
            port.retain(|_, value| !value.is_null());
        }
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.beside_metadata(track, stable.labels()),
            "spec": { "selector": selector, "ports": ports },
        })
    }

    fn beside_metadata(&self, track: Track, labels: &BTreeMap<String, String>) -> Value {
        let mut labels = json!(labels);
        labels[TRACK] = json!(track.as_str());
        json!({ "name": track.name(self.name()), "namespace": self.release.namespace, "labels": labels })
    }

    fn beside_deployment(&self, track: Track, stable: &Deployment, canary: &CanaryPlan) -> Value {
        let spec = stable.spec.clone().unwrap_or_default();
        let new = &self.release.new_template;
        let mut template = match track {
            Track::Canary => new.clone(),
            Track::Baseline => self.release.old_template.clone(),
        };
        template["metadata"]["labels"][TRACK] = json!(track.as_str());
        // Whose pods these are: those of an earlier release may still be there.
        template["metadata"]["annotations"][RELEASE] = new["metadata"]["annotations"][RELEASE].clone();
        let mut selector = spec.selector.match_labels.unwrap_or_default();
        selector.insert(TRACK.to_owned(), track.as_str().to_owned());
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": self.beside_metadata(track, stable.labels()),
            "spec": {
                "replicas": canary.copies_at(0),
                "minReadySeconds": spec.min_ready_seconds.unwrap_or(0),
                "revisionHistoryLimit": 0,
                "selector": { "matchLabels": selector },
                "template": template,
            },
        })
    }

    /// Sends callers of the service to the copies of this template only; to all copies without one.
    async fn fence(&self, hash: Option<&str>) -> Result<(), PerformError> {
        let patch = json!({ "spec": { "selector": { HASH: hash } } });
        let patched = self.services().patch(self.name(), &parameters(), &Patch::Merge(patch)).await;
        if_there(patched).during(|| format!("change the Service `{}`", self.name()))?;
        Ok(())
    }

    /// Gives the canary the share of a step. Without one nobody is sent to it, and everything is as it was before.
    async fn weigh(&self, step: Option<usize>) -> Result<(), PerformError> {
        let Some(canary) = self.canary() else { return Ok(()) };
        let weights = step.and_then(|step| canary.weights_at(step));
        let copies = step.map(|step| canary.copies_at(step));
        match &canary.split {
            Split::Route => self.weigh_route(weights).await,
            Split::Mesh => self.weigh_mesh(weights).await,
            Split::Copies(_) => self.weigh_copies(canary, copies).await,
            Split::Consumers(_) => self.weigh_consumers(canary, copies).await,
        }
    }

    async fn weigh_route(&self, weights: Option<Weights>) -> Result<(), PerformError> {
        let Some(before) = &self.release.route_rules else { return Ok(()) };
        let kind = route_resource();
        let Some(found) = self.object(&kind).await? else { return self.nothing_to_weigh(&kind, weights) };
        let rules = &found.data["spec"]["rules"];
        let weighted = route::weighted(rules, before, self.name(), weights);
        if weighted == *rules {
            return Ok(());
        }
        self.set_traffic(&kind, &found, &json!({ "rules": weighted })).await
    }

    /// A service without a `VirtualService` gets one for as long as its canary has a share.
    async fn weigh_mesh(&self, weights: Option<Weights>) -> Result<(), PerformError> {
        let kind = mesh_resource();
        let found = self.object(&kind).await?;
        match (&self.release.mesh_rules, weights) {
            (Some(before), weights) => {
                let Some(found) = found else { return self.nothing_to_weigh(&kind, weights) };
                let rules = &found.data["spec"]["http"];
                let weighted = mesh::weighted(rules, before, self.release, weights);
                if weighted == *rules {
                    return Ok(());
                }
                self.set_traffic(&kind, &found, &json!({ "http": weighted })).await
            }
            (None, Some(weights)) => {
                let apply = PatchParams::apply(MANAGER).force();
                let patch = Patch::Apply(mesh::temporary(self.release, weights));
                let applied = self.objects_of(&kind).patch(self.name(), &apply, &patch).await;
                Ok(applied.during(|| format!("apply the {} `{}`", kind.kind, self.name())).map(drop)?)
            }
            // One that somebody else has made meanwhile stays.
            (None, None) if found.as_ref().is_some_and(|found| found.labels().contains_key(TRACK)) => {
                let deleted = self.objects_of(&kind).delete(self.name(), &DeleteParams::default()).await;
                Ok(if_there(deleted).during(|| format!("delete the {} `{}`", kind.kind, self.name())).map(drop)?)
            }
            (None, None) => Ok(()),
        }
    }

    fn objects_of(&self, kind: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.release.namespace, kind)
    }

    /// The object of this kind that is called as the service, such as its route.
    async fn object(&self, kind: &ApiResource) -> Result<Option<DynamicObject>, PerformError> {
        let found = if_there(self.objects_of(kind).get(self.name()).await);
        Ok(found.during(|| format!("read the {} `{}`", kind.kind, self.name()))?)
    }

    /// Whoever has changed it since it was read is looked at first.
    async fn set_traffic(&self, kind: &ApiResource, found: &DynamicObject, spec: &Value) -> Result<(), PerformError> {
        let patch = json!({ "metadata": { "resourceVersion": found.resource_version() }, "spec": spec });
        let patched = self.objects_of(kind).patch(self.name(), &parameters(), &Patch::Merge(patch)).await;
        Ok(patched.during(|| format!("change the {} `{}`", kind.kind, self.name())).map(drop)?)
    }

    /// Where nothing leads to the service any more, nothing leads to its canary, and no canary gets a share.
    fn nothing_to_weigh(&self, kind: &ApiResource, weights: Option<Weights>) -> Result<(), PerformError> {
        match weights {
            None => Ok(()),
            Some(_) => Err(PerformError::Missing(format!("the {} `{}` is gone", kind.kind, self.name()))),
        }
    }

    /// As many copies as have the share; the Service leads to them as to the others. Without a share only to the others.
    async fn weigh_copies(&self, canary: &CanaryPlan, copies: Option<u32>) -> Result<(), PerformError> {
        let Some(copies) = copies else {
            let hash = template_hash(self.client, &self.stable().await?).await?;
            return match hash {
                Some(hash) => self.fence(Some(&hash)).await,
                None => Err(self.no_template()),
            };
        };
        self.scale(canary, copies).await?;
        self.fence(None).await
    }

    /// As many copies as have the share. Nothing keeps one that runs from its queues, so without a share there is none.
    async fn weigh_consumers(&self, canary: &CanaryPlan, copies: Option<u32>) -> Result<(), PerformError> {
        match (self.scale(canary, copies.unwrap_or(0)).await, copies) {
            // One that has gone takes no messages.
            (Err(PerformError::Missing(_)), None) => Ok(()),
            (scaled, _) => scaled,
        }
    }

    /// Gives the canary so many copies, and its baseline as many.
    async fn scale(&self, canary: &CanaryPlan, copies: u32) -> Result<(), PerformError> {
        let patch = Patch::Merge(json!({ "spec": { "replicas": copies } }));
        let mut missing = None;
        for track in canary.tracks() {
            let name = track.name(self.name());
            let scaled = self.deployments().patch(&name, &parameters(), &patch).await;
            let scaled = if_there(scaled).during(|| format!("change the Deployment `{name}`"))?;
            if scaled.is_none() {
                missing = Some(PerformError::Missing(format!("the Deployment `{name}` is gone")));
            }
        }
        missing.map_or(Ok(()), Err)
    }

    fn no_template(&self) -> PerformError {
        PerformError::Missing(format!("no ReplicaSet has the current template of the Deployment `{}`", self.name()))
    }

    /// The service is opened only when the copies of the canary and its baseline have been told to end, so that nobody is sent to
    /// them.
    async fn remove_canary(&self) -> Result<(), PerformError> {
        let Some(canary) = self.canary() else { return Ok(()) };
        let delete =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
        let names: Vec<String> = canary.tracks().iter().map(|track| track.name(self.name())).collect();
        for name in &names {
            let deleted = self.deployments().delete(name, &delete).await;
            if_there(deleted).during(|| format!("delete the Deployment `{name}`"))?;
        }
        self.wait_for_the_end_of_the_canary().await?;
        for name in &names {
            let deleted = self.services().delete(name, &DeleteParams::default()).await;
            if_there(deleted).during(|| format!("delete the Service `{name}`"))?;
        }
        self.fence(None).await?;
        if let Some(found) = self.autoscaler().await? {
            if found.has_windows() {
                self.settle(&found, None).await?;
            } else {
                self.give_room_back(&found).await?;
                self.let_go(&found.resource()).await?;
            }
        }
        for kind in [route_resource(), mesh_resource()] {
            self.let_go(&kind).await?;
        }
        Ok(())
    }

    /// Fields of the service's object of this kind that were changed for the canary, and are again as before, belong to nobody:
    /// whoever applies the object from elsewhere, such as from Git, says from now on what is in them.
    async fn let_go(&self, kind: &ApiResource) -> Result<(), PerformError> {
        let Some(found) = self.object(kind).await? else { return Ok(()) };
        let is_ours = |entry: &&ManagedFieldsEntry| {
            entry.manager.as_deref() == Some(MANAGER) && entry.operation.as_deref() == Some("Update")
        };
        let (ours, others): (Vec<_>, Vec<_>) = found.managed_fields().iter().partition(is_ours);
        // An empty list would mean that nobody ever wrote anything.
        if ours.is_empty() || others.is_empty() {
            return Ok(());
        }
        let version = found.resource_version();
        let patch = json!({ "metadata": { "resourceVersion": version, "managedFields": others } });
        let patched = self.objects_of(kind).patch(self.name(), &parameters(), &Patch::Merge(patch)).await;
        if_there(patched).during(|| format!("change the {} `{}`", kind.kind, self.name()))?;
        Ok(())
    }

    /// The autoscaler may have as many copies as before the canary, unless somebody has said meanwhile how many it may have.
    async fn give_room_back(&self, found: &Autoscaler) -> Result<(), PerformError> {
        let lowered = self.canary().and_then(|canary| canary.ceiling);
        let Some((lowered, ceiling)) = lowered.zip(self.release.autoscaler_ceiling) else { return Ok(()) };
        let live = found.limits();
        // Where somebody asks for more copies at least than there was room for, the maximum was raised to these.
        let is_ours = live.max == lowered || live.max > lowered && live.max == live.min;
        if is_ours {
            found.set(self.client, Limits { max: ceiling.max(live.min), ..live }).await?;
        }
        Ok(())
    }

    async fn autoscaler(&self) -> Result<Option<Autoscaler>, PerformError> {
        Ok(Autoscaler::find(self.client, &self.release.namespace, self.name()).await?)
    }

    /// Leaves room for a canary beside the copies that an autoscaler counts.
    async fn make_room(&self, found: &Autoscaler, canary: &CanaryPlan, ceiling: u32) -> Result<(), PerformError> {
        if found.has_windows() {
            return self.settle(found, Some(canary.beside())).await;
        }
        let live = found.limits();
        let floor = self.release.autoscaler_floor.unwrap_or(live.min);
        let kept = autoscaler::beside(live, floor, ceiling);
        if kept != live {
            info!(autoscaler = self.name(), ?live, ?kept, "bounds are set beside a canary");
        }
        Ok(found.set(self.client, kept).await?)
    }

    /// Brings an autoscaler with windows to what its windows say at this moment, beside a canary of so many copies.
    async fn settle(&self, found: &Autoscaler, room: Option<u32>) -> Result<(), PerformError> {
        let noted = found.note_room(self.client, room).await?;
        match noted.settle(self.client, clock::read(self.client).await?).await {
            Ok(_) => Ok(()),
            Err(autoscaler::Trouble::Cluster(error)) => Err(error.into()),
            Err(autoscaler::Trouble::Annotation(why)) => {
                Err(PerformError::Missing(format!("the windows of the {} say nothing: {why}", found.title())))
            }
        }
    }

    async fn wait_for_the_end_of_the_canary(&self) -> Result<(), PerformError> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.release.namespace);
        let mut selector = TRACK.to_owned();
        let own = self.release.new_template["metadata"]["labels"]["app.kubernetes.io/name"].as_str();
        selector.extend(own.map(|own| format!(",app.kubernetes.io/name={own}")));
        let list = ListParams::default().labels(&selector);
        let deadline = tokio::time::Instant::now() + FAREWELL;
        loop {
            let found =
                pods.list(&list).await.during(|| format!("list the pods of the canary of `{}`", self.name()))?;
            if found.items.iter().all(|pod| pod.metadata.deletion_timestamp.is_some()) {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(PerformError::Missing(format!(
                    "the pods of the canary of `{}` were not told to end within {} s",
                    self.name(),
                    FAREWELL.as_secs()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn parameters() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

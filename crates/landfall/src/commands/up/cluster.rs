//! What runs, seen through the Kubernetes API: whether all of it is ready, and what the stand-ins have seen.

use std::collections::BTreeMap;

use anyhow::Context as _;
use futures::future::try_join_all;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, Client, ResourceExt as _};
use landfall_standin::{PROBE_PATH, Probe, Probed, SEEN_PATH, Seen};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::plan::{Plan, StorePlan};

/// Says to which service or store a pod belongs.
const NAME: &str = "app.kubernetes.io/name";

/// The pods of a platform at one moment.
pub(super) struct Snapshot {
    pub(super) pods: Vec<Pod>,
    /// What is not ready yet, in words.
    pub(super) waiting: Vec<String>,
    /// Pods that started earlier belong to an earlier run, and what their objects say is old.
    since: Timestamp,
}

impl Snapshot {
    pub(super) async fn take(client: &Client, plan: &Plan) -> anyhow::Result<Self> {
        let mut snapshot = Self { pods: Vec::new(), waiting: Vec::new(), since: plan.begun };
        let mut deployments = Vec::new();
        let mut namespaces: Vec<&str> = plan.stores.iter().map(|store| store.namespace.as_str()).collect();
        namespaces.extend(plan.objects.iter().chain(&plan.additions).filter_map(|object| {
            (object["kind"] == "Deployment").then_some(object["metadata"]["namespace"].as_str()).flatten()
        }));
        namespaces.sort_unstable();
        namespaces.dedup();
        for namespace in namespaces {
            let all = Api::<Pod>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
            snapshot.pods.extend(all.with_context(|| format!("failed to list the pods in {namespace}"))?.items);
            let found = Api::<Deployment>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
            deployments.extend(found.with_context(|| format!("failed to list the deployments in {namespace}"))?.items);
        }
        for deployment in deployments {
            let Some(spec) = &deployment.spec else { continue };
            let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or_default();
            let labels = spec.selector.match_labels.clone().unwrap_or_default();
            let own = |pod: &&Pod| labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value));
            let ready = snapshot.pods.iter().filter(own).filter(|pod| snapshot.is_ready(pod)).count();
            if ready < wanted {
                snapshot.waiting.push(format!("{} {ready}/{wanted}", deployment.name_any()));
            }
        }
        for store in &plan.stores {
            let ready = snapshot.members(store);
            if ready < store.members {
                snapshot.waiting.push(format!("{} {ready}/{}", store.name, store.members));
            } else if !is_whole(client, store).await? {
                snapshot.waiting.push(format!("{} is being put together", store.name));
            }
        }
        Ok(snapshot)
    }

    /// Whether it says so, and has started in this run.
    fn is_ready(&self, pod: &Pod) -> bool {
        let Some(status) = &pod.status else { return false };
        let mut conditions = status.conditions.iter().flatten();
        let started = |status: &ContainerStatus| {
            let running = status.state.as_ref().and_then(|state| state.running.as_ref());
            running.and_then(|running| running.started_at.as_ref()).is_some_and(|at| at.0 >= self.since)
        };
        pod.metadata.deletion_timestamp.is_none()
            && conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
            && status.container_statuses.iter().flatten().all(started)
    }

    /// The ready pods of a service or store.
    pub(super) fn ready_of(&self, name: &str) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(move |pod| self.is_ready(pod) && pod.labels().get(NAME).is_some_and(|own| own == name))
    }

    /// How many members of a store are ready.
    pub(super) fn members(&self, store: &StorePlan) -> usize {
        self.ready_of(&store.name).filter(|pod| pod.namespace().as_deref() == Some(&store.namespace)).count()
    }

    /// How many pods are ready, of how many.
    pub(super) fn ready(&self) -> (usize, usize) {
        (self.pods.iter().filter(|pod| self.is_ready(pod)).count(), self.pods.len())
    }

    /// Why pods are not ready, as far as they say it themselves.
    pub(super) fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        for pod in self.pods.iter().filter(|pod| !self.is_ready(pod)) {
            let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            let reasons = statuses.filter_map(|status| {
                let waiting = status.state.as_ref()?.waiting.as_ref()?;
                Some(format!(
                    "{}: {}",
                    waiting.reason.as_deref().unwrap_or("waiting"),
                    waiting.message.as_deref().unwrap_or("")
                ))
            });
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let unscheduled = conditions
                .filter(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
                .filter_map(|condition| condition.message.clone());
            let mut why: Vec<String> = reasons.chain(unscheduled).collect();
            if why.is_empty() {
                why.push("it runs and does not say that it is ready".to_owned());
            }
            troubles.push(format!("pod `{}`: {}", pod.name_any(), why.join("; ")));
        }
        troubles
    }
}

/// Some stores are only whole when their operator says so.
async fn is_whole(client: &Client, store: &StorePlan) -> anyhow::Result<bool> {
    let Some((version, kind)) = &store.resource else { return Ok(true) };
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), &store.namespace, &resource);
    let object = api.get(&store.name).await.with_context(|| format!("failed to read {kind} `{}`", store.name))?;
    Ok(object.data["status"]["state"] == "Ready")
}

/// What the stand-ins of each service have seen, one entry for each pod.
pub(super) async fn seen(client: &Client, plan: &Plan, pods: &Snapshot) -> anyhow::Result<BTreeMap<String, Vec<Seen>>> {
    let mut all = BTreeMap::new();
    for service in &plan.services {
        let Some(port) = service.ports.first() else { continue };
        let asked = pods.ready_of(&service.service).map(|pod| async move {
            let request = Request::get(SEEN_PATH).body(Full::default())?;
            ask::<Seen>(client, pod, *port, request).await
        });
        all.insert(service.service.clone(), try_join_all(asked).await?);
    }
    Ok(all)
}

/// Asks a stand-in to try addresses from inside its pod.
pub(super) async fn probe(client: &Client, pod: &Pod, port: u16, targets: Vec<String>) -> anyhow::Result<Vec<bool>> {
    let request = Request::post(PROBE_PATH)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body(&Probe { targets })?)?;
    Ok(ask::<Probed>(client, pod, port, request).await?.open)
}

fn body(value: &impl Serialize) -> anyhow::Result<Full<Bytes>> {
    Ok(Full::from(serde_json::to_vec(value)?))
}

/// A request to a pod by `port-forward`, which no policy stands in the way of.
async fn ask<A: DeserializeOwned>(
    client: &Client,
    pod: &Pod,
    port: u16,
    mut request: Request<Full<Bytes>>,
) -> anyhow::Result<A> {
    let name = pod.name_any();
    request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("standin"));
    let pods = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let mut forwarder =
        pods.portforward(&name, &[port]).await.with_context(|| format!("failed to reach pod `{name}`"))?;
    let stream = forwarder.take_stream(port).with_context(|| format!("pod `{name}` opened no stream"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        anyhow::ensure!(status.is_success(), "pod `{name}` answers {status}");
        Ok(serde_json::from_slice(&bytes)?)
    };
    let mut exchange = std::pin::pin!(exchange);
    let mut connection = std::pin::pin!(connection);
    // The connection moves the bytes; it may end before the answer is read from its buffers.
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = &mut connection => { ended?; exchange.await }
    }
}

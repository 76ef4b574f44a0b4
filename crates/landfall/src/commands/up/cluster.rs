//! What runs, seen through the Kubernetes API: whether all of it is ready, and what the stand-ins have seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::{try_join, try_join_all};
use http::Request;
use http_body_util::Full;
use hyper::body::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::{DeleteParams, DynamicObject, ListParams, LogParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, Client, ResourceExt};
use landfall_standin::{
    CONTROL_PORT, Failure, HttpClient, PROBE_PATH, Pipe, Probe, Probed, SEEN_FIELD, SEEN_PATH, Seen, arrivals,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::plan::{EXTERNAL_LABEL, Plan, StorePlan};
use super::programs;

/// Says to which service or store a pod belongs.
pub(super) const NAME: &str = "app.kubernetes.io/name";

/// How long a stand-in may take to answer what it is asked.
const ANSWER: Duration = Duration::from_secs(30);

/// The pods of a platform at one moment.
pub(super) struct Snapshot {
    pub(super) pods: Vec<Pod>,
    /// What is not ready yet, in words.
    pub(super) waiting: Vec<String>,
    /// Pods that started earlier belong to an earlier run, and what their objects say is old,
    since: Timestamp,
    /// except for these, which have never ended.
    left_running: BTreeSet<String>,
}

impl Snapshot {
    pub(super) async fn take(client: &Client, plan: &Plan) -> anyhow::Result<Self> {
        let left_running = plan.left_running.clone();
        let mut snapshot = Self { pods: Vec::new(), waiting: Vec::new(), since: plan.begun, left_running };
        let mut deployments = Vec::new();
        for namespace in plan.namespaces() {
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
            } else if !is_rolled_out(&deployment) {
                snapshot.waiting.push(format!("{} has copies that are replaced", deployment.name_any()));
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
        let started = |status: &ContainerStatus| {
            let running = status.state.as_ref().and_then(|state| state.running.as_ref());
            running.and_then(|running| running.started_at.as_ref()).is_some_and(|at| at.0 >= self.since)
        };
        let mut containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        is_ready(pod) && (containers.all(started) || self.runs_on(pod))
    }

    /// Whether it has run since before this run.
    fn runs_on(&self, pod: &Pod) -> bool {
        pod.metadata.uid.as_ref().is_some_and(|uid| self.left_running.contains(uid))
    }

    /// The ready pods of a service or store.
    pub(super) fn ready_of(&self, name: &str) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(move |pod| self.is_ready(pod) && pod.labels().get(NAME).is_some_and(|own| own == name))
    }

    /// The ready members of a store.
    pub(super) fn members_of(&self, store: &StorePlan) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(|pod| {
            let labels = pod.labels();
            self.is_ready(pod)
                && pod.namespace().as_deref() == Some(&store.namespace)
                && store.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        })
    }

    /// How many members of a store are ready.
    pub(super) fn members(&self, store: &StorePlan) -> usize {
        self.members_of(store).count()
    }

    /// The ready pod of the stand-in of an external.
    pub(super) fn external(&self, name: &str) -> Option<&Pod> {
        let own = |pod: &&Pod| pod.labels().get(EXTERNAL_LABEL).is_some_and(|own| own == name);
        self.pods.iter().find(|pod| own(pod) && self.is_ready(pod))
    }

    /// How many pods are ready, of how many that are to stay; those of jobs end, and some are on their way out.
    pub(super) fn ready(&self) -> (usize, usize) {
        let stays = |pod: &&Pod| {
            pod.metadata.deletion_timestamp.is_none() && !pod.owner_references().iter().any(|owner| owner.kind == "Job")
        };
        let (staying, ready) = (self.pods.iter().filter(stays), |pod: &&Pod| self.is_ready(pod));
        (staying.clone().filter(ready).count(), staying.count())
    }

    /// The pods of a job that have ended in this run.
    fn ended<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Pod> {
        self.pods.iter().filter(move |pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            let of_this_run = pod.creation_timestamp().is_some_and(|created| created.0 >= self.since);
            pod.labels().get(NAME).is_some_and(|own| own == name)
                && of_this_run
                && matches!(phase, Some("Succeeded" | "Failed"))
        })
    }

    /// Why pods are not ready, as far as they say it themselves.
    pub(super) fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        let ended = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded");
        for pod in self.pods.iter().filter(|pod| !self.is_ready(pod) && !ended(pod)) {
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

impl Plan {
    /// The namespaces that have pods.
    pub(super) fn namespaces(&self) -> BTreeSet<&str> {
        let workloads = self
            .objects
            .iter()
            .chain(&self.additions)
            .filter(|object| ["Deployment", "StatefulSet", "CronJob"].iter().any(|kind| object["kind"] == *kind));
        let of_workloads = workloads.filter_map(|object| object["metadata"]["namespace"].as_str());
        let firewall = self.firewall.iter().map(|firewall| firewall.namespace.as_str());
        self.stores.iter().map(|store| store.namespace.as_str()).chain(of_workloads).chain(firewall).collect()
    }
}

/// Whether all copies are as the object says now; those that run on from before may not be, and are ready all the same.
fn is_rolled_out(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else { return false };
    let (all, updated) = (status.replicas.unwrap_or_default(), status.updated_replicas.unwrap_or_default());
    status.observed_generation >= deployment.metadata.generation && all == updated
}

/// The services that do not lead to the ready pods which they select: a moment passes between the one and the other.
pub(super) async fn leading_nowhere(client: &Client, plan: &Plan, pods: &Snapshot) -> anyhow::Result<Vec<String>> {
    let mut nowhere = Vec::new();
    for namespace in plan.namespaces() {
        let (all, slices) =
            (Api::<Service>::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace));
        let everything = ListParams::default();
        let listed = try_join(all.list(&everything), slices.list(&everything)).await;
        let (services, slices) = listed.with_context(|| format!("failed to list the services in {namespace}"))?;
        let own = pods.pods.iter().filter(|pod| pod.namespace().as_deref() == Some(namespace));
        let ready: Vec<&Pod> = own.filter(|pod| pods.is_ready(pod)).collect();
        nowhere.extend(
            services
                .iter()
                .filter(|service| leads_elsewhere(service, &slices.items, &ready))
                .map(ResourceExt::name_any),
        );
    }
    Ok(nowhere)
}

/// Whether it selects some of these ready pods, and its ready endpoints are not these: those of an earlier run may still be there.
fn leads_elsewhere(service: &Service, slices: &[EndpointSlice], pods: &[&Pod]) -> bool {
    let Some(spec) = &service.spec else { return false };
    let Some(selector) = spec.selector.as_ref().filter(|selector| !selector.is_empty()) else { return false };
    let selects = |pod: &&&Pod| selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value));
    let address = |pod: &&Pod| pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let wanted: BTreeSet<String> = pods.iter().filter(selects).filter_map(address).collect();
    let name = service.name_any();
    let own = slices.iter().filter(|slice| slice.labels().get("kubernetes.io/service-name") == Some(&name));
    let is_ready =
        |endpoint: &&Endpoint| endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready.unwrap_or(true));
    let endpoints = own.flat_map(|slice| slice.endpoints.iter().flatten()).filter(is_ready);
    let found: BTreeSet<String> = endpoints.flat_map(|endpoint| endpoint.addresses.iter().cloned()).collect();
    let all = spec.publish_not_ready_addresses == Some(true);
    !wanted.is_empty() && if all { !wanted.is_subset(&found) } else { wanted != found }
}

/// Some stores are only whole when their operator says so.
async fn is_whole(client: &Client, store: &StorePlan) -> anyhow::Result<bool> {
    let Some((version, kind)) = &store.resource else { return Ok(true) };
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), &store.namespace, &resource);
    let object = api.get(&store.name).await.with_context(|| format!("failed to read {kind} `{}`", store.name))?;
    let conditions = object.data["status"]["conditions"].as_array();
    // What the small operator of RabbitMQ says of quorum queues: until then one member is all that they have.
    let is_ready = |condition: &Value| {
        ["Ready", "QueuesReplicated"].iter().any(|type_| condition["type"] == *type_) && condition["status"] == "True"
    };
    Ok(object.data["status"]["state"] == "Ready" || conditions.into_iter().flatten().any(is_ready))
}

/// Whether a pod says that it is ready.
pub(crate) fn says_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The same, and it is not on its way out.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && says_ready(pod)
}

/// The pods of a service that are ready now, whichever run has started them.
pub(super) async fn ready_pods(client: &Client, namespace: &str, service: &str) -> anyhow::Result<Vec<Pod>> {
    let own = ListParams::default().labels(&format!("{NAME}={service}"));
    let pods = Api::<Pod>::namespaced(client.clone(), namespace).list(&own).await;
    let pods = pods.with_context(|| format!("failed to list the pods of `{service}`"))?;
    Ok(pods.items.into_iter().filter(is_ready).collect())
}

/// What the stand-ins of each service and external have seen, one entry for each pod.
pub(super) async fn seen(lines: &Lines, plan: &Plan, pods: &Snapshot) -> anyhow::Result<BTreeMap<String, Vec<Seen>>> {
    let mut asked = Vec::new();
    let (mut jobs, mut programs) = (Vec::new(), Vec::new());
    for service in &plan.services {
        if service.program.is_some() && !service.runs_once {
            programs.extend(pods.ready_of(&service.service).map(|pod| (service, pod)));
        } else if service.runs_once {
            jobs.extend(pods.ended(&service.service).map(|pod| (service.service.clone(), pod)));
        } else if let Some(port) = service.ports.first() {
            asked.extend(pods.ready_of(&service.service).map(|pod| (service.service.clone(), pod, *port)));
        }
    }
    for external in &plan.externals {
        asked.extend(pods.external(&external.external).map(|pod| (external.external.clone(), pod, CONTROL_PORT)));
    }
    let told = asked.iter().map(|(name, pod, port)| async move {
        let request = Request::get(SEEN_PATH).body(Full::default())?;
        anyhow::Ok((name.clone(), lines.ask::<Seen>(pod, *port, request).await?))
    });
    let of_programs = programs::seen(lines, plan, pods, programs);
    // What a program has dealt with is in its file alone.
    let gone = ledgers_of_others(plan, &asked.iter().map(|(_, pod, _)| pod.name_any()).collect());
    let told = try_join_all(told);
    let logged = try_join_all(
        jobs.into_iter().map(|(name, pod)| async move { anyhow::Ok((name, logged(&lines.client, pod).await?)) }),
    );
    let (told, of_programs, logged) = futures::future::try_join3(told, of_programs, logged).await?;
    let logged = logged.into_iter().filter_map(|(name, seen)| Some((name, seen?)));
    let mut all = BTreeMap::<String, Vec<Seen>>::new();
    for (name, seen) in told.into_iter().chain(of_programs).chain(logged) {
        all.entry(name).or_default().push(seen);
    }
    let nothing = BTreeMap::new();
    for (name, file) in gone {
        let program = plan.services.iter().find(|service| service.service == name && service.program.is_some());
        let flows = program.map_or(&nothing, |program| &program.flows);
        let arrivals = arrivals(&file, flows).with_context(|| format!("failed to read `{}`", file.display()))?;
        all.entry(name).or_default().push(Seen { arrivals, ..Seen::default() });
    }
    Ok(all)
}

/// What pods have written down that are not these: they start again just now, or are gone. With the names of the services.
fn ledgers_of_others(plan: &Plan, pods: &BTreeSet<String>) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    for service in &plan.services {
        let folder = service.ledger.iter().filter_map(|folder| fs::read_dir(folder).ok());
        let others = folder.flatten().flatten().map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            let is_whole = path.extension().is_none_or(|extension| extension != "new");
            is_whole && name.is_some_and(|name| !pods.contains(name))
        });
        files.extend(others.map(|path| (service.service.clone(), path)));
    }
    files
}

/// Removes what pods have written down that are gone since before this run.
pub(super) fn forget_gone(plan: &Plan, pods: &Snapshot) -> anyhow::Result<()> {
    for (_, file) in ledgers_of_others(plan, &pods.pods.iter().map(ResourceExt::name_any).collect()) {
        fs::remove_file(&file).with_context(|| format!("failed to remove `{}`", file.display()))?;
    }
    Ok(())
}

/// Ends the pods of these services and externals that run on from before, as they are to do something else now.
pub(super) async fn renew(client: &Client, pods: &Snapshot, changed: &BTreeSet<String>) -> anyhow::Result<()> {
    for pod in pods.pods.iter().filter(|pod| pods.runs_on(pod)) {
        let mut own = [NAME, EXTERNAL_LABEL].into_iter().filter_map(|label| pod.labels().get(label));
        if own.any(|name| changed.contains(name)) {
            let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
            let deleted =
                Api::<Pod>::namespaced(client.clone(), &namespace).delete(&name, &DeleteParams::default()).await;
            deleted.with_context(|| format!("failed to end the pod `{name}`"))?;
        }
    }
    Ok(())
}

/// What a job says in its log that it has seen.
async fn logged(client: &Client, pod: &Pod) -> anyhow::Result<Option<Seen>> {
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    let log = pods.logs(&name, &LogParams::default()).await;
    let log = log.with_context(|| format!("failed to read the log of pod `{name}`"))?;
    let seen = log.lines().rev().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let told = line["fields"][SEEN_FIELD].as_str().or(line[SEEN_FIELD].as_str());
        told.map_or_else(|| serde_json::from_value(line[SEEN_FIELD].clone()), serde_json::from_str).ok()
    });
    Ok(seen)
}

/// Asks a stand-in to try addresses from inside its pod.
pub(super) async fn probe(lines: &Lines, pod: &Pod, port: u16, targets: Vec<String>) -> anyhow::Result<Vec<bool>> {
    let request = Request::post(PROBE_PATH)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body(&Probe { targets })?)?;
    Ok(lines.ask::<Probed>(pod, port, request).await?.open)
}

pub(super) fn body(value: &impl Serialize) -> anyhow::Result<Full<Bytes>> {
    Ok(Full::from(serde_json::to_vec(value)?))
}

/// Connections to pods by `port-forward`, which no policy stands in the way of. They are kept.
pub(super) struct Lines {
    client: Client,
    held: Mutex<HashMap<(String, u16), HttpClient>>,
}

impl Lines {
    pub(super) fn new(client: Client) -> Self {
        Self { client, held: Mutex::default() }
    }

    /// The client of the API that they go through.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// A client of this port of a pod.
    pub(super) fn to(&self, pod: &Pod, port: u16) -> anyhow::Result<HttpClient> {
        // A pod of the same name may come after this one.
        let key = (pod.uid().unwrap_or_default(), port);
        let mut held = self.held.lock().expect("nothing panics with a connection");
        if let Some(line) = held.get(&key) {
            return Ok(line.clone());
        }
        let (client, name, namespace) = (self.client.clone(), pod.name_any(), pod.namespace().unwrap_or_default());
        let dial = {
            let name = name.clone();
            move || {
                let (pods, name) = (Api::<Pod>::namespaced(client.clone(), &namespace), name.clone());
                async move {
                    let mut forwarder = pods.portforward(&name, &[port]).await?;
                    let stream = forwarder.take_stream(port).ok_or("no stream was opened")?;
                    Ok::<_, Failure>(Pipe::new(stream))
                }
            }
        };
        let line = HttpClient::over(&format!("pod `{name}`"), "standin", move || Box::pin(dial()));
        let line = line.map_err(|error| anyhow::anyhow!(error))?;
        held.insert(key, line.clone());
        Ok(line)
    }

    /// Asks a stand-in.
    pub(super) async fn ask<A: DeserializeOwned>(
        &self,
        pod: &Pod,
        port: u16,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<A> {
        let name = pod.name_any();
        let answer = self.to(pod, port)?.send(request, ANSWER).await;
        let (status, bytes) =
            answer.map_err(|error| anyhow::anyhow!(error)).with_context(|| format!("failed to ask pod `{name}`"))?;
        anyhow::ensure!(status.is_success(), "pod `{name}` answers {status}");
        serde_json::from_slice(&bytes).with_context(|| format!("failed to understand pod `{name}`"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_is_waited_for_until_it_leads_to_the_pods_that_are_ready() {
        let service = |spec: Value| {
            let service = json!({ "metadata": { "name": "rows-rw" }, "spec": spec });
            serde_json::from_value::<Service>(service).expect("a service")
        };
        let slice = |of: &str, endpoints: &[(&str, Value)]| {
            let endpoint =
                |(address, ready): &(&str, Value)| json!({ "addresses": [address], "conditions": { "ready": ready } });
            let slice = json!({
                "metadata": { "labels": { "kubernetes.io/service-name": of } },
                "addressType": "IPv4", "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
            });
            serde_json::from_value::<EndpointSlice>(slice).expect("a slice")
        };
        let pod = |role: &str, address: &str| {
            let pod = json!({ "metadata": { "labels": { "role": role } }, "status": { "podIP": address } });
            serde_json::from_value::<Pod>(pod).expect("a pod")
        };
        let (primary, replica) = (pod("primary", "10.0.0.1"), pod("replica", "10.0.0.2"));
        let rows = || service(json!({ "selector": { "role": "primary" } }));
        let waits = |endpoints: &[(&str, Value)]| leads_elsewhere(&rows(), &[slice("rows-rw", endpoints)], &[&primary]);
        assert!(waits(&[]));
        assert!(waits(&[("10.0.0.1", json!(false))]));
        assert!(waits(&[("10.0.0.7", json!(true))]), "it was there in an earlier run");
        assert!(waits(&[("10.0.0.1", json!(true)), ("10.0.0.7", json!(true))]));
        assert!(!waits(&[("10.0.0.1", json!(true)), ("10.0.0.7", json!(false))]));
        assert!(!waits(&[("10.0.0.1", Value::Null)]));
        assert!(leads_elsewhere(&rows(), &[slice("rows-ro", &[("10.0.0.1", json!(true))])], &[&primary]));
        assert!(!leads_elsewhere(&rows(), &[], &[&replica]), "nobody is to be led to");
        assert!(!leads_elsewhere(&service(json!({})), &[], &[&primary]), "it selects nobody by itself");
        let early = service(json!({ "selector": { "role": "primary" }, "publishNotReadyAddresses": true }));
        let both = slice("rows-rw", &[("10.0.0.1", json!(true)), ("10.0.0.7", json!(true))]);
        assert!(!leads_elsewhere(&early, &[both], &[&primary]));
    }
}

//! What can be seen of services that are programs of their own: what their metrics say of edges, and where they tell
//! nothing, whether there is a connection, seen from inside of the pod.
//!
//! Not handled: a connection that was closed more than a minute ago, and what is not TCP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use http::Request;
use http_body_util::Full;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{AttachParams, ListParams};
use kube::{Api, Client, ResourceExt};
use landfall_standin::{EdgeSeen, Looked, Seen, ServiceBehaviour, edges_told};
use tokio::io::AsyncReadExt as _;

use super::cluster::{Lines, Snapshot};
use super::plan::{Plan, STANDIN};

/// How long a program may take to tell its metrics.
const ANSWER: Duration = Duration::from_secs(10);

/// Says to which Service a slice of endpoints belongs.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What is seen of the pods of programs, with the names of the services.
pub(super) async fn seen(
    lines: &Lines,
    plan: &Plan,
    pods: &Snapshot,
    programs: Vec<(&ServiceBehaviour, &Pod)>,
) -> anyhow::Result<Vec<(String, Seen)>> {
    let told = programs.iter().map(|(service, pod)| told(lines, plan, service, pod));
    let mut told = join_all(told).await;
    let is_untold = |service: &ServiceBehaviour, told: &BTreeMap<String, EdgeSeen>| {
        service.edges.iter().any(|edge| !told.contains_key(&edge.name))
    };
    if programs.iter().zip(&told).any(|((service, _), told)| is_untold(service, told)) {
        let sides = Sides::take(lines.client(), plan, pods).await?;
        let untold = programs.iter().zip(&mut told).filter(|((service, _), told)| is_untold(service, told));
        join_all(untold.map(|((service, pod), told)| connected(lines, plan, &sides, service, pod, told))).await;
    }
    let seen = programs.into_iter().zip(told);
    Ok(seen.map(|((service, _), edges)| (service.service.clone(), Seen { edges, ..Seen::default() })).collect())
}

/// What the metrics of a program say of its edges; nothing where it has none, or is just starting.
async fn told(lines: &Lines, plan: &Plan, service: &ServiceBehaviour, pod: &Pod) -> BTreeMap<String, EdgeSeen> {
    let Some((port, path)) = plan.metrics_of(&service.service) else { return BTreeMap::new() };
    let asked = async {
        let request = Request::get(path).body(Full::default())?;
        let answer = lines.to(pod, port)?.send(request, ANSWER).await;
        let (status, body) = answer.map_err(|error| anyhow::anyhow!(error))?;
        anyhow::ensure!(status.is_success(), "{status}");
        anyhow::Ok(String::from_utf8_lossy(&body).into_owned())
    };
    edges_told(&asked.await.unwrap_or_default())
}

/// Writes down for the edges of which a program tells nothing whether there is a connection.
async fn connected(
    lines: &Lines,
    plan: &Plan,
    sides: &Sides,
    service: &ServiceBehaviour,
    pod: &Pod,
    told: &mut BTreeMap<String, EdgeSeen>,
) {
    // On the network of the machine the connections of all its programs are seen.
    let is_shared = address(pod).is_some_and(|address| address.is_loopback());
    let (looked, error) = if is_shared {
        let error = "its program tells nothing of it in its metrics, and on loopback addresses nobody sees whose a connection is";
        (Looked::default(), Some(error.to_owned()))
    } else {
        match look(lines, plan, pod, &service.service, &[]).await {
            Ok(looked) => (looked, None),
            Err(error) => (Looked::default(), Some(format!("{error:#}"))),
        }
    };
    for edge in plan.edges.iter().filter(|edge| edge.from == service.service && edge.missing.is_none()) {
        let connected = looked.connections.iter().any(|side| sides.are(&edge.to, *side.ip()));
        let error = error.clone().or_else(|| {
            (!connected).then(|| "its program tells nothing of it in its metrics, and has no connection".to_owned())
        });
        told.entry(edge.name.clone()).or_insert(EdgeSeen { connected, error, ..EdgeSeen::default() });
    }
}

/// Looks around from inside of a pod, whatever runs there.
pub(super) async fn look(
    lines: &Lines,
    plan: &Plan,
    pod: &Pod,
    container: &str,
    targets: &[String],
) -> anyhow::Result<Looked> {
    look_by(lines.client(), pod, container, &plan.landfall.display().to_string(), targets).await
}

/// The same, where the container has this program at another path.
pub(super) async fn look_by(
    client: &Client,
    pod: &Pod,
    container: &str,
    program: &str,
    targets: &[String],
) -> anyhow::Result<Looked> {
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    let command = [&[program.to_owned(), STANDIN.to_owned(), "look".to_owned()], targets].concat();
    let parameters = AttachParams::default().stdout(true).stderr(false).container(container);
    let printed = async {
        let mut process = pods.exec(&name, command, &parameters).await?;
        let mut output = String::new();
        if let Some(mut stdout) = process.stdout() {
            stdout.read_to_string(&mut output).await?;
        }
        process.join().await?;
        anyhow::Ok(output)
    };
    let printed = printed.await.with_context(|| format!("failed to look around in pod `{name}`"))?;
    serde_json::from_str(&printed).with_context(|| format!("pod `{name}` does not say what can be seen: {printed}"))
}

/// The addresses of everybody whom an edge leads to.
struct Sides(BTreeMap<String, BTreeSet<Ipv4Addr>>);

impl Sides {
    async fn take(client: &Client, plan: &Plan, pods: &Snapshot) -> anyhow::Result<Self> {
        let mut sides = BTreeMap::<String, BTreeSet<Ipv4Addr>>::new();
        for edge in &plan.edges {
            if !sides.contains_key(&edge.to) {
                let own = plan.stores.iter().filter(|store| store.name == edge.to);
                let own = own.flat_map(|store| pods.members_of(store)).chain(pods.ready_of(&edge.to));
                let own = own.chain(pods.external(&edge.to));
                sides.insert(edge.to.clone(), own.filter_map(address).collect());
            }
        }
        for namespace in plan.namespaces() {
            let services = Api::<Service>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
            let services = services.with_context(|| format!("failed to list the services in {namespace}"))?;
            let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
            let slices = slices.with_context(|| format!("failed to list the endpoints in {namespace}"))?;
            for service in services {
                let own = slices.iter().filter(|slice| slice.labels().get(SERVICE_NAME) == Some(&service.name_any()));
                let behind: BTreeSet<Ipv4Addr> = own
                    .flat_map(|slice| slice.endpoints.iter().flatten())
                    .flat_map(|endpoint| &endpoint.addresses)
                    .filter_map(|address| address.parse().ok())
                    .collect();
                let address: Option<Ipv4Addr> = service.spec.and_then(|spec| spec.cluster_ip?.parse().ok());
                for side in sides.values_mut().filter(|side| !side.is_disjoint(&behind)) {
                    side.extend(address);
                }
            }
        }
        Ok(Self(sides))
    }

    fn are(&self, name: &str, address: Ipv4Addr) -> bool {
        self.0.get(name).is_some_and(|side| side.contains(&address))
    }
}

fn address(pod: &Pod) -> Option<Ipv4Addr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

//! Which slices a service needs, and how to come there from those that it has.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use super::{MANAGED_BY, MANAGED_BY_LABEL, SERVICE_LABEL, is_headless, labels, trigger};
use crate::controller::claim::owner_reference;
use crate::controller::pod;

/// How many endpoints a slice holds at most (`--max-endpoints-per-slice`).
const MAX_ENDPOINTS: usize = 100;

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// A pod and its node, as far as it is known.
pub(super) struct Placed {
    pub(super) pod: Arc<Pod>,
    pub(super) node: Option<Arc<Node>>,
}

#[derive(Debug)]
pub(super) enum Change {
    Create(EndpointSlice),
    Update { old: Arc<EndpointSlice>, new: EndpointSlice },
    Delete(Arc<EndpointSlice>),
}

impl Change {
    /// Writes down when that happened which the change follows.
    pub(super) fn caused_at(&mut self, trigger: Option<Timestamp>) {
        match self {
            Self::Create(slice) | Self::Update { new: slice, .. } => {
                trigger::marked(slice, trigger);
            }
            Self::Delete(_) => {}
        }
    }
}

/// Slices are grouped by what they have in common: the kind of address, and the ports, which differ between pods when a
/// port is named.
type Group = (&'static str, Vec<PortKey>);
type PortKey = (Option<String>, Option<i32>, Option<String>, Option<String>);

pub(super) fn plan(service: &Service, pods: &[Placed], existing: &[Arc<EndpointSlice>]) -> Vec<Change> {
    let mut wanted: BTreeMap<Group, (Vec<EndpointPort>, BTreeMap<String, Endpoint>)> = BTreeMap::new();
    for family in families(service) {
        for placed in pods.iter().filter(|placed| is_listed(service, placed)) {
            let endpoint = endpoint(service, placed, family);
            if endpoint.addresses.is_empty() {
                continue;
            }
            let ports = ports(service, &placed.pod);
            let group = wanted.entry((family, port_keys(&ports))).or_insert_with(|| (ports, BTreeMap::new()));
            group.1.insert(identity(&endpoint), endpoint);
        }
        // Somebody who waits for the first slice learns from an empty one that there is nothing yet.
        if !wanted.keys().any(|(of, _)| *of == family) {
            wanted.insert((family, Vec::new()), (Vec::new(), BTreeMap::new()));
        }
    }

    let mut by_group: BTreeMap<Group, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    let mut changes = Vec::new();
    for slice in existing {
        let family = FAMILIES.into_iter().find(|family| *family == slice.address_type);
        let group = family.map(|family| (family, port_keys(slice.ports.as_deref().unwrap_or_default())));
        match group.filter(|group| wanted.contains_key(group)) {
            Some(group) => by_group.entry(group).or_default().push(Arc::clone(slice)),
            None => changes.push(Change::Delete(Arc::clone(slice))),
        }
    }
    for (group, (ports, endpoints)) in wanted {
        let existing = by_group.remove(&group).unwrap_or_default();
        changes.extend(fill(service, group.0, &ports, endpoints, existing));
    }
    // What is new comes before what is gone, so that no endpoint is missing in between.
    changes.sort_by_key(|change| matches!(change, Change::Delete(_)));
    changes
}

/// Leaves endpoints where they are, fills slices that have room, and makes new ones for the rest.
fn fill(
    service: &Service,
    family: &str,
    ports: &[EndpointPort],
    mut wanted: BTreeMap<String, Endpoint>,
    existing: Vec<Arc<EndpointSlice>>,
) -> Vec<Change> {
    let is_placeholder = wanted.is_empty();
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in existing {
        let endpoints = slice.endpoints.as_deref().unwrap_or_default().iter();
        let endpoints = endpoints.filter_map(|endpoint| wanted.remove(&identity(endpoint))).collect();
        kept.push((slice, endpoints));
    }
    // The fullest first: few slices, few changes.
    kept.sort_by_key(|(_, endpoints)| std::cmp::Reverse(endpoints.len()));
    let mut rest = wanted.into_values();
    for (_, endpoints) in &mut kept {
        let room = MAX_ENDPOINTS.saturating_sub(endpoints.len());
        endpoints.extend(rest.by_ref().take(room));
    }
    let mut changes = Vec::new();
    let mut is_first = true;
    for (slice, endpoints) in kept {
        if endpoints.is_empty() && !(is_placeholder && is_first) {
            changes.push(Change::Delete(slice));
            continue;
        }
        is_first = false;
        let new = EndpointSlice {
            metadata: ObjectMeta { labels: Some(slice_labels(service)), ..slice.metadata.clone() },
            // The API tells no empty list from none.
            endpoints: (!endpoints.is_empty()).then_some(endpoints),
            ..(*slice).clone()
        };
        if new != *slice {
            changes.push(Change::Update { old: slice, new });
        }
    }
    let rest: Vec<_> = rest.collect();
    let empty = is_placeholder && is_first;
    let batches = rest.chunks(MAX_ENDPOINTS).map(<[_]>::to_vec).chain(empty.then(Vec::new));
    changes.extend(batches.map(|endpoints| Change::Create(slice(service, family, ports, endpoints))));
    changes
}

fn slice(service: &Service, family: &str, ports: &[EndpointPort], endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.namespace(),
            labels: Some(slice_labels(service)),
            owner_references: Some(vec![owner_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: (!endpoints.is_empty()).then_some(endpoints),
        ports: (!ports.is_empty()).then(|| ports.to_vec()),
    }
}

fn slice_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = labels(service);
    labels.insert(SERVICE_LABEL.to_owned(), service.name_any());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    labels
}

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

fn families(service: &Service) -> Vec<&'static str> {
    let asked = service.spec.as_ref().and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
    let families: Vec<_> = FAMILIES.into_iter().filter(|family| asked.iter().any(|asked| asked == family)).collect();
    if families.is_empty() { vec!["IPv4"] } else { families }
}

/// A pod that has ended or has no address is not listed; nor is one whose node is not known, unless all are asked for.
fn is_listed(service: &Service, placed: &Placed) -> bool {
    let unready = publishes_unready(service);
    has_address(&placed.pod) && !pod::is_terminal(&placed.pod) && (placed.node.is_some() || unready)
}

pub(super) fn has_address(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| {
        status.pod_ip.as_ref().is_some_and(|address| !address.is_empty())
            || status.pod_ips.as_ref().is_some_and(|addresses| !addresses.is_empty())
    })
}

pub(super) fn publishes_unready(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.publish_not_ready_addresses == Some(true))
}

/// The addresses of a pod, of one family.
pub(super) fn addresses(pod: &Pod, family: &str) -> Vec<String> {
    let all = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    let addresses = all.filter_map(|address| address.ip.parse::<IpAddr>().ok());
    let of_family = addresses.filter(|address| address.is_ipv6() == (family == "IPv6"));
    of_family.map(|address| address.to_string()).collect()
}

fn endpoint(service: &Service, placed: &Placed, family: &str) -> Endpoint {
    let pod = &*placed.pod;
    let serving = pod::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = publishes_unready(service) || (serving && !terminating);
    let zone = placed.node.as_ref().and_then(|node| node.labels().get(ZONE_LABEL).cloned());
    let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    Endpoint {
        addresses: addresses(pod, family),
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints: ready.then(|| hints(service, zone.as_deref(), node_name.as_deref())).flatten(),
        hostname: hostname(service, pod),
        node_name,
        target_ref: Some(reference(pod)),
        zone: zone.filter(|zone| !zone.is_empty()),
        ..Endpoint::default()
    }
}

/// Who should prefer an endpoint, if the service asks for near ones (`spec.trafficDistribution`).
fn hints(service: &Service, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let same_node = match distribution {
        "PreferClose" | "PreferSameZone" => false,
        "PreferSameNode" => true,
        _ => return None,
    };
    let for_zones = zone.map(|zone| vec![ForZone { name: zone.to_owned() }]);
    let for_nodes = node.filter(|_| same_node).map(|node| vec![ForNode { name: node.to_owned() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

/// The name that a pod of a headless service is found by in DNS.
pub(super) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let belongs = spec.subdomain.as_deref() == service.metadata.name.as_deref();
    spec.hostname.clone().filter(|hostname| belongs && !hostname.is_empty())
}

pub(super) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.namespace(),
        name: pod.metadata.name.clone(),
        uid: pod.uid(),
        ..ObjectReference::default()
    }
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    if ports.is_empty() && is_headless(service) {
        return Vec::new();
    }
    let found = ports.iter().filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target(port, pod)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
    });
    found.collect()
}

/// The port of a pod that a service's port leads to; `None` if it is named and no container has that name.
pub(super) fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match port.target_port.as_ref() {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten();
            let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            spec.containers.iter().chain(sidecars).find_map(|container| named_port(container, name, protocol))
        }
    }
}

fn named_port(container: &Container, name: &str, protocol: &str) -> Option<i32> {
    let mut ports = container.ports.iter().flatten();
    let named =
        ports.find(|port| port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol);
    named.map(|port| port.container_port)
}

fn port_keys(ports: &[EndpointPort]) -> Vec<PortKey> {
    let key = |port: &EndpointPort| {
        (port.name.clone().filter(|name| !name.is_empty()), port.port, port.protocol.clone(), port.app_protocol.clone())
    };
    let mut keys: Vec<_> = ports.iter().map(key).collect();
    keys.sort();
    keys
}

/// The same pod with the same addresses.
fn identity(endpoint: &Endpoint) -> String {
    let pod = endpoint.target_ref.as_ref();
    let name = pod.and_then(|pod| pod.name.as_deref()).unwrap_or_default();
    let uid = pod.and_then(|pod| pod.uid.as_deref()).unwrap_or_default();
    format!("{name} {uid} {}", endpoint.addresses.join(","))
}

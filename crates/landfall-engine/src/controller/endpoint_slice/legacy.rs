//! The Endpoints of a service: what there was before endpoint slices, and what older programs still read.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::plan::{Placed, addresses, has_address, hostname, publishes_unready, reference, target};
use super::{is_headless, labels};
use crate::controller::pod;
use crate::controller::status::difference;

const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
const MANAGED_BY: &str = "endpoint-controller";

/// How many addresses are listed at most; what is beyond is in slices only, and this annotation says so.
const MAX_ADDRESSES: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

pub(super) fn is_ours(endpoints: &Endpoints) -> bool {
    endpoints.labels().get(MANAGED_BY_LABEL).is_some_and(|manager| manager == MANAGED_BY)
}

pub(super) fn endpoints(service: &Service, pods: &[Placed]) -> Endpoints {
    let family = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref()?.first().cloned());
    let family = family.unwrap_or_else(|| "IPv4".to_owned());
    let unready = publishes_unready(service);
    // By the ports that lead to an address: the ready ones, and the others.
    let mut by_ports: BTreeMap<Vec<PortKey>, [Vec<EndpointAddress>; 2]> = BTreeMap::new();
    for Placed { pod, .. } in pods {
        let is_going = pod.metadata.deletion_timestamp.is_some() && !unready;
        if is_going || !has_address(pod) || pod::is_terminal(pod) {
            continue;
        }
        let Some(ip) = addresses(pod, &family).into_iter().next() else { continue };
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let mut found: Vec<PortKey> = ports
            .iter()
            .filter_map(|port| {
                let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
                Some((port.name.clone(), target(port, pod)?, protocol, port.app_protocol.clone()))
            })
            .collect();
        if found.is_empty() && !(ports.is_empty() && is_headless(service)) {
            continue;
        }
        found.sort();
        let address = EndpointAddress {
            hostname: hostname(service, pod),
            ip,
            node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            target_ref: Some(reference(pod)),
        };
        let is_ready = unready || pod::is_ready(pod);
        by_ports.entry(found).or_default()[usize::from(!is_ready)].push(address);
    }
    let total: usize = by_ports.values().flatten().map(Vec::len).sum();
    let mut room = MAX_ADDRESSES;
    let mut subsets = Vec::new();
    for (ports, lists) in by_ports {
        let [ready, unready] = lists.map(|mut addresses| {
            addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
            addresses.truncate(room);
            room -= addresses.len();
            (!addresses.is_empty()).then_some(addresses)
        });
        if ready.is_some() || unready.is_some() {
            let ports = ports.into_iter().map(port).collect::<Vec<_>>();
            let ports = (!ports.is_empty()).then_some(ports);
            subsets.push(EndpointSubset { addresses: ready, not_ready_addresses: unready, ports });
        }
    }
    let mut labels = labels(service);
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    let truncated = total > MAX_ADDRESSES;
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.namespace(),
            labels: Some(labels),
            annotations: truncated.then(|| BTreeMap::from([(OVER_CAPACITY.to_owned(), "truncated".to_owned())])),
            ..ObjectMeta::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

type PortKey = (Option<String>, i32, String, Option<String>);

fn port((name, port, protocol, app_protocol): PortKey) -> EndpointPort {
    EndpointPort { name, port, protocol: Some(protocol), app_protocol }
}

/// The merge patch that brings Endpoints up to date; annotations of others are left alone.
pub(super) fn changes(old: &Endpoints, new: &Endpoints) -> Option<Value> {
    let ours = |endpoints: &Endpoints| {
        let capacity = endpoints.annotations().get(OVER_CAPACITY);
        json!({
            "metadata": { "labels": endpoints.labels(), "annotations": capacity.map(|value| json!({ OVER_CAPACITY: value })) },
            "subsets": endpoints.subsets.as_deref().unwrap_or_default(),
        })
    };
    let mut patch = difference(Some(&ours(old)), &ours(new))?;
    // Taking our annotation away must not take away those of others.
    if patch["metadata"].get("annotations").is_some_and(Value::is_null) {
        patch["metadata"]["annotations"] = json!({ OVER_CAPACITY: null });
    }
    Some(patch)
}

//! Which endpoints a port of a service leads to.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddrV4;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointSlice};

/// The label that leads from a slice to its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Slices by namespace and name of their service.
pub(crate) type ByService<'a> = HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>;

pub(crate) fn by_service(slices: &[Arc<EndpointSlice>]) -> ByService<'_> {
    let mut found = ByService::new();
    for slice in slices {
        let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        if let (Some(namespace), Some(service)) = (&slice.metadata.namespace, service) {
            found.entry((namespace, service)).or_default().push(slice);
        }
    }
    found
}

/// The slices of one service.
pub(crate) fn of<'s>(service: &'s Service, slices: &'s ByService<'s>) -> &'s [&'s EndpointSlice] {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let name = service.metadata.name.as_deref().unwrap_or_default();
    slices.get(&(namespace, name)).map(Vec::as_slice).unwrap_or_default()
}

/// Where requests for a port of a service go: to the endpoints that are ready. When there is none, to those that end and still
/// serve (KEP-1669): the last copies answer until others have taken their place.
pub(crate) fn for_port(slices: &[&EndpointSlice], port: &ServicePort) -> BTreeSet<SocketAddrV4> {
    let where_it = |holds: fn(&EndpointConditions) -> bool| {
        slices.iter().flat_map(|slice| at(slice, port, holds)).collect::<BTreeSet<_>>()
    };
    // An endpoint whose readiness is not told counts as ready.
    let ready = where_it(|conditions| conditions.ready.unwrap_or(true));
    if !ready.is_empty() {
        return ready;
    }
    where_it(|conditions| conditions.serving == Some(true) && conditions.terminating == Some(true))
}

/// Every endpoint that slices know, whether requests go to it or not.
pub(crate) fn all(slices: &[Arc<EndpointSlice>]) -> BTreeSet<SocketAddrV4> {
    let of = |slice: &EndpointSlice| {
        let ports: Vec<u16> = slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok()).collect();
        let addresses =
            slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint.addresses.first()?.parse().ok());
        addresses
            .flat_map(|address| ports.iter().map(move |port| SocketAddrV4::new(address, *port)))
            .collect::<Vec<_>>()
    };
    slices.iter().flat_map(|slice| of(slice)).collect()
}

/// The endpoints of a slice for a port of its service whose conditions are so; the two belong together by the port's name.
fn at(slice: &EndpointSlice, port: &ServicePort, holds: fn(&EndpointConditions) -> bool) -> Vec<SocketAddrV4> {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let protocol = |protocol: &Option<String>| protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let known =
        slice.ports.iter().flatten().find(|known| {
            name(&known.name) == name(&port.name) && protocol(&known.protocol) == protocol(&port.protocol)
        });
    let Some(number) = known.and_then(|known| u16::try_from(known.port?).ok()) else { return Vec::new() };
    let untold = EndpointConditions::default();
    let chosen =
        slice.endpoints.iter().flatten().filter(|endpoint| holds(endpoint.conditions.as_ref().unwrap_or(&untold)));
    chosen.filter_map(|endpoint| Some(SocketAddrV4::new(endpoint.addresses.first()?.parse().ok()?, number))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(conditions: [Value; 3]) -> Vec<u8> {
        let endpoint = |(number, conditions): (usize, Value)| json!({ "addresses": [format!("10.0.0.{number}")], "conditions": conditions });
        let endpoints: Vec<Value> = conditions.into_iter().enumerate().map(endpoint).collect();
        let slice = json!({ "addressType": "IPv4", "ports": [{ "port": 8080 }], "endpoints": endpoints });
        let slice: EndpointSlice = serde_json::from_value(slice).expect("a slice");
        let port: ServicePort = serde_json::from_value(json!({ "port": 80 })).expect("a port");
        for_port(&[&slice], &port).iter().map(|found| found.ip().octets()[3]).collect()
    }

    #[test]
    fn who_ends_gets_requests_only_when_nobody_is_ready() {
        let ready = || json!({ "ready": true, "serving": true, "terminating": false });
        let ending = || json!({ "ready": false, "serving": true, "terminating": true });
        let failing = || json!({ "ready": false, "serving": false, "terminating": false });
        let gone = || json!({ "ready": false, "serving": false, "terminating": true });
        assert_eq!(check([ready(), ending(), Value::Null]), [0, 2]);
        assert_eq!(check([failing(), ending(), gone()]), [1]);
        assert_eq!(check([failing(), gone(), failing()]), Vec::<u8>::new());
    }
}

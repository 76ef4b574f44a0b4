//! Which endpoints a port of a service leads to.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;

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

/// The ready endpoints of a slice for a port of its service; the two belong together by the port's name. An endpoint whose
/// readiness is not told counts as ready.
pub(crate) fn ready<'a>(slice: &'a EndpointSlice, port: &'a ServicePort) -> impl Iterator<Item = SocketAddrV4> + 'a {
    let name = |name: &'a Option<String>| name.as_deref().unwrap_or_default();
    let protocol = |protocol: &'a Option<String>| protocol.as_deref().unwrap_or("TCP");
    let known =
        slice.ports.iter().flatten().find(|known| {
            name(&known.name) == name(&port.name) && protocol(&known.protocol) == protocol(&port.protocol)
        });
    let number = known.and_then(|known| u16::try_from(known.port?).ok());
    number.into_iter().flat_map(move |number| {
        let ready =
            slice.endpoints.iter().flatten().filter(|endpoint| {
                endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
            });
        ready.filter_map(move |endpoint| Some(SocketAddrV4::new(endpoint.addresses.first()?.parse().ok()?, number)))
    })
}

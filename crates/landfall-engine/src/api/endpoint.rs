//! How the API server reaches what is behind a service: any of its ready endpoints.

use std::net::SocketAddr;
use std::sync::Arc;

use rand::seq::IndexedRandom as _;
use serde_json::Value;
use tokio::net::TcpStream;

use super::State;
use crate::network::{Dialer, Loopback};
use crate::store::{Collection, Key};

/// A port of a service, as who asks calls it.
#[derive(Debug, Clone, Copy)]
pub(super) enum ServicePort<'a> {
    Number(u16),
    /// Empty for the one without a name.
    Name(&'a str),
}

/// Why nobody behind a service can be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum Nobody {
    #[error("service {0:?} not found")]
    NoService(String),
    #[error("no service port {0} found for service {1:?}")]
    NoPort(u16, String),
    /// Nothing says who is behind it.
    #[error("no endpoints available for service {0:?}")]
    NoEndpoints(String),
    #[error("no endpoints available for service {0:?}")]
    NotReady(String),
}

/// A ready endpoint of a service, any of them.
pub(super) fn of(state: &State, namespace: &str, name: &str, port: ServicePort<'_>) -> Result<SocketAddr, Nobody> {
    let service = state.store.get(&Key::new(&Collection::new("", "services"), namespace, name));
    let service = service.ok_or_else(|| Nobody::NoService(name.to_owned()))?.value();
    let text = |port: &Value| port["name"].as_str().unwrap_or_default().to_owned();
    let wanted = match port {
        ServicePort::Name(name) => name.to_owned(),
        ServicePort::Number(number) => {
            let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
            let found = ports.find(|known| known["port"].as_u64() == Some(number.into()));
            text(found.ok_or_else(|| Nobody::NoPort(number, name.to_owned()))?)
        }
    };
    let slices = state.store.list(&Collection::new("discovery.k8s.io", "endpointslices"), Some(namespace)).records;
    let (mut found, mut is_known) = (Vec::new(), false);
    for slice in slices.iter().map(|record| record.value()) {
        if slice["metadata"]["labels"]["kubernetes.io/service-name"] != name {
            continue;
        }
        is_known = true;
        let mut ports = slice["ports"].as_array().into_iter().flatten();
        let number = ports.find(|known| text(known) == wanted).and_then(|known| known["port"].as_u64());
        let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else { continue };
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
        let addresses = ready.filter_map(|endpoint| endpoint["addresses"][0].as_str()?.parse().ok());
        found.extend(addresses.map(|address| SocketAddr::new(address, number)));
    }
    match found.choose(&mut rand::rng()) {
        Some(found) => Ok(*found),
        None if is_known => Err(Nobody::NotReady(name.to_owned())),
        None => Err(Nobody::NoEndpoints(name.to_owned())),
    }
}

/// A connection to a pod.
pub(super) async fn dial(state: &State, address: SocketAddr) -> Result<TcpStream, String> {
    // An API server without nodes has no other way than everybody's.
    let dialer: Dialer = state.dialer.get().cloned().unwrap_or_else(|| Arc::new(Loopback));
    dialer.dial(address).await.map_err(|error| format!("dial tcp {address}: {error}"))
}

//! Services as sockets of the engine: each connection goes to one of the ready endpoints. Node ports are served so
//! everywhere; the addresses of services only where pods have no network of their own, as the kernel leads to them elsewhere.
//!
//! <https://kubernetes.io/docs/reference/networking/virtual-ips/> says what a service address does. The choice is random, as
//! kube-proxy's is with iptables; with `sessionAffinity: ClientIP` a client stays with its endpoint while that is ready.
//!
//! A node port is opened on the loopback address of the machine alone: what runs here for a try is not for the network that
//! the machine is in. All nodes are this machine, so it is one socket, not one for each node. To the pod the connection comes
//! from its node, as after the translation of addresses that `externalTrafficPolicy: Cluster` allows, so policies do not close it.
//!
//! Ports up to 1023 are those of root, unless the machine says otherwise (`net.ipv4.ip_unprivileged_port_start`). Where the engine
//! may not open one it opens the port that is 20000 higher at the same address.
//!
//! Not handled: UDP and SCTP ports, which have no socket.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::dialer::Dialer;
use super::{News, SETTLE, endpoints};
use crate::context::Context;

/// How long to wait for one endpoint before the next is tried.
const CONNECT: Duration = Duration::from_secs(2);

/// Up to it ports are those of root (ip(7)).
pub const LAST_PRIVILEGED_PORT: u16 = 1023;

/// How much higher the port of a service is, on loopback addresses, that takes the place of one which the engine may not open.
pub const RAISED_BY: u16 = 20_000;

/// How long a client is remembered when its service does not say (`sessionAffinityConfig.clientIP.timeoutSeconds`).
const AFFINITY: Duration = Duration::from_hours(3);

/// Where a port of a service leads, as of now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Backends {
    ready: Vec<SocketAddr>,
    affinity: Option<Duration>,
}

/// Which ports of services are sockets of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doors {
    /// Node ports.
    NodePorts,
    /// Node ports, and the addresses of services.
    All,
}

/// Every TCP port of every service that has an address, with its ready endpoints. Pure.
fn plan(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>], doors: Doors) -> BTreeMap<SocketAddr, Backends> {
    let by_service = endpoints::by_service(slices);
    let mut planned = BTreeMap::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let Some(address) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()) else { continue };
        let slices = endpoints::of(service, &by_service);
        let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let configured =
                spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
            configured.and_then(|seconds| u64::try_from(seconds).ok()).map_or(AFFINITY, Duration::from_secs)
        });
        for port in spec.ports.iter().flatten() {
            if !is_tcp(port) {
                continue;
            }
            let number = |number: i32| u16::try_from(number).ok().filter(|number| *number > 0);
            let own = number(port.port).filter(|_| doors == Doors::All).map(|port| SocketAddr::new(address, port));
            let node = port.node_port.and_then(number).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            let ready = endpoints::for_port(slices, port).into_iter().map(SocketAddr::V4).collect();
            let backends = Backends { ready, affinity };
            planned.extend(own.into_iter().chain(node).map(|address| (address, backends.clone())));
        }
    }
    planned
}

fn is_tcp(port: &ServicePort) -> bool {
    port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
}

/// Serves these ports of services until cancelled.
pub(crate) async fn run(context: Context, dialer: Dialer, doors: Doors, cancel: CancellationToken) {
    let mut news = News::default();
    news.of(&context.caches.services);
    news.of(&context.caches.endpoint_slices);

    let mut open: BTreeMap<SocketAddr, Port> = BTreeMap::new();
    let mut taken: BTreeSet<SocketAddr> = BTreeSet::new();
    loop {
        let planned = plan(&context.caches.services.list(), &context.caches.endpoint_slices.list(), doors);
        taken.retain(|address| planned.contains_key(address));
        let closed: Vec<SocketAddr> = open.keys().filter(|address| !planned.contains_key(address)).copied().collect();
        for address in closed {
            open.remove(&address);
        }
        for (address, backends) in planned {
            match open.get(&address) {
                Some(port) => port.backends.store(Arc::new(backends)),
                None => match Port::open(address, backends, Arc::clone(&dialer)).await {
                    Ok(port) => {
                        taken.remove(&address);
                        open.insert(address, port);
                    }
                    // Tried again at the next change, and told once.
                    Err(error) if taken.insert(address) => {
                        warn!(%address, %error, "failed to open a port of a service");
                    }
                    Err(_) => {}
                },
            }
        }
        // Nothing is lost when an arm is dropped: the channel keeps that there was a change.
        tokio::select! {
            () = cancel.cancelled() => break,
            () = news.next() => tokio::time::sleep(SETTLE).await,
        }
    }
}

/// One address and port of a service. Dropping it closes the socket and its connections.
struct Port {
    backends: Arc<ArcSwap<Backends>>,
    _accepting: JoinSet<()>,
}

impl Port {
    async fn open(address: SocketAddr, backends: Backends, dialer: Dialer) -> io::Result<Self> {
        let listener = match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && address.port() <= LAST_PRIVILEGED_PORT => {
                let raised = SocketAddr::new(address.ip(), address.port() + RAISED_BY);
                info!(%address, %raised, "a port that is not ours to open is another one");
                TcpListener::bind(raised).await?
            }
            bound => bound?,
        };
        let backends = Arc::new(ArcSwap::from_pointee(backends));
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&backends), dialer));
        Ok(Self { backends, _accepting: accepting })
    }
}

async fn accept(listener: TcpListener, backends: Arc<ArcSwap<Backends>>, dialer: Dialer) {
    let remembered = Arc::new(Mutex::new(HashMap::new()));
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((client, peer)) => {
                while connections.try_join_next().is_some() {}
                let order = choose(&backends.load(), peer.ip(), &remembered);
                connections.spawn(forward(client, peer, order, Arc::clone(&dialer), Arc::clone(&remembered)));
            }
            Err(error) => {
                warn!(%error, "failed to accept a connection to a service");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Which endpoint each client had last, and when.
type Remembered = Arc<Mutex<HashMap<IpAddr, (SocketAddr, Instant)>>>;

/// The endpoints in the order in which they are tried.
fn choose(backends: &Backends, client: IpAddr, remembered: &Remembered) -> Vec<SocketAddr> {
    let mut random = rand::rng();
    let mut order = backends.ready.clone();
    order.shuffle(&mut random);
    if let Some(keep) = backends.affinity {
        let mut remembered = remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.retain(|_, (_, since)| since.elapsed() < keep);
        if let Some((last, _)) = remembered.get(&client)
            && let Some(at) = order.iter().position(|address| address == last)
        {
            order.swap(0, at);
        } else if let Some(first) = order.choose(&mut random).copied() {
            remembered.insert(client, (first, Instant::now()));
            let at = order.iter().position(|address| *address == first).expect("it was chosen from these");
            order.swap(0, at);
        }
    }
    order
}

async fn forward(
    mut client: TcpStream,
    peer: SocketAddr,
    order: Vec<SocketAddr>,
    dialer: Dialer,
    remembered: Remembered,
) {
    for address in order {
        match tokio::time::timeout(CONNECT, dialer.dial(address)).await {
            Ok(Ok(mut pod)) => {
                if let Some(entry) = remembered.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&peer.ip()) {
                    *entry = (address, Instant::now());
                }
                let _ = client.set_nodelay(true);
                // How a connection ends is between its two ends.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut pod).await;
                return;
            }
            Ok(Err(error)) => debug!(%address, %error, "an endpoint does not take the connection"),
            Err(_) => debug!(%address, "an endpoint does not answer"),
        }
    }
    // Nobody is ready: refused, as far as that can be done once the connection is there.
    let _ = client.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::network::dialer::Loopback;

    fn planned(service: &Value, slices: &[Value]) -> Vec<(String, Vec<String>)> {
        planned_for(Doors::All, service, slices)
    }

    fn planned_for(doors: Doors, service: &Value, slices: &[Value]) -> Vec<(String, Vec<String>)> {
        let service = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": service});
        let service = Arc::new(serde_json::from_value(service).expect("a service"));
        let slices: Vec<Arc<EndpointSlice>> = slices
            .iter()
            .map(|slice| {
                let mut slice = slice.clone();
                slice["addressType"] = json!("IPv4");
                slice["metadata"] = json!({"namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}});
                Arc::new(serde_json::from_value(slice).expect("a slice"))
            })
            .collect();
        plan(&[service], &slices, doors)
            .into_iter()
            .map(|(address, backends)| (address.to_string(), backends.ready.iter().map(ToString::to_string).collect()))
            .collect()
    }

    #[test]
    fn a_port_leads_to_the_ready_endpoints_of_all_slices() {
        let service = json!({"clusterIP": "127.96.0.5", "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]});
        let slice = json!({
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [
                {"addresses": ["127.100.0.2"], "conditions": {"ready": true}},
                {"addresses": ["127.100.0.3"], "conditions": {"ready": false}},
            ],
        });
        let other = json!({"ports": [{"name": "http", "port": 8081}], "endpoints": [{"addresses": ["127.100.0.4"]}]});
        insta::assert_debug_snapshot!(planned(&service, &[slice, other]), @r#"
        [
            (
                "127.96.0.5:80",
                [
                    "127.100.0.2:8080",
                    "127.100.0.4:8081",
                ],
            ),
        ]
        "#);
    }

    #[test]
    fn a_node_port_is_a_socket_of_the_machine_beside_the_address() {
        let service = json!({"type": "NodePort", "clusterIP": "10.96.0.5", "ports": [{"port": 80, "nodePort": 31000}]});
        let slice = json!({"ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.244.0.2"]}]});
        let endpoint = vec!["10.244.0.2:8080".to_owned()];
        let node = ("127.0.0.1:31000".to_owned(), endpoint.clone());
        assert_eq!(planned_for(Doors::NodePorts, &service, std::slice::from_ref(&slice)), std::slice::from_ref(&node));
        assert_eq!(planned(&service, &[slice]), [("10.96.0.5:80".to_owned(), endpoint), node]);
    }

    #[test]
    fn a_headless_service_has_no_socket() {
        let service = json!({"clusterIP": "None", "ports": [{"port": 80}]});
        assert_eq!(planned(&service, &[]), []);
    }

    #[test]
    fn a_client_stays_with_its_endpoint_while_that_is_ready() {
        let address = |last: u8| SocketAddr::from(([127, 100, 0, last], 80));
        let mut backends = Backends { ready: (2..20).map(address).collect(), affinity: Some(AFFINITY) };
        let remembered = Remembered::default();
        let client = IpAddr::from([127, 0, 0, 1]);
        let first = choose(&backends, client, &remembered)[0];
        for _ in 0..20 {
            assert_eq!(choose(&backends, client, &remembered)[0], first);
        }
        backends.ready.retain(|address| *address != first);
        assert!(!choose(&backends, client, &remembered).contains(&first));
    }

    #[tokio::test]
    async fn a_connection_goes_past_an_endpoint_that_refuses() {
        let pod = TcpListener::bind("127.100.0.9:0").await.expect("a loopback address is free");
        let ready = pod.local_addr().expect("it is bound");
        // Bound and closed again, so that nobody listens there.
        let closed = TcpListener::bind("127.100.0.10:0").await.expect("a loopback address is free");
        let refuses = closed.local_addr().expect("it is bound");
        drop(closed);

        let backends = Backends { ready: vec![refuses, ready], affinity: None };
        let probe = TcpListener::bind("127.96.0.9:0").await.expect("a loopback address is free");
        let service = probe.local_addr().expect("it is bound");
        drop(probe);
        let _port = Port::open(service, backends, Arc::new(Loopback)).await.expect("the address was free a moment ago");

        for _ in 0..8 {
            let mut client = TcpStream::connect(service).await.expect("the service listens");
            client.write_all(b"ping").await.expect("it is connected");
            let (mut served, _) = pod.accept().await.expect("the connection arrives");
            let mut text = [0; 4];
            served.read_exact(&mut text).await.expect("the bytes arrive");
            assert_eq!(&text, b"ping");
        }
    }
}

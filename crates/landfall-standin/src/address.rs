//! Where a pod listens, and how it finds others: the network of a pod is its own or that of the machine.

use std::io;
use std::net::Ipv4Addr;

use tokio::net::TcpStream;

/// By this the engine tells a pod its address where it has no network of its own. Others may set it, too, to the same address.
const VARIABLE: &str = "POD_IP";

/// Up to it ports are those of root (ip(7)).
const LAST_PRIVILEGED: u16 = 1023;

/// How much higher the engine opens a port of a service that it may not open, where services are sockets of its own.
const RAISE: u16 = 20_000;

/// The address of the pod, where it shares the network of the machine: there every port of all other addresses is the one of its
/// neighbours, too.
pub(crate) fn shared() -> Option<Ipv4Addr> {
    shared_in(&std::env::var(VARIABLE).ok()?)
}

fn shared_in(address: &str) -> Option<Ipv4Addr> {
    address.parse().ok().filter(Ipv4Addr::is_loopback)
}

/// Where to listen: everywhere, if there is a network of the pod's own.
pub(crate) fn own() -> Ipv4Addr {
    shared().unwrap_or(Ipv4Addr::UNSPECIFIED)
}

/// A connection to `host:port`.
pub(crate) async fn connect(address: &str) -> io::Result<TcpStream> {
    match (TcpStream::connect(address).await, raised(address).filter(|_| shared().is_some())) {
        (Err(error), Some(raised)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            TcpStream::connect(raised).await
        }
        (connected, _) => connected,
    }
}

/// The other place of a port that an ordinary user may not open.
fn raised(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|port| *port <= LAST_PRIVILEGED)?;
    Some((host, port + RAISE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_loopback_address_is_one_on_the_network_of_the_machine() {
        assert_eq!(shared_in("127.64.0.7"), Some(Ipv4Addr::new(127, 64, 0, 7)));
        assert_eq!(shared_in("10.244.0.7"), None);
        assert_eq!(shared_in(""), None);
    }

    #[test]
    fn only_a_port_of_root_has_another_place() {
        assert_eq!(raised("web.shop.svc:80"), Some(("web.shop.svc", 20080)));
        assert_eq!(raised("web.shop.svc:8080"), None);
        assert_eq!(raised("web.shop.svc"), None);
    }
}

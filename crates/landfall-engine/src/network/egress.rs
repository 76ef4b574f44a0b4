//! The way from pods to addresses outside of the cluster: which of them are open, and who carries the connections there.
//!
//! No packet of a pod leaves the namespaces of the network, as an ordinary user may not lead it out. Everything that is for
//! nobody in the cluster is forwarded to a namespace of its own instead, past the rules of policies, which see the address
//! that the pod asked for. There a rule leads every connection to one socket. It is the engine's, which reads where the
//! connection was to go, opens one of its own from the machine's network, and copies what each side says.
//!
//! What is not open is led to a port where nobody listens, so that whoever tries learns at once that it is closed. Packets
//! that are turned away for want of a route are answered too, but the kernel limits how often it does that.
//!
//! Not handled: UDP, ICMP and IPv6 stay closed. A pod's connection is there before the one from the engine is tried, so a
//! destination that refuses looks like one that ends the connection at once.

use std::fmt::{self, Write as _};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{GATEWAY, ServiceRange};

/// The table that holds everything of ours; the transaction replaces it whole.
const TABLE: &str = "landfall_egress";

/// The outer end of the link to the namespace where connections to the outside arrive.
pub(super) const INTERFACE: &str = "egress";

/// The socket on which they arrive. Its address is one of the link, as [`GATEWAY`] is, and nobody else is in that namespace.
pub(super) const ARRIVALS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 1, 3), 15001);

/// A port of [`GATEWAY`] on which nobody listens: `discard` (RFC 863).
const NOBODY: u16 = 9;

/// How long to wait for a destination: a connection that is there must not hang for minutes without an answer.
const CONNECT: Duration = Duration::from_secs(30);

/// The addresses of pods.
pub(super) const PODS: EgressBlock = block([10, 244, 0, 0], 16);

/// The addresses of services.
const SERVICES: EgressBlock =
    EgressBlock { network: ServiceRange::NAMESPACE.network, prefix: ServiceRange::NAMESPACE.prefix };

/// The cluster's own addresses, which do not lead out of it.
const CLUSTER: [(EgressBlock, &str); 3] = [
    (SERVICES, "the services of the cluster"),
    (PODS, "the pods of the cluster"),
    (block([169, 254, 1, 0], 30), "the links between pods and the engine"),
];

/// Addresses that lead to this machine itself whoever asks, or to no machine.
const NOWHERE: [(EgressBlock, &str); 3] = [
    (block([0, 0, 0, 0], 8), "this machine itself"),
    (block([127, 0, 0, 0], 8), "this machine's own loopback"),
    (block([224, 0, 0, 0], 3), "groups of machines, or nobody"),
];

/// Addresses of the link that a machine is on. There are services that trust whoever reaches them, such as the metadata of a
/// cloud at 169.254.169.254, so a block that happens to contain them does not open them.
const LINK_LOCAL: EgressBlock = block([169, 254, 0, 0], 16);

/// A block of IPv4 addresses that pods may reach outside of the cluster, such as `10.20.0.0/16`.
///
/// Link-local addresses (169.254.0.0/16) are open only by a block that lies within them. Loopback addresses, and those of the
/// cluster, are open by none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EgressBlock {
    network: Ipv4Addr,
    prefix: u8,
}

/// Why a text is no block of addresses that pods may reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressBlockError {
    /// It is written in another way.
    #[error("it is not a block of IPv4 addresses, such as `10.20.0.0/16`")]
    NotABlock,
    /// The address is not the first of its block.
    #[error("it does not begin where a block of that size does; `{0}` has the address in it")]
    NotAligned(EgressBlock),
    /// No pod can be led there.
    #[error("these addresses mean {0}, and cannot be opened")]
    Closed(&'static str),
}

const fn block([a, b, c, d]: [u8; 4], prefix: u8) -> EgressBlock {
    EgressBlock { network: Ipv4Addr::new(a, b, c, d), prefix }
}

impl EgressBlock {
    /// The first address, and how many bits the addresses share.
    pub(super) fn parts(self) -> (Ipv4Addr, u8) {
        (self.network, self.prefix)
    }

    /// The first and the last address that a machine may have in a network of this size.
    pub(super) fn hosts(self) -> (Ipv4Addr, Ipv4Addr) {
        let first = u32::from(self.network);
        (Ipv4Addr::from(first + 1), Ipv4Addr::from((first | !self.mask()) - 1))
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == u32::from(self.network)
    }

    fn lies_in(self, other: Self) -> bool {
        self.prefix >= other.prefix && other.contains(self.network)
    }
}

impl fmt::Display for EgressBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for EgressBlock {
    type Err = EgressBlockError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (address, prefix) = text.split_once('/')?;
            let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
            Some((address.parse::<Ipv4Addr>().ok()?, prefix))
        };
        let (address, prefix) = read().ok_or(EgressBlockError::NotABlock)?;
        let unmasked = Self { network: address, prefix };
        let block = Self { network: Ipv4Addr::from(u32::from(address) & unmasked.mask()), prefix };
        if block != unmasked {
            return Err(EgressBlockError::NotAligned(block));
        }
        match CLUSTER.iter().chain(&NOWHERE).find(|(closed, _)| block.lies_in(*closed)) {
            Some(&(_, meaning)) => Err(EgressBlockError::Closed(meaning)),
            None => Ok(block),
        }
    }
}

/// Whether these blocks open an address.
fn is_open(open: &[EgressBlock], address: Ipv4Addr) -> bool {
    let closed = CLUSTER.iter().chain(&NOWHERE).any(|(closed, _)| closed.contains(address));
    let opens =
        |block: &EgressBlock| block.contains(address) && (!LINK_LOCAL.contains(address) || block.lies_in(LINK_LOCAL));
    !closed && open.iter().any(opens)
}

/// Rules for the namespace that pods are linked to: what is not open is refused. The text is for `nft -f -`.
///
/// They come after those of services, where addresses of services have become those of their endpoints.
pub(super) fn ruleset(open: &[EgressBlock]) -> String {
    let passes = |block: &EgressBlock| format!("ip daddr {block} return");
    let (link_local, other): (Vec<_>, Vec<_>) = open.iter().partition(|block| block.lies_in(LINK_LOCAL));
    let mut rules: Vec<String> = CLUSTER.iter().map(|(block, _)| passes(block)).collect();
    rules.push("meta l4proto udp jump refuse".to_owned());
    rules.extend(link_local.into_iter().map(passes));
    let closed = NOWHERE.iter().map(|(block, _)| block).chain([&LINK_LOCAL]);
    rules.extend(closed.map(|block| format!("ip daddr {block} jump refuse")));
    rules.extend(other.into_iter().map(passes));
    rules.push("jump refuse".to_owned());

    // Added first, so that deleting it cannot fail; the transaction as a whole replaces it.
    let mut text = format!("table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n  chain refuse {{\n");
    for protocol in ["tcp", "udp"] {
        let _ = writeln!(text, "    meta l4proto {protocol} dnat to {GATEWAY}:{NOBODY}");
    }
    text += "  }\n  chain from_pods {\n    type nat hook prerouting priority dstnat + 10; policy accept;\n";
    for rule in rules {
        let _ = writeln!(text, "    {rule}");
    }
    text += "  }\n  chain forward {\n    type filter hook forward priority filter + 10; policy accept;\n";
    let _ = writeln!(text, "    oifname \"{INTERFACE}\" meta l4proto != tcp reject");
    text + "  }\n}\n"
}

/// Rules for the namespace where connections to the outside arrive.
pub(super) fn arrivals() -> String {
    let mut text = format!("table ip {TABLE} {{\n  chain arriving {{\n");
    text += "    type nat hook prerouting priority dstnat; policy accept;\n";
    let _ = writeln!(text, "    meta l4proto tcp dnat to {ARRIVALS}");
    text + "  }\n}\n"
}

/// The way out, for who carries the connections.
pub(crate) struct Exit {
    arrivals: TcpListener,
    open: Arc<[EgressBlock]>,
}

impl Exit {
    pub(super) fn new(arrivals: TcpListener, open: Vec<EgressBlock>) -> Self {
        Self { arrivals, open: open.into() }
    }

    /// What it leads to.
    pub(crate) fn open(&self) -> &[EgressBlock] {
        &self.open
    }

    /// Carries connections until cancelled.
    pub(super) async fn run(self, cancel: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            // Both arms may be dropped half-way: a connection that is not accepted stays in the queue of the system.
            let accepted = tokio::select! {
                () = cancel.cancelled() => break,
                accepted = self.arrivals.accept() => accepted,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((pod, peer)) => drop(connections.spawn(carry(pod, peer, Arc::clone(&self.open)))),
                Err(error) => {
                    // Most often too many open files: others must end before there is room.
                    warn!(%error, "failed to accept a connection to the outside");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        connections.shutdown().await;
    }
}

async fn carry(mut pod: TcpStream, peer: SocketAddr, open: Arc<[EgressBlock]>) {
    match reach(&pod, &open).await {
        Ok(mut outside) => {
            if tokio::io::copy_bidirectional(&mut pod, &mut outside).await.is_err() {
                // What was cut off is not to look like an end.
                let _ = pod.set_zero_linger();
                let _ = outside.set_zero_linger();
            }
        }
        Err(error) => {
            debug!(%peer, %error, "a connection does not get out");
            // Refused, as far as that can be done once the connection is there.
            let _ = pod.set_zero_linger();
        }
    }
}

/// A connection from the machine to where the pod's was to go.
async fn reach(pod: &TcpStream, open: &[EgressBlock]) -> io::Result<TcpStream> {
    let destination = destination(pod)?;
    // The rules have refused it already, unless the address of a service led there, or a part of the engine asked.
    if !is_open(open, *destination.ip()) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{destination} is not open")));
    }
    let outside = tokio::time::timeout(CONNECT, TcpStream::connect(destination)).await??;
    outside.set_nodelay(true)?;
    pod.set_nodelay(true)?;
    Ok(outside)
}

/// Where a connection was to go before the rules led it here.
fn destination(pod: &TcpStream) -> io::Result<SocketAddrV4> {
    let original = getsockopt(pod, sockopt::OriginalDst)?;
    let address = Ipv4Addr::from(u32::from_be(original.sin_addr.s_addr));
    Ok(SocketAddrV4::new(address, u16::from_be(original.sin_port)))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::network::reader::accepted_by_nft;

    fn blocks(texts: &[&str]) -> Vec<EgressBlock> {
        texts.iter().map(|text| text.parse().expect("it is a block")).collect()
    }

    fn compile(texts: &[&str]) -> String {
        let rules = ruleset(&blocks(texts));
        accepted_by_nft(&rules);
        rules
    }

    #[test]
    fn without_blocks_everything_outside_is_refused() {
        assert_snapshot!(compile(&[]), @r#"
        table ip landfall_egress
        delete table ip landfall_egress
        table ip landfall_egress {
          chain refuse {
            meta l4proto tcp dnat to 169.254.1.1:9
            meta l4proto udp dnat to 169.254.1.1:9
          }
          chain from_pods {
            type nat hook prerouting priority dstnat + 10; policy accept;
            ip daddr 10.96.0.0/16 return
            ip daddr 10.244.0.0/16 return
            ip daddr 169.254.1.0/30 return
            meta l4proto udp jump refuse
            ip daddr 0.0.0.0/8 jump refuse
            ip daddr 127.0.0.0/8 jump refuse
            ip daddr 224.0.0.0/3 jump refuse
            ip daddr 169.254.0.0/16 jump refuse
            jump refuse
          }
          chain forward {
            type filter hook forward priority filter + 10; policy accept;
            oifname "egress" meta l4proto != tcp reject
          }
        }
        "#);
    }

    #[test]
    fn a_block_passes_behind_what_is_always_closed_and_a_link_local_one_before() {
        let rules = compile(&["0.0.0.0/0", "169.254.169.254/32"]);
        let rules = rules.lines().map(str::trim).skip_while(|rule| *rule != "meta l4proto udp jump refuse");
        let expected = [
            "ip daddr 169.254.169.254/32 return",
            "ip daddr 0.0.0.0/8 jump refuse",
            "ip daddr 127.0.0.0/8 jump refuse",
            "ip daddr 224.0.0.0/3 jump refuse",
            "ip daddr 169.254.0.0/16 jump refuse",
            "ip daddr 0.0.0.0/0 return",
            "jump refuse",
        ];
        assert_eq!(rules.skip(1).take(expected.len()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_arrives_is_led_to_the_engine() {
        accepted_by_nft(&arrivals());
        assert_snapshot!(arrivals(), @"
        table ip landfall_egress {
          chain arriving {
            type nat hook prerouting priority dstnat; policy accept;
            meta l4proto tcp dnat to 169.254.1.3:15001
          }
        }
        ");
    }

    #[test]
    fn a_block_opens_its_addresses_and_nothing_that_is_always_closed() {
        let check = |open: &[&str], address: &str, expected: bool| {
            let address: Ipv4Addr = address.parse().expect("it is an address");
            assert_eq!(is_open(&blocks(open), address), expected, "{address} by {open:?}");
        };
        check(&[], "192.0.2.1", false);
        check(&["192.0.2.0/24"], "192.0.2.255", true);
        check(&["192.0.2.0/24"], "192.0.3.0", false);
        check(&["192.0.2.7/32", "10.0.0.0/8"], "10.1.2.3", true);
        check(&["10.0.0.0/8"], "10.244.0.1", false);
        check(&["10.0.0.0/8"], "10.96.0.10", false);
        for never in ["0.0.0.0", "127.0.0.1", "127.0.0.53", "169.254.169.254", "224.0.0.1", "255.255.255.255"] {
            check(&["0.0.0.0/0", "128.0.0.0/1"], never, false);
        }
        check(&["0.0.0.0/0"], "192.0.2.1", true);
        check(&["169.254.169.254/32"], "169.254.169.254", true);
        check(&["169.254.0.0/16"], "169.254.169.254", true);
        check(&["169.254.0.0/16"], "169.254.1.3", false);
    }

    #[test]
    fn pods_have_the_addresses_between_the_first_and_the_last_of_their_block() {
        assert_eq!(PODS.hosts(), (Ipv4Addr::new(10, 244, 0, 1), Ipv4Addr::new(10, 244, 255, 254)));
    }

    #[test]
    fn a_block_is_read_as_it_is_written() {
        for text in ["0.0.0.0/0", "10.20.0.0/16", "169.254.0.0/16", "192.0.2.1/32", "128.0.0.0/1"] {
            let block: EgressBlock = text.parse().expect("it is a block");
            assert_eq!(block.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_block_or_can_never_be_open_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<EgressBlock>().expect_err("it is refused").to_string();
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "fd00::/8", "example.com/24"] {
            assert_eq!(refused(text), "it is not a block of IPv4 addresses, such as `10.20.0.0/16`", "{text}");
        }
        assert_snapshot!(refused("10.20.0.1/16"), @"it does not begin where a block of that size does; `10.20.0.0/16` has the address in it");
        assert_snapshot!(refused("127.0.0.0/8"), @"these addresses mean this machine's own loopback, and cannot be opened");
        assert_snapshot!(refused("127.0.0.1/32"), @"these addresses mean this machine's own loopback, and cannot be opened");
        assert_snapshot!(refused("10.244.7.0/24"), @"these addresses mean the pods of the cluster, and cannot be opened");
    }
}

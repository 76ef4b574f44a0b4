//! The way from pods to a server outside of the cluster: a process of the machine, at an address of the machine on a network.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, ToSocketAddrs as _};
use std::time::Instant;

use insta::assert_snapshot;
use landfall_testing::require_or_skip;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::{CATALOGUE, Cluster, FRIENDS_STAY, PATIENCE};
use crate::run_in;
use crate::running_engine::{POLL, RunningEngine};

/// How much a client sends, more than what any buffer on the way holds.
const SENT: usize = 8 << 20;

/// What a client hears from the server.
const HEARD: &str = "8388608 bytes";

/// What a client hears where the way is closed.
const CLOSED: &str = "ConnectionRefusedError";

/// Addresses for documentation (RFC 5737), which no machine has.
const NOBODY: &str = "198.51.100.0/24";

/// An address of this machine that is neither loopback nor link-local; without one it is reported as skipped.
fn own_address() -> Option<Ipv4Addr> {
    let mut addresses = getifaddrs().expect("the system lists its interfaces").filter_map(|interface| {
        let up = interface.flags.contains(InterfaceFlags::IFF_UP);
        interface.address?.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::ip).filter(|_| up)
    });
    let of_the_cluster = |address: &Ipv4Addr| matches!(address.octets(), [10, 96 | 244, ..]);
    let found =
        addresses.find(|address| !address.is_loopback() && !address.is_link_local() && !of_the_cluster(address));
    require_or_skip("an address of this machine on a network", found.ok_or("there are only loopback addresses"))
}

/// A server that reads until its client has said everything, and answers how much that was. It ends with the test.
fn serve(address: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind((address, 0)).expect("a port of the machine is free");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection is accepted");
            std::thread::spawn(move || {
                let mut said = Vec::new();
                // Whoever goes away meanwhile hears nothing.
                let _ = stream.read_to_end(&mut said).and_then(|count| write!(stream, "{count} bytes"));
            });
        }
    });
    port
}

impl Cluster {
    /// What a pod hears from the server, or the name of the error.
    fn hear(&self, pod: &str, address: &str, port: u16) -> String {
        let script = format!(
            "import socket
try:
    with socket.create_connection(('{address}', {port}), timeout=20) as stream:
        stream.sendall(bytes({SENT}))
        stream.shutdown(socket.SHUT_WR)
        # To the end: an answer comes in as many parts as the network makes of it.
        print(stream.makefile().read())
except OSError as error:
    print(type(error).__name__)"
        );
        let output = self.kubectl(&["exec", pod, "--", "python3", "-c", &script]);
        let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        format!("{said}{error}").trim().to_owned()
    }

    fn eventually_hears(&self, pod: &str, address: &str, port: u16, expected: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let heard = self.hear(pod, address, port);
            if heard == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{pod} hears `{heard}` from {address}, and not `{expected}`");
            std::thread::sleep(POLL);
        }
    }

    /// Refused, and at once each time: the kernel answers packets without a route only now and then, and a client that is not
    /// answered waits.
    #[track_caller]
    fn is_closed(&self, pod: &str, address: &str, port: u16) {
        for _ in 0..3 {
            assert_eq!(self.hear(pod, address, port), CLOSED, "{pod} to {address}");
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("engine.log")).expect("the engine has a log")
    }

    /// The engine is killed, and another one finds its pods.
    fn restarted(self, options: &[&str]) -> Self {
        let Self { engine, kubectl, folder } = self;
        engine.kill();
        let engine = RunningEngine::start(folder.path(), CATALOGUE, options);
        Self { engine, kubectl, folder }
    }

    /// The uid of a pod, and how often its container was started again.
    fn identity(&self, pod: &str) -> String {
        let what = "jsonpath={.metadata.uid} {.status.containerStatuses[0].restartCount}";
        let told = self.kubectl(&["get", "pod", pod, "-o", what]);
        String::from_utf8(told.stdout).expect("both are ASCII")
    }
}

/// A name of this machine, and the addresses that it has for the machine's own programs.
fn own_name() -> Option<(String, Vec<String>)> {
    let name = nix::unistd::gethostname().expect("a machine has a name").into_string().expect("it is ASCII");
    let found = (name.as_str(), 0).to_socket_addrs().map(|found| {
        let mut found: Vec<String> =
            found.filter(std::net::SocketAddr::is_ipv4).map(|address| address.ip().to_string()).collect();
        found.sort_unstable();
        found.dedup();
        found
    });
    let found = found.map_err(|error| error.to_string()).and_then(|found| {
        if found.is_empty() { Err(format!("`{name}` has no IPv4 address")) } else { Ok((name, found)) }
    });
    require_or_skip("an address for the name of this machine", found)
}

#[test]
fn loopback_cannot_be_opened() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    assert_snapshot!(run_in(folder.path(), &["engine", "--egress", "127.0.0.0/8"]), @"
    exit: 2
    --- stderr
    error: invalid value '127.0.0.0/8' for '--egress <CIDR>': these addresses mean this machine's own loopback, and cannot be opened

    For more information, try '--help'.
    ");
}

#[test]
fn without_an_option_nothing_outside_of_the_cluster_is_reached_or_has_a_name() {
    let Some(address) = own_address() else { return };
    let Some(cluster) = Cluster::start("auto") else { return };
    if !cluster.has_networks() {
        return;
    }
    let port = serve(address);
    cluster.eventually("stranger", "http://server", "200");
    cluster.is_closed("stranger", &address.to_string(), port);
    assert!(cluster.log().contains("egress: closed"), "{}", cluster.log());
    if let Some((name, _)) = own_name() {
        assert_eq!(cluster.addresses("stranger", &name), Vec::<String>::new());
    }
}

#[test]
fn a_block_opens_its_addresses_and_no_others_and_policies_close_them_again() {
    let Some(address) = own_address() else { return };
    let block = format!("{address}/32");
    let Some(cluster) = Cluster::start_with(&["--egress", &block]) else { return };
    if !cluster.has_networks() {
        return;
    }
    let (address, port) = (address.to_string(), serve(address));
    cluster.eventually_hears("stranger", &address, port, HEARD);
    assert!(cluster.log().contains(&format!("egress: TCP to {block} is open")), "{}", cluster.log());
    for closed in ["198.51.100.1", "169.254.169.254"] {
        cluster.is_closed("stranger", closed, port);
    }
    cluster.eventually("stranger", "http://server", "200");
    if let Some((name, addresses)) = own_name() {
        assert_eq!(cluster.addresses("stranger", &name), addresses);
    }

    cluster.eventually_hears("friend", &address, port, HEARD);
    cluster.apply(&FRIENDS_STAY.replace("RULES", ""));
    cluster.eventually_hears("friend", &address, port, CLOSED);
    cluster.is_closed("friend", &address, port);
    assert_eq!(cluster.hear("stranger", &address, port), HEARD);
    let to = |block: &str| FRIENDS_STAY.replace("RULES", &format!("{{ to: [{{ ipBlock: {{ cidr: {block} }} }}] }}"));
    cluster.apply(&to(&block));
    cluster.eventually_hears("friend", &address, port, HEARD);
    cluster.apply(&to(NOBODY));
    cluster.eventually_hears("friend", &address, port, CLOSED);
    // What a policy allows is not open for that.
    cluster.is_closed("friend", "198.51.100.1", port);
}

#[test]
fn pods_that_are_found_again_have_their_way_out_again_and_lose_it_with_the_option() {
    let Some(address) = own_address() else { return };
    let everything = ["--egress", "0.0.0.0/0"];
    let Some(cluster) = Cluster::start_with(&everything) else { return };
    if !cluster.has_networks() {
        return;
    }
    let (address, port) = (address.to_string(), serve(address));
    cluster.eventually_hears("stranger", &address, port, HEARD);
    let identity = cluster.identity("stranger");

    let cluster = cluster.restarted(&everything);
    cluster.eventually_hears("stranger", &address, port, HEARD);
    // Neither is opened by a block that happens to contain it.
    for closed in ["169.254.169.254", "169.254.1.3"] {
        assert_ne!(cluster.hear("stranger", closed, port), HEARD);
    }
    cluster.is_closed("stranger", "169.254.169.254", port);

    let cluster = cluster.restarted(&[]);
    cluster.eventually_hears("stranger", &address, port, CLOSED);
    cluster.is_closed("stranger", &address, port);
    assert_eq!(cluster.identity("stranger"), identity, "the pod is the same one");
}

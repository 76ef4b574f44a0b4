//! The process that owns the network of an engine: the namespaces, the links between them, the packet filter.
//!
//! It is the engine's own binary once more, because only a process with one thread can enter namespaces, and because the
//! network must outlive the engine, as the pods in it do. It lives in a network namespace of its own, the *outer* one, in
//! which nothing of the machine is; as an ordinary user, in a user namespace of its own as well (`user_namespaces(7)`). Each
//! pod gets a namespace, a pair of virtual interfaces and a route: no bridge, so that everything between two pods passes
//! the forward hook, where policies are.
//!
//! The engine stays in the network of the machine. It asks over a socket, one request at a time; what it needs to reach the
//! pods are sockets that were made here, which it is handed (unix(7), `SCM_RIGHTS`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid};
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::{GATEWAY, NODE};
use crate::runtime::child;

/// The socket in the holder's folder.
const SOCKET: &str = "network.sock";

/// The name of a pod's interface inside the pod.
const INTERFACE: &str = "eth0";

/// The kernel's table of its own addresses: `RT_TABLE_LOCAL` (rtnetlink(7)).
const LOCAL_TABLE: u32 = 255;

/// The longest message. Rules of the packet filter come as files.
const MESSAGE: usize = 64 * 1024;

/// How many sockets are handed over at a time; the kernel takes up to 253 (`SCM_MAX_FD`).
const SOCKETS: usize = 64;

/// What the engine asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// A network namespace with this address; the one of an earlier request with the same name if there is one.
    Attach { name: String, address: Ipv4Addr },
    /// Forgets a namespace; it ends with the last process in it.
    Detach { name: String },
    /// What is attached.
    List,
    /// Addresses that the outer namespace takes for its own, by network and length of the prefix: those of services.
    /// What no rule of the packet filter leads on then ends here, where only the DNS server listens.
    Own(Ipv4Addr, u8),
    /// Applies the rules in a file, all or nothing, by `nft -f`.
    Filter(PathBuf),
    /// TCP sockets in the outer namespace, not yet connected.
    Connectors(usize),
    /// A UDP socket and a listening TCP socket on one address of the outer namespace.
    Listeners(SocketAddr),
    /// Ends the holder.
    Close,
}

/// What the holder answers; sockets come with it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Done,
    Attached(Attachment),
    All(BTreeMap<String, Attachment>),
    /// In words for people.
    Failed(String),
}

/// The network namespace of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attachment {
    pub(crate) address: Ipv4Addr,
    /// A file that stands for the namespace, for as long as the holder lives.
    pub(crate) namespace: PathBuf,
    /// The user namespace that owns it, which an ordinary user enters first.
    pub(crate) owner: Option<PathBuf>,
}

/// What the binary does when it is called with the hidden arguments of a holder. To be called before anything else, while
/// the process has one thread. `arguments` is the folder of the network; `nft` begins a command that runs `nft`.
pub fn network_main(arguments: &[OsString], nft: fn() -> Command) -> ExitCode {
    let [folder] = arguments else { return ExitCode::from(2) };
    match hold(Path::new(folder), nft) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The standard error of the holder is a file in its folder.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn hold(folder: &Path, nft: fn() -> Command) -> io::Result<()> {
    let owner = enter()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut holder = runtime.block_on(Holder::start(owner, nft))?;
    let listener = listen(folder)?;
    child::ready()?;
    // One engine at a time; when it has gone, the next may come.
    loop {
        let engine = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC)?;
        // With one that is not understood, such as another version, it is not spoken; the network stays.
        while let Ok(Some((request, _))) = receive::<Request>(engine.as_fd()) {
            let last = matches!(request, Request::Close);
            let (answer, sockets) = match runtime.block_on(holder.answer(request)) {
                Ok(answer) => answer,
                Err(error) => (Answer::Failed(error.to_string()), Vec::new()),
            };
            if last {
                let _ = fs::remove_file(folder.join(SOCKET));
            }
            let borrowed: Vec<BorrowedFd<'_>> = sockets.iter().map(OwnedFd::as_fd).collect();
            if send(engine.as_fd(), &answer, &borrowed).is_err() {
                break;
            }
            if last {
                return Ok(());
            }
        }
    }
}

/// Enters the outer namespace. The path of the user namespace, if one was needed.
fn enter() -> io::Result<Option<PathBuf>> {
    if geteuid().is_root() && unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        return Ok(None);
    }
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
    Ok(Some(PathBuf::from(format!("/proc/{}/ns/user", std::process::id()))))
}

struct Holder {
    outer: File,
    links: Handle,
    owner: Option<PathBuf>,
    nft: fn() -> Command,
    pods: BTreeMap<String, Pod>,
    /// Names of interfaces have 15 characters, so they are numbered.
    next: u32,
    /// Reads what the kernel answers.
    _tasks: JoinSet<()>,
}

struct Pod {
    namespace: File,
    address: Ipv4Addr,
    interface: String,
}

impl Holder {
    async fn start(owner: Option<PathBuf>, nft: fn() -> Command) -> io::Result<Self> {
        let (connection, links, _) = rtnetlink::new_connection()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        let holder = Self {
            outer: File::open("/proc/self/ns/net")?,
            links,
            owner,
            nft,
            pods: BTreeMap::new(),
            next: 0,
            _tasks: tasks,
        };
        let loopback = index(&holder.links, "lo").await?;
        holder.links.link().set(LinkUnspec::new_with_index(loopback).up().build()).execute().await.map_err(told)?;
        // Addresses and not only routes, so that the engine's own connections have a source.
        for address in [GATEWAY, NODE] {
            holder.links.address().add(loopback, address.into(), 32).execute().await.map_err(told)?;
        }
        Ok(holder)
    }

    async fn answer(&mut self, request: Request) -> io::Result<(Answer, Vec<OwnedFd>)> {
        let answer = match request {
            Request::Attach { name, address } => {
                if self.pods.get(&name).is_none_or(|pod| pod.address != address) {
                    self.detach(&name).await;
                    let pod = self.attach(address).await?;
                    self.pods.insert(name.clone(), pod);
                }
                Answer::Attached(self.attachment(&self.pods[&name]))
            }
            Request::Detach { name } => {
                self.detach(&name).await;
                Answer::Done
            }
            Request::List => {
                Answer::All(self.pods.iter().map(|(name, pod)| (name.clone(), self.attachment(pod))).collect())
            }
            Request::Own(network, prefix) => {
                self.own(network, prefix).await?;
                Answer::Done
            }
            Request::Filter(rules) => {
                filter((self.nft)(), &rules)?;
                Answer::Done
            }
            Request::Connectors(count) => {
                let sockets = (0..count.min(SOCKETS)).map(|_| {
                    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                    rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
                });
                return Ok((Answer::Done, sockets.collect::<Result<_, _>>()?));
            }
            Request::Listeners(address) => {
                let udp = std::net::UdpSocket::bind(address)?;
                let tcp = std::net::TcpListener::bind(udp.local_addr()?)?;
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
                return Ok((Answer::Done, vec![udp.into(), tcp.into()]));
            }
            Request::Close => Answer::Done,
        };
        Ok((answer, Vec::new()))
    }

    fn attachment(&self, pod: &Pod) -> Attachment {
        let namespace = format!("/proc/{}/fd/{}", std::process::id(), pod.namespace.as_raw_fd());
        Attachment { address: pod.address, namespace: namespace.into(), owner: self.owner.clone() }
    }

    /// Makes a namespace and its link. The pod's end is created inside the namespace at once: to move it there later
    /// takes the kernel some 20 ms.
    async fn attach(&mut self, address: Ipv4Addr) -> io::Result<Pod> {
        let namespace = self.new_namespace()?;
        let interface = format!("pod{}", self.next);
        self.next += 1;
        let pair = LinkVeth::new(INTERFACE, &interface).setns_by_fd(namespace.as_raw_fd()).build();
        self.links.link().add(pair).execute().await.map_err(told)?;
        let outside = index(&self.links, &interface).await?;
        self.links.link().set(LinkUnspec::new_with_index(outside).up().build()).execute().await.map_err(told)?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(outside)
            .scope(RouteScope::Link);
        self.links.route().add(route.build()).execute().await.map_err(told)?;
        self.inside(&namespace, address).await?;
        Ok(Pod { namespace, address, interface })
    }

    /// A socket belongs to the namespace in which it was made, wherever its owner goes afterwards.
    fn within<T>(&self, namespace: &File, create: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let made = create();
        setns(&self.outer, CloneFlags::CLONE_NEWNET)?;
        made
    }

    fn new_namespace(&self) -> io::Result<File> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let namespace = File::open("/proc/self/ns/net");
        setns(&self.outer, CloneFlags::CLONE_NEWNET)?;
        namespace
    }

    /// Sets up the pod's own side: loopback, address, and the way to everywhere else.
    async fn inside(&self, namespace: &File, address: Ipv4Addr) -> io::Result<()> {
        let (connection, links, _) = self.within(namespace, rtnetlink::new_connection)?;
        let work = async {
            for name in ["lo", INTERFACE] {
                let link = index(&links, name).await?;
                links.link().set(LinkUnspec::new_with_index(link).up().build()).execute().await.map_err(told)?;
            }
            let link = index(&links, INTERFACE).await?;
            links.address().add(link, address.into(), 32).execute().await.map_err(told)?;
            let gateway = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(GATEWAY, 32)
                .output_interface(link)
                .scope(RouteScope::Link);
            links.route().add(gateway.build()).execute().await.map_err(told)?;
            let everywhere = RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY).output_interface(link);
            links.route().add(everywhere.build()).execute().await.map_err(told)
        };
        // The connection is at work only as long as somebody waits for it.
        tokio::select! {
            () = connection => Err(io::Error::other("the kernel closed the connection")),
            done = work => done,
        }
    }

    async fn detach(&mut self, name: &str) {
        let Some(pod) = self.pods.remove(name) else { return };
        // Gone already when the last process of the pod has ended and nobody else held the namespace.
        if let Ok(link) = index(&self.links, &pod.interface).await {
            let _ = self.links.link().del(link).execute().await;
        }
    }

    async fn own(&self, network: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let loopback = index(&self.links, "lo").await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(network, prefix)
            .output_interface(loopback)
            .table_id(LOCAL_TABLE)
            .kind(RouteType::Local)
            .scope(RouteScope::Host);
        self.links.route().add(route.build()).replace().execute().await.map_err(told)
    }
}

async fn index(links: &Handle, name: &str) -> io::Result<u32> {
    use futures::TryStreamExt as _;
    let mut found = links.link().get().match_name(name.to_owned()).execute();
    let link = found.try_next().await.map_err(told)?;
    link.map(|link| link.header.index).ok_or_else(|| io::Error::other(format!("there is no interface `{name}`")))
}

fn filter(mut nft: Command, rules: &Path) -> io::Result<()> {
    let output = nft.arg("-f").arg(rules).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

fn told(error: rtnetlink::Error) -> io::Error {
    io::Error::other(error)
}

fn listen(folder: &Path) -> io::Result<OwnedFd> {
    let path = folder.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Messages keep their ends, and the sockets that come with them.
    let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let opened = File::open(folder)?;
    rustix::net::bind(&listener, &SocketAddrUnix::new(short_path(&opened))?)?;
    rustix::net::listen(&listener, 1)?;
    Ok(listener)
}

/// The socket in an open folder, whose own path may be longer than an address of a socket (108 bytes, unix(7)).
fn short_path(folder: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))
}

/// The engine's side of the socket.
pub(super) fn connect(folder: &Path) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let opened = File::open(folder)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(short_path(&opened))?)?;
    Ok(socket)
}

pub(super) fn send<T: Serialize>(socket: BorrowedFd<'_>, message: &T, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(message).expect("messages are JSON");
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::Error::other("too many sockets for one message"));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next message and its sockets; `None` when the other side has gone.
pub(super) fn receive<T: for<'de> Deserialize<'de>>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = vec![0; MESSAGE];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let buffers = &mut [IoSliceMut::new(&mut text)];
    let received = match rustix::net::recvmsg(socket, buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
        // It was killed before it had read what it was sent last.
        Err(Errno::CONNRESET) => return Ok(None),
        received => received?,
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let sockets = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let sockets = sockets.flatten().collect();
    let message = serde_json::from_slice(&text[..received.bytes]).map_err(io::Error::other)?;
    Ok(Some((message, sockets)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_is_killed_before_it_has_read_its_answer_has_gone_like_any_other() {
        let (holder, engine) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .expect("sockets can be made");
        send(holder.as_fd(), &Answer::Done, &[]).expect("the engine is there");
        drop(engine);
        let received = receive::<Request>(holder.as_fd()).expect("that it has gone is no error");
        assert!(received.is_none());
    }
}

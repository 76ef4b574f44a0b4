//! The process that owns the network of an engine: the namespaces, the links between them, the packet filter.
//!
//! It is the engine's own binary once more, because only a process with one thread can enter a user namespace, and because the
//! network must outlive the engine, as the pods in it do. It lives in a network namespace of its own, the *outer* one, in
//! which nothing of the machine is; as an ordinary user, in a user namespace of its own as well (`user_namespaces(7)`). Each
//! pod gets a namespace, a pair of virtual interfaces and a route: no bridge, so that everything between two pods passes
//! the forward hook, where policies are.
//!
//! One thread answers, one request after another; what takes the kernel long and nobody waits for, the removal of links, has a
//! thread of its own ([`Removal`]).
//!
//! The engine stays in the network of the machine. It asks over a socket, one request at a time; what it needs to reach the
//! pods are sockets that were made here, which it is handed (unix(7), `SCM_RIGHTS`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::iter;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::{Handle, LinkDelRequest, LinkUnspec, LinkVeth, RouteMessageBuilder};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::{GATEWAY, NODE, egress};
use crate::runtime::{child, messages};

/// The socket in the holder's folder.
const SOCKET: &str = "network.sock";

/// The name of a pod's interface inside the pod.
const INTERFACE: &str = "eth0";

/// The group of the links that are to be removed; others are in none (0).
const REMOVED: u32 = 1;

/// The kernel's table of its own addresses: `RT_TABLE_LOCAL` (rtnetlink(7)).
const LOCAL_TABLE: u32 = 255;

/// What the engine asks for. Rules of the packet filter come as files, as they may be longer than a message.
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
    /// Makes a way out, in place of an earlier one: another namespace, to which everything goes that has no other route. There
    /// the rules in a file lead connections to this address. The socket that listens on it is the answer. Addresses that pods
    /// may have, by network and length of the prefix, do not lead out when no pod has them.
    OpenEgress { pods: (Ipv4Addr, u8), listen: SocketAddrV4, rules: PathBuf },
    /// Removes the way out, if there is one.
    CloseEgress,
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
        while let Ok(Some((request, _))) = messages::receive::<Request>(engine.as_fd()) {
            let last = matches!(request, Request::Close);
            let (answer, sockets) = match runtime.block_on(holder.answer(request)) {
                Ok(answer) => answer,
                Err(error) => (Answer::Failed(error.to_string()), Vec::new()),
            };
            if last {
                let _ = fs::remove_file(folder.join(SOCKET));
            }
            let borrowed: Vec<BorrowedFd<'_>> = sockets.iter().map(OwnedFd::as_fd).collect();
            if messages::send(engine.as_fd(), &answer, &borrowed).is_err() {
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
    /// Where the way out leads to. The file keeps the namespace while there is no engine, so that it refuses.
    egress: Option<File>,
    /// Names of interfaces have 15 characters, so they are numbered.
    next: u32,
    removal: Removal,
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
            egress: None,
            next: 0,
            removal: Removal::start()?,
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
                    self.detach(&name);
                    let interface = format!("pod{}", self.next);
                    self.next += 1;
                    let pod = self.attach(interface, address).await?;
                    self.pods.insert(name.clone(), pod);
                }
                Answer::Attached(self.attachment(&self.pods[&name]))
            }
            Request::Detach { name } => {
                self.detach(&name);
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
                let sockets = (0..count.min(messages::FILES)).map(|_| {
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
            Request::OpenEgress { pods, listen, rules } => {
                self.close_egress().await;
                let opened = self.open_egress(pods, listen, &rules).await;
                if opened.is_err() {
                    self.close_egress().await;
                }
                return Ok((Answer::Done, vec![opened?]));
            }
            Request::CloseEgress => {
                self.close_egress().await;
                Answer::Done
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
    async fn attach(&self, interface: String, address: Ipv4Addr) -> io::Result<Pod> {
        let namespace = self.new_namespace()?;
        let pair = LinkVeth::new(INTERFACE, &interface).setns_by_fd(namespace.as_raw_fd()).build();
        self.links.link().add(pair).execute().await.map_err(told)?;
        let outside = index(&self.links, &interface).await?;
        self.links.link().set(LinkUnspec::new_with_index(outside).up().build()).execute().await.map_err(told)?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(outside)
            .scope(RouteScope::Link);
        // The link of the pod that had this address before may not be removed yet.
        self.links.route().add(route.build()).replace().execute().await.map_err(told)?;
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

    fn detach(&mut self, name: &str) {
        if let Some(pod) = self.pods.remove(name) {
            self.removal.of(pod.interface);
        }
    }

    /// To everybody else the namespace of the way out looks as that of a pod does.
    async fn open_egress(&mut self, pods: (Ipv4Addr, u8), listen: SocketAddrV4, rules: &Path) -> io::Result<OwnedFd> {
        let link = self.attach(egress::INTERFACE.to_owned(), *listen.ip()).await?;
        let nft = self.nft;
        let listener = self.within(&link.namespace, || {
            // What the rules lead nowhere is not sent back, though the machine may forward.
            fs::write("/proc/sys/net/ipv4/ip_forward", "0")?;
            filter(nft(), rules)?;
            let listener = std::net::TcpListener::bind(listen)?;
            listener.set_nonblocking(true)?;
            Ok(OwnedFd::from(listener))
        })?;
        self.egress = Some(link.namespace);
        let nobody =
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(pods.0, pods.1).kind(RouteType::Unreachable);
        self.links.route().add(nobody.build()).replace().execute().await.map_err(told)?;
        let outside = index(&self.links, egress::INTERFACE).await?;
        let everywhere = RouteMessageBuilder::<Ipv4Addr>::new().gateway(*listen.ip()).output_interface(outside);
        self.links.route().add(everywhere.build()).execute().await.map_err(told)?;
        Ok(listener)
    }

    async fn close_egress(&mut self) {
        // The routes through it go with it.
        if let Ok(link) = index(&self.links, egress::INTERFACE).await {
            let _ = self.links.link().del(link).execute().await;
        }
        self.egress = None;
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

/// Removes links. The kernel lets others work on the network meanwhile, but takes some 20 ms until nobody can be using a link
/// any more, and hardly longer for many at once.
struct Removal {
    interfaces: mpsc::Sender<String>,
}

impl Removal {
    /// The thread is in the namespace of the one that starts it, and ends with the process.
    fn start() -> io::Result<Self> {
        let (interfaces, removed) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let (connection, links, _) = rtnetlink::new_connection()?;
        drop(entered);
        let work = move || {
            let mut tasks = JoinSet::new();
            tasks.spawn_on(connection, runtime.handle());
            while let Ok(first) = removed.recv() {
                runtime.block_on(remove(&links, iter::once(first).chain(removed.try_iter())));
            }
        };
        thread::Builder::new().name("removal".to_owned()).spawn(work)?;
        Ok(Self { interfaces })
    }

    fn of(&self, interface: String) {
        self.interfaces.send(interface).expect("the thread listens as long as there is a sender");
    }
}

async fn remove(links: &Handle, interfaces: impl Iterator<Item = String>) {
    for interface in interfaces {
        // Gone already when the last process of the pod has ended and nobody else held the namespace.
        if let Ok(link) = index(links, &interface).await {
            let link = LinkUnspec::new_with_index(link).link_group(REMOVED).build();
            let _ = links.link().set(link).execute().await;
        }
    }
    let mut all = LinkMessage::default();
    all.attributes.push(LinkAttribute::Group(REMOVED));
    let _ = LinkDelRequest::new_with_message(links.clone(), all).execute().await;
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

//! A gateway without a control plane: the table is handed to it. Servers to be behind it, and clients in front.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::gateway::fault::Faults;
use crate::gateway::proxy::Shared;
use crate::gateway::registry::Registry;
use crate::gateway::table::{RouteTable, World};
use crate::gateway::tls::Certificates;
use crate::gateway::worker::{self, Worker};
use crate::gateway::{Doors, HTTP, HTTPS};
use crate::network::{Dialer, Loopback};

const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(super) struct Rig {
    pub(super) shared: Arc<Shared>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    sockets: BTreeMap<u16, (TcpListener, SocketAddr)>,
    workers: Vec<Worker>,
    cancel: CancellationToken,
}

impl Rig {
    pub(super) fn start(world: &World, threads: usize) -> Self {
        Self::dialling(Arc::new(Loopback), world, threads)
    }

    /// One that gets to endpoints in another way.
    pub(super) fn dialling(dialer: Dialer, world: &World, threads: usize) -> Self {
        let registry = Arc::new(Registry::default());
        let unrouted = registry.series(&"".into(), &"".into());
        let table = ArcSwap::from_pointee(RouteTable::empty());
        let shared = Arc::new(Shared { table, registry, faults: Faults::default(), unrouted });
        let cancel = CancellationToken::new();
        let workers = Worker::start(threads, &shared, &dialer, &cancel).expect("threads");
        let bind = || worker::bind(FREE).expect("a free port");
        let sockets = BTreeMap::from([(HTTP, bind()), (HTTPS, bind())]);
        let certificates = Arc::new(Certificates::new().expect("an authority"));
        let (http, https) = (sockets[&HTTP].1, sockets[&HTTPS].1);
        let rig = Self { shared, certificates, http, https, sockets, workers, cancel };
        rig.show(world);
        let sockets = rig
            .sockets
            .iter()
            .map(|(port, (socket, address))| (*port, (socket.try_clone().expect("a socket"), *address)));
        let mut doors = Doors { sockets: sockets.collect(), workers: &rig.workers, open: BTreeMap::new() };
        doors.open(&rig.shared.table.load(), &rig.certificates);
        rig
    }

    /// From now on, the gateway does what these objects say.
    pub(super) fn show(&self, world: &World) {
        let (table, _) = RouteTable::build(world, &self.shared.registry);
        self.certificates.update(&table, world);
        self.shared.table.store(Arc::new(table));
    }

    /// How many connections each thread serves.
    pub(super) fn connections(&self) -> Vec<usize> {
        self.workers.iter().map(Worker::connections).collect()
    }

    pub(super) async fn stop(self) {
        self.cancel.cancel();
        for worker in self.workers {
            worker.join().await;
        }
    }
}

/// A server that answers with its name and what it was asked, until dropped.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Upstream {
    pub(super) async fn start(name: &'static str) -> Self {
        Self::serving(move |request| async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let mut told =
                format!("{name} {} {}\n", head.method, head.uri.path_and_query().map_or("", |path| path.as_str()));
            let mut headers: Vec<_> = head.headers.iter().collect();
            headers.sort_by_key(|(name, _)| name.as_str().to_owned());
            for (name, value) in headers {
                told += &format!("{name}: {}\n", value.to_str().unwrap_or("?"));
            }
            told += &String::from_utf8_lossy(&body);
            Response::new(Full::new(Bytes::from(told)))
        })
        .await
    }

    /// `answer` says what it answers.
    pub(super) async fn serving<A, F>(answer: A) -> Self
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let listener = tokio::net::TcpListener::bind(FREE).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("a socket");
                let answer = answer.clone();
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                connections.spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    // Clients may go whenever they like.
                    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, _tasks: tasks }
    }
}

/// What a client got.
pub(super) struct Got {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

pub(super) fn get(url: &str) -> Request<Full<Bytes>> {
    Request::get(url).body(Full::default()).expect("a request")
}

/// Sends a request on a connection of its own; its URL names the host, which need not be the address.
pub(super) async fn ask(address: SocketAddr, request: Request<Full<Bytes>>) -> Got {
    let stream = TcpStream::connect(address).await.expect("the gateway listens");
    ask_over(TokioIo::new(stream), request).await
}

pub(super) async fn ask_over<S>(stream: S, mut request: Request<Full<Bytes>>) -> Got
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.expect("HTTP");
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    if let Some(host) = request.uri().authority().map(|authority| authority.as_str().to_owned()) {
        request.headers_mut().entry("host").or_insert(host.parse().expect("a host"));
        let path = request.uri().path_and_query().cloned().expect("a path");
        *request.uri_mut() = path.into();
    }
    let response = sender.send_request(request).await.expect("an answer");
    let (head, body) = response.into_parts();
    let text = body.collect().await.expect("the whole answer").to_bytes();
    Got { status: head.status, headers: head.headers, text: String::from_utf8_lossy(&text).into_owned() }
}

//! The engine as one thing to start and stop: which parts there are, in which order they come up and go down.

mod api_server;
mod authority;
mod front;
mod join;
mod kubeconfig;
mod machine;
mod server;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::api_server::{ApiServer, ApiServerConfig};
pub use self::authority::AuthorityError;
pub use self::join::{JoinConfig, Joined};
pub use self::machine::{Entrances, MachineReport};

use self::front::{Opened, Place, Service};
use self::machine::{Ground, Machine, Plan};
use crate::api::{Ranges, Server, StartError as ApiError};
use crate::clock::Clock;
use crate::context::{Caches, Context};
use crate::controller;
use crate::event::Lost;
use crate::gateway::GatewayConfig;
use crate::images::Catalogue;
use crate::kubelet::NodeSpec;
use crate::network::{EgressBlock, NetworkError};
use crate::runtime::RuntimeError;
use crate::runtime::process::Shim;
use crate::scheme::Scheme;
use crate::store::OpenError;
use crate::{scheduler, tasks};

/// The user of the kubeconfig that the engine writes.
const ADMINISTRATOR: &str = "landfall-admin";

/// The node ports of Kubernetes' default.
const NODE_PORTS: (u16, u16) = (30000, 32767);

/// How long Kubernetes lets a node be silent, since 1.32.
pub const NODE_MONITOR_GRACE_PERIOD: Duration = controller::NodeTiming::DEFAULT.grace;

/// What an engine is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where objects, keys, volumes and logs are kept.
    pub data: PathBuf,
    /// Where to listen; port 0 takes the port of the last time, or a free one.
    pub listen: SocketAddr,
    /// Where the kubeconfig is written; in `data` if nowhere else.
    pub kubeconfig: Option<PathBuf>,
    /// The nodes that this machine plays.
    pub nodes: Vec<NodeSpec>,
    /// Which program an image stands for.
    pub images: Catalogue,
    /// How pods run.
    pub runtime: PodRuntime,
    /// How the binary becomes the holder of the network: it then calls [`crate::network_main`]. `None`: pods stay on
    /// loopback addresses.
    pub network: Option<Shim>,
    /// Which addresses outside of the cluster pods may open TCP connections to, as far as policies let them. It means nothing
    /// where pods have loopback addresses, as nothing is closed to them.
    pub egress: Vec<EgressBlock>,
    /// Where traffic from outside comes in.
    pub gateway: GatewayConfig,
    /// How long a node may be silent before it counts as lost: `--node-monitor-grace-period` of Kubernetes, whose default
    /// is [`NODE_MONITOR_GRACE_PERIOD`].
    pub node_monitor_grace_period: Duration,
}

/// How the pods of an engine run.
#[derive(Debug, Clone)]
pub enum PodRuntime {
    /// As processes. The binary becomes the shim of a pod when it is run so: it then calls [`crate::shim_main`].
    Processes(Shim),
    /// Not at all, but they are said to: for more pods than a machine has room for.
    Mock,
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The keys of the engine.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The objects of the engine.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The objects that every cluster has.
    #[error("failed to start the API server")]
    Api(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The processes of pods.
    #[error("failed to find out how pods can run here")]
    Runtime(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The network of the pods, which was found or made.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The sockets of the gateway.
    #[error("failed to open the gateway")]
    Gateway(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Somebody else has the port, or it is not ours to take.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A file or folder of the engine could not be written.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl From<ApiError> for StartError {
    fn from(error: ApiError) -> Self {
        Self::Api(Box::new(error))
    }
}

impl From<RuntimeError> for StartError {
    fn from(error: RuntimeError) -> Self {
        Self::Runtime(Box::new(error))
    }
}

/// What becomes of the pods when their engine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pods {
    /// Their processes end; their objects stay, and run again at the next start.
    Stop,
    /// Their processes run on, and the next engine on the same data folder finds them.
    Keep,
}

/// Starts engines.
#[derive(Debug)]
pub struct Engine;

impl Engine {
    /// Starts an engine on a data folder, which no other engine may have. It serves when this returns.
    pub async fn start(config: Config) -> Result<Handle, StartError> {
        let begin = Instant::now();
        // What the table of kinds takes to be read is had while processes are started.
        let kinds = tokio::task::spawn_blocking(Scheme::builtin);
        let opened = Opened::open(&config.data)?;
        let ground = Ground::open(opened.data(), config.runtime, config.network.as_ref(), config.egress).await?;
        let services = ground.services();
        let clock = Clock::wall();
        let stop = CancellationToken::new();
        let mut parts = JoinSet::new();
        let place = Place { listen: config.listen, kubeconfig: config.kubeconfig };
        let ranges = Ranges { network: (services.network, services.prefix), node_ports: NODE_PORTS };
        let kinds = kinds.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let service = Service { kinds, ranges, clock: clock.clone() };
        let front = opened.serve(place, service, &stop, &mut parts).await?;
        let server = front.server;
        let serving = begin.elapsed();

        if !config.nodes.is_empty() {
            volumes_by_default(&server.client("system:engine"))
                .await
                .map_err(|error| StartError::Api(Box::new(error)))?;
        }

        let context = Context {
            client: server.client("system:engine"),
            caches: Caches::new(),
            clock,
            lost: Lost::default(),
            authority: front.certificate.into(),
        };
        server.set_lost(context.lost.clone());
        context.caches.fill(&context.client, &stop, &mut parts).await;
        let plan = Plan { nodes: config.nodes, images: config.images, gateway: config.gateway };
        let machine = ground.start(&context, plan, &stop, &mut parts).await?;
        server.set_agent(Arc::new(machine.agent.clone()));
        server.set_metrics(Arc::new(machine.agent.clone()));
        server.set_machine(Arc::new(machine.agent.clone()));
        server.set_dialer(machine.network.dialer());
        server.set_gateway(Arc::clone(&machine.figures));
        let at = match machine.network.listen(SocketAddr::from(front.within)).await {
            Ok(Some(listener)) => {
                parts.spawn(server::serve(listener, front.tls, server.router(), stop.clone()));
                Some(front.within)
            }
            // The proxy leads there from the address of the service.
            Ok(None) => server::nearby(front.address),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "the API server cannot be reached from pods");
                None
            }
        };
        parts.spawn(server.clone().keep_own_service(at, stop.clone()));

        let timing =
            controller::NodeTiming { grace: config.node_monitor_grace_period, ..controller::NodeTiming::DEFAULT };
        parts.spawn(controller::run_all(context.clone(), timing, stop.clone()));
        {
            let (recorder, stop) = (machine.recorder.clone(), stop.clone());
            parts.spawn(async move { scheduler::run(context, &recorder, stop).await });
        }
        let report =
            Report { address: front.address, kubeconfig: front.kubeconfig, serving, machine: machine.report.clone() };
        Ok(Handle { server, machine, stop, parts, report })
    }
}

impl Engine {
    /// Ends the pods that an engine on this data folder has left running because it was killed, and their network. Says
    /// how many pods there were. `pods` and `network` are what that engine was started with.
    pub async fn end_left_running(data: &Path, pods: Shim, network: &Shim) -> Result<usize, StartError> {
        // Nobody else is to start an engine on it meanwhile.
        let opened = Opened::open(data)?;
        machine::end_left_running(opened.data(), pods, network).await
    }
}

/// Claims that name no class get a folder of this machine, as they get a volume of the provider in most clusters. What a
/// user has changed about the class stays.
async fn volumes_by_default(client: &Client) -> Result<(), kube::Error> {
    let class = StorageClass {
        metadata: ObjectMeta {
            name: Some("standard".to_owned()),
            annotations: Some([("storageclass.kubernetes.io/is-default-class".to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        provisioner: "landfall.dev/folder".to_owned(),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        allow_volume_expansion: Some(true),
        ..StorageClass::default()
    };
    match Api::<StorageClass>::all(client.clone()).create(&PostParams::default(), &class).await {
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
        created => created.map(drop),
    }
}

/// What an engine says of itself when it serves.
#[derive(Debug, Clone)]
pub struct Report {
    /// Where it listens.
    pub address: SocketAddr,
    /// The file with which clients find it.
    pub kubeconfig: PathBuf,
    /// From the call to the first request that could be served.
    pub serving: Duration,
    /// Of the machine that runs its pods.
    pub machine: MachineReport,
}

/// A running engine.
pub struct Handle {
    server: Server,
    machine: Machine,
    stop: CancellationToken,
    parts: JoinSet<()>,
    report: Report,
}

impl Handle {
    /// A client straight onto the API server, as an administrator.
    pub fn client(&self) -> Client {
        self.server.client(ADMINISTRATOR)
    }

    /// What the engine says of itself.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Runs until a part of the engine has failed, which is a defect of the engine: its panic goes on here.
    pub async fn failed(&mut self) {
        tasks::supervise(&mut self.parts).await;
    }

    /// Stops the engine: requests that are under way are finished, nothing new is started.
    pub async fn stop(mut self, pods: Pods) {
        self.stop.cancel();
        tasks::supervise(&mut self.parts).await;
        self.server.finished().await;
        self.machine.close(pods).await;
    }
}

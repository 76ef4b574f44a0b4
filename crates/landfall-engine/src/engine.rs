//! The engine as one thing to start and stop: which parts there are, in which order they come up and go down.

mod api_server;
mod authority;
mod front;
mod kubeconfig;
mod server;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use self::api_server::{ApiServer, ApiServerConfig};
pub use self::authority::AuthorityError;

use self::front::{Opened, Place, Service};
use crate::api::{Ranges, Server, StartError as ApiError};
use crate::clock::Clock;
use crate::context::{Caches, Context};
use crate::controller;
use crate::event;
use crate::gateway::{Gateway, GatewayConfig};
use crate::images::Catalogue;
use crate::kubelet::{Agent, BackOff, NodeSpec, Parts};
use crate::network::{ClusterNetwork, Level, NetworkError, PodNetwork};
use crate::runtime::mock::MockRuntime;
use crate::runtime::process::{ProcessRuntime, Shim};
use crate::runtime::{Isolation, Runtime, RuntimeError};
use crate::scheme::Scheme;
use crate::store::OpenError;
use crate::{scheduler, tasks};

/// The user of the kubeconfig that the engine writes.
const ADMINISTRATOR: &str = "landfall-admin";

/// Below the data folder.
const PODS: &str = "pods";
const MOCK_PODS: &str = "mock-pods";
const VOLUMES: &str = "volumes";
const NETWORK: &str = "network";

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
        let opened = Opened::open(&config.data)?;
        let data = opened.data().to_owned();

        let (network, refused) = match &config.network {
            Some(holder) => ClusterNetwork::start(&data.join(NETWORK), &holder.program, &holder.arguments).await,
            None => (ClusterNetwork::loopback(), None),
        };
        let runtime: Arc<dyn Runtime> = match config.runtime {
            PodRuntime::Processes(shim) => Arc::new(ProcessRuntime::start(&data.join(PODS), shim).await?),
            PodRuntime::Mock => Arc::new(MockRuntime::start(&data.join(MOCK_PODS))?),
        };
        let isolation = runtime.isolation();
        let services = network.services();
        let clock = Clock::wall();
        let stop = CancellationToken::new();
        let mut parts = JoinSet::new();
        let place = Place { listen: config.listen, kubeconfig: config.kubeconfig };
        let ranges = Ranges { network: (services.network, services.prefix), node_ports: NODE_PORTS };
        let service = Service { kinds: Scheme::builtin(), ranges, clock: clock.clone() };
        let front = opened.serve(place, service, &stop, &mut parts).await?;
        let server = front.server;
        let serving = begin.elapsed();

        if !config.nodes.is_empty() {
            volumes_by_default(&server.client("system:engine"))
                .await
                .map_err(|error| StartError::Api(Box::new(error)))?;
        }

        let pod_network = PodNetwork::new(network.clone());
        let left: BTreeSet<String> = runtime.left_behind()?.into_iter().map(|sandbox| sandbox.uid).collect();
        if let Err(error) = pod_network.retain(&left).await {
            warn!(error = &error as &dyn std::error::Error, "networks of pods were left behind");
        }

        let context = Context {
            client: server.client("system:engine"),
            caches: Caches::new(),
            clock,
            authority: front.certificate.into(),
        };
        context.caches.fill(&context.client, &stop, &mut parts).await;
        let (recorder, events) = event::queue(context.client.clone(), "landfall-engine");
        let agent = Agent::new(Parts {
            context: context.clone(),
            recorder: recorder.component("kubelet"),
            runtime: Arc::clone(&runtime),
            network: Arc::new(pod_network),
            images: config.images,
            nodes: config.nodes,
            persistent: data.join(VOLUMES),
            back_off: BackOff::default(),
        });
        server.set_agent(Arc::new(agent.clone()));
        server.set_metrics(Arc::new(agent.clone()));
        server.set_machine(Arc::new(agent.clone()));
        server.set_dialer(network.dialer());

        let gateway = open_gateway(&data, &config.gateway)?;
        let entrances = Entrances { http: gateway.http(), https: gateway.https(), admin: gateway.admin() };
        server.set_gateway(Box::new(gateway.figures()));
        parts.spawn(gateway.run(context.clone(), network.dialer(), stop.clone()));
        let (silence, mut event_writer) = (CancellationToken::new(), JoinSet::new());
        event_writer.spawn(events.run_until(silence.clone()));
        let timing =
            controller::NodeTiming { grace: config.node_monitor_grace_period, ..controller::NodeTiming::DEFAULT };
        parts.spawn(controller::run_all(context.clone(), timing, stop.clone()));
        parts.spawn(network.clone().run(context.clone(), stop.clone()));
        {
            let (context, stop) = (context.clone(), stop.clone());
            parts.spawn(async move { scheduler::run(context, &recorder, stop).await });
        }
        {
            let (agent, stop) = (agent.clone(), stop.clone());
            parts.spawn(async move {
                if let Err(error) = agent.run(stop).await {
                    tracing::error!(%error, source = ?std::error::Error::source(&error), "pods are not run any more");
                }
            });
        }
        let report = Report {
            address: front.address,
            kubeconfig: front.kubeconfig,
            serving,
            isolation,
            network: network.level(),
            gateway: entrances,
            left_running: left,
            refused: refused.as_ref().map(told),
        };
        if let Some(error) = &report.refused {
            warn!(%error, "pods stay on loopback addresses");
        }
        Ok(Handle { server, agent, runtime, network, stop, parts, silence, event_writer, report })
    }
}

impl Engine {
    /// Ends the pods that an engine on this data folder has left running because it was killed, and their network. Says
    /// how many pods there were. `pods` and `network` are what that engine was started with.
    pub async fn end_left_running(data: &Path, pods: Shim, network: &Shim) -> Result<usize, StartError> {
        // Nobody else is to start an engine on it meanwhile.
        let opened = Opened::open(data)?;
        let runtime = ProcessRuntime::start(&opened.data().join(PODS), pods).await?;
        let left = runtime.left_behind()?.len();
        stop_pods(&runtime).await;
        let (network, _) =
            ClusterNetwork::start(&opened.data().join(NETWORK), &network.program, &network.arguments).await;
        network.close().await;
        Ok(left)
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
    /// How far containers are kept apart.
    pub isolation: Isolation,
    /// How far pods are kept apart on the network.
    pub network: Level,
    /// Where traffic from outside comes in.
    pub gateway: Entrances,
    /// The pods of an engine that was killed, by their uids: they run on.
    pub left_running: BTreeSet<String>,
    /// Why pods are not kept apart on the network, if that was asked for.
    pub refused: Option<String>,
}

/// An error with its reasons.
fn told(error: &NetworkError) -> String {
    let reasons = std::iter::successors(std::error::Error::source(error), |error| error.source());
    reasons.fold(error.to_string(), |told, reason| format!("{told}: {reason}"))
}

/// The sockets of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entrances {
    /// What is declared on port 80.
    pub http: SocketAddr,
    /// What is declared on port 443.
    pub https: SocketAddr,
    /// Figures in the Prometheus format at `/metrics`, and faults.
    pub admin: SocketAddr,
}

/// A running engine.
pub struct Handle {
    server: Server,
    agent: Agent,
    runtime: Arc<dyn Runtime>,
    network: ClusterNetwork,
    stop: CancellationToken,
    parts: JoinSet<()>,
    /// Ends the writer of events, which has no other end as long as the node agent is there to record some.
    silence: CancellationToken,
    event_writer: JoinSet<()>,
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
        self.silence.cancel();
        self.event_writer.join_all().await;
        self.server.finished().await;
        drop(self.agent);
        if pods == Pods::Stop {
            stop_pods(&*self.runtime).await;
            self.network.close().await;
        }
    }
}

async fn stop_pods(runtime: &dyn Runtime) {
    let left = runtime.left_behind().unwrap_or_else(|error| {
        warn!(%error, "failed to find the pods that still run");
        Vec::new()
    });
    let closing = left.into_iter().map(|sandbox| async move {
        let pod = format!("{}/{}", sandbox.namespace, sandbox.name);
        match runtime.open(sandbox).await {
            Ok(opened) => opened.close().await,
            Err(error) => warn!(pod, %error, "failed to stop a pod"),
        }
    });
    futures::future::join_all(closing).await;
}

/// Opens the sockets of the gateway. Where any port will do, it is the one of the last time, so that clients find it again;
/// if somebody else has one of them by now, any.
fn open_gateway(data: &Path, config: &GatewayConfig) -> Result<Gateway, StartError> {
    let last = data.join("gateway-ports");
    let text = fs::read_to_string(&last).unwrap_or_default();
    let ports: Vec<u16> = text.split_whitespace().filter_map(|port| port.parse().ok()).collect();
    let again = <[u16; 3]>::try_from(ports).ok().and_then(|[http, https, admin]| {
        let at = |wanted: SocketAddr, port| {
            if wanted.port() == 0 { SocketAddr::new(wanted.ip(), port) } else { wanted }
        };
        let (http, https, admin) = (at(config.http, http), at(config.https, https), at(config.admin, admin));
        Gateway::bind(&GatewayConfig { http, https, admin, ..config.clone() }).ok()
    });
    let gateway = match again {
        Some(gateway) => gateway,
        None => Gateway::bind(config).map_err(|error| StartError::Gateway(Box::new(error)))?,
    };
    let [http, https, admin] = [gateway.http(), gateway.https(), gateway.admin()].map(|address| address.port());
    fs::write(&last, format!("{http} {https} {admin}")).map_err(|source| StartError::Write { path: last, source })?;
    Ok(gateway)
}

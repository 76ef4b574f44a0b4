//! The machine below a control plane: the processes of pods, their network, the node agents, the gateway.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{PodRuntime, Pods, StartError};
use crate::api::Figures;
use crate::context::Context;
use crate::event::{self, Recorder};
use crate::gateway::{Gateway, GatewayConfig};
use crate::images::Catalogue;
use crate::kubelet::{Agent, BackOff, NodeSpec, Parts};
use crate::network::{ClusterNetwork, EgressBlock, Exit, Level, NetworkError, PodNetwork, ServiceRange};
use crate::runtime::mock::MockRuntime;
use crate::runtime::process::{ProcessRuntime, Shim};
use crate::runtime::{Isolation, Runtime, run_folder};

/// Below the data folder.
const PODS: &str = "pods";
const MOCK_PODS: &str = "mock-pods";
const VOLUMES: &str = "volumes";
const NETWORK: &str = "network";
const GATEWAY_PORTS: &str = "gateway-ports";

/// What there is before anybody knows of a pod: how processes and networks can be had here, and what runs still.
pub(super) struct Ground {
    data: PathBuf,
    runtime: Arc<dyn Runtime>,
    network: ClusterNetwork,
    exit: Option<Exit>,
    refused: Option<NetworkError>,
}

/// What the machine is to be.
pub(super) struct Plan {
    pub(super) nodes: Vec<NodeSpec>,
    pub(super) images: Catalogue,
    pub(super) gateway: GatewayConfig,
}

impl Ground {
    /// `network` is how the binary becomes the holder of the network; pods stay on loopback addresses without it. `egress` is
    /// what pods may reach outside of the cluster.
    pub(super) async fn open(
        data: &Path,
        pods: PodRuntime,
        network: Option<&Shim>,
        egress: Vec<EgressBlock>,
    ) -> Result<Self, StartError> {
        let network = async {
            match network {
                Some(holder) => {
                    ClusterNetwork::start(&data.join(NETWORK), &holder.program, &holder.arguments, &egress).await
                }
                None => (ClusterNetwork::loopback(&data.join(NETWORK)), None),
            }
        };
        let runtime = async {
            Ok::<Arc<dyn Runtime>, StartError>(match pods {
                PodRuntime::Processes(shim) => {
                    Arc::new(ProcessRuntime::start(&data.join(PODS), run_folder::open(data)?, shim).await?)
                }
                PodRuntime::Mock => Arc::new(MockRuntime::start(&data.join(MOCK_PODS))?),
            })
        };
        // Both start processes and wait for them.
        let ((network, refused), runtime) = tokio::join!(network, runtime);
        let runtime = runtime?;
        let exit = network.open(egress).await?;
        Ok(Self { data: data.to_owned(), runtime, network, exit, refused })
    }

    /// The addresses that services have here.
    pub(super) fn services(&self) -> ServiceRange {
        self.network.services()
    }

    /// Runs node agents, network and gateway in tasks of `parts` until `stop`.
    pub(super) async fn start(
        self,
        context: &Context,
        plan: Plan,
        stop: &CancellationToken,
        parts: &mut JoinSet<()>,
    ) -> Result<Machine, StartError> {
        let Self { data, runtime, network, exit, refused } = self;
        let egress = exit.as_ref().map(|exit| exit.open().to_vec()).unwrap_or_default();
        let pod_network = PodNetwork::new(network.clone());
        let left: BTreeSet<String> = runtime.left_behind()?.into_iter().map(|sandbox| sandbox.uid).collect();
        if let Err(error) = pod_network.retain(&left).await {
            warn!(error = &error as &dyn std::error::Error, "networks of pods were left behind");
        }
        let left_running = left.into_iter().filter(|uid| runtime.runs(uid)).collect();
        let refused = refused.as_ref().map(told);
        if let Some(error) = &refused {
            warn!(%error, "pods stay on loopback addresses");
        }
        let (recorder, events) =
            event::queue(context.client.clone(), context.clock.clone(), &context.lost, "landfall-engine");
        let agent = Agent::new(Parts {
            context: context.clone(),
            recorder: recorder.component("kubelet"),
            runtime: Arc::clone(&runtime),
            network: Arc::new(pod_network),
            images: plan.images,
            nodes: plan.nodes,
            persistent: data.join(VOLUMES),
            back_off: BackOff::default(),
        });
        let gateway = open_gateway(&data, &plan.gateway)?;
        let entrances = Entrances { http: gateway.http(), https: gateway.https(), admin: gateway.admin() };
        let figures: Figures = Arc::new(gateway.figures());
        parts.spawn(gateway.run(context.clone(), network.dialer(), stop.clone()));
        parts.spawn(network.clone().run(context.clone(), exit, stop.clone()));
        {
            let (agent, stop) = (agent.clone(), stop.clone());
            parts.spawn(async move {
                if let Err(error) = agent.run(stop).await {
                    error!(%error, source = ?std::error::Error::source(&error), "pods are not run any more");
                }
            });
        }
        let (silence, mut event_writer) = (CancellationToken::new(), JoinSet::new());
        event_writer.spawn(events.run_until(silence.clone()));
        let report = MachineReport {
            isolation: runtime.isolation(),
            network: network.level(),
            egress,
            gateway: entrances,
            left_running,
            refused,
        };
        Ok(Machine { data, agent, network, figures, recorder, report, runtime, silence, event_writer })
    }
}

/// A machine that runs pods.
pub(super) struct Machine {
    data: PathBuf,
    pub(super) agent: Agent,
    pub(super) network: ClusterNetwork,
    /// Says what the gateway has counted.
    pub(super) figures: Figures,
    pub(super) recorder: Recorder,
    pub(super) report: MachineReport,
    runtime: Arc<dyn Runtime>,
    /// Ends the writer of events, which has no other end as long as the node agent is there to record some.
    silence: CancellationToken,
    event_writer: JoinSet<()>,
}

impl Machine {
    /// What is left to do when the tasks of [`Ground::start`] have ended.
    pub(super) async fn close(self, pods: Pods) {
        self.silence.cancel();
        self.event_writer.join_all().await;
        drop(self.agent);
        if pods == Pods::Stop {
            stop_pods(&*self.runtime, &self.data).await;
            self.network.close().await;
        }
    }
}

/// What a machine says of itself.
#[derive(Debug, Clone)]
pub struct MachineReport {
    /// How far containers are kept apart.
    pub isolation: Isolation,
    /// How far pods are kept apart on the network.
    pub network: Level,
    /// What pods may reach outside of the cluster, where they are kept apart from it.
    pub egress: Vec<EgressBlock>,
    /// Where traffic from outside comes in.
    pub gateway: Entrances,
    /// The pods of an engine that was killed, by their uids: they run on.
    pub left_running: BTreeSet<String>,
    /// Why pods are not kept apart on the network, if that was asked for.
    pub refused: Option<String>,
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

/// Ends the pods and the network that a machine has left running because it was killed. Says how many pods there were.
pub(super) async fn end_left_running(data: &Path, pods: Shim, network: &Shim) -> Result<usize, StartError> {
    let runtime = ProcessRuntime::start(&data.join(PODS), run_folder::open(data)?, pods).await?;
    let left = runtime.left_behind()?.iter().filter(|sandbox| runtime.runs(&sandbox.uid)).count();
    stop_pods(&runtime, data).await;
    let (network, _) = ClusterNetwork::start(&data.join(NETWORK), &network.program, &network.arguments, &[]).await;
    network.close().await;
    Ok(left)
}

async fn stop_pods(runtime: &dyn Runtime, data: &Path) {
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
    if let Err(error) = run_folder::remove(data) {
        warn!(error = &error as &dyn std::error::Error, "files of pods that have ended stay in memory");
    }
}

/// An error with its reasons.
fn told(error: &NetworkError) -> String {
    let reasons = std::iter::successors(std::error::Error::source(error), |error| error.source());
    reasons.fold(error.to_string(), |told, reason| format!("{told}: {reason}"))
}

/// Opens the sockets of the gateway. Where any port will do, it is the one of the last time, so that clients find it again;
/// if somebody else has one of them by now, any.
fn open_gateway(data: &Path, config: &GatewayConfig) -> Result<Gateway, StartError> {
    let last = data.join(GATEWAY_PORTS);
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

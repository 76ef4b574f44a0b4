//! A machine under somebody else's control plane: its pods run here, and it decides which ones.

use std::fs::{self, File, TryLockError};
use std::path::PathBuf;

use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::machine::{Ground, Machine, MachineReport, Plan};
use super::{PodRuntime, Pods, StartError};
use crate::clock::Clock;
use crate::context::{Caches, Context};
use crate::event::Lost;
use crate::gateway::GatewayConfig;
use crate::images::Catalogue;
use crate::kubelet::NodeSpec;
use crate::network::EgressBlock;
use crate::runtime::process::Shim;
use crate::tasks;

/// Held as long as a machine uses the folder.
const LOCK: &str = "machine.lock";

/// How a machine joins a control plane.
pub struct JoinConfig {
    /// The control plane, for a user who may do everything: nodes, services and routes are read with it, and status written.
    ///
    /// Its services must have addresses of 10.96.0.0/16, and no other machine may run pods of it.
    // Not handled: `kubectl logs`, `exec` and `port-forward`, for which the API server would ask a kubelet's port; the API server
    // as seen from inside of pods; clusters with nodes elsewhere.
    pub client: Client,
    /// Where volumes and logs are kept; one machine at a time.
    pub data: PathBuf,
    /// The nodes that this machine plays.
    pub nodes: Vec<NodeSpec>,
    /// Which program an image stands for.
    pub images: Catalogue,
    /// How pods run.
    pub runtime: PodRuntime,
    /// How the binary becomes the holder of the network: it then calls [`crate::network_main`]. `None`: pods stay on
    /// loopback addresses.
    pub network: Option<Shim>,
    /// Which addresses outside of the cluster pods may open TCP connections to: as [`crate::Config::egress`].
    pub egress: Vec<EgressBlock>,
    /// Where traffic from outside comes in.
    pub gateway: GatewayConfig,
}

/// A machine that has joined a control plane: it runs the pods that are bound to its nodes, serves services, policies, routes
/// and ingresses, and tells what it sees.
pub struct Joined {
    machine: Machine,
    stop: CancellationToken,
    parts: JoinSet<()>,
    _lock: File,
}

impl Joined {
    /// Registers the nodes. Pods of an earlier machine on the same folder are found again.
    pub async fn start(config: JoinConfig) -> Result<Self, StartError> {
        let written = |source| StartError::Write { path: config.data.clone(), source };
        fs::create_dir_all(&config.data).map_err(written)?;
        // Pods are told absolute paths.
        let data = config.data.canonicalize().map_err(written)?;
        let path = data.join(LOCK);
        let locked = File::create(&path).and_then(|file| match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(std::io::Error::other("another machine uses this folder")),
            Err(TryLockError::Error(error)) => Err(error),
        });
        let lock = locked.map_err(|source| StartError::Write { path, source })?;

        let ground = Ground::open(&data, config.runtime, config.network.as_ref(), config.egress).await?;
        let (stop, mut parts) = (CancellationToken::new(), JoinSet::new());
        // What the pods know of who signs the API server comes from the control plane.
        let context = Context {
            client: config.client,
            caches: Caches::new(),
            clock: Clock::wall(),
            lost: Lost::default(),
            authority: "".into(),
        };
        context.caches.fill(&context.client, &stop, &mut parts).await;
        let plan = Plan { nodes: config.nodes, images: config.images, gateway: config.gateway };
        let machine = ground.start(&context, plan, &stop, &mut parts).await?;
        Ok(Self { machine, stop, parts, _lock: lock })
    }

    /// What the machine says of itself.
    pub fn report(&self) -> &MachineReport {
        &self.machine.report
    }

    /// Runs until a part of the machine has failed, which is a defect of the engine: its panic goes on here.
    pub async fn failed(&mut self) {
        tasks::supervise(&mut self.parts).await;
    }

    /// Stops. The nodes stay registered, and are lost to the control plane when their leases run out.
    pub async fn stop(mut self, pods: Pods) {
        self.stop.cancel();
        tasks::supervise(&mut self.parts).await;
        self.machine.close(pods).await;
    }
}

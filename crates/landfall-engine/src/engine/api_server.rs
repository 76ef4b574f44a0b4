//! The API server alone: for controllers, schedulers and kubelets of others.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::front::{Front, Opened, Place, Service};
use super::{StartError, server};
use crate::api::Ranges;
use crate::clock::Clock;
use crate::scheme::Scheme;
use crate::tasks;

/// What an API server is started with.
#[derive(Debug, Clone)]
pub struct ApiServerConfig {
    /// Where objects and keys are kept.
    pub data: PathBuf,
    /// Where to listen; port 0 takes the port of the last time, or a free one.
    pub listen: SocketAddr,
    /// Where the kubeconfig is written; in `data` if nowhere else.
    pub kubeconfig: Option<PathBuf>,
}

/// A running API server. Nothing acts on its objects until somebody joins who does: no controller, no scheduler, no node.
pub struct ApiServer {
    front: Front,
    serving: Duration,
    stop: CancellationToken,
    parts: JoinSet<()>,
}

impl ApiServer {
    /// Starts an API server on a data folder, which no other engine may have. It serves when this returns.
    pub async fn start(config: ApiServerConfig) -> Result<Self, StartError> {
        let begin = Instant::now();
        let (stop, mut parts) = (CancellationToken::new(), JoinSet::new());
        let place = Place { listen: config.listen, kubeconfig: config.kubeconfig };
        let service = Service { kinds: Scheme::with_unattended(), ranges: Ranges::default(), clock: Clock::wall() };
        let opened = Opened::open(&config.data)?;
        let front = opened.serve(place, service, &stop, &mut parts).await?;
        parts.spawn(front.server.clone().keep_own_service(server::nearby(front.address), stop.clone()));
        Ok(Self { front, serving: begin.elapsed(), stop, parts })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.front.address
    }

    /// The file with which clients find it.
    pub fn kubeconfig(&self) -> &Path {
        &self.front.kubeconfig
    }

    /// From the call of [`ApiServer::start`] to the first request that could be served.
    pub fn serving(&self) -> Duration {
        self.serving
    }

    /// Runs until the server has failed, which is a defect of the engine: its panic goes on here.
    pub async fn failed(&mut self) {
        tasks::supervise(&mut self.parts).await;
    }

    /// Stops the server: requests that are under way are finished.
    pub async fn stop(mut self) {
        self.stop.cancel();
        tasks::supervise(&mut self.parts).await;
        self.front.server.finished().await;
    }
}

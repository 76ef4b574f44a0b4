//! A real Kubernetes control plane for tests: etcd, API server, controller-manager and scheduler on this machine.
//!
//! Each piece can be left out or be somebody else's: the real controllers against another API server, other controllers
//! against the real API server. No pod runs: [`crate::FakeKubelet`] says that they do.
//!
//! Whatever happens to the test, nothing stays: dropping a [`ControlPlane`] ends its processes and removes its folder, and
//! where nothing is dropped (an abort, a kill, a `static`), a watchdog does both.

mod apply;
mod certificates;
mod process;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tempfile::TempDir;

pub use crate::control_plane::apply::{Applied, Applier, Apply, ApplyError};
use crate::control_plane::certificates::Certificates;
use crate::control_plane::process::{Process, Watchdog, free_ports};
use crate::require_or_skip;
use crate::tools::{MissingTool, Tool};

/// How long a piece may take until it answers. It takes about three seconds; many test programs may start one at once.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often a piece is asked whether it is ready.
const POLL: Duration = Duration::from_millis(25);

/// How often everything is started again because another program took a port between its choice and its use.
const ATTEMPTS: usize = 4;

/// Real services get addresses of this range, as `kubeadm` chooses it.
const SERVICE_ADDRESSES: &str = "10.96.0.0/16";

/// Which real pieces run.
#[derive(Debug, Clone)]
pub struct Pieces {
    /// The kubeconfig of an API server that is there already; `None`: a real one is started, with its etcd.
    pub api_server: Option<PathBuf>,
    /// The controllers that run, in the words of `--controllers` (`*,-deployment` is all but one); `None`: no
    /// controller-manager.
    pub controllers: Option<String>,
    /// Whether the scheduler runs.
    pub scheduler: bool,
    /// Whether what the API server acknowledges is on the disk, as in production; tests need not wait for it.
    pub durable: bool,
}

impl Default for Pieces {
    /// Everything real.
    fn default() -> Self {
        Self { api_server: None, controllers: Some("*".to_owned()), scheduler: true, durable: false }
    }
}

impl Pieces {
    /// The API server alone.
    pub fn api_server_only() -> Self {
        Self { api_server: None, controllers: None, scheduler: false, durable: false }
    }

    /// Every controller but these, by the names of `--controllers`.
    #[must_use]
    pub fn without_controllers(mut self, names: &[&str]) -> Self {
        let all = std::iter::once("*".to_owned());
        self.controllers = Some(all.chain(names.iter().map(|name| format!("-{name}"))).collect::<Vec<_>>().join(","));
        self
    }

    /// Nothing acknowledged is lost when the machine stops: for measurements.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// No scheduler.
    #[must_use]
    pub fn without_scheduler(mut self) -> Self {
        self.scheduler = false;
        self
    }

    /// The real controller-manager and scheduler with the API server that this kubeconfig leads to; its user may do
    /// everything.
    #[must_use]
    pub fn beside(mut self, kubeconfig: &Path) -> Self {
        self.api_server = Some(kubeconfig.to_owned());
        self
    }

    /// Whether pods get their service account from a controller, without which the API server refuses them.
    fn makes_service_accounts(&self) -> bool {
        self.controllers.as_ref().is_some_and(|names| {
            let mut names = names.split(',');
            names.clone().any(|name| name == "*" || name == "serviceaccount-controller")
                && !names.any(|name| name == "-serviceaccount-controller")
        })
    }
}

/// A running control plane. Ends when it is dropped.
#[derive(Debug)]
pub struct ControlPlane {
    kubeconfig: PathBuf,
    // In the order in which they end: the processes, then who watches over them, then their folder.
    processes: Vec<Process>,
    watchdog: Watchdog,
    folder: TempDir,
}

/// A control plane that did not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A program is not on this machine.
    #[error(transparent)]
    Missing(#[from] MissingTool),
    /// The system refused something.
    #[error("failed to {action}")]
    Prepare {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The certificates could not be made.
    #[error("failed to make certificates")]
    Certificates(#[from] rcgen::Error),
    /// The kubeconfig leads to no client.
    #[error("failed to read `{}`", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: kube::config::KubeconfigError,
    },
    /// No client could be made.
    #[error("failed to make a client")]
    Client(#[source] Box<kube::Error>),
    /// A piece ended instead of coming up.
    #[error("{piece} ended ({status}); the end of its log:\n{log}")]
    Ended {
        /// The program.
        piece: &'static str,
        /// How it ended.
        status: String,
        /// Its last lines.
        log: String,
    },
    /// A piece runs, but does not become ready.
    #[error("{piece} is not ready after {} s; the end of its log:\n{log}", PATIENCE.as_secs())]
    NotReady {
        /// The program.
        piece: &'static str,
        /// Its last lines.
        log: String,
    },
}

impl StartError {
    /// Whether another choice of ports may help. Go words it so on each system.
    fn is_taken_port(&self) -> bool {
        matches!(self, Self::Ended { log, .. } if log.contains("address already in use"))
    }
}

impl ControlPlane {
    /// Starts the pieces and returns when each of them answers.
    pub async fn start(pieces: Pieces) -> Result<Self, StartError> {
        let mut attempt = 1;
        loop {
            match Self::attempt(&pieces).await {
                Err(error) if error.is_taken_port() && attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    /// The same for a test that goes without where the programs of Kubernetes are not on this machine, as
    /// [`crate::require_or_skip`] has it.
    ///
    /// # Panics
    ///
    /// If the programs are there and the control plane does not come up, or they are missing and required.
    pub async fn start_or_skip(pieces: Pieces) -> Option<Self> {
        match Self::start(pieces).await {
            Ok(plane) => Some(plane),
            Err(StartError::Missing(missing)) => require_or_skip("a control plane", Err(missing)),
            Err(error) => panic!("{error}"),
        }
    }

    /// A client that may do everything. A new one for each call, as a client lives in the runtime that made it.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, or if the kubeconfig of another API server has changed since the start.
    pub async fn client(&self) -> Client {
        client_of(&self.kubeconfig).await.expect("the kubeconfig has led to a client before")
    }

    /// The kubeconfig of a user who may do everything.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Certificates, data and one log for each piece.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The processes, in the order of their start.
    pub fn process_ids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::id).collect()
    }

    /// Ends the processes and removes the folder.
    ///
    /// Nothing is asked to end in peace: what it would write down is removed anyway.
    pub fn stop(self) {
        drop(self);
    }

    async fn attempt(pieces: &Pieces) -> Result<Self, StartError> {
        let folder = TempDir::with_prefix("landfall-control-plane-")
            .map_err(|source| StartError::Prepare { action: "make a temporary folder".to_owned(), source })?;
        let watchdog = Watchdog::start(folder.path())?;
        let kubeconfig = pieces.api_server.clone().unwrap_or_else(|| folder.path().join("kubeconfig"));
        let mut this = Self { kubeconfig, processes: Vec::new(), watchdog, folder };

        let certificates = Certificates::write(this.folder())?;
        if pieces.api_server.is_none() {
            this.start_api_server(&certificates, pieces.durable).await?;
        }
        this.start_controllers(pieces, &certificates).await?;
        Ok(this)
    }

    async fn start_api_server(&mut self, certificates: &Certificates, durable: bool) -> Result<(), StartError> {
        let [store, peers, secure] = free_ports()?;
        let store = format!("http://{}:{store}", Ipv4Addr::LOCALHOST);
        let peers = format!("http://{}:{peers}", Ipv4Addr::LOCALHOST);
        self.spawn(
            Tool::Etcd,
            &[
                "--data-dir=etcd",
                "--log-level=warn",
                &format!("--unsafe-no-fsync={}", !durable),
                &format!("--listen-client-urls={store}"),
                &format!("--advertise-client-urls={store}"),
                &format!("--listen-peer-urls={peers}"),
                &format!("--initial-advertise-peer-urls={peers}"),
                &format!("--initial-cluster=default={peers}"),
            ],
        )?;
        let server = format!("https://{}:{secure}", Ipv4Addr::LOCALHOST);
        // At once: the API server tries again until its store is there.
        let api_server = self.spawn(
            Tool::ApiServer,
            &[
                &format!("--etcd-servers={store}"),
                &format!("--bind-address={}", Ipv4Addr::LOCALHOST),
                &format!("--secure-port={secure}"),
                "--cert-dir=.",
                &format!("--tls-cert-file={}", certificates.serving.certificate.display()),
                &format!("--tls-private-key-file={}", certificates.serving.key.display()),
                &format!("--client-ca-file={}", certificates.authority.display()),
                &format!("--service-account-key-file={}", certificates.service_accounts.public.display()),
                &format!("--service-account-signing-key-file={}", certificates.service_accounts.private.display()),
                "--service-account-issuer=https://kubernetes.default.svc",
                &format!("--service-cluster-ip-range={SERVICE_ADDRESSES}"),
                "--authorization-mode=Node,RBAC",
                "--allow-privileged",
                // An address of the loopback network is none that Endpoints may have.
                "--endpoint-reconciler-type=none",
            ],
        )?;
        let user = certificates.kubeconfig(&server);
        fs::write(&self.kubeconfig, user.to_string()).map_err(|source| StartError::Prepare {
            action: format!("write `{}`", self.kubeconfig.display()),
            source,
        })?;
        let client = client_of(&self.kubeconfig).await?;
        self.answers(api_server, &client, "/readyz").await
    }

    /// The controller-manager and the scheduler, side by side.
    async fn start_controllers(&mut self, pieces: &Pieces, certificates: &Certificates) -> Result<(), StartError> {
        let [controllers_port, scheduler_port] = free_ports()?;
        let kubeconfig = self.kubeconfig.display().to_string();
        let common = |port: u16| {
            vec![
                format!("--kubeconfig={kubeconfig}"),
                format!("--authentication-kubeconfig={kubeconfig}"),
                format!("--authorization-kubeconfig={kubeconfig}"),
                // A server that is not the real one has no such ConfigMap; nobody but this harness asks these ports.
                "--authentication-tolerate-lookup-failure".to_owned(),
                format!("--bind-address={}", Ipv4Addr::LOCALHOST),
                format!("--secure-port={port}"),
                format!("--tls-cert-file={}", certificates.serving.certificate.display()),
                format!("--tls-private-key-file={}", certificates.serving.key.display()),
                "--leader-elect=false".to_owned(),
                // The defaults (20 and 50 a second) make tests wait for the client's own limits.
                "--kube-api-qps=2000".to_owned(),
                "--kube-api-burst=4000".to_owned(),
            ]
        };

        let mut started = Vec::new();
        if let Some(names) = &pieces.controllers {
            let mut flags = common(controllers_port);
            flags.push(format!("--controllers={names}"));
            // The one user of the harness may do everything, so the controllers need no users of their own.
            flags.push("--use-service-account-credentials=false".to_owned());
            if pieces.api_server.is_none() {
                // Another API server has its own keys: what depends on them is then not signed by this piece.
                flags.push(format!("--root-ca-file={}", certificates.authority.display()));
                let key = certificates.service_accounts.private.display();
                flags.push(format!("--service-account-private-key-file={key}"));
            }
            started.push((self.spawn(Tool::ControllerManager, &flags)?, controllers_port));
        }
        if pieces.scheduler {
            started.push((self.spawn(Tool::Scheduler, &common(scheduler_port))?, scheduler_port));
        }
        for (process, port) in started {
            let client = anonymous_client(port, certificates)?;
            self.answers(process, &client, "/healthz").await?;
        }
        if pieces.makes_service_accounts() {
            let client = client_of(&self.kubeconfig).await?;
            let accounts = Api::<ServiceAccount>::namespaced(client, "default");
            let manager = self.processes.iter().position(|process| process.name() == CONTROLLER_MANAGER);
            let manager = manager.expect("it was started above");
            self.until(manager, async || accounts.get("default").await.is_ok()).await?;
        }
        Ok(())
    }

    /// Starts a program and returns its place in `processes`.
    fn spawn(&mut self, tool: Tool, flags: &[impl AsRef<std::ffi::OsStr>]) -> Result<usize, StartError> {
        let name = match tool {
            Tool::Etcd => "etcd",
            Tool::ApiServer => "kube-apiserver",
            Tool::ControllerManager => CONTROLLER_MANAGER,
            Tool::Scheduler => "kube-scheduler",
            client => unreachable!("{client:?} is no piece of a control plane"),
        };
        let process = Process::start(name, &tool.locate()?, flags, self.folder.path())?;
        self.watchdog.watch(&process)?;
        self.processes.push(process);
        Ok(self.processes.len() - 1)
    }

    async fn answers(&mut self, process: usize, client: &Client, path: &str) -> Result<(), StartError> {
        self.until(process, async || {
            let request = http::Request::get(path).body(Vec::new()).expect("it is made of constants");
            client.request_text(request).await.is_ok()
        })
        .await
    }

    /// Waits for a condition that a process brings about, as long as all of them live.
    async fn until(&mut self, process: usize, mut holds: impl AsyncFnMut() -> bool) -> Result<(), StartError> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(error) = self.processes.iter_mut().find_map(Process::ended) {
                return Err(error);
            }
            // A piece that took the connection and says nothing must not outlast the deadline.
            if tokio::time::timeout_at(deadline, holds()).await == Ok(true) {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(self.processes[process].not_ready());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

const CONTROLLER_MANAGER: &str = "kube-controller-manager";

async fn client_of(kubeconfig: &Path) -> Result<Client, StartError> {
    let read = async {
        let file = Kubeconfig::read_from(kubeconfig)?;
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await
    };
    let config = read.await.map_err(|source| StartError::Kubeconfig { path: kubeconfig.to_owned(), source })?;
    Client::try_from(config).map_err(|error| StartError::Client(Box::new(error)))
}

/// A client of a piece's own port, where it asks for no user.
fn anonymous_client(port: u16, certificates: &Certificates) -> Result<Client, StartError> {
    let url = format!("https://{}:{port}", Ipv4Addr::LOCALHOST).parse().expect("an address and a port make a URL");
    let mut config = Config::new(url);
    config.root_cert = Some(vec![certificates.authority_der.clone()]);
    Client::try_from(config).map_err(|error| StartError::Client(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::Pieces;

    #[test]
    fn the_controllers_that_are_left_out_are_named_after_all_others() {
        let pieces = Pieces::default().without_controllers(&["deployment-controller", "serviceaccount-controller"]);
        assert_eq!(pieces.controllers.as_deref(), Some("*,-deployment-controller,-serviceaccount-controller"));
        assert!(!pieces.makes_service_accounts());
    }

    #[test]
    fn all_controllers_make_service_accounts_and_none_makes_none() {
        assert!(Pieces::default().makes_service_accounts());
        assert!(!Pieces::api_server_only().makes_service_accounts());
    }
}

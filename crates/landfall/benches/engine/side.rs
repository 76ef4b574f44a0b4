//! The two that are compared, each started in a folder of its own and ended without leaving anything.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use landfall_testing::{ControlPlane, Pieces, Tool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tower::util::MapRequestLayer;

/// How long an engine may take to come up or go down.
const PATIENCE: Duration = Duration::from_mins(1);

/// A server that answers.
pub(crate) struct Side {
    /// From the start of its processes to its first answer.
    pub(crate) ready: Duration,
    kubeconfig: PathBuf,
    server: Server,
}

enum Server {
    Engine { child: Child, folder: TempDir },
    Kubernetes(ControlPlane),
}

/// How an engine is started.
#[derive(Default)]
pub(crate) struct EngineOptions {
    /// Name by name, with room for this many pods; the engine's own choice when `None`.
    nodes: Option<(usize, u32)>,
    mock: bool,
    /// More entries of the image catalogue, as YAML.
    images: String,
}

impl EngineOptions {
    /// Its pods are somebody else's business.
    pub(crate) fn without_nodes() -> Self {
        Self { nodes: Some((0, 0)), ..Self::default() }
    }

    /// With programs of this machine.
    pub(crate) fn with_images(images: String) -> Self {
        Self { images, ..Self::default() }
    }

    /// Nodes with room for so many pods each, which do not run.
    pub(crate) fn mock(nodes: usize, pods: u32) -> Self {
        Self { nodes: Some((nodes, pods)), mock: true, ..Self::default() }
    }

    pub(crate) fn and_images(mut self, images: &str) -> Self {
        self.images += images;
        self
    }
}

impl Side {
    pub(crate) async fn engine(options: EngineOptions) -> Self {
        let folder = TempDir::with_prefix("landfall-bench-").expect("there is room for a folder");
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("there is room for a file");
            path
        };
        let this = std::env::current_exe().expect("a process knows its program");
        let images = format!(
            "images:\n- {{ image: served, program: {}, args: [{}, \"{{{{pod_ip}}}}:8080\"] }}\n{}",
            this.display(),
            crate::SERVE,
            options.images
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
        command.arg("engine").arg("--data").arg(folder.path().join("data"));
        command.arg("--images").arg(write("images.yaml", images));
        if let Some((count, pods)) = options.nodes {
            let mut text = String::from(if count == 0 { "nodes: []\n" } else { "nodes:\n" });
            for number in 0..count {
                let node = format!("{{ name: node-{number}, cpu: \"1000\", memory: 1000Gi, pods: {pods} }}");
                writeln!(text, "- {node}").expect("writing to a string cannot fail");
            }
            command.arg("--nodes").arg(write("nodes.yaml", text));
        }
        if options.mock {
            command.args(["--runtime", "mock", "--network", "loopback"]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).expect("there is room for a file"));
        let kubeconfig = folder.path().join("data/kubeconfig");
        let began = Instant::now();
        let child = command.spawn().expect("the engine's program was built");
        while !answers(&kubeconfig).await {
            assert!(began.elapsed() < PATIENCE, "the engine does not come up: {}", log(folder.path()));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Self { ready: began.elapsed(), kubeconfig, server: Server::Engine { child, folder } }
    }

    pub(crate) fn has_kubernetes() -> bool {
        [Tool::Etcd, Tool::ApiServer, Tool::ControllerManager, Tool::Scheduler].iter().all(|tool| tool.locate().is_ok())
    }

    pub(crate) async fn kubernetes() -> Self {
        let began = Instant::now();
        let plane = ControlPlane::start(Pieces::default().durable()).await.expect("the control plane comes up");
        Self { ready: began.elapsed(), kubeconfig: plane.kubeconfig().to_owned(), server: Server::Kubernetes(plane) }
    }

    pub(crate) fn is_kubernetes(&self) -> bool {
        matches!(self.server, Server::Kubernetes(_))
    }

    /// A client with a connection of its own.
    pub(crate) async fn client(&self) -> Client {
        client(&self.kubeconfig).await.expect("the kubeconfig has led to a client before")
    }

    /// A client that counts its requests.
    pub(crate) async fn counting_client(&self, requests: Arc<AtomicU64>) -> Client {
        let config = config(&self.kubeconfig).await.expect("the kubeconfig has led to a client before");
        let count = move |request: http::Request<kube::client::Body>| {
            requests.fetch_add(1, Ordering::Relaxed);
            request
        };
        let builder = ClientBuilder::try_from(config).expect("the kubeconfig has led to a client before");
        builder.with_layer(&MapRequestLayer::new(count)).build()
    }

    /// Where the engine's gateway takes what is declared on port 80.
    pub(crate) fn gateway(&self) -> SocketAddr {
        let Server::Engine { folder, .. } = &self.server else { panic!("only the engine has a gateway") };
        let ports = fs::read_to_string(folder.path().join("data/gateway-ports")).expect("the engine keeps its ports");
        let port = ports.split_whitespace().next().and_then(|port| port.parse().ok()).expect("it begins with a port");
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    pub(crate) async fn clients(&self, count: usize) -> Vec<Client> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(self.client().await);
        }
        clients
    }

    /// The resident memory of all its processes now, in megabytes.
    pub(crate) fn memory(&self) -> f64 {
        self.processes().into_iter().map(|process| kilobytes(process, "VmRSS:")).sum::<f64>() / 1024.0
    }

    /// The largest resident memory so far, in megabytes.
    pub(crate) fn peak_memory(&self) -> f64 {
        self.processes().into_iter().map(|process| kilobytes(process, "VmHWM:")).sum::<f64>() / 1024.0
    }

    /// Ends it in peace, so that its pods end too.
    pub(crate) async fn stop(self) {
        match self.server {
            Server::Kubernetes(plane) => plane.stop(),
            Server::Engine { mut child, folder } => {
                let id = Pid::from_raw(child.id().cast_signed());
                kill(id, Signal::SIGTERM).expect("the engine still runs");
                let began = Instant::now();
                while child.try_wait().expect("the engine is ours").is_none() {
                    if began.elapsed() > PATIENCE {
                        child.kill().expect("the engine is ours");
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                drop(folder);
            }
        }
    }

    /// Its processes: those that were started, and theirs.
    fn processes(&self) -> Vec<u32> {
        let mut processes = match &self.server {
            Server::Engine { child, .. } => vec![child.id()],
            Server::Kubernetes(plane) => plane.process_ids(),
        };
        let parents = parents();
        let mut at = 0;
        while let Some(process) = processes.get(at).copied() {
            processes.extend(parents.iter().filter(|(_, parent)| *parent == process).map(|(child, _)| *child));
            at += 1;
        }
        processes
    }
}

async fn answers(kubeconfig: &Path) -> bool {
    let Some(client) = client(kubeconfig).await else { return false };
    let request = http::Request::get("/readyz").body(Vec::new()).expect("it is made of constants");
    client.request_text(request).await.is_ok()
}

async fn client(kubeconfig: &Path) -> Option<Client> {
    Client::try_from(config(kubeconfig).await?).ok()
}

async fn config(kubeconfig: &Path) -> Option<Config> {
    let file = Kubeconfig::read_from(kubeconfig).ok()?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.ok()?;
    // A watch may be quiet for longer than the client would wait.
    config.read_timeout = None;
    Some(config)
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// A line of `/proc/PID/status`; nothing for a process that has just ended.
fn kilobytes(process: u32, line: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.trim().strip_suffix(" kB")?.parse().ok());
    value.unwrap_or_default()
}

/// Every process of this machine with its parent.
fn parents() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").expect("the system tells about its processes").flatten();
    let process = |entry: fs::DirEntry| {
        let process: u32 = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
        Some((process, parent))
    };
    entries.filter_map(process).collect()
}

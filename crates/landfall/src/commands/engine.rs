//! `landfall engine`: a Kubernetes on this machine, and what is done to one that runs.

mod clock;
mod endpoint;
mod images;
mod node;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use landfall_engine::{
    ApiServer, ApiServerConfig, Catalogue, Config, EgressBlock, Engine, GatewayConfig, Handle, Isolation, JoinConfig,
    Joined, Level, LimitIsolation, MachineReport, MountIsolation, NODE_MONITOR_GRACE_PERIOD, NodeSpec, PodRuntime,
    Pods, Shim,
};
use landfall_standin::{find_program, program_command};
use serde::Deserialize;

pub(crate) use self::clock::Reading;
use self::endpoint::RequestError;
use crate::Outcome;
use crate::cli::{EngineArguments, EngineCommand, NetworkLevel, RuntimeKind};
use crate::signals::StopSignals;
use crate::terminal::Terminal;

/// The first argument with which this program becomes the shim of a pod.
pub(crate) const POD: &str = "__pod";

/// The first argument with which this program becomes the holder of the network.
pub(crate) const NETWORK: &str = "__network";

/// Where `nft` is: not on the path of ordinary users, who may run it all the same.
pub(crate) const NFT: &[&str] =
    &["/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft", "/usr/bin/nft", "/bin/nft", "/usr/local/bin/nft"];

/// The file for `--nodes`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nodes {
    nodes: Vec<NodeSpec>,
}

/// A command that runs `nft`, installed or unpacked.
pub(crate) fn nft() -> Command {
    program_command(&find_program(NFT).unwrap_or_else(|| "nft".into()))
}

/// Runs an engine until it is told to stop, or does something to one that runs.
pub(crate) fn run(arguments: EngineArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    match &arguments.command {
        Some(command) => ask(command, terminal),
        None => serve(arguments, terminal),
    }
}

fn ask(command: &EngineCommand, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to prepare for speaking to the engine")?;
    let asked = runtime.block_on(async {
        match command {
            EngineCommand::Node { command } => node::run(command, terminal).await,
            EngineCommand::Clock { command, engine } => clock::run(command.as_ref(), engine, terminal).await,
            EngineCommand::Images(arguments) => images::run(arguments, terminal).await,
        }
    });
    let Err(error) = asked else { return Ok(Outcome::Done) };
    let outcome = match error.downcast_ref::<RequestError>() {
        Some(RequestError::Refused(_)) => Outcome::NotUnderstood,
        Some(RequestError::Denied(_)) => Outcome::No,
        _ => return Err(error),
    };
    terminal.error(&error);
    Ok(outcome)
}

fn serve(arguments: EngineArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    if arguments.api_only {
        return serve_api(arguments, terminal);
    }
    let nodes = match &arguments.nodes {
        Some(file) => match serde_saphyr::from_str::<Nodes>(&read(file)?) {
            Ok(nodes) => nodes.nodes,
            Err(error) => return not_understood(terminal, file, &error),
        },
        None => ["a", "b", "c"].map(default_node).into(),
    };
    let images = match &arguments.images {
        Some(file) => match Catalogue::parse(&read(file)?) {
            Ok(images) => images,
            Err(error) => {
                let source = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                return not_understood(terminal, file, &source);
            }
        },
        None => Catalogue::default(),
    };
    let program = std::env::current_exe().context("failed to find this program")?;
    let again = |mode: &str| Shim { program: program.clone(), arguments: vec![mode.to_owned()] };
    let pods = match arguments.runtime {
        RuntimeKind::Processes => PodRuntime::Processes(again(POD)),
        RuntimeKind::Mock => PodRuntime::Mock,
    };
    let network = (arguments.network != NetworkLevel::Loopback).then(|| again(NETWORK));
    let afterwards = if arguments.keep_pods { Pods::Keep } else { Pods::Stop };
    let egress = arguments.egress.clone();
    runtime(terminal)?.block_on(async {
        let mut signals = StopSignals::listen()?;
        let mut running = if let Some(kubeconfig) = &arguments.join {
            let client = client_of(kubeconfig).await?;
            let gateway = GatewayConfig::default();
            let config = JoinConfig {
                client,
                data: arguments.data,
                nodes,
                images,
                runtime: pods,
                network,
                egress: egress.clone(),
                gateway,
            };
            Running::Joined(Joined::start(config).await?)
        } else {
            let config = Config {
                data: arguments.data,
                listen: arguments.listen,
                kubeconfig: arguments.kubeconfig,
                nodes,
                images,
                runtime: pods,
                network,
                egress: egress.clone(),
                gateway: GatewayConfig::default(),
                node_monitor_grace_period: arguments.node_monitor_grace_period.unwrap_or(NODE_MONITOR_GRACE_PERIOD),
            };
            Running::Engine(Engine::start(config).await?)
        };
        let level = running.machine().network;
        if arguments.network == NetworkLevel::Namespace && level != Level::Namespace {
            running.stop(Pods::Stop).await;
            anyhow::bail!("this system allows no network namespaces; `--network loopback` does without");
        }
        greet(&running, &egress, afterwards, terminal)?;
        tokio::select! {
            () = signals.next() => {}
            () = running.failed() => {}
        }
        terminal.say("stopping")?;
        running.stop(afterwards).await;
        Ok(Outcome::Done)
    })
}

/// What runs pods here.
#[expect(clippy::large_enum_variant, reason = "there is one, and it does not move")]
enum Running {
    Engine(Handle),
    Joined(Joined),
}

impl Running {
    fn machine(&self) -> &MachineReport {
        match self {
            Self::Engine(engine) => &engine.report().machine,
            Self::Joined(joined) => joined.report(),
        }
    }

    async fn failed(&mut self) {
        match self {
            Self::Engine(engine) => engine.failed().await,
            Self::Joined(joined) => joined.failed().await,
        }
    }

    async fn stop(self, pods: Pods) {
        match self {
            Self::Engine(engine) => engine.stop(pods).await,
            Self::Joined(joined) => joined.stop(pods).await,
        }
    }
}

/// A client of the control plane that a kubeconfig leads to.
async fn client_of(kubeconfig: &Path) -> anyhow::Result<kube::Client> {
    let path = kubeconfig.display();
    let read = Kubeconfig::read_from(kubeconfig).with_context(|| format!("failed to read `{path}`"))?;
    let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("`{path}` leads to no cluster"))?;
    let client = kube::Client::try_from(config).with_context(|| format!("`{path}` leads to no cluster"))?;
    client.apiserver_version().await.with_context(|| format!("the cluster of `{path}` does not answer"))?;
    Ok(client)
}

/// Runs an API server until it is told to stop.
fn serve_api(arguments: EngineArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let config = ApiServerConfig { data: arguments.data, listen: arguments.listen, kubeconfig: arguments.kubeconfig };
    runtime(terminal)?.block_on(async {
        let mut signals = StopSignals::listen()?;
        let mut server = ApiServer::start(config).await?;
        let (address, serving) = (server.address(), server.serving().as_millis());
        terminal.say(&format!("ready at https://{address} after {serving} ms"))?;
        terminal.say("the API alone: nothing acts on its objects until controllers and nodes join")?;
        terminal.say(&format!("try: kubectl --kubeconfig {} get namespaces", server.kubeconfig().display()))?;
        tokio::select! {
            () = signals.next() => {}
            () = server.failed() => {}
        }
        terminal.say("stopping")?;
        server.stop().await;
        Ok(Outcome::Done)
    })
}

/// The threads of an engine, which log from now on.
fn runtime(terminal: &Terminal) -> anyhow::Result<tokio::runtime::Runtime> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("LANDFALL_LOG")
                .unwrap_or_else(|_| "landfall_engine=warn".into()),
        )
        .with_ansi(terminal.colors_errors())
        .with_writer(std::io::stderr)
        .init();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the threads of the engine")
}

fn greet(running: &Running, asked: &[EgressBlock], pods: Pods, terminal: &mut Terminal) -> std::io::Result<()> {
    let machine = running.machine();
    let network = match machine.network {
        Level::Namespace => "each pod has its own network, policies are enforced",
        Level::Loopback => "pods have loopback addresses, and names in a hosts file; policies are not enforced",
    };
    match running {
        Running::Engine(engine) => {
            let report = engine.report();
            terminal.say(&format!("ready at https://{} after {} ms", report.address, report.serving.as_millis()))?;
        }
        Running::Joined(_) => terminal.say("ready at the other control plane: its pods run here")?,
    }
    terminal.say(&format!("network: {network}"))?;
    if let Some(egress) = egress(machine, asked) {
        terminal.say(&format!("egress: {egress}"))?;
    }
    terminal.say(&format!("containers: {}", containers(machine.isolation)))?;
    let gateway = machine.gateway;
    terminal.say(&format!(
        "gateway: http://{} and https://{}, figures at http://{}/metrics",
        gateway.http, gateway.https, gateway.admin
    ))?;
    if let Running::Engine(engine) = running {
        terminal.say(&format!("try: kubectl --kubeconfig {} get nodes", engine.report().kubeconfig.display()))?;
    }
    terminal.say(match (running, pods) {
        (Running::Engine(_), Pods::Stop) => "Ctrl-C stops it and its pods; the objects stay",
        (Running::Joined(_), Pods::Stop) => "Ctrl-C stops it and its pods; the nodes stay registered",
        (_, Pods::Keep) => "Ctrl-C stops it; the pods run on",
    })
}

/// What pods reach outside of the cluster, as a person is told. `None` if nothing was asked for where nothing is closed.
fn egress(machine: &MachineReport, asked: &[EgressBlock]) -> Option<String> {
    match (machine.network, machine.egress.as_slice()) {
        (Level::Namespace, []) => Some("closed, nothing outside of the cluster is reached".to_owned()),
        (Level::Namespace, open) => {
            let open: Vec<String> = open.iter().map(ToString::to_string).collect();
            Some(format!("TCP to {} is open, as far as policies allow it", open.join(", ")))
        }
        (Level::Loopback, _) if asked.is_empty() => None,
        (Level::Loopback, _) => {
            Some("`--egress` has no effect: pods are on the network of this machine, and nothing is closed".to_owned())
        }
    }
}

/// How containers have their volumes and keep to their limits, as a person is told.
pub(crate) fn containers(isolation: Isolation) -> String {
    let volumes = match isolation.mounts {
        MountIsolation::Private => "volumes are at the paths that pods name",
        MountIsolation::Linked => "volumes are links below the folder in `POD_ROOT`, and no root is read-only",
        MountIsolation::None => return "none, pods are only said to run".to_owned(),
    };
    let limits = match isolation.limits {
        LimitIsolation::CgroupV1 => "control groups (version 1) hold them to their limits",
        LimitIsolation::CgroupV2 => "control groups (version 2) hold them to their limits",
        LimitIsolation::Watched => {
            "no control group can be made, so their memory is looked at twice a second and their processors are not limited"
        }
        LimitIsolation::None => "nothing holds them to their limits",
    };
    format!("{volumes}; {limits}")
}

/// A node of a usual size.
fn default_node(zone: &str) -> NodeSpec {
    NodeSpec::new(format!("node-{zone}"), "4", "16Gi").in_zone(zone)
}

fn read(file: &Path) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| format!("failed to read `{}`", file.display()))
}

fn not_understood(terminal: &mut Terminal, file: &Path, why: &impl std::fmt::Display) -> anyhow::Result<Outcome> {
    terminal.say(&format!("error: `{}` is not understood: {why}", file.display()))?;
    Ok(Outcome::NotUnderstood)
}

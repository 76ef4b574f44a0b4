//! `landfall doctor`: what of this machine `up` and the engine can use, what is missing, and how to get it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use comfy_table::{Table, presets};
use landfall_engine::{
    Catalogue, Config, Engine, GatewayConfig, Isolation, MachineReport, MountIsolation, NODE_MONITOR_GRACE_PERIOD,
    NodeSpec, PodRuntime, Pods, Shim,
};
use landfall_model::Architecture;
use landfall_standin::{Server, find_program, find_server};
use serde::Serialize;

use crate::Outcome;
use crate::cli::{DoctorArguments, Output};
use crate::commands::engine::{NETWORK, NFT, POD, containers};
use crate::commands::up::{network_name, server_of};
use crate::namespaces;
use crate::output::VERSION;
use crate::project::Project;
use crate::terminal::Terminal;

/// The installers, which are part of this program: who has it need not have a checkout.
const SCRIPTS: &[(&str, &str)] = &[
    ("cache.bash", include_str!("../../../../tools/cache.bash")),
    ("install-packages", include_str!("../../../../tools/install-packages")),
    ("install-kafka", include_str!("../../../../tools/install-kafka")),
    ("install-ferretdb", include_str!("../../../../tools/install-ferretdb")),
];

/// How remedies begin that are carried out here: see [`Server::remedy`].
const PACKAGE: &str = "apt-get install ";
const SCRIPT: &str = "tools/";

/// What `up` does without a server.
const INSTEAD_OF_A_SERVER: &str = "`up` leaves out what needs it, edges and flows too, and says so; all else runs";

/// Servers that no store needs, for what they are, and what `up` does without them.
const EXTRAS: &[(Server, &str, &str)] = &[
    (Server::Prometheus, "metrics and rules", "`up` does not try metrics and rules, and says so"),
    (Server::Alertmanager, "alerts", "alerts reach nobody, and `up` says so"),
    (Server::Modsecurity, "web application firewalls", "the gateway lets every request through, and `up` says so"),
];

/// Programs that are no server of a store.
const PROGRAMS: &[Program] = &[
    Program {
        name: "nft",
        purpose: "network policies",
        places: NFT,
        remedy: "apt-get install nftables",
        instead: "pods get loopback addresses, and `up` counts undeclared ways as not enforceable here",
        needed: true,
    },
    Program {
        name: "wget",
        purpose: "the start script of S3 stores",
        places: &["/usr/bin/wget", "/usr/local/bin/wget"],
        remedy: "apt-get install wget",
        instead: "nothing; S3 stores get no buckets",
        needed: true,
    },
    Program {
        name: "kubectl",
        purpose: "looking at what runs",
        places: &["/usr/bin/kubectl", "/usr/local/bin/kubectl"],
        remedy: "https://kubernetes.io/docs/tasks/tools/",
        instead: "`landfall status`",
        needed: false,
    },
];

struct Program {
    name: &'static str,
    purpose: &'static str,
    /// Where it is when it is installed.
    places: &'static [&'static str],
    remedy: &'static str,
    instead: &'static str,
    /// Whether `up` does not work without it.
    needed: bool,
}

/// What is printed for programs.
#[derive(Debug, Serialize)]
struct Diagnosis {
    version: u32,
    /// How far pods can be kept apart here; tried, not guessed.
    isolation: &'static str,
    /// How containers have their volumes and keep to their limits; tried as well.
    containers: Isolation,
    /// What lets users make namespaces, where this system does not.
    namespaces: Option<&'static str>,
    /// The file whose stores were looked at.
    file: Option<PathBuf>,
    items: Vec<Item>,
    /// Whether nothing is missing that is needed.
    healthy: bool,
}

/// A server or a program.
#[derive(Debug, Serialize)]
struct Item {
    name: String,
    /// What it is for: a kind of stores, or a task.
    purpose: String,
    /// The stores of the file that need it.
    stores: Vec<String>,
    /// Whether it is needed: by a store of the file, or by `up` itself.
    needed: bool,
    /// Whether the file declares something that is tried with it, and that runs all the same without.
    wanted: bool,
    /// What was found: its version, or its name where it tells none.
    found: Option<String>,
    path: Option<PathBuf>,
    /// How to get it, when it is missing.
    remedy: Option<String>,
    /// What it cannot do that the real one can, or what is done without it.
    instead: Option<String>,
}

impl Item {
    fn is_missing(&self) -> bool {
        self.needed && self.found.is_none()
    }

    /// Whether the file is better tried with it than without.
    fn is_of_use(&self) -> bool {
        self.needed || self.wanted
    }
}

/// Says what is there. The answer is no when something is missing that the file, or without a file any store, needs.
pub(crate) fn run(arguments: &DoctorArguments, terminal: &mut Terminal) -> anyhow::Result<Outcome> {
    let beside = PathBuf::from("landfall.yaml");
    let file = arguments.file.clone().or_else(|| beside.is_file().then_some(beside));
    let declared = match &file {
        None => None,
        Some(file) => match declared(file)? {
            Ok(declared) => Some(declared),
            Err((project, findings)) => {
                terminal.findings(&findings, project.file.sources())?;
                return Ok(Outcome::NotUnderstood);
            }
        },
    };
    let mut items = items(declared.as_ref());
    if arguments.install {
        install(&items, terminal)?;
        items = self::items(declared.as_ref());
    }
    let machine = machine()?;
    let isolation = network_name(machine.network);
    let healthy = isolation == "namespace" && !items.iter().any(Item::is_missing);
    let containers = machine.isolation;
    let namespaces = (containers.mounts == MountIsolation::Linked).then(namespaces::remedy);
    let diagnosis = Diagnosis { version: VERSION, isolation, containers, namespaces, file, items, healthy };
    match arguments.output {
        Output::Json => writeln!(terminal.data(), "{}", serde_json::to_string_pretty(&diagnosis)?)?,
        Output::Text => print(&diagnosis, terminal)?,
    }
    Ok(if healthy { Outcome::Done } else { Outcome::No })
}

type Refused = (Project, Vec<landfall_model::Finding>);

/// What a file asks for, in any environment.
#[derive(Default)]
struct Declared {
    /// The stores that are to run here, by their engine.
    stores: BTreeMap<&'static str, BTreeSet<String>>,
    /// The servers that watch the platform, or stand before it.
    extras: BTreeSet<Server>,
}

fn declared(file: &Path) -> anyhow::Result<Result<Declared, Refused>> {
    let project = Project::read(file)?;
    let mut declared = Declared::default();
    for environment in project.environments(None) {
        let architecture = match project.file.architecture(environment.as_deref()) {
            Ok(architecture) => architecture,
            Err(findings) => return Ok(Err((project, findings))),
        };
        for (name, store) in &architecture.document.stores {
            // A store of a cloud is used where it is.
            if store.provider.value.is_managed() {
                continue;
            }
            let server = server_of(store.engine.value).map_or(store.engine.value.as_str(), Server::as_str);
            declared.stores.entry(server).or_default().insert(name.to_string());
        }
        declared.extras.extend(extras(&architecture));
    }
    Ok(Ok(declared))
}

/// The servers that watch this environment, or stand before it.
fn extras(architecture: &Architecture) -> impl Iterator<Item = Server> {
    let observability = &architecture.document.observability;
    let (watched, routes) = (observability.metrics.is_some(), &observability.alerts.routes);
    let told = [&routes.critical, &routes.warning, &routes.info].iter().any(|route| route.is_some());
    let prometheus = watched.then_some(Server::Prometheus);
    let firewall = architecture.behind_firewall().next().map(|_| Server::Modsecurity);
    prometheus.into_iter().chain((watched && told).then_some(Server::Alertmanager)).chain(firewall)
}

/// Everything that can be used; with a file given, only those servers are needed that one of its stores needs.
fn items(declared: Option<&Declared>) -> Vec<Item> {
    let stores = declared.map(|declared| &declared.stores);
    let users = |server: &str| -> Vec<String> {
        stores.and_then(|stores| stores.get(server)).into_iter().flatten().cloned().collect()
    };
    let mut items = Vec::new();
    for server in Server::ALL {
        let found = find_server(*server);
        let (name, users) = (server.as_str(), users(server.as_str()));
        let extra = EXTRAS.iter().find(|(extra, ..)| extra == server);
        items.push(Item {
            name: name.to_owned(),
            purpose: extra.map_or_else(|| format!("{name} stores"), |(_, purpose, _)| (*purpose).to_owned()),
            needed: declared.is_none() || !users.is_empty(),
            wanted: declared.is_some_and(|declared| declared.extras.contains(server)),
            stores: users,
            remedy: found.is_none().then(|| server.remedy().to_owned()),
            instead: match found {
                Some(_) => server.differs().map(ToOwned::to_owned),
                None => Some(extra.map_or(INSTEAD_OF_A_SERVER, |(.., instead)| *instead).to_owned()),
            },
            path: found.as_ref().map(|found| found.path.clone()),
            found: found.map(|found| found.version),
        });
    }
    // A kind of stores that no server here can be.
    let known: BTreeSet<_> = Server::ALL.iter().map(|server| server.as_str()).collect();
    for (engine, users) in stores.into_iter().flatten().filter(|(engine, _)| !known.contains(*engine)) {
        items.push(Item {
            name: (*engine).to_owned(),
            purpose: format!("{engine} stores"),
            stores: users.iter().cloned().collect(),
            needed: true,
            wanted: false,
            found: None,
            path: None,
            remedy: Some("not handled yet".to_owned()),
            instead: Some(INSTEAD_OF_A_SERVER.to_owned()),
        });
    }
    for program in PROGRAMS {
        let path = find_program(program.places);
        items.push(Item {
            name: program.name.to_owned(),
            purpose: program.purpose.to_owned(),
            stores: Vec::new(),
            needed: program.needed,
            wanted: false,
            remedy: path.is_none().then(|| program.remedy.to_owned()),
            instead: path.is_none().then(|| program.instead.to_owned()),
            found: path.is_some().then(|| program.name.to_owned()),
            path,
        });
    }
    items
}

/// Tries how far pods and containers can be kept apart: an engine without pods, which is stopped at once.
fn machine() -> anyhow::Result<MachineReport> {
    let folder = tempfile::tempdir().context("failed to make a temporary folder")?;
    let program = std::env::current_exe().context("failed to find this program")?;
    let again = |mode: &str| Shim { program: program.clone(), arguments: vec![mode.to_owned()] };
    let configuration = Config {
        data: folder.path().to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        kubeconfig: Some(folder.path().join("kubeconfig")),
        nodes: vec![NodeSpec::new("node-1", "1", "1Gi")],
        images: Catalogue::default(),
        runtime: PodRuntime::Processes(again(POD)),
        network: Some(again(NETWORK)),
        egress: Vec::new(),
        gateway: GatewayConfig::default(),
        node_monitor_grace_period: NODE_MONITOR_GRACE_PERIOD,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the threads of the engine")?;
    runtime.block_on(async {
        let engine = Engine::start(configuration).await?;
        let machine = engine.report().machine.clone();
        engine.stop(Pods::Stop).await;
        Ok(machine)
    })
}

/// Gets what is missing and of use: packages of the system, then what scripts build.
fn install(items: &[Item], terminal: &mut Terminal) -> anyhow::Result<()> {
    let remedies: Vec<&str> = items
        .iter()
        .filter(|item| item.is_of_use() && item.found.is_none())
        .filter_map(|item| item.remedy.as_deref())
        .flat_map(|remedy| remedy.split(" && "))
        .collect();
    let packages: Vec<&str> =
        remedies.iter().filter_map(|remedy| remedy.strip_prefix(PACKAGE)).flat_map(str::split_whitespace).collect();
    let scripts = remedies.iter().filter_map(|remedy| remedy.strip_prefix(SCRIPT));
    let mut runs: Vec<(&str, Vec<&str>)> = scripts.map(|script| (script, Vec::new())).collect();
    if !packages.is_empty() {
        runs.insert(0, ("install-packages", packages));
    }
    if runs.is_empty() {
        terminal.say("nothing to install")?;
        return Ok(());
    }
    let folder = tempfile::tempdir().context("failed to make a temporary folder")?;
    for (name, text) in SCRIPTS {
        fs::write(folder.path().join(name), text).with_context(|| format!("failed to write the script {name}"))?;
    }
    for (script, packages) in runs {
        terminal.say(format!("installing: {script} {}", packages.join(" ")).trim_end())?;
        terminal.flush()?;
        // What the installers print is progress, and stdout is for the diagnosis.
        let ended = Command::new("bash")
            .arg(folder.path().join(script))
            .args(packages)
            .stdout(Stdio::from(std::io::stderr()))
            .status()
            .context("failed to start bash")?;
        if !ended.success() {
            terminal.say(&format!("error: {script} ended with {ended}"))?;
        }
    }
    Ok(())
}

fn print(diagnosis: &Diagnosis, terminal: &mut Terminal) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["PROGRAM", "FOR", "FOUND", "PATH"]);
    for item in &diagnosis.items {
        let purpose = if item.stores.is_empty() {
            item.purpose.clone()
        } else {
            format!("{} ({})", item.purpose, item.stores.join(", "))
        };
        let missing = if item.is_of_use() { "missing" } else { "missing, not needed" };
        let found = item.found.as_deref().unwrap_or(missing);
        let path = item.path.as_ref().map_or_else(String::new, |path| path.display().to_string());
        table.add_row([item.name.as_str(), &purpose, found, &path]);
    }
    writeln!(terminal.data(), "{table}\n")?;
    let isolation = match diagnosis.isolation {
        "namespace" => "namespace: each pod has a network of its own, and policies are enforced",
        _ if diagnosis.containers.mounts == MountIsolation::Linked => {
            "loopback: pods share this machine's addresses, policies are not enforced, and `up` does not run, as containers have \
             no mounts of their own"
        }
        _ => {
            "loopback: pods share this machine's addresses, policies are not enforced, and `up` says what is open therefore"
        }
    };
    writeln!(terminal.data(), "isolation  {isolation}")?;
    writeln!(terminal.data(), "containers {}", containers(diagnosis.containers))?;
    if let Some(remedy) = diagnosis.namespaces {
        writeln!(terminal.data(), "missing    namespaces: {remedy}; until then: `up` does not run")?;
    }
    for item in &diagnosis.items {
        match (&item.found, &item.remedy, &item.instead) {
            (None, Some(remedy), Some(instead)) if item.is_of_use() => {
                writeln!(terminal.data(), "missing    {}: {remedy}; until then: {instead}", item.name)?;
            }
            (Some(_), _, Some(differs)) if item.needed => {
                writeln!(terminal.data(), "note       {}: {differs}", item.name)?;
            }
            _ => {}
        }
    }
    let lacking = diagnosis.items.iter().filter(|item| item.is_of_use() && item.found.is_none());
    let mut remedies = lacking.filter_map(|item| item.remedy.as_deref());
    if remedies.any(|remedy| [PACKAGE, SCRIPT].iter().any(|kind| remedy.starts_with(kind))) {
        terminal.say("hint: `landfall doctor --install` gets what the package manager and Go have")?;
    }
    Ok(())
}

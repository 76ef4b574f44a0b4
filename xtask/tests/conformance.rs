//! Plays the scenarios of `tests/conformance` against Kubernetes and against the engine, and compares the answers.
//!
//! Run it with `cargo xtask conformance`. The exit code is 0 if every answer is as recorded or as listed, 1 if not, and 3
//! if the scenarios could not be played.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a chore tells a person at a terminal what it found")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use landfall_testing::scenario::{Against, Alphabet, Endpoint, Outcome, Suite, check_random};
use landfall_testing::{ControlPlane, FakeKubelet, FakeNode, Pieces, StartError, require_or_skip};
use tokio::process::{Child, Command};

/// How long a server may take until it has written its kubeconfig and answers.
const START: Duration = Duration::from_mins(1);

/// What stands around the table of known differences in the documentation.
const TABLE_START: &str = "<!-- known differences -->\n";
const TABLE_END: &str = "<!-- end -->";

/// The nodes. They share a zone, as pods are labelled with the zone that the scheduler happens to choose.
const NODES: [&str; 2] = ["node-1", "node-2"];

/// Compares answers of API servers with those of Kubernetes.
#[derive(Parser)]
#[command(name = "cargo xtask conformance --")]
struct Arguments {
    /// Scenarios (`watch/resume`) or areas (`watch`); all when there are none.
    names: Vec<String>,
    /// A running Kubernetes with its controllers; one is started when there is none.
    #[arg(long, value_name = "FILE")]
    kubernetes: Option<PathBuf>,
    /// A running server to compare with the recordings, instead of Kubernetes.
    #[arg(long, value_name = "FILE", conflicts_with = "engine")]
    kubeconfig: Option<PathBuf>,
    /// A binary whose `engine` command is started and compared with the recordings, after Kubernetes.
    #[arg(long, value_name = "PATH", env = "LANDFALL_ENGINE")]
    engine: Option<PathBuf>,
    /// Leave Kubernetes out: trust the recordings. Random scenarios have none, so they are left out too.
    #[arg(long)]
    recorded: bool,
    /// Play the random scenario of this seed instead, against Kubernetes and the other server; may be given more than once.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["names", "recorded", "list"])]
    random: Vec<u64>,
    /// How much a random scenario does.
    #[arg(long, value_name = "N", requires = "random")]
    steps: Option<usize>,
    /// Show requests and answers.
    #[arg(long)]
    verbose: bool,
    /// List the scenarios and what each shows.
    #[arg(long)]
    list: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match conformance(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        }
    }
}

async fn conformance(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = root.join("tests/conformance");
    let suite = Suite::load(&folder)?.only(&arguments.names)?;
    let alphabet = Alphabet::load(&folder)?;
    if arguments.list {
        for (name, shows) in suite.titles() {
            println!("{name}: {shows}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let bless = std::env::var_os("LANDFALL_BLESS").is_some_and(|value| value == "1");
    document(&root.join("docs/engine.md"), &suite.known_table()?, bless)?;
    let verbose = arguments.verbose;
    let trace = move |line: &str| {
        if verbose {
            eprintln!("{line}");
        }
    };

    let scripted = arguments.random.is_empty();
    // Random ones go with the whole suite. The answers of another server than the engine are only recorded ones, unless asked.
    let seeds = match &arguments.random[..] {
        [] if arguments.names.is_empty() && arguments.kubeconfig.is_none() => &alphabet.seeds[..],
        asked => asked,
    };
    let steps = arguments.steps.unwrap_or(alphabet.steps);
    let random: Vec<_> = seeds.iter().map(|seed| alphabet.scenario(*seed, steps)).collect();

    let mut kubernetes = None;
    if !arguments.recorded && (arguments.kubeconfig.is_none() || !scripted) {
        let Some(found) = Kubernetes::get(arguments.kubernetes).await? else { return Ok(ExitCode::SUCCESS) };
        kubernetes = Some((Server::join(found.kubeconfig()).await?, found));
    }
    let mut outcome = None;
    if let Some((kubernetes, _)) = kubernetes.as_ref().filter(|_| scripted) {
        let played = play(&suite, &kubernetes.endpoint, Against::Kubernetes, bless, &trace).await?;
        outcome = Some(("Kubernetes", played));
    }
    // What is compared with wrong recordings says nothing.
    if outcome.as_ref().is_none_or(|(_, outcome)| outcome.holds()) {
        let data = tempfile::tempdir().context("failed to make a temporary folder")?;
        let mut engine = None;
        let candidate = match (&arguments.kubeconfig, &arguments.engine) {
            (Some(kubeconfig), _) => Some(("the server", Server::join(kubeconfig).await?)),
            (None, Some(program)) => {
                let engine = engine.insert(Engine::start(program, data.path()).await?);
                Some(("the engine", Server::join(&engine.kubeconfig).await?))
            }
            (None, None) => None,
        };
        if let Some((whose, candidate)) = candidate {
            let mut played = Outcome::default();
            if scripted {
                played.add(play(&suite, &candidate.endpoint, Against::Candidate, bless, &trace).await?);
            }
            if let Some((kubernetes, _)) = &kubernetes {
                played.add(check_random(&random, &kubernetes.endpoint, &candidate.endpoint, &trace).await);
            }
            outcome = Some((whose, played));
        }
        if let Some(mut engine) = engine {
            engine.process.kill().await.context("failed to end the engine")?;
        }
    }
    let Some((whose, outcome)) = outcome else { bail!("there is nothing to play the scenarios against") };
    let readme = root.join("README.md");
    let written = fs::read_to_string(&readme).with_context(|| format!("failed to read `{}`", readme.display()))?;
    if scripted && arguments.names.is_empty() && outcome.holds() && !written.contains(&outcome.to_string()) {
        eprintln!("hint: README.md says another result");
    }
    Ok(tell(whose, &outcome))
}

/// Plays the scenarios against a server.
async fn play(
    suite: &Suite,
    endpoint: &Endpoint,
    against: Against,
    bless: bool,
    trace: &dyn Fn(&str),
) -> anyhow::Result<Outcome> {
    Ok(if bless && against == Against::Kubernetes {
        suite.record(endpoint, trace).await?
    } else {
        suite.check(endpoint, against, trace).await?
    })
}

/// A server that is played against, beside a kubelet that says that pods run.
struct Server {
    endpoint: Endpoint,
    _kubelet: FakeKubelet,
}

impl Server {
    async fn join(kubeconfig: &Path) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_kubeconfig(kubeconfig).await?;
        let nodes = NODES.map(|name| FakeNode::new(name, "a").with_pods(1_000));
        let kubelet = FakeKubelet::start(endpoint.client(), nodes).await.context("failed to register nodes")?;
        Ok(Self { endpoint, _kubelet: kubelet })
    }
}

/// A Kubernetes that somebody else runs, or one for this run.
enum Kubernetes {
    Running(PathBuf),
    Started(ControlPlane),
}

impl Kubernetes {
    /// `None`: there are no programs to start one with, and nobody asked for it.
    async fn get(running: Option<PathBuf>) -> anyhow::Result<Option<Self>> {
        if let Some(kubeconfig) = running {
            return Ok(Some(Self::Running(kubeconfig)));
        }
        match ControlPlane::start(Pieces::default()).await {
            Err(missing @ StartError::Missing(_)) => {
                Ok(require_or_skip("a real control plane", Err::<ControlPlane, _>(missing)).map(Self::Started))
            }
            started => Ok(Some(Self::Started(started.context("failed to start Kubernetes")?))),
        }
    }

    fn kubeconfig(&self) -> &Path {
        match self {
            Self::Running(kubeconfig) => kubeconfig,
            Self::Started(control_plane) => control_plane.kubeconfig(),
        }
    }
}

/// Compares the table of known differences in the documentation with the list, or writes it there.
fn document(file: &Path, table: &str, bless: bool) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("failed to read `{}`", file.display()))?;
    let parts = text.split_once(TABLE_START).and_then(|(before, rest)| Some((before, rest.split_once(TABLE_END)?)));
    let Some((before, (written, after))) = parts else {
        bail!("`{}` has no `{}` … `{}`", file.display(), TABLE_START.trim(), TABLE_END.trim());
    };
    if written == table {
        return Ok(());
    }
    if !bless {
        bail!("`{}` does not show tests/conformance/known.yaml: run it with `LANDFALL_BLESS=1`", file.display());
    }
    let text = format!("{before}{TABLE_START}{table}{TABLE_END}{after}");
    fs::write(file, text).with_context(|| format!("failed to write `{}`", file.display()))
}

fn tell(whose: &str, outcome: &Outcome) -> ExitCode {
    print!("{}", outcome.report);
    if !outcome.holds() {
        println!("{whose} did not answer as recorded\n");
    }
    println!("{outcome}");
    if outcome.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A started engine.
struct Engine {
    process: Child,
    kubeconfig: PathBuf,
}

impl Engine {
    async fn start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let kubeconfig = folder.join("kubeconfig");
        // The nodes are those of the runner.
        let nodes = folder.join("nodes.yaml");
        fs::write(&nodes, "nodes: []\n").with_context(|| format!("failed to write `{}`", nodes.display()))?;
        let mut process = Command::new(program)
            .args(["engine", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.join("data"))
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .args(["--network", "loopback", "--nodes"])
            .arg(&nodes)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to start `{} engine`", program.display()))?;
        let deadline = Instant::now() + START;
        while !kubeconfig.exists() {
            if let Some(status) = process.try_wait().context("failed to look after the engine")? {
                bail!("`{} engine` ended at its start: {status}", program.display());
            }
            if Instant::now() > deadline {
                bail!("`{} engine` has written no kubeconfig", program.display());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { process, kubeconfig })
    }
}

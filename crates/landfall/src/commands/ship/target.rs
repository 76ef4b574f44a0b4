//! Which architecture is meant, and which cluster.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt as _};
use landfall_deliver::{Release, Telling, phase_of};
use landfall_model::Architecture;

use crate::Outcome;
use crate::cli::ClusterArguments;
use crate::commands::pipeline::folder_of;
use crate::commands::up::Place;
use crate::files::write_whole;
use crate::output::{ReleaseOutput, VERSION};
use crate::project::Project;
use crate::terminal::Terminal;

/// One environment of an architecture, and where `up` would run it.
pub(crate) struct Target {
    pub(crate) project: Project,
    pub(crate) environment: Option<String>,
    pub(crate) architecture: Architecture,
    pub(crate) place: Place,
    /// The folder of the file.
    folder: PathBuf,
    /// Whether the cluster is what `up` runs.
    is_here: Cell<bool>,
}

/// How long a command tries to send what is left of its messages when the release has ended.
const LINGER: Duration = Duration::from_secs(10);

impl Target {
    /// Reads the file; `Err` when that has been answered already.
    pub(crate) fn find(
        file: &Path,
        wanted: Option<&str>,
        terminal: &mut Terminal,
    ) -> anyhow::Result<Result<Self, Outcome>> {
        let project = Project::read(file)?;
        let environment = match project.one_environment(wanted) {
            Ok(environment) => environment,
            Err(hint) => {
                terminal.say(&hint)?;
                return Ok(Err(Outcome::NotUnderstood));
            }
        };
        let architecture = match project.file.architecture(environment.as_deref()) {
            Ok(architecture) => architecture,
            Err(findings) => {
                terminal.findings(&findings, project.file.sources())?;
                return Ok(Err(Outcome::NotUnderstood));
            }
        };
        let place = Place::of(file, architecture.document.name.as_str(), environment.as_deref());
        let folder = folder_of(file)?;
        Ok(Ok(Self { project, environment, architecture, place, folder, is_here: Cell::new(false) }))
    }

    /// How people are told of its releases.
    pub(crate) fn telling(&self) -> Telling {
        Telling { folder: self.folder.clone(), linger: LINGER }
    }

    /// Keeps how a release has ended for `landfall claims`, if it was one of what `up` runs.
    pub(super) fn keep(&self, release: &Release) -> anyhow::Result<()> {
        if !self.is_here.get() || !phase_of(release).is_terminal() {
            return Ok(());
        }
        let file = self.place.releases().join(format!("{}.json", release.name_any()));
        let report: Option<serde_json::Value> =
            fs::read(self.place.report()).ok().and_then(|report| serde_json::from_slice(&report).ok());
        let kept = serde_json::json!({
            "version": VERSION,
            "environment": self.environment,
            // As what runs here has said of itself, if it has.
            "isolation": report.map(|report| report["isolation"].clone()),
            "release": ReleaseOutput::new(VERSION, release),
        });
        write_whole(&file, kept.to_string().as_bytes())
    }

    /// The name of the architecture.
    pub(crate) fn name(&self) -> &str {
        self.architecture.document.name.as_str()
    }

    /// How a command names this environment: ` --env production`, or nothing.
    pub(crate) fn flag(&self) -> String {
        self.environment.as_deref().map(|name| format!(" --env {name}")).unwrap_or_default()
    }

    /// Where its releases are kept.
    pub(crate) fn namespace(&self) -> &str {
        self.architecture.namespace().as_str()
    }
}

/// Runs `work` with a client of the cluster that is meant.
pub(crate) fn in_a_cluster(
    target: &Target,
    cluster: &ClusterArguments,
    terminal: &mut Terminal,
    work: impl AsyncFnOnce(Client, &mut Terminal) -> anyhow::Result<Outcome>,
) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start a thread for requests")?;
    runtime.block_on(async {
        match connect(target, cluster, terminal).await? {
            Some(client) => work(client, terminal).await,
            None => Ok(Outcome::NotUnderstood),
        }
    })
}

/// Whether a cluster is an engine of ours, whose images are programs of a catalogue.
pub(crate) async fn is_engine(client: &Client) -> anyhow::Result<bool> {
    /// What its version ends in.
    const MARK: &str = "+landfall";
    let version = client.apiserver_version().await.context("failed to ask the cluster for its version")?;
    Ok(version.git_version.ends_with(MARK))
}

/// A client of the cluster that is meant; nothing when nobody named one, which is said.
///
/// A cluster that nobody named is never one of the user's kubeconfig: whoever forgets a flag would ship to production.
pub(crate) async fn connect(
    target: &Target,
    cluster: &ClusterArguments,
    terminal: &mut Terminal,
) -> anyhow::Result<Option<Client>> {
    let kubeconfig = match (&cluster.kubeconfig, &cluster.context) {
        (Some(file), _) => {
            Kubeconfig::read_from(file).with_context(|| format!("failed to read `{}`", file.display()))?
        }
        (None, Some(_)) => Kubeconfig::read().context("failed to read the kubeconfig")?,
        (None, None) if target.place.occupant().is_some() => {
            target.is_here.set(true);
            let file = target.place.kubeconfig();
            Kubeconfig::read_from(&file).with_context(|| format!("failed to read `{}`", file.display()))?
        }
        (None, None) => {
            let named = target.flag();
            terminal.say(&format!(
                "error: which cluster?\nhint: add `--context` or `--kubeconfig`, or run it here first: `landfall up{named}`"
            ))?;
            return Ok(None);
        }
    };
    let options = KubeConfigOptions { context: cluster.context.clone(), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.context("failed to use the kubeconfig")?;
    Client::try_from(config).context("failed to make a client").map(Some)
}

//! Where the real tools are: `make tools` installs them, `LANDFALL_TOOLS` names another folder for them.
//!
//! The versions here are those of the installers in `tools/`. They stand in the names of the folders, so a tool of another
//! version is a missing one. promtool and amtool are also taken from the system: the formats that they read are older than
//! any version that a system has, and Debian's package takes seconds where the build takes minutes.

use std::env;
use std::path::PathBuf;

const CONTROL_PLANE: &str = "kubernetes-1.36.3";
const OLD_CLIENTS: &str = "clients-kubectl-1.31.9-helm-3.17.3";
const NEW_CLIENTS: &str = "clients-kubectl-1.37.1-helm-4.3.1";
const TOFU: &str = "tofu-v1.10.6";
const ACTIONLINT: &str = "actionlint-v1.7.7";
const PROMTOOL: &str = "promtool-v0.305.0";
const AMTOOL: &str = "amtool-v0.28.1";
const MERMAID: &str = "mermaid-12.3.0";
const HADOLINT: &str = "hadolint-2.15.1";
const GITLAB_CI_LOCAL: &str = "gitlab-ci-local-4.65.1";
const CHECKOV: &str = "checkov-3.3.30";
const COLLECTOR: &str = "collector-0.161.0";

/// A real program that tests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// The store behind the API server.
    Etcd,
    /// The real API server.
    ApiServer,
    /// The real controllers.
    ControllerManager,
    /// The real scheduler.
    Scheduler,
    /// A current kubectl.
    Kubectl,
    /// A kubectl that users still have.
    OldKubectl,
    /// A current Helm.
    Helm,
    /// The reader of Prometheus' rules and configuration.
    Promtool,
    /// The reader of Alertmanager's configuration.
    Amtool,
    /// A program for Node that has Mermaid's own parser read the diagrams of Markdown files.
    Mermaid,
    /// The last Helm 3 minor version but a few: it writes releases and merges in the old way.
    OldHelm,
    /// The reader of GitHub's workflows.
    Actionlint,
    /// The reader of Terraform.
    Tofu,
    /// The reader of Dockerfiles.
    Hadolint,
    /// A program for Node that holds pipelines against GitLab's schema, and runs them.
    GitlabCiLocal,
    /// The scanner of Terraform for settings that are not secure; `make tools-all` has it.
    Checkov,
    /// The OpenTelemetry collector with the components that are rendered; `make tools-all` has it.
    Collector,
}

/// A tool that is not on this machine.
#[derive(Debug, thiserror::Error)]
#[error("no `{}`; run `make tools`, or set LANDFALL_TOOLS", path.display())]
pub struct MissingTool {
    path: PathBuf,
}

impl Tool {
    /// The program.
    pub fn locate(self) -> Result<PathBuf, MissingTool> {
        let (folder, program) = match self {
            Self::Etcd => (CONTROL_PLANE, "etcd"),
            Self::ApiServer => (CONTROL_PLANE, "kube-apiserver"),
            Self::ControllerManager => (CONTROL_PLANE, "kube-controller-manager"),
            Self::Scheduler => (CONTROL_PLANE, "kube-scheduler"),
            Self::Kubectl => (NEW_CLIENTS, "kubectl"),
            Self::OldKubectl => (OLD_CLIENTS, "kubectl"),
            Self::Helm => (NEW_CLIENTS, "helm"),
            Self::OldHelm => (OLD_CLIENTS, "helm"),
            Self::Actionlint => (ACTIONLINT, "actionlint"),
            Self::Tofu => (TOFU, "tofu"),
            Self::Promtool => (PROMTOOL, "promtool"),
            Self::Amtool => (AMTOOL, "amtool"),
            Self::Mermaid => (MERMAID, "parse.mjs"),
            Self::Hadolint => (HADOLINT, "hadolint"),
            Self::GitlabCiLocal => (GITLAB_CI_LOCAL, "node_modules/gitlab-ci-local/src/index.js"),
            Self::Checkov => (CHECKOV, "bin/checkov"),
            Self::Collector => (COLLECTOR, "otelcol"),
        };
        let path = tools_folder().join(folder).join(program);
        let of_system = PathBuf::from("/usr/bin").join(program);
        if matches!(self, Self::Promtool | Self::Amtool) && !path.is_file() && of_system.is_file() {
            return Ok(of_system);
        }
        if path.is_file() { Ok(path) } else { Err(MissingTool { path }) }
    }
}

/// The folder below which each tool has its own.
pub(crate) fn tools_folder() -> PathBuf {
    env::var_os("LANDFALL_TOOLS")
        .map_or_else(|| env::home_dir().unwrap_or_default().join(".cache/landfall/tools"), PathBuf::from)
}

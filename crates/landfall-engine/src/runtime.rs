//! Runs the containers of pods: as processes of this machine ([`process`]), or as nothing at all ([`mock`]).
//!
//! A runtime knows no Kubernetes object. It is told of a sandbox (a pod's place: its folder, its address) and of containers
//! (a program, its environment, its mounts), starts and stops them, and says what became of them. What should run, and when
//! it should run again, is the node agent's business.

pub(crate) mod child;
pub(crate) mod messages;
pub(crate) mod mock;
pub(crate) mod process;
pub(crate) mod run_folder;
pub(crate) mod shim;

mod launch;
mod limits;
mod logs;
mod mounts;
mod processes;
mod zygote;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::api::node_agent::{Command, Session};

/// Starts sandboxes.
pub(crate) trait Runtime: Send + Sync + 'static {
    /// How far containers are kept apart here.
    fn isolation(&self) -> Isolation;

    /// The sandboxes that an earlier engine has left in the data folder.
    fn left_behind(&self) -> Result<Vec<PodSandbox>, RuntimeError>;

    /// Whether the sandbox with this uid runs, whoever has started it. One that was closed does not, and is left behind all the same.
    fn runs(&self, uid: &str) -> bool;

    /// Starts the sandbox, or finds the one with this uid that is there already, with its containers.
    fn open(&self, sandbox: PodSandbox) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, RuntimeError>>;

    /// Where the files of a pod lie that outlive a reboot: its logs, and its volumes on the disk. Exists after [`Runtime::open`].
    fn directory(&self, uid: &str) -> PathBuf;

    /// Where its other files lie: volumes made from objects, and those in memory. Exists from [`Runtime::open`] to
    /// [`Sandbox::close`].
    fn run_directory(&self, uid: &str) -> PathBuf;
}

/// The containers of one pod.
pub(crate) trait Sandbox: Send + Sync + 'static {
    /// Starts a container, and waits until its program runs or could not be run: its record then says `StartError`.
    fn start(&self, container: ContainerSpec) -> BoxFuture<'_, Result<ContainerRecord, RuntimeError>>;

    /// Asks the container with this id to end by `signal`, kills it after `grace`, and waits until it has ended. A
    /// container that is not there has ended.
    fn stop<'a>(&'a self, id: &'a str, signal: &'a str, grace: Duration) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// What became of the containers so far, and at each change.
    fn records(&self) -> watch::Receiver<Records>;

    /// Runs a command beside the process of a running container, or attaches to that process.
    fn exec<'a>(&'a self, id: &'a str, command: Command) -> BoxFuture<'a, Result<Session, RuntimeError>>;

    /// What a container uses at this moment: processor time so far, and memory.
    fn usage(&self, id: &str) -> Option<Consumption>;

    /// Kills what still runs, ends the sandbox and deletes its files of [`Runtime::run_directory`], where those are others. The
    /// rest stays: see [`Sandbox::remove`].
    fn close(&self) -> BoxFuture<'_, ()>;

    /// Deletes all files of a closed sandbox.
    fn remove(&self) -> BoxFuture<'_, Result<(), RuntimeError>>;
}

/// How far the containers on this machine are kept apart. Every level is real: nothing is claimed that the system did not
/// allow when it was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// How a container finds its volumes.
    pub mounts: MountIsolation,
    /// How `resources.limits` hold.
    pub limits: LimitIsolation,
}

impl Isolation {
    /// Whether nothing runs at all.
    pub(crate) fn is_none(self) -> bool {
        self.mounts == MountIsolation::None
    }
}

/// How a container finds its volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountIsolation {
    /// Each container has a mount namespace of its own: volumes are at the paths that the pod names, and only there.
    Private,
    /// No namespace is to be had. The mounts are links below a folder of the container, which `POD_ROOT` names.
    Linked,
    /// Nothing runs.
    None,
}

/// How `resources.limits` hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitIsolation {
    /// Memory and processor time by control groups, version 1 hierarchies.
    CgroupV1,
    /// Memory and processor time by control groups, version 2.
    CgroupV2,
    /// No control group may be made here. Memory is looked at, and who has more than its limit is killed; processors are not
    /// limited.
    Watched,
    /// Nothing runs.
    None,
}

/// A pod's place on the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodSandbox {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The simulated node that it is on.
    pub(crate) node: String,
    pub(crate) hostname: String,
    /// The address that others reach it by.
    pub(crate) ip: IpAddr,
    /// The network namespace that its containers enter. None: the one of the engine.
    pub(crate) netns: Option<NetworkNamespace>,
    /// What its containers read in `/etc/hosts`. None: the file of the machine.
    pub(crate) hosts: Option<String>,
    /// A folder whose file `hosts` takes the place of that text, as it is written anew when names change.
    #[serde(default)]
    pub(crate) names: Option<PathBuf>,
    /// What its containers read in `/etc/resolv.conf`. None: the file of the machine.
    pub(crate) resolv_conf: Option<String>,
}

/// A network namespace that is there already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkNamespace {
    /// A file that stands for it.
    pub(crate) file: PathBuf,
    /// The user namespace that it belongs to, which an ordinary user enters first.
    pub(crate) owner: Option<PathBuf>,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerSpec {
    pub(crate) name: String,
    /// Zero for the first start, one more for each restart.
    pub(crate) attempt: u32,
    /// Unique on the machine.
    pub(crate) id: String,
    pub(crate) image: String,
    /// Never empty. The program is looked for in the `PATH` of `env`.
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) working_dir: Option<PathBuf>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) limits: Limits,
    pub(crate) stdin: Stdin,
    pub(crate) tty: bool,
    /// The file of the last words, as the container sees it.
    pub(crate) termination_message_path: PathBuf,
    /// Whether the end of the log serves as last words when the file is empty and the container failed.
    pub(crate) termination_message_from_log: bool,
    /// Its programs never get more rights than it had, whatever the files that they come from say.
    pub(crate) no_new_privileges: bool,
    /// Outside its volumes it can change no file. Only where [`MountIsolation::Private`].
    pub(crate) read_only_root: bool,
}

/// What a container reads when nobody is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stdin {
    /// An empty file.
    Closed,
    /// A pipe that stays open.
    Open,
    /// A pipe that is closed when the first client goes.
    Once,
}

/// A file or folder of the machine that a container sees at a path of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    pub(crate) source: PathBuf,
    /// Absolute.
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
}

/// What a container may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) cpu_millis: Option<u64>,
    /// What it asked for: its share when the machine is busy.
    pub(crate) cpu_request_millis: Option<u64>,
}

/// What a container has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Consumption {
    pub(crate) cpu: Duration,
    pub(crate) memory_bytes: u64,
}

/// The containers of a sandbox, oldest first; of each name the last two at most.
pub(crate) type Records = Arc<[ContainerRecord]>;

/// What became of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) id: String,
    pub(crate) image: String,
    pub(crate) state: ContainerState,
    /// It ran in a sandbox before this one, as before a reboot.
    #[serde(default)]
    pub(crate) earlier: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ContainerState {
    Running {
        pid: i32,
        /// Field 22 of `/proc/PID/stat`: with the pid, it names one process for as long as the machine is up.
        ticks: u64,
        started_at: Timestamp,
    },
    Exited(Exit),
}

/// The reason of a container whose program never ran.
pub(crate) const START_ERROR: &str = "StartError";

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
    /// 128 and the signal's number, when a signal ended it.
    pub(crate) code: i32,
    /// `Completed`, `Error`, `OOMKilled`, [`START_ERROR`], `ContainerStatusUnknown`.
    pub(crate) reason: String,
    /// Its last words.
    pub(crate) message: Option<String>,
}

impl ContainerRecord {
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }

    pub(crate) fn exit(&self) -> Option<&Exit> {
        match &self.state {
            ContainerState::Running { .. } => None,
            ContainerState::Exited(exit) => Some(exit),
        }
    }
}

/// The last container of this name.
pub(crate) fn latest<'a>(records: &'a [ContainerRecord], name: &str) -> Option<&'a ContainerRecord> {
    records.iter().rev().find(|record| record.name == name)
}

/// The file that the log of a container is written to. What was rotated away lies beside it, with a number appended.
pub(crate) fn log_file(directory: &Path, container: &str, attempt: u32) -> PathBuf {
    // A name has no dots. A folder of its own would be more to create than the file.
    directory.join(format!("{container}.{attempt}.log"))
}

/// Why a runtime could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimeError {
    #[error("failed to {operation} `{}`", path.display())]
    File { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("failed to {operation}")]
    Shim { operation: &'static str, source: std::io::Error },
    /// What the shim or the system answered.
    #[error("{0}")]
    Refused(String),
}

impl RuntimeError {
    /// For `map_err`: names the operation and its file.
    pub(crate) fn file(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { operation, path: path.to_path_buf(), source }
    }

    /// For `map_err`: names the operation.
    pub(crate) fn shim(operation: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Shim { operation, source }
    }
}

//! Control groups: what a container may use, where this system lets us say so.
//!
//! All containers are in groups below one group, which has the weight of the whole machine, as Kubernetes' nodes have it
//! (`kubepods`): what a container asked for is its share of that. Beside the processes of everybody else, the two of 1024
//! that a container gets which asked for nothing would be next to no time at all on a busy machine.
//!
//! Version 1: this group is below our own in the memory and the cpu hierarchy. Version 2: our own group must be delegated to us
//! with these controllers (a service or scope with `Delegate=yes`); as a group with groups below it may hold no process
//! (cgroups(7), "no internal processes"), the engine first moves into one of its own.
//!
//! Without control groups the shims look at the memory of their containers (`shim/memory.rs`). `RLIMIT_AS` counts address
//! space, which many runtimes reserve by the gigabyte, so that it would stop programs that are well within their limit.
//! Not handled: limits and shares of processors without control groups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{LimitIsolation, Limits};

/// A period of the processor quota in microseconds: the default of the kubelet and the kernel.
const PERIOD: u64 = 100_000;

/// The group of all containers, of whichever engine.
const PODS: &str = "landfall-pods";

/// Where groups can be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cgroups {
    V1 { memory: PathBuf, cpu: PathBuf },
    V2 { base: PathBuf },
    None,
}

impl Cgroups {
    /// Finds out by trying.
    pub(super) fn detect() -> Self {
        let Ok(own) = fs::read_to_string("/proc/self/cgroup") else { return Self::None };
        let root = Path::new("/sys/fs/cgroup");
        let path = |controller: &str| -> Option<PathBuf> {
            let line = own.lines().find(|line| {
                line.split(':').nth(1).is_some_and(|names| names.split(',').any(|name| name == controller))
            })?;
            let group = line.splitn(3, ':').nth(2)?.trim_start_matches('/');
            Some(if controller.is_empty() { root.join(group) } else { root.join(controller).join(group) })
        };
        if let (Some(memory), Some(cpu)) = (path("memory"), path("cpu")) {
            let (memory, cpu) = (memory.join(PODS), cpu.join(PODS));
            let made = works(&memory).and_then(|()| works(&cpu));
            let made = made.and_then(|()| fs::write(cpu.join("cpu.shares"), machine().to_string()));
            return if made.is_ok() { Self::V1 { memory, cpu } } else { Self::None };
        }
        match path("").map(|own| delegate(&own)) {
            Some(Ok(base)) => Self::V2 { base },
            _ => Self::None,
        }
    }

    pub(super) fn isolation(&self) -> LimitIsolation {
        match self {
            Self::V1 { .. } => LimitIsolation::CgroupV1,
            Self::V2 { .. } => LimitIsolation::CgroupV2,
            Self::None => LimitIsolation::Watched,
        }
    }

    /// Whether the kernel holds containers to their limits.
    pub(super) fn hold(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Makes the group of a container with its limits.
    pub(super) fn create(&self, id: &str, limits: &Limits) -> io::Result<Group> {
        let name = format!("landfall-{id}");
        let group = match self {
            Self::None => return Ok(Group { folders: Vec::new() }),
            Self::V1 { memory, cpu } => Group { folders: vec![memory.join(&name), cpu.join(&name)] },
            Self::V2 { base } => Group { folders: vec![base.join(&name)] },
        };
        for folder in &group.folders {
            fs::create_dir_all(folder)?;
        }
        match (self, group.folders.as_slice()) {
            (Self::V1 { .. }, [memory, cpu]) => {
                if let Some(bytes) = limits.memory_bytes {
                    fs::write(memory.join("memory.limit_in_bytes"), bytes.to_string())?;
                }
                if let Some(millis) = limits.cpu_millis {
                    fs::write(cpu.join("cpu.cfs_quota_us"), quota(millis).to_string())?;
                }
                fs::write(cpu.join("cpu.shares"), shares(limits).to_string())?;
            }
            (Self::V2 { .. }, [both]) => {
                if let Some(bytes) = limits.memory_bytes {
                    fs::write(both.join("memory.max"), bytes.to_string())?;
                }
                if let Some(millis) = limits.cpu_millis {
                    fs::write(both.join("cpu.max"), format!("{} {PERIOD}", quota(millis)))?;
                }
                fs::write(both.join("cpu.weight"), weight(shares(limits)).to_string())?;
            }
            _ => {}
        }
        Ok(group)
    }

    /// The group that [`Cgroups::create`] has made for this container.
    pub(super) fn group(&self, id: &str) -> Group {
        let name = format!("landfall-{id}");
        let folders = match self {
            Self::None => Vec::new(),
            Self::V1 { memory, cpu } => vec![memory.join(&name), cpu.join(&name)],
            Self::V2 { base } => vec![base.join(&name)],
        };
        Group { folders }
    }
}

/// The group of one container; the folder that counts memory comes first.
#[derive(Debug)]
pub(super) struct Group {
    folders: Vec<PathBuf>,
}

impl Group {
    pub(super) fn procs(&self) -> Vec<PathBuf> {
        self.folders.iter().map(|folder| folder.join("cgroup.procs")).collect()
    }

    pub(super) fn members(&self) -> Vec<i32> {
        let Some(folder) = self.folders.first() else { return Vec::new() };
        let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Whether the kernel has killed a process of the group for its memory.
    pub(super) fn out_of_memory(&self) -> bool {
        let Some(folder) = self.folders.first() else { return false };
        ["memory.oom_control", "memory.events"].iter().any(|file| {
            let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
            text.lines().any(|line| {
                line.strip_prefix("oom_kill ")
                    .is_some_and(|count| count.trim().parse().is_ok_and(|count: u64| count > 0))
            })
        })
    }

    /// Fails while a process is in it; the folder then stays, empty and without effect.
    pub(super) fn remove(&self) {
        for folder in &self.folders {
            let _ = fs::remove_dir(folder);
        }
    }
}

fn quota(millis: u64) -> u64 {
    // The kernel accepts no quota below a millisecond.
    (millis * PERIOD / 1000).max(1000)
}

fn shares(limits: &Limits) -> u64 {
    let millis = limits.cpu_request_millis.or(limits.cpu_millis).unwrap_or_default();
    (millis * 1024 / 1000).clamp(2, 262_144)
}

/// What all processors of this machine weigh.
fn machine() -> u64 {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (count as u64 * 1024).clamp(2, 262_144)
}

/// Shares of version 1 as the weight of version 2: from 2..262144 to 1..10000 (KEP-2254).
fn weight(shares: u64) -> u64 {
    1 + (shares - 2) * 9999 / 262_142
}

/// Makes the group of all containers, if groups can be made in it.
fn works(base: &Path) -> io::Result<()> {
    fs::create_dir_all(base)?;
    let trial = base.join(format!("trial-{}", std::process::id()));
    fs::create_dir(&trial)?;
    fs::remove_dir(&trial)
}

/// Makes the group of all containers below `own`, which nobody is in afterwards.
fn delegate(own: &Path) -> io::Result<PathBuf> {
    let engine = own.join("landfall-engine");
    fs::create_dir_all(&engine)?;
    fs::write(engine.join("cgroup.procs"), std::process::id().to_string())?;
    fs::write(own.join("cgroup.subtree_control"), "+cpu +memory")?;
    let base = own.join(PODS);
    fs::create_dir_all(&base)?;
    fs::write(base.join("cpu.weight"), weight(machine()).to_string())?;
    fs::write(base.join("cgroup.subtree_control"), "+cpu +memory")?;
    Ok(base)
}

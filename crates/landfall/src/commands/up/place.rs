//! Where a platform that is up has its files: `.landfall/<project>-<environment>/` beside the file of the architecture.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::part::Part;
use crate::files::write_whole;

/// The file with what the last `up` was asked to be.
const PART: &str = "part.json";

/// The file with how far the pods of the last `up` were kept apart on the network.
const NETWORK: &str = "network.json";

/// The file with whose pods are to start again.
const TO_RENEW: &str = "to-renew.json";

/// The folder of one environment, and who runs it.
pub(crate) struct Place {
    /// The folder.
    pub(crate) root: PathBuf,
}

impl Place {
    /// The folder for this environment of the project whose file is `file`.
    pub(crate) fn of(file: &Path, project: &str, environment: Option<&str>) -> Self {
        let beside = if file.is_dir() { Some(file) } else { file.parent() };
        let beside = beside.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Programs in pods are told paths, and have working directories of their own.
        let beside = std::path::absolute(beside).unwrap_or_else(|_| beside.to_owned());
        let name = environment.map_or_else(|| project.to_owned(), |environment| format!("{project}-{environment}"));
        Self { root: beside.join(".landfall").join(name) }
    }

    /// The folder of the file of the architecture.
    pub(crate) fn folder(&self) -> &Path {
        self.root.ancestors().nth(2).unwrap_or(&self.root)
    }

    /// The certificate that programs in pods trust.
    pub(crate) fn trust(&self) -> PathBuf {
        self.root.join("standins").join("authority.pem")
    }

    /// The data of the engine: objects, volumes, logs.
    pub(crate) fn engine(&self) -> PathBuf {
        self.root.join("engine")
    }

    /// The file with which `kubectl` finds it.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// The last report.
    pub(crate) fn report(&self) -> PathBuf {
        self.root.join("report.json")
    }

    /// What `scaling` has seen.
    pub(crate) fn scaling(&self) -> PathBuf {
        self.root.join("scaling.json")
    }

    /// What `gitops` has seen.
    pub(crate) fn gitops(&self) -> PathBuf {
        self.root.join("gitops.json")
    }

    /// The Git repository that `gitops` makes.
    pub(crate) fn repository(&self) -> PathBuf {
        self.root.join("repository")
    }

    /// The releases that `ship` has brought here to an end, a file for each.
    pub(crate) fn releases(&self) -> PathBuf {
        self.root.join("releases")
    }

    /// Where the gateway listens.
    pub(crate) fn entrances(&self) -> PathBuf {
        self.root.join("entrances.json")
    }

    /// What the last `up` was asked to be.
    pub(super) fn part(&self) -> Part {
        self.kept(PART)
    }

    /// Keeps for the commands that come later what runs.
    pub(super) fn keep_part(&self, part: &Part) -> anyhow::Result<()> {
        self.keep(PART, part)
    }

    /// How far the pods of the last `up` were kept apart: services keep the addresses that they got there.
    pub(super) fn network(&self) -> Option<String> {
        self.kept(NETWORK)
    }

    /// Keeps that for the next one.
    pub(super) fn keep_network(&self, level: &str) -> anyhow::Result<()> {
        self.keep(NETWORK, &level)
    }

    /// The services and externals whose pods may still do what they were told before.
    pub(super) fn to_renew(&self) -> BTreeSet<String> {
        self.kept(TO_RENEW)
    }

    /// Keeps whose these are.
    pub(super) fn keep_to_renew(&self, names: &BTreeSet<String>) -> anyhow::Result<()> {
        self.keep(TO_RENEW, names)
    }

    /// What a file here has; where there is none, or it cannot be read, as if nothing had been kept.
    fn kept<T: DeserializeOwned + Default>(&self, name: &str) -> T {
        let text = fs::read_to_string(self.root.join(name)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn keep(&self, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
        write_whole(&self.root.join(name), &serde_json::to_vec(value)?)
    }

    /// The objects that were applied last.
    pub(crate) fn applied(&self) -> PathBuf {
        self.root.join("applied.json")
    }

    /// Keys of the authority of this place.
    pub(crate) fn authority(&self) -> PathBuf {
        self.root.join("authority")
    }

    /// What the stand-in of that name is told to do.
    pub(crate) fn behaviour(&self, name: &str) -> PathBuf {
        self.root.join("standins").join(format!("{name}.json"))
    }

    /// Where the pods of a service keep which messages they have dealt with, a file for each.
    pub(crate) fn ledger(&self, service: &str) -> PathBuf {
        self.root.join("ledgers").join(service)
    }

    /// Programs of images that lead to stand-ins, by their names.
    pub(crate) fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }

    fn process(&self) -> PathBuf {
        self.root.join("process")
    }

    /// Says that this process runs the platform, until the guard is dropped. Nothing when another one does.
    pub(super) fn occupy(&self, stay: Stay) -> anyhow::Result<Option<Occupied>> {
        fs::create_dir_all(self.root.join("standins"))
            .with_context(|| format!("failed to make `{}`", self.root.display()))?;
        // Generated passwords and keys are nobody's business, and nothing here belongs under version control.
        let ignore = self.root.with_file_name(".gitignore");
        fs::write(&ignore, "*\n").with_context(|| format!("failed to write `{}`", ignore.display()))?;
        let path = self.root.join("lock");
        let lock = File::create(&path).with_context(|| format!("failed to make `{}`", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("failed to lock `{}`", path.display()));
            }
        }
        let file = self.process();
        let process = std::process::id();
        let text = format!("{process} {} {}\n", started(process).unwrap_or_default(), stay.as_str());
        fs::write(&file, text).with_context(|| format!("failed to write `{}`", file.display()))?;
        Ok(Some(Occupied { file, _lock: lock }))
    }

    /// The process that runs the platform now.
    pub(crate) fn occupant(&self) -> Option<Occupant> {
        let text = fs::read_to_string(self.process()).ok()?;
        let mut words = text.split_whitespace();
        let process = words.next()?.parse().ok()?;
        let start = words.next()?;
        // One that says nothing of it knows nothing of another that takes over.
        let stay =
            if words.next() == Some(Stay::UntilStopped.as_str()) { Stay::UntilStopped } else { Stay::UntilReported };
        // A number is given to another process some day; the time of its start tells them apart.
        (started(process)? == start).then_some(Occupant { process, stay })
    }

    /// Removes everything. It must not be up.
    pub(crate) fn delete(&self) -> anyhow::Result<()> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("failed to delete `{}`", self.root.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Until when a process runs a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    /// It stays until somebody stops it, or another one takes over.
    UntilStopped,
    /// It stops by itself, and nobody takes over.
    UntilReported,
}

impl Stay {
    fn as_str(self) -> &'static str {
        match self {
            Self::UntilStopped => "stays",
            Self::UntilReported => "once",
        }
    }
}

/// Who runs a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Occupant {
    pub(crate) process: u32,
    pub(crate) stay: Stay,
}

/// Ends the occupation of a place when dropped.
pub(super) struct Occupied {
    file: PathBuf,
    /// Let go last, and by the system where the process is killed.
    _lock: File,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        // A file that stays behind names a process that has ended.
        let _ = fs::remove_file(&self.file);
    }
}

/// When a process started, in ticks since the machine did (`proc_pid_stat(5)`, field 22).
fn started(process: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program may have spaces and brackets; the fields after it count from three.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    // A zombie has ended; whoever has started it has not asked yet.
    fields.get(22 - 3).filter(|_| fields[0] != "Z").map(|start| (*start).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_occupied_while_its_process_lives() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let place = Place::of(folder.path(), "shop", Some("development"));
        assert_eq!(place.root, folder.path().join(".landfall/shop-development"));
        assert_eq!(place.folder(), folder.path());
        assert_eq!(place.occupant(), None);
        let occupy = |stay| place.occupy(stay).expect("it can be written to");
        let occupied = occupy(Stay::UntilStopped).expect("nobody has it");
        let process = std::process::id();
        assert_eq!(place.occupant(), Some(Occupant { process, stay: Stay::UntilStopped }));
        assert!(occupy(Stay::UntilReported).is_none(), "it has one occupant");
        assert_eq!(
            place.occupant().map(|occupant| occupant.stay),
            Some(Stay::UntilStopped),
            "and that has not changed"
        );
        fs::write(place.process(), format!("{process} 1 stays\n")).expect("it can be written to");
        assert_eq!(place.occupant(), None, "another process had this number");
        drop(occupied);
        assert!(!place.process().exists());
        let again = occupy(Stay::UntilReported).expect("it is free again");
        assert_eq!(place.occupant(), Some(Occupant { process, stay: Stay::UntilReported }));
        drop(again);
    }

    #[test]
    fn an_occupant_that_says_nothing_of_it_lets_nobody_take_over() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let place = Place::of(folder.path(), "shop", None);
        fs::create_dir_all(&place.root).expect("a folder can be made");
        let process = std::process::id();
        let start = started(process).expect("it runs");
        fs::write(place.process(), format!("{process} {start}\n")).expect("it can be written to");
        assert_eq!(place.occupant(), Some(Occupant { process, stay: Stay::UntilReported }));
    }
}

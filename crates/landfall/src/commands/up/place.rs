//! Where a platform that is up has its files: `.landfall/<project>-<environment>/` beside the file of the architecture.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

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

    /// The releases that `ship` has brought here to an end, a file for each.
    pub(crate) fn releases(&self) -> PathBuf {
        self.root.join("releases")
    }

    /// Where the gateway listens.
    pub(crate) fn entrances(&self) -> PathBuf {
        self.root.join("entrances.json")
    }

    /// The stores that the last `up` was told to leave out.
    pub(crate) fn without(&self) -> Vec<String> {
        let text = fs::read_to_string(self.root.join("without.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Keeps for the commands that come later which stores are left out.
    pub(crate) fn keep_without(&self, without: &[String]) -> anyhow::Result<()> {
        let file = self.root.join("without.json");
        fs::write(&file, serde_json::to_vec(without)?).with_context(|| format!("failed to write `{}`", file.display()))
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

    /// Says that this process runs the platform, until the guard is dropped.
    pub(crate) fn occupy(&self) -> anyhow::Result<Occupied> {
        fs::create_dir_all(self.root.join("standins"))
            .with_context(|| format!("failed to make `{}`", self.root.display()))?;
        // Generated passwords and keys are nobody's business, and nothing here belongs under version control.
        let ignore = self.root.with_file_name(".gitignore");
        fs::write(&ignore, "*\n").with_context(|| format!("failed to write `{}`", ignore.display()))?;
        let file = self.process();
        let process = std::process::id();
        let text = format!("{process} {}\n", started(process).unwrap_or_default());
        fs::write(&file, text).with_context(|| format!("failed to write `{}`", file.display()))?;
        Ok(Occupied(file))
    }

    /// The process that runs the platform now.
    pub(crate) fn occupant(&self) -> Option<u32> {
        let text = fs::read_to_string(self.process()).ok()?;
        let (process, start) = text.trim().split_once(' ')?;
        let process = process.parse().ok()?;
        // A number is given to another process some day; the time of its start tells them apart.
        (started(process)? == start).then_some(process)
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

/// Ends the occupation of a place when dropped.
pub(crate) struct Occupied(PathBuf);

impl Drop for Occupied {
    fn drop(&mut self) {
        // A file that stays behind names a process that has ended.
        let _ = fs::remove_file(&self.0);
    }
}

/// When a process started, in ticks since the machine did (`proc_pid_stat(5)`, field 22).
fn started(process: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program may have spaces and brackets; the fields after it count from three.
    stat.rsplit_once(") ")?.1.split(' ').nth(22 - 3).map(ToOwned::to_owned)
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
        let occupied = place.occupy().expect("it can be written to");
        assert_eq!(place.occupant(), Some(std::process::id()));
        fs::write(place.process(), format!("{} 1\n", std::process::id())).expect("it can be written to");
        assert_eq!(place.occupant(), None, "another process had this number");
        drop(occupied);
        assert!(!place.process().exists());
    }
}

//! The run folder: where pods have what need not outlive a reboot, such as files made from objects, volumes in memory, mount
//! points and pipes.
//!
//! It lies in memory where this machine has a file system for that, as such files do on a node of Kubernetes: to create them on
//! a disk would be the largest part of what a pod costs, and secrets would stay on it. The link `run` of the data folder leads there, as
//! pods outlive their engine and the next one must find their files. After a reboot it leads nowhere, and a new folder is made.
//! Where there is no such file system, `run` is a folder itself.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::FsFlags;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::RuntimeError;

/// In the data folder.
const LINK: &str = "run";

/// The names of run folders begin so.
const PREFIX: &str = "landfall-";

/// The file in a run folder that says whose it is.
const OWNER: &str = "owner.json";

/// How much must be free. Docker gives a container 64 MiB of such memory, which programs want for themselves.
const ROOM: u64 = 256 * 1024 * 1024;

/// Nobody but us may look inside.
const PRIVATE: u32 = 0o700;

/// Whose a run folder is.
#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    data: PathBuf,
    /// The mount namespace in which that path is the data folder.
    mounts: PathBuf,
}

/// The run folder of a data folder: the one that there is, or a new one. What engines of ours have left, whose data folders have
/// gone, is deleted.
pub(crate) fn open(data: &Path) -> Result<PathBuf, RuntimeError> {
    open_in(data, &places())
}

/// Deletes the run folder. Nothing may run any more.
pub(crate) fn remove(data: &Path) -> Result<(), RuntimeError> {
    let data = data.canonicalize().map_err(RuntimeError::file("find the folder", data))?;
    if let Some(folder) = known(&data) {
        fs::remove_dir_all(&folder).map_err(RuntimeError::file("remove the folder", &folder))?;
    }
    unlink(&data)
}

/// Where this machine may have file systems in memory: the one for shared memory, which also serves an engine that no session
/// belongs to and may take half of the memory, and the one of the user's session.
fn places() -> [PathBuf; 2] {
    ["/dev/shm".into(), format!("/run/user/{}", geteuid()).into()]
}

fn open_in(data: &Path, places: &[PathBuf]) -> Result<PathBuf, RuntimeError> {
    let data = data.canonicalize().map_err(RuntimeError::file("find the folder", data))?;
    for place in places {
        if let Err(error) = sweep(place) {
            warn!(place = %place.display(), %error, "what other engines have left cannot be deleted");
        }
    }
    if let Some(known) = known(&data) {
        return Ok(known);
    }
    for place in places.iter().filter(|place| is_fit(place)) {
        unlink(&data)?;
        match create(&data, place) {
            Ok(folder) => {
                info!(folder = %folder.display(), "volumes made from objects lie in memory");
                return Ok(folder);
            }
            Err(error) => warn!(place = %place.display(), %error, "no folder can be made in memory"),
        }
    }
    unlink(&data)?;
    let folder = data.join(LINK);
    DirBuilder::new().mode(PRIVATE).create(&folder).map_err(RuntimeError::file("create the folder", &folder))?;
    Ok(folder)
}

/// The run folder that a data folder has already.
fn known(data: &Path) -> Option<PathBuf> {
    let link = data.join(LINK);
    match fs::read_link(&link) {
        // A copy of a data folder has its link, too.
        Ok(folder) => (is_ours(&folder) && owner(&folder).is_some_and(|owner| owner.data == data)).then_some(folder),
        Err(_) => is_ours(&link).then_some(link),
    }
}

fn create(data: &Path, place: &Path) -> io::Result<PathBuf> {
    let folder = place.join(format!("{PREFIX}{}", uuid::Uuid::new_v4().simple()));
    // The link comes first: to a folder that nobody needs, none leads.
    symlink(&folder, data.join(LINK))?;
    DirBuilder::new().mode(PRIVATE).create(&folder)?;
    let owner = Owner { data: data.to_path_buf(), mounts: namespace()? };
    fs::write(folder.join(OWNER), serde_json::to_vec(&owner)?)?;
    Ok(folder)
}

/// Takes the link away, wherever it leads. A folder in its place stays.
fn unlink(data: &Path) -> Result<(), RuntimeError> {
    let link = data.join(LINK);
    if fs::read_link(&link).is_err() {
        return Ok(());
    }
    fs::remove_file(&link).map_err(RuntimeError::file("remove", &link))
}

/// Deletes the run folders of ours to which no data folder leads any more.
fn sweep(place: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let here = namespace()?;
    for entry in entries {
        let entry = entry?;
        let folder = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) || !is_ours(&folder) {
            continue;
        }
        // From inside a container, or from outside of one, the path is another folder's, or nobody's.
        let Some(owner) = owner(&folder).filter(|owner| owner.mounts == here) else { continue };
        let is_left = match fs::read_link(owner.data.join(LINK)) {
            Ok(target) => target != folder,
            Err(error) => matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::InvalidInput | io::ErrorKind::NotADirectory
            ),
        };
        if is_left {
            fs::remove_dir_all(&folder)?;
            info!(folder = %folder.display(), data = %owner.data.display(), "what an engine has left is deleted");
        }
    }
    Ok(())
}

/// Whether this is a file system in memory with room, in which programs can be run and nobody else can move our folders.
fn is_fit(place: &Path) -> bool {
    let (Ok(about), Ok(system)) = (fs::symlink_metadata(place), statfs(place)) else { return false };
    let sticky = about.mode() & 0o1000 != 0;
    let ours = about.uid() == geteuid().as_raw() && about.mode() & 0o022 == 0;
    let free = system.blocks_available().saturating_mul(u64::try_from(system.block_size()).unwrap_or_default());
    about.is_dir()
        && (sticky || ours)
        && system.filesystem_type() == TMPFS_MAGIC
        && !system.flags().intersects(FsFlags::ST_NOEXEC | FsFlags::ST_RDONLY)
        && free >= ROOM
}

/// Whether this is a folder, and no link to one, that only we may enter.
fn is_ours(folder: &Path) -> bool {
    fs::symlink_metadata(folder)
        .is_ok_and(|about| about.is_dir() && about.uid() == geteuid().as_raw() && about.mode() & 0o777 == PRIVATE)
}

fn owner(folder: &Path) -> Option<Owner> {
    serde_json::from_slice(&fs::read(folder.join(OWNER)).ok()?).ok()
}

fn namespace() -> io::Result<PathBuf> {
    fs::read_link("/proc/self/ns/mnt")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder can be made")
    }

    /// A data folder and a place in memory for its run folder. None: there is none on this machine.
    fn in_memory() -> Option<(tempfile::TempDir, tempfile::TempDir)> {
        let place = places().into_iter().find(|place| is_fit(place))?;
        Some((folder(), tempfile::tempdir_in(place).expect("a folder can be made")))
    }

    #[test]
    fn the_next_engine_finds_the_folder_and_after_a_reboot_makes_another() {
        let Some((data, place)) = in_memory() else { return };
        let places = [place.path().to_path_buf()];
        let first = open_in(data.path(), &places).expect("a folder");
        assert!(first.starts_with(place.path()), "{}", first.display());
        assert_eq!(first.metadata().expect("it is there").permissions().mode() & 0o777, PRIVATE);
        assert_eq!(open_in(data.path(), &places).expect("a folder"), first);

        fs::remove_dir_all(&first).expect("it can be removed");
        let second = open_in(data.path(), &places).expect("a folder");
        assert_ne!(second, first);
        assert_eq!(fs::read_link(data.path().join(LINK)).expect("a link"), second);

        remove(data.path()).expect("it can be removed");
        assert!(!second.exists() && fs::symlink_metadata(data.path().join(LINK)).is_err());
    }

    #[test]
    fn what_was_left_by_an_engine_is_deleted_when_its_data_folder_has_gone() {
        let Some((data, place)) = in_memory() else { return };
        let places = [place.path().to_path_buf()];
        let gone = folder();
        let left = open_in(gone.path(), &places).expect("a folder");
        let kept = open_in(data.path(), &places).expect("a folder");
        gone.close().expect("it can be removed");
        assert_eq!(open_in(data.path(), &places).expect("a folder"), kept);
        assert!(!left.exists() && kept.exists());
    }

    #[test]
    fn a_copy_of_a_data_folder_has_a_run_folder_of_its_own() {
        let Some((data, place)) = in_memory() else { return };
        let places = [place.path().to_path_buf()];
        let first = open_in(data.path(), &places).expect("a folder");
        let copy = folder();
        symlink(&first, copy.path().join(LINK)).expect("a link can be made");
        assert_ne!(open_in(copy.path(), &places).expect("a folder"), first);
        assert_eq!(open_in(data.path(), &places).expect("a folder"), first);
    }

    #[test]
    fn a_folder_that_others_may_enter_is_not_used() {
        let (data, other) = (folder(), folder());
        fs::set_permissions(other.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        let owner = Owner {
            data: data.path().canonicalize().expect("it is there"),
            mounts: namespace().expect("every process has one"),
        };
        fs::write(other.path().join(OWNER), serde_json::to_vec(&owner).expect("it is JSON")).expect("it is ours");
        symlink(other.path(), data.path().join(LINK)).expect("a link can be made");
        assert_eq!(
            open_in(data.path(), &[]).expect("a folder"),
            data.path().canonicalize().expect("it is there").join(LINK)
        );
    }

    #[test]
    fn without_memory_for_it_the_folder_is_one_of_the_data() {
        let data = folder();
        let places = [data.path().to_path_buf(), "/nowhere".into()];
        if is_fit(data.path()) {
            return;
        }
        let first = open_in(data.path(), &places).expect("a folder");
        assert_eq!(first, data.path().canonicalize().expect("it is there").join(LINK));
        assert_eq!(open_in(data.path(), &places).expect("a folder"), first);
        remove(data.path()).expect("it can be removed");
        assert!(!first.exists());
    }
}

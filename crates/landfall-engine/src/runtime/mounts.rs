//! What a container sees of the file system.
//!
//! With a mount namespace: a root of its own, a small file system in memory into which the folders of this machine are
//! bound, and into those the volumes, at the very paths that the pod names. Where a volume goes to a path that this machine
//! has not, the folder above it is taken apart: a folder in memory that holds the bound entries of the real one, and the
//! mount point beside them. So nothing is ever created on the machine itself. This works for ordinary users too, in a user
//! namespace (`user_namespaces(7)`).
//!
//! Without one: links in a folder, which `POD_ROOT` names.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Gid, Uid, getegid, geteuid, pivot_root, sethostname};
use serde::{Deserialize, Serialize};

use super::Mount;

/// The devices of a container: those that the OCI runtime specification asks for ("Default Devices"), with their folders.
const DEVICES: &[&str] = &[
    "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom",
    "zero",
];

/// No files, but what the kernel shows of itself: mounts of their own in every container, whatever its root may be.
const OF_KERNEL: &[&str] = &["/dev", "/proc", "/sys"];

/// Which new namespaces give a container mounts of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Namespaces {
    /// We are root, or as good as.
    Mount,
    /// Only as the root of a user namespace may we mount.
    UserAndMount,
}

/// As whom a program runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct User {
    user: Uid,
    group: Gid,
}

impl User {
    pub(super) fn current() -> Self {
        Self { user: geteuid(), group: getegid() }
    }
}

/// The root of a container.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root<'a> {
    /// An empty folder of this machine.
    pub(super) path: &'a Path,
    /// A folder of this machine that is empty for the container: the run folder, in which the volumes of other pods lie.
    pub(super) hidden: &'a Path,
    /// Whether only the mounts of the container can be changed.
    pub(super) read_only: bool,
    /// Symbolic links in the place of what the machine has there, and where they lead. The folders above them are there.
    pub(super) links: &'a [(PathBuf, PathBuf)],
}

/// Tries what this system allows, in this process, which is then changed: only for a process of its own with one thread.
pub(super) fn try_namespaces(scratch: &Path) -> Option<Namespaces> {
    let file = scratch.join("file");
    let attempt = |namespaces| -> io::Result<()> {
        fs::write(&file, "works")?;
        // A file at a path that no machine has: the hardest case.
        let mounts = [Mount { source: file.clone(), target: "/etc/landfall/probe/file".into(), read_only: true }];
        let root = scratch.join("root");
        fs::create_dir_all(&root)?;
        let root = Root { path: &root, hidden: &root, read_only: true, links: &[] };
        enter(namespaces, User::current(), &root, "probe", &mounts)?;
        let read = fs::read_to_string("/etc/landfall/probe/file")?;
        if read == "works" { Ok(()) } else { Err(io::Error::other("the file is another one")) }
    };
    let first = if geteuid().is_root() { Namespaces::Mount } else { Namespaces::UserAndMount };
    attempt(first).is_ok().then_some(first)
}

/// Moves this process into new namespaces with a root of its own. It must have one thread only.
pub(super) fn enter(
    namespaces: Namespaces,
    User { user, group }: User,
    &Root { path: root, hidden, read_only, links }: &Root<'_>,
    hostname: &str,
    mounts: &[Mount],
) -> io::Result<()> {
    // Who we are where we come from.
    let outside = User::current();
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    match namespaces {
        Namespaces::Mount => unshare(flags)?,
        Namespaces::UserAndMount => {
            unshare(flags | CloneFlags::CLONE_NEWUSER)?;
            // The same ids inside as outside: files keep their owners, and the program is nobody special.
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("{user} {} 1", outside.user))?;
            fs::write("/proc/self/gid_map", format!("{group} {} 1", outside.group))?;
        }
    }
    sethostname(hostname)?;
    // What we mount stays here; what the machine mounts later still arrives.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    mount(Some("tmpfs"), root, Some("tmpfs"), MsFlags::empty(), Some("mode=0755,size=16m"))?;
    let plan = Plan::new(mounts, links)?;
    plan.fill(root, Path::new("/"), read_only)?;
    for (link, target) in links {
        symlink(target, below(root, link))?;
    }
    // Where it lies in shared memory, it could be written to by a container whose root is read-only. What is bound below comes
    // from the machine's side, on which nothing is hidden.
    let seen = below(root, hidden);
    if seen.is_dir() {
        mount(Some("tmpfs"), &seen, Some("tmpfs"), MsFlags::MS_RDONLY, Some("mode=0755,size=4k"))?;
    }
    for (target, mount) in &plan.mounts {
        let place = below(root, target);
        make_place(&place, &mount.source)?;
        bind(&mount.source, &place, mount.read_only)?;
    }
    if read_only {
        make_read_only(root)?;
    }
    std::env::set_current_dir(root)?;
    // Both names may be the same folder: the old root then lies on top of the new one and is taken away (pivot_root(2)).
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    std::env::set_current_dir("/")
}

/// Puts links to the mounts below `root`, for a system without mount namespaces.
pub(super) fn link(root: &Path, mounts: &[Mount]) -> io::Result<()> {
    fs::create_dir_all(root)?;
    for mount in sorted(mounts) {
        let place = below(root, &mount.target);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        match symlink(&mount.source, &place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Where the mounts go once links are followed, and which folders must be taken apart for them.
#[derive(Debug)]
struct Plan<'a> {
    mounts: Vec<(PathBuf, &'a Mount)>,
    apart: BTreeSet<PathBuf>,
    /// What is not taken over from the machine.
    hidden: BTreeSet<&'a Path>,
}

impl<'a> Plan<'a> {
    fn new(mounts: &'a [Mount], links: &'a [(PathBuf, PathBuf)]) -> io::Result<Self> {
        let hidden: BTreeSet<&Path> = links.iter().map(|(link, _)| link.as_path()).collect();
        let folders = hidden.iter().filter_map(|link| link.parent()).flat_map(Path::ancestors).map(Path::to_path_buf);
        let apart = folders.chain([PathBuf::from("/")]).collect();
        let mut plan = Plan { mounts: Vec::new(), apart, hidden };
        for mount in sorted(mounts) {
            // Below another mount its folder takes the place, or gets it made.
            let within = plan.mounts.iter().any(|(target, _)| mount.target.starts_with(target));
            let target = if within { mount.target.clone() } else { plan.place(&mount.target)? };
            plan.mounts.push((target, mount));
        }
        Ok(plan)
    }

    fn place(&mut self, target: &Path) -> io::Result<PathBuf> {
        // The devices of a container are few, so that one more means to take the folder apart anyway.
        if let Ok(real) = target.canonicalize()
            && !target.starts_with("/dev")
        {
            return Ok(real);
        }
        let mut existing = target.parent();
        while let Some(folder) = existing
            && !folder.is_dir()
        {
            existing = folder.parent();
        }
        let existing = existing.unwrap_or(Path::new("/"));
        let real = existing.canonicalize()?;
        let rest = target.strip_prefix(existing).map_err(io::Error::other)?;
        self.apart.extend(real.ancestors().map(Path::to_path_buf));
        Ok(real.join(rest))
    }

    /// Fills a folder that is taken apart with what the machine has there.
    fn fill(&self, root: &Path, folder: &Path, read_only: bool) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            // Only the mounts are in one that we may not look into, such as a server's configuration.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let place = below(root, &path);
            if self.hidden.contains(path.as_path()) {
                continue;
            }
            if folder == Path::new("/dev") && !DEVICES.iter().any(|device| entry.file_name() == *device) {
                continue;
            }
            let kind = entry.file_type()?;
            if self.apart.contains(&path) {
                fs::create_dir(&place)?;
                self.fill(root, &path, read_only)?;
            } else if kind.is_symlink() {
                symlink(fs::read_link(&path)?, &place)?;
            } else {
                let made = if kind.is_dir() { fs::create_dir(&place) } else { File::create(&place).map(drop) };
                // What we may not even look at, the program may not either.
                let is_bound = made.is_ok() && bind(&path, &place, false).is_ok();
                let is_of_kernel = OF_KERNEL.iter().any(|folder| path.starts_with(folder));
                if is_bound && read_only && !is_of_kernel {
                    make_read_only(&place)?;
                }
            }
        }
        Ok(())
    }
}

/// Outer mounts before those inside them.
fn sorted(mounts: &[Mount]) -> Vec<&Mount> {
    let mut mounts: Vec<_> = mounts.iter().collect();
    mounts.sort_by_key(|mount| mount.target.components().count());
    mounts
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// An empty folder or file to bind `source` onto.
fn make_place(place: &Path, source: &Path) -> io::Result<()> {
    if place.exists() {
        return Ok(());
    }
    let folders = if source.is_dir() { Some(place) } else { place.parent() };
    if let Some(folders) = folders {
        DirBuilder::new().recursive(true).mode(0o755).create(folders)?;
    }
    if !source.is_dir() {
        File::create(place)?;
    }
    Ok(())
}

fn bind(source: &Path, place: &Path, read_only: bool) -> io::Result<()> {
    mount(Some(source), place, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    if read_only { make_read_only(place) } else { Ok(()) }
}

/// What is mounted below stays as it is.
fn make_read_only(place: &Path) -> io::Result<()> {
    // A user namespace must keep the restrictions that the mount had (mount_namespaces(7)).
    let had = statvfs(place)?.flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    for (is, keep) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if had.contains(is) {
            flags |= keep;
        }
    }
    mount(None::<&str>, place, None::<&str>, flags, None::<&str>)?;
    Ok(())
}

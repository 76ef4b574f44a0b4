//! The last step before a program of a container runs: a process of its own, with one thread, that enters the namespaces
//! and the control groups of the container and then becomes the program (execve keeps the process id).
//!
//! It is a copy of the shim, as long as that has one thread itself: then everything may be done between `fork` and `execve`, in
//! ordinary Rust. A shim with more threads, as one has that looks at memory or has a terminal, starts the binary once more,
//! which takes several milliseconds longer.
//!
//! Somebody waits for the program at a named pipe ([`Outcome`]), which is open until it runs.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use fork::Fork;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::{set_no_new_privs, set_thp_disable};
use nix::sys::stat::Mode;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, mkfifo, setsid};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

use super::mounts::{self, Namespaces, Root};
use super::{Mount, NetworkNamespace};

/// What a process of a container becomes, and where.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Launch {
    pub(super) argv: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) working_dir: Option<PathBuf>,
    pub(super) place: Place,
    /// The terminal that becomes standard input, output and error.
    pub(super) tty: Option<PathBuf>,
    /// `cgroup.procs` files that this process writes itself into.
    pub(super) cgroups: Vec<PathBuf>,
    /// The named pipe of its [`Outcome`].
    pub(super) outcome: PathBuf,
    /// Written when the container has a mount namespace of its own: its name, by which the processes of the container are
    /// known even when they have left their parents and groups.
    pub(super) namespace: Option<PathBuf>,
    /// The program, and what it starts, gets no rights from the owner or the capabilities of a file.
    pub(super) no_new_privileges: bool,
}

/// Where a process runs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Place {
    /// In new namespaces.
    New {
        namespaces: Option<Namespaces>,
        netns: Option<NetworkNamespace>,
        hostname: String,
        root: PathBuf,
        /// A folder of which nothing is to be seen.
        hidden: PathBuf,
        /// Whether nothing but the mounts can be changed.
        read_only: bool,
        mounts: Vec<Mount>,
        /// Symbolic links in the place of what the machine has there, and where they lead.
        links: Vec<(PathBuf, PathBuf)>,
    },
    /// In those of a process that runs.
    Beside { pid: i32, netns: Option<NetworkNamespace> },
}

/// The argument that makes the binary such a process.
pub(super) const LAUNCH: &str = "--launch";

/// The exit code of a process that could not become its program, as container runtimes report it.
pub(super) const START_FAILED: u8 = 128;

/// The standard streams of a process.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Starts a process that becomes a program. It is a child of this one, which must reap it. `arguments` make this binary a shim.
pub(super) fn spawn(launch: &Launch, streams: Streams, arguments: &[String]) -> io::Result<i32> {
    if fs::read_dir("/proc/self/task")?.count() > 1 {
        return start(launch, streams, arguments);
    }
    match fork::fork()? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => {
            // Nothing of the shim may go on in its copy, whatever happens here.
            let begun = catch_unwind(AssertUnwindSafe(|| {
                let connected = dup2_stdin(&streams.stdin)
                    .and_then(|()| dup2_stdout(&streams.stdout))
                    .and_then(|()| dup2_stderr(&streams.stderr));
                if connected.is_ok() {
                    begin(launch);
                }
            }));
            drop(begun);
            std::process::exit(START_FAILED.into())
        }
    }
}

/// The same by starting the binary, which is told by a file beside the pipe.
fn start(launch: &Launch, streams: Streams, arguments: &[String]) -> io::Result<i32> {
    let file = launch.outcome.with_extension("launch");
    write(&file, launch)?;
    let child = Command::new("/proc/self/exe")
        .args(arguments)
        .arg(LAUNCH)
        .arg(&file)
        .stdin(streams.stdin)
        .stdout(streams.stdout)
        .stderr(streams.stderr)
        .spawn()?;
    i32::try_from(child.id()).map_err(io::Error::other)
}

/// Writes down what to launch. The file is readable by its owner only, as the environment may hold secrets, and the
/// launched process deletes it.
fn write(file: &Path, launch: &Launch) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    file.write_all(&serde_json::to_vec(launch)?)
}

/// Becomes the program that `file` describes. Returns only when that fails.
pub(super) fn run(file: &Path) -> ExitCode {
    if let Ok(launch) = read(file) {
        begin(&launch);
    }
    ExitCode::from(START_FAILED)
}

/// Becomes the program. Returns only when that fails.
fn begin(launch: &Launch) {
    // From inside, the path may be another one. It is closed when the program begins, as Rust opens all files (O_CLOEXEC).
    let Ok(mut outcome) = OpenOptions::new().write(true).open(&launch.outcome) else { return };
    // Both ends are open. A pipe that stays would hold up whoever reads through the files here, for ever.
    let _ = fs::remove_file(&launch.outcome);
    let error = become_program(launch);
    // When even this cannot be written, the exit code still tells that the program never ran.
    let _ = outcome.write_all(error.as_bytes());
}

/// What came of a launch: a named pipe that is closed without a word when the program runs, and says why it could not.
#[derive(Debug)]
pub(super) struct Outcome {
    words: pipe::Receiver,
    said: Vec<u8>,
}

impl Outcome {
    /// To be called before the process is started, which does not go on unless somebody listens.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        Ok(Self { words: pipe::OpenOptions::new().open_receiver(path)?, said: Vec::new() })
    }

    /// Waits until the program runs or could not be run. For ever, when the process ended before it had opened the pipe.
    /// Nothing is lost when dropped.
    pub(super) async fn known(&mut self) {
        // Before a writer has come, nothing is told to be ready, so that zero is always the end.
        while self.words.read_buf(&mut self.said).await.is_ok_and(|length| length > 0) {}
    }

    /// Why the program could not be run; `None` when it could. To be called once that is known, or the process has ended.
    pub(super) fn failure(mut self) -> Option<String> {
        if let Ok(rest) = self.words.into_nonblocking_fd() {
            // What was read before an error stays.
            let _ = File::from(rest).read_to_end(&mut self.said);
        }
        (!self.said.is_empty()).then(|| String::from_utf8_lossy(&self.said).into_owned())
    }
}

fn read(file: &Path) -> io::Result<Launch> {
    let text = fs::read(file)?;
    fs::remove_file(file)?;
    Ok(serde_json::from_slice(&text)?)
}

fn become_program(launch: &Launch) -> String {
    if let Err(error) = prepare(launch) {
        return format!("failed to prepare the container: {error}");
    }
    let Some((program, args)) = launch.argv.split_first() else {
        return "no command specified".to_owned();
    };
    let working_dir = launch.working_dir.as_deref().unwrap_or(Path::new("/"));
    if let Err(error) = std::env::set_current_dir(working_dir) {
        return format!("failed to enter the working directory {}: {error}", working_dir.display());
    }
    let error = Command::new(program).args(args).env_clear().envs(&launch.env).exec();
    match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') => {
            format!("exec: \"{program}\": stat {program}: no such file or directory")
        }
        io::ErrorKind::NotFound => format!("exec: \"{program}\": executable file not found in $PATH"),
        io::ErrorKind::PermissionDenied => format!("exec: \"{program}\": permission denied"),
        _ => format!("exec: \"{program}\": {error}"),
    }
}

fn prepare(launch: &Launch) -> io::Result<()> {
    // A session of its own: a signal to its group reaches the container only, and a terminal can become its own.
    setsid()?;
    let process = std::process::id().to_string();
    for procs in &launch.cgroups {
        fs::write(procs, &process)?;
    }
    match &launch.place {
        Place::New { namespaces, netns, hostname, root, hidden, read_only, mounts, links } => {
            // As whom the program runs; in the namespace of the network we may be somebody else.
            let user = mounts::User::current();
            enter_network(netns.as_ref())?;
            fs::create_dir_all(root)?;
            // Opened now: from inside, the path may be another one.
            let name = launch.namespace.as_ref().map(File::create).transpose()?;
            match namespaces {
                Some(namespaces) => {
                    let root = Root { path: root, hidden, read_only: *read_only, links };
                    mounts::enter(*namespaces, user, &root, hostname, mounts)?;
                }
                None => mounts::link(root, mounts)?,
            }
            if let Some(mut name) = name {
                name.write_all(fs::read_link("/proc/self/ns/mnt")?.as_os_str().as_encoded_bytes())?;
            }
        }
        Place::Beside { pid, netns } => {
            enter_network(netns.as_ref())?;
            join(*pid)?;
        }
    }
    if let Some(tty) = &launch.tty {
        // The first terminal that the leader of a session opens becomes its own (tty_ioctl(4)).
        let terminal = OpenOptions::new().read(true).write(true).open(tty)?;
        dup2_stdin(&terminal)?;
        dup2_stdout(&terminal)?;
        dup2_stderr(&terminal)?;
    }
    if launch.no_new_privileges {
        set_no_new_privs()?;
    }
    // The engine may do without huge pages, which is inherited; what its pods do is their own matter.
    let _ = set_thp_disable(false);
    Ok(())
}

fn enter_network(netns: Option<&NetworkNamespace>) -> io::Result<()> {
    let Some(netns) = netns else { return Ok(()) };
    let file = File::open(&netns.file)?;
    if let Some(owner) = &netns.owner {
        setns(File::open(owner)?, CloneFlags::CLONE_NEWUSER)?;
    }
    Ok(setns(file, CloneFlags::CLONE_NEWNET)?)
}

/// Enters the user, mount and host name namespaces of a process, where they are not our own already.
fn join(pid: i32) -> io::Result<()> {
    let mut namespaces = Vec::new();
    for (name, flag) in
        [("user", CloneFlags::CLONE_NEWUSER), ("mnt", CloneFlags::CLONE_NEWNS), ("uts", CloneFlags::CLONE_NEWUTS)]
    {
        let (theirs, ours) = (format!("/proc/{pid}/ns/{name}"), format!("/proc/self/ns/{name}"));
        if fs::read_link(&theirs)? != fs::read_link(ours)? {
            namespaces.push((File::open(theirs)?, flag));
        }
    }
    for (file, flag) in namespaces {
        setns(file, flag)?;
    }
    Ok(())
}

//! The process that shims are forked from.
//!
//! This binary is large. To start it keeps a processor busy for several milliseconds, most of it for pages that are touched
//! before `main` is reached; that would be the largest part of what a pod costs. The zygote has started once, and a copy of it
//! begins where it stands (fork(2)). A copy has only the thread that made it, so the zygote has one, and does nothing else.
//!
//! It starts with the first pod and ends with its engine; the shims do not.

use std::fs::File;
use std::io::{self, PipeReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use fork::Fork;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, setpgid};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::messages;
use super::process::Shim;

/// The argument that makes the binary a zygote.
pub(super) const ZYGOTE: &str = "--zygote";

/// What the engine asks for; the standard output and error of the shim come with it.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    /// Of the pod.
    folder: PathBuf,
}

/// The engine's side.
#[derive(Debug)]
pub(super) struct Zygote {
    shim: Shim,
    /// None: it has not started yet.
    socket: Mutex<Option<OwnedFd>>,
}

impl Zygote {
    pub(super) fn new(shim: Shim) -> Self {
        Self { shim, socket: Mutex::default() }
    }

    /// Has a shim forked for the pod of this folder. What it says comes out of the pipe, which ends when there is no shim.
    /// Waits while many others are asked for, and may start a process, so this is for a task of a runtime that may block.
    pub(super) fn fork(&self, folder: &Path, stderr: &File) -> io::Result<PipeReader> {
        let (heard, stdout) = io::pipe()?;
        let request = Request { folder: folder.to_owned() };
        let files = [stdout.as_fd(), stderr.as_fd()];
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = socket.as_ref().is_some_and(|known| messages::send(known.as_fd(), &request, &files).is_ok());
        if !asked {
            // It is the first that is asked for, or somebody has killed the zygote.
            let new = self.start()?;
            messages::send(new.as_fd(), &request, &files)?;
            *socket = Some(new);
        }
        Ok(heard)
    }

    fn start(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Command::new(&self.shim.program)
            .args(&self.shim.arguments)
            .arg(ZYGOTE)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Not ours to be interrupted with. Tokio reaps it when it ends.
            .process_group(0)
            .spawn()?;
        Ok(ours)
    }
}

/// The zygote: forks shims until the engine has gone. Returns in each of them, with the folder of its pod.
pub(super) fn serve() -> io::Result<Option<PathBuf>> {
    let (socket, nothing) = (io::stdin(), File::open("/dev/null")?);
    let children = SigSet::from(Signal::SIGCHLD);
    children.thread_block()?;
    let ended = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    loop {
        let mut ready = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
        match poll(&mut ready, None) {
            Err(Errno::INTR) => continue,
            ready => ready?,
        };
        let [asked, has_ended] = ready.map(|ready| !ready.revents().is_empty());
        if has_ended {
            while ended.read_signal()?.is_some() {}
            reap();
        }
        if !asked {
            continue;
        }
        let Some((Request { folder }, files)) = messages::receive(socket.as_fd())? else { return Ok(None) };
        let Ok([stdout, stderr]) = <[OwnedFd; 2]>::try_from(files) else { continue };
        match fork::fork() {
            Ok(Fork::Parent(_)) => {}
            Ok(Fork::Child) => {
                // Not the engine's to be interrupted with.
                setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
                // The socket is closed with this: the engine must see when the zygote has gone.
                dup2_stdin(&nothing)?;
                dup2_stdout(&stdout)?;
                dup2_stderr(&stderr)?;
                children.thread_unblock()?;
                return Ok(Some(folder));
            }
            Err(error) => {
                // The engine reads it when the pipe ends.
                let _ = writeln!(File::from(stderr), "failed to fork: {error}");
            }
        }
    }
}

/// How shims have ended is nobody's business: the engine sees that they have by their sockets.
fn reap() {
    while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {}
}

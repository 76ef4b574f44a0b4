//! Terminals of containers and commands, and what is typed into them or into pipes.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ChildStdin, Stdio};

use nix::pty::openpty;
use nix::unistd::ttyname;
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::unix::pipe;

/// A new terminal. The process that uses it gets [`Terminal::stdio`]; when its last user has gone, reading ends with an
/// error.
pub(super) struct Terminal {
    master: File,
    slave: OwnedFd,
}

impl Terminal {
    pub(super) fn open() -> io::Result<Self> {
        let pair = openpty(None, None)?;
        Ok(Self { master: pair.master.into(), slave: pair.slave })
    }

    /// By which the process opens it, so that it becomes the process's own.
    pub(super) fn name(&self) -> io::Result<PathBuf> {
        Ok(ttyname(&self.slave)?)
    }

    /// Keeps the terminal in use until the process has opened it itself.
    pub(super) fn stdio(&self) -> io::Result<Stdio> {
        Ok(self.slave.try_clone()?.into())
    }

    /// Both directions, for when the process was started.
    pub(super) fn split(self) -> io::Result<(tokio::fs::File, Typed)> {
        let output = tokio::fs::File::from_std(self.master.try_clone()?);
        let to = Box::new(tokio::fs::File::from_std(self.master.try_clone()?));
        Ok((output, Typed { to, terminal: Some(self.master) }))
    }
}

/// The way to the input of a process.
pub(super) struct Typed {
    to: Box<dyn AsyncWrite + Unpin>,
    terminal: Option<File>,
}

impl Typed {
    pub(super) fn pipe(stdin: ChildStdin) -> io::Result<Self> {
        Ok(Self { to: Box::new(pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?), terminal: None })
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes).await?;
        self.to.flush().await
    }

    /// Tells the process how large the window of its user is; means nothing to a pipe.
    pub(super) fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let Some(terminal) = &self.terminal else { return Ok(()) };
        Ok(tcsetwinsize(terminal, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 })?)
    }
}

//! The standard streams of containers and commands: terminals or pipes, and what is typed into them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::pty::openpty;
use nix::unistd::ttyname;
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::unix::pipe;

use super::super::launch::Streams;

/// Our ends of the streams of a process that is about to be started.
pub(super) struct Ends {
    /// None: nobody types.
    pub(super) input: Option<Typed>,
    pub(super) outputs: Outputs,
}

/// What a process writes.
pub(super) enum Outputs {
    Terminal(tokio::fs::File),
    Pipes { stdout: pipe::Receiver, stderr: pipe::Receiver },
}

/// Pipes for a process; without `stdin` it reads an empty file.
pub(super) fn pipes(stdin: bool) -> io::Result<(Streams, Ends)> {
    let (stdin, input) = if stdin {
        let (theirs, ours) = io::pipe()?;
        (theirs.into(), Some(Typed::pipe(ours.into())?))
    } else {
        (File::open("/dev/null")?.into(), None)
    };
    let (our_stdout, stdout) = io::pipe()?;
    let (our_stderr, stderr) = io::pipe()?;
    let outputs = Outputs::Pipes {
        stdout: pipe::Receiver::from_owned_fd(our_stdout.into())?,
        stderr: pipe::Receiver::from_owned_fd(our_stderr.into())?,
    };
    Ok((Streams { stdin, stdout: stdout.into(), stderr: stderr.into() }, Ends { input, outputs }))
}

/// A new terminal. The process that uses it gets [`Terminal::split`]'s streams; when its last user has gone, reading ends with
/// an error.
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

    /// Both sides. Theirs keeps the terminal in use until the process has opened it itself.
    pub(super) fn split(self) -> io::Result<(Streams, Ends)> {
        let stream = || self.slave.try_clone();
        let streams = Streams { stdin: stream()?, stdout: stream()?, stderr: stream()? };
        let output = tokio::fs::File::from_std(self.master.try_clone()?);
        let to = Box::new(tokio::fs::File::from_std(self.master.try_clone()?));
        let input = Some(Typed { to, terminal: Some(self.master) });
        Ok((streams, Ends { input, outputs: Outputs::Terminal(output) }))
    }
}

/// The way to the input of a process.
pub(super) struct Typed {
    to: Box<dyn AsyncWrite + Unpin>,
    terminal: Option<File>,
}

impl Typed {
    fn pipe(stdin: OwnedFd) -> io::Result<Self> {
        Ok(Self { to: Box::new(pipe::Sender::from_owned_fd(stdin)?), terminal: None })
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

//! Programs of ours that run beside the engine and outlive it: the shim of each pod, the holder of the network.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Command;

/// The line that such a program writes when it can be asked.
const READY: &str = "ready";

/// In such a program: says that it can be asked.
pub(crate) fn ready() -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{READY}")?;
    stdout.flush()
}

/// A program that did not become ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    #[error("failed to create `{}`", path.display())]
    Log { path: PathBuf, source: io::Error },
    #[error("failed to run `{}`", program.display())]
    Run { program: PathBuf, source: io::Error },
    /// With what it wrote to its log.
    #[error("{said}")]
    NotReady { said: String },
}

/// Starts a program with a folder as its last argument, its errors in `log`, and returns when it is ready.
pub(crate) async fn start(
    program: &Path,
    arguments: &[String],
    folder: &Path,
    log: &Path,
    patience: Duration,
) -> Result<(), ChildError> {
    let stderr = File::create(log).map_err(|source| ChildError::Log { path: log.to_owned(), source })?;
    let mut child = Command::new(program)
        .args(arguments)
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        // Not ours to be interrupted with, and it outlives us.
        .process_group(0)
        .spawn()
        .map_err(|source| ChildError::Run { program: program.to_owned(), source })?;
    let stdout = child.stdout.take().expect("its standard output is a pipe");
    let ready = says_ready(stdout, log, patience).await;
    if ready.is_err() {
        // Whoever owns the child handle no longer waits for it: tokio reaps it when it ends.
        let _ = child.start_kill();
    }
    ready
}

/// Waits until such a program says that it can be asked; its errors are in `log`. One that is not waited for any longer ends by
/// itself, as it can say nothing.
pub(crate) async fn says_ready(
    stdout: impl AsyncRead + Unpin,
    log: &Path,
    patience: Duration,
) -> Result<(), ChildError> {
    let mut line = String::new();
    let mut stdout = BufReader::new(stdout);
    let read = tokio::time::timeout(patience, stdout.read_line(&mut line)).await;
    if read.is_ok() && line.trim_end() == READY {
        return Ok(());
    }
    let said = std::fs::read_to_string(log).unwrap_or_default();
    Err(ChildError::NotReady { said: said.trim_end().to_owned() })
}

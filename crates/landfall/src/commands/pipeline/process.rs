//! One step as a process: bash in a group of its own, what it says in a file, until it ends, takes too long or is interrupted.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;
use tokio::time::Instant;

/// How long a step has to end after it was told to.
const GRACE: Duration = Duration::from_secs(10);

/// How long it is waited for what a step has left behind in the pipe, by processes that have left its group.
const REST: Duration = Duration::from_secs(1);

/// The most that is kept of what a step says, from its beginning.
const LONGEST_LOG: u64 = 64 << 20;

/// How much of its end is kept in the record.
const TAIL_BYTES: usize = 8 << 10;
const TAIL_LINES: usize = 40;

/// How bash is started, as GitHub's runner does: it ends at the first command that fails, in a pipe, too.
pub(super) const SHELL: [&str; 5] = ["bash", "--noprofile", "--norc", "-eo", "pipefail"];

/// How a step has ended.
pub(super) enum Ended {
    /// By itself.
    ByItself(ExitStatus),
    /// It took too long, and was told to stop.
    TooLate,
    /// Somebody interrupted it.
    Interrupted,
}

/// What became of a step.
pub(super) struct Performed {
    pub(super) ended: Ended,
    pub(super) seconds: f64,
    pub(super) tail: Vec<String>,
}

/// Performs `script` in `folder`, with what it says in `log`. `interrupted` ends when somebody wants it to stop.
///
/// Whatever the step has started and left in its group ends with it.
pub(super) async fn perform(
    script: &Path,
    folder: &Path,
    variables: &[(&str, &std::ffi::OsStr)],
    log: &Path,
    deadline: Instant,
    interrupted: impl Future<Output = ()>,
) -> anyhow::Result<Performed> {
    let began = Instant::now();
    let failed = || format!("failed to start `{}`", script.display());
    // Both streams go into one pipe, so that their lines keep their order.
    let (reader, writer) = io::pipe().with_context(failed)?;
    let mut command = Command::new(SHELL[0]);
    command
        .args(&SHELL[1..])
        .arg(script)
        .current_dir(folder)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(writer.try_clone().with_context(failed)?)
        .stderr(writer)
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().with_context(failed)?;
    // It has the ends of the pipe that it writes to: nobody else may, or the pipe would never end.
    drop(command);
    let group =
        child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw).context("a step that runs has a number")?;
    let mut log = Log::create(log)?;
    let mut said = Receiver::from_owned_fd(reader.into()).with_context(failed)?;
    let ended = {
        let mut waited = std::pin::pin!(async {
            tokio::select! {
                status = child.wait() => status.map(Ended::ByItself),
                () = tokio::time::sleep_until(deadline) => Ok(Ended::TooLate),
                () = interrupted => Ok(Ended::Interrupted),
            }
        });
        loop {
            // Reading is dropped between two reads, with nothing read that is not in the log.
            tokio::select! {
                ended = &mut waited => break ended.with_context(|| format!("failed to wait for `{}`", script.display()))?,
                more = log.read_from(&mut said) => if !more? {
                    break (&mut waited).await.with_context(|| format!("failed to wait for `{}`", script.display()))?;
                },
            }
        }
    };
    if !matches!(ended, Ended::ByItself(_)) {
        let _gone = killpg(group, Signal::SIGTERM);
        let grace = Instant::now() + GRACE;
        let mut speaks = true;
        loop {
            tokio::select! {
                _ = child.wait() => break,
                () = tokio::time::sleep_until(grace) => break,
                more = log.read_from(&mut said), if speaks => speaks = more?,
            }
        }
    }
    // What is left of the group, in the background or because it did not stop.
    let _gone = killpg(group, Signal::SIGKILL);
    child.wait().await.with_context(|| format!("failed to wait for `{}`", script.display()))?;
    let rest = async {
        while log.read_from(&mut said).await? {}
        anyhow::Ok(())
    };
    if let Ok(read) = tokio::time::timeout(REST, rest).await {
        read?;
    }
    Ok(Performed { ended, seconds: began.elapsed().as_secs_f64(), tail: log.tail() })
}

/// What a step says: its beginning in a file, its end in memory.
struct Log {
    file: File,
    written: u64,
    tail: Vec<u8>,
}

impl Log {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("failed to make `{}`", path.display()))?;
        Ok(Self { file, written: 0, tail: Vec::new() })
    }

    /// Reads once; whether there may be more. May be dropped: what was read is kept before the next wait.
    async fn read_from(&mut self, said: &mut Receiver) -> anyhow::Result<bool> {
        let mut buffer = [0; 8 << 10];
        let read = said.read(&mut buffer).await.context("failed to read what a step says")?;
        self.keep(&buffer[..read]).context("failed to write the log of a step")?;
        Ok(read > 0)
    }

    fn keep(&mut self, said: &[u8]) -> io::Result<()> {
        if self.written < LONGEST_LOG {
            self.file.write_all(said)?;
            self.written += said.len() as u64;
            if self.written >= LONGEST_LOG {
                self.file.write_all(b"\n(more is not kept)\n")?;
            }
        }
        self.tail.extend_from_slice(said);
        if self.tail.len() > 2 * TAIL_BYTES {
            self.tail.drain(..self.tail.len() - TAIL_BYTES);
        }
        Ok(())
    }

    fn tail(&self) -> Vec<String> {
        let end = &self.tail[self.tail.len().saturating_sub(TAIL_BYTES)..];
        let text = String::from_utf8_lossy(end);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| (*line).to_owned()).collect()
    }
}

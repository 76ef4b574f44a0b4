//! The processes of a control plane, and the watchdog that ends them if nobody else does.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::control_plane::StartError;

/// How much of a log an error shows.
const SHOWN_LINES: usize = 25;

/// A program in a process group of its own, with its output in a log. Killed and reaped when dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(super) fn start(
        name: &'static str,
        program: &Path,
        flags: &[impl AsRef<OsStr>],
        folder: &Path,
    ) -> Result<Self, StartError> {
        let prepare = |source| StartError::Prepare { action: format!("start {name}"), source };
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).map_err(prepare)?;
        let child = Command::new(program)
            .args(flags)
            .current_dir(folder)
            // So that an interrupted test run ends them through the watchdog, all at once and with their folder.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(prepare)?)
            .stderr(output)
            .spawn()
            .map_err(prepare)?;
        Ok(Self { name, child, log })
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The error that this process is no longer there, if so.
    pub(super) fn ended(&mut self) -> Option<StartError> {
        let status = match self.child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        Some(StartError::Ended { piece: self.name, status, log: self.log_tail() })
    }

    pub(super) fn not_ready(&self) -> StartError {
        StartError::NotReady { piece: self.name, log: self.log_tail() }
    }

    fn log_tail(&self) -> String {
        let log = match fs::read(&self.log) {
            Ok(log) => log,
            Err(error) => return format!("(`{}`: {error})", self.log.display()),
        };
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.child.id().cast_signed());
        // It may have ended by itself; either way it is reaped.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// A shell that reads process groups until its input ends, which it does when this process is gone however that
/// happened. It then kills them and removes the folder.
#[derive(Debug)]
pub(super) struct Watchdog {
    shell: Child,
    input: ChildStdin,
}

impl Watchdog {
    pub(super) fn start(folder: &Path) -> Result<Self, StartError> {
        const SCRIPT: &str = r#"
            groups=
            while read -r group; do groups="$groups -$group"; done
            for group in $groups; do kill -KILL "$group"; done
            while ! rm -rf -- "$1"; do sleep 1; done
        "#;
        let prepare = |source| StartError::Prepare { action: "start the watchdog".to_owned(), source };
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "watchdog"])
            .arg(folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(prepare)?;
        let input = shell.stdin.take().expect("it was asked for");
        Ok(Self { shell, input })
    }

    pub(super) fn watch(&mut self, process: &Process) -> Result<(), StartError> {
        writeln!(self.input, "{}", process.id()).map_err(|source| StartError::Prepare {
            action: format!("put {} under the watchdog", process.name),
            source,
        })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Everything that it watches is dropped before it, and their numbers may be those of others soon.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// Ports that are free now. Another program may take one before it is used; the caller then tries again.
pub(super) fn free_ports<const N: usize>() -> Result<[u16; N], StartError> {
    let bind =
        || -> io::Result<Vec<TcpListener>> { (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect() };
    let ports = || -> io::Result<Vec<u16>> {
        // All at once, so that none is given out twice.
        bind()?.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
    };
    let ports = ports().map_err(|source| StartError::Prepare { action: "find free ports".to_owned(), source })?;
    Ok(ports.try_into().expect("it has N elements"))
}

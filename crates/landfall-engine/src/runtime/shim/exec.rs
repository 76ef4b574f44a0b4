//! Commands beside the process of a container, and clients that are attached to it.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::Path;
use std::rc::Rc;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinSet;

use super::super::Stdin;
use super::super::launch::{self, Launch, Outcome, Place};
use super::Shim;
use super::container::{Live, Stage};
use super::protocol::{self, Answer, ExecCommand, Frame};
use super::terminal::{self, Outputs, Terminal, Typed};

/// How many pieces of output may wait for a slow client before the command does.
const OUTPUT_BACKLOG: usize = 16;

/// A command that runs.
struct Running {
    pid: i32,
    outcome: Outcome,
    ended: oneshot::Receiver<i32>,
    input: Option<Typed>,
    outputs: JoinSet<()>,
}

impl Shim {
    pub(super) async fn exec(
        self: Rc<Self>,
        id: &str,
        command: ExecCommand,
        reading: OwnedReadHalf,
        mut writing: OwnedWriteHalf,
    ) -> io::Result<()> {
        let Some(live) = self.live.borrow().get(id).cloned() else {
            let answer: Answer = Err("container not running".to_owned());
            return protocol::write_line(&mut writing, &answer).await;
        };
        let ok: Answer = Ok(());
        match command.argv {
            None => {
                let output = live.output.subscribe();
                protocol::write_line(&mut writing, &ok).await?;
                attach(&live, output, reading, writing).await
            }
            Some(argv) => {
                // Before, the command would run where the container comes from, with the files of the machine.
                live.has_come_to(Stage::Runs).await;
                let (output, outputs) = mpsc::channel(OUTPUT_BACKLOG);
                let pipe = self.container_folder(id).join(format!("outcome-{}", uuid::Uuid::new_v4()));
                let running = self.spawn(&live, argv, command.stdin, command.tty, &pipe, &output);
                drop(output);
                let result = match running {
                    Ok(running) => {
                        let pid = running.pid;
                        live.commands.borrow_mut().insert(pid);
                        let conversed = async {
                            protocol::write_line(&mut writing, &ok).await?;
                            converse(running, outputs, reading, writing).await
                        };
                        let result = conversed.await;
                        live.commands.borrow_mut().remove(&pid);
                        result
                    }
                    Err(error) => {
                        let answer: Answer = Err(error.to_string());
                        protocol::write_line(&mut writing, &answer).await
                    }
                };
                let _ = fs::remove_file(&pipe);
                result
            }
        }
    }

    fn spawn(
        &self,
        live: &Live,
        argv: Vec<String>,
        stdin: bool,
        tty: bool,
        pipe: &Path,
        output: &mpsc::Sender<Frame>,
    ) -> io::Result<Running> {
        let terminal = tty.then(Terminal::open).transpose()?;
        let launch = Launch {
            argv,
            env: live.spec.env.clone(),
            working_dir: live.spec.working_dir.clone(),
            place: Place::Beside { pid: live.pid, netns: self.setup.sandbox.netns.clone() },
            tty: terminal.as_ref().map(Terminal::name).transpose()?,
            cgroups: live.group.procs(),
            outcome: pipe.to_path_buf(),
            namespace: None,
            no_new_privileges: live.spec.no_new_privileges,
        };
        let outcome = Outcome::listen(pipe)?;
        let (streams, ends) = terminal.map_or_else(|| terminal::pipes(stdin), Terminal::split)?;
        let pid = launch::spawn(&launch, streams, &self.setup.arguments)?;
        let ended = self.adopt(pid);
        let mut outputs = JoinSet::new();
        match ends.outputs {
            Outputs::Terminal(reading) => {
                outputs.spawn_local(copy(reading, output.clone(), Frame::Stdout));
            }
            Outputs::Pipes { stdout, stderr } => {
                outputs.spawn_local(copy(stdout, output.clone(), Frame::Stdout));
                outputs.spawn_local(copy(stderr, output.clone(), Frame::Stderr));
            }
        }
        Ok(Running { pid, outcome, ended, input: ends.input, outputs })
    }
}

/// Carries everything between a command and its client, until the command has ended or the client has gone.
async fn converse(
    running: Running,
    mut outputs: mpsc::Receiver<Frame>,
    mut reading: OwnedReadHalf,
    mut writing: OwnedWriteHalf,
) -> io::Result<()> {
    let Running { pid, outcome, mut ended, input, outputs: mut copies } = running;
    let input = RefCell::new(input);
    let feed = async {
        while let Some(frame) = Frame::read(&mut reading).await? {
            if matches!(frame, Frame::CloseStdin) {
                input.take();
            } else {
                take_in(&input, frame).await;
            }
        }
        io::Result::Ok(())
    };
    let tell = async {
        let mut code = None;
        loop {
            tokio::select! {
                biased;
                frame = outputs.recv() => match frame {
                    Some(frame) => frame.write(&mut writing).await?,
                    None => break,
                },
                result = &mut ended, if code.is_none() => {
                    code = Some(result.unwrap_or(255));
                    // What it has left behind may hold its output open for ever.
                    let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
        }
        let code = match code {
            Some(code) => code,
            None => ended.await.unwrap_or(255),
        };
        let result = outcome.failure().map_or(Ok(code), Err);
        Frame::Ended(result).write(&mut writing).await
    };
    let result = tokio::select! {
        told = tell => told,
        // The engine is the other end, and says when its client types no more: where it says nothing more, both have gone.
        fed = feed => Err(fed.err().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())),
    };
    if result.is_err() {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    copies.abort_all();
    result
}

/// Carries what a container writes to a client, and what the client types to the container.
async fn attach(
    live: &Live,
    mut output: broadcast::Receiver<Frame>,
    mut reading: OwnedReadHalf,
    mut writing: OwnedWriteHalf,
) -> io::Result<()> {
    let feed = async {
        while let Some(frame) = Frame::read(&mut reading).await? {
            if matches!(frame, Frame::CloseStdin) {
                if live.spec.stdin == Stdin::Once {
                    live.input.take();
                }
            } else {
                take_in(&live.input, frame).await;
            }
        }
        io::Result::Ok(())
    };
    let tell = async {
        let mut ended = std::pin::pin!(live.has_come_to(Stage::Ended));
        loop {
            tokio::select! {
                biased;
                frame = output.recv() => match frame {
                    Ok(frame) => frame.write(&mut writing).await?,
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                () = &mut ended => break,
            }
        }
        Frame::Ended(Ok(0)).write(&mut writing).await
    };
    tokio::select! {
        told = tell => told,
        fed = feed => {
            if live.spec.stdin == Stdin::Once {
                live.input.take();
            }
            fed
        }
    }
}

/// Gives a process what its client has typed, or the size of the client's window.
async fn take_in(input: &RefCell<Option<Typed>>, frame: Frame) {
    let Some(mut to) = input.take() else { return };
    let taken = match frame {
        Frame::Stdin(bytes) => to.write(&bytes).await,
        Frame::Resize { columns, rows } => to.resize(columns, rows),
        _ => Ok(()),
    };
    // A process that does not read on has its reasons.
    if taken.is_ok() {
        input.replace(Some(to));
    }
}

/// Copies one stream of a command into frames.
async fn copy(mut from: impl AsyncRead + Unpin, to: mpsc::Sender<Frame>, frame: fn(bytes::Bytes) -> Frame) {
    let mut chunk = vec![0; 16 * 1024];
    // A terminal whose last user has gone answers with an error: that is its end.
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        if to.send(frame(bytes::Bytes::copy_from_slice(&chunk[..length]))).await.is_err() {
            return;
        }
    }
}

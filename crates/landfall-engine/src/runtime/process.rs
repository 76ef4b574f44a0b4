//! Containers as processes of this machine: the engine's side of the shims.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;

use super::child;
use super::limits::Cgroups;
use super::mounts::Namespaces;
use super::shim;
use super::shim::protocol::{self, Answer, ExecCommand, Frame, Request, SETUP, Setup};
use super::zygote::Zygote;
use super::{
    Consumption, ContainerRecord, ContainerSpec, ContainerState, Isolation, MountIsolation, PodSandbox, Records,
    Runtime, RuntimeError, Sandbox, processes,
};
use crate::api::node_agent::{Command, Input, Output, Session};

/// How this binary becomes a shim: a program, and the arguments before the shim's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shim {
    /// The binary that calls [`crate::shim_main`] when it is started with `arguments`.
    pub program: PathBuf,
    /// What distinguishes such a call from the binary's other uses; it is no part of what `shim_main` gets.
    pub arguments: Vec<String>,
}

/// How many pieces of a conversation with a command wait on each side.
const BACKLOG: usize = 16;

/// How long a shim may take to start. It is a fork and a few files; a machine that needs longer has other troubles.
const START_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct ProcessRuntime {
    /// One folder for each pod, named by its uid.
    folder: PathBuf,
    /// The run folder, with one for each pod that is open.
    run: PathBuf,
    shim: Shim,
    zygote: Arc<Zygote>,
    namespaces: Option<Namespaces>,
    cgroups: Cgroups,
}

impl ProcessRuntime {
    /// Finds out what this system allows. `run` is the run folder.
    pub(crate) async fn start(folder: &Path, run: PathBuf, shim: Shim) -> Result<Self, RuntimeError> {
        let scratch = folder.join(".trial");
        fs::create_dir_all(&scratch).map_err(RuntimeError::file("create the folder", &scratch))?;
        let output = tokio::process::Command::new(&shim.program)
            .args(&shim.arguments)
            .arg("--try")
            .arg(&scratch)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(RuntimeError::file("run", &shim.program))?;
        let namespaces = serde_json::from_slice(&output.stdout)
            .map_err(|error| RuntimeError::Refused(format!("`{}` is no shim: {error}", shim.program.display())))?;
        fs::remove_dir_all(&scratch).map_err(RuntimeError::file("remove the folder", &scratch))?;
        let zygote = Arc::new(Zygote::new(shim.clone()));
        Ok(Self { folder: folder.to_path_buf(), run, shim, zygote, namespaces, cgroups: Cgroups::detect() })
    }

    async fn open_sandbox(&self, sandbox: PodSandbox) -> Result<Arc<dyn Sandbox>, RuntimeError> {
        let (folder, run) = (self.directory(&sandbox.uid), self.run_directory(&sandbox.uid));
        fs::create_dir_all(&folder).map_err(RuntimeError::file("create the folder", &folder))?;
        let is_new = match fs::create_dir(&run) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            created => created.map(|()| true).map_err(RuntimeError::file("create the folder", &run))?,
        };
        let setup = Setup {
            sandbox,
            run: run.clone(),
            namespaces: self.namespaces,
            cgroups: self.cgroups.clone(),
            arguments: self.shim.arguments.clone(),
        };
        let sandbox = ProcessSandbox {
            opened: fs::File::open(&folder).map_err(RuntimeError::file("open the folder", &folder))?,
            folder,
            run,
            records: watch::Sender::new(Arc::from([])),
            tasks: Mutex::default(),
        };
        if is_new {
            // It runs already: somebody has deleted its volumes, so that it begins anew, as after a reboot.
            let _ = sandbox.ask::<()>(Request::Close).await;
        }
        if sandbox.watch().await.is_err() {
            self.start_shim(&sandbox.folder, &setup).await?;
            sandbox.watch().await?;
        }
        Ok(Arc::new(sandbox))
    }

    async fn start_shim(&self, folder: &Path, setup: &Setup) -> Result<(), RuntimeError> {
        let file = folder.join(SETUP);
        let text = serde_json::to_vec(setup).expect("a setup is JSON");
        let new = folder.join("sandbox.json.new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, &file)).map_err(RuntimeError::file("write", &file))?;
        let log = setup.run.join("shim.log");
        let errors = fs::File::create(&log).map_err(RuntimeError::file("create", &log))?;
        let (zygote, folder) = (Arc::clone(&self.zygote), folder.to_path_buf());
        let forked = tokio::task::spawn_blocking(move || zygote.fork(&folder, &errors)).await;
        let forked = forked.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let heard = forked.and_then(|heard| pipe::Receiver::from_owned_fd(heard.into()));
        let heard = heard.map_err(RuntimeError::file("run", &self.shim.program))?;
        child::says_ready(heard, &log, START_TIMEOUT)
            .await
            .map_err(|error| RuntimeError::Refused(format!("the pod's shim did not start: {error}")))
    }
}

impl Runtime for ProcessRuntime {
    fn isolation(&self) -> Isolation {
        let mounts = if self.namespaces.is_some() { MountIsolation::Private } else { MountIsolation::Linked };
        Isolation { mounts, limits: self.cgroups.isolation() }
    }

    fn left_behind(&self) -> Result<Vec<PodSandbox>, RuntimeError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(RuntimeError::file("read the folder", &self.folder))? {
            let path = entry.map_err(RuntimeError::file("read the folder", &self.folder))?.path();
            let file = path.join(SETUP);
            match fs::read(&file) {
                Ok(text) => match serde_json::from_slice::<Setup>(&text) {
                    Ok(setup) => found.push(setup.sandbox),
                    Err(error) => tracing::warn!(file = %file.display(), %error, "this is no sandbox"),
                },
                // A pod that never came to have a shim.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::remove_dir_all(&path).map_err(RuntimeError::file("remove the folder", &path))?;
                }
                Err(error) => return Err(RuntimeError::file("read", &file)(error)),
            }
        }
        for entry in fs::read_dir(&self.run).map_err(RuntimeError::file("read the folder", &self.run))? {
            let entry = entry.map_err(RuntimeError::file("read the folder", &self.run))?;
            let path = entry.path();
            if path.is_dir() && !self.folder.join(entry.file_name()).exists() {
                fs::remove_dir_all(&path).map_err(RuntimeError::file("remove the folder", &path))?;
            }
        }
        Ok(found)
    }

    fn runs(&self, uid: &str) -> bool {
        shim::holds(&self.directory(uid))
    }

    fn open(&self, sandbox: PodSandbox) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, RuntimeError>> {
        self.open_sandbox(sandbox).boxed()
    }

    fn directory(&self, uid: &str) -> PathBuf {
        self.folder.join(uid)
    }

    fn run_directory(&self, uid: &str) -> PathBuf {
        self.run.join(uid)
    }
}

#[derive(Debug)]
struct ProcessSandbox {
    folder: PathBuf,
    /// Its folder in the run folder.
    run: PathBuf,
    /// Held open, as the way to the socket leads through it.
    opened: fs::File,
    records: watch::Sender<Records>,
    /// Listens to the shim.
    tasks: Mutex<JoinSet<()>>,
}

impl ProcessSandbox {
    async fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(protocol::short_path(&self.opened)).await
    }

    /// Takes the records in, now and from now on.
    async fn watch(&self) -> Result<(), RuntimeError> {
        let failed = RuntimeError::shim("speak to the pod's shim");
        let mut stream = match self.connect().await {
            Ok(stream) => stream,
            Err(error) => return Err(failed(error)),
        };
        let first = async {
            protocol::write_line(&mut stream, &Request::Watch).await?;
            let mut lines = BufReader::new(stream);
            let first = protocol::read_line::<Vec<ContainerRecord>>(&mut lines).await?;
            io::Result::Ok((first.ok_or(io::ErrorKind::UnexpectedEof)?, lines))
        };
        let silent = |_| io::Error::from(io::ErrorKind::TimedOut);
        let first = tokio::time::timeout(START_TIMEOUT, first).await.map_err(silent).and_then(|first| first);
        let (first, mut lines) = first.map_err(failed)?;
        self.records.send_replace(first.into());
        let records = self.records.clone();
        self.tasks.lock().await.spawn(async move {
            while let Ok(Some(now)) = protocol::read_line::<Vec<ContainerRecord>>(&mut lines).await {
                records.send_replace(now.into());
            }
        });
        Ok(())
    }

    async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, RuntimeError> {
        let answered = async {
            let mut stream = self.connect().await?;
            protocol::write_line(&mut stream, &request).await?;
            let answer = protocol::read_line::<Answer<T>>(&mut BufReader::new(stream)).await?;
            io::Result::Ok(answer.ok_or(io::ErrorKind::UnexpectedEof)?)
        };
        answered.await.map_err(RuntimeError::shim("speak to the pod's shim"))?.map_err(RuntimeError::Refused)
    }

    async fn run(&self, id: &str, command: Command) -> Result<Session, RuntimeError> {
        let request = Request::Exec {
            id: id.to_owned(),
            command: ExecCommand { argv: command.argv, stdin: command.stdin, tty: command.tty },
        };
        let begun = async {
            let mut stream = self.connect().await?;
            protocol::write_line(&mut stream, &request).await?;
            let mut stream = BufReader::new(stream);
            let answer = protocol::read_line::<Answer>(&mut stream).await?;
            io::Result::Ok((answer.ok_or(io::ErrorKind::UnexpectedEof)?, stream))
        };
        let (answer, stream) = begun.await.map_err(RuntimeError::shim("speak to the pod's shim"))?;
        answer.map_err(RuntimeError::Refused)?;
        let (input, mut typed) = mpsc::channel(BACKLOG);
        let (told, output) = mpsc::channel(BACKLOG);
        let (mut reading, mut writing) = tokio::io::split(stream);
        let mut tasks = self.tasks.lock().await;
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let feed = async {
                while let Some(input) = typed.recv().await {
                    let frame = match input {
                        Input::Stdin(bytes) => Frame::Stdin(bytes),
                        Input::CloseStdin => Frame::CloseStdin,
                        Input::Resize { columns, rows } => Frame::Resize { columns, rows },
                    };
                    if frame.write(&mut writing).await.is_err() {
                        break;
                    }
                }
            };
            let tell = async {
                loop {
                    let output = match Frame::read(&mut reading).await {
                        Ok(Some(Frame::Stdout(bytes))) => Output::Stdout(bytes),
                        Ok(Some(Frame::Stderr(bytes))) => Output::Stderr(bytes),
                        Ok(Some(Frame::Ended(result))) => Output::Ended(result),
                        Ok(Some(_)) => continue,
                        Ok(None) => Output::Ended(Err("the container is gone".to_owned())),
                        Err(error) => Output::Ended(Err(error.to_string())),
                    };
                    let last = matches!(output, Output::Ended(_));
                    if told.send(output).await.is_err() || last {
                        return;
                    }
                }
            };
            // The client has gone when it no longer listens; that it says nothing more means nothing.
            tokio::select! {
                () = tell => {}
                () = told.closed() => {}
                () = async { feed.await; std::future::pending().await } => {}
            }
        });
        Ok(Session { input, output })
    }
}

impl Sandbox for ProcessSandbox {
    fn start(&self, container: ContainerSpec) -> BoxFuture<'_, Result<ContainerRecord, RuntimeError>> {
        self.ask(Request::Start(Box::new(container))).boxed()
    }

    fn stop<'a>(&'a self, id: &'a str, signal: &'a str, grace: Duration) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let grace_millis = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.ask(Request::Stop { id: id.to_owned(), signal: signal.to_owned(), grace_millis }).boxed()
    }

    fn records(&self) -> watch::Receiver<Records> {
        self.records.subscribe()
    }

    fn exec<'a>(&'a self, id: &'a str, command: Command) -> BoxFuture<'a, Result<Session, RuntimeError>> {
        self.run(id, command).boxed()
    }

    fn usage(&self, id: &str) -> Option<Consumption> {
        let records = self.records.borrow();
        let record = records.iter().find(|record| record.id == id)?;
        match record.state {
            ContainerState::Running { pid, .. } => Some(processes::consumption(pid)),
            ContainerState::Exited(_) => None,
        }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            // A shim that does not answer has ended already.
            let _ = self.ask::<()>(Request::Close).await;
            if let Err(error) = remove_folder(&self.run).await {
                tracing::warn!(%error, "files of a pod that has ended stay in memory");
            }
        }
        .boxed()
    }

    fn remove(&self) -> BoxFuture<'_, Result<(), RuntimeError>> {
        async {
            remove_folder(&self.run).await?;
            remove_folder(&self.folder).await
        }
        .boxed()
    }
}

/// Deletes a folder that may have gone already.
async fn remove_folder(folder: &Path) -> Result<(), RuntimeError> {
    match tokio::fs::remove_dir_all(folder).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RuntimeError::file("remove the folder", folder)(error))
        }
        _ => Ok(()),
    }
}

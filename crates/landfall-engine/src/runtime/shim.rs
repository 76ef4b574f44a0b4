//! The process that every pod has: it starts and reaps the containers, writes their logs, keeps what became of them, and
//! does what the engine says over a socket in the pod's folder. It outlives the engine, which finds it again there.
//!
//! It is a copy of a process of the engine's own binary ([`super::zygote`]). One thread does everything, so that a child can be
//! registered before it can be reaped; another one only looks at the memory of containers ([`memory`]).

mod container;
mod exec;
mod memory;
pub(super) mod protocol;
mod terminal;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinSet, LocalSet};

use super::{ContainerRecord, ContainerState, Exit, Records, child, launch, mounts, zygote};
use container::Live;
use protocol::{Answer, Request, Setup};

/// The file in the folder of the pod that only one shim can hold. Its process id is in it.
const LOCK: &str = "lock";

/// What the binary does when it is called with the hidden arguments of a shim (see [`crate::Shim`]). To be called before
/// anything else, while the process has one thread: what it starts becomes the program of a container.
///
/// # Panics
///
/// When the engine and this program disagree about what they tell each other.
pub fn shim_main(arguments: &[OsString]) -> ExitCode {
    match arguments {
        [mode, file] if mode == launch::LAUNCH => launch::run(Path::new(file)),
        [mode, scratch] if mode == "--try" => {
            let found = mounts::try_namespaces(Path::new(scratch));
            let text = serde_json::to_vec(&found).expect("an enum without data is JSON");
            if io::stdout().write_all(&text).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        [mode] if mode == zygote::ZYGOTE => match zygote::serve().and_then(|folder| folder.map_or(Ok(()), serve)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // The standard error of a shim is a file in its folder.
                let _ = writeln!(io::stderr(), "{error}");
                ExitCode::FAILURE
            }
        },
        _ => ExitCode::from(2),
    }
}

/// Whether a shim serves the pod of this folder.
pub(super) fn holds(folder: &Path) -> bool {
    // The lock ends with the process, however that ends.
    File::open(folder.join(LOCK)).is_ok_and(|lock| Flock::lock(lock, FlockArg::LockSharedNonblock).is_err())
}

/// What the tasks of a shim share. Nobody holds a borrow across an await.
struct Shim {
    folder: PathBuf,
    setup: Setup,
    records: RefCell<Vec<ContainerRecord>>,
    published: watch::Sender<Records>,
    /// Who waits for which child.
    children: RefCell<HashMap<i32, oneshot::Sender<i32>>>,
    /// The containers that run, by id.
    live: RefCell<HashMap<String, Rc<Live>>>,
    /// The tasks that wait for containers and commands.
    tasks: RefCell<JoinSet<()>>,
    closing: watch::Sender<bool>,
}

fn serve(folder: PathBuf) -> io::Result<()> {
    let lock = OpenOptions::new().write(true).create(true).truncate(false).open(folder.join(LOCK))?;
    let Ok(mut lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else {
        return Err(io::Error::other("another shim serves this pod"));
    };
    // All shims look alike in a list of processes.
    lock.set_len(0)?;
    writeln!(lock, "{}", std::process::id())?;
    // Orphans of a container become our children, so that they are found and reaped.
    set_child_subreaper(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shim = Shim::load(&folder)?;
    let result = LocalSet::new().block_on(&runtime, shim.run());
    // A thread that still reads from a terminal must not hold us up.
    runtime.shutdown_background();
    result
}

impl Shim {
    fn load(folder: &Path) -> io::Result<Rc<Self>> {
        let setup: Setup = serde_json::from_slice(&fs::read(folder.join(protocol::SETUP))?)?;
        let mut records: Vec<ContainerRecord> = match fs::read(folder.join(protocol::RECORDS)) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut changed = false;
        for record in &mut records {
            changed |= !record.earlier;
            record.earlier = true;
            if let ContainerState::Running { pid, ticks, started_at } = record.state {
                // A shim before us was killed. Its containers have lost their logs and nobody would learn how they end,
                // so that they end now: never do two copies of a container run.
                container::kill_left_behind(&setup.cgroups.group(&record.id), pid, ticks);
                record.state = ContainerState::Exited(Exit {
                    started_at,
                    finished_at: jiff::Timestamp::now(),
                    code: 137,
                    reason: "ContainerStatusUnknown".to_owned(),
                    message: Some("The container could not be located when the pod was terminated".to_owned()),
                });
            }
        }
        let shim = Self {
            folder: folder.to_path_buf(),
            setup,
            published: watch::Sender::new(records.clone().into()),
            records: RefCell::new(records),
            children: RefCell::default(),
            live: RefCell::default(),
            tasks: RefCell::default(),
            closing: watch::Sender::new(false),
        };
        if changed {
            shim.save()?;
        }
        Ok(Rc::new(shim))
    }

    async fn run(self: Rc<Self>) -> io::Result<()> {
        // With a handler these no longer end the process: the terminal and the session of the engine are not ours.
        let mut _hangups = signal(SignalKind::hangup())?;
        let mut _interrupts = signal(SignalKind::interrupt())?;
        let mut ended = signal(SignalKind::child())?;
        let folder = File::open(&self.folder)?;
        let address = protocol::short_path(&folder);
        match fs::remove_file(self.folder.join(protocol::SOCKET)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&address)?;
        child::ready()?;

        let mut closing = self.closing.subscribe();
        let mut conversations = JoinSet::new();
        let mut memory = std::pin::pin!(self.watch_memory());
        loop {
            // Accepting, a signal stream and a watch lose nothing when dropped.
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted?;
                    let shim = Rc::clone(&self);
                    conversations.spawn_local(async move {
                        // A client that goes away in the middle is no failure of ours.
                        let _ = shim.converse(stream).await;
                    });
                }
                _ = ended.recv() => self.reap(),
                Ok(_) = closing.wait_for(|closing| *closing) => break,
                Some(_) = conversations.join_next() => {}
                // It has no end of its own.
                () = &mut memory => {}
            }
            while self.tasks.borrow_mut().try_join_next().is_some() {}
        }
        // The one who asked us to close was answered before; those who watch see the end of the connection.
        Ok(())
    }

    async fn converse(self: Rc<Self>, mut stream: UnixStream) -> io::Result<()> {
        let (reading, mut writing) = stream.split();
        let mut reading = BufReader::new(reading);
        let Some(request) = protocol::read_line::<Request>(&mut reading).await? else { return Ok(()) };
        match request {
            Request::Watch => {
                let mut records = self.published.subscribe();
                loop {
                    let now = Records::clone(&records.borrow_and_update());
                    protocol::write_line(&mut writing, &now.to_vec()).await?;
                    if records.changed().await.is_err() {
                        return Ok(());
                    }
                }
            }
            Request::Start(spec) => {
                let answer: Answer<ContainerRecord> = self.start(*spec).await.map_err(|error| error.to_string());
                protocol::write_line(&mut writing, &answer).await
            }
            Request::Stop { id, signal, grace_millis } => {
                let answer = self.stop(&id, &signal, std::time::Duration::from_millis(grace_millis)).await;
                protocol::write_line(&mut writing, &answer).await
            }
            Request::Exec { id, command } => {
                drop(reading);
                let (reading, writing) = stream.into_split();
                self.exec(&id, command, reading, writing).await
            }
            Request::Close => {
                self.stop_all().await;
                let answer: Answer = Ok(());
                protocol::write_line(&mut writing, &answer).await?;
                self.closing.send_replace(true);
                Ok(())
            }
        }
    }

    /// Asks how every child that has ended has ended.
    fn reap(&self) {
        loop {
            let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            if let Some(waiting) = self.children.borrow_mut().remove(&pid.as_raw()) {
                // The one who waited may have gone.
                let _ = waiting.send(code);
            }
        }
    }

    /// To be called right after the child is started, before anything else can run.
    fn adopt(&self, pid: i32) -> oneshot::Receiver<i32> {
        let (ended, waiting) = oneshot::channel();
        self.children.borrow_mut().insert(pid, ended);
        waiting
    }

    fn change(&self, change: impl FnOnce(&mut Vec<ContainerRecord>)) -> io::Result<()> {
        change(&mut self.records.borrow_mut());
        let saved = self.save();
        self.published.send_replace(self.records.borrow().clone().into());
        saved
    }

    /// All or nothing, by renaming. Not forced to the disk: processes do not outlive the machine either.
    fn save(&self) -> io::Result<()> {
        let path = self.folder.join(protocol::RECORDS);
        let new = self.folder.join("containers.json.new");
        fs::write(&new, serde_json::to_vec(&*self.records.borrow())?)?;
        fs::rename(new, path)
    }
}

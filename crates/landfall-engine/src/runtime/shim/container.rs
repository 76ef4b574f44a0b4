//! One container of a shim: from its start to its last words.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr as _;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::JoinSet;

use super::super::launch::{self, Launch, Outcome, Place, START_FAILED};
use super::super::limits::Group;
use super::super::logs::LogWriter;
use super::super::processes;
use super::super::{ContainerRecord, ContainerSpec, ContainerState, Exit, Mount, START_ERROR, Stdin, log_file};
use super::Shim;
use super::protocol::{Answer, Frame};
use super::terminal::{self, Outputs, Terminal, Typed};

/// How long the log of a container that has ended may take to be read to its end. All its processes are dead by then; only
/// a process that left the container could hold it open.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// The longest last words that are read, and how much of the log may stand in for them (Kubernetes, "Determine the Reason
/// for Pod Failure").
const MAX_MESSAGE: usize = 4096;
const MAX_MESSAGE_FROM_LOG: usize = 2048;
const MAX_MESSAGE_LINES: usize = 80;

/// The exit code of what a SIGKILL has ended.
const KILLED: i32 = 128 + Signal::SIGKILL as i32;

/// What a container reads of names, and the folder in which that is where it changes.
const HOSTS: &str = "/etc/hosts";
const NAMES: &str = "/etc/hosts.d";
const HOSTS_FILE: &str = "hosts";

/// How many pieces of output an attached client may lag behind before it misses some.
const OUTPUT_BACKLOG: usize = 256;

/// A container that runs.
pub(super) struct Live {
    pub(super) pid: i32,
    /// When it started: with the pid, it names its first process.
    pub(super) ticks: u64,
    pub(super) spec: ContainerSpec,
    pub(super) group: Group,
    /// What it writes, for those who are attached.
    pub(super) output: broadcast::Sender<Frame>,
    /// Where it reads from, until it is closed.
    pub(super) input: RefCell<Option<Typed>>,
    /// The commands that run beside its first process.
    pub(super) commands: RefCell<BTreeSet<i32>>,
    /// It was killed as it had more memory than it may, where no control group does that.
    pub(super) out_of_memory: Cell<bool>,
    pub(super) stage: watch::Sender<Stage>,
}

/// How far a container has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Its process is not its program yet, and may not be in its namespaces.
    Launching,
    Runs,
    Ended,
}

impl Live {
    /// Waits until the container has come this far.
    pub(super) async fn has_come_to(&self, stage: Stage) {
        // We hold the sender ourselves.
        let _ = self.stage.subscribe().wait_for(|now| *now >= stage).await;
    }
}

impl Shim {
    /// Starts a container and waits until its program runs or could not be run. One with this id that was started before is
    /// left alone.
    pub(super) async fn start(self: &Rc<Self>, spec: ContainerSpec) -> io::Result<ContainerRecord> {
        let id = spec.id.clone();
        self.begin(spec)?;
        let live = self.live.borrow().get(&id).cloned();
        if let Some(live) = live {
            live.has_come_to(Stage::Runs).await;
        }
        let record = self.records.borrow().iter().find(|record| record.id == id).cloned();
        record.ok_or_else(|| io::Error::other("the container has been forgotten"))
    }

    fn begin(self: &Rc<Self>, spec: ContainerSpec) -> io::Result<()> {
        if self.records.borrow().iter().any(|record| record.id == spec.id) {
            return Ok(());
        }
        if self.records.borrow().iter().any(|record| record.name == spec.name && record.is_running()) {
            return Err(io::Error::other(format!("container {} is running already", spec.name)));
        }
        let folder = self.container_folder(&spec.id);
        fs::create_dir_all(&folder)?;
        let group = self.setup.cgroups.create(&spec.id, &spec.limits)?;
        let log = LogWriter::create(&log_file(&self.folder, &spec.name, spec.attempt))?;
        let terminal = spec.tty.then(Terminal::open).transpose()?;
        let tty = terminal.as_ref().map(Terminal::name).transpose()?;
        let launch = self.launch(&spec, &folder, &group, tty)?;
        let outcome = Outcome::listen(&launch.outcome)?;
        let (streams, ends) = terminal.map_or_else(|| terminal::pipes(spec.stdin != Stdin::Closed), Terminal::split)?;

        let started_at = Timestamp::now();
        let pid = launch::spawn(&launch, streams, &self.setup.arguments)?;
        let waiting = self.adopt(pid);
        let ticks = processes::stat(pid).map(|stat| stat.start).unwrap_or_default();
        let (output, input) =
            (broadcast::Sender::new(OUTPUT_BACKLOG), ends.input.filter(|_| spec.stdin != Stdin::Closed));
        let live = Rc::new(Live {
            pid,
            ticks,
            spec: spec.clone(),
            group,
            output,
            input: RefCell::new(input),
            commands: RefCell::default(),
            out_of_memory: Cell::new(false),
            stage: watch::Sender::new(Stage::Launching),
        });
        self.live.borrow_mut().insert(spec.id.clone(), Rc::clone(&live));
        let log = Rc::new(RefCell::new(log));
        let mut pumps = JoinSet::new();
        match ends.outputs {
            Outputs::Terminal(output) => {
                pumps.spawn_local(pump("stdout", output, log, live.output.clone()));
            }
            Outputs::Pipes { stdout, stderr } => {
                pumps.spawn_local(pump("stdout", stdout, Rc::clone(&log), live.output.clone()));
                pumps.spawn_local(pump("stderr", stderr, log, live.output.clone()));
            }
        }
        let shim = Rc::clone(self);
        self.tasks
            .borrow_mut()
            .spawn_local(async move { shim.attend(live, outcome, waiting, pumps, started_at).await });
        let record = ContainerRecord {
            name: spec.name,
            attempt: spec.attempt,
            id: spec.id,
            image: spec.image,
            state: ContainerState::Running { pid, ticks, started_at },
            earlier: false,
        };
        self.change(|records| records.push(record))
    }

    fn launch(&self, spec: &ContainerSpec, folder: &Path, group: &Group, tty: Option<PathBuf>) -> io::Result<Launch> {
        let sandbox = &self.setup.sandbox;
        let mut mounts = spec.mounts.clone();
        let mut file = |name: &str, text: &str, target: &Path| -> io::Result<()> {
            let source = folder.join(name);
            fs::write(&source, text)?;
            // What the pod mounts itself comes first.
            if !mounts.iter().any(|mount| mount.target == target) {
                mounts.push(Mount { source, target: target.to_path_buf(), read_only: false });
            }
            Ok(())
        };
        file("termination-message", "", &spec.termination_message_path)?;
        if sandbox.names.is_none()
            && let Some(hosts) = &sandbox.hosts
        {
            file("hosts", hosts, Path::new(HOSTS))?;
        }
        if let Some(resolv_conf) = &sandbox.resolv_conf {
            file("resolv.conf", resolv_conf, Path::new("/etc/resolv.conf"))?;
        }
        let mut links = Vec::new();
        if let Some(names) = &sandbox.names {
            let own = |path: &str| mounts.iter().any(|mount| mount.target == Path::new(path));
            if self.setup.namespaces.is_none() {
                mounts.push(Mount { source: names.join(HOSTS_FILE), target: HOSTS.into(), read_only: true });
            } else if !own(HOSTS) && !own("/etc") {
                // The folder and not the file: another one takes its place whenever names change.
                mounts.push(Mount { source: names.clone(), target: NAMES.into(), read_only: true });
                links.push((PathBuf::from(HOSTS), Path::new(NAMES).join(HOSTS_FILE)));
            }
        }
        let root = folder.join("root");
        let mut env = spec.env.clone();
        if self.setup.namespaces.is_none() {
            env.insert("POD_ROOT".to_owned(), root.display().to_string());
        }
        Ok(Launch {
            argv: spec.argv.clone(),
            env,
            working_dir: spec.working_dir.clone(),
            place: Place::New {
                namespaces: self.setup.namespaces,
                netns: sandbox.netns.clone(),
                hostname: sandbox.hostname.clone(),
                root,
                hidden: self.setup.run.parent().unwrap_or(&self.setup.run).to_path_buf(),
                read_only: spec.read_only_root,
                mounts,
                links,
            },
            tty,
            cgroups: group.procs(),
            outcome: folder.join("outcome"),
            namespace: self.setup.namespaces.is_some().then(|| folder.join("namespace")),
            no_new_privileges: spec.no_new_privileges,
        })
    }

    /// Waits for the end of a container and writes down how it was.
    async fn attend(
        self: Rc<Self>,
        live: Rc<Live>,
        mut outcome: Outcome,
        mut waiting: oneshot::Receiver<i32>,
        mut pumps: JoinSet<()>,
        started_at: Timestamp,
    ) {
        let ended = tokio::select! {
            ended = &mut waiting => Some(ended),
            () = outcome.known() => None,
        };
        let failure = outcome.failure();
        if ended.is_none() && failure.is_none() {
            live.stage.send_replace(Stage::Runs);
        }
        let ended = match ended {
            Some(ended) => ended,
            None => waiting.await,
        };
        // Nobody drops the sender of a child that was not reaped.
        let mut code = ended.unwrap_or(255);
        let siblings: Vec<_> =
            self.live.borrow().values().map(|other| other.pid).filter(|pid| *pid != live.pid).collect();
        kill_the_rest(&self.container_folder(&live.spec.id), &live.group, live.pid, &siblings);
        let drained = async { while pumps.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_OUTPUT, drained).await;
        pumps.abort_all();

        let (reason, message) = match failure {
            Some(failure) => {
                code = i32::from(START_FAILED);
                (START_ERROR, Some(failure))
            }
            None if code == 0 => ("Completed", self.last_words(&live.spec, code)),
            None if live.group.out_of_memory() || (live.out_of_memory.get() && code == KILLED) => {
                ("OOMKilled", self.last_words(&live.spec, code))
            }
            None => ("Error", self.last_words(&live.spec, code)),
        };
        live.group.remove();
        let exit = Exit { started_at, finished_at: Timestamp::now(), code, reason: reason.to_owned(), message };
        let id = live.spec.id.clone();
        self.live.borrow_mut().remove(&id);
        // What cannot be saved (a full disk) is still told to the engine that listens.
        let _ = self.change(|records| {
            if let Some(record) = records.iter_mut().find(|record| record.id == id) {
                record.state = ContainerState::Exited(exit);
            }
        });
        self.forget_old(&live.spec.name);
        live.stage.send_replace(Stage::Ended);
    }

    fn last_words(&self, spec: &ContainerSpec, code: i32) -> Option<String> {
        let words = tail(&self.container_folder(&spec.id).join("termination-message"), MAX_MESSAGE);
        let words = words.filter(|words| !words.is_empty());
        if words.is_some() || !spec.termination_message_from_log || code == 0 {
            return words;
        }
        let log = tail(&log_file(&self.folder, &spec.name, spec.attempt), 4 * MAX_MESSAGE_FROM_LOG)?;
        let lines: Vec<_> = log.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
        let last = lines[lines.len().saturating_sub(MAX_MESSAGE_LINES)..].iter().map(|line| format!("{line}\n"));
        let text: String = last.collect();
        let mut from = text.len().saturating_sub(MAX_MESSAGE_FROM_LOG);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        Some(text[from..].to_owned()).filter(|text| !text.is_empty())
    }

    /// Keeps the last two containers of a name: one may be asked for its previous log.
    fn forget_old(&self, name: &str) {
        let old: Vec<_> = {
            let records = self.records.borrow();
            let of_name: Vec<_> = records.iter().filter(|record| record.name == name).collect();
            let old = of_name.len().saturating_sub(2);
            of_name[..old].iter().map(|record| (record.id.clone(), record.attempt)).collect()
        };
        for (id, attempt) in old {
            let _ = fs::remove_dir_all(self.container_folder(&id));
            let log = log_file(&self.folder, name, attempt);
            for number in 1..10 {
                let _ = fs::remove_file(format!("{}.{number}", log.display()));
            }
            let _ = fs::remove_file(log);
            let _ = self.change(|records| records.retain(|record| record.id != id));
        }
    }

    pub(super) async fn stop(&self, id: &str, signal: &str, grace: Duration) -> Answer {
        let Some(live) = self.live.borrow().get(id).cloned() else { return Ok(()) };
        let signal = Signal::from_str(signal).map_err(|_| format!("{signal} is no signal"))?;
        if !grace.is_zero() {
            // It may just have ended.
            let _ = kill(Pid::from_raw(live.pid), signal);
            if tokio::time::timeout(grace, live.has_come_to(Stage::Ended)).await.is_ok() {
                return Ok(());
            }
        }
        // The rest of the container goes when its first process is reaped.
        let _ = kill(Pid::from_raw(live.pid), Signal::SIGKILL);
        live.has_come_to(Stage::Ended).await;
        Ok(())
    }

    /// Where a container has its mount point, its pipes and its own files of `/etc`.
    pub(super) fn container_folder(&self, id: &str) -> PathBuf {
        self.setup.run.join("containers").join(id)
    }

    pub(super) async fn stop_all(&self) {
        let ids: Vec<_> = self.live.borrow().keys().cloned().collect();
        for id in ids {
            let _ = self.stop(&id, "SIGKILL", Duration::ZERO).await;
        }
    }
}

/// Kills every process of a container that has just ended, whether or not it has left its parents. `folder` is its own;
/// `siblings`: the first processes of the shim's other containers.
fn kill_the_rest(folder: &Path, group: &Group, pid: i32, siblings: &[i32]) {
    // Its first process led the group; the number was free for less than a moment.
    let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let namespace = fs::read_to_string(folder.join("namespace")).ok();
    // A process may fork while it is looked for, so that it is looked until none is found.
    for _ in 0..100 {
        let mut pids: BTreeSet<_> = group.members().into_iter().collect();
        if let Some(namespace) = &namespace {
            // The name of a namespace is given again once it has gone: only what descends from this shim, and not from
            // another container of it, can be what was left.
            let inside = processes::in_namespace(namespace);
            if !inside.is_empty() {
                let others: BTreeSet<_> =
                    siblings.iter().flat_map(|pid| processes::descendants(*pid).into_iter().chain([*pid])).collect();
                let ours = processes::descendants(own);
                pids.extend(inside.into_iter().filter(|pid| ours.contains(pid) && !others.contains(pid)));
            }
        }
        if pids.is_empty() {
            return;
        }
        processes::kill_all(pids);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Kills what an earlier shim has left of a container. Numbers and names may belong to others by now, so that only what is
/// known by the container's first process, or by its control group, is touched.
pub(super) fn kill_left_behind(group: &Group, pid: i32, ticks: u64) {
    for _ in 0..100 {
        let mut pids: BTreeSet<_> = group.members().into_iter().collect();
        if processes::is_alive(pid, ticks) {
            pids.extend(processes::descendants(pid));
            pids.insert(pid);
        }
        if pids.is_empty() {
            return;
        }
        processes::kill_all(pids);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Copies what a container writes into its log and to those who are attached.
async fn pump(
    stream: &'static str,
    mut from: impl AsyncRead + Unpin,
    log: Rc<RefCell<LogWriter>>,
    attached: broadcast::Sender<Frame>,
) {
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut chunk).await.unwrap_or(0);
        let new = &chunk[..length];
        if attached.receiver_count() > 0 && length > 0 {
            let bytes = Bytes::copy_from_slice(new);
            let _ = attached.send(if stream == "stdout" { Frame::Stdout(bytes) } else { Frame::Stderr(bytes) });
        }
        buffer.extend_from_slice(new);
        // A full disk must not stop the container: its output is then lost.
        let _ = log.borrow_mut().write(stream, &mut buffer, length == 0);
        if length == 0 {
            return;
        }
    }
}

/// The end of a text file.
fn tail(path: &Path, limit: usize) -> Option<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit as u64))).ok()?;
    let mut bytes = Vec::new();
    file.take(limit as u64).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

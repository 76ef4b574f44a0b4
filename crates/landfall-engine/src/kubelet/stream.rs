//! Logs, commands and connections of pods, for the API server.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;

use super::{Agent, pod_folder};
use crate::api::machine::NodeFault;
use crate::api::node_agent::{
    AgentError, Command, Connection, ContainerRef, LogOptions, LogSource, LogStream, NodeAgent, PodRef, Session,
};
use crate::runtime::{ContainerRecord, Sandbox, latest, log_file};

/// How often a log is looked at for new lines.
const POLL: Duration = Duration::from_millis(100);

/// The port of a node agent, as the API server names it when it does not reach one.
const KUBELET: u16 = 10250;

/// How much is sent at a time.
const CHUNK: usize = 64 * 1024;

impl NodeAgent for Agent {
    fn log(&self, container: ContainerRef, options: LogOptions) -> BoxFuture<'_, Result<LogStream, AgentError>> {
        async move {
            let ContainerRef { pod, container: name } = &container;
            self.reach(&pod.node).map_err(|error| {
                let path = format!("containerLogs/{}/{}/{name}", pod.namespace, pod.name);
                AgentError::Unreachable(format!(
                    "Get \"https://{}:{KUBELET}/{path}\": {error}",
                    self.address(&pod.node)
                ))
            })?;
            self.open_log(&container, options)
        }
        .boxed()
    }

    fn exec(&self, container: ContainerRef, command: Command) -> BoxFuture<'_, Result<Session, AgentError>> {
        async move {
            self.dial(&container.pod.node)?;
            let sandbox = self.sandbox(&container.pod)?;
            let records = sandbox.records().borrow().clone();
            let record = latest(&records, &container.container).filter(|record| record.is_running());
            let record = record
                .ok_or_else(|| AgentError::Internal(format!("container not found (\"{}\")", container.container)))?;
            sandbox.exec(&record.id, command).await.map_err(|error| AgentError::Internal(error.to_string()))
        }
        .boxed()
    }

    fn connect(&self, pod: PodRef, port: u16) -> BoxFuture<'_, Result<Box<dyn Connection>, AgentError>> {
        async move {
            self.dial(&pod.node)?;
            let handle = self.shared.handle(&pod.uid).ok_or_else(|| not_found(&pod))?;
            let ip = handle.pod.borrow().as_ref().and_then(|pod| pod.status.as_ref()?.pod_ip.clone());
            let ip = ip.ok_or_else(|| AgentError::BadRequest(format!("pod {} has no address yet", pod.name)))?;
            // In a network namespace of its own a program may listen on the loopback address only, which the dialer of
            // that network reaches as well.
            let stream = super::probe::connect(&self.shared.network.dialer(), &ip, &ip, port).await;
            let stream =
                stream.map_err(|error| AgentError::Internal(format!("failed to connect to port {port}: {error}")))?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        }
        .boxed()
    }
}

fn not_found(pod: &PodRef) -> AgentError {
    AgentError::NotFound(format!("pod \"{}\" is not running on node \"{}\"", pod.name, pod.node))
}

impl Agent {
    fn address(&self, node: &str) -> &str {
        self.shared.nodes.get(node).map_or("", |node| &node.spec.address)
    }

    /// Whether the API server reaches the node agent of a node; if not, why, as the system would put it.
    fn reach(&self, node: &str) -> Result<(), String> {
        match self.shared.fault(node) {
            NodeFault::None => Ok(()),
            NodeFault::Cut | NodeFault::Killed => {
                Err(format!("dial tcp {}:{KUBELET}: connect: no route to host", self.address(node)))
            }
        }
    }

    fn dial(&self, node: &str) -> Result<(), AgentError> {
        self.reach(node).map_err(|error| AgentError::Unreachable(format!("error dialing backend: {error}")))
    }

    fn sandbox(&self, pod: &PodRef) -> Result<Arc<dyn Sandbox>, AgentError> {
        self.shared.handle(&pod.uid).and_then(|handle| handle.sandbox()).ok_or_else(|| not_found(pod))
    }

    fn open_log(&self, container: &ContainerRef, options: LogOptions) -> Result<LogStream, AgentError> {
        let (name, pod) = (&container.container, &container.pod);
        let waiting = || {
            let handle = self.shared.handle(&pod.uid);
            let state = handle.and_then(|handle| handle.pod.borrow().clone());
            let reason = state.as_deref().and_then(|pod| waiting_reason(pod, name));
            let reason = reason.unwrap_or_else(|| "ContainerCreating".to_owned());
            AgentError::BadRequest(format!(
                "container \"{name}\" in pod \"{}\" is waiting to start: {reason}",
                pod.name
            ))
        };
        let sandbox = self.sandbox(pod).map_err(|_| waiting())?;
        let records = sandbox.records().borrow().clone();
        let of_name: Vec<&ContainerRecord> = records.iter().filter(|record| record.name == **name).collect();
        let newest = of_name.last().ok_or_else(waiting)?;
        let record = if options.previous {
            let before =
                if newest.is_running() { of_name.len().checked_sub(2).map(|at| of_name[at]) } else { Some(*newest) };
            before.ok_or_else(|| {
                AgentError::BadRequest(format!(
                    "previous terminated container \"{name}\" in pod \"{}\" not found",
                    pod.name
                ))
            })?
        } else {
            newest
        };
        let path = log_file(&pod_folder(&self.shared, &pod.uid), name, record.attempt);
        let id = record.id.clone();
        let left = options.limit;
        let reader = Reader { path, file: None, position: 0, options, left, sandbox, id, ended: false };
        let stream = futures::stream::unfold(reader, |mut reader| async move {
            let next = reader.next().await.transpose()?;
            Some((next, reader))
        });
        Ok(stream.boxed())
    }
}

fn waiting_reason(pod: &k8s_openapi::api::core::v1::Pod, name: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let mut all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.find(|status| status.name == name)?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

/// Reads a log as far as it is written.
struct Reader {
    path: PathBuf,
    file: Option<File>,
    position: u64,
    options: LogOptions,
    left: Option<u64>,
    sandbox: Arc<dyn Sandbox>,
    id: String,
    ended: bool,
}

impl Reader {
    /// The next piece; None at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.left == Some(0) {
                return Ok(None);
            }
            // Asked before reading: what is written before the end is then read for sure.
            let runs = self.sandbox.records().borrow().iter().any(|record| record.id == self.id && record.is_running());
            let piece = self.read()?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
            if self.ended || !self.options.follow {
                return Ok(None);
            }
            if !runs {
                self.ended = true;
                continue;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn read(&mut self) -> io::Result<Bytes> {
        if self.file.is_none() {
            let file = match File::open(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Bytes::new()),
                file => file?,
            };
            self.position = match self.options.tail {
                Some(lines) => Self::tail(&file, lines)?,
                None => 0,
            };
            self.file = Some(file);
        }
        let Some(file) = self.file.as_mut() else { return Ok(Bytes::new()) };
        file.seek(SeekFrom::Start(self.position))?;
        let mut reader = BufReader::with_capacity(CHUNK, file);
        let mut text = Vec::new();
        let mut line = Vec::new();
        while text.len() < CHUNK {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)?;
            // Half a line is read again when it is whole.
            if length == 0 || line.last() != Some(&b'\n') {
                break;
            }
            self.position += length as u64;
            if let Some(entry) = Entry::parse(&line)
                && entry.wanted(&self.options)
            {
                if self.options.timestamps {
                    text.extend_from_slice(entry.time.as_bytes());
                    text.push(b' ');
                }
                text.extend_from_slice(entry.text);
                if entry.full {
                    text.push(b'\n');
                }
            }
        }
        if text.is_empty() && self.rotated()? {
            self.file = None;
            self.options.tail = None;
        }
        if let Some(left) = &mut self.left {
            text.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= text.len() as u64;
        }
        Ok(text.into())
    }

    /// Whether the file at the path is no longer the one that is open.
    fn rotated(&self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt as _;
        let Some(file) = &self.file else { return Ok(false) };
        let open = file.metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(there) => Ok(there.ino() != open.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Where the last lines begin.
    fn tail(file: &File, lines: u64) -> io::Result<u64> {
        let mut file = file;
        let mut end = file.seek(SeekFrom::End(0))?;
        if lines == 0 {
            return Ok(end);
        }
        let mut found = 0;
        let mut block = vec![0; CHUNK];
        while end > 0 {
            let start = end.saturating_sub(CHUNK as u64);
            let length = usize::try_from(end - start).map_err(io::Error::other)?;
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(&mut block[..length])?;
            for at in (0..length).rev() {
                // The newline at the very end closes the last line and begins none.
                if block[at] == b'\n' && start + at as u64 + 1 < file.metadata()?.len() {
                    found += 1;
                    if found == lines {
                        return Ok(start + at as u64 + 1);
                    }
                }
            }
            end = start;
        }
        Ok(0)
    }
}

/// One entry of a log file.
struct Entry<'a> {
    time: &'a str,
    stdout: bool,
    full: bool,
    text: &'a [u8],
}

impl<'a> Entry<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.strip_suffix(b"\n").unwrap_or(line).splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stdout = parts.next()? == b"stdout";
        let full = parts.next()? == b"F";
        Some(Self { time, stdout, full, text: parts.next()? })
    }

    fn wanted(&self, options: &LogOptions) -> bool {
        let source = match options.stream {
            None => true,
            Some(LogSource::Stdout) => self.stdout,
            Some(LogSource::Stderr) => !self.stdout,
        };
        let late = options.since.is_none_or(|since| self.time.parse::<Timestamp>().is_ok_and(|time| time >= since));
        source && late
    }
}

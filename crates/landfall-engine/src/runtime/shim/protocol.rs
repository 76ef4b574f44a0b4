//! What the engine and a shim say to each other over the socket in the pod's folder. Each connection carries one request:
//! a line of JSON, answered by a line of JSON; a watch is answered by one line at each change, and a command goes on in
//! frames.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::runtime::limits::Cgroups;
use crate::runtime::mounts::Namespaces;
use crate::runtime::{ContainerSpec, PodSandbox};

/// The socket's name in the folder of the pod.
pub(in crate::runtime) const SOCKET: &str = "shim.sock";

/// The file in the folder of the pod that says what the shim is for.
pub(in crate::runtime) const SETUP: &str = "sandbox.json";

/// The file in the folder of the pod in which the shim keeps what became of the containers.
pub(in crate::runtime) const RECORDS: &str = "containers.json";

/// What a shim must know before it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::runtime) struct Setup {
    pub(in crate::runtime) sandbox: PodSandbox,
    /// The folder of the pod in the run folder. Empty when an engine wrote this that had none.
    #[serde(default)]
    pub(in crate::runtime) run: PathBuf,
    pub(in crate::runtime) namespaces: Option<Namespaces>,
    pub(in crate::runtime) cgroups: Cgroups,
    /// The arguments that make the binary a shim.
    pub(in crate::runtime) arguments: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::runtime) enum Request {
    /// Tell the records now and at each change.
    Watch,
    /// Answered by the container's record when its program runs or could not be run.
    Start(Box<ContainerSpec>),
    /// Answered when the container has ended.
    Stop { id: String, signal: String, grace_millis: u64 },
    /// Answered when the command runs; then frames.
    Exec { id: String, command: ExecCommand },
    /// Kill all, answer, end.
    Close,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::runtime) struct ExecCommand {
    /// None: attach to the container's own process.
    pub(in crate::runtime) argv: Option<Vec<String>>,
    pub(in crate::runtime) stdin: bool,
    pub(in crate::runtime) tty: bool,
}

pub(in crate::runtime) type Answer<T = ()> = Result<T, String>;

/// A piece of a command's conversation.
#[derive(Debug, Clone)]
pub(in crate::runtime) enum Frame {
    Stdin(Bytes),
    CloseStdin,
    Resize { columns: u16, rows: u16 },
    Stdout(Bytes),
    Stderr(Bytes),
    Ended(Result<i32, String>),
}

/// The largest frame that is accepted.
const MAX_FRAME: u32 = 1024 * 1024;

impl Frame {
    pub(in crate::runtime) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let (channel, payload) = match self {
            Self::Stdin(bytes) => (0, bytes.clone()),
            Self::CloseStdin => (1, Bytes::new()),
            Self::Resize { columns, rows } => {
                let [a, b] = columns.to_be_bytes();
                let [c, d] = rows.to_be_bytes();
                (2, Bytes::copy_from_slice(&[a, b, c, d]))
            }
            Self::Stdout(bytes) => (3, bytes.clone()),
            Self::Stderr(bytes) => (4, bytes.clone()),
            Self::Ended(result) => (5, serde_json::to_vec(result)?.into()),
        };
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        to.write_u8(channel).await?;
        to.write_u32(length).await?;
        to.write_all(&payload).await?;
        to.flush().await
    }

    /// The next frame; `None` when the other side has gone. Not safe to be dropped half-way.
    pub(in crate::runtime) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let channel = match from.read_u8().await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            channel => channel?,
        };
        let length = from.read_u32().await?;
        if length > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too large"));
        }
        let mut payload = vec![0; length as usize];
        from.read_exact(&mut payload).await?;
        Ok(Some(match (channel, payload.as_slice()) {
            (0, _) => Self::Stdin(payload.into()),
            (1, _) => Self::CloseStdin,
            (2, &[a, b, c, d]) => {
                Self::Resize { columns: u16::from_be_bytes([a, b]), rows: u16::from_be_bytes([c, d]) }
            }
            (3, _) => Self::Stdout(payload.into()),
            (4, _) => Self::Stderr(payload.into()),
            (5, text) => Self::Ended(serde_json::from_slice(text)?),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame has an unknown kind")),
        }))
    }
}

pub(in crate::runtime) async fn write_line<T: Serialize>(
    to: &mut (impl AsyncWrite + Unpin),
    value: &T,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await
}

/// The next line; `None` when the other side has gone.
pub(in crate::runtime) async fn read_line<T: DeserializeOwned>(
    from: &mut (impl AsyncBufRead + Unpin),
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

/// A folder's socket may have a longer path than a socket address holds (108 bytes), the way through the open folder has
/// not.
pub(in crate::runtime) fn short_path(folder: &std::fs::File) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))
}

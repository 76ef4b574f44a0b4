//! The engine's side of the network: it asks the `holder`, and reaches pods through sockets that were made
//! there.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tempfile::NamedTempFile;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use super::NODE;
use super::dialer::Dial;
use super::holder::{self, Answer, Attachment, Request};
use crate::runtime::child::{self, ChildError};
use crate::runtime::messages;

/// How long a holder may take to start.
const START: Duration = Duration::from_secs(10);

/// How many sockets are asked for at a time: a request costs as much as ten sockets.
const BATCH: usize = 32;

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The folder of the network.
    #[error("failed to prepare the folder `{}`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The process that holds the network.
    #[error("failed to start the process that holds the network: {said}")]
    Holder {
        /// Its last words, or what the system said.
        said: String,
    },
    /// A request to that process.
    #[error("failed to {operation}")]
    Request {
        /// What was asked for.
        operation: &'static str,
        /// What was answered.
        source: io::Error,
    },
}

/// The network of the pods of one engine; cheap to clone.
#[derive(Clone)]
pub(crate) struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    /// One request at a time.
    socket: Mutex<OwnedFd>,
    connectors: Mutex<Vec<OwnedFd>>,
}

impl Network {
    /// Finds the network that an earlier engine has left in `folder`, or starts one: `program` with `arguments` and the
    /// folder is then called, which must end in [`crate::network_main`].
    pub(crate) async fn start(folder: &Path, program: &Path, arguments: &[String]) -> Result<Self, NetworkError> {
        let folder_error = |source| NetworkError::Folder { path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(folder_error)?;
        let folder = folder.canonicalize().map_err(folder_error)?;
        let socket = match holder::connect(&folder) {
            Ok(socket) => socket,
            Err(_) => {
                spawn(&folder, program, arguments).await?;
                holder::connect(&folder)
                    .map_err(|source| NetworkError::Request { operation: "reach the network", source })?
            }
        };
        let shared = Shared { folder, socket: Mutex::new(socket), connectors: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The network namespace of a pod, made if there is none of this name with this address.
    pub(crate) async fn attach(&self, name: &str, address: Ipv4Addr) -> Result<Attachment, NetworkError> {
        let operation = "set up the network of a pod";
        match self.ask(operation, Request::Attach { name: name.to_owned(), address }).await?.0 {
            Answer::Attached(attachment) => Ok(attachment),
            other => Err(unexpected(operation, &other)),
        }
    }

    pub(crate) async fn detach(&self, name: &str) -> Result<(), NetworkError> {
        self.ask("remove the network of a pod", Request::Detach { name: name.to_owned() }).await.map(drop)
    }

    /// What is attached, by name.
    pub(crate) async fn attached(&self) -> Result<BTreeMap<String, Attachment>, NetworkError> {
        let operation = "list the networks of the pods";
        match self.ask(operation, Request::List).await?.0 {
            Answer::All(all) => Ok(all),
            other => Err(unexpected(operation, &other)),
        }
    }

    /// Replaces rules of the packet filter, all or nothing.
    pub(crate) async fn filter(&self, rules: &str) -> Result<(), NetworkError> {
        let file = self.written(rules)?;
        self.ask("apply the rules of the packet filter", Request::Filter(file.path().to_owned())).await.map(drop)
    }

    /// Takes the addresses of services, so that one that leads nowhere refuses at once.
    pub(crate) async fn own(&self, network: Ipv4Addr, prefix: u8) -> Result<(), NetworkError> {
        self.ask("take the addresses of services", Request::Own(network, prefix)).await.map(drop)
    }

    /// Sockets on an address that only pods reach; it must be one of those that are owned.
    pub(crate) async fn listen(&self, address: SocketAddr) -> Result<(UdpSocket, TcpListener), NetworkError> {
        let operation = "listen in the network of the pods";
        let failed = |source| NetworkError::Request { operation, source };
        let (_, sockets) = self.ask(operation, Request::Listeners(address)).await?;
        let [udp, tcp] = <[OwnedFd; 2]>::try_from(sockets)
            .map_err(|sockets| failed(io::Error::other(format!("{} sockets instead of 2", sockets.len()))))?;
        let udp = UdpSocket::from_std(udp.into()).map_err(failed)?;
        Ok((udp, TcpListener::from_std(tcp.into()).map_err(failed)?))
    }

    /// A way out of the network for everything that is for nobody in it: a socket on this address, to which the rules lead what
    /// arrives in a namespace of its own. An earlier one is closed.
    pub(crate) async fn open_egress(
        &self,
        pods: (Ipv4Addr, u8),
        listen: SocketAddrV4,
        rules: &str,
    ) -> Result<TcpListener, NetworkError> {
        let operation = "open the way out of the network of the pods";
        let failed = |source| NetworkError::Request { operation, source };
        let file = self.written(rules)?;
        let request = Request::OpenEgress { pods, listen, rules: file.path().to_owned() };
        let (_, sockets) = self.ask(operation, request).await?;
        let [listener] = <[OwnedFd; 1]>::try_from(sockets)
            .map_err(|sockets| failed(io::Error::other(format!("{} sockets instead of 1", sockets.len()))))?;
        TcpListener::from_std(listener.into()).map_err(failed)
    }

    /// Closes the way out that an earlier engine may have opened.
    pub(crate) async fn close_egress(&self) -> Result<(), NetworkError> {
        self.ask("close the way out of the network of the pods", Request::CloseEgress).await.map(drop)
    }

    /// Ends the network, and with it the holder. The pods must have ended.
    pub(crate) async fn close(&self) -> Result<(), NetworkError> {
        self.ask("end the network", Request::Close).await.map(drop)
    }

    /// Rules in a file of their own, as several sets of them may be on their way.
    fn written(&self, rules: &str) -> Result<NamedTempFile, NetworkError> {
        let folder = &self.shared.folder;
        let written =
            tempfile::Builder::new().prefix("rules-").suffix(".nft").tempfile_in(folder).and_then(|mut file| {
                file.write_all(rules.as_bytes())?;
                Ok(file)
            });
        written.map_err(|source| NetworkError::Folder { path: folder.clone(), source })
    }

    async fn connector(&self) -> Result<TcpSocket, NetworkError> {
        let free = |shared: &Shared| shared.connectors.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(socket) = free(&self.shared) {
            return Ok(TcpSocket::from_std_stream(socket.into()));
        }
        let operation = "have sockets in the network of the pods";
        let (_, mut sockets) = self.ask(operation, Request::Connectors(BATCH)).await?;
        let socket = sockets
            .pop()
            .ok_or_else(|| NetworkError::Request { operation, source: io::Error::other("there are none") })?;
        self.shared.connectors.lock().unwrap_or_else(PoisonError::into_inner).extend(sockets);
        Ok(TcpSocket::from_std_stream(socket.into()))
    }

    async fn ask(&self, operation: &'static str, request: Request) -> Result<(Answer, Vec<OwnedFd>), NetworkError> {
        let shared = Arc::clone(&self.shared);
        let asked = tokio::task::spawn_blocking(move || {
            let socket = shared.socket.lock().unwrap_or_else(PoisonError::into_inner);
            messages::send(socket.as_fd(), &request, &[])?;
            let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the process that holds the network has ended");
            match messages::receive::<Answer>(socket.as_fd())?.ok_or_else(gone)? {
                (Answer::Failed(why), _) => Err(io::Error::other(why)),
                answered => Ok(answered),
            }
        });
        let answered = asked.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        answered.map_err(|source| NetworkError::Request { operation, source })
    }
}

impl Dial for Network {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(async move {
            let socket = self.connector().await.map_err(io::Error::other)?;
            let stream = socket.connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }
}

/// The same network, entered as a node agent does.
pub(crate) struct FromNode(pub(super) Network);

impl Dial for FromNode {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(async move {
            let socket = self.0.connector().await.map_err(io::Error::other)?;
            socket.bind(SocketAddr::from((NODE, 0)))?;
            let stream = socket.connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }
}

fn unexpected(operation: &'static str, answer: &Answer) -> NetworkError {
    NetworkError::Request { operation, source: io::Error::other(format!("unexpected answer {answer:?}")) }
}

async fn spawn(folder: &Path, program: &Path, arguments: &[String]) -> Result<(), NetworkError> {
    let log = folder.join("network.log");
    child::start(program, arguments, folder, &log, START).await.map_err(|error| match error {
        ChildError::Log { path, source } => NetworkError::Folder { path, source },
        ChildError::Run { program, source } => {
            NetworkError::Holder { said: format!("`{}`: {source}", program.display()) }
        }
        ChildError::NotReady { said } => NetworkError::Holder { said },
    })
}

//! What a client meets: the objects of a data folder, the API server on them, and its socket.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::authority::{self, Authority};
use super::{ADMINISTRATOR, StartError, kubeconfig, server};
use crate::api::{Config, Ranges, Server, SigningKey};
use crate::clock::Clock;
use crate::scheme::Scheme;
use crate::store::Store;

/// Below the data folder.
const OBJECTS: &str = "objects";
const KEYS: &str = "pki";
const KUBECONFIG: &str = "kubeconfig";
const PORT: &str = "port";

/// A data folder that nobody else has.
pub(super) struct Opened {
    data: PathBuf,
    store: Store,
    authority: Authority,
}

/// Where clients find the server.
pub(super) struct Place {
    pub(super) listen: SocketAddr,
    pub(super) kubeconfig: Option<PathBuf>,
}

/// What the server gives.
pub(super) struct Service {
    pub(super) kinds: Scheme,
    pub(super) ranges: Ranges,
    pub(super) clock: Clock,
}

/// An API server that serves.
pub(super) struct Front {
    pub(super) server: Server,
    pub(super) address: SocketAddr,
    pub(super) kubeconfig: PathBuf,
    /// Who has signed its certificate, in PEM.
    pub(super) certificate: String,
    /// How it shows who it is.
    pub(super) tls: Arc<ServerConfig>,
    /// Where pods look for it.
    pub(super) within: SocketAddrV4,
}

impl Opened {
    pub(super) fn open(data: &Path) -> Result<Self, StartError> {
        fs::create_dir_all(data).map_err(write_error(data))?;
        // Pods are told absolute paths.
        let data = data.canonicalize().map_err(write_error(data))?;
        let store = Store::open(Some(&data.join(OBJECTS)))?;
        let authority = Authority::open(&data.join(KEYS))?;
        Ok(Self { data, store, authority })
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// Serves in a task of `parts` until `stop`. The kubeconfig is there when this returns.
    pub(super) async fn serve(
        self,
        place: Place,
        service: Service,
        stop: &CancellationToken,
        parts: &mut JoinSet<()>,
    ) -> Result<Front, StartError> {
        let Self { data, store, authority } = self;
        let Service { kinds, ranges, clock } = service;
        let within = ranges.api_server();
        let server = Server::start(Config {
            store,
            clock,
            stop: stop.child_token(),
            signing_key: SigningKey::new(authority.token_key()),
            static_tokens: HashMap::new(),
            ranges,
            builtin: kinds,
        })
        .await?;
        let listener = listen(&data, place.listen).await?;
        let address = listener.local_addr().map_err(|source| StartError::Listen { address: place.listen, source })?;
        let addresses = [server::reachable(address), vec![IpAddr::V4(*within.ip())]].concat();
        let tls = authority.server(&addresses)?;
        let kubeconfig = place.kubeconfig.unwrap_or_else(|| data.join(KUBECONFIG));
        let administrator = authority.administrator(ADMINISTRATOR)?;
        let text = kubeconfig::kubeconfig(address, authority.certificate(), &administrator);
        parts.spawn(server::serve(listener, Arc::clone(&tls), server.router(), stop.clone()));
        parts.spawn(server.clone().expire_events(stop.clone()));
        authority::write_private(&kubeconfig, &text).map_err(write_error(&kubeconfig))?;
        let certificate = authority.certificate().to_owned();
        Ok(Front { server, address, kubeconfig, certificate, tls, within })
    }
}

fn write_error(path: &Path) -> impl FnOnce(std::io::Error) -> StartError + use<> {
    let path = path.to_owned();
    move |source| StartError::Write { path, source }
}

/// Listens where the caller says. A port of 0 means the one of the last time, so that kubeconfigs stay good; if somebody
/// else has it by now, any.
async fn listen(data: &Path, wanted: SocketAddr) -> Result<TcpListener, StartError> {
    let last = data.join(PORT);
    if wanted.port() == 0
        && let Some(port) = fs::read_to_string(&last).ok().and_then(|text| text.trim().parse().ok())
        && let Ok(listener) = TcpListener::bind((wanted.ip(), port)).await
    {
        return Ok(listener);
    }
    let failed = |source| StartError::Listen { address: wanted, source };
    let listener = TcpListener::bind(wanted).await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    fs::write(&last, port.to_string()).map_err(|source| StartError::Write { path: last, source })?;
    Ok(listener)
}

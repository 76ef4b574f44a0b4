//! The socket of the engine: TLS, HTTP/1.1 and HTTP/2, and who is at the other end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{debug, warn};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::api::Identity;

/// How long a client may take for its TLS handshake. Longer than any sane client needs on one machine, and short enough
/// that those who connect and say nothing do not pile up.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long requests that are under way may take when the server stops. Watches end at once: they are told to.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves `router` on `listener` until cancelled.
pub(crate) async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, router: Router, cancel: CancellationToken) {
    let acceptor = TlsAcceptor::from(tls);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        // Both arms may be dropped half-way: a connection that is not accepted stays in the queue of the system.
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                let connection = serve_connection(stream, peer, acceptor.clone(), router.clone(), graceful.watcher());
                connections.spawn(connection);
            }
            Err(error) => {
                // Most often too many open files: others must end before there is room.
                warn!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(FAREWELL, graceful.shutdown()).await.is_err() {
        debug!(open = connections.len(), "connections were still busy when the server stopped");
    }
    connections.shutdown().await;
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) {
    // Small answers should not wait for more to send.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%peer, %error, "no TLS handshake"),
        Err(_) => return debug!(%peer, "the TLS handshake took too long"),
    };
    let identity = stream.get_ref().1.peer_certificates().and_then(|chain| identity_of(chain.first()?));
    let service = router.map_request(move |mut request: http::Request<hyper::body::Incoming>| {
        if let Some(identity) = &identity {
            request.extensions_mut().insert(identity.clone());
        }
        request
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection =
        builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service)).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        debug!(%peer, %error, "a connection ended early");
    }
}

/// The user of a client certificate: its common name, in the groups that are its organisations.
/// <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates>
fn identity_of(certificate: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?;
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
    Some(Identity::new(user, groups))
}

/// Where programs of this machine reach a server that listens on `address`, if they do by version 4 of the protocol.
pub(crate) fn nearby(address: SocketAddr) -> Option<SocketAddrV4> {
    let own = SocketAddrV4::new(Ipv4Addr::LOCALHOST, address.port());
    match address {
        _ if address.ip().is_unspecified() => Some(own),
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(_) => None,
    }
}

/// The addresses under which a server that listens on `address` can be reached.
pub(crate) fn reachable(address: SocketAddr) -> Vec<IpAddr> {
    let loopback = IpAddr::from([127, 0, 0, 1]);
    if address.ip() == loopback { vec![loopback] } else { vec![address.ip(), loopback] }
}

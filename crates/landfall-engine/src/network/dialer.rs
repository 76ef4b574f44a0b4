//! How the engine itself reaches a pod: for probes, forwarded ports, the service proxy and the gateway.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::net::TcpStream;

/// Connects to addresses of pods. Where pods have a network of their own, the engine is not in it, and an ordinary
/// connection would go nowhere.
pub(crate) trait Dial: Send + Sync + 'static {
    /// A connection to a pod.
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>>;
}

/// The way to the pods that all parts share.
pub(crate) type Dialer = Arc<dyn Dial>;

/// Pods on loopback addresses: anybody on this machine reaches them.
pub(crate) struct Loopback;

impl Dial for Loopback {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }
}

//! Members that keep nothing: they lead their clients to the member that does.
//!
//! For servers that have no replication here, so that clients that are spread over all members see one state.

use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::debug;

use crate::Failure;

/// How long the member that keeps the state may take to accept.
const PATIENCE: Duration = Duration::from_secs(5);

/// Accepts connections on `port` and moves their bytes to `target`, `host:port`, and back. Never returns in good order.
pub(super) async fn forward(port: u16, target: String) -> Result<(), Failure> {
    forward_from(TcpListener::bind((crate::address::own(), port)).await?, target).await
}

/// The same for a socket that is open already.
pub(super) async fn forward_from(listener: TcpListener, target: String) -> Result<(), Failure> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // What one client cannot have says nothing about the next.
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(lead(client, target.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn lead(mut client: TcpStream, target: String) {
    let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(&target)).await;
    let mut server = match connected {
        Ok(Ok(server)) => server,
        Ok(Err(error)) => return debug!(target, %error, "nobody to lead to"),
        Err(_) => return debug!(target, "nobody to lead to in time"),
    };
    // Either side may go at any time; the other is told by the end of its connection.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

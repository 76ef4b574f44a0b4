//! Keys in Redis, alone or as a cluster.

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, TlsCertificates};

use super::{PATIENCE, Slot};
use crate::Failure;

pub(super) struct Cache {
    url: String,
    cluster: bool,
    authority: Vec<u8>,
    connection: Slot<Connection>,
}

#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Cache {
    pub(super) fn new(url: String, cluster: bool, authority: &str) -> Self {
        Self { url, cluster, authority: authority.as_bytes().to_vec(), connection: Slot::empty() }
    }

    /// Sets a key for so long, or reads it; a key that is not there was read as well.
    pub(super) async fn key(&self, key: &str, keep_ms: Option<u64>) -> Result<(), Failure> {
        let command = match keep_ms {
            Some(keep) => redis::cmd("SET").arg(key).arg("1").arg("PX").arg(keep).to_owned(),
            None => redis::cmd("GET").arg(key).to_owned(),
        };
        let done = self.send(&command).await;
        if done.is_err() {
            self.connection.put(None);
        }
        done
    }

    async fn send(&self, command: &Cmd) -> Result<(), Failure> {
        let connection = self.connection.connected(|_| true, || self.connect()).await?;
        let _value: redis::Value = match connection {
            Connection::Single(mut connection) => command.query_async(&mut connection).await?,
            Connection::Cluster(mut connection) => command.query_async(&mut connection).await?,
        };
        Ok(())
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let certificates = TlsCertificates { client_tls: None, root_cert: Some(self.authority.clone()) };
        let encrypted = self.url.starts_with("rediss:");
        if self.cluster {
            let mut builder =
                ClusterClientBuilder::new([self.url.as_str()]).connection_timeout(PATIENCE).response_timeout(PATIENCE);
            if encrypted {
                builder = builder.certs(certificates);
            }
            return Ok(Connection::Cluster(builder.build()?.get_async_connection().await?));
        }
        let client = if encrypted {
            Client::build_with_tls(self.url.as_str(), certificates)?
        } else {
            Client::open(self.url.as_str())?
        };
        let configuration =
            AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
        Ok(Connection::Single(client.get_multiplexed_async_connection_with_config(&configuration).await?))
    }
}

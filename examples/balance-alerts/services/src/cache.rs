//! Redis Cluster: values that are there for a while, and which messages were dealt with lately.

use std::time::Duration;

use example_kit::{Failure, Message, Platform, variable};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, FromRedisValue, TlsCertificates};
use tokio::sync::Mutex;

const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Cache {
    url: String,
    trust: String,
    connection: Mutex<Option<ClusterConnection>>,
}

impl Cache {
    /// The cache that the environment names; nothing is connected yet.
    pub(crate) fn new(platform: &Platform) -> Result<Self, Failure> {
        Ok(Self { url: variable("CACHE_URL")?, trust: platform.trust.clone(), connection: Mutex::new(None) })
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Option<String>, Failure> {
        self.ask(redis::cmd("GET").arg(key)).await
    }

    pub(crate) async fn set(&self, key: &str, value: &str, keep: Duration) -> Result<(), Failure> {
        self.ask(redis::cmd("SET").arg(key).arg(value).arg("EX").arg(keep.as_secs().max(1))).await
    }

    /// Whether a message was dealt with, for this purpose.
    pub(crate) async fn knows(&self, purpose: &str, message: &Message) -> Result<bool, Failure> {
        Ok(self.get(&format!("{purpose}:{}", message.key())).await?.is_some())
    }

    /// Remembers for so long that a message was dealt with.
    pub(crate) async fn remember(&self, purpose: &str, message: &Message, keep: Duration) -> Result<(), Failure> {
        self.set(&format!("{purpose}:{}", message.key()), "1", keep).await
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        let mut connection = self.connected().await?;
        let answer = command.query_async(&mut connection).await;
        if answer.is_err() {
            *self.connection.lock().await = None;
        }
        Ok(answer?)
    }

    async fn connected(&self) -> Result<ClusterConnection, Failure> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref() {
            return Ok(connection.clone());
        }
        let mut builder =
            ClusterClientBuilder::new([self.url.as_str()]).connection_timeout(PATIENCE).response_timeout(PATIENCE);
        if self.url.starts_with("rediss:") {
            let root_cert = Some(self.trust.as_bytes().to_vec());
            builder = builder.certs(TlsCertificates { client_tls: None, root_cert });
        }
        let connection = builder.build()?.get_async_connection().await?;
        *slot = Some(connection.clone());
        Ok(connection)
    }
}

//! PostgreSQL: one connection, over which the queries of many tasks go side by side.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{Failure, Platform, variable};

/// How long a connection may take, and how long a server whose machine is gone is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A database. One that broke is connected to again with the next query.
pub struct Database {
    config: Config,
    tls: Arc<ClientConfig>,
    session: Mutex<Option<Arc<Session>>>,
}

struct Session {
    client: Client,
    /// Moves the bytes; it ends with the session.
    _connection: JoinSet<()>,
}

impl Database {
    /// The primary of the database that the environment names, once it is there and the statements that make its tables are
    /// done.
    pub async fn open(platform: &Platform, tables: &str) -> Result<Self, Failure> {
        let database = Self::at(&variable("DATABASE_URL")?, platform)?;
        loop {
            let session = database.session().await;
            let made = match &session {
                Ok(session) => session.client.batch_execute(tables).await.map_err(told),
                Err(error) => Err(error.to_string().into()),
            };
            let Err(error) = made else { return Ok(database) };
            tracing::warn!(%error, "the tables are not there yet");
            database.forget().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// The replicas of it: CloudNativePG calls the service of the primary `…-rw` and theirs `…-ro`.
    pub fn replicas(platform: &Platform) -> Result<Self, Failure> {
        Self::at(&variable("DATABASE_URL")?.replacen("-rw.", "-ro.", 1), platform)
    }

    fn at(url: &str, platform: &Platform) -> Result<Self, Failure> {
        let mut config: Config = url.parse()?;
        config.connect_timeout(PATIENCE).tcp_user_timeout(PATIENCE);
        Ok(Self { config, tls: Arc::clone(&platform.tls), session: Mutex::new(None) })
    }

    /// The rows that a query gives.
    pub async fn query(&self, text: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Failure> {
        let session = self.session().await?;
        let rows = tokio::time::timeout(PATIENCE, session.client.query(text, values)).await;
        let rows = rows.map_err(|_| format!("no answer after {PATIENCE:?}").into()).and_then(|rows| rows.map_err(told));
        if rows.is_err() {
            // Whatever it was (a primary that is none any more, too), the next query begins anew.
            self.forget().await;
        }
        rows
    }

    async fn forget(&self) {
        *self.session.lock().await = None;
    }

    async fn session(&self) -> Result<Arc<Session>, Failure> {
        let mut slot = self.session.lock().await;
        if let Some(session) = slot.as_ref().filter(|session| !session.client.is_closed()) {
            return Ok(Arc::clone(session));
        }
        let tls = MakeRustlsConnect::new((*self.tls).clone());
        let connected = tokio::time::timeout(PATIENCE, self.config.connect(tls)).await;
        let (client, connection) = connected.map_err(|_| "no connection")?.map_err(told)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Its end is seen by the client, which says why.
            let _ = connection.await;
        });
        let session = Arc::new(Session { client, _connection: tasks });
        *slot = Some(Arc::clone(&session));
        Ok(session)
    }
}

/// The library keeps the reason in the source.
fn told(error: tokio_postgres::Error) -> Failure {
    let source = std::error::Error::source(&error).map(ToString::to_string);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}")).into()
}

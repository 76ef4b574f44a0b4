//! Rows in PostgreSQL.

use std::sync::Arc;

use rustls::ClientConfig;
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Slot;
use crate::Failure;

/// The number of the lock under which tables are made: `create table if not exists` fails when two do it at once.
const TABLES: i64 = 0x6c61_6e64;

/// One connection to one database, over which requests of many tasks go side by side.
pub(super) struct Database {
    url: String,
    tls: ClientConfig,
    session: Slot<Arc<Session>>,
}

struct Session {
    client: Client,
    /// Moves the bytes; it ends with the session.
    _connection: JoinSet<()>,
}

impl Database {
    pub(super) fn new(url: &str, tls: ClientConfig) -> Self {
        Self { url: url.to_owned(), tls, session: Slot::empty() }
    }

    /// Writes a row once, or looks for it.
    pub(super) async fn row(&self, table: &str, key: &str, writes: bool) -> Result<(), Failure> {
        let table = format!("\"{}\"", table.replace('"', "\"\""));
        let statement = if writes {
            format!("insert into {table} (id) values ($1) on conflict (id) do nothing")
        } else {
            format!("select id from {table} where id = $1")
        };
        let session = self.session().await?;
        let mut result = session.client.execute(&statement, &[&key]).await;
        if let Err(error) = &result
            && error.code() == Some(&SqlState::UNDEFINED_TABLE)
        {
            let make = format!(
                "begin; select pg_advisory_xact_lock({TABLES}); \
                 create table if not exists {table} (id text primary key, at timestamptz not null default now()); commit"
            );
            session.client.batch_execute(&make).await.map_err(told)?;
            result = session.client.execute(&statement, &[&key]).await;
        }
        result.map(drop).map_err(|error| {
            // Whatever it was, the next one begins anew.
            self.session.put(None);
            told(error)
        })
    }

    async fn session(&self) -> Result<Arc<Session>, Failure> {
        if let Some(session) = self.session.get()
            && !session.client.is_closed()
        {
            return Ok(session);
        }
        let tls = MakeRustlsConnect::new(self.tls.clone());
        let (client, connection) = tokio_postgres::connect(&self.url, tls).await.map_err(told)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Its end is seen by the client, which says why.
            let _ = connection.await;
        });
        let session = Arc::new(Session { client, _connection: tasks });
        self.session.put(Some(Arc::clone(&session)));
        Ok(session)
    }
}

/// The library keeps the reason in the source.
fn told(error: tokio_postgres::Error) -> Failure {
    let source = std::error::Error::source(&error).map(ToString::to_string);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}")).into()
}

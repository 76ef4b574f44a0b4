//! Rows in PostgreSQL.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{PATIENCE, Slot};
use crate::Failure;

/// The number of the lock under which tables are made: `create table if not exists` fails when two do it at once.
const TABLES: i64 = 0x6c61_6e64;

/// How long a table that was made on the primary may be on its way to a replica.
const LAG: Duration = Duration::from_millis(100);

/// One connection to one database, over which requests of many tasks go side by side.
pub(super) struct Database {
    config: Config,
    tls: ClientConfig,
    /// Where tables are made, when this one is the replicas'.
    primary: Option<Box<Database>>,
    session: Slot<Arc<Session>>,
}

struct Session {
    client: Client,
    /// By their text: to prepare one costs a round trip.
    statements: Mutex<HashMap<String, Statement>>,
    /// Moves the bytes; it ends with the session.
    _connection: JoinSet<()>,
}

impl Database {
    /// The database at `url`, or its replicas at another host.
    pub(super) fn new(url: &str, replicas: Option<&str>, tls: ClientConfig) -> Result<Self, Failure> {
        let read = |url: &str| -> Result<Config, Failure> {
            let mut config: Config = url.parse().map_err(told)?;
            // A server whose machine is gone says nothing, not even that it has ended.
            config.connect_timeout(PATIENCE).tcp_user_timeout(PATIENCE);
            Ok(config)
        };
        let primary = Self { config: read(url)?, tls: tls.clone(), primary: None, session: Slot::empty() };
        let Some(replicas) = replicas else { return Ok(primary) };
        let mut url: url::Url = url.parse()?;
        url.set_host(Some(replicas))?;
        Ok(Self { config: read(url.as_str())?, tls, primary: Some(Box::new(primary)), session: Slot::empty() })
    }

    /// Writes a row once, or looks for it.
    pub(super) async fn row(&self, name: &str, key: &str, writes: bool) -> Result<(), Failure> {
        let table = format!("\"{}\"", name.replace('"', "\"\""));
        let statement = if writes {
            format!("insert into {table} (id) values ($1) on conflict (id) do nothing")
        } else {
            format!("select id from {table} where id = $1")
        };
        let mut made = false;
        loop {
            let session = self.session().await?;
            match self.answered(session.execute(&statement, key)).await {
                Ok(()) => return Ok(()),
                Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) && !made => {
                    self.primary.as_deref().unwrap_or(self).make(&table).await?;
                    made = true;
                }
                // The table is on its way from the primary; the caller's patience ends the wait.
                Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) && self.primary.is_some() => {
                    tokio::time::sleep(LAG).await;
                }
                Err(error) => {
                    // Whatever it was, the next one begins anew.
                    self.session.put(None);
                    return Err(told(error));
                }
            }
        }
    }

    async fn make(&self, table: &str) -> Result<(), Failure> {
        let make = format!(
            "begin; select pg_advisory_xact_lock({TABLES}); \
             create table if not exists {table} (id text primary key, at timestamptz not null default now()); commit"
        );
        let session = self.session().await?;
        let made = self.answered(session.client.batch_execute(&make)).await;
        if made.is_err() {
            self.session.put(None);
        }
        made.map_err(told)
    }

    /// An answer. When it is not waited for any more the session is taken away, as the answers to all others would stand
    /// behind it.
    async fn answered<T>(&self, asked: impl Future<Output = T>) -> T {
        let unanswered = Unanswered(&self.session);
        let answer = asked.await;
        std::mem::forget(unanswered);
        answer
    }

    async fn session(&self) -> Result<Arc<Session>, Failure> {
        let is_open = |session: &Arc<Session>| !session.client.is_closed();
        self.session.connected(is_open, || self.connect()).await
    }

    async fn connect(&self) -> Result<Arc<Session>, Failure> {
        let tls = MakeRustlsConnect::new(self.tls.clone());
        let (client, connection) = self.config.connect(tls).await.map_err(told)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Its end is seen by the client, which says why.
            let _ = connection.await;
        });
        Ok(Arc::new(Session { client, statements: Mutex::default(), _connection: tasks }))
    }
}

/// Takes the session away when it is dropped.
struct Unanswered<'a>(&'a Slot<Arc<Session>>);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.put(None);
    }
}

impl Session {
    async fn execute(&self, text: &str, key: &str) -> Result<(), tokio_postgres::Error> {
        let known = self.statements.lock().expect("nothing panics with a statement").get(text).cloned();
        let statement = match known {
            Some(statement) => statement,
            None => {
                let statement = self.client.prepare(text).await?;
                let mut statements = self.statements.lock().expect("nothing panics with a statement");
                statements.insert(text.to_owned(), statement.clone());
                statement
            }
        };
        self.client.execute(&statement, &[&key]).await.map(drop)
    }
}

/// The library keeps the reason in the source.
fn told(error: tokio_postgres::Error) -> Failure {
    let source = std::error::Error::source(&error).map(ToString::to_string);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}")).into()
}

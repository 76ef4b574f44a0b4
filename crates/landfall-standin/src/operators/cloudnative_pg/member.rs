//! A member of a cluster, asked in SQL over a `port-forward`, which no policy stands in the way of.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
use tokio::task::JoinSet;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::PORT;
use crate::Failure;
use crate::connect::{self, Pipe};
use crate::operators::{Context, OperatorError};
use crate::servers::SUPERUSER;

/// How long a member may take to answer one question; a promotion takes longest.
const PATIENCE: Duration = Duration::from_secs(30);

/// A position in the log is told as a number of bytes, so that positions can be compared. What was received and is not
/// replayed yet is there, too; after a restart nothing has been received, and what is there has been replayed.
const STANDING: &str = "
    select pg_is_in_recovery(),
           exists (select from pg_stat_wal_receiver where status = 'streaming'),
           (case when pg_is_in_recovery()
                 then greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                 else pg_current_wal_lsn() end - '0/0'::pg_lsn)::int8";

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// The name of its pod.
    pub(super) name: String,
    /// Whether it follows a primary.
    pub(super) follows: bool,
    /// Whether the primary's log reaches it right now.
    pub(super) receives: bool,
    /// How much of the log it has.
    pub(super) position: i64,
}

/// A session of the superuser at one member.
pub(super) struct Session {
    pod: String,
    client: Client,
    /// Moves the bytes; it ends with the session.
    _connection: JoinSet<()>,
}

impl Session {
    /// `certificate_name` is one of the names in the certificate of the cluster.
    pub(super) async fn open(
        context: &Context,
        pod: &Pod,
        certificate_name: &str,
        password: &str,
    ) -> Result<Self, OperatorError> {
        let name = pod.name_any();
        let opened = async {
            let pods = Api::<Pod>::namespaced(context.client.clone(), &pod.namespace().unwrap_or_default());
            let mut forwarder = pods.portforward(&name, &[PORT]).await?;
            let stream = Pipe::new(forwarder.take_stream(PORT).ok_or("no stream was opened")?);
            let mut tls = MakeRustlsConnect::new(connect::tls(context.authority.certificate())?);
            let tls = MakeTlsConnect::<Pipe>::make_tls_connect(&mut tls, certificate_name)?;
            let mut config = Config::new();
            config.user(SUPERUSER).password(password).dbname("postgres").ssl_mode(SslMode::Require);
            let (client, connection) = config.connect_raw(stream, tls).await?;
            let mut tasks = JoinSet::new();
            tasks.spawn(async move {
                // Its end is seen by the client, which says why.
                let _ = connection.await;
            });
            Ok::<_, Failure>(Self { pod: name.clone(), client, _connection: tasks })
        };
        within(&name, opened).await
    }

    pub(super) async fn standing(&self) -> Result<Standing, OperatorError> {
        let asked = async {
            let row = self.client.query_one(STANDING, &[]).await?;
            let position = row.try_get::<_, Option<i64>>(2)?.unwrap_or_default();
            Ok::<_, Failure>(Standing {
                name: self.pod.clone(),
                follows: row.try_get(0)?,
                receives: row.try_get(1)?,
                position,
            })
        };
        within(&self.pod, asked).await
    }

    /// Makes it a primary, if it is none.
    pub(super) async fn promote(&self) -> Result<(), OperatorError> {
        if !self.standing().await?.follows {
            return Ok(());
        }
        let promoted = async {
            let row = self.client.query_one("select pg_promote(true, 20)", &[]).await?;
            if !row.try_get::<_, bool>(0)? {
                return Err("it is not a primary after 20 s".into());
            }
            // The members that rewind read the new history from the last checkpoint.
            self.client.batch_execute("checkpoint").await?;
            Ok::<_, Failure>(())
        };
        within(&self.pod, promoted).await
    }
}

async fn within<T>(pod: &str, work: impl Future<Output = Result<T, Failure>>) -> Result<T, OperatorError> {
    let failed = |output: String| OperatorError::Command { pod: pod.to_owned(), output };
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.map_err(|_| failed(format!("no answer after {PATIENCE:?}")))?.map_err(|error| failed(error.to_string()))
}

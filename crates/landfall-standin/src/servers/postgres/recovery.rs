//! A cluster that is brought back: from a backup in the archive of another one, with the log up to a point in time.

use std::fs;
use std::path::Path;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

use super::archive::{Archive, SOURCE};
use super::{ARCHIVE, Cluster, DATA, PORT, RETRY, SUPERUSER, name, setting, text};
use crate::Failure;

/// How long the log may take to be replayed, in seconds.
const PATIENCE: &str = "3600";

impl Cluster {
    /// Whether the pod is told to begin with a backup.
    pub(super) fn is_brought_back() -> bool {
        Archive::is_declared(SOURCE)
    }

    /// Makes it from the latest backup before the point in time, beside its place, and moves it there when it is whole.
    pub(super) fn bring_back(&self) -> Result<(), Failure> {
        let new = Path::new(DATA).join("new");
        if new.exists() {
            fs::remove_dir_all(&new)?;
        }
        self.account.folder(&new)?;
        // As PostgreSQL reads it, and for us in seconds.
        let time = std::env::var("RECOVERY_TIME").ok();
        let seconds = std::env::var("RECOVERY_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
        let packed = Path::new(DATA).join("backup.tar.gz");
        let id = crate::on_threads(async {
            let (backup, content) = Archive::of(SOURCE)?.backup_before(seconds).await?;
            self.account.file(&packed, &content)?;
            Ok::<_, Failure>(backup.id)
        })?;
        tracing::info!(backup = id, until = time, "bringing it back");
        let mut unpack = self.account.command(Path::new("/usr/bin/tar"));
        if !unpack.arg("-xzf").arg(&packed).arg("-C").arg(&new).status()?.success() {
            return Err("the backup cannot be unpacked".into());
        }
        fs::remove_file(&packed)?;
        let target = time.map(|time| format!("recovery_target_time = {}\n", text(&time))).unwrap_or_default();
        // Nobody else reaches it before it is whole. Without hot standby it answers when the recovery is over.
        let settings = format!(
            "listen_addresses = ''\nport = {PORT}\nunix_socket_directories = {}\nhot_standby = off\narchive_mode = off\n\
             wal_level = replica\nrestore_command = '{ARCHIVE} {SOURCE} need \"%f\" \"%p\"'\n{target}\
             recovery_target_action = 'promote'\n",
            text(DATA)
        );
        self.account.file(&new.join("postgresql.conf"), settings.as_bytes())?;
        self.account.file(&new.join("postgresql.auto.conf"), b"")?;
        self.account.file(&new.join("pg_hba.conf"), b"local all all trust\n")?;
        self.account.file(&new.join("recovery.signal"), b"")?;
        let folder = new.to_str().ok_or("the data folder has a plain name")?;
        self.run("pg_ctl", &["-D", folder, "-w", "-t", PATIENCE, "start"])?;
        let changed = crate::on_threads(new_passwords());
        self.run("pg_ctl", &["-D", folder, "-w", "-m", "fast", "stop"])?;
        changed?;
        Ok(fs::rename(&new, &self.data)?)
    }
}

/// Gives its users the passwords of this cluster: those of the other one are in its own secrets.
async fn new_passwords() -> Result<(), Failure> {
    let mut config = Config::new();
    config.host_path(DATA).port(PORT).user(SUPERUSER).dbname("postgres");
    // `pg_ctl` returns before the recovery is over, and until then nobody is let in.
    let (client, connection) = loop {
        match config.connect(NoTls).await {
            Err(error) if error.code() == Some(&SqlState::CANNOT_CONNECT_NOW) => tokio::time::sleep(RETRY).await,
            connected => break connected?,
        }
    };
    let change = async {
        for (role, password) in [
            (SUPERUSER.to_owned(), "SUPERUSER_PASSWORD"),
            (setting("POSTGRES_USER")?, "POSTGRES_PASSWORD"),
            ("streaming_replica".to_owned(), "REPLICATION_PASSWORD"),
        ] {
            let statement = format!("alter role {} password {}", name(&role), text(&setting(password)?));
            client.batch_execute(&statement).await?;
        }
        Ok::<_, Failure>(())
    };
    tokio::select! {
        changed = change => changed,
        ended = connection => Err(format!("the server has gone: {ended:?}").into()),
    }
}

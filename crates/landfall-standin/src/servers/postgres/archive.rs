//! The archive of a cluster: its log and its backups in an S3 store, as the Barman Cloud plug-in of CloudNativePG keeps them.
//!
//! The server calls it by `archive_command` and `restore_command`, the operator for a backup. The pod says by its environment
//! where the archive is; one that is brought back from a backup has two, its own and the one that it comes from. The objects
//! have an order of their own: `log/SEGMENT.gz`, `backups/ID.tar.gz`, `backups/list.json`. Not handled: encryption by the
//! store, other compressions than gzip, an end of what is kept.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};

use super::super::{program_command, setting};
use super::{DATA, PORT, find};
use crate::edges::Objects;
use crate::{Failure, connect};

/// What the variables of a pod begin with that say where its own archive is.
pub(crate) const OWN: &str = "ARCHIVE";

/// The same for the archive that it is brought back from.
pub(crate) const SOURCE: &str = "SOURCE";

/// How long a store that does not answer is tried again, where giving up would look like the end of the log.
const PATIENCE: Duration = Duration::from_mins(2);

const RETRY: Duration = Duration::from_millis(500);

/// How long the store may take with one object.
const ANSWER: Duration = Duration::from_secs(10);

/// With this code `restore_command` says that the log goes on and cannot be had, which stops a recovery
/// (<https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-PITR-RECOVERY>).
const UNREACHABLE: u8 = 200;

const LIST: &str = "backups/list.json";

/// A backup in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Backup {
    /// Its name.
    pub(crate) id: String,
    /// When it began and was whole, in seconds since 1970.
    pub(crate) began: u64,
    pub(crate) ended: u64,
}

/// What the program does when PostgreSQL or the operator calls it: `ARCHIVE put PATH NAME`, `ARCHIVE get NAME PATH`,
/// `SOURCE need NAME PATH`, `ARCHIVE backup ID`.
pub(crate) async fn run(arguments: &[&str]) -> Result<ExitCode, Failure> {
    let [which, verb, rest @ ..] = arguments else { return Err("which archive, and what?".into()) };
    let archive = Archive::of(which)?;
    match (*verb, rest) {
        ("put", [path, name]) => archive.put(&format!("log/{name}.gz"), &compress(&fs::read(path)?)?).await?,
        // A follower asks again, whatever the reason is.
        ("get", [name, path]) => return archive.get_log(name, path).await,
        ("need", [name, path]) => {
            return match archive.patiently(|| archive.get_log(name, path)).await {
                Ok(code) => Ok(code),
                Err(error) => {
                    tracing::error!(%error, segment = name, "the archive cannot be reached");
                    Ok(ExitCode::from(UNREACHABLE))
                }
            };
        }
        ("backup", [id]) => {
            let made = archive.back_up(id).await?;
            writeln!(std::io::stdout(), "{}", serde_json::to_string(&made)?)?;
        }
        _ => return Err(format!("no such order: {}", arguments.join(" ")).into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// One archive.
pub(super) struct Archive {
    objects: Objects,
    folder: String,
}

impl Archive {
    /// The archive of which the variables say that begin so.
    pub(super) fn of(which: &str) -> Result<Self, Failure> {
        let variable = |name: &str| setting(&format!("{which}_{name}"));
        let authority = fs::read_to_string(format!("/{}/ca.crt", which.to_lowercase())).unwrap_or_default();
        let tls = std::sync::Arc::new(connect::tls(&authority)?);
        let credentials = (variable("ACCESS_KEY")?, variable("SECRET_KEY")?);
        let encrypted = variable("SCHEME")? == "https";
        let objects = Objects::new(&variable("ADDRESS")?, encrypted, &variable("BUCKET")?, credentials, &tls)?;
        Ok(Self { objects, folder: variable("FOLDER")? })
    }

    /// Whether the pod has one that its variables begin with this.
    pub(super) fn is_declared(which: &str) -> bool {
        std::env::var(format!("{which}_ADDRESS")).is_ok()
    }

    /// The latest backup that was whole at that time, and what it consists of. Waits until there is one.
    pub(super) async fn backup_before(&self, time: Option<u64>) -> Result<(Backup, Vec<u8>), Failure> {
        self.patiently(|| async {
            let list = self.list().await?;
            let latest = list.into_iter().rev().find(|backup| time.is_none_or(|time| backup.ended <= time));
            let backup = latest.ok_or("no backup is old enough")?;
            let content = self.get(&format!("backups/{}.tar.gz", backup.id)).await?;
            Ok((backup, content.ok_or("the backup is gone")?))
        })
        .await
    }

    async fn back_up(&self, id: &str) -> Result<Backup, Failure> {
        let folder = Path::new(DATA).join("backup");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let began = now();
        let found = find().ok_or("PostgreSQL is gone")?;
        let mut copy = program_command(&found.path.join("pg_basebackup"));
        copy.env("PGPASSWORD", setting("REPLICATION_PASSWORD")?).env("PGSSLMODE", "require");
        copy.args(["-h", "127.0.0.1", "-p", &PORT.to_string(), "-U", "streaming_replica", "-w"]);
        copy.args(["-F", "t", "-z", "-X", "fetch", "-c", "fast", "--no-sync", "-D"]).arg(&folder);
        let output = copy.output()?;
        if !output.status.success() {
            return Err(format!("pg_basebackup: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        let content = fs::read(folder.join("base.tar.gz"))?;
        let name = format!("backups/{id}.tar.gz");
        self.patiently(|| self.put(&name, &content)).await?;
        let made = Backup { id: id.to_owned(), began, ended: now() };
        let mut list = self.list().await?;
        list.retain(|backup| backup.id != id);
        list.push(made.clone());
        self.put(LIST, &serde_json::to_vec(&list)?).await?;
        fs::remove_dir_all(&folder)?;
        Ok(made)
    }

    async fn list(&self) -> Result<Vec<Backup>, Failure> {
        match self.get(LIST).await? {
            Some(list) => Ok(serde_json::from_slice(&list)?),
            None => Ok(Vec::new()),
        }
    }

    /// Fails with the code 1 when the archive does not have it.
    async fn get_log(&self, name: &str, path: &str) -> Result<ExitCode, Failure> {
        let Some(packed) = self.get(&format!("log/{name}.gz")).await? else { return Ok(ExitCode::FAILURE) };
        let mut content = Vec::new();
        GzDecoder::new(packed.as_slice()).read_to_end(&mut content)?;
        fs::write(path, content)?;
        Ok(ExitCode::SUCCESS)
    }

    async fn put(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        self.objects.put(&format!("{}/{name}", self.folder), Bytes::copy_from_slice(content), ANSWER).await
    }

    async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let content = self.objects.get(&format!("{}/{name}", self.folder), ANSWER).await?;
        Ok(content.map(|content| content.to_vec()))
    }

    async fn patiently<T, F: Future<Output = Result<T, Failure>>>(&self, work: impl Fn() -> F) -> Result<T, Failure> {
        let begin = Instant::now();
        loop {
            match work().await {
                Err(_) if begin.elapsed() < PATIENCE => tokio::time::sleep(RETRY).await,
                done => return done,
            }
        }
    }
}

fn compress(content: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

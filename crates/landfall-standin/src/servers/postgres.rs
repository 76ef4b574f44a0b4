//! PostgreSQL: a cluster is made at the first start, by `initdb` or as a copy of the primary. One that was the primary and is
//! no more is taken back to where the histories part, by `pg_rewind`, or copied anew.

pub(crate) mod archive;
mod recovery;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use self::archive::{Archive, OWN};
use super::{Account, Found, exec, first_in, roots, says, setting};
use crate::Failure;

/// Below it packages have a folder for each version. The programs find what belongs to them by their own place, so that
/// unpacked ones run, too.
const VERSIONS: &str = "usr/lib/postgresql";

/// Who may do everything in a database.
pub(crate) const SUPERUSER: &str = "postgres";

/// Where the pod has its volume, its certificate and its settings.
const DATA: &str = "/var/lib/postgresql/data";
const IDENTITY: &str = "/tls";
const SETTINGS: &str = "/etc/landfall";

const PORT: u16 = 5432;

/// The tool that the server and the operator reach the archive with.
pub(crate) const ARCHIVE: &str = "/var/lib/postgresql/data/archive";

/// How often a copy of the primary is tried again: it may not be there yet.
const RETRY: Duration = Duration::from_millis(500);

pub(super) fn find() -> Option<Found> {
    find_in(&roots())
}

/// The newest version that is installed, otherwise the newest that is unpacked.
fn find_in(roots: &[PathBuf]) -> Option<Found> {
    let newest = |root: &PathBuf| {
        let folders = fs::read_dir(root.join(VERSIONS)).into_iter().flatten().flatten();
        folders
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))))
            .filter(|(_, bin)| bin.join("initdb").is_file())
            .max()
    };
    let elsewhere = || {
        let places = ["/usr/local/pgsql/bin/initdb", "/usr/local/bin/initdb", "/usr/bin/initdb"];
        first_in(roots, &places)?.parent().map(Path::to_owned)
    };
    let path = roots.iter().find_map(newest).map(|(_, bin)| bin).or_else(elsewhere)?;
    // `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`
    let says = says(&path.join("postgres"), &["--version"])?;
    let version = says.split_whitespace().nth(2)?.to_owned();
    Some(Found { path, version: format!("PostgreSQL {version}") })
}

struct Cluster {
    bin: PathBuf,
    account: Account,
    data: PathBuf,
}

pub(super) fn become_server(found: &Found) -> Result<(), Failure> {
    let account = Account::of("postgres")?;
    account.own(Path::new(DATA))?;
    let cluster = Cluster { bin: found.path.clone(), data: Path::new(DATA).join("pgdata"), account };
    let (primary, follows) = (setting("LANDFALL_PRIMARY")?, setting("LANDFALL_ROLE")? == "replica");
    let standby = cluster.data.join("standby.signal");
    write_tool()?;
    match (cluster.data.join("PG_VERSION").exists(), follows) {
        (false, false) if Cluster::is_brought_back() => cluster.bring_back()?,
        (false, false) => cluster.make()?,
        (false, true) => cluster.copy(&primary)?,
        (true, true) if !standby.exists() => cluster.come_back(&primary)?,
        (true, _) => {}
    }
    // One that is to be the primary and still follows is promoted by whoever says so, which begins a history of its own.
    cluster.configure(&primary)?;
    if follows {
        cluster.account.file(&standby, b"")?;
    }
    let mut server = cluster.command("postgres");
    server.arg("-D").arg(&cluster.data);
    Err(exec(server))
}

impl Cluster {
    fn command(&self, program: &str) -> Command {
        let mut command = self.account.command(&self.bin.join(program));
        command.current_dir(DATA);
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), Failure> {
        let status = self.command(program).args(arguments).status()?;
        if status.success() { Ok(()) } else { Err(format!("{program} ended with {status}").into()) }
    }

    /// Makes it beside its place and moves it there when it is whole, so that a start that was broken off begins anew.
    fn make(&self) -> Result<(), Failure> {
        let new = Path::new(DATA).join("new");
        if new.exists() {
            fs::remove_dir_all(&new)?;
        }
        let folder = new.to_str().ok_or("the data folder has a plain name")?;
        self.run("initdb", &["-D", folder, "-U", SUPERUSER, "-E", "UTF8", "--data-checksums", "--no-sync"])?;
        let superuser = text(&setting("SUPERUSER_PASSWORD")?);
        let (database, owner) = (setting("POSTGRES_DB")?, setting("POSTGRES_USER")?);
        let statements = [
            format!("alter role {SUPERUSER} password {superuser}"),
            format!("create role {} login password {}", name(&owner), text(&setting("POSTGRES_PASSWORD")?)),
            format!("create database {} owner {}", name(&database), name(&owner)),
            format!(
                "create role streaming_replica login replication password {}",
                text(&setting("REPLICATION_PASSWORD")?)
            ),
        ];
        // A server that nobody can reach runs the statements.
        for statement in statements {
            let mut single = self.command("postgres");
            single.args(["--single", "-D", folder, "postgres"]).stdin(std::process::Stdio::piped());
            single.stdout(std::process::Stdio::null());
            let mut child = single.spawn()?;
            let mut stdin = child.stdin.take().ok_or("its input is ours")?;
            std::io::Write::write_all(&mut stdin, format!("{statement}\n").as_bytes())?;
            drop(stdin);
            let status = child.wait()?;
            if !status.success() {
                return Err(format!("the first statements ended with {status}").into());
            }
        }
        Ok(fs::rename(&new, &self.data)?)
    }

    /// Makes a former primary a copy of the one of now.
    fn come_back(&self, primary: &str) -> Result<(), Failure> {
        // What is left half rewound must not run.
        let unfinished = Path::new(DATA).join("rewinding");
        if !unfinished.exists() {
            while TcpStream::connect((primary, PORT)).is_err() {
                std::thread::sleep(RETRY);
            }
            self.account.file(&unfinished, b"")?;
            let source = format!("host={primary} user={SUPERUSER} dbname=postgres sslmode=require");
            let mut rewind = self.command("pg_rewind");
            rewind.env("PGPASSWORD", setting("SUPERUSER_PASSWORD")?).arg("--source-server").arg(source);
            if rewind.arg("-D").arg(&self.data).status()?.success() {
                return Ok(fs::remove_file(&unfinished)?);
            }
            tracing::warn!("it cannot be rewound, and is copied anew");
        }
        fs::remove_dir_all(&self.data)?;
        self.copy(primary)?;
        Ok(fs::remove_file(&unfinished)?)
    }

    fn copy(&self, primary: &str) -> Result<(), Failure> {
        let new = Path::new(DATA).join("new");
        loop {
            if new.exists() {
                fs::remove_dir_all(&new)?;
            }
            let mut copy = self.command("pg_basebackup");
            copy.env("PGPASSWORD", setting("REPLICATION_PASSWORD")?).env("PGSSLMODE", "require");
            copy.args([
                "-h",
                primary,
                "-U",
                "streaming_replica",
                "-X",
                "stream",
                "-c",
                "fast",
                "-w",
                "--no-sync",
                "-D",
            ]);
            if copy.arg(&new).status()?.success() {
                return Ok(fs::rename(&new, &self.data)?);
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Writes what the pod was told, at every start.
    fn configure(&self, primary: &str) -> Result<(), Failure> {
        for file in ["tls.crt", "tls.key"] {
            self.account.file(&self.data.join(file), &fs::read(Path::new(IDENTITY).join(file))?)?;
        }
        let listen = crate::address::shared().map_or_else(|| "*".to_owned(), |address| address.to_string());
        let mut settings = format!(
            "listen_addresses = '{listen}'\nport = 5432\nunix_socket_directories = ''\nssl = on\n\
             ssl_cert_file = 'tls.crt'\nssl_key_file = 'tls.key'\npassword_encryption = 'scram-sha-256'\n\
             wal_level = replica\nhot_standby = on\nwal_retrieve_retry_interval = '1s'\nlogging_collector = off\n",
        );
        if Archive::is_declared(OWN) {
            settings += &format!(
                "archive_mode = on\narchive_command = '{ARCHIVE} {OWN} put \"%p\" \"%f\"'\n\
                 restore_command = '{ARCHIVE} {OWN} get \"%f\" \"%p\"'\n"
            );
        }
        settings += &fs::read_to_string(Path::new(SETTINGS).join("postgresql.conf"))?;
        // Of no effect until it follows.
        let connection = format!(
            "host={primary} user=streaming_replica password={} sslmode=require application_name={}",
            setting("REPLICATION_PASSWORD")?,
            setting("HOSTNAME")?
        );
        settings += &format!("primary_conninfo = {}\n", text(&connection));
        self.account.file(&self.data.join("postgresql.conf"), settings.as_bytes())?;
        self.account.file(&self.data.join("pg_hba.conf"), &fs::read(Path::new(SETTINGS).join("pg_hba.conf"))?)
    }
}

/// Writes the tool for the archive: this program again, whoever it was started as.
fn write_tool() -> Result<(), Failure> {
    let program = std::env::current_exe()?;
    // The words before `server` are those with which the program becomes a stand-in.
    let words: Vec<String> = std::env::args().skip(1).take_while(|word| word != "server").collect();
    let script = format!("#!/bin/sh\nexec '{}' {} archive \"$@\"\n", program.display(), words.join(" "));
    fs::write(ARCHIVE, script)?;
    Ok(fs::set_permissions(ARCHIVE, fs::Permissions::from_mode(0o755))?)
}

/// A name in SQL.
fn name(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// A text in SQL, and in PostgreSQL's configuration.
fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs that tell their version and do nothing, where a package of that version would have them.
    fn unpack(root: &Path, version: &str) -> PathBuf {
        let bin = root.join(VERSIONS).join(version).join("bin");
        fs::create_dir_all(&bin).expect("folders can be made");
        for program in ["initdb", "postgres"] {
            let path = bin.join(program);
            fs::write(&path, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}.1 (Debian)'\n"))
                .expect("a script");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it can be made a program");
        }
        bin
    }

    #[test]
    fn the_newest_version_is_found_and_an_installed_one_before_an_unpacked_one() {
        let (installed, unpacked) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let roots = [installed.path().to_owned(), unpacked.path().to_owned()];
        assert_eq!(find_in(&roots), None);
        unpack(unpacked.path(), "9");
        let path = unpack(unpacked.path(), "16");
        assert_eq!(find_in(&roots), Some(Found { path, version: "PostgreSQL 16.1".to_owned() }));
        let path = unpack(installed.path(), "15");
        assert_eq!(find_in(&roots), Some(Found { path, version: "PostgreSQL 15.1".to_owned() }));
    }
}

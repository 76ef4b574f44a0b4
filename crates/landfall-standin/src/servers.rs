//! Real servers of this machine behind the entry points that their images would have.
//!
//! An operator of ours makes a pod with the image that the architecture names and the settings below; the image catalogue
//! leads it here, and here the process becomes the server: `initdb`, configuration and all. What the pod says through its
//! environment is the contract between the two.

mod alertmanager;
mod forward;
pub(crate) mod kafka;
mod modsecurity;
mod mongodb;
mod mosquitto;
mod packages;
mod postgres;
mod prometheus;
pub(crate) mod rabbitmq;
mod redis;
mod s3;

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{User, geteuid};

pub use self::packages::{TOOLS, first_of, pod_environment, program_command, tools};
use self::packages::{find_libraries_of, first_in, roots, says, unpacked};
pub(crate) use self::postgres::{ARCHIVE, SUPERUSER, archive};

use crate::Failure;

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// PostgreSQL.
    Postgres,
    /// Redis.
    Redis,
    /// RabbitMQ.
    Rabbitmq,
    /// Apache Kafka.
    Kafka,
    /// Object storage: a library inside of this program.
    S3,
    /// Mosquitto, for MQTT.
    Mosquitto,
    /// `FerretDB`, which speaks MongoDB's protocol.
    Mongodb,
    /// Prometheus.
    Prometheus,
    /// Alertmanager, of Prometheus.
    Alertmanager,
    /// nginx with ModSecurity and its core rules: a web application firewall.
    Modsecurity,
}

/// A server that this machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The program, or for PostgreSQL the folder of its programs.
    pub path: PathBuf,
    /// What it says it is: `PostgreSQL 15.14`.
    pub version: String,
}

impl Server {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Postgres,
        Self::Redis,
        Self::Rabbitmq,
        Self::Kafka,
        Self::S3,
        Self::Mosquitto,
        Self::Mongodb,
        Self::Prometheus,
        Self::Alertmanager,
        Self::Modsecurity,
    ];

    /// Its name on the command line of a stand-in.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Rabbitmq => "rabbitmq",
            Self::Kafka => "kafka",
            Self::S3 => "s3",
            Self::Mosquitto => "mqtt",
            Self::Mongodb => "mongodb",
            Self::Prometheus => "prometheus",
            Self::Alertmanager => "alertmanager",
            Self::Modsecurity => "modsecurity",
        }
    }

    /// How to get it: `apt-get install PACKAGE`, or a script of `tools/`; one after the other by `&&`.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Postgres => "apt-get install postgresql",
            Self::Redis => "apt-get install redis-server",
            Self::Rabbitmq => "apt-get install rabbitmq-server",
            Self::Kafka => "apt-get install default-jre-headless maven && tools/install-kafka",
            // Never needed: it is part of this program.
            Self::S3 => "cargo install landfall",
            Self::Mosquitto => "apt-get install mosquitto",
            Self::Mongodb => "tools/install-ferretdb",
            Self::Prometheus => "apt-get install prometheus",
            Self::Alertmanager => "apt-get install prometheus-alertmanager",
            Self::Modsecurity => "apt-get install nginx libnginx-mod-http-modsecurity modsecurity-crs",
        }
    }

    /// The signal that ends it, if it is another one than usual, as its image would say.
    pub fn stop_signal(self) -> Option<&'static str> {
        // Otherwise it would wait until every client has left by itself
        // (<https://www.postgresql.org/docs/current/server-shutdown.html>).
        (self == Self::Postgres).then_some("SIGINT")
    }

    /// What it cannot do that the server of an architecture can, if it is not the same program.
    pub fn differs(self) -> Option<&'static str> {
        match self {
            Self::Postgres
            | Self::Redis
            | Self::Rabbitmq
            | Self::Kafka
            | Self::Mosquitto
            | Self::Prometheus
            | Self::Alertmanager
            | Self::Modsecurity => None,
            Self::S3 => Some("the first member keeps all objects, without versions; the others lead there"),
            Self::Mongodb => Some("the first member keeps all documents; no election, no oplog"),
        }
    }
}

/// Looks for a server on this machine.
pub fn find(server: Server) -> Option<Found> {
    match server {
        Server::Postgres => postgres::find(),
        Server::Redis => redis::find(),
        Server::Rabbitmq => rabbitmq::find(),
        Server::Kafka => kafka::find(),
        Server::S3 => s3::find(),
        Server::Mosquitto => mosquitto::find(),
        Server::Mongodb => mongodb::find(),
        Server::Prometheus => prometheus::find(),
        Server::Alertmanager => alertmanager::find(),
        Server::Modsecurity => modsecurity::find(),
    }
}

/// What follows the server's name where a stand-in is to become it: what it could not find from inside a pod.
pub fn arguments(server: Server, found: &Found) -> Vec<String> {
    match server {
        Server::Kafka => kafka::arguments(found),
        _ => Vec::new(),
    }
}

/// Becomes the server. `arguments` are those of the program that its image would have. Returns when it fails or, for one
/// that is a part of this program, has been asked to end.
pub(crate) fn become_server(name: &str, arguments: &[&str]) -> Result<(), Failure> {
    let server = Server::ALL.iter().copied().find(|server| server.as_str() == name);
    let server = server.ok_or_else(|| format!("there is no server `{name}`"))?;
    let found = || find(server).ok_or_else(|| format!("{name} is missing; try: {}", server.remedy()));
    match server {
        Server::Postgres => postgres::become_server(&found()?),
        Server::Redis => redis::become_server(&found()?),
        Server::Rabbitmq => rabbitmq::become_server(&found()?),
        Server::Kafka => kafka::become_server(arguments),
        Server::S3 => s3::become_program(arguments),
        Server::Mosquitto => mosquitto::become_server(&found()?, arguments),
        Server::Mongodb => mongodb::become_server(&found()?),
        Server::Prometheus => prometheus::become_server(&found()?),
        Server::Alertmanager => alertmanager::become_server(&found()?),
        Server::Modsecurity => modsecurity::become_server(&found()?),
    }
}

/// As whom a server runs when we are root: as the user that its package has made, otherwise as nobody. PostgreSQL refuses to
/// run as root, and no server should.
struct Account(Option<User>);

impl Account {
    fn of(name: &str) -> Result<Self, Failure> {
        if !geteuid().is_root() {
            return Ok(Self(None));
        }
        let user = match User::from_name(name)? {
            Some(user) => Some(user),
            None => User::from_name("nobody")?,
        };
        user.map(|user| Self(Some(user))).ok_or_else(|| format!("this system has neither {name} nor nobody").into())
    }

    /// A command that runs as this account.
    fn command(&self, program: &Path) -> Command {
        let mut command = program_command(program);
        if let Some(user) = &self.0 {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    /// Makes a folder that is this account's only.
    fn folder(&self, path: &Path) -> Result<(), Failure> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| told("make", path, &error))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|error| told("close", path, &error))?;
        self.own(path)
    }

    /// Writes a file that is this account's only.
    fn file(&self, path: &Path, content: &[u8]) -> Result<(), Failure> {
        fs::write(path, content).map_err(|error| told("write", path, &error))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(|error| told("close", path, &error))?;
        self.own(path)
    }

    fn own(&self, path: &Path) -> Result<(), Failure> {
        let Some(user) = &self.0 else { return Ok(()) };
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(|error| told("give away", path, &error))
    }
}

fn told(action: &str, path: &Path, error: &std::io::Error) -> Failure {
    format!("failed to {action} `{}`: {error}", path.display()).into()
}

/// A setting of the pod.
fn setting(variable: &str) -> Result<String, Failure> {
    std::env::var(variable).map_err(|_| format!("the environment variable {variable} is missing").into())
}

/// Becomes another program. Returns only when that fails.
fn exec(mut command: Command) -> Failure {
    let error = command.exec();
    format!("failed to start {}: {error}", command.get_program().display()).into()
}

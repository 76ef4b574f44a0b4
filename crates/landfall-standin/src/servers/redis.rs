//! Redis: a member of a cluster, the first or a replica of it, alone, or a Sentinel that watches.

use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::time::Duration;

use super::{Account, Found, exec, first_of, says, setting};
use crate::Failure;

/// Where the pod has its volume, its certificate and its settings.
const DATA: &str = "/data";
const IDENTITY: &str = "/tls";
const SETTINGS: &str = "/etc/redis/external.conf.d/redis-additional.conf";

/// How often a name is looked up again that is not there yet.
const RETRY: Duration = Duration::from_millis(500);

pub(super) fn find() -> Option<Found> {
    let path = first_of(&["/usr/bin/redis-server", "/usr/local/bin/redis-server"])?;
    // `Redis server v=7.0.15 sha=…`
    let says = says(&path, &["--version"])?;
    let version = says.split_whitespace().find_map(|word| word.strip_prefix("v="))?.to_owned();
    Some(Found { path, version: format!("Redis {version}") })
}

pub(super) fn become_server(found: &Found) -> Result<(), Failure> {
    let account = Account::of("redis")?;
    let data = Path::new(DATA);
    account.own(data)?;
    let mut lines = vec![
        format!("dir {DATA}"),
        format!("bind {}", crate::address::own()),
        format!("requirepass {}", setting("REDIS_PASSWORD")?),
    ];
    let watches = std::env::var("LANDFALL_SENTINEL_OF").ok();
    let port = if watches.is_some() { 26379 } else { 6379 };
    if Path::new(IDENTITY).exists() {
        for file in ["tls.crt", "tls.key", "ca.crt"] {
            account.file(&data.join(file), &std::fs::read(Path::new(IDENTITY).join(file))?)?;
        }
        lines.extend([
            "port 0".to_owned(),
            format!("tls-port {port}"),
            format!("tls-cert-file {DATA}/tls.crt"),
            format!("tls-key-file {DATA}/tls.key"),
            format!("tls-ca-cert-file {DATA}/ca.crt"),
            "tls-auth-clients no".to_owned(),
            "tls-replication yes".to_owned(),
        ]);
    } else {
        lines.push(format!("port {port}"));
    }
    let file = data.join("redis.conf");
    let mut server = account.command(&found.path);
    server.arg(&file).current_dir(data);
    if let Some(primary) = watches {
        server.arg("--sentinel");
        // Sentinel writes what it has learned into its configuration.
        if !file.exists() {
            lines.extend(sentinel(&primary)?);
            await_name(&primary);
            account.file(&file, (lines.join("\n") + "\n").as_bytes())?;
        }
        return Err(exec(server));
    }
    lines.extend(member()?);
    if Path::new(SETTINGS).exists() {
        lines.push(std::fs::read_to_string(SETTINGS)?);
    }
    account.file(&file, (lines.join("\n") + "\n").as_bytes())?;
    Err(exec(server))
}

/// What a server is that has others beside it.
fn member() -> Result<Vec<String>, Failure> {
    let mut lines = vec![format!("masterauth {}", setting("REDIS_PASSWORD")?)];
    if let Ok(name) = std::env::var("LANDFALL_CLUSTER_HOSTNAME") {
        if Path::new(IDENTITY).exists() {
            lines.push("tls-cluster yes".to_owned());
        }
        // Clients are sent to names, which certificates can have.
        lines.extend([
            "cluster-enabled yes".to_owned(),
            "cluster-config-file nodes.conf".to_owned(),
            "cluster-node-timeout 5000".to_owned(),
            format!("cluster-announce-ip {}", setting("POD_IP")?),
            format!("cluster-announce-hostname {name}"),
            "cluster-preferred-endpoint-type hostname".to_owned(),
        ]);
    }
    if let Ok(name) = std::env::var("LANDFALL_REPLICA_HOSTNAME") {
        // Addresses change when pods are made again; names stay.
        lines.push(format!("replica-announce-ip {name}"));
        let primary = setting("LANDFALL_PRIMARY")?;
        if primary != name {
            lines.push(format!("replicaof {primary} 6379"));
        }
    }
    Ok(lines)
}

/// What a Sentinel watches, and when it acts: <https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/>.
fn sentinel(primary: &str) -> Result<Vec<String>, Failure> {
    let (password, group) = (setting("REDIS_PASSWORD")?, setting("LANDFALL_GROUP")?);
    Ok(vec![
        "sentinel resolve-hostnames yes".to_owned(),
        "sentinel announce-hostnames yes".to_owned(),
        format!("sentinel announce-ip {}", setting("LANDFALL_REPLICA_HOSTNAME")?),
        format!("sentinel monitor {group} {primary} 6379 {}", setting("LANDFALL_QUORUM")?),
        format!("sentinel auth-pass {group} {password}"),
        format!("sentinel sentinel-pass {password}"),
        format!("sentinel down-after-milliseconds {group} {}", setting("LANDFALL_DOWN_AFTER_MS")?),
        format!("sentinel parallel-syncs {group} 1"),
    ])
}

/// Sentinel gives up at once when it cannot look up what it watches.
fn await_name(host: &str) {
    while (host, 0).to_socket_addrs().is_err() {
        std::thread::sleep(RETRY);
    }
}

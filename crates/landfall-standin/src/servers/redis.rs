//! Redis: a member of a cluster, or alone.

use std::path::Path;

use super::{Account, Found, exec, first_of, says, setting};
use crate::Failure;

/// Where the pod has its volume, its certificate and its settings.
const DATA: &str = "/data";
const IDENTITY: &str = "/tls";
const SETTINGS: &str = "/etc/redis/external.conf.d/redis-additional.conf";

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
        "bind 0.0.0.0".to_owned(),
        format!("requirepass {}", setting("REDIS_PASSWORD")?),
        format!("masterauth {}", setting("REDIS_PASSWORD")?),
    ];
    if Path::new(IDENTITY).exists() {
        for file in ["tls.crt", "tls.key", "ca.crt"] {
            account.file(&data.join(file), &std::fs::read(Path::new(IDENTITY).join(file))?)?;
        }
        lines.extend([
            "port 0".to_owned(),
            "tls-port 6379".to_owned(),
            format!("tls-cert-file {DATA}/tls.crt"),
            format!("tls-key-file {DATA}/tls.key"),
            format!("tls-ca-cert-file {DATA}/ca.crt"),
            "tls-auth-clients no".to_owned(),
            "tls-replication yes".to_owned(),
            "tls-cluster yes".to_owned(),
        ]);
    }
    if let Ok(name) = std::env::var("LANDFALL_CLUSTER_HOSTNAME") {
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
    if Path::new(SETTINGS).exists() {
        lines.push(std::fs::read_to_string(SETTINGS)?);
    }
    let file = data.join("redis.conf");
    account.file(&file, (lines.join("\n") + "\n").as_bytes())?;
    let mut server = account.command(&found.path);
    server.arg(&file).current_dir(data);
    Err(exec(server))
}

//! PostgreSQL: a CloudNativePG `Cluster` with its backups, or a `StatefulSet` with streaming replicas.

use crate::json::json;
use landfall_model::Commit;
use serde_json::Map;

use super::access::{PASSWORD_KEY, USERNAME_KEY, database};
use super::backup::{self, Destination};
use super::statefulset::{self, CONFIGURATION, Clients, Server, TLS, exec, probe};
use super::{Site, certificate, from_secret, images};
use crate::object::Object;

/// The plug-in of CloudNativePG that makes backups; the backup inside the operator itself is deprecated.
const BARMAN: &str = "barman-cloud.cloudnative-pg.io";

/// Whether a commit waits for a replica. One member has nobody to wait for.
fn is_synchronous(site: &Site<'_>) -> bool {
    let declared = site.store.commit.as_ref().is_some_and(|commit| commit.value == Commit::Synchronous);
    declared && site.members() > 1
}

/// How much log the primary keeps for a replica that is away: a tenth of its volume. After that the replica has to be
/// copied anew; without a bound it would fill the primary's volume and stop it too.
fn kept_log(site: &Site<'_>) -> String {
    format!("{}MB", (site.volume_bytes() / 10).div_ceil(1 << 20))
}

pub(super) fn cluster(site: &Site<'_>) -> Vec<Object> {
    let database = database(site.name());
    let destination = site.destination();
    let selector = json!({ "cnpg.io/cluster": site.name(), "cnpg.io/podRole": "instance" });
    let labels = site.pod_labels();
    let mut parameters = Map::new();
    if let Some(log) = site.store.backup.as_ref().and_then(|backup| backup.log.as_ref()) {
        // A segment is shipped when it is full, or when it is this old.
        parameters.insert("archive_timeout".to_owned(), json!(format!("{}s", log.seconds().max(1))));
    }
    parameters.insert("max_slot_wal_keep_size".to_owned(), json!(kept_log(site)));
    // The operator's own rules come before these, and its last one takes every password; this closes it for plain text.
    let host_based = site.access.tls.then(|| json!(["hostnossl all all all reject"]));
    let anti_affinity = site.node_anti_affinity_type();
    let value = json!({
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Cluster",
        "metadata": site.subject.metadata(site.name()),
        "spec": {
            "instances": site.members(),
            "imageName": images::cloudnative_postgres(site.store),
            "inheritedMetadata": { "labels": labels },
            "bootstrap": { "initdb": { "database": &database, "owner": database, "dataChecksums": true } },
            "postgresql": {
                "parameters": parameters,
                "pg_hba": host_based,
                "synchronous": is_synchronous(site).then(|| json!({
                    "method": "any",
                    "number": 1,
                    // A commit that no replica has seen is not acknowledged, even when that stops all writers.
                    "dataDurability": "required",
                    // A replica is only promoted when it certainly has every acknowledged commit.
                    "failoverQuorum": (site.members() > 2).then_some(true),
                })),
            },
            "plugins": destination.as_ref().map(|_| json!([{
                "name": BARMAN,
                "isWALArchiver": true,
                "parameters": { "barmanObjectName": archive_name(site) },
            }])),
            "storage": {
                "size": site.volume_size(),
                "storageClass": site.storage_class(),
            },
            "resources": site.resources(),
            "affinity": {
                "enablePodAntiAffinity": anti_affinity.is_some(),
                "podAntiAffinityType": anti_affinity,
                "topologyKey": anti_affinity.map(|_| "kubernetes.io/hostname"),
                "nodeSelector": site.node_selector(),
                "nodeAffinity": site.node_affinity(),
                "tolerations": site.tolerations(),
            },
            "topologySpreadConstraints": site.topology_spread(&selector),
            "primaryUpdateStrategy": "unsupervised",
            // A switchover is over in seconds; a restart of the primary takes as long as its recovery.
            "primaryUpdateMethod": if site.members() > 1 { "switchover" } else { "restart" },
            "enablePDB": site.members() > 1,
        },
    });
    let mut objects = vec![site.object("cluster", value)];
    if let (Some(destination), Some(declared)) = (destination, site.store.backup.as_ref()) {
        objects.push(archive(site, &destination, backup::days(declared.keep.value)));
        objects.push(scheduled_backup(site, &backup::schedule(declared.full.value)));
    }
    objects
}

fn archive_name(site: &Site<'_>) -> String {
    format!("{}-archive", site.name())
}

fn archive(site: &Site<'_>, destination: &Destination, days: u64) -> Object {
    let secret = |key: &str| json!({ "name": &destination.secret, "key": key });
    let authority = destination
        .private_certificate
        .then(|| json!({ "name": certificate::secret_of(&destination.store), "key": "ca.crt" }));
    let value = json!({
        "apiVersion": "barmancloud.cnpg.io/v1",
        "kind": "ObjectStore",
        "metadata": site.subject.metadata(&archive_name(site)),
        "spec": {
            "retentionPolicy": format!("{days}d"),
            "configuration": {
                "destinationPath": format!("s3://{}/", destination.bucket),
                "endpointURL": &destination.endpoint,
                "endpointCA": authority,
                "s3Credentials": {
                    "accessKeyId": secret(super::access::ACCESS_KEY),
                    "secretAccessKey": secret(super::access::SECRET_KEY),
                },
                "wal": { "compression": "gzip", "encryption": encryption(site, destination) },
                "data": { "compression": "gzip", "encryption": encryption(site, destination) },
            },
        },
    });
    site.object("objectstore", value)
}

/// Encryption by the object store itself, which only a provider's offers without further setup.
fn encryption(site: &Site<'_>, destination: &Destination) -> Option<&'static str> {
    let asked = site.store.backup.as_ref().is_some_and(|backup| backup.encrypted.value);
    (asked && destination.is_managed).then_some("AES256")
}

fn scheduled_backup(site: &Site<'_>, schedule: &str) -> Object {
    let value = json!({
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "ScheduledBackup",
        "metadata": site.subject.metadata(site.name()),
        "spec": {
            // Six fields: CloudNativePG counts seconds.
            "schedule": format!("0 {schedule}"),
            "immediate": true,
            "backupOwnerReference": "self",
            "cluster": { "name": site.name() },
            "method": "plugin",
            "pluginConfiguration": { "name": BARMAN },
        },
    });
    site.object("scheduledbackup", value)
}

/// The first member is the primary and stays it; the others copy it when they start for the first time, and follow it.
///
/// Not handled: failover, backups. The operator does both.
pub(super) fn statefulset(site: &Site<'_>) -> Vec<Object> {
    let credentials = site.credentials();
    let primary = &site.member_hosts()[0];
    // The first start makes the database before any replica can be there, so that it must not wait for one.
    let wait = if is_synchronous(site) {
        "if [ \"${HOSTNAME##*-}\" = 0 ]; then\n\
         \x20 docker-ensure-initdb.sh \"$@\"\n\
         \x20 set -- \"$@\" -c \"synchronous_standby_names=ANY 1 (*)\"\n\
         fi\n"
    } else {
        ""
    };
    let start = format!(
        "#!/bin/bash\n\
         set -eu\n\
         if [ \"${{HOSTNAME##*-}}\" != 0 ] && [ ! -s \"$PGDATA/PG_VERSION\" ]; then\n\
         \x20 export PGPASSWORD=\"$POSTGRES_PASSWORD\"\n\
         \x20 until pg_basebackup --host={primary} --username=\"$POSTGRES_USER\" --pgdata=\"$PGDATA\" \\\n\
         \x20   --wal-method=stream --write-recovery-conf --checkpoint=fast; do\n\
         \x20   rm -rf \"$PGDATA\"\n\
         \x20   sleep 2\n\
         \x20 done\n\
         \x20 chmod 0700 \"$PGDATA\"\n\
         fi\n\
         set -- postgres -c config_file={CONFIGURATION}/postgresql.conf\n\
         {wait}\
         exec docker-entrypoint.sh \"$@\"\n"
    );
    let ready = ["pg_isready", "--host=127.0.0.1", "--quiet"];
    let server = Server {
        image: images::postgres(site.store),
        user: 999,
        command: vec!["bash".to_owned(), format!("{CONFIGURATION}/start.sh")],
        environment: vec![
            json!({ "name": "PGDATA", "value": "/data/postgres" }),
            json!({ "name": "POSTGRES_DB", "value": database(site.name()) }),
            from_secret("POSTGRES_USER", &credentials.secret, USERNAME_KEY),
            from_secret("POSTGRES_PASSWORD", &credentials.secret, PASSWORD_KEY),
        ],
        ports: vec![("postgres", site.access.port)],
        // Not where the image has its own volume, whose layout differs between versions.
        data: "/data",
        keeps_data: site.is_persistent(),
        scratch: vec!["/var/run/postgresql", "/tmp"],
        files: vec![
            ("start.sh", start),
            ("postgresql.conf", configuration(site)),
            ("pg_hba.conf", host_based_authentication(site)),
        ],
        // Recovery after a crash may take long; ten minutes, then it is started again.
        startup: probe(&exec(&ready), 5, 120),
        ready: probe(&exec(&ready), 10, 3),
        live: probe(&exec(&ready), 20, 6),
        clients: Clients::First,
        grace: 120,
        ..Server::default()
    };
    statefulset::objects(site, server)
}

fn configuration(site: &Site<'_>) -> String {
    let mut lines = vec![
        "listen_addresses = '*'".to_owned(),
        format!("hba_file = '{CONFIGURATION}/pg_hba.conf'"),
        "password_encryption = 'scram-sha-256'".to_owned(),
        "wal_level = 'replica'".to_owned(),
        format!("wal_keep_size = '{}'", kept_log(site)),
        "hot_standby = on".to_owned(),
    ];
    if site.access.tls {
        lines.push("ssl = on".to_owned());
        lines.push(format!("ssl_cert_file = '{TLS}/tls.crt'"));
        lines.push(format!("ssl_key_file = '{TLS}/tls.key'"));
    }
    lines.join("\n") + "\n"
}

fn host_based_authentication(site: &Site<'_>) -> String {
    let host = if site.access.tls { "hostssl" } else { "host" };
    format!(
        "local all all scram-sha-256\n\
         {host} all all all scram-sha-256\n\
         {host} replication all all scram-sha-256\n"
    )
}

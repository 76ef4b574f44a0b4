//! MongoDB: Percona's `PerconaServerMongoDB` with its backups, or a `StatefulSet` that forms a replica set.

use crate::json::json;
use serde_json::Value;

use super::access::{PASSWORD_KEY, USERNAME_KEY, database};
use super::backup;
use super::statefulset::{self, CONFIGURATION, Server, Start, TLS, probe, tcp};
use super::{Site, from_secret, images};
use crate::object::{Object, compact};

/// The key of the secret by which the members of a `StatefulSet` know each other.
pub(super) const KEY_FILE: &str = "replica-set-key";

/// The name of the replica set; the operator and the connection strings use the same.
const REPLICA_SET: &str = "rs0";

/// What the backups are called in the resource.
const STORAGE: &str = "archive";

pub(super) fn cluster(site: &Site<'_>) -> Vec<Object> {
    let members = site.members();
    let selector = json!({ "app.kubernetes.io/instance": site.name(), "app.kubernetes.io/component": "mongod" });
    let affinity = match site.affinity(&selector) {
        // Without a word the operator keeps members off each other's nodes.
        Value::Null => json!({ "antiAffinityTopologyKey": "none" }),
        affinity => json!({ "advanced": affinity }),
    };
    // The operator insists on an odd number of at least three, or on hearing that this is meant.
    let unusual = members < 3 || members.is_multiple_of(2);
    let volume = if site.is_persistent() {
        json!({ "persistentVolumeClaim": site.claim() })
    } else {
        json!({ "emptyDir": { "sizeLimit": site.volume_size() } })
    };
    let value = json!({
        "apiVersion": "psmdb.percona.com/v1",
        "kind": "PerconaServerMongoDB",
        "metadata": site.subject.metadata(site.name()),
        "spec": {
            "crVersion": images::PERCONA_RESOURCE_VERSION,
            "image": images::percona_mongodb(site.store),
            "unsafeFlags": unusual.then(|| json!({ "replsetSize": true })),
            "updateStrategy": "SmartUpdate",
            // A new version is a change of this file, never one that a server of somebody else decides on.
            "upgradeOptions": { "apply": "disabled" },
            "tls": { "mode": if site.access.tls { "requireTLS" } else { "preferTLS" } },
            "secrets": { "users": format!("{}-users", site.name()) },
            "users": [{
                "name": site.name(),
                "db": "admin",
                "roles": [{ "name": "readWrite", "db": database(site.name()) }],
            }],
            "replsets": [{
                "name": REPLICA_SET,
                "size": members,
                "labels": site.pod_labels(),
                "affinity": affinity,
                "nodeSelector": site.node_selector(),
                "tolerations": site.tolerations(),
                "topologySpreadConstraints": site.topology_spread(&selector),
                "podDisruptionBudget": (members > 1).then(|| json!({ "maxUnavailable": 1 })),
                "resources": site.resources(),
                "volumeSpec": volume,
            }],
            "sharding": { "enabled": false },
            "backup": backups(site),
        },
    });
    vec![site.object("perconaservermongodb", compact(value))]
}

fn backups(site: &Site<'_>) -> Value {
    let (Some(destination), Some(declared)) = (site.destination(), site.store.backup.as_ref()) else {
        return json!({ "enabled": false, "image": images::PERCONA_BACKUP });
    };
    let kept = declared.keep.millis().div_ceil(declared.full.millis().max(1));
    json!({
        "enabled": true,
        "image": images::PERCONA_BACKUP,
        "storages": {
            STORAGE: {
                "type": "s3",
                "s3": {
                    "bucket": destination.bucket,
                    "credentialsSecret": destination.secret,
                    "endpointUrl": destination.endpoint,
                    "region": destination.region,
                    // The backup program takes no authority of one's own: it either knows the issuer or asks nobody.
                    "insecureSkipTLSVerify": destination.private_certificate.then_some(true),
                },
            },
        },
        "pitr": declared.log.as_ref().map(|log| json!({
            "enabled": true,
            "oplogSpanMin": log.as_secs_f64() / 60.0,
        })),
        "tasks": [{
            "name": "full",
            "enabled": true,
            "schedule": backup::schedule(declared.full.value),
            "storageName": STORAGE,
            "retention": { "type": "count", "count": kept, "deleteFromStorage": true },
        }],
    })
}

/// The first member makes the first user and then, as soon as the others answer, the replica set.
///
/// Not handled: backups. The operator makes them.
pub(super) fn statefulset(site: &Site<'_>) -> Vec<Object> {
    let credentials = site.credentials();
    let image = images::mongodb(site.store);
    let members: Vec<String> = site
        .member_hosts()
        .iter()
        .enumerate()
        .map(|(n, host)| format!("{{ _id: {n}, host: '{host}:{}' }}", site.access.port))
        .collect();
    let tls = if site.access.tls {
        format!(
            " --tlsMode requireTLS --tlsCertificateKeyFile {TLS}/tls-combined.pem --tlsCAFile {TLS}/ca.crt \\\n  --tlsAllowConnectionsWithoutCertificates"
        )
    } else {
        String::new()
    };
    let client_tls = if site.access.tls { format!(" --tls --tlsCAFile {TLS}/ca.crt") } else { String::new() };
    let primary = &site.member_hosts()[0];
    let start = format!(
        "#!/bin/bash\n\
         set -eu\n\
         if [ \"${{HOSTNAME##*-}}\" = 0 ]; then\n\
         \x20 # By the name on the network: during the first start a server without a replica set answers on localhost.\n\
         \x20 (until mongosh --quiet --host {primary}{client_tls} --username \"$MONGO_INITDB_ROOT_USERNAME\" \\\n\
         \x20   --password \"$MONGO_INITDB_ROOT_PASSWORD\" {CONFIGURATION}/replica-set.js; do sleep 2; done) &\n\
         else\n\
         \x20 # The user comes with the data of the first member.\n\
         \x20 unset MONGO_INITDB_ROOT_USERNAME MONGO_INITDB_ROOT_PASSWORD\n\
         fi\n\
         exec docker-entrypoint.sh mongod --replSet {REPLICA_SET} --bind_ip_all --keyFile /run/key/key{tls}\n"
    );
    let replica_set = format!(
        "try {{\n  rs.status();\n}} catch (error) {{\n  if (error.codeName !== 'NotYetInitialized') throw error;\n  \
         rs.initiate({{ _id: '{REPLICA_SET}', members: [\n    {},\n  ] }});\n}}\n",
        members.join(",\n    ")
    );
    let server = Server {
        user: 999,
        command: vec!["bash".to_owned(), format!("{CONFIGURATION}/start.sh")],
        environment: vec![
            from_secret("MONGO_INITDB_ROOT_USERNAME", &credentials.secret, USERNAME_KEY),
            from_secret("MONGO_INITDB_ROOT_PASSWORD", &credentials.secret, PASSWORD_KEY),
            // The shell writes its history there.
            json!({ "name": "HOME", "value": "/tmp" }),
        ],
        ports: vec![("mongodb", site.access.port)],
        data: "/data/db",
        keeps_data: site.is_persistent(),
        scratch: vec!["/tmp", "/data/configdb"],
        files: vec![("start.sh", start), ("replica-set.js", replica_set)],
        startup: probe(&tcp("mongodb"), 5, 120),
        ready: probe(&tcp("mongodb"), 10, 3),
        live: probe(&tcp("mongodb"), 20, 6),
        // A key file that its group can read is refused, and a mounted Secret always is one.
        before: vec![json!({
            "name": "key",
            "image": &image,
            "command": ["sh", "-c", format!("umask 0377; cp -f /key/{KEY_FILE} /run/key/key")],
            "volumeMounts": [
                { "name": "key", "mountPath": "/run/key" },
                { "name": "key-secret", "mountPath": "/key", "readOnly": true },
            ],
        })],
        volumes: vec![
            json!({ "name": "key", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }),
            json!({
                "name": "key-secret",
                "secret": { "secretName": credentials.secret, "items": [{ "key": KEY_FILE, "path": KEY_FILE }] },
            }),
        ],
        mounts: vec![json!({ "name": "key", "mountPath": "/run/key", "readOnly": true })],
        image: image.clone(),
        // The replica set is made once all members answer.
        start: Start::Together,
        grace: 120,
        ..Server::default()
    };
    statefulset::objects(site, server)
}

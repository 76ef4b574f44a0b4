//! Redis: the operator's resources (one server, replicas with Sentinel, or a sharded cluster), or a `StatefulSet` of
//! Valkey.

use crate::json::json;
use landfall_model::{Persistence, Store};
use serde_json::{Map, Value};

use super::access::PASSWORD_KEY;
use super::statefulset::{self, CONFIGURATION, Clients, Server, TLS, exec, probe};
use super::{Site, from_secret, images};
use crate::object::{Object, compact};

/// How the data survives a restart, as the server's configuration says it.
///
/// Without a declaration the server's own default holds: a snapshot now and then.
fn persistence(store: &Store) -> &'static str {
    match store.persistence.as_ref().map(|persistence| persistence.value) {
        None => "",
        Some(Persistence::None) => "appendonly no\nsave \"\"\n",
        Some(Persistence::Snapshot) => "appendonly no\nsave 900 1 300 10 60 10000\n",
        Some(Persistence::Log) => "appendonly yes\nappendfsync everysec\n",
        Some(Persistence::Durable) => "appendonly yes\nappendfsync always\n",
    }
}

/// How much of its limit the data may take, in hundredths: a server that writes a snapshot needs the rest. Beyond it
/// the server refuses to write, which is better than to be killed.
const MEMORY_SHARE: u64 = 75;

/// The name of the `ConfigMap` and of the one file that the operator reads in it.
fn configuration(site: &Site<'_>) -> Option<(String, Object)> {
    let settings = persistence(site.store);
    if settings.is_empty() {
        return None;
    }
    let name = format!("{}-configuration", site.name());
    let value = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": site.subject.metadata(&name),
        "data": { "redis-additional.conf": settings },
    });
    Some((name, site.object("configmap", value)))
}

/// The custom resource under construction, in the order of its documentation.
struct Resource<'a> {
    site: &'a Site<'a>,
    additional: Option<String>,
}

impl Resource<'_> {
    fn kubernetes(&self, image: &str) -> Value {
        let credentials = self.site.credentials();
        json!({
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "resources": self.site.resources(),
            "redisSecret": { "name": credentials.secret, "key": credentials.password_key },
        })
    }

    fn settings(&self) -> Value {
        let memory = self.site.store.resources.memory.as_ref().map(|_| MEMORY_SHARE);
        if self.additional.is_none() && memory.is_none() {
            return Value::Null;
        }
        json!({ "additionalRedisConfig": &self.additional, "maxMemoryPercentOfLimit": memory })
    }

    fn storage(&self) -> Value {
        if self.site.is_persistent() {
            json!({ "volumeClaimTemplate": { "spec": self.site.claim() } })
        } else {
            Value::Null
        }
    }

    fn tls(&self) -> Value {
        if self.site.access.tls {
            json!({ "ca": "ca.crt", "cert": "tls.crt", "key": "tls.key", "secret": { "secretName": self.site.certificate_secret() } })
        } else {
            Value::Null
        }
    }

    /// Where pods of one role stand; the operator calls the roles so in the label `redis_setup_type`.
    fn placed(&self, selector: &Value, spec: &mut Map<String, Value>) {
        spec.insert("nodeSelector".to_owned(), self.site.node_selector());
        spec.insert("affinity".to_owned(), self.site.affinity(selector));
        spec.insert("tolerations".to_owned(), self.site.tolerations());
        spec.insert("topologySpreadConstraints".to_owned(), self.site.topology_spread(selector));
        spec.insert("pdb".to_owned(), json!({ "enabled": true, "maxUnavailable": 1 }));
    }

    fn object(&self, kind: &str, spec: impl Into<Value>) -> Object {
        let value = json!({
            "apiVersion": "redis.redis.opstreelabs.in/v1beta2",
            "kind": kind,
            // The operator puts the labels of the resource on its pods.
            "metadata": self.site.metadata_of_pods(),
            "spec": spec.into(),
        });
        self.site.object(&kind.to_lowercase(), compact(value))
    }
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// What the images of the operator need to run without root.
fn pod_security() -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": 1000,
        "fsGroup": 1000,
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

fn container_security() -> Value {
    json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } })
}

pub(super) fn cluster(site: &Site<'_>) -> Vec<Object> {
    let (additional, configuration) = configuration(site).unzip();
    let resource = Resource { site, additional };
    let mut objects: Vec<Object> = configuration.into_iter().collect();
    match &site.store.shards {
        Some(shards) => objects.push(sharded(&resource, shards.value)),
        None if site.members() > 1 => objects.extend([replication(&resource), sentinel(&resource)]),
        None => objects.push(single(&resource)),
    }
    objects
}

fn single(resource: &Resource<'_>) -> Object {
    let site = resource.site;
    let spec = fields(json!({
        "kubernetesConfig": resource.kubernetes(&images::redis(site.store)),
        "redisConfig": resource.settings(),
        "storage": resource.storage(),
        "TLS": resource.tls(),
        "podSecurityContext": pod_security(),
        "securityContext": container_security(),
        "nodeSelector": site.node_selector(),
        "affinity": site.affinity(&site.subject.selector()),
        "tolerations": site.tolerations(),
    }));
    resource.object("Redis", spec)
}

fn replication(resource: &Resource<'_>) -> Object {
    let site = resource.site;
    let mut spec = fields(json!({
        "clusterSize": site.members(),
        "kubernetesConfig": resource.kubernetes(&images::redis(site.store)),
        "redisConfig": resource.settings(),
        "storage": resource.storage(),
        "TLS": resource.tls(),
        "podSecurityContext": pod_security(),
        "securityContext": container_security(),
    }));
    resource.placed(&json!({ "app": site.name(), "redis_setup_type": "replication" }), &mut spec);
    resource.object("RedisReplication", spec)
}

/// How many Sentinels watch: the least number whose majority survives the loss of one.
const SENTINELS: u32 = 3;

fn sentinel(resource: &Resource<'_>) -> Object {
    let site = resource.site;
    let credentials = site.credentials();
    let mut kubernetes = fields(resource.kubernetes(&images::redis_sentinel(site.store)));
    kubernetes.insert(
        "resources".to_owned(),
        // A Sentinel holds a few connections and no data.
        json!({ "requests": { "cpu": "50m", "memory": "64Mi" }, "limits": { "cpu": "100m", "memory": "128Mi" } }),
    );
    let mut spec = fields(json!({
        "clusterSize": SENTINELS,
        "kubernetesConfig": kubernetes,
        "redisSentinelConfig": {
            "redisReplicationName": site.name(),
            "redisReplicationPassword": {
                "secretKeyRef": { "name": credentials.secret, "key": credentials.password_key },
            },
            "quorum": (SENTINELS / 2 + 1).to_string(),
            // Half of the failover that the file counts on is for noticing, the other half for promoting.
            "downAfterMilliseconds": (site.store.failover.millis() / 2).max(1000).to_string(),
        },
        "TLS": resource.tls(),
        "podSecurityContext": pod_security(),
        "securityContext": container_security(),
    }));
    resource.placed(&json!({ "app": format!("{}-sentinel", site.name()), "redis_setup_type": "sentinel" }), &mut spec);
    resource.object("RedisSentinel", spec)
}

fn sharded(resource: &Resource<'_>, shards: u32) -> Object {
    let site = resource.site;
    let role = |role: &str, replicas: u32| {
        let mut spec = fields(json!({
            "replicas": replicas,
            "redisConfig": resource.settings(),
            "securityContext": container_security(),
        }));
        resource.placed(&json!({ "app": format!("{}-{role}", site.name()), "redis_setup_type": "cluster" }), &mut spec);
        spec
    };
    let spec = fields(json!({
        "clusterSize": shards,
        "clusterVersion": "v7",
        "persistenceEnabled": site.is_persistent(),
        "kubernetesConfig": resource.kubernetes(&images::redis(site.store)),
        "storage": resource.storage(),
        "TLS": resource.tls(),
        "podSecurityContext": pod_security(),
        "redisLeader": role("leader", shards),
        "redisFollower": role("follower", site.members().saturating_sub(shards)),
    }));
    resource.object("RedisCluster", spec)
}

/// Valkey, the first member the primary and the others its replicas.
///
/// Not handled: failover and shards. The operator does both.
pub(super) fn statefulset(site: &Site<'_>) -> Vec<Object> {
    let credentials = site.credentials();
    let primary = &site.member_hosts()[0];
    let port = site.access.port;
    let start = format!(
        "#!/bin/sh\n\
         set -eu\n\
         if [ \"${{HOSTNAME##*-}}\" != 0 ]; then set -- --replicaof {primary} {port}; fi\n\
         exec valkey-server {CONFIGURATION}/valkey.conf --requirepass \"$PASSWORD\" --primaryauth \"$PASSWORD\" \"$@\"\n"
    );
    let tls = if site.access.tls {
        format!(
            "port 0\ntls-port {port}\ntls-replication yes\ntls-auth-clients no\ntls-cert-file {TLS}/tls.crt\n\
             tls-key-file {TLS}/tls.key\ntls-ca-cert-file {TLS}/ca.crt\n"
        )
    } else {
        format!("port {port}\n")
    };
    let limit = site.store.resources.memory.as_ref().map(|memory| memory.high.get());
    let memory = limit.map_or_else(String::new, |limit| format!("maxmemory {}\n", limit / 100 * MEMORY_SHARE));
    let options =
        if site.access.tls { format!(" --tls --cacert {TLS}/ca.crt --sni {}", site.name()) } else { String::new() };
    // A server that still reads its data answers LOADING: alive, but not ready.
    let ask = |expected: &str| {
        let script =
            format!("valkey-cli --no-auth-warning -a \"$PASSWORD\" -p {port}{options} ping | grep -E -q '{expected}'");
        exec(&["sh", "-c", &script])
    };
    let server = Server {
        image: images::valkey(),
        user: 999,
        command: vec!["sh".to_owned(), format!("{CONFIGURATION}/start.sh")],
        environment: vec![from_secret("PASSWORD", &credentials.secret, PASSWORD_KEY)],
        ports: vec![("redis", port)],
        data: "/data",
        keeps_data: site.is_persistent(),
        files: vec![
            ("start.sh", start),
            ("valkey.conf", format!("dir /data\n{memory}{tls}{}", persistence(site.store))),
        ],
        startup: probe(&ask("PONG|LOADING"), 5, 60),
        ready: probe(&ask("PONG"), 10, 3),
        live: probe(&ask("PONG|LOADING"), 20, 6),
        clients: Clients::First,
        grace: 60,
        ..Server::default()
    };
    statefulset::objects(site, server)
}

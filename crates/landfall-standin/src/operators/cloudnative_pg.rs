//! CloudNativePG's `Cluster`: a primary, its streaming replicas, their services and secrets.
//!
//! Names, labels and secrets are those of the operator (<https://cloudnative-pg.io/documentation/current/>), with
//! `enableSuperuserAccess`. Not handled: poolers, tablespaces, managed roles, rescaling, settings that change while the members
//! run.

mod backup;
mod failover;
mod member;

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::{Value, json};

pub(super) use self::backup::{backup, schedule};
pub(super) use self::failover::Memory;

use self::backup::{Destination, destinations};
use self::failover::{Outlook, Roles, look_after};
use super::{Context, OperatorError, Progress, container_security, is_ready, password, pod_security};
use crate::servers::SUPERUSER;

const PORT: u16 = 5432;

/// Says what a pod is; the services select it, and a container reads it when it starts.
const ROLE: &str = "cnpg.io/instanceRole";
const PRIMARY: &str = "primary";
const REPLICA: &str = "replica";

pub(super) async fn reconcile(context: Arc<Context>, cluster: Arc<DynamicObject>) -> Result<Progress, OperatorError> {
    let wanted = Wanted::of(&cluster);
    for secret in wanted.secrets(&context)? {
        context.ensure(&cluster, secret).await?;
    }
    context.apply(&cluster, wanted.settings()).await?;
    for service in wanted.services() {
        context.apply(&cluster, service).await?;
    }
    let selector = format!("cnpg.io/cluster={}", wanted.name);
    let before = Roles::of(&cluster.data["status"], wanted.instance(1));
    let pods = context.pods(&wanted.namespace, &selector).await?;
    let outlook = look_after(&context, &wanted, &pods, &before).await?;
    let archives = destinations(&context, &wanted).await?;
    for number in 1..=wanted.instances {
        let name = wanted.instance(number);
        let held = matches!(outlook, Outlook::Lost) && name == before.current;
        // By the same list as the outlook: one that is gone since may be another one's business.
        if !held && !matches!(outlook, Outlook::Changed(_)) && pods.iter().all(|pod| pod.name_any() != name) {
            context.ensure(&cluster, wanted.claim(number)).await?;
            context.ensure(&cluster, wanted.pod(number, &before, &archives)).await?;
        }
    }
    let roles = if let Outlook::Changed(roles) = outlook { roles } else { before };
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    let healthy = roles.settled() && u64::try_from(ready) == Ok(wanted.instances);
    let phase = match (roles.settled(), healthy) {
        (false, _) => "Failing over",
        (true, true) => "Cluster in healthy state",
        (true, false) => "Waiting for the instances to become active",
    };
    let status = json!({
        "instances": pods.len(),
        "readyInstances": ready,
        "currentPrimary": roles.current,
        "targetPrimary": roles.target,
        "phase": phase,
    });
    context.set_status(&cluster, status).await?;
    // Pods that end are made again, and nobody else tells.
    Ok(Progress::Again)
}

/// What a cluster asks for.
struct Wanted<'a> {
    name: String,
    uid: String,
    namespace: String,
    spec: &'a Value,
    instances: u64,
    database: &'a str,
    owner: &'a str,
}

impl<'a> Wanted<'a> {
    fn of(cluster: &'a DynamicObject) -> Self {
        let spec = &cluster.data["spec"];
        let bootstrap = &spec["bootstrap"];
        let init = if bootstrap["recovery"].is_object() { &bootstrap["recovery"] } else { &bootstrap["initdb"] };
        let database = init["database"].as_str().unwrap_or("app");
        Self {
            name: cluster.name_any(),
            uid: cluster.uid().unwrap_or_default(),
            namespace: cluster.namespace().unwrap_or_default(),
            instances: spec["instances"].as_u64().unwrap_or(1),
            database,
            owner: init["owner"].as_str().unwrap_or(database),
            spec,
        }
    }

    fn instance(&self, number: u64) -> String {
        format!("{}-{number}", self.name)
    }

    fn host(&self, service: &str) -> String {
        format!("{}-{service}.{}.svc", self.name, self.namespace)
    }

    fn secrets(&self, context: &Context) -> Result<Vec<Value>, OperatorError> {
        let (owner, password_of_owner, host) = (self.owner, password(), self.host("rw"));
        let names = ["rw", "ro", "r"].iter().flat_map(|service| {
            let short = format!("{}-{service}", self.name);
            [short.clone(), format!("{short}.{}", self.namespace), self.host(service)]
        });
        let identity = context.authority.sign(&names.collect::<Vec<_>>())?;
        Ok(vec![
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": { "name": format!("{}-app", self.name) },
                "type": "kubernetes.io/basic-auth",
                "stringData": {
                    "username": owner,
                    "user": owner,
                    "password": password_of_owner,
                    "dbname": self.database,
                    "host": format!("{}-rw", self.name),
                    "port": PORT.to_string(),
                    "uri": format!("postgresql://{owner}:{password_of_owner}@{host}:{PORT}/{}", self.database),
                },
            }),
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": { "name": format!("{}-replication", self.name) },
                "stringData": { "password": password() },
            }),
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": { "name": format!("{}-superuser", self.name) },
                "type": "kubernetes.io/basic-auth",
                "stringData": { "username": SUPERUSER, "password": password() },
            }),
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": { "name": format!("{}-server", self.name) },
                "type": "kubernetes.io/tls",
                "stringData": { "tls.crt": identity.certificate, "tls.key": identity.key },
            }),
        ])
    }

    /// The files that the entry point of the server reads: `postgresql.conf` and `pg_hba.conf`.
    fn settings(&self) -> Value {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let declared = &self.spec["postgresql"];
        // The operator's own: a member that was away finds the log of that time, and a primary that is gone is noticed.
        let mut settings =
            String::from("wal_keep_size = '512MB'\nwal_sender_timeout = '10s'\nwal_receiver_timeout = '10s'\n");
        for (name, value) in declared["parameters"].as_object().into_iter().flatten() {
            settings += &format!("{name} = {}\n", quoted(value.as_str().unwrap_or_default()));
        }
        let synchronous = &declared["synchronous"];
        if let Some(number) = synchronous["number"].as_u64().filter(|_| self.instances > 1) {
            // Whoever is the primary does not follow itself.
            let replicas: Vec<_> =
                (1..=self.instances).map(|number| format!("\"{}\"", self.instance(number))).collect();
            let method = synchronous["method"].as_str().unwrap_or("any");
            settings += &format!("synchronous_standby_names = '{method} {number} ({})'\n", replicas.join(", "));
        }
        let mut access = String::from("hostssl replication streaming_replica all scram-sha-256\n");
        for rule in declared["pg_hba"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            access += &format!("{rule}\n");
        }
        access += "host all all all scram-sha-256\n";
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": format!("{}-settings", self.name) },
            "data": { "postgresql.conf": settings, "pg_hba.conf": access },
        })
    }

    fn services(&self) -> Vec<Value> {
        let role = |role: &str| json!({ "cnpg.io/cluster": self.name, ROLE: role });
        let all = json!({ "cnpg.io/cluster": self.name, "cnpg.io/podRole": "instance" });
        [("rw", role(PRIMARY)), ("ro", role(REPLICA)), ("r", all)]
            .into_iter()
            .map(|(suffix, selector)| {
                json!({
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {
                        "name": format!("{}-{suffix}", self.name),
                        "labels": { "cnpg.io/cluster": self.name },
                    },
                    "spec": {
                        "selector": selector,
                        "ports": [{ "name": "postgres", "port": PORT, "targetPort": PORT }],
                    },
                })
            })
            .collect()
    }

    fn claim(&self, number: u64) -> Value {
        let storage = &self.spec["storage"];
        let mut spec = json!({
            "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": storage["size"] } },
        });
        if let Some(class) = storage["storageClass"].as_str() {
            spec["storageClassName"] = json!(class);
        }
        json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": { "name": self.instance(number), "labels": { "cnpg.io/cluster": self.name } },
            "spec": spec,
        })
    }

    fn pod(&self, number: u64, roles: &Roles, archives: &[Destination]) -> Value {
        let name = self.instance(number);
        let role = if roles.is_primary(&name) { PRIMARY } else { REPLICA };
        let mut labels = self.spec["inheritedMetadata"]["labels"].as_object().cloned().unwrap_or_default();
        for (key, value) in [
            ("cnpg.io/cluster", self.name.as_str()),
            ("cnpg.io/instanceName", &name),
            (ROLE, role),
            ("cnpg.io/podRole", "instance"),
            ("role", role),
        ] {
            labels.insert(key.to_owned(), json!(value));
        }
        let secret = |secret: &str, key: &str| json!({ "secretKeyRef": { "name": format!("{}-{secret}", self.name), "key": key } });
        let mut env = vec![
            json!({ "name": "POSTGRES_DB", "value": self.database }),
            json!({ "name": "POSTGRES_USER", "value": self.owner }),
            json!({ "name": "POSTGRES_PASSWORD", "valueFrom": secret("app", "password") }),
            json!({ "name": "REPLICATION_PASSWORD", "valueFrom": secret("replication", "password") }),
            json!({ "name": "SUPERUSER_PASSWORD", "valueFrom": secret("superuser", "password") }),
            json!({ "name": "LANDFALL_PRIMARY", "value": self.host("rw") }),
            // As it is when the container starts: a member that was promoted starts as the primary from then on.
            json!({
                "name": "LANDFALL_ROLE",
                "valueFrom": { "fieldRef": { "fieldPath": format!("metadata.labels['{ROLE}']") } },
            }),
        ];
        env.extend(backup::target(self.spec));
        env.extend(archives.iter().flat_map(Destination::environment));
        let mut container = json!({
            "name": "postgres",
            "image": self.spec["imageName"],
            "env": env,
            "ports": [{ "name": "postgresql", "containerPort": PORT }],
            "readinessProbe": { "tcpSocket": { "port": PORT }, "periodSeconds": 1 },
            "securityContext": container_security(),
            "volumeMounts": [
                { "name": "pgdata", "mountPath": "/var/lib/postgresql/data" },
                { "name": "server", "mountPath": "/tls", "readOnly": true },
                { "name": "settings", "mountPath": "/etc/landfall", "readOnly": true },
            ],
        });
        if self.spec["resources"].is_object() {
            container["resources"] = self.spec["resources"].clone();
        }
        let mut spec = json!({
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": pod_security(),
            "containers": [container],
            "volumes": [
                { "name": "pgdata", "persistentVolumeClaim": { "claimName": name } },
                { "name": "server", "secret": { "secretName": format!("{}-server", self.name) } },
                { "name": "settings", "configMap": { "name": format!("{}-settings", self.name) } },
            ],
        });
        for (volume, mount) in archives.iter().filter_map(Destination::volume) {
            spec["volumes"].as_array_mut().expect("they are a list").push(volume);
            let mounts = &mut spec["containers"][0]["volumeMounts"];
            mounts.as_array_mut().expect("they are a list").push(mount);
        }
        let affinity = &self.spec["affinity"];
        if affinity["enablePodAntiAffinity"] == json!(true) {
            let term = json!({
                "labelSelector": { "matchLabels": { "cnpg.io/cluster": self.name, "cnpg.io/podRole": "instance" } },
                "topologyKey": affinity["topologyKey"].as_str().unwrap_or("kubernetes.io/hostname"),
            });
            spec["affinity"]["podAntiAffinity"] = if affinity["podAntiAffinityType"] == json!("required") {
                json!({ "requiredDuringSchedulingIgnoredDuringExecution": [term] })
            } else {
                json!({ "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 100, "podAffinityTerm": term }] })
            };
        }
        if self.spec["topologySpreadConstraints"].is_array() {
            spec["topologySpreadConstraints"] = self.spec["topologySpreadConstraints"].clone();
        }
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": labels }, "spec": spec })
    }
}

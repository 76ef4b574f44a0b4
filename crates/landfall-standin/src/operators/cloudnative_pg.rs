//! CloudNativePG's `Cluster`: a primary, its streaming replicas, their services and secrets.
//!
//! Names, labels and secrets are those of the operator (<https://cloudnative-pg.io/documentation/current/>). Not handled:
//! failover, backups and the archive of the write-ahead log, poolers, tablespaces, managed roles, rescaling.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::{Context, OperatorError, Progress, container_security, is_ready, password, pod_security};

const PORT: u16 = 5432;

pub(super) async fn reconcile(context: Arc<Context>, cluster: Arc<DynamicObject>) -> Result<Progress, OperatorError> {
    let wanted = Wanted::of(&cluster);
    for secret in wanted.secrets(&context)? {
        context.ensure(&cluster, secret).await?;
    }
    context.apply(&cluster, wanted.settings()).await?;
    for service in wanted.services() {
        context.apply(&cluster, service).await?;
    }
    for number in 1..=wanted.instances {
        context.ensure(&cluster, wanted.claim(number)).await?;
        context.ensure(&cluster, wanted.pod(number)).await?;
    }
    let pods = context.pods(&wanted.namespace, &format!("cnpg.io/cluster={}", wanted.name)).await?;
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    let healthy = u64::try_from(ready) == Ok(wanted.instances);
    let status = json!({
        "instances": pods.len(),
        "readyInstances": ready,
        "currentPrimary": wanted.instance(1),
        "phase": if healthy { "Cluster in healthy state" } else { "Setting up primary" },
    });
    context.set_status(&cluster, status).await?;
    // Pods that end are made again, and nobody else tells.
    Ok(Progress::Again)
}

/// What a cluster asks for.
struct Wanted<'a> {
    name: String,
    namespace: String,
    spec: &'a Value,
    instances: u64,
    database: &'a str,
    owner: &'a str,
}

impl<'a> Wanted<'a> {
    fn of(cluster: &'a DynamicObject) -> Self {
        let spec = &cluster.data["spec"];
        let init = &spec["bootstrap"]["initdb"];
        let database = init["database"].as_str().unwrap_or("app");
        Self {
            name: cluster.name_any(),
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
        let mut settings = String::new();
        for (name, value) in declared["parameters"].as_object().into_iter().flatten() {
            settings += &format!("{name} = {}\n", quoted(value.as_str().unwrap_or_default()));
        }
        let synchronous = &declared["synchronous"];
        if let Some(number) = synchronous["number"].as_u64().filter(|_| self.instances > 1) {
            let replicas: Vec<_> =
                (2..=self.instances).map(|number| format!("\"{}\"", self.instance(number))).collect();
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
        let role = |role: &str| json!({ "cnpg.io/cluster": self.name, "cnpg.io/instanceRole": role });
        let all = json!({ "cnpg.io/cluster": self.name, "cnpg.io/podRole": "instance" });
        [("rw", role("primary")), ("ro", role("replica")), ("r", all)]
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

    fn pod(&self, number: u64) -> Value {
        let name = self.instance(number);
        let role = if number == 1 { "primary" } else { "replica" };
        let mut labels = self.spec["inheritedMetadata"]["labels"].as_object().cloned().unwrap_or_default();
        for (key, value) in [
            ("cnpg.io/cluster", self.name.as_str()),
            ("cnpg.io/instanceName", &name),
            ("cnpg.io/instanceRole", role),
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
        ];
        if number > 1 {
            env.push(json!({ "name": "LANDFALL_PRIMARY", "value": self.host("rw") }));
        }
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

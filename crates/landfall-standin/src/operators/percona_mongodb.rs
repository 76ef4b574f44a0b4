//! Percona's `PerconaServerMongoDB`: the members of its first replica set, their service, and the users' passwords.
//!
//! Names, labels and secrets are those of the operator
//! (<https://docs.percona.com/percona-operator-for-mongodb/operator.html>). The server has no replica set here
//! (`servers/mongodb.rs`). Not handled: shards, further replica sets, arbiters, backups, several declared users.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::{Context, OperatorError, Progress, container_security, is_ready, password, pod_security};

const PORT: u16 = 27017;

pub(super) async fn reconcile(context: Arc<Context>, cluster: Arc<DynamicObject>) -> Result<Progress, OperatorError> {
    let wanted = Wanted::of(&cluster);
    context.ensure(&cluster, wanted.users()).await?;
    if wanted.tls {
        context.ensure(&cluster, wanted.identity(&context)?).await?;
    }
    context.apply(&cluster, wanted.service()).await?;
    context.apply(&cluster, wanted.stateful_set()).await?;
    let labels = format!("app.kubernetes.io/instance={},app.kubernetes.io/component=mongod", wanted.name);
    let ready = context.pods(&wanted.namespace, &labels).await?.iter().filter(|pod| is_ready(pod)).count();
    let whole = u64::try_from(ready) == Ok(wanted.size());
    let status = json!({
        "state": if whole { "ready" } else { "initializing" },
        "host": format!("{}.{}.svc.cluster.local", wanted.set, wanted.namespace),
        "ready": ready,
        "size": wanted.size(),
    });
    context.set_status(&cluster, status).await?;
    Ok(if whole { Progress::Done } else { Progress::Again })
}

struct Wanted<'a> {
    name: String,
    namespace: String,
    spec: &'a Value,
    replica_set: &'a Value,
    /// The name of the `StatefulSet` and its service: `mongodb-rs0`.
    set: String,
    tls: bool,
}

impl<'a> Wanted<'a> {
    fn of(cluster: &'a DynamicObject) -> Self {
        let spec = &cluster.data["spec"];
        let replica_set = &spec["replsets"][0];
        let name = cluster.name_any();
        Self {
            set: format!("{name}-{}", replica_set["name"].as_str().unwrap_or("rs0")),
            namespace: cluster.namespace().unwrap_or_default(),
            // Without a word about it the operator allows TLS, and FerretDB can either have it or not.
            tls: spec["tls"]["mode"].as_str().is_none_or(|mode| mode != "disabled"),
            name,
            spec,
            replica_set,
        }
    }

    fn size(&self) -> u64 {
        self.replica_set["size"].as_u64().unwrap_or(3)
    }

    fn user(&self) -> &'a str {
        self.spec["users"][0]["name"].as_str().unwrap_or("databaseAdmin")
    }

    fn users_secret(&self) -> String {
        format!("{}-custom-user-secret", self.name)
    }

    fn identity_secret(&self) -> String {
        format!("{}-ssl", self.name)
    }

    fn users(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": self.users_secret() },
            "stringData": { self.user(): password() },
        })
    }

    fn identity(&self, context: &Context) -> Result<Value, OperatorError> {
        let mut names = Vec::new();
        for host in [self.set.clone(), format!("*.{}", self.set)] {
            names.push(host.clone());
            for suffix in ["", ".svc", ".svc.cluster.local"] {
                names.push(format!("{host}.{}{suffix}", self.namespace));
            }
        }
        let identity = context.authority.sign(&names)?;
        Ok(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": self.identity_secret() },
            "type": "kubernetes.io/tls",
            "stringData": { "tls.crt": identity.certificate, "tls.key": identity.key },
        }))
    }

    /// The operator's own labels win over those that the replica set declares.
    fn labels(&self) -> Value {
        let mut labels = self.replica_set["labels"].as_object().cloned().unwrap_or_default();
        for (key, value) in [
            ("app.kubernetes.io/name", "percona-server-mongodb"),
            ("app.kubernetes.io/instance", &self.name),
            ("app.kubernetes.io/component", "mongod"),
            ("app.kubernetes.io/part-of", "percona-server-mongodb"),
            ("app.kubernetes.io/managed-by", "percona-server-mongodb-operator"),
            ("app.kubernetes.io/replset", self.replica_set["name"].as_str().unwrap_or("rs0")),
        ] {
            labels.insert(key.to_owned(), json!(value));
        }
        Value::Object(labels)
    }

    fn selector(&self) -> Value {
        json!({ "app.kubernetes.io/instance": self.name, "app.kubernetes.io/component": "mongod" })
    }

    fn service(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": self.set, "labels": self.labels() },
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": true,
                "selector": self.selector(),
                "ports": [{ "name": "mongodb", "port": PORT, "targetPort": PORT }],
            },
        })
    }

    fn stateful_set(&self) -> Value {
        let keeper = format!("{0}-0.{0}.{1}.svc.cluster.local", self.set, self.namespace);
        let mut mounts = vec![json!({ "name": "mongod-data", "mountPath": "/data/db" })];
        let mut volumes = Vec::new();
        if self.tls {
            volumes.push(json!({ "name": "ssl", "secret": { "secretName": self.identity_secret() } }));
            mounts.push(json!({ "name": "ssl", "mountPath": "/etc/mongodb-ssl", "readOnly": true }));
        }
        let mut container = json!({
            "name": "mongod",
            "image": self.spec["image"],
            "env": [
                { "name": "MONGODB_USER", "value": self.user() },
                { "name": "MONGODB_PASSWORD", "valueFrom": { "secretKeyRef": {
                    "name": self.users_secret(), "key": self.user(),
                } } },
                { "name": "LANDFALL_KEEPER", "value": keeper },
            ],
            "ports": [{ "name": "mongodb", "containerPort": PORT }],
            "readinessProbe": { "tcpSocket": { "port": PORT }, "periodSeconds": 1 },
            "securityContext": container_security(),
            "volumeMounts": mounts,
        });
        if self.replica_set["resources"].is_object() {
            container["resources"] = self.replica_set["resources"].clone();
        }
        let mut pod = json!({
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": pod_security(),
            "containers": [container],
            "volumes": volumes,
        });
        let affinity = &self.replica_set["affinity"]["advanced"];
        if affinity.is_object() {
            pod["affinity"] = affinity.clone();
        }
        for field in ["topologySpreadConstraints", "nodeSelector", "tolerations"] {
            if !self.replica_set[field].is_null() {
                pod[field] = self.replica_set[field].clone();
            }
        }
        json!({
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": { "name": self.set, "labels": self.labels() },
            "spec": {
                "serviceName": self.set,
                "replicas": self.size(),
                "podManagementPolicy": "Parallel",
                "selector": { "matchLabels": self.selector() },
                "template": { "metadata": { "labels": self.labels() }, "spec": pod },
                "volumeClaimTemplates": [{
                    "metadata": { "name": "mongod-data" },
                    "spec": self.replica_set["volumeSpec"]["persistentVolumeClaim"],
                }],
            },
        })
    }
}

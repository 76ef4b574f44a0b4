//! Strimzi's `Kafka` with its `KafkaNodePool`: nodes that are brokers and controllers, their services, secrets, network
//! policy and disruption budget. Topics and users are in [`entities`].
//!
//! Names, labels and keys are those of the operator (<https://strimzi.io/docs/operators/latest/deploying>), except that a
//! `StatefulSet` keeps the pods where Strimzi has its own `StrimziPodSet`; the pods are called the same. Every certificate
//! is signed by the authority of this place, so both `ca.crt` are its certificate, and there are no PKCS #12 files. Not
//! handled: several node pools, separate controllers, listeners beyond the cluster, TLS for clients, metrics, the HTTP
//! bridge, Kafka Connect, rescaling, and settings that change while the nodes run.

mod entities;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kube::api::{DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(super) use self::entities::{topic, user};

use super::{Context, OperatorError, Progress, container_security, is_ready, pod_security};

const CONTROLLER_PORT: u16 = 9090;
const REPLICATION_PORT: u16 = 9091;

/// The name by which the objects of a cluster are told.
const CLUSTER_LABEL: &str = "strimzi.io/cluster";

/// The image of a version. Strimzi chooses it by itself, so that no object names it.
pub fn image(version: &str) -> String {
    format!("quay.io/strimzi/kafka:1.2.0-kafka-{version}")
}

/// A pool that changes changes its cluster.
pub(super) async fn pool(context: Arc<Context>, pool: Arc<DynamicObject>) -> Result<Progress, OperatorError> {
    let Some(cluster) = cluster_of(&context, &pool).await? else { return Ok(Progress::Again) };
    reconcile(context, Arc::new(cluster)).await
}

pub(super) async fn reconcile(context: Arc<Context>, kafka: Arc<DynamicObject>) -> Result<Progress, OperatorError> {
    let (name, namespace) = (kafka.name_any(), kafka.namespace().unwrap_or_default());
    let pools = kind(&context, &namespace, "KafkaNodePool");
    let parameters = ListParams::default().labels(&format!("{CLUSTER_LABEL}={name}"));
    let pools = pools.list(&parameters).await.map_err(|source| OperatorError::Request {
        action: format!("list the node pools of {name}"),
        source: Box::new(source),
    })?;
    let pool = match pools.items.as_slice() {
        [] => return Ok(Progress::Again),
        [pool] => pool,
        _ => {
            context.set_status(&kafka, not_ready(&kafka, "not handled here: several node pools")).await?;
            return Ok(Progress::Done);
        }
    };
    let wanted = Wanted::of(&kafka, pool);
    if let Some(problem) = wanted.not_handled() {
        context.set_status(&kafka, not_ready(&kafka, &problem)).await?;
        return Ok(Progress::Done);
    }
    for secret in wanted.secrets(&context)? {
        context.ensure(&kafka, secret).await?;
    }
    for object in [vec![wanted.settings(), wanted.policy(), wanted.budget()], wanted.services()].concat() {
        context.apply(&kafka, object).await?;
    }
    context.apply(&kafka, wanted.stateful_set()).await?;
    let pods = context.pods(&namespace, &format!("{CLUSTER_LABEL}={name},strimzi.io/kind=Kafka")).await?;
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    if u64::try_from(ready) != Ok(wanted.replicas) {
        context
            .set_status(&kafka, not_ready(&kafka, &format!("{ready} of {} nodes are ready", wanted.replicas)))
            .await?;
        return Ok(Progress::Again);
    }
    context.set_status(pool, wanted.pool_status()).await?;
    context.set_status(&kafka, wanted.status(context.authority.certificate())).await?;
    Ok(Progress::Done)
}

/// The objects of one of Strimzi's kinds.
fn kind(context: &Context, namespace: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("kafka.strimzi.io", "v1", kind));
    Api::namespaced_with(context.client.clone(), namespace, &resource)
}

/// The cluster that a pool, topic or user says it belongs to.
async fn cluster_of(context: &Context, object: &DynamicObject) -> Result<Option<DynamicObject>, OperatorError> {
    let Some(name) = object.labels().get(CLUSTER_LABEL) else { return Ok(None) };
    let clusters = kind(context, &object.namespace().unwrap_or_default(), "Kafka");
    clusters
        .get_opt(name)
        .await
        .map_err(|source| OperatorError::Request { action: format!("read the Kafka {name}"), source: Box::new(source) })
}

fn is_marked_ready(object: &DynamicObject) -> bool {
    let conditions = object.data["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn not_ready(object: &DynamicObject, why: &str) -> Value {
    let condition = json!({ "type": "Ready", "status": "False", "reason": "NotReady", "message": why });
    json!({ "observedGeneration": object.metadata.generation, "conditions": [condition] })
}

/// What a cluster asks for.
struct Wanted<'a> {
    name: String,
    namespace: String,
    kafka: &'a DynamicObject,
    pool: &'a DynamicObject,
    replicas: u64,
}

/// A way in for clients.
struct Listener<'a> {
    declared: &'a Value,
    name: &'a str,
    port: u64,
}

impl Listener<'_> {
    /// Its name in Kafka's settings.
    fn name_in_settings(&self) -> String {
        format!("{}-{}", self.name.to_uppercase(), self.port)
    }

    fn protocol(&self) -> &'static str {
        match (self.declared["authentication"].is_object(), self.declared["tls"] == json!(true)) {
            (false, false) => "PLAINTEXT",
            (false, true) => "SSL",
            (true, false) => "SASL_PLAINTEXT",
            (true, true) => "SASL_SSL",
        }
    }
}

impl<'a> Wanted<'a> {
    fn of(kafka: &'a DynamicObject, pool: &'a DynamicObject) -> Self {
        Self {
            name: kafka.name_any(),
            namespace: kafka.namespace().unwrap_or_default(),
            replicas: pool.data["spec"]["replicas"].as_u64().unwrap_or(1),
            kafka,
            pool,
        }
    }

    fn spec(&self) -> &'a Value {
        &self.kafka.data["spec"]["kafka"]
    }

    fn listeners(&self) -> Vec<Listener<'a>> {
        let declared = self.spec()["listeners"].as_array().into_iter().flatten();
        let listener = |declared: &'a Value| Some((declared["name"].as_str()?, declared["port"].as_u64()?, declared));
        declared.filter_map(listener).map(|(name, port, declared)| Listener { declared, name, port }).collect()
    }

    fn not_handled(&self) -> Option<String> {
        let roles = self.pool.data["spec"]["roles"].as_array().map_or(0, Vec::len);
        if roles != 2 {
            return Some("not handled here: nodes that are not both broker and controller".to_owned());
        }
        self.listeners().iter().find_map(|listener| {
            let kind = listener.declared["type"].as_str().unwrap_or("internal");
            let authentication = listener.declared["authentication"]["type"].as_str().unwrap_or("scram-sha-512");
            let problem = match (kind, authentication) {
                ("internal", "scram-sha-512") => return None,
                ("internal", other) => format!("authentication by `{other}`"),
                (other, _) => format!("the type `{other}`"),
            };
            Some(format!("not handled here: {problem} of the listener `{}`", listener.name))
        })
    }

    /// The name of the cluster's own parts.
    fn own(&self) -> String {
        format!("{}-kafka", self.name)
    }

    fn host(&self, service: &str) -> String {
        format!("{}-{service}.{}.svc", self.own(), self.namespace)
    }

    fn node(&self, number: u64) -> String {
        format!("{}-{}-{number}", self.name, self.pool.name_any())
    }

    /// 16 bytes in the URL form of Base64, which may not begin with a dash: of this object and of no other.
    fn cluster_id(&self) -> String {
        let mut digest = Sha256::digest(self.kafka.uid().unwrap_or_default());
        digest[0] &= 0x7f;
        URL_SAFE_NO_PAD.encode(&digest[..16])
    }

    fn labels(&self) -> Value {
        let own = self.own();
        let mut labels =
            self.pool.data["spec"]["template"]["pod"]["metadata"]["labels"].as_object().cloned().unwrap_or_default();
        let component = [
            ("strimzi.io/name", own.as_str()),
            ("strimzi.io/component-type", "kafka"),
            ("strimzi.io/broker-role", "true"),
            ("strimzi.io/controller-role", "true"),
            ("strimzi.io/pool-name", &self.pool.name_any()),
        ]
        .map(|(key, value)| (key.to_owned(), json!(value)));
        labels.extend(component);
        labels.extend(self.selector().as_object().cloned().unwrap_or_default());
        json!(labels)
    }

    fn selector(&self) -> Value {
        json!({ CLUSTER_LABEL: self.name, "strimzi.io/kind": "Kafka", "strimzi.io/name": self.own() })
    }

    fn metadata(&self, name: String) -> Value {
        json!({ "name": name, "labels": { CLUSTER_LABEL: self.name, "strimzi.io/kind": "Kafka" } })
    }

    fn secrets(&self, context: &Context) -> Result<Vec<Value>, OperatorError> {
        let authority = context.authority.certificate();
        // The first is the common name, by which the nodes know each other and may do everything.
        let mut names = vec![self.own()];
        for service in ["bootstrap", "brokers"] {
            let host = self.host(service);
            names.extend([format!("{}-{service}", self.own()), format!("{host}.cluster.local"), host]);
        }
        let brokers = self.host("brokers");
        names.extend([format!("*.{brokers}"), format!("*.{brokers}.cluster.local")]);
        let identity = context.authority.sign(&names)?;
        let certificate = |of: &str| {
            json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": self.metadata(format!("{}-{of}-ca-cert", self.name)),
                "stringData": { "ca.crt": authority },
            })
        };
        Ok(vec![
            certificate("cluster"),
            certificate("clients"),
            json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": self.metadata(format!("{}-brokers", self.own())),
                "stringData": { "tls.crt": identity.certificate, "tls.key": identity.key, "ca.crt": authority },
            }),
        ])
    }

    /// What all nodes have in common; their entry point fills in what is their own.
    fn settings(&self) -> Value {
        let brokers = self.host("brokers");
        let mut listeners = vec![
            ("CONTROLPLANE-9090".to_owned(), u64::from(CONTROLLER_PORT), "SSL"),
            ("REPLICATION-9091".to_owned(), u64::from(REPLICATION_PORT), "SSL"),
        ];
        let clients = self.listeners();
        listeners.extend(clients.iter().map(|of| (of.name_in_settings(), of.port, of.protocol())));
        let each =
            |line: &dyn Fn(&(String, u64, &str)) -> String| listeners.iter().map(line).collect::<Vec<_>>().join(",");
        let voters: Vec<_> = (0..self.replicas)
            .map(|number| format!("{number}@{}.{brokers}.cluster.local:{CONTROLLER_PORT}", self.node(number)))
            .collect();
        let mut lines = vec![
            "process.roles=broker,controller".to_owned(),
            format!("controller.quorum.voters={}", voters.join(",")),
            "controller.listener.names=CONTROLPLANE-9090".to_owned(),
            "inter.broker.listener.name=REPLICATION-9091".to_owned(),
            format!("listeners={}", each(&|(name, port, _)| format!("{name}://0.0.0.0:{port}"))),
            format!("advertised.listeners={}", each(&|(name, port, _)| format!("{name}://${{POD}}.{brokers}:{port}"))),
            format!("listener.security.protocol.map={}", each(&|(name, _, protocol)| format!("{name}:{protocol}"))),
            "listener.name.controlplane-9090.ssl.client.auth=required".to_owned(),
            "listener.name.replication-9091.ssl.client.auth=required".to_owned(),
        ];
        for listener in clients.iter().filter(|listener| listener.declared["authentication"].is_object()) {
            let prefix = format!("listener.name.{}", listener.name_in_settings().to_lowercase());
            lines.push(format!("{prefix}.sasl.enabled.mechanisms=SCRAM-SHA-512"));
            lines.push(format!(
                "{prefix}.scram-sha-512.sasl.jaas.config=\
                 org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ));
        }
        if self.checks_rights() {
            lines.push("authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned());
            lines.push(format!("super.users=User:CN={}", self.own()));
        }
        if self.spec()["rack"].is_object() {
            lines.push("broker.rack=${RACK}".to_owned());
        }
        for (key, value) in self.spec()["config"].as_object().into_iter().flatten() {
            lines.push(format!("{key}={}", entities::plain(value)));
        }
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": self.metadata(format!("{}-settings", self.own())),
            "data": { "server.properties": lines.join("\n") + "\n" },
        })
    }

    fn checks_rights(&self) -> bool {
        self.spec()["authorization"]["type"] == "simple"
    }

    fn services(&self) -> Vec<Value> {
        let port = |name: &str, port: u64| json!({ "name": name, "port": port, "targetPort": port });
        let mut clients = vec![port("tcp-replication", REPLICATION_PORT.into())];
        clients.extend(self.listeners().iter().map(|of| port(&format!("tcp-{}", of.name), of.port)));
        let mut nodes = clients.clone();
        nodes.insert(0, port("tcp-ctrlplane", CONTROLLER_PORT.into()));
        vec![
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": self.metadata(format!("{}-bootstrap", self.own())),
                "spec": { "selector": self.selector(), "ports": clients },
            }),
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": self.metadata(format!("{}-brokers", self.own())),
                "spec": {
                    "clusterIP": "None", "publishNotReadyAddresses": true, "selector": self.selector(), "ports": nodes,
                },
            }),
        ]
    }

    /// Clients come in where they are declared as peers, and everybody does where nobody is; nodes speak to each other.
    fn policy(&self) -> Value {
        let own = json!([{ "podSelector": { "matchLabels": self.selector() } }]);
        let port = |port: u64| json!([{ "protocol": "TCP", "port": port }]);
        let mut ingress = vec![
            json!({ "from": own, "ports": port(CONTROLLER_PORT.into()) }),
            json!({ "from": own, "ports": port(REPLICATION_PORT.into()) }),
        ];
        for listener in self.listeners() {
            let mut rule = json!({ "ports": port(listener.port) });
            if listener.declared["networkPolicyPeers"].is_array() {
                rule["from"] = listener.declared["networkPolicyPeers"].clone();
            }
            ingress.push(rule);
        }
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": self.metadata(format!("{}-network-policy-kafka", self.name)),
            "spec": {
                "podSelector": { "matchLabels": self.selector() }, "policyTypes": ["Ingress"], "ingress": ingress,
            },
        })
    }

    fn budget(&self) -> Value {
        let away = self.spec()["template"]["podDisruptionBudget"]["maxUnavailable"].as_u64().unwrap_or(1);
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": self.metadata(self.own()),
            "spec": {
                "minAvailable": self.replicas.saturating_sub(away), "selector": { "matchLabels": self.selector() },
            },
        })
    }

    fn stateful_set(&self) -> Value {
        let listeners = self.listeners();
        let mut ports = vec![
            json!({ "name": "tcp-ctrlplane", "containerPort": CONTROLLER_PORT }),
            json!({ "name": "tcp-replication", "containerPort": REPLICATION_PORT }),
        ];
        ports
            .extend(listeners.iter().map(|of| json!({ "name": format!("tcp-{}", of.name), "containerPort": of.port })));
        let field =
            |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
        let mut env =
            vec![field("POD_NAME", "metadata.name"), json!({ "name": "KAFKA_CLUSTER_ID", "value": self.cluster_id() })];
        // Pods get the labels of their node's place when they are bound to it.
        if let Some(key) = self.spec()["rack"]["topologyKey"].as_str() {
            env.push(field("KAFKA_RACK", &format!("metadata.labels['{key}']")));
        }
        let spec = &self.pool.data["spec"];
        let mut container = json!({
            "name": "kafka",
            "image": image(self.spec()["version"].as_str().unwrap_or_default()),
            "env": env,
            "ports": ports,
            // It listens once the cluster has let the node in.
            "readinessProbe": { "tcpSocket": { "port": REPLICATION_PORT }, "periodSeconds": 1 },
            "securityContext": container_security(),
            "volumeMounts": [
                { "name": "data", "mountPath": "/var/lib/kafka/data" },
                { "name": "identity", "mountPath": "/tls", "readOnly": true },
                { "name": "settings", "mountPath": "/etc/landfall", "readOnly": true },
            ],
        });
        if spec["resources"].is_object() {
            container["resources"] = spec["resources"].clone();
        }
        let mut pod = json!({
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 30,
            "securityContext": pod_security(),
            "containers": [container],
            "volumes": [
                { "name": "identity", "secret": { "secretName": format!("{}-brokers", self.own()) } },
                { "name": "settings", "configMap": { "name": format!("{}-settings", self.own()) } },
            ],
        });
        for field in ["affinity", "tolerations", "topologySpreadConstraints"] {
            let declared = &spec["template"]["pod"][field];
            if !declared.is_null() {
                pod[field] = declared.clone();
            }
        }
        let mut set = json!({
            "serviceName": format!("{}-brokers", self.own()),
            "replicas": self.replicas,
            // The controllers answer when most of them are there.
            "podManagementPolicy": "Parallel",
            "selector": { "matchLabels": self.selector() },
        });
        let storage = &spec["storage"];
        if storage["type"] == "persistent-claim" {
            let mut claim = json!({
                "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": storage["size"] } },
            });
            if let Some(class) = storage["class"].as_str() {
                claim["storageClassName"] = json!(class);
            }
            set["volumeClaimTemplates"] = json!([{ "metadata": { "name": "data" }, "spec": claim }]);
        } else if let Some(volumes) = pod["volumes"].as_array_mut() {
            volumes.push(json!({ "name": "data", "emptyDir": { "sizeLimit": storage["sizeLimit"] } }));
        }
        set["template"] = json!({ "metadata": { "labels": self.labels() }, "spec": pod });
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": self.metadata(format!("{}-{}", self.name, self.pool.name_any())),
            "spec": set,
        })
    }

    fn pool_status(&self) -> Value {
        json!({
            "observedGeneration": self.pool.metadata.generation,
            "clusterId": self.cluster_id(),
            "nodeIds": (0..self.replicas).collect::<Vec<_>>(),
            "roles": self.pool.data["spec"]["roles"],
            "replicas": self.replicas,
        })
    }

    fn status(&self, authority: &str) -> Value {
        let host = self.host("bootstrap");
        let listeners: Vec<_> = self
            .listeners()
            .iter()
            .map(|listener| {
                let mut status = json!({
                    "name": listener.name,
                    "addresses": [{ "host": host, "port": listener.port }],
                    "bootstrapServers": format!("{host}:{}", listener.port),
                });
                if listener.declared["tls"] == json!(true) {
                    status["certificates"] = json!([authority]);
                }
                status
            })
            .collect();
        json!({
            "observedGeneration": self.kafka.metadata.generation,
            "clusterId": self.cluster_id(),
            "kafkaVersion": self.spec()["version"],
            "kafkaNodePools": [{ "name": self.pool.name_any() }],
            "listeners": listeners,
            "conditions": [{ "type": "Ready", "status": "True" }],
        })
    }
}

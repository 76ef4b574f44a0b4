//! Who is in the cluster: the rendered pods, the pods that operators make from custom resources, and strangers.
//!
//! The labels and ports of operators' pods are those of current releases: `CloudNativePG` 1.27, Strimzi 0.49 and 1.0,
//! the `RabbitMQ` Cluster Operator 2, Percona Server for `MongoDB` 1.20, the Redis operator of OT-CONTAINER-KIT, ECK 3.

use std::collections::{BTreeMap, BTreeSet};

use landfall_model::{Architecture, Element, SecretBackend};
use serde_json::{Value, json};

use crate::cluster::{
    Cluster, ContainerPort, Labels, ObjectKey, Origin, Port, Protocol, Surroundings, Workload, WorkloadId,
};
use crate::rules::raw::text;

/// The label by which a rendered object says which service or store it belongs to.
const NAME_LABEL: &str = "app.kubernetes.io/name";

/// Where OTLP and Zipkin collectors listen: OTLP over gRPC and HTTP, Zipkin.
pub(super) const TELEMETRY_PORTS: [u16; 3] = [4317, 4318, 9411];

/// One end of a connection, in the words of the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Party {
    /// A service or store of the file.
    Element(Element),
    /// The controller that brings requests into the cluster.
    Ingress,
    /// Prometheus.
    Monitoring,
    /// A collector of traces.
    Telemetry,
    /// A pod by which cert-manager answers a certificate authority; it lives for seconds.
    Solver,
    /// A pod of somebody else, in a namespace of its own.
    Stranger,
    /// Pods of an object that the file does not declare as a service or store.
    Other(ObjectKey),
}

impl std::fmt::Display for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Element(element) => write!(f, "`{element}`"),
            Self::Ingress => f.write_str("the ingress controller"),
            Self::Monitoring => f.write_str("Prometheus"),
            Self::Telemetry => f.write_str("the trace collector"),
            Self::Solver => f.write_str("the certificate solver"),
            Self::Stranger => f.write_str("any pod of another namespace"),
            Self::Other(key) => write!(f, "`{key}`"),
        }
    }
}

/// The cluster with the meaning of its workloads.
pub(super) struct Parties {
    pub(super) cluster: Cluster,
    by_workload: BTreeMap<WorkloadId, Party>,
    workloads: BTreeMap<Party, Vec<WorkloadId>>,
}

impl Parties {
    pub(super) fn new(architecture: &Architecture, objects: &[Value]) -> Self {
        let mut surroundings = Surroundings::default();
        let mut known = BTreeMap::new();
        for (key, party, labels, ports) in strangers(architecture) {
            known.insert(key.clone(), party);
            surroundings.workloads.push(Workload::new(key, Origin::Stranger, labels, ports));
        }
        for namespace in asking_for_certificates(objects) {
            let key = ObjectKey::new("Pod", namespace, "certificate-solver");
            known.insert(key.clone(), Party::Solver);
            let solver = labels([("acme.cert-manager.io/http01-solver", "true")]);
            surroundings.workloads.push(Workload::new(key, Origin::Stranger, solver, vec![tcp("http", 8089)]));
        }
        let mut policies = Vec::new();
        for object in objects {
            let Some(resource) = Resource::read(object) else { continue };
            for (suffix, labels, ports) in resource.pods() {
                let name = format!("{}{suffix}", resource.name);
                let key = ObjectKey::new(resource.kind, resource.namespace, name);
                let party =
                    element(architecture, resource.label()).map_or_else(|| Party::Other(key.clone()), Party::Element);
                known.insert(key.clone(), party);
                surroundings.workloads.push(Workload::new(key, Origin::Operator, labels, ports));
            }
            let secrets = resource.secrets().into_iter();
            surroundings.objects.extend(secrets.map(|name| ObjectKey::new("Secret", resource.namespace, name)));
            policies.extend(resource.policy());
        }
        surroundings.objects.extend(given_secrets(architecture, objects));
        let cluster = Cluster::new(objects.iter().chain(&policies), surroundings);
        let mut by_workload = BTreeMap::new();
        let mut workloads: BTreeMap<Party, Vec<WorkloadId>> = BTreeMap::new();
        for (id, workload) in cluster.workloads() {
            let party = known.get(&workload.key).cloned().unwrap_or_else(|| {
                let label = workload.labels.get(NAME_LABEL).map(String::as_str);
                element(architecture, label).map_or_else(|| Party::Other(workload.key.clone()), Party::Element)
            });
            workloads.entry(party.clone()).or_default().push(id);
            by_workload.insert(id, party);
        }
        Self { cluster, by_workload, workloads }
    }

    /// Who a workload is.
    pub(super) fn of(&self, id: WorkloadId) -> &Party {
        &self.by_workload[&id]
    }

    /// The workloads of a party.
    pub(super) fn workloads(&self, party: &Party) -> &[WorkloadId] {
        self.workloads.get(party).map_or(&[], Vec::as_slice)
    }

    /// Every party with its workloads.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Party, &[WorkloadId])> {
        self.workloads.iter().map(|(party, ids)| (party, ids.as_slice()))
    }

    /// How many workloads there are.
    pub(super) fn len(&self) -> usize {
        self.by_workload.len()
    }
}

fn element(architecture: &Architecture, label: Option<&str>) -> Option<Element> {
    architecture.element(label?).filter(|element| matches!(element, Element::Service(_) | Element::Store(_)))
}

fn tcp(name: &str, number: u16) -> ContainerPort {
    ContainerPort { name: Some(name.to_owned()), port: Port { number, protocol: Protocol::Tcp } }
}

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn strangers(architecture: &Architecture) -> Vec<(ObjectKey, Party, Labels, Vec<ContainerPort>)> {
    let document = &architecture.document;
    let ingress = &document.platform.ingress;
    let monitoring = document.observability.namespace.as_str();
    let named = |name: &str| labels([(NAME_LABEL, name)]);
    let key = |namespace: &str, name: &str| ObjectKey::new("Deployment", namespace, name);
    let mut all = vec![
        (
            key(ingress.namespace.as_str(), &ingress.class),
            Party::Ingress,
            named(&ingress.class),
            vec![tcp("http", 8080), tcp("https", 8443)],
        ),
        (key(monitoring, "prometheus"), Party::Monitoring, named("prometheus"), vec![tcp("web", 9090)]),
        (key("somewhere-else", "stranger"), Party::Stranger, named("stranger"), vec![tcp("http", 8080)]),
    ];
    if document.observability.traces.is_some() {
        let ports = TELEMETRY_PORTS.into_iter().map(|number| ContainerPort { name: None, port: Port::tcp(number) });
        all.push((key(monitoring, "trace-collector"), Party::Telemetry, named("trace-collector"), ports.collect()));
    }
    all
}

/// The namespaces in which cert-manager is asked for certificates.
fn asking_for_certificates(objects: &[Value]) -> BTreeSet<&str> {
    let asks = |object: &Value, metadata: &Value| {
        let annotations = metadata.get("annotations").and_then(Value::as_object);
        text(object, "kind") == "Certificate"
            || annotations.is_some_and(|all| all.keys().any(|key| key.starts_with("cert-manager.io/")))
    };
    let asking = objects.iter().filter_map(|object| {
        let metadata = object.get("metadata").filter(|metadata| asks(object, metadata))?;
        Some(text(metadata, "namespace")).filter(|namespace| !namespace.is_empty())
    });
    asking.collect()
}

/// Secrets that somebody puts into the cluster, as the file says.
fn given_secrets(architecture: &Architecture, objects: &[Value]) -> BTreeSet<ObjectKey> {
    let document = &architecture.document;
    let given = document
        .security
        .secrets
        .items
        .keys()
        .filter(|_| document.security.secrets.backend.value == SecretBackend::Cluster);
    let pull = document.platform.registry.iter().filter_map(|registry| registry.pull_secret.as_ref());
    let declared = given.chain(pull).map(ToString::to_string);
    // A store that makes no credentials itself asks for a Secret of this name.
    let asked = document.stores.keys().map(|name| format!("{name}-credentials"));
    let asked = asked.filter(|_| document.security.secrets.backend.value == SecretBackend::Cluster);
    let names: Vec<String> = declared.chain(asked).collect();
    let namespaces: BTreeSet<&str> = objects
        .iter()
        .filter_map(|object| object.get("metadata"))
        .map(|metadata| text(metadata, "namespace"))
        .collect();
    let in_each = |name: &String| {
        namespaces.iter().map(|namespace| ObjectKey::new("Secret", *namespace, name)).collect::<Vec<_>>()
    };
    names.iter().flat_map(in_each).collect()
}

/// A custom resource from which an operator makes pods.
struct Resource<'a> {
    object: &'a Value,
    group: &'a str,
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Resource<'a> {
    fn read(object: &'a Value) -> Option<Self> {
        let (group, _) = text(object, "apiVersion").split_once('/')?;
        let metadata = object.get("metadata")?;
        let namespace = Some(text(metadata, "namespace")).filter(|namespace| !namespace.is_empty());
        let (kind, name) = (text(object, "kind"), text(metadata, "name"));
        Some(Self { object, group, kind, namespace: namespace.unwrap_or("default"), name })
    }

    fn text(&self, pointer: &str) -> Option<&'a str> {
        self.object.pointer(pointer).and_then(Value::as_str)
    }

    fn label(&self) -> Option<&'a str> {
        self.text("/metadata/labels/app.kubernetes.io~1name")
    }

    /// Labels that the resource asks its operator to put on the pods.
    fn extra(&self, pointer: &str) -> Labels {
        let object = self.object.pointer(pointer).and_then(Value::as_object);
        let entries =
            object.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        entries.collect()
    }

    /// The pods: what is added to the name, their labels and their ports.
    fn pods(&self) -> Vec<(String, Labels, Vec<ContainerPort>)> {
        let name = self.name;
        let only = |pods: Labels, ports: Vec<ContainerPort>| vec![(String::new(), pods, ports)];
        match (self.group, self.kind) {
            ("postgresql.cnpg.io", "Cluster") => {
                let mut pods = labels([("cnpg.io/cluster", name), ("cnpg.io/podRole", "instance")]);
                pods.extend(self.extra("/spec/inheritedMetadata/labels"));
                only(pods, vec![tcp("postgresql", 5432), tcp("metrics", 9187), tcp("status", 8000)])
            }
            ("postgresql.cnpg.io", "Pooler") => {
                only(labels([("cnpg.io/poolerName", name)]), vec![tcp("pgbouncer", 5432), tcp("metrics", 9127)])
            }
            ("kafka.strimzi.io", "Kafka") => {
                let mut pods = labels([
                    ("strimzi.io/cluster", name),
                    ("strimzi.io/kind", "Kafka"),
                    ("strimzi.io/name", &format!("{name}-kafka")),
                    ("strimzi.io/component-type", "kafka"),
                    ("app.kubernetes.io/name", "kafka"),
                    ("app.kubernetes.io/instance", name),
                ]);
                pods.extend(self.extra("/spec/kafka/template/pod/metadata/labels"));
                let mut ports: Vec<ContainerPort> =
                    self.listeners().map(|(listener, number, _)| tcp(&format!("tcp-{listener}"), number)).collect();
                ports.extend([tcp("tcp-ctrlplane", 9090), tcp("tcp-replication", 9091)]);
                if self.object.pointer("/spec/kafka/metricsConfig").is_some() {
                    ports.push(tcp("tcp-prometheus", 9404));
                }
                only(pods, ports)
            }
            ("rabbitmq.com", "RabbitmqCluster") => {
                let mut pods = self.extra("/metadata/labels");
                pods.extend(labels([
                    ("app.kubernetes.io/name", name),
                    ("app.kubernetes.io/component", "rabbitmq"),
                    ("app.kubernetes.io/part-of", "rabbitmq"),
                ]));
                let mut ports =
                    vec![tcp("epmd", 4369), tcp("amqp", 5672), tcp("management", 15672), tcp("prometheus", 15692)];
                if self.object.pointer("/spec/tls/secretName").is_some() {
                    ports.extend([tcp("amqps", 5671), tcp("management-tls", 15671)]);
                }
                if self.text_list("/spec/rabbitmq/additionalPlugins").any(|plugin| plugin == "rabbitmq_mqtt") {
                    ports.extend([tcp("mqtt", 1883), tcp("mqtts", 8883)]);
                }
                only(pods, ports)
            }
            ("psmdb.percona.com", "PerconaServerMongoDB") => {
                let pods = |set: &Value| {
                    let set = set.get("name").and_then(Value::as_str).unwrap_or("rs0");
                    let mut pods = self.extra_of_set(set);
                    pods.extend(labels([
                        ("app.kubernetes.io/name", "percona-server-mongodb"),
                        ("app.kubernetes.io/instance", name),
                        ("app.kubernetes.io/replset", set),
                        ("app.kubernetes.io/component", "mongod"),
                        ("app.kubernetes.io/managed-by", "percona-server-mongodb-operator"),
                        ("app.kubernetes.io/part-of", "percona-server-mongodb"),
                    ]));
                    (format!("-{set}"), pods, vec![tcp("mongodb", 27017)])
                };
                self.list("/spec/replsets").map(pods).collect()
            }
            ("mongodbcommunity.mongodb.com", "MongoDBCommunity") => {
                only(labels([("app", &format!("{name}-svc"))]), vec![tcp("mongodb", 27017)])
            }
            ("redis.redis.opstreelabs.in", "Redis") => only(
                self.redis(name, "standalone", "standalone"),
                vec![tcp("redis-client", 6379), tcp("redis-exporter", 9121)],
            ),
            ("redis.redis.opstreelabs.in", "RedisReplication") => only(
                self.redis(name, "replication", "replication"),
                vec![tcp("redis-client", 6379), tcp("redis-exporter", 9121)],
            ),
            ("redis.redis.opstreelabs.in", "RedisSentinel") => {
                let app = format!("{name}-sentinel");
                let pods = self.redis(&app, "sentinel", "sentinel");
                vec![("-sentinel".to_owned(), pods, vec![tcp("sentinel-client", 26379)])]
            }
            ("redis.redis.opstreelabs.in", "RedisCluster") => ["leader", "follower"]
                .into_iter()
                .map(|role| {
                    let app = format!("{name}-{role}");
                    let pods = self.redis(&app, "cluster", role);
                    let ports = vec![tcp("redis-client", 6379), tcp("redis-bus", 16379), tcp("redis-exporter", 9121)];
                    (format!("-{role}"), pods, ports)
                })
                .collect(),
            ("elasticsearch.k8s.elastic.co", "Elasticsearch") => only(
                labels([
                    ("common.k8s.elastic.co/type", "elasticsearch"),
                    ("elasticsearch.k8s.elastic.co/cluster-name", name),
                ]),
                vec![tcp("https", 9200), tcp("transport", 9300)],
            ),
            _ => Vec::new(),
        }
    }

    /// The Redis operator puts the labels of the resource on its pods, beside its own.
    fn redis(&self, app: &str, setup: &str, role: &str) -> Labels {
        let mut pods = labels([("app", app), ("redis_setup_type", setup), ("role", role)]);
        pods.extend(self.extra("/metadata/labels"));
        pods
    }

    /// Percona's operator adds the labels of a replica set, unless they are its own.
    fn extra_of_set(&self, set: &str) -> Labels {
        let index =
            self.list("/spec/replsets").position(|other| other.get("name").and_then(Value::as_str) == Some(set));
        index.map_or_else(Labels::new, |index| self.extra(&format!("/spec/replsets/{index}/labels")))
    }

    fn list(&self, pointer: &str) -> impl Iterator<Item = &'a Value> {
        self.object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
    }

    fn text_list(&self, pointer: &str) -> impl Iterator<Item = &'a str> {
        self.list(pointer).filter_map(Value::as_str)
    }

    /// The listeners of a Kafka cluster: name, port, and the peers that it admits.
    fn listeners(&self) -> impl Iterator<Item = (&'a str, u16, Option<&'a Value>)> {
        self.list("/spec/kafka/listeners").filter_map(|listener| {
            let port = listener.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok())?;
            let name = listener.get("name").and_then(Value::as_str).unwrap_or("listener");
            Some((name, port, listener.get("networkPolicyPeers")))
        })
    }

    /// The policy that Strimzi makes by itself.
    ///
    /// Policies add up: a listener without `networkPolicyPeers` is open to everybody, whatever other policies say
    /// (<https://strimzi.io/docs/operators/latest/deploying#proc-restricting-access-to-listeners-using-network-policies-str>).
    fn policy(&self) -> Option<Value> {
        if (self.group, self.kind) != ("kafka.strimzi.io", "Kafka") {
            return None;
        }
        let own = json!({ "podSelector": { "matchLabels": { "strimzi.io/cluster": self.name } } });
        let mut ingress = vec![json!({ "from": [own], "ports": [{ "port": 9090 }, { "port": 9091 }] })];
        for (_, port, peers) in self.listeners() {
            ingress.push(json!({ "from": peers.cloned().unwrap_or_else(|| json!([])), "ports": [{ "port": port }] }));
        }
        let selector = json!({ "matchLabels": {
            "strimzi.io/cluster": self.name, "strimzi.io/kind": "Kafka", "strimzi.io/name": format!("{}-kafka", self.name),
        } });
        Some(json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": { "name": format!("{}-network-policy-kafka", self.name), "namespace": self.namespace },
            "spec": { "podSelector": selector, "policyTypes": ["Ingress"], "ingress": ingress },
        }))
    }

    /// The Secrets that the operator makes.
    fn secrets(&self) -> Vec<String> {
        let name = self.name;
        let with = |suffixes: &[&str]| suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect();
        match (self.group, self.kind) {
            ("postgresql.cnpg.io", "Cluster") => with(&["-app", "-superuser", "-ca", "-server", "-replication"]),
            ("kafka.strimzi.io", "Kafka") => with(&["-cluster-ca-cert", "-clients-ca-cert"]),
            ("kafka.strimzi.io", "KafkaUser") => with(&[""]),
            ("rabbitmq.com", "RabbitmqCluster") => with(&["-default-user", "-erlang-cookie"]),
            ("rabbitmq.com", "User") => with(&["-user-credentials"]),
            ("psmdb.percona.com", "PerconaServerMongoDB") => {
                let named = ["/spec/secrets/users", "/spec/secrets/ssl", "/spec/secrets/sslInternal"];
                let mut secrets: Vec<String> = with(&["-secrets", "-ssl", "-ssl-internal"]);
                secrets.extend(named.into_iter().filter_map(|pointer| self.text(pointer)).map(str::to_owned));
                let users = self.list("/spec/users").filter_map(|user| user.get("name").and_then(Value::as_str));
                secrets.extend(users.map(|user| format!("{name}-custom-user-secret-{user}")));
                secrets.extend(with(&["-custom-user-secret"]));
                secrets
            }
            ("elasticsearch.k8s.elastic.co", "Elasticsearch") => {
                with(&["-es-elastic-user", "-es-http-certs-public", "-es-http-certs-internal"])
            }
            ("gateway.networking.k8s.io", "Gateway") => self
                .list("/spec/listeners")
                .flat_map(|listener| {
                    listener.pointer("/tls/certificateRefs").and_then(Value::as_array).into_iter().flatten()
                })
                .filter_map(|reference| reference.get("name").and_then(Value::as_str))
                .map(str::to_owned)
                .collect(),
            _ => Vec::new(),
        }
    }
}

//! What has to run: from an architecture and its rendered objects to behaviours, images, nodes, and what cannot be had.

mod externals;
mod flows;
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;
use landfall_engine::{Catalogue, Entry, NodeSpec};
use landfall_model::{Architecture, Connection, Element, Engine, Name, Store, Verb};
use landfall_standin::{
    Action, ExternalBehaviour, KafkaAccess, KafkaLogin, Server, ServiceBehaviour, find_server, kafka_image,
    server_arguments,
};
use serde_json::{Value, json};

pub(super) use self::externals::{EXTERNAL_LABEL, EXTERNAL_PORT};
pub(super) use self::flows::{Entrance, FlowPlan};

use super::place::Place;

/// The first argument with which this program becomes a stand-in.
pub(crate) const STANDIN: &str = "__standin";

/// How long a call may take that declares nothing, in milliseconds.
const CALL_TIMEOUT_MS: u64 = 5_000;

/// How long a cached value stays that declares nothing, in milliseconds.
const CACHE_MS: u64 = 60_000;

/// What has to run.
pub(super) struct Plan {
    /// The namespace of the stand-ins of externals.
    pub(super) outside: String,
    /// The rendered objects that run here.
    pub(super) objects: Vec<Value>,
    /// Objects that only a run on one machine needs.
    pub(super) additions: Vec<Value>,
    pub(super) services: Vec<ServiceBehaviour>,
    pub(super) externals: Vec<ExternalBehaviour>,
    pub(super) stores: Vec<StorePlan>,
    pub(super) edges: Vec<EdgePlan>,
    pub(super) flows: Vec<FlowPlan>,
    pub(super) images: Catalogue,
    pub(super) nodes: Vec<NodeSpec>,
    /// When it was made, in whole seconds, as the times of containers are.
    pub(super) begun: Timestamp,
    /// The stores and externals that cannot be had here, and why: everything else runs.
    pub(super) absent: BTreeMap<String, String>,
    /// What does not run, in words.
    pub(super) left_out: Vec<String>,
}

/// A store that runs.
pub(super) struct StorePlan {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) engine: Engine,
    /// What runs here, such as `PostgreSQL 15.14`.
    pub(super) server: String,
    /// What the architecture asks for, such as `17`.
    pub(super) declared: Option<String>,
    pub(super) members: usize,
    /// The custom resource that says when it is whole, if its pods alone do not.
    pub(super) resource: Option<(String, String)>,
}

/// A declared edge.
pub(super) struct EdgePlan {
    pub(super) name: String,
    /// The service or external that it begins at.
    pub(super) from: String,
    /// Why nobody performs it here.
    pub(super) missing: Option<String>,
}

/// Makes the plan. `authority` is the certificate that stand-ins trust; the stores `without` are left out.
pub(super) fn plan(
    architecture: &Architecture,
    objects: Vec<Value>,
    program: &Path,
    place: &Place,
    authority: &str,
    without: &[String],
    now: Timestamp,
) -> Plan {
    let mut plan = Plan {
        outside: format!("{}-externals", architecture.namespace()),
        objects,
        additions: Vec::new(),
        services: Vec::new(),
        externals: Vec::new(),
        stores: Vec::new(),
        edges: Vec::new(),
        flows: Vec::new(),
        images: Catalogue::default(),
        nodes: nodes(architecture),
        begun: now,
        absent: BTreeMap::new(),
        left_out: Vec::new(),
    };
    plan.add_stores(architecture, program, without);
    plan.add_externals(architecture, program, place);
    plan.add_services(architecture, program, place, authority);
    plan.add_storage_classes();
    plan.flows = flows::plan(architecture, &mut plan.services, &mut plan.externals, &plan.edges);
    plan
}

/// Every node of the file, in the zones of its pool or of the primary region in turn.
fn nodes(architecture: &Architecture) -> Vec<NodeSpec> {
    let mut nodes = Vec::new();
    for (pool, declared) in architecture.pools() {
        let zones: Vec<&Name> = match declared.zones.as_slice() {
            [] => architecture.zones().iter().map(|zone| &zone.value).collect(),
            own => own.iter().map(|zone| &zone.value).collect(),
        };
        for number in 0..declared.count.value as usize {
            let name = format!("{pool}-{}", number + 1);
            let node = NodeSpec::new(name, declared.cpu.to_string(), declared.memory.to_string());
            nodes.push(match zones.get(number % zones.len().max(1)) {
                Some(zone) => node.in_zone(zone.as_str()),
                None => node,
            });
        }
    }
    if nodes.is_empty() {
        nodes.push(NodeSpec::new("node-1", "8", "32Gi"));
    }
    nodes
}

/// The kinds that a small operator makes into a real server: with the field that names the image.
const OPERATED: &[(&str, Engine, Server, &str)] = &[
    ("Cluster", Engine::Postgres, Server::Postgres, "/spec/imageName"),
    ("RabbitmqCluster", Engine::Rabbitmq, Server::Rabbitmq, "/spec/image"),
    ("RedisCluster", Engine::Redis, Server::Redis, "/spec/kubernetesConfig/image"),
    // The operator chooses the image by the version.
    ("Kafka", Engine::Kafka, Server::Kafka, "/spec/kafka/version"),
];

/// The storage classes that an object names, in the claims of Kubernetes and in those of operators.
fn storage_classes(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let named = ["storageClassName", "storageClass"].iter().filter_map(|field| fields.get(*field)?.as_str());
            found.extend(named.map(ToOwned::to_owned));
            fields.values().for_each(|field| storage_classes(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| storage_classes(item, found)),
        _ => {}
    }
}

impl Plan {
    /// The storage classes of a cluster's provider: here each is a folder, as the engine's own class is.
    fn add_storage_classes(&mut self) {
        let mut classes = BTreeSet::new();
        self.objects.iter().for_each(|object| storage_classes(object, &mut classes));
        let rendered = |name: &String| {
            let mut objects = self.objects.iter();
            objects.any(|object| object["kind"] == "StorageClass" && object["metadata"]["name"] == *name)
        };
        classes.retain(|name| !rendered(name));
        self.additions.extend(classes.into_iter().map(|name| {
            json!({
                "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": name },
                "provisioner": "landfall.dev/folder", "volumeBindingMode": "WaitForFirstConsumer",
            })
        }));
    }

    fn add_stores(&mut self, architecture: &Architecture, program: &Path, without: &[String]) {
        for (name, store) in &architecture.document.stores {
            let engine = store.engine.value;
            let used: BTreeSet<String> = architecture
                .to(&Element::Store(name.value.clone()))
                .map(|connection| connection.from.name().to_owned())
                .collect();
            if without.iter().any(|without| without == name.as_str()) {
                self.leave_out(name.as_str(), &used, format!("store `{name}` was left out, as `--without` says"));
                continue;
            }
            let made_by = self.objects.iter().find_map(|object| {
                let (kind, _, server, image) =
                    OPERATED.iter().find(|(kind, of, ..)| object["kind"] == *kind && *of == engine)?;
                (object["metadata"]["name"] == name.as_str()).then_some((*kind, *server, *image, object))
            });
            let Some((kind, server, image, object)) = made_by else {
                self.leave_out(name.as_str(), &used, format!("not handled yet: {} store `{name}`", engine.as_str()));
                continue;
            };
            let Some(found) = find_server(server) else {
                let problem =
                    format!("store `{name}`: no {} server on this machine; try: {}", server.as_str(), server.remedy());
                self.leave_out(name.as_str(), &used, problem);
                continue;
            };
            let image = object.pointer(image).and_then(Value::as_str).unwrap_or_default();
            let image = if server == Server::Kafka { kafka_image(image) } else { image.to_owned() };
            let resource = object["apiVersion"].as_str().unwrap_or_default().to_owned();
            let arguments = server_arguments(server, &found);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            self.image(image, program, &[&["server", server.as_str()], arguments.as_slice()].concat());
            self.stores.push(StorePlan {
                name: name.to_string(),
                namespace: architecture.namespace_of(&Element::Store(name.value.clone())).to_string(),
                engine,
                server: found.version,
                declared: store.version.as_ref().map(|version| version.value.clone()),
                members: store.members.value as usize,
                resource: matches!(kind, "RedisCluster" | "Kafka").then(|| (resource, kind.to_owned())),
            });
        }
    }

    /// Takes the workloads of a store away; what uses it runs without.
    fn leave_out(&mut self, name: &str, used: &BTreeSet<String>, problem: String) {
        self.objects.retain(|object| {
            let workload = ["StatefulSet", "Deployment", "Job", "CronJob"].iter().any(|kind| object["kind"] == *kind);
            !(workload && object["metadata"]["labels"]["app.kubernetes.io/name"] == name)
        });
        let users: Vec<_> = used.iter().map(String::as_str).collect();
        self.left_out.push(match users.as_slice() {
            [] => format!("{problem}; no service uses it"),
            users => format!("{problem}; {} run without", users.join(", ")),
        });
        self.absent.insert(name.to_owned(), problem);
    }

    fn image(&mut self, image: String, program: &Path, arguments: &[&str]) {
        let mut args = vec![STANDIN.to_owned()];
        args.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self.images.images.push(Entry {
            image,
            program: Some(program.display().to_string()),
            args,
            ignore_command: true,
            ..Entry::default()
        });
    }

    fn action(&self, architecture: &Architecture, service: &str, connection: &Connection) -> Result<Action, String> {
        let edge = &connection.edge;
        let detail = connection.detail.clone().unwrap_or_default();
        let call = |address: String, server_name: Option<String>| Action::Http {
            address,
            server_name,
            path: format!("/{detail}"),
            timeout_ms: edge.timeout.as_ref().map_or(CALL_TIMEOUT_MS, |timeout| millis(timeout.value)),
            retries: edge.retries.as_ref().map_or(0, |retries| retries.value),
        };
        match &connection.to {
            Element::Client => Err("nobody calls the client".to_owned()),
            Element::Service(to) => {
                let declared = architecture.service(to.as_str()).expect("an edge leads to a service that is there");
                let (_, port) =
                    declared.port_named(edge.port.as_ref().map(|port| &port.value)).ok_or("no such port")?;
                let namespace = architecture.namespace_of(&connection.to);
                Ok(call(format!("{to}.{namespace}.svc:{}", port.service_port()), None))
            }
            Element::External(to) => {
                let external = architecture.external(to.as_str()).expect("an edge leads to an external that is there");
                let host = external.host.as_ref().map_or_else(|| to.to_string(), |host| host.value.clone());
                Ok(call(format!("{to}.{}.svc:443", self.outside), Some(host)))
            }
            Element::Store(to) => {
                let store = architecture.store(to.as_str()).expect("an edge leads to a store that is there");
                let url = || {
                    url_variable(architecture, service, to.as_str())
                        .ok_or_else(|| format!("no variable of `{service}` has the URL of `{to}`: add `env: {{ …: {{ store: {to}/url }} }}`"))
                };
                let table = || if detail.is_empty() { to.to_string() } else { detail.clone() };
                match (store.engine.value, connection.verb) {
                    (Engine::Postgres, Verb::Read | Verb::Query) => {
                        let namespace = architecture.namespace_of(&connection.to);
                        // CloudNativePG's Service of the replicas; of a single member there are none.
                        let asks_replicas = edge.from_replica.value && store.members.value > 1;
                        let replicas = asks_replicas.then(|| format!("{to}-ro.{namespace}.svc"));
                        Ok(Action::Sql { url: url()?, table: table(), writes: false, replicas })
                    }
                    (Engine::Postgres, Verb::Write | Verb::Store) => {
                        Ok(Action::Sql { url: url()?, table: table(), writes: true, replicas: None })
                    }
                    (Engine::Redis, verb @ (Verb::Read | Verb::Write | Verb::Cache)) => Ok(Action::Redis {
                        url: url()?,
                        prefix: table(),
                        keep_ms: (verb != Verb::Read)
                            .then(|| edge.ttl.as_ref().map_or(CACHE_MS, |ttl| millis(ttl.value))),
                        cluster: store.shards.is_some(),
                    }),
                    (Engine::Rabbitmq, Verb::Publish) => Ok(Action::Publish { url: url()?, exchange: detail }),
                    (Engine::Rabbitmq, Verb::Consume) => {
                        let queue = format!("{detail}.{service}");
                        Ok(Action::Consume { url: url()?, exchange: detail, queue })
                    }
                    (Engine::Kafka, Verb::Publish) => {
                        let kafka = kafka_access(architecture, service, to.as_str(), store)?;
                        Ok(Action::KafkaPublish { kafka, topic: detail })
                    }
                    (Engine::Kafka, Verb::Consume) => {
                        let kafka = kafka_access(architecture, service, to.as_str(), store)?;
                        // The rights of a service are for groups that are named after it.
                        let group = format!("{service}.{detail}");
                        Ok(Action::KafkaConsume { kafka, topic: detail, group })
                    }
                    (engine, verb) => Err(format!("not handled yet: to {verb} at a {} store", engine.as_str())),
                }
            }
        }
    }
}

/// By which variables a service finds the brokers and says who it is. Strimzi's listeners ask for users where they speak TLS.
fn kafka_access(architecture: &Architecture, service: &str, name: &str, store: &Store) -> Result<KafkaAccess, String> {
    let variable = |part: &str| {
        variable(architecture, service, &format!("{name}/{part}")).ok_or_else(|| {
            format!(
                "no variable of `{service}` has the {part} of `{name}`: add `env: {{ …: {{ store: {name}/{part} }} }}`"
            )
        })
    };
    let tls = architecture.encrypts_in_transit(store);
    let login = || Ok::<_, String>(KafkaLogin { user: variable("username")?, password: variable("password")? });
    Ok(KafkaAccess { servers: variable("address")?, login: if tls { Some(login()?) } else { None }, tls })
}

fn url_variable(architecture: &Architecture, service: &str, store: &str) -> Option<String> {
    variable(architecture, service, &format!("{store}/url"))
}

/// The variable of a service that has this part of a store.
fn variable(architecture: &Architecture, service: &str, wanted: &str) -> Option<String> {
    let environment = &architecture.service(service)?.env;
    environment.iter().find_map(|(variable, value)| {
        let from = value.store.as_ref()?;
        (from.to_string() == wanted).then(|| variable.to_string())
    })
}

/// `balance publish events/balance.changed`.
pub(super) fn edge_name(connection: &Connection) -> String {
    connection.to_string()
}

pub(super) fn millis(duration: landfall_model::Duration) -> u64 {
    std::time::Duration::from_secs_f64(duration.as_secs_f64()).as_millis().try_into().unwrap_or(u64::MAX)
}

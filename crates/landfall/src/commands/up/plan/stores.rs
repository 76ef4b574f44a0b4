//! The stores: which server of this machine runs each, and what cannot be had.

use std::collections::BTreeSet;
use std::path::Path;

use landfall_engine::Entry;
use landfall_model::{Architecture, Connection, Element, Engine, Name, Store, Verb};
use landfall_standin::{
    AT_REST, Action, Found, KafkaAccess, KafkaLogin, Server, URL_OF, find_server, kafka_image, pod_environment,
    server_arguments,
};
use serde_json::{Value, json};

use super::{Place, Plan, StorePlan, millis};

/// Where programs are looked for after ours, as the images have it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where pods that call a program by its name find ours, and this program itself.
const PROGRAMS: &str = "/opt/landfall/programs";
pub(in crate::commands::up) const PROGRAM: &str = "/opt/landfall/landfall";

/// How long a cached value stays that declares nothing, in milliseconds.
const CACHE_MS: u64 = 60_000;

/// Says to which store a pod belongs, for stores whose pods are rendered or whose operator takes over their labels.
const NAME: &str = "app.kubernetes.io/name";

/// How a rendered kind becomes a server of this machine.
struct Kind {
    name: &'static str,
    engine: Engine,
    server: Server,
    /// The field that names the image.
    image: &'static str,
    /// How the members are told from other pods, where the name of the store alone does not.
    members: fn(&str) -> Vec<(String, String)>,
    /// Whether it is whole only when its status says so.
    tells_when_whole: bool,
    /// The program that the pod calls by its name and that leads to the stand-in; its image has no entry point then.
    program: Option<&'static str>,
    /// The operator that makes its pods on a cluster; a small one stands in for it.
    operator: Option<&'static str>,
}

/// What most kinds have alike.
const OPERATED: Kind = Kind {
    name: "",
    engine: Engine::Postgres,
    server: Server::Postgres,
    image: "",
    members: |name| vec![(NAME.to_owned(), name.to_owned())],
    tells_when_whole: false,
    program: None,
    operator: None,
};

/// The image of the first container of a `StatefulSet`.
const CONTAINER: &str = "/spec/template/spec/containers/0/image";

/// All kinds that are handled.
const KINDS: &[Kind] = &[
    Kind {
        name: "Cluster",
        engine: Engine::Postgres,
        server: Server::Postgres,
        image: "/spec/imageName",
        operator: Some("CloudNativePG"),
        ..OPERATED
    },
    Kind {
        name: "RabbitmqCluster",
        engine: Engine::Rabbitmq,
        server: Server::Rabbitmq,
        image: "/spec/image",
        tells_when_whole: true,
        operator: Some("the RabbitMQ Cluster Operator"),
        ..OPERATED
    },
    Kind {
        name: "Kafka",
        engine: Engine::Kafka,
        server: Server::Kafka,
        // The operator chooses the image by the version.
        image: "/spec/kafka/version",
        tells_when_whole: true,
        operator: Some("Strimzi"),
        ..OPERATED
    },
    Kind { name: "RedisCluster", tells_when_whole: true, ..REDIS },
    Kind {
        name: "RedisReplication",
        // The Sentinels have the labels of the same store.
        members: |name| vec![pair("app", name), pair("redis_setup_type", "replication")],
        tells_when_whole: true,
        ..REDIS
    },
    Kind { name: "Redis", ..REDIS },
    Kind {
        name: "PerconaServerMongoDB",
        engine: Engine::Mongodb,
        server: Server::Mongodb,
        image: "/spec/image",
        members: |name| vec![pair("app.kubernetes.io/instance", name), pair("app.kubernetes.io/component", "mongod")],
        operator: Some("Percona's MongoDB operator"),
        ..OPERATED
    },
    Kind {
        name: "StatefulSet",
        engine: Engine::S3,
        server: Server::S3,
        image: CONTAINER,
        program: Some("weed"),
        ..OPERATED
    },
    Kind {
        name: "StatefulSet",
        engine: Engine::Mqtt,
        server: Server::Mosquitto,
        image: CONTAINER,
        program: Some("mosquitto"),
        ..OPERATED
    },
];

const REDIS: Kind = Kind {
    engine: Engine::Redis,
    server: Server::Redis,
    image: "/spec/kubernetesConfig/image",
    operator: Some("Opstree's Redis operator"),
    ..OPERATED
};

/// The server of this machine that can be a store of this engine, if any can.
pub(crate) fn server_of(engine: Engine) -> Option<Server> {
    KINDS.iter().find(|kind| kind.engine == engine).map(|kind| kind.server)
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// Where the operator of PostgreSQL puts the URL of a store: what the Secret is called after the store, and the key.
const URL: &str = "-app/uri";

/// The image of the Sentinels beside a replication.
const SENTINEL: (&str, &str) = ("RedisSentinel", "/spec/kubernetesConfig/image");

/// What an operator takes beside the resource of a store, and acts on by itself.
const OF_OPERATED: [&str; 2] = ["KafkaNodePool", "ScheduledBackup"];

impl Plan {
    pub(super) fn add_stores(
        &mut self,
        architecture: &Architecture,
        program: &Path,
        place: &Place,
        without: &[String],
    ) {
        for (name, store) in &architecture.document.stores {
            if self.is_left_out(name.as_str()) {
                continue;
            }
            let engine = store.engine.value;
            let made_by = self.objects.iter().find_map(|object| {
                let kind = KINDS.iter().find(|kind| object["kind"] == kind.name && kind.engine == engine)?;
                (object["metadata"]["name"] == name.as_str()).then_some((kind, object))
            });
            let used: BTreeSet<String> = architecture
                .to(&Element::Store(name.value.clone()))
                .map(|connection| connection.from.name().to_owned())
                .collect();
            if without.iter().any(|without| without == name.as_str()) {
                self.leave_out(name.as_str(), &used, format!("store `{name}` was left out, as `--without` says"));
                continue;
            }
            let Some((kind, object)) = made_by else {
                let problem = if store.provider.value.is_managed() {
                    format!("{} store `{name}` of a cloud, which is not here", engine.as_str())
                } else {
                    format!("not handled yet: {} store `{name}`", engine.as_str())
                };
                self.leave_out(name.as_str(), &used, problem);
                continue;
            };
            let server = kind.server;
            let Some(found) = find_server(server) else {
                let problem =
                    format!("store `{name}`: no {} server on this machine; try: {}", server.as_str(), server.remedy());
                self.leave_out(name.as_str(), &used, problem);
                continue;
            };
            let image = object.pointer(kind.image).and_then(Value::as_str).unwrap_or_default();
            let image = if server == Server::Kafka { kafka_image(image) } else { image.to_owned() };
            let version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
            match kind.program {
                Some(called) => self.called(called, server, image, program, place),
                None => self.server(image, program, server, &found),
            }
            let sentinel = self.objects.iter().find(|object| {
                engine == Engine::Redis && object["kind"] == SENTINEL.0 && object["metadata"]["name"] == name.as_str()
            });
            let image = sentinel.and_then(|object| object.pointer(SENTINEL.1)?.as_str()).map(ToOwned::to_owned);
            if let Some(image) = image {
                self.server(image, program, server, &found);
            }
            if let Some(differs) = server.differs() {
                self.left_out.push(format!("store `{name}` is {}: {differs}", found.version));
            }
            self.stores.push(StorePlan {
                name: name.to_string(),
                namespace: architecture.namespace_of(&Element::Store(name.value.clone())).to_string(),
                engine,
                server: found.version,
                declared: store.version.as_ref().map(|version| version.value.clone()),
                members: store.members.value as usize,
                labels: (kind.members)(name.as_str()),
                resource: kind.tells_when_whole.then(|| (version, kind.name.to_owned())),
                operator: kind.operator,
            });
        }
    }

    /// An image whose entry point becomes a server. Its pods see this program where every account may start it.
    pub(super) fn server(&mut self, image: String, program: &Path, server: Server, found: &Found) {
        let arguments = server_arguments(server, found);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let arguments = [&["server", server.as_str()], arguments.as_slice()].concat();
        self.image(image, Path::new(PROGRAM), &arguments);
        let Some(entry) = self.images.images.last_mut() else { return };
        entry.files.insert(PROGRAM.into(), program.to_owned());
        entry.stop_signal = server.stop_signal().map(ToOwned::to_owned);
        // Operators have it run commands such as `redis-cli`.
        entry.env.extend(pod_environment(PATH));
    }

    /// Has made up what no back end of this machine has: the credentials of stores, and their URLs in other secrets. Of all stores, so
    /// that one that is left out has the same when it comes back; to be done before anything is left out.
    pub(super) fn add_credentials(&mut self, architecture: &Architecture) {
        for (name, store) in &architecture.document.stores {
            let made_up = self.credentials(name.as_str());
            self.additions.extend(made_up);
            let is_made = |object: &Value| object["kind"] == "Cluster" && object["metadata"]["name"] == name.as_str();
            if store.engine.value == Engine::Postgres && self.objects.iter().any(is_made) {
                self.fill_urls(architecture, name);
            }
        }
    }

    /// Tells the stand-in for the back end of secrets which secrets have the URL of a store.
    fn fill_urls(&mut self, architecture: &Architecture, store: &Name) {
        for service in architecture.document.services.keys() {
            let Some((_, secret)) = secret_url(architecture, service.as_str(), store) else { continue };
            let is_it =
                |object: &&mut Value| object["kind"] == "ExternalSecret" && object["metadata"]["name"] == secret;
            for object in self.objects.iter_mut().filter(is_it) {
                object["metadata"]["annotations"][URL_OF] = json!(format!("{store}{URL}"));
            }
        }
    }

    /// The Secrets with the credentials of a store, one for each namespace that asks for it, where the file names no back end that
    /// has them and a person would put them there: the values are made up as those of a back end are.
    fn credentials(&self, store: &str) -> Vec<Value> {
        let wanted = format!("{store}-credentials");
        let is_rendered = |object: &Value| {
            ["Secret", "ExternalSecret"].iter().any(|kind| object["kind"] == *kind)
                && object["metadata"]["name"] == wanted
        };
        if self.objects.iter().any(is_rendered) {
            return Vec::new();
        }
        let (mut keys, mut namespaces) = (BTreeSet::new(), BTreeSet::new());
        for object in &self.objects {
            let mut own = BTreeSet::new();
            collect_keys(object, &wanted, &mut own);
            if !own.is_empty() {
                namespaces.extend(object["metadata"]["namespace"].as_str());
            }
            keys.extend(own);
        }
        // What has one name there is the same in every namespace.
        let data = keys.iter().map(|key| json!({ "secretKey": key, "remoteRef": { "key": wanted, "property": key } }));
        let data: Vec<_> = data.collect();
        let secret = |namespace: &str| {
            json!({
                "apiVersion": "external-secrets.io/v1",
                "kind": "ExternalSecret",
                "metadata": { "name": wanted, "namespace": namespace },
                "spec": { "target": { "name": wanted }, "data": data },
            })
        };
        namespaces.into_iter().map(secret).collect()
    }

    /// The absent store whose URL an object waits for to make a Secret of.
    pub(super) fn waits_for<'a>(&self, object: &'a Value) -> Option<&'a str> {
        let store = object["metadata"]["annotations"][URL_OF].as_str()?.strip_suffix(URL)?;
        self.absent.contains_key(store).then_some(store)
    }

    /// An image whose pods call a program by its name: they run the rendered commands, and find ours first. Where these are
    /// on this machine they may have a folder of their own, such as `/tmp`.
    fn called(&mut self, called: &'static str, server: Server, image: String, program: &Path, place: &Place) {
        let files = [(PROGRAMS, place.programs()), (PROGRAM, program.to_owned())];
        let files = files.map(|(target, source)| (target.into(), source)).into();
        let env = pod_environment(&format!("{PROGRAMS}:{PATH}"));
        self.images.images.push(Entry { image, env, files, ..Entry::default() });
        self.programs.insert(called, server);
    }

    /// Takes the workloads of a store away. What an operator would make pods of stays and is at rest, as the volumes and passwords
    /// end with it.
    pub(super) fn put_to_rest(&mut self, name: &str) {
        let is_own = |object: &Value| object["metadata"]["labels"][NAME] == name;
        self.objects.retain(|object| {
            let workload = ["StatefulSet", "Deployment", "Job", "CronJob"].iter().any(|kind| object["kind"] == *kind);
            !(workload && is_own(object))
        });
        let operated = KINDS.iter().filter(|kind| kind.operator.is_some()).map(|kind| kind.name);
        let operated: BTreeSet<&str> = operated.chain([SENTINEL.0]).chain(OF_OPERATED).collect();
        let rests =
            |object: &&mut Value| object["kind"].as_str().is_some_and(|kind| operated.contains(kind)) && is_own(object);
        for object in self.objects.iter_mut().filter(rests) {
            object["metadata"]["annotations"][AT_REST] = json!("true");
        }
    }

    /// Puts a store to rest; what uses it runs without.
    fn leave_out(&mut self, name: &str, used: &BTreeSet<String>, problem: String) {
        self.put_to_rest(name);
        let users: Vec<_> = used.iter().map(String::as_str).collect();
        self.left_out.push(match users.as_slice() {
            [] => format!("{problem}; no service uses it"),
            users => format!("{problem}; {} run without", users.join(", ")),
        });
        self.absent.insert(name.to_owned(), problem);
    }

    /// How a service uses a store.
    pub(super) fn store_action(
        architecture: &Architecture,
        service: &str,
        to: &Name,
        connection: &Connection,
    ) -> Result<Action, String> {
        let edge = &connection.edge;
        let detail = connection.detail.clone().unwrap_or_default();
        let store = architecture.store(to.as_str()).expect("an edge leads to a store that is there");
        let variable = |what: &str| {
            variable(architecture, service, to.as_str(), what).ok_or_else(|| {
                format!(
                    "no variable of `{service}` has the {what} of `{to}`: add `env: {{ …: {{ store: {to}/{what} }} }}`"
                )
            })
        };
        // A URL that a person keeps in a secret is not known to the file: it is filled in when the secret is made up.
        let url = || {
            variable("url")
                .or_else(|missing| secret_url(architecture, service, to).map_or(Err(missing), |(name, _)| Ok(name)))
        };
        let table = || if detail.is_empty() { to.to_string() } else { detail.clone() };
        match (store.engine.value, connection.verb) {
            (Engine::Postgres, Verb::Read | Verb::Query) => {
                let namespace = architecture.namespace_of(&connection.to);
                // The name of the operator's service for replicas; with one member there is nobody behind it.
                let asked = edge.from_replica.value && store.members.value > 1;
                let replicas = asked.then(|| format!("{to}-ro.{namespace}.svc"));
                Ok(Action::Sql { url: url()?, table: table(), writes: false, replicas })
            }
            (Engine::Postgres, Verb::Write | Verb::Store) => {
                Ok(Action::Sql { url: url()?, table: table(), writes: true, replicas: None })
            }
            (Engine::Redis, verb @ (Verb::Read | Verb::Write | Verb::Cache)) => Ok(Action::Redis {
                url: url()?,
                prefix: table(),
                keep_ms: (verb != Verb::Read).then(|| edge.ttl.as_ref().map_or(CACHE_MS, |ttl| millis(ttl.value))),
                cluster: store.shards.is_some(),
            }),
            (Engine::Rabbitmq, Verb::Publish) => Ok(Action::Publish { url: url()?, exchange: detail }),
            (Engine::Rabbitmq, Verb::Consume) => {
                // As the queues are rendered: one for each who consumes, or the topic's own while nobody else does.
                let consumes = |edge: &&Connection| edge.verb == Verb::Consume && edge.detail == connection.detail;
                let others = architecture.to(&connection.to).filter(consumes);
                let alone = others.map(|edge| edge.from.name()).all(|from| from == service);
                let queue = if alone { detail.clone() } else { format!("{detail}.{service}") };
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
            (Engine::Mongodb, verb @ (Verb::Read | Verb::Query | Verb::Write | Verb::Store)) => Ok(Action::Document {
                url: url()?,
                collection: table(),
                writes: matches!(verb, Verb::Write | Verb::Store),
                direct: Server::Mongodb.differs().is_some(),
            }),
            (Engine::S3, verb @ (Verb::Read | Verb::Query | Verb::Write | Verb::Store)) => Ok(Action::Object {
                address: variable("address")?,
                access_key: variable("username")?,
                secret_key: variable("password")?,
                encrypted: architecture.encrypts_in_transit(store),
                bucket: table(),
                puts: matches!(verb, Verb::Write | Verb::Store),
            }),
            (Engine::Mqtt, Verb::Publish) => Ok(Action::MqttPublish { url: url()?, topic: detail }),
            (Engine::Mqtt, Verb::Consume) => Ok(Action::MqttSubscribe { url: url()?, topic: detail }),
            (engine, verb) => Err(format!("not handled yet: to {verb} at a {} store", engine.as_str())),
        }
    }
}

/// The environment variable that can only be the URL of this store: it is the key `url` of a declared secret, and the service
/// uses one store of which no variable says anything. With the secret.
fn secret_url(architecture: &Architecture, service: &str, store: &Name) -> Option<(String, String)> {
    let declared = architecture.service(service)?;
    let element = architecture.element(service)?;
    let told = |name: &str| {
        let mut stores = declared.env.values().filter_map(|value| value.store.as_ref());
        stores.any(|from| from.to_string().split('/').next() == Some(name))
    };
    let silent: BTreeSet<&str> = architecture
        .from(&element)
        .filter(|connection| matches!(connection.to, Element::Store(_)) && !told(connection.to.name()))
        .map(|connection| connection.to.name())
        .collect();
    if silent.iter().copied().ne([store.as_str()]) {
        return None;
    }
    let mut urls = declared.env.iter().filter_map(|(variable, value)| {
        let secret = value.secret.as_ref()?.to_string();
        Some((variable.to_string(), secret.strip_suffix("/url")?.to_owned()))
    });
    urls.next().filter(|_| urls.next().is_none())
}

/// The keys of a Secret that an object refers to.
fn collect_keys(value: &Value, secret: &str, keys: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_keys(item, secret, keys)),
        Value::Object(fields) => {
            if fields.get("name").and_then(Value::as_str) == Some(secret)
                && let Some(key) = fields.get("key").and_then(Value::as_str)
            {
                keys.insert(key.to_owned());
            }
            fields.values().for_each(|field| collect_keys(field, secret, keys));
        }
        _ => {}
    }
}

/// By which variables a service finds the brokers and says who it is. Strimzi's listeners ask for users where they speak TLS.
fn kafka_access(architecture: &Architecture, service: &str, name: &str, store: &Store) -> Result<KafkaAccess, String> {
    let variable = |part: &str| {
        self::variable(architecture, service, name, part).ok_or_else(|| {
            format!(
                "no variable of `{service}` has the {part} of `{name}`: add `env: {{ …: {{ store: {name}/{part} }} }}`"
            )
        })
    };
    let tls = architecture.encrypts_in_transit(store);
    let login = || Ok::<_, String>(KafkaLogin { user: variable("username")?, password: variable("password")? });
    Ok(KafkaAccess { servers: variable("address")?, login: if tls { Some(login()?) } else { None }, tls })
}

/// The environment variable of a service that has this of a store: `url`, `address`, `username` or `password`.
fn variable(architecture: &Architecture, service: &str, store: &str, what: &str) -> Option<String> {
    let wanted = format!("{store}/{what}");
    let environment = &architecture.service(service)?.env;
    environment.iter().find_map(|(variable, value)| {
        let from = value.store.as_ref()?;
        (from.to_string() == wanted).then(|| variable.to_string())
    })
}

//! How a store is reached: by its clients, its own members, its operator and the monitoring.
//!
//! Environment variables and network policies are made from this; what is rendered for a store has to agree with it,
//! and the tests of the stores compare the two.

use std::collections::BTreeMap;

use landfall_model::{Architecture, Element, Engine, Name, Region, Store, StoreProvider};

/// How a store is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kubernetes) struct StoreAccess {
    /// The DNS name; good in every namespace of the cluster.
    pub(in crate::kubernetes) host: String,
    /// The port on which it takes clients.
    pub(in crate::kubernetes) port: u16,
    /// Whether clients must use TLS.
    pub(in crate::kubernetes) tls: bool,
    /// Where it runs.
    pub(in crate::kubernetes) place: Place,
    url: UrlParts,
    credentials: CredentialSource,
}

/// Where a store runs, as network policies see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kubernetes) enum Place {
    /// Pods of this cluster.
    Pods(Pods),
    /// Outside the cluster, by address: a managed service.
    Outside,
}

/// The pods of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kubernetes) struct Pods {
    /// Their namespace.
    pub(in crate::kubernetes) namespace: Name,
    /// The labels that select them, and nothing else in the namespace.
    pub(in crate::kubernetes) match_labels: BTreeMap<String, String>,
    /// The ports on which the members talk to each other, the client port included where they use it.
    pub(in crate::kubernetes) member_ports: Vec<u16>,
    /// The port with metrics, if it has one.
    pub(in crate::kubernetes) metrics_port: Option<u16>,
    /// Who operates them, if an operator does.
    pub(in crate::kubernetes) operator: Option<Operator>,
}

/// An operator, in the namespace in which it is expected to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kubernetes) struct Operator {
    /// Its namespace.
    pub(in crate::kubernetes) namespace: &'static str,
    /// The ports of the store's pods that it connects to.
    pub(in crate::kubernetes) ports: &'static [u16],
    /// Whether the pods of the store talk to the API server themselves.
    pub(in crate::kubernetes) calls_api_server: bool,
}

/// Who a client is to the store. The values are in a Secret of the store's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kubernetes) struct Credentials {
    /// The Secret.
    pub(in crate::kubernetes) secret: String,
    /// The name of the user.
    pub(in crate::kubernetes) username: Username,
    /// The key of the password in the Secret.
    pub(in crate::kubernetes) password_key: String,
}

/// The name of a user of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kubernetes) enum Username {
    /// In the Secret, under this key.
    Key(&'static str),
    /// Known: this one.
    Known(String),
}

/// Where the credentials of clients come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum CredentialSource {
    /// Anybody who reaches the store may use it.
    None,
    /// All clients share a user.
    Shared(Credentials),
    /// Each client has a user of its own; the Secret has the user's name.
    PerClient { store: String },
}

/// What a URL has besides the user and the address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct UrlParts {
    scheme: &'static str,
    user: UrlUser,
    rest: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UrlUser {
    Absent,
    PasswordOnly,
    NameAndPassword,
}

/// The keys of a credentials Secret; CloudNativePG and the RabbitMQ operator call them so too.
pub(super) const USERNAME_KEY: &str = "username";
pub(super) const PASSWORD_KEY: &str = "password";

/// The keys of the credentials of an object store: backup tools and SDKs read them under these names.
pub(super) const ACCESS_KEY: &str = "AWS_ACCESS_KEY_ID";
pub(super) const SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";

impl StoreAccess {
    /// The user as which `client`, a service, comes; `None` where the store asks for none.
    pub(in crate::kubernetes) fn credentials(&self, client: &str) -> Option<Credentials> {
        match &self.credentials {
            CredentialSource::None => None,
            CredentialSource::Shared(credentials) => Some(credentials.clone()),
            CredentialSource::PerClient { store } => {
                let user = client_user(store, client);
                Some(Credentials {
                    secret: user.clone(),
                    username: Username::Known(user),
                    password_key: PASSWORD_KEY.to_owned(),
                })
            }
        }
    }

    /// The address: `ledger-rw.composerp.svc:5432`.
    pub(in crate::kubernetes) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The URL for a user; `username` and `password` may be references such as `$(LEDGER_PASSWORD)`.
    pub(in crate::kubernetes) fn url(&self, username: &str, password: &str) -> String {
        let UrlParts { scheme, user, rest } = &self.url;
        let user = match user {
            UrlUser::Absent => String::new(),
            UrlUser::PasswordOnly => format!(":{password}@"),
            UrlUser::NameAndPassword => format!("{username}:{password}@"),
        };
        format!("{scheme}://{user}{}{rest}", self.address())
    }
}

/// The user of a broker that gives each client its own.
pub(super) fn client_user(store: &str, client: &str) -> String {
    format!("{store}-{client}")
}

/// The Secret with the credentials of a store that makes none itself.
pub(super) fn credentials_secret(store: &str) -> String {
    format!("{store}-credentials")
}

/// The database that a store has for the platform: the store's name as SQL and MongoDB take it without quotes.
pub(super) fn database(store: &str) -> String {
    store.replace('-', "_")
}

/// How the store `name` is reached; `None` for a store that is not there.
pub(in crate::kubernetes) fn access(architecture: &Architecture, name: &str) -> Option<StoreAccess> {
    let store = architecture.store(name)?;
    let namespace = architecture.namespace_of(&Element::Store(name.parse().ok()?)).clone();
    let tls = architecture.encrypts_in_transit(store);
    let in_cluster = |service: &str| format!("{service}.{namespace}.svc");
    let place = place(architecture, name, store, namespace.clone());
    let (host, credentials) = match store.provider.value {
        // No operator is asked for what a plain StatefulSet of one program does as well.
        StoreProvider::Operator if !has_operator(store.engine.value) => {
            (in_cluster(name), of_statefulset(name, store.engine.value))
        }
        StoreProvider::Operator => {
            let (service, credentials) = of_operator(name, store, tls);
            (in_cluster(&service), credentials)
        }
        StoreProvider::Statefulset => (in_cluster(name), of_statefulset(name, store.engine.value)),
        StoreProvider::Aws | StoreProvider::Azure | StoreProvider::Gcp => {
            let host = provider_endpoint(architecture, store).unwrap_or_else(|| in_cluster(name));
            (host, CredentialSource::Shared(asked_for(name, store.engine.value)))
        }
    };
    // An object store of a provider is only ever reached over HTTPS.
    let public_s3 = store.provider.value.is_managed() && store.engine.value == Engine::S3;
    let port = if public_s3 { 443 } else { architecture.store_port(store) };
    let tls = tls || public_s3;
    let url = url(name, store, tls, &credentials);
    Some(StoreAccess { host, port, tls, place, url, credentials })
}

/// The Service and the credentials that an operator makes.
fn of_operator(name: &str, store: &Store, tls: bool) -> (String, CredentialSource) {
    let made = |secret: String| {
        CredentialSource::Shared(Credentials {
            secret,
            username: Username::Key(USERNAME_KEY),
            password_key: PASSWORD_KEY.to_owned(),
        })
    };
    match store.engine.value {
        Engine::Postgres => (format!("{name}-rw"), made(format!("{name}-app"))),
        // Strimzi gives every user a Secret of the user's name.
        Engine::Kafka if tls => {
            (format!("{name}-kafka-bootstrap"), CredentialSource::PerClient { store: name.to_owned() })
        }
        Engine::Kafka => (format!("{name}-kafka-bootstrap"), CredentialSource::None),
        Engine::Rabbitmq => (name.to_owned(), made(format!("{name}-default-user"))),
        // The operator makes a password for each declared user, under the user's name.
        Engine::Mongodb => (
            format!("{name}-rs0"),
            CredentialSource::Shared(Credentials {
                secret: format!("{name}-custom-user-secret"),
                username: Username::Known(name.to_owned()),
                password_key: name.to_owned(),
            }),
        ),
        Engine::Redis => {
            let service = match store.shards {
                Some(_) => format!("{name}-leader"),
                None if store.members.value > 1 => format!("{name}-master"),
                None => name.to_owned(),
            };
            (service, CredentialSource::Shared(asked_for(name, Engine::Redis)))
        }
        Engine::Elasticsearch => (
            format!("{name}-es-http"),
            CredentialSource::Shared(Credentials {
                secret: format!("{name}-es-elastic-user"),
                username: Username::Known("elastic".to_owned()),
                password_key: "elastic".to_owned(),
            }),
        ),
        Engine::S3 | Engine::Mqtt => (name.to_owned(), of_statefulset(name, store.engine.value)),
    }
}

/// Whether an operator runs the engine. SeaweedFS and Mosquitto are plain `StatefulSets` whoever is asked for.
pub(super) fn has_operator(engine: Engine) -> bool {
    !matches!(engine, Engine::S3 | Engine::Mqtt)
}

fn of_statefulset(name: &str, engine: Engine) -> CredentialSource {
    match engine {
        Engine::Kafka => CredentialSource::None,
        Engine::Elasticsearch => CredentialSource::Shared(Credentials {
            username: Username::Known("elastic".to_owned()),
            ..asked_for(name, engine)
        }),
        Engine::Postgres | Engine::Mongodb | Engine::Redis | Engine::Rabbitmq | Engine::S3 | Engine::Mqtt => {
            CredentialSource::Shared(asked_for(name, engine))
        }
    }
}

/// The credentials of a store that makes none itself: somebody puts the Secret there, or a secret back end does.
fn asked_for(store: &str, engine: Engine) -> Credentials {
    let (username, password) =
        if engine == Engine::S3 { (ACCESS_KEY, SECRET_KEY) } else { (USERNAME_KEY, PASSWORD_KEY) };
    Credentials {
        secret: credentials_secret(store),
        username: Username::Key(username),
        password_key: password.to_owned(),
    }
}

/// The public endpoint of a provider's object store. A provider's certificates name it, so that it cannot be reached
/// by a name of the cluster.
pub(super) fn provider_endpoint(architecture: &Architecture, store: &Store) -> Option<String> {
    if store.engine.value != Engine::S3 {
        return None;
    }
    match store.provider.value {
        StoreProvider::Aws => {
            let location = region(architecture, store)?.location.as_ref()?;
            Some(format!("s3.{location}.amazonaws.com"))
        }
        StoreProvider::Gcp => Some("storage.googleapis.com".to_owned()),
        StoreProvider::Azure | StoreProvider::Operator | StoreProvider::Statefulset => None,
    }
}

/// The region in which a store stands.
pub(super) fn region<'a>(architecture: &'a Architecture, store: &Store) -> Option<&'a Region> {
    match &store.region {
        Some(name) => architecture.document.platform.regions.get(name.as_str()),
        None => architecture.primary_region().map(|(_, region)| region),
    }
}

fn url(name: &str, store: &Store, tls: bool, credentials: &CredentialSource) -> UrlParts {
    let database = database(name);
    let with_tls = |plain, encrypted| if tls { encrypted } else { plain };
    let anonymous = *credentials == CredentialSource::None;
    let (scheme, user, rest) = match store.engine.value {
        Engine::Postgres => {
            let mode = with_tls("", "?sslmode=require");
            ("postgresql", UrlUser::NameAndPassword, format!("/{database}{mode}"))
        }
        Engine::Mongodb => {
            let mode = with_tls("", "&tls=true");
            let set = if store.provider.value.is_managed() { "" } else { "&replicaSet=rs0" };
            ("mongodb", UrlUser::NameAndPassword, format!("/{database}?authSource=admin{set}{mode}"))
        }
        Engine::Redis => (with_tls("redis", "rediss"), UrlUser::PasswordOnly, "/0".to_owned()),
        // A path of `/` would name a virtual host without a name; none at all is the default one
        // (https://www.rabbitmq.com/docs/uri-spec).
        Engine::Rabbitmq => (with_tls("amqp", "amqps"), UrlUser::NameAndPassword, String::new()),
        Engine::Mqtt => (with_tls("mqtt", "mqtts"), UrlUser::NameAndPassword, String::new()),
        // Kafka clients know no URL: the scheme only says what is spoken, and the user comes by SASL.
        Engine::Kafka => ("kafka", UrlUser::Absent, String::new()),
        // The keys of an object store sign requests; they are not part of an address.
        Engine::S3 => (with_tls("http", "https"), UrlUser::Absent, String::new()),
        Engine::Elasticsearch => (with_tls("http", "https"), UrlUser::NameAndPassword, String::new()),
    };
    UrlParts { scheme, user: if anonymous { UrlUser::Absent } else { user }, rest }
}

fn place(architecture: &Architecture, name: &str, store: &Store, namespace: Name) -> Place {
    if store.provider.value.is_managed() {
        return Place::Outside;
    }
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let platform = architecture.document.name.as_str();
    let ours = || labels(&[("app.kubernetes.io/name", name), ("app.kubernetes.io/part-of", platform)]);
    let by_operator = store.provider.value == StoreProvider::Operator;
    let (match_labels, operator) = match store.engine.value {
        Engine::Postgres if by_operator => (
            // Without the role: the jobs that make and join members need the same doors.
            labels(&[("cnpg.io/cluster", name)]),
            Some(Operator { namespace: "cnpg-system", ports: &[8000, 5432], calls_api_server: true }),
        ),
        Engine::Kafka if by_operator => (
            // Without the part: the operators of topics and users stand beside the brokers.
            labels(&[("strimzi.io/cluster", name)]),
            Some(Operator { namespace: "strimzi", ports: &[8443, 9090, 9091], calls_api_server: true }),
        ),
        Engine::Rabbitmq if by_operator => (
            labels(&[("app.kubernetes.io/name", name), ("app.kubernetes.io/component", "rabbitmq")]),
            Some(Operator { namespace: "rabbitmq-system", ports: &[15672, 15671], calls_api_server: true }),
        ),
        Engine::Mongodb if by_operator => (
            labels(&[("app.kubernetes.io/instance", name), ("app.kubernetes.io/component", "mongod")]),
            Some(Operator { namespace: "psmdb-operator", ports: &[27017], calls_api_server: true }),
        ),
        Engine::Redis if by_operator => {
            (ours(), Some(Operator { namespace: "ot-operators", ports: &[6379, 26379], calls_api_server: false }))
        }
        Engine::Elasticsearch if by_operator => (
            labels(&[("elasticsearch.k8s.elastic.co/cluster-name", name)]),
            Some(Operator { namespace: "elastic-system", ports: &[9200], calls_api_server: false }),
        ),
        Engine::Postgres
        | Engine::Mongodb
        | Engine::Redis
        | Engine::Kafka
        | Engine::Rabbitmq
        | Engine::S3
        | Engine::Mqtt
        | Engine::Elasticsearch => (ours(), None),
    };
    Place::Pods(Pods {
        namespace,
        match_labels,
        member_ports: member_ports(store),
        metrics_port: metrics_port(store, architecture.encrypts_in_transit(store)),
        operator,
    })
}

/// The ports on which the members of a store talk to each other; none for a store of one.
fn member_ports(store: &Store) -> Vec<u16> {
    let by_operator = store.provider.value == StoreProvider::Operator;
    let alone = store.members.value == 1 && store.shards.is_none();
    match store.engine.value {
        _ if alone => Vec::new(),
        Engine::Postgres if by_operator => vec![5432, 8000],
        Engine::Postgres => vec![5432],
        Engine::Mongodb => vec![27017],
        // The second port is the cluster bus of a sharded cache.
        Engine::Redis if store.shards.is_some() => vec![6379, 16379],
        // The second port is Sentinel's, which the operator runs beside the members.
        Engine::Redis if by_operator => vec![6379, 26379],
        Engine::Redis => vec![6379],
        // Strimzi: control plane and replication listeners. Plain: controller and replication listeners.
        Engine::Kafka if by_operator => vec![9090, 9091],
        Engine::Kafka => vec![9090, 9091],
        // The port mapper of Erlang and the links between nodes.
        Engine::Rabbitmq => vec![4369, 25672],
        // Master, volume server and filer, each with its gRPC port ten thousand above.
        Engine::S3 => vec![8080, 8888, 9333, 18080, 18888, 19333],
        Engine::Mqtt => Vec::new(),
        Engine::Elasticsearch => vec![9300],
    }
}

/// The port on which a store serves metrics to Prometheus; `None` where it needs an exporter that is not rendered.
fn metrics_port(store: &Store, tls: bool) -> Option<u16> {
    let by_operator = match store.provider.value {
        StoreProvider::Operator => true,
        StoreProvider::Statefulset => false,
        StoreProvider::Aws | StoreProvider::Azure | StoreProvider::Gcp => return None,
    };
    match store.engine.value {
        Engine::Postgres if by_operator => Some(9187),
        Engine::Kafka if by_operator => Some(9404),
        // The operator closes the plain port together with those of the clients.
        Engine::Rabbitmq if by_operator && tls => Some(15691),
        Engine::Rabbitmq => Some(15692),
        Engine::S3 => Some(9327),
        Engine::Postgres | Engine::Kafka | Engine::Mongodb | Engine::Redis | Engine::Mqtt | Engine::Elasticsearch => {
            None
        }
    }
}

//! Stores: databases, caches, brokers and buckets.
//!
//! Each store becomes the custom resource of its engine's operator, a plain `StatefulSet`, or, where a provider runs
//! it, the name by which the platform reaches it. One file per engine; what they share (placement, volumes, backups,
//! the plain `StatefulSet`) stands in files of its own, as methods of [`Site`].

mod access;
mod alert;
mod backup;
mod certificate;
mod elasticsearch;
mod images;
mod kafka;
mod limits;
mod managed;
mod metrics;
mod mongodb;
mod mqtt;
mod placement;
mod postgres;
mod rabbitmq;
mod redis;
mod s3;
mod statefulset;
mod topics;
mod volume;

use std::collections::BTreeSet;

use crate::json::json;
use landfall_model::{Architecture, Element, Engine, Name, Spanned, Store, StoreProvider};
use serde_json::Value;

pub(super) use access::{Credentials, Place, StoreAccess, Username, access};
pub(super) use alert::Alert;
pub(super) use certificate::authority;
pub(super) use limits::findings;
pub(crate) use managed::private_zone;
pub(super) use metrics::{monitoring, watched};

use super::metadata::Subject;
use super::pod;
use crate::object::Object;

/// One store with all that its objects are made from.
struct Site<'a> {
    architecture: &'a Architecture,
    key: &'a Spanned<Name>,
    store: &'a Store,
    subject: Subject<'a>,
    access: StoreAccess,
}

/// What a store needs in a Secret that no operator makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NeededSecret {
    /// The Secret.
    pub(super) name: String,
    /// Its keys.
    pub(super) keys: Vec<String>,
    /// Those whose pods read it: the store itself, its clients, and what backs up to it.
    pub(super) readers: Vec<Element>,
}

/// The objects of every store.
pub(super) fn objects(architecture: &Architecture) -> Vec<Object> {
    sites(architecture).flat_map(|site| site.objects()).collect()
}

/// The Secrets that somebody, or a secret back end, has to provide for the stores.
pub(super) fn needed_secrets(architecture: &Architecture) -> Vec<NeededSecret> {
    sites(architecture).filter_map(|site| site.needed_secret()).collect()
}

/// The namespaces in which a store asks the platform's own authority for a certificate.
pub(super) fn namespaces_with_certificates(architecture: &Architecture) -> BTreeSet<Name> {
    let asking = sites(architecture).filter(Site::has_own_certificate);
    asking.map(|site| architecture.namespace_of(&site.element()).clone()).collect()
}

fn sites(architecture: &Architecture) -> impl Iterator<Item = Site<'_>> {
    architecture.document.stores.iter().map(|(key, store)| Site {
        architecture,
        key,
        store,
        subject: Subject::store(architecture, key, store),
        access: access(architecture, key.as_str()).expect("the store is declared"),
    })
}

impl Site<'_> {
    fn objects(&self) -> Vec<Object> {
        let plain = self.is_plain();
        let mut objects = match self.store.engine.value {
            _ if self.store.provider.value.is_managed() => managed::objects(self),
            Engine::Postgres if plain => postgres::statefulset(self),
            Engine::Postgres => postgres::cluster(self),
            Engine::Kafka if plain => kafka::statefulset(self),
            Engine::Kafka => kafka::cluster(self),
            Engine::Rabbitmq if plain => rabbitmq::statefulset(self),
            Engine::Rabbitmq => rabbitmq::cluster(self),
            Engine::Mongodb if plain => mongodb::statefulset(self),
            Engine::Mongodb => mongodb::cluster(self),
            Engine::Redis if plain => redis::statefulset(self),
            Engine::Redis => redis::cluster(self),
            Engine::Elasticsearch if plain => elasticsearch::statefulset(self),
            Engine::Elasticsearch => elasticsearch::cluster(self),
            Engine::S3 => s3::statefulset(self),
            Engine::Mqtt => mqtt::statefulset(self),
        };
        if self.has_own_certificate() {
            objects.push(self.certificate());
        }
        objects
    }

    fn name(&self) -> &str {
        self.key.as_str()
    }

    fn platform(&self) -> &str {
        self.architecture.document.name.as_str()
    }

    fn element(&self) -> Element {
        Element::Store(self.key.value.clone())
    }

    fn members(&self) -> u32 {
        self.store.members.value
    }

    /// Whether it runs as a plain `StatefulSet`, asked for or because the engine has no operator.
    fn is_plain(&self) -> bool {
        let provider = self.store.provider.value;
        provider == StoreProvider::Statefulset
            || (provider == StoreProvider::Operator && !access::has_operator(self.store.engine.value))
    }

    /// The headless Service by whose names the members of a `StatefulSet` find each other.
    fn members_service(&self) -> String {
        format!("{}-members", self.name())
    }

    /// The full names of the members of a `StatefulSet`.
    fn member_hosts(&self) -> Vec<String> {
        let service = self.members_service();
        let namespace = self.subject.namespace;
        (0..self.members()).map(|n| format!("{}-{n}.{service}.{namespace}.svc.cluster.local", self.name())).collect()
    }

    /// The labels of its pods.
    ///
    /// They keep out of the mesh: an operator outside of it has to reach them, jobs with a sidecar never end, and a
    /// store has TLS of its own. Istio's clients find out by themselves that nobody decrypts at the other end.
    fn pod_labels(&self) -> Value {
        let mut labels = self.subject.labels();
        if self.architecture.document.platform.mesh.is_some() {
            labels["sidecar.istio.io/inject"] = json!("false");
        }
        labels
    }

    /// `metadata` of a resource whose labels its operator puts on the pods.
    fn metadata_of_pods(&self) -> Value {
        let mut metadata = self.subject.metadata(self.name());
        metadata["labels"] = self.pod_labels();
        metadata
    }

    fn resources(&self) -> Value {
        pod::resources(&self.store.resources)
    }

    /// An object of this store; its file is called after its kind, and after its name where that is another.
    fn object(&self, file: &str, value: Value) -> Object {
        self.subject.object(file, value)
    }

    /// The credentials of a store whose clients share a user.
    fn credentials(&self) -> Credentials {
        self.access.credentials("").expect("only Kafka gives each client its own user")
    }

    fn needed_secret(&self) -> Option<NeededSecret> {
        let shared = self.access.credentials("").filter(|of| of.secret == access::credentials_secret(self.name()));
        let managed = self.store.provider.value.is_managed();
        let credentials = shared?;
        let mut keys = match credentials.username {
            Username::Key(key) => vec![key.to_owned()],
            Username::Known(_) => Vec::new(),
        };
        keys.push(credentials.password_key);
        if self.is_plain() && !managed {
            match self.store.engine.value {
                Engine::Mongodb => keys.push(mongodb::KEY_FILE.to_owned()),
                Engine::Rabbitmq => keys.push(rabbitmq::COOKIE.to_owned()),
                _ => {}
            }
        }
        let mut readers: Vec<Element> = (!managed).then(|| self.element()).into_iter().collect();
        let element = self.element();
        readers.extend(self.architecture.to(&element).map(|connection| connection.from.clone()));
        readers.extend(self.backed_up_by());
        readers.sort();
        readers.dedup();
        Some(NeededSecret { name: credentials.secret, keys, readers })
    }
}

/// An environment variable from a Secret.
fn from_secret(variable: &str, secret: &str, key: &str) -> Value {
    json!({ "name": variable, "valueFrom": { "secretKeyRef": { "name": secret, "key": key } } })
}

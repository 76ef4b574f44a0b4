//! Secrets: never their values, only where they come from.
//!
//! With a back end, each Secret that something reads becomes an `ExternalSecret` in the reader's namespace, and each of
//! these namespaces a `SecretStore` with a service account of its own, so that the back end can tell who asks. Without
//! one, Secrets are put into the cluster by somebody; [`required`] lists them.

use std::collections::{BTreeMap, BTreeSet};

use crate::json::json;
use landfall_model::{Architecture, Element, Finding, RegionRole, SecretBackend, Span};
use serde_json::Value;

use super::metadata::Subject;
use super::stores;
use crate::object::Object;

/// A Secret that has to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequiredSecret {
    /// Its namespace.
    pub(super) namespace: String,
    /// Its name.
    pub(super) name: String,
    /// The keys that are read; empty when nobody says which.
    pub(super) keys: BTreeSet<String>,
    /// Where the file asks for it.
    pub(super) span: Span,
}

/// Every Secret that something reads and no operator makes, by namespace and name.
pub(super) fn required(architecture: &Architecture) -> Vec<RequiredSecret> {
    let mut readers: BTreeMap<(String, String), (BTreeSet<String>, Span)> = BTreeMap::new();
    let mut add = |namespace: &str, name: &str, keys: &mut dyn Iterator<Item = &str>, span: Span| {
        let entry = readers.entry((namespace.to_owned(), name.to_owned())).or_insert((BTreeSet::new(), span));
        entry.0.extend(keys.map(str::to_owned));
    };
    for (name, service) in &architecture.document.services {
        let namespace = architecture.namespace_of(&Element::Service(name.value.clone())).as_str();
        for secret in service.env.values().filter_map(|value| value.secret.as_ref()) {
            add(namespace, secret.name.as_str(), &mut [secret.key.as_str()].into_iter(), secret.span);
        }
    }
    for needed in stores::needed_secrets(architecture) {
        for reader in &needed.readers {
            let namespace = architecture.namespace_of(reader).as_str();
            add(namespace, &needed.name, &mut needed.keys.iter().map(String::as_str), architecture.span_of(reader));
        }
    }
    for (namespace, secret, span) in super::monitoring::secrets(architecture) {
        add(namespace, secret.name.as_str(), &mut [secret.key.as_str()].into_iter(), span);
    }
    for notify in architecture.notify() {
        let Some((secret, webhook)) = notify.secret().zip(notify.webhook.as_ref()) else { continue };
        add(
            architecture.namespace().as_str(),
            secret.name.as_str(),
            &mut [secret.key.as_str()].into_iter(),
            webhook.span,
        );
    }
    // What is declared and read by nobody that is known here, a patch perhaps, belongs to the platform's namespace.
    let read: BTreeSet<String> = readers.keys().map(|(_, name)| name.clone()).collect();
    for (name, item) in &architecture.document.security.secrets.items {
        let keys: Vec<&str> = item.keys.iter().map(|key| key.as_str()).collect();
        if !read.contains(name.as_str()) {
            let key = (architecture.namespace().to_string(), name.to_string());
            readers.insert(key, (keys.iter().map(|key| (*key).to_owned()).collect(), name.span));
        } else if !keys.is_empty() {
            let everywhere = readers.iter_mut().filter(|((_, known), _)| known == name.as_str());
            everywhere.for_each(|(_, (known, _))| known.extend(keys.iter().map(|key| (*key).to_owned())));
        }
    }
    let secret = |((namespace, name), (keys, span))| RequiredSecret { namespace, name, keys, span };
    readers.into_iter().map(secret).collect()
}

/// The namespaces in which one is read.
pub(crate) fn namespaces(architecture: &Architecture) -> BTreeSet<String> {
    required(architecture).into_iter().map(|secret| secret.namespace).collect()
}

pub(super) fn objects(architecture: &Architecture) -> Vec<Object> {
    let backend = architecture.document.security.secrets.backend.value;
    if backend == SecretBackend::Cluster {
        return Vec::new();
    }
    let required = required(architecture);
    let namespaces: BTreeSet<&str> = required.iter().map(|secret| secret.namespace.as_str()).collect();
    let mut objects: Vec<Object> =
        namespaces.into_iter().flat_map(|namespace| secret_store(architecture, backend, namespace)).collect();
    objects.extend(required.iter().map(|secret| external_secret(architecture, backend, secret)));
    objects
}

/// What keeps the back end from being used.
pub(super) fn findings(architecture: &Architecture) -> Vec<Finding> {
    let secrets = &architecture.document.security.secrets;
    let backend = &secrets.backend;
    let mut findings = Vec::new();
    let needs_address = matches!(backend.value, SecretBackend::Vault | SecretBackend::Azure);
    if needs_address && secrets.address.is_none() {
        findings.push(
            Finding::error("not-rendered", backend.span, "the secret back end has no address")
                .on("security.secrets")
                .help("add `security.secrets.address`, such as `https://vault.example.com`"),
        );
    }
    if backend.value == SecretBackend::Aws && location(architecture).is_none() {
        findings.push(
            Finding::error("not-rendered", backend.span, "the region of the secret back end is not known")
                .on("security.secrets")
                .help("give the primary region its `location`, such as `eu-central-1`"),
        );
    }
    findings
}

/// The provider's name of the primary region.
fn location(architecture: &Architecture) -> Option<&str> {
    let regions = architecture.document.platform.regions.values();
    let mut primary = regions.filter(|region| region.role.value == RegionRole::Primary);
    primary.next()?.location.as_ref().map(|location| location.as_str())
}

/// The `SecretStore` of a namespace, which the service account that it logs in with is named after.
pub(crate) const STORE: &str = "secrets";

fn secret_store(architecture: &Architecture, backend: SecretBackend, namespace: &str) -> [Object; 2] {
    let secrets = &architecture.document.security.secrets;
    let platform = architecture.document.name.as_str();
    let subject = Subject::platform(architecture, namespace, "secrets", "security.secrets", secrets.backend.span);
    let account = json!({ "name": STORE });
    let address = secrets.address.as_ref().map_or("", |address| address.as_str());
    let provider = match backend {
        SecretBackend::Cluster => Value::Null,
        SecretBackend::Vault => json!({
            "vault": {
                "server": address,
                "path": "secret",
                "version": "v2",
                "auth": { "kubernetes": { "mountPath": "kubernetes", "role": platform, "serviceAccountRef": account } },
            },
        }),
        SecretBackend::Aws => json!({
            "aws": {
                "service": "SecretsManager",
                "region": location(architecture).unwrap_or_default(),
                "auth": { "jwt": { "serviceAccountRef": account } },
            },
        }),
        SecretBackend::Azure => json!({
            "azurekv": { "vaultUrl": address, "authType": "WorkloadIdentity", "serviceAccountRef": account },
        }),
        // Project and cluster are those that the operator runs in.
        SecretBackend::Gcp => json!({
            "gcpsm": { "auth": { "workloadIdentity": { "serviceAccountRef": account } } },
        }),
    };
    let service_account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": subject.metadata(STORE),
        "automountServiceAccountToken": false,
    });
    let store = json!({
        "apiVersion": "external-secrets.io/v1",
        "kind": "SecretStore",
        "metadata": subject.metadata(STORE),
        "spec": { "provider": provider },
    });
    [subject.object("serviceaccount-secrets", service_account), subject.object("secretstore", store)]
}

fn external_secret(architecture: &Architecture, backend: SecretBackend, secret: &RequiredSecret) -> Object {
    let secrets = &architecture.document.security.secrets;
    let path = path(architecture, backend, &secret.name);
    let data: Vec<Value> = secret
        .keys
        .iter()
        .map(|key| json!({ "secretKey": key, "remoteRef": { "key": &path, "property": key } }))
        .collect();
    let everything = data.is_empty().then(|| json!([{ "extract": { "key": &path } }]));
    let subject = Subject::platform(
        architecture,
        &secret.namespace,
        "secrets",
        format!("security.secrets.items.{}", secret.name),
        secret.span,
    );
    let value = json!({
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": subject.metadata(&secret.name),
        "spec": {
            "refreshInterval": go_duration(secrets.refresh.seconds()),
            "secretStoreRef": { "kind": "SecretStore", "name": STORE },
            // A Secret that its readers still need does not go with the back end's.
            "target": { "name": &secret.name, "creationPolicy": "Owner", "deletionPolicy": "Retain" },
            "data": everything.is_none().then_some(data),
            "dataFrom": everything,
        },
    });
    subject.in_folder("secrets").object(&secret.name, value)
}

/// Go reads no days.
fn go_duration(seconds: u64) -> String {
    match seconds {
        seconds if seconds > 0 && seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        seconds => format!("{seconds}s"),
    }
}

/// Where the back end keeps a secret: as declared, otherwise `<platform>/<environment>/<name>`.
fn path(architecture: &Architecture, backend: SecretBackend, name: &str) -> String {
    let declared = architecture.document.security.secrets.items.get(name).and_then(|item| item.path.as_ref());
    if let Some(path) = declared {
        return path.value.clone();
    }
    let platform = architecture.document.name.to_string();
    let environment = architecture.environment.as_ref().map(ToString::to_string);
    let parts: Vec<String> = [Some(platform), environment, Some(name.to_owned())].into_iter().flatten().collect();
    // Azure and Google take no slash in a name.
    let separator = if matches!(backend, SecretBackend::Azure | SecretBackend::Gcp) { "-" } else { "/" };
    parts.join(separator)
}

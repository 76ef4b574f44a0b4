//! What a region of an environment needs from a cloud, whichever it is.

use std::collections::{BTreeMap, BTreeSet};

use landfall_model::{
    Architecture, EdgeLayer, Element, Engine, Name, Region, RegionRole, SecretBackend, Spanned, StandbyMode, Store,
};

use super::cloud::Cloud;
use crate::kubernetes::{SECRET_STORE, secret_namespaces};

/// One region of one environment on one cloud.
pub(super) struct Site<'a> {
    pub(super) architecture: &'a Architecture,
    pub(super) key: &'a Spanned<Name>,
    pub(super) region: &'a Region,
    pub(super) cloud: Cloud,
    /// The cloud that the file means the region to be on: what it names in the cloud's own words counts there only.
    pub(super) home: Cloud,
    /// The cloud's name of the region.
    pub(super) location: String,
    /// The cloud's names of its zones.
    pub(super) zones: Vec<String>,
    /// The cloud's names of the other regions.
    pub(super) locations: BTreeMap<String, String>,
}

/// A service account that gets an identity of the cloud.
pub(super) struct Identity {
    /// What tells it from the others.
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) account: String,
    pub(super) buckets: Vec<String>,
    pub(super) secrets: bool,
}

impl<'a> Site<'a> {
    /// What names begin with: the platform and the environment.
    pub(super) fn prefix(&self) -> String {
        let name = &self.architecture.document.name.value;
        match &self.architecture.environment {
            Some(environment) => format!("{name}-{environment}"),
            None => name.to_string(),
        }
    }

    /// The name of something of the whole world's names: letters and digits, of at most 20 characters.
    pub(super) fn short(&self, what: &str) -> String {
        let whole = format!("{}-{}-{what}", self.prefix(), self.key.value);
        // FNV-1a: the same name for the same thing, and another for another.
        let hash = whole
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let letters: String = what.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
        format!("{letters}{:08x}", hash & 0xffff_ffff)
    }

    /// Whether the region is the one that serves users.
    pub(super) fn is_primary(&self) -> bool {
        self.architecture.primary_region().is_some_and(|(key, _)| key.value == self.key.value)
    }

    /// Whether a cluster runs here.
    pub(super) fn has_cluster(&self) -> bool {
        match self.region.role.value {
            RegionRole::Primary => true,
            RegionRole::Archive => false,
            RegionRole::Standby => {
                let standby = self.architecture.document.recovery.standby.as_ref();
                standby.is_none_or(|standby| {
                    standby.region.value == self.key.value
                        && matches!(standby.mode.value, StandbyMode::Hot | StandbyMode::Warm)
                })
            }
        }
    }

    /// The stores that a cloud runs here.
    pub(super) fn stores(&self) -> Vec<(&'a Spanned<Name>, &'a Store)> {
        let here = |store: &Store| match &store.region {
            Some(region) => region.value == self.key.value,
            None => self.is_primary(),
        };
        let stores = self.architecture.document.stores.iter();
        stores.filter(|(_, store)| store.provider.value.is_managed() && here(store)).collect()
    }

    /// Whether there is anything to make here.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_cluster() && self.stores().is_empty()
    }

    /// The machine that the file names, where it means this cloud.
    pub(super) fn declared_machine(&self, store: &Store) -> Option<String> {
        let own = Cloud::of_store(store.provider.value) == Some(self.cloud);
        store.instance.as_ref().filter(|_| own).map(|instance| instance.value.clone())
    }

    /// How many days objects of a bucket are kept: as long as any backup in it, and for good when services store there.
    pub(super) fn keep_days(&self, bucket: &Spanned<Name>) -> u64 {
        if self.architecture.to(&Element::Store(bucket.value.clone())).next().is_some() {
            return 0;
        }
        let backups = self.architecture.document.stores.values().filter_map(|store| store.backup.as_ref());
        let kept = backups.filter(|backup| backup.to.as_ref().is_some_and(|to| to.value == bucket.value));
        kept.map(|backup| backup.keep.value.seconds().div_ceil(86_400)).max().unwrap_or(0)
    }

    /// The regions that have a copy of a store: of a bucket also for the backups in it.
    pub(super) fn copies(&self, name: &Spanned<Name>, store: &Store) -> BTreeSet<&'a Name> {
        let document = &self.architecture.document;
        let own = document.stores.iter().filter_map(|(key, other)| {
            let backup = other.backup.as_ref()?;
            let into = backup.to.as_ref().is_some_and(|to| to.value == name.value);
            (key.value == name.value || (into && store.engine.value == Engine::S3)).then_some(backup)
        });
        let copies = own.flat_map(|backup| backup.copies.iter().map(|copy| &copy.value));
        let replicated = document.recovery.replication.iter();
        let replicated =
            replicated.filter(|replication| store.engine.value == Engine::S3 && replication.store.value == name.value);
        let all = copies.chain(replicated.map(|replication| &replication.to.value));
        all.filter(|region| **region != self.key.value).collect()
    }

    /// The images that are built here, when the registry is the cloud's.
    pub(super) fn images(&self) -> BTreeSet<String> {
        let services = self.architecture.document.services.iter();
        let built = services.filter(|(_, service)| service.build.is_some());
        built
            .map(|(name, service)| {
                let declared = service.image.as_ref().map(|image| image.value.as_str());
                let image = declared.unwrap_or(name.value.as_str());
                image.split(['@', ':']).next().unwrap_or(image).to_owned()
            })
            .collect()
    }

    /// Whether the images are in a registry of this cloud: the file names its host, or none.
    pub(super) fn has_registry(&self) -> bool {
        let host = self.architecture.document.platform.registry.as_ref().map(|registry| registry.host.value.as_str());
        let own = match self.cloud {
            Cloud::Aws => ".amazonaws.com",
            Cloud::Azure => ".azurecr.io",
            Cloud::Gcp => ".pkg.dev",
            Cloud::None => return false,
        };
        self.is_primary() && !self.images().is_empty() && host.is_none_or(|host| host.contains(own))
    }

    /// Whether the cloud keeps the secrets.
    pub(super) fn has_secrets(&self) -> bool {
        let backend = self.architecture.document.security.secrets.backend.value;
        let kept = matches!(backend, SecretBackend::Aws | SecretBackend::Azure | SecretBackend::Gcp);
        kept && self.has_cluster() && self.cloud != Cloud::None
    }

    /// The paths of the secrets, each with its keys.
    pub(super) fn secrets(&self) -> BTreeMap<String, String> {
        let architecture = self.architecture;
        let items = architecture.document.security.secrets.items.iter();
        items
            .map(|(name, secret)| {
                let environment = architecture.environment.as_ref().map_or("default", |name| name.as_str());
                let fallback = || format!("{}/{environment}/{}", architecture.document.name.value, name.value);
                let path = secret.path.as_ref().map_or_else(fallback, |path| path.value.clone());
                let keys: Vec<&str> = secret.keys.iter().map(|key| key.value.as_str()).collect();
                let due = secret.rotate.as_ref().map(|due| format!("; new values every {}", due.value));
                (path, format!("Keys: {}{}", keys.join(", "), due.unwrap_or_default()))
            })
            .collect()
    }

    /// The service accounts that use the cloud: services with a bucket, and whoever fetches the secrets.
    pub(super) fn identities(&self) -> Vec<Identity> {
        let architecture = self.architecture;
        if !self.has_cluster() {
            return Vec::new();
        }
        let buckets: BTreeSet<&str> = self
            .stores()
            .into_iter()
            .filter(|(_, store)| store.engine.value == Engine::S3)
            .map(|(name, _)| name.value.as_str())
            .collect();
        let services = architecture.document.services.keys().filter_map(|name| {
            let element = Element::Service(name.value.clone());
            let used: BTreeSet<String> = architecture
                .from(&element)
                .map(|connection| connection.to.name())
                .filter(|to| buckets.contains(to))
                .map(str::to_owned)
                .collect();
            let namespace = architecture.namespace_of(&element).to_string();
            let buckets = used.into_iter().collect::<Vec<_>>();
            let (name, account) = (name.value.to_string(), name.value.to_string());
            (!buckets.is_empty()).then_some(Identity { name, namespace, account, buckets, secrets: false })
        });
        let mut namespaces = BTreeSet::new();
        if self.has_secrets() {
            let services = architecture.document.services.keys().map(|name| Element::Service(name.value.clone()));
            namespaces.extend(services.map(|service| architecture.namespace_of(&service).to_string()));
            namespaces.extend(secret_namespaces(architecture));
        }
        // Each namespace fetches its own, by the account of its `SecretStore`.
        let fetchers = namespaces.into_iter().map(|namespace| Identity {
            name: format!("secrets-{namespace}"),
            namespace,
            account: SECRET_STORE.to_owned(),
            buckets: Vec::new(),
            secrets: true,
        });
        services.chain(fetchers).collect()
    }

    /// Whether the layer stands in front of the ingress.
    pub(super) fn has_edge(&self, wanted: EdgeLayer) -> bool {
        self.is_primary() && self.architecture.document.platform.edge.iter().any(|layer| layer.value == wanted)
    }

    /// The names under which users reach the platform, when something stands in front.
    pub(super) fn edge_hosts(&self) -> Vec<String> {
        if !self.has_edge(EdgeLayer::Cdn) && !self.has_edge(EdgeLayer::Waf) {
            return Vec::new();
        }
        let hosts: BTreeSet<&str> =
            self.architecture.exposed().map(|(_, _, expose)| expose.host.value.as_str()).collect();
        hosts.into_iter().map(str::to_owned).collect()
    }
}

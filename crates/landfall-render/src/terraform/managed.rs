//! A store that a cloud runs: what its module is told of it, whichever cloud it is.

use landfall_model::{Engine, Finding, Name, Spanned, Store, Topic};

use super::cloud;
use super::hcl::{Value, raw};
use super::machines;
use super::needs::Site;
use super::root::{Root, identifier};
use crate::kubernetes::private_zone;

/// One argument of a call.
pub(super) type Argument = (&'static str, Value);

/// A store in a region of a cloud.
pub(super) struct Managed<'a> {
    pub(super) site: &'a Site<'a>,
    pub(super) name: &'a Spanned<Name>,
    pub(super) store: &'a Store,
    /// The name of the call of its module.
    pub(super) call: String,
    /// Its name in the cloud, where that has room for it.
    pub(super) own_name: String,
}

impl<'a> Managed<'a> {
    /// The stores of a region.
    pub(super) fn all(site: &'a Site<'a>) -> Vec<Self> {
        let managed = |(name, store): (&'a Spanned<Name>, &'a Store)| Self {
            site,
            name,
            store,
            call: identifier("store", name.value.as_str()),
            own_name: format!("{}-{}", site.prefix(), name.value),
        };
        site.stores().into_iter().map(managed).collect()
    }

    pub(super) fn engine(&self) -> Engine {
        self.store.engine.value
    }

    pub(super) fn members(&self) -> u32 {
        self.store.members.value
    }

    /// Whether the cloud has a module for it that can stand in this region: all but buckets need a network.
    pub(super) fn has_module(&self) -> bool {
        super::modules::exists(self.site.cloud, self.engine().as_str()) && self.site.has_cluster()
    }

    /// The version, as the cloud writes it.
    pub(super) fn version(&self) -> Argument {
        let declared = self.store.version.as_ref().map(|version| version.value.as_str());
        ("engine_version", cloud::version(self.site.cloud, self.engine(), declared).into())
    }

    /// The machine of each member; nothing, with a finding, where none is large enough.
    pub(super) fn instance(&self, findings: &mut Vec<Finding>) -> Option<Argument> {
        machines::instance(self.site, self.name.value.as_str(), self.store, findings)
            .map(|instance| ("instance_class", instance.into()))
    }

    /// What a relational database is told on every cloud.
    pub(super) fn relational(&self) -> [Argument; 5] {
        [
            self.version(),
            ("size", machines::volume(self.store).into()),
            ("members", self.members().into()),
            ("zones", Value::texts(&self.site.zones)),
            self.require_tls(),
        ]
    }

    pub(super) fn require_tls(&self) -> Argument {
        ("require_tls", self.site.architecture.encrypts_in_transit(self.store).into())
    }

    /// How many days backups are kept, between the least and the most that the cloud takes.
    pub(super) fn backup_days(&self, least: u64, most: u64) -> Argument {
        ("backup_days", machines::backup_days(self.store, most).max(least).into())
    }

    /// How many days the objects of a bucket are kept, unless for good.
    pub(super) fn keep_days(&self) -> Option<Argument> {
        Some(self.site.keep_days(self.name)).filter(|days| *days > 0).map(|days| ("keep_days", days.into()))
    }

    /// The regions with a copy of it, each with the cloud's name of its location.
    pub(super) fn copies(&self) -> Vec<(&'a Name, &'a str)> {
        let located = |copy: &'a Name| Some((copy, self.site.locations.get(copy.as_str())?.as_str()));
        self.site.copies(self.name, self.store).into_iter().filter_map(located).collect()
    }

    /// How often a message is kept, and how many of these copies a writer waits for.
    pub(super) fn replication(&self, default: u32) -> (u32, u32) {
        let replication = self.store.replication.as_ref().map_or(default, |replication| replication.value);
        let in_sync = self.store.in_sync.as_ref();
        (replication, in_sync.map_or(replication.saturating_sub(1).max(1), |in_sync| in_sync.value))
    }

    /// Its topics, each with its partitions and what else the cloud wants to know.
    pub(super) fn topics(&self, more: impl Fn(&Topic) -> Vec<Argument>) -> Argument {
        let topics = self.store.topics.iter().map(|(topic, settings)| {
            let partitions = settings.partitions.as_ref().map_or(1, |partitions| partitions.value);
            let fields = std::iter::once(("partitions", Value::from(partitions))).chain(more(settings));
            (topic.value.as_str(), Value::object(fields))
        });
        ("topics", Value::object(topics))
    }

    /// A finding: the cloud does not run it.
    pub(super) fn unknown(&self) -> Finding {
        machines::unknown(self.site, self.name.value.as_str(), self.store)
    }

    /// Calls its module, and tells where it is to be found.
    /// Clients find all but object stores under the name that their Service has.
    pub(super) fn place(&self, root: &mut Root, module: &'static str, arguments: Vec<Argument>) {
        root.call(self.site, module, &self.call, arguments);
        let (what, output) = match (self.engine(), self.site.cloud) {
            (Engine::S3, cloud::Cloud::Azure) => ("The account of", "name"),
            (Engine::S3, _) => ("The bucket", "name"),
            _ => ("Where clients reach", "address"),
        };
        let found = format!("module.{}.{output}", self.call);
        if self.engine() != Engine::S3 {
            root.named.push((self.name.value.to_string(), self.name_of(&found)));
        }
        root.output(&self.call, format!("{what} {}.", self.name.value), found);
    }

    /// Where its record leads; Google Cloud has addresses for some stores and names for others.
    fn name_of(&self, found: &str) -> Value {
        if self.site.cloud != cloud::Cloud::Gcp {
            return raw(found.to_owned());
        }
        let kind = if self.engine() == Engine::Kafka { "CNAME" } else { "A" };
        Value::object([("address", raw(found.to_owned())), ("type", kind.into())])
    }
}

/// The private zone of the platform, with a record for each store that the cloud runs. `more` is what this cloud wants besides.
pub(super) fn names(root: &mut Root, site: &Site<'_>, more: Vec<Argument>) {
    let stores = std::mem::take(&mut root.named);
    if stores.is_empty() {
        return;
    }
    let mut arguments = vec![("name", private_zone(site.architecture.document.name.value.as_str()).into())];
    arguments.extend(more);
    arguments.push(("network_id", raw("module.network.network_id")));
    arguments.push(("stores", Value::object(stores)));
    root.call(site, "names", "names", arguments);
}

/// The buckets that an identity may use, by an output of their modules.
pub(super) fn buckets(identity: &super::needs::Identity, output: &str) -> Option<Value> {
    let of = |bucket: &String| raw(format!("module.{}.{output}", identifier("store", bucket)));
    (!identity.buckets.is_empty()).then(|| Value::List(identity.buckets.iter().map(of).collect()))
}

/// Calls the module of a service account's identity, and tells the annotation that binds both.
pub(super) fn identify(root: &mut Root, site: &Site<'_>, identity: &super::needs::Identity, arguments: Vec<Argument>) {
    let call = identifier("identity", &identity.name);
    root.call(site, "identity", &call, arguments);
    let what = format!("The annotation of the service account {}.", identity.account);
    root.output(&call, what, format!("module.{call}.annotation"));
}

/// The version of the cluster.
pub(super) fn kubernetes_version(site: &Site<'_>) -> Argument {
    let declared = site.architecture.document.platform.kubernetes.as_ref();
    ("kubernetes_version", declared.map_or("1.36", |version| version.value.as_str()).into())
}

/// A finding where the file names who says who somebody is, and the cloud's cluster cannot be told.
pub(super) fn identity_of_people(site: &Site<'_>, why: &str, help: &str, findings: &mut Vec<Finding>) {
    if let Some(identity) = &site.architecture.document.security.identity {
        let what = format!("no Terraform tells the cluster on {} of `{}`", site.cloud.folder(), identity.issuer.value);
        let finding = Finding::note("not-rendered", identity.issuer.span, what).on("security.identity");
        findings.push(finding.because(why).help(help));
    }
}

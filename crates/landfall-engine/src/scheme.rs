//! Everything that is known about kinds: names and verbs, fields and defaults, validation, merging, printing.
//!
//! Pure: no I/O, no clock, no randomness. The API server is its one user.

pub(crate) mod apply;
mod convert;
mod custom;
mod decode;
mod defaults;
pub(crate) mod expression;
mod fields;
mod measured;
pub(crate) mod merge;
pub(crate) mod openapi;
pub(crate) mod protobuf;
pub(crate) mod quantity;
pub(crate) mod quota;
pub(crate) mod selector;
mod strategy;
pub(crate) mod table;
mod types;
mod validate;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use serde_json::Value;

pub(crate) use fields::Unheeded;
pub(crate) use measured::CUSTOM_METRICS;
pub(crate) use strategy::Part;
pub(crate) use types::{Shape, Type, Types, Zero};
pub(crate) use validate::{Cause, Reason, joined};

/// The kinds that are served. Immutable; cheap to clone.
#[derive(Clone)]
pub(crate) struct Scheme {
    inner: Arc<Inner>,
}

struct Inner {
    resources: Vec<Arc<Resource>>,
    by_plural: HashMap<(String, String, String), usize>,
    by_kind: HashMap<(String, String, String), usize>,
}

/// One version of one kind.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Vec<String>,
    /// Where objects of the kind are kept, whatever version they were written in: `deployments.apps`.
    pub(crate) collection: String,
    /// The group and version that objects are kept in.
    pub(crate) storage: (String, String),
    pub(crate) subresources: Vec<Subresource>,
    /// From a `CustomResourceDefinition`.
    pub(crate) custom: bool,
    /// Columns that a definition asks for.
    pub(crate) printer_columns: Vec<Value>,
    /// Field paths that may be selected by, beside name and namespace.
    pub(crate) selectable_fields: Vec<String>,
    /// What clients are told who still use the kind or its version.
    pub(crate) deprecation: Option<String>,
    /// The schema of a custom resource, as the definition has it.
    pub(crate) schema: Option<Value>,
    pub(crate) types: Arc<Types>,
    pub(crate) root: usize,
}

/// What can be asked of an object beside the object itself.
#[derive(Debug, Clone)]
pub(crate) struct Subresource {
    /// `status`, `scale`, `log` …
    pub(crate) name: String,
    pub(crate) verbs: Vec<String>,
    /// Group, version and kind of the bodies.
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    /// For `scale`: where the numbers are.
    pub(crate) scale: Option<ScalePaths>,
}

/// Field paths as lists of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScalePaths {
    pub(crate) spec_replicas: Vec<String>,
    pub(crate) status_replicas: Vec<String>,
    /// A label selector, either as an object or already as a string.
    pub(crate) selector: Option<Vec<String>>,
}

/// A served group with its versions, the preferred one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) versions: Vec<String>,
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        group_version(&self.group, &self.version)
    }

    pub(crate) fn root(&self) -> &Type {
        self.types.get(self.root)
    }

    /// Whether an update must say which version it replaces. Kubernetes takes any for most kinds that it had early.
    pub(crate) fn needs_version(&self) -> bool {
        self.custom
            || matches!(
                (self.group.as_str(), self.plural.as_str()),
                ("coordination.k8s.io", "leases")
                    | ("policy", "poddisruptionbudgets")
                    | ("node.k8s.io", "runtimeclasses")
                    | ("apiextensions.k8s.io" | "admissionregistration.k8s.io", _)
                    | ("storage.k8s.io", "csidrivers" | "csinodes" | "csistoragecapacities" | "volumeattachments")
            )
    }

    pub(crate) fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|one| one.name == name)
    }

    pub(crate) fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// `deployments.apps`, as error messages name it.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }
}

pub(crate) fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

impl Scheme {
    /// The kinds of the built-in groups that the engine acts in, among them some that are only kept.
    pub(crate) fn builtin() -> Self {
        static BUILTIN: OnceLock<Scheme> = OnceLock::new();
        let known = |resource: &Arc<Resource>| !UNATTENDED.contains(&resource.qualified().as_str());
        BUILTIN.get_or_init(|| Self::of(builtin_resources().into_iter().filter(known).collect())).clone()
    }

    /// Those, and the groups that only the controllers of others act in.
    ///
    /// Not handled: what is special about the latter beyond their structure.
    pub(crate) fn with_unattended() -> Self {
        Self::of(builtin_resources())
    }

    fn has_unattended(&self) -> bool {
        self.resource("certificates.k8s.io", "v1", "certificatesigningrequests").is_some()
    }

    /// The built-in kinds and those of `definitions`, which are established `CustomResourceDefinition`s.
    pub(crate) fn with_custom<'a>(&self, definitions: impl Iterator<Item = &'a Value>) -> Self {
        let mut resources: Vec<_> = self.inner.resources.iter().filter(|one| !one.custom).cloned().collect();
        let mut customs: Vec<_> = definitions.flat_map(custom::resources).map(Arc::new).collect();
        customs.sort_by(|a, b| {
            (&a.group, custom::version_order(&a.version), &a.plural).cmp(&(
                &b.group,
                custom::version_order(&b.version),
                &b.plural,
            ))
        });
        resources.extend(customs);
        Self::of(resources)
    }

    /// The same kinds, and of these metrics it is known that pods tell them.
    pub(crate) fn with_pod_metrics(&self, names: &BTreeSet<String>) -> Self {
        let resource = |one: &Arc<Resource>| match one.group.as_str() {
            CUSTOM_METRICS => measured::pod_metrics(names),
            _ => Arc::clone(one),
        };
        Self::of(self.inner.resources.iter().map(resource).collect())
    }

    fn of(resources: Vec<Arc<Resource>>) -> Self {
        let key = |one: &Resource, name: &str| (one.group.clone(), one.version.clone(), name.to_owned());
        let by_plural = resources.iter().enumerate().map(|(i, one)| (key(one, &one.plural), i)).collect();
        let by_kind = resources.iter().enumerate().map(|(i, one)| (key(one, &one.kind), i)).collect();
        Self { inner: Arc::new(Inner { resources, by_plural, by_kind }) }
    }

    pub(crate) fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.inner.by_plural.get(&key).map(|index| &self.inner.resources[*index])
    }

    pub(crate) fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), kind.to_owned());
        self.inner.by_kind.get(&key).map(|index| &self.inner.resources[*index])
    }

    /// Every resource in the order of discovery.
    pub(crate) fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.inner.resources.iter()
    }

    /// The groups in the order in which Kubernetes names them; the core group, whose name is empty, first.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for one in &self.inner.resources {
            match groups.iter_mut().find(|group| group.name == one.group) {
                Some(group) if group.versions.contains(&one.version) => {}
                Some(group) => group.versions.push(one.version.clone()),
                None => groups.push(Group { name: one.group.clone(), versions: vec![one.version.clone()] }),
            }
        }
        groups
            .sort_by_key(|group| GROUP_ORDER.iter().position(|name| *name == group.name).unwrap_or(GROUP_ORDER.len()));
        groups
    }
}

#[expect(
    clippy::unused_self,
    reason = "that an answer lies in the resource is the business of the scheme, not of who asks it"
)]
impl Scheme {
    /// Changes an object from one version of its kind into another.
    pub(crate) fn convert(&self, from: &Resource, to: &Resource, object: &mut Value) {
        convert::convert(from, to, object);
    }

    /// Brings an object into the form in which Kubernetes answers: no nulls, no unknown fields, canonical quantities,
    /// defaults filled in.
    pub(crate) fn default(&self, resource: &Resource, object: &mut Value) {
        decode::normalize(resource, object);
        if resource.custom {
            custom::default(resource, object);
        } else {
            defaults::default(resource, object);
        }
    }

    /// Fields that the kind does not have, as Kubernetes words it: `unknown field "spec.foo"`.
    pub(crate) fn unknown_fields(&self, resource: &Resource, object: &Value) -> Vec<String> {
        decode::unknown_fields(resource, object)
    }

    /// The first value of a wrong type, as Kubernetes words it. Such an object cannot be read at all.
    pub(crate) fn check_types(&self, resource: &Resource, object: &Value) -> Result<(), String> {
        decode::check_types(resource, object)
    }

    /// What the server decides when an object is created: no status, the first generation.
    pub(crate) fn prepare_create(&self, resource: &Resource, object: &mut Value) {
        strategy::prepare_create(resource, object);
    }

    /// What the server decides when `part` of an object is replaced: the other part stays, the generation counts
    /// changes of what is wanted, identity stays.
    pub(crate) fn prepare_update(&self, resource: &Resource, new: &mut Value, old: &Value, part: Part) {
        strategy::prepare_update(resource, new, old, part);
    }

    /// What `new` asks for, and `old` did not, that nobody acts on. Defaults must be filled in.
    pub(crate) fn unheeded(&self, resource: &Resource, new: &Value, old: Option<&Value>) -> Unheeded {
        // What the controllers and nodes of others act on is not known, and the fields of custom resources are their own.
        if self.has_unattended() || resource.custom {
            Unheeded::default()
        } else {
            fields::unheeded(resource, new, old)
        }
    }

    /// What is wrong with a new object, or with `new` replacing `old`. Empty: nothing.
    pub(crate) fn validate(&self, resource: &Resource, new: &Value, old: Option<&Value>, part: Part) -> Vec<Cause> {
        validate::validate(resource, new, old, part)
    }
}

/// Kinds of groups that nothing in the engine acts in. The controllers and the scheduler of Kubernetes do, and do not
/// start without.
const UNATTENDED: [&str; 5] = [
    "certificatesigningrequests.certificates.k8s.io",
    "deviceclasses.resource.k8s.io",
    "resourceclaims.resource.k8s.io",
    "resourceclaimtemplates.resource.k8s.io",
    "resourceslices.resource.k8s.io",
];

/// The order of groups in discovery; groups of custom resources come after them.
const GROUP_ORDER: [&str; 20] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
];

const ENDPOINTS_DEPRECATED: &str = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";

fn builtin_resources() -> Vec<Arc<Resource>> {
    let table = types::Table::get();
    let resource = |kind: &types::TableKind| {
        let qualified =
            if kind.group.is_empty() { kind.plural.clone() } else { format!("{}.{}", kind.plural, kind.group) };
        // Kinds that are served by two groups or versions are kept in one.
        let (collection, storage) = match (kind.group.as_str(), kind.plural.as_str()) {
            ("events.k8s.io", "events") => ("events".to_owned(), (String::new(), "v1".to_owned())),
            ("autoscaling", _) => (qualified, (kind.group.clone(), "v2".to_owned())),
            _ => (qualified, (kind.group.clone(), kind.version.clone())),
        };
        Arc::new(Resource {
            list_kind: format!("{}List", kind.kind),
            collection,
            storage,
            subresources: kind.subresources.iter().map(|sub| subresource(&kind.plural, sub)).collect(),
            custom: false,
            printer_columns: Vec::new(),
            selectable_fields: selector::selectable_fields(&kind.group, &kind.kind),
            deprecation: (kind.group.is_empty() && kind.kind == "Endpoints").then(|| ENDPOINTS_DEPRECATED.to_owned()),
            schema: None,
            types: Arc::clone(&table.types),
            root: kind.root.expect("every served kind has a schema"),
            group: kind.group.clone(),
            version: kind.version.clone(),
            kind: kind.kind.clone(),
            plural: kind.plural.clone(),
            singular: kind.singular.clone(),
            short_names: kind.short_names.clone(),
            categories: kind.categories.clone(),
            namespaced: kind.namespaced,
            verbs: kind.verbs.clone(),
        })
    };
    table.kinds.iter().map(resource).chain(measured::resources()).collect()
}

fn subresource(plural: &str, sub: &types::TableKind) -> Subresource {
    let path = |text: &str| text.split('.').map(ToOwned::to_owned).collect::<Vec<_>>();
    let scale = (sub.subresource == "scale").then(|| ScalePaths {
        spec_replicas: path("spec.replicas"),
        status_replicas: path("status.replicas"),
        selector: Some(path("spec.selector")),
    });
    debug_assert!(!plural.is_empty(), "a subresource belongs to a resource");
    Subresource {
        name: sub.subresource.clone(),
        verbs: sub.verbs.clone(),
        group: sub.group.clone(),
        version: sub.version.clone(),
        kind: sub.kind.clone(),
        scale,
    }
}

#[cfg(test)]
mod tests;

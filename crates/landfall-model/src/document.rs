//! The nouns of `landfall.yaml`: one typed document with its defaults filled in.
//!
//! The doc comments here are the language's reference: they become the descriptions of the JSON Schema and the
//! texts of `landfall explain`. A default that depends on other values (a store's port, say) is left to the
//! methods of [`crate::Architecture`]; every other default is filled in here and has no span.
//!
//! A struct whose serde name is `Replicas|count` may be written short: `replicas: 3` is `replicas: { count: 3 }`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::span::Spanned;
use crate::units::{Duration, Name, Percent};

mod delivery;
mod observability;
mod platform;
mod promises;
mod recovery;
mod security;
mod service;
mod store;
mod traffic;

pub use delivery::*;
pub use observability::*;
pub use platform::*;
pub use promises::*;
pub use recovery::*;
pub use security::*;
pub use service::*;
pub use store::*;
pub use traffic::*;

/// Things by name, sorted; the key knows where it stands.
pub type Map<T> = BTreeMap<Spanned<Name>, T>;

/// A deployment architecture: everything that is deployed, what it promises, and how it is delivered.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Document {
    /// The version of the language.
    pub landfall: Spanned<Language>,
    /// The name of the platform; also the namespace unless `platform.namespace` says otherwise.
    pub name: Spanned<Name>,
    /// The path of the prose document that this file makes executable.
    #[serde(default)]
    pub document: Option<Spanned<String>>,
    /// Further files, relative to this one; their top-level sections are added to this file's.
    #[serde(default)]
    pub include: Vec<Spanned<String>>,
    /// What the platform promises to its users.
    #[serde(default)]
    pub objectives: Objectives,
    /// What it runs on.
    #[serde(default)]
    pub platform: Platform,
    /// Network segments: which groups of services and stores may reach which.
    #[serde(default)]
    pub segments: Map<NetworkSegment>,
    /// The programs of the platform.
    #[serde(default)]
    pub services: Map<Service>,
    /// Databases, caches, brokers and buckets.
    #[serde(default)]
    pub stores: Map<Store>,
    /// Systems of others that the platform talks to.
    #[serde(default)]
    pub externals: Map<External>,
    /// The ways by which users or data come in, each with its state of delivery.
    #[serde(default)]
    pub channels: Map<Channel>,
    /// Journeys from end to end: the acceptance test of the platform.
    #[serde(default)]
    pub flows: Map<Flow>,
    /// Where the platform is deployed, and what differs there.
    #[serde(default)]
    pub environments: Map<Environment>,
    /// How a change gets to production.
    #[serde(default)]
    pub delivery: Delivery,
    /// Metrics, logs, traces, dashboards and alerts.
    #[serde(default)]
    pub observability: Observability,
    /// Access, secrets, encryption and masking.
    #[serde(default)]
    pub security: Security,
    /// Disaster recovery: standby, replication, archive, drills.
    #[serde(default)]
    pub recovery: Recovery,
    /// Every sentence of the prose document that promises something.
    #[serde(default)]
    pub claims: Vec<Claim>,
    /// Rules that are silenced on one thing until a date.
    #[serde(default)]
    pub waivers: Vec<Waiver>,
    /// Changes to rendered objects that the language has no word for; `check` sees them applied.
    #[serde(default)]
    pub patches: Vec<Patch>,
    /// Kubernetes objects that are rendered as they stand; `check` sees them too.
    #[serde(default)]
    pub objects: Vec<Spanned<serde_json::Value>>,
}

impl Document {
    /// Everybody who is told of releases, in any environment.
    pub fn told(&self) -> impl Iterator<Item = &Notify> {
        let of_environments = self.environments.values().flat_map(|environment| environment.notify.iter().flatten());
        self.delivery.notify.iter().chain(of_environments)
    }
}

/// The version of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// The first version.
    V1,
}

/// What the platform promises to its users.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Objectives {
    /// The share of time in which the platform serves its users, such as `99.9%`.
    #[serde(default)]
    pub availability: Option<Spanned<Percent>>,
    /// The period over which the availability is counted.
    #[serde(default = "default::month")]
    pub window: Spanned<Duration>,
    /// The slowest answer that 99 of 100 requests may get.
    #[serde(default)]
    pub p99: Option<Spanned<Duration>>,
    /// How soon, and with how much data lost, the platform recovers: by kind of failure.
    #[serde(default)]
    pub recovery: RecoveryObjectives,
}

impl Default for Objectives {
    fn default() -> Self {
        Self { availability: None, window: default::month(), p99: None, recovery: RecoveryObjectives::default() }
    }
}

/// Recovery objectives by kind of failure; a kind that is left out promises nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RecoveryObjectives {
    /// A pod dies.
    #[serde(default)]
    pub pod: Option<RecoveryObjective>,
    /// A node dies.
    #[serde(default)]
    pub node: Option<RecoveryObjective>,
    /// A zone is lost.
    #[serde(default)]
    pub zone: Option<RecoveryObjective>,
    /// The whole region is lost.
    #[serde(default)]
    pub region: Option<RecoveryObjective>,
    /// Data is corrupted or deleted by a program or a person, and the damage is replicated.
    #[serde(default)]
    pub corruption: Option<RecoveryObjective>,
}

impl RecoveryObjectives {
    /// The kinds that promise something, in order of the damage.
    pub fn declared(&self) -> impl Iterator<Item = (FailureKind, &RecoveryObjective)> {
        [
            (FailureKind::Pod, &self.pod),
            (FailureKind::Node, &self.node),
            (FailureKind::Zone, &self.zone),
            (FailureKind::Region, &self.region),
            (FailureKind::Corruption, &self.corruption),
        ]
        .into_iter()
        .filter_map(|(kind, objective)| Some((kind, objective.as_ref()?)))
    }
}

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureKind {
    /// One pod.
    Pod,
    /// One node with all its pods.
    Node,
    /// One zone with all its nodes and volumes.
    Zone,
    /// One region with all its zones.
    Region,
    /// Data, by a program or a person; replicas carry the damage too.
    Corruption,
}

impl FailureKind {
    /// The key in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Node => "node",
            Self::Zone => "zone",
            Self::Region => "region",
            Self::Corruption => "corruption",
        }
    }
}

/// A recovery objective.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RecoveryObjective {
    /// Recovery time: from the first failed request to the first of a run of good user journeys.
    #[serde(default)]
    pub rto: Option<Spanned<Duration>>,
    /// Recovery point: the time of the failure minus the commit time of the last write that is readable afterwards.
    #[serde(default)]
    pub rpo: Option<Spanned<Duration>>,
}

/// Defaults that serde asks for by name.
mod default {
    use crate::span::Spanned;
    use crate::units::{Duration, Percent};

    pub(super) fn yes() -> Spanned<bool> {
        Spanned::unwritten(true)
    }
    pub(super) fn one() -> Spanned<u32> {
        Spanned::unwritten(1)
    }
    pub(super) fn month() -> Spanned<Duration> {
        Spanned::unwritten(Duration::from_secs(30 * 86_400))
    }
    pub(super) fn seconds<const N: u64>() -> Spanned<Duration> {
        Spanned::unwritten(Duration::from_secs(N))
    }
    pub(super) fn days<const N: u64>() -> Spanned<Duration> {
        Spanned::unwritten(Duration::from_secs(N * 86_400))
    }
    pub(super) fn percent<const N: u32>() -> Spanned<Percent> {
        Spanned::unwritten(Percent::new(N))
    }
}

#[cfg(test)]
mod tests {
    //! A section that is left out must be the same as one that is empty.

    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::*;

    #[track_caller]
    fn check<T: Default + Serialize + DeserializeOwned>() {
        let empty: T = serde_json::from_str("{}").expect("nothing is required");
        let text = |value: &T| serde_json::to_string(value).expect("the document is plain data");
        assert_eq!(text(&T::default()), text(&empty));
    }

    #[test]
    fn a_section_that_is_left_out_has_the_defaults_of_an_empty_one() {
        check::<Objectives>();
        check::<Platform>();
        check::<Ingress>();
        check::<StorageClass>();
        check::<Replicas>();
        check::<Resources>();
        check::<Probes>();
        check::<Placement>();
        check::<Metrics>();
        check::<Delivery>();
        check::<Rolling>();
        check::<Rollback>();
        check::<Observability>();
        check::<Alerts>();
        check::<Security>();
        check::<Secrets>();
        check::<Encryption>();
        check::<Recovery>();
    }
}

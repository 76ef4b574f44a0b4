//! Disaster recovery: standby region, replication, archive, drills.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default;
use crate::span::Spanned;
use crate::units::{Duration, Name};

/// Disaster recovery.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Recovery {
    /// The region that takes over.
    #[serde(default)]
    pub standby: Option<Standby>,
    /// How data gets to another region.
    #[serde(default)]
    pub replication: Vec<Replication>,
    /// How often the applied configuration is compared and copied to the standby.
    #[serde(default)]
    pub configuration_sync: Option<Spanned<Duration>>,
    /// How long people need to notice and decide; assumed until a drill measures it.
    #[serde(default = "default::seconds::<900>")]
    pub decide: Spanned<Duration>,
    /// How long it takes to verify that the platform works again; assumed until a drill measures it.
    #[serde(default = "default::seconds::<300>")]
    pub verify: Spanned<Duration>,
    /// The experiments that are run, and how often.
    #[serde(default)]
    pub drills: Vec<Drill>,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            standby: None,
            replication: Vec::new(),
            configuration_sync: None,
            decide: default::seconds::<900>(),
            verify: default::seconds::<300>(),
            drills: Vec::new(),
        }
    }
}

/// The region that takes over.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Standby {
    /// The region.
    pub region: Spanned<Name>,
    /// How much of the platform runs there already.
    #[serde(default)]
    pub mode: Spanned<StandbyMode>,
    /// How long it takes until the platform runs there; nothing for a hot standby.
    #[serde(default = "default::seconds::<600>")]
    pub start: Spanned<Duration>,
    /// How long clients keep the old address.
    #[serde(default = "default::seconds::<300>")]
    pub dns_ttl: Spanned<Duration>,
    /// Whether the document leaves the numbers out and the file assumes them.
    #[serde(default)]
    pub assumed: bool,
}

/// How much of the platform runs in the standby region.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StandbyMode {
    /// All of it.
    Hot,
    /// The stores, and few copies of the services.
    #[default]
    Warm,
    /// The stores alone.
    Pilot,
    /// Nothing but backups.
    Cold,
}

/// How a store's data gets to another region.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Replication {
    /// The store.
    pub store: Spanned<Name>,
    /// The region that it is copied to.
    pub to: Spanned<Name>,
    /// How far the copy may lag behind.
    #[serde(default = "default::seconds::<60>")]
    pub lag: Spanned<Duration>,
    /// Whether the document leaves the numbers out and the file assumes them.
    #[serde(default)]
    pub assumed: bool,
}

/// An experiment that is run again and again.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Drill {
    /// What is broken or restored.
    pub of: Spanned<DrillKind>,
    /// The store or service, when it is one in particular.
    #[serde(default)]
    pub on: Option<Spanned<Name>>,
    /// How often.
    pub every: Spanned<Duration>,
}

/// What a drill breaks or restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DrillKind {
    /// A pod is killed.
    Pod,
    /// A node is killed.
    Node,
    /// A zone is cut off.
    Zone,
    /// The primary region is lost.
    Region,
    /// A backup is restored from an empty target.
    Restore,
    /// A release is taken back.
    Rollback,
}

//! Access, secrets, encryption and masking.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Map, default};
use crate::span::Spanned;
use crate::units::{Duration, Name};

/// Access, secrets, encryption and masking.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Security {
    /// Who may do what in the cluster.
    #[serde(default)]
    pub roles: Map<Role>,
    /// Who says who somebody is.
    #[serde(default)]
    pub identity: Option<Identity>,
    /// Administrator access for a while, on request.
    #[serde(default)]
    pub just_in_time: Option<JustInTime>,
    /// Where secrets are kept.
    #[serde(default)]
    pub secrets: Secrets,
    /// What is encrypted.
    #[serde(default)]
    pub encryption: Encryption,
    /// How personal data is masked outside production, by store and field.
    #[serde(default)]
    pub masking: Map<BTreeMap<Spanned<String>, Spanned<Mask>>>,
}

/// Who may do what.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Role {
    /// The groups of the identity provider.
    pub groups: Vec<Spanned<String>>,
    /// What they may do.
    pub can: Spanned<Permission>,
    /// The environments in which they may; all when left out.
    #[serde(default)]
    pub environments: Vec<Spanned<Name>>,
    /// Whether the document leaves this out and the file assumes it.
    #[serde(default)]
    pub assumed: bool,
}

/// What a role may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    /// Read everything but secrets.
    View,
    /// View, and change workloads and their configuration.
    Deploy,
    /// Everything in the namespace.
    Admin,
}

/// Who says who somebody is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Identity {
    /// The OpenID Connect issuer.
    pub issuer: Spanned<String>,
    /// The claim that names the groups.
    #[serde(default = "groups_claim")]
    pub groups: Spanned<String>,
    /// Whether pods get cloud credentials by their service account instead of stored keys.
    #[serde(default)]
    pub workloads: Spanned<bool>,
    /// Whether the document leaves this out and the file assumes it.
    #[serde(default)]
    pub assumed: bool,
}

fn groups_claim() -> Spanned<String> {
    Spanned::unwritten("groups".to_owned())
}

/// Administrator access for a while.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct JustInTime {
    /// The role that is granted.
    pub role: Spanned<Name>,
    /// For how long at most.
    #[serde(default = "default::seconds::<3600>")]
    pub at_most: Spanned<Duration>,
    /// How many others must agree.
    #[serde(default = "default::one")]
    pub approvals: Spanned<u32>,
}

/// Where secrets are kept.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Secrets {
    /// Where their values come from.
    #[serde(default)]
    pub backend: Spanned<SecretBackend>,
    /// The address of the backend, for Vault.
    #[serde(default)]
    pub address: Option<Spanned<String>>,
    /// How often values are fetched again.
    #[serde(default = "default::seconds::<3600>")]
    pub refresh: Spanned<Duration>,
    /// The secrets that services use, by name.
    #[serde(default)]
    pub items: Map<Secret>,
}

impl Default for Secrets {
    fn default() -> Self {
        Self { backend: Spanned::default(), address: None, refresh: default::seconds::<3600>(), items: Map::new() }
    }
}

/// Where the values of secrets come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SecretBackend {
    /// Secrets that somebody puts into the cluster.
    #[default]
    Cluster,
    /// HashiCorp Vault or OpenBao.
    Vault,
    /// AWS Secrets Manager.
    Aws,
    /// Azure Key Vault.
    Azure,
    /// GCP Secret Manager.
    Gcp,
}

/// A secret that services use.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Secret {
    /// Its keys.
    #[serde(default)]
    pub keys: Vec<Spanned<String>>,
    /// Its path in the backend; `<platform>/<environment>/<name>` when left out.
    #[serde(default)]
    pub path: Option<Spanned<String>>,
    /// How often its value is changed.
    #[serde(default)]
    pub rotate: Option<Spanned<Duration>>,
}

/// What is encrypted.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Encryption {
    /// Whether stores and backups are encrypted at rest, unless they say otherwise.
    #[serde(default)]
    pub at_rest: Spanned<bool>,
    /// Whether every connection is encrypted.
    #[serde(default)]
    pub in_transit: Spanned<bool>,
}

/// How a field is masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mask {
    /// Replaced by a made-up value of the same kind, the same one every time.
    Fake,
    /// Replaced by a keyed hash.
    Hash,
    /// Replaced by nothing.
    Remove,
    /// Kept in its first or last characters only.
    Partial,
}

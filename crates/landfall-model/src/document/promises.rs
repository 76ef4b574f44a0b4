//! Claims, waivers and the escape hatches.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::span::Spanned;
use crate::units::{Date, Name};

/// A sentence of the document that promises something.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Claim {
    /// A short id, unique in the file.
    pub id: Spanned<String>,
    /// The promise, in one's own words.
    pub says: Spanned<String>,
    /// The line or lines of the document, such as `413` or `46..62`.
    #[serde(default)]
    pub line: Option<Spanned<crate::units::Range<u32>>>,
    /// What shows it; all of them must.
    #[serde(default)]
    pub shown_by: Vec<Spanned<ShownBy>>,
    /// Whether the document leaves this out and the file assumes it: then it has no line.
    #[serde(default)]
    pub assumed: bool,
}

/// What shows that a promise holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ShownBy {
    /// A rule of `landfall check` that finds nothing wrong, such as `zone-loss`, or on one thing: `zone-loss service.checkout`.
    Check(String),
    /// A rendered object of this kind and, after a `/`, name: `NetworkPolicy` or `Deployment/checkout`.
    Object(String),
    /// A part of the file, by its path, such as `services.checkout.probes.live`: the file itself is the evidence.
    Declared(String),
    /// A target of `landfall render`, such as `helm`. With a file, after `>` a line of it, and further lines each inside
    /// of the one before, all of that must be rendered: `terraform */main.tf > module "store_ledger" * > members = 3`.
    /// `*` stands for anything.
    Render(String),
    /// A measurement of `landfall up`, such as `flow stock-to-order` or `edge checkout ledger`.
    Up(String),
    /// A release by `landfall ship`, such as `canary` or `rollback`.
    Ship(String),
    /// A drill, such as `zone` or `restore ledger`.
    Drill(String),
}

/// A rule that is silenced on one thing until a date.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Waiver {
    /// The rule.
    pub rule: Spanned<String>,
    /// The thing, such as `service.report`, as the finding names it.
    pub on: Spanned<String>,
    /// Why it is accepted.
    pub because: Spanned<String>,
    /// The last day on which the waiver counts.
    pub until: Spanned<Date>,
}

/// A change to rendered objects.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Patch {
    /// The objects to change.
    pub target: PatchTarget,
    /// Merged into each of them, as RFC 7386 says: given keys replace, `null` removes.
    #[serde(default)]
    pub merge: Option<Spanned<serde_json::Value>>,
    /// Operations as RFC 6902 says.
    #[serde(default)]
    pub operations: Option<Spanned<serde_json::Value>>,
    /// Why the language is not enough.
    pub because: Spanned<String>,
}

/// The objects that a patch changes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PatchTarget {
    /// Their kind, such as `Deployment`.
    pub kind: Spanned<String>,
    /// The name of one; all of the kind when left out.
    #[serde(default)]
    pub name: Option<Spanned<String>>,
    /// Their namespace; any when left out.
    #[serde(default)]
    pub namespace: Option<Spanned<Name>>,
}

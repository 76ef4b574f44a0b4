//! Evidence: what was seen, of which images, where, when, by whom.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::{Client, CustomResource};
use landfall_model::Predicate;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::approval::digest_of;
use crate::audit::{Action, Author, Fact};
use crate::cluster::records::{self, Record};
use crate::cluster::{ClusterError, During as _, is_status};
use crate::release::{shortened, sorted};

/// The longest text of a piece of evidence.
const LONGEST: usize = 2000;

/// A piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "landfall.dev",
    version = "v1alpha1",
    kind = "Evidence",
    plural = "evidence",
    namespaced,
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceSpec {
    /// The architecture.
    pub architecture: String,
    /// Of what.
    pub kind: EvidenceKind,
    /// Where it was seen.
    pub environment: String,
    /// Of which images, by service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// Since when it held, for what lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// When it was seen.
    pub at: String,
    /// Whether it held.
    pub passed: bool,
    /// What was seen, for people.
    pub says: String,
    /// The digest of the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
    /// Who brought it.
    pub by: String,
    /// What a person signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    /// Their signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// Of what there is evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvidenceKind {
    /// The images ran.
    Ran,
    /// The tests passed.
    TestsPassed,
    /// A scan has no critical or high finding.
    NoVulnerabilities,
    /// Everything fits on the live nodes. Nobody brings it: the nodes are asked.
    CapacityFits,
    /// A restore was drilled.
    RestoreDrilled,
    /// The person on call has confirmed.
    OnCallConfirmed,
    /// Somebody says so.
    Attested,
}

impl From<Predicate> for EvidenceKind {
    fn from(predicate: Predicate) -> Self {
        match predicate {
            Predicate::TestsPassed => Self::TestsPassed,
            Predicate::NoVulnerabilities => Self::NoVulnerabilities,
            Predicate::CapacityFits => Self::CapacityFits,
            Predicate::RestoreDrilled => Self::RestoreDrilled,
            Predicate::OnCallConfirmed => Self::OnCallConfirmed,
            Predicate::Attested => Self::Attested,
        }
    }
}

impl EvidenceKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ran => "ran",
            Self::TestsPassed => "tests-passed",
            Self::NoVulnerabilities => "no-vulnerabilities",
            Self::CapacityFits => "capacity-fits",
            Self::RestoreDrilled => "restore-drilled",
            Self::OnCallConfirmed => "on-call-confirmed",
            Self::Attested => "attested",
        }
    }

    /// Whether it says something of certain images.
    pub fn is_about_images(self) -> bool {
        matches!(self, Self::Ran | Self::TestsPassed | Self::NoVulnerabilities)
    }

    /// Whether a person's word is all that shows it.
    pub fn is_said_by_a_person(self) -> bool {
        matches!(self, Self::RestoreDrilled | Self::OnCallConfirmed | Self::Attested)
    }
}

impl EvidenceSpec {
    /// When it was seen.
    pub(crate) fn time(&self) -> Option<Timestamp> {
        self.at.parse().ok()
    }

    /// For how long it had held when it was seen.
    pub(crate) fn ran_seconds(&self) -> Option<u64> {
        let since: Timestamp = self.since.as_deref()?.parse().ok()?;
        u64::try_from(self.time()?.duration_since(since).as_secs()).ok()
    }
}

impl Record for Evidence {
    fn architecture(&self) -> &str {
        &self.spec.architecture
    }
}

/// The evidence that was brought for an architecture.
pub async fn evidence(client: &Client, namespace: &str, architecture: &str) -> Result<Vec<EvidenceSpec>, ClusterError> {
    let listed = records::list::<Evidence>(client, namespace, architecture, "the evidence").await?;
    Ok(listed.into_iter().map(|evidence| evidence.spec).collect())
}

/// Keeps a piece of evidence, and writes that into the audit log first. Its name is the answer.
pub async fn attest(
    client: &Client,
    namespace: &str,
    author: &Author,
    mut evidence: EvidenceSpec,
) -> Result<String, ClusterError> {
    evidence.says = shortened(&evidence.says, LONGEST);
    let digest = digest_of(&sorted(&json!(evidence)).to_string());
    let name = format!("{}-{}-{}", evidence.architecture, evidence.kind.as_str(), &digest[7..19]);
    let mut pieces: Vec<String> =
        evidence.images.iter().map(|(service, image)| format!("image {service} {image}")).collect();
    pieces.extend(evidence.report.iter().map(|report| format!("report {report}")));
    let held = if evidence.passed { "held" } else { "did not hold" };
    author
        .write(Fact {
            action: Action::Attest,
            subject: name.clone(),
            digest: Some(digest),
            says: format!("{} {held} in {}: {}", evidence.kind.as_str(), evidence.environment, evidence.says),
            evidence: pieces,
        })
        .await?;
    match records::create(client, namespace, Evidence::new(&name, evidence)).await {
        Err(error) if is_status(&error, 409) => {}
        created => drop(created.during(|| format!("write the evidence `{name}`"))?),
    }
    Ok(name)
}

//! The audit log: who did what to which digest on what evidence. Entries are objects of the cluster that are written before what
//! they tell of, each with the hash of the one before.
//!
//! The name of an entry is its number, so of two writers only one gets it and the other takes the next: the log cannot fork.
//! The last entry is named once more in a `ConfigMap`, as a chain does not show that its end was cut off. Whoever may rewrite
//! everything in the cluster can write another log; an export that was kept elsewhere shows that ([`AuditLog::against`]).

mod chain;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, CustomResource, ResourceExt as _};
use serde::{Deserialize, Serialize};

pub use self::chain::{AuditLog, Head};

use crate::cluster::records::{self, Record};
use crate::cluster::{ClusterError, During as _, definition, if_there, is_status};
use crate::release::shortened;

/// The longest text of an entry: objects are bounded.
const LONGEST: usize = 2000;

/// The most pieces of evidence of an entry.
pub(crate) const PIECES: usize = 64;

/// The longest piece of evidence.
const PIECE: usize = 1000;

/// How often a number may be taken by somebody else before it is given up.
const ATTEMPTS: u32 = 200;

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "landfall.dev",
    version = "v1alpha1",
    kind = "AuditEntry",
    plural = "auditentries",
    namespaced,
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditEntrySpec {
    /// The architecture.
    pub architecture: String,
    /// From one, without a gap.
    pub number: u64,
    /// The hash of the entry before; empty for the first.
    pub previous: String,
    /// When, as the machine of the writer says.
    pub at: String,
    /// As whom the cluster knows the writer, and from which machine.
    pub who: String,
    /// What is done.
    pub action: Action,
    /// To what: a release, a list of signers, an environment.
    pub subject: String,
    /// The digest of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What is done, for people.
    pub says: String,
    /// On what evidence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// Over everything else in the entry.
    pub hash: String,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A release is written down.
    Propose,
    /// It begins: its gates are open.
    Begin,
    /// It is held.
    Hold,
    /// It goes back.
    TakeBack,
    /// Every service runs the new version.
    Succeed,
    /// Every service runs the old version again, or what was not begun never will be.
    Return,
    /// Every service has its old template again, and not all copies became ready.
    Fail,
    /// Somebody wants it stopped or taken back.
    Demand,
    /// Somebody approves.
    Approve,
    /// Somebody rejects.
    Reject,
    /// Who may approve is changed, or the change is proposed.
    ChangeSigners,
    /// Evidence for a gate is brought.
    Attest,
    /// Nothing is to be shipped.
    Freeze,
    /// It may be shipped again.
    Thaw,
    /// Images are admitted to the environment.
    Admit,
    /// The environment admits only what was approved from now on.
    Protect,
    /// Somebody was told, or could not be.
    Tell,
}

impl Action {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Propose => "propose",
            Self::Begin => "begin",
            Self::Hold => "hold",
            Self::TakeBack => "take-back",
            Self::Succeed => "succeed",
            Self::Return => "return",
            Self::Fail => "fail",
            Self::Demand => "demand",
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::ChangeSigners => "change-signers",
            Self::Attest => "attest",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::Admit => "admit",
            Self::Protect => "protect",
            Self::Tell => "tell",
        }
    }
}

impl Record for AuditEntry {
    fn architecture(&self) -> &str {
        &self.spec.architecture
    }
}

/// What is to be written down.
#[derive(Debug, Clone)]
pub struct Fact {
    /// What is done.
    pub action: Action,
    /// To what.
    pub subject: String,
    /// The digest of that.
    pub digest: Option<String>,
    /// What is done, for people.
    pub says: String,
    /// On what evidence.
    pub evidence: Vec<String>,
}

/// Who writes, and where.
#[derive(Clone)]
pub struct Author {
    client: Client,
    namespace: String,
    architecture: String,
    who: String,
}

impl Author {
    /// The author as the cluster knows them; `machine` is from where they write.
    pub async fn of(client: &Client, namespace: &str, architecture: &str, machine: &str) -> Result<Self, ClusterError> {
        definition::ensure(client).await?;
        let review = Api::<SelfSubjectReview>::all(client.clone())
            .create(&PostParams::default(), &SelfSubjectReview::default())
            .await;
        let review = if_there(review).during(|| "ask the cluster who we are".to_owned())?;
        // A cluster from before 1.28 does not say.
        let user = review.and_then(|review| review.status?.user_info?.username).unwrap_or_else(|| "unknown".to_owned());
        let who = if machine.is_empty() { user } else { format!("{user} from {machine}") };
        Ok(Self { client: client.clone(), namespace: namespace.to_owned(), architecture: architecture.to_owned(), who })
    }

    /// As whom the entries are written.
    pub fn who(&self) -> &str {
        &self.who
    }

    /// Adds an entry at the end of the log.
    pub async fn write(&self, fact: Fact) -> Result<AuditEntry, ClusterError> {
        let api = Api::<AuditEntry>::namespaced(self.client.clone(), &self.namespace);
        let mut last = match read_head(&self.client, &self.namespace, &self.architecture).await? {
            Some(head) => head,
            None => self.last_by_listing().await?,
        };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let spec = self.next(&last, &fact);
            let name = entry_name(&self.architecture, spec.number);
            match records::create(&self.client, &self.namespace, AuditEntry::new(&name, spec)).await {
                Ok(written) => {
                    self.move_head(&Head::of(&written.spec)).await?;
                    return Ok(written);
                }
                Err(error) if is_status(&error, 409) => {
                    // Somebody else has this number: theirs is the one before ours.
                    let other = api.get(&name).await.during(|| format!("read the audit entry `{name}`"))?;
                    last = Head::of(&other.spec);
                    if attempt == ATTEMPTS {
                        return Err(error)
                            .during(|| format!("write to the audit log: somebody else was faster {attempt} times"));
                    }
                }
                Err(error) => return Err(error).during(|| format!("write the audit entry `{name}`")),
            }
        }
    }

    fn next(&self, last: &Head, fact: &Fact) -> AuditEntrySpec {
        let mut spec = AuditEntrySpec {
            architecture: self.architecture.clone(),
            number: last.number + 1,
            previous: last.hash.clone(),
            at: Timestamp::now().to_string(),
            who: shortened(&self.who, 500),
            action: fact.action,
            subject: shortened(&fact.subject, 250),
            digest: fact.digest.clone(),
            says: shortened(&fact.says, LONGEST),
            evidence: fact.evidence.iter().take(PIECES).map(|piece| shortened(piece, PIECE)).collect(),
            hash: String::new(),
        };
        spec.hash = spec.content_hash();
        spec
    }

    /// Where nobody says which entry is the last.
    async fn last_by_listing(&self) -> Result<Head, ClusterError> {
        let log = AuditLog::read(&self.client, &self.namespace, &self.architecture).await?;
        Ok(log.entries.last().map(Head::of).unwrap_or_default())
    }

    /// Says which entry is the last, unless a later one is.
    async fn move_head(&self, head: &Head) -> Result<(), ClusterError> {
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace);
        let name = head_name(&self.architecture);
        let during = || format!("write the ConfigMap `{name}`");
        for _ in 0..ATTEMPTS {
            let found = if_there(api.get(&name).await).during(during)?;
            let written = match found {
                Some(mut found) => {
                    if Head::from_config(&found).is_some_and(|there| there.number >= head.number) {
                        return Ok(());
                    }
                    found.data = Some(head.data());
                    api.replace(&name, &PostParams::default(), &found).await
                }
                None => {
                    let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
                    let head = ConfigMap { metadata, data: Some(head.data()), ..ConfigMap::default() };
                    api.create(&PostParams::default(), &head).await
                }
            };
            match written {
                Err(error) if is_status(&error, 409) => {}
                written => return written.during(during).map(drop),
            }
        }
        // It only lags behind, and the next entry moves it.
        Ok(())
    }
}

impl AuditLog {
    /// The log of an architecture, as it is in the cluster.
    pub async fn read(client: &Client, namespace: &str, architecture: &str) -> Result<Self, ClusterError> {
        let head = read_head(client, namespace, architecture).await?;
        let listed = records::list::<AuditEntry>(client, namespace, architecture, "the audit log").await?;
        let mut entries: Vec<(String, AuditEntrySpec)> =
            listed.into_iter().map(|entry| (entry.name_any(), entry.spec)).collect();
        entries.sort_by(|a, b| (a.1.number, &a.0).cmp(&(b.1.number, &b.0)));
        let misnamed = entries
            .iter()
            .filter(|(name, spec)| *name != entry_name(architecture, spec.number))
            .map(|(name, _)| name.clone())
            .collect();
        Ok(Self { entries: entries.into_iter().map(|(_, spec)| spec).collect(), head, misnamed })
    }
}

async fn read_head(client: &Client, namespace: &str, architecture: &str) -> Result<Option<Head>, ClusterError> {
    let name = head_name(architecture);
    let found = Api::<ConfigMap>::namespaced(client.clone(), namespace).get(&name).await;
    let found = if_there(found).during(|| format!("read the ConfigMap `{name}`"))?;
    Ok(found.as_ref().and_then(Head::from_config))
}

fn head_name(architecture: &str) -> String {
    format!("landfall-audit-{architecture}")
}

fn entry_name(architecture: &str, number: u64) -> String {
    format!("{architecture}-{number:08}")
}

//! Approvals: statements that people sign with their SSH keys, and who of them counts.
//!
//! A statement names one release with its digest, or one list of signers with its; whoever changes a digest has no approval for
//! it. The signatures are those of `ssh-keygen -Y sign -n landfall`, so keys in files, in agents and in hardware will do.

mod signers;
mod statement;

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::{Client, CustomResource};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use ssh_key::{HashAlg, SshSig};

pub(crate) use self::signers::SKEW;
pub use self::signers::{Policy, Signer, SignersSpec, SignersState, parse_signers, propose_signers};
pub use self::statement::{Decision, Statement};

use crate::audit::{Action, Author, Fact};
use crate::cluster::records::{self, Record};
use crate::cluster::{ClusterError, During as _, is_status};
use crate::release::hexadecimal;

/// The namespace of the signatures: one that was made for something else is none here.
pub const SIGNATURE_NAMESPACE: &str = "landfall";

/// A signed statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource)]
#[kube(group = "landfall.dev", version = "v1alpha1", kind = "Approval", namespaced, schema = "disabled")]
#[serde(rename_all = "camelCase")]
pub struct ApprovalSpec {
    /// The architecture.
    pub architecture: String,
    /// The statement, as it was signed.
    pub statement: String,
    /// The signature, in the armour of OpenSSH.
    pub signature: String,
}

impl Record for Approval {
    fn architecture(&self) -> &str {
        &self.spec.architecture
    }
}

/// Why a signed statement does not count.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// The signature is not one of the statement.
    #[error("{0}")]
    NotValid(String),
    /// The cluster did not answer.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// A person whose statement counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Who.
    pub person: String,
    /// The fingerprint of the key.
    pub key: String,
    /// What was said.
    pub statement: Statement,
}

/// What has been said about one thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Who approves, each person once.
    pub approved: Vec<Counted>,
    /// Who rejects.
    pub rejected: Vec<Counted>,
    /// What does not count, and why.
    pub void: Vec<String>,
}

/// Whether a statement counts only for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// It counts at this time, or not.
    At(Timestamp),
    /// What it brought about stays.
    Never,
}

/// What is being approved.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The architecture.
    pub architecture: &'a str,
    /// The namespace.
    pub namespace: &'a str,
    /// Its name: that of a release, or of a list of signers.
    pub name: &'a str,
    /// Its digest.
    pub digest: &'a str,
}

impl Policy {
    /// Who of those who said something about it counts.
    pub fn tally(&self, subject: Subject<'_>, approvals: &[ApprovalSpec], expiry: Expiry) -> Tally {
        let mut tally = Tally::default();
        let (mut approved, mut rejected) = (BTreeMap::new(), BTreeMap::new());
        for approval in approvals {
            let Ok(statement) = Statement::parse(&approval.statement) else { continue };
            if statement.subject != subject.name || !matches!(statement.decision, Decision::Approve | Decision::Reject)
            {
                continue;
            }
            match self.check(&statement, approval, Some(subject), expiry) {
                Ok(counted) => {
                    let into = match statement.decision {
                        Decision::Reject => &mut rejected,
                        _ => &mut approved,
                    };
                    into.insert(counted.person.clone(), counted);
                }
                Err(why) => tally.void.push(why),
            }
        }
        tally.approved = approved.into_values().collect();
        tally.rejected = rejected.into_values().collect();
        tally
    }

    /// Who signed a statement, if they may and it is about this, now.
    pub fn check(
        &self,
        statement: &Statement,
        approval: &ApprovalSpec,
        subject: Option<Subject<'_>>,
        expiry: Expiry,
    ) -> Result<Counted, String> {
        let signature = SshSig::from_pem(&approval.signature)
            .map_err(|error| format!("what stands for a signature is none: {error}"))?;
        let key = signature.public_key().fingerprint(HashAlg::Sha256).to_string();
        let at = match expiry {
            Expiry::At(now) => now,
            Expiry::Never => statement.at,
        };
        let signer = self
            .signers
            .iter()
            .find(|signer| signer.key.key_data() == signature.public_key())
            .ok_or_else(|| format!("the key {key} is not among the signers of list {}", self.number))?;
        let person = &signer.person;
        if !signer.is_valid(at) {
            return Err(format!("the key of {person} ({key}) is not valid at {at}"));
        }
        signer
            .key
            .verify(SIGNATURE_NAMESPACE, approval.statement.as_bytes(), &signature)
            .map_err(|error| format!("the signature by {person} is not one of this statement: {error}"))?;
        if statement.decision.needs_a_group() && !self.of.iter().any(|of| signer.is(of)) {
            return Err(format!("{person} is in none of: {}", self.of.join(", ")));
        }
        if let Some(subject) = subject {
            if statement.architecture != subject.architecture || statement.namespace != subject.namespace {
                return Err(format!(
                    "{person} spoke of `{}` in `{}`, and this is `{}` in `{}`",
                    statement.architecture, statement.namespace, subject.architecture, subject.namespace
                ));
            }
            if statement.digest != subject.digest {
                return Err(format!(
                    "{person} spoke of the digest {}, and this is {}",
                    statement.digest, subject.digest
                ));
            }
        }
        if let Expiry::At(now) = expiry {
            if statement.at > now + SKEW {
                return Err(format!("{person} signed in the future, at {}", statement.at));
            }
            let end = statement.until.min(statement.at + self.expire());
            if now >= end {
                return Err(format!("what {person} signed at {} counted until {end}", statement.at));
            }
        }
        Ok(Counted { person: person.clone(), key, statement: statement.clone() })
    }
}

impl Tally {
    /// Whether so many people approve.
    pub fn is_enough(&self, count: u32) -> bool {
        u32::try_from(self.approved.len()).unwrap_or(u32::MAX) >= count
    }

    /// `ada (SHA256:…, 2026-11-28T12:00:00Z)`.
    pub fn names(counted: &[Counted]) -> Vec<String> {
        counted.iter().map(|one| format!("{} with the key {} at {}", one.person, one.key, one.statement.at)).collect()
    }
}

/// What has been signed about an architecture.
pub async fn approvals(
    client: &Client,
    namespace: &str,
    architecture: &str,
) -> Result<Vec<ApprovalSpec>, ClusterError> {
    let listed = records::list::<Approval>(client, namespace, architecture, "the approvals").await?;
    Ok(listed.into_iter().map(|approval| approval.spec).collect())
}

/// Keeps a signed statement that counts, and writes that into the audit log first. It is refused when it would not count.
pub async fn submit(
    client: &Client,
    author: &Author,
    policy: &Policy,
    subject: Subject<'_>,
    approval: ApprovalSpec,
    expiry: Expiry,
) -> Result<Counted, ApprovalError> {
    let statement = Statement::parse(&approval.statement).map_err(ApprovalError::NotValid)?;
    if statement.subject != subject.name {
        return Err(ApprovalError::NotValid(format!("the statement is about `{}`", statement.subject)));
    }
    let counted = policy.check(&statement, &approval, Some(subject), expiry).map_err(ApprovalError::NotValid)?;
    let action = if statement.decision == Decision::Reject { Action::Reject } else { Action::Approve };
    let because = statement.because.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    author
        .write(Fact {
            action,
            subject: subject.name.to_owned(),
            digest: Some(subject.digest.to_owned()),
            says: format!(
                "{} signs `{}` until {}{because}",
                counted.person,
                statement.decision.as_str(),
                statement.until
            ),
            evidence: vec![format!("key {}", counted.key), format!("statement {}", digest_of(&approval.statement))],
        })
        .await?;
    let name = format!("{}-{}", subject.name, &digest_of(&approval.signature)[7..19]);
    match records::create(client, subject.namespace, Approval::new(&name, approval)).await {
        // The same signature is there already.
        Err(error) if is_status(&error, 409) => {}
        created => drop(created.during(|| format!("write the approval `{name}`"))?),
    }
    Ok(counted)
}

/// SHA-256 of a text, as `sha256:…`.
pub fn digest_of(text: &str) -> String {
    format!("sha256:{}", hexadecimal(&Sha256::digest(text)))
}

#[cfg(test)]
pub(crate) mod tests;

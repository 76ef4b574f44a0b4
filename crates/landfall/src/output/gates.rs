//! What approvals, evidence, promotion and the audit log print for programs.

use landfall_deliver::{AuditEntrySpec, GateState, Policy, SignersSpec, Tally};
use serde::Serialize;

use super::VERSION;

/// What `audit` prints.
#[derive(Debug, Serialize)]
pub(crate) struct AuditOutput<'a> {
    version: u32,
    entries: &'a [AuditEntrySpec],
}

impl<'a> AuditOutput<'a> {
    pub(crate) fn new(entries: &'a [AuditEntrySpec]) -> Self {
        Self { version: VERSION, entries }
    }
}

/// What `audit verify` prints.
#[derive(Debug, Serialize)]
pub(crate) struct AuditVerifyOutput<'a> {
    version: u32,
    entries: usize,
    last: Option<&'a str>,
    problems: &'a [String],
}

impl<'a> AuditVerifyOutput<'a> {
    pub(crate) fn new(entries: &'a [AuditEntrySpec], problems: &'a [String]) -> Self {
        let last = entries.last().map(|entry| entry.hash.as_str());
        Self { version: VERSION, entries: entries.len(), last, problems }
    }
}

/// What `approve` and `reject` print.
#[derive(Debug, Serialize)]
pub(crate) struct ApprovalOutput<'a> {
    version: u32,
    subject: &'a str,
    digest: &'a str,
    decision: &'a str,
    by: &'a str,
    key: &'a str,
    until: String,
    approved: Vec<&'a str>,
    needed: u32,
}

impl<'a> ApprovalOutput<'a> {
    pub(crate) fn new(
        subject: &'a str,
        digest: &'a str,
        counted: &'a landfall_deliver::Counted,
        tally: &'a Tally,
        needed: u32,
    ) -> Self {
        Self {
            version: VERSION,
            subject,
            digest,
            decision: counted.statement.decision.as_str(),
            by: &counted.person,
            key: &counted.key,
            until: counted.statement.until.to_string(),
            approved: tally.approved.iter().map(|one| one.person.as_str()).collect(),
            needed,
        }
    }
}

/// What `signers` prints.
#[derive(Debug, Serialize)]
pub(crate) struct SignersOutput<'a> {
    version: u32,
    number: Option<u64>,
    of: &'a [String],
    count: Option<u32>,
    expire_seconds: Option<u64>,
    signers: Vec<SignerOutput<'a>>,
    proposed: Option<ProposedOutput<'a>>,
    problems: &'a [String],
}

#[derive(Debug, Serialize)]
struct SignerOutput<'a> {
    person: &'a str,
    groups: &'a [String],
    key: String,
}

#[derive(Debug, Serialize)]
struct ProposedOutput<'a> {
    name: String,
    digest: String,
    list: &'a str,
    approved: Vec<&'a str>,
}

impl<'a> SignersOutput<'a> {
    pub(crate) fn new(
        policy: Option<&'a Policy>,
        proposed: Option<&'a (SignersSpec, Tally)>,
        problems: &'a [String],
    ) -> Self {
        let signer = |signer: &'a landfall_deliver::Signer| SignerOutput {
            person: &signer.person,
            groups: &signer.groups,
            key: signer.fingerprint(),
        };
        Self {
            version: VERSION,
            number: policy.map(|policy| policy.number),
            of: policy.map(|policy| policy.of.as_slice()).unwrap_or_default(),
            count: policy.map(|policy| policy.count),
            expire_seconds: policy.map(|policy| policy.expire_seconds),
            signers: policy.iter().flat_map(|policy| &policy.signers).map(signer).collect(),
            proposed: proposed.map(|(list, tally)| ProposedOutput {
                name: list.name(),
                digest: list.digest(),
                list: &list.list,
                approved: tally.approved.iter().map(|one| one.person.as_str()).collect(),
            }),
            problems,
        }
    }
}

/// What `attest` prints.
#[derive(Debug, Serialize)]
pub(crate) struct AttestOutput<'a> {
    /// The version.
    pub(crate) version: u32,
    /// The names of the objects.
    pub(crate) evidence: Vec<AttestedOutput<'a>>,
}

/// One piece of evidence.
#[derive(Debug, Serialize)]
pub(crate) struct AttestedOutput<'a> {
    /// The name of the object.
    pub(crate) name: String,
    /// What was brought.
    #[serde(flatten)]
    pub(crate) evidence: &'a landfall_deliver::EvidenceSpec,
}

/// What `freeze` and `thaw` print.
#[derive(Debug, Serialize)]
pub(crate) struct FreezeOutput<'a> {
    /// The version.
    pub(crate) version: u32,
    /// The environment.
    pub(crate) environment: &'a str,
    /// Whether it is frozen now.
    pub(crate) frozen: bool,
    /// The freeze: the one there is, or the one that was taken away.
    pub(crate) freeze: Option<&'a landfall_deliver::FreezeSpec>,
}

/// What `protect` prints.
#[derive(Debug, Serialize)]
pub(crate) struct ProtectOutput<'a> {
    /// The version.
    pub(crate) version: u32,
    /// The images that are admitted.
    pub(crate) images: &'a [String],
}

/// How a gate stands.
#[derive(Debug, Serialize)]
pub(crate) struct GateOutput<'a> {
    gate: &'a str,
    standing: &'static str,
    why: &'a str,
    bring: Option<&'a str>,
    evidence: &'a [String],
}

impl<'a> GateOutput<'a> {
    pub(crate) fn new(state: &'a GateState) -> Self {
        Self {
            gate: &state.gate,
            standing: state.standing.as_str(),
            why: &state.why,
            bring: state.bring.as_deref(),
            evidence: &state.evidence,
        }
    }
}

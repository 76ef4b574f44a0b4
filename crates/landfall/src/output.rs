//! What is printed for programs. Each document has a `version`, which changes when a field changes its meaning.

mod gates;
mod windows;

use landfall_check::{LedgerRow, Proof, Report, Verdict};
use landfall_model::{Finding, Sources, Span};
use serde::Serialize;

pub(crate) use self::gates::{
    ApprovalOutput, AttestOutput, AttestedOutput, AuditOutput, AuditVerifyOutput, FreezeOutput, GateOutput,
    ProtectOutput, SignersOutput,
};
pub(crate) use self::windows::WindowsOutput;

use crate::commands::claims::Measured;

/// The version of every JSON document that is printed.
pub(crate) const VERSION: u32 = 1;

/// What `check` prints.
#[derive(Debug, Serialize)]
pub(crate) struct CheckOutput<'a> {
    version: u32,
    findings: Vec<FindingOutput<'a>>,
    waived: Vec<FindingOutput<'a>>,
    proofs: Vec<ProofOutput<'a>>,
}

#[derive(Debug, Serialize)]
struct FindingOutput<'a> {
    rule: &'a str,
    severity: &'a str,
    message: &'a str,
    #[serde(flatten)]
    place: Place<'a>,
    why: &'a [String],
    help: Option<&'a str>,
    subject: Option<&'a str>,
    labels: Vec<LabelOutput<'a>>,
    environments: &'a [String],
}

#[derive(Debug, Serialize)]
struct LabelOutput<'a> {
    #[serde(flatten)]
    place: Place<'a>,
    text: &'a str,
}

#[derive(Debug, Serialize)]
struct ProofOutput<'a> {
    rule: &'a str,
    subject: &'a str,
    statement: &'a str,
    verdict: &'a str,
    derivation: &'a [String],
    assumed: &'a [String],
    #[serde(flatten)]
    place: Place<'a>,
    environments: &'a [String],
}

/// A place in a file; all empty for a value that nobody wrote.
#[derive(Debug, Serialize)]
struct Place<'a> {
    file: Option<&'a str>,
    line: Option<usize>,
    column: Option<usize>,
}

impl<'a> Place<'a> {
    fn of(span: Span, sources: &'a Sources) -> Self {
        let position = sources.position(span);
        Self {
            file: position.map(|_| sources.name(span.source())),
            line: position.map(|position| position.line),
            column: position.map(|position| position.column),
        }
    }
}

impl<'a> CheckOutput<'a> {
    /// The document of a report.
    pub(crate) fn new(report: &'a Report, sources: &'a Sources) -> Self {
        Self {
            version: VERSION,
            findings: report.findings.iter().map(|finding| FindingOutput::new(finding, sources)).collect(),
            waived: report.waived.iter().map(|finding| FindingOutput::new(finding, sources)).collect(),
            proofs: report.proofs.iter().map(|proof| ProofOutput::new(proof, sources)).collect(),
        }
    }
}

impl<'a> FindingOutput<'a> {
    fn new(finding: &'a Finding, sources: &'a Sources) -> Self {
        let label =
            |label: &'a landfall_model::Label| LabelOutput { place: Place::of(label.span, sources), text: &label.text };
        Self {
            rule: finding.rule,
            severity: finding.severity.as_str(),
            message: &finding.message,
            place: Place::of(finding.primary.span, sources),
            why: &finding.why,
            help: finding.help.as_deref(),
            subject: finding.subject.as_deref(),
            labels: finding.secondary.iter().map(label).collect(),
            environments: &finding.environments,
        }
    }
}

impl<'a> ProofOutput<'a> {
    fn new(proof: &'a Proof, sources: &'a Sources) -> Self {
        Self {
            rule: proof.rule,
            subject: &proof.subject,
            statement: &proof.statement,
            verdict: verdict(proof.verdict),
            derivation: &proof.derivation,
            assumed: &proof.assumed,
            place: Place::of(proof.span, sources),
            environments: &proof.environments,
        }
    }
}

/// The word for a verdict.
pub(crate) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Proved => "proved",
        Verdict::Refuted => "refuted",
        Verdict::Undecided => "undecided",
    }
}

/// What `claims` prints.
#[derive(Debug, Serialize)]
pub(crate) struct ClaimsOutput<'a> {
    version: u32,
    environment: Option<&'a str>,
    claims: Vec<ClaimOutput<'a>>,
}

#[derive(Debug, Serialize)]
struct ClaimOutput<'a> {
    id: &'a str,
    says: &'a str,
    document_line: Option<&'a str>,
    state: &'a str,
    evidence: Vec<EvidenceOutput<'a>>,
    to_measure: &'a [String],
    /// What the last runs on this machine have shown.
    measured_here: Vec<Measured>,
    #[serde(flatten)]
    place: Place<'a>,
}

#[derive(Debug, Serialize)]
struct EvidenceOutput<'a> {
    shown_by: &'a str,
    state: &'a str,
}

impl<'a> ClaimsOutput<'a> {
    /// The document of a ledger.
    pub(crate) fn new(
        rows: &[&'a LedgerRow],
        measured: &dyn Fn(&LedgerRow) -> Vec<Measured>,
        environment: Option<&'a str>,
        sources: &'a Sources,
    ) -> Self {
        let evidence = |row: &'a LedgerRow| {
            let item = |(shown_by, state): &'a (String, landfall_check::ClaimState)| EvidenceOutput {
                shown_by,
                state: state.as_str(),
            };
            row.evidence.iter().map(item).collect()
        };
        let claims = rows.iter().map(|row| ClaimOutput {
            id: &row.id,
            says: &row.says,
            document_line: row.line.as_deref(),
            state: row.state.as_str(),
            evidence: evidence(row),
            to_measure: &row.to_measure,
            measured_here: measured(row),
            place: Place::of(row.span, sources),
        });
        Self { version: VERSION, environment, claims: claims.collect() }
    }
}

/// What `diff` prints.
#[derive(Debug, Serialize)]
pub(crate) struct DiffOutput<'a> {
    /// The version.
    pub(crate) version: u32,
    /// The left side, as the user named it.
    pub(crate) a: &'a str,
    /// The right side.
    pub(crate) b: &'a str,
    /// What differs.
    pub(crate) changes: Vec<ChangeOutput>,
}

/// One value that differs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ChangeOutput {
    /// Its path, such as `services.checkout.replicas.min`.
    pub(crate) path: String,
    /// The value in `a`; absent when it has none.
    pub(crate) a: Option<String>,
    /// The value in `b`.
    pub(crate) b: Option<String>,
}

/// What `engine node` prints.
#[derive(Debug, Serialize)]
pub(crate) struct NodesOutput<'a> {
    /// The version.
    pub(crate) version: u32,
    /// Whether nothing reaches a node that is cut off or killed; where pods have loopback addresses, traffic goes on.
    pub(crate) stops_traffic: bool,
    /// All nodes, or those that were changed.
    pub(crate) nodes: &'a [NodeOutput],
}

/// A node of an engine, as the engine tells it and as it is printed.
#[derive(Debug, Serialize, serde::Deserialize)]
pub(crate) struct NodeOutput {
    /// Its name.
    pub(crate) name: String,
    /// Its zone, if it is in one.
    pub(crate) zone: Option<String>,
    /// `running`, `cut` or `killed`.
    pub(crate) state: String,
    /// How many pods are bound to it and not at their end.
    pub(crate) pods: usize,
}

/// What `engine clock` prints.
#[derive(Debug, Serialize)]
pub(crate) struct ClockOutput {
    /// The version.
    pub(crate) version: u32,
    /// The time on the clock.
    pub(crate) time: String,
    /// The time of the machine.
    pub(crate) machine: String,
    /// How far the clock is ahead.
    pub(crate) offset_seconds: f64,
    /// How many times as fast as the machine's it runs.
    pub(crate) speed: f64,
}

/// What `engine images` prints.
#[derive(Debug, Serialize)]
pub(crate) struct ImagesOutput {
    /// The version.
    pub(crate) version: u32,
    /// How many entries the catalogue has.
    pub(crate) entries: usize,
}

/// What `ship --plan` prints, and `ship` when it refuses.
#[derive(Debug, Serialize)]
pub(crate) struct ProposalOutput<'a> {
    version: u32,
    namespace: &'a str,
    digest: &'a str,
    automatic_rollback: bool,
    services: Vec<ShippedOutput<'a>>,
    gates: Vec<GateOutput<'a>>,
    refusals: &'a [String],
    notes: &'a [String],
}

/// A service of a release.
#[derive(Debug, Serialize)]
struct ShippedOutput<'a> {
    name: &'a str,
    from: &'a str,
    to: &'a str,
    by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'a [String]>,
}

impl<'a> ShippedOutput<'a> {
    fn new(service: &'a landfall_deliver::ServiceRelease, plan: Option<&'a [String]>) -> Self {
        let by = service.strategy.as_str();
        Self { name: &service.name, from: &service.old_image, to: &service.new_image, by, plan }
    }
}

impl<'a> ProposalOutput<'a> {
    /// The document of a proposal.
    pub(crate) fn new(version: u32, proposal: &'a landfall_deliver::Proposal) -> Self {
        let services = proposal.spec.services.iter().zip(&proposal.lines);
        Self {
            version,
            namespace: &proposal.namespace,
            digest: &proposal.spec.digest,
            automatic_rollback: proposal.spec.automatic,
            services: services.map(|(service, lines)| ShippedOutput::new(service, Some(lines))).collect(),
            gates: proposal.gates.iter().map(GateOutput::new).collect(),
            refusals: &proposal.refusals,
            notes: &proposal.notes,
        }
    }
}

/// What `releases` prints.
#[derive(Debug, Serialize)]
pub(crate) struct ReleasesOutput<'a> {
    /// The version.
    pub(crate) version: u32,
    /// By their numbers.
    pub(crate) releases: Vec<ReleaseOutput<'a>>,
    /// What is otherwise in the cluster than the releases say.
    pub(crate) drift: &'a [String],
}

/// What `release show` prints, and whatever carries a release when it has ended.
#[derive(Debug, Serialize)]
pub(crate) struct ReleaseOutput<'a> {
    version: u32,
    name: String,
    namespace: String,
    digest: &'a str,
    state: &'static str,
    why: Option<&'a landfall_deliver::Cause>,
    takes_back: Option<&'a str>,
    way_back: Option<WayBackOutput>,
    services: Vec<ShippedOutput<'a>>,
    gates: Vec<GateOutput<'a>>,
    last_verdict: Option<&'a landfall_deliver::Analysis>,
    history: &'a [landfall_deliver::Entry],
    notices: Vec<NoticeOutput<'a>>,
}

/// How long the way back of a release took.
#[derive(Debug, Serialize)]
struct WayBackOutput {
    #[serde(flatten)]
    took: landfall_deliver::Took,
    /// Whether that was within what is promised; nothing where nothing is.
    kept: Option<bool>,
}

impl WayBackOutput {
    fn new(took: landfall_deliver::Took) -> Self {
        Self { took, kept: took.promised_seconds.map(|_| !took.is_late()) }
    }
}

/// A message about a release or a pipeline, and its receipt.
#[derive(Debug, Serialize)]
pub(crate) struct NoticeOutput<'a> {
    state: &'static str,
    attempts: u32,
    at: Option<&'a str>,
    says: Option<&'a str>,
    message: &'a landfall_deliver::Message,
}

impl<'a> NoticeOutput<'a> {
    pub(crate) fn new(notice: &'a landfall_deliver::Notice) -> Self {
        use landfall_deliver::Receipt;
        let (state, at, says) = match &notice.receipt {
            Receipt::ToSend { trouble } => ("to-send", None, trouble.as_deref()),
            Receipt::Sent { at, answer } => ("sent", Some(at.as_str()), Some(answer.as_str())),
            Receipt::GivenUp { at, why } => ("given-up", Some(at.as_str()), Some(why.as_str())),
        };
        Self { state, attempts: notice.attempts, at, says, message: &notice.message }
    }
}

impl<'a> ReleaseOutput<'a> {
    /// The document of a release.
    pub(crate) fn new(version: u32, release: &'a landfall_deliver::Release) -> Self {
        use kube::ResourceExt as _;
        let status = release.status.as_ref();
        Self {
            version,
            name: release.name_any(),
            namespace: release.namespace().unwrap_or_default(),
            digest: &release.spec.digest,
            state: landfall_deliver::state_of(release),
            why: status.and_then(|status| status.phase.cause()),
            takes_back: release.spec.takes_back.as_deref(),
            way_back: release.way_back().map(WayBackOutput::new),
            services: release.spec.services.iter().map(|service| ShippedOutput::new(service, None)).collect(),
            gates: status.iter().flat_map(|status| &status.gates).map(GateOutput::new).collect(),
            last_verdict: status.and_then(|status| status.analysis.as_ref()),
            history: status.map(|status| status.history.as_slice()).unwrap_or_default(),
            notices: status.iter().flat_map(|status| &status.notices).map(NoticeOutput::new).collect(),
        }
    }
}

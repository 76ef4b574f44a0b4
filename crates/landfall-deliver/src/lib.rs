//! Releases: what is shipped, in which order, by which steps, whether it is good, and the way back.
//!
//! Everything is done through the Kubernetes API, so that the embedded engine and any cluster are one path. What decides is
//! pure (`rollout`, `analysis`, `plan`); what acts (`carry`) writes down what it is going to do in a `Release` of the cluster,
//! and can be stopped anywhere and followed by somebody else.

mod admission;
mod analysis;
mod approval;
mod audit;
mod begin;
mod carry;
mod cluster;
mod drift;
mod freeze;
mod gate;
mod metric;
mod notify;
mod observe;
mod plan;
mod promote;
mod propose;
mod release;
mod rollout;
mod schema;
#[cfg(test)]
mod simulation;
mod windows;

pub use admission::{People, protect, protection};
pub use analysis::{Analysis, Verdict};
pub use approval::{
    ApprovalError, ApprovalSpec, Counted, Decision, Expiry, Policy, SIGNATURE_NAMESPACE, Signer, SignersSpec,
    SignersState, Statement, Subject, Tally, approvals, digest_of, parse_signers, propose_signers, submit,
};
pub use audit::{Action, AuditEntrySpec, AuditLog, Author, Fact, Head};
pub use carry::{CarryError, Demand, Telling, carry, demand, read, tell_waiting, time_left};
pub use cluster::ClusterError;
pub use cluster::lock::{Contender, Lock, LockError};
pub use drift::drift;
pub use freeze::{FreezeSpec, freeze, read as read_freeze, thaw};
pub use gate::{
    EvidenceKind, EvidenceSpec, Gate, GateState, Report, ReportError, Severity, Standing, Window, attest, evidence,
    read_report, required,
};
pub use notify::{
    CommitAuthor, Impact, Means, Message, Notice, PipelineNews, Receipt, ReleaseNews, ServiceImpact, ShippedService,
    Told, append, pause, post, told,
};
pub use plan::{CanaryPlan, CanarySize, CountedBy, PrometheusAt, Split, Strategy};
pub use promote::{Running, what_runs};
pub use propose::{Proposal, Wanted, create, has_digest, list, phase_of, propose, propose_return, state_of};
pub use release::{
    Entry, Release, ReleaseSpec, ReleaseStatus, Replanned, ServiceRelease, Took, Verification, WayBack, tells,
};
pub use rollout::{Cause, Phase, Reason, Return, Stage};
pub use schema::SchemaUse;
pub use windows::{Clock, Kept, Limits, keep, keep_once, next_window};

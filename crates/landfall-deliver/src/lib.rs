//! Releases: what is shipped, in which order, by which steps, whether it is good, and the way back.
//!
//! Everything is done through the Kubernetes API, so that the embedded engine and any cluster are one path. What decides is
//! pure (`rollout`, `analysis`, `plan`); what acts (`carry`) writes down what it is going to do in a `Release` of the cluster,
//! and can be stopped anywhere and followed by somebody else.

mod analysis;
mod carry;
mod cluster;
mod plan;
mod propose;
mod release;
mod rollout;

pub use analysis::{Analysis, Verdict};
pub use carry::{CarryError, Demand, carry, demand, read};
pub use cluster::ClusterError;
pub use cluster::lock::{Lock, LockError};
pub use plan::{CanaryPlan, Strategy};
pub use propose::{Proposal, Wanted, create, list, phase_of, propose, propose_return};
pub use release::{Entry, Release, ReleaseSpec, ReleaseStatus, ServiceRelease};
pub use rollout::{Cause, Phase, Reason};

//! What the tests of several crates share: golden files, replayed transcripts, the schemas of Kubernetes, the real tools, generated files,
//! and (feature `control-plane`) a real control plane with a kubelet that only says that pods run.
//!
//! Tests depend on this crate as a dev-dependency, so it may read files and the environment; no shipped code sees it.
//! It knows no type of Landfall: trees come as maps, objects as JSON values.

#[cfg(feature = "control-plane")]
mod control_plane;
mod generated;
mod golden;
#[cfg(feature = "control-plane")]
mod kubelet;
mod requirement;
#[cfg(feature = "control-plane")]
pub mod scenario;
mod schemas;
mod tools;
mod transcript;

#[cfg(feature = "control-plane")]
pub use control_plane::{Applied, Applier, Apply, ApplyError, ControlPlane, Pieces, StartError};
pub use generated::generated;
pub use golden::{check_text, check_tree};
#[cfg(feature = "control-plane")]
pub use kubelet::{FakeKubelet, FakeNode};
pub use requirement::{require_or_skip, use_or_skip};
pub use schemas::{Missing, Schemas};
pub use tools::{MissingTool, Tool};
pub use transcript::{ReplayError, mask_times, replay};

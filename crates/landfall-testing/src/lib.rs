//! What the tests of several crates share: golden files, replayed transcripts, and the schemas of Kubernetes.
//!
//! Tests depend on this crate as a dev-dependency, so it may read files and the environment; no shipped code sees it.
//! It knows no type of Landfall: trees come as maps, objects as JSON values.

mod golden;
mod requirement;
mod schemas;
mod transcript;

pub use golden::{check_text, check_tree};
pub use requirement::require_or_skip;
pub use schemas::{Missing, Schemas};
pub use transcript::{ReplayError, mask_times, replay};

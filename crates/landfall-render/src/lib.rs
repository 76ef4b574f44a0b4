//! Renders an architecture as plain files.
//!
//! [`kubernetes()`] makes the objects that a cluster or the embedded engine receives. Everything here is pure, and the
//! same architecture gives the same bytes. [`render()`] writes the objects of all environments for a [`Target`].

mod argocd;
mod dockerfile;
mod docs;
mod helm;
mod json;
mod kubernetes;
mod kustomize;
mod layers;
mod monitoring;
mod object;
mod pipeline;
mod target;
mod terraform;
mod yaml;

pub use docs::{ClaimRow, DOCUMENT, docs};
pub use kubernetes::{Rendered, kubernetes};
pub use monitoring::{business_metric, monitoring};
pub use object::{FileTree, Object};
pub use pipeline::local::{PipelineStage, PipelineStep, pipeline};
pub use pipeline::secret_variable;
pub use target::{Output, Target, Variant, render};

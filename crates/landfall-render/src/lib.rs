//! Renders an architecture as plain files.
//!
//! [`kubernetes()`] makes the objects that a cluster or the embedded engine receives. Everything here is pure, and the
//! same architecture gives the same bytes.

mod json;
mod kubernetes;
mod object;
mod yaml;

pub use kubernetes::{Rendered, kubernetes};
pub use object::{FileTree, Object};

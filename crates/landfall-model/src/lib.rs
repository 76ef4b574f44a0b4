//! The language of `landfall.yaml`.
//!
//! [`File::read`] turns text into a tree that knows its places; [`File::architecture`] lays one environment's
//! overrides over it, reads it as a typed [`Document`] and resolves its names into an [`Architecture`]. Whatever the
//! user got wrong is a [`Finding`] that points into the file. Everything here is pure: no I/O, no clock, no randomness.

mod architecture;
mod diagnostic;
mod document;
mod endpoint;
mod evidence;
mod file;
mod lower;
mod schema;
mod span;
mod spanned;
mod tree;
mod units;

pub use architecture::{Architecture, Connection, Element, Transport, Verb};
pub use diagnostic::{Finding, Label, Severity, suggestion, unknown_name};
pub use document::*;
pub use endpoint::{ARGOCD_NAMESPACE, ARGOCD_TRACKING, ENGINE_CLOCK, SHIP_MANAGER};
pub use evidence::Evidence;
pub use file::{File, OVERRIDABLE};
pub use schema::json_schema;
pub use span::{Position, SourceId, Sources, Span, Spanned};
pub use units::{
    Arrow, Bytes, Cpu, Date, Duration, Name, Percent, Port, Range, RangeError, Rate, Reference, Target, Throughput,
    TimeOfDay, UnitError,
};

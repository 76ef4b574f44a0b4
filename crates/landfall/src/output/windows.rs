//! What the keeper of time windows prints for programs.

use landfall_deliver::{Kept, Limits};
use serde::Serialize;

use super::VERSION;

/// What `windows` prints.
#[derive(Debug, Serialize)]
pub(crate) struct WindowsOutput<'a> {
    version: u32,
    set: Vec<KeptOutput<'a>>,
}

/// An autoscaler whose bounds were set.
#[derive(Debug, Serialize)]
struct KeptOutput<'a> {
    at: String,
    namespace: &'a str,
    name: &'a str,
    before: LimitsOutput,
    now: LimitsOutput,
}

#[derive(Debug, Serialize)]
struct LimitsOutput {
    min: u32,
    max: u32,
}

impl From<Limits> for LimitsOutput {
    fn from(Limits { min, max }: Limits) -> Self {
        Self { min, max }
    }
}

impl<'a> WindowsOutput<'a> {
    /// The document of what was set.
    pub(crate) fn new(set: &'a [Kept]) -> Self {
        let of = |kept: &'a Kept| KeptOutput {
            at: kept.at.to_string(),
            namespace: &kept.namespace,
            name: &kept.name,
            before: kept.before.into(),
            now: kept.now.into(),
        };
        Self { version: VERSION, set: set.iter().map(of).collect() }
    }
}

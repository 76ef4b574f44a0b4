//! Proves or refutes what an architecture promises.
//!
//! [`check`] runs every rule of [`RULES`] over one environment: the architecture on one side, the objects rendered
//! from it as plain values, patches applied, on the other. It returns findings and proofs; a proof shows its derivation
//! and names the numbers that nobody has measured yet. Everything here is pure: today's date is an argument.

mod claims;
pub mod cluster;
mod facts;
mod report;
mod rule;
mod rules;
mod waivers;

pub use claims::rendered::Trees;
pub use claims::{ClaimState, LedgerRow, ledger, targets_of_claims};
pub use report::{Proof, Report, Verdict, merge};
pub use rule::{Context, Rule, Subject};
pub use rules::RULES;

use landfall_model::{Architecture, Date, Finding};

/// What was rendered from the architecture, as plain values.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rendering<'a> {
    /// The objects with the patches applied; empty when nothing was rendered, and then no rule speaks of objects.
    pub objects: &'a [serde_json::Value],
    /// What was found while rendering; waivers count for it too.
    pub findings: &'a [Finding],
}

/// Runs every rule over one environment.
///
/// `today` decides what has reached its end of life and which waivers still count.
pub fn check(architecture: &Architecture, rendering: Rendering<'_>, today: Date) -> Report {
    let context = Context::new(architecture, rendering.objects, today);
    let mut report = Report { findings: rendering.findings.to_vec(), ..Report::default() };
    for rule in RULES {
        if let Some(run) = rule.run {
            run(&context, &mut report);
        }
    }
    waivers::apply(&context, &mut report);
    report.sort();
    report
}

//! What a rule is, and what it may look at.

use landfall_model::{Architecture, Date, Severity};

use crate::report::Report;
use crate::rules::{Placement, Rendered};

/// What a rule is about, in the order in which `landfall explain` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The file as text and its names.
    Language,
    /// Capacity, zones and nodes.
    Capacity,
    /// Availability, recovery time and recovery point.
    Recovery,
    /// Rollouts and scaling.
    Rollout,
    /// Who reaches whom.
    Isolation,
    /// Secrets, TLS, residency, images.
    Security,
    /// What is declared but cannot work, or is promised but not declared.
    Completeness,
    /// Pipelines, checklists, end of life, claims and waivers.
    Delivery,
}

/// A rule: its name is a contract, because waivers and claims use it.
pub struct Rule {
    /// The kebab-case name.
    pub name: &'static str,
    /// What it is about.
    pub subject: Subject,
    /// The gravest severity that it reports.
    pub severity: Severity,
    /// What it looks for, in one sentence.
    pub summary: &'static str,
    /// Why it matters and how it decides, in whole sentences, with the source of each fact.
    pub explanation: &'static str,
    /// A file on which it finds nothing.
    pub passing: &'static str,
    /// A file on which it finds something.
    pub failing: &'static str,
    /// The rule itself; `None` for what the language finds while it reads the file.
    pub run: Option<fn(&Context<'_>, &mut Report)>,
}

/// What a rule may look at.
pub struct Context<'a> {
    /// The architecture of one environment.
    pub architecture: &'a Architecture,
    /// The rendered objects, patches applied.
    pub objects: &'a [serde_json::Value],
    /// Today.
    pub today: Date,
    /// The workloads, autoscalers and budgets among the objects.
    pub(crate) rendered: Rendered<'a>,
    /// The nodes with everything that is placed on them, or `None` without a node.
    pub(crate) placement: Option<Placement<'a>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(architecture: &'a Architecture, objects: &'a [serde_json::Value], today: Date) -> Self {
        let (rendered, placement) = (Rendered::of(objects), Placement::new(architecture, objects));
        Self { architecture, objects, today, rendered, placement }
    }
}

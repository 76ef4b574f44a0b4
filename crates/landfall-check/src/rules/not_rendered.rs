//! What is declared and no rendered object can say: an entry for `landfall explain` and for waivers; the findings are
//! made by the renderer.

use landfall_model::Severity;

use crate::rule::{Rule, Subject};

pub(super) const RULE: Rule = Rule {
    name: "not-rendered",
    subject: Subject::Completeness,
    severity: Severity::Error,
    summary: "Whatever the file declares is in the rendered objects.",
    explanation: "Some declarations have no portable object: the upper bound of a time window under KEDA, a copy of a \
                  store in another cluster, a rate limit for an unknown ingress class. Landfall says so rather than \
                  leave the declaration without effect; the finding says what to set up by hand. It is an error where \
                  the objects would not work without it, such as a secret back end without an address.",
    passing: include_str!("../../tests/it/rules/not-rendered/ok.yaml"),
    failing: include_str!("../../tests/it/rules/not-rendered/bad.yaml"),
    run: None,
};

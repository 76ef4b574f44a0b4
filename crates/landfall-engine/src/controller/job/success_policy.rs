//! When an indexed job has succeeded before all of it has, by the first rule of `successPolicy` that holds. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, SuccessPolicyRule};

use super::indexes;
use super::plan::is_indexed;

/// What the job says when a rule holds.
pub(super) fn met(job: &Job, succeeded: &BTreeSet<i32>) -> Option<String> {
    let spec = job.spec.as_ref().filter(|_| is_indexed(job))?;
    let rules = &spec.success_policy.as_ref()?.rules;
    let completions = spec.completions.unwrap_or_default();
    let index = rules.iter().position(|rule| !succeeded.is_empty() && holds(rule, succeeded, completions))?;
    Some(format!("Matched rules at index {index}"))
}

fn holds(rule: &SuccessPolicyRule, succeeded: &BTreeSet<i32>, completions: i32) -> bool {
    let enough = |number: usize| {
        let wanted = rule.succeeded_count.and_then(|count| usize::try_from(count).ok());
        wanted.is_some_and(|wanted| number >= wanted)
    };
    let Some(text) = &rule.succeeded_indexes else { return enough(succeeded.len()) };
    let mut required = indexes::parse(text);
    required.retain(|index| *index < completions);
    let done = required.intersection(succeeded).count();
    !required.is_empty() && (done == required.len() || enough(done))
}

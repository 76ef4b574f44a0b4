//! What a failed pod means for its job, by the first rule of `podFailurePolicy` that it meets. Pure.

use k8s_openapi::api::batch::v1::{Job, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::controller::pod;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The whole job fails, with this message.
    FailJob(String),
    /// Its index fails, however often it may; for the job it is one more failure.
    FailIndex,
    /// As if it had not been.
    Ignore,
    /// One more failure towards the limit; also without a rule.
    Count,
}

pub(super) fn judge(job: &Job, pod: &Pod) -> Verdict {
    let policy = job.spec.as_ref().and_then(|spec| spec.pod_failure_policy.as_ref());
    let rules = policy.map(|policy| policy.rules.as_slice()).unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        let Some(why) = exit_code(rule, pod).or_else(|| condition(rule, pod)) else { continue };
        return match rule.action.as_str() {
            "FailJob" => Verdict::FailJob(format!("{why} matching FailJob rule at index {index}")),
            "FailIndex" => Verdict::FailIndex,
            "Ignore" => Verdict::Ignore,
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn full_name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

fn exit_code(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let wanted = rule.on_exit_codes.as_ref()?;
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let of_rule = containers.filter(|container| {
        wanted.container_name.as_ref().is_none_or(|name| name.is_empty() || *name == container.name)
    });
    let exits = of_rule.filter_map(|container| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        Some((container, code))
    });
    let mut hits = exits.filter(|(_, code)| match wanted.operator.as_str() {
        "In" => wanted.values.contains(code),
        // Success is no failure, whatever it is not in.
        "NotIn" => *code != 0 && !wanted.values.contains(code),
        _ => false,
    });
    let (container, code) = hits.next()?;
    Some(format!("Container {} for pod {} failed with exit code {code}", container.name, full_name(pod)))
}

fn condition(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let mut wanted = rule.on_pod_conditions.iter().flatten();
    let hit = wanted.find(|wanted| {
        let status = wanted.status.as_deref().unwrap_or("True");
        pod::condition(pod, &wanted.type_).is_some_and(|condition| condition.status == status)
    })?;
    Some(format!("Pod {} has condition {}", full_name(pod), hit.type_))
}

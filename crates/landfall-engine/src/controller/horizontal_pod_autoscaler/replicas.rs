//! How many replicas a metric asks for. Functions of what was measured.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::scheduler::quantity;

/// Within this time after a pod's start its CPU counts only when it is ready, as starting takes more than serving
/// (`--horizontal-pod-autoscaler-cpu-initialization-period`).
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);

/// A pod whose readiness changed last within this time after its start has never been ready
/// (`--horizontal-pod-autoscaler-initial-readiness-delay`).
const READINESS_DELAY: SignedDuration = SignedDuration::from_secs(30);

/// What one pod uses, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) value: i64,
    pub(super) at: Timestamp,
    pub(super) window: Duration,
}

/// Usage by pod.
pub(super) type Samples = BTreeMap<String, Sample>;

/// Ratios between these two change nothing (`--horizontal-pod-autoscaler-tolerance`, 0.1).
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerance {
    pub(super) up: f64,
    pub(super) down: f64,
}

impl Tolerance {
    pub(super) fn covers(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// What the usage is compared with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    /// Percent of what the pods request, in thousandths by pod.
    Utilization { percent: i64, requests: &'a BTreeMap<String, i64> },
    /// Thousandths for each pod.
    Average(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    /// Percent of the requests, when that is the target.
    pub(super) utilization: Option<i32>,
    /// Thousandths for each pod.
    pub(super) average: i64,
}

/// Pods by what their sample is worth.
struct Groups<'a> {
    ready: usize,
    unready: Vec<&'a str>,
    missing: Vec<&'a str>,
}

/// The replicas that pods with these samples ask for.
///
/// Pods without a sample count as idle when that keeps from scaling up, and as busy when it keeps from scaling down; pods
/// that are not ready yet count as idle. So what is not known never makes a change larger, nor turns it round.
pub(super) fn propose(
    pods: &[Pod],
    mut samples: Samples,
    target: Target<'_>,
    is_cpu: bool,
    current: i32,
    tolerance: Tolerance,
    now: Timestamp,
) -> Result<Proposal, String> {
    if pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let groups = group(pods, &mut samples, is_cpu, now);
    if samples.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let (ratio, utilization, average) = usage(&samples, target)?;
    let stay = Proposal { replicas: current, utilization, average };
    let waits_for_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !waits_for_unready && groups.missing.is_empty() {
        let replicas = if tolerance.covers(ratio) { current } else { ceil(ratio, groups.ready) };
        return Ok(Proposal { replicas, ..stay });
    }
    let mut assume = |pod: &str, value| {
        samples.insert(pod.to_owned(), Sample { value, at: now, window: Duration::ZERO });
    };
    for pod in &groups.missing {
        if ratio < 1.0 {
            assume(
                pod,
                match target {
                    Target::Average(target) => target,
                    Target::Utilization { percent, requests } => {
                        requests.get(*pod).copied().unwrap_or_default() * percent.max(100) / 100
                    }
                },
            );
        } else if ratio > 1.0 {
            assume(pod, 0);
        }
    }
    if waits_for_unready {
        for pod in &groups.unready {
            assume(pod, 0);
        }
    }
    let (cautious, ..) = usage(&samples, target)?;
    let turns_round = (ratio < 1.0 && cautious > 1.0) || (ratio > 1.0 && cautious < 1.0);
    if tolerance.covers(cautious) || turns_round {
        return Ok(stay);
    }
    let replicas = ceil(cautious, samples.len());
    if (cautious < 1.0 && replicas > current) || (cautious > 1.0 && replicas < current) {
        return Ok(stay);
    }
    Ok(Proposal { replicas, ..stay })
}

/// Takes out the samples that do not count.
fn group<'a>(pods: &'a [Pod], samples: &mut Samples, is_cpu: bool, now: Timestamp) -> Groups<'a> {
    let mut groups = Groups { ready: 0, unready: Vec::new(), missing: Vec::new() };
    for pod in pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if pod.metadata.deletion_timestamp.is_some() || phase == Some("Failed") {
            samples.remove(name);
        } else if phase == Some("Pending") {
            samples.remove(name);
            groups.unready.push(name);
        } else {
            match samples.get(name) {
                None => groups.missing.push(name),
                Some(sample) if is_cpu && !is_settled(pod, sample, now) => {
                    samples.remove(name);
                    groups.unready.push(name);
                }
                Some(_) => groups.ready += 1,
            }
        }
    }
    groups
}

/// Whether the CPU that a pod uses says something about its load.
fn is_settled(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let Some(status) = &pod.status else { return false };
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let (Some(ready), Some(started)) = (ready, &status.start_time) else { return false };
    let changed = ready.last_transition_time.as_ref().map_or(started.0, |time| time.0);
    let not_ready = ready.status == "False";
    if started.0 + CPU_INITIALIZATION > now {
        !not_ready && sample.at >= changed + sample.window
    } else {
        !not_ready || started.0 + READINESS_DELAY <= changed
    }
}

#[expect(clippy::cast_precision_loss, reason = "ratios need no more than 52 bits")]
fn usage(samples: &Samples, target: Target<'_>) -> Result<(f64, Option<i32>, i64), String> {
    match target {
        Target::Average(target) => {
            let sum: i64 = samples.values().map(|sample| sample.value).sum();
            let average = sum / i64::try_from(samples.len()).unwrap_or(i64::MAX);
            Ok((average as f64 / target as f64, None, average))
        }
        Target::Utilization { percent, requests } => {
            let known = samples.iter().filter_map(|(pod, sample)| Some((sample.value, *requests.get(pod)?)));
            let (mut used, mut requested, mut count) = (0, 0, 0);
            for (value, request) in known {
                used += value;
                requested += request;
                count += 1;
            }
            if requested == 0 {
                return Err("no metrics returned matched known pods".to_owned());
            }
            let utilization = used * 100 / requested;
            let ratio = utilization as f64 / percent as f64;
            Ok((ratio, Some(i32::try_from(utilization).unwrap_or(i32::MAX)), used / count))
        }
    }
}

/// The replicas that one value for the whole workload asks for: `pods` of it are ready.
#[expect(clippy::cast_precision_loss, reason = "ratios need no more than 52 bits")]
pub(super) fn propose_for_value(value: i64, target: i64, current: i32, ready: usize, tolerance: Tolerance) -> i32 {
    let ratio = value as f64 / target as f64;
    match current {
        0 => ceil(ratio, 1),
        _ if tolerance.covers(ratio) => current,
        _ => ceil(ratio, ready),
    }
}

/// The replicas among which a value is divided so that each has `target`, and what each has now.
#[expect(clippy::cast_precision_loss, reason = "ratios need no more than 52 bits")]
pub(super) fn propose_for_share(value: i64, target: i64, current: i32, tolerance: Tolerance) -> (i32, i64) {
    let count = i64::from(current.max(1));
    let ratio = value as f64 / (target as f64 * f64::from(current));
    let replicas = if current > 0 && tolerance.covers(ratio) { current } else { ceil(value as f64 / target as f64, 1) };
    (replicas, value / count + i64::from(value % count > 0))
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "the conversion saturates")]
fn ceil(ratio: f64, pods: usize) -> i32 {
    (ratio * pods as f64).ceil() as i32
}

/// What each pod requests of a resource, in thousandths; of one container, when it is named.
pub(super) fn requests(pods: &[Pod], resource: &str, container: Option<&str>) -> Result<BTreeMap<String, i64>, String> {
    let mut requests = BTreeMap::new();
    for pod in pods {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(spec) = &pod.spec else { continue };
        let of_pod = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get(resource));
        if let Some(request) = of_pod.filter(|_| container.is_none()) {
            requests.insert(name, quantity::millis(request).unwrap_or_default());
            continue;
        }
        let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let counted = spec.containers.iter().chain(sidecars).filter(|c| container.is_none_or(|name| name == c.name));
        let counted: Vec<&Container> = counted.collect();
        if let Some(container) = container.filter(|_| counted.is_empty()) {
            return Err(format!("container {container} not found in Pod {name}"));
        }
        let mut sum = 0;
        for container in counted {
            let request = container.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get(resource));
            let Some(request) = request.and_then(quantity::millis) else {
                return Err(format!("missing request for {resource} in container {} of Pod {name}", container.name));
            };
            sum += request;
        }
        requests.insert(name, sum);
    }
    Ok(requests)
}

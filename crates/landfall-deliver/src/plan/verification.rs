//! What a release without a canary is judged by, when a pipeline says that it is to be verified: after its last copy is ready it
//! is watched, and its answers are held to what the file promises.

use landfall_model::{Architecture, Element, Step};

use super::canary::strictest;
use super::{Callers, CountedBy, Live, requests_per_second};
use crate::analysis::{Judge, float, whole};

/// So long copies are watched at least: what leaks until it crashes, and starts again, has done it twice by then.
pub(crate) const VERIFY_AT_LEAST_SECONDS: u64 = 180;

/// So long it may take until everything is judged.
pub(crate) const VERIFY_WITHIN_SECONDS: u64 = 900;

/// The share of requests that may fail where the file promises none. Assumed.
const FAILURES: f64 = 0.01;

/// Whether a stage of the pipeline verifies what it has deployed to this environment.
pub(crate) fn is_verified(architecture: &Architecture) -> bool {
    let Some(pipeline) = &architecture.document.delivery.pipeline else { return false };
    let environment = architecture.environment.as_ref();
    pipeline.stages.iter().any(|stage| {
        let here = stage.environment.as_ref().is_some_and(|own| Some(&own.value) == environment);
        here && stage.steps.iter().any(|step| step.value == Step::Verify)
    })
}

/// By what a service is judged; `None` when there are too few requests, or only those are counted that come from outside and none
/// does. `Err` when there are enough and nobody counts any: silence is no pass.
pub(super) fn judge(
    architecture: &Architecture,
    name: &str,
    live: &Live,
    verdicts: u32,
    lines: &mut Vec<String>,
) -> Result<Option<(Judge, CountedBy)>, String> {
    let watched = format!("afterwards watched for {VERIFY_AT_LEAST_SECONDS} s at least: two crashes take it back");
    let mut only = |why: String| {
        lines.push(format!("{watched}; its answers are not judged, as {why}"));
        Ok(None)
    };
    let is_exposed = architecture.service(name).is_some_and(|service| service.expose.is_some());
    let (callers, counted_by) = match &live.counted.by_prometheus {
        Some(at) => (Callers::All, Some(CountedBy::Prometheus(at.clone()))),
        None if live.counted.by_gateway && is_exposed => (Callers::Outside, Some(CountedBy::Gateway)),
        // Whoever has no copy that is ready may bring one all the same.
        None if live.counted.by_gateway || live.ready == 0 => {
            return only(format!("nobody counts them: {}", live.counted.why_not));
        }
        None => (Callers::All, None),
    };
    let promised = architecture.service(name).and_then(|service| service.objective.as_ref());
    let availability = promised.and_then(|own| own.availability.as_ref());
    let availability = availability.or(architecture.document.objectives.availability.as_ref());
    // A promise of a month is stricter than what a few minutes can show.
    let failures = availability.map_or(FAILURES, |share| (1.0 - share.value.fraction()).max(FAILURES));
    let judge = Judge { failures: Some(failures), p99_ms: slowest(architecture, name), verdicts, metrics: Vec::new() };
    let test = strictest(&judge).expect("a hundredth can be shown");
    let Some(rate) = requests_per_second(architecture, name, callers) else {
        return only("no flow declares how many requests it gets".to_owned());
    };
    let least = test.least();
    let seconds = whole(float(least) / rate);
    if seconds > VERIFY_WITHIN_SECONDS {
        return only(format!("{least} requests at {rate:.2}/s take {seconds} s"));
    }
    let counted_by = counted_by.ok_or_else(|| {
        format!(
            "nobody counts the requests of `{name}`, so its new version could not be verified, as the pipeline says: {}; name a Prometheus that has them by `--prometheus URL`, or take `verify` out of the stage",
            live.counted.why_not
        )
    })?;
    let slow = judge.p99_ms.map(|limit| format!(" and a p99 of {limit} ms")).unwrap_or_default();
    lines.push(format!(
        "{watched}, and so do more than {}% of failures{slow}, counted by {}: {least} good requests at {rate:.2}/s take {seconds} s; {VERIFY_WITHIN_SECONDS} s are allowed",
        failures * 100.0,
        counted_by.as_str(),
    ));
    Ok(Some((judge, counted_by)))
}

/// The p99 that is promised, in milliseconds. Where none is, the time of the strictest journey that begins here: no answer
/// may take longer.
fn slowest(architecture: &Architecture, name: &str) -> Option<u64> {
    let own = architecture.service(name).and_then(|service| service.objective.as_ref()?.p99.as_ref());
    if let Some(p99) = own.or(architecture.document.objectives.p99.as_ref()) {
        return Some(whole(p99.as_secs_f64() * 1000.0));
    }
    let flows = architecture.document.flows.values().filter(|flow| {
        flow.steps.first().is_some_and(|step| {
            step.to.as_str() == name && architecture.element(step.from.as_str()) == Some(Element::Client)
        })
    });
    let least = flows.filter_map(|flow| Some(flow.within.as_ref()?.as_secs_f64())).reduce(f64::min);
    least.map(|seconds| whole(seconds * 1000.0))
}

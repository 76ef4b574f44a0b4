//! A canary: how it gets its shares, who counts, and how long each decision takes.

use landfall_model::{Architecture, Baseline, Canary, Evidence, IngressApi, Service, ServiceKind};

use super::{Bounds, Callers, CanaryPlan, CanarySize, CountedBy, Live, PrometheusAt, Split, requests_per_second};
use crate::analysis::{Judge, float, whole};
use crate::metric::CanaryMetric;

/// Plans it; `Err` says what speaks against it.
pub(super) fn plan(
    architecture: &Architecture,
    name: &str,
    service: &Service,
    canary: &Canary,
    live: &Live,
    verdicts: u32,
    lines: &mut Vec<String>,
) -> Result<CanaryPlan, String> {
    let is_worker = service.kind.value == ServiceKind::Worker;
    if !is_worker && service.all_ports().is_empty() {
        return Err(format!(
            "`{name}` serves no requests that a canary could get a share of; declare `kind: worker` where it takes its work from queues, or `rollout: {{ rolling: {{}} }}`"
        ));
    }
    let declared = declared_steps(name, canary)?;
    let split = if is_worker { Split::Consumers(Vec::new()) } else { split(architecture, live) };
    let judge = judge(name, canary, verdicts)?;
    let test = strictest(&judge);
    let counted_by = if is_worker { processed_by(name, &judge, live)? } else { counted_by(name, &split, live)? };
    if test.is_none() && counted_by != CountedBy::Nobody {
        return Err(format!(
            "the canary of `{name}` is judged by metrics alone, and one that nobody calls keeps every bound; declare `success` or `p99` beside them"
        ));
    }
    let baseline = canary.baseline.value;
    let size = size(&declared, &split, baseline, live.copies, live.autoscaler);
    let CanarySize { steps, split, copies, has_baseline, ceiling } = size.map_err(|why| format!("`{name}`: {why}"))?;
    let within = canary.decide_within.seconds();
    let mut plan = CanaryPlan {
        declared,
        steps,
        split,
        counted_by,
        judge,
        metrics_at: None,
        decide_within_seconds: within,
        copies,
        baseline,
        has_baseline,
        ceiling,
    };
    let fresh = if has_baseline { ", and as many fresh copies of the old version to compare it with," } else { "" };
    let beside = format!("canary of {copies}{fresh} beside {} copies, {}", live.copies, how(&plan.split));
    lines.push(match test {
        Some(test) => format!(
            "{beside}, counted by {}; each step is decided after {} good {} in a row, about {} at half of the limit",
            plan.counted_by.as_str(),
            test.least(),
            plan.work().many(),
            test.usual(),
        ),
        None => format!(
            "{beside}, judged by its metrics alone: nobody counts its messages, so that one which gets none is told by its metrics or not at all ({})",
            live.processed.why_not
        ),
    });
    lines.extend(achievable(&plan, live.copies));
    if let Some(test) = test {
        decided(architecture, name, &plan, test, lines)?;
    }
    plan.metrics_at = metrics(name, &plan.judge, live, within, lines)?;
    if test.is_some() {
        lines.push(format!(
            "a version at the limit or worse goes on with a chance of at most {}%",
            Evidence::MISSED_REGRESSION * 100.0
        ));
    }
    Ok(plan)
}

/// How long each step takes to be decided at the declared traffic; `Err` when it takes longer than it may.
fn decided(
    architecture: &Architecture,
    name: &str,
    plan: &CanaryPlan,
    test: Evidence,
    lines: &mut Vec<String>,
) -> Result<(), String> {
    let (least, usual, within, many) = (test.least(), test.usual(), plan.decide_within_seconds, plan.work().many());
    let callers = match plan.split {
        Split::Route => Callers::Outside,
        Split::Mesh | Split::Copies(_) => Callers::All,
        Split::Consumers(_) => Callers::Queues,
    };
    let rate = requests_per_second(architecture, name, callers);
    for step in &plan.steps {
        let share = percent(*step);
        let Some(rate) = rate else {
            lines.push(format!(
                "{share}: no flow declares how many {many} it gets; without {least} in {within} s it is taken back"
            ));
            continue;
        };
        let own = rate * f64::from(*step) / 1e6;
        let seconds = whole(float(least) / own);
        lines.push(format!(
            "{share} of {rate}/s are {own:.2}/s: {seconds} s at least, about {} s; {within} s are allowed",
            whole(float(usual) / own)
        ));
        if seconds > within {
            return Err(format!(
                "a canary of `{name}` can never be decided: {least} {many} at {share} of {rate}/s take {seconds} s, and {within} s are allowed; begin with a larger step, or set `decide-within` to {seconds}s"
            ));
        }
    }
    Ok(())
}

/// How large a canary is beside so many copies, and which shares it gets; otherwise, why it does not fit.
pub(super) fn size(
    declared: &[u32],
    split: &Split,
    baseline: Baseline,
    beside: u32,
    autoscaler: Option<Bounds>,
) -> Result<CanarySize, String> {
    let by_weights = matches!(split, Split::Route | Split::Mesh);
    let of = |has_baseline| size_of(declared, split, has_baseline, beside, autoscaler);
    if !baseline.may_be_fresh(by_weights, autoscaler.is_some()) {
        return of(false);
    }
    match of(true) {
        Err(_) if baseline == Baseline::Auto => of(false),
        sized => sized,
    }
}

fn size_of(
    declared: &[u32],
    split: &Split,
    has_baseline: bool,
    beside: u32,
    autoscaler: Option<Bounds>,
) -> Result<CanarySize, String> {
    // Two steps with as many copies are one.
    let mut at: Vec<u32> = declared.iter().map(|step| Canary::copies_for(*step, beside, has_baseline)).collect();
    at.dedup();
    let (split, at) = match split {
        Split::Copies(_) => (Split::Copies(at.clone()), Some(at)),
        Split::Consumers(_) => (Split::Consumers(at.clone()), Some(at)),
        Split::Route | Split::Mesh => (split.clone(), None),
    };
    let (steps, copies) = if let Some(at) = at {
        let steps = at.iter().map(|own| Canary::share_of(*own, beside, has_baseline)).collect();
        (steps, at.iter().max().copied().unwrap_or(1))
    } else {
        let largest = declared.iter().max().copied().unwrap_or_default();
        let copies = (u64::from(beside) * u64::from(largest)).div_ceil(1_000_000);
        (declared.to_vec(), u32::try_from(copies).unwrap_or(u32::MAX).max(1))
    };
    let ceiling = autoscaler.map(|bounds| bounds.beside(copies, has_baseline, beside)).transpose()?;
    Ok(CanarySize { steps, split, copies, has_baseline, ceiling })
}

/// The shares as declared, in millionths.
fn declared_steps(name: &str, canary: &Canary) -> Result<Vec<u32>, String> {
    let steps: Vec<u32> = canary.steps.iter().map(|step| step.millionths()).collect();
    let grows = steps.windows(2).all(|pair| pair[0] < pair[1]);
    if steps.is_empty() || steps.contains(&0) || !grows || steps.iter().any(|step| *step > 1_000_000) {
        return Err(format!("the steps of the canary of `{name}` are no growing shares of its traffic"));
    }
    Ok(steps)
}

/// By weights where something keeps to them, otherwise by copies; how many at each step follows from the copies beside it.
fn split(architecture: &Architecture, live: &Live) -> Split {
    let platform = &architecture.document.platform;
    if platform.ingress.api.value == IngressApi::Gateway && live.routed {
        Split::Route
    } else if platform.mesh.is_some() && live.meshed {
        Split::Mesh
    } else {
        Split::Copies(Vec::new())
    }
}

/// What becomes of the declared shares where copies have them.
fn achievable(plan: &CanaryPlan, stable: u32) -> Option<String> {
    let (why, at) = match &plan.split {
        Split::Route | Split::Mesh => return None,
        Split::Copies(at) => ("nothing here keeps to weights", at),
        Split::Consumers(at) => ("each copy takes as many messages as another", at),
    };
    let share = |own: u32| percent(Canary::share_of(own, stable, plan.has_baseline));
    let steps: Vec<String> = at
        .iter()
        .map(|own| format!("{} ({own} of {})", share(*own), stable + Canary::added(*own, plan.has_baseline)))
        .collect();
    let declared: Vec<String> = plan.declared.iter().map(|step| percent(*step)).collect();
    Some(format!("{why}, so {} become {}", declared.join(", "), steps.join(", ")))
}

fn how(split: &Split) -> &'static str {
    match split {
        Split::Route => "by the weights of its HTTPRoute",
        Split::Mesh => "by the weights of its VirtualService",
        Split::Copies(_) => "by its share of the copies",
        Split::Consumers(_) => "by its share of the consumers",
    }
}

/// Who counts the messages of a worker: nobody, when it is judged by metrics of its own alone.
fn processed_by(name: &str, judge: &Judge, live: &Live) -> Result<CountedBy, String> {
    match &live.processed.by_prometheus {
        Some(at) => Ok(CountedBy::Prometheus(at.clone())),
        None if strictest(judge).is_none() => Ok(CountedBy::Nobody),
        None => Err(format!(
            "nobody counts the messages of a canary of `{name}`, so it could never be judged: {}; judge it by metrics of its own alone (`judge: {{ metrics: [...] }}`), declare `rollout: {{ rolling: {{}} }}`, or name a Prometheus that has them by `--prometheus URL`",
            live.processed.why_not
        )),
    }
}

/// Who counts what the split sends to each version.
fn counted_by(name: &str, split: &Split, live: &Live) -> Result<CountedBy, String> {
    // The gateway sees what comes from outside, and which version it went to only where it chooses it.
    if *split == Split::Route && live.counted.by_gateway {
        return Ok(CountedBy::Gateway);
    }
    live.counted.by_prometheus.clone().map(CountedBy::Prometheus).ok_or_else(|| {
        let why = if live.counted.by_gateway { "the gateway does not choose between the versions, and " } else { "" };
        format!(
            "nobody counts the requests of a canary of `{name}`, so it could never be judged: {why}{}; declare `rollout: {{ rolling: {{}} }}`, or name a Prometheus that has them by `--prometheus URL`",
            live.counted.why_not
        )
    })
}

fn judge(name: &str, canary: &Canary, verdicts: u32) -> Result<Judge, String> {
    let failures = canary.judge.success.map(|success| 1.0 - success.fraction());
    if failures.is_some_and(|limit| Evidence::of_limit(limit, verdicts).is_none()) {
        return Err(format!(
            "no number of requests shows that all of them succeed: declare a success of `{name}` below 100%"
        ));
    }
    let p99_ms = canary.judge.p99.map(|limit| whole(limit.as_secs_f64() * 1000.0));
    let metrics: Vec<CanaryMetric> = canary.judge.metrics.iter().map(CanaryMetric::of).collect();
    if failures.is_none() && p99_ms.is_none() && metrics.is_empty() {
        return Err(format!(
            "the canary of `{name}` is judged by nothing, so it can never be decided; declare `judge: {{ success: 99.5%, p99: 300ms }}`"
        ));
    }
    Ok(Judge { failures, p99_ms, verdicts, metrics })
}

/// Who is asked for the own metrics; `Err` when one of them cannot be had, or not often enough.
fn metrics(
    name: &str,
    judge: &Judge,
    live: &Live,
    within: u64,
    lines: &mut Vec<String>,
) -> Result<Option<PrometheusAt>, String> {
    if judge.metrics.is_empty() {
        return Ok(None);
    }
    let Some(at) = &live.asked.at else {
        return Err(format!(
            "nobody can be asked for the metrics of the canary of `{name}`, so it could never be judged: no Prometheus is found; name one by `--prometheus URL`"
        ));
    };
    assert_eq!(judge.metrics.len(), live.asked.answers.len(), "each metric was asked for");
    for (metric, answer) in judge.metrics.iter().zip(&live.asked.answers) {
        let own = &metric.name;
        let planned = metric.planned(answer);
        lines.push(planned.map_err(|why| {
            format!("the metric `{own}` of the canary of `{name}` cannot be had, so it could never be judged: {why}")
        })?);
        let least = metric.least_seconds();
        if least > within {
            return Err(format!(
                "a canary of `{name}` can never be decided: the samples of `{own}` take {least} s, and {within} s are allowed; set `decide-within` to {least}s, or ask more often"
            ));
        }
    }
    Ok(Some(at.clone()))
}

/// The test that takes the most requests.
pub(super) fn strictest(judge: &Judge) -> Option<Evidence> {
    let limits = judge.failures.into_iter().chain(judge.p99_ms.map(|_| Evidence::SLOWER_THAN_P99));
    Evidence::of_limit(limits.reduce(f64::min)?, judge.verdicts)
}

/// `12.5%`; a share that copies make is rounded to tenths.
pub(crate) fn percent(share: u32) -> String {
    let hundredths = f64::from(share) / 10_000.0;
    if share.is_multiple_of(100) { format!("{hundredths}%") } else { format!("{hundredths:.1}%") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_have_the_share_that_is_nearest_to_what_is_declared() {
        let of = |declared: &[u32], stable| {
            declared.iter().map(|step| Canary::copies_for(step * 10_000, stable, false)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[5, 25, 50], 3), [1, 1, 3], "a quarter is 1 of 4, a half 3 of 6");
        assert_eq!(of(&[10, 25, 50], 9), [1, 3, 9]);
        assert_eq!(of(&[1, 100], 2), [1, 2], "never none, and never more than there are stable ones");
        assert_eq!(Canary::copies_for(200_000, 3, true), 1, "1 of 5");
        assert_eq!(Canary::copies_for(500_000, 3, true), 3, "beside a baseline never more than a third");
    }

    #[test]
    fn the_size_of_a_canary_follows_from_the_copies_beside_it() {
        let declared = [250_000, 500_000];
        let beside = |split: Split, copies: u32, most: u32| {
            size(&declared, &split, Baseline::Stable, copies, Some(Bounds { floor: 2, ceiling: most }))
                .map(|size| (size.steps, size.copies, size.ceiling))
        };
        let by_copies = || Split::Copies(Vec::new());
        assert_eq!(beside(by_copies(), 3, 12), Ok((vec![250_000, 500_000], 3, Some(9))));
        assert_eq!(beside(by_copies(), 2, 12), Ok((vec![333_333, 500_000], 2, Some(10))));
        assert_eq!(
            beside(Split::Consumers(Vec::new()), 3, 12),
            Ok((vec![250_000, 500_000], 3, Some(9))),
            "each consumer takes as much as another"
        );
        assert_eq!(beside(Split::Route, 9, 14), Ok((declared.to_vec(), 5, Some(9))));
        assert!(beside(Split::Route, 9, 12).is_err(), "there is no room for five more");
    }

    proptest::proptest! {
        #[test]
        fn no_other_number_of_copies_is_nearer(step in 1_u32..1_000_000, stable in 1_u32..60, with_baseline: bool) {
            let own = Canary::copies_for(step, stable, with_baseline);
            let off = |own: u32| Canary::share_of(own, stable, with_baseline).abs_diff(step);
            for other in 1..=stable {
                // Shares are rounded down to millionths.
                proptest::prop_assert!(off(own) <= off(other) + 1, "{own} and not {other} beside {stable} for {step}");
            }
        }
    }

    #[test]
    fn a_canary_has_a_fresh_baseline_where_weights_share_and_the_declared_most_leaves_room() {
        let of = |baseline, split: Split, ceiling: Option<u32>| {
            let bounds = ceiling.map(|ceiling| Bounds { floor: 2, ceiling });
            size(&[100_000, 500_000], &split, baseline, 4, bounds).map(|size| (size.has_baseline, size.ceiling))
        };
        assert_eq!(of(Baseline::Auto, Split::Route, Some(8)), Ok((true, Some(4))), "two and two beside four");
        assert_eq!(of(Baseline::Auto, Split::Mesh, Some(7)), Ok((false, Some(5))), "there is room for two alone");
        assert_eq!(of(Baseline::Auto, Split::Route, None), Ok((false, None)), "nobody says how many there may be");
        assert_eq!(of(Baseline::Auto, Split::Copies(Vec::new()), Some(40)), Ok((false, Some(36))));
        assert_eq!(of(Baseline::Stable, Split::Route, Some(40)), Ok((false, Some(38))));
        assert_eq!(of(Baseline::Fresh, Split::Route, None), Ok((true, None)));
        assert_eq!(of(Baseline::Fresh, Split::Consumers(Vec::new()), Some(40)), Ok((true, Some(32))));
        let why = of(Baseline::Fresh, Split::Route, Some(7)).expect_err("there is room for two alone");
        assert!(why.contains("a canary of 2 with as many fresh copies of the old version"), "{why}");
    }

    #[test]
    fn a_baseline_has_the_share_of_the_canary_as_far_as_there_is_as_much() {
        let plan = CanaryPlan { steps: vec![100_000, 500_000, 750_000], has_baseline: true, ..CanaryPlan::sample() };
        let at = |step| plan.weights_at(step).map(|weights| (weights.canary, weights.baseline, weights.stable()));
        assert_eq!(at(0), Some((100_000, 100_000, 800_000)));
        assert_eq!(at(1), Some((500_000, 500_000, 0)));
        assert_eq!(at(2), Some((750_000, 250_000, 0)));
        assert_eq!(at(3), None);
    }
}

//! How each service gets its new version, how long each decision takes, and what speaks against it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use landfall_model::{Architecture, Canary, Element, IngressApi, Rollout, Service, Verb};
use serde::{Deserialize, Serialize};

use crate::analysis::{Judge, MISSED_REGRESSION, Test, float, whole};
use crate::rollout;

/// The least time that a copy gets to become ready. A slow node needs it for nothing but starting.
const LEAST_TO_START: u64 = 30;

/// A copy that is not ready after so many times its declared start is not going to be.
const PATIENCE: u64 = 3;

/// How a service gets its new version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Strategy {
    /// Copy by copy.
    Rolling,
    /// All old copies stop first.
    Recreate,
    /// Growing shares of the traffic, each judged, then copy by copy.
    Canary(CanaryPlan),
}

/// A canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryPlan {
    /// The shares of the traffic, in millionths.
    pub steps: Vec<u32>,
    /// What it must reach.
    pub judge: Judge,
    /// How long each step may take to be decided.
    pub decide_within_seconds: u64,
    /// How many copies it has.
    pub copies: u32,
    /// How many copies the autoscaler may have while the canary is there, so that both together stay within what is declared.
    pub ceiling: Option<u32>,
}

impl Strategy {
    /// The way of the state machine.
    pub fn path(&self) -> rollout::Path {
        match self {
            Self::Rolling | Self::Recreate => rollout::Path::Direct,
            Self::Canary(canary) => rollout::Path::Canary { steps: canary.steps.len() },
        }
    }

    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::Recreate => "recreate",
            Self::Canary(_) => "canary",
        }
    }
}

/// What is there of a service.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Live {
    /// The copies that are wanted now.
    pub(crate) copies: u32,
    /// How many of them are ready.
    pub(crate) ready: u32,
    /// Whether all copies are of one version.
    pub(crate) settled: bool,
    /// The bounds of its autoscaler.
    pub(crate) autoscaler: Option<Bounds>,
    /// Whether an `HTTPRoute` leads to it.
    pub(crate) routed: bool,
    /// Whether its requests are counted.
    pub(crate) counted: bool,
}

/// How few and how many copies an autoscaler may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) floor: u32,
    pub(crate) ceiling: u32,
}

impl Bounds {
    /// How many copies may run beside a canary of so many: stable copies never fall below the floor, and both together never
    /// exceed the ceiling. Otherwise, why not.
    pub(crate) fn beside(self, canary: u32, running: u32) -> Result<u32, String> {
        let left = self.ceiling.checked_sub(canary).filter(|left| *left >= self.floor.max(1));
        let Some(left) = left else {
            return Err(format!(
                "a canary of {canary} does not fit between the autoscaler's {} and {} copies",
                self.floor, self.ceiling
            ));
        };
        if running > left {
            Err(format!(
                "{running} of at most {} copies run now, which leaves no room for a canary of {canary}: wait until it is quieter, or raise `replicas.max`",
                self.ceiling
            ))
        } else {
            Ok(left)
        }
    }
}

/// What is planned for one service.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) strategy: Strategy,
    pub(crate) ready_within_seconds: u64,
    /// What a person wants to know of it.
    pub(crate) lines: Vec<String>,
}

/// How many verdicts a release over these services asks for in all.
pub(crate) fn verdicts<'a>(architecture: &Architecture, services: impl Iterator<Item = &'a Service>) -> u32 {
    let of_one = |service: &Service| match &architecture.rollout(service).value {
        Rollout::Canary(canary) => {
            canary.steps.len() * (usize::from(canary.judge.success.is_some()) + usize::from(canary.judge.p99.is_some()))
        }
        Rollout::Rolling(_) | Rollout::Recreate => 0,
    };
    u32::try_from(services.map(of_one).sum::<usize>()).unwrap_or(u32::MAX)
}

/// Plans one service; `Err` says what speaks against it.
pub(crate) fn plan(
    architecture: &Architecture,
    name: &str,
    service: &Service,
    live: Live,
    verdicts: u32,
) -> Result<Planned, String> {
    let ready_within_seconds = (PATIENCE * service.startup.seconds()).max(LEAST_TO_START);
    let mut lines = Vec::new();
    let strategy = match architecture.rollout(service).value {
        Rollout::Rolling(rolling) => {
            if rolling.max_surge.value == 0 && rolling.max_unavailable.value == 0 {
                return Err(format!(
                    "the rollout of `{name}` can never make progress: no copy may be added and none removed; set `max-surge` to at least 1"
                ));
            }
            lines.push(format!(
                "copy by copy, {} more and {} fewer than {} at a time",
                rolling.max_surge.value, rolling.max_unavailable.value, live.copies
            ));
            Strategy::Rolling
        }
        Rollout::Recreate => {
            lines.push("all old copies stop before the first new one starts: nobody serves meanwhile".to_owned());
            Strategy::Recreate
        }
        Rollout::Canary(_) if live.ready == 0 => {
            lines.push("no copy is ready now, so there is nothing to compare a canary with: copy by copy".to_owned());
            Strategy::Rolling
        }
        Rollout::Canary(_) if !live.settled => {
            return Err(format!(
                "copies of `{name}` are being replaced at this moment, by somebody else; wait until they are of one version"
            ));
        }
        Rollout::Canary(canary) => {
            Strategy::Canary(plan_canary(architecture, name, &canary, live, verdicts, &mut lines)?)
        }
    };
    lines.push(format!("each copy has {ready_within_seconds} s to become ready"));
    Ok(Planned { strategy, ready_within_seconds, lines })
}

fn plan_canary(
    architecture: &Architecture,
    name: &str,
    canary: &Canary,
    live: Live,
    verdicts: u32,
    lines: &mut Vec<String>,
) -> Result<CanaryPlan, String> {
    // Not handled: a share by copies, a mesh, workers that are judged by their queues.
    if architecture.document.platform.ingress.api.value != IngressApi::Gateway || !live.routed {
        return Err(format!(
            "`{name}` has no `HTTPRoute` by which a canary could get a share of its requests, and nothing else can give it one yet; declare `expose` and `platform.ingress.api: gateway`, or `rollout: {{ rolling: {{}} }}`"
        ));
    }
    if !live.counted {
        return Err(format!(
            "nobody counts the requests of a canary of `{name}`: the API server has no figures of its gateway. That is handled on Landfall's engine only yet; declare `rollout: {{ rolling: {{}} }}`"
        ));
    }
    let steps: Vec<u32> = canary.steps.iter().map(|step| step.millionths()).collect();
    let grows = steps.windows(2).all(|pair| pair[0] < pair[1]);
    if steps.is_empty() || steps.contains(&0) || !grows || steps.iter().any(|step| *step > 1_000_000) {
        return Err(format!("the steps of the canary of `{name}` are no growing shares of its traffic"));
    }
    let failures = canary.judge.success.map(|success| 1.0 - success.fraction());
    if let Some(limit) = failures
        && !(limit > 1e-6 && limit < 1.0)
    {
        return Err(format!(
            "no number of requests shows that all of them succeed: declare a success of `{name}` below 100%"
        ));
    }
    let p99_ms = canary.judge.p99.map(|limit| whole(limit.as_secs_f64() * 1000.0));
    if failures.is_none() && p99_ms.is_none() {
        return Err(format!(
            "the canary of `{name}` is judged by nothing, so it can never be decided; declare `judge: {{ success: 99.5%, p99: 300ms }}`"
        ));
    }
    let judge = Judge { failures, p99_ms, verdicts };
    let largest = steps.iter().max().copied().unwrap_or_default();
    let copies = u32::try_from((u64::from(live.copies) * u64::from(largest)).div_ceil(1_000_000)).unwrap_or(u32::MAX);
    let copies = copies.max(1);
    let ceiling = match live.autoscaler {
        Some(bounds) => Some(bounds.beside(copies, live.copies).map_err(|why| format!("`{name}`: {why}"))?),
        None => None,
    };
    let within = canary.decide_within.seconds();
    let test = Test::new(failures.into_iter().chain(p99_ms.map(|_| 0.01)).fold(1.0, f64::min), verdicts);
    let (least, usual) = (test.least(), test.usual());
    let rate = requests_per_second(architecture, name);
    lines.push(format!(
        "canary of {copies} beside {} copies; each step is decided after {least} good requests in a row, about {usual} at half of the limit",
        live.copies
    ));
    for step in &steps {
        let share = format!("{}%", f64::from(*step) / 10_000.0);
        match rate {
            Some(rate) => {
                let own = rate * f64::from(*step) / 1e6;
                let seconds = whole(float(least) / own);
                lines.push(format!(
                    "{share} of {rate}/s are {own:.2}/s: {seconds} s at least, about {} s; {within} s are allowed",
                    whole(float(usual) / own)
                ));
                if seconds > within {
                    return Err(format!(
                        "a canary of `{name}` can never be decided: {least} requests at {share} of {rate}/s take {seconds} s, and {within} s are allowed; begin with a larger step, or set `decide-within` to {seconds}s"
                    ));
                }
            }
            None => lines.push(format!(
                "{share}: no flow declares how many clients call it; without {least} requests in {within} s it is taken back"
            )),
        }
    }
    lines.push(format!(
        "a version at the limit or worse goes on with a chance of at most {}%",
        MISSED_REGRESSION * 100.0
    ));
    Ok(CanaryPlan { steps, judge, decide_within_seconds: within, copies, ceiling })
}

/// How many requests of clients reach a service through the gateway, as flows declare.
fn requests_per_second(architecture: &Architecture, name: &str) -> Option<f64> {
    let flows = architecture.document.flows.values();
    let from_outside = flows.filter(|flow| {
        flow.steps
            .iter()
            .any(|step| step.to.as_str() == name && architecture.element(step.from.as_str()) == Some(Element::Client))
    });
    let rates: Vec<f64> = from_outside.filter_map(|flow| Some(flow.rate?.per_second())).collect();
    (!rates.is_empty()).then(|| rates.iter().sum())
}

/// The services in the order in which they get a new version: who is called before who calls, who consumes before who
/// publishes, so that nobody meets a version older than itself. What is in a circle goes by name.
pub(crate) fn order(architecture: &Architecture, services: &BTreeSet<String>) -> Vec<String> {
    let mut after: BTreeMap<&str, BTreeSet<&str>> =
        services.iter().map(|name| (name.as_str(), BTreeSet::new())).collect();
    let mut wait = |who: &Element, first: &Element| {
        if let (Element::Service(who), Element::Service(first)) = (who, first)
            && who != first
            && let Some(first) = services.get(first.as_str())
            && let Some(waits) = after.get_mut(who.as_str())
        {
            waits.insert(first);
        }
    };
    for connection in &architecture.connections {
        match &connection.to {
            Element::Service(_) => wait(&connection.from, &connection.to),
            Element::Store(_) if connection.verb == Verb::Publish => {
                let consumers = architecture.to(&connection.to);
                let same = consumers.filter(|other| other.verb == Verb::Consume && other.detail == connection.detail);
                same.for_each(|consumer| wait(&connection.from, &consumer.from));
            }
            _ => {}
        }
    }
    let mut order = Vec::new();
    while !after.is_empty() {
        let free = after.iter().find(|(_, waits)| waits.iter().all(|first| !after.contains_key(first)));
        let next = *free.map_or_else(|| after.keys().next().expect("it is not empty"), |(name, _)| name);
        after.remove(next);
        order.push(next.to_owned());
    }
    order
}

#[cfg(test)]
mod tests;

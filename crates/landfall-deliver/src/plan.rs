//! How each service gets its new version, how long each decision takes, and what speaks against it. Pure.

mod canary;
mod verification;

use std::collections::{BTreeMap, BTreeSet};

use landfall_model::{Architecture, Baseline, Canary, Connection, Element, Rollout, Service, ServiceKind, Verb};
use serde::{Deserialize, Serialize};

use crate::analysis::{Judge, Work};
use crate::metric::Asked;
use crate::rollout;

pub(crate) use canary::percent;
pub(crate) use verification::{VERIFY_AT_LEAST_SECONDS, VERIFY_WITHIN_SECONDS, is_verified};

/// The least time that a copy gets to become ready. A slow node needs it for nothing but starting.
const LEAST_TO_START: u64 = 30;

/// A copy that is not ready after so many times its declared start is not going to be.
const PATIENCE: u64 = 3;

/// How a service gets its new version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::large_enum_variant, reason = "a release has one for each of its few services")]
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
    /// The shares as they are declared, in millionths.
    #[serde(default)]
    pub declared: Vec<u32>,
    /// The shares of the traffic, in millionths: those that are declared, or those that copies can have.
    pub steps: Vec<u32>,
    /// How it gets them.
    #[serde(default)]
    pub split: Split,
    /// Who counts its requests.
    #[serde(default)]
    pub counted_by: CountedBy,
    /// What it must reach.
    pub judge: Judge,
    /// Who is asked for its own metrics, if it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_at: Option<PrometheusAt>,
    /// How long each step may take to be decided.
    pub decide_within_seconds: u64,
    /// How many copies it has, the most of all steps.
    pub copies: u32,
    /// Which copies of the old version are wanted beside it.
    #[serde(default)]
    pub baseline: Baseline,
    /// Whether as many fresh copies of the old version are there, with which it is compared.
    #[serde(default)]
    pub has_baseline: bool,
    /// How many copies the autoscaler may have while the canary is there, so that all together stay within what is declared.
    pub ceiling: Option<u32>,
}

/// What of a canary follows from the copies beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanarySize {
    /// The shares of the traffic, in millionths.
    pub steps: Vec<u32>,
    /// How it gets them.
    pub split: Split,
    /// How many copies it has, the most of all steps.
    pub copies: u32,
    /// Whether as many fresh copies of the old version are there.
    #[serde(default)]
    pub has_baseline: bool,
    /// How many copies the autoscaler may have while the canary is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<u32>,
}

impl CanaryPlan {
    /// Gives it another size.
    pub(crate) fn resize(&mut self, size: &CanarySize) {
        let CanarySize { steps, split, copies, has_baseline, ceiling } = size.clone();
        (self.steps, self.split, self.copies, self.ceiling) = (steps, split, copies, ceiling);
        self.has_baseline = has_baseline;
    }

    /// Its size beside so many copies; otherwise, why it does not fit.
    pub(crate) fn size_beside(&self, copies: u32, autoscaler: Option<Bounds>) -> Result<CanarySize, String> {
        canary::size(&self.declared, &self.split, self.baseline, copies, autoscaler)
    }

    /// What runs beside the stable copies.
    pub(crate) fn tracks(&self) -> &'static [Track] {
        if self.has_baseline { &[Track::Canary, Track::Baseline] } else { &[Track::Canary] }
    }

    /// Which Deployment it is compared with: its baseline, or the service itself.
    pub(crate) fn compared_with(&self, service: &str) -> String {
        if self.has_baseline { Track::Baseline.name(service) } else { service.to_owned() }
    }

    /// How many copies run beside the stable ones at most.
    pub(crate) fn beside(&self) -> u32 {
        Canary::added(self.copies, self.has_baseline)
    }

    /// How the requests are shared at a step, where weights share them.
    pub(crate) fn weights_at(&self, step: usize) -> Option<Weights> {
        let canary = self.steps.get(step).copied()?;
        // It gets as much as the canary, as far as there is as much.
        let baseline = if self.has_baseline { canary.min(1_000_000 - canary) } else { 0 };
        Some(Weights { canary, baseline })
    }

    /// How many copies it has at a step; at its start it has those of the first.
    pub(crate) fn copies_at(&self, step: usize) -> u32 {
        match &self.split {
            Split::Route | Split::Mesh => self.copies,
            Split::Copies(at) | Split::Consumers(at) => at.get(step).copied().unwrap_or(self.copies),
        }
    }

    /// What it is judged by.
    pub(crate) fn work(&self) -> Work {
        match self.split {
            Split::Route | Split::Mesh | Split::Copies(_) => Work::Requests,
            Split::Consumers(_) => Work::Messages,
        }
    }
}

/// Shares of the requests, in millionths; the stable copies have the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Weights {
    pub(crate) canary: u32,
    pub(crate) baseline: u32,
}

impl Weights {
    /// Of canary and stable copies alone.
    #[cfg(test)]
    pub(crate) fn of_canary(canary: u32) -> Self {
        Self { canary, baseline: 0 }
    }

    /// What the stable copies have.
    pub(crate) fn stable(self) -> u32 {
        1_000_000 - self.canary - self.baseline
    }
}

/// What runs beside the copies of a service while it has a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Track {
    /// The new version.
    Canary,
    /// The old version, as fresh as the canary.
    Baseline,
}

impl Track {
    /// The value of the label that tells its pods from others of the service.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::Baseline => "baseline",
        }
    }

    /// The name of everything that belongs to it.
    pub(crate) fn name(self, service: &str) -> String {
        format!("{service}-{}", self.as_str())
    }
}

/// How a canary gets its share of the requests, or of the messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Split {
    /// By the weights of its `HTTPRoute`.
    #[default]
    Route,
    /// By the weights of its `VirtualService`, which every caller in the mesh keeps to.
    Mesh,
    /// By its share of the copies, so many at each step: whoever calls the service meets any of them.
    Copies(Vec<u32>),
    /// By its share of those who take messages from the same queues, so many copies at each step. It has it as soon as it runs.
    Consumers(Vec<u32>),
}

/// Who counts the requests of each version, or its messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CountedBy {
    /// The gateway of Landfall's engine.
    #[default]
    Gateway,
    /// The services themselves, as a Prometheus has gathered it.
    Prometheus(PrometheusAt),
    /// Nobody: it is judged by metrics of its own alone.
    Nobody,
}

impl CountedBy {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Gateway => "the gateway",
            Self::Prometheus(_) => "Prometheus",
            Self::Nobody => "nobody",
        }
    }
}

/// Where a Prometheus is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PrometheusAt {
    /// At this URL.
    Url(String),
    /// Behind this Service of the cluster, by way of the API server.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name, and its port after a colon.
        name: String,
    },
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
#[derive(Debug, Clone, Default)]
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
    /// Whether a mesh is there that keeps to a `VirtualService`.
    pub(crate) meshed: bool,
    /// Who counts its requests; otherwise, why nobody does.
    pub(crate) counted: Counted,
    /// Who counts the messages of a worker that could have a canary; otherwise, why nobody does.
    pub(crate) processed: Counted,
    /// What is said of the own metrics of its canary.
    pub(crate) asked: Asked,
    /// How long a copy must be ready before it counts.
    pub(crate) settles_seconds: u64,
}

/// Whether the requests of a service are counted, or its messages.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    /// By the gateway, which sees only what comes from outside.
    pub(crate) by_gateway: bool,
    /// By itself, and gathered here.
    pub(crate) by_prometheus: Option<PrometheusAt>,
    /// Why it is not gathered.
    pub(crate) why_not: String,
}

/// How few and how many copies an autoscaler may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) floor: u32,
    pub(crate) ceiling: u32,
}

impl Bounds {
    /// How many copies may run beside a canary of so many, and as many of a baseline if there is one: stable copies never fall
    /// below the floor, and all together never exceed the ceiling. Otherwise, why not.
    pub(crate) fn beside(self, canary: u32, has_baseline: bool, running: u32) -> Result<u32, String> {
        let fresh = if has_baseline { " with as many fresh copies of the old version" } else { "" };
        let what = format!("a canary of {canary}{fresh}");
        let left =
            self.ceiling.checked_sub(Canary::added(canary, has_baseline)).filter(|left| *left >= self.floor.max(1));
        let Some(left) = left else {
            return Err(format!(
                "{what} does not fit between the autoscaler's {} and {} copies",
                self.floor, self.ceiling
            ));
        };
        if running > left {
            Err(format!(
                "{running} of at most {} copies run now, which leaves no room for {what}: wait until it is quieter, or raise `replicas.max`",
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
    /// By what it is judged after the last copy of the release is ready, and who counts.
    pub(crate) verified: Option<(Judge, CountedBy)>,
    /// What a person wants to know of it.
    pub(crate) lines: Vec<String>,
}

/// How many verdicts a release over these services asks for in all.
pub(crate) fn verdicts<'a>(architecture: &Architecture, services: impl Iterator<Item = &'a Service>) -> u32 {
    let of_one = |service: &Service| match &architecture.rollout(service).value {
        Rollout::Canary(canary) => {
            canary.steps.len() * (usize::from(canary.judge.success.is_some()) + usize::from(canary.judge.p99.is_some()))
        }
        Rollout::Rolling(_) | Rollout::Recreate => {
            if is_verified(architecture) {
                2
            } else {
                0
            }
        }
    };
    u32::try_from(services.map(of_one).sum::<usize>()).unwrap_or(u32::MAX)
}

/// Plans one service; `Err` says what speaks against it.
pub(crate) fn plan(
    architecture: &Architecture,
    name: &str,
    service: &Service,
    live: &Live,
    verdicts: u32,
) -> Result<Planned, String> {
    let ready_within_seconds = (PATIENCE * service.startup.seconds()).max(LEAST_TO_START) + live.settles_seconds;
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
        // Who declares a canary for this worker wants one that is judged; one for the whole platform means requests.
        Rollout::Canary(_)
            if service.kind.value == ServiceKind::Worker
                && service.rollout.is_none()
                && live.processed.by_prometheus.is_none() =>
        {
            lines.push(format!(
                "it takes its work from queues, and nobody counts it: {}; copy by copy",
                live.processed.why_not
            ));
            Strategy::Rolling
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
            Strategy::Canary(canary::plan(architecture, name, service, &canary, live, verdicts, &mut lines)?)
        }
    };
    lines.push(format!("each copy has {ready_within_seconds} s to become ready"));
    let judged = matches!(strategy, Strategy::Canary(_));
    let verified = if judged || !is_verified(architecture) {
        None
    } else {
        verification::judge(architecture, name, live, verdicts, &mut lines)?
    };
    Ok(Planned { strategy, ready_within_seconds, verified, lines })
}

/// Who sends the requests that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Callers {
    /// Clients, through the gateway.
    Outside,
    /// Anybody.
    All,
    /// Nobody: messages are taken from queues.
    Queues,
}

/// How many requests reach a service, or messages, as flows and edges declare.
pub(crate) fn requests_per_second(architecture: &Architecture, name: &str, callers: Callers) -> Option<f64> {
    let mut rates = Vec::new();
    for flow in architecture.document.flows.values() {
        let Some(rate) = flow.rate else { continue };
        let counts = |from: &str| match (callers, architecture.element(from)) {
            (Callers::Outside, from) => from == Some(Element::Client),
            // What comes from a store is a message and no request.
            (Callers::All, Some(Element::Client | Element::Service(_))) => true,
            (Callers::All, _) => false,
            (Callers::Queues, from) => matches!(from, Some(Element::Store(_))),
        };
        let steps = flow.steps.iter().filter(|step| step.to.as_str() == name && counts(step.from.as_str()));
        let times = u32::try_from(steps.count()).unwrap_or(u32::MAX);
        if times > 0 {
            // Through the gateway a request of a flow comes once.
            rates.push(rate.per_second() * if callers == Callers::Outside { 1.0 } else { f64::from(times) });
        }
    }
    let brings = |connection: &&Connection| match callers {
        Callers::Outside => false,
        Callers::All => connection.to.name() == name,
        Callers::Queues => connection.verb == Verb::Consume && connection.from.name() == name,
    };
    let edges = architecture.connections.iter().filter(brings);
    rates.extend(edges.filter_map(|connection| Some(connection.edge.rate?.per_second())));
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

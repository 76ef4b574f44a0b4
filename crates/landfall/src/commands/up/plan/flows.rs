//! The flows: what each service does for their messages, where they come in, and where they end.

mod route;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use landfall_model::{Architecture, Element};
use landfall_standin::{ExternalBehaviour, FlowPart, ServiceBehaviour, Stage, StageStep};

use self::route::{Route, route};
use super::EdgePlan;

/// How often a flow begins that declares nothing, each second.
const RATE: f64 = 1.0;

/// How long it may take that declares nothing.
const WITHIN: Duration = Duration::from_secs(30);

/// A flow that is driven.
#[derive(Debug, Clone)]
pub(in crate::commands::up) struct FlowPlan {
    pub(in crate::commands::up) name: String,
    /// Where each message is sent, with the step that this is.
    pub(in crate::commands::up) entrances: Vec<(u32, Entrance)>,
    /// Why it is not driven; then there are no entrances.
    pub(in crate::commands::up) missing: Option<String>,
    pub(in crate::commands::up) per_second: f64,
    pub(in crate::commands::up) within: Duration,
    /// The share that may be lost, from 0 to 1.
    pub(in crate::commands::up) loss: f64,
    /// The services where it ends, each with the step that leads there: a message that has not been at all of them is lost.
    pub(in crate::commands::up) ends: BTreeSet<(String, u32)>,
}

/// Where a flow comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands::up) enum Entrance {
    /// At the gateway, for an exposed service.
    Gateway { host: String, path: String, tls: bool },
    /// At an external.
    External(String),
    /// In a service that begins by itself.
    Service(String),
    /// In a run of a scheduled job.
    Job(String),
}

/// Gives each service and external its part in each flow.
pub(super) fn plan(
    architecture: &Architecture,
    services: &mut [ServiceBehaviour],
    externals: &mut [ExternalBehaviour],
    edges: &[EdgePlan],
) -> Vec<FlowPlan> {
    let mut plans = Vec::new();
    for (name, flow) in &architecture.document.flows {
        let prepared = route(architecture, flow).and_then(|route| {
            let entrances = entrances(architecture, &route)?;
            Ok((parts(&route, services, externals, edges)?, entrances))
        });
        let (parts, entrances, missing) = match prepared {
            Ok((parts, entrances)) => (parts, entrances, None),
            Err(problem) => (BTreeMap::new(), Vec::new(), Some(problem)),
        };
        let mut ends = BTreeSet::new();
        for (element, part) in parts {
            let stages = part.stages.iter();
            ends.extend(stages.filter(|(_, stage)| stage.ends).map(|(hop, _)| (element.name().to_owned(), *hop)));
            let flows = match &element {
                Element::External(external) => externals
                    .iter_mut()
                    .find(|behaviour| behaviour.external == external.as_str())
                    .map(|behaviour| &mut behaviour.flows),
                other => services
                    .iter_mut()
                    .find(|behaviour| behaviour.service == other.name())
                    .map(|behaviour| &mut behaviour.flows),
            };
            flows.expect("a part was made for one that is there").insert(name.to_string(), part);
        }
        plans.push(FlowPlan {
            name: name.to_string(),
            entrances,
            missing,
            per_second: flow.rate.as_ref().map_or(RATE, |rate| rate.per_second()),
            within: flow.within.as_ref().map_or(WITHIN, |within| Duration::from_secs_f64(within.as_secs_f64())),
            loss: flow.loss.as_ref().map_or(0.0, |loss| loss.0.fraction()),
            ends,
        });
    }
    plans
}

/// Where the flow comes in.
fn entrances(architecture: &Architecture, route: &Route) -> Result<Vec<(u32, Entrance)>, String> {
    let entrance = |(hop, element): &(u32, Element)| {
        let service = match element {
            Element::External(external) => return Ok((*hop, Entrance::External(external.to_string()))),
            other => other.name(),
        };
        let declared = architecture.service(service).ok_or_else(|| format!("it begins at `{service}`"))?;
        if *hop > 0 {
            let expose =
                declared.expose.as_ref().ok_or_else(|| format!("no client reaches `{service}`: it is not exposed"))?;
            let (host, path) = (expose.host.value.clone(), expose.path.value.clone());
            return Ok((*hop, Entrance::Gateway { host, path, tls: expose.tls.is_some() }));
        }
        let service = service.to_owned();
        Ok((0, if declared.schedule.is_some() { Entrance::Job(service) } else { Entrance::Service(service) }))
    };
    route.begins.iter().map(entrance).collect()
}

/// What each element does; an error when one of the edges cannot be had here.
fn parts(
    route: &Route,
    services: &[ServiceBehaviour],
    externals: &[ExternalBehaviour],
    edges: &[EdgePlan],
) -> Result<BTreeMap<Element, FlowPart>, String> {
    let mut parts = BTreeMap::<Element, FlowPart>::new();
    for (element, edge) in &route.received {
        lookup(element, edge, services, externals, edges)?;
    }
    for visit in &route.visits {
        let steps = visit.steps.iter().map(|(edge, hop)| {
            let edge = lookup(&visit.at, edge, services, externals, edges)?;
            Ok(StageStep { edge, hop: *hop })
        });
        let stage = Stage { steps: steps.collect::<Result<_, String>>()?, ends: visit.ends };
        parts.entry(visit.at.clone()).or_default().stages.insert(visit.hop, stage);
    }
    let here = |element: &&Element| match element {
        Element::External(external) => externals.iter().any(|behaviour| behaviour.external == external.as_str()),
        other => services.iter().any(|behaviour| behaviour.service == other.name()),
    };
    match parts.keys().find(|element| !here(element)) {
        Some(element) => Err(format!("`{}` does not run here", element.name())),
        None => Ok(parts),
    }
}

/// The place of an edge in the behaviour of the one that it begins at.
fn lookup(
    from: &Element,
    edge: &str,
    services: &[ServiceBehaviour],
    externals: &[ExternalBehaviour],
    edges: &[EdgePlan],
) -> Result<usize, String> {
    let place = match from {
        Element::External(external) => externals
            .iter()
            .find(|behaviour| behaviour.external == external.as_str())
            .and_then(|behaviour| behaviour.callbacks.iter().position(|callback| callback.name == edge)),
        other => services
            .iter()
            .find(|behaviour| behaviour.service == other.name())
            .and_then(|behaviour| behaviour.edges.iter().position(|own| own.name == edge)),
    };
    place.ok_or_else(|| {
        let planned = edges.iter().find(|planned| planned.name == edge);
        let why =
            planned.and_then(|planned| planned.missing.clone()).unwrap_or_else(|| "it does not run here".to_owned());
        format!("edge `{edge}`: {why}")
    })
}

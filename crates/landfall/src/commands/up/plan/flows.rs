//! The flows: what each service does for their messages, where they come in, and where they end.

mod payload;
mod route;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use landfall_model::{Architecture, Element};
use landfall_standin::{ExternalBehaviour, FlowPart, Load, ServiceBehaviour, Stage, StageStep, Told};

pub(in crate::commands::up) use self::payload::PayloadPlan;

use self::payload::payload;
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
    /// Whether that is so because `--only` leaves out something on its way.
    pub(in crate::commands::up) left_out: bool,
    pub(in crate::commands::up) per_second: f64,
    pub(in crate::commands::up) within: Duration,
    /// The share that may be lost, from 0 to 1.
    pub(in crate::commands::up) loss: f64,
    /// The share of its requests that may be refused, from 0 to 1.
    pub(in crate::commands::up) refusals: f64,
    /// The services where it ends, each with the step that leads there: a message that has not been at all of them is lost.
    pub(in crate::commands::up) ends: BTreeSet<(String, u32)>,
    /// Those of them that are programs, of which nobody knows what arrives unless they tell.
    pub(in crate::commands::up) programs: BTreeSet<String>,
    /// What its messages carry, where that is declared.
    pub(in crate::commands::up) payload: Option<Arc<PayloadPlan>>,
}

/// Where a flow comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands::up) enum Entrance {
    /// At the gateway, for an exposed service.
    Gateway { service: String, host: String, path: String, tls: bool },
    /// At an external.
    External(String),
    /// In a service that begins by itself.
    Service(String),
    /// In a run of a scheduled job.
    Job(String),
}

/// Gives each service and external its part in each flow. `left_out` has what to tell of those that `--only` leaves out; the
/// schemas of payloads are in `folder`.
pub(super) fn plan(
    architecture: &Architecture,
    services: &mut [ServiceBehaviour],
    externals: &mut [ExternalBehaviour],
    edges: &[EdgePlan],
    left_out: &BTreeMap<String, String>,
    folder: &Path,
) -> Vec<FlowPlan> {
    let mut plans = Vec::new();
    let available = architecture.document.objectives.availability.as_ref().map_or(1.0, |share| share.fraction());
    for (name, flow) in &architecture.document.flows {
        let mut ends = flow.steps.iter().flat_map(|step| [step.from.as_str(), step.to.as_str()]);
        let left_out = ends.find_map(|end| left_out.get(end));
        let route = left_out.map_or_else(|| route(architecture, flow), |problem| Err(problem.clone()));
        let prepared = route.and_then(|route| {
            let (entrances, payload) = (entrances(architecture, &route)?, payload(flow, folder)?);
            let parts = parts(&route, services, externals, edges, route.kept(architecture))?;
            Ok((parts, entrances, route.refusals(architecture), payload))
        });
        let (parts, entrances, refusals, payload, missing) = match prepared {
            Ok((parts, entrances, refusals, payload)) => (parts, entrances, refusals, payload, None),
            Err(problem) => (BTreeMap::new(), Vec::new(), 0.0, None, Some(problem)),
        };
        let (mut ends, mut programs) = (BTreeSet::new(), BTreeSet::new());
        for (element, mut part) in parts {
            if let Element::Service(_) = element {
                part.payload = payload.as_ref().map(|plan| plan.shape.clone());
            }
            let stages = part.stages.iter();
            ends.extend(stages.filter(|(_, stage)| stage.ends).map(|(hop, _)| (element.name().to_owned(), *hop)));
            if is_program(services, &element) && ends.iter().any(|(end, _)| end == element.name()) {
                programs.insert(element.name().to_owned());
            }
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
            left_out: left_out.is_some(),
            per_second: flow.rate.as_ref().map_or(RATE, |rate| rate.per_second()),
            within: flow.within.as_ref().map_or(WITHIN, |within| Duration::from_secs_f64(within.as_secs_f64())),
            loss: flow.loss.as_ref().map_or(0.0, |loss| loss.0.fraction()),
            // Others get their share wrong while the platform is there, and it may be away for a share of the time.
            refusals: 1.0 - available * (1.0 - refusals),
            ends,
            programs,
            payload,
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
            let (service, tls) = (service.to_owned(), expose.tls.is_some());
            return Ok((*hop, Entrance::Gateway { service, host, path, tls }));
        }
        let service = service.to_owned();
        Ok((0, if declared.schedule.is_some() { Entrance::Job(service) } else { Entrance::Service(service) }))
    };
    route.begins.iter().map(entrance).collect()
}

/// What each element does; an error when one of the edges cannot be had here. After the step `kept` messages lead to an object
/// that has what they carry.
fn parts(
    route: &Route,
    services: &[ServiceBehaviour],
    externals: &[ExternalBehaviour],
    edges: &[EdgePlan],
    kept: Option<u32>,
) -> Result<BTreeMap<Element, FlowPart>, String> {
    let mut parts = BTreeMap::<Element, FlowPart>::new();
    for (element, edge) in &route.received {
        lookup(element, edge, services, externals, edges)?;
    }
    for visit in &route.visits {
        let steps = visit.steps.iter().map(|(edge, hop)| {
            let edge = lookup(&visit.at, edge, services, externals, edges)?;
            let load = if kept.is_some_and(|kept| kept < *hop) { Load::Reference } else { Load::Whole };
            Ok(StageStep { edge, hop: *hop, load })
        });
        let stage = Stage { steps: steps.collect::<Result<_, String>>()?, ends: visit.ends };
        parts.entry(visit.at.clone()).or_default().stages.insert(visit.hop, stage);
    }
    tell(route, services, &mut parts)?;
    let here = |element: &&Element| match element {
        Element::External(external) => externals.iter().any(|behaviour| behaviour.external == external.as_str()),
        other => services.iter().any(|behaviour| behaviour.service == other.name()),
    };
    match parts.keys().find(|element| !here(element)) {
        Some(element) => Err(format!("`{}` does not run here", element.name())),
        None => Ok(parts),
    }
}

/// Whether it is a program, which passes a message on as it came.
fn is_program(services: &[ServiceBehaviour], element: &Element) -> bool {
    let mut services = services.iter();
    services.any(|behaviour| behaviour.service == element.name() && behaviour.program.is_some())
}

/// Says how messages are known that programs have passed on: by the step that they had before.
fn tell(route: &Route, services: &[ServiceBehaviour], parts: &mut BTreeMap<Element, FlowPart>) -> Result<(), String> {
    let mut hops: Vec<u32> = Vec::new();
    for visit in &route.visits {
        // Who brings a message was there before.
        let said = visit.from.filter(|from| is_program(services, &route.visits[*from].at)).map(|from| hops[from]);
        hops.push(said.unwrap_or(visit.hop));
    }
    for (element, part) in parts {
        let visits = || route.visits.iter().zip(&hops).filter(|(visit, _)| visit.at == *element);
        if visits().all(|(visit, hop)| visit.hop == *hop) && !is_program(services, element) {
            continue;
        }
        let mut known = BTreeSet::new();
        for (visit, hop) in visits() {
            if !known.insert((*hop, &visit.by)) {
                let name = element.name();
                return Err(format!(
                    "it comes to `{name}` twice in the same way, and programs pass messages on as they are: nobody could tell which time it is"
                ));
            }
            part.told.push(Told { hop: *hop, edge: visit.by.clone(), stage: visit.hop });
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use landfall_standin::Program;

    use super::*;
    use crate::commands::up::architecture_of;

    const SHOP: &str = "
landfall: v1
name: shop
services:
  web: { port: 8080, expose: shop.example, uses: [{ call: stock }, { publish: events/placed }] }
  stock: { port: 8080, uses: [{ call: mail }] }
  mail: { port: 8080, uses: [{ consume: events/placed }, { call: stock }] }
stores:
  events: { engine: rabbitmq, version: '4.2' }
flows:
  a: { steps: [";

    /// How the messages of a flow are known where they come, when these services are programs: one line for each.
    fn told(steps: &str, programs: &[&str]) -> String {
        let text = format!("{SHOP}{steps}] }}\n");
        let architecture = architecture_of(&text);
        let flow = architecture.document.flows.values().next().expect("there is one");
        let route = route(&architecture, flow).expect("it has a way");
        let services: Vec<_> = ["web", "stock", "mail"].map(|name| behaviour(name, programs.contains(&name))).into();
        let visited = route.visits.iter().map(|visit| (visit.at.clone(), FlowPart::default()));
        let mut parts: BTreeMap<Element, FlowPart> = visited.collect();
        if let Err(problem) = tell(&route, &services, &mut parts) {
            return problem;
        }
        let lines = parts.iter().flat_map(|(element, part)| {
            part.told.iter().map(move |told| {
                let by = told.edge.as_ref().map(|edge| format!(" by `{edge}`")).unwrap_or_default();
                format!("{}: {}{by} is {}\n", element.name(), told.hop, told.stage)
            })
        });
        lines.collect()
    }

    fn behaviour(service: &str, is_program: bool) -> ServiceBehaviour {
        let (folder, trust) = (String::new(), String::new());
        let program = Program { argv: vec![service.to_owned()], of_catalogue: false, folder, trust };
        ServiceBehaviour {
            service: service.to_owned(),
            ports: Vec::new(),
            ready: Vec::new(),
            probes: Vec::new(),
            runs_once: false,
            business: Vec::new(),
            edges: Vec::new(),
            flows: BTreeMap::new(),
            ledger: None,
            authority: String::new(),
            program: is_program.then_some(program),
        }
    }

    const STEPS: &str = "client -> web, web -> stock, web -> events, events -> mail, mail -> stock";

    #[test]
    fn what_stand_ins_pass_on_says_its_step() {
        assert_eq!(told(STEPS, &[]), "");
    }

    #[test]
    fn what_a_program_passes_on_says_the_step_that_brought_it_there() {
        insta::assert_snapshot!(told(STEPS, &["web"]), @"
        mail: 1 by `mail consume events/placed` is 3
        stock: 1 is 2
        stock: 5 is 5
        web: 1 is 1
        ");
    }

    #[test]
    fn a_program_that_passes_a_message_to_the_same_place_twice_is_told_of() {
        insta::assert_snapshot!(told(STEPS, &["web", "mail"]), @"it comes to `stock` twice in the same way, and programs pass messages on as they are: nobody could tell which time it is");
    }
}

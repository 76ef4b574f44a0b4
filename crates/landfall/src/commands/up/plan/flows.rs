//! The flows: what each service does for their messages, where they come in, and where they end.

use std::collections::BTreeSet;
use std::time::Duration;

use landfall_model::{Architecture, Element, Flow, Verb};
use landfall_standin::{FlowPart, ServiceBehaviour};

use super::{edge_name, exposure};

/// How often a flow begins that declares nothing, each second.
const RATE: f64 = 1.0;

/// How long it may take that declares nothing.
const WITHIN: Duration = Duration::from_secs(30);

/// A flow that is driven from outside.
#[derive(Debug, Clone)]
pub(in crate::commands::up) struct FlowPlan {
    pub(in crate::commands::up) name: String,
    /// Where the client sends: host and path of an exposed service.
    pub(in crate::commands::up) entry: Option<Entry>,
    /// Why it is not driven, when there is no entry.
    pub(in crate::commands::up) problem: Option<String>,
    pub(in crate::commands::up) per_second: f64,
    pub(in crate::commands::up) within: Duration,
    /// The share that may be lost, from 0 to 1.
    pub(in crate::commands::up) loss: f64,
    /// The services where it ends: a message that has not been at all of them is lost.
    pub(in crate::commands::up) ends: BTreeSet<String>,
}

/// Where a flow comes in.
#[derive(Debug, Clone)]
pub(in crate::commands::up) struct Entry {
    pub(in crate::commands::up) host: String,
    pub(in crate::commands::up) path: String,
    pub(in crate::commands::up) tls: bool,
}

/// Gives each service its part in each flow.
pub(super) fn plan(architecture: &Architecture, services: &mut [ServiceBehaviour]) -> (Vec<FlowPlan>, Vec<String>) {
    let (mut plans, mut obstacles) = (Vec::new(), Vec::new());
    for (name, flow) in &architecture.document.flows {
        let mut ends = BTreeSet::new();
        for service in services.iter_mut() {
            match part(architecture, flow, service) {
                Ok(None) => {}
                Ok(Some(part)) => {
                    if part.ends {
                        ends.insert(service.service.clone());
                    }
                    service.flows.insert(name.to_string(), part);
                }
                Err(problem) => obstacles.push(format!("flow `{name}`: {problem}")),
            }
        }
        let (entry, problem) = match entry(architecture, flow) {
            Ok(entry) => (Some(entry), None),
            Err(problem) => (None, Some(problem)),
        };
        plans.push(FlowPlan {
            name: name.to_string(),
            entry,
            problem,
            per_second: flow.rate.as_ref().map_or(RATE, |rate| rate.per_second()),
            within: flow.within.as_ref().map_or(WITHIN, |within| Duration::from_secs_f64(within.as_secs_f64())),
            loss: flow.loss.as_ref().map_or(0.0, |loss| loss.0.fraction()),
            ends,
        });
    }
    (plans, obstacles)
}

/// What the service does for the flow; `None` when the flow does not pass it.
fn part(architecture: &Architecture, flow: &Flow, service: &ServiceBehaviour) -> Result<Option<FlowPart>, String> {
    let own = service.service.as_str();
    if !flow.steps.iter().any(|step| step.from.as_str() == own || step.to.as_str() == own) {
        return Ok(None);
    }
    let element = Element::Service(own.parse().map_err(|_| format!("`{own}` is no name"))?);
    let (mut edges, mut ends) = (Vec::new(), true);
    for step in flow.steps.iter().filter(|step| step.from.as_str() == own) {
        let taken = architecture
            .from(&element)
            .filter(|connection| connection.to.name() == step.to.as_str() && connection.verb != Verb::Consume);
        let mut taken = taken.peekable();
        let Some(first) = taken.peek() else {
            // Answers to the client are no edges.
            if step.to.as_str() == "client" {
                continue;
            }
            return Err(format!("`{own}` has no edge to `{}`", step.to));
        };
        if first.verb == Verb::Publish || matches!(first.to, Element::Service(_)) {
            ends = false;
        }
        for connection in taken {
            let name = edge_name(connection);
            edges.extend(service.edges.iter().position(|edge| edge.name == name));
        }
    }
    Ok(Some(FlowPart { edges, ends }))
}

fn entry(architecture: &Architecture, flow: &Flow) -> Result<Entry, String> {
    let first = flow.steps.first().ok_or("it has no steps")?;
    if first.from.as_str() != "client" {
        return Err(format!("not handled yet: a flow that begins at `{}`", first.from));
    }
    let service = first.to.as_str();
    let expose = exposure(architecture, service)
        .ok_or_else(|| format!("not handled yet: a client of `{service}`, which is not exposed"))?;
    Ok(Entry { host: expose.host.value.clone(), path: expose.path.value.clone(), tls: expose.tls.is_some() })
}

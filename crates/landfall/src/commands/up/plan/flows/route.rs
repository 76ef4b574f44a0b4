//! From the steps of a flow to visits: who gets a message by which step, and what is done with it there.
//!
//! A flow may pass a service several times, and each time it does something else: a message carries the number of the step
//! that brought it. A call is made by the latest visit of its caller; what is published is a visit of each service that the
//! flow has consume it.

use landfall_model::{Architecture, Element, Engine, Flow, Verb};

use super::super::edge_name;

/// The way of a flow.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Route {
    /// Where it begins: with a step of a client, counted from 1, or with 0 by itself.
    pub(super) begins: Vec<(u32, Element)>,
    pub(super) visits: Vec<Visit>,
    /// The consuming edges that bring messages.
    pub(super) received: Vec<(Element, String)>,
}

/// A message at a service or external.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Visit {
    pub(super) at: Element,
    /// The step that brings it; for a message from a broker the step that published it.
    pub(super) hop: u32,
    /// The visit that sends it here; none where a client does or the flow begins.
    pub(super) from: Option<usize>,
    /// The consuming edge that brings it, by name; none for a request.
    pub(super) by: Option<String>,
    /// The edges that it takes from here, by name, and the steps that these are.
    pub(super) steps: Vec<(String, u32)>,
    /// Whether nothing that it does brings it to another visit.
    pub(super) ends: bool,
}

/// What a visit has published.
struct Published<'a> {
    store: Element,
    topic: Option<&'a str>,
    hop: u32,
    by: usize,
}

/// Finds the way. An error says which step cannot be taken.
pub(super) fn route(architecture: &Architecture, flow: &Flow) -> Result<Route, String> {
    let mut route = Route::default();
    let mut published: Vec<Published<'_>> = Vec::new();
    for (hop, step) in (1..).zip(&flow.steps) {
        let element = |name: &str| architecture.element(name).ok_or_else(|| format!("there is no `{name}`"));
        let (from, to) = (element(step.from.as_str())?, element(step.to.as_str())?);
        let none = || format!("`{}` has no edge to `{}`", from.name(), to.name());
        let active = |from: &Element, to: &Element| -> Vec<_> {
            let connections = architecture.connections.iter();
            let of_both = connections.filter(|connection| connection.from == *from && connection.to == *to);
            of_both.filter(|connection| connection.verb != Verb::Consume).collect()
        };
        match (&from, &to) {
            // Answers to the client are no edges.
            (_, Element::Client) => {}
            (Element::Client, Element::Store(_)) => {
                return Err(format!("a client cannot reach the store `{}`", to.name()));
            }
            (Element::Client, _) => {
                route.begins.push((hop, to.clone()));
                route.visit(to, hop, None, None);
            }
            (Element::Store(_), Element::Service(_)) => {
                let consumes: Vec<_> = architecture
                    .connections
                    .iter()
                    .filter(|edge| edge.from == to && edge.to == from && edge.verb == Verb::Consume)
                    .collect();
                let latest = published.iter().rev().find_map(|message| {
                    let is_taken = |edge: &&&landfall_model::Connection| edge.detail.as_deref() == message.topic;
                    let edge = consumes.iter().find(is_taken).filter(|_| message.store == from)?;
                    Some((edge, message.hop, message.by))
                });
                if let Some((edge, hop, by)) = latest {
                    route.visits[by].ends = false;
                    let edge = edge_name(edge);
                    route.received.push((to.clone(), edge.clone()));
                    route.visit(to, hop, Some(by), Some(edge));
                } else {
                    // Written in the direction of the data: the service reads.
                    let mut reads = active(&to, &from);
                    reads.retain(|edge| !edge.verb.writes());
                    if reads.is_empty() {
                        let (to, from) = (to.name(), from.name());
                        return Err(if consumes.is_empty() {
                            format!("`{to}` has no edge to `{from}`")
                        } else {
                            format!("nothing that `{to}` consumes was published to `{from}` before")
                        });
                    }
                    let visit = route.latest(&to);
                    route.visits[visit].steps.extend(reads.into_iter().map(|edge| (edge_name(edge), hop)));
                }
            }
            (Element::Store(_), _) => return Err(none()),
            (Element::Service(_) | Element::External(_), _) => {
                let edges = active(&from, &to);
                if edges.is_empty() {
                    return Err(none());
                }
                let visit = route.latest(&from);
                for edge in edges {
                    route.visits[visit].steps.push((edge_name(edge), hop));
                    if edge.verb == Verb::Publish {
                        let topic = edge.detail.as_deref();
                        published.push(Published { store: to.clone(), topic, hop, by: visit });
                    }
                }
                let goes_on = match &to {
                    Element::Service(_) => true,
                    // It only answers, unless the flow says that it calls.
                    Element::External(name) => flow.steps[hop as usize..].iter().any(|step| step.from == *name),
                    Element::Store(_) | Element::Client => false,
                };
                if goes_on {
                    route.visits[visit].ends = false;
                    route.visit(to, hop, Some(visit), None);
                }
            }
        }
    }
    if route.visits.is_empty() { Err("it has no steps".to_owned()) } else { Ok(route) }
}

impl Route {
    fn visit(&mut self, at: Element, hop: u32, from: Option<usize>, by: Option<String>) {
        if !self.visits.iter().any(|visit| visit.at == at && visit.hop == hop) {
            self.visits.push(Visit { at, hop, from, by, steps: Vec::new(), ends: true });
        }
    }

    /// The share of its requests that may be refused: what the externals on its way are declared to get wrong while somebody
    /// waits for the answer, the declared retries counted in. What a broker brings is tried again until it is done, and nobody
    /// waits for that.
    pub(super) fn refusals(&self, architecture: &Architecture) -> f64 {
        let errors = |element: &Element| {
            let external = match element {
                Element::External(name) => architecture.external(name.as_str()),
                Element::Client | Element::Service(_) | Element::Store(_) => None,
            };
            external.and_then(|external| external.profile.errors.as_ref()).map_or(0.0, |share| share.fraction())
        };
        let mut fails = vec![0.0; self.visits.len()];
        // Who is called comes after the caller.
        for (place, visit) in self.visits.iter().enumerate().rev() {
            let steps = visit.steps.iter().map(|(name, hop)| {
                let edge = architecture.from(&visit.at).find(|edge| edge_name(edge) == *name);
                let Some(edge) = edge.filter(|edge| !edge.edge.optional.value) else { return 0.0 };
                let called = self.visits.iter().position(|called| {
                    (called.from, called.hop) == (Some(place), *hop) && called.at == edge.to && called.by.is_none()
                });
                let attempt = any_of([errors(&edge.to), called.map_or(0.0, |called| fails[called])]);
                let retries = edge.edge.retries.as_ref().map_or(0, |retries| retries.value);
                attempt.powi(i32::try_from(retries).unwrap_or(i32::MAX).saturating_add(1))
            });
            fails[place] = any_of(steps);
        }
        any_of(self.begins.iter().map(|(hop, at)| {
            let begun = self.visits.iter().position(|visit| visit.at == *at && visit.hop == *hop);
            any_of([errors(at), begun.map_or(0.0, |begun| fails[begun])])
        }))
    }

    /// The first step that puts its messages into an object store, if one does: what goes on from there leads to the object, as no
    /// broker is for files.
    pub(super) fn kept(&self, architecture: &Architecture) -> Option<u32> {
        let is_objects = |element: &Element| {
            architecture.store(element.name()).is_some_and(|store| store.engine.value == Engine::S3)
        };
        let steps = self.visits.iter().flat_map(|visit| visit.steps.iter().map(move |step| (visit, step)));
        let puts = steps.filter(|(visit, (name, _))| {
            let mut edges = architecture.from(&visit.at);
            edges.any(|edge| edge_name(edge) == *name && edge.verb.writes() && is_objects(&edge.to))
        });
        puts.map(|(_, (_, hop))| *hop).min()
    }

    /// The latest visit there; where there was none the flow begins by itself.
    fn latest(&mut self, at: &Element) -> usize {
        if let Some(place) = self.visits.iter().rposition(|visit| visit.at == *at) {
            return place;
        }
        self.begins.push((0, at.clone()));
        self.visit(at.clone(), 0, None, None);
        self.visits.len() - 1
    }
}

/// How likely it is that one of these happens, if none makes another more likely.
fn any_of(chances: impl IntoIterator<Item = f64>) -> f64 {
    1.0 - chances.into_iter().map(|chance| 1.0 - chance).product::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::up::architecture_of;

    const SHOP: &str = "
landfall: v1
name: shop
services:
  web:
    port: 8080
    expose: shop.example
    uses:
      - write: ledger/orders
      - publish: events/placed
      - consume: events/shipped
      - call: stock
  stock:
    port: 8080
    uses: [{ read: ledger/stock }]
  store-room:
    kind: worker
    port: 8080
    uses:
      - consume: events/placed
      - publish: events/shipped
      - send: carrier
stores:
  ledger: { engine: postgres, version: '17' }
  events: { engine: rabbitmq, version: '4.2' }
externals:
  carrier:
    uses: [{ call: web }]
flows:
  a: { steps: [";

    fn shop(text: &str, steps: &str) -> Architecture {
        let text = format!("{text}{steps}] }}\n");
        architecture_of(&text)
    }

    fn way(architecture: &Architecture) -> Result<Route, String> {
        route(architecture, architecture.document.flows.values().next().expect("there is one"))
    }

    /// One line for each visit: the step that brings it, where, what it does, and whether it ends there.
    fn routed(steps: &str) -> String {
        let route = match way(&shop(SHOP, steps)) {
            Ok(route) => route,
            Err(problem) => return problem,
        };
        let begins = route.begins.iter().map(|(hop, at)| format!("begins {hop} {}\n", at.name()));
        let visits = route.visits.iter().map(|visit| {
            let steps: Vec<_> = visit.steps.iter().map(|(edge, hop)| format!("{hop} {edge}")).collect();
            let ends = if visit.ends { " and ends" } else { "" };
            format!("{} {}: {}{ends}\n", visit.hop, visit.at.name(), steps.join(", "))
        });
        begins.chain(visits).collect()
    }

    #[test]
    fn a_service_does_what_the_step_that_brings_a_message_asks_for() {
        let steps =
            "client -> web, web -> ledger, web -> events, events -> store-room, store-room -> events, events -> web";
        insta::assert_snapshot!(routed(steps), @r"
        begins 1 web
        1 web: 2 web write ledger/orders, 3 web publish events/placed
        3 store-room: 5 store-room publish events/shipped
        5 web:  and ends
        ");
    }

    #[test]
    fn a_call_is_made_by_the_latest_visit_and_the_caller_goes_on() {
        insta::assert_snapshot!(routed("client -> web, web -> stock, stock -> ledger, web -> ledger"), @r"
        begins 1 web
        1 web: 2 web call stock, 4 web write ledger/orders
        2 stock: 3 stock read ledger/stock and ends
        ");
    }

    #[test]
    fn a_read_may_be_written_in_the_direction_of_the_data() {
        insta::assert_snapshot!(routed("ledger -> stock"), @r"
        begins 0 stock
        0 stock: 1 stock read ledger/stock and ends
        ");
    }

    #[test]
    fn an_external_that_calls_back_is_visited() {
        let steps = "client -> carrier, carrier -> web, web -> ledger";
        insta::assert_snapshot!(routed(steps), @r"
        begins 1 carrier
        1 carrier: 2 carrier call web
        2 web: 3 web write ledger/orders and ends
        ");
    }

    #[test]
    fn what_was_not_published_cannot_be_consumed() {
        insta::assert_snapshot!(routed("events -> store-room, store-room -> carrier"), @"nothing that `store-room` consumes was published to `events` before");
    }

    #[test]
    fn what_an_object_store_keeps_goes_no_further() {
        let text = "
landfall: v1
name: shop
services:
  web:
    port: 8080
    expose: shop.example
    uses: [{ write: ledger/files }, { read: files/uploads }, { store: files/uploads }, { call: stock }]
  stock: { port: 8080 }
stores:
  ledger: { engine: postgres, version: '17' }
  files: { engine: s3 }
flows:
  a: { steps: [";
        let kept = |steps: &str| {
            let architecture = shop(text, steps);
            way(&architecture).expect("it has a way").kept(&architecture)
        };
        assert_eq!(kept("client -> web, web -> ledger, web -> files, web -> stock"), Some(3));
        assert_eq!(kept("client -> web, web -> ledger, files -> web, web -> stock"), None, "it is only read");
    }

    const CALLS: &str = "
landfall: v1
name: shop
services:
  web:
    port: 8080
    expose: shop.example
    uses: [{ call: stock, retries: 1 }, { query: bank, retries: 1 }, { query: map, optional: true }, { publish: events/placed }]
  stock: { port: 8080, uses: [{ call: carrier }] }
  mail: { kind: worker, port: 8080, uses: [{ consume: events/placed }, { send: carrier }] }
stores:
  events: { engine: rabbitmq, version: '4.2' }
externals:
  bank: { profile: { errors: 10% } }
  map: { profile: { errors: 50% } }
  carrier: { profile: { errors: 20% }, uses: [{ call: web }] }
flows:
  a: { steps: [";

    /// The share of requests that may be refused.
    fn refused(steps: &str) -> String {
        let architecture = shop(CALLS, steps);
        let route = way(&architecture).expect("it has a way");
        format!("{:.2}%", route.refusals(&architecture) * 100.0)
    }

    #[test]
    fn what_an_external_gets_wrong_is_tried_again_as_often_as_declared() {
        assert_eq!(refused("client -> web, web -> bank"), "1.00%", "a tenth of a tenth");
        assert_eq!(refused("client -> web, web -> stock, stock -> carrier"), "4.00%", "`web` calls `stock` again");
        assert_eq!(refused("client -> web, web -> bank, web -> stock, stock -> carrier"), "4.96%");
    }

    #[test]
    fn what_nobody_waits_for_refuses_nothing() {
        assert_eq!(refused("client -> web, web -> map"), "0.00%", "it is optional");
        let by_a_queue = "client -> web, web -> events, events -> mail, mail -> carrier";
        assert_eq!(refused(by_a_queue), "0.00%");
    }

    #[test]
    fn an_external_where_a_flow_begins_gets_as_much_wrong_as_any() {
        assert_eq!(refused("client -> carrier, carrier -> web, web -> bank"), "20.80%");
        assert_eq!(refused("carrier -> web, web -> bank"), "20.80%");
    }
}

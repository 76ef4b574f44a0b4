//! The rules of a `VirtualService` that shares requests between a service and its canary. Pure.

use serde_json::{Value, json};

use super::perform::TRACK;
use super::route::{destinations, with_weight};
use crate::plan::{Track, Weights};
use crate::release::ServiceRelease;

/// The rules with shares for the canary and its baseline; without weights, those without either. Rules that lead elsewhere stay as
/// they are. `before` are the rules as they were before there was one: they have the weight that the service gets back.
pub(super) fn weighted(rules: &Value, before: &Value, service: &ServiceRelease, weights: Option<Weights>) -> Value {
    let others = [Track::Canary, Track::Baseline].map(|track| host(service, &track.name(&service.name)));
    let mut rules = rules.clone();
    for (place, rule) in rules.as_array_mut().into_iter().flatten().enumerate() {
        let Some(routes) = rule["route"].as_array().cloned() else { continue };
        let routes = routes
            .into_iter()
            .filter(|route| others.iter().all(|other| route["destination"]["host"] != other.as_str()));
        let shared = routes.flat_map(|route| match weights {
            _ if !leads_to(&route, service) => vec![route],
            Some(weights) => split(&route, service, weights),
            None => vec![with_weight(route, weight_before(before, place, service))],
        });
        rule["route"] = shared.collect();
    }
    rules
}

fn leads_to(route: &Value, service: &ServiceRelease) -> bool {
    let to = &route["destination"]["host"];
    *to == service.name.as_str() || *to == host(service, &service.name).as_str()
}

/// The weight that a service had in the rule at this place, or in the first one that leads to it.
fn weight_before(before: &Value, place: usize, service: &ServiceRelease) -> Option<Value> {
    let of = |rule: &Value| {
        let own = rule["route"].as_array()?.iter().find(|route| leads_to(route, service))?;
        Some(own["weight"].clone())
    };
    let weight = of(&before[place]).or_else(|| before.as_array()?.iter().find_map(of));
    weight.filter(|weight| !weight.is_null())
}

/// A `VirtualService` of a service that has none.
pub(super) fn temporary(service: &ServiceRelease, weights: Weights) -> Value {
    let host = host(service, &service.name);
    let route = split(&json!({ "destination": { "host": host } }), service, weights);
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {
            "name": service.name, "namespace": service.namespace, "labels": { TRACK: "canary" },
        },
        "spec": { "hosts": [host], "http": [{ "route": route }] },
    })
}

fn split(route: &Value, service: &ServiceRelease, weights: Weights) -> Vec<Value> {
    let one = |(name, weight): (String, u32)| {
        let mut own = route.clone();
        own["weight"] = json!(weight);
        // Whoever leads to the service by a shorter name goes on doing so.
        if name != service.name {
            own["destination"]["host"] = json!(host(service, &name));
        }
        own
    };
    destinations(&service.name, weights).map(one).collect()
}

fn host(service: &ServiceRelease, name: &str) -> String {
    format!("{name}.{}.svc.cluster.local", service.namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_that_leads_to_the_service_is_shared_and_keeps_its_timeout() {
        let to = |host: &str| json!({ "destination": { "host": host, "port": { "number": 80 } } });
        let rules = json!([
            { "match": [{ "port": 80 }], "route": [to("web.shop.svc.cluster.local")], "timeout": "2s" },
            { "route": [to("other")] },
        ]);
        let service = ServiceRelease::sample("web");
        let shared = weighted(&rules, &rules, &service, Some(Weights::of_canary(100_000)));
        assert_eq!(
            shared,
            json!([
                { "match": [{ "port": 80 }], "route": [
                    { "destination": { "host": "web.shop.svc.cluster.local", "port": { "number": 80 } }, "weight": 90 },
                    { "destination": { "host": "web-canary.shop.svc.cluster.local", "port": { "number": 80 } }, "weight": 10 },
                ], "timeout": "2s" },
                { "route": [to("other")] },
            ])
        );
        assert_eq!(weighted(&shared, &rules, &service, None), rules);
    }

    #[test]
    fn what_somebody_has_changed_while_a_canary_was_there_stays() {
        let service = ServiceRelease::sample("web");
        let before = json!([{ "route": [{ "destination": { "host": "web" }, "weight": 100 }] }]);
        let mut live = weighted(&before, &before, &service, Some(Weights::of_canary(100_000)));
        live[0]["timeout"] = json!("2s");
        let after = weighted(&live, &before, &service, None);
        assert_eq!(after, json!([{ "route": [{ "destination": { "host": "web" }, "weight": 100 }], "timeout": "2s" }]));
    }

    #[test]
    fn a_service_without_rules_gets_some_for_a_while() {
        let object = temporary(&ServiceRelease::sample("web"), Weights::of_canary(2_500));
        let weights: Vec<_> = object["spec"]["http"][0]["route"].as_array().into_iter().flatten().collect();
        assert_eq!((&weights[0]["weight"], &weights[1]["weight"]), (&json!(997_500), &json!(2_500)));
    }
}

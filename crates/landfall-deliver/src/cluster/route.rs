//! The rules of an `HTTPRoute` that shares requests between a service and its canary. Pure.
//!
//! What is written is what is there with the canary in it, or out of it: rules that somebody has added or changed meanwhile stay.

use serde_json::{Value, json};

use crate::plan::{Track, Weights};

/// The rules in which a service shares its requests with its canary, and with a baseline that has a share; without weights, those
/// without either. `before` are the rules as they were before there was a canary: they have the weight that the service gets back.
pub(super) fn weighted(rules: &Value, before: &Value, service: &str, weights: Option<Weights>) -> Value {
    let others = [Track::Canary, Track::Baseline].map(|track| track.name(service));
    let mut rules = rules.clone();
    for (place, rule) in rules.as_array_mut().into_iter().flatten().enumerate() {
        let Some(backends) = rule["backendRefs"].as_array().cloned() else { continue };
        let backends =
            backends.into_iter().filter(|backend| others.iter().all(|other| backend["name"] != other.as_str()));
        let shared = backends.flat_map(|backend| {
            if backend["name"] != service {
                return vec![backend];
            }
            match weights {
                Some(weights) => split(&backend, service, weights),
                None => vec![with_weight(backend, weight_before(before, place, service))],
            }
        });
        rule["backendRefs"] = shared.collect();
    }
    rules
}

fn split(backend: &Value, service: &str, weights: Weights) -> Vec<Value> {
    let one = |(name, weight): (String, u32)| {
        let mut own = backend.clone();
        (own["name"], own["weight"]) = (json!(name), json!(weight));
        own
    };
    destinations(service, weights).map(one).collect()
}

/// The names of what requests lead to, with their weights, which are percents where that says it all: of the service, of its
/// baseline if that has a share, and of its canary.
pub(super) fn destinations(service: &str, weights: Weights) -> impl Iterator<Item = (String, u32)> {
    let divisor = if weights.canary.is_multiple_of(10_000) { 10_000 } else { 1 };
    let baseline = (weights.baseline > 0).then(|| (Track::Baseline.name(service), weights.baseline));
    let all =
        [Some((service.to_owned(), weights.stable())), baseline, Some((Track::Canary.name(service), weights.canary))];
    all.into_iter().flatten().map(move |(name, weight)| (name, weight / divisor))
}

/// The weight that a service had in the rule at this place, or in the first one that leads to it.
fn weight_before(before: &Value, place: usize, service: &str) -> Option<Value> {
    let of = |rule: &Value| {
        let own = rule["backendRefs"].as_array()?.iter().find(|backend| backend["name"] == service)?;
        Some(own["weight"].clone())
    };
    let weight = of(&before[place]).or_else(|| before.as_array()?.iter().find_map(of));
    weight.filter(|weight| !weight.is_null())
}

/// A backend or a destination with this weight; without one, with none.
pub(super) fn with_weight(mut backend: Value, weight: Option<Value>) -> Value {
    match (weight, backend.as_object_mut()) {
        (Some(weight), Some(fields)) => drop(fields.insert("weight".to_owned(), weight)),
        (None, Some(fields)) => drop(fields.remove("weight")),
        (_, None) => {}
    }
    backend
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Value {
        json!([
            { "matches": [{ "path": { "value": "/" } }], "backendRefs": [{ "name": "web", "port": 80 }] },
            { "filters": [{ "type": "RequestRedirect" }] },
            { "backendRefs": [{ "name": "other", "port": 80 }] },
        ])
    }

    #[test]
    fn a_route_shares_the_requests_of_one_service_and_keeps_what_else_it_says() {
        let shared = weighted(&rules(), &rules(), "web", Some(Weights::of_canary(50_000)));
        assert_eq!(
            shared,
            json!([
                { "matches": [{ "path": { "value": "/" } }], "backendRefs": [
                    { "name": "web", "port": 80, "weight": 95 }, { "name": "web-canary", "port": 80, "weight": 5 },
                ] },
                { "filters": [{ "type": "RequestRedirect" }] },
                { "backendRefs": [{ "name": "other", "port": 80 }] },
            ])
        );
        let small = weighted(&shared, &rules(), "web", Some(Weights::of_canary(2_500)));
        assert_eq!(
            (&small[0]["backendRefs"][0]["weight"], &small[0]["backendRefs"][1]["weight"]),
            (&json!(997_500), &json!(2_500))
        );
        assert_eq!(small[0]["backendRefs"].as_array().map(Vec::len), Some(2), "there is one canary");
        let beside = weighted(&small, &rules(), "web", Some(Weights { canary: 250_000, baseline: 250_000 }));
        assert_eq!(
            beside[0]["backendRefs"],
            json!([
                { "name": "web", "port": 80, "weight": 50 },
                { "name": "web-baseline", "port": 80, "weight": 25 },
                { "name": "web-canary", "port": 80, "weight": 25 },
            ])
        );
        assert_eq!(weighted(&beside, &rules(), "web", None), rules());
    }

    #[test]
    fn what_somebody_has_changed_while_a_canary_was_there_stays() {
        let mut before = rules();
        before[0]["backendRefs"][0]["weight"] = json!(1);
        let mut live = weighted(&before, &before, "web", Some(Weights::of_canary(50_000)));
        live[0]["timeouts"] = json!({ "request": "2s" });
        live.as_array_mut().expect("a list").push(json!({ "backendRefs": [{ "name": "web", "port": 81 }] }));
        let after = weighted(&live, &before, "web", None);
        assert_eq!(after[0]["timeouts"], json!({ "request": "2s" }));
        assert_eq!(after[0]["backendRefs"], json!([{ "name": "web", "port": 80, "weight": 1 }]));
        assert_eq!(after[3]["backendRefs"], json!([{ "name": "web", "port": 81, "weight": 1 }]));
    }
}

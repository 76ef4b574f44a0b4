//! The rules of a `VirtualService` that shares requests between a service and its canary. Pure.

use serde_json::{Value, json};

use super::perform::{TRACK, canary_name};
use crate::release::ServiceRelease;

/// The rules with a share in millionths for the canary; rules that lead elsewhere stay as they are.
pub(super) fn weighted(rules: &Value, service: &ServiceRelease, share: u32) -> Value {
    let names = [service.name.clone(), host(service, &service.name)];
    let mut rules = rules.clone();
    for rule in rules.as_array_mut().into_iter().flatten() {
        let Some(routes) = rule["route"].as_array().cloned() else { continue };
        let shared = routes.into_iter().flat_map(|route| {
            let leads_here = names.iter().any(|name| route["destination"]["host"] == *name);
            if leads_here { split(&route, service, share) } else { vec![route] }
        });
        rule["route"] = shared.collect();
    }
    rules
}

/// A `VirtualService` of a service that has none.
pub(super) fn temporary(service: &ServiceRelease, share: u32) -> Value {
    let host = host(service, &service.name);
    let route = split(&json!({ "destination": { "host": host } }), service, share);
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {
            "name": service.name, "namespace": service.namespace, "labels": { TRACK: "canary" },
        },
        "spec": { "hosts": [host], "http": [{ "route": route }] },
    })
}

fn split(route: &Value, service: &ServiceRelease, share: u32) -> Vec<Value> {
    let divisor = if share.is_multiple_of(10_000) { 10_000 } else { 1 };
    let (mut old, mut new) = (route.clone(), route.clone());
    old["weight"] = json!((1_000_000 - share) / divisor);
    new["destination"]["host"] = json!(host(service, &canary_name(&service.name)));
    new["weight"] = json!(share / divisor);
    vec![old, new]
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
        let weighted = weighted(&rules, &ServiceRelease::sample("web"), 100_000);
        assert_eq!(
            weighted,
            json!([
                { "match": [{ "port": 80 }], "route": [
                    { "destination": { "host": "web.shop.svc.cluster.local", "port": { "number": 80 } }, "weight": 90 },
                    { "destination": { "host": "web-canary.shop.svc.cluster.local", "port": { "number": 80 } }, "weight": 10 },
                ], "timeout": "2s" },
                { "route": [to("other")] },
            ])
        );
    }

    #[test]
    fn a_service_without_rules_gets_some_for_a_while() {
        let object = temporary(&ServiceRelease::sample("web"), 2_500);
        let weights: Vec<_> = object["spec"]["http"][0]["route"].as_array().into_iter().flatten().collect();
        assert_eq!((&weights[0]["weight"], &weights[1]["weight"]), (&json!(997_500), &json!(2_500)));
    }
}

//! Tries at the gateway what is not exposed: by each of its names, with TLS and without. And no route that the gateway has may
//! lead there, whatever its host and path are.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use landfall_model::Architecture;
use landfall_standin::HttpClient;
use serde_json::Value;

use super::super::plan::Plan;
use super::super::traffic::Outsider;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// What the gateway says itself of a request that it has no route for.
const NO_ROUTE: &[u8] = b"404 Not Found\n";

/// Something that nobody outside is to get to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hidden {
    name: String,
    namespace: String,
}

/// The services without `expose` that run, and the stores. Jobs serve nobody.
pub(super) fn hidden(architecture: &Architecture, plan: &Plan) -> Vec<Hidden> {
    let is_exposed = |name: &str| architecture.service(name).is_some_and(|service| service.expose.is_some());
    let services = plan.services.iter().filter(|service| !service.runs_once && !is_exposed(&service.service));
    let names = services.map(|service| &service.service).chain(plan.stores.iter().map(|store| &store.name));
    let hidden = names.filter_map(|name| {
        let element = architecture.element(name)?;
        Some(Hidden { name: name.clone(), namespace: architecture.namespace_of(&element).to_string() })
    });
    hidden.collect()
}

/// Those of them that the gateway leads to.
pub(super) async fn reached(outsider: &Outsider, plan: &Plan, hidden: &[Hidden]) -> anyhow::Result<Vec<String>> {
    let backends = backends(&plan.objects);
    let mut reached = Vec::new();
    for one in hidden {
        if backends.contains(&(one.namespace.clone(), one.name.clone())) || answers(outsider, one).await? {
            reached.push(one.name.clone());
        }
    }
    Ok(reached)
}

/// Whether somebody answers under one of its names.
async fn answers(outsider: &Outsider, hidden: &Hidden) -> anyhow::Result<bool> {
    for host in hosts(hidden) {
        for tls in [false, true] {
            if is_answered(&outsider.gateway(&host, tls)?).await? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Its names in the DNS of the pods.
fn hosts(Hidden { name, namespace }: &Hidden) -> [String; 4] {
    let namespaced = format!("{name}.{namespace}");
    [name.clone(), format!("{namespaced}.svc"), format!("{namespaced}.svc.cluster.local"), namespaced]
}

async fn is_answered(client: &HttpClient) -> anyhow::Result<bool> {
    let request = Request::get("/").body(Full::<Bytes>::default()).context("`/` is a path")?;
    Ok(match client.send(request, ANSWER).await {
        Ok((status, body)) => status != StatusCode::NOT_FOUND || body != NO_ROUTE,
        // No certificate for that name, or nobody at all.
        Err(_) => false,
    })
}

/// The services that rendered routes lead to, each with its namespace.
fn backends(objects: &[Value]) -> BTreeSet<(String, String)> {
    let is_route = |object: &&Value| {
        let kind = object["kind"].as_str().unwrap_or_default();
        let group = object["apiVersion"].as_str().unwrap_or_default();
        kind == "Ingress" || (kind.ends_with("Route") && group.starts_with("gateway.networking.k8s.io/"))
    };
    let mut found = BTreeSet::new();
    for route in objects.iter().filter(is_route) {
        let namespace = route["metadata"]["namespace"].as_str().unwrap_or_default();
        collect(&route["spec"], namespace, &mut found);
    }
    found
}

fn collect(value: &Value, namespace: &str, found: &mut BTreeSet<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                let references: Vec<&Value> = match key.as_str() {
                    "backendRefs" => field.as_array().into_iter().flatten().collect(),
                    "backendRef" => vec![field],
                    "backend" | "defaultBackend" => vec![&field["service"]],
                    _ => Vec::new(),
                };
                for reference in references {
                    let namespace = reference["namespace"].as_str().unwrap_or(namespace);
                    found.extend(reference["name"].as_str().map(|name| (namespace.to_owned(), name.to_owned())));
                }
                collect(field, namespace, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, namespace, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn backends_are_found_in_both_kinds_of_routes() {
        let objects = [
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": { "name": "web", "namespace": "shop" },
                "spec": { "rules": [{ "http": { "paths": [
                    { "path": "/", "backend": { "service": { "name": "web", "port": { "name": "http" } } } },
                ] } }] },
            }),
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": { "name": "api", "namespace": "shop" },
                "spec": { "rules": [{ "backendRefs": [{ "name": "api" }, { "name": "rows", "namespace": "data" }] }] },
            }),
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "stock", "namespace": "shop" } }),
        ];
        let found = backends(&objects);
        let found: Vec<_> = found.iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect();
        assert_eq!(found, ["data/rows", "shop/api", "shop/web"]);
    }

    #[test]
    fn a_service_is_asked_for_by_every_name_that_it_has() {
        let hidden = Hidden { name: "stock".to_owned(), namespace: "shop".to_owned() };
        assert_eq!(hosts(&hidden), ["stock", "stock.shop.svc", "stock.shop.svc.cluster.local", "stock.shop"]);
    }
}

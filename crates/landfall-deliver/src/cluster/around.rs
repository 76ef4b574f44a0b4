//! What is around a workload and has a part in its releases: its route, its rules in a mesh, its autoscaler.

use kube::api::{DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;

use super::autoscaler::Autoscaler;
use super::{ClusterError, During as _, if_there, mesh_resource, route_resource};
use crate::plan::Bounds;

/// The rules of the `HTTPRoute` of a service, if it has one that leads to it.
pub(crate) async fn route_rules(
    client: &Client,
    namespace: &str,
    service: &str,
) -> Result<Option<Value>, ClusterError> {
    let routes = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &route_resource());
    let route = if_there(routes.get(service).await).during(|| format!("read the HTTPRoute `{service}`"))?;
    Ok(route.map(|route| route.data["spec"]["rules"].clone()).filter(|rules| leads_to(rules, service)))
}

fn leads_to(rules: &Value, service: &str) -> bool {
    let rules = rules.as_array().into_iter().flatten();
    rules.flat_map(|rule| rule["backendRefs"].as_array().into_iter().flatten()).any(|to| to["name"] == service)
}

/// Whether the cluster knows the kind `VirtualService`, and the rules of the one of a service.
pub(crate) async fn mesh_rules(
    client: &Client,
    namespace: &str,
    service: &str,
) -> Result<(bool, Option<Value>), ClusterError> {
    let routes = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &mesh_resource());
    let listed = if_there(routes.list(&ListParams::default()).await)
        .during(|| format!("list the VirtualServices in `{namespace}`"))?;
    let Some(listed) = listed else { return Ok((false, None)) };
    let own = listed.items.into_iter().find(|route| route.name_any() == service);
    Ok((true, own.map(|route| route.data["spec"]["http"].clone()).filter(Value::is_array)))
}

/// The bounds of the autoscaler of a service, if it has one.
pub(crate) async fn bounds(client: &Client, namespace: &str, service: &str) -> Result<Option<Bounds>, ClusterError> {
    let found = Autoscaler::find(client, namespace, service).await?;
    Ok(found.map(|autoscaler| autoscaler.limits()).map(|limits| Bounds { floor: limits.min, ceiling: limits.max }))
}

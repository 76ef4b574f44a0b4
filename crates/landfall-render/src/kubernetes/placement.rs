//! Where pods are placed: node pools, zones and nodes.

use crate::json::json;
use landfall_model::{Architecture, Placement, Service, ServiceKind, Spread};
use serde_json::Value;

use super::metadata::Subject;
use super::scaling;

/// The label and taint of the nodes of a pool.
const POOL: &str = "landfall.dev/pool";

/// The pool whose nodes have no label: `platform.nodes`.
const DEFAULT_POOL: &str = "default";

fn pool(placement: &Placement) -> Option<&str> {
    placement.pool.as_ref().map(|pool| pool.as_str()).filter(|pool| *pool != DEFAULT_POOL)
}

/// The nodes of the declared pool.
pub(super) fn node_selector(placement: &Placement) -> Value {
    pool(placement).map_or(Value::Null, |pool| json!({ POOL: pool }))
}

/// Leave to stand on the nodes of a dedicated pool.
pub(super) fn tolerations(architecture: &Architecture, placement: &Placement) -> Value {
    let dedicated =
        |name: &&str| architecture.document.platform.pools.get(*name).is_some_and(|pool| pool.dedicated.value);
    pool(placement).filter(dedicated).map_or(
        Value::Null,
        |pool| json!([{ "key": POOL, "operator": "Equal", "value": pool, "effect": "NoSchedule" }]),
    )
}

/// Whether anything keeps the copies of a service apart.
fn keeps_apart(service: &Service, spread: Spread) -> bool {
    let job = service.kind.value == ServiceKind::ScheduledJob;
    spread != Spread::None && scaling::most(service) > 1 && !job
}

/// Copies over the zones.
///
/// Each revision is spread by itself (`matchLabelKeys`), since otherwise the old copies would push the new ones into
/// one zone, and nodes that the pod does not tolerate are no places to spread over.
pub(super) fn zone_spread(architecture: &Architecture, subject: &Subject<'_>, service: &Service) -> Value {
    let spread = service.placement.zones.value;
    if !keeps_apart(service, spread) {
        return Value::Null;
    }
    let zones = architecture.zones().len();
    let required = spread == Spread::Required;
    // Without `minDomains` a zone without any node is not counted, and all copies may stand in those that are left.
    let least = (required && zones > 1).then_some(zones);
    json!([{
        "maxSkew": 1,
        "minDomains": least,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": if required { "DoNotSchedule" } else { "ScheduleAnyway" },
        "nodeTaintsPolicy": "Honor",
        "labelSelector": { "matchLabels": subject.selector() },
        "matchLabelKeys": ["pod-template-hash"],
    }])
}

/// Two copies keep off one node. The copies of another revision do not count, so that a rollout fits on the nodes that
/// there are.
pub(super) fn affinity(subject: &Subject<'_>, service: &Service) -> Value {
    let spread = service.placement.nodes.value;
    if !keeps_apart(service, spread) {
        return Value::Null;
    }
    let term = json!({
        "labelSelector": { "matchLabels": subject.selector() },
        "topologyKey": "kubernetes.io/hostname",
        "matchLabelKeys": ["pod-template-hash"],
    });
    if spread == Spread::Required {
        json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } })
    } else {
        json!({ "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 100, "podAffinityTerm": term }] } })
    }
}

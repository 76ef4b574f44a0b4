//! Where the members of a store stand: zones, nodes, pools.
//!
//! A store keeps its members apart unless the file says otherwise. Two members of a database on one node, or all of
//! them in one zone, are what its replication was bought against, so here the default is stricter than for services.

use crate::json::json;
use landfall_model::{Spanned, Spread};
use serde_json::Value;

use super::Site;
use crate::kubernetes::placement;
use crate::object::compact;

const ZONE: &str = "topology.kubernetes.io/zone";
const NODE: &str = "kubernetes.io/hostname";

/// The label and taint of machines that belong to one store.
const OWN_MACHINES: &str = "landfall.dev/store";

impl Site<'_> {
    /// How strictly the members keep apart: as declared, otherwise strictly.
    fn spread(&self, declared: &Spanned<Spread>) -> Spread {
        match declared.value {
            _ if self.members() == 1 => Spread::None,
            spread if declared.span.is_written() => spread,
            _ => Spread::Required,
        }
    }

    /// How strictly the members keep to different zones; a platform that declares no zones has none to keep to.
    pub(super) fn zone_spread(&self) -> Spread {
        let zones = &self.store.placement.zones;
        if self.zone_count() < 2 && !zones.span.is_written() { Spread::None } else { self.spread(zones) }
    }

    fn zone_count(&self) -> usize {
        if self.store.zones.is_empty() { self.architecture.zones().len() } else { self.store.zones.len() }
    }

    /// The constraint that spreads the pods that `selector` selects over the zones.
    pub(super) fn topology_spread(&self, selector: &Value) -> Value {
        let spread = self.zone_spread();
        if spread == Spread::None {
            return Value::Null;
        }
        let required = spread == Spread::Required;
        // Without `minDomains` a zone without any node is not counted, and all members may stand in those that are
        // left. Fewer members than zones cannot reach that many.
        let least = (required && self.zone_count() > 1).then(|| self.zone_count().min(self.members() as usize));
        compact(json!([{
            "maxSkew": 1,
            "minDomains": least,
            "topologyKey": ZONE,
            "whenUnsatisfiable": if required { "DoNotSchedule" } else { "ScheduleAnyway" },
            "nodeTaintsPolicy": "Honor",
            "labelSelector": { "matchLabels": selector },
        }]))
    }

    /// Keeps two of the pods that `selector` selects off one node.
    pub(super) fn pod_anti_affinity(&self, selector: &Value) -> Value {
        let term = json!({ "labelSelector": { "matchLabels": selector }, "topologyKey": NODE });
        match self.spread(&self.store.placement.nodes) {
            Spread::None => Value::Null,
            Spread::Required => json!({ "requiredDuringSchedulingIgnoredDuringExecution": [term] }),
            Spread::Preferred => {
                json!({ "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 100, "podAffinityTerm": term }] })
            }
        }
    }

    /// How CloudNativePG, which writes the term itself, calls the strictness; `None` to keep nothing apart.
    pub(super) fn node_anti_affinity_type(&self) -> Option<&'static str> {
        match self.spread(&self.store.placement.nodes) {
            Spread::None => None,
            Spread::Required => Some("required"),
            Spread::Preferred => Some("preferred"),
        }
    }

    /// The zones that the store is bound to, as a node affinity: only when it names them.
    ///
    /// The names are those of the node's label, so the file has to say `eu-central-1a` where the provider does.
    pub(super) fn node_affinity(&self) -> Value {
        on_nodes(self.bound_zones().as_slice())
    }

    fn bound_zones(&self) -> Option<Value> {
        let zones: Vec<&str> = self.store.zones.iter().map(|zone| zone.as_str()).collect();
        (!zones.is_empty()).then(|| json!({ "key": ZONE, "operator": "In", "values": zones }))
    }

    /// Both affinities; null when there is none.
    pub(super) fn affinity(&self, selector: &Value) -> Value {
        both(&self.node_affinity(), &self.pod_anti_affinity(selector))
    }

    /// Both affinities with the node selector among them, for custom resources that have no node selector of their own.
    pub(super) fn affinity_with_selector(&self, selector: &Value) -> Value {
        let labels = self.node_selector().as_object().cloned().unwrap_or_default();
        let selected =
            labels.into_iter().map(|(key, value)| json!({ "key": key, "operator": "In", "values": [value] }));
        let expressions: Vec<Value> = selected.chain(self.bound_zones()).collect();
        both(&on_nodes(&expressions), &self.pod_anti_affinity(selector))
    }

    /// The nodes of the declared pool, or the machines of the store's own.
    pub(super) fn node_selector(&self) -> Value {
        if self.store.own_machines.value {
            json!({ OWN_MACHINES: self.name() })
        } else {
            placement::node_selector(&self.store.placement)
        }
    }

    /// The taints of those nodes.
    pub(super) fn tolerations(&self) -> Value {
        if self.store.own_machines.value {
            json!([{ "key": OWN_MACHINES, "operator": "Equal", "value": self.name(), "effect": "NoSchedule" }])
        } else {
            placement::tolerations(self.architecture, &self.store.placement)
        }
    }
}

/// A node affinity that asks for all of the expressions; null for none.
fn on_nodes(expressions: &[Value]) -> Value {
    if expressions.is_empty() {
        return Value::Null;
    }
    json!({
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": expressions }],
        },
    })
}

fn both(node: &Value, pod: &Value) -> Value {
    if node.is_null() && pod.is_null() {
        return Value::Null;
    }
    compact(json!({ "nodeAffinity": node, "podAntiAffinity": pod }))
}

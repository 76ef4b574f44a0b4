//! The pods that the file asks for, in groups that are alike.

use std::collections::BTreeSet;

use landfall_model::{
    Architecture, Element, Engine, Persistence, Resources, ServiceKind, Span, Spread, Store, StoreProvider,
};
use serde_json::Value;

use super::{Amount, Nodes};
use crate::facts;

/// Every pod that runs on the nodes.
pub(in crate::rules) struct Pods<'a> {
    pub(in crate::rules) groups: Vec<Group<'a>>,
    /// The elements that request nothing; the scheduler places them anywhere.
    pub(in crate::rules) unknown: Vec<Element>,
    /// What the mesh adds to each pod.
    pub(in crate::rules) sidecar: Option<Amount>,
    /// Whether that number is the mesh's default.
    pub(in crate::rules) sidecar_is_assumed: bool,
}

/// Pods that are alike: the copies of a service, the members of a store.
#[derive(Debug, Clone)]
pub(in crate::rules) struct Group<'a> {
    pub(in crate::rules) element: Element,
    pub(in crate::rules) span: Span,
    /// The fewest copies that run; none of a scheduled job between its runs.
    pub(in crate::rules) floor: u32,
    /// The most copies that run.
    pub(in crate::rules) ceiling: u32,
    /// What a copy requests, its sidecar included.
    pub(in crate::rules) request: Amount,
    /// The pools on which it may run, by their places.
    pub(in crate::rules) pools: Vec<usize>,
    /// The zones in which it may run, by their places.
    pub(in crate::rules) zones: Vec<usize>,
    pub(in crate::rules) spread_over_nodes: Spread,
    pub(in crate::rules) spread_over_zones: Spread,
    /// Whether a copy has a volume that cannot leave its zone.
    pub(in crate::rules) is_pinned: bool,
    /// Whether the nodes of a lost zone still count when the copies are spread over zones, because the spread
    /// constraint does not honour taints.
    pub(in crate::rules) lost_zone_counts: bool,
    pub(in crate::rules) priority: i32,
    /// The store, if it is one.
    pub(in crate::rules) store: Option<&'a Store>,
}

impl<'a> Pods<'a> {
    pub(super) fn of(architecture: &'a Architecture, objects: &[Value], nodes: &Nodes<'_>) -> Self {
        let mesh = architecture.document.platform.mesh.as_ref();
        let sidecar = mesh.map(|mesh| match &mesh.sidecar {
            Some(declared) => Amount::new(declared.cpu.millicores(), declared.memory.get()),
            None => Amount::new(facts::SIDECAR_CPU.millicores(), facts::SIDECAR_MEMORY.get()),
        });
        let honouring = honours_taints(objects);
        let overhead = sidecar.unwrap_or_default();
        let mut groups = Vec::new();
        let mut unknown = Vec::new();
        let open: Vec<usize> =
            (0..nodes.pools.len()).filter(|pool| !nodes.pools[*pool].declared.dedicated.value).collect();
        let pools = |wanted: Option<&str>| match wanted {
            Some(name) => (0..nodes.pools.len()).filter(|pool| nodes.pools[*pool].name == name).collect(),
            None => open.clone(),
        };
        for (name, service) in &architecture.document.services {
            let element = Element::Service(name.value.clone());
            let request = request(&service.resources);
            if request.is_nothing() {
                unknown.push(element.clone());
            }
            let is_job = service.kind.value == ServiceKind::ScheduledJob;
            groups.push(Group {
                element,
                span: name.span,
                floor: if is_job { 0 } else { service.replicas.floor() },
                ceiling: if is_job { 1 } else { service.replicas.ceiling() },
                request: request + overhead,
                pools: pools(service.placement.pool.as_ref().map(|pool| pool.as_str())),
                zones: (0..nodes.zones.len()).collect(),
                spread_over_nodes: service.placement.nodes.value,
                spread_over_zones: service.placement.zones.value,
                is_pinned: false,
                lost_zone_counts: !honouring.contains(name.as_str()),
                priority: service.priority.map_or(0, |priority| priority.value),
                store: None,
            });
        }
        for (name, store) in &architecture.document.stores {
            if !runs_on_nodes(architecture, store) {
                continue;
            }
            let element = Element::Store(name.value.clone());
            let request = request(&store.resources);
            if request.is_nothing() {
                unknown.push(element.clone());
            }
            let declared: Vec<usize> = store.zones.iter().filter_map(|zone| nodes.zone_named(zone.as_str())).collect();
            groups.push(Group {
                element,
                span: name.span,
                floor: store.members.value,
                ceiling: store.members.value,
                request: request + overhead,
                pools: pools(store.placement.pool.as_ref().map(|pool| pool.as_str())),
                zones: if store.zones.is_empty() { (0..nodes.zones.len()).collect() } else { declared },
                spread_over_nodes: store.placement.nodes.value,
                spread_over_zones: store.placement.zones.value,
                is_pinned: has_volume(store) && architecture.document.platform.storage.zonal.value,
                lost_zone_counts: !honouring.contains(name.as_str()),
                priority: 0,
                store: Some(store),
            });
        }
        let sidecar_is_assumed = mesh.is_some_and(|mesh| mesh.sidecar.is_none());
        Self { groups, unknown, sidecar, sidecar_is_assumed }
    }

    /// What all groups request with so many copies.
    pub(in crate::rules) fn total(&self, copies: impl Fn(&Group<'a>) -> u32) -> Amount {
        self.groups.iter().map(|group| group.request * copies(group)).sum()
    }

    /// The place of the group of an element.
    pub(in crate::rules) fn position(&self, element: &Element) -> Option<usize> {
        // Services come before stores, each by name, which is the order of `Element`.
        self.groups.binary_search_by(|group| group.element.cmp(element)).ok()
    }
}

/// Whether the members run on the nodes of the primary region.
pub(in crate::rules) fn runs_on_nodes(architecture: &Architecture, store: &Store) -> bool {
    let in_cluster = matches!(store.provider.value, StoreProvider::Operator | StoreProvider::Statefulset);
    let primary = architecture.primary_region().map(|(name, _)| name.as_str());
    let here = store.region.as_ref().is_none_or(|region| Some(region.as_str()) == primary);
    in_cluster && here && !store.own_machines.value
}

/// Whether the members keep their data on volumes: all but a cache that keeps nothing do.
pub(in crate::rules) fn has_volume(store: &Store) -> bool {
    let keeps = store.persistence.map(|persistence| persistence.value);
    let may_forget = matches!(store.engine.value, Engine::Redis | Engine::Mqtt);
    keeps != Some(Persistence::None) && (!may_forget || keeps.is_some() || store.size.is_some())
}

fn request(resources: &Resources) -> Amount {
    Amount::new(
        resources.cpu.map_or(0, |range| range.low.millicores()),
        resources.memory.map_or(0, |range| range.low.get()),
    )
}

/// The names of workloads whose spread over zones leaves tainted nodes out: `nodeTaintsPolicy: Honor`.
///
/// <https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/>: the default is `Ignore`.
fn honours_taints(objects: &[Value]) -> BTreeSet<&str> {
    let honours = |object: &&Value| {
        let constraints = object.pointer("/spec/template/spec/topologySpreadConstraints").and_then(Value::as_array);
        constraints.into_iter().flatten().any(|constraint| {
            constraint["topologyKey"] == "topology.kubernetes.io/zone" && constraint["nodeTaintsPolicy"] == "Honor"
        })
    };
    objects.iter().filter(honours).filter_map(|object| object.pointer("/metadata/name")?.as_str()).collect()
}

//! The nodes of the primary region: which pool, which zone, how much of each can be requested.

use landfall_model::{Architecture, NodePool, Provider};

use super::Amount;
use crate::facts::{self, ReservationFormula};

/// The node pools of the primary region, their nodes spread over the zones one by one, the first zones first.
pub(in crate::rules) struct Nodes<'a> {
    pub(in crate::rules) pools: Vec<Pool<'a>>,
    /// The names of the zones; a region without zones is one zone without a name.
    pub(in crate::rules) zones: Vec<&'a str>,
}

/// More zones than any region has: each is taken away in turn, and a file with thousands would take minutes.
const MOST_ZONES: usize = 64;

/// More nodes in a pool than any cluster has: Kubernetes is tested with 5,000 in all.
/// <https://kubernetes.io/docs/setup/best-practices/cluster-large/>
const MOST_NODES: u32 = 20_000;

/// A pool of nodes that are alike.
pub(in crate::rules) struct Pool<'a> {
    pub(in crate::rules) name: String,
    pub(in crate::rules) declared: &'a NodePool,
    /// How many nodes it has.
    pub(in crate::rules) count: u32,
    /// Whether it is `platform.nodes`.
    pub(in crate::rules) is_short: bool,
    /// What a node has.
    pub(in crate::rules) bought: Amount,
    /// What pods on a node can request.
    pub(in crate::rules) allocatable: Amount,
    /// How the reservation was derived; `None` when it is declared.
    pub(in crate::rules) formula: Option<ReservationFormula>,
    /// The places of its zones in [`Nodes::zones`].
    zones: Vec<usize>,
}

impl<'a> Nodes<'a> {
    /// The nodes of the architecture; `None` when it declares none, or more zones than any region has.
    pub(in crate::rules) fn of(architecture: &'a Architecture) -> Option<Self> {
        let platform = &architecture.document.platform;
        let mut zones: Vec<&str> = architecture.zones().iter().map(|zone| zone.as_str()).collect();
        if zones.is_empty() {
            zones.push("");
        }
        let provider = architecture.primary_region().and_then(|(_, region)| region.provider.map(|p| p.value));
        let only = platform.providers.first().filter(|_| platform.providers.len() == 1).map(|p| p.value);
        let formula =
            if provider.or(only) == Some(Provider::Aws) { ReservationFormula::Eks } else { ReservationFormula::Gke };
        let pools: Vec<Pool<'a>> = architecture
            .pools()
            .into_iter()
            .filter(|(_, pool)| pool.count.value > 0)
            .map(|(name, declared)| {
                let is_short = platform.nodes.as_ref().is_some_and(|short| std::ptr::eq(short, declared));
                Pool::new(name, declared, is_short, &zones, formula)
            })
            .collect();
        (!pools.is_empty() && zones.len() <= MOST_ZONES).then_some(Self { pools, zones })
    }

    /// How many nodes of the pool stand in each zone.
    pub(in crate::rules) fn count_by_zone(&self, pool: &Pool<'_>) -> Vec<u32> {
        let mut counts = vec![0; self.zones.len()];
        let zones = u32::try_from(pool.zones.len()).unwrap_or(u32::MAX);
        for (position, zone) in (0..).zip(&pool.zones) {
            counts[*zone] += pool.count / zones + u32::from(position < pool.count % zones);
        }
        counts
    }

    /// How many nodes stand in the zone, over all pools.
    pub(in crate::rules) fn in_zone(&self, zone: usize) -> u32 {
        self.pools.iter().map(|pool| self.count_by_zone(pool)[zone]).sum()
    }

    /// What the nodes that are left without the zone have, and what of it can be requested.
    pub(in crate::rules) fn left_without(&self, zone: Option<usize>) -> (u32, Amount, Amount) {
        let mut left = (0, Amount::default(), Amount::default());
        for pool in &self.pools {
            let lost = zone.map_or(0, |zone| self.count_by_zone(pool)[zone]);
            let nodes = pool.count - lost;
            left = (left.0 + nodes, left.1 + pool.bought * nodes, left.2 + pool.allocatable * nodes);
        }
        left
    }

    /// The place of a zone by its name.
    pub(super) fn zone_named(&self, name: &str) -> Option<usize> {
        self.zones.iter().position(|zone| *zone == name)
    }
}

impl<'a> Pool<'a> {
    fn new(name: String, declared: &'a NodePool, is_short: bool, zones: &[&str], formula: ReservationFormula) -> Self {
        let bought = Amount::new(declared.cpu.millicores(), declared.memory.get());
        let (kept, formula) = match &declared.reserved {
            Some(reserved) => (Amount::new(reserved.cpu.millicores(), reserved.memory.get()), None),
            None => {
                let cpu = facts::reserved_cpu(declared.cpu.value).millicores();
                (Amount::new(cpu, facts::reserved_memory(declared.memory.value, formula).get()), Some(formula))
            }
        };
        let threshold = Amount::new(0, facts::EVICTION_THRESHOLD.get());
        let named = declared.zones.iter().filter_map(|zone| zones.iter().position(|known| *known == zone.as_str()));
        let mut own: Vec<usize> = named.collect();
        if own.is_empty() {
            own = (0..zones.len()).collect();
        }
        let count = declared.count.value.min(MOST_NODES);
        Self { name, declared, count, is_short, bought, allocatable: bought - kept - threshold, formula, zones: own }
    }

    /// What the kubelet, the system and the eviction threshold keep of a node.
    pub(in crate::rules) fn reserved(&self) -> Amount {
        self.bought - self.allocatable
    }
}

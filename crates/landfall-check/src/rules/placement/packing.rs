//! First-fit-decreasing under the rules that the scheduler must obey: requests, pools, spread, volumes' zones.

use std::collections::HashMap;

use landfall_model::Spread;

use super::first_fit::FirstFit;
use super::{Amount, Group, Nodes};

/// The most pods that Kubernetes is tested with in one cluster.
/// <https://kubernetes.io/docs/setup/best-practices/cluster-large/>
const MOST_PODS: u32 = 150_000;

/// Which groups have copies on which nodes, and what is free.
#[derive(Clone)]
pub(in crate::rules) struct Packing<'a> {
    groups: &'a [Group<'a>],
    zones: usize,
    /// Of each pool in each zone: at `pool * zones + zone`.
    lanes: Vec<FirstFit>,
    /// Of each group: where each copy is.
    placed: Vec<Vec<Spot>>,
    /// How many copies may still be placed.
    left: u32,
    lost: Option<usize>,
}

/// Where the copies of one group are while more of them are placed.
struct Own {
    on: HashMap<Spot, u32>,
    by_zone: Vec<u32>,
    /// Of each lane: no node before this one has room and no copy. Copies are alike and room only shrinks, so that it
    /// never has to be looked at again.
    apart_from: HashMap<usize, usize>,
}

/// A node: its lane and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Spot {
    lane: usize,
    node: usize,
}

/// Copies that could not be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::rules) struct Unplaced {
    /// The place of the group.
    pub(in crate::rules) group: usize,
    pub(in crate::rules) copies: u32,
    pub(in crate::rules) why: Obstacle,
}

/// Why a copy could not be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::rules) enum Obstacle {
    /// No node where it may run has room; the most that is free of each resource on any of them.
    Room { most_free: Amount },
    /// Every node with room has a copy already, and copies must keep apart.
    Nodes,
    /// Only zones with too many copies have room, and copies must be spread evenly.
    Zones,
    /// It may run on no node at all.
    Nowhere,
    /// There are more pods than any cluster has.
    TooMany,
}

/// What the loss of a zone does.
pub(in crate::rules) struct ZoneLoss {
    /// Of each group: how many copies were in the zone.
    pub(in crate::rules) lost: Vec<u32>,
    /// Of each group: how many of them wait for their volumes.
    pub(in crate::rules) pinned: Vec<u32>,
    /// What finds no place in the other zones.
    pub(in crate::rules) unplaced: Vec<Unplaced>,
}

impl<'a> Packing<'a> {
    /// Places so many copies of each group, the large ones first.
    pub(super) fn fill(
        nodes: &Nodes<'_>,
        groups: &'a [Group<'a>],
        copies: impl Fn(&Group<'a>) -> u32,
    ) -> (Self, Vec<Unplaced>) {
        let zones = nodes.zones.len();
        let mut lanes = Vec::with_capacity(nodes.pools.len() * zones);
        for pool in &nodes.pools {
            for count in nodes.count_by_zone(pool) {
                lanes.push(FirstFit::new(&vec![pool.allocatable; count as usize]));
            }
        }
        let mut packing =
            Self { groups, zones, lanes, placed: vec![Vec::new(); groups.len()], left: MOST_PODS, lost: None };
        let (_, _, all) = nodes.left_without(None);
        let order = decreasing(groups, all);
        let unplaced = order.into_iter().filter_map(|group| packing.add(group, copies(&groups[group]))).collect();
        (packing, unplaced)
    }

    /// How many copies of the group are placed.
    pub(in crate::rules) fn copies(&self, group: usize) -> usize {
        self.placed[group].len()
    }

    /// How many copies of the group are in each zone.
    pub(in crate::rules) fn by_zone(&self, group: usize) -> Vec<u32> {
        let mut counts = vec![0; self.zones];
        for spot in &self.placed[group] {
            counts[spot.lane % self.zones] += 1;
        }
        counts
    }

    /// What is requested on the nodes of each pool.
    pub(in crate::rules) fn requested_by_pool(&self) -> Vec<Amount> {
        let mut requested = vec![Amount::default(); self.lanes.len() / self.zones];
        for (group, spots) in self.groups.iter().zip(&self.placed) {
            for spot in spots {
                requested[spot.lane / self.zones] += group.request;
            }
        }
        requested
    }

    /// Places more copies of a group, as many as fit.
    pub(in crate::rules) fn add(&mut self, group: usize, copies: u32) -> Option<Unplaced> {
        let mut own = Own { on: HashMap::new(), by_zone: self.by_zone(group), apart_from: HashMap::new() };
        for spot in &self.placed[group] {
            *own.on.entry(*spot).or_default() += 1;
        }
        for placed in 0..copies {
            if self.left == 0 {
                return Some(Unplaced { group, copies: copies - placed, why: Obstacle::TooMany });
            }
            match self.place(group, &mut own) {
                Ok(spot) => {
                    let lane = &mut self.lanes[spot.lane];
                    lane.set(spot.node, lane.free(spot.node) - self.groups[group].request);
                    *own.on.entry(spot).or_default() += 1;
                    own.by_zone[spot.lane % self.zones] += 1;
                    self.placed[group].push(spot);
                    self.left -= 1;
                }
                // Copies are alike: where one does not fit, the next does not either.
                Err(why) => return Some(Unplaced { group, copies: copies - placed, why }),
            }
        }
        None
    }

    /// Takes the copies of a group that were placed last away again.
    pub(in crate::rules) fn take_back(&mut self, group: usize, keep: usize) {
        let keep = keep.min(self.placed[group].len());
        for spot in self.placed[group].split_off(keep) {
            let lane = &mut self.lanes[spot.lane];
            lane.set(spot.node, lane.free(spot.node) + self.groups[group].request);
            self.left += 1;
        }
    }

    /// Takes a zone away and places what was in it on what is left; a copy whose volume is in the zone waits.
    pub(in crate::rules) fn lose_zone(&self, nodes: &Nodes<'_>, zone: usize) -> ZoneLoss {
        let mut left = self.clone();
        left.lost = Some(zone);
        left.left = MOST_PODS;
        let mut lost = vec![0; self.groups.len()];
        let mut pinned = vec![0; self.groups.len()];
        for (group, spots) in left.placed.iter_mut().enumerate() {
            let before = spots.len();
            spots.retain(|spot| spot.lane % self.zones != zone);
            lost[group] = u32::try_from(before - spots.len()).unwrap_or(u32::MAX);
            if self.groups[group].is_pinned {
                pinned[group] = lost[group];
            }
        }
        for lane in left.lanes.iter_mut().skip(zone).step_by(self.zones) {
            *lane = FirstFit::default();
        }
        let (_, _, rest) = nodes.left_without(Some(zone));
        let order = decreasing(self.groups, rest);
        let unplaced = order.into_iter().filter_map(|group| left.add(group, lost[group] - pinned[group])).collect();
        ZoneLoss { lost, pinned, unplaced }
    }

    /// Where the next copy of the group goes: the zone with the fewest of its copies, there a node without one.
    fn place(&self, group: usize, own: &mut Own) -> Result<Spot, Obstacle> {
        let wanted = &self.groups[group];
        let lanes = |zone: usize| wanted.pools.iter().map(move |pool| pool * self.zones + zone);
        let has_nodes = |zone: usize| lanes(zone).any(|lane| self.lanes[lane].len() > 0);
        let mut zones: Vec<usize> = wanted.zones.iter().copied().filter(|zone| has_nodes(*zone)).collect();
        if zones.is_empty() {
            return Err(Obstacle::Nowhere);
        }
        let counts_as_empty = self.lost.is_some_and(|lost| wanted.lost_zone_counts && wanted.zones.contains(&lost));
        let fewest = zones.iter().map(|zone| own.by_zone[*zone]).min().unwrap_or(0);
        let fewest = if counts_as_empty { 0 } else { fewest };
        let too_many =
            |by_zone: &[u32], zone: usize| wanted.spread_over_zones == Spread::Required && by_zone[zone] > fewest;
        if wanted.spread_over_zones != Spread::None {
            zones.sort_by_key(|zone| (own.by_zone[*zone], *zone));
        }
        for zone in zones.iter().copied() {
            if too_many(&own.by_zone, zone) {
                continue;
            }
            if wanted.spread_over_nodes != Spread::None
                && let Some(spot) = lanes(zone).find_map(|lane| self.first_apart(lane, wanted.request, own))
            {
                return Ok(spot);
            }
            if wanted.spread_over_nodes != Spread::Required
                && let Some(spot) = lanes(zone).find_map(|lane| self.first(lane, wanted.request))
            {
                return Ok(spot);
            }
        }
        Err(self.obstacle(wanted, own, &zones))
    }

    /// The first node of the lane with room.
    fn first(&self, lane: usize, need: Amount) -> Option<Spot> {
        self.lanes[lane].find(0, need, &|_| true).map(|node| Spot { lane, node })
    }

    /// The first node of the lane with room and no copy of the group.
    fn first_apart(&self, lane: usize, need: Amount, own: &mut Own) -> Option<Spot> {
        let start = own.apart_from.get(&lane).copied().unwrap_or(0);
        let node = self.lanes[lane].find(start, need, &|node| !own.on.contains_key(&Spot { lane, node }));
        own.apart_from.insert(lane, node.unwrap_or(self.lanes[lane].len()));
        node.map(|node| Spot { lane, node })
    }

    /// Why a copy finds no place in these zones: which rule, once lifted, would let it in.
    fn obstacle(&self, wanted: &Group<'_>, own: &mut Own, zones: &[usize]) -> Obstacle {
        let lanes = || zones.iter().flat_map(|zone| wanted.pools.iter().map(move |pool| pool * self.zones + zone));
        let is_free = lanes().any(|lane| self.first(lane, wanted.request).is_some());
        let is_free_apart = lanes().any(|lane| self.first_apart(lane, wanted.request, own).is_some());
        match (wanted.spread_over_nodes, is_free, is_free_apart) {
            (Spread::Required, _, true) | (Spread::Preferred | Spread::None, true, _) => return Obstacle::Zones,
            (Spread::Required, true, false) => return Obstacle::Nodes,
            (_, false, _) => {}
        }
        let free = lanes().flat_map(|lane| (0..self.lanes[lane].len()).map(move |node| self.lanes[lane].free(node)));
        Obstacle::Room { most_free: free.fold(Amount::default(), Amount::most) }
    }
}

/// The groups by priority, then by the larger of their shares of what there is, large ones first.
fn decreasing(groups: &[Group<'_>], all: Amount) -> Vec<usize> {
    let share = |group: &Group<'_>| {
        let cpu = u128::from(group.request.cpu) * u128::from(all.memory.max(1));
        let memory = u128::from(group.request.memory) * u128::from(all.cpu.max(1));
        cpu.max(memory)
    };
    let mut order: Vec<usize> = (0..groups.len()).collect();
    // Stable: groups of one size stay in the order of their names.
    order.sort_by_key(|group| std::cmp::Reverse((groups[*group].priority, share(&groups[*group]))));
    order
}

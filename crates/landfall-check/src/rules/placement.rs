//! Where pods fit: the nodes of the primary region, the pods that the file asks for, and a deterministic packing.
//!
//! It is no rule itself; `capacity`, `zone-loss`, `rollout-cannot-progress` and `time-window` ask it. A packing that
//! succeeds shows a placement that the scheduler may choose; the scheduler also spreads load, so it can need to preempt
//! where this packs at once.
//!
//! Not handled: ephemeral storage, the limit of pods for each node, volumes attached for each node, nodes that an
//! autoscaler adds, and the standby region's nodes, for which the language has no word.

mod amount;
mod first_fit;
mod nodes;
mod packing;
mod pods;

#[cfg(test)]
mod tests;

pub(super) use amount::Amount;
pub(super) use nodes::Nodes;
pub(super) use packing::{Obstacle, Packing, Unplaced};
use pods::Pods;
pub(super) use pods::{Group, has_volume, runs_on_nodes};

use landfall_model::Architecture;

use super::derivation::{Derivation, Section, count, list};

/// The primary region with everything that is placed in it.
pub(crate) struct Placement<'a> {
    pub(super) nodes: Nodes<'a>,
    pub(super) pods: Pods<'a>,
}

impl<'a> Placement<'a> {
    /// `None` without a node: then there is nothing to place on.
    pub(crate) fn new(architecture: &'a Architecture, objects: &[serde_json::Value]) -> Option<Self> {
        let nodes = Nodes::of(architecture)?;
        let pods = Pods::of(architecture, objects, &nodes);
        Some(Self { nodes, pods })
    }

    /// Every group with its fewest copies.
    pub(super) fn at_floors(&self) -> (Packing<'_>, Vec<Unplaced>) {
        Packing::fill(&self.nodes, &self.pods.groups, |group| group.floor)
    }

    /// Every group with its most copies, scheduled jobs among them.
    pub(super) fn at_ceilings(&self) -> (Packing<'_>, Vec<Unplaced>) {
        Packing::fill(&self.nodes, &self.pods.groups, |group| group.ceiling)
    }

    /// Says what the nodes have and which numbers of it are assumed.
    pub(super) fn describe(&self, derivation: &mut Derivation) {
        for pool in &self.nodes.pools {
            let spread: Vec<String> = self.nodes.count_by_zone(pool).into_iter().map(|n| n.to_string()).collect();
            let zones =
                if self.nodes.zones.len() > 1 { format!(" in zones {}", spread.join("/")) } else { String::new() };
            derivation.line(format!(
                "pool `{}`: {} of {}{zones}; {} of each can be requested",
                pool.name,
                count(pool.count, "node"),
                pool.bought,
                pool.allocatable,
            ));
            let path =
                if pool.is_short { "platform.nodes".to_owned() } else { format!("platform.pools.{}", pool.name) };
            if let Some(formula) = pool.formula {
                derivation.assumes(format!(
                    "`{path}.reserved` is {} by {} (default)",
                    pool.reserved(),
                    formula.as_str()
                ));
            }
            derivation.uses(&format!("{path}.count"), &pool.declared.count, Section::from(pool.declared.assumed));
        }
        if let Some(sidecar) = &self.pods.sidecar {
            derivation.line(format!("each pod of the mesh carries a sidecar: {sidecar} more"));
        }
        if self.pods.sidecar_is_assumed {
            derivation.assumes("`platform.mesh.sidecar` is what the `istiod` chart requests (default)");
        }
        if !self.pods.unknown.is_empty() {
            derivation.line(format!("not counted, because they request nothing: {}", list(&self.pods.unknown)));
        }
        derivation.assumes("pods that the file does not name (DaemonSets, operators, monitoring) are not counted");
    }
}

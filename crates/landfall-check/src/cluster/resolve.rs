//! Policies resolved against workloads: whom each selects, whom each rule admits, and what in them leads nowhere.

use super::address::{AddressBlock, AddressRange};
use super::index::{Index, Namespaces, WorkloadSet, union};
use super::policy::{Direction, Peer, Policy, PortSet, Rule, RuleRef};
use super::problem::Problem;
use super::reach::peer_finds;
use super::relation::ResolvedRule;
use super::workload::{Workload, WorkloadId};

/// A policy with its selectors answered.
#[derive(Debug)]
pub(super) struct ResolvedPolicy {
    pub(super) selected: WorkloadSet,
    pub(super) ingress: Option<Vec<ResolvedRule>>,
    pub(super) egress: Option<Vec<ResolvedRule>>,
}

pub(super) struct Resolver<'a> {
    pub(super) index: Index<'a>,
    pub(super) workloads: &'a [Workload],
    pub(super) namespaces: &'a Namespaces,
    /// Where pods may have their addresses.
    pub(super) pod_ranges: &'a [AddressRange],
    /// Where nothing but pods has its address.
    pub(super) only_pod_ranges: &'a [AddressRange],
    /// Not part of the set, but of every cluster, so that a rule for it is no mistake.
    pub(super) dns: Workload,
    pub(super) problems: Vec<Problem>,
}

impl Resolver<'_> {
    pub(super) fn resolve(&mut self, policy: &Policy) -> ResolvedPolicy {
        let selected = self.index.select(&policy.key.namespace, &policy.pods);
        if selected.is_empty() {
            self.problems.push(Problem::PolicySelectsNothing { policy: policy.key.clone() });
        }
        if let Some(direction) = policy.ignored {
            self.problems.push(Problem::RulesIgnored { policy: policy.key.clone(), direction });
        }
        let ingress = self.resolve_rules(policy, Direction::Ingress, &selected);
        let egress = self.resolve_rules(policy, Direction::Egress, &selected);
        ResolvedPolicy { selected, ingress, egress }
    }

    fn resolve_rules(
        &mut self,
        policy: &Policy,
        direction: Direction,
        selected: &WorkloadSet,
    ) -> Option<Vec<ResolvedRule>> {
        let rules = policy.rules(direction)?;
        let mut resolved = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            let (resolved_rule, finds_dns) = self.resolve_rule(policy, rule, direction, index);
            // Without destinations the selector is reported, not the port.
            let rule_ref = || policy.rule_ref(direction, index);
            match direction {
                Direction::Ingress => self.check_ports(rule, rule_ref, &selected.iter().copied(), false),
                Direction::Egress if resolved_rule.every_pod => {
                    let all = (0..).map(WorkloadId).zip(self.workloads).map(|(id, _)| id);
                    self.check_ports(rule, rule_ref, &all, true);
                }
                Direction::Egress => {
                    self.check_ports(rule, rule_ref, &resolved_rule.pods.iter().copied(), finds_dns);
                }
            }
            resolved.push(resolved_rule);
        }
        Some(resolved)
    }

    /// The rule, and whether its selectors find the DNS server.
    fn resolve_rule(
        &mut self,
        policy: &Policy,
        rule: &Rule,
        direction: Direction,
        index: usize,
    ) -> (ResolvedRule, bool) {
        let mut resolved =
            ResolvedRule { every_pod: false, outside: false, pods: [].into(), ports: rule.ports.clone() };
        let Some(peers) = &rule.peers else {
            return (ResolvedRule { every_pod: true, outside: true, ..resolved }, true);
        };
        let mut finds_dns = false;
        let mut sets = Vec::new();
        for (position, peer) in peers.iter().enumerate() {
            let set = match peer {
                Peer::Block(block) => {
                    resolved.every_pod |= may_hold(block, self.pod_ranges);
                    resolved.outside |= block.leaves(self.only_pod_ranges);
                    continue;
                }
                Peer::Pods { namespaces: None, pods } => self.index.select(&policy.key.namespace, pods),
                Peer::Pods { namespaces: Some(namespaces), pods } => self.index.select_across(namespaces, pods),
            };
            let peer_finds_dns = peer_finds(peer, policy, &self.dns, self.namespaces);
            finds_dns |= peer_finds_dns;
            if set.is_empty() && !peer_finds_dns {
                let rule = policy.rule_ref(direction, index);
                self.problems.push(Problem::PeerMatchesNothing { rule, peer: position });
            }
            sets.push(set);
        }
        resolved.pods = union(sets);
        (resolved, finds_dns)
    }

    fn check_ports(
        &mut self,
        rule: &Rule,
        rule_ref: impl Fn() -> RuleRef,
        destinations: &(impl Iterator<Item = WorkloadId> + Clone),
        with_dns: bool,
    ) {
        for ports in &rule.ports {
            let PortSet::Named(name) = &ports.ports else { continue };
            let workloads = self.workloads;
            let mut pods = destinations
                .clone()
                .map(|id| &workloads[id.0 as usize])
                .chain(with_dns.then_some(&self.dns))
                .peekable();
            let known = pods.peek().is_none() || pods.any(|pod| pod.named_port(name, ports.protocol).is_some());
            if !known {
                let (rule, protocol) = (rule_ref(), ports.protocol);
                self.problems.push(Problem::NamedPortUnknown { rule, name: name.clone(), protocol });
            }
        }
    }
}

/// Whether the block may hold the address of a pod.
pub(super) fn may_hold(block: &AddressBlock, pod_ranges: &[AddressRange]) -> bool {
    pod_ranges.iter().any(|range| block.touches(range))
}

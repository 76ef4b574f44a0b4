//! Nodes that are cut off, as packet filter rules: a pure function from their pods' addresses to one transaction for `nft`.
//!
//! The rules come before those of policies and look at every packet, not only at the first of a connection: what is
//! established falls silent as well, and nobody is told. The pods of a node still reach each other, and their node agent
//! reaches them, which speaks from an address of its own ([`NODE`]).
//!
//! Not handled: nodes that are cut off together, as a zone is, do not reach each other either.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::NODE;

/// The table that holds everything of ours; the transaction replaces it whole.
const TABLE: &str = "landfall_isolation";

/// Before policies and services are looked at.
const PRIORITY: i32 = -150;

/// The text of the rules for nodes with these pods, for `nft -f -`.
pub(crate) fn ruleset(nodes: &[BTreeSet<Ipv4Addr>]) -> String {
    // Added first, so that deleting it cannot fail; the transaction as a whole replaces it.
    let mut text = format!("table ip {TABLE}\ndelete table ip {TABLE}\n");
    let nodes: Vec<_> = nodes.iter().filter(|addresses| !addresses.is_empty()).enumerate().collect();
    if nodes.is_empty() {
        return text;
    }
    let _ = writeln!(text, "table ip {TABLE} {{");
    for (number, addresses) in &nodes {
        let elements: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "  set node_{number} {{ type ipv4_addr; elements = {{ {} }}; }}", elements.join(", "));
    }
    let mut chain = |hook: &str, priority: i32, rules: &dyn Fn(&str) -> Vec<String>| {
        let _ = writeln!(text, "  chain {hook} {{\n    type filter hook {hook} priority {priority}; policy accept;");
        for (number, _) in &nodes {
            for rule in rules(&format!("@node_{number}")) {
                let _ = writeln!(text, "    {rule} drop");
            }
        }
        text += "  }\n";
    };
    // Where addresses of services have become those of pods.
    chain("forward", PRIORITY, &|node| {
        vec![format!("ip saddr {node} ip daddr != {node}"), format!("ip daddr {node} ip saddr != {node}")]
    });
    chain("input", PRIORITY, &|node| vec![format!("ip saddr {node} ip daddr != {NODE}")]);
    // After services: their chain for the engine's own connections has priority -100.
    chain("output", 0, &|node| vec![format!("ip daddr {node} ip saddr != {NODE}")]);
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::network::reader::accepted_by_nft;

    fn compile(nodes: &[&[[u8; 4]]]) -> String {
        let nodes: Vec<_> =
            nodes.iter().map(|pods| pods.iter().copied().map(Ipv4Addr::from).collect::<BTreeSet<_>>()).collect();
        let rules = ruleset(&nodes);
        accepted_by_nft(&rules);
        rules
    }

    #[test]
    fn nothing_leaves_or_enters_a_node_and_its_pods_reach_each_other() {
        assert_snapshot!(compile(&[&[[10, 244, 0, 2], [10, 244, 0, 3]], &[], &[[10, 244, 0, 9]]]), @"
        table ip landfall_isolation
        delete table ip landfall_isolation
        table ip landfall_isolation {
          set node_0 { type ipv4_addr; elements = { 10.244.0.2, 10.244.0.3 }; }
          set node_1 { type ipv4_addr; elements = { 10.244.0.9 }; }
          chain forward {
            type filter hook forward priority -150; policy accept;
            ip saddr @node_0 ip daddr != @node_0 drop
            ip daddr @node_0 ip saddr != @node_0 drop
            ip saddr @node_1 ip daddr != @node_1 drop
            ip daddr @node_1 ip saddr != @node_1 drop
          }
          chain input {
            type filter hook input priority -150; policy accept;
            ip saddr @node_0 ip daddr != 169.254.1.2 drop
            ip saddr @node_1 ip daddr != 169.254.1.2 drop
          }
          chain output {
            type filter hook output priority 0; policy accept;
            ip daddr @node_0 ip saddr != 169.254.1.2 drop
            ip daddr @node_1 ip saddr != 169.254.1.2 drop
          }
        }
        ");
    }

    #[test]
    fn without_faults_there_is_no_table() {
        assert_snapshot!(compile(&[]), @"
        table ip landfall_isolation
        delete table ip landfall_isolation
        ");
    }
}

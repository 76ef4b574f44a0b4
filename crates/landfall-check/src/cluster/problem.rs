//! What is wrong with a set of objects as far as reachability and references go: data, from which rules make findings.

use super::field::Malformed;
use super::object::ObjectKey;
use super::policy::{Direction, RuleRef};
use super::workload::Protocol;

/// Something in the set that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// A value that is no Kubernetes object.
    MalformedHeader {
        /// Its position in the set, lists taken apart.
        index: usize,
        /// What is wrong.
        malformed: Malformed,
    },
    /// An object that the API server would refuse. It takes no part in the analysis.
    Malformed {
        /// The object.
        object: ObjectKey,
        /// What is wrong.
        malformed: Malformed,
    },
    /// Two objects have one name; the later one counts.
    Duplicate {
        /// The object.
        object: ObjectKey,
    },
    /// An object of a policy language that the analysis does not read: what it says of reachability may be wrong.
    OtherPolicyLanguage {
        /// The object.
        object: ObjectKey,
    },
    /// Pods on the network of their node, which policies do not reliably reach.
    HostNetwork {
        /// The workload.
        workload: ObjectKey,
    },
    /// A policy that selects no workload.
    PolicySelectsNothing {
        /// The policy.
        policy: ObjectKey,
    },
    /// Rules for a direction that `policyTypes` leaves out: they have no effect.
    RulesIgnored {
        /// The policy.
        policy: ObjectKey,
        /// The direction of the rules.
        direction: Direction,
    },
    /// A peer selector that matches no workload.
    PeerMatchesNothing {
        /// The rule.
        rule: RuleRef,
        /// Its position in `from` or `to`.
        peer: usize,
    },
    /// A port name that no destination of the rule declares.
    NamedPortUnknown {
        /// The rule.
        rule: RuleRef,
        /// The name.
        name: String,
        /// The protocol with which it was looked for.
        protocol: Protocol,
    },
    /// An object refers to one that is not in the set: a backend Service, the target of an autoscaler, a Secret.
    Missing {
        /// The object that refers.
        by: ObjectKey,
        /// Where it does.
        path: String,
        /// The object that is not there.
        object: ObjectKey,
    },
    /// A Secret or `ConfigMap` of the set lacks the key that a container reads.
    MissingKey {
        /// The workload.
        by: ObjectKey,
        /// Where it refers.
        path: String,
        /// The Secret or `ConfigMap`.
        object: ObjectKey,
        /// The key.
        key: String,
    },
    /// A route leads to a port that its Service does not have.
    BackendPortMissing {
        /// The Ingress or route.
        route: ObjectKey,
        /// Where it refers.
        path: String,
        /// The Service.
        service: ObjectKey,
        /// The number or name.
        port: String,
    },
    /// A Service whose selector matches no workload.
    ServiceSelectsNothing {
        /// The Service.
        service: ObjectKey,
    },
    /// A target port that none of the pods behind a Service declares.
    TargetPortUndeclared {
        /// The Service.
        service: ObjectKey,
        /// The number or name.
        port: String,
        /// The protocol.
        protocol: Protocol,
    },
    /// A `PodDisruptionBudget` that selects no workload.
    BudgetSelectsNothing {
        /// The budget.
        budget: ObjectKey,
    },
}

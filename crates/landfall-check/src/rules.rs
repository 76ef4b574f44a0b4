//! The table of rules. A rule is a module with a constant `RULE`; its examples stand under `tests/it/rules/<name>/`.

mod assurance;
mod autoscaling;
mod availability;
mod backup;
mod capacity;
mod claim;
mod dangling_reference;
mod derivation;
mod edges;
mod end_of_life;
mod error_budget;
mod exposure;
mod isolation;
mod language;
mod missing_objective;
mod mutable_tag;
mod not_rendered;
mod pipeline_order;
mod placement;
mod portability;
mod probes;
mod quorum;
mod raw;
mod recovery_point;
mod recovery_time;
mod redundancy;
mod rendered;
mod residency;
mod resources;
mod rollback;
mod rollout;
mod secret_literal;
mod segment;
mod single_replica;
mod stateful_node_loss;
#[cfg(test)]
mod testing;
mod time_window;
mod unknown_host;
mod wording;
mod zone_loss;

use crate::rule::Rule;

pub(crate) use placement::Placement;
pub(crate) use rendered::Rendered;

/// Every rule, by subject and name.
pub static RULES: &[Rule] = &[
    language::DUPLICATE_KEY,
    language::DUPLICATE_NAME,
    language::EDGE_VERB,
    language::EMPTY_FILE,
    language::EMPTY_FLOW,
    language::ENVIRONMENT_VARIABLE,
    language::FILE_TOO_LARGE,
    language::INCLUDE,
    language::MISSING_KEY,
    language::NESTED_TOO_DEEP,
    language::NO_MEMBERS,
    language::NO_PORT,
    language::NOT_UTF_8,
    language::NOTIFY,
    language::OBJECT,
    language::PATCH,
    language::PROBE,
    language::REPLICAS,
    language::SCHEDULE,
    language::TIME_ZONE,
    language::UNKNOWN_KEY,
    language::UNKNOWN_NAME,
    language::UNKNOWN_VALUE,
    language::WRONG_VALUE,
    language::YAML_ANCHOR,
    language::YAML_SYNTAX,
    language::YAML_TAG,
    capacity::RULE,
    resources::RULE,
    zone_loss::RULE,
    availability::RULE,
    backup::BACKUP,
    error_budget::RULE,
    missing_objective::RULE,
    quorum::RULE,
    recovery_point::RULE,
    recovery_time::RULE,
    single_replica::RULE,
    stateful_node_loss::RULE,
    autoscaling::RULE,
    probes::RULE,
    rollback::RULE,
    rollout::RULE,
    time_window::RULE,
    isolation::RULE,
    segment::RULE,
    assurance::DATA_POLICY,
    backup::ENCRYPTION,
    exposure::RULE,
    mutable_tag::RULE,
    residency::RULE,
    secret_literal::RULE,
    edges::CACHE_WITHOUT_WRITER,
    edges::CONSUMER_WITHOUT_PUBLISHER,
    dangling_reference::RULE,
    edges::FLOW_WITHOUT_EDGE,
    not_rendered::RULE,
    portability::RULE,
    edges::PUBLISHER_WITHOUT_CONSUMER,
    edges::READ_FROM_PRIMARY,
    edges::STORE_WITHOUT_EDGE,
    unknown_host::RULE,
    edges::UNREACHABLE_SERVICE,
    assurance::ALERT_PATH,
    assurance::CHECKLIST,
    claim::CLAIM,
    end_of_life::RULE,
    assurance::ON_CALL,
    pipeline_order::RULE,
    claim::UNRESOLVED_DOCUMENT,
    claim::WAIVER,
];

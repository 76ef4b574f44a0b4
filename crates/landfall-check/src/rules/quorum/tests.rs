//! Numbers of members, replicas and shards that do not add up.

use crate::rules::testing::messages;

fn said(store: &str) -> Vec<String> {
    messages("quorum", &format!("landfall: v1\nname: shop\nstores: {{ it: {{ {store} }} }}\n"))
}

#[test]
fn even_numbers_of_members_are_wasted() {
    assert_eq!(
        said("engine: mongodb, members: 4"),
        ["warning: `it` has 4 members, which survive no more losses than 3"]
    );
    assert_eq!(said("engine: mongodb, members: 3"), [""; 0]);
    assert_eq!(said("engine: postgres, members: 2"), [""; 0]);
}

#[test]
fn more_replicas_than_members_cannot_be_made() {
    assert_eq!(
        said("engine: kafka, members: 3, replication: 3, in-sync: 2, topics: { stock: { replication: 5 } }"),
        ["error: `it` keeps topic `stock` on 5 members, but has 3"]
    );
}

#[test]
fn undeclared_replication_is_asked_for() {
    assert_eq!(
        said("engine: kafka, members: 3"),
        ["warning: `it` has 3 members, but nothing says on how many a message is kept"]
    );
}

#[test]
fn more_in_sync_than_replicas_accepts_no_write() {
    assert_eq!(
        said("engine: kafka, members: 3, replication: 2, in-sync: 3"),
        ["error: `it` accepts no write: 3 replicas must be in sync, but there are 2"]
    );
}

#[test]
fn one_in_sync_breaks_a_flow_that_loses_nothing() {
    let text = "
landfall: v1
name: shop
services: { checkout: { uses: [{ publish: events }] } }
stores: { events: { engine: kafka, members: 3, replication: 3, in-sync: 1 } }
flows: { buy: { loss: 0, steps: [checkout -> events] } }
";
    assert_eq!(
        messages("quorum", text),
        ["error: `events` acknowledges a message that one member has: its loss loses it"]
    );
}

#[test]
fn a_commit_that_waits_needs_somebody_to_wait_for() {
    assert_eq!(
        said("engine: postgres, commit: synchronous"),
        ["error: a commit to `it` waits for a replica, but there is none"]
    );
    assert_eq!(
        said("engine: postgres, members: 2, commit: synchronous"),
        ["warning: the loss of either member of `it` stops writes: a commit waits for the other one"]
    );
}

#[test]
fn shards_need_members_and_a_majority() {
    assert_eq!(said("engine: redis, members: 6, shards: 3"), [""; 0]);
    assert_eq!(
        said("engine: redis, members: 5, shards: 3"),
        ["error: 5 members of `it` cannot be dealt out to 3 shards"]
    );
    assert_eq!(
        said("engine: redis, members: 4, shards: 2"),
        ["warning: `it` has two shards, which elect nothing when one primary is lost"]
    );
    assert_eq!(
        said("engine: redis, members: 3, shards: 3"),
        ["warning: each shard of `it` has one copy: losing a member loses a part of the keys"]
    );
}

#[test]
fn a_majority_survives_any_zone_only_in_three() {
    let text = "
landfall: v1
name: shop
objectives: { recovery: { zone: { rto: 60s } } }
platform: { regions: { primary: { zones: [a, b] } } }
stores: { it: { engine: mongodb, members: 3 } }
";
    assert_eq!(messages("quorum", text), ["error: losing one zone loses the majority of `it`"]);
}

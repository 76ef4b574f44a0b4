//! What stores survive, as a table.

use super::{after_losing, fails_over, most_in_one_zone, zones_used};
use crate::rules::testing::architecture;

/// Whether a store in three zones serves on without its fullest zone, and why.
fn without_its_fullest_zone(store: &str) -> (bool, String) {
    let text = format!(
        "landfall: v1\nname: shop\nplatform: {{ regions: {{ primary: {{ zones: [a, b, c] }} }} }}\nstores: {{ it: {{ {store} }} }}\n"
    );
    let architecture = architecture(&text);
    let store = architecture.store("it").expect("it is declared");
    let lost = most_in_one_zone(&architecture, store);
    let survival = after_losing(store, lost, zones_used(&architecture, store));
    (survival.serves, survival.why)
}

fn fails(store: &str) -> bool {
    let architecture = architecture(&format!("landfall: v1\nname: shop\nstores: {{ it: {{ {store} }} }}\n"));
    fails_over(architecture.store("it").expect("it is declared"))
}

#[test]
fn majorities_decide() {
    let (serves, why) = without_its_fullest_zone("engine: mongodb, members: 3");
    assert_eq!((serves, why.as_str()), (true, "2 of 3 members are left, a majority (2 needed)"));
    assert!(!without_its_fullest_zone("engine: mongodb, members: 4").0, "two of four are no majority");
    assert!(
        !without_its_fullest_zone("engine: rabbitmq, members: 3, zones: [a, b]").0,
        "one zone of two has two members"
    );
    assert!(without_its_fullest_zone("engine: elasticsearch, members: 5").0);
}

#[test]
fn kafka_needs_replicas_in_sync_too() {
    assert!(without_its_fullest_zone("engine: kafka, members: 3, replication: 3, in-sync: 2").0);
    assert!(!without_its_fullest_zone("engine: kafka, members: 3, replication: 3, in-sync: 3").0);
    assert!(!without_its_fullest_zone("engine: kafka, members: 3").0, "one replica is Kafka's default");
}

#[test]
fn a_synchronous_commit_needs_one_more_member() {
    assert!(without_its_fullest_zone("engine: postgres, members: 2").0);
    assert!(!without_its_fullest_zone("engine: postgres, members: 2, commit: synchronous").0);
    assert!(without_its_fullest_zone("engine: postgres, members: 3, commit: synchronous").0);
    assert!(
        without_its_fullest_zone("engine: postgres, members: 2, provider: aws").0,
        "the provider degrades by itself"
    );
}

#[test]
fn a_sharded_cache_needs_a_copy_of_each_shard_and_a_majority_of_primaries() {
    let (serves, why) = without_its_fullest_zone("engine: redis, members: 6, shards: 3");
    assert_eq!((serves, why.as_str()), (true, "1 of 2 copies of each shard is left, 2 of 3 primaries"));
    assert!(!without_its_fullest_zone("engine: redis, members: 3, shards: 3").0);
    assert!(without_its_fullest_zone("engine: redis, members: 2").0);
}

#[test]
fn a_managed_bucket_has_no_members_to_lose() {
    assert!(without_its_fullest_zone("engine: s3, provider: gcp").0);
    assert!(!without_its_fullest_zone("engine: s3").0);
}

#[test]
fn plain_stateful_sets_fail_over_only_by_election() {
    assert!(fails("engine: kafka, members: 3, provider: statefulset"));
    assert!(!fails("engine: postgres, members: 3, provider: statefulset"));
    assert!(fails("engine: postgres, members: 3"));
    assert!(!fails("engine: postgres, members: 1, provider: aws"));
}

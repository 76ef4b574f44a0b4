//! What each kind of failure costs each kind of store.

use crate::report::Verdict;
use crate::rules::testing::{messages, proof};

fn line(kind: &str, store: &str) -> String {
    let text = format!(
        "landfall: v1
name: shop
objectives: {{ recovery: {{ {kind}: {{ rpo: 15m }} }} }}
platform: {{ regions: {{ primary: {{ zones: [a, b, c] }}, far: {{ role: archive }} }} }}
services: {{ checkout: {{ uses: [{{ {}: it }}] }} }}
stores: {{ it: {{ {store} }}, archive: {{ engine: s3 }} }}
",
        if store.contains("kafka") || store.contains("rabbitmq") { "publish" } else { "write" },
    );
    let (_, derivation) = proof("recovery-point", &format!("recovery.{kind}"), &text);
    derivation[0].clone()
}

#[test]
fn a_dead_node_costs_what_had_not_been_shipped() {
    assert_eq!(line("node", "engine: postgres, members: 3"), "it: 5s ≤ 15m: a replica takes over that lags up to 5s");
    assert_eq!(
        line("node", "engine: postgres, members: 3, commit: synchronous"),
        "it: 0s ≤ 15m: a replica that had each commit takes over"
    );
    assert_eq!(line("node", "engine: mongodb, members: 3"), "it: 0s ≤ 15m: a replica that had each commit takes over");
    assert_eq!(
        line("node", "engine: postgres"),
        "it: 0s ≤ 15m: the volume is left, and an acknowledged write is on it"
    );
}

#[test]
fn a_redis_loses_what_its_persistence_had_not_written() {
    assert_eq!(line("pod", "engine: redis, persistence: log"), "it: 1s ≤ 15m: its log is synced once a second");
    assert_eq!(
        line("pod", "engine: redis, persistence: snapshot"),
        "it: 1h > 15m: what came after the last snapshot is gone"
    );
    assert_eq!(line("pod", "engine: redis, persistence: none"), "it: everything: it keeps nothing over a restart");
    assert_eq!(
        line("pod", "engine: redis"),
        "it: not known: it starts again with what it had written (`persistence` is not declared)"
    );
}

#[test]
fn kafka_keeps_what_is_in_sync_on_more_members_than_are_lost() {
    assert_eq!(
        line("zone", "engine: kafka, members: 3, replication: 3, in-sync: 2"),
        "it: 0s ≤ 15m: members in 3 zones: an acknowledged message is on 2 members, and 1 of them may be lost"
    );
    assert!(
        line("zone", "engine: kafka, members: 3, replication: 3, in-sync: 1")
            .starts_with("it: not known: members in 3 zones")
    );
}

#[test]
fn a_lost_zone_takes_the_only_volume_away() {
    assert_eq!(
        line("zone", "engine: postgres"),
        "it: everything: all that can take over is in the lost zone, and there is no backup"
    );
    assert_eq!(
        line("zone", "engine: postgres, backup: { full: 24h, log: 5m, to: archive }"),
        "it: 5m ≤ 15m: all that can take over is in the lost zone: the log is shipped every 5m"
    );
}

#[test]
fn a_lost_region_leaves_what_is_kept_in_another() {
    assert_eq!(
        line("region", "engine: postgres, backup: { full: 24h, log: 5m, to: archive, copies: [far] }"),
        "it: 5m ≤ 15m: restored from another region: the log is shipped every 5m"
    );
    assert_eq!(
        line("region", "engine: postgres, backup: { full: 24h, log: 5m, to: archive }"),
        "it: everything: its backups are in the same region"
    );
    assert_eq!(
        line("region", "engine: kafka, members: 3"),
        "it: what is in transit: messages are kept in this region only"
    );
}

#[test]
fn corruption_costs_the_time_between_two_backups() {
    assert_eq!(
        line("corruption", "engine: postgres, backup: { full: 24h, log: 5m }"),
        "it: 5m ≤ 15m: the log is shipped every 5m"
    );
    assert_eq!(
        line("corruption", "engine: postgres, backup: { full: 24h }"),
        "it: 1d > 15m: a full backup every 1d, and no log between"
    );
}

#[test]
fn a_cache_that_is_only_filled_counts_for_nothing() {
    let text = "
landfall: v1
name: shop
objectives: { recovery: { node: { rpo: 0s } } }
services: { checkout: { uses: [{ cache: results }, { read: results }] } }
stores: { results: { engine: redis, persistence: none } }
";
    assert_eq!(proof("recovery-point", "recovery.node", text).0, Verdict::Proved);
}

#[test]
fn a_daily_backup_without_a_log_is_worth_a_word_without_any_promise() {
    let text = "
landfall: v1
name: shop
services: { checkout: { uses: [{ write: orders }] } }
stores: { orders: { engine: postgres, backup: { full: 24h } } }
";
    assert_eq!(
        messages("recovery-point", text),
        ["warning: corruption may cost up to 1d of `orders`: it is backed up that often, and ships no log"]
    );
}

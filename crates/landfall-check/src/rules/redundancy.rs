//! What a store can lose: whether another member takes over, and whether those that are left may go on.
//!
//! No rule itself; `zone-loss`, `quorum` and the recovery rules ask it.

use landfall_model::{Architecture, Commit, Engine, Store, StoreProvider};

/// Whether a store serves on after a loss, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Survival {
    pub(super) serves: bool,
    pub(super) why: String,
}

/// Whether the engine elects a new leader by a majority of its members.
pub(super) fn elects_by_majority(engine: Engine) -> bool {
    matches!(engine, Engine::Mongodb | Engine::Rabbitmq | Engine::Elasticsearch | Engine::Kafka)
}

/// Whether a provider keeps it in several zones without members that one could count: a managed bucket.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/DataDurability.html>
pub(super) fn is_regional(store: &Store) -> bool {
    store.provider.is_managed() && store.engine.value == Engine::S3
}

/// Whether somebody makes another member take over without a person: a provider, an operator, or the engine itself.
pub(super) fn fails_over(store: &Store) -> bool {
    is_regional(store)
        || match store.provider.value {
            StoreProvider::Statefulset => store.members.value >= 3 && elects_by_majority(store.engine.value),
            StoreProvider::Operator | StoreProvider::Aws | StoreProvider::Azure | StoreProvider::Gcp => {
                store.members.value >= 2
            }
        }
}

/// Whether a commit waits for a replica: as declared, else as the engine and the provider do by default.
///
/// MongoDB acknowledges by a majority since 5.0, and a managed standby in another zone is synchronous.
pub(super) fn commits_synchronously(store: &Store) -> bool {
    match store.commit.map(|commit| commit.value) {
        Some(commit) => commit == Commit::Synchronous,
        None => {
            store.engine.value == Engine::Mongodb
                || (store.engine.value == Engine::Postgres && store.provider.is_managed())
        }
    }
}

/// In how many zones the members stand, one after the other.
pub(super) fn zones_used(architecture: &Architecture, store: &Store) -> u32 {
    if is_regional(store) {
        // No provider has regions of fewer zones for its buckets.
        return 3;
    }
    let zones = if store.zones.is_empty() { architecture.zones().len() } else { store.zones.len() };
    u32::try_from(zones.max(1)).unwrap_or(u32::MAX).min(store.members.value)
}

/// How many members the fullest zone has.
pub(super) fn most_in_one_zone(architecture: &Architecture, store: &Store) -> u32 {
    store.members.value.div_ceil(zones_used(architecture, store).max(1))
}

/// Whether the store serves on without `lost` members that stood in one of `zones` zones.
pub(super) fn after_losing(store: &Store, lost: u32, zones: u32) -> Survival {
    let members = store.members.value;
    let left = members.saturating_sub(lost);
    let says = |serves: bool, why: String| Survival { serves, why };
    if is_regional(store) {
        return says(true, "the provider keeps it in several zones".to_owned());
    }
    if lost == 0 {
        return says(true, "no member is lost".to_owned());
    }
    if left == 0 {
        return says(
            false,
            if members == 1 {
                "its only member is lost".to_owned()
            } else {
                format!("none of its {members} members is left")
            },
        );
    }
    let majority = members / 2 + 1;
    let by_majority = || {
        let comparison = if left >= majority { "a majority" } else { "no majority" };
        says(
            left >= majority,
            format!("{left} of {members} members {} left, {comparison} ({majority} needed)", is(left)),
        )
    };
    let per_zone = |copies: u32| copies.div_ceil(zones.max(1)).min(lost);
    match store.engine.value {
        Engine::Mongodb | Engine::Rabbitmq | Engine::Elasticsearch => by_majority(),
        Engine::Kafka => {
            let controllers = by_majority();
            let replicas = store.replication.map_or(1, |replication| replication.value);
            let in_sync = store.in_sync.map_or(1, |in_sync| in_sync.value);
            let replicas_left = replicas.saturating_sub(per_zone(replicas));
            let serves = controllers.serves && replicas_left >= in_sync;
            let why = format!(
                "{}; each partition keeps {replicas_left} of {replicas} replicas, {in_sync} must be in sync",
                controllers.why
            );
            says(serves, why)
        }
        Engine::Postgres if commits_synchronously(store) && left < 2 && !store.provider.is_managed() => {
            says(false, format!("{left} of {members} members is left, and a commit waits for a replica"))
        }
        Engine::Redis => {
            let shards = store.shards.map_or(1, |shards| shards.value.max(1));
            let copies = members / shards;
            let copies_left = copies.saturating_sub(per_zone(copies));
            let primaries_left = shards.saturating_sub(per_zone(shards));
            let elects = shards < 2 || primaries_left > shards / 2;
            let primaries =
                if shards < 2 { String::new() } else { format!(", {primaries_left} of {shards} primaries") };
            says(
                copies_left > 0 && elects,
                format!("{copies_left} of {copies} copies of each shard {} left{primaries}", is(copies_left)),
            )
        }
        Engine::S3 | Engine::Mqtt if members >= 3 => by_majority(),
        Engine::Postgres | Engine::S3 | Engine::Mqtt => {
            says(true, format!("{left} of {members} members {} left", is(left)))
        }
    }
}

fn is(number: u32) -> &'static str {
    if number == 1 { "is" } else { "are" }
}

#[cfg(test)]
mod tests;

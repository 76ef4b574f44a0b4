//! What each kind of failure costs one store.

use landfall_model::{Architecture, Duration, Engine, FailureKind, Name, Persistence, RegionRole, Spanned, Store};

use crate::facts;
use crate::rules::derivation::{Derivation, Section};
use crate::rules::placement::has_volume;
use crate::rules::redundancy;

/// How much is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Loss {
    /// The writes of so much time.
    AtMost(Duration),
    /// All of it.
    Everything,
    /// Messages that nobody has consumed yet.
    Transit,
    /// The file leaves out what decides it.
    Unknown(&'static str),
}

/// How much is lost, and why.
pub(super) struct Lost {
    pub(super) loss: Loss,
    pub(super) why: String,
    pub(super) assumed: Derivation,
}

pub(super) fn of(architecture: &Architecture, name: &Spanned<Name>, store: &Store, kind: FailureKind) -> Lost {
    let mut assumed = Derivation::default();
    let (loss, why) = match kind {
        FailureKind::Pod | FailureKind::Node if redundancy::is_regional(store) => {
            (NOTHING, "the provider keeps each object on several machines".to_owned())
        }
        FailureKind::Pod => restart(name, store, &mut assumed),
        FailureKind::Node if store.members.value == 1 || !redundancy::fails_over(store) => {
            restart(name, store, &mut assumed)
        }
        FailureKind::Node => promotion(name, store, 1, &mut assumed),
        FailureKind::Zone => zone(architecture, name, store, &mut assumed),
        FailureKind::Region => region(architecture, name, store, &mut assumed),
        FailureKind::Corruption => corruption(name, store, &mut assumed),
    };
    let why = match &loss {
        Loss::Unknown(missing) => format!("{why} ({missing})"),
        _ => why,
    };
    Lost { loss, why, assumed }
}

const NOTHING: Loss = Loss::AtMost(Duration::ZERO);

/// The process starts again on its volume.
fn restart(name: &Spanned<Name>, store: &Store, assumed: &mut Derivation) -> (Loss, String) {
    let persistence = store.persistence.map(|persistence| persistence.value);
    match (store.engine.value, persistence) {
        (_, Some(Persistence::None)) => (Loss::Everything, "it keeps nothing over a restart".to_owned()),
        (Engine::Redis | Engine::Mqtt, None) => {
            (Loss::Unknown("`persistence` is not declared"), "it starts again with what it had written".to_owned())
        }
        (Engine::Redis, Some(Persistence::Log)) => {
            (Loss::AtMost(facts::LOG_SYNC_INTERVAL), "its log is synced once a second".to_owned())
        }
        (Engine::Redis, Some(Persistence::Snapshot)) => {
            assumed
                .assumes(format!("Redis takes a snapshot every {} (default `save 3600 1`)", facts::SNAPSHOT_INTERVAL));
            (Loss::AtMost(facts::SNAPSHOT_INTERVAL), "what came after the last snapshot is gone".to_owned())
        }
        _ if store.members.value == 1 || !redundancy::fails_over(store) => {
            (NOTHING, "the volume is left, and an acknowledged write is on it".to_owned())
        }
        _ => promotion(name, store, 1, assumed),
    }
}

/// Another member takes over from `lost` lost ones.
fn promotion(name: &Spanned<Name>, store: &Store, lost: u32, assumed: &mut Derivation) -> (Loss, String) {
    match store.engine.value {
        Engine::Postgres | Engine::Mongodb => {
            if redundancy::commits_synchronously(store) {
                return (NOTHING, "a replica that had each commit takes over".to_owned());
            }
            if store.commit.is_none() {
                assumed.assumes(format!(
                    "`stores.{name}.commit` is asynchronous (default of {})",
                    store.engine.value.as_str()
                ));
            }
            assumed.uses(&format!("stores.{name}.lag"), &store.lag, Section::from(store.assumed));
            (Loss::AtMost(store.lag.value), format!("a replica takes over that lags up to {}", store.lag))
        }
        Engine::Redis => {
            assumed.uses(&format!("stores.{name}.lag"), &store.lag, Section::from(store.assumed));
            (Loss::AtMost(store.lag.value), format!("replication is asynchronous: a replica lags up to {}", store.lag))
        }
        Engine::Kafka => {
            let copies = store.replication.map_or(1, |replication| replication.value);
            let in_sync = store.in_sync.map_or(1, |in_sync| in_sync.value);
            let lost = lost.min(copies);
            if in_sync > lost {
                return (
                    NOTHING,
                    format!("an acknowledged message is on {in_sync} members, and {lost} of them may be lost"),
                );
            }
            (
                Loss::Unknown("raise `in-sync` above the replicas that are lost"),
                format!("an acknowledged message may be on {in_sync} member only"),
            )
        }
        Engine::Rabbitmq => {
            let replicas = store.replication.map_or(1, |replication| replication.value);
            if replicas > 2 * lost {
                return (NOTHING, format!("a quorum queue on {replicas} members confirms by majority"));
            }
            (
                Loss::Unknown("declare `replication: 3`"),
                format!("a queue is kept on {replicas} of {} members", store.members),
            )
        }
        Engine::Elasticsearch | Engine::S3 => {
            let copies = store.replication.map_or(store.members.value.min(2), |replication| replication.value);
            if store.replication.is_none() {
                assumed.assumes(format!("`stores.{name}.replication` is {copies} (default)"));
            }
            if copies > lost {
                return (NOTHING, format!("each write is on {copies} members before it is acknowledged"));
            }
            (Loss::Unknown("declare `replication`"), format!("{copies} copies, and {lost} may be lost"))
        }
        Engine::Mqtt => {
            (Loss::Unknown("`persistence` and sessions are the broker's own"), "another member takes over".to_owned())
        }
    }
}

fn zone(architecture: &Architecture, name: &Spanned<Name>, store: &Store, assumed: &mut Derivation) -> (Loss, String) {
    let zones = redundancy::zones_used(architecture, store);
    let fullest = redundancy::most_in_one_zone(architecture, store);
    if redundancy::is_regional(store) {
        return (NOTHING, "the provider keeps each object in several zones".to_owned());
    }
    let movable =
        !store.provider.is_managed() && !architecture.document.platform.storage.zonal.value && has_volume(store);
    if movable && (zones < 2 || !redundancy::fails_over(store)) {
        let (loss, why) = restart(name, store, assumed);
        return (loss, format!("its volume can be attached in another zone; {why}"));
    }
    if zones >= 2 && redundancy::fails_over(store) {
        // Replicas of one partition or queue stand in different zones.
        let copies = store.replication.map_or(store.members.value, |replication| replication.value);
        let (loss, why) = promotion(name, store, copies.div_ceil(zones).min(fullest), assumed);
        return (loss, format!("members in {zones} zones: {why}"));
    }
    let where_it_is = "all that can take over is in the lost zone";
    match backup_cost(name, store, assumed) {
        Some((cost, how)) => (Loss::AtMost(cost), format!("{where_it_is}: {how}")),
        None => (Loss::Everything, format!("{where_it_is}, and there is no backup")),
    }
}

fn region(
    architecture: &Architecture,
    name: &Spanned<Name>,
    store: &Store,
    assumed: &mut Derivation,
) -> (Loss, String) {
    let recovery = &architecture.document.recovery;
    let primary = architecture.primary_region().map(|(name, _)| name.as_str());
    if store.region.as_ref().is_some_and(|region| Some(region.as_str()) != primary) {
        return (NOTHING, "it is in another region".to_owned());
    }
    let copies = recovery.replication.iter().filter(|replication| replication.store.as_str() == name.as_str());
    if let Some(replication) = copies.min_by_key(|replication| replication.lag.value) {
        assumed.uses(&format!("recovery.replication.{name}.lag"), &replication.lag, Section::from(replication.assumed));
        return (
            Loss::AtMost(replication.lag.value),
            format!("the copy in `{}` lags up to {}", replication.to, replication.lag),
        );
    }
    if store.engine.value.is_broker() {
        return (Loss::Transit, "messages are kept in this region only".to_owned());
    }
    match backup_cost(name, store, assumed) {
        Some((cost, how)) if backup_leaves_region(architecture, store) => {
            (Loss::AtMost(cost), format!("restored from another region: {how}"))
        }
        Some(_) => (Loss::Everything, "its backups are in the same region".to_owned()),
        None => (Loss::Everything, "neither replicated nor backed up".to_owned()),
    }
}

fn corruption(name: &Spanned<Name>, store: &Store, assumed: &mut Derivation) -> (Loss, String) {
    match backup_cost(name, store, assumed) {
        Some((cost, how)) => (Loss::AtMost(cost), how),
        None if store.engine.value.is_broker() => (Loss::Transit, "messages are not backed up".to_owned()),
        None => (Loss::Everything, "there is no backup to go back to".to_owned()),
    }
}

/// What a restore costs: the time between two shipments of the log, or between two full backups.
fn backup_cost(name: &Spanned<Name>, store: &Store, assumed: &mut Derivation) -> Option<(Duration, String)> {
    let backup = store.backup.as_ref()?;
    let section = Section::from(backup.assumed);
    match &backup.log {
        Some(log) => {
            assumed.uses(&format!("stores.{name}.backup.log"), log, section);
            Some((log.value, format!("the log is shipped every {log}")))
        }
        None => {
            assumed.uses(&format!("stores.{name}.backup.full"), &backup.full, section);
            Some((backup.full.value, format!("a full backup every {}, and no log between", backup.full)))
        }
    }
}

/// Whether a backup is kept outside the primary region.
pub(in crate::rules) fn backup_leaves_region(architecture: &Architecture, store: &Store) -> bool {
    let primary = architecture.primary_region().map(|(name, _)| name.as_str());
    let elsewhere = |region: &str| {
        let declared = architecture.document.platform.regions.get(region);
        Some(region) != primary && declared.is_some_and(|region| region.role.value != RegionRole::Primary)
    };
    let Some(backup) = &store.backup else { return false };
    let bucket = backup.to.as_ref().and_then(|bucket| architecture.store(bucket.as_str()));
    let bucket_elsewhere =
        bucket.and_then(|bucket| bucket.region.as_ref()).is_some_and(|region| elsewhere(region.as_str()));
    let bucket_copied = backup.to.as_ref().is_some_and(|bucket| {
        let replication = &architecture.document.recovery.replication;
        replication.iter().any(|replication| replication.store.as_str() == bucket.as_str())
    });
    bucket_elsewhere || bucket_copied || backup.copies.iter().any(|region| elsewhere(region.as_str()))
}

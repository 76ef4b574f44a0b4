//! The images of the stores, pinned by version.
//!
//! As of 2026-09; sources: the releases of docker-library/official-images (PostgreSQL 18.4, RabbitMQ 4.3.6, MongoDB
//! 8.0.30), cloudnative-pg/postgres-containers, strimzi-kafka-operator's `kafka-versions.yaml` (1.2 supports 4.2 and
//! 4.3), percona-server-mongodb-operator 1.22, OT-CONTAINER-KIT/redis-operator, valkey-io/valkey-container 9.1,
//! seaweedfs/seaweedfs 4.47, eclipse-mosquitto 2.1.2 and elastic/elasticsearch 9.4.4.
//!
//! A store that names a version gets it: `17` the newest release of 17 that is known here, `17.2` exactly that.

use landfall_model::{Spanned, Store};

/// Newest first, so that the first entry is what a store without a version gets.
const POSTGRES: [&str; 5] = ["18.4", "17.10", "16.14", "15.18", "14.23"];
const KAFKA: [&str; 5] = ["4.2.0", "4.1.2", "4.0.1", "3.9.1", "3.8.1"];
const RABBITMQ: [&str; 2] = ["4.3.6", "4.2.9"];
const MONGODB: [&str; 2] = ["8.0.30", "7.0.41"];
const PERCONA_MONGODB: [&str; 3] = ["8.0.19-7", "7.0.30-16", "6.0.27-21"];
const REDIS: [&str; 1] = ["8.2.5"];
const VALKEY: [&str; 1] = ["9.1.0"];
const SEAWEEDFS: [&str; 1] = ["4.47"];
const MOSQUITTO: [&str; 1] = ["2.1.2"];
const ELASTICSEARCH: [&str; 2] = ["9.4.4", "8.19.20"];

/// The version of the custom resource that the Percona operator is asked to read: its behaviour follows it.
pub(super) const PERCONA_RESOURCE_VERSION: &str = "1.22.0";

/// What makes the backups of MongoDB.
pub(super) const PERCONA_BACKUP: &str = "percona/percona-backup-mongodb:2.12.0";

/// The release that was asked for, as far as it is known here; otherwise the version as it was written.
fn release(known: &[&str], asked: Option<&Spanned<String>>) -> String {
    let Some(asked) = asked else { return known[0].to_owned() };
    let prefix = format!("{asked}.");
    let newest = known.iter().find(|release| **release == asked.value || release.starts_with(&prefix));
    newest.map_or_else(|| asked.value.clone(), |release| (*release).to_owned())
}

/// CloudNativePG's image, with the extensions of the Debian packages.
pub(super) fn cloudnative_postgres(store: &Store) -> String {
    format!("ghcr.io/cloudnative-pg/postgresql:{}-standard-trixie", release(&POSTGRES, store.version.as_ref()))
}

pub(super) fn postgres(store: &Store) -> String {
    format!("postgres:{}-trixie", release(&POSTGRES, store.version.as_ref()))
}

/// The version that Strimzi is asked for; it chooses the image.
pub(super) fn kafka_version(store: &Store) -> String {
    release(&KAFKA, store.version.as_ref())
}

pub(super) fn kafka(store: &Store) -> String {
    format!("apache/kafka:{}", kafka_version(store))
}

pub(super) fn rabbitmq(store: &Store) -> String {
    format!("rabbitmq:{}-management", release(&RABBITMQ, store.version.as_ref()))
}

pub(super) fn mongodb(store: &Store) -> String {
    format!("mongo:{}-noble", release(&MONGODB, store.version.as_ref()))
}

pub(super) fn percona_mongodb(store: &Store) -> String {
    format!("percona/percona-server-mongodb:{}", release(&PERCONA_MONGODB, store.version.as_ref()))
}

/// The operator's own images: they read its environment variables.
pub(super) fn redis(store: &Store) -> String {
    format!("quay.io/opstree/redis:v{}", release(&REDIS, store.version.as_ref()))
}

pub(super) fn redis_sentinel(store: &Store) -> String {
    format!("quay.io/opstree/redis-sentinel:v{}", release(&REDIS, store.version.as_ref()))
}

/// Valkey speaks Redis's protocol and configuration under the BSD licence. Its versions are its own: a version of
/// Redis means nothing to it.
pub(super) fn valkey() -> String {
    format!("valkey/valkey:{}-alpine", VALKEY[0])
}

pub(super) fn seaweedfs(store: &Store) -> String {
    format!("chrislusf/seaweedfs:{}", release(&SEAWEEDFS, store.version.as_ref()))
}

pub(super) fn mosquitto(store: &Store) -> String {
    format!("eclipse-mosquitto:{}-alpine", release(&MOSQUITTO, store.version.as_ref()))
}

/// The version that ECK is asked for; it chooses the image.
pub(super) fn elasticsearch_version(store: &Store) -> String {
    release(&ELASTICSEARCH, store.version.as_ref())
}

pub(super) fn elasticsearch(store: &Store) -> String {
    format!("docker.elastic.co/elasticsearch/elasticsearch:{}", elasticsearch_version(store))
}

#[cfg(test)]
mod tests {
    use super::{KAFKA, release};
    use landfall_model::Spanned;

    fn check(asked: &str, expected: &str) {
        assert_eq!(release(&KAFKA, Some(&Spanned::unwritten(asked.to_owned()))), expected);
    }

    #[test]
    fn a_major_version_is_its_newest_release() {
        check("4", "4.2.0");
        check("4.1", "4.1.2");
    }

    #[test]
    fn a_version_that_is_not_known_is_kept() {
        check("3.5.1", "3.5.1");
        check("40", "40");
    }

    #[test]
    fn without_a_version_the_newest_is_taken() {
        assert_eq!(release(&KAFKA, None), "4.2.0");
    }
}

//! Where the backups of a store go, and when they are made.

use landfall_model::{Duration, Element, Engine, Store};

use super::Site;
use super::access::{self, StoreAccess};

/// The object store that backups go to.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    /// Its name in the file.
    pub(super) store: String,
    /// The bucket: the platform's and the store's name, since the buckets of a provider have one namespace.
    pub(super) bucket: String,
    /// The address with its scheme.
    pub(super) endpoint: String,
    /// The provider's region, where there is one.
    pub(super) region: Option<String>,
    /// The Secret with the keys, in the namespace of the store that is backed up.
    pub(super) secret: String,
    /// Whether a provider runs it.
    pub(super) is_managed: bool,
    /// Whether the endpoint's certificate comes from the platform's own authority.
    pub(super) private_certificate: bool,
}

/// The bucket with the backups of a store.
pub(super) fn bucket(platform: &str, store: &str) -> String {
    format!("{platform}-{store}-backups")
}

impl Site<'_> {
    /// Where the backups go; `None` when they are not asked for or no store is named.
    pub(super) fn destination(&self) -> Option<Destination> {
        let to = self.store.backup.as_ref()?.to.as_ref()?;
        let target: &Store = self.architecture.store(to.as_str()).filter(|store| store.engine.value == Engine::S3)?;
        let StoreAccess { host, port, tls, .. } = access::access(self.architecture, to.as_str())?;
        let scheme = if tls { "https" } else { "http" };
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        let region = access::region(self.architecture, target).and_then(|region| region.location.as_ref());
        Some(Destination {
            store: to.to_string(),
            bucket: bucket(self.platform(), self.name()),
            endpoint: format!("{scheme}://{host}{port}"),
            region: region.map(|location| location.value.clone()),
            secret: access::credentials_secret(to.as_str()),
            is_managed: target.provider.value.is_managed(),
            private_certificate: tls && !target.provider.value.is_managed(),
        })
    }

    /// The buckets that this store must have: its own topics, and one for each store that backs up to it.
    pub(super) fn buckets(&self) -> Vec<String> {
        let mut buckets: Vec<String> = self.topics().into_keys().collect();
        for (name, store) in &self.architecture.document.stores {
            let to = store.backup.as_ref().and_then(|backup| backup.to.as_ref());
            if to.is_some_and(|to| to.as_str() == self.name()) && makes_backups(store) {
                buckets.push(bucket(self.platform(), name.as_str()));
            }
        }
        buckets.sort();
        buckets.dedup();
        buckets
    }

    /// The services that use this store, and the stores that back up to it: each needs its credentials.
    pub(super) fn backed_up_by(&self) -> impl Iterator<Item = Element> {
        let stores = self.architecture.document.stores.iter();
        stores.filter_map(|(name, store)| {
            let to = store.backup.as_ref()?.to.as_ref()?;
            (to.as_str() == self.name() && makes_backups(store)).then(|| Element::Store(name.value.clone()))
        })
    }
}

/// Whether what is rendered for the store makes its backups.
pub(super) fn makes_backups(store: &Store) -> bool {
    let by_operator = store.provider.value == landfall_model::StoreProvider::Operator;
    by_operator && matches!(store.engine.value, Engine::Postgres | Engine::Mongodb)
}

/// The hour of the night at which backups of a day or longer begin.
const NIGHT: &str = "0 2";

/// Five fields of cron for "every so often": never less often than asked, since cron only knows divisors of an hour
/// and of a day.
pub(super) fn schedule(every: Duration) -> String {
    let divisor = |of: u64, asked: u64| (1..=asked.min(of)).rev().find(|n| of.is_multiple_of(*n)).unwrap_or(1);
    let minutes = every.seconds() / 60;
    match minutes {
        0..60 => format!("*/{} * * * *", divisor(60, minutes.max(1))),
        60..1440 => format!("0 */{} * * *", divisor(24, minutes / 60)),
        1440..10_080 => format!("{NIGHT} * * *"),
        _ => format!("{NIGHT} * * 0"),
    }
}

/// Whole days, at least one.
pub(super) fn days(duration: Duration) -> u64 {
    duration.seconds().div_ceil(86_400).max(1)
}

#[cfg(test)]
mod tests {
    use super::schedule;

    fn check(every: &str, expected: &str) {
        assert_eq!(schedule(every.parse().expect("a duration")), expected);
    }

    #[test]
    fn a_backup_is_never_rarer_than_asked() {
        check("1m", "*/1 * * * *");
        check("45m", "*/30 * * * *");
        check("6h", "0 */6 * * *");
        check("7h", "0 */6 * * *");
        check("24h", "0 2 * * *");
        check("3d", "0 2 * * *");
        check("7d", "0 2 * * 0");
        check("30d", "0 2 * * 0");
    }
}

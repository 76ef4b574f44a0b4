//! What a version that was taken back has cost: where and how long it ran, which requests failed, what it leaves behind.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::release::{Ran, ReleaseSpec, ReleaseStatus, ServiceRelease};

/// What a version that was taken back has cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impact {
    /// The services that ran it.
    pub services: Vec<ServiceImpact>,
    /// When the first copy was started.
    pub begin: String,
    /// When every service ran the old version again; nothing when one still does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// The time between both; up to the message when there is no end.
    pub seconds: u64,
    /// How many requests to it were counted; nothing when nobody has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// How many of these failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
    /// What going back does not undo.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub stays: Vec<String>,
}

/// A service that ran the version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceImpact {
    /// Its name.
    pub name: String,
    /// The version that was taken back.
    pub from: String,
    /// The version that runs again.
    pub to: String,
    /// When the first copy of the bad version was started.
    pub begin: String,
    /// When every copy was old again; nothing when one is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// The time between both; up to the message when there is no end.
    pub seconds: u64,
    /// How many requests to it were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// How many of these failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
}

/// The impact of the new version of a release that did not stay; of the old one, of a release that takes another one back.
/// Nothing when no service ran it.
pub(super) fn impact(spec: &ReleaseSpec, status: &ReleaseStatus, now: Timestamp) -> Option<Impact> {
    let takes_back = spec.takes_back.is_some();
    let services: Vec<ServiceImpact> = spec
        .services
        .iter()
        .filter_map(|service| {
            let ran = status.ran.iter().find(|ran| ran.service == service.name)?;
            Some(if takes_back { taken_back(service, ran, now) } else { gone_back(service, ran, status, now) })
        })
        .collect();
    let begin = services.iter().map(|service| service.begin.clone()).min_by_key(|begin| time(begin))?;
    let is_over = services.iter().all(|service| service.end.is_some());
    let end = services.iter().filter_map(|service| service.end.clone()).max_by_key(|end| time(end));
    let end = end.filter(|_| is_over);
    let sum = |of: fn(&ServiceImpact) -> Option<u64>| services.iter().filter_map(of).reduce(|a, b| a + b);
    Some(Impact {
        seconds: seconds(&begin, end.as_deref(), now),
        requests: sum(|service| service.requests),
        failed: sum(|service| service.failed),
        stays: stays(spec, &services),
        services,
        begin,
        end,
    })
}

fn gone_back(service: &ServiceRelease, ran: &Ran, status: &ReleaseStatus, now: Timestamp) -> ServiceImpact {
    let counted = status.answered.iter().filter(|answered| answered.service == service.name);
    let (requests, failed) =
        counted.map(|answered| (answered.requests, answered.failed)).unzip::<_, _, Vec<_>, Vec<_>>();
    let sum = |counts: Vec<u64>| counts.into_iter().reduce(|a, b| a + b);
    ServiceImpact {
        name: service.name.clone(),
        from: service.new_image.clone(),
        to: service.old_image.clone(),
        begin: ran.begin.clone(),
        end: ran.end.clone(),
        seconds: seconds(&ran.begin, ran.end.as_deref(), now),
        requests: sum(requests),
        failed: sum(failed),
    }
}

/// Of a version that had succeeded nobody counts any more.
fn taken_back(service: &ServiceRelease, ran: &Ran, now: Timestamp) -> ServiceImpact {
    let begin = service.old_since.clone().unwrap_or_else(|| ran.begin.clone());
    ServiceImpact {
        name: service.name.clone(),
        from: service.old_image.clone(),
        to: service.new_image.clone(),
        seconds: seconds(&begin, ran.done.as_deref(), now),
        begin,
        end: ran.done.clone(),
        requests: None,
        failed: None,
    }
}

/// Schemas that the version has migrated to: going back leaves them as they are.
fn stays(spec: &ReleaseSpec, ran: &[ServiceImpact]) -> Vec<String> {
    let takes_back = spec.takes_back.is_some();
    let services = spec.services.iter().filter(|service| ran.iter().any(|ran| ran.name == service.name));
    let mut stays: Vec<String> = services
        .filter_map(|service| {
            let (bad, good) = if takes_back {
                (service.old_schema.as_ref()?, service.schema.as_ref())
            } else {
                (service.schema.as_ref()?, service.old_schema.as_ref())
            };
            let is_new = good.is_none_or(|good| good.store != bad.store || good.writes < bad.writes);
            is_new.then(|| {
                format!("version {} of the schema of `{}`, with what was written in it", bad.writes, bad.store)
            })
        })
        .collect();
    stays.sort();
    stays.dedup();
    stays
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap_or(Timestamp::MIN)
}

fn seconds(begin: &str, end: Option<&str>, now: Timestamp) -> u64 {
    let end = end.map_or(now, time);
    u64::try_from(end.duration_since(time(begin)).as_secs()).unwrap_or_default()
}

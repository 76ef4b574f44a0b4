//! Backups: where the archive of a cluster is, `Backup`, and `ScheduledBackup`.
//!
//! A backup is made by the tool of a member, in its pod, when it is asked for: by somebody, at once, or by the clock of the engine. Not
//! handled: backups of volumes, an archive outside of the cluster, from which pods here are kept.

use std::sync::Arc;

use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use kube::api::DynamicObject;
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tracing::warn;

use super::Wanted;
use crate::operators::{Context, OperatorError, Progress, is_ready};
use crate::servers::{ARCHIVE, archive};

/// The plug-in of CloudNativePG that the archive is declared with.
const PLUGIN: &str = "barman-cloud.cloudnative-pg.io";

/// An archive as the pods are told of it.
pub(super) struct Destination {
    /// What their variables begin with.
    which: &'static str,
    address: String,
    scheme: String,
    bucket: String,
    folder: String,
    credentials: Value,
    /// The Secret with the certificate to trust, and its key.
    authority: Option<(String, String)>,
}

/// The archives that the pods of a cluster reach: its own, and the one that it is brought back from.
pub(super) async fn destinations(context: &Context, wanted: &Wanted<'_>) -> Result<Vec<Destination>, OperatorError> {
    let spec = wanted.spec;
    let plugins = spec["plugins"].as_array().into_iter().flatten();
    let mut own = plugins.filter(|plugin| plugin["name"] == PLUGIN && plugin["isWALArchiver"] == json!(true));
    let source = &spec["bootstrap"]["recovery"]["source"];
    let mut others = spec["externalClusters"].as_array().into_iter().flatten();
    let source = others.find(|cluster| cluster["name"] == *source && cluster["plugin"]["name"] == PLUGIN);
    let declared = [(archive::OWN, own.next()), (archive::SOURCE, source.map(|cluster| &cluster["plugin"]))];
    let mut found = Vec::new();
    for (which, plugin) in declared {
        let Some(parameters) = plugin.map(|plugin| &plugin["parameters"]) else { continue };
        let Some(name) = parameters["barmanObjectName"].as_str() else { continue };
        let kind = GroupVersionKind::gvk("barmancloud.cnpg.io", "v1", "ObjectStore");
        let stores = Api::<DynamicObject>::namespaced_with(
            context.client.clone(),
            &wanted.namespace,
            &ApiResource::from_gvk(&kind),
        );
        let store = stores.get_opt(name).await.map_err(|source| OperatorError::Request {
            action: format!("read the ObjectStore {name}"),
            source: Box::new(source),
        })?;
        let server = parameters["serverName"].as_str().unwrap_or(&wanted.name);
        let store = store.map(|store| store.data["spec"]["configuration"].clone()).unwrap_or_default();
        found.extend(Destination::of(which, &store, server));
    }
    Ok(found)
}

impl Destination {
    /// `None` for one that is not in the cluster.
    fn of(which: &'static str, declared: &Value, server: &str) -> Option<Self> {
        let (scheme, address) = declared["endpointURL"].as_str()?.split_once("://")?;
        // `archive.shop.svc`, and what may come after.
        if address.split([':', '.']).nth(2) != Some("svc") {
            return None;
        }
        let path = declared["destinationPath"].as_str()?.strip_prefix("s3://")?;
        let (bucket, path) = path.split_once('/').unwrap_or((path, ""));
        let folder = [path.trim_matches('/'), server].join("/").trim_start_matches('/').to_owned();
        let authority = &declared["endpointCA"];
        let authority = authority["name"].as_str().zip(authority["key"].as_str());
        Some(Self {
            which,
            address: address.trim_end_matches('/').to_owned(),
            scheme: scheme.to_owned(),
            bucket: bucket.to_owned(),
            folder,
            credentials: declared["s3Credentials"].clone(),
            authority: authority.map(|(name, key)| (name.to_owned(), key.to_owned())),
        })
    }

    pub(super) fn environment(&self) -> Vec<Value> {
        let name = |variable: &str| format!("{}_{variable}", self.which);
        let plain = |variable: &str, value: &str| json!({ "name": name(variable), "value": value });
        let secret = |variable: &str, key: &str| json!({ "name": name(variable), "valueFrom": { "secretKeyRef": self.credentials[key] } });
        vec![
            plain("ADDRESS", &self.address),
            plain("SCHEME", &self.scheme),
            plain("BUCKET", &self.bucket),
            plain("FOLDER", &self.folder),
            secret("ACCESS_KEY", "accessKeyId"),
            secret("SECRET_KEY", "secretAccessKey"),
        ]
    }

    /// A volume with the certificate to trust, and its mount.
    pub(super) fn volume(&self) -> Option<(Value, Value)> {
        let (secret, key) = self.authority.as_ref()?;
        let name = self.which.to_lowercase();
        let mount = json!({ "name": name, "mountPath": format!("/{name}"), "readOnly": true });
        let items = json!([{ "key": key, "path": "ca.crt" }]);
        Some((json!({ "name": name, "secret": { "secretName": secret, "items": items } }), mount))
    }
}

/// Until when a cluster is brought back, as the pods are told: for PostgreSQL, whose settings know no `Z`, and in seconds.
pub(super) fn target(spec: &Value) -> Vec<Value> {
    let Some(time) = spec["bootstrap"]["recovery"]["recoveryTarget"]["targetTime"].as_str() else { return Vec::new() };
    let (text, seconds) = match time.parse::<Timestamp>() {
        Ok(time) => (time.to_string().replace('T', " ").replace('Z', "+00"), time.as_second()),
        // No backup is older than a time that is none.
        Err(_) => (time.to_owned(), 0),
    };
    vec![
        json!({ "name": "RECOVERY_TIME", "value": text }),
        json!({ "name": "RECOVERY_SECONDS", "value": seconds.to_string() }),
    ]
}

/// What is due becomes a `Backup`: one at once where that is asked for, then one for each time of the schedule. Of several times that
/// have passed since the last look, the first has one.
pub(in crate::operators) async fn schedule(
    context: Arc<Context>,
    scheduled: Arc<DynamicObject>,
) -> Result<Progress, OperatorError> {
    let spec = &scheduled.data["spec"];
    if spec["suspend"] == json!(true) {
        return Ok(Progress::Done);
    }
    let now = context.now().await;
    let mut status = scheduled.data["status"].clone();
    let Some(before) = time(&status["lastCheckTime"]) else {
        if spec["immediate"] == json!(true) {
            context.ensure(&scheduled, scheduled_backup(&scheduled, "1")).await?;
        }
        context.set_status(&scheduled, json!({ "lastCheckTime": now.to_string() })).await?;
        return Ok(Progress::Again);
    };
    let next = match next(spec["schedule"].as_str().unwrap_or_default(), before) {
        Ok(next) => next,
        Err(why) => {
            warn!(object = scheduled.name_any(), why, "a schedule says nothing");
            return Ok(Progress::Done);
        }
    };
    if next > now {
        status["nextScheduleTime"] = json!(next.to_string());
        context.set_status(&scheduled, status).await?;
        return Ok(Progress::Later);
    }
    context.ensure(&scheduled, scheduled_backup(&scheduled, &next.strftime("%Y%m%d%H%M%S").to_string())).await?;
    status["lastScheduleTime"] = json!(next.to_string());
    status["lastCheckTime"] = json!(now.to_string());
    context.set_status(&scheduled, status).await?;
    Ok(Progress::Again)
}

fn scheduled_backup(scheduled: &DynamicObject, suffix: &str) -> Value {
    let spec = &scheduled.data["spec"];
    let mut backup = json!({
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Backup",
        "metadata": { "name": format!("{}-{suffix}", scheduled.name_any()), "labels": scheduled.labels() },
        "spec": { "cluster": spec["cluster"], "method": spec["method"] },
    });
    if spec["pluginConfiguration"].is_object() {
        backup["spec"]["pluginConfiguration"] = spec["pluginConfiguration"].clone();
    }
    backup
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// The first time of a schedule after this one. Its first field are the seconds, and its times are those of UTC.
fn next(schedule: &str, after: Timestamp) -> Result<Timestamp, String> {
    let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed).build();
    let cron = parser.parse(schedule).map_err(|error| format!("`{schedule}` is no schedule: {error}"))?;
    let second = Timestamp::from_second(after.as_second()).unwrap_or(after);
    let next = cron.find_next_occurrence(&second.to_zoned(TimeZone::UTC), false);
    next.map(|next| next.timestamp()).map_err(|error| format!("`{schedule}` never comes: {error}"))
}

/// Has the primary make it, once.
pub(in crate::operators) async fn backup(
    context: Arc<Context>,
    object: Arc<DynamicObject>,
) -> Result<Progress, OperatorError> {
    if matches!(object.data["status"]["phase"].as_str(), Some("completed" | "failed")) {
        return Ok(Progress::Done);
    }
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let cluster = object.data["spec"]["cluster"]["name"].as_str().unwrap_or_default();
    let selector = format!("cnpg.io/cluster={cluster},{}={}", super::ROLE, super::PRIMARY);
    let pods = context.pods(&namespace, &selector).await?;
    let Some(pod) = pods.iter().find(|pod| is_ready(pod)) else { return Ok(Progress::Again) };
    let told = pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|container| container.env.iter().flatten());
    if !told.into_iter().any(|variable| variable.name.starts_with(archive::OWN)) {
        let error = "not handled here: a cluster whose archive is not in the Kubernetes cluster";
        context.set_status(&object, json!({ "phase": "failed", "error": error })).await?;
        return Ok(Progress::Done);
    }
    let order = format!("{ARCHIVE} {} backup {name}", archive::OWN);
    let said = context.run_in(&namespace, &pod.name_any(), "postgres", &order).await?;
    let made: archive::Backup = said
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok())
        .ok_or_else(|| OperatorError::Command { pod: pod.name_any(), output: said.clone() })?;
    let time = |seconds: u64| {
        let second = i64::try_from(seconds).ok().and_then(|second| Timestamp::from_second(second).ok());
        second.map(|time| time.to_string())
    };
    let status = json!({
        "phase": "completed",
        "backupId": made.id,
        "backupName": name,
        "method": object.data["spec"]["method"],
        "instanceID": { "podName": pod.name_any() },
        "startedAt": time(made.began),
        "stoppedAt": time(made.ended),
    });
    context.set_status(&object, status).await?;
    Ok(Progress::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_in_the_cluster_is_told_to_the_pods() {
        let declared = json!({
            "destinationPath": "s3://shop-backups/", "endpointURL": "https://archive.shop.svc:8333",
            "endpointCA": { "name": "archive-tls", "key": "ca.crt" },
        });
        let found = Destination::of(archive::OWN, &declared, "rows").expect("it is in the cluster");
        assert_eq!((found.address.as_str(), found.bucket.as_str()), ("archive.shop.svc:8333", "shop-backups"));
        assert_eq!((found.folder.as_str(), found.scheme.as_str()), ("rows", "https"));
        assert!(found.volume().is_some());
        let elsewhere = json!({ "destinationPath": "s3://b/", "endpointURL": "https://s3.eu-central-1.amazonaws.com" });
        assert!(Destination::of(archive::OWN, &elsewhere, "rows").is_none());
    }

    #[test]
    fn a_schedule_has_seconds_and_comes_again_after_the_last_look() {
        let at = |time: &str| time.parse::<Timestamp>().expect("a time");
        let next = |schedule: &str, after: &str| next(schedule, at(after));
        assert_eq!(next("0 0 2 * * *", "2026-11-29T01:59:59Z"), Ok(at("2026-11-29T02:00:00Z")));
        assert_eq!(next("0 0 2 * * *", "2026-11-29T02:00:00Z"), Ok(at("2026-11-30T02:00:00Z")));
        assert_eq!(next("*/5 * * * * *", "2026-11-29T02:00:01.5Z"), Ok(at("2026-11-29T02:00:05Z")));
        assert!(next("0 2 * * *", "2026-11-29T02:00:00Z").is_err(), "it has no seconds");
    }

    #[test]
    fn a_point_in_time_is_told_as_it_is_declared_and_in_seconds() {
        let spec =
            json!({ "bootstrap": { "recovery": { "recoveryTarget": { "targetTime": "2026-11-28T12:00:00Z" } } } });
        let values: Vec<_> = target(&spec).iter().map(|variable| variable["value"].clone()).collect();
        assert_eq!(values, [json!("2026-11-28 12:00:00+00"), json!("1795867200")]);
        assert!(target(&json!({})).is_empty());
    }
}

//! Time windows, as cron triggers of a KEDA `ScaledObject`, or as an annotation for `landfall windows`.
//!
//! KEDA takes the highest number that any trigger asks for, so that a window is a lower bound beside the metrics. It
//! makes the `HorizontalPodAutoscaler` itself; a second one would fight it.
//!
//! Not handled: the upper bound of a window. KEDA has no trigger that asks for fewer copies, and refused one
//! (kedacore/keda#7763); the window's `max` is a note to the user instead.

use std::collections::BTreeSet;

use crate::json::json;
use landfall_model::{Architecture, Finding, Service, Weekday, Window};
use serde_json::Value;

use super::super::metadata::Subject;
use super::behavior;
use crate::object::{Object, compact, unless_empty};

const DAY: u16 = 24 * 60;

/// How long after its time a trigger acts at worst: KEDA asks its triggers every 30 s, and the autoscaler that it made
/// looks every 15 s. In whole minutes, like cron.
const REACTION: u64 = 60;

/// The service of Prometheus that its operator always makes, whatever the Prometheus is called.
const PROMETHEUS: &str = "prometheus-operated";

/// What of the windows no object can say.
pub(super) fn unsayable(name: &str, service: &Service, findings: &mut Vec<Finding>) {
    for window in &service.windows {
        let Some(max) = &window.max else { continue };
        if max.value < service.replicas.ceiling() {
            findings.push(
                Finding::note(
                    "not-rendered",
                    max.span,
                    format!("the upper bound of the window `{}` of `{name}` is not rendered", window.name),
                )
                .on(format!("service.{name}"))
                .because("KEDA's cron trigger asks for a number of copies and cannot hold others back")
                .because(format!("up to {} copies may run in the window", service.replicas.ceiling()))
                .help("lower `replicas.max` if the bound matters at every time of the day"),
            );
        }
    }
}

/// The windows as `landfall windows` reads them.
pub(super) fn annotation(service: &Service) -> String {
    let window = |window: &Window| {
        compact(json!({
            "name": window.name.value.to_string(),
            "days": unless_empty(window.days.iter().map(|day| json!(day.value)).collect()),
            "fromMinute": window.from.minutes(),
            "toMinute": window.to.minutes(),
            "timeZone": &window.time_zone.value,
            "min": window.min.map(|min| min.value),
            "max": window.max.map(|max| max.value),
        }))
    };
    json!({
        "min": super::fewest(service),
        "max": service.replicas.ceiling().max(1),
        "startupSeconds": service.startup.seconds(),
        "windows": service.windows.iter().map(window).collect::<Vec<_>>(),
    })
    .to_string()
}

/// What the autoscaler does not do by itself.
pub(super) fn needs_keeper(architecture: &Architecture, name: &str, service: &Service) -> Finding {
    let environment = architecture.environment.as_ref();
    let environment = environment.map(|environment| format!(" --env {environment}")).unwrap_or_default();
    Finding::note(
        "not-rendered",
        service.windows[0].name.span,
        format!("the time windows of `{name}` are kept while `landfall windows` runs"),
    )
    .on(format!("service.{name}"))
    .also(architecture.document.platform.windows.span, "so it is declared")
    .because("a `HorizontalPodAutoscaler` has the same bounds at every time of the day")
    .help(format!("let `landfall windows{environment}` run beside the cluster, or declare `platform.windows: keda`"))
}

/// The autoscaler of a service with windows.
pub(super) fn scaled_object(
    architecture: &Architecture,
    subject: &Subject<'_>,
    service: &Service,
    findings: &mut Vec<Finding>,
) -> Object {
    let replicas = &service.replicas;
    let (mut floor, mut crons) = (super::fewest(service), Vec::new());
    for window in &service.windows {
        let Some(min) = &window.min else { continue };
        match cron(window, service) {
            Some(trigger) => crons.push(trigger),
            // A window that never ends is no window.
            None => floor = floor.max(min.value),
        }
    }
    let sidecars = architecture.document.platform.mesh.is_some();
    let resource = |kind: &str, share: u32| {
        json!({
            "type": kind,
            "metricType": "Utilization",
            "metadata": { "containerName": sidecars.then_some(subject.name), "value": share.to_string() },
        })
    };
    let mut triggers: Vec<Value> = Vec::new();
    triggers.extend(replicas.cpu.iter().map(|share| resource("cpu", share.whole())));
    triggers.extend(replicas.memory.iter().map(|share| resource("memory", share.whole())));
    triggers.extend(custom(architecture, subject, service, findings));
    triggers.append(&mut crons);
    let value = json!({
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": subject.metadata(subject.name),
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": subject.name },
            "pollingInterval": 30,
            "minReplicaCount": floor,
            "maxReplicaCount": super::most(service).max(floor).max(1),
            "advanced": { "horizontalPodAutoscalerConfig": { "behavior": behavior(replicas) } },
            "triggers": triggers,
        },
    });
    subject.object("scaledobject", value)
}

/// Metrics by name come from Prometheus: their sum over the copies, divided by the wanted value of each copy.
fn custom(
    architecture: &Architecture,
    subject: &Subject<'_>,
    service: &Service,
    findings: &mut Vec<Finding>,
) -> Vec<Value> {
    let observability = &architecture.document.observability;
    let mut triggers = Vec::new();
    for (metric, value) in &service.replicas.custom {
        if observability.metrics.is_none() {
            findings.push(
                Finding::warning(
                    "not-rendered",
                    metric.span,
                    format!("`{}` does not scale by `{metric}`", subject.name),
                )
                .on(format!("service.{}", subject.name))
                .because("a service with windows is scaled by KEDA, which asks Prometheus for metrics by name")
                .help("declare `observability.metrics: prometheus`"),
            );
            continue;
        }
        let query = format!("sum({metric}{{namespace=\"{}\",pod=~\"{}-.+\"}})", subject.namespace, subject.name);
        triggers.push(json!({
            "type": "prometheus",
            "metricType": "AverageValue",
            "metadata": {
                "serverAddress": format!("http://{PROMETHEUS}.{}.svc:9090", observability.namespace),
                "query": query,
                "threshold": value.to_string(),
            },
        }));
    }
    triggers
}

/// The trigger of a window with a minimum; `None` for one that never ends.
///
/// It begins earlier than the window by the time that a copy needs to start, so that copies are ready when the window
/// begins. Windows of neighbouring days that touch are one: KEDA looks only for the next beginning and the next end, and
/// a beginning inside the window of the day before would count as not begun.
fn cron(window: &Window, service: &Service) -> Option<Value> {
    let (from, to) = (window.from.minutes(), window.to.minutes());
    let lead = (service.startup.seconds() + REACTION).div_ceil(60);
    let lead = u16::try_from(lead).unwrap_or(DAY).min(DAY);
    let length = if to > from { to - from } else { to + DAY - from };
    let declared: BTreeSet<u16> = window.days.iter().map(|day| day_of_week(day.value)).collect();
    let days = if declared.is_empty() { (0..7).collect() } else { declared };

    let touching = length + lead >= DAY;
    let begins: BTreeSet<u16> =
        days.iter().copied().filter(|day| !touching || !days.contains(&((day + 6) % 7))).collect();
    let ends: BTreeSet<u16> =
        days.iter().copied().filter(|day| !touching || !days.contains(&((day + 1) % 7))).collect();
    if begins.is_empty() {
        return None;
    }
    let end = from + length;
    let start = from + DAY - lead;
    Some(json!({
        "type": "cron",
        "metadata": {
            "timezone": &window.time_zone.value,
            "start": schedule(start % DAY, &shifted(&begins, start / DAY + 6)),
            "end": schedule(end % DAY, &shifted(&ends, end / DAY)),
            "desiredReplicas": window.min.as_ref().map(ToString::to_string),
        },
    }))
}

/// The days so many days later.
fn shifted(days: &BTreeSet<u16>, by: u16) -> BTreeSet<u16> {
    days.iter().map(|day| (day + by) % 7).collect()
}

/// Five fields of cron.
fn schedule(minutes: u16, days: &BTreeSet<u16>) -> String {
    let days =
        if days.len() == 7 { "*".to_owned() } else { days.iter().map(u16::to_string).collect::<Vec<_>>().join(",") };
    format!("{} {} * * {days}", minutes % 60, minutes / 60)
}

/// The day as cron counts: Sunday is 0.
pub(crate) fn day_of_week(day: Weekday) -> u16 {
    match day {
        Weekday::Sun => 0,
        Weekday::Mon => 1,
        Weekday::Tue => 2,
        Weekday::Wed => 3,
        Weekday::Thu => 4,
        Weekday::Fri => 5,
        Weekday::Sat => 6,
    }
}

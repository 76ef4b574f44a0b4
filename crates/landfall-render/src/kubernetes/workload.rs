//! What runs the pods of a service: a `Deployment`, or a `CronJob` for a scheduled job; and what stands beside it, the
//! `ServiceAccount`, the `Service` and the `PodDisruptionBudget`.

use crate::json::json;
use landfall_model::{Architecture, Finding, Name, Overlap, Rollout, Schedule, Service, ServiceKind, Spanned};
use serde_json::Value;

use super::configuration;
use super::edges::Edges;
use super::metadata::Subject;
use super::pod::{self, Restart};
use super::ports::{self, ServedPort};
use super::scaling::{self, Scaling};
use crate::object::Object;

/// How long a new copy must stay ready before the rollout goes on, in seconds: a program that dies of its first
/// requests stops the rollout instead of taking the next old copy with it.
const SETTLE: u32 = 5;

/// How many old revisions are kept to go back to.
const REVISIONS: u32 = 5;

/// The least time after which a rollout that does not move is called failed, in seconds: Kubernetes' default. Pulling
/// an image and waiting for a new node both fit into it.
const STUCK: u64 = 600;

/// How late a run may begin and is still worth it, in seconds. Less than 100 runs of any schedule fall into it, the
/// number at which Kubernetes gives up on a `CronJob`.
const LATE: u32 = 3600;

/// The longest name of a `CronJob`: Kubernetes adds 11 characters for each run.
const LONGEST_JOB_NAME: usize = 52;

/// The objects of one service, without its autoscaler, its route and its network policy.
pub(super) fn objects(
    architecture: &Architecture,
    edges: &Edges<'_>,
    subject: &Subject<'_>,
    name: &Spanned<Name>,
    service: &Service,
    findings: &mut Vec<Finding>,
) -> Vec<Object> {
    let mut objects = vec![service_account(subject)];
    objects.extend(configuration::config_map(subject, service));
    if let Some(schedule) = &service.schedule {
        objects.push(cron_job(architecture, edges, subject, name, service, schedule, findings));
        return objects;
    }
    objects.push(deployment(architecture, edges, subject, name, service, findings));
    objects.extend(kubernetes_service(subject, service));
    objects.extend(disruption_budget(subject, service));
    objects
}

/// Not handled: cloud credentials by the service account (`security.identity.workloads`). Each provider wants the name
/// of a role that only its account knows; the Terraform target makes the binding.
fn service_account(subject: &Subject<'_>) -> Object {
    let value = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": subject.metadata(subject.name),
        "automountServiceAccountToken": false,
    });
    subject.object("serviceaccount", value)
}

fn deployment(
    architecture: &Architecture,
    edges: &Edges<'_>,
    subject: &Subject<'_>,
    name: &Spanned<Name>,
    service: &Service,
    findings: &mut Vec<Finding>,
) -> Object {
    let replicas = match scaling::of(architecture, service) {
        Scaling::Fixed(count) => Some(count),
        Scaling::Metrics | Scaling::Windows | Scaling::KeptWindows => None,
    };
    let startup = service.startup.seconds();
    let value = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": subject.metadata(subject.name),
        "spec": {
            "replicas": replicas,
            "minReadySeconds": SETTLE,
            "revisionHistoryLimit": REVISIONS,
            "progressDeadlineSeconds": STUCK.max(2 * startup),
            "strategy": strategy(&architecture.rollout(service)),
            "selector": { "matchLabels": subject.selector() },
            "template": pod::template(architecture, edges, subject, name, service, Restart::Always, findings),
        },
    });
    subject.object("deployment", value)
}

/// A canary is the work of `landfall ship`, which runs it beside this `Deployment` and only then changes this one: so
/// here it is a rolling update that never has less than the wanted number of copies.
fn strategy(rollout: &Rollout) -> Value {
    let rolling = |surge: u32, unavailable: u32| json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } });
    match rollout {
        Rollout::Rolling(declared) => rolling(declared.max_surge.value, declared.max_unavailable.value),
        Rollout::Canary(_) => rolling(1, 0),
        Rollout::Recreate => json!({ "type": "Recreate" }),
    }
}

fn cron_job(
    architecture: &Architecture,
    edges: &Edges<'_>,
    subject: &Subject<'_>,
    name: &Spanned<Name>,
    service: &Service,
    schedule: &Schedule,
    findings: &mut Vec<Finding>,
) -> Object {
    if name.as_str().len() > LONGEST_JOB_NAME {
        findings.push(
            Finding::error(
                "not-rendered",
                name.span,
                format!("the name of the scheduled job `{name}` is longer than {LONGEST_JOB_NAME} characters"),
            )
            .on(format!("service.{name}"))
            .because("Kubernetes adds 11 characters for each run, and takes at most 63")
            .help("choose a shorter name"),
        );
    }
    let value = json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": subject.metadata(subject.name),
        "spec": {
            "schedule": &schedule.cron.value,
            // Written even for UTC: without it the schedule follows the clock of the controller's node.
            "timeZone": schedule.time_zone.as_ref().map_or("Etc/UTC", |zone| zone.as_str()),
            "concurrencyPolicy": match schedule.overlap.value {
                Overlap::Forbid => "Forbid",
                Overlap::Allow => "Allow",
                Overlap::Replace => "Replace",
            },
            "startingDeadlineSeconds": LATE,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "metadata": { "labels": subject.labels() },
                "spec": {
                    "backoffLimit": schedule.retries.value,
                    "activeDeadlineSeconds": schedule.deadline.as_ref().map(|deadline| deadline.seconds().max(1)),
                    "template": pod::template(architecture, edges, subject, name, service, Restart::Never, findings),
                },
            },
        },
    });
    subject.object("cronjob", value)
}

fn kubernetes_service(subject: &Subject<'_>, service: &Service) -> Option<Object> {
    let ports = ports::served(service);
    if ports.is_empty() {
        return None;
    }
    let value = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": subject.metadata(subject.name),
        "spec": {
            "type": "ClusterIP",
            "selector": subject.selector(),
            "ports": ports.iter().map(ServedPort::of_service).collect::<Vec<_>>(),
        },
    });
    Some(subject.object("service", value))
}

/// One copy at a time may be taken away on purpose. A service of one copy has none: a budget would then forbid every
/// drain of its node.
fn disruption_budget(subject: &Subject<'_>, service: &Service) -> Option<Object> {
    if scaling::fewest(service) < 2 || service.kind.value == ServiceKind::Mock {
        return None;
    }
    let value = json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": subject.metadata(subject.name),
        "spec": {
            "maxUnavailable": 1,
            "selector": { "matchLabels": subject.selector() },
            // A copy that is not ready serves nobody: it must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    });
    Some(subject.object("pdb", value))
}

//! How the number of copies moves: fixed, by a `HorizontalPodAutoscaler`, or by a KEDA `ScaledObject` where the time of
//! day has a say.

mod windows;

pub(crate) use windows::day_of_week;

use crate::json::json;
use landfall_model::{Architecture, Finding, Percent, Replicas, Service, Spanned, WindowKeeper};
use serde_json::Value;

use super::metadata::Subject;
use crate::object::Object;

/// Who sets the number of copies of a service. Exactly one does: an autoscaler and a number in the `Deployment` undo
/// each other on every apply, and so do two autoscalers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scaling {
    /// The `Deployment`.
    Fixed(u32),
    /// A `HorizontalPodAutoscaler`, by metrics.
    Metrics,
    /// A KEDA `ScaledObject`, by the time of day, and by metrics if there are any.
    Windows,
    /// A `HorizontalPodAutoscaler` whose bounds `landfall windows` moves by the time of day.
    KeptWindows,
}

/// Who sets the number of copies of a service.
pub(super) fn of(architecture: &Architecture, service: &Service) -> Scaling {
    if architecture.document.platform.windows.value == WindowKeeper::Landfall && !service.windows.is_empty() {
        Scaling::KeptWindows
    } else if service.windows.iter().any(|window| window.min.is_some()) {
        Scaling::Windows
    } else if service.replicas.scales() {
        Scaling::Metrics
    } else {
        Scaling::Fixed(service.replicas.floor())
    }
}

/// The annotation of an autoscaler with the windows of its service, which `landfall windows` reads.
const WINDOWS: &str = "landfall.dev/windows";

/// The fewest copies that run at any time.
pub(super) fn fewest(service: &Service) -> u32 {
    service.replicas.floor()
}

/// The most copies that run at any time, without those of a rollout.
pub(super) fn most(service: &Service) -> u32 {
    let windows = service.windows.iter().filter_map(|window| window.min.as_ref()).map(|min| min.value);
    windows.fold(service.replicas.ceiling(), u32::max)
}

/// The autoscaler of a service, if it has one.
pub(super) fn object(
    architecture: &Architecture,
    subject: &Subject<'_>,
    service: &Service,
    findings: &mut Vec<Finding>,
) -> Option<Object> {
    let scaling = of(architecture, service);
    if scaling != Scaling::KeptWindows {
        windows::unsayable(subject.name, service, findings);
    }
    match scaling {
        Scaling::Fixed(_) => None,
        Scaling::Metrics => Some(autoscaler(architecture, subject, service, Value::Null)),
        Scaling::KeptWindows => {
            findings.push(windows::needs_keeper(architecture, subject.name, service));
            let annotations = json!({ WINDOWS: windows::annotation(service) });
            Some(autoscaler(architecture, subject, service, annotations))
        }
        Scaling::Windows => Some(windows::scaled_object(architecture, subject, service, findings)),
    }
}

fn autoscaler(architecture: &Architecture, subject: &Subject<'_>, service: &Service, annotations: Value) -> Object {
    let replicas = &service.replicas;
    let value = json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": subject.metadata_with(subject.name, annotations),
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": subject.name },
            "minReplicas": replicas.floor(),
            "maxReplicas": replicas.ceiling(),
            "metrics": metrics(architecture, subject, replicas),
            "behavior": behavior(replicas),
        },
    });
    subject.object("hpa", value)
}

fn metrics(architecture: &Architecture, subject: &Subject<'_>, replicas: &Replicas) -> Vec<Value> {
    let sidecars = architecture.document.platform.mesh.is_some();
    let resource = |name: &str, share: &Spanned<Percent>| {
        let target = json!({ "type": "Utilization", "averageUtilization": share.whole() });
        // With a sidecar in the pod, only the program's own container says how busy the program is.
        if sidecars {
            let source = json!({ "name": name, "container": subject.name, "target": target });
            json!({ "type": "ContainerResource", "containerResource": source })
        } else {
            json!({ "type": "Resource", "resource": { "name": name, "target": target } })
        }
    };
    let cpu = replicas.cpu.iter().map(|share| resource("cpu", share));
    let memory = replicas.memory.iter().map(|share| resource("memory", share));
    let custom = replicas.custom.iter().map(|(name, value)| {
        let target = json!({ "type": "AverageValue", "averageValue": value.to_string() });
        json!({ "type": "Pods", "pods": { "metric": { "name": &name.value }, "target": target } })
    });
    let mut metrics: Vec<Value> = cpu.chain(memory).chain(custom).collect();
    if metrics.is_empty() {
        // Kubernetes' own default, written down: an autoscaler without a metric scales by it.
        metrics.push(resource("cpu", &Spanned::unwritten(Percent::new(80))));
    }
    metrics
}

fn behavior(replicas: &Replicas) -> Value {
    json!({ "scaleDown": { "stabilizationWindowSeconds": replicas.calm.seconds() } })
}

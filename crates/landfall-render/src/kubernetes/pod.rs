//! The pod of a service: its container, security, placement and volumes.

use crate::json::json;
use landfall_model::{Architecture, Finding, Mesh, Name, Resources, Service, ServiceKind, Spanned};
use serde_json::{Map, Value};

use super::edges::Edges;
use super::metadata::Subject;
use super::ports::{self, ServedPort};
use super::{configuration, environment, placement, priority, probe};
use crate::object::unless_empty;

/// The user and group of every program: any number that is not root, above those that distributions give out.
///
/// A number, because `runAsNonRoot` cannot look up a name that the image gives its user. An image that needs its own
/// user (a file of its own that only that user can read) says so by a patch.
const USER: u32 = 10_001;

/// How long a copy that is stopped still answers, in seconds: so long it may take until every proxy and ingress has
/// heard that it is no longer an endpoint. Kubernetes promises no bound; seconds are seen in practice.
const DRAIN: u64 = 5;

/// When the kubelet starts a stopped container again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restart {
    /// Always: it serves.
    Always,
    /// Never: the Job makes a new pod, so that the logs of each attempt stay.
    Never,
}

/// The pod template of a service.
pub(super) fn template(
    architecture: &Architecture,
    edges: &Edges<'_>,
    subject: &Subject<'_>,
    name: &Spanned<Name>,
    service: &Service,
    restart: Restart,
    findings: &mut Vec<Finding>,
) -> Value {
    let platform = &architecture.document.platform;
    let mut annotations = configuration::annotations(service);
    annotations.extend(platform.mesh.iter().flat_map(mesh_annotations));
    let (volumes, mounts) = configuration::volumes(subject.name, service);
    let ports = ports::served(service);
    let probes = probe::probes(name, service, findings);
    let pull_secret = platform.registry.as_ref().and_then(|registry| registry.pull_secret.as_ref());
    let (image, pull) = image(architecture, name, service);
    let command: Vec<Value> = service.command.iter().map(|word| json!(&word.value)).collect();
    let mut command = command.into_iter();
    let program: Vec<Value> = command.by_ref().take(1).collect();
    json!({
        "metadata": {
            "labels": subject.labels(),
            "annotations": (!annotations.is_empty()).then_some(annotations),
        },
        "spec": {
            "serviceAccountName": subject.name,
            "automountServiceAccountToken": false,
            // Variables for every Service of the namespace slow the start of pods, and nothing declared reads them.
            "enableServiceLinks": false,
            "imagePullSecrets": pull_secret.map(|secret| json!([{ "name": secret.as_str() }])),
            "priorityClassName": service.priority.as_ref().map(|priority| priority::class(architecture, priority.value)),
            "restartPolicy": (restart == Restart::Never).then_some("Never"),
            "terminationGracePeriodSeconds": service.grace.seconds(),
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": { "type": "RuntimeDefault" },
                "sysctls": low_ports(&ports),
            },
            "nodeSelector": placement::node_selector(&service.placement),
            "affinity": placement::affinity(subject, service),
            "tolerations": placement::tolerations(architecture, &service.placement),
            "topologySpreadConstraints": placement::zone_spread(architecture, subject, service),
            "containers": [{
                "name": subject.name,
                "image": image,
                "imagePullPolicy": pull,
                "command": unless_empty(program),
                "args": unless_empty(command.collect()),
                "ports": unless_empty(ports.iter().map(ServedPort::of_container).collect()),
                "env": unless_empty(environment::variables(architecture, edges, name, service, findings)),
                "resources": resources(&service.resources),
                "volumeMounts": unless_empty(mounts),
                "startupProbe": probes.startup,
                "livenessProbe": probes.live,
                "readinessProbe": probes.ready,
                "lifecycle": drain(service, &ports),
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
            }],
            "volumes": unless_empty(volumes),
        },
    })
}

/// The image with its registry, and when it is pulled.
///
/// A service that names no image is built here: it is called after the platform and itself. `landfall ship` puts the
/// digest of the release in its place.
fn image(architecture: &Architecture, name: &Name, service: &Service) -> (String, &'static str) {
    let registry = architecture.document.platform.registry.as_ref().map(|registry| registry.host.trim_end_matches('/'));
    let image = match (&service.image, registry) {
        (Some(image), _) => image.value.clone(),
        (None, Some(_)) => name.to_string(),
        (None, None) => format!("{}/{name}", architecture.document.name),
    };
    let image = match registry {
        Some(host) if !names_registry(&image) => format!("{host}/{image}"),
        _ => image,
    };
    let tag = image.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    // A digest or a version never changes its content; without one the node could keep an old image for ever.
    let fixed = image.contains('@') || tag.is_some_and(|tag| tag != "latest");
    (image, if fixed { "IfNotPresent" } else { "Always" })
}

/// Whether the image already begins with the host of a registry, as container runtimes tell it from a path.
fn names_registry(image: &str) -> bool {
    image.split_once('/').is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost")
}

/// Requests and limits; null when nothing is declared.
pub(super) fn resources(resources: &Resources) -> Value {
    let (mut requests, mut limits) = (Map::new(), Map::new());
    let mut put = |name: &str, low: String, high: String| {
        requests.insert(name.to_owned(), json!(low));
        limits.insert(name.to_owned(), json!(high));
    };
    if let Some(cpu) = &resources.cpu {
        put("cpu", cpu.low.to_string(), cpu.high.to_string());
    }
    if let Some(memory) = &resources.memory {
        put("memory", memory.low.to_string(), memory.high.to_string());
    }
    if let Some(storage) = &resources.storage {
        put("ephemeral-storage", storage.low.to_string(), storage.high.to_string());
    }
    if requests.is_empty() { Value::Null } else { json!({ "requests": requests, "limits": limits }) }
}

/// Programs that are not root may listen below 1024 only where the kernel is told so; the setting is namespaced, and
/// one of those that the restricted Pod Security Standard allows.
fn low_ports(ports: &[ServedPort]) -> Value {
    if ports.iter().any(|port| port.container < 1024) {
        json!([{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }])
    } else {
        Value::Null
    }
}

/// A pause before a copy that serves is told to stop. It is part of the grace, and leaves at least a second of it.
fn drain(service: &Service, ports: &[ServedPort]) -> Value {
    let serves = !ports.is_empty() && (service.kind.serves() || service.kind.value == ServiceKind::Mock);
    let seconds = DRAIN.min(service.grace.seconds().saturating_sub(1));
    if serves && seconds > 0 { json!({ "preStop": { "sleep": { "seconds": seconds } } }) } else { Value::Null }
}

/// What the sidecar of a mesh is told: requests as declared, and that the program waits for it, because its first
/// connection fails otherwise.
fn mesh_annotations(mesh: &Mesh) -> Vec<(String, Value)> {
    let mut annotations =
        vec![("proxy.istio.io/config".to_owned(), json!("{\"holdApplicationUntilProxyStarts\":true}"))];
    if let Some(sidecar) = &mesh.sidecar {
        annotations.push(("sidecar.istio.io/proxyCPU".to_owned(), json!(sidecar.cpu.to_string())));
        annotations.push(("sidecar.istio.io/proxyMemory".to_owned(), json!(sidecar.memory.to_string())));
    }
    annotations
}

//! A store as a plain `StatefulSet`: what every engine has in common there.
//!
//! A `StatefulSet` starts its members in order and gives each a name and a volume. It does not fail over: a member on a
//! dead node stays away until somebody removes the node or deletes the pod by force, and if that member is the primary
//! of a database, there is no primary until then. `check` says so; who wants failover takes the operator.

use crate::json::json;
use serde_json::{Map, Value};

use super::Site;
use super::topics::fingerprint;
use crate::object::{Object, compact, unless_empty};

/// Where the certificate of the store is mounted.
pub(super) const TLS: &str = "/tls";

/// Where the files of the configuration are mounted.
pub(super) const CONFIGURATION: &str = "/etc/landfall";

/// The program of a store and what it needs around it.
#[derive(Debug, Default)]
pub(super) struct Server {
    pub(super) image: String,
    /// The user that owns the data in the image; also its group and the group of its volumes.
    pub(super) user: u32,
    pub(super) command: Vec<String>,
    pub(super) environment: Vec<Value>,
    /// Names and numbers; clients come to the first one.
    pub(super) ports: Vec<(&'static str, u16)>,
    /// Where the volume is mounted.
    pub(super) data: &'static str,
    /// Whether the volume outlives the pod.
    pub(super) keeps_data: bool,
    /// Folders that are written but not kept.
    pub(super) scratch: Vec<&'static str>,
    /// Files under [`CONFIGURATION`].
    pub(super) files: Vec<(&'static str, String)>,
    pub(super) startup: Value,
    pub(super) ready: Value,
    pub(super) live: Value,
    pub(super) lifecycle: Value,
    /// Containers that run before the server, with their mounts; they get its security context.
    pub(super) before: Vec<Value>,
    /// More volumes and their mounts.
    pub(super) volumes: Vec<Value>,
    pub(super) mounts: Vec<Value>,
    pub(super) clients: Clients,
    pub(super) start: Start,
    /// How long it gets to stop, in seconds.
    pub(super) grace: u64,
}

/// Which members clients reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Clients {
    /// Any.
    #[default]
    Any,
    /// The first, which is the primary: there is nobody who would choose another.
    First,
}

/// In which order members start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Start {
    /// One after the other, each ready before the next.
    #[default]
    Ordered,
    /// All at once: none is ready before a majority is there.
    Together,
}

/// A probe with the pace of a database: it may be slow under load, and a restart makes that worse.
pub(super) fn probe(handler: &Value, period: u32, failures: u32) -> Value {
    let mut probe = handler.as_object().cloned().unwrap_or_default();
    probe.insert("periodSeconds".to_owned(), json!(period));
    probe.insert("timeoutSeconds".to_owned(), json!(5));
    probe.insert("failureThreshold".to_owned(), json!(failures));
    Value::Object(probe)
}

/// A command that must exit with 0.
pub(super) fn exec(command: &[&str]) -> Value {
    json!({ "exec": { "command": command } })
}

/// A port that must accept a connection.
pub(super) fn tcp(port: &str) -> Value {
    json!({ "tcpSocket": { "port": port } })
}

/// What no container of a store may do. The file system of the image stays as it is.
pub(super) fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
    })
}

/// The objects of the store.
pub(super) fn objects(site: &Site<'_>, server: Server) -> Vec<Object> {
    let mut objects = vec![client_service(site, &server), members_service(site, &server)];
    let files: Map<String, Value> =
        server.files.iter().map(|(name, content)| ((*name).to_owned(), json!(content))).collect();
    let configuration = (!files.is_empty()).then(|| {
        let value = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": site.subject.metadata(&configuration_name(site)),
            "data": files,
        });
        site.object("configmap", value)
    });
    objects.extend(configuration);
    if site.members() > 1 {
        objects.push(disruption_budget(site));
    }
    objects.push(statefulset(site, server));
    objects
}

/// One member at a time may be taken away on purpose.
pub(super) fn disruption_budget(site: &Site<'_>) -> Object {
    let value = json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": site.subject.metadata(site.name()),
        "spec": {
            "maxUnavailable": 1,
            "selector": { "matchLabels": site.subject.selector() },
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    });
    site.object("pdb", value)
}

fn configuration_name(site: &Site<'_>) -> String {
    format!("{}-configuration", site.name())
}

fn client_service(site: &Site<'_>, server: &Server) -> Object {
    let mut selector = site.subject.selector();
    if server.clients == Clients::First {
        selector["apps.kubernetes.io/pod-index"] = json!("0");
    }
    let value = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": site.subject.metadata(site.name()),
        "spec": {
            "selector": selector,
            "ports": service_ports(&server.ports[..1]),
        },
    });
    site.object("service", value)
}

fn members_service(site: &Site<'_>, server: &Server) -> Object {
    let value = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": site.subject.metadata(&site.members_service()),
        "spec": {
            "clusterIP": "None",
            // Members look for each other before they are ready.
            "publishNotReadyAddresses": true,
            "selector": site.subject.selector(),
            "ports": service_ports(&server.ports),
        },
    });
    site.object("service-members", value)
}

fn service_ports(ports: &[(&str, u16)]) -> Vec<Value> {
    ports.iter().map(|(name, port)| json!({ "name": name, "port": port, "targetPort": name })).collect()
}

fn statefulset(site: &Site<'_>, server: Server) -> Object {
    let selector = site.subject.selector();
    let ports: Vec<Value> =
        server.ports.iter().map(|(name, port)| json!({ "name": name, "containerPort": port })).collect();
    let (mut volumes, mut mounts) = (server.volumes, server.mounts);
    mounts.push(json!({ "name": "data", "mountPath": server.data }));
    for (index, path) in server.scratch.iter().enumerate() {
        mounts.push(json!({ "name": format!("scratch-{index}"), "mountPath": path }));
        volumes.push(json!({ "name": format!("scratch-{index}"), "emptyDir": {} }));
    }
    let checksum = server.files.iter().fold(String::new(), |all, (name, content)| all + name + content);
    if !server.files.is_empty() {
        mounts.push(json!({ "name": "configuration", "mountPath": CONFIGURATION, "readOnly": true }));
        volumes.push(json!({ "name": "configuration", "configMap": { "name": configuration_name(site) } }));
    }
    if site.has_own_certificate() {
        mounts.push(json!({ "name": "tls", "mountPath": TLS, "readOnly": true }));
        // Readable by the owner and the group of the volume: servers refuse keys that everybody can read.
        volumes.push(
            json!({ "name": "tls", "secret": { "secretName": site.certificate_secret(), "defaultMode": 0o440 } }),
        );
    }
    if !server.keeps_data {
        volumes.push(json!({ "name": "data", "emptyDir": { "sizeLimit": site.volume_size() } }));
    }
    let before = server.before.into_iter().map(|mut container| {
        container["securityContext"] = container_security();
        container["resources"] = site.resources();
        container
    });
    let claims = server.keeps_data.then(|| {
        // The API server fills these two in; written out, a comparison with the live object finds no difference.
        json!([{ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "data" }, "spec": site.claim() }])
    });
    let value = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": site.subject.metadata(site.name()),
        "spec": {
            "serviceName": site.members_service(),
            "replicas": site.members(),
            "podManagementPolicy": if server.start == Start::Together { "Parallel" } else { "OrderedReady" },
            "selector": { "matchLabels": &selector },
            "template": {
                "metadata": {
                    "labels": site.pod_labels(),
                    // A server reads its configuration when it starts: a change of it has to be a change of the pod.
                    "annotations": (!checksum.is_empty())
                        .then(|| json!({ "landfall.dev/configuration": format!("{:08x}", fingerprint(&checksum)) })),
                },
                "spec": {
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": server.grace.max(30),
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": server.user,
                        "runAsGroup": server.user,
                        "fsGroup": server.user,
                        // Without it a start walks through the whole volume first.
                        "fsGroupChangePolicy": "OnRootMismatch",
                        "seccompProfile": { "type": "RuntimeDefault" },
                    },
                    "nodeSelector": site.node_selector(),
                    "affinity": site.affinity(&selector),
                    "tolerations": site.tolerations(),
                    "topologySpreadConstraints": site.topology_spread(&selector),
                    "initContainers": unless_empty(before.collect()),
                    "containers": [{
                        "name": site.store.engine.value.as_str(),
                        "image": server.image,
                        "command": server.command,
                        "ports": ports,
                        "env": unless_empty(server.environment),
                        "resources": site.resources(),
                        "volumeMounts": mounts,
                        "startupProbe": server.startup,
                        "livenessProbe": server.live,
                        "readinessProbe": server.ready,
                        "lifecycle": server.lifecycle,
                        "securityContext": container_security(),
                    }],
                    "volumes": unless_empty(volumes),
                },
            },
            "volumeClaimTemplates": claims,
        },
    });
    site.object("statefulset", compact(value))
}

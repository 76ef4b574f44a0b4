//! Externals: each has a stand-in in a namespace of its own, for they are no part of the platform.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use landfall_model::{Architecture, Element, ExternalProtocol};
use landfall_standin::{CONTROL_PORT, Callback, ExternalBehaviour, container_security, pod_security};
use serde_json::{Value, json};

use super::{CALL_TIMEOUT_MS, EdgePlan, Place, Plan, edge_name, millis};

/// The image of an external's stand-in is made up here, as no architecture names one.
const EXTERNAL_IMAGE: &str = "landfall/external";

/// What the container of its stand-in is called.
pub(in crate::commands::up) const EXTERNAL_CONTAINER: &str = "external";

/// Where an external's stand-in listens: any user may.
pub(in crate::commands::up) const EXTERNAL_PORT: u16 = 8443;

/// What a stand-in that no file speaks of asks for of the processor. One that asks for nothing gets 2 of 1024 shares, which on
/// a busy machine is no answer for seconds, and what it stands for would seem to be away.
const STANDIN_CPU: &str = "100m";

/// Gives the Service of a stand-in the name of the external in the DNS of the pods.
const HOSTNAME: &str = "external-dns.alpha.kubernetes.io/hostname";

/// Says to which external a stand-in belongs.
pub(in crate::commands::up) const EXTERNAL_LABEL: &str = "landfall.dev/external";

impl Plan {
    pub(super) fn add_externals(&mut self, architecture: &Architecture, program: &Path, place: &Place) {
        for (name, external) in &architecture.document.externals {
            if self.is_left_out(name.as_str()) {
                self.leave_out_edges(architecture, &Element::External(name.value.clone()));
                continue;
            }
            if external.protocol.value != ExternalProtocol::Http {
                // Not handled: stand-ins that speak gRPC, MQTT, SMTP or a protocol of their own.
                let problem = format!("not handled yet: external `{name}`, which does not speak HTTP");
                self.left_out.push(problem.clone());
                self.absent.insert(name.to_string(), problem);
                continue;
            }
            let callbacks = self.callbacks(architecture, &Element::External(name.value.clone()));
            let profile = &external.profile;
            self.externals.push(ExternalBehaviour {
                external: name.to_string(),
                latency_ms: profile.latency.as_ref().map_or(0, |latency| millis(latency.value)),
                errors: profile.errors.as_ref().map_or(0.0, |errors| errors.fraction()),
                limit: profile.limit.as_ref().map(|limit| limit.per_second()),
                callbacks,
                flows: BTreeMap::new(),
            });
            let file = place.behaviour(&format!("external-{name}"));
            self.image(format!("{EXTERNAL_IMAGE}/{name}"), program, &["external", &file.display().to_string()]);
            let host = external.host.as_ref().map_or_else(|| name.to_string(), |host| host.value.clone());
            self.additions.extend(self.external_objects(name.as_str(), &host));
        }
        if !self.externals.is_empty() {
            let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": self.outside } });
            self.additions.insert(0, namespace);
        }
    }

    /// The calls that an external makes: to exposed services, through the gateway, as the model allows no others.
    fn callbacks(&mut self, architecture: &Architecture, external: &Element) -> Vec<Callback> {
        let mut callbacks = Vec::new();
        for connection in architecture.from(external) {
            let name = edge_name(connection);
            let expose = architecture.service(connection.to.name()).and_then(|service| service.expose.as_ref());
            let left_out = self.is_left_out(connection.to.name());
            if let Some(expose) = expose.filter(|_| !left_out) {
                let edge = &connection.edge;
                callbacks.push(Callback {
                    name: name.clone(),
                    host: expose.host.value.clone(),
                    path: expose.path.value.clone(),
                    tls: expose.tls.is_some(),
                    timeout_ms: edge.timeout.as_ref().map_or(CALL_TIMEOUT_MS, |timeout| millis(timeout.value)),
                    retries: edge.retries.as_ref().map_or(0, |retries| retries.value),
                });
            }
            let to = connection.to.name().to_owned();
            let missing = match self.absent.get(&to) {
                Some(problem) if left_out => Some(problem.clone()),
                _ => expose.is_none().then(|| format!("`{to}` is not exposed")),
            };
            self.edges.push(EdgePlan { name, from: external.name().to_owned(), to, missing, left_out });
        }
        callbacks
    }

    /// A pod that answers for an external, and the way to it. Policies of the architecture open the public internet,
    /// where no pod is: so each service that may call the external may call its stand-in, too.
    fn external_objects(&self, name: &str, host: &str) -> Vec<Value> {
        let labels = json!({ EXTERNAL_LABEL: name });
        let metadata = |name: &str| json!({ "name": name, "namespace": self.outside, "labels": labels });
        // Programs call the external by its name.
        let mut service = metadata(name);
        service["annotations"] = json!({ HOSTNAME: host });
        vec![
            json!({
                "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": metadata(name),
                "spec": {
                    "secretName": format!("{name}-tls"), "dnsNames": [host],
                    "issuerRef": { "kind": "ClusterIssuer", "name": "landfall" },
                },
            }),
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": service,
                "spec": { "selector": labels, "ports": [{ "name": "https", "port": 443, "targetPort": EXTERNAL_PORT }] },
            }),
            deployment(
                &metadata(name),
                &labels,
                json!({
                    "name": EXTERNAL_CONTAINER,
                    "image": format!("{EXTERNAL_IMAGE}/{name}"),
                    "ports": [{ "containerPort": EXTERNAL_PORT }, { "containerPort": CONTROL_PORT }],
                    "readinessProbe": { "tcpSocket": { "port": EXTERNAL_PORT }, "periodSeconds": 1 },
                    "volumeMounts": [{ "name": "tls", "mountPath": "/tls" }],
                }),
                &json!([{ "name": "tls", "secret": { "secretName": format!("{name}-tls") } }]),
            ),
        ]
    }

    /// Opens the way from a service to the stand-ins of the externals that it may call.
    pub(super) fn door(&self, namespace: &str, service: &str, platform: &str, externals: &BTreeSet<&str>) -> Value {
        let to: Vec<_> = externals
            .iter()
            .map(|external| {
                json!({
                    "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": self.outside } },
                    "podSelector": { "matchLabels": { EXTERNAL_LABEL: external } },
                })
            })
            .collect();
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "name": format!("{service}-externals-on-this-machine"), "namespace": namespace },
            "spec": {
                "podSelector": { "matchLabels": {
                    "app.kubernetes.io/name": service, "app.kubernetes.io/part-of": platform,
                } },
                "policyTypes": ["Egress"],
                "egress": [{ "to": to, "ports": [{ "protocol": "TCP", "port": EXTERNAL_PORT }] }],
            },
        })
    }
}

/// A Deployment that only a run on one machine has: one copy, whose pod meets the strictest of the Pod Security Standards.
pub(super) fn deployment(metadata: &Value, labels: &Value, mut container: Value, volumes: &Value) -> Value {
    container["securityContext"] = container_security();
    container["resources"] = json!({ "requests": { "cpu": STANDIN_CPU } });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": {
            "selector": { "matchLabels": labels },
            "replicas": 1,
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "automountServiceAccountToken": false,
                    "securityContext": pod_security(),
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    })
}

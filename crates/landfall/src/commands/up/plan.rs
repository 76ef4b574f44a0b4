//! What has to run: from an architecture and its rendered objects to behaviours, images, nodes, and what cannot be had.

mod flows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;
use landfall_engine::{Catalogue, Entry, NodeSpec};
use landfall_model::{Architecture, Connection, Element, Engine, Expose, ExternalProtocol, Name, Verb};
use landfall_standin::{Action, EdgeBehaviour, ExternalBehaviour, Server, ServiceBehaviour, find_server};
use serde_json::{Value, json};

pub(super) use self::flows::FlowPlan;

use super::place::Place;

/// The first argument with which this program becomes a stand-in.
pub(crate) const STANDIN: &str = "__standin";

/// How long a call may take that declares nothing, in milliseconds.
const CALL_TIMEOUT_MS: u64 = 5_000;

/// How long a cached value stays that declares nothing, in milliseconds.
const CACHE_MS: u64 = 60_000;

/// The image of an external's stand-in is made up here, as no architecture names one.
const EXTERNAL_IMAGE: &str = "landfall/external";

/// Where an external's stand-in listens: any user may.
pub(super) const EXTERNAL_PORT: u16 = 8443;

/// Says to which external a stand-in belongs.
pub(super) const EXTERNAL_LABEL: &str = "landfall.dev/external";

/// What has to run.
pub(super) struct Plan {
    /// The namespace of the stand-ins of externals.
    pub(super) outside: String,
    /// The rendered objects that run here.
    pub(super) objects: Vec<Value>,
    /// Objects that only a run on one machine needs.
    pub(super) additions: Vec<Value>,
    pub(super) services: Vec<ServiceBehaviour>,
    pub(super) externals: Vec<ExternalBehaviour>,
    pub(super) stores: Vec<StorePlan>,
    pub(super) edges: Vec<EdgePlan>,
    pub(super) flows: Vec<FlowPlan>,
    pub(super) images: Catalogue,
    pub(super) nodes: Vec<NodeSpec>,
    /// When it was made, in whole seconds, as the times of containers are.
    pub(super) begun: Timestamp,
    /// What keeps it from running.
    pub(super) obstacles: Vec<String>,
    /// What does not run, and nothing needs it to.
    pub(super) left_out: Vec<String>,
}

/// A store that runs.
pub(super) struct StorePlan {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) engine: Engine,
    /// What runs here, such as `PostgreSQL 15.14`.
    pub(super) server: String,
    /// What the architecture asks for, such as `17`.
    pub(super) declared: Option<String>,
    pub(super) members: usize,
    /// The custom resource that says when it is whole, if its pods alone do not.
    pub(super) resource: Option<(String, String)>,
}

/// A declared edge that begins at a service.
pub(super) struct EdgePlan {
    pub(super) name: String,
    pub(super) service: String,
}

/// Makes the plan. `authority` is the certificate that stand-ins trust.
pub(super) fn plan(
    architecture: &Architecture,
    objects: Vec<Value>,
    program: &Path,
    place: &Place,
    authority: &str,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan {
        outside: format!("{}-externals", architecture.namespace()),
        objects,
        additions: Vec::new(),
        services: Vec::new(),
        externals: Vec::new(),
        stores: Vec::new(),
        edges: Vec::new(),
        flows: Vec::new(),
        images: Catalogue::default(),
        nodes: nodes(architecture),
        begun: now,
        obstacles: Vec::new(),
        left_out: Vec::new(),
    };
    plan.add_stores(architecture, program);
    plan.add_externals(architecture, program, place);
    plan.add_services(architecture, program, place, authority);
    let (flows, obstacles) = flows::plan(architecture, &mut plan.services);
    plan.flows = flows;
    plan.obstacles.extend(obstacles);
    plan
}

/// Every node of the file, in the zones of its pool or of the primary region in turn.
fn nodes(architecture: &Architecture) -> Vec<NodeSpec> {
    let mut nodes = Vec::new();
    for (pool, declared) in architecture.pools() {
        let zones: Vec<&Name> = match declared.zones.as_slice() {
            [] => architecture.zones().iter().map(|zone| &zone.value).collect(),
            own => own.iter().map(|zone| &zone.value).collect(),
        };
        for number in 0..declared.count.value as usize {
            let name = format!("{pool}-{}", number + 1);
            let node = NodeSpec::new(name, declared.cpu.to_string(), declared.memory.to_string());
            nodes.push(match zones.get(number % zones.len().max(1)) {
                Some(zone) => node.in_zone(zone.as_str()),
                None => node,
            });
        }
    }
    if nodes.is_empty() {
        nodes.push(NodeSpec::new("node-1", "8", "32Gi"));
    }
    nodes
}

/// The kinds that a small operator makes into a real server: with the field that names the image.
const OPERATED: &[(&str, Engine, Server, &str)] = &[
    ("Cluster", Engine::Postgres, Server::Postgres, "/spec/imageName"),
    ("RabbitmqCluster", Engine::Rabbitmq, Server::Rabbitmq, "/spec/image"),
    ("RedisCluster", Engine::Redis, Server::Redis, "/spec/kubernetesConfig/image"),
];

impl Plan {
    fn add_stores(&mut self, architecture: &Architecture, program: &Path) {
        for (name, store) in &architecture.document.stores {
            let engine = store.engine.value;
            let made_by = self.objects.iter().find_map(|object| {
                let (kind, _, server, image) =
                    OPERATED.iter().find(|(kind, of, ..)| object["kind"] == *kind && *of == engine)?;
                (object["metadata"]["name"] == name.as_str()).then_some((*kind, *server, *image, object))
            });
            let used: BTreeSet<String> = architecture
                .to(&Element::Store(name.value.clone()))
                .map(|connection| connection.from.name().to_owned())
                .collect();
            let Some((kind, server, image, object)) = made_by else {
                self.leave_out(name.as_str(), &used, format!("not handled yet: {} store `{name}`", engine.as_str()));
                continue;
            };
            let Some(found) = find_server(server) else {
                let problem =
                    format!("store `{name}`: no {} server on this machine; try: {}", server.as_str(), server.remedy());
                self.leave_out(name.as_str(), &used, problem);
                continue;
            };
            let image = object.pointer(image).and_then(Value::as_str).unwrap_or_default().to_owned();
            let resource = object["apiVersion"].as_str().unwrap_or_default().to_owned();
            self.image(image, program, &["server", server.as_str()]);
            self.stores.push(StorePlan {
                name: name.to_string(),
                namespace: architecture.namespace_of(&Element::Store(name.value.clone())).to_string(),
                engine,
                server: found.version,
                declared: store.version.as_ref().map(|version| version.value.clone()),
                members: store.members.value as usize,
                resource: (kind == "RedisCluster").then(|| (resource, kind.to_owned())),
            });
        }
    }

    /// Takes the workloads of a store away. Somebody needs it: an obstacle.
    fn leave_out(&mut self, name: &str, used: &BTreeSet<String>, problem: String) {
        self.objects.retain(|object| {
            let workload = ["StatefulSet", "Deployment", "Job", "CronJob"].iter().any(|kind| object["kind"] == *kind);
            !(workload && object["metadata"]["labels"]["app.kubernetes.io/name"] == name)
        });
        if used.is_empty() {
            self.left_out.push(format!("{problem}; no service uses it"));
        } else {
            let users: Vec<_> = used.iter().map(String::as_str).collect();
            self.obstacles.push(format!("{problem}, which {} need", users.join(", ")));
        }
    }

    fn image(&mut self, image: String, program: &Path, arguments: &[&str]) {
        let mut args = vec![STANDIN.to_owned()];
        args.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self.images.images.push(Entry {
            image,
            program: Some(program.display().to_string()),
            args,
            ignore_command: true,
            ..Entry::default()
        });
    }

    fn add_externals(&mut self, architecture: &Architecture, program: &Path, place: &Place) {
        for (name, external) in &architecture.document.externals {
            if external.protocol.value != ExternalProtocol::Http {
                self.obstacles.push(format!("not handled yet: external `{name}`, which does not speak HTTP"));
                continue;
            }
            if !external.uses.is_empty() {
                self.left_out.push(format!("not handled yet: calls that come from the external `{name}`"));
            }
            let profile = &external.profile;
            self.externals.push(ExternalBehaviour {
                external: name.to_string(),
                latency_ms: profile.latency.as_ref().map_or(0, |latency| millis(latency.value)),
                errors: profile.errors.as_ref().map_or(0.0, |errors| errors.fraction()),
                limit: profile.limit.as_ref().map(|limit| limit.per_second()),
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

    /// A pod that answers for an external, and the way to it. Policies of the architecture open the public internet,
    /// where no pod is: so each service that may call the external may call its stand-in, too.
    fn external_objects(&self, name: &str, host: &str) -> Vec<Value> {
        let labels = json!({ EXTERNAL_LABEL: name });
        let metadata = |name: &str| json!({ "name": name, "namespace": self.outside, "labels": labels });
        vec![
            json!({
                "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": metadata(name),
                "spec": {
                    "secretName": format!("{name}-tls"), "dnsNames": [host],
                    "issuerRef": { "kind": "ClusterIssuer", "name": "landfall" },
                },
            }),
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": metadata(name),
                "spec": { "selector": labels, "ports": [{ "name": "https", "port": 443, "targetPort": EXTERNAL_PORT }] },
            }),
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(name),
                "spec": {
                    "selector": { "matchLabels": labels },
                    "template": {
                        "metadata": { "labels": labels },
                        "spec": {
                            "automountServiceAccountToken": false,
                            "containers": [{
                                "name": "external",
                                "image": format!("{EXTERNAL_IMAGE}/{name}"),
                                "ports": [{ "containerPort": EXTERNAL_PORT }],
                                "readinessProbe": { "tcpSocket": { "port": EXTERNAL_PORT }, "periodSeconds": 1 },
                                "volumeMounts": [{ "name": "tls", "mountPath": "/tls" }],
                            }],
                            "volumes": [{ "name": "tls", "secret": { "secretName": format!("{name}-tls") } }],
                        },
                    },
                },
            }),
        ]
    }

    /// Opens the way from a service to the stand-ins of the externals that it may call.
    fn door(&self, namespace: &str, service: &str, platform: &str, externals: &BTreeSet<&str>) -> Value {
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

    fn add_services(&mut self, architecture: &Architecture, program: &Path, place: &Place, authority: &str) {
        let mut images: BTreeMap<String, String> = BTreeMap::new();
        for (name, service) in &architecture.document.services {
            let element = Element::Service(name.value.clone());
            let Some(image) = self.image_of(name.as_str()) else {
                self.obstacles
                    .push(format!("not handled yet: service `{name}`, which is no Deployment or StatefulSet"));
                continue;
            };
            if let Some(other) = images.insert(image.clone(), name.to_string()) {
                let problem =
                    format!("not handled yet: services `{other}` and `{name}`, which share the image `{image}`");
                self.obstacles.push(problem);
                continue;
            }
            let mut edges = Vec::new();
            for connection in architecture.from(&element) {
                let edge = edge_name(connection);
                match self.action(architecture, name.as_str(), connection) {
                    Ok(action) => edges.push(EdgeBehaviour { name: edge.clone(), action }),
                    Err(problem) => self.obstacles.push(format!("edge `{edge}`: {problem}")),
                }
                self.edges.push(EdgePlan { name: edge, service: name.to_string() });
            }
            let probes = [&service.probes.ready, &service.probes.startup];
            let ready = probes.iter().filter_map(|probe| probe.as_ref()?.http.as_ref().map(|path| path.value.clone()));
            let behaviour = ServiceBehaviour {
                service: name.to_string(),
                ports: service.all_ports().iter().map(|(_, port)| port.port.get()).collect(),
                ready: ready.collect(),
                edges,
                flows: BTreeMap::new(),
                authority: authority.to_owned(),
            };
            let file = place.behaviour(name.as_str());
            self.image(image, program, &["service", &file.display().to_string()]);
            self.services.push(behaviour);
            let externals: BTreeSet<&str> = architecture
                .from(&element)
                .filter(|connection| matches!(connection.to, Element::External(_)))
                .map(|connection| connection.to.name())
                .collect();
            if !externals.is_empty() {
                let namespace = architecture.namespace_of(&element).as_str();
                let platform = architecture.document.name.as_str();
                let door = self.door(namespace, name.as_str(), platform, &externals);
                self.additions.push(door);
            }
        }
    }

    /// The image of the workload that a service was rendered as.
    fn image_of(&self, service: &str) -> Option<String> {
        let workload = self.objects.iter().find(|object| {
            let kind = object["kind"].as_str().unwrap_or_default();
            matches!(kind, "Deployment" | "StatefulSet" | "Rollout") && object["metadata"]["name"] == service
        })?;
        let mut containers = workload.pointer("/spec/template/spec/containers")?.as_array()?.iter();
        containers.find(|container| container["name"] == service)?["image"].as_str().map(ToOwned::to_owned)
    }

    fn action(&self, architecture: &Architecture, service: &str, connection: &Connection) -> Result<Action, String> {
        let edge = &connection.edge;
        let detail = connection.detail.clone().unwrap_or_default();
        let call = |address: String, server_name: Option<String>| Action::Http {
            address,
            server_name,
            path: format!("/{detail}"),
            timeout_ms: edge.timeout.as_ref().map_or(CALL_TIMEOUT_MS, |timeout| millis(timeout.value)),
            retries: edge.retries.as_ref().map_or(0, |retries| retries.value),
        };
        match &connection.to {
            Element::Client => Err("nobody calls the client".to_owned()),
            Element::Service(to) => {
                let declared = architecture.service(to.as_str()).expect("an edge leads to a service that is there");
                let (_, port) =
                    declared.port_named(edge.port.as_ref().map(|port| &port.value)).ok_or("no such port")?;
                let namespace = architecture.namespace_of(&connection.to);
                Ok(call(format!("{to}.{namespace}.svc:{}", port.service_port()), None))
            }
            Element::External(to) => {
                let external = architecture.external(to.as_str()).expect("an edge leads to an external that is there");
                let host = external.host.as_ref().map_or_else(|| to.to_string(), |host| host.value.clone());
                Ok(call(format!("{to}.{}.svc:443", self.outside), Some(host)))
            }
            Element::Store(to) => {
                let store = architecture.store(to.as_str()).expect("an edge leads to a store that is there");
                let url = || {
                    url_variable(architecture, service, to.as_str())
                        .ok_or_else(|| format!("no variable of `{service}` has the URL of `{to}`: add `env: {{ …: {{ store: {to}/url }} }}`"))
                };
                let table = || if detail.is_empty() { to.to_string() } else { detail.clone() };
                match (store.engine.value, connection.verb) {
                    (Engine::Postgres, Verb::Read | Verb::Query) => {
                        Ok(Action::Sql { url: url()?, table: table(), writes: false })
                    }
                    (Engine::Postgres, Verb::Write | Verb::Store) => {
                        Ok(Action::Sql { url: url()?, table: table(), writes: true })
                    }
                    (Engine::Redis, verb @ (Verb::Read | Verb::Write | Verb::Cache)) => Ok(Action::Redis {
                        url: url()?,
                        prefix: table(),
                        keep_ms: (verb != Verb::Read)
                            .then(|| edge.ttl.as_ref().map_or(CACHE_MS, |ttl| millis(ttl.value))),
                        cluster: store.shards.is_some(),
                    }),
                    (Engine::Rabbitmq, Verb::Publish) => Ok(Action::Publish { url: url()?, exchange: detail }),
                    (Engine::Rabbitmq, Verb::Consume) => {
                        let queue = format!("{detail}.{service}");
                        Ok(Action::Consume { url: url()?, exchange: detail, queue })
                    }
                    (engine, verb) => Err(format!("not handled yet: `{verb}` at a {} store", engine.as_str())),
                }
            }
        }
    }
}

fn url_variable(architecture: &Architecture, service: &str, store: &str) -> Option<String> {
    let wanted = format!("{store}/url");
    let environment = &architecture.service(service)?.env;
    environment.iter().find_map(|(variable, value)| {
        let from = value.store.as_ref()?;
        (from.to_string() == wanted).then(|| variable.to_string())
    })
}

/// `balance publish events/balance.changed`.
pub(super) fn edge_name(connection: &Connection) -> String {
    let detail = connection.detail.as_ref().map(|detail| format!("/{detail}")).unwrap_or_default();
    format!("{} {} {}{detail}", connection.from.name(), connection.verb, connection.to.name())
}

/// The exposure of a service, by its name.
pub(super) fn exposure<'a>(architecture: &'a Architecture, service: &str) -> Option<&'a Expose> {
    architecture.service(service)?.expose.as_ref()
}

pub(super) fn millis(duration: landfall_model::Duration) -> u64 {
    std::time::Duration::from_secs_f64(duration.as_secs_f64()).as_millis().try_into().unwrap_or(u64::MAX)
}

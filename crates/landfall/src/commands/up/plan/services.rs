//! Services: what the stand-in of each does, which image it stands behind, and where a program takes its place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use landfall_model::{Architecture, Connection, Element, MetricKind, Name, Service};
use landfall_standin::{BusinessCount, CountKind, EdgeBehaviour, ServiceBehaviour};
use serde_json::{Map, Value, json};

use super::{EdgePlan, Place, Plan, edge_name, millis};

impl Plan {
    pub(super) fn add_services(&mut self, architecture: &Architecture, program: &Path, place: &Place, authority: &str) {
        let mut images: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, service) in &architecture.document.services {
            let image = self.workload(name.as_str()).and_then(|(_, container)| container["image"].as_str());
            // Whatever version a release brings is the same stand-in.
            let Some(image) = image.map(|image| repository(image).to_owned()) else {
                // Not handled: services that are rendered as something else.
                let problem =
                    format!("not handled yet: service `{name}`, which is no Deployment, StatefulSet or CronJob");
                self.left_out.push(problem.clone());
                self.absent.insert(name.to_string(), problem);
                continue;
            };
            images.entry(image).or_default().push(name.to_string());
            let edges = self.edges_of(architecture, &Element::Service(name.value.clone()));
            let program = service.run.as_ref().and_then(|run| self.own_program(name.as_str(), service, run, place));
            self.services.push(ServiceBehaviour {
                program,
                ..behaviour(architecture, name.as_str(), service, edges, authority, place)
            });
            self.open_doors(architecture, &name.value);
            self.add_secrets(architecture, &name.value);
        }
        for (image, services) in images {
            let files: Vec<String> =
                services.iter().map(|service| place.behaviour(service).display().to_string()).collect();
            match files.as_slice() {
                [file] => self.image(image, program, &["service", file]),
                several => {
                    let mut arguments = vec!["service-of", "{{pod_name}}"];
                    arguments.extend(several.iter().map(String::as_str));
                    self.image(image, program, &arguments);
                }
            }
            if let Some(entry) = self.images.images.last_mut() {
                entry.writable = services.iter().map(|service| place.ledger(service)).collect();
            }
        }
    }

    /// The edges that a service can perform here; of the others it is written down why not.
    fn edges_of(&mut self, architecture: &Architecture, element: &Element) -> Vec<EdgeBehaviour> {
        let mut edges = Vec::new();
        for connection in architecture.from(element) {
            let name = edge_name(connection);
            let action = match self.absent.get(connection.to.name()) {
                Some(problem) => Err(problem.clone()),
                None => self.action(architecture, element.name(), connection),
            };
            let missing = match action {
                Ok(action) => {
                    let optional = connection.edge.optional.value;
                    edges.push(EdgeBehaviour { name: name.clone(), action, every_ms: every_ms(connection), optional });
                    None
                }
                Err(problem) => Some(problem),
            };
            let to = connection.to.name().to_owned();
            self.edges.push(EdgePlan { name, from: element.name().to_owned(), to, missing });
        }
        edges
    }

    /// The pod template and the container that a service was rendered as.
    fn workload(&self, service: &str) -> Option<(&Value, &Value)> {
        let workload = self.objects.iter().find(|object| {
            let kind = object["kind"].as_str().unwrap_or_default();
            matches!(kind, "Deployment" | "StatefulSet" | "Rollout" | "CronJob")
                && object["metadata"]["name"] == service
        })?;
        let template =
            workload.pointer("/spec/template").or_else(|| workload.pointer("/spec/jobTemplate/spec/template"))?;
        let mut containers = template.pointer("/spec/containers")?.as_array()?.iter();
        Some((template, containers.find(|container| container["name"] == service)?))
    }

    fn open_doors(&mut self, architecture: &Architecture, service: &Name) {
        let element = Element::Service(service.clone());
        let externals: BTreeSet<&str> = architecture
            .from(&element)
            .filter(|connection| matches!(connection.to, Element::External(_)))
            .map(|connection| connection.to.name())
            .filter(|external| !self.absent.contains_key(*external))
            .collect();
        if !externals.is_empty() {
            let namespace = architecture.namespace_of(&element).as_str();
            let platform = architecture.document.name.as_str();
            let door = self.door(namespace, service.as_str(), platform, &externals);
            self.additions.push(door);
        }
    }

    /// Secrets that the operator of a store would make which is not here: the pods would wait for them for ever. Nobody
    /// uses what is in them.
    fn add_secrets(&mut self, architecture: &Architecture, service: &Name) {
        let provided: BTreeSet<&str> = self.objects.iter().chain(&self.additions).filter_map(provides).collect();
        let Some((template, _)) = self.workload(service.as_str()) else { return };
        let mut needed = BTreeMap::new();
        references(template, &mut needed);
        needed.retain(|name, _| {
            let of_absent = self.absent.keys().any(|store| {
                name.strip_prefix(store.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            });
            of_absent && !provided.contains(name.as_str())
        });
        let namespace = architecture.namespace_of(&Element::Service(service.clone())).as_str();
        for (name, keys) in needed {
            let data: Map<String, Value> = keys.into_iter().map(|key| (key, json!("absent"))).collect();
            self.additions.push(json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": { "name": name, "namespace": namespace },
                "stringData": data,
            }));
        }
    }
}

fn behaviour(
    architecture: &Architecture,
    name: &str,
    service: &Service,
    edges: Vec<EdgeBehaviour>,
    authority: &str,
    place: &Place,
) -> ServiceBehaviour {
    let probes = &service.probes;
    let paths = |probes: &[&Option<landfall_model::Probe>]| {
        probes.iter().filter_map(|probe| probe.as_ref()?.http.as_ref()).map(|path| path.value.clone()).collect()
    };
    let business = architecture.document.observability.business.iter();
    let business =
        business.filter(|(_, metric)| metric.from.as_str() == name).map(|(metric, declared)| BusinessCount {
            name: metric.to_string(),
            kind: match declared.kind.value {
                MetricKind::Counter => CountKind::Counter,
                MetricKind::Gauge => CountKind::Gauge,
                MetricKind::Ratio => CountKind::Ratio,
            },
        });
    ServiceBehaviour {
        service: name.to_owned(),
        ports: service.all_ports().iter().map(|(_, port)| port.port.get()).collect(),
        ready: paths(&[&probes.ready, &probes.startup]),
        probes: paths(&[&probes.live, &probes.ready, &probes.startup]),
        runs_once: service.schedule.is_some(),
        business: business.collect(),
        edges,
        flows: BTreeMap::new(),
        // A job ends by itself, and tells in its log what it has done.
        ledger: service.schedule.is_none().then(|| place.ledger(name).display().to_string()),
        authority: authority.to_owned(),
        program: None,
    }
}

/// An image without its tag or digest.
fn repository(image: &str) -> &str {
    let tagged = image.split_once('@').map_or(image, |(tagged, _)| tagged);
    match tagged.rsplit_once(':') {
        // A colon before the last slash belongs to a port.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => tagged,
    }
}

/// How often an edge is used by itself: as often as declared, but no flow counts on it.
fn every_ms(connection: &Connection) -> Option<u64> {
    let by_rate = connection.edge.rate.as_ref().map(|rate| std::time::Duration::from_secs_f64(1.0 / rate.per_second()));
    let by_rate = by_rate.map(|every| u64::try_from(every.as_millis()).unwrap_or(u64::MAX));
    by_rate.or_else(|| connection.edge.every.as_ref().map(|every| millis(every.value)))
}

/// The name of the secret that an object is or leads to.
fn provides(object: &Value) -> Option<&str> {
    match object["kind"].as_str()? {
        "Secret" => object["metadata"]["name"].as_str(),
        "Certificate" => object["spec"]["secretName"].as_str(),
        "ExternalSecret" => object.pointer("/spec/target/name").or_else(|| object.pointer("/metadata/name"))?.as_str(),
        _ => None,
    }
}

/// The secrets that a pod template names, with the keys that it asks for.
fn references(value: &Value, found: &mut BTreeMap<String, BTreeSet<String>>) {
    match value {
        Value::Object(fields) => {
            if let Some(name) = value.pointer("/secretKeyRef/name").and_then(Value::as_str) {
                let key = value.pointer("/secretKeyRef/key").and_then(Value::as_str).unwrap_or_default();
                found.entry(name.to_owned()).or_default().insert(key.to_owned());
            }
            if let Some(name) = value.pointer("/secret/secretName").and_then(Value::as_str) {
                found.entry(name.to_owned()).or_default();
            }
            fields.values().for_each(|field| references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_of_an_image_has_its_repository() {
        for image in [
            "hub.example:5000/web",
            "hub.example:5000/web:1.1",
            "hub.example:5000/web:1.1@sha256:ab",
            "hub.example:5000/web@sha256:ab",
        ] {
            assert_eq!(repository(image), "hub.example:5000/web");
        }
        assert_eq!(repository("web:1"), "web");
    }
}

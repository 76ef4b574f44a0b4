//! Services: what the stand-in of each does, which image it stands behind, and where a program takes its place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use landfall_engine::{Catalogue, Entry, MetricsPlace};
use landfall_model::{Architecture, Connection, Element, MetricKind, Name, Service, ServiceKind};
use landfall_standin::{BusinessCount, CountKind, EdgeBehaviour, ServiceBehaviour};
use serde_json::Value;

use super::programs::program_of;
use super::{EdgePlan, Place, Plan, edge_name, millis};

impl Plan {
    pub(super) fn add_services(
        &mut self,
        architecture: &Architecture,
        program: &Path,
        place: &Place,
        authority: &str,
        catalogue: &Catalogue,
    ) {
        // By the repository and the entry of the catalogue.
        let mut groups = BTreeMap::<_, Vec<(String, String)>>::new();
        for (name, service) in &architecture.document.services {
            if self.is_left_out(name.as_str()) {
                self.leave_out_edges(architecture, &Element::Service(name.value.clone()));
                continue;
            }
            let image = self.workload(name.as_str()).and_then(|(_, container)| container["image"].as_str());
            let Some(image) = image.map(ToOwned::to_owned) else {
                // Not handled: services that are rendered as something else.
                let problem =
                    format!("not handled yet: service `{name}`, which is no Deployment, StatefulSet or CronJob");
                self.left_out.push(problem.clone());
                self.absent.insert(name.to_string(), problem);
                continue;
            };
            let position = catalogue.position(&image);
            groups.entry((repository(&image).to_owned(), position)).or_default().push((name.to_string(), image));
            let edges = self.edges_of(architecture, &Element::Service(name.value.clone()));
            let program = match (position, &service.run) {
                (Some(position), _) => {
                    self.program_of_image(name.as_str(), service, &catalogue.images[position], place)
                }
                (None, Some(run)) => self.own_program(name.as_str(), service, run, place),
                (None, None) => None,
            };
            self.services.push(ServiceBehaviour {
                program,
                ..behaviour(architecture, name.as_str(), service, edges, authority, place)
            });
            self.open_doors(architecture, &name.value);
            self.add_secrets(architecture, &name.value);
        }
        for ((repository, position), services) in &groups {
            // Whatever version a release brings is the same, unless versions of one image are different things already.
            let is_one = groups.keys().filter(|(other, _)| other == repository).count() == 1;
            let own = services.iter().map(|(_, image)| image.as_str());
            let images: BTreeSet<&str> = if is_one { [repository.as_str()].into() } else { own.collect() };
            let services: Vec<&str> = services.iter().map(|(service, _)| service.as_str()).collect();
            let (metrics, problem) = told(architecture, &services);
            self.left_out.extend(problem);
            let entry = position.map(|position| &catalogue.images[position]);
            for image in images {
                self.image_of(image, &services, entry, program, place);
                if let Some(made) = self.images.images.last_mut() {
                    made.metrics = entry.and_then(|entry| entry.metrics.clone()).or_else(|| metrics.clone());
                }
            }
        }
    }

    /// Leads an image to the stand-ins or programs of the services that have it.
    fn image_of(&mut self, image: &str, services: &[&str], entry: Option<&Entry>, program: &Path, place: &Place) {
        let files: Vec<String> =
            services.iter().map(|service| place.behaviour(service).display().to_string()).collect();
        let mut arguments = match files.as_slice() {
            [_] => vec!["service"],
            _ => vec!["service-of", "{{pod_name}}"],
        };
        arguments.extend(files.iter().map(String::as_str));
        let named = entry.and_then(|entry| program_of(entry, place.folder()));
        arguments.extend(named.iter().flat_map(|_| ["--"]));
        arguments.extend(named.iter().flatten().map(String::as_str));
        self.image(image.to_owned(), program, &arguments);
        let Some(made) = self.images.images.last_mut() else { return };
        made.writable = services.iter().map(|service| place.ledger(service)).collect();
        if let Some(entry) = entry {
            made.env.clone_from(&entry.env);
            made.files.clone_from(&entry.files);
            made.writable.extend(entry.writable.iter().cloned());
            made.stop_signal.clone_from(&entry.stop_signal);
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
            let left_out = self.is_left_out(&to);
            self.edges.push(EdgePlan { name, from: element.name().to_owned(), to, missing, left_out });
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
        let all = self.objects.iter().chain(&self.additions).filter_map(|object| Some((provides(object)?, object)));
        let (waiting, provided): (Vec<_>, Vec<_>) = all.partition(|(_, object)| self.waits_for(object).is_some());
        let is_among = |all: &[(&str, &Value)], name: &str| all.iter().any(|(other, _)| *other == name);
        let Some((template, _)) = self.workload(service.as_str()) else { return };
        let mut needed = BTreeMap::new();
        references(template, &mut needed);
        needed.retain(|name, _| {
            let stores = architecture.document.stores.keys().map(|store| store.as_str());
            let names = stores.chain(self.absent.keys().map(String::as_str));
            let of_absent = owner_of(names, name).is_some_and(|owner| self.absent.contains_key(owner));
            is_among(&waiting, name) || (of_absent && !is_among(&provided, name))
        });
        let namespace = architecture.namespace_of(&Element::Service(service.clone())).to_string();
        for (name, keys) in needed {
            self.placeholders.entry((namespace.clone(), name)).or_default().extend(keys);
        }
    }
}

/// Where the pods of an image tell metrics, for autoscalers: on a cluster the `ServiceMonitor`s of its services say that. Where they
/// do not agree on the number of the port they may do so on its name; otherwise it is told in words whose autoscaler lacks it.
fn told(architecture: &Architecture, services: &[&str]) -> (Option<MetricsPlace>, Option<String>) {
    let declared = services.iter().filter_map(|name| Some((name, architecture.service(name)?)));
    let scraped: Vec<_> = declared
        .filter(|(_, service)| service.metrics.scrape.value && service.kind.value != ServiceKind::ScheduledJob)
        .filter_map(|(name, service)| {
            let named = service.metrics.port.as_ref().map(|port| &port.value);
            let (port_name, port) = service.port_named(named)?;
            let number = IntOrString::Int(i32::from(port.port.get()));
            Some((name, service, [number, IntOrString::String(port_name)]))
        })
        .collect();
    let Some((_, first, ports)) = scraped.first() else { return (None, None) };
    let same_path = scraped.iter().all(|(_, service, _)| service.metrics.path.value == first.metrics.path.value);
    let shared = (0..ports.len()).find(|form| scraped.iter().all(|(.., own)| own[*form] == ports[*form]));
    if let Some(form) = shared.filter(|_| same_path) {
        return (Some(MetricsPlace { port: ports[form].clone(), path: first.metrics.path.value.clone() }), None);
    }
    let scaled = scraped.iter().filter(|(_, service, _)| !service.replicas.custom.is_empty());
    let scaled: Vec<String> = scaled.map(|(name, ..)| format!("`{name}`")).collect();
    let problem = format!(
        "not handled yet: services of one image that tell metrics at several places: {} do not scale by their own metrics",
        scaled.join(", ")
    );
    (None, (!scaled.is_empty()).then_some(problem))
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

/// Whose of these a Secret is by its name, which begins with that of its owner: `rows-old-app` is of `rows-old` and not of `rows`.
fn owner_of<'a>(names: impl Iterator<Item = &'a str>, secret: &str) -> Option<&'a str> {
    let is_of = |name: &&str| secret.strip_prefix(*name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    names.filter(is_of).max_by_key(|name| name.len())
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
    use crate::commands::up::architecture_of;

    #[test]
    fn an_image_tells_metrics_where_all_of_its_services_do() {
        let text = "
landfall: v1
name: shop
services:
  web: { port: 8080, replicas: { min: 1, max: 3, custom: { waiting: 10 } } }
  worker: { port: 8080 }
  other: { port: 9000 }
  admin: { ports: { http: 8080, admin: 9000 }, metrics: { port: admin, path: /stats } }
  silent: { port: 7000, metrics: { scrape: false } }
  nightly: { kind: scheduled-job, schedule: '0 2 * * *', port: 7000 }
";
        let architecture = architecture_of(text);
        let found = |services: &[&str]| {
            let (place, problem) = told(&architecture, services);
            (place.map(|place| (place.port, place.path)), problem)
        };
        let at = |port, path: &str| (Some((port, path.to_owned())), None);
        assert_eq!(found(&["web", "worker", "silent", "nightly"]), at(IntOrString::Int(8080), "/metrics"));
        assert_eq!(found(&["admin"]), at(IntOrString::Int(9000), "/stats"));
        assert_eq!(found(&["web", "other"]), at(IntOrString::String("http".to_owned()), "/metrics"));
        assert_eq!(found(&["silent", "nightly"]), (None, None));
        assert_eq!(found(&["worker", "admin"]), (None, None), "nobody asks for them");
        let problem = "not handled yet: services of one image that tell metrics at several places: `web` do not scale by their own metrics";
        assert_eq!(found(&["web", "admin"]), (None, Some(problem.to_owned())));
    }

    #[test]
    fn a_secret_belongs_to_the_store_with_the_longest_name_that_it_begins_with() {
        let of = |secret: &str| owner_of(["rows", "rows-old"].into_iter(), secret);
        assert_eq!((of("rows-app"), of("rows-old-app"), of("rows")), (Some("rows"), Some("rows-old"), Some("rows")));
        assert_eq!((of("rowset"), of("sessions-app")), (None, None));
    }

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

//! What has to run: from an architecture and its rendered objects to behaviours, images, nodes, and what cannot be had.

mod alerts;
mod externals;
mod firewall;
mod flows;
mod foreign;
mod metrics;
mod observability;
mod part;
mod programs;
mod services;
mod stores;
mod unenforced;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use landfall_engine::{Catalogue, Entry, NodeSpec};
use landfall_model::{Architecture, Connection, Element, Engine, Name};
use landfall_standin::{Action, ExternalBehaviour, Server, ServiceBehaviour};
use serde_json::{Value, json};

pub(super) use self::alerts::{
    ALERTMANAGER, ALERTMANAGER_LABEL, ALERTMANAGER_PORT, AlertPath, AlertsPlan, CONFIGURATION, STEP,
};
pub(super) use self::externals::{EXTERNAL_CONTAINER, EXTERNAL_LABEL, EXTERNAL_PORT};
pub(super) use self::firewall::{FIREWALL_HEADER, FirewallPlan, Guarded, REFUSED};
pub(super) use self::flows::{Entrance, FlowPlan, PayloadPlan};
pub(super) use self::foreign::LOOK_IMAGE;
pub(super) use self::metrics::{Counted, MetricsPlan, PROMETHEUS, PROMETHEUS_LABEL, PROMETHEUS_PORT, Scraped, TARGETS};
pub(super) use self::observability::{SINK_LABEL, SinkPlan, name_of};
pub(super) use self::part::PartPlan;
pub(super) use self::programs::{ProgramPlan, missing as missing_programs};
pub(super) use self::stores::PROGRAM;
pub(crate) use self::stores::server_of;

use super::apply::Placeholders;
use super::part::Part;
use super::place::Place;

/// The first argument with which this program becomes a stand-in.
pub(crate) const STANDIN: &str = "__standin";

/// How long a call may take that declares nothing, in milliseconds.
const CALL_TIMEOUT_MS: u64 = 5_000;

/// What has to run.
pub(super) struct Plan {
    /// The namespace of the stand-ins of externals.
    pub(super) outside: String,
    /// A namespace that is no part of the platform.
    pub(super) foreign: String,
    /// The rendered objects that run here.
    pub(super) objects: Vec<Value>,
    /// Objects that only a run on one machine needs.
    pub(super) additions: Vec<Value>,
    /// Secrets that the operator of a store would make which is not here.
    pub(super) placeholders: Placeholders,
    pub(super) services: Vec<ServiceBehaviour>,
    pub(super) externals: Vec<ExternalBehaviour>,
    pub(super) stores: Vec<StorePlan>,
    pub(super) edges: Vec<EdgePlan>,
    pub(super) flows: Vec<FlowPlan>,
    pub(super) images: Catalogue,
    /// Programs that pods call by their names, and which server each leads to.
    pub(super) programs: BTreeMap<&'static str, Server>,
    pub(super) nodes: Vec<NodeSpec>,
    /// When it was made, in whole seconds, as the times of containers are.
    pub(super) begun: Timestamp,
    /// The pods that run on from before, as whoever ran them was killed: by their uids.
    pub(super) left_running: BTreeSet<String>,
    /// The stores and externals that cannot be had here, and why: everything else runs.
    pub(super) absent: BTreeMap<String, String>,
    /// What does not run, in words.
    pub(super) left_out: Vec<String>,
    /// Of what a part runs, where `--only` asks for one.
    pub(super) part: Option<PartPlan>,
    /// The services that the file or the user's catalogue has run by programs of their own, and those programs.
    pub(super) own_programs: Vec<ProgramPlan>,
    /// Where logs and traces go, if any are declared.
    pub(super) sink: Option<SinkPlan>,
    /// Who measures the services, where that is declared and can be had.
    pub(super) metrics: Option<MetricsPlan>,
    /// Who tells whom of alerts, where that is declared and can be had.
    pub(super) alerts: Option<AlertsPlan>,
    /// The firewall before the gateway, where one is declared and can be had.
    pub(super) firewall: Option<FirewallPlan>,
    /// This program, as pods find it.
    pub(super) landfall: PathBuf,
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
    /// What its members are labelled with.
    pub(super) labels: Vec<(String, String)>,
    /// The custom resource that says when it is whole, if its pods alone do not.
    pub(super) resource: Option<(String, String)>,
    /// The operator that a small one stands in for, unless it is a plain `StatefulSet`.
    pub(super) operator: Option<&'static str>,
}

/// A declared edge.
pub(super) struct EdgePlan {
    pub(super) name: String,
    /// The service or external that it begins at.
    pub(super) from: String,
    /// Whom it leads to.
    pub(super) to: String,
    /// Why nobody performs it here.
    pub(super) missing: Option<String>,
    /// Whether that is so because `--only` leaves out where it begins or ends.
    pub(super) left_out: bool,
}

/// Makes the plan of a part. `authority` is the certificate that stand-ins trust.
pub(super) fn plan(
    architecture: &Architecture,
    objects: Vec<Value>,
    program: &Path,
    place: &Place,
    authority: &str,
    part: &Part,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan {
        outside: format!("{}-externals", architecture.namespace()),
        foreign: format!("{}-foreign", architecture.namespace()),
        objects,
        additions: Vec::new(),
        placeholders: Placeholders::new(),
        services: Vec::new(),
        externals: Vec::new(),
        stores: Vec::new(),
        edges: Vec::new(),
        flows: Vec::new(),
        images: Catalogue::default(),
        programs: BTreeMap::new(),
        nodes: nodes(architecture),
        begun: now,
        left_running: BTreeSet::new(),
        absent: BTreeMap::new(),
        left_out: Vec::new(),
        part: None,
        own_programs: Vec::new(),
        sink: None,
        metrics: None,
        alerts: None,
        firewall: None,
        landfall: program.to_owned(),
    };
    plan.add_credentials(architecture);
    plan.add_part(architecture, part);
    plan.add_stores(architecture, program, place, &part.without);
    plan.add_externals(architecture, program, place);
    plan.add_services(architecture, program, place, authority, &part.images);
    plan.add_metrics(architecture, program);
    // After it, as alerts go there, too.
    plan.add_sink(architecture, program);
    plan.add_foreign(program);
    plan.add_storage_classes();
    let here = plan.here(architecture);
    plan.add_firewall(&here, program);
    // Last, as what `up` itself makes of images goes before it.
    plan.add_catalogue(&part.images);
    plan.add_unenforced(&here);
    let left_out = plan.all_left_out();
    let (services, externals) = (&mut plan.services, &mut plan.externals);
    plan.flows = flows::plan(architecture, services, externals, &plan.edges, &left_out, place.folder());
    plan.left_out.extend(plan.flows.iter().filter_map(FlowPlan::too_small));
    plan
}

/// Every node of the file and of its stores, in the zones of its pool or of the primary region in turn.
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
    // Machines that only a store may use, as its pods ask for them by label. Not handled: the taint that keeps others away.
    for (name, store) in &architecture.document.stores {
        if !store.own_machines.value || store.provider.value.is_managed() {
            continue;
        }
        for number in 0..store.members.value as usize {
            let mut node = NodeSpec::new(format!("{name}-machine-{}", number + 1), "8", "32Gi");
            node.labels.insert("landfall.dev/store".to_owned(), name.to_string());
            let zones = architecture.zones();
            nodes.push(match zones.get(number % zones.len().max(1)) {
                Some(zone) => node.in_zone(zone.value.as_str()),
                None => node,
            });
        }
    }
    if nodes.is_empty() {
        nodes.push(NodeSpec::new("node-1", "8", "32Gi"));
    }
    nodes
}

/// The storage classes that an object names, in the claims of Kubernetes and in those of operators.
fn storage_classes(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let named = ["storageClassName", "storageClass"].iter().filter_map(|field| fields.get(*field)?.as_str());
            found.extend(named.map(ToOwned::to_owned));
            fields.values().for_each(|field| storage_classes(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| storage_classes(item, found)),
        _ => {}
    }
}

impl Plan {
    /// The storage classes of a cluster's provider: here each is a folder, as the engine's own class is.
    fn add_storage_classes(&mut self) {
        let mut classes = BTreeSet::new();
        self.objects.iter().for_each(|object| storage_classes(object, &mut classes));
        let rendered = |name: &String| {
            let mut objects = self.objects.iter();
            objects.any(|object| object["kind"] == "StorageClass" && object["metadata"]["name"] == *name)
        };
        classes.retain(|name| !rendered(name));
        self.additions.extend(classes.into_iter().map(|name| {
            json!({
                "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": name },
                "provisioner": "landfall.dev/folder", "volumeBindingMode": "WaitForFirstConsumer",
            })
        }));
    }

    /// Makes a namespace, unless it is declared.
    fn ensure_namespace(&mut self, namespace: &str) {
        let is_declared = |object: &Value| object["kind"] == "Namespace" && object["metadata"]["name"] == namespace;
        if !self.objects.iter().chain(&self.additions).any(is_declared) {
            self.additions
                .insert(0, json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }));
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
            Element::Store(to) => Self::store_action(architecture, service, to, connection),
        }
    }
}

/// `balance publish events/balance.changed`.
pub(super) fn edge_name(connection: &Connection) -> String {
    let detail = connection.detail.as_ref().map(|detail| format!("/{detail}")).unwrap_or_default();
    format!("{} {} {}{detail}", connection.from.name(), connection.verb, connection.to.name())
}

pub(super) fn millis(duration: landfall_model::Duration) -> u64 {
    std::time::Duration::from_secs_f64(duration.as_secs_f64()).as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plan of a part, from the objects that are rendered.
    pub(super) fn planned(architecture: &Architecture, part: &Part) -> Plan {
        let objects = landfall_render::kubernetes(architecture).into_values();
        let place = Place::of(Path::new("/shop/landfall.yaml"), architecture.document.name.as_str(), None);
        plan(architecture, objects, Path::new("/bin/landfall"), &place, "", part, Timestamp::UNIX_EPOCH)
    }
}

//! The calls of the modules of Google Cloud.

use landfall_model::{EdgeLayer, Engine, Finding};

use super::hcl::{Value, raw};
use super::machines;
use super::managed::{Argument, Managed, buckets, identify, identity_of_people, kubernetes_version, names};
use super::needs::Site;
use super::root::Root;

/// Adds everything that the region needs.
pub(super) fn calls(root: &mut Root, site: &Site<'_>, findings: &mut Vec<Finding>) {
    let prefix = site.prefix();
    let location = Value::from(site.location.as_str());
    if site.has_cluster() {
        root.call(site, "network", "network", vec![("name", prefix.clone().into()), ("location", location.clone())]);
        cluster(root, site, findings);
    }
    for managed in Managed::all(site) {
        store(root, &managed, findings);
    }
    names(root, site, vec![("zone", format!("{prefix}-names").into())]);
    if site.has_registry() {
        let arguments = vec![("name", prefix.clone().into()), ("location", location.clone()), ("kms_key_id", key())];
        root.call(site, "registry", "registry", arguments);
        root.output("image_url", "Where images are pushed to.", "module.registry.url");
    }
    if site.has_secrets() {
        // The names of secrets have no slashes here.
        let names = site.secrets().into_keys().map(|path| path.replace('/', "-"));
        let arguments = vec![("secrets", Value::texts(names)), ("location", location), ("kms_key_id", key())];
        root.call(site, "secrets", "secrets", arguments);
    }
    for identity in site.identities() {
        let mut arguments = vec![
            ("name", site.short(&identity.name).into()),
            ("project", raw("var.project")),
            ("namespace", identity.namespace.as_str().into()),
            ("service_account", identity.account.as_str().into()),
        ];
        arguments.extend(buckets(&identity, "name").map(|buckets| ("buckets", buckets)));
        if identity.secrets {
            arguments.push(("secret_ids", raw("module.secrets.ids")));
        }
        identify(root, site, &identity, arguments);
    }
    edge(root, site);
}

fn key() -> Value {
    raw("module.network.kms_key_id")
}

fn cluster(root: &mut Root, site: &Site<'_>, findings: &mut Vec<Finding>) {
    let platform = &site.architecture.document.platform;
    let what = "Who may reach the API server, as CIDR blocks.";
    let addresses = root.variable("api_addresses", "list(string)", what, Some(Value::List(Vec::new())));
    root.call(
        site,
        "cluster",
        "cluster",
        vec![
            ("name", site.prefix().into()),
            ("project", raw("var.project")),
            ("location", site.location.as_str().into()),
            ("zones", Value::texts(&site.zones)),
            kubernetes_version(site),
            ("network_id", raw("module.network.network_id")),
            ("subnet_id", raw("module.network.subnet_id")),
            ("kms_key_id", key()),
            ("private_api", platform.private_api.value.into()),
            ("api_addresses", addresses),
            ("pools", machines::pools(site, findings)),
        ],
    );
    let why = "a GKE cluster takes another issuer by an object in it, which needs its own Identity Service";
    identity_of_people(site, why, "enable the service and apply a `ClientConfig` that names the issuer", findings);
    root.output("cluster_name", "The name of the cluster.", "module.cluster.name");
    root.output("cluster_endpoint", "The address of the API server.", "module.cluster.endpoint");
}

fn store(root: &mut Root, managed: &Managed<'_>, findings: &mut Vec<Finding>) {
    let site = managed.site;
    if managed.engine() == Engine::S3 {
        bucket(root, managed, findings);
        return;
    }
    if !managed.has_module() {
        findings.push(managed.unknown());
        return;
    }
    let members = managed.members();
    let (cpu, memory) = machines::size(managed.store);
    let memory = memory.get().div_ceil(1 << 30);
    let mut arguments: Vec<Argument> =
        vec![("name", managed.own_name.as_str().into()), ("location", site.location.as_str().into())];
    match managed.engine() {
        Engine::Postgres => {
            let Some(instance) = managed.instance(findings) else { return };
            let copy = managed.copies().first().map_or(site.location.as_str(), |(_, location)| *location);
            arguments.push(instance);
            arguments.extend(managed.relational());
            arguments.push(("network_id", raw("module.network.network_id")));
            arguments.push(managed.backup_days(1, 365));
            arguments.push(("backup_location", copy.into()));
        }
        Engine::Redis => {
            arguments.push(managed.version());
            arguments.push(("size", memory.into()));
            arguments.push(("replicas", members.saturating_sub(1).min(5).into()));
            arguments.push(("network_id", raw("module.network.network_id")));
            arguments.push(managed.require_tls());
        }
        Engine::Kafka => {
            let cores = (cpu.millicores() * u64::from(members)).div_ceil(1000).max(3);
            // The provider takes from 1 to 8 GiB for each core.
            let memory = (memory * u64::from(members)).clamp(cores, cores * 8);
            let (replication, in_sync) = managed.replication(3);
            arguments.push(("cpu", cores.into()));
            arguments.push(("memory", memory.into()));
            arguments.push(("subnet_id", raw("module.network.subnet_id")));
            arguments.push(managed.topics(|settings| {
                let own = settings.replication.as_ref().map_or(replication, |own| own.value);
                vec![("replication", own.into()), ("in_sync", in_sync.into())]
            }));
        }
        Engine::Mongodb | Engine::Rabbitmq | Engine::S3 | Engine::Mqtt | Engine::Elasticsearch => {}
    }
    arguments.push(("kms_key_id", key()));
    managed.place(root, managed.engine().as_str(), arguments);
}

/// A bucket, in one region or in two: the provider keeps the copy of two regions of one continent, or of India.
fn bucket(root: &mut Root, managed: &Managed<'_>, findings: &mut Vec<Finding>) {
    let site = managed.site;
    let group = |location: &str| match location.split('-').next() {
        Some("europe") => Some("EU"),
        Some("us") => Some("US"),
        _ if location.starts_with("asia-south1") || location.starts_with("asia-south2") => Some("IN"),
        _ => None,
    };
    let mut arguments: Vec<Argument> = vec![("name", managed.own_name.as_str().into())];
    match managed.copies().as_slice() {
        [(_, copy)] if group(copy).is_some() && group(copy) == group(&site.location) => {
            arguments.push(("location", group(copy).unwrap_or_default().into()));
            arguments.push(("copy_regions", Value::texts([site.location.as_str(), *copy])));
        }
        copies => {
            arguments.push(("location", site.location.as_str().into()));
            if !copies.is_empty() {
                let what = format!("no Terraform makes the copies of `{}` on gcp", managed.name.value);
                findings.push(
                    Finding::note("not-rendered", managed.name.span, what)
                        .on(format!("store.{}", managed.name.value))
                        .because("a bucket spans two regions of Europe, of the United States or of India at most"),
                );
            }
            if site.has_cluster() {
                arguments.push(("kms_key_id", key()));
            }
        }
    }
    arguments.extend(managed.keep_days());
    managed.place(root, "bucket", arguments);
}

fn edge(root: &mut Root, site: &Site<'_>) {
    let hosts = site.edge_hosts();
    if hosts.is_empty() {
        return;
    }
    let zone = root.variable("dns_zone", "string", "The managed DNS zone that the names of the platform are in.", None);
    let what = "The network endpoint groups of the cluster's ingress, one for each zone; empty until it is there.";
    let groups = root.variable("network_endpoint_groups", "list(string)", what, Some(Value::List(Vec::new())));
    root.call(
        site,
        "edge",
        "edge",
        vec![
            ("name", site.prefix().into()),
            ("hosts", Value::texts(hosts)),
            ("zone", zone),
            ("cdn", site.has_edge(EdgeLayer::Cdn).into()),
            ("waf", site.has_edge(EdgeLayer::Waf).into()),
            ("network_endpoint_groups", groups),
        ],
    );
    root.output("edge_address", "The address of the edge.", "module.edge.address");
}
